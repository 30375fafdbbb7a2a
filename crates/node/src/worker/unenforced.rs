//! What a lower tier leaves undone of a pod that it runs all the same: sentences for its events. Pure.

use k8s_openapi::api::core::v1 as core;

use crate::runtime::Tier;

/// The reason of the event.
pub(super) const REASON: &str = "NotEnforced";

/// A sentence for each kind of thing that this tier does not enforce.
pub(super) fn of(tier: Tier, spec: &core::PodSpec) -> Vec<String> {
    let name = match tier {
        Tier::Containers => return Vec::new(),
        Tier::Rootless => "rootless",
        Tier::Processes => "processes",
    };
    let mut told = Vec::new();
    let limits = limited(spec);
    if !limits.is_empty() {
        told.push(format!(
            "the {name} tier does not enforce limits of {}: run Stead as root with the right to mount to have them enforced",
            limits.join(" and ")
        ));
    }
    let in_memory: Vec<&str> = spec
        .volumes
        .iter()
        .flatten()
        .filter(|volume| {
            let source = volume.empty_dir.as_ref();
            source.is_some_and(|source| source.medium.as_deref() == Some("Memory"))
        })
        .map(|volume| volume.name.as_str())
        .collect();
    if !in_memory.is_empty() {
        told.push(format!(
            "the {name} tier keeps volumes in memory on disk: {}",
            in_memory.join(", ")
        ));
    }
    told
}

/// Of what any container has a limit that only a cgroup could enforce.
fn limited(spec: &core::PodSpec) -> Vec<&'static str> {
    let all = || {
        spec.containers
            .iter()
            .chain(spec.init_containers.iter().flatten())
    };
    let has = |name: &str| {
        all().any(|container| {
            let limits = container.resources.as_ref().and_then(|r| r.limits.as_ref());
            limits.is_some_and(|limits| limits.contains_key(name))
        })
    };
    ["memory", "cpu"]
        .into_iter()
        .filter(|name| has(name))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_enforced_is_said_by_kind() {
        let spec = json!({"volumes": [{"name": "shm", "emptyDir": {"medium": "Memory"}}, {"name": "v", "emptyDir": {}}],
            "containers": [{"name": "c", "resources": {"limits": {"memory": "1Gi"}, "requests": {"cpu": "1"}}}]});
        let spec: core::PodSpec = serde_json::from_value(spec).expect("a spec");
        assert!(of(Tier::Containers, &spec).is_empty());
        assert_eq!(
            of(Tier::Rootless, &spec),
            [
                "the rootless tier does not enforce limits of memory: run Stead as root with the right to mount to have them enforced",
                "the rootless tier keeps volumes in memory on disk: shm",
            ]
        );
        let plain = core::PodSpec::default();
        assert!(of(Tier::Processes, &plain).is_empty());
    }
}
