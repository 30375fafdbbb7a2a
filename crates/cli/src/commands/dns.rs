//! `stead dns`: asks the cluster's own DNS, as a pod would; and tells the machine's resolver of it, where asked.

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;

use crate::args::Dns;
use crate::failure::Failure;
use crate::host_dns::{self, MachineResolver};
use crate::place::Place;

/// The domain of every cluster of ours.
const DOMAIN: &str = "cluster.local";

/// Prints the records of a name, or writes or removes the drop-in.
pub(crate) async fn run(args: Dns, place: &Place) -> Result<ExitCode, Failure> {
    if args.uninstall {
        return uninstall(&args.root, place);
    }
    let server = server(place)?;
    if args.install {
        return install(&args.root, place, server);
    }
    ask(
        server,
        args.name.as_deref().unwrap_or_default(),
        &args.record,
    )
    .await
}

/// Where the DNS of the daemon that runs here answers.
fn server(place: &Place) -> Result<SocketAddr, Failure> {
    if place.holder().is_none() {
        return Err(Failure::not_running(format!(
            "no Stead runs on {}; start one with `stead up`",
            place.dir.display()
        )));
    }
    place
        .about()?
        .pointer("/dns")
        .and_then(|dns| dns.as_str()?.parse().ok())
        .ok_or_else(|| Failure::failed("the Stead that runs here serves no DNS; its log says why"))
}

/// Prints the records of a name; a name that is not there is a failure.
async fn ask(server: SocketAddr, name: &str, record: &str) -> Result<ExitCode, Failure> {
    let answer = stead_node::dns::ask(server, name, record).await;
    let answer = answer
        .map_err(|error| Failure::caused(&format!("could not ask {server} for {name}"), &error))?;
    println!("{answer}");
    if answer.is_empty() {
        return Err(Failure::failed(format!("{name} has no {record} record")));
    }
    Ok(ExitCode::SUCCESS)
}

fn install(root: &Path, place: &Place, server: SocketAddr) -> Result<ExitCode, Failure> {
    let resolver = host_dns::resolver(root);
    let advice = host_dns::advice(resolver, server, DOMAIN);
    match resolver {
        MachineResolver::Resolved => {
            let path = host_dns::install(root, &place.dir, server, DOMAIN)
                .map_err(|error| Failure::caused("nothing was installed", &error))?;
            println!("wrote {}; it counts after: {advice}", path.display());
            Ok(ExitCode::SUCCESS)
        }
        MachineResolver::Dnsmasq | MachineResolver::File => Err(Failure::failed(format!(
            "nothing was changed: this machine has no systemd-resolved. Do this yourself: {advice}"
        ))),
    }
}

fn uninstall(root: &Path, place: &Place) -> Result<ExitCode, Failure> {
    let removed = host_dns::uninstall(root, &place.dir)
        .map_err(|error| Failure::caused("nothing was removed", &error))?;
    match removed {
        Some(path) => println!(
            "removed {}; it counts after: systemctl restart systemd-resolved",
            path.display()
        ),
        None => println!("there is no drop-in of {}", place.dir.display()),
    }
    Ok(ExitCode::SUCCESS)
}
