//! The PATCH that carries a status to the API. Pure.

use k8s_openapi::api::core::v1 as core;
use serde_json::{Value, json};

use crate::pod::OWN_CONDITIONS;

/// A strategic merge patch of `/status`: our fields whole, our conditions by type, nobody else's.
///
/// The UID is a precondition: a namesake is never written to.
pub(super) fn of(uid: &str, old: &core::PodStatus, new: &core::PodStatus) -> Value {
    let mut status = serde_json::to_value(new).unwrap_or_default();
    if let Value::Object(fields) = &mut status {
        for field in [
            "reason",
            "message",
            "podIP",
            "hostIP",
            "initContainerStatuses",
            "containerStatuses",
        ] {
            fields.entry(field).or_insert(Value::Null);
        }
        fields.insert("conditions".to_owned(), Value::Array(conditions(new)));
        for (field, changed) in [
            (
                "podIPs",
                old.pod_ips.is_some() && old.pod_ips != new.pod_ips,
            ),
            (
                "hostIPs",
                old.host_ips.is_some() && old.host_ips != new.host_ips,
            ),
        ] {
            if changed && let Some(Value::Array(list)) = fields.get_mut(field) {
                list.insert(0, json!({"$patch": "replace"}));
            }
        }
    }
    json!({"metadata": {"uid": uid}, "status": status})
}

/// Our conditions, with a null for what a former one may have had.
fn conditions(status: &core::PodStatus) -> Vec<Value> {
    let own = status
        .conditions
        .iter()
        .flatten()
        .filter(|c| OWN_CONDITIONS.contains(&c.type_.as_str()));
    own.map(|condition| {
        let mut value = serde_json::to_value(condition).unwrap_or_default();
        if let Value::Object(fields) = &mut value {
            for field in ["reason", "message", "lastProbeTime"] {
                fields.entry(field).or_insert(Value::Null);
            }
        }
        value
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(value: Value) -> core::PodStatus {
        serde_json::from_value(value).expect("a status")
    }

    #[test]
    fn a_patch_clears_what_is_over_and_leaves_foreign_conditions() {
        let old = status(json!({"phase": "Pending", "podIPs": [{"ip": "10.0.0.1"}]}));
        let new = status(
            json!({"phase": "Running", "podIP": "10.0.0.2", "podIPs": [{"ip": "10.0.0.2"}], "conditions": [
            {"type": "Ready", "status": "True"}, {"type": "example.com/gate", "status": "True"}]}),
        );
        let patch = of("u", &old, &new);
        assert_eq!(patch["metadata"], json!({"uid": "u"}));
        assert_eq!(
            patch["status"]["conditions"],
            json!([{"type": "Ready", "status": "True", "reason": null, "message": null, "lastProbeTime": null}])
        );
        assert_eq!(
            patch["status"]["podIPs"],
            json!([{"$patch": "replace"}, {"ip": "10.0.0.2"}])
        );
        assert_eq!(
            (&patch["status"]["reason"], &patch["status"]["message"]),
            (&Value::Null, &Value::Null)
        );
    }
}
