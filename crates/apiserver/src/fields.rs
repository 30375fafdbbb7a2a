//! The fields that field selectors may name, kind by kind (upstream: the conversion functions of each API group).

use serde_json::Value;
use stead_schema::Kind;

use crate::object::at;

/// A selectable field beyond `metadata.name` and `metadata.namespace`: its label and where its value is.
type Field = (&'static str, &'static [&'static str]);

const PODS: &[Field] = &[
    ("spec.nodeName", &["spec", "nodeName"]),
    ("spec.restartPolicy", &["spec", "restartPolicy"]),
    ("spec.schedulerName", &["spec", "schedulerName"]),
    ("spec.serviceAccountName", &["spec", "serviceAccountName"]),
    ("spec.hostNetwork", &["spec", "hostNetwork"]),
    ("status.phase", &["status", "phase"]),
    ("status.podIP", &["status", "podIP"]),
    ("status.podIPs", &["status", "podIP"]),
    ("status.nominatedNodeName", &["status", "nominatedNodeName"]),
];
const CORE_EVENTS: &[Field] = &[
    ("involvedObject.kind", &["involvedObject", "kind"]),
    ("involvedObject.namespace", &["involvedObject", "namespace"]),
    ("involvedObject.name", &["involvedObject", "name"]),
    ("involvedObject.uid", &["involvedObject", "uid"]),
    (
        "involvedObject.apiVersion",
        &["involvedObject", "apiVersion"],
    ),
    (
        "involvedObject.resourceVersion",
        &["involvedObject", "resourceVersion"],
    ),
    ("involvedObject.fieldPath", &["involvedObject", "fieldPath"]),
    ("reason", &["reason"]),
    ("reportingComponent", &["reportingComponent"]),
    ("source", &["source", "component"]),
    ("type", &["type"]),
];
const SERVICES: &[Field] = &[
    ("spec.clusterIP", &["spec", "clusterIP"]),
    ("spec.type", &["spec", "type"]),
];
const NODES: &[Field] = &[("spec.unschedulable", &["spec", "unschedulable"])];
const SECRETS: &[Field] = &[("type", &["type"])];
const NAMESPACES: &[Field] = &[("status.phase", &["status", "phase"])];
const REPLICATIONS: &[Field] = &[("status.replicas", &["status", "replicas"])];
const JOBS: &[Field] = &[("status.successful", &["status", "succeeded"])];
const SIGNING: &[Field] = &[("spec.signerName", &["spec", "signerName"])];

fn table(kind: &Kind) -> &'static [Field] {
    match (kind.group, kind.plural) {
        ("", "pods") => PODS,
        ("" | "events.k8s.io", "events") => CORE_EVENTS,
        ("", "services") => SERVICES,
        ("", "nodes") => NODES,
        ("", "secrets") => SECRETS,
        ("", "namespaces") => NAMESPACES,
        ("", "replicationcontrollers") | ("apps", "replicasets") => REPLICATIONS,
        ("batch", "jobs") => JOBS,
        ("certificates.k8s.io", "certificatesigningrequests") => SIGNING,
        _ => &[],
    }
}

/// The place of a selectable field among the kind's, by its label; old aliases included.
pub(crate) fn field_index(kind: &Kind, label: &str) -> Option<usize> {
    let label = match (kind.plural, label) {
        ("pods", "spec.host") => "spec.nodeName",
        (_, same) => same,
    };
    table(kind).iter().position(|(name, _)| *name == label)
}

/// The values of the kind's selectable fields as text; false and 0 where upstream shows a missing value so.
pub(crate) fn field_values(kind: &Kind, object: &Value) -> Box<[Box<str>]> {
    table(kind)
        .iter()
        .map(|(label, path)| text(label, object, path).into())
        .collect()
}

fn text(label: &str, object: &Value, path: &[&str]) -> String {
    match at(object, path) {
        Some(Value::String(text)) if text.is_empty() && label == "source" => reporting(object),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Bool(flag)) => flag.to_string(),
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::Null | Value::Array(_) | Value::Object(_)) | None => match label {
            "spec.unschedulable" | "spec.hostNetwork" => "false".to_owned(),
            "status.replicas" | "status.successful" => "0".to_owned(),
            "source" => reporting(object),
            _ => String::new(),
        },
    }
}

/// Events that name no source are found by the component that reported them.
fn reporting(object: &Value) -> String {
    object
        .get("reportingComponent")
        .and_then(Value::as_str)
        .unwrap_or("")
        .to_owned()
}
