//! ReplicaSets, ReplicationControllers and PodTemplates: replicas of a template that the selector finds.

use serde_json::{Value, json};

use super::cause::{Causes, Path};
use super::read::{dig, entries, get};
use super::strategy::{Generation, Strategy};
use super::workload::{self, Template};
use super::{metadata, pod_spec, pod_warnings};

pub(crate) const RULES: Strategy = Strategy {
    first_status: |_| json!({"replicas": 0}),
    check,
    check_update: |old, new, wrong| {
        check(new, wrong);
        wrong.immutable(
            &Path::root("spec").field("selector"),
            dig(old, &["spec", "selector"]),
            dig(new, &["spec", "selector"]),
        );
    },
    check_status: |_, new, wrong| counters(new, wrong),
    warnings: |object| {
        pod_warnings::of_template(
            dig(object, &["spec", "template"]),
            &Path::root("spec").field("template"),
        )
    },
    generation: Generation::Spec,
    ..Strategy::PLAIN
};

pub(crate) const CONTROLLER: Strategy = Strategy {
    check: check_controller,
    check_update: |_, new, wrong| check_controller(new, wrong),
    ..RULES
};

pub(crate) const POD_TEMPLATE: Strategy = Strategy {
    check: |object, wrong| {
        pod_spec::check_template(get(object, "template"), &Path::root("template"), wrong)
    },
    check_update: |_, new, wrong| {
        pod_spec::check_template(get(new, "template"), &Path::root("template"), wrong)
    },
    generation: Generation::ContentOrLabels,
    ..Strategy::PLAIN
};

const TEMPLATE: Template<'static> = Template {
    workload: "ReplicaSet",
    restart_policies: &["Always"],
};

fn check(set: &Value, wrong: &mut Causes) {
    let (spec, at) = (get(set, "spec"), Path::root("spec"));
    workload::non_negative(spec, &["replicas", "minReadySeconds"], &at, wrong);
    workload::selector(spec, "deployment", &at, wrong);
    workload::template(spec, &TEMPLATE, &at, wrong);
}

fn check_controller(controller: &Value, wrong: &mut Causes) {
    let (spec, at) = (get(controller, "spec"), Path::root("spec"));
    workload::non_negative(spec, &["replicas", "minReadySeconds"], &at, wrong);
    metadata::labels(get(spec, "selector"), &at.field("selector"), wrong);
    if entries(spec, "selector").next().is_none() {
        wrong.required(&at.field("selector"), "");
    }
    if get(spec, "template").is_null() {
        wrong.required(&at.field("template"), "");
        return;
    }
    let labels = metadata::labels_of(get(spec, "template"));
    if !entries(spec, "selector").all(|(key, value)| labels.get(key) == Some(value)) {
        let at = at.field("template").field("metadata").field("labels");
        wrong.invalid(
            &at,
            labels.clone(),
            "`selector` does not match template `labels`",
        );
    }
    pod_spec::check_template(get(spec, "template"), &at.field("template"), wrong);
    workload::lasting(
        spec,
        &Template {
            workload: "ReplicationController",
            ..TEMPLATE
        },
        &at,
        wrong,
    );
}

fn counters(set: &Value, wrong: &mut Causes) {
    let (status, at) = (get(set, "status"), Path::root("status"));
    workload::non_negative(
        status,
        &[
            "replicas",
            "fullyLabeledReplicas",
            "readyReplicas",
            "availableReplicas",
            "observedGeneration",
        ],
        &at,
        wrong,
    );
    for field in ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"] {
        workload::at_most(status, field, "replicas", &at, wrong);
    }
    workload::at_most(status, "availableReplicas", "readyReplicas", &at, wrong);
}
