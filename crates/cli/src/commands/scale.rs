//! `stead scale`: changes the number of replicas through the scale subresource.

use std::process::ExitCode;

use crate::api::{Target, kind_and_name, kind_named, request};
use crate::args::Scale;
use crate::failure::Failure;
use crate::place::Place;

/// Scales one object.
pub(crate) async fn run(args: Scale, place: &Place) -> Result<ExitCode, Failure> {
    let (kind, name) = match args.target.contains('/') {
        true => kind_and_name(&args.target)?,
        false => (kind_named("statefulset")?, Some(args.target.clone())),
    };
    let target = Target {
        name,
        ..Target::all(kind, Some(&args.namespace.namespace))
    };
    let api = place.connect().await?;
    let body = format!("{{\"spec\":{{\"replicas\":{}}}}}", args.replicas).into_bytes();
    let path = target.path() + "/scale?fieldManager=stead";
    api.send(
        &format!("scale {}", target.display()),
        request("PATCH", path, "application/merge-patch+json", body)?,
    )
    .await?;
    println!("{} scaled to {}", target.display(), args.replicas);
    Ok(ExitCode::SUCCESS)
}
