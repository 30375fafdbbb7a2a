//! Whether the node can take a pod at all: resources, host ports, node selector, sysctls.
//!
//! Upstream: the kubelet's admission; a refused pod is Failed with the reason, and its owner makes another.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::quantity;

/// What the node has, and its labels.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Machine {
    /// CPU in thousandths of a core.
    pub cpu_millis: u64,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// How many pods.
    pub pods: u64,
    /// Labels of the Node object.
    pub labels: BTreeMap<String, String>,
}

/// Why a pod was refused: `status.reason` and `status.message`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// `OutOfcpu`, `OutOfmemory`, `OutOfpods`, `NodePorts`, `NodeAffinity`, `SysctlForbidden`.
    pub reason: &'static str,
    /// The sentence of the Event; the status has it after `Pod was rejected: `.
    pub message: String,
}

/// What one pod takes of the machine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Share {
    /// CPU requests in thousandths of a core.
    pub cpu_millis: u64,
    /// Memory requests in bytes.
    pub memory_bytes: u64,
    /// Host ports, with their protocol.
    pub host_ports: Vec<(i32, String)>,
}

impl Share {
    /// The larger of what the containers take together (sidecars included) and what any init container takes in its turn.
    pub fn of(spec: &core::PodSpec) -> Self {
        let mut share = Share::default();
        for container in &spec.containers {
            share.cpu_millis += request(container, "cpu");
            share.memory_bytes += request(container, "memory");
        }
        let mut sidecars = (0, 0);
        let mut peak = (0, 0);
        for container in spec.init_containers.iter().flatten() {
            let asked = (request(container, "cpu"), request(container, "memory"));
            if container.restart_policy.as_deref() == Some("Always") {
                sidecars = (sidecars.0 + asked.0, sidecars.1 + asked.1);
                peak = (peak.0.max(sidecars.0), peak.1.max(sidecars.1));
            } else {
                peak = (
                    peak.0.max(sidecars.0 + asked.0),
                    peak.1.max(sidecars.1 + asked.1),
                );
            }
        }
        share.cpu_millis = (share.cpu_millis + sidecars.0).max(peak.0);
        share.memory_bytes = (share.memory_bytes + sidecars.1).max(peak.1);
        let ports = spec
            .containers
            .iter()
            .flat_map(|c| c.ports.iter().flatten());
        share.host_ports = ports
            .filter_map(|port| {
                let number = port.host_port.filter(|number| *number > 0)?;
                Some((
                    number,
                    port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
                ))
            })
            .collect();
        share
    }
}

/// `name` as the container asks for it: thousandths for CPU, bytes for memory; a limit stands in for no request.
fn request(container: &core::Container, name: &str) -> u64 {
    let Some(resources) = &container.resources else {
        return 0;
    };
    let list = |list: &Option<BTreeMap<String, Quantity>>| {
        list.as_ref().and_then(|l| l.get(name)).map(|q| q.0.clone())
    };
    let Some(text) = list(&resources.requests).or_else(|| list(&resources.limits)) else {
        return 0;
    };
    let amount = if name == "cpu" {
        quantity::millis(&text)
    } else {
        quantity::whole(&text)
    };
    amount.unwrap_or(0)
}

/// Says whether `spec` fits beside the pods that are already here.
pub fn admit(spec: &core::PodSpec, machine: &Machine, others: &[Share]) -> Result<(), Rejection> {
    let asked = Share::of(spec);
    super::sysctl::check(spec)?;
    selector(spec, machine)?;
    ports(&asked, others)?;
    if others.len() as u64 >= machine.pods {
        return Err(out_of(
            "OutOfpods",
            "pods",
            1,
            others.len() as u64,
            machine.pods,
        ));
    }
    let used: u64 = others.iter().map(|share| share.cpu_millis).sum();
    if asked.cpu_millis > 0 && asked.cpu_millis + used > machine.cpu_millis {
        return Err(out_of(
            "OutOfcpu",
            "cpu",
            asked.cpu_millis,
            used,
            machine.cpu_millis,
        ));
    }
    let used: u64 = others.iter().map(|share| share.memory_bytes).sum();
    if asked.memory_bytes > 0 && asked.memory_bytes + used > machine.memory_bytes {
        return Err(out_of(
            "OutOfmemory",
            "memory",
            asked.memory_bytes,
            used,
            machine.memory_bytes,
        ));
    }
    Ok(())
}

fn out_of(reason: &'static str, what: &str, requested: u64, used: u64, capacity: u64) -> Rejection {
    let message = format!(
        "Node didn't have enough resource: {what}, requested: {requested}, used: {used}, capacity: {capacity}"
    );
    Rejection { reason, message }
}

fn selector(spec: &core::PodSpec, machine: &Machine) -> Result<(), Rejection> {
    let wrong = spec
        .node_selector
        .iter()
        .flatten()
        .find(|(key, value)| machine.labels.get(*key) != Some(*value));
    match wrong {
        None => Ok(()),
        Some((key, value)) => Err(Rejection {
            reason: "NodeAffinity",
            message: format!("Predicate NodeAffinity failed: this node has no label {key}={value}"),
        }),
    }
}

fn ports(asked: &Share, others: &[Share]) -> Result<(), Rejection> {
    let taken = asked
        .host_ports
        .iter()
        .find(|port| others.iter().any(|other| other.host_ports.contains(port)));
    match taken {
        None => Ok(()),
        Some((number, protocol)) => Err(Rejection {
            reason: "NodePorts",
            message: format!(
                "Predicate NodePorts failed: host port {number}/{protocol} is taken by another pod"
            ),
        }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec(value: serde_json::Value) -> core::PodSpec {
        serde_json::from_value(value).expect("a pod spec")
    }

    /// A node of 2 cores and 1 GiB with room for two pods, where `others` already run.
    fn check(asked: serde_json::Value, others: &[serde_json::Value]) -> Option<&'static str> {
        let machine = Machine {
            cpu_millis: 2_000,
            memory_bytes: 1 << 30,
            pods: 2,
            labels: BTreeMap::from([("disk".to_owned(), "ssd".to_owned())]),
        };
        let others: Vec<_> = others
            .iter()
            .map(|other| Share::of(&spec(other.clone())))
            .collect();
        admit(&spec(asked), &machine, &others)
            .err()
            .map(|rejection| rejection.reason)
    }

    #[test]
    fn a_pod_is_refused_with_the_reason_that_the_kubelet_gives() {
        let cpu =
            |n: &str| json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": n}}}]});
        let port =
            json!({"containers": [{"name": "c", "ports": [{"containerPort": 1, "hostPort": 80}]}]});
        assert_eq!(check(cpu("500"), &[]), Some("OutOfcpu"));
        assert_eq!(check(cpu("2"), &[]), None);
        assert_eq!(check(cpu("1500m"), &[cpu("1")]), Some("OutOfcpu"));
        assert_eq!(
            check(json!({"containers": []}), &[cpu("2"), cpu("0")]),
            Some("OutOfpods")
        );
        assert_eq!(
            check(port.clone(), std::slice::from_ref(&port)),
            Some("NodePorts")
        );
        assert_eq!(
            check(
                json!({"containers": [], "nodeSelector": {"disk": "hdd"}}),
                &[]
            ),
            Some("NodeAffinity")
        );
        assert_eq!(
            check(
                json!({"containers": [], "nodeSelector": {"disk": "ssd"}}),
                &[]
            ),
            None
        );
        let init = json!({"containers": [{"name": "c"}], "initContainers": [
            {"name": "i", "resources": {"limits": {"memory": "2Gi"}}}]});
        assert_eq!(check(init, &[]), Some("OutOfmemory"));
    }
}
