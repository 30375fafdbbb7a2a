//! `stead kubeconfig`: where clients find the key to this cluster.

use std::fs;
use std::process::ExitCode;

use crate::args::Kubeconfig;
use crate::failure::Failure;
use crate::place::Place;

/// Prints the path of the kubeconfig, or the file itself.
pub(crate) fn run(args: &Kubeconfig, place: &Place) -> Result<ExitCode, Failure> {
    let path = place.kubeconfig();
    let text = fs::read_to_string(&path).map_err(|error| {
        Failure::not_running(format!(
            "could not read {}: {error}; `stead up` writes it",
            path.display()
        ))
    })?;
    if args.print {
        print!("{text}");
    } else {
        println!("{}", path.display());
    }
    Ok(ExitCode::SUCCESS)
}
