//! Workloads: sets, deployments, jobs, autoscalers.

use serde_json::{Map, Value, json};

use super::{
    default, default_pointer, is_absent, is_empty, object, object_made, object_mut, objects_mut,
    text,
};

pub(super) fn stateful_set(spec: &mut Map<String, Value>) {
    default(spec, "podManagementPolicy", "OrderedReady");
    if let Some(strategy) = object_made(spec, "updateStrategy") {
        stateful_set_strategy(strategy);
    }
    if let Some(retention) = object_made(spec, "persistentVolumeClaimRetentionPolicy") {
        default(retention, "whenDeleted", "Retain");
        default(retention, "whenScaled", "Retain");
    }
    default_pointer(spec, "replicas", 1);
    default_pointer(spec, "revisionHistoryLimit", 10);
    // upstream: Convert_apps_StatefulSetSpec_To_v1_StatefulSetSpec; claims in a template carry their kind.
    for claim in objects_mut(spec, "volumeClaimTemplates") {
        default(claim, "apiVersion", "v1");
        default(claim, "kind", "PersistentVolumeClaim");
    }
}

/// A strategy that is named but has no parameters keeps none; one that is not named gets both.
fn stateful_set_strategy(strategy: &mut Map<String, Value>) {
    if is_empty(strategy, "type") {
        strategy.insert("type".to_owned(), "RollingUpdate".into());
        default_pointer(strategy, "rollingUpdate", Map::new());
    }
    let rolling = text(strategy, "type") == Some("RollingUpdate");
    if let Some(parameters) = object_mut(strategy, "rollingUpdate").filter(|_| rolling) {
        default_pointer(parameters, "partition", 0);
        default_pointer(parameters, "maxUnavailable", 1);
    }
}

pub(super) fn deployment(spec: &mut Map<String, Value>) {
    default_pointer(spec, "replicas", 1);
    if let Some(strategy) = object_made(spec, "strategy") {
        default(strategy, "type", "RollingUpdate");
        let rolling = text(strategy, "type") == Some("RollingUpdate");
        if rolling && let Some(parameters) = object_made(strategy, "rollingUpdate") {
            default_pointer(parameters, "maxUnavailable", "25%");
            default_pointer(parameters, "maxSurge", "25%");
        }
    }
    default_pointer(spec, "revisionHistoryLimit", 10);
    default_pointer(spec, "progressDeadlineSeconds", 600);
}

pub(super) fn daemon_set(spec: &mut Map<String, Value>) {
    if let Some(strategy) = object_made(spec, "updateStrategy") {
        default(strategy, "type", "RollingUpdate");
        let rolling = text(strategy, "type") == Some("RollingUpdate");
        if rolling && let Some(parameters) = object_made(strategy, "rollingUpdate") {
            default_pointer(parameters, "maxUnavailable", 1);
            default_pointer(parameters, "maxSurge", 0);
        }
    }
    default_pointer(spec, "revisionHistoryLimit", 10);
}

/// Selector and labels come from the template where they are not given.
pub(super) fn replication_controller(controller: &mut Map<String, Value>) {
    let Some(labels) = template_labels(controller) else {
        return;
    };
    if let Some(spec) = object_mut(controller, "spec").filter(|spec| is_empty(spec, "selector")) {
        spec.insert("selector".to_owned(), labels.clone());
    }
    take_labels(controller, labels);
}

fn template_labels(owner: &Map<String, Value>) -> Option<Value> {
    let metadata = object(object(object(owner, "spec")?, "template")?, "metadata")?;
    metadata
        .get("labels")
        .filter(|labels| labels.as_object().is_some_and(|labels| !labels.is_empty()))
        .cloned()
}

fn take_labels(owner: &mut Map<String, Value>, labels: Value) {
    if let Some(metadata) =
        object_made(owner, "metadata").filter(|metadata| is_empty(metadata, "labels"))
    {
        metadata.insert("labels".to_owned(), labels);
    }
}

pub(super) fn job(job: &mut Map<String, Value>) {
    if let Some(labels) = template_labels(job) {
        take_labels(job, labels);
    }
    let Some(spec) = object_mut(job, "spec") else {
        return;
    };
    if is_absent(spec, "completions") && is_absent(spec, "parallelism") {
        spec.insert("completions".to_owned(), 1.into());
    }
    default_pointer(spec, "parallelism", 1);
    let limit = if is_absent(spec, "backoffLimitPerIndex") {
        6
    } else {
        i32::MAX
    };
    default_pointer(spec, "backoffLimit", limit);
    default_pointer(spec, "completionMode", "NonIndexed");
    default_pointer(spec, "suspend", false);
    default_pointer(spec, "manualSelector", false);
    let replacement = if is_absent(spec, "podFailurePolicy") {
        "TerminatingOrFailed"
    } else {
        "Failed"
    };
    default_pointer(spec, "podReplacementPolicy", replacement);
}

pub(super) fn cron_job(spec: &mut Map<String, Value>) {
    default(spec, "concurrencyPolicy", "Allow");
    default_pointer(spec, "suspend", false);
    default_pointer(spec, "successfulJobsHistoryLimit", 3);
    default_pointer(spec, "failedJobsHistoryLimit", 1);
}

pub(super) fn autoscaler(spec: &mut Map<String, Value>) {
    default_pointer(spec, "minReplicas", 1);
    if is_empty(spec, "metrics") {
        let cpu = json!([{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}]);
        spec.insert("metrics".to_owned(), cpu);
    }
    let Some(behavior) = object_mut(spec, "behavior") else {
        return;
    };
    let by_percent = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
    if let Some(up) = object_made(behavior, "scaleUp") {
        default_pointer(up, "stabilizationWindowSeconds", 0);
        default_pointer(up, "selectPolicy", "Max");
        default_pointer(
            up,
            "policies",
            json!([{"type": "Pods", "value": 4, "periodSeconds": 15}, by_percent]),
        );
    }
    if let Some(down) = object_made(behavior, "scaleDown") {
        default_pointer(down, "selectPolicy", "Max");
        default_pointer(down, "policies", json!([by_percent]));
    }
}
