//! What two nodes must agree on of a life: the oracle's own summary of a trace.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

/// Phases, readiness, states of each container in turn, and the last status.
pub(crate) fn of(trace: &[Value], events: &BTreeSet<(String, String)>, gone: bool) -> Value {
    let (mut phases, mut ready, mut containers) = (Vec::new(), Vec::new(), Map::new());
    for status in trace {
        push(&mut phases, status["phase"].clone());
        if let Some(condition) = each(&status["conditions"]).find(|c| c["type"] == "Ready") {
            push(&mut ready, condition["status"].clone());
        }
        for container in statuses(status, true) {
            let name = container["name"].as_str().expect("a name");
            let seen = containers.entry(name).or_insert_with(|| json!([]));
            let state = state(&container["state"]);
            let fresh = ["ContainerCreating", "PodInitializing"]
                .iter()
                .any(|reason| state == json!(["waiting", reason]));
            if let Value::Array(seen) = seen
                && !fresh
            {
                push(seen, state);
            }
        }
    }
    let last = trace.last().expect("a status");
    let conditions: BTreeSet<Vec<String>> = each(&last["conditions"])
        .map(|c| {
            ["type", "status", "reason"]
                .map(|key| c[key].as_str().unwrap_or_default().to_owned())
                .to_vec()
        })
        .collect();
    let restarts: Map<String, Value> = statuses(last, false)
        .map(|c| {
            (
                c["name"].as_str().expect("a name").to_owned(),
                c["restartCount"].clone(),
            )
        })
        .collect();
    json!({
        "phases": phases, "ready": ready, "containers": containers, "gone": gone, "reason": last["reason"],
        "qosClass": last["qosClass"], "restarts": restarts, "conditions": conditions, "events": events,
    })
}

fn each(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn statuses(status: &Value, ephemeral: bool) -> impl Iterator<Item = &Value> {
    let ephemerals = ephemeral.then_some("ephemeralContainerStatuses");
    ["initContainerStatuses", "containerStatuses"]
        .into_iter()
        .chain(ephemerals)
        .flat_map(|list| each(&status[list]))
}

fn push(list: &mut Vec<Value>, value: Value) {
    if list.last() != Some(&value) {
        list.push(value);
    }
}

fn state(state: &Value) -> Value {
    let (kind, detail) = state
        .as_object()
        .and_then(|s| s.iter().next())
        .expect("a state");
    let mut words = vec![json!(kind)];
    words.extend(
        ["reason", "exitCode", "signal"]
            .iter()
            .filter_map(|key| detail.get(key).cloned()),
    );
    Value::Array(words)
}
