//! The old Endpoints object of a service, for programs that still read it: peers that find each other through it. Pure.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use stead_controller::resource::{Resource, is_terminating, list, text, uid};

use super::slices::{addresses, is_listed, is_ready, ports, publishes_unready};

/// Endpoints of the core group.
pub(super) const ENDPOINTS: Resource = Resource {
    group: Cow::Borrowed(""),
    version: Cow::Borrowed("v1"),
    kind: Cow::Borrowed("Endpoints"),
    plural: Cow::Borrowed("endpoints"),
    namespaced: true,
};
/// Says that this controller keeps an object.
pub(super) const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
/// The name under which it does; upstream's own.
pub(super) const MANAGER: &str = "endpoint-controller";
const HEADLESS: &str = "service.kubernetes.io/headless";
/// Addresses of one object. upstream: 1000.
const MOST: usize = 1000;

/// The Endpoints that a service should have.
pub(super) fn wanted(service: &Value, pods: &[&Value]) -> Value {
    let mut labels = service
        .pointer("/metadata/labels")
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default();
    labels.insert(MANAGED_BY.to_owned(), MANAGER.into());
    if text(service, "/spec/clusterIP") == "None" {
        labels.insert(HEADLESS.to_owned(), "".into());
    }
    let mut object = json!({
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {
            "namespace": text(service, "/metadata/namespace"),
            "name": text(service, "/metadata/name"),
            "labels": labels,
        },
    });
    let subsets = subsets(service, pods);
    if !subsets.is_empty() {
        object["subsets"] = subsets.into();
    }
    object
}

/// What must be put where there is `known`; `None` when it is right.
pub(super) fn change(wanted: Value, known: Option<&Value>) -> Option<Value> {
    let Some(known) = known else {
        return Some(wanted);
    };
    let same = known.get("subsets") == wanted.get("subsets")
        && known.pointer("/metadata/labels") == wanted.pointer("/metadata/labels");
    let mut new = wanted;
    new["metadata"]["resourceVersion"] = known["metadata"]["resourceVersion"].clone();
    (!same).then_some(new)
}

/// Addresses by their ports, each list in the order of the addresses.
fn subsets(service: &Value, pods: &[&Value]) -> Vec<Value> {
    let mut by_ports: BTreeMap<String, BTreeMap<(bool, String), Value>> = BTreeMap::new();
    let publishes = publishes_unready(service);
    let listed = |pod: &&&Value| is_listed(pod) && (publishes || !is_terminating(pod));
    for pod in pods.iter().filter(listed).take(MOST) {
        let Some(address) = addresses(pod).find(|address| !address.contains(':')) else {
            continue;
        };
        let ports = sorted(ports(service, Some(pod)));
        let ready = publishes || is_ready(pod);
        let entries = by_ports.entry(ports.to_string()).or_default();
        entries.insert((ready, address.to_owned()), entry(service, pod, address));
    }
    let subset = |(ports, entries): (String, BTreeMap<(bool, String), Value>)| {
        let mut subset = Map::new();
        for (field, ready) in [("addresses", true), ("notReadyAddresses", false)] {
            let own = entries.iter().filter(|((own, _), _)| *own == ready);
            let own: Vec<Value> = own.map(|(_, entry)| entry.clone()).collect();
            if !own.is_empty() {
                subset.insert(field.to_owned(), own.into());
            }
        }
        let ports: Value = serde_json::from_str(&ports).unwrap_or_default();
        if ports.as_array().is_some_and(|ports| !ports.is_empty()) {
            subset.insert("ports".to_owned(), ports);
        }
        Value::Object(subset)
    };
    by_ports.into_iter().map(subset).collect()
}

/// Ports without empty names, in the order of their names.
fn sorted(ports: Value) -> Value {
    let mut ports = list(&json!({ "ports": ports }), "/ports").to_vec();
    for port in &mut ports {
        if text(port, "/name").is_empty()
            && let Some(port) = port.as_object_mut()
        {
            port.remove("name");
        }
    }
    ports.sort_by_key(|port| text(port, "/name").to_owned());
    ports.into()
}

fn entry(service: &Value, pod: &Value, address: &str) -> Value {
    let mut entry = json!({
        "ip": address,
        "targetRef": {
            "kind": "Pod",
            "namespace": text(pod, "/metadata/namespace"),
            "name": text(pod, "/metadata/name"),
            "uid": uid(pod),
        },
    });
    let node = text(pod, "/spec/nodeName");
    if !node.is_empty() {
        entry["nodeName"] = node.into();
    }
    let hostname = text(pod, "/spec/hostname");
    if !hostname.is_empty() && text(pod, "/spec/subdomain") == text(service, "/metadata/name") {
        entry["hostname"] = hostname.into();
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service() -> Value {
        json!({"metadata": {"namespace": "d", "name": "db"}, "spec": {"clusterIP": "None",
            "selector": {"app": "db"}, "ports": [{"port": 5432, "targetPort": "sql"}]}})
    }

    fn pod(n: usize, ready: bool) -> Value {
        json!({"metadata": {"namespace": "d", "name": format!("db-{n}"), "uid": format!("u{n}")},
            "spec": {"hostname": format!("db-{n}"), "subdomain": "db", "nodeName": "n1",
                "containers": [{"ports": [{"name": "sql", "containerPort": 5432}]}]},
            "status": {"phase": "Running", "podIP": format!("10.0.0.{n}"),
                "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]}})
    }

    #[test]
    fn ready_and_unready_addresses_stand_apart_under_their_ports() {
        let (one, two) = (pod(1, true), pod(2, false));
        let made = wanted(&service(), &[&two, &one]);
        let subset = &made["subsets"][0];
        assert_eq!(subset["addresses"][0]["hostname"], "db-1");
        assert_eq!(subset["notReadyAddresses"][0]["ip"], "10.0.0.2");
        assert_eq!(subset["ports"], json!([{"port": 5432, "protocol": "TCP"}]));
        assert_eq!(made["metadata"]["labels"][HEADLESS], "");
        let mut early = service();
        early["spec"]["publishNotReadyAddresses"] = true.into();
        let made = wanted(&early, &[&two, &one]);
        assert_eq!(list(&made, "/subsets/0/addresses").len(), 2);
    }

    #[test]
    fn nothing_is_written_when_nothing_changed() {
        let one = pod(1, true);
        let made = wanted(&service(), &[&one]);
        assert_eq!(change(made.clone(), None), Some(made.clone()));
        assert_eq!(change(made.clone(), Some(&made)), None);
        let none = wanted(&service(), &[]);
        assert!(none.get("subsets").is_none());
        assert!(change(none, Some(&made)).is_some());
    }
}
