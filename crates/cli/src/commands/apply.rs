//! `stead apply`: makes the cluster's objects what the files say, by server-side apply.

use std::process::ExitCode;

use serde_json::Value;

use crate::api::{Api, FIELD_MANAGER, request};
use crate::args::{Apply, Output};
use crate::commands::get;
use crate::failure::Failure;
use crate::manifest::{self, Manifest};
use crate::place::Place;

/// What became of one object.
pub(crate) struct Applied {
    /// `created`, `configured` or `unchanged`.
    pub(crate) how: &'static str,
    /// The object as the server has it now.
    pub(crate) object: Value,
}

/// Reads everything, then applies in the order of the files.
pub(crate) async fn run(args: Apply, place: &Place) -> Result<ExitCode, Failure> {
    let manifests = manifest::read(&args.filename, &args.namespace.namespace)?;
    let api = place.connect().await?;
    for manifest in &manifests {
        let applied = one(&api, manifest, args.dry_run).await?;
        match args.output {
            Some(Output::Json | Output::Yaml) => get::print_object(&applied.object, args.output)?,
            Some(Output::Name) => println!("{}", manifest.target.display()),
            Some(Output::Wide) | None => println!("{} {}", manifest.target.display(), applied.how),
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Applies one object. The server checks every field strictly.
pub(crate) async fn one(api: &Api, manifest: &Manifest, dry_run: bool) -> Result<Applied, Failure> {
    let before = api.find(&manifest.target).await?;
    let dry = if dry_run { "&dryRun=All" } else { "" };
    let query = format!("?fieldManager={FIELD_MANAGER}&force=true&fieldValidation=Strict{dry}");
    let body = manifest.object.to_string().into_bytes();
    let patch = request(
        "PATCH",
        manifest.target.path() + &query,
        "application/apply-patch+yaml",
        body,
    )?;
    let object = api
        .send(&format!("apply {}", manifest.target.display()), patch)
        .await?;
    let how = match before {
        None => "created",
        Some(before) if asked_for(&before) == asked_for(&object) => "unchanged",
        Some(_) => "configured",
    };
    Ok(Applied { how, object })
}

/// The object without what the server and its controllers write meanwhile.
fn asked_for(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(fields) = object.as_object_mut() {
        fields.remove("status");
    }
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("resourceVersion");
        metadata.remove("managedFields");
    }
    object
}
