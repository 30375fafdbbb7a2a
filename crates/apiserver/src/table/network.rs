//! The rows of services, endpoints, ingresses and network policies.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::age::age;
use super::workload::labels;
use super::{NONE, UNSET, few, name, or_none};
use crate::admit::read::{dig, get, int, list, text, texts};
use crate::admit::selector::words;

/// The most characters of a load balancer's addresses.
const MOST_ADDRESS: usize = 16;

pub(super) fn service(service: &Value, now: Timestamp) -> Vec<Value> {
    let spec = get(service, "spec");
    let address = texts(spec, "clusterIPs")
        .first()
        .copied()
        .unwrap_or(text(spec, "clusterIP"));
    vec![
        name(service),
        json!(text(spec, "type")),
        or_none(address),
        json!(outside(service)),
        or_none(&ports(spec)),
        age(service, now),
        labels(get(spec, "selector")),
    ]
}

fn ports(spec: &Value) -> String {
    let all: Vec<String> = list(spec, "ports")
        .iter()
        .map(|port| {
            let number = int(port, "port").unwrap_or(0);
            match int(port, "nodePort").unwrap_or(0) {
                0 => format!("{number}/{}", text(port, "protocol")),
                node_port => format!("{number}:{node_port}/{}", text(port, "protocol")),
            }
        })
        .collect();
    all.join(",")
}

fn outside(service: &Value) -> String {
    let spec = get(service, "spec");
    let own = texts(spec, "externalIPs").join(",");
    let own_or = |other: &str| {
        if own.is_empty() {
            other.to_owned()
        } else {
            own.clone()
        }
    };
    match text(spec, "type") {
        "ExternalName" => text(spec, "externalName").to_owned(),
        "LoadBalancer" => {
            let given = balancer(service);
            match (given.is_empty(), own.is_empty()) {
                (true, _) => own_or("<pending>"),
                (false, true) => given,
                (false, false) => format!("{given},{own}"),
            }
        }
        _ => own_or(NONE),
    }
}

fn balancer(object: &Value) -> String {
    let all: Vec<&str> = list(dig(object, &["status", "loadBalancer"]), "ingress")
        .iter()
        .map(|point| {
            if text(point, "ip").is_empty() {
                text(point, "hostname")
            } else {
                text(point, "ip")
            }
        })
        .collect();
    let joined = all.join(",");
    if joined.len() <= MOST_ADDRESS {
        return joined;
    }
    let head: String = joined.chars().take(MOST_ADDRESS - 3).collect();
    format!("{head}...")
}

pub(super) fn endpoints(endpoints: &Value, now: Timestamp) -> Vec<Value> {
    let mut all = Vec::new();
    for subset in list(endpoints, "subsets") {
        let addresses = list(subset, "addresses");
        let ports = list(subset, "ports");
        if ports.is_empty() {
            all.extend(
                addresses
                    .iter()
                    .map(|address| text(address, "ip").to_owned()),
            );
        }
        for port in ports {
            let number = int(port, "port").unwrap_or(0);
            all.extend(
                addresses
                    .iter()
                    .map(|address| host_and_port(text(address, "ip"), number)),
            );
        }
    }
    vec![name(endpoints), or_none(&few(&all)), age(endpoints, now)]
}

fn host_and_port(ip: &str, port: i64) -> String {
    if ip.contains(':') {
        format!("[{ip}]:{port}")
    } else {
        format!("{ip}:{port}")
    }
}

pub(super) fn endpoint_slice(slice: &Value, now: Timestamp) -> Vec<Value> {
    let ports: Vec<String> = list(slice, "ports")
        .iter()
        .map(|port| int(port, "port").map_or_else(|| "*".to_owned(), |number| number.to_string()))
        .collect();
    let addresses: Vec<String> = list(slice, "endpoints")
        .iter()
        .flat_map(|endpoint| texts(endpoint, "addresses"))
        .map(str::to_owned)
        .collect();
    let or_unset = |items: &[String]| {
        json!(if items.is_empty() {
            UNSET.to_owned()
        } else {
            few(items)
        })
    };
    vec![
        name(slice),
        json!(text(slice, "addressType")),
        or_unset(&ports),
        or_unset(&addresses),
        age(slice, now),
    ]
}

pub(super) fn ingress(ingress: &Value, now: Timestamp) -> Vec<Value> {
    let spec = get(ingress, "spec");
    let class = match text(spec, "ingressClassName") {
        "" => dig(
            ingress,
            &["metadata", "annotations", "kubernetes.io/ingress.class"],
        )
        .as_str()
        .unwrap_or(""),
        class => class,
    };
    let hosts: Vec<String> = list(spec, "rules")
        .iter()
        .map(|rule| text(rule, "host"))
        .filter(|host| !host.is_empty())
        .map(str::to_owned)
        .collect();
    let hosts = if hosts.is_empty() {
        "*".to_owned()
    } else {
        few(&hosts)
    };
    let ports = if list(spec, "tls").is_empty() {
        "80"
    } else {
        "80, 443"
    };
    vec![
        name(ingress),
        or_none(class),
        json!(hosts),
        json!(balancer(ingress)),
        json!(ports),
        age(ingress, now),
    ]
}

pub(super) fn ingress_class(class: &Value, now: Timestamp) -> Vec<Value> {
    let spec = get(class, "spec");
    let parameters = get(spec, "parameters");
    let shown = if parameters.is_null() {
        String::new()
    } else {
        let group = match text(parameters, "apiGroup") {
            "" => String::new(),
            group => format!(".{group}"),
        };
        format!(
            "{}{group}/{}",
            text(parameters, "kind"),
            text(parameters, "name")
        )
    };
    vec![
        name(class),
        json!(text(spec, "controller")),
        or_none(&shown),
        age(class, now),
    ]
}

pub(super) fn policy(policy: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(policy),
        or_none(&words(dig(policy, &["spec", "podSelector"]))),
        age(policy, now),
    ]
}
