//! `stead status`: sets, ordinals, claims, addresses, and why something does not move.

use std::process::ExitCode;

use serde_json::Value;

use crate::api::{Api, Target, kind_named};
use crate::args::{Output, Status};
use crate::commands::get::{align, print_object};
use crate::failure::Failure;
use crate::picture::{OrdinalPicture, SetPicture, draw, text};
use crate::place::Place;

/// Prints every set, or the one that is named.
pub(crate) async fn run(args: Status, place: &Place) -> Result<ExitCode, Failure> {
    let api = place.connect().await?;
    let mut sets = pictures(&api, args.scope.namespace()).await?;
    if let Some(name) = &args.name {
        sets.retain(|set| set.name == *name);
        if sets.is_empty() {
            return Err(Failure::failed(format!(
                "there is no StatefulSet {name} in namespace {}",
                args.scope.one.namespace
            )));
        }
    }
    match args.output {
        Some(Output::Json | Output::Yaml) => {
            let value = serde_json::to_value(&sets)
                .map_err(|error| Failure::caused("could not write the status", &error))?;
            print_object(&value, args.output)?;
        }
        Some(Output::Name) => sets
            .iter()
            .for_each(|set| println!("statefulset.apps/{}", set.name)),
        None | Some(Output::Wide) => print(&sets, place),
    }
    Ok(ExitCode::SUCCESS)
}

/// Draws the sets of one namespace, or of all, each with the controller's own reasons for waiting.
pub(crate) async fn pictures(
    api: &Api,
    namespace: Option<&str>,
) -> Result<Vec<SetPicture>, Failure> {
    let list = async |kind: &str| {
        api.list(&Target::all(kind_named(kind)?, namespace), "")
            .await
    };
    let (sets, pods, claims) = tokio::try_join!(
        list("statefulset"),
        list("pod"),
        list("persistentvolumeclaim")
    )?;
    let mut pictures = Vec::new();
    for set in &sets {
        let home = text(set, "/metadata/namespace");
        let here = |objects: &[Value]| -> Vec<Value> {
            objects
                .iter()
                .filter(|object| text(object, "/metadata/namespace") == home)
                .cloned()
                .collect()
        };
        let waits_for = waits_for(api, home, text(set, "/metadata/name")).await?;
        pictures.push(draw(set, &here(&pods), &here(&claims), waits_for));
    }
    Ok(pictures)
}

/// Why the set does not move: the decision of the code that moves it, made once more from here.
async fn waits_for(api: &Api, namespace: &str, name: &str) -> Result<Vec<String>, Failure> {
    let seen = stead_controller::observe(&api.client, namespace, name).await;
    let seen = seen.map_err(|error| {
        Failure::caused(
            &format!("could not look at StatefulSet {namespace}/{name}"),
            &error,
        )
    })?;
    let Some(seen) = seen else {
        return Ok(Vec::new());
    };
    Ok(stead_statefulset::decide(&seen)
        .blocked
        .iter()
        .map(ToString::to_string)
        .collect())
}

fn print(sets: &[SetPicture], place: &Place) {
    if let Some(about) = place.about().ok().filter(|_| place.holder().is_some()) {
        println!(
            "stead on {}: {}, API {}",
            place.dir.display(),
            text(&about, "/tier"),
            text(&about, "/api")
        );
    }
    if sets.is_empty() {
        println!("no StatefulSets; `stead apply -f FILE` makes some");
    }
    for set in sets {
        println!(
            "\n{}/{}  {}/{} ready",
            set.namespace, set.name, set.ready, set.wanted
        );
        let rows: Vec<Vec<String>> = set.ordinals.iter().map(row).collect();
        print!("{}", align(&rows));
        if !set.is_complete() {
            set.waits_for
                .iter()
                .for_each(|why| println!("  waits: {why}"));
        }
    }
}

fn row(ordinal: &OrdinalPicture) -> Vec<String> {
    let claims: Vec<String> = ordinal
        .claims
        .iter()
        .map(|(name, bound)| {
            if *bound {
                name.clone()
            } else {
                format!("{name} (not bound)")
            }
        })
        .collect();
    let restarts = if ordinal.restarts > 0 {
        format!("{} restarts", ordinal.restarts)
    } else {
        String::new()
    };
    vec![
        format!("  {}", ordinal.pod),
        ordinal.phase.word().to_owned(),
        ordinal.address.clone().unwrap_or_else(|| "-".to_owned()),
        claims.join(", "),
        restarts,
        ordinal.because.clone().unwrap_or_default(),
    ]
}
