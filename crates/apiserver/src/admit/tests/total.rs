//! No rule and no row panics, whatever JSON stands in a field.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::{Town, context, kind_of};
use crate::admit::{create, update};
use crate::table;

/// One object of each kind that has rules, as small as it may be.
const KINDS: [&str; 33] = [
    "v1/ConfigMap",
    "v1/Endpoints",
    "v1/Event",
    "v1/LimitRange",
    "v1/Namespace",
    "v1/Node",
    "v1/PersistentVolume",
    "v1/PersistentVolumeClaim",
    "v1/Pod",
    "v1/PodTemplate",
    "v1/ReplicationController",
    "v1/ResourceQuota",
    "v1/Secret",
    "v1/Service",
    "apps/v1/ControllerRevision",
    "apps/v1/DaemonSet",
    "apps/v1/Deployment",
    "apps/v1/ReplicaSet",
    "apps/v1/StatefulSet",
    "autoscaling/v2/HorizontalPodAutoscaler",
    "batch/v1/CronJob",
    "batch/v1/Job",
    "coordination.k8s.io/v1/Lease",
    "discovery.k8s.io/v1/EndpointSlice",
    "events.k8s.io/v1/Event",
    "networking.k8s.io/v1/Ingress",
    "networking.k8s.io/v1/NetworkPolicy",
    "policy/v1/PodDisruptionBudget",
    "rbac.authorization.k8s.io/v1/Role",
    "rbac.authorization.k8s.io/v1/RoleBinding",
    "scheduling.k8s.io/v1/PriorityClass",
    "storage.k8s.io/v1/StorageClass",
    "storage.k8s.io/v1/CSIDriver",
];

/// Names that rules look for, so that odd values land where they are read.
const FIELDS: [&str; 34] = [
    "spec",
    "status",
    "metadata",
    "labels",
    "annotations",
    "finalizers",
    "ownerReferences",
    "selector",
    "matchLabels",
    "template",
    "containers",
    "initContainers",
    "volumes",
    "volumeMounts",
    "ports",
    "env",
    "resources",
    "requests",
    "limits",
    "tolerations",
    "affinity",
    "volumeClaimTemplates",
    "updateStrategy",
    "rollingUpdate",
    "clusterIPs",
    "data",
    "type",
    "name",
    "replicas",
    "conditions",
    "containerStatuses",
    "state",
    "rules",
    "subsets",
];

fn leaf() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[ -~]{0,12}".prop_map(Value::from),
        prop_oneof![
            Just("1Gi"),
            Just("-5m"),
            Just("1e400"),
            Just("99999999999999999999Ei"),
            Just("12%"),
            Just("None"),
            Just("ü")
        ]
        .prop_map(Value::from),
    ]
}

fn tree() -> impl Strategy<Value = Value> {
    leaf().prop_recursive(5, 60, 5, |inner| {
        let field = proptest::sample::select(&FIELDS[..]);
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            proptest::collection::vec((field, inner), 0..6).prop_map(|fields| Value::Object(
                fields
                    .into_iter()
                    .map(|(name, value)| (name.to_owned(), value))
                    .collect::<Map<_, _>>()
            )),
        ]
    })
}

fn object(kind: &str, body: Value) -> Value {
    let (version, kind) = kind.rsplit_once('/').expect("version and kind");
    let mut object = match body {
        Value::Object(map) => Value::Object(map),
        other => json!({"spec": other}),
    };
    object["apiVersion"] = version.into();
    object["kind"] = kind.into();
    object
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn nothing_panics(kind in proptest::sample::select(&KINDS[..]), old in tree(), new in tree()) {
        let (old, mut new) = (object(kind, old), object(kind, new));
        let kind = kind_of(&old);
        let town = Town::plain();
        let cells = table::cells(kind, &new, jiff::Timestamp::UNIX_EPOCH);
        prop_assert_eq!(cells.len(), stead_schema::columns(kind.group, kind.version, kind.plural).len());
        for subresource in ["", "status", "ephemeralcontainers", "resize", "finalize"] {
            let mut changed = new.clone();
            // Refused or not, it answers.
            let _answer = update(kind, subresource, &old, &mut changed, &context(&town)).is_ok();
        }
        new["metadata"] = json!({"name": "a", "namespace": "ns", "uid": "u"});
        let _answer = create(kind, &mut new, &context(&town)).is_ok();
    }
}
