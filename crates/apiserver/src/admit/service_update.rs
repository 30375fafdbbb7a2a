//! Updates of services: what is allocated stays, what a new type does not need goes, the first address never changes.

use serde_json::Value;

use super::cause::{Causes, Path};
use super::read::{dig, get, int, list, map_mut, put, text, texts};
use super::service::{
    allocate, drop_addresses, needs_address, needs_health_port, needs_node_ports,
};
use super::{Context, Refusal, service};

/// Carries over what was allocated, drops what the new type has no use for, allocates what is missing.
pub(crate) fn prepare(old: &Value, new: &mut Value, context: &Context<'_>) -> Result<(), Refusal> {
    carry_over(old, new);
    drop_unneeded(old, new);
    allocate(new, context)
}

/// upstream: patchAllocatedValues. Clients that write the whole object need not know the allocated values.
fn carry_over(old: &Value, new: &mut Value) {
    if needs_address(old) && needs_address(new) {
        let spec = get(new, "spec");
        let (no_one, no_many) = (
            text(spec, "clusterIP").is_empty(),
            texts(spec, "clusterIPs").is_empty(),
        );
        for (field, missing) in [("clusterIP", no_one), ("clusterIPs", no_many && no_one)] {
            if missing {
                set(new, field, dig(old, &["spec", field]).clone());
            }
        }
        if !no_many && no_one {
            let first = list(get(new, "spec"), "clusterIPs")
                .first()
                .cloned()
                .unwrap_or_default();
            set(new, "clusterIP", first);
        }
        for field in ["ipFamilies", "ipFamilyPolicy"] {
            if get(get(new, "spec"), field).is_null() {
                set(new, field, dig(old, &["spec", field]).clone());
            }
        }
    }
    if needs_node_ports(old) && needs_node_ports(new) {
        carry_node_ports(old, new);
    }
    let health = dig(old, &["spec", "healthCheckNodePort"]);
    if needs_health_port(old)
        && needs_health_port(new)
        && dig(new, &["spec", "healthCheckNodePort"]).is_null()
    {
        set(new, "healthCheckNodePort", health.clone());
    }
}

fn set(service: &mut Value, field: &str, value: Value) {
    let spec = map_mut(service, "spec");
    if value.is_null() {
        spec.remove(field);
    } else {
        spec.insert(field.to_owned(), value);
    }
}

fn carry_node_ports(old: &Value, new: &mut Value) {
    let before: Vec<(String, i64, i64)> = list(get(old, "spec"), "ports")
        .iter()
        .filter_map(|port| {
            Some((
                text(port, "protocol").to_owned(),
                int(port, "port")?,
                int(port, "nodePort").filter(|number| *number != 0)?,
            ))
        })
        .collect();
    let used: Vec<i64> = list(get(new, "spec"), "ports")
        .iter()
        .filter_map(|port| int(port, "nodePort"))
        .collect();
    let Some(ports) = new.pointer_mut("/spec/ports").and_then(Value::as_array_mut) else {
        return;
    };
    for port in ports
        .iter_mut()
        .filter(|port| int(port, "nodePort").unwrap_or(0) == 0)
    {
        let own = (
            text(port, "protocol").to_owned(),
            int(port, "port").unwrap_or(0),
        );
        let same = before
            .iter()
            .find(|(protocol, number, _)| (protocol, number) == (&own.0, &own.1));
        if let Some((_, _, node_port)) = same.filter(|(_, _, node_port)| !used.contains(node_port))
        {
            put(port, "nodePort", (*node_port).into());
        }
    }
}

/// upstream: dropTypeDependentFields. Only what the author left as it was goes; a changed value is refused instead.
fn drop_unneeded(old: &Value, new: &mut Value) {
    if needs_address(old) && !needs_address(new) {
        let untouched = dig(old, &["spec", "clusterIP"]) == dig(new, &["spec", "clusterIP"]);
        if untouched {
            drop_addresses(new);
        }
    }
    if needs_node_ports(old)
        && !needs_node_ports(new)
        && text(get(new, "spec"), "type") != "LoadBalancer"
    {
        let numbers = |service: &Value| -> Vec<i64> {
            list(get(service, "spec"), "ports")
                .iter()
                .map(|port| int(port, "nodePort").unwrap_or(0))
                .collect()
        };
        if numbers(old) == numbers(new) {
            forget_node_ports(new);
        }
    }
    if needs_health_port(old)
        && !needs_health_port(new)
        && dig(old, &["spec", "healthCheckNodePort"]) == dig(new, &["spec", "healthCheckNodePort"])
    {
        set(new, "healthCheckNodePort", Value::Null);
    }
    let was_outside = matches!(text(get(old, "spec"), "type"), "NodePort" | "LoadBalancer");
    let is_outside = matches!(text(get(new, "spec"), "type"), "NodePort" | "LoadBalancer")
        || !texts(get(new, "spec"), "externalIPs").is_empty();
    if was_outside
        && !is_outside
        && dig(old, &["spec", "externalTrafficPolicy"])
            == dig(new, &["spec", "externalTrafficPolicy"])
    {
        set(new, "externalTrafficPolicy", Value::Null);
    }
    if text(get(old, "spec"), "type") == "LoadBalancer"
        && text(get(new, "spec"), "type") != "LoadBalancer"
    {
        for field in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
            if dig(old, &["spec", field]) == dig(new, &["spec", field]) {
                set(new, field, Value::Null);
            }
        }
    }
}

fn forget_node_ports(service: &mut Value) {
    for port in service
        .pointer_mut("/spec/ports")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        put(port, "nodePort", Value::Null);
    }
}

/// The rules of a changed service.
pub(crate) fn check(old: &Value, new: &Value, wrong: &mut Causes) {
    first_address_stays(old, new, wrong);
    first_family_stays(old, new, wrong);
    health_port_stays(old, new, wrong);
    class_stays(old, new, wrong);
    service::check(new, wrong);
}

fn first_address_stays(old: &Value, new: &Value, wrong: &mut Causes) {
    if !needs_address(old) || !needs_address(new) {
        return;
    }
    let (was, is) = (
        texts(get(old, "spec"), "clusterIPs"),
        texts(get(new, "spec"), "clusterIPs"),
    );
    let changed = matches!((was.first(), is.first()), (Some(was), Some(is)) if was != is);
    if changed {
        let at = Path::root("spec").field("clusterIPs").index(0);
        wrong.invalid(
            &at,
            dig(new, &["spec", "clusterIPs"]).clone(),
            "may not change once set",
        );
    }
}

fn first_family_stays(old: &Value, new: &Value, wrong: &mut Causes) {
    let (was, is) = (
        texts(get(old, "spec"), "ipFamilies"),
        texts(get(new, "spec"), "ipFamilies"),
    );
    if needs_address(old)
        && needs_address(new)
        && matches!((was.first(), is.first()), (Some(was), Some(is)) if was != is)
    {
        let at = Path::root("spec").field("ipFamilies").index(0);
        wrong.invalid(
            &at,
            dig(new, &["spec", "ipFamilies"]).clone(),
            "may not change once set",
        );
    }
}

fn health_port_stays(old: &Value, new: &Value, wrong: &mut Causes) {
    let number = |service: &Value| int(get(service, "spec"), "healthCheckNodePort").unwrap_or(0);
    if needs_health_port(old) && needs_health_port(new) && number(old) != number(new) {
        wrong.forbidden(
            &Path::root("spec").field("healthCheckNodePort"),
            super::cause::IMMUTABLE,
        );
    }
}

fn class_stays(old: &Value, new: &Value, wrong: &mut Causes) {
    let balanced = |service: &Value| text(get(service, "spec"), "type") == "LoadBalancer";
    if balanced(old) && balanced(new) {
        let (was, is) = (
            dig(old, &["spec", "loadBalancerClass"]),
            dig(new, &["spec", "loadBalancerClass"]),
        );
        if !was.is_null() || is.is_null() {
            wrong.immutable(&Path::root("spec").field("loadBalancerClass"), was, is);
        }
    }
}
