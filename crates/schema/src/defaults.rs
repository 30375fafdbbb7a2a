//! Defaulting: what kube-apiserver fills in before it stores an object.
//!
//! The object is walked by its types, parents before children as upstream does; each type of the list in
//! [`rule`] has one small rule, and defaults that the table can state are taken from there. Zero values count as
//! absent where Go cannot tell the two apart. Expects an object that [`prune`](crate::prune) has normalised, but is
//! total and idempotent on any.

mod image;
mod networking;
mod pod;
mod rest;
mod storage;
mod volume;
mod workload;

use serde_json::{Map, Value};

use crate::table::{Field, Shape, Table, Type, TypeId, table};

/// Fills every default of the object's kind in; idempotent. Kinds that the table does not know are left alone.
///
/// What upstream's conversions between versions change is done as well: `stringData` becomes `data`,
/// `serviceAccount` mirrors `serviceAccountName`, templates of claims carry their kind.
pub fn set_defaults(object: &mut Value) {
    let text = |name: &str| object.get(name).and_then(Value::as_str).unwrap_or_default();
    if let Some(id) = table().of_kind(text("apiVersion"), text("kind")) {
        walk(id, object);
    }
}

/// Fills the defaults of a bare pod template (`metadata`, `spec`) in, as for the template of a StatefulSet.
pub fn set_pod_template_defaults(template: &mut Value) {
    if let Some(id) = table().named("api.core.v1.PodTemplateSpec") {
        walk(id, template);
    }
}

fn walk(id: TypeId, value: &mut Value) {
    if let Value::Object(map) = value {
        walk_struct(table(), table().of(id), map);
    }
}

fn walk_struct(table: &'static Table, of: &'static Type, map: &mut Map<String, Value>) {
    rule(of.name, map);
    of.defaulted().for_each(|field| from_table(field, map));
    for (name, value) in map.iter_mut() {
        if let Some(field) = of.field(name) {
            walk_value(table, &field.shape, value);
        }
    }
}

fn walk_value(table: &'static Table, shape: &'static Shape, value: &mut Value) {
    match (shape, value) {
        (Shape::Struct(id), Value::Object(map)) => walk_struct(table, table.of(*id), map),
        (Shape::List(element), Value::Array(list)) => list
            .iter_mut()
            .for_each(|value| walk_value(table, element, value)),
        (Shape::Map(element), Value::Object(map)) => map
            .values_mut()
            .for_each(|value| walk_value(table, element, value)),
        (Shape::Struct(_) | Shape::List(_) | Shape::Map(_) | Shape::Leaf(_), _) => {}
    }
}

/// A default that the table states: the field's own, where it is absent (or zero, for Go fields that are no pointers).
fn from_table(field: &Field, map: &mut Map<String, Value>) {
    let absent = if field.pointer {
        is_absent(map, field.name)
    } else {
        is_empty(map, field.name)
    };
    if let Some(json) = field.default.filter(|_| absent)
        && let Ok(value) = serde_json::from_str(json)
    {
        map.insert(field.name.to_owned(), value);
    }
}

/// The rule of one type. `upstream: pkg/apis/*/v1/defaults.go`, `SetDefaults_<type>`.
fn rule(type_name: &str, map: &mut Map<String, Value>) {
    let Some(name) = type_name.strip_prefix("api.") else {
        return;
    };
    match name {
        "core.v1.Pod" => pod::pod(map),
        "core.v1.PodSpec" => pod::spec(map),
        "core.v1.Container" | "core.v1.EphemeralContainer" => pod::container(map),
        "core.v1.Probe" => pod::probe(map),
        "core.v1.HTTPGetAction" => pod::http_get(map),
        "core.v1.ObjectFieldSelector" => default(map, "apiVersion", "v1"),
        "core.v1.ResourceRequirements" | "core.v1.VolumeResourceRequirements" => {
            pod::round_resources(map, &["limits", "requests"])
        }
        "core.v1.PodTemplateSpec" => pod::drop_old_annotations(map),
        "core.v1.Volume" => volume::volume(map),
        "core.v1.SecretVolumeSource"
        | "core.v1.ConfigMapVolumeSource"
        | "core.v1.DownwardAPIVolumeSource"
        | "core.v1.ProjectedVolumeSource" => {
            default(map, "defaultMode", volume::MODE);
        }
        "core.v1.ServiceAccountTokenProjection" => default(map, "expirationSeconds", 3600),
        "core.v1.HostPathVolumeSource" => default_pointer(map, "type", ""),
        "core.v1.PersistentVolume" => storage::volume(map),
        "core.v1.PersistentVolumeClaim" => storage::claim(map),
        "core.v1.PersistentVolumeClaimSpec" => default(map, "volumeMode", "Filesystem"),
        "core.v1.PersistentVolumeSpec" => pod::round_resources(map, &["capacity"]),
        "core.v1.PersistentVolumeClaimStatus" => {
            pod::round_resources(map, &["capacity", "allocatedResources"])
        }
        "storage.v1.StorageClass" => storage::class(map),
        "storage.v1.CSIDriverSpec" => storage::driver(map),
        "core.v1.Service" => networking::service(map),
        "core.v1.EndpointPort" => default(map, "protocol", "TCP"),
        "discovery.v1.EndpointPort" => networking::slice_port(map),
        "networking.v1.NetworkPolicyPort" => default(map, "protocol", "TCP"),
        "networking.v1.NetworkPolicySpec" => networking::policy(map),
        "networking.v1.IngressClassParametersReference" => default(map, "scope", "Cluster"),
        "apps.v1.StatefulSetSpec" => workload::stateful_set(map),
        "apps.v1.DeploymentSpec" => workload::deployment(map),
        "apps.v1.DaemonSetSpec" => workload::daemon_set(map),
        "apps.v1.ReplicaSetSpec" => default(map, "replicas", 1),
        "core.v1.ReplicationController" => workload::replication_controller(map),
        "batch.v1.Job" => workload::job(map),
        "batch.v1.CronJobSpec" => workload::cron_job(map),
        "batch.v1.PodFailurePolicyOnPodConditionsPattern" => default(map, "status", "True"),
        "autoscaling.v1.HorizontalPodAutoscalerSpec" => default(map, "minReplicas", 1),
        "autoscaling.v2.HorizontalPodAutoscalerSpec" => workload::autoscaler(map),
        "core.v1.Namespace" => rest::namespace(map),
        "core.v1.Secret" => rest::secret(map),
        "core.v1.NodeSpec" => rest::node_spec(map),
        "core.v1.NodeStatus" => rest::node_status(map),
        "core.v1.LimitRangeItem" => rest::limit_range_item(map),
        "core.v1.ResourceQuotaSpec" => pod::round_resources(map, &["hard"]),
        "core.v1.ResourceQuotaStatus" => pod::round_resources(map, &["hard", "used"]),
        "scheduling.v1.PriorityClass" => default(map, "preemptionPolicy", "PreemptLowerPriority"),
        "rbac.v1.RoleRef" => default(map, "apiGroup", rest::RBAC_GROUP),
        "rbac.v1.Subject" => rest::subject(map),
        "admissionregistration.v1.ValidatingWebhook" => rest::webhook(map),
        "admissionregistration.v1.MutatingWebhook" => rest::mutating_webhook(map),
        "admissionregistration.v1.RuleWithOperations"
        | "admissionregistration.v1.NamedRuleWithOperations" => default(map, "scope", "*"),
        "admissionregistration.v1.ServiceReference" => default(map, "port", 443),
        _ => {}
    }
}

/// Whether Go sees nothing: no field, or null.
fn is_absent(map: &Map<String, Value>, name: &str) -> bool {
    map.get(name).is_none_or(Value::is_null)
}

/// Whether Go sees a zero value: nothing, ``, 0, false, an empty list or map.
fn is_empty(map: &Map<String, Value>, name: &str) -> bool {
    match map.get(name) {
        None | Some(Value::Null | Value::Bool(false)) => true,
        Some(Value::String(text)) => text.is_empty(),
        Some(Value::Number(number)) => number.as_f64() == Some(0.0),
        Some(Value::Array(list)) => list.is_empty(),
        Some(Value::Object(map)) => map.is_empty(),
        Some(Value::Bool(true)) => false,
    }
}

/// Sets a field that is absent or an empty text.
fn default(map: &mut Map<String, Value>, name: &str, value: impl Into<Value>) {
    if is_absent(map, name) || text(map, name) == Some("") {
        map.insert(name.to_owned(), value.into());
    }
}

/// Sets a field that is absent; an empty text is a value.
fn default_pointer(map: &mut Map<String, Value>, name: &str, value: impl Into<Value>) {
    if is_absent(map, name) {
        map.insert(name.to_owned(), value.into());
    }
}

/// Sets a number that is absent or 0.
fn default_number(map: &mut Map<String, Value>, name: &str, value: i64) {
    if is_empty(map, name) {
        map.insert(name.to_owned(), value.into());
    }
}

fn text<'a>(map: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    map.get(name)?.as_str()
}

fn object<'a>(map: &'a Map<String, Value>, name: &str) -> Option<&'a Map<String, Value>> {
    map.get(name)?.as_object()
}

fn object_mut<'a>(
    map: &'a mut Map<String, Value>,
    name: &str,
) -> Option<&'a mut Map<String, Value>> {
    map.get_mut(name)?.as_object_mut()
}

/// The object of this name, made if it is absent; `None` if something else stands there.
fn object_made<'a>(
    map: &'a mut Map<String, Value>,
    name: &str,
) -> Option<&'a mut Map<String, Value>> {
    if is_absent(map, name) {
        map.insert(name.to_owned(), Value::Object(Map::new()));
    }
    object_mut(map, name)
}

fn objects_mut<'a>(
    map: &'a mut Map<String, Value>,
    name: &str,
) -> impl Iterator<Item = &'a mut Map<String, Value>> {
    map.get_mut(name)
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
        .filter_map(Value::as_object_mut)
}

fn objects<'a>(
    map: &'a Map<String, Value>,
    name: &str,
) -> impl Iterator<Item = &'a Map<String, Value>> {
    map.get(name)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_object)
}

#[cfg(test)]
mod tests;
