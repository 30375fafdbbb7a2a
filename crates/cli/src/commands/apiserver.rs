//! `stead apiserver`: the Kubernetes API alone, for people's own controller tests.

use std::process::ExitCode;

use crate::args::Apiserver;
use crate::commands::up::Interrupts;
use crate::failure::Failure;
use crate::place::Place;

/// Serves until told to end. Prints the path of the kubeconfig once it answers.
pub(crate) async fn run(args: Apiserver, place: &Place) -> Result<ExitCode, Failure> {
    place.create()?;
    let mut interrupts = Interrupts::catch()?;
    let options = stead_apiserver::AloneOptions {
        data_dir: place.dir.clone(),
        listen: args.listen,
        in_memory: args.in_memory,
    };
    let server = stead_apiserver::start_alone(options).await;
    let server =
        server.map_err(|error| Failure::caused("could not start the API server", &error))?;
    println!("{}", server.kubeconfig().display());
    interrupts.next().await;
    server.shutdown().await;
    Ok(ExitCode::SUCCESS)
}
