//! The cells of a Table row: what `kubectl get` prints of an object, column by column as upstream's printers do.
//!
//! Upstream: `pkg/printers/internalversion/printers.go`. A kind without a printer of its own shows its name and age.

mod age;
mod cluster;
mod network;
mod pod;
mod storage;
mod workload;

use jiff::Timestamp;
use serde_json::{Value, json};
use stead_schema::{Column, Kind};

use crate::admit::read::{get, text};
use age::age;

/// The word for nothing.
const NONE: &str = "<none>";
/// The word for a field that nobody has set.
const UNSET: &str = "<unset>";
/// How many items of a list are shown before the rest is only counted.
const SHOWN: usize = 3;

/// One cell for each of `stead_schema::columns`, in their order.
pub(crate) fn cells(kind: &'static Kind, object: &Value, now: Timestamp) -> Vec<Value> {
    match (kind.group, kind.kind) {
        ("", "Pod") => pod::cells(object, now),
        ("apps", "StatefulSet") => workload::stateful_set(object, now),
        ("apps", "Deployment") => workload::deployment(object, now),
        ("apps", "ReplicaSet") | ("", "ReplicationController") => workload::replicas(object, now),
        ("apps", "DaemonSet") => workload::daemon_set(object, now),
        ("apps", "ControllerRevision") => workload::revision(object, now),
        ("", "PodTemplate") => workload::pod_template(object),
        ("batch", "Job") => workload::job(object, now),
        ("batch", "CronJob") => workload::cron_job(object, now),
        ("policy", "PodDisruptionBudget") => workload::disruption_budget(object, now),
        ("autoscaling", "HorizontalPodAutoscaler") => workload::autoscaler(object, now),
        ("", "Service") => network::service(object, now),
        ("", "Endpoints") => network::endpoints(object, now),
        ("discovery.k8s.io", "EndpointSlice") => network::endpoint_slice(object, now),
        ("networking.k8s.io", "Ingress") => network::ingress(object, now),
        ("networking.k8s.io", "IngressClass") => network::ingress_class(object, now),
        ("networking.k8s.io", "NetworkPolicy") => network::policy(object, now),
        ("", "PersistentVolumeClaim") => storage::claim(object, now),
        ("", "PersistentVolume") => storage::volume(object, now),
        ("storage.k8s.io", "StorageClass") => storage::class(object, now),
        ("storage.k8s.io", "VolumeAttachment") => storage::attachment(object, now),
        ("storage.k8s.io", "CSIDriver") => storage::driver(object, now),
        ("storage.k8s.io", "CSINode") => storage::node(object, now),
        ("", "ConfigMap") => cluster::config_map(object, now),
        ("", "Secret") => cluster::secret(object, now),
        ("", "Namespace") => cluster::namespace(object, now),
        ("", "Node") => cluster::node(object, now),
        ("", "Event") | ("events.k8s.io", "Event") => cluster::event(object, now),
        ("", "ResourceQuota") => cluster::quota(object, now),
        ("coordination.k8s.io", "Lease") => cluster::lease(object, now),
        ("scheduling.k8s.io", "PriorityClass") => cluster::priority_class(object, now),
        ("node.k8s.io", "RuntimeClass") => vec![
            name(object),
            get(object, "handler").clone(),
            age(object, now),
        ],
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => {
            cluster::binding(object, now)
        }
        _ => by_columns(
            stead_schema::columns(kind.group, kind.version, kind.plural),
            object,
            now,
        ),
    }
}

/// What every object can tell: its name, its age, its birth; nothing for the rest.
fn by_columns(columns: &[Column], object: &Value, now: Timestamp) -> Vec<Value> {
    columns
        .iter()
        .map(|column| match (column.name, column.column_type) {
            ("Name", _) => name(object),
            ("Age", _) => age(object, now),
            ("Created At", _) => get(get(object, "metadata"), "creationTimestamp").clone(),
            (_, "integer") => json!(0),
            (_, "boolean") => json!(false),
            (_, _) => json!(""),
        })
        .collect()
}

fn name(object: &Value) -> Value {
    json!(text(get(object, "metadata"), "name"))
}

/// The text, or the word for nothing.
fn or_none(text: &str) -> Value {
    json!(if text.is_empty() { NONE } else { text })
}

/// The first few items; the rest is only counted.
fn few(items: &[String]) -> String {
    let shown = items
        .iter()
        .take(SHOWN)
        .cloned()
        .collect::<Vec<_>>()
        .join(",");
    match items.len().checked_sub(SHOWN) {
        Some(more) if more > 0 => format!("{shown} + {more} more..."),
        Some(_) | None => shown,
    }
}

#[cfg(test)]
mod tests;
