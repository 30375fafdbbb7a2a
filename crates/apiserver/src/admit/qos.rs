//! The quality of service of a pod, from the cpu and memory that its containers ask for.

use serde_json::Value;
use stead_schema::quantity;

use super::pod_spec::all_containers;
use super::read::{dig, get, text};

const COMPUTE: [&str; 2] = ["cpu", "memory"];

/// `BestEffort` when nothing is asked for, `Guaranteed` when every container's limits are all that it asks for.
pub(crate) fn class(spec: &Value) -> &'static str {
    let own = get(spec, "resources");
    let bounds: Vec<&Value> = if amounts(own).next().is_some() {
        vec![own]
    } else {
        all_containers(spec)
            .filter(|(list, _, _)| *list != "ephemeralContainers")
            .map(|(_, _, container)| get(container, "resources"))
            .collect()
    };
    if bounds
        .iter()
        .all(|resources| amounts(resources).next().is_none())
    {
        "BestEffort"
    } else if bounds.iter().all(|resources| is_guaranteed(resources)) {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

/// The class that the status records, or else the computed one.
pub(crate) fn of_pod(pod: &Value) -> &str {
    match text(get(pod, "status"), "qosClass") {
        "" => class(get(pod, "spec")),
        recorded => recorded,
    }
}

fn amounts(resources: &Value) -> impl Iterator<Item = i128> {
    COMPUTE
        .iter()
        .flat_map(|name| ["requests", "limits"].map(|field| dig(resources, &[field, name])))
        .filter_map(quantity::nanos_of)
        .filter(|nano| *nano > 0)
}

fn is_guaranteed(resources: &Value) -> bool {
    COMPUTE.iter().all(|name| {
        let (request, limit) = (
            quantity::nanos_of(dig(resources, &["requests", name])),
            quantity::nanos_of(dig(resources, &["limits", name])),
        );
        limit.is_some_and(|nano| nano > 0) && (request.is_none() || request == limit)
    })
}
