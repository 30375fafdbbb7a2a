//! Whether a pod fits a node, and in the scheduler's words why not. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use stead_controller::resource::{list, text};

use crate::quantity::millis;

/// What a pod takes of a node, or all pods together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Demand {
    /// Pods.
    pub(crate) pods: i128,
    /// Requests by resource name, in thousandths.
    pub(crate) requests: BTreeMap<String, i128>,
    /// Host ports, as `protocol/address/port`.
    pub(crate) host_ports: BTreeSet<String>,
}

impl Demand {
    /// What one pod takes. upstream: the sum of its containers and sidecars, or its largest init container.
    pub(crate) fn of(pod: &Value) -> Demand {
        let mut requests = BTreeMap::new();
        let mut sidecars = BTreeMap::new();
        let mut largest_init = BTreeMap::new();
        for container in list(pod, "/spec/containers") {
            add(&mut requests, &requests_of(container));
        }
        for container in list(pod, "/spec/initContainers") {
            let mut own = requests_of(container);
            if text(container, "/restartPolicy") == "Always" {
                add(&mut sidecars, &own);
                add(&mut requests, &own);
            } else {
                add(&mut own, &sidecars);
                raise(&mut largest_init, &own);
            }
        }
        raise(&mut requests, &largest_init);
        add(&mut requests, &amounts(pod.pointer("/spec/overhead")));
        Demand {
            pods: 1,
            requests,
            host_ports: host_ports(pod),
        }
    }

    /// Adds another demand to this one.
    pub(crate) fn take(&mut self, other: &Demand) {
        self.pods += other.pods;
        add(&mut self.requests, &other.requests);
        self.host_ports.extend(other.host_ports.iter().cloned());
    }

    /// Takes another demand off this one again.
    pub(crate) fn give_back(&mut self, other: &Demand) {
        self.pods -= other.pods;
        for (resource, amount) in &other.requests {
            *self.requests.entry(resource.clone()).or_insert(0) -= amount;
        }
        self.host_ports
            .retain(|port| !other.host_ports.contains(port));
    }
}

fn requests_of(container: &Value) -> BTreeMap<String, i128> {
    amounts(container.pointer("/resources/requests"))
}

fn amounts(quantities: Option<&Value>) -> BTreeMap<String, i128> {
    let quantities = quantities.and_then(Value::as_object).into_iter().flatten();
    quantities
        .map(|(resource, amount)| (resource.clone(), millis(amount)))
        .collect()
}

fn add(to: &mut BTreeMap<String, i128>, other: &BTreeMap<String, i128>) {
    for (resource, amount) in other {
        *to.entry(resource.clone()).or_insert(0) += amount;
    }
}

fn raise(to: &mut BTreeMap<String, i128>, other: &BTreeMap<String, i128>) {
    for (resource, amount) in other {
        let most = to.entry(resource.clone()).or_insert(0);
        *most = (*most).max(*amount);
    }
}

fn host_ports(pod: &Value) -> BTreeSet<String> {
    let ports = list(pod, "/spec/containers")
        .iter()
        .flat_map(|container| list(container, "/ports"));
    ports
        .filter_map(|port| {
            let number = port
                .get("hostPort")
                .and_then(Value::as_i64)
                .filter(|number| *number > 0)?;
            let protocol = port
                .get("protocol")
                .and_then(Value::as_str)
                .unwrap_or("TCP");
            let address = port
                .get("hostIP")
                .and_then(Value::as_str)
                .unwrap_or("0.0.0.0");
            Some(format!("{protocol}/{address}/{number}"))
        })
        .collect()
}

/// Why a pod does not fit a node, as the scheduler says it after a count of nodes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Misfit {
    /// The node is cordoned.
    Unschedulable,
    /// Its labels are not those that the pod asks for.
    Labels,
    /// Another pod has the port.
    HostPorts,
    /// It holds as many pods as it may.
    TooManyPods,
    /// It has too little of a resource left.
    Insufficient(String),
}

impl std::fmt::Display for Misfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Misfit::Unschedulable => f.write_str("node(s) were unschedulable"),
            Misfit::Labels => f.write_str("node(s) didn't match Pod's node affinity/selector"),
            Misfit::HostPorts => {
                f.write_str("node(s) didn't have free ports for the requested pod ports")
            }
            Misfit::TooManyPods => f.write_str("Too many pods"),
            Misfit::Insufficient(resource) => write!(f, "Insufficient {resource}"),
        }
    }
}

/// Everything that keeps a pod off a node on which `used` is already taken. Empty when it fits.
pub(crate) fn misfits(pod: &Value, demand: &Demand, node: &Value, used: &Demand) -> Vec<Misfit> {
    if is_cordoned(node) && !tolerates_cordon(pod) {
        return vec![Misfit::Unschedulable];
    }
    if !labels_match(pod, node) {
        return vec![Misfit::Labels];
    }
    if demand
        .host_ports
        .iter()
        .any(|port| used.host_ports.contains(port))
    {
        return vec![Misfit::HostPorts];
    }
    short_of(demand, node, used)
}

fn is_cordoned(node: &Value) -> bool {
    node.pointer("/spec/unschedulable").and_then(Value::as_bool) == Some(true)
}

fn tolerates_cordon(pod: &Value) -> bool {
    list(pod, "/spec/tolerations").iter().any(|toleration| {
        let key = text(toleration, "/key");
        let exists = text(toleration, "/operator") == "Exists";
        let effect = text(toleration, "/effect");
        (key == "node.kubernetes.io/unschedulable" || (key.is_empty() && exists))
            && (effect.is_empty() || effect == "NoSchedule")
    })
}

fn labels_match(pod: &Value, node: &Value) -> bool {
    let wanted = pod
        .pointer("/spec/nodeSelector")
        .and_then(Value::as_object)
        .into_iter()
        .flatten();
    let selected = wanted
        .into_iter()
        .all(|(key, value)| label(node, key) == value.as_str());
    selected && affinity_matches(pod, node)
}

fn label<'a>(node: &'a Value, key: &str) -> Option<&'a str> {
    node.get("metadata")?.get("labels")?.get(key)?.as_str()
}

/// Required node affinity: one of the terms, and of that term every expression.
fn affinity_matches(pod: &Value, node: &Value) -> bool {
    let required = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution";
    let Some(required) = pod.pointer(required) else {
        return true;
    };
    list(required, "/nodeSelectorTerms").iter().any(|term| {
        let labels = list(term, "/matchExpressions");
        let fields = list(term, "/matchFields");
        !(labels.is_empty() && fields.is_empty())
            && labels
                .iter()
                .all(|rule| rule_holds(rule, label(node, text(rule, "/key"))))
            && fields
                .iter()
                .all(|rule| rule_holds(rule, Some(text(node, "/metadata/name"))))
    })
}

fn rule_holds(rule: &Value, value: Option<&str>) -> bool {
    let values = list(rule, "/values");
    let among = value.is_some_and(|value| values.iter().any(|one| one == value));
    let number = |text: Option<&str>| text.and_then(|text| text.parse::<i64>().ok());
    let bound = number(values.first().and_then(Value::as_str));
    match text(rule, "/operator") {
        "In" => among,
        "NotIn" => !among,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => number(value)
            .zip(bound)
            .is_some_and(|(value, bound)| value > bound),
        "Lt" => number(value)
            .zip(bound)
            .is_some_and(|(value, bound)| value < bound),
        _ => false,
    }
}

fn short_of(demand: &Demand, node: &Value, used: &Demand) -> Vec<Misfit> {
    let allocatable = node.pointer("/status/allocatable");
    let room = amounts(allocatable);
    let mut misfits = Vec::new();
    // Amounts are in thousandths, pods are counted.
    if room
        .get("pods")
        .is_some_and(|most| (used.pods + demand.pods) * 1000 > *most)
    {
        misfits.push(Misfit::TooManyPods);
    }
    for (resource, amount) in demand.requests.iter().filter(|(_, amount)| **amount > 0) {
        let taken = used.requests.get(resource).copied().unwrap_or(0);
        if taken + amount > room.get(resource).copied().unwrap_or(0) {
            misfits.push(Misfit::Insufficient(resource.clone()));
        }
    }
    misfits
}

/// How many more pods the node may hold; `None` when it does not say.
pub(crate) fn free_places(node: &Value, used: &Demand) -> Option<usize> {
    let most = millis(node.pointer("/status/allocatable/pods")?) / 1000;
    usize::try_from((most - used.pods).max(0)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node() -> Value {
        json!({"metadata": {"name": "n", "labels": {"disk": "ssd"}}, "status": {"allocatable": {"pods": "2", "cpu": "1", "memory": "1Gi"}}})
    }

    fn pod(spec: &Value) -> Value {
        json!({ "spec": spec })
    }

    /// The misfits of a pod with this spec on [`node`], with so many pods already there.
    fn check(spec: &Value, pods: i128, expected: &str) {
        let pod = pod(spec);
        let used = Demand {
            pods,
            ..Demand::default()
        };
        let said: Vec<String> = misfits(&pod, &Demand::of(&pod), &node(), &used)
            .iter()
            .map(Misfit::to_string)
            .collect();
        assert_eq!(said.join(", "), expected, "{spec}");
    }

    #[test]
    fn a_pod_fits_or_the_scheduler_says_why_not() {
        check(&json!({"containers": []}), 1, "");
        check(&json!({"containers": []}), 2, "Too many pods");
        check(&json!({"nodeSelector": {"disk": "ssd"}}), 0, "");
        check(
            &json!({"nodeSelector": {"disk": "hdd"}}),
            0,
            "node(s) didn't match Pod's node affinity/selector",
        );
        check(
            &json!({"containers": [{"resources": {"requests": {"cpu": "1500m"}}}]}),
            0,
            "Insufficient cpu",
        );
        check(
            &json!({"containers": [{"resources": {"requests": {"memory": "600Mi"}}}, {"resources": {"requests": {"memory": "600Mi"}}}]}),
            2,
            "Too many pods, Insufficient memory",
        );
    }

    #[test]
    fn an_init_container_counts_only_when_it_asks_for_more_than_the_rest() {
        let demand = Demand::of(&pod(&json!({
            "containers": [{"resources": {"requests": {"cpu": "200m", "memory": "1Ki"}}}],
            "initContainers": [
                {"restartPolicy": "Always", "resources": {"requests": {"cpu": "100m"}}},
                {"resources": {"requests": {"cpu": "250m"}}},
            ],
        })));
        assert_eq!(
            demand.requests["cpu"], 350,
            "the init container runs beside the sidecar before it"
        );
        assert_eq!(demand.requests["memory"], 1_024_000);
    }

    #[test]
    fn required_affinity_is_one_of_the_terms() {
        let affinity = |operator: &str, values: Value| {
            json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "disk", "operator": operator, "values": values}]}]}}}})
        };
        check(&affinity("In", json!(["hdd", "ssd"])), 0, "");
        check(
            &affinity("NotIn", json!(["ssd"])),
            0,
            "node(s) didn't match Pod's node affinity/selector",
        );
        check(
            &affinity("DoesNotExist", json!([])),
            0,
            "node(s) didn't match Pod's node affinity/selector",
        );
    }
}
