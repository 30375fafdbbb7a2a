//! DaemonSets: one pod a node of a template that the selector finds.

use serde_json::{Value, json};

use super::cause::{Causes, Path};
use super::pod_warnings;
use super::read::{dig, get, map_mut, object_mut, semantically_equal, text};
use super::strategy::{Generation, Strategy};
use super::workload::{self, Template};

pub(crate) const RULES: Strategy = Strategy {
    first_status: |_| json!({"currentNumberScheduled": 0, "numberMisscheduled": 0, "desiredNumberScheduled": 0, "numberReady": 0}),
    prepare: |set, _| {
        number_template(set, 1);
        Ok(())
    },
    check,
    prepare_update: |old, new, _| {
        let before = dig(old, &["metadata", "annotations", TEMPLATE_NUMBER])
            .as_str()
            .and_then(|word| word.parse::<i64>().ok())
            .unwrap_or(1);
        let changed = !semantically_equal(
            dig(old, &["spec", "template"]),
            dig(new, &["spec", "template"]),
        );
        number_template(new, i64::saturating_add(before, i64::from(changed)));
        Ok(())
    },
    check_update: |old, new, wrong| {
        check(new, wrong);
        wrong.immutable(
            &Path::root("spec").field("selector"),
            dig(old, &["spec", "selector"]),
            dig(new, &["spec", "selector"]),
        );
    },
    warnings: |object| {
        pod_warnings::of_template(
            dig(object, &["spec", "template"]),
            &Path::root("spec").field("template"),
        )
    },
    generation: Generation::Spec,
    ..Strategy::PLAIN
};

const TEMPLATE: Template<'static> = Template {
    workload: "DaemonSet",
    restart_policies: &["Always"],
};

/// The number of the template, which apps/v1 shows only as an annotation.
const TEMPLATE_NUMBER: &str = "deprecated.daemonset.template.generation";

fn number_template(set: &mut Value, number: i64) {
    let meta = object_mut(set)
        .entry("metadata")
        .or_insert_with(|| json!({}));
    map_mut(meta, "annotations").insert(TEMPLATE_NUMBER.to_owned(), number.to_string().into());
}

fn check(set: &Value, wrong: &mut Causes) {
    let (spec, at) = (get(set, "spec"), Path::root("spec"));
    workload::selector(spec, "daemonset", &at, wrong);
    workload::template(spec, &TEMPLATE, &at, wrong);
    workload::non_negative(
        spec,
        &[
            "minReadySeconds",
            "templateGeneration",
            "revisionHistoryLimit",
        ],
        &at,
        wrong,
    );
    let strategy = get(spec, "updateStrategy");
    let at = at.field("updateStrategy");
    match text(strategy, "type") {
        "OnDelete" => {}
        "RollingUpdate" => rolling_update(
            get(strategy, "rollingUpdate"),
            &at.field("rollingUpdate"),
            wrong,
        ),
        other => wrong.not_supported(&at.field("type"), other, &["RollingUpdate", "OnDelete"]),
    }
}

fn rolling_update(rolling: &Value, at: &Path, wrong: &mut Causes) {
    if rolling.is_null() {
        wrong.required(at, "");
        return;
    }
    let (down, up) = (
        workload::number_of(get(rolling, "maxUnavailable")),
        workload::number_of(get(rolling, "maxSurge")),
    );
    for field in ["maxUnavailable", "maxSurge"] {
        let bound = get(rolling, field);
        if !bound.is_null() {
            workload::int_or_percent(bound, &at.field(field), wrong);
            workload::at_most_all(bound, &at.field(field), wrong);
        }
    }
    match (down, up) {
        (0, 0) => wrong.required(
            &at.field("maxUnavailable"),
            "cannot be 0 when maxSurge is 0",
        ),
        (0, _) | (_, 0) => {}
        (_, _) => wrong.invalid(
            &at.field("maxSurge"),
            get(rolling, "maxSurge").clone(),
            "may not be set when maxUnavailable is non-zero",
        ),
    }
}
