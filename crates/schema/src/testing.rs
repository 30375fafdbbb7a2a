//! Objects for property tests: of a known kind, with fields that exist, fields that do not, and values of any type.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// Names that occur in the table, so that walks go deep, and one that does not.
const NAMES: &[&str] = &[
    "metadata",
    "spec",
    "status",
    "template",
    "containers",
    "initContainers",
    "volumes",
    "ports",
    "resources",
    "limits",
    "requests",
    "labels",
    "annotations",
    "name",
    "selector",
    "matchLabels",
    "updateStrategy",
    "rollingUpdate",
    "type",
    "env",
    "hostNetwork",
    "replicas",
    "data",
    "stringData",
    "volumeClaimTemplates",
    "finalizers",
    "ownerReferences",
    "podCIDR",
    "podCIDRs",
    "cpu",
    "nobody",
    "$patch",
    "$retainKeys",
    "$setElementOrder/containers",
    "$deleteFromPrimitiveList/finalizers",
    "managedFields",
];

/// Any JSON of a few levels.
pub(crate) fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::from),
        any::<i32>().prop_map(|eighths| Value::from(f64::from(eighths) / 8.0)),
        "[a-z0-9.]{0,6}".prop_map(Value::String),
        prop::sample::select(vec![
            "delete",
            "replace",
            "merge",
            "RollingUpdate",
            "1Gi",
            "2024-01-01T00:00:00Z",
            "a"
        ])
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(7, 48, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::vec((prop::sample::select(NAMES), inner), 0..6).prop_map(|pairs| {
                Value::Object(
                    pairs
                        .into_iter()
                        .map(|(name, value)| (name.to_owned(), value))
                        .collect::<Map<_, _>>(),
                )
            }),
        ]
    })
}

/// An object with a kind of the table.
pub(crate) fn any_object() -> impl Strategy<Value = Value> {
    let kinds = prop::sample::select(vec![
        ("v1", "Pod"),
        ("apps/v1", "StatefulSet"),
        ("v1", "Service"),
        ("v1", "Node"),
        ("v1", "Secret"),
        ("batch/v1", "Job"),
        ("autoscaling/v2", "HorizontalPodAutoscaler"),
        ("v1", "Nobody"),
    ]);
    (kinds, any_value(), any_value(), any_value()).prop_map(|((api_version, kind), metadata, spec, status)| {
        json!({"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec, "status": status})
    })
}
