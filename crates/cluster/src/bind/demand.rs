//! What a pod takes of a node: requests, host ports, a place. Pure.

use std::collections::BTreeMap;

use serde_json::Value;
use stead_controller::resource::{list, text};
use stead_schema::quantity;

/// Billionths in one unit, as amounts are counted here.
const UNIT: i128 = 1_000_000_000;

/// A port of the machine that a pod takes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HostPort {
    protocol: String,
    /// Empty for all addresses of the machine.
    address: String,
    number: i64,
}

impl HostPort {
    /// upstream: all addresses conflict with each single one, two different addresses do not conflict.
    fn conflicts(&self, other: &HostPort) -> bool {
        self.number == other.number
            && self.protocol == other.protocol
            && (self.address == other.address
                || self.address.is_empty()
                || other.address.is_empty())
    }
}

/// What a pod takes of a node, or all pods together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Demand {
    /// Pods.
    pub(crate) pods: i128,
    /// Requests by resource name, in billionths.
    pub(crate) requests: BTreeMap<String, i128>,
    /// Host ports, and how many pods have each.
    host_ports: BTreeMap<HostPort, usize>,
}

impl Demand {
    /// What one pod takes. upstream: the sum of its containers and sidecars, or its largest init container with the
    /// sidecars before it; the pod's own requests where it makes any; and the overhead of its runtime class.
    pub(crate) fn of(pod: &Value) -> Demand {
        let mut requests = BTreeMap::new();
        let mut sidecars = BTreeMap::new();
        let mut largest_init = BTreeMap::new();
        for container in list(pod, "/spec/containers") {
            add(&mut requests, &requests_of(container));
        }
        for container in list(pod, "/spec/initContainers") {
            let mut own = requests_of(container);
            if is_sidecar(container) {
                add(&mut sidecars, &own);
                add(&mut requests, &own);
            } else {
                add(&mut own, &sidecars);
                raise(&mut largest_init, &own);
            }
        }
        raise(&mut requests, &largest_init);
        requests.extend(amounts(pod.pointer("/spec/resources/requests")));
        add(&mut requests, &amounts(pod.pointer("/spec/overhead")));
        Demand {
            pods: 1,
            requests,
            host_ports: host_ports(pod).map(|port| (port, 1)).collect(),
        }
    }

    /// Adds another demand to this one.
    pub(crate) fn take(&mut self, other: &Demand) {
        self.pods += other.pods;
        add(&mut self.requests, &other.requests);
        for (port, count) in &other.host_ports {
            *self.host_ports.entry(port.clone()).or_insert(0) += count;
        }
    }

    /// Takes another demand off this one again.
    pub(crate) fn give_back(&mut self, other: &Demand) {
        self.pods -= other.pods;
        for (resource, amount) in &other.requests {
            let own = self.requests.entry(resource.clone()).or_insert(0);
            *own = own.saturating_sub(*amount);
        }
        for (port, count) in &other.host_ports {
            if let Some(own) = self.host_ports.get_mut(port) {
                *own = own.saturating_sub(*count);
            }
        }
        self.host_ports.retain(|_, count| *count > 0);
    }

    /// Whether one of the host ports is taken by the other.
    pub(crate) fn ports_conflict(&self, used: &Demand) -> bool {
        let mut own = self.host_ports.keys();
        own.any(|port| used.host_ports.keys().any(|taken| port.conflicts(taken)))
    }

    /// What the node has too little of, beyond what is used of it: `pods` first, then resources by name.
    pub(crate) fn short_of(&self, node: &Value, used: &Demand) -> Vec<String> {
        let room = amounts(node.pointer("/status/allocatable"));
        let mut short = Vec::new();
        let pods = used.pods.saturating_add(self.pods).saturating_mul(UNIT);
        if room.get("pods").is_some_and(|most| pods > *most) {
            short.push("pods".to_owned());
        }
        for (resource, amount) in self.requests.iter().filter(|(_, amount)| **amount > 0) {
            let taken = used.requests.get(resource).copied().unwrap_or(0);
            if taken.saturating_add(*amount) > room.get(resource).copied().unwrap_or(0) {
                short.push(resource.clone());
            }
        }
        short
    }

    /// How many more pods the node may hold beyond these; `None` when it does not say.
    pub(crate) fn free_places(&self, node: &Value) -> Option<usize> {
        let most = quantity::nanos_of(node.pointer("/status/allocatable/pods")?)? / UNIT;
        usize::try_from((most - self.pods).max(0)).ok()
    }
}

fn is_sidecar(container: &Value) -> bool {
    text(container, "/restartPolicy") == "Always"
}

fn requests_of(container: &Value) -> BTreeMap<String, i128> {
    amounts(container.pointer("/resources/requests"))
}

fn amounts(quantities: Option<&Value>) -> BTreeMap<String, i128> {
    let quantities = quantities.and_then(Value::as_object).into_iter().flatten();
    quantities
        .map(|(resource, amount)| (resource.clone(), quantity::nanos_of(amount).unwrap_or(0)))
        .collect()
}

fn add(to: &mut BTreeMap<String, i128>, other: &BTreeMap<String, i128>) {
    for (resource, amount) in other {
        let own = to.entry(resource.clone()).or_insert(0);
        *own = own.saturating_add(*amount);
    }
}

fn raise(to: &mut BTreeMap<String, i128>, other: &BTreeMap<String, i128>) {
    for (resource, amount) in other {
        let most = to.entry(resource.clone()).or_insert(0);
        *most = (*most).max(*amount);
    }
}

fn host_ports(pod: &Value) -> impl Iterator<Item = HostPort> {
    let sidecars = list(pod, "/spec/initContainers")
        .iter()
        .filter(|own| is_sidecar(own));
    let containers = list(pod, "/spec/containers").iter().chain(sidecars);
    let ports = containers.flat_map(|container| list(container, "/ports"));
    ports.filter_map(|port| {
        let number = port.get("hostPort").and_then(Value::as_i64);
        let protocol = match text(port, "/protocol") {
            "" => "TCP",
            protocol => protocol,
        };
        let address = match text(port, "/hostIP") {
            "0.0.0.0" | "::" => "",
            address => address,
        };
        Some(HostPort {
            protocol: protocol.to_owned(),
            address: address.to_owned(),
            number: number.filter(|number| *number > 0)?,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(spec: Value) -> Demand {
        Demand::of(&json!({ "spec": spec }))
    }

    #[test]
    fn an_init_container_counts_only_when_it_asks_for_more_than_the_rest() {
        let demand = of(json!({
            "containers": [{"resources": {"requests": {"cpu": "200m", "memory": "1Ki"}}}],
            "initContainers": [
                {"restartPolicy": "Always", "resources": {"requests": {"cpu": "100m"}}},
                {"resources": {"requests": {"cpu": "250m"}}},
            ],
            "overhead": {"memory": "1"},
        }));
        assert_eq!(
            demand.requests["cpu"], 350_000_000,
            "the init container runs beside the sidecar before it"
        );
        assert_eq!(demand.requests["memory"], 1025 * UNIT);
    }

    #[test]
    fn what_the_pod_asks_for_as_a_whole_counts_instead_of_its_containers() {
        let demand = of(json!({
            "resources": {"requests": {"cpu": "2"}},
            "containers": [{"resources": {"requests": {"cpu": "1", "memory": "1"}}}],
        }));
        assert_eq!(
            (demand.requests["cpu"], demand.requests["memory"]),
            (2 * UNIT, UNIT)
        );
    }

    fn ports(a: Value, b: Value) -> bool {
        let of = |port: Value| of(json!({"containers": [{"ports": [port]}]}));
        of(a).ports_conflict(&of(b))
    }

    #[test]
    fn host_ports_conflict_by_protocol_and_address() {
        assert!(ports(json!({"hostPort": 80}), json!({"hostPort": 80})));
        assert!(!ports(json!({"hostPort": 80}), json!({"hostPort": 81})));
        assert!(!ports(
            json!({"hostPort": 53}),
            json!({"hostPort": 53, "protocol": "UDP"})
        ));
        assert!(!ports(
            json!({"hostPort": 80, "hostIP": "127.0.0.1"}),
            json!({"hostPort": 80, "hostIP": "127.0.0.2"})
        ));
        assert!(ports(
            json!({"hostPort": 80, "hostIP": "127.0.0.1"}),
            json!({"hostPort": 80, "hostIP": "0.0.0.0"})
        ));
        assert!(!ports(
            json!({"containerPort": 80}),
            json!({"containerPort": 80})
        ));
    }

    #[test]
    fn what_was_taken_is_given_back_whole() {
        let own = of(
            json!({"containers": [{"ports": [{"hostPort": 80}], "resources": {"requests": {"cpu": "1"}}}]}),
        );
        let mut used = Demand::default();
        used.take(&own);
        used.take(&own);
        used.give_back(&own);
        assert!(
            own.ports_conflict(&used),
            "the other one still has the port"
        );
        used.give_back(&own);
        assert!(!own.ports_conflict(&used));
        assert_eq!((used.pods, used.requests["cpu"]), (0, 0));
    }
}
