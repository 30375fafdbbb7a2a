//! Endpoints: subsets with an address and sound ports.

use serde_json::Value;

use super::cause::{Causes, Path};
use super::endpointslice::special_address;
use super::pod_spec_containers::port_number;
use super::read::{int, list, text};
use super::strategy::{Again, Strategy};
use super::syntax;

pub(crate) const RULES: Strategy = Strategy {
    check,
    check_update: |_, new, wrong| check(new, wrong),
    metadata_again: Again::Everything,
    create_on_update: true,
    ..Strategy::PLAIN
};

fn check(endpoints: &Value, wrong: &mut Causes) {
    for (index, subset) in list(endpoints, "subsets").iter().enumerate() {
        let at = Path::root("subsets").index(index);
        if list(subset, "addresses").is_empty() && list(subset, "notReadyAddresses").is_empty() {
            wrong.required(&at, "must specify `addresses` or `notReadyAddresses`");
        }
        for field in ["addresses", "notReadyAddresses"] {
            for (index, address) in list(subset, field).iter().enumerate() {
                check_address(address, &at.field(field).index(index), wrong);
            }
        }
        let ports = list(subset, "ports");
        for (index, port) in ports.iter().enumerate() {
            check_port(
                port,
                ports.len() > 1,
                &at.field("ports").index(index),
                wrong,
            );
        }
    }
}

fn check_address(address: &Value, at: &Path, wrong: &mut Causes) {
    let ip = text(address, "ip");
    let complaints = syntax::ip(ip);
    wrong.complaints(&at.field("ip"), ip, &complaints);
    if complaints.is_empty() {
        special_address(ip, &at.field("ip"), wrong);
    }
    let name = text(address, "hostname");
    if !name.is_empty() {
        wrong.complaints(&at.field("hostname"), name, &syntax::dns1123_label(name));
    }
    let node = text(address, "nodeName");
    if !node.is_empty() {
        wrong.complaints(
            &at.field("nodeName"),
            node,
            &syntax::dns1123_subdomain(node),
        );
    }
}

fn check_port(port: &Value, needs_name: bool, at: &Path, wrong: &mut Causes) {
    match text(port, "name") {
        "" if needs_name => wrong.required(&at.field("name"), ""),
        "" => {}
        name => wrong.complaints(&at.field("name"), name, &syntax::dns1123_label(name)),
    }
    port_number(int(port, "port").unwrap_or(0), &at.field("port"), wrong);
    match text(port, "protocol") {
        "" => wrong.required(&at.field("protocol"), ""),
        protocol => wrong.one_of(&at.field("protocol"), protocol, &["TCP", "UDP", "SCTP"]),
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
