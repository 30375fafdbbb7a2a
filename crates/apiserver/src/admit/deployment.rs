//! Deployments: a selector that never changes, a strategy that leaves room to move.

use serde_json::{Value, json};

use super::cause::{Causes, Path};
use super::pod_warnings;
use super::read::{dig, get, has, int, text};
use super::strategy::{Generation, Strategy};
use super::workload::{self, Template};

pub(crate) const RULES: Strategy = Strategy {
    first_status: |_| json!({}),
    check,
    check_update: |old, new, wrong| {
        check(new, wrong);
        wrong.immutable(
            &Path::root("spec").field("selector"),
            dig(old, &["spec", "selector"]),
            dig(new, &["spec", "selector"]),
        );
    },
    check_status,
    warnings: |object| {
        pod_warnings::of_template(
            dig(object, &["spec", "template"]),
            &Path::root("spec").field("template"),
        )
    },
    generation: Generation::SpecOrAnnotations,
    ..Strategy::PLAIN
};

const TEMPLATE: Template<'static> = Template {
    workload: "ReplicaSet",
    restart_policies: &["Always"],
};

fn check(deployment: &Value, wrong: &mut Causes) {
    let (spec, at) = (get(deployment, "spec"), Path::root("spec"));
    workload::non_negative(
        spec,
        &[
            "replicas",
            "minReadySeconds",
            "revisionHistoryLimit",
            "progressDeadlineSeconds",
        ],
        &at,
        wrong,
    );
    workload::selector(spec, "deployment", &at, wrong);
    workload::template(spec, &TEMPLATE, &at, wrong);
    strategy(get(spec, "strategy"), &at.field("strategy"), wrong);
    let least = int(spec, "minReadySeconds").unwrap_or(0);
    if let Some(deadline) =
        int(spec, "progressDeadlineSeconds").filter(|deadline| *deadline <= least)
    {
        wrong.invalid(
            &at.field("progressDeadlineSeconds"),
            deadline,
            "must be greater than minReadySeconds",
        );
    }
}

fn strategy(strategy: &Value, at: &Path, wrong: &mut Causes) {
    let rolling_at = at.field("rollingUpdate");
    let rolling = get(strategy, "rollingUpdate");
    match text(strategy, "type") {
        "Recreate" if !rolling.is_null() => {
            wrong.forbidden(
                &rolling_at,
                "may not be specified when strategy `type` is 'Recreate'",
            );
        }
        "Recreate" => {}
        "RollingUpdate" if rolling.is_null() => {
            wrong.required(&rolling_at, "this should be defaulted and never be nil")
        }
        "RollingUpdate" => surge_and_unavailable(rolling, &rolling_at, wrong),
        "" => wrong.required(&at.field("type"), ""),
        other => wrong.not_supported(&at.field("type"), other, &["Recreate", "RollingUpdate"]),
    }
}

/// The two bounds of a rolling update: one of them must leave room.
pub(crate) fn surge_and_unavailable(rolling: &Value, at: &Path, wrong: &mut Causes) {
    for field in ["maxUnavailable", "maxSurge"] {
        let bound = get(rolling, field);
        if !bound.is_null() {
            workload::int_or_percent(bound, &at.field(field), wrong);
        }
    }
    let (down, up) = (get(rolling, "maxUnavailable"), get(rolling, "maxSurge"));
    if workload::number_of(down) == 0 && workload::number_of(up) == 0 {
        wrong.invalid(
            &at.field("maxUnavailable"),
            down.clone(),
            "may not be 0 when `maxSurge` is 0",
        );
    }
    workload::at_most_all(down, &at.field("maxUnavailable"), wrong);
}

fn check_status(old: &Value, new: &Value, wrong: &mut Causes) {
    let (status, at) = (get(new, "status"), Path::root("status"));
    let counters = [
        "observedGeneration",
        "replicas",
        "updatedReplicas",
        "readyReplicas",
        "availableReplicas",
        "unavailableReplicas",
        "collisionCount",
    ];
    workload::non_negative(status, &counters, &at, wrong);
    for field in ["updatedReplicas", "readyReplicas", "availableReplicas"] {
        workload::at_most(status, field, "replicas", &at, wrong);
    }
    workload::at_most(status, "availableReplicas", "readyReplicas", &at, wrong);
    if has(get(old, "status"), "collisionCount") {
        workload::collisions_grow(old, new, wrong);
    }
}
