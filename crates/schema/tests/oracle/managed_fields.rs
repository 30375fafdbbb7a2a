//! Replays the recorded server-side apply conversations against the pure functions: who owns what after every write.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use stead_schema::fields::{ApplyError, Writer, after_update, apply};
use stead_schema::{prune, set_defaults, strategic_merge};

use crate::recorded;

const KIND: (&str, &str) = ("apps/v1", "StatefulSet");

/// A request taken apart.
struct Request<'a> {
    method: &'a str,
    content_type: &'a str,
    subresource: &'a str,
    manager: &'a str,
    force: bool,
    body: &'a Value,
}

impl<'a> Request<'a> {
    /// None if it is not about the set of the conversation.
    fn read(request: &'a Value) -> Option<Self> {
        let path = request["path"].as_str()?;
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let after = path.split_once("/statefulsets")?.1;
        let parameter = |name: &str| {
            query
                .split('&')
                .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
        };
        let agent = request["headers"]["User-Agent"]
            .as_str()
            .unwrap_or("python-requests");
        Some(Self {
            method: request["method"].as_str()?,
            content_type: request["headers"]["Content-Type"]
                .as_str()
                .unwrap_or_default(),
            subresource: after.strip_prefix("/db/").unwrap_or_default(),
            manager: parameter("fieldManager").unwrap_or(agent),
            force: parameter("force") == Some("true"),
            body: &request["body"],
        })
    }

    fn writer(&self) -> Writer<'a> {
        Writer {
            manager: self.manager,
            api_version: KIND.0,
            subresource: self.subresource,
            now: jiff::Timestamp::UNIX_EPOCH,
        }
    }
}

fn normal(mut object: Value) -> Value {
    prune(KIND.0, KIND.1, &mut object);
    set_defaults(&mut object);
    object
}

fn merge_patch(live: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *live = patch.clone();
        return;
    };
    if !live.is_object() {
        *live = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            live.as_object_mut().expect("it was made one").remove(key);
        } else {
            merge_patch(&mut live[key], value);
        }
    }
}

/// What the write makes of the live object, as a server would do it around the pure functions.
fn write(live: Option<&Value>, request: &Request<'_>) -> Result<Value, ApplyError> {
    let mut new = match (live, request.method, request.content_type) {
        (live, "PATCH", "application/apply-patch+yaml") => {
            return apply(live, request.body, request.writer(), request.force);
        }
        (Some(live), "PATCH", "application/strategic-merge-patch+json") => {
            strategic_merge(KIND.0, KIND.1, live, request.body).expect("these patches merge")
        }
        (Some(live), "PATCH", _) => {
            let mut new = live.clone();
            merge_patch(&mut new, request.body);
            new
        }
        (_, _, _) => request.body.clone(),
    };
    new = normal(new);
    after_update(live, &mut new, request.writer());
    if let Some(live) = live {
        let kept = if request.subresource == "status" {
            "spec"
        } else {
            "status"
        };
        new[kept] = live[kept].clone();
    }
    Ok(new)
}

fn compared(object: &Value) -> Value {
    let mut managers: Vec<Value> = object["metadata"]["managedFields"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    for manager in &mut managers {
        manager
            .as_object_mut()
            .expect("entries are objects")
            .remove("time");
    }
    managers.sort_by_key(ToString::to_string);
    let metadata: BTreeMap<_, _> = ["labels", "annotations", "finalizers"]
        .map(|name| (name, object["metadata"][name].clone()))
        .into();
    json!({"managers": managers, "metadata": metadata, "spec": object["spec"], "status": object["status"]})
}

fn causes(conflicts: &ApplyError) -> Value {
    let ApplyError::Conflicts(conflicts) = conflicts else {
        return Value::Null;
    };
    let mut causes: Vec<Value> = conflicts
        .iter()
        .map(|conflict| json!(["FieldManagerConflict", conflict.field]))
        .collect();
    causes.sort_by_key(ToString::to_string);
    Value::Array(causes)
}

/// `None` if the recorded answer is what the functions give; otherwise what differs.
fn difference(got: &Result<Value, ApplyError>, response: &Value) -> Option<String> {
    let body = &response["body"];
    match (got, response["status"].as_u64()) {
        (Ok(got), Some(200 | 201)) if body["kind"] == "StatefulSet" => {
            let (got, want) = (compared(got), compared(body));
            (got != want).then(|| format!("\n want {want}\n got  {got}"))
        }
        (Ok(_), Some(200 | 422)) => None,
        (Err(error), Some(409)) => {
            let mut want: Vec<Value> = body["details"]["causes"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            want.sort_by_key(ToString::to_string);
            (causes(error) != Value::Array(want.clone()))
                .then(|| format!("\n want {want:?}\n got  {error}"))
        }
        (got, status) => Some(format!(
            "want status {status:?}, got {:?}",
            got.as_ref().map(|_| "an object")
        )),
    }
}

#[test]
fn every_recorded_write_gives_the_recorded_owners() {
    let (mut passed, mut failed) = (0, Vec::new());
    for conversation in recorded::conversations(&["server-side-apply"]) {
        let mut live: Option<Value> = None;
        for (at, step) in conversation["steps"]
            .as_array()
            .into_iter()
            .flatten()
            .enumerate()
        {
            let Some(request) = Request::read(&step["request"]) else {
                continue;
            };
            let scaled;
            let request = if request.subresource == "scale" {
                scaled = json!({"spec": {"replicas": request.body["spec"]["replicas"]}});
                Request {
                    body: &scaled,
                    ..request
                }
            } else {
                request
            };
            let got = write(live.as_ref(), &request);
            match difference(&got, &step["response"]) {
                None => passed += 1,
                Some(difference) => failed.push(format!(
                    "{} step {at}: {}{difference}",
                    conversation["id"], step["request"]
                )),
            }
            if let (Ok(got), Some(200 | 201)) = (got, step["response"]["status"].as_u64()) {
                live = Some(got);
            }
        }
    }
    assert!(
        failed.is_empty(),
        "{passed} passed, {} failed; the first:\n{}",
        failed.len(),
        failed[0]
    );
    assert!(passed > 800, "only {passed} writes were found");
}
