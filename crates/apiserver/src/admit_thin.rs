//! Admission in its thinnest form, until `admit.rs` is complete: system metadata, generation, status kept apart.

use jiff::Timestamp;
use serde_json::{Value, json};
use stead_schema::Kind;

use crate::object;

pub(crate) trait Cluster {
    fn get(&self, group: &str, plural: &str, namespace: &str, name: &str) -> Option<Value>;
    fn list(&self, group: &str, plural: &str, namespace: &str) -> Vec<Value>;
}

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ServiceRange;

impl ServiceRange {
    pub(crate) fn parse(_text: &str) -> Option<Self> {
        Some(Self)
    }
}

pub(crate) struct Context<'a> {
    pub(crate) cluster: &'a dyn Cluster,
    pub(crate) now: Timestamp,
    pub(crate) user: &'a str,
    pub(crate) service_range: ServiceRange,
}

#[derive(Debug)]
pub(crate) struct Cause {
    pub(crate) reason: Reason,
    pub(crate) field: String,
    pub(crate) message: String,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Reason;

impl Reason {
    pub(crate) fn wire(self) -> &'static str {
        "FieldValueInvalid"
    }
}

#[derive(Debug)]
pub(crate) struct ForbiddenCause {
    pub(crate) reason: &'static str,
    pub(crate) field: &'static str,
    pub(crate) message: String,
}

#[derive(Debug)]
pub(crate) enum Refusal {
    Invalid(Vec<Cause>),
    Forbidden { message: String, causes: Vec<ForbiddenCause> },
    NotFound { group: String, plural: String, name: String },
    BadRequest(String),
    Conflict(String),
}

pub(crate) fn create(kind: &Kind, object: &mut Value, context: &Context<'_>) -> Result<Vec<String>, Refusal> {
    if object::name(object).is_empty() {
        return Err(Refusal::Invalid(vec![Cause { reason: Reason, field: "metadata.name".to_owned(), message: "Required value".to_owned() }]));
    }
    if kind.namespaced && context.cluster.get("", "namespaces", "", object::meta(object, "namespace")).is_none() {
        return Err(Refusal::NotFound { group: String::new(), plural: "namespaces".to_owned(), name: object::meta(object, "namespace").to_owned() });
    }
    match kind.plural {
        "namespaces" => {
            object["spec"]["finalizers"] = json!(["kubernetes"]);
            object["status"] = json!({"phase": "Active"});
        }
        "nodes" => {}
        _ if kind.subresource("status").is_some() => {
            if let Some(map) = object.as_object_mut() {
                map.remove("status");
            }
        }
        _ => {}
    }
    if kind.plural == "pods" || kind.plural == "persistentvolumeclaims" {
        object["status"] = json!({"phase": "Pending"});
    }
    if matches!(kind.group, "apps" | "policy" | "batch") && kind.plural != "controllerrevisions" {
        object::set_meta(object, "generation", 1);
    }
    Ok(Vec::new())
}

pub(crate) fn update(kind: &Kind, subresource: &str, old: &Value, new: &mut Value, _context: &Context<'_>) -> Result<Vec<String>, Refusal> {
    for field in ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"] {
        object::copy_meta(old, new, field);
    }
    if subresource == "status" {
        object::copy_field(old, new, "spec");
    } else if kind.subresource("status").is_some() {
        object::copy_field(old, new, "status");
        if old.get("spec") != new.get("spec") && object::generation(old) > 0 {
            object::set_meta(new, "generation", object::generation(old) + 1);
        }
    }
    Ok(Vec::new())
}

pub(crate) fn delete(_kind: &Kind, _object: &Value, _context: &Context<'_>) -> Result<(), Refusal> {
    Ok(())
}

pub(crate) fn scale(_scale: &Value) -> Result<(), Refusal> {
    Ok(())
}

pub(crate) fn pod_grace_seconds(pod: &Value, asked: Option<i64>) -> i64 {
    if object::text(pod, &["spec", "nodeName"]).is_empty() { 0 } else { asked.unwrap_or(30) }
}

pub(crate) fn allows_create_on_update(_kind: &Kind) -> bool {
    false
}

pub(crate) fn allows_unconditional_update(_kind: &Kind) -> bool {
    true
}

pub(crate) fn deprecation(_kind: &Kind) -> Option<&'static str> {
    None
}

pub(crate) fn delete_warning(_kind: &Kind) -> Option<&'static str> {
    None
}
