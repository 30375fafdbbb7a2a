//! `scale`: the number of replicas of a workload as an `autoscaling/v1` Scale.

use std::sync::Arc;

use http::StatusCode;
use serde_json::{Value, json};
use stead_schema::Kind;

use crate::admit;
use crate::create::{refused, typed};
use crate::handle::{Outcome, Reply, Scene, answer};
use crate::object;
use crate::patch::{PatchType, patched};
use crate::request::Verb;
use crate::status::Status;
use crate::store::{Stored, table_of};
use crate::update::{admitted, check_place};

/// The Scale is no resource of its own, only a view of others.
static SCALE: Kind = Kind {
    group: "autoscaling",
    version: "v1",
    kind: "Scale",
    plural: "scale",
    singular: "scale",
    namespaced: true,
    short_names: &[],
    categories: &[],
    verbs: &[],
    subresources: &[],
};

/// Reads, replaces or patches the Scale of an object.
pub(crate) fn scale(scene: &mut Scene<'_>) -> Result<Outcome, Status> {
    let asked = scene.asked;
    let target = &asked.target;
    let kind = target.kind;
    let stored = scene
        .view
        .object(table_of(kind), &target.namespace, &target.name)
        .ok_or_else(|| Status::missing(kind, &target.name))?;
    let owner = stored.value();
    let old = of(&owner);
    let new = match asked.verb {
        Verb::Get => return Ok(respond(scene, &old, Vec::new())),
        Verb::Update => {
            let new = typed(scene, &SCALE, &asked.body)?;
            check_place(&new, kind, &target.namespace, &target.name)?;
            new
        }
        Verb::Patch if asked.patch == Some(PatchType::Apply) => return crate::apply::apply(scene),
        Verb::Patch => patched(scene, &SCALE, &old)?,
        Verb::List
        | Verb::Watch
        | Verb::Create
        | Verb::Delete
        | Verb::DeleteCollection
        | Verb::Connect => return Err(Status::method_not_allowed()),
    };
    replace(scene, kind, &stored, owner, &new)
}

fn replace(
    scene: &mut Scene<'_>,
    kind: &'static Kind,
    stored: &Arc<Stored>,
    mut owner: Value,
    scale: &Value,
) -> Result<Outcome, Status> {
    let name = object::name(&owner).to_owned();
    let revision = object::meta(scale, "resourceVersion");
    if !revision.is_empty() && revision != "0" && revision != stored.revision.to_string() {
        return Err(Status::conflict(
            kind.group,
            kind.plural,
            &name,
            "the object has been modified; please apply your changes to the latest version and try again",
        ));
    }
    let uid = object::meta(scale, "uid");
    if !uid.is_empty() && uid != object::meta(&owner, "uid") {
        return Err(Status::conflict(
            kind.group,
            kind.plural,
            &name,
            &format!(
                "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                object::meta(&owner, "uid")
            ),
        ));
    }
    admit::scale(scale).map_err(|refusal| refused(&SCALE, &name, refusal))?;
    owner["spec"]["replicas"] = scale["spec"]["replicas"].as_i64().unwrap_or(0).into();
    let replaced = admitted(scene, stored, owner, "", "scale")?;
    let changes = replaced.change.into_iter().collect();
    Ok(respond(scene, &of(&replaced.object), changes))
}

fn respond(scene: &Scene<'_>, scale: &Value, changes: Vec<crate::store::Change>) -> Outcome {
    Outcome {
        reply: Reply::Done(answer(
            StatusCode::OK,
            scale,
            scene.asked.format.yaml,
            &scene.warnings,
        )),
        changes,
    }
}

/// The Scale of a workload.
fn of(owner: &Value) -> Value {
    let mut metadata = serde_json::Map::new();
    for field in [
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "creationTimestamp",
    ] {
        if let Some(value) = object::at(owner, &["metadata", field]) {
            metadata.insert(field.to_owned(), value.clone());
        }
    }
    let mut spec = json!({});
    // Go's omitempty: a scale of zero says nothing.
    if let Some(replicas) = object::at(owner, &["spec", "replicas"])
        .and_then(Value::as_i64)
        .filter(|replicas| *replicas != 0)
    {
        spec["replicas"] = replicas.into();
    }
    let mut status = json!({"replicas": object::at(owner, &["status", "replicas"]).and_then(Value::as_i64).unwrap_or(0)});
    let selector = selector_text(&owner["spec"]["selector"]);
    if !selector.is_empty() {
        status["selector"] = selector.into();
    }
    json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status})
}

/// A label selector as text, its requirements sorted by key as upstream.
fn selector_text(selector: &Value) -> String {
    let mut clauses: Vec<String> = Vec::new();
    let labels =
        selector
            .get("matchLabels")
            .unwrap_or(if selector.get("matchExpressions").is_some() {
                &Value::Null
            } else {
                selector
            });
    for (key, value) in labels.as_object().into_iter().flatten() {
        if let Some(value) = value.as_str() {
            clauses.push(format!("{key}={value}"));
        }
    }
    for expression in selector["matchExpressions"]
        .as_array()
        .into_iter()
        .flatten()
    {
        let key = expression["key"].as_str().unwrap_or("");
        let mut values: Vec<&str> = expression["values"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        values.sort_unstable();
        let values = values.join(",");
        match expression["operator"].as_str() {
            Some("In") => clauses.push(format!("{key} in ({values})")),
            Some("NotIn") => clauses.push(format!("{key} notin ({values})")),
            Some("Exists") => clauses.push(key.to_owned()),
            Some("DoesNotExist") => clauses.push(format!("!{key}")),
            Some(_) | None => {}
        }
    }
    clauses.sort();
    clauses.join(",")
}
