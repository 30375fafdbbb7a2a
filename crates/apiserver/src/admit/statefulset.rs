//! StatefulSets: the rules of apps/v1, with the claims' volumes in the template and the few fields that may change.
//!
//! Upstream: `pkg/apis/apps/validation` and `pkg/registry/apps/statefulset`.

use serde_json::{Value, json};

use super::cause::{Causes, Path};
use super::read::{get, has, int, list, list_mut, object_mut, put, semantically_equal, text};
use super::strategy::{Generation, Strategy};
use super::workload::{self, Template};
use super::{metadata, persistentvolumeclaim, pod_spec, pod_warnings, syntax};

pub(crate) const RULES: Strategy = Strategy {
    name: syntax::dns1123_label,
    first_status: |_| json!({"replicas": 0, "availableReplicas": 0}),
    check: check_created,
    check_update,
    check_status,
    warnings,
    generation: Generation::Spec,
    ..Strategy::PLAIN
};

const TEMPLATE: Template<'static> = Template {
    workload: "StatefulSet",
    restart_policies: &["Always"],
};
const MAY_CHANGE: [&str; 7] = [
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];
const FROZEN: &str = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";

/// What an update no longer looks at.
#[derive(Clone, Copy)]
struct Relaxed {
    /// The template may stay as broken as it was.
    template: bool,
    /// The claims and the service name are as they were.
    frozen: bool,
}

fn check_created(set: &Value, wrong: &mut Causes) {
    check_spec(
        get(set, "spec"),
        Relaxed {
            template: false,
            frozen: false,
        },
        wrong,
    );
}

fn check_update(old: &Value, new: &Value, wrong: &mut Causes) {
    let mut before = Causes::default();
    check_spec(
        get(old, "spec"),
        Relaxed {
            template: false,
            frozen: true,
        },
        &mut before,
    );
    check_spec(
        get(new, "spec"),
        Relaxed {
            template: !before.is_empty(),
            frozen: true,
        },
        wrong,
    );
    if !semantically_equal(&unchangeable(old), &unchangeable(new)) {
        wrong.forbidden(&Path::root("spec"), FROZEN);
    }
}

fn unchangeable(set: &Value) -> Value {
    let mut spec = get(set, "spec").clone();
    for field in MAY_CHANGE {
        put(&mut spec, field, Value::Null);
    }
    spec
}

fn check_spec(spec: &Value, relaxed: Relaxed, wrong: &mut Causes) {
    let at = Path::root("spec");
    pod_management(spec, &at, wrong);
    update_strategy(
        get(spec, "updateStrategy"),
        &at.field("updateStrategy"),
        wrong,
    );
    retention(
        get(spec, "persistentVolumeClaimRetentionPolicy"),
        &at.field("persistentVolumeClaimRetentionPolicy"),
        wrong,
    );
    workload::non_negative(spec, &["replicas", "minReadySeconds"], &at, wrong);
    workload::non_negative(
        get(spec, "ordinals"),
        &["start"],
        &at.field("ordinals"),
        wrong,
    );
    workload::selector(spec, "statefulset", &at, wrong);
    if !relaxed.frozen {
        claims(spec, &at.field("volumeClaimTemplates"), wrong);
        service_name(spec, &at.field("serviceName"), wrong);
    }
    if workload::template_is_selected(spec, &at, wrong) {
        template(spec, relaxed, &at.field("template"), wrong);
    }
    workload::lasting(spec, &TEMPLATE, &at, wrong);
}

fn pod_management(spec: &Value, at: &Path, wrong: &mut Causes) {
    let at = at.field("podManagementPolicy");
    match text(spec, "podManagementPolicy") {
        "OrderedReady" | "Parallel" => {}
        "" => wrong.required(&at, ""),
        other => wrong.invalid(&at, other, "must be 'OrderedReady' or 'Parallel'"),
    }
}

fn update_strategy(strategy: &Value, at: &Path, wrong: &mut Causes) {
    match text(strategy, "type") {
        "" => wrong.required(at, ""),
        "OnDelete" => {
            if has(strategy, "rollingUpdate") {
                let rolling = get(strategy, "rollingUpdate").clone();
                wrong.invalid(
                    &at.field("rollingUpdate"),
                    rolling,
                    "only allowed for updateStrategy 'RollingUpdate'",
                );
            }
        }
        "RollingUpdate" => rolling_update(
            get(strategy, "rollingUpdate"),
            &at.field("rollingUpdate"),
            wrong,
        ),
        _ => wrong.invalid(
            at,
            strategy.clone(),
            "must be 'RollingUpdate' or 'OnDelete'",
        ),
    }
}

fn rolling_update(rolling: &Value, at: &Path, wrong: &mut Causes) {
    workload::non_negative(rolling, &["partition"], at, wrong);
    let at = at.field("maxUnavailable");
    let most = get(rolling, "maxUnavailable");
    if most.is_null() {
        return;
    }
    workload::int_or_percent(most, &at, wrong);
    if workload::number_of(most) == 0 {
        wrong.invalid(&at, most.clone(), "cannot be 0");
    }
    workload::at_most_all(most, &at, wrong);
}

fn retention(policy: &Value, at: &Path, wrong: &mut Causes) {
    if policy.is_null() {
        return;
    }
    for field in ["whenDeleted", "whenScaled"] {
        wrong.one_of(&at.field(field), text(policy, field), &["Retain", "Delete"]);
    }
}

fn claims(spec: &Value, at: &Path, wrong: &mut Causes) {
    for (index, claim) in list(spec, "volumeClaimTemplates").iter().enumerate() {
        persistentvolumeclaim::check_spec(
            get(claim, "spec"),
            &at.index(index).field("spec"),
            wrong,
        );
    }
}

fn service_name(spec: &Value, at: &Path, wrong: &mut Causes) {
    let name = text(spec, "serviceName");
    if !name.is_empty() {
        wrong.complaints(at, name, &syntax::dns1123_label(name));
    }
}

/// The template as its pods will see it: with a volume for each claim first, without host names, which the set gives.
fn template(spec: &Value, relaxed: Relaxed, at: &Path, wrong: &mut Causes) {
    let mut template = get(spec, "template").clone();
    if template.is_null() {
        template = json!({});
    }
    if !relaxed.template {
        let inner = object_mut(&mut template)
            .entry("spec")
            .or_insert_with(|| json!({}));
        add_claim_volumes(inner, list(spec, "volumeClaimTemplates"));
        for field in ["hostname", "subdomain"] {
            put(inner, field, Value::Null);
        }
        pod_spec::check_template(&template, at, wrong);
    }
    // upstream looks at these two once more, at the same odd path.
    metadata::labels(metadata::labels_of(&template), &at.field("labels"), wrong);
    metadata::annotations(
        get(get(&template, "metadata"), "annotations"),
        &at.field("annotations"),
        wrong,
    );
}

fn add_claim_volumes(inner: &mut Value, claims: &[Value]) {
    let mut names: Vec<&str> = Vec::new();
    for claim in claims {
        let name = text(get(claim, "metadata"), "name");
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let claimed = names
        .iter()
        .map(|name| json!({"name": name, "persistentVolumeClaim": {"claimName": name}}));
    let kept = list(inner, "volumes")
        .iter()
        .filter(|volume| !names.contains(&text(volume, "name")))
        .cloned();
    let volumes: Vec<Value> = claimed.chain(kept).collect();
    *list_mut(inner, "volumes") = volumes;
}

fn check_status(old: &Value, new: &Value, wrong: &mut Causes) {
    let (status, at) = (get(new, "status"), Path::root("status"));
    let counters = [
        "replicas",
        "readyReplicas",
        "currentReplicas",
        "updatedReplicas",
        "availableReplicas",
        "observedGeneration",
        "collisionCount",
    ];
    workload::non_negative(status, &counters, &at, wrong);
    for field in [
        "readyReplicas",
        "currentReplicas",
        "updatedReplicas",
        "availableReplicas",
    ] {
        workload::at_most(status, field, "replicas", &at, wrong);
    }
    workload::at_most(status, "availableReplicas", "readyReplicas", &at, wrong);
    workload::collisions_grow(old, new, wrong);
}

fn warnings(set: &Value) -> Vec<String> {
    let spec = get(set, "spec");
    let mut words =
        pod_warnings::of_template(get(spec, "template"), &Path::root("spec").field("template"));
    for (index, claim) in list(spec, "volumeClaimTemplates").iter().enumerate() {
        let at = Path::root("spec")
            .field("volumeClaimTemplates")
            .index(index)
            .field("spec");
        words.extend(persistentvolumeclaim::spec_warnings(
            get(claim, "spec"),
            &at,
        ));
    }
    if int(spec, "revisionHistoryLimit").is_some_and(|limit| limit < 0) {
        words.push("spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended".to_owned());
    }
    words
}
