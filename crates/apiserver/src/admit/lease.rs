//! Leases: durations above zero, transitions of at least zero, and no update that has not read the lease first.

use serde_json::Value;

use super::cause::{Causes, Path};
use super::read::{get, int, text};
use super::strategy::Strategy;
use super::{syntax, workload};

pub(crate) const RULES: Strategy = Strategy {
    check,
    check_update: |_, new, wrong| check(new, wrong),
    create_on_update: true,
    unconditional_update: false,
    ..Strategy::PLAIN
};

fn check(lease: &Value, wrong: &mut Causes) {
    let (spec, at) = (get(lease, "spec"), Path::root("spec"));
    if let Some(seconds) = int(spec, "leaseDurationSeconds").filter(|seconds| *seconds <= 0) {
        wrong.invalid(
            &at.field("leaseDurationSeconds"),
            seconds,
            "must be greater than 0",
        );
    }
    workload::non_negative(spec, &["leaseTransitions"], &at, wrong);
    let strategy = text(spec, "strategy");
    if !strategy.is_empty() {
        wrong.complaints(
            &at.field("strategy"),
            strategy,
            &syntax::qualified_name(strategy),
        );
    }
    if !text(spec, "preferredHolder").is_empty() && strategy.is_empty() {
        wrong.forbidden(
            &at.field("preferredHolder"),
            "may only be specified if `strategy` is defined",
        );
    }
}
