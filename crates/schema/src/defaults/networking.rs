//! Services, endpoint slices, network policies.

use serde_json::{Map, Value, json};

use super::{default, default_pointer, is_absent, is_empty, object, object_mut, objects_mut, text};

pub(super) fn service(service: &mut Map<String, Value>) {
    let Some(spec) = object_mut(service, "spec") else {
        return;
    };
    session_affinity(spec);
    default(spec, "type", "ClusterIP");
    objects_mut(spec, "ports").for_each(port);
    traffic(spec);
    let balanced = text(spec, "type") == Some("LoadBalancer");
    if balanced
        && let Some(balancer) =
            object_mut(service, "status").and_then(|status| object_mut(status, "loadBalancer"))
    {
        for ingress in objects_mut(balancer, "ingress").filter(|ingress| !is_empty(ingress, "ip")) {
            default_pointer(ingress, "ipMode", "VIP");
        }
    }
}

fn session_affinity(spec: &mut Map<String, Value>) {
    default(spec, "sessionAffinity", "None");
    match text(spec, "sessionAffinity") {
        Some("None") => {
            spec.remove("sessionAffinityConfig");
        }
        Some("ClientIP") => {
            let config =
                object(spec, "sessionAffinityConfig").and_then(|config| object(config, "clientIP"));
            if config.is_none_or(|config| is_absent(config, "timeoutSeconds")) {
                spec.insert(
                    "sessionAffinityConfig".to_owned(),
                    json!({"clientIP": {"timeoutSeconds": 10800}}),
                );
            }
        }
        Some(_) | None => {}
    }
}

fn port(port: &mut Map<String, Value>) {
    default(port, "protocol", "TCP");
    if is_empty(port, "targetPort") {
        let number = port.get("port").cloned().unwrap_or_else(|| 0.into());
        port.insert("targetPort".to_owned(), number);
    }
}

fn traffic(spec: &mut Map<String, Value>) {
    let service_type = text(spec, "type").unwrap_or_default().to_owned();
    let balanced = service_type == "LoadBalancer";
    let external = balanced
        || service_type == "NodePort"
        || service_type == "ClusterIP" && !is_empty(spec, "externalIPs");
    if external {
        default(spec, "externalTrafficPolicy", "Cluster");
    }
    if balanced || matches!(service_type.as_str(), "NodePort" | "ClusterIP") {
        default_pointer(spec, "internalTrafficPolicy", "Cluster");
    }
    if balanced {
        default_pointer(spec, "allocateLoadBalancerNodePorts", true);
    }
}

pub(super) fn slice_port(port: &mut Map<String, Value>) {
    default_pointer(port, "name", "");
    default_pointer(port, "protocol", "TCP");
}

/// A policy that names no types is about ingress, and about egress if it has such rules.
pub(super) fn policy(spec: &mut Map<String, Value>) {
    if is_empty(spec, "policyTypes") {
        let egress = !is_empty(spec, "egress");
        let types = if egress {
            json!(["Ingress", "Egress"])
        } else {
            json!(["Ingress"])
        };
        spec.insert("policyTypes".to_owned(), types);
    }
}
