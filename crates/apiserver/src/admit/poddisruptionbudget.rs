//! PodDisruptionBudgets: one of two bounds, and no update that has not read the budget first.

use serde_json::{Value, json};

use super::cause::{Causes, Path};
use super::read::{get, has, text};
use super::strategy::{Again, Generation, Strategy};
use super::{selector, syntax, workload};

pub(crate) const RULES: Strategy = Strategy {
    name: syntax::path_segment,
    first_status: |_| json!({"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0}),
    check,
    check_update: |_, new, wrong| check(new, wrong),
    check_status,
    generation: Generation::Spec,
    metadata_again: Again::Never,
    unconditional_update: false,
    ..Strategy::PLAIN
};

fn check(budget: &Value, wrong: &mut Causes) {
    let (spec, at) = (get(budget, "spec"), Path::root("spec"));
    if has(spec, "minAvailable") && has(spec, "maxUnavailable") {
        wrong.invalid(
            &at,
            spec.clone(),
            "minAvailable and maxUnavailable cannot be both set",
        );
    }
    for field in ["minAvailable", "maxUnavailable"] {
        let bound = get(spec, field);
        if !bound.is_null() {
            workload::int_or_percent(bound, &at.field(field), wrong);
            workload::at_most_all(bound, &at.field(field), wrong);
        }
    }
    selector::check(get(spec, "selector"), &at.field("selector"), wrong);
    if has(spec, "unhealthyPodEvictionPolicy") {
        let policy = text(spec, "unhealthyPodEvictionPolicy");
        wrong.one_of(
            &at.field("unhealthyPodEvictionPolicy"),
            policy,
            &["AlwaysAllow", "IfHealthyBudget"],
        );
    }
}

fn check_status(_: &Value, new: &Value, wrong: &mut Causes) {
    let counters = [
        "disruptionsAllowed",
        "currentHealthy",
        "desiredHealthy",
        "expectedPods",
    ];
    workload::non_negative(get(new, "status"), &counters, &Path::root("status"), wrong);
}
