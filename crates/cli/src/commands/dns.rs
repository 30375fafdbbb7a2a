//! `stead dns`: asks the cluster's own DNS, as a pod would.

use std::net::SocketAddr;
use std::process::ExitCode;

use crate::args::Dns;
use crate::failure::Failure;
use crate::place::Place;

/// Prints the records of a name; a name that is not there is a failure.
pub(crate) async fn run(args: Dns, place: &Place) -> Result<ExitCode, Failure> {
    if place.holder().is_none() {
        return Err(Failure::not_running(format!(
            "no Stead runs on {}; start one with `stead up`",
            place.dir.display()
        )));
    }
    let server: SocketAddr = place
        .about()?
        .pointer("/dns")
        .and_then(|dns| dns.as_str()?.parse().ok())
        .ok_or_else(|| {
            Failure::failed("the Stead that runs here serves no DNS; its log says why")
        })?;
    let answer = stead_node::dns::ask(server, &args.name, &args.record).await;
    let answer = answer.map_err(|error| {
        Failure::caused(&format!("could not ask {server} for {}", args.name), &error)
    })?;
    println!("{answer}");
    if answer.is_empty() {
        return Err(Failure::failed(format!(
            "{} has no {} record",
            args.name, args.record
        )));
    }
    Ok(ExitCode::SUCCESS)
}
