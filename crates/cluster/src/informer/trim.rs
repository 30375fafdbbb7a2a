//! What of an object is kept in the shared caches: ten thousand pods must fit in little memory. Pure.

use serde_json::{Map, Value};
use stead_controller::resource::Resource;

const POD_METADATA: &[&str] = &[
    "namespace",
    "name",
    "uid",
    "labels",
    "resourceVersion",
    "creationTimestamp",
    "deletionTimestamp",
    "ownerReferences",
];
const POD_SPEC: &[&str] = &[
    "affinity",
    "containers",
    "hostname",
    "initContainers",
    "nodeName",
    "nodeSelector",
    "overhead",
    "priority",
    "resources",
    "schedulerName",
    "schedulingGates",
    "subdomain",
    "tolerations",
    "topologySpreadConstraints",
    "volumes",
];
const POD_STATUS: &[&str] = &["conditions", "phase", "podIP", "podIPs"];
const CONTAINER: &[&str] = &["name", "ports", "resources", "restartPolicy"];

/// Drops what no controller here reads. Only pods are many and large enough to be worth it.
pub(super) fn trim(resource: &Resource, object: &mut Value) {
    if *resource != Resource::PODS {
        return;
    }
    for (part, kept) in [
        ("metadata", POD_METADATA),
        ("spec", POD_SPEC),
        ("status", POD_STATUS),
    ] {
        keep(object.get_mut(part), kept);
    }
    for containers in ["/spec/containers", "/spec/initContainers"] {
        for container in object
            .pointer_mut(containers)
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            keep(Some(container), CONTAINER);
        }
    }
    if let Some(volumes) = object
        .pointer_mut("/spec/volumes")
        .and_then(Value::as_array_mut)
    {
        volumes.retain(|volume| volume.get("persistentVolumeClaim").is_some());
    }
}

fn keep(part: Option<&mut Value>, kept: &[&str]) {
    let Some(Value::Object(fields)) = part else {
        return;
    };
    let all = std::mem::take(fields);
    *fields = all
        .into_iter()
        .filter(|(name, _)| kept.contains(&name.as_str()))
        .collect::<Map<_, _>>();
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_keeps_what_is_read_of_it_and_nothing_else() {
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "a", "annotations": {"long": "text"}},
            "spec": {"nodeName": "n", "dnsPolicy": "ClusterFirst",
                "containers": [{"name": "c", "env": [{"name": "A"}], "ports": [{"containerPort": 1}]}],
                "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "d"}}, {"name": "e", "emptyDir": {}}]},
            "status": {"phase": "Running", "containerStatuses": [{"name": "c"}]}});
        trim(&Resource::PODS, &mut pod);
        let kept = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"},
            "spec": {"nodeName": "n", "containers": [{"name": "c", "ports": [{"containerPort": 1}]}],
                "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "d"}}]},
            "status": {"phase": "Running"}});
        assert_eq!(pod, kept);
    }

    #[test]
    fn other_kinds_are_kept_whole_for_some_are_written_back() {
        let mut claim = json!({"metadata": {"annotations": {"a": "b"}}, "spec": {"x": 1}});
        let whole = claim.clone();
        trim(&Resource::CLAIMS, &mut claim);
        assert_eq!(claim, whole);
    }
}
