//! What is made equal before answers are compared: exactly what the oracle's README lists.

use serde_json::{Map, Value, json};

/// Keys whose values differ from run to run.
const SET: &[&str] = &[
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "deletionTimestamp",
    "continue",
    "clusterIP",
    "nodePort",
    "selfLink",
    "remainingItemCount",
    "expirationTimestamp",
    "token",
    "observedResourceVersion",
    "lastTransitionTime",
    "lastProbeTime",
    "lastPhaseTransitionTime",
    "storageVersionHash",
    "kubernetes.io/metadata.name",
];

/// Columns of a Table whose cells are times.
const TIMES: &[&str] = &["age", "created at", "last seen", "first seen"];

/// A normalised answer. `managed` keeps the field managers, without their times.
pub(super) fn normal(value: &Value, managed: bool) -> Value {
    match value {
        Value::Object(map) if map.get("kind").and_then(Value::as_str) == Some("Table") => {
            object(&table(map), managed)
        }
        Value::Object(map) => object(map, managed),
        Value::Array(list) => list.iter().map(|one| normal(one, managed)).collect(),
        Value::String(text) => unmarked(text).into(),
        other => other.clone(),
    }
}

/// What is compared of a Status.
pub(super) fn status(value: &Value) -> Value {
    let mut reduced = json!({"kind": "Status", "status": value["status"], "code": value["code"], "reason": value["reason"]});
    let mut details = Map::new();
    for key in ["name", "group", "kind"] {
        if let Some(value) = value["details"].get(key) {
            details.insert(key.to_owned(), normal(value, false));
        }
    }
    if let Some(causes) = value["details"]["causes"].as_array() {
        let text = |cause: &Value, field: &str| unmarked(cause[field].as_str().unwrap_or(""));
        let mut pairs: Vec<(String, String)> = causes
            .iter()
            .map(|cause| (text(cause, "reason"), text(cause, "field")))
            .collect();
        pairs.sort();
        details.insert("causes".to_owned(), json!(pairs));
    }
    if !details.is_empty() {
        reduced["details"] = Value::Object(details);
    }
    reduced
}

fn object(map: &Map<String, Value>, managed: bool) -> Value {
    let mut reduced = Map::new();
    for (key, value) in map {
        let plain = !matches!(value, Value::Null | Value::Object(_) | Value::Array(_))
            && value.as_str() != Some("");
        let new = match key.as_str() {
            "message" => continue,
            "managedFields" if !managed => continue,
            "managedFields" => managers(value),
            "clusterIP" if value == "None" => value.clone(),
            name if SET.contains(&name) && plain => "<set>".into(),
            "clusterIPs" if *value != json!(["None"]) => value
                .as_array()
                .map_or(Value::Null, |list| list.iter().map(|_| "<set>").collect()),
            "disruptedPods" => value.as_object().map_or(Value::Null, |pods| {
                pods.keys().map(|name| (name.clone(), "<set>")).collect()
            }),
            _ => normal(value, managed),
        };
        reduced.insert(key.clone(), new);
    }
    Value::Object(reduced)
}

fn managers(value: &Value) -> Value {
    let mut entries: Vec<Value> = value
        .as_array()
        .into_iter()
        .flatten()
        .map(|entry| normal(entry, true))
        .collect();
    for entry in &mut entries {
        if let Some(map) = entry.as_object_mut() {
            map.remove("time");
        }
    }
    let key = |entry: &Value| {
        ["manager", "operation", "subresource"]
            .map(|field| entry[field].as_str().unwrap_or("").to_owned())
    };
    entries.sort_by_key(key);
    entries.into()
}

fn table(map: &Map<String, Value>) -> Map<String, Value> {
    let mut map = map.clone();
    let mut times = Vec::new();
    for (index, column) in map
        .get_mut("columnDefinitions")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
        .enumerate()
    {
        if let Some(column) = column.as_object_mut() {
            column.remove("description");
        }
        if TIMES.contains(
            &column["name"]
                .as_str()
                .unwrap_or("")
                .to_lowercase()
                .as_str(),
        ) {
            times.push(index);
        }
    }
    for row in map
        .get_mut("rows")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        for (index, cell) in row["cells"]
            .as_array_mut()
            .into_iter()
            .flatten()
            .enumerate()
        {
            if times.contains(&index) {
                *cell = "<set>".into();
            } else if let Some(text) = cell.as_str() {
                *cell = cell_text(text).into();
            }
        }
    }
    map
}

/// Addresses and node ports of a cell.
fn cell_text(text: &str) -> String {
    let parts: Vec<&str> = text.split('.').collect();
    if parts.len() == 4
        && parts
            .iter()
            .all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
    {
        return "<ip>".to_owned();
    }
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(":3") {
        let after = &rest[at + 2..];
        let digits = after.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 4 && after[4..].starts_with('/') {
            out.push_str(&rest[..at]);
            out.push_str(":<set>");
            rest = &after[4..];
        } else {
            out.push_str(&rest[..at + 2]);
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

/// Text without uids and generated suffixes.
fn unmarked(text: &str) -> String {
    let text = replaced(text, "kube-api-access-", |rest| suffix(rest, 5, 5));
    let text = replaced(&text, "gen-", |rest| suffix(rest, 5, usize::MAX));
    without_uuids(&text)
}

fn suffix(rest: &str, least: usize, most: usize) -> usize {
    let length = rest
        .bytes()
        .take(most)
        .take_while(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        .count();
    if length >= least { length } else { 0 }
}

/// Replaces what follows each `prefix`, as long as `length` says it is generated.
fn replaced(text: &str, prefix: &str, length: impl Fn(&str) -> usize) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(prefix) {
        let (before, after) = rest.split_at(at + prefix.len());
        out.push_str(before);
        let generated = length(after);
        if generated > 0 {
            out.push_str("<gen>");
        }
        rest = &after[generated..];
    }
    out.push_str(rest);
    out
}

fn without_uuids(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = String::new();
    let mut start = 0;
    let mut at = 0;
    while at < bytes.len() {
        if is_uuid(&bytes[at..]) {
            out.push_str(&text[start..at]);
            out.push_str("<set>");
            at += 36;
            start = at;
        } else {
            at += 1;
        }
    }
    out.push_str(&text[start..]);
    out
}

fn is_uuid(bytes: &[u8]) -> bool {
    bytes.len() >= 36
        && bytes[..36]
            .iter()
            .enumerate()
            .all(|(index, byte)| match index {
                8 | 13 | 18 | 23 => *byte == b'-',
                _ => byte.is_ascii_digit() || (b'a'..=b'f').contains(byte),
            })
}
