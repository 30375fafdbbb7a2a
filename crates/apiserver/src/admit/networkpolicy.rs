//! NetworkPolicies: selectors, ports and address blocks that can be read.

use serde_json::Value;

use super::cause::{Causes, Path};
use super::pod_spec_containers::port_number_or_name;
use super::read::{get, has, int, list, text, texts};
use super::strategy::{Generation, Strategy};
use super::{selector, syntax};

pub(crate) const RULES: Strategy = Strategy {
    check,
    check_update: |_, new, wrong| check(new, wrong),
    generation: Generation::Spec,
    ..Strategy::PLAIN
};

fn check(policy: &Value, wrong: &mut Causes) {
    let (spec, at) = (get(policy, "spec"), Path::root("spec"));
    selector::check(get(spec, "podSelector"), &at.field("podSelector"), wrong);
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        for (index, rule) in list(spec, direction).iter().enumerate() {
            let at = at.field(direction).index(index);
            for (index, port) in list(rule, "ports").iter().enumerate() {
                check_port(port, &at.field("ports").index(index), wrong);
            }
            for (index, peer) in list(rule, peers).iter().enumerate() {
                check_peer(peer, &at.field(peers).index(index), wrong);
            }
        }
    }
    let types = texts(spec, "policyTypes");
    if types.len() > 2 {
        wrong.invalid(
            &at.field("policyTypes"),
            get(spec, "policyTypes").clone(),
            "may not specify more than two policyTypes",
        );
        return;
    }
    for (index, kind) in types.iter().enumerate() {
        wrong.one_of(
            &at.field("policyTypes").index(index),
            kind,
            &["Ingress", "Egress"],
        );
    }
}

fn check_port(port: &Value, at: &Path, wrong: &mut Causes) {
    if has(port, "protocol") {
        wrong.one_of(
            &at.field("protocol"),
            text(port, "protocol"),
            &["TCP", "UDP", "SCTP"],
        );
    }
    let number = get(port, "port");
    if !number.is_null() {
        port_number_or_name(number, &at.field("port"), wrong);
    }
    let Some(end) = int(port, "endPort") else {
        return;
    };
    match number.as_i64() {
        None if number.is_null() => wrong.required(
            &at.field("port"),
            "must be specified when `endPort` is specified",
        ),
        None => wrong.invalid(
            &at.field("endPort"),
            end,
            "may not be specified when `port` is non-numeric",
        ),
        Some(first) if end < first => wrong.invalid(
            &at.field("endPort"),
            end,
            "must be greater than or equal to `port`",
        ),
        Some(_) if end > 65535 => wrong.invalid(
            &at.field("endPort"),
            end,
            "must be less than or equal to 65535",
        ),
        Some(_) => {}
    }
}

fn check_peer(peer: &Value, at: &Path, wrong: &mut Causes) {
    let mut found = 0;
    for field in ["podSelector", "namespaceSelector"] {
        if has(peer, field) {
            found += 1;
            selector::check(get(peer, field), &at.field(field), wrong);
        }
    }
    if has(peer, "ipBlock") {
        if found > 0 {
            wrong.forbidden(at, "may not specify both ipBlock and another peer");
        }
        found += 1;
        block(get(peer, "ipBlock"), &at.field("ipBlock"), wrong);
    }
    if found == 0 {
        wrong.required(at, "must specify a peer");
    }
}

fn block(block: &Value, at: &Path, wrong: &mut Causes) {
    match text(block, "cidr") {
        "" => wrong.required(&at.field("cidr"), ""),
        cidr => wrong.complaints(&at.field("cidr"), cidr, &syntax::cidr(cidr)),
    }
    for (index, except) in texts(block, "except").iter().enumerate() {
        wrong.complaints(
            &at.field("except").index(index),
            except,
            &syntax::cidr(except),
        );
    }
}
