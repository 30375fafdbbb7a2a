//! Namespaces, secrets, nodes, limits, roles, webhooks.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::{
    default, default_pointer, is_absent, is_empty, object, object_made, object_mut, pod, text,
};

pub(super) const RBAC_GROUP: &str = "rbac.authorization.k8s.io";

/// Every named namespace carries its name as a label.
pub(super) fn namespace(namespace: &mut Map<String, Value>) {
    if let Some(status) = object_made(namespace, "status") {
        default(status, "phase", "Active");
    }
    let Some(metadata) = object_mut(namespace, "metadata") else {
        return;
    };
    let Some(name) = text(metadata, "name")
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
    else {
        return;
    };
    if let Some(labels) = object_made(metadata, "labels") {
        labels.insert(
            "kubernetes.io/metadata.name".to_owned(),
            Value::String(name),
        );
    }
}

/// `stringData` is for writing only: it goes over `data`.
pub(super) fn secret(secret: &mut Map<String, Value>) {
    default(secret, "type", "Opaque");
    let Some(Value::Object(plain)) = secret.remove("stringData") else {
        return;
    };
    if plain.is_empty() {
        return;
    }
    if let Some(data) = object_made(secret, "data") {
        for (key, value) in plain {
            data.insert(
                key,
                Value::String(STANDARD.encode(value.as_str().unwrap_or_default())),
            );
        }
    }
}

/// `podCIDR` and `podCIDRs` say the same; the older one wins.
pub(super) fn node_spec(spec: &mut Map<String, Value>) {
    let first = spec
        .get("podCIDRs")
        .and_then(|all| all.get(0))
        .and_then(Value::as_str)
        .map(str::to_owned);
    match text(spec, "podCIDR")
        .filter(|one| !one.is_empty())
        .map(str::to_owned)
    {
        Some(one) if first.as_ref() != Some(&one) => {
            spec.insert("podCIDRs".to_owned(), json!([one]));
        }
        None => {
            if let Some(first) = first {
                spec.insert("podCIDR".to_owned(), Value::String(first));
            }
        }
        Some(_) => {}
    }
}

pub(super) fn node_status(status: &mut Map<String, Value>) {
    pod::round_resources(status, &["capacity", "allocatable"]);
    if is_empty(status, "allocatable")
        && let Some(capacity) = object(status, "capacity")
            .filter(|capacity| !capacity.is_empty())
            .cloned()
    {
        status.insert("allocatable".to_owned(), Value::Object(capacity));
    }
}

/// Limits of containers complete each other: the greatest is the default, the default is the request.
pub(super) fn limit_range_item(item: &mut Map<String, Value>) {
    pod::round_resources(
        item,
        &[
            "max",
            "min",
            "default",
            "defaultRequest",
            "maxLimitRequestRatio",
        ],
    );
    if text(item, "type") != Some("Container") {
        return;
    }
    for (from, to) in [
        ("max", "default"),
        ("default", "defaultRequest"),
        ("min", "defaultRequest"),
    ] {
        let Some(amounts) = object(item, from)
            .filter(|amounts| !amounts.is_empty())
            .cloned()
        else {
            continue;
        };
        if let Some(list) = object_made(item, to) {
            for (resource, amount) in amounts {
                list.entry(resource).or_insert(amount);
            }
        }
    }
}

pub(super) fn subject(subject: &mut Map<String, Value>) {
    if matches!(text(subject, "kind"), Some("User" | "Group")) {
        default(subject, "apiGroup", RBAC_GROUP);
    }
}

pub(super) fn webhook(webhook: &mut Map<String, Value>) {
    default_pointer(webhook, "failurePolicy", "Fail");
    default_pointer(webhook, "matchPolicy", "Equivalent");
    for selector in ["namespaceSelector", "objectSelector"] {
        if is_absent(webhook, selector) {
            webhook.insert(selector.to_owned(), json!({}));
        }
    }
    default_pointer(webhook, "timeoutSeconds", 10);
}

pub(super) fn mutating_webhook(map: &mut Map<String, Value>) {
    webhook(map);
    default_pointer(map, "reinvocationPolicy", "Never");
}
