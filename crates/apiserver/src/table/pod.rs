//! A pod's row: how many containers are ready, and the one word that says best what it is doing.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::age::{age, since};
use super::{NONE, name, or_none};
use crate::admit::read::{dig, get, has, int, list, text, yes};

/// What the containers' reports add up to.
#[derive(Default)]
struct Seen {
    ready: usize,
    restarts: i64,
    /// When a container last ended before it was started again.
    last_end: String,
    reason: String,
}

impl Seen {
    fn restarted(&mut self, report: &Value) {
        self.restarts += int(report, "restartCount").unwrap_or(0);
        let end = text(dig(report, &["lastState", "terminated"]), "finishedAt");
        if end > self.last_end.as_str() {
            end.clone_into(&mut self.last_end);
        }
    }
}

/// The row.
pub(super) fn cells(pod: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (get(pod, "spec"), get(pod, "status"));
    let sidecars = list(spec, "initContainers")
        .iter()
        .filter(|container| text(container, "restartPolicy") == "Always")
        .count();
    let seen = look(pod);
    let total = list(spec, "containers").len() + sidecars;
    let restarts = if seen.restarts != 0 && !seen.last_end.is_empty() {
        format!("{} ({} ago)", seen.restarts, since(&seen.last_end, now))
    } else {
        seen.restarts.to_string()
    };
    let address = list(status, "podIPs")
        .first()
        .map_or(text(status, "podIP"), |first| text(first, "ip"));
    vec![
        name(pod),
        json!(format!("{}/{total}", seen.ready)),
        json!(seen.reason),
        json!(restarts),
        age(pod, now),
        or_none(address),
        or_none(text(spec, "nodeName")),
        or_none(text(status, "nominatedNodeName")),
        readiness_gates(pod),
    ]
}

fn readiness_gates(pod: &Value) -> Value {
    let gates = list(get(pod, "spec"), "readinessGates");
    if gates.is_empty() {
        return json!(NONE);
    }
    let open = gates
        .iter()
        .filter(|gate| is_true(pod, text(gate, "conditionType")))
        .count();
    json!(format!("{open}/{}", gates.len()))
}

fn is_true(pod: &Value, condition: &str) -> bool {
    list(get(pod, "status"), "conditions")
        .iter()
        .any(|own| text(own, "type") == condition && text(own, "status") == "True")
}

fn look(pod: &Value) -> Seen {
    let status = get(pod, "status");
    let phase = text(status, "phase");
    let mut seen = Seen {
        reason: first_word(status, phase).to_owned(),
        ..Seen::default()
    };
    let mut sidecars = Seen::default();
    let initializing = look_at_init(pod, &mut seen, &mut sidecars);
    if !initializing || is_true(pod, "Initialized") {
        (seen.restarts, seen.last_end) = (sidecars.restarts, sidecars.last_end);
        look_at_containers(pod, &mut seen);
    }
    let going = has(get(pod, "metadata"), "deletionTimestamp");
    if going && text(status, "reason") == "NodeLost" {
        seen.reason = "Unknown".to_owned();
    } else if going && !matches!(phase, "Succeeded" | "Failed") {
        seen.reason = "Terminating".to_owned();
    }
    seen
}

fn first_word<'a>(status: &'a Value, phase: &'a str) -> &'a str {
    let gated = list(status, "conditions")
        .iter()
        .any(|own| text(own, "type") == "PodScheduled" && text(own, "reason") == "SchedulingGated");
    match text(status, "reason") {
        _ if gated => "SchedulingGated",
        "" => phase,
        reason => reason,
    }
}

/// Goes through the init containers up to the first that is not done; answers whether there is one.
fn look_at_init(pod: &Value, seen: &mut Seen, sidecars: &mut Seen) -> bool {
    let all = list(get(pod, "spec"), "initContainers");
    for (index, report) in list(get(pod, "status"), "initContainerStatuses")
        .iter()
        .enumerate()
    {
        let is_sidecar = all.iter().any(|own| {
            text(own, "name") == text(report, "name") && text(own, "restartPolicy") == "Always"
        });
        seen.restarted(report);
        if is_sidecar {
            sidecars.restarted(report);
        }
        let (ended, waiting) = (
            dig(report, &["state", "terminated"]),
            dig(report, &["state", "waiting"]),
        );
        if !ended.is_null() && int(ended, "exitCode").unwrap_or(0) == 0 {
            continue;
        }
        if is_sidecar && yes(report, "started") {
            seen.ready += usize::from(yes(report, "ready"));
            continue;
        }
        seen.reason = match text(waiting, "reason") {
            _ if !ended.is_null() => format!("Init:{}", end_word(ended)),
            "" | "PodInitializing" => format!("Init:{index}/{}", all.len()),
            reason => format!("Init:{reason}"),
        };
        return true;
    }
    false
}

fn end_word(ended: &Value) -> String {
    match (text(ended, "reason"), int(ended, "signal").unwrap_or(0)) {
        ("", 0) => format!("ExitCode:{}", int(ended, "exitCode").unwrap_or(0)),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

fn look_at_containers(pod: &Value, seen: &mut Seen) {
    let mut any_runs = false;
    for report in list(get(pod, "status"), "containerStatuses").iter().rev() {
        seen.restarted(report);
        let (ended, waiting) = (
            dig(report, &["state", "terminated"]),
            dig(report, &["state", "waiting"]),
        );
        if !text(waiting, "reason").is_empty() {
            text(waiting, "reason").clone_into(&mut seen.reason);
        } else if !ended.is_null() {
            seen.reason = end_word(ended);
        } else if yes(report, "ready") && has(get(report, "state"), "running") {
            any_runs = true;
            seen.ready += 1;
        }
    }
    if seen.reason == "Completed" && any_runs {
        seen.reason = if is_true(pod, "Ready") {
            "Running"
        } else {
            "NotReady"
        }
        .to_owned();
    }
}
