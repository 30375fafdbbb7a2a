//! LimitRanger: what a namespace's limit ranges give to containers that ask for nothing, and the bounds they keep.

use serde_json::{Value, json};
use stead_schema::{Kind, quantity};

use crate::admit::pod_spec_containers::is_sidecar;
use crate::admit::read::{dig, entries, get, has, list, map_mut, object_mut, text};
use crate::admit::{Context, Refusal};

const NOTE: &str = "kubernetes.io/limit-ranger";

fn limits_of(object: &Value, context: &Context<'_>) -> Vec<Value> {
    let namespace = text(get(object, "metadata"), "namespace");
    let ranges = context.cluster.list("", "limitranges", namespace);
    ranges
        .iter()
        .flat_map(|range| list(get(range, "spec"), "limits").to_vec())
        .collect()
}

/// Fills in requests and limits of a new pod's containers.
pub(super) fn fill_in(pod: &mut Value, context: &Context<'_>) {
    let limits = limits_of(pod, context);
    let mut notes = Vec::new();
    for limit in limits
        .iter()
        .filter(|limit| text(limit, "type") == "Container")
    {
        for (field, word) in [
            ("initContainers", "init container"),
            ("containers", "container"),
        ] {
            let Some(containers) = pod
                .pointer_mut(&format!("/spec/{field}"))
                .and_then(Value::as_array_mut)
            else {
                continue;
            };
            for container in containers {
                fill_container(container, limit, word, &mut notes);
            }
        }
    }
    if !notes.is_empty() {
        let meta = object_mut(pod)
            .entry("metadata")
            .or_insert_with(|| json!({}));
        map_mut(meta, "annotations").insert(
            NOTE.to_owned(),
            format!("LimitRanger plugin set: {}", notes.join("; ")).into(),
        );
    }
}

fn fill_container(container: &mut Value, limit: &Value, word: &str, notes: &mut Vec<String>) {
    let name = text(container, "name").to_owned();
    let resources = object_mut(container)
        .entry("resources")
        .or_insert_with(|| json!({}));
    for (bound, defaults) in [("requests", "defaultRequest"), ("limits", "default")] {
        let missing: Vec<(String, Value)> = entries(limit, defaults)
            .filter(|(resource, _)| !has(get(resources, bound), resource))
            .map(|(resource, amount)| (resource.to_owned(), amount.clone()))
            .collect();
        if missing.is_empty() {
            continue;
        }
        let names: Vec<&str> = missing
            .iter()
            .map(|(resource, _)| resource.as_str())
            .collect();
        notes.push(format!(
            "{} {} for {word} {name}",
            names.join(", "),
            bound.trim_end_matches('s')
        ));
        map_mut(resources, bound).extend(missing);
    }
}

/// Refuses what lies outside the bounds.
pub(super) fn check(kind: &Kind, object: &Value, context: &Context<'_>) -> Result<(), Refusal> {
    let mut problems = Vec::new();
    for limit in limits_of(object, context) {
        match (kind.kind, text(&limit, "type")) {
            ("PersistentVolumeClaim", "PersistentVolumeClaim") => {
                let resources = get(get(object, "spec"), "resources");
                bounds(
                    &limit,
                    "PersistentVolumeClaim",
                    &|field, name| quantity::nanos_of(dig(resources, &[field, name])),
                    &mut problems,
                );
            }
            ("Pod", "Container") => each_container(object, &limit, &mut problems),
            ("Pod", "Pod") => bounds(
                &limit,
                "Pod",
                &|field, name| whole_pod(get(object, "spec"), field, name),
                &mut problems,
            ),
            _ => {}
        }
    }
    match problems.as_slice() {
        [] => Ok(()),
        [one] => Err(Refusal::forbidden(one.clone())),
        many => Err(Refusal::forbidden(format!("[{}]", many.join(", ")))),
    }
}

fn each_container(pod: &Value, limit: &Value, problems: &mut Vec<String>) {
    for field in ["containers", "initContainers"] {
        for container in list(get(pod, "spec"), field) {
            let resources = get(container, "resources");
            bounds(
                limit,
                "Container",
                &|field, name| quantity::nanos_of(dig(resources, &[field, name])),
                problems,
            );
        }
    }
}

/// What all containers need together; init containers run one after another, sidecars beside the rest.
fn whole_pod(spec: &Value, field: &str, name: &str) -> Option<i128> {
    let of = |container: &Value| quantity::nanos_of(dig(container, &["resources", field, name]));
    let own = list(spec, "containers").iter().map(of);
    let sidecars = list(spec, "initContainers")
        .iter()
        .filter(|container| is_sidecar(container))
        .map(of);
    let together = own.chain(sidecars).flatten().reduce(i128::saturating_add);
    let alone = list(spec, "initContainers")
        .iter()
        .filter(|container| !is_sidecar(container))
        .filter_map(of)
        .max();
    together.max(alone)
}

fn bounds(
    limit: &Value,
    what: &str,
    asked: &dyn Fn(&str, &str) -> Option<i128>,
    problems: &mut Vec<String>,
) {
    let shown = |amount: &Value| amount.as_str().unwrap_or("").to_owned();
    for (name, least) in entries(limit, "min") {
        let bound = quantity::nanos_of(least).unwrap_or(0);
        match asked("requests", name) {
            None => problems.push(format!(
                "minimum {name} usage per {what} is {}.  No request is specified",
                shown(least)
            )),
            Some(request) if request < bound => {
                problems.push(format!(
                    "minimum {name} usage per {what} is {}, but request is {}",
                    shown(least),
                    plain(request)
                ));
            }
            Some(_) => {}
        }
    }
    for (name, most) in entries(limit, "max") {
        let bound = quantity::nanos_of(most).unwrap_or(0);
        let field = if what == "PersistentVolumeClaim" {
            "requests"
        } else {
            "limits"
        };
        match asked(field, name) {
            None => problems.push(format!(
                "maximum {name} usage per {what} is {}.  No limit is specified",
                shown(most)
            )),
            Some(own) if own > bound => {
                problems.push(format!(
                    "maximum {name} usage per {what} is {}, but limit is {}",
                    shown(most),
                    plain(own)
                ));
            }
            Some(_) => {}
        }
    }
}

/// A quantity in billionths as people write it.
fn plain(nano: i128) -> String {
    if quantity::is_whole(nano) {
        format!("{}", nano / 1_000_000_000)
    } else {
        format!("{}m", nano / 1_000_000)
    }
}
