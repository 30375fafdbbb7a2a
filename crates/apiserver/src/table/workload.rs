//! The rows of workloads and of what belongs to them: replicas, revisions, budgets, autoscalers.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::age::{age, human, since};
use super::{NONE, UNSET, name, or_none};
use crate::admit::read::{dig, entries, get, has, int, list, text, yes};
use crate::admit::selector::words;

fn count(object: &Value, fields: &[&str]) -> i64 {
    dig(object, fields).as_i64().unwrap_or(0)
}

/// The names and the images of a template's containers.
fn containers(template: &Value) -> [Value; 2] {
    ["name", "image"].map(|field| {
        let all: Vec<&str> = list(get(template, "spec"), "containers")
            .iter()
            .map(|container| text(container, field))
            .collect();
        json!(all.join(","))
    })
}

fn template(object: &Value) -> &Value {
    dig(object, &["spec", "template"])
}

fn selector(object: &Value) -> Value {
    or_none(&words(dig(object, &["spec", "selector"])))
}

/// A map of labels as one word each: `a=b,c=d`.
pub(super) fn labels(labels: &Value) -> Value {
    let words: Vec<String> = labels
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or("")))
        .collect();
    or_none(&words.join(","))
}

pub(super) fn stateful_set(set: &Value, now: Timestamp) -> Vec<Value> {
    let ready = format!(
        "{}/{}",
        count(set, &["status", "readyReplicas"]),
        count(set, &["spec", "replicas"])
    );
    let [names, images] = containers(template(set));
    vec![name(set), json!(ready), age(set, now), names, images]
}

pub(super) fn deployment(deployment: &Value, now: Timestamp) -> Vec<Value> {
    let status = |field| count(deployment, &["status", field]);
    let ready = format!(
        "{}/{}",
        status("readyReplicas"),
        count(deployment, &["spec", "replicas"])
    );
    let [names, images] = containers(template(deployment));
    let (updated, available) = (
        json!(status("updatedReplicas")),
        json!(status("availableReplicas")),
    );
    vec![
        name(deployment),
        json!(ready),
        updated,
        available,
        age(deployment, now),
        names,
        images,
        selector(deployment),
    ]
}

pub(super) fn replicas(set: &Value, now: Timestamp) -> Vec<Value> {
    let [names, images] = containers(template(set));
    let own = dig(set, &["spec", "selector"]);
    // A ReplicationController's selector is a plain map.
    let selector = if has(own, "matchLabels") || has(own, "matchExpressions") {
        selector(set)
    } else {
        labels(own)
    };
    vec![
        name(set),
        json!(count(set, &["spec", "replicas"])),
        json!(count(set, &["status", "replicas"])),
        json!(count(set, &["status", "readyReplicas"])),
        age(set, now),
        names,
        images,
        selector,
    ]
}

pub(super) fn daemon_set(set: &Value, now: Timestamp) -> Vec<Value> {
    let counters = [
        "desiredNumberScheduled",
        "currentNumberScheduled",
        "numberReady",
        "updatedNumberScheduled",
        "numberAvailable",
    ];
    let [names, images] = containers(template(set));
    let mut cells = vec![name(set)];
    cells.extend(counters.map(|field| json!(count(set, &["status", field]))));
    cells.extend([
        labels(dig(set, &["spec", "template", "spec", "nodeSelector"])),
        age(set, now),
        names,
        images,
        selector(set),
    ]);
    cells
}

pub(super) fn pod_template(object: &Value) -> Vec<Value> {
    let own = get(object, "template");
    let [names, images] = containers(own);
    vec![
        name(object),
        names,
        images,
        labels(dig(own, &["metadata", "labels"])),
    ]
}

pub(super) fn revision(revision: &Value, now: Timestamp) -> Vec<Value> {
    let owner = list(get(revision, "metadata"), "ownerReferences")
        .iter()
        .find(|owner| yes(owner, "controller"));
    let controller = owner.map_or_else(
        || NONE.to_owned(),
        |owner| {
            let group = text(owner, "apiVersion")
                .split_once('/')
                .map_or(String::new(), |(group, _)| format!(".{group}"));
            format!(
                "{}{group}/{}",
                text(owner, "kind").to_lowercase(),
                text(owner, "name")
            )
        },
    );
    vec![
        name(revision),
        json!(controller),
        json!(int(revision, "revision").unwrap_or(0)),
        age(revision, now),
    ]
}

pub(super) fn job(job: &Value, now: Timestamp) -> Vec<Value> {
    let done = count(job, &["status", "succeeded"]);
    let parallel = count(job, &["spec", "parallelism"]);
    let completions = match int(get(job, "spec"), "completions") {
        Some(wanted) => format!("{done}/{wanted}"),
        None if parallel > 1 => format!("{done}/1 of {parallel}"),
        None => format!("{done}/1"),
    };
    let [names, images] = containers(template(job));
    vec![
        name(job),
        json!(job_word(job)),
        json!(completions),
        json!(duration(job, now)),
        age(job, now),
        names,
        images,
        selector(job),
    ]
}

fn job_word(job: &Value) -> &'static str {
    let has_condition = |kind: &str| {
        list(get(job, "status"), "conditions")
            .iter()
            .any(|own| text(own, "type") == kind && text(own, "status") == "True")
    };
    match () {
        () if has_condition("Complete") => "Complete",
        () if has_condition("Failed") => "Failed",
        () if has(get(job, "metadata"), "deletionTimestamp") => "Terminating",
        () if has_condition("Suspended") => "Suspended",
        () if has_condition("FailureTarget") => "FailureTarget",
        () if has_condition("SuccessCriteriaMet") => "SuccessCriteriaMet",
        () => "Running",
    }
}

fn duration(job: &Value, now: Timestamp) -> String {
    let time = |field: &str| text(get(job, "status"), field).parse::<Timestamp>().ok();
    let Some(start) = time("startTime") else {
        return String::new();
    };
    human(time("completionTime").unwrap_or(now).as_second() - start.as_second())
}

pub(super) fn cron_job(cron: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (get(cron, "spec"), get(cron, "status"));
    let last = text(status, "lastScheduleTime");
    let inner = dig(spec, &["jobTemplate", "spec"]);
    let [names, images] = containers(get(inner, "template"));
    let suspended = match get(spec, "suspend").as_bool() {
        Some(true) => "True",
        Some(false) => "False",
        None => UNSET,
    };
    vec![
        name(cron),
        json!(text(spec, "schedule")),
        or_none(text(spec, "timeZone")),
        json!(suspended),
        json!(list(status, "active").len()),
        json!(if last.is_empty() {
            NONE.to_owned()
        } else {
            since(last, now)
        }),
        age(cron, now),
        names,
        images,
        or_none(&words(get(inner, "selector"))),
    ]
}

pub(super) fn disruption_budget(budget: &Value, now: Timestamp) -> Vec<Value> {
    let bound = |field: &str| match get(get(budget, "spec"), field) {
        Value::Null => json!("N/A"),
        Value::String(percent) => json!(percent),
        number => json!(number.to_string()),
    };
    let allowed = count(budget, &["status", "disruptionsAllowed"]);
    vec![
        name(budget),
        bound("minAvailable"),
        bound("maxUnavailable"),
        json!(allowed),
        age(budget, now),
    ]
}

pub(super) fn autoscaler(scaler: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (get(scaler, "spec"), get(scaler, "status"));
    let target = get(spec, "scaleTargetRef");
    let least =
        int(spec, "minReplicas").map_or_else(|| UNSET.to_owned(), |least| least.to_string());
    vec![
        name(scaler),
        json!(format!("{}/{}", text(target, "kind"), text(target, "name"))),
        json!(metrics(spec, status)),
        json!(least),
        json!(int(spec, "maxReplicas").unwrap_or(0).to_string()),
        json!(int(status, "currentReplicas").unwrap_or(0).to_string()),
        age(scaler, now),
    ]
}

fn metrics(spec: &Value, status: &Value) -> String {
    if let Some(target) = int(spec, "targetCPUUtilizationPercentage") {
        let now = int(status, "currentCPUUtilizationPercentage")
            .map_or_else(|| "<unknown>".to_owned(), |now| format!("{now}%"));
        return format!("cpu: {now}/{target}%");
    }
    let all: Vec<String> = list(spec, "metrics")
        .iter()
        .enumerate()
        .map(|(index, metric)| one_metric(metric, list(status, "currentMetrics"), index))
        .collect();
    match all.as_slice() {
        [] => NONE.to_owned(),
        [one] => one.clone(),
        [one, two] => format!("{one}, {two}"),
        [one, two, more @ ..] => format!("{one}, {two} + {} more...", more.len()),
    }
}

fn one_metric(metric: &Value, current: &[Value], index: usize) -> String {
    let kinds = [
        "resource",
        "containerResource",
        "pods",
        "object",
        "external",
    ];
    let Some(kind) = kinds.into_iter().find(|kind| has(metric, kind)) else {
        return "<unknown type>".to_owned();
    };
    let (own, now) = (
        get(metric, kind),
        current
            .get(index)
            .map_or(&Value::Null, |report| get(report, kind)),
    );
    let (target, now) = (get(own, "target"), get(now, "current"));
    let shown = match int(target, "averageUtilization") {
        Some(percent) => {
            let now = int(now, "averageUtilization")
                .map_or_else(|| "<unknown>".to_owned(), |now| format!("{now}%"));
            format!("{now}/{percent}%")
        }
        None => {
            let of = |holder: &Value| entries_text(holder, &["averageValue", "value"]);
            format!(
                "{}/{}",
                of(now).unwrap_or_else(|| "<unknown>".to_owned()),
                of(target).unwrap_or_default()
            )
        }
    };
    match text(own, "name") {
        "" => shown,
        name => format!("{name}: {shown}"),
    }
}

fn entries_text(holder: &Value, fields: &[&str]) -> Option<String> {
    fields
        .iter()
        .find_map(|field| get(holder, field).as_str().map(str::to_owned))
}

/// Whether a map has entries at all.
pub(super) fn size(object: &Value, field: &str) -> usize {
    entries(object, field).count()
}
