//! Nodes: sound taints, quantities that are not negative, and little that changes after registration.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use stead_schema::quantity;

use super::cause::{Causes, NOT_NEGATIVE, Path};
use super::read::{dig, entries, get, list, map_mut, put, semantically_equal, text, texts};
use super::strategy::Strategy;
use super::syntax;

pub(crate) const RULES: Strategy = Strategy {
    prepare: |node, _| {
        ranges_in_step(node);
        Ok(())
    },
    check,
    prepare_update: |_, node, _| {
        ranges_in_step(node);
        Ok(())
    },
    check_update,
    check_status: |_, new, wrong| status(new, wrong),
    ..Strategy::PLAIN
};

const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
const MAY_CHANGE: [&str; 6] = [
    "taints",
    "unschedulable",
    "podCIDR",
    "podCIDRs",
    "providerID",
    "configSource",
];

/// The older field of one range rules. upstream: the conversion of NodeSpec.
fn ranges_in_step(node: &mut Value) {
    let spec = get(node, "spec");
    let one = text(spec, "podCIDR").to_owned();
    if !one.is_empty() && texts(spec, "podCIDRs").first() != Some(&one.as_str()) {
        map_mut(node, "spec").insert("podCIDRs".to_owned(), json!([one]));
    }
}

fn check(node: &Value, wrong: &mut Causes) {
    taints(node, wrong);
    let at = Path::root("spec").field("podCIDRs");
    for (index, cidr) in texts(get(node, "spec"), "podCIDRs").iter().enumerate() {
        wrong.complaints(&at.index(index), cidr, &syntax::cidr(cidr));
    }
    status(node, wrong);
}

fn taints(node: &Value, wrong: &mut Causes) {
    let mut seen = BTreeSet::new();
    for (index, taint) in list(get(node, "spec"), "taints").iter().enumerate() {
        let at = Path::root("spec").field("taints").index(index);
        let (key, value, effect) = (
            text(taint, "key"),
            text(taint, "value"),
            text(taint, "effect"),
        );
        wrong.complaints(&at.field("key"), key, &syntax::qualified_name(key));
        let complaints = syntax::label_value(value);
        if !complaints.is_empty() {
            wrong.invalid(&at.field("value"), value, &complaints.join(";"));
        }
        match effect {
            "" => wrong.required(&at.field("effect"), ""),
            effect => wrong.one_of(&at.field("effect"), effect, &EFFECTS),
        }
        if !seen.insert((key, effect)) {
            wrong.duplicate(&at, taint.clone());
        }
    }
}

fn status(node: &Value, wrong: &mut Causes) {
    for field in ["capacity", "allocatable"] {
        for (name, amount) in entries(get(node, "status"), field) {
            if quantity::nanos_of(amount).is_some_and(|nano| nano < 0) {
                wrong.invalid(
                    &Path::root("status").field(field).key(name),
                    amount.clone(),
                    NOT_NEGATIVE,
                );
            }
        }
    }
    let mut seen: Vec<&Value> = Vec::new();
    for (index, address) in list(get(node, "status"), "addresses").iter().enumerate() {
        if seen.contains(&address) {
            wrong.duplicate(
                &Path::root("status").field("addresses").index(index),
                address.clone(),
            );
        }
        seen.push(address);
    }
}

fn check_update(old: &Value, new: &Value, wrong: &mut Causes) {
    taints(new, wrong);
    for (field, told) in [("podCIDRs", "podCIDR"), ("providerID", "providerID")] {
        let (was, is) = (dig(old, &["spec", field]), dig(new, &["spec", field]));
        if !was.is_null() && !semantically_equal(was, is) {
            let detail = format!("node updates may not change {told} except from \"\" to valid");
            wrong.forbidden(&Path::root("spec").field(field), &detail);
        }
    }
    if !semantically_equal(&unchangeable(old), &unchangeable(new)) {
        wrong.forbidden(&Path::default(), "node updates may only change labels, taints, or capacity (or configSource, if the DynamicKubeletConfig feature gate is enabled)");
    }
}

fn unchangeable(node: &Value) -> Value {
    let mut spec = get(node, "spec").clone();
    if spec.is_object() {
        for field in MAY_CHANGE {
            put(&mut spec, field, Value::Null);
        }
    }
    if spec.as_object().is_some_and(serde_json::Map::is_empty) {
        Value::Null
    } else {
        spec
    }
}
