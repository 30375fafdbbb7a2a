//! One stored object seen through another version of its resource.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use stead_schema::Kind;

use crate::object;
use crate::store::Stored;

/// The object as `kind`; the same object when it already is.
pub(crate) fn to(kind: &'static Kind, stored: Arc<Stored>) -> Arc<Stored> {
    if std::ptr::eq(kind, stored.kind) {
        return stored;
    }
    let mut object = stored.value();
    match kind.plural {
        "events" => event(&mut object, kind.group.is_empty()),
        "horizontalpodautoscalers" if kind.version == "v1" => autoscaler_to_v1(&mut object),
        "horizontalpodautoscalers" => autoscaler_to_v2(&mut object),
        _ => {}
    }
    Arc::new(Stored::new(kind, stored.revision, object))
}

/// The fields of an Event that have another name in the other group: in the core group, in `events.k8s.io`.
const EVENT_NAMES: &[(&str, &str)] = &[
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

fn event(object: &mut Value, to_core: bool) {
    let Some(map) = object.as_object_mut() else {
        return;
    };
    for (core, other) in EVENT_NAMES {
        let (from, to) = if to_core {
            (other, core)
        } else {
            (core, other)
        };
        if let Some(value) = map.remove(*from) {
            map.insert((*to).to_owned(), value);
        }
    }
}

/// Where an autoscaler of v1 keeps what only v2 has a field for.
const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

/// v1 knows one metric, the share of the CPU; the rest goes into annotations.
fn autoscaler_to_v1(object: &mut Value) {
    let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else {
        return;
    };
    let metrics = spec
        .remove("metrics")
        .and_then(|metrics| metrics.as_array().cloned())
        .unwrap_or_default();
    let behavior = spec.remove("behavior");
    let (cpu, others): (Vec<Value>, Vec<Value>) = metrics
        .into_iter()
        .partition(|metric| cpu_share(metric).is_some());
    if let Some(share) = cpu.first().and_then(cpu_share) {
        spec.insert("targetCPUUtilizationPercentage".to_owned(), share.into());
    }
    if !others.is_empty() {
        annotate(object, METRICS, &Value::from(others));
    }
    if let Some(behavior) = behavior.filter(|behavior| !behavior.is_null()) {
        annotate(object, BEHAVIOR, &behavior);
    }
    if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) {
        status.remove("currentMetrics");
        status.remove("conditions");
    }
}

fn cpu_share(metric: &Value) -> Option<i64> {
    if metric["type"] != "Resource"
        || metric["resource"]["name"] != "cpu"
        || metric["resource"]["target"]["type"] != "Utilization"
    {
        return None;
    }
    metric["resource"]["target"]["averageUtilization"].as_i64()
}

fn autoscaler_to_v2(object: &mut Value) {
    let others = unannotate(object, METRICS);
    let behavior = unannotate(object, BEHAVIOR);
    let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else {
        return;
    };
    let mut metrics = Vec::new();
    if let Some(share) = spec
        .remove("targetCPUUtilizationPercentage")
        .and_then(|share| share.as_i64())
    {
        metrics.push(json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": share}}}));
    }
    metrics.extend(
        others
            .and_then(|others| others.as_array().cloned())
            .unwrap_or_default(),
    );
    if !metrics.is_empty() {
        spec.insert("metrics".to_owned(), metrics.into());
    }
    if let Some(behavior) = behavior {
        spec.insert("behavior".to_owned(), behavior);
    }
    if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) {
        status.remove("currentCPUUtilizationPercentage");
    }
}

fn annotate(object: &mut Value, key: &str, value: &Value) {
    let Some(metadata) = object::metadata_mut(object) else {
        return;
    };
    let annotations = metadata
        .entry("annotations")
        .or_insert_with(|| Value::Object(Map::new()));
    if let Some(annotations) = annotations.as_object_mut() {
        annotations.insert(key.to_owned(), value.to_string().into());
    }
}

fn unannotate(object: &mut Value, key: &str) -> Option<Value> {
    let metadata = object::metadata_mut(object)?;
    let annotations = metadata.get_mut("annotations")?.as_object_mut()?;
    let text = annotations.remove(key)?;
    if annotations.is_empty() {
        metadata.remove("annotations");
    }
    serde_json::from_str(text.as_str()?).ok()
}
