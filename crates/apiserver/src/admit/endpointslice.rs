//! EndpointSlices: one kind of address that never changes, endpoints with addresses, ports with different names.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::Value;

use super::cause::{Causes, Path};
use super::pod_spec_containers::port_number;
use super::read::{get, has, int, list, text, texts};
use super::strategy::{Again, Generation, Strategy};
use super::syntax;

pub(crate) const RULES: Strategy = Strategy {
    check,
    check_update,
    generation: Generation::ContentOrLabels,
    metadata_again: Again::Everything,
    ..Strategy::PLAIN
};

const ADDRESS_TYPES: [&str; 3] = ["FQDN", "IPv4", "IPv6"];
const MOST_ENDPOINTS: usize = 1000;
const MOST_ADDRESSES: usize = 100;
const MOST_PORTS: usize = 20_000;
const MOST_ZONES: usize = 8;

fn check(slice: &Value, wrong: &mut Causes) {
    let kind = text(slice, "addressType");
    let at = Path::root("addressType");
    if kind.is_empty() {
        wrong.required(&at, "");
    } else {
        wrong.one_of(&at, kind, &ADDRESS_TYPES);
    }
    let endpoints = list(slice, "endpoints");
    if endpoints.len() > MOST_ENDPOINTS {
        wrong.too_many(&Path::root("endpoints"), endpoints.len(), MOST_ENDPOINTS);
        return;
    }
    for (index, endpoint) in endpoints.iter().enumerate() {
        check_endpoint(endpoint, kind, &Path::root("endpoints").index(index), wrong);
    }
    ports(slice, &Path::root("ports"), wrong);
}

fn check_endpoint(endpoint: &Value, kind: &str, at: &Path, wrong: &mut Causes) {
    let addresses = texts(endpoint, "addresses");
    let addresses_at = at.field("addresses");
    if addresses.is_empty() {
        wrong.required(&addresses_at, "must contain at least 1 address");
    }
    if addresses.len() > MOST_ADDRESSES {
        wrong.too_many(&addresses_at, addresses.len(), MOST_ADDRESSES);
    }
    for (index, address) in addresses.iter().enumerate() {
        check_address(address, kind, &addresses_at.index(index), wrong);
    }
    if has(endpoint, "nodeName") {
        let node = text(endpoint, "nodeName");
        wrong.complaints(
            &at.field("nodeName"),
            node,
            &syntax::dns1123_subdomain(node),
        );
    }
    if has(endpoint, "hostname") {
        let name = text(endpoint, "hostname");
        wrong.complaints(&at.field("hostname"), name, &syntax::dns1123_label(name));
    }
    let zones = list(get(endpoint, "hints"), "forZones");
    if zones.len() > MOST_ZONES {
        wrong.too_many(
            &at.field("hints").field("forZones"),
            zones.len(),
            MOST_ZONES,
        );
    }
    for (index, zone) in zones.iter().enumerate() {
        let name = text(zone, "name");
        wrong.complaints(
            &at.field("hints")
                .field("forZones")
                .index(index)
                .field("name"),
            name,
            &syntax::label_value(name),
        );
    }
}

fn check_address(address: &str, kind: &str, at: &Path, wrong: &mut Causes) {
    let complaints = match kind {
        "IPv4" => syntax::ipv4(address),
        "IPv6" => syntax::ipv6(address),
        "FQDN" => syntax::dns1123_subdomain(address),
        _ => Vec::new(),
    };
    wrong.complaints(at, address, &complaints);
    if complaints.is_empty() && kind != "FQDN" {
        special_address(address, at, wrong);
    }
}

/// Addresses that nobody can be reached at.
///
/// differs: upstream refuses loopback addresses too; where the machine allows no network of their own, Stead's pods
/// live on loopback addresses.
pub(crate) fn special_address(address: &str, at: &Path, wrong: &mut Causes) {
    let Ok(ip) = address.parse::<IpAddr>() else {
        return;
    };
    if ip.is_unspecified() {
        wrong.invalid(at, address, &format!("may not be unspecified ({address})"));
    }
    let link_local = match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    if link_local {
        wrong.invalid(
            at,
            address,
            "may not be in the link-local range (169.254.0.0/16, fe80::/10)",
        );
    }
    let link_multicast = match ip {
        IpAddr::V4(v4) => v4.octets()[..3] == [224, 0, 0],
        IpAddr::V6(v6) => v6.segments()[0] == 0xff02,
    };
    if link_multicast {
        wrong.invalid(
            at,
            address,
            "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)",
        );
    }
}

fn ports(slice: &Value, at: &Path, wrong: &mut Causes) {
    let ports = list(slice, "ports");
    if ports.len() > MOST_PORTS {
        wrong.too_many(at, ports.len(), MOST_PORTS);
        return;
    }
    let mut names = BTreeSet::new();
    for (index, port) in ports.iter().enumerate() {
        let at = at.index(index);
        let name = text(port, "name");
        if !name.is_empty() {
            wrong.complaints(&at.field("name"), name, &syntax::dns1123_label(name));
        }
        if !names.insert(name) {
            wrong.duplicate(&at.field("name"), name);
        }
        match text(port, "protocol") {
            "" => wrong.required(&at.field("protocol"), ""),
            protocol => wrong.one_of(&at.field("protocol"), protocol, &["TCP", "UDP", "SCTP"]),
        }
        if let Some(number) = int(port, "port") {
            port_number(number, &at.field("port"), wrong);
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

fn check_update(old: &Value, new: &Value, wrong: &mut Causes) {
    check(new, wrong);
    wrong.immutable(
        &Path::root("addressType"),
        get(old, "addressType"),
        get(new, "addressType"),
    );
}
