//! Services: an address and node ports from the ranges, families that fit, ports with names when there are several.
//!
//! Upstream: `pkg/registry/core/service/storage/alloc.go` and `ValidateService`. Stead serves IPv4 only.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use serde_json::{Value, json};

use super::allocate;
use super::cause::{Cause, Causes, Path, Reason};
use super::endpointslice::special_address;
use super::pod_spec_containers::{port_number, port_number_or_name};
use super::read::{drop_field, get, has, int, list, map_mut, object_mut, put, text, texts};
use super::strategy::{Again, Strategy};
use super::{Context, Refusal, metadata, service_update, syntax};

pub(crate) const RULES: Strategy = Strategy {
    name: syntax::dns1035_label,
    first_status: |_| json!({"loadBalancer": {}}),
    prepare,
    check,
    prepare_update: service_update::prepare,
    check_update: service_update::check,
    metadata_again: Again::Everything,
    create_on_update: true,
    ..Strategy::PLAIN
};

const TYPES: [&str; 4] = ["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"];
const FAMILY_POLICIES: [&str; 3] = ["SingleStack", "PreferDualStack", "RequireDualStack"];
const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];
const TRAFFIC_POLICIES: [&str; 2] = ["Cluster", "Local"];
const KUBELET_PORT: i64 = 10_250;
const MOST_AFFINITY_SECONDS: i64 = 86_400;

fn prepare(service: &mut Value, context: &Context<'_>) -> Result<(), Refusal> {
    allocate(service, context)
}

/// Whether services of the type have an address of their own.
pub(crate) fn needs_address(service: &Value) -> bool {
    matches!(
        text(get(service, "spec"), "type"),
        "ClusterIP" | "NodePort" | "LoadBalancer"
    )
}

/// Whether services of the type have ports on every node.
pub(crate) fn needs_node_ports(service: &Value) -> bool {
    match text(get(service, "spec"), "type") {
        "NodePort" => true,
        "LoadBalancer" => get(get(service, "spec"), "allocateLoadBalancerNodePorts")
            .as_bool()
            .unwrap_or(true),
        _ => false,
    }
}

/// Whether a load balancer asks the nodes which of them have endpoints.
pub(crate) fn needs_health_port(service: &Value) -> bool {
    let spec = get(service, "spec");
    text(spec, "type") == "LoadBalancer" && text(spec, "externalTrafficPolicy") == "Local"
}

/// Whether the service has no address on purpose.
pub(crate) fn is_headless(service: &Value) -> bool {
    let spec = get(service, "spec");
    text(spec, "clusterIP") == "None" || texts(spec, "clusterIPs").first() == Some(&"None")
}

/// Fills in families, addresses and node ports as far as they are not there.
pub(crate) fn allocate(service: &mut Value, context: &Context<'_>) -> Result<(), Refusal> {
    in_step(service);
    if needs_address(service) {
        families(service)?;
        if !is_headless(service) {
            address(service, context)?;
        }
    }
    if needs_node_ports(service) {
        node_ports(service, context)?;
    }
    if needs_health_port(service)
        && int(get(service, "spec"), "healthCheckNodePort").unwrap_or(0) == 0
    {
        health_port(service, context)?;
    }
    Ok(())
}

/// `clusterIP` is the first of `clusterIPs`, whichever of the two was said.
fn in_step(service: &mut Value) {
    let spec = get(service, "spec");
    let (one, many) = (
        text(spec, "clusterIP").to_owned(),
        texts(spec, "clusterIPs"),
    );
    if !one.is_empty() && many.is_empty() {
        map_mut(service, "spec").insert("clusterIPs".to_owned(), json!([one]));
    }
}

fn families(service: &mut Value) -> Result<(), Refusal> {
    let without_selector = super::read::entries(get(service, "spec"), "selector")
        .next()
        .is_none();
    // upstream: a headless service without a selector may point anywhere, so it is of both families unless it says so.
    let anywhere = is_headless(service) && without_selector;
    let spec = map_mut(service, "spec");
    let policy = spec.entry("ipFamilyPolicy").or_insert_with(|| {
        if anywhere {
            "RequireDualStack"
        } else {
            "SingleStack"
        }
        .into()
    });
    let both = anywhere && policy.as_str() != Some("SingleStack");
    if !anywhere && policy.as_str() == Some("RequireDualStack") {
        return Err(refused(
            "spec.ipFamilyPolicy",
            policy,
            "this cluster is not configured for dual-stack services",
        ));
    }
    let families = spec.entry("ipFamilies").or_insert_with(|| json!([]));
    match families.as_array_mut() {
        Some(said) if said.is_empty() => {
            *said = if both {
                vec!["IPv4".into(), "IPv6".into()]
            } else {
                vec!["IPv4".into()]
            }
        }
        Some(said) if both && said.len() == 1 => {
            let other = if said[0] == "IPv4" { "IPv6" } else { "IPv4" };
            said.push(other.into());
        }
        Some(_) | None => {}
    }
    match families
        .as_array()
        .and_then(|said| said.iter().position(|family| family == "IPv6"))
    {
        Some(index) if !anywhere => Err(refused(
            &format!("spec.ipFamilies[{index}]"),
            &"IPv6".into(),
            "not configured on this cluster",
        )),
        Some(_) | None => Ok(()),
    }
}

fn health_port(service: &mut Value, context: &Context<'_>) -> Result<(), Refusal> {
    let uid = text(get(service, "metadata"), "uid").to_owned();
    let mut taken = allocate::taken_ports(context.cluster, &uid);
    taken.extend(allocate::ports_of(service));
    let number = allocate::free_port(&taken, "TCP", &uid)?;
    map_mut(service, "spec").insert("healthCheckNodePort".to_owned(), number.into());
    Ok(())
}

fn refused(field: &str, value: &Value, why: &str) -> Refusal {
    Refusal::Invalid(vec![Cause::new(
        Reason::Invalid,
        field,
        format!("Invalid value: {value}: {why}"),
    )])
}

fn address(service: &mut Value, context: &Context<'_>) -> Result<(), Refusal> {
    let uid = text(get(service, "metadata"), "uid").to_owned();
    let taken = allocate::taken_addresses(context.cluster, &uid);
    let wanted: Vec<String> = texts(get(service, "spec"), "clusterIPs")
        .iter()
        .map(ToString::to_string)
        .collect();
    if let Some(first) = wanted.first().filter(|first| !first.is_empty()) {
        return keep_address(first, &wanted, &taken, context);
    }
    let own = allocate::free_address(context.service_range, &taken, &uid)?.to_string();
    let spec = map_mut(service, "spec");
    spec.insert("clusterIP".to_owned(), own.clone().into());
    spec.insert("clusterIPs".to_owned(), json!([own]));
    Ok(())
}

fn keep_address(
    first: &str,
    wanted: &[String],
    taken: &BTreeSet<Ipv4Addr>,
    context: &Context<'_>,
) -> Result<(), Refusal> {
    let problem = match first.parse::<Ipv4Addr>() {
        Err(_) => return Ok(()), // Not an address: validation says so.
        Ok(address) if !context.service_range.holds(address) => {
            "the provided network does not match the current range"
        }
        Ok(address) if taken.contains(&address) => "provided IP is already allocated",
        Ok(_) => return Ok(()),
    };
    Err(refused(
        "spec.clusterIPs",
        &json!(wanted),
        &format!("failed to allocate IP {first}: {problem}"),
    ))
}

fn node_ports(service: &mut Value, context: &Context<'_>) -> Result<(), Refusal> {
    let uid = text(get(service, "metadata"), "uid").to_owned();
    let mut taken = allocate::taken_ports(context.cluster, &uid);
    let Some(ports) = service
        .pointer_mut("/spec/ports")
        .and_then(Value::as_array_mut)
    else {
        return Ok(());
    };
    let mut own: Vec<i64> = Vec::new();
    for (index, port) in ports.iter_mut().enumerate() {
        let protocol = text(port, "protocol").to_owned();
        let field = format!("spec.ports[{index}].nodePort");
        let number = match int(port, "nodePort").unwrap_or(0) {
            0 => allocate::free_port(&taken, &protocol, &uid)?,
            asked if !allocate::is_node_port(asked) => {
                let why = "provided port is not in the valid range. The range of valid ports is 30000-32767";
                return Err(refused(&field, &asked.into(), why));
            }
            asked if !own.contains(&asked) && taken.contains(&(protocol.clone(), asked)) => {
                return Err(refused(
                    &field,
                    &asked.into(),
                    "provided port is already allocated",
                ));
            }
            asked => asked,
        };
        put(port, "nodePort", number.into());
        taken.insert((protocol, number));
        own.push(number);
    }
    Ok(())
}

/// The rules of a service.
pub(crate) fn check(service: &Value, wrong: &mut Causes) {
    let (spec, at) = (get(service, "spec"), Path::root("spec"));
    let kind = text(spec, "type");
    if list(spec, "ports").is_empty() && !is_headless(service) && kind != "ExternalName" {
        wrong.required(&at.field("ports"), "");
    }
    by_type(service, &at, wrong);
    ports(spec, is_headless(service), &at.field("ports"), wrong);
    metadata::labels(get(spec, "selector"), &at.field("selector"), wrong);
    affinity(spec, &at, wrong);
    addresses(spec, &at, wrong);
    for (index, address) in texts(spec, "externalIPs").iter().enumerate() {
        let at = at.field("externalIPs").index(index);
        wrong.complaints(&at, address, &syntax::ip(address));
        special_address(address, &at, wrong);
    }
    match kind {
        "" => wrong.required(&at.field("type"), ""),
        kind => wrong.one_of(&at.field("type"), kind, &TYPES),
    }
    repeated_ports(spec, &at.field("ports"), wrong);
    traffic(spec, &at, wrong);
}

fn by_type(service: &Value, at: &Path, wrong: &mut Causes) {
    let spec = get(service, "spec");
    let first = at.field("clusterIPs").index(0);
    match text(spec, "type") {
        "LoadBalancer" => {
            for (index, port) in list(spec, "ports").iter().enumerate() {
                if int(port, "port") == Some(KUBELET_PORT) {
                    let detail = format!(
                        "may not expose port {KUBELET_PORT} externally since it is used by kubelet"
                    );
                    wrong.invalid(&at.field("ports").index(index), KUBELET_PORT, &detail);
                }
            }
            if is_headless(service) {
                wrong.invalid(
                    &first,
                    "None",
                    "may not be set to 'None' for LoadBalancer services",
                );
            }
        }
        "NodePort" if is_headless(service) => wrong.invalid(
            &first,
            "None",
            "may not be set to 'None' for NodePort services",
        ),
        "ClusterIP" => {
            for (index, port) in list(spec, "ports").iter().enumerate() {
                if int(port, "nodePort").unwrap_or(0) != 0 {
                    wrong.forbidden(
                        &at.field("ports").index(index).field("nodePort"),
                        "may not be used when `type` is 'ClusterIP'",
                    );
                }
            }
        }
        "ExternalName" => external_name(spec, at, wrong),
        _ => {}
    }
}

fn external_name(spec: &Value, at: &Path, wrong: &mut Causes) {
    let unwanted = "may not be set for ExternalName services";
    if !texts(spec, "clusterIPs").is_empty() {
        wrong.forbidden(&at.field("clusterIPs"), unwanted);
    }
    if !list(spec, "ipFamilies").is_empty() {
        wrong.forbidden(&at.field("ipFamilies"), unwanted);
    }
    if has(spec, "ipFamilyPolicy") {
        wrong.forbidden(&at.field("ipFamilyPolicy"), unwanted);
    }
    match text(spec, "externalName").trim_end_matches('.') {
        "" => wrong.required(&at.field("externalName"), ""),
        name => wrong.complaints(
            &at.field("externalName"),
            name,
            &syntax::dns1123_subdomain(name),
        ),
    }
}

fn ports(spec: &Value, headless: bool, at: &Path, wrong: &mut Causes) {
    let ports = list(spec, "ports");
    let mut names = BTreeSet::new();
    for (index, port) in ports.iter().enumerate() {
        let at = at.index(index);
        let name = text(port, "name");
        if name.is_empty() {
            if ports.len() > 1 {
                wrong.required(&at.field("name"), "");
            }
        } else {
            wrong.complaints(&at.field("name"), name, &syntax::dns1123_label(name));
            if !names.insert(name) {
                wrong.duplicate(&at.field("name"), name);
            }
        }
        port_number(int(port, "port").unwrap_or(0), &at.field("port"), wrong);
        match text(port, "protocol") {
            "" => wrong.required(&at.field("protocol"), ""),
            protocol => wrong.one_of(&at.field("protocol"), protocol, &PROTOCOLS),
        }
        let target = get(port, "targetPort");
        if !(headless && target.is_null()) {
            port_number_or_name(target, &at.field("targetPort"), wrong);
        }
        let application = text(port, "appProtocol");
        if !application.is_empty() {
            wrong.complaints(
                &at.field("appProtocol"),
                application,
                &syntax::qualified_name(application),
            );
        }
    }
}

fn repeated_ports(spec: &Value, at: &Path, wrong: &mut Causes) {
    let mut node_ports = BTreeSet::new();
    let mut own = BTreeSet::new();
    for (index, port) in list(spec, "ports").iter().enumerate() {
        let (protocol, number) = (text(port, "protocol"), int(port, "port").unwrap_or(0));
        let node_port = int(port, "nodePort").unwrap_or(0);
        if node_port != 0 && !node_ports.insert((protocol, node_port)) {
            wrong.duplicate(&at.index(index).field("nodePort"), node_port);
        }
        if !own.insert((protocol, number)) {
            wrong.duplicate(
                &at.index(index),
                json!({"protocol": protocol, "port": number}),
            );
        }
    }
}

fn affinity(spec: &Value, at: &Path, wrong: &mut Causes) {
    let config_at = at.field("sessionAffinityConfig");
    match text(spec, "sessionAffinity") {
        "" => wrong.required(&at.field("sessionAffinity"), ""),
        "None" if has(spec, "sessionAffinityConfig") => {
            wrong.forbidden(&config_at, "must not be set when session affinity is None")
        }
        "None" => {}
        "ClientIP" => client_ip(spec, &config_at, wrong),
        other => wrong.not_supported(&at.field("sessionAffinity"), other, &["ClientIP", "None"]),
    }
}

fn client_ip(spec: &Value, at: &Path, wrong: &mut Causes) {
    let config = get(spec, "sessionAffinityConfig");
    let client_at = at.field("clientIP");
    let seconds_at = client_at.field("timeoutSeconds");
    let why = "when session affinity type is ClientIP";
    match (
        config.is_null(),
        has(config, "clientIP"),
        int(get(config, "clientIP"), "timeoutSeconds"),
    ) {
        (true, _, _) => wrong.required(at, why),
        (false, false, _) => wrong.required(&client_at, why),
        (false, true, None) => wrong.required(&seconds_at, why),
        (false, true, Some(seconds)) if !(1..=MOST_AFFINITY_SECONDS).contains(&seconds) => {
            wrong.invalid(
                &seconds_at,
                seconds,
                &format!("must be greater than 0 and less than {MOST_AFFINITY_SECONDS}"),
            );
        }
        (false, true, Some(_)) => {}
    }
}

fn addresses(spec: &Value, at: &Path, wrong: &mut Causes) {
    if text(spec, "type") == "ExternalName" {
        return;
    }
    if has(spec, "ipFamilyPolicy") {
        wrong.one_of(
            &at.field("ipFamilyPolicy"),
            text(spec, "ipFamilyPolicy"),
            &FAMILY_POLICIES,
        );
    }
    let families = texts(spec, "ipFamilies");
    for (index, family) in families.iter().enumerate() {
        wrong.one_of(
            &at.field("ipFamilies").index(index),
            family,
            &["IPv4", "IPv6"],
        );
        if families[..index].contains(family) {
            wrong.duplicate(&at.field("ipFamilies").index(index), *family);
        }
    }
    let (one, many) = (text(spec, "clusterIP"), texts(spec, "clusterIPs"));
    let at = at.field("clusterIPs");
    match many.first() {
        None if !one.is_empty() => wrong.required(&at, ""),
        Some(first) if *first != one => wrong.invalid(
            &at,
            get(spec, "clusterIPs").clone(),
            "first value must match `clusterIP`",
        ),
        None | Some(_) => {}
    }
    for (index, address) in many.iter().enumerate() {
        if *address == "None" {
            if many.len() > 1 {
                wrong.invalid(
                    &at.index(index),
                    *address,
                    "'None' must be the first and only value",
                );
            }
        } else {
            wrong.complaints(&at.index(index), address, &syntax::ip(address));
        }
    }
    if many.len() > 2 {
        wrong.invalid(
            &at,
            get(spec, "clusterIPs").clone(),
            "may only hold up to 2 values",
        );
    }
}

fn traffic(spec: &Value, at: &Path, wrong: &mut Causes) {
    let external = text(spec, "externalTrafficPolicy");
    let outside = matches!(text(spec, "type"), "NodePort" | "LoadBalancer")
        || !texts(spec, "externalIPs").is_empty();
    let external_at = at.field("externalTrafficPolicy");
    match (outside, external.is_empty()) {
        (true, true) => wrong.required(&external_at, ""),
        (true, false) => wrong.one_of(&external_at, external, &TRAFFIC_POLICIES),
        (false, false) => wrong.invalid(
            &external_at,
            external,
            "may only be set for externally-accessible services",
        ),
        (false, true) => {}
    }
    let internal = text(spec, "internalTrafficPolicy");
    if !internal.is_empty() {
        wrong.one_of(
            &at.field("internalTrafficPolicy"),
            internal,
            &TRAFFIC_POLICIES,
        );
    } else if matches!(
        text(spec, "type"),
        "ClusterIP" | "NodePort" | "LoadBalancer"
    ) {
        wrong.required(&at.field("internalTrafficPolicy"), "");
    }
    let asked = text(spec, "type") == "LoadBalancer" && external == "Local";
    if int(spec, "healthCheckNodePort").unwrap_or(0) != 0 && !asked {
        wrong.invalid(
            &at.field("healthCheckNodePort"),
            get(spec, "healthCheckNodePort").clone(),
            "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'",
        );
    }
    // upstream writes this path with a capital.
    source_ranges(spec, &at.field("LoadBalancerSourceRanges"), wrong);
    if has(spec, "trafficDistribution") {
        let distribution = text(spec, "trafficDistribution");
        wrong.one_of(
            &at.field("trafficDistribution"),
            distribution,
            &["PreferClose", "PreferSameZone", "PreferSameNode"],
        );
    }
    if has(spec, "loadBalancerClass") && text(spec, "type") != "LoadBalancer" {
        wrong.forbidden(
            &at.field("loadBalancerClass"),
            "may only be used when `type` is 'LoadBalancer'",
        );
    }
    if has(spec, "allocateLoadBalancerNodePorts") && text(spec, "type") != "LoadBalancer" {
        wrong.forbidden(
            &at.field("allocateLoadBalancerNodePorts"),
            "may only be used when `type` is 'LoadBalancer'",
        );
    }
}

fn source_ranges(spec: &Value, at: &Path, wrong: &mut Causes) {
    let ranges = texts(spec, "loadBalancerSourceRanges");
    if !ranges.is_empty() && text(spec, "type") != "LoadBalancer" {
        wrong.forbidden(at, "may only be used when `type` is 'LoadBalancer'");
    }
    for (index, range) in ranges.iter().enumerate() {
        wrong.complaints(&at.index(index), range, &syntax::cidr(range.trim()));
    }
}

/// Takes the address fields off a service that no longer has any.
pub(crate) fn drop_addresses(service: &mut Value) {
    let spec = object_mut(service)
        .entry("spec")
        .or_insert_with(|| json!({}));
    for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        drop_field(spec, field);
    }
}
