//! The rows of what belongs to no workload: configuration, namespaces, nodes, events, quotas, leases, bindings.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::age::{age, since};
use super::workload::size;
use super::{NONE, name, or_none};
use crate::admit::read::{dig, entries, get, has, int, list, text, yes};

const ROLE_PREFIX: &str = "node-role.kubernetes.io/";
const ROLE_LABEL: &str = "kubernetes.io/role";

pub(super) fn config_map(map: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(map),
        json!(size(map, "data") + size(map, "binaryData")),
        age(map, now),
    ]
}

pub(super) fn secret(secret: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(secret),
        json!(text(secret, "type")),
        json!(size(secret, "data")),
        age(secret, now),
    ]
}

pub(super) fn namespace(namespace: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(namespace),
        json!(text(get(namespace, "status"), "phase")),
        age(namespace, now),
    ]
}

pub(super) fn lease(lease: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(lease),
        json!(text(get(lease, "spec"), "holderIdentity")),
        age(lease, now),
    ]
}

pub(super) fn priority_class(class: &Value, now: Timestamp) -> Vec<Value> {
    let (value, default) = (
        int(class, "value").unwrap_or(0),
        yes(class, "globalDefault"),
    );
    vec![
        name(class),
        json!(value),
        json!(default),
        age(class, now),
        json!(text(class, "preemptionPolicy")),
    ]
}

pub(super) fn node(node: &Value, now: Timestamp) -> Vec<Value> {
    let info = dig(node, &["status", "nodeInfo"]);
    let or_unknown = |field: &str| match text(info, field) {
        "" => json!("<unknown>"),
        word => json!(word),
    };
    vec![
        name(node),
        json!(node_word(node)),
        json!(roles(node)),
        age(node, now),
        json!(text(info, "kubeletVersion")),
        address(node, "InternalIP"),
        address(node, "ExternalIP"),
        or_unknown("osImage"),
        or_unknown("kernelVersion"),
        or_unknown("containerRuntimeVersion"),
    ]
}

fn node_word(node: &Value) -> String {
    let ready = list(get(node, "status"), "conditions")
        .iter()
        .find(|condition| text(condition, "type") == "Ready");
    let word = ready.map_or("Unknown", |ready| {
        if text(ready, "status") == "True" {
            "Ready"
        } else {
            "NotReady"
        }
    });
    let closed = if yes(get(node, "spec"), "unschedulable") {
        ",SchedulingDisabled"
    } else {
        ""
    };
    format!("{word}{closed}")
}

fn roles(node: &Value) -> String {
    let mut roles: Vec<&str> = entries(get(node, "metadata"), "labels")
        .filter_map(|(key, value)| match key.strip_prefix(ROLE_PREFIX) {
            Some(role) => Some(role),
            None if key == ROLE_LABEL => value.as_str(),
            None => None,
        })
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort_unstable();
    roles.dedup();
    if roles.is_empty() {
        NONE.to_owned()
    } else {
        roles.join(",")
    }
}

fn address(node: &Value, kind: &str) -> Value {
    let own = list(get(node, "status"), "addresses")
        .iter()
        .find(|address| text(address, "type") == kind);
    or_none(own.map_or("", |address| text(address, "address")))
}

/// The fields of an event under the names of either of its groups.
fn either<'a>(event: &'a Value, old: &str, new: &str) -> &'a Value {
    if has(event, old) {
        get(event, old)
    } else {
        get(event, new)
    }
}

pub(super) fn event(event: &Value, now: Timestamp) -> Vec<Value> {
    let (object, source) = (
        either(event, "involvedObject", "regarding"),
        either(event, "source", "deprecatedSource"),
    );
    let time = |value: &Value| value.as_str().map(str::to_owned);
    let happened = time(get(event, "eventTime"));
    let first = time(either(event, "firstTimestamp", "deprecatedFirstTimestamp")).or(happened);
    let last =
        time(either(event, "lastTimestamp", "deprecatedLastTimestamp")).or_else(|| first.clone());
    let series = get(event, "series");
    let (last, count) = if series.is_null() {
        (
            last,
            either(event, "count", "deprecatedCount")
                .as_i64()
                .filter(|count| *count > 0)
                .unwrap_or(1),
        )
    } else {
        (
            time(get(series, "lastObservedTime")),
            int(series, "count").unwrap_or(0),
        )
    };
    let ago = |time: Option<String>| json!(since(&time.unwrap_or_default(), now));
    vec![
        ago(last),
        json!(text(event, "type")),
        json!(text(event, "reason")),
        json!(about(object)),
        json!(text(object, "fieldPath")),
        json!(reporter(event, source)),
        json!(
            either(event, "message", "note")
                .as_str()
                .unwrap_or("")
                .trim()
        ),
        ago(first),
        json!(count),
        name(event),
    ]
}

fn about(object: &Value) -> String {
    let kind = text(object, "kind").to_lowercase();
    match text(object, "name") {
        "" => kind,
        name => format!("{kind}/{name}"),
    }
}

fn reporter(event: &Value, source: &Value) -> String {
    let component = match text(source, "component") {
        "" => either(event, "reportingComponent", "reportingController")
            .as_str()
            .unwrap_or(""),
        component => component,
    };
    match if text(source, "host").is_empty() {
        text(event, "reportingInstance")
    } else {
        text(source, "host")
    } {
        "" => component.to_owned(),
        host => format!("{component}, {host}"),
    }
}

pub(super) fn quota(quota: &Value, now: Timestamp) -> Vec<Value> {
    let status = get(quota, "status");
    let shown = |limits: bool| {
        let words: Vec<String> = entries(status, "hard")
            .filter(|(resource, _)| resource.starts_with("limits") == limits)
            .map(|(resource, hard)| {
                let used = text(get(status, "used"), resource);
                format!(
                    "{resource}: {}/{}",
                    if used.is_empty() { "0" } else { used },
                    hard.as_str().unwrap_or("")
                )
            })
            .collect();
        json!(words.join(", "))
    };
    vec![name(quota), shown(false), shown(true), age(quota, now)]
}

pub(super) fn binding(binding: &Value, now: Timestamp) -> Vec<Value> {
    let role = get(binding, "roleRef");
    let subjects = |kind: &str| {
        let all: Vec<String> = list(binding, "subjects")
            .iter()
            .filter(|subject| text(subject, "kind") == kind)
            .map(|subject| match kind {
                "ServiceAccount" => {
                    format!("{}/{}", text(subject, "namespace"), text(subject, "name"))
                }
                _ => text(subject, "name").to_owned(),
            })
            .collect();
        json!(all.join(", "))
    };
    vec![
        name(binding),
        json!(format!("{}/{}", text(role, "kind"), text(role, "name"))),
        age(binding, now),
        subjects("User"),
        subjects("Group"),
        subjects("ServiceAccount"),
    ]
}
