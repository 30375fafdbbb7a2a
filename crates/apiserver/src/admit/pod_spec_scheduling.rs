//! The rules of where a pod may run: affinity, tolerations, topology spread.

use serde_json::Value;

use super::cause::{Causes, Path};
use super::read::{get, has, int, list, text, texts};
use super::{selector, syntax};

const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
const NEED_VALUES: &str = "must be specified when `operator` is 'In' or 'NotIn'";
const NO_VALUES: &str = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
const ONE_VALUE: &str = "must be specified single value when `operator` is 'Lt' or 'Gt'";
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// Checks what a spec says of scheduling.
pub(crate) fn check(spec: &Value, at: &Path, wrong: &mut Causes) {
    affinity(get(spec, "affinity"), &at.field("affinity"), wrong);
    topology_spread(
        list(spec, "topologySpreadConstraints"),
        &at.field("topologySpreadConstraints"),
        wrong,
    );
    tolerations(list(spec, "tolerations"), &at.field("tolerations"), wrong);
}

fn affinity(affinity: &Value, at: &Path, wrong: &mut Causes) {
    let nodes = get(affinity, "nodeAffinity");
    let nodes_at = at.field("nodeAffinity");
    if has(nodes, REQUIRED) {
        node_selector(get(nodes, REQUIRED), &nodes_at.field(REQUIRED), wrong);
    }
    for (index, preferred) in list(nodes, PREFERRED).iter().enumerate() {
        let at = nodes_at.field(PREFERRED).index(index);
        weight(preferred, &at, wrong);
        node_selector_term(
            get(preferred, "preference"),
            Values::Any,
            &at.field("preference"),
            wrong,
        );
    }
    for field in ["podAffinity", "podAntiAffinity"] {
        let pods = get(affinity, field);
        let at = at.field(field);
        for (index, term) in list(pods, REQUIRED).iter().enumerate() {
            pod_term(term, &at.field(REQUIRED).index(index), wrong);
        }
        for (index, preferred) in list(pods, PREFERRED).iter().enumerate() {
            let at = at.field(PREFERRED).index(index);
            weight(preferred, &at, wrong);
            pod_term(
                get(preferred, "podAffinityTerm"),
                &at.field("podAffinityTerm"),
                wrong,
            );
        }
    }
}

fn weight(preferred: &Value, at: &Path, wrong: &mut Causes) {
    let weight = int(preferred, "weight").unwrap_or(0);
    if !(1..=100).contains(&weight) {
        wrong.invalid(&at.field("weight"), weight, "must be in the range 1-100");
    }
}

/// A selector of nodes by terms, as affinity and volumes have.
pub(crate) fn node_selector(selector: &Value, at: &Path, wrong: &mut Causes) {
    let at = at.field("nodeSelectorTerms");
    let terms = list(selector, "nodeSelectorTerms");
    if terms.is_empty() {
        wrong.required(&at, "must have at least one node selector term");
    }
    for (index, term) in terms.iter().enumerate() {
        node_selector_term(term, Values::OfLabels, &at.index(index), wrong);
    }
}

/// What the values of a requirement may be: a wish may name what no label can be, a demand may not.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Values {
    Any,
    OfLabels,
}

fn node_selector_term(term: &Value, allowed: Values, at: &Path, wrong: &mut Causes) {
    for (index, requirement) in list(term, "matchExpressions").iter().enumerate() {
        node_label(
            requirement,
            allowed,
            &at.field("matchExpressions").index(index),
            wrong,
        );
    }
    for (index, requirement) in list(term, "matchFields").iter().enumerate() {
        node_field(requirement, &at.field("matchFields").index(index), wrong);
    }
}

fn node_label(requirement: &Value, allowed: Values, at: &Path, wrong: &mut Causes) {
    let values = texts(requirement, "values");
    match text(requirement, "operator") {
        "In" | "NotIn" if values.is_empty() => wrong.required(&at.field("values"), NEED_VALUES),
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            wrong.forbidden(&at.field("values"), NO_VALUES)
        }
        "Gt" | "Lt" if values.len() != 1 => wrong.required(&at.field("values"), ONE_VALUE),
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        other => wrong.invalid(
            &at.field("operator"),
            other,
            "not a valid selector operator",
        ),
    }
    let key = text(requirement, "key");
    wrong.complaints(&at.field("key"), key, &syntax::qualified_name(key));
    for (index, value) in values
        .iter()
        .enumerate()
        .filter(|_| allowed == Values::OfLabels)
    {
        wrong.complaints(
            &at.field("values").index(index),
            value,
            &syntax::label_value(value),
        );
    }
}

fn node_field(requirement: &Value, at: &Path, wrong: &mut Causes) {
    let values = texts(requirement, "values");
    match text(requirement, "operator") {
        "In" | "NotIn" if values.len() != 1 => {
            wrong.required(
                &at.field("values"),
                "must be only one value when `operator` is 'In' or 'NotIn' for node field selector",
            );
        }
        "In" | "NotIn" => {}
        other => wrong.invalid(
            &at.field("operator"),
            other,
            "not a valid selector operator",
        ),
    }
    match text(requirement, "key") {
        "metadata.name" => {
            for (index, name) in values.iter().enumerate() {
                wrong.complaints(
                    &at.field("values").index(index),
                    name,
                    &syntax::dns1123_subdomain(name),
                );
            }
        }
        other => wrong.invalid(&at.field("key"), other, "not a valid field selector key"),
    }
}

fn pod_term(term: &Value, at: &Path, wrong: &mut Causes) {
    for field in ["labelSelector", "namespaceSelector"] {
        selector::check(get(term, field), &at.field(field), wrong);
    }
    for name in texts(term, "namespaces") {
        wrong.complaints(&at.field("namespace"), name, &syntax::dns1123_label(name));
    }
    match text(term, "topologyKey") {
        "" => wrong.required(&at.field("topologyKey"), "can not be empty"),
        key => wrong.complaints(&at.field("topologyKey"), key, &syntax::qualified_name(key)),
    }
    for field in ["matchLabelKeys", "mismatchLabelKeys"] {
        label_keys(term, field, at, wrong);
    }
}

fn label_keys(term: &Value, field: &str, at: &Path, wrong: &mut Causes) {
    let keys = texts(term, field);
    if !keys.is_empty() && !has(term, "labelSelector") {
        wrong.forbidden(
            &at.field(field),
            "must not be specified when labelSelector is not set",
        );
    }
    for (index, key) in keys.iter().enumerate() {
        wrong.complaints(
            &at.field(field).index(index),
            key,
            &syntax::qualified_name(key),
        );
    }
}

fn topology_spread(constraints: &[Value], at: &Path, wrong: &mut Causes) {
    for (index, constraint) in constraints.iter().enumerate() {
        let at = at.index(index);
        let skew = int(constraint, "maxSkew").unwrap_or(0);
        if skew <= 0 {
            wrong.invalid(&at.field("maxSkew"), skew, "must be greater than zero");
        }
        let (key, otherwise) = (
            text(constraint, "topologyKey"),
            text(constraint, "whenUnsatisfiable"),
        );
        if key.is_empty() {
            wrong.required(&at.field("topologyKey"), "can not be empty");
        } else {
            wrong.complaints(&at.field("topologyKey"), key, &syntax::qualified_name(key));
        }
        wrong.one_of(
            &at.field("whenUnsatisfiable"),
            otherwise,
            &["DoNotSchedule", "ScheduleAnyway"],
        );
        let repeated = constraints.iter().skip(index + 1).any(|later| {
            text(later, "topologyKey") == key && text(later, "whenUnsatisfiable") == otherwise
        });
        if repeated {
            wrong.duplicate(
                &at.field("{topologyKey, whenUnsatisfiable}"),
                format!("{{{key}, {otherwise}}}"),
            );
        }
        for field in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            if has(constraint, field) {
                wrong.one_of(
                    &at.field(field),
                    text(constraint, field),
                    &["Honor", "Ignore"],
                );
            }
        }
        min_domains(constraint, &at.field("minDomains"), wrong);
        label_keys(constraint, "matchLabelKeys", &at, wrong);
        selector::check(
            get(constraint, "labelSelector"),
            &at.field("labelSelector"),
            wrong,
        );
    }
}

fn min_domains(constraint: &Value, at: &Path, wrong: &mut Causes) {
    let Some(least) = int(constraint, "minDomains") else {
        return;
    };
    if least <= 0 {
        wrong.invalid(at, least, "must be greater than zero");
    }
    if text(constraint, "whenUnsatisfiable") != "DoNotSchedule" {
        wrong.invalid(
            at,
            least,
            "can only use minDomains if whenUnsatisfiable=DoNotSchedule",
        );
    }
}

/// The rules of tolerations.
pub(crate) fn tolerations(tolerations: &[Value], at: &Path, wrong: &mut Causes) {
    for (index, toleration) in tolerations.iter().enumerate() {
        let at = at.index(index);
        let (key, operator, effect) = (
            text(toleration, "key"),
            text(toleration, "operator"),
            text(toleration, "effect"),
        );
        if !key.is_empty() {
            wrong.complaints(&at.field("key"), key, &syntax::qualified_name(key));
        }
        if key.is_empty() && operator != "Exists" {
            wrong.invalid(
                &at.field("operator"),
                operator,
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
            );
        }
        if has(toleration, "tolerationSeconds") && effect != "NoExecute" {
            wrong.invalid(
                &at.field("effect"),
                effect,
                "effect must be 'NoExecute' when `tolerationSeconds` is set",
            );
        }
        value_fits_operator(toleration, operator, &at.field("operator"), wrong);
        if !effect.is_empty() {
            wrong.one_of(&at.field("effect"), effect, &EFFECTS);
        }
    }
}

fn value_fits_operator(toleration: &Value, operator: &str, at: &Path, wrong: &mut Causes) {
    let value = text(toleration, "value");
    match operator {
        "Equal" | "" => {
            let complaints = syntax::label_value(value);
            if !complaints.is_empty() {
                wrong.invalid(at, value, &complaints.join(";"));
            }
        }
        "Exists" if !value.is_empty() => {
            wrong.invalid(
                at,
                toleration.clone(),
                "value must be empty when `operator` is 'Exists'",
            );
        }
        "Exists" => {}
        other => wrong.not_supported(at, other, &["Equal", "Exists"]),
    }
}
