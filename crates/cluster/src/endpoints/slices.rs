//! Which EndpointSlices a service should have, given its pods and the slices that it has. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};
use stead_controller::resource::{is_terminating, list, text, uid};

use crate::selector::selector_matches;

/// Who keeps a slice.
pub(crate) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// The service of a slice.
pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The name under which this controller keeps slices; upstream's own.
pub(crate) const MANAGER: &str = "endpointslice-controller.k8s.io";
const HEADLESS: &str = "service.kubernetes.io/headless";
/// Endpoints of one slice. upstream: `--max-endpoints-per-slice`.
const MOST: usize = 100;

/// What must be written so that a service's slices are right.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Changes {
    /// New slices.
    pub(crate) create: Vec<Value>,
    /// Slices with new contents, whole, with the resource version that they replace.
    pub(crate) update: Vec<Value>,
    /// Slices that nobody needs.
    pub(crate) delete: Vec<Value>,
}

/// Whether a service's slices are kept from its selector.
pub(crate) fn is_kept(service: &Value) -> bool {
    let selector = service.pointer("/spec/selector").and_then(Value::as_object);
    selector.is_some_and(|selector| !selector.is_empty())
        && text(service, "/spec/type") != "ExternalName"
}

/// Whether a service selects a pod.
pub(crate) fn selects(service: &Value, pod: &Value) -> bool {
    is_kept(service)
        && selector_matches(
            Some(&json!({"matchLabels": service["spec"]["selector"]})),
            pod,
        )
}

/// A slice holds addresses of one family, all with the same ports.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Group {
    family: String,
    /// The ports as JSON text, which orders them.
    ports: String,
}

/// The changes that bring the slices of a service in line with its pods. Endpoints stay in the slice where they are,
/// so that one pod's change rewrites one slice.
pub(crate) fn changes(service: &Value, pods: &[&Value], slices: &[&Value]) -> Changes {
    let mut wanted = wanted(service, pods);
    let mut changes = Changes::default();
    let mut room: BTreeMap<Group, Vec<Value>> = BTreeMap::new();
    for slice in slices {
        let group = Group {
            family: text(slice, "/addressType").to_owned(),
            ports: ports_text(slice.get("ports")),
        };
        let Some(endpoints) = wanted.get_mut(&group) else {
            changes.delete.push(Value::clone(slice));
            continue;
        };
        let kept = list(slice, "/endpoints")
            .iter()
            .filter_map(|endpoint| endpoints.remove(&identity(endpoint)));
        let mut new = Value::clone(slice);
        new["endpoints"] = kept.collect();
        room.entry(group).or_default().push(new);
    }
    for (group, endpoints) in wanted {
        let own = room.entry(group.clone()).or_default();
        fill(own, endpoints.into_values().collect(), || {
            new_slice(service, &group)
        });
    }
    sort_out(service, room.into_values().flatten(), slices, &mut changes);
    changes
}

/// Puts endpoints where there is room, then into new slices; a service with none has one empty slice.
fn fill(slices: &mut Vec<Value>, endpoints: Vec<Value>, new: impl Fn() -> Value) {
    let mut endpoints = endpoints.into_iter().peekable();
    let mut next = 0;
    while endpoints.peek().is_some() || slices.is_empty() {
        if next == slices.len() {
            slices.push(new());
        }
        if let Some(own) = slices[next]
            .get_mut("endpoints")
            .and_then(Value::as_array_mut)
        {
            let free = MOST.saturating_sub(own.len());
            own.extend(endpoints.by_ref().take(free));
        }
        next += 1;
    }
    let is_empty = |slice: &Value| list(slice, "/endpoints").is_empty();
    let mut keep_one = slices.iter().all(is_empty);
    slices.retain(|slice| !is_empty(slice) || std::mem::take(&mut keep_one));
}

fn sort_out(
    service: &Value,
    wanted: impl Iterator<Item = Value>,
    slices: &[&Value],
    changes: &mut Changes,
) {
    let mut kept = BTreeSet::new();
    for mut slice in wanted {
        slice["metadata"]["labels"] = labels(service);
        let name = text(&slice, "/metadata/name").to_owned();
        let old = slices
            .iter()
            .find(|old| !name.is_empty() && text(old, "/metadata/name") == name);
        match old {
            Some(old) if **old == slice => {}
            Some(_) => changes.update.push(slice),
            None => changes.create.push(slice),
        }
        kept.insert(name);
    }
    let gone = |slice: &&&Value| {
        !kept.contains(text(slice, "/metadata/name"))
            && !changes.delete.iter().any(|own| uid(own) == uid(slice))
    };
    let surplus: Vec<Value> = slices
        .iter()
        .filter(gone)
        .map(|slice| Value::clone(slice))
        .collect();
    changes.delete.extend(surplus);
}

/// The endpoints that there should be, by group and by target.
fn wanted(service: &Value, pods: &[&Value]) -> BTreeMap<Group, BTreeMap<String, Value>> {
    let mut wanted: BTreeMap<Group, BTreeMap<String, Value>> = BTreeMap::new();
    let families = families(service);
    for pod in pods.iter().filter(|pod| is_listed(pod)) {
        let ports = ports_text(Some(&ports(service, Some(pod))));
        for address in addresses(pod).filter(|address| families.contains(&family(address))) {
            let group = Group {
                family: family(address).to_owned(),
                ports: ports.clone(),
            };
            let endpoint = endpoint(service, pod, address);
            wanted
                .entry(group)
                .or_default()
                .insert(identity(&endpoint), endpoint);
        }
    }
    for family in families {
        if !wanted.keys().any(|group| group.family == family) {
            // upstream keeps an empty slice without ports for a service that has no endpoints.
            let group = Group {
                family: family.to_owned(),
                ports: ports_text(None),
            };
            wanted.insert(group, BTreeMap::new());
        }
    }
    wanted
}

fn ports_text(ports: Option<&Value>) -> String {
    ports
        .filter(|ports| !ports.is_null())
        .cloned()
        .unwrap_or_else(|| json!([]))
        .to_string()
}

fn families(service: &Value) -> Vec<&'static str> {
    let asked = list(service, "/spec/ipFamilies");
    let named = asked
        .iter()
        .filter_map(Value::as_str)
        .map(|family| if family == "IPv6" { "IPv6" } else { "IPv4" });
    let named: Vec<_> = named.collect();
    if named.is_empty() {
        vec!["IPv4"]
    } else {
        named
    }
}

fn family(address: &str) -> &'static str {
    if address.contains(':') {
        "IPv6"
    } else {
        "IPv4"
    }
}

pub(super) fn addresses(pod: &Value) -> impl Iterator<Item = &str> {
    let listed = list(pod, "/status/podIPs")
        .iter()
        .map(|entry| text(entry, "/ip"));
    let first = text(pod, "/status/podIP");
    let only = list(pod, "/status/podIPs").is_empty().then_some(first);
    listed.chain(only).filter(|address| !address.is_empty())
}

/// upstream: ShouldPodBeInEndpoints. Terminating pods stay, ended ones do not.
pub(super) fn is_listed(pod: &Value) -> bool {
    !matches!(text(pod, "/status/phase"), "Succeeded" | "Failed")
}

/// Whether a pod says that it is ready.
pub(super) fn is_ready(pod: &Value) -> bool {
    let mut conditions = list(pod, "/status/conditions").iter();
    conditions.any(|own| text(own, "/type") == "Ready" && text(own, "/status") == "True")
}

/// Whether a service lists its pods as ready whatever they say.
pub(super) fn publishes_unready(service: &Value) -> bool {
    let publishes = service.pointer("/spec/publishNotReadyAddresses");
    publishes.and_then(Value::as_bool) == Some(true)
}

/// What makes an endpoint the same one: its pod and its address.
fn identity(endpoint: &Value) -> String {
    format!(
        "{}/{}",
        text(endpoint, "/targetRef/uid"),
        text(endpoint, "/addresses/0")
    )
}

fn endpoint(service: &Value, pod: &Value, address: &str) -> Value {
    let serving = is_ready(pod);
    let terminating = is_terminating(pod);
    let publish = publishes_unready(service);
    let mut endpoint = json!({
        "addresses": [address],
        "conditions": {
            "ready": publish || (serving && !terminating),
            "serving": serving,
            "terminating": terminating,
        },
        "targetRef": {
            "kind": "Pod",
            "namespace": text(pod, "/metadata/namespace"),
            "name": text(pod, "/metadata/name"),
            "uid": uid(pod),
        },
    });
    let node = text(pod, "/spec/nodeName");
    if !node.is_empty() {
        endpoint["nodeName"] = node.into();
    }
    let hostname = text(pod, "/spec/hostname");
    let governed = text(pod, "/spec/subdomain") == text(service, "/metadata/name")
        && text(pod, "/metadata/namespace") == text(service, "/metadata/namespace");
    if !hostname.is_empty() && governed {
        endpoint["hostname"] = hostname.into();
    }
    endpoint
}

/// The service's ports as a pod has them: named target ports are looked up in its containers.
pub(super) fn ports(service: &Value, pod: Option<&&Value>) -> Value {
    let mut ports = Vec::new();
    for port in list(service, "/spec/ports") {
        let protocol = match text(port, "/protocol") {
            "" => "TCP",
            protocol => protocol,
        };
        let number = match port.get("targetPort") {
            Some(Value::String(name)) => pod.and_then(|pod| container_port(pod, name, protocol)),
            Some(number @ Value::Number(_)) if number.as_i64() != Some(0) => Some(number.clone()),
            _ => port.get("port").cloned(),
        };
        let Some(number) = number else { continue };
        let mut entry = Map::new();
        entry.insert("name".to_owned(), text(port, "/name").into());
        entry.insert("port".to_owned(), number);
        entry.insert("protocol".to_owned(), protocol.into());
        if let Some(app_protocol) = port.get("appProtocol") {
            entry.insert("appProtocol".to_owned(), app_protocol.clone());
        }
        ports.push(Value::Object(entry));
    }
    Value::Array(ports)
}

fn container_port(pod: &Value, name: &str, protocol: &str) -> Option<Value> {
    let sidecars = list(pod, "/spec/initContainers")
        .iter()
        .filter(|own| text(own, "/restartPolicy") == "Always");
    let containers = list(pod, "/spec/containers").iter().chain(sidecars);
    let mut ports = containers.flat_map(|container| list(container, "/ports"));
    let matching = |port: &&Value| {
        let own = text(port, "/protocol");
        text(port, "/name") == name && (own == protocol || (own.is_empty() && protocol == "TCP"))
    };
    ports.find(matching)?.get("containerPort").cloned()
}

fn new_slice(service: &Value, group: &Group) -> Value {
    let name = text(service, "/metadata/name");
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "namespace": text(service, "/metadata/namespace"),
            "generateName": format!("{name}-"),
            "ownerReferences": [{
                "apiVersion": "v1",
                "kind": "Service",
                "name": name,
                "uid": uid(service),
                "controller": true,
                "blockOwnerDeletion": true,
            }],
        },
        "addressType": group.family,
        "ports": serde_json::from_str::<Value>(&group.ports).unwrap_or_default(),
        "endpoints": [],
    })
}

/// The service's own labels, and the three that say whose slice it is.
fn labels(service: &Value) -> Value {
    let own = service
        .pointer("/metadata/labels")
        .and_then(Value::as_object)
        .cloned();
    let mut labels = own.unwrap_or_default();
    labels.insert(
        SERVICE_NAME.to_owned(),
        text(service, "/metadata/name").into(),
    );
    labels.insert(MANAGED_BY.to_owned(), MANAGER.into());
    if text(service, "/spec/clusterIP") == "None" {
        labels.insert(HEADLESS.to_owned(), "".into());
    } else {
        labels.remove(HEADLESS);
    }
    Value::Object(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service() -> Value {
        json!({"metadata": {"namespace": "d", "name": "db", "uid": "s", "labels": {"app": "db"}},
            "spec": {"clusterIP": "None", "selector": {"app": "db"}, "ports": [{"name": "sql", "port": 5432, "targetPort": "sql", "protocol": "TCP"}]}})
    }

    fn pod(n: usize, ready: bool) -> Value {
        json!({"metadata": {"namespace": "d", "name": format!("db-{n}"), "uid": format!("u{n}"), "labels": {"app": "db"}},
            "spec": {"nodeName": "n", "hostname": format!("db-{n}"), "subdomain": "db",
                "containers": [{"ports": [{"name": "sql", "containerPort": 5432, "protocol": "TCP"}]}]},
            "status": {"phase": "Running", "podIP": format!("10.0.0.{n}"), "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]}})
    }

    fn named(mut slice: Value, name: &str) -> Value {
        slice["metadata"]["name"] = name.into();
        slice
    }

    #[test]
    fn a_pod_of_the_governing_service_has_its_own_name_port_and_readiness() {
        let pod = pod(0, true);
        let made = changes(&service(), &[&pod], &[]).create;
        let endpoint = &made[0]["endpoints"][0];
        assert_eq!(endpoint["hostname"], "db-0");
        assert_eq!(
            endpoint["conditions"],
            json!({"ready": true, "serving": true, "terminating": false})
        );
        assert_eq!(
            made[0]["ports"],
            json!([{"name": "sql", "port": 5432, "protocol": "TCP"}])
        );
        assert_eq!(made[0]["metadata"]["labels"][HEADLESS], "");
        let mut other = service();
        other["metadata"]["name"] = "read-only".into();
        let made = changes(&other, &[&pod], &[]).create;
        assert!(
            made[0]["endpoints"][0].get("hostname").is_none(),
            "only the governing service names pods"
        );
    }

    #[test]
    fn a_pod_that_is_not_ready_is_listed_and_is_ready_only_where_the_service_says_so() {
        let pod = pod(0, false);
        let made = changes(&service(), &[&pod], &[]).create;
        assert_eq!(made[0]["endpoints"][0]["conditions"]["ready"], false);
        let mut early = service();
        early["spec"]["publishNotReadyAddresses"] = true.into();
        let made = changes(&early, &[&pod], &[]).create;
        assert_eq!(made[0]["endpoints"][0]["conditions"]["ready"], true);
    }

    #[test]
    fn nothing_is_written_when_nothing_changed_and_one_pod_rewrites_one_slice() {
        let pods: Vec<Value> = (0..150).map(|n| pod(n, true)).collect();
        let all: Vec<&Value> = pods.iter().collect();
        let made = changes(&service(), &all, &[]).create;
        let slices: Vec<Value> = made
            .into_iter()
            .enumerate()
            .map(|(n, slice)| named(slice, &format!("db-{n}")))
            .collect();
        let known: Vec<&Value> = slices.iter().collect();
        assert_eq!(slices.len(), 2);
        assert_eq!(changes(&service(), &all, &known), Changes::default());
        let gone = changes(&service(), &all[1..], &known);
        assert_eq!(
            (gone.create.len(), gone.update.len(), gone.delete.len()),
            (0, 1, 0)
        );
    }

    #[test]
    fn a_service_without_pods_keeps_one_empty_slice() {
        let made = changes(&service(), &[], &[]).create;
        assert_eq!((made.len(), &made[0]["endpoints"]), (1, &json!([])));
        let slice = named(made[0].clone(), "db-x");
        assert_eq!(changes(&service(), &[], &[&slice]), Changes::default());
    }

    #[test]
    fn an_ended_pod_is_not_listed() {
        let mut pod = pod(0, false);
        pod["status"]["phase"] = "Failed".into();
        assert_eq!(
            changes(&service(), &[&pod], &[]).create[0]["endpoints"],
            json!([])
        );
    }
}
