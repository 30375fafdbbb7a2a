//! `stead attach`: joins the streams of a container that runs.

use std::process::ExitCode;

use k8s_openapi::api::core::v1::Pod;
use kube::api::AttachParams;

use crate::api::refused;
use crate::args::Attach;
use crate::failure::Failure;
use crate::place::Place;

use super::exec::pass_on;

/// Passes the streams on until the container ends, or this program does.
pub(crate) async fn run(args: Attach, place: &Place) -> Result<ExitCode, Failure> {
    let api = place.connect().await?;
    let pods = kube::Api::<Pod>::namespaced(api.client, &args.namespace.namespace);
    let params = AttachParams {
        container: args.container.clone(),
        stdin: args.stdin,
        stdout: true,
        stderr: !args.tty,
        tty: args.tty,
        ..AttachParams::default()
    };
    let process = pods.attach(&args.pod, &params).await;
    let process =
        process.map_err(|error| refused(&format!("attach to pod {}", args.pod), &error))?;
    match pass_on(process, args.tty).await {
        Some(status) if status.status.as_deref() == Some("Success") => Ok(ExitCode::SUCCESS),
        Some(status) => Err(Failure::failed(format!(
            "could not attach to pod {}: {}",
            args.pod,
            status.message.unwrap_or_default()
        ))),
        None => Err(Failure::failed(format!(
            "the connection to pod {} ended before its container did; `stead status` tells whether Stead runs",
            args.pod
        ))),
    }
}
