//! `stead delete`: deletes objects, and waits until they are gone.

use std::process::ExitCode;
use std::time::Duration;

use futures::TryStreamExt;
use serde_json::{Value, json};

use crate::api::{Api, Target, kind_and_name, refused, request};
use crate::args::{Cascade, Delete};
use crate::failure::Failure;
use crate::manifest;
use crate::picture::text;
use crate::place::Place;

/// Deletes what is named.
pub(crate) async fn run(args: Delete, place: &Place) -> Result<ExitCode, Failure> {
    let targets = targets(&args)?;
    let api = place.connect().await?;
    let mut gone = Vec::new();
    for target in &targets {
        let uid = delete(&api, target, args.cascade).await?.ok_or_else(|| {
            Failure::failed(format!(
                "could not delete {}: it is not there",
                target.display()
            ))
        })?;
        println!("{} deleted", target.display());
        gone.push((target, uid));
    }
    if args.no_wait {
        return Ok(ExitCode::SUCCESS);
    }
    for (target, uid) in gone {
        wait_gone(&api, target, &uid, args.timeout).await?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What is to go. Of files, the last object first: what others stand on goes last.
fn targets(args: &Delete) -> Result<Vec<Target>, Failure> {
    let namespace = args.namespace.namespace.as_str();
    let Some(word) = &args.kind else {
        let manifests = manifest::read(&args.filename, namespace)?;
        return Ok(manifests
            .into_iter()
            .rev()
            .map(|manifest| manifest.target)
            .collect());
    };
    let (kind, name) = kind_and_name(word)?;
    let names: Vec<String> = name.into_iter().chain(args.names.iter().cloned()).collect();
    if names.is_empty() {
        return Err(Failure::input(format!(
            "which {}? name one or more",
            kind.plural
        )));
    }
    Ok(names
        .iter()
        .map(|name| Target::all(kind, Some(namespace)).named(name))
        .collect())
}

/// Deletes one object; answers with its UID, for a namesake may be made while we wait. `None` when it was not there.
pub(crate) async fn delete(
    api: &Api,
    target: &Target,
    cascade: Cascade,
) -> Result<Option<String>, Failure> {
    let policy = match cascade {
        Cascade::Background => "Background",
        Cascade::Foreground => "Foreground",
        Cascade::Orphan => "Orphan",
    };
    let options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": policy});
    let body = options.to_string().into_bytes();
    let request = request("DELETE", target.path(), "application/json", body)?;
    let answer: Value = match api.client.request(request).await {
        Ok(answer) => answer,
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(None),
        Err(error) => return Err(refused(&format!("delete {}", target.display()), &error)),
    };
    let uid = if answer["kind"] == "Status" {
        text(&answer, "/details/uid")
    } else {
        text(&answer, "/metadata/uid")
    };
    Ok(Some(uid.to_owned()))
}

/// Waits on a watch until the object of this UID is gone.
pub(crate) async fn wait_gone(
    api: &Api,
    target: &Target,
    uid: &str,
    limit: Duration,
) -> Result<(), Failure> {
    let waiting = async {
        loop {
            let Some(found) = api.find(target).await? else {
                return Ok(());
            };
            if text(&found, "/metadata/uid") != uid {
                return Ok(());
            }
            watch_until_deleted(api, target, text(&found, "/metadata/resourceVersion")).await?;
        }
    };
    match tokio::time::timeout(limit, waiting).await {
        Ok(done) => done,
        Err(_) => Err(Failure::timeout(format!(
            "{} is still there after {} s; `stead get {} -o yaml` shows its finalizers",
            target.display(),
            limit.as_secs(),
            target.display(),
        ))),
    }
}

/// Returns when the object goes, or when the watch ends for any reason: the caller looks again.
async fn watch_until_deleted(api: &Api, target: &Target, version: &str) -> Result<(), Failure> {
    let name = target.name.as_deref().unwrap_or_default();
    let all = Target {
        name: None,
        ..target.clone()
    };
    let path = format!(
        "{}?watch=true&fieldSelector=metadata.name%3D{name}&resourceVersion={version}",
        all.path()
    );
    let events = api
        .client
        .request_events::<Value>(request("GET", path, "application/json", Vec::new())?)
        .await;
    let events = events.map_err(|error| refused(&format!("watch {}", target.display()), &error))?;
    futures::pin_mut!(events);
    while let Ok(Some(event)) = events.try_next().await {
        if matches!(
            event,
            kube::api::WatchEvent::Deleted(_) | kube::api::WatchEvent::Error(_)
        ) {
            break;
        }
    }
    Ok(())
}
