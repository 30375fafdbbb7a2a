//! Jobs: a selector made from the uid, pods that end, and a template that never changes.
//!
//! Upstream: `pkg/registry/batch/job` and `pkg/apis/batch/validation`.

use serde_json::{Value, json};

use super::cause::{Causes, Path};
use super::read::{dig, get, has, int, map_mut, object_mut, put, semantically_equal, text, yes};
use super::strategy::{Again, Generation, Strategy};
use super::{Context, Refusal, metadata, pod_spec, pod_warnings, selector, workload};

pub(crate) const RULES: Strategy = Strategy {
    prepare,
    check,
    prepare_update: |_, job, _| {
        say_who_selects(job);
        Ok(())
    },
    check_update,
    warnings: |job| {
        pod_warnings::of_template(
            dig(job, &["spec", "template"]),
            &Path::root("spec").field("template"),
        )
    },
    generation: Generation::Spec,
    metadata_again: Again::Everything,
    ..Strategy::PLAIN
};

const UID_LABELS: [&str; 2] = ["batch.kubernetes.io/controller-uid", "controller-uid"];
const NAME_LABELS: [&str; 2] = ["batch.kubernetes.io/job-name", "job-name"];
const COUNTERS: [&str; 6] = [
    "parallelism",
    "completions",
    "activeDeadlineSeconds",
    "backoffLimit",
    "ttlSecondsAfterFinished",
    "backoffLimitPerIndex",
];
const MOST_INDEXED_PARALLELISM: i64 = 100_000;

fn prepare(job: &mut Value, _: &Context<'_>) -> Result<(), Refusal> {
    say_who_selects(job);
    if !yes(get(job, "spec"), "manualSelector") {
        select_own_pods(job);
    }
    // upstream: stored jobs without labels read back with those of their template.
    if super::read::entries(get(job, "metadata"), "labels")
        .next()
        .is_none()
    {
        let labels = dig(job, &["spec", "template", "metadata", "labels"]).clone();
        if !labels.is_null() {
            map_mut(job, "metadata").insert("labels".to_owned(), labels);
        }
    }
    Ok(())
}

/// upstream stores the default of `manualSelector`, which its schema does not tell.
fn say_who_selects(job: &mut Value) {
    map_mut(job, "spec")
        .entry("manualSelector")
        .or_insert(false.into());
}

fn select_own_pods(job: &mut Value) {
    let meta = get(job, "metadata");
    let (name, uid) = (text(meta, "name").to_owned(), text(meta, "uid").to_owned());
    let spec = object_mut(job).entry("spec").or_insert_with(|| json!({}));
    let template = object_mut(spec)
        .entry("template")
        .or_insert_with(|| json!({}));
    let meta = object_mut(template)
        .entry("metadata")
        .or_insert_with(|| json!({}));
    let labels = map_mut(meta, "labels");
    for (keys, value) in [(UID_LABELS, &uid), (NAME_LABELS, &name)] {
        for key in keys {
            labels.entry(key).or_insert_with(|| value.clone().into());
        }
    }
    let selector = object_mut(spec)
        .entry("selector")
        .or_insert_with(|| json!({}));
    map_mut(selector, "matchLabels")
        .entry(UID_LABELS[0])
        .or_insert_with(|| uid.into());
}

fn check(job: &Value, wrong: &mut Causes) {
    generated_selector(job, wrong);
    check_spec_with_selector(get(job, "spec"), &Path::root("spec"), wrong);
}

fn generated_selector(job: &Value, wrong: &mut Causes) {
    let spec = get(job, "spec");
    if yes(spec, "manualSelector") || !has(spec, "selector") {
        return;
    }
    let uid = text(get(job, "metadata"), "uid");
    if *get(spec, "selector") != json!({"matchLabels": {UID_LABELS[0]: uid}}) {
        wrong.invalid(
            &Path::root("spec").field("selector"),
            get(spec, "selector").clone(),
            "`selector` not auto-generated",
        );
    }
}

fn check_spec_with_selector(spec: &Value, at: &Path, wrong: &mut Causes) {
    check_spec(spec, at, wrong);
    if has(spec, "selector") {
        selector::check(get(spec, "selector"), &at.field("selector"), wrong);
    } else {
        wrong.required(&at.field("selector"), "");
    }
    let labels = metadata::labels_of(get(spec, "template"));
    if !selector::matches(get(spec, "selector"), labels) {
        let at = at.field("template").field("metadata").field("labels");
        wrong.invalid(
            &at,
            labels.clone(),
            "`selector` does not match template `labels`",
        );
    }
}

/// The rules of a job's spec without its selector, as a CronJob's template has it.
pub(crate) fn check_spec(spec: &Value, at: &Path, wrong: &mut Causes) {
    workload::non_negative(spec, &COUNTERS, at, wrong);
    let mode = text(spec, "completionMode");
    if !mode.is_empty() {
        wrong.one_of(
            &at.field("completionMode"),
            mode,
            &["NonIndexed", "Indexed"],
        );
    }
    if mode == "Indexed" {
        if !has(spec, "completions") {
            wrong.required(&at.field("completions"), "when completion mode is Indexed");
        }
        if let Some(parallel) =
            int(spec, "parallelism").filter(|parallel| *parallel > MOST_INDEXED_PARALLELISM)
        {
            let detail = format!(
                "must be less than or equal to {MOST_INDEXED_PARALLELISM} when completion mode is Indexed"
            );
            wrong.invalid(&at.field("parallelism"), parallel, &detail);
        }
    } else if has(spec, "backoffLimitPerIndex") {
        wrong.invalid(
            &at.field("backoffLimitPerIndex"),
            get(spec, "backoffLimitPerIndex").clone(),
            "requires indexed completion mode",
        );
    }
    let replacement = text(spec, "podReplacementPolicy");
    if !replacement.is_empty() {
        wrong.one_of(
            &at.field("podReplacementPolicy"),
            replacement,
            &["Failed", "TerminatingOrFailed"],
        );
    }
    pod_spec::check_template(get(spec, "template"), &at.field("template"), wrong);
    restart_policy(
        spec,
        &at.field("template").field("spec").field("restartPolicy"),
        wrong,
    );
}

fn restart_policy(spec: &Value, at: &Path, wrong: &mut Causes) {
    match text(dig(spec, &["template", "spec"]), "restartPolicy") {
        "OnFailure" | "Never" => {}
        "" | "Always" => wrong.required(at, "valid values: \"OnFailure\", \"Never\""),
        other => wrong.not_supported(at, other, &["OnFailure", "Never"]),
    }
}

fn check_update(old: &Value, new: &Value, wrong: &mut Causes) {
    check(new, wrong);
    let (was, is, at) = (get(old, "spec"), get(new, "spec"), Path::root("spec"));
    check_spec_with_selector(is, &at, wrong);
    completions(was, is, &at.field("completions"), wrong);
    wrong.immutable(
        &at.field("selector"),
        get(was, "selector"),
        get(is, "selector"),
    );
    template_stays(old, new, &at.field("template"), wrong);
    for field in [
        "completionMode",
        "podFailurePolicy",
        "backoffLimitPerIndex",
        "managedBy",
        "successPolicy",
    ] {
        wrong.immutable(&at.field(field), get(was, field), get(is, field));
    }
}

/// Completions of an indexed job may change together with its parallelism.
fn completions(was: &Value, is: &Value, at: &Path, wrong: &mut Causes) {
    let elastic = text(is, "completionMode") == "Indexed"
        && has(is, "completions")
        && get(is, "completions") == get(is, "parallelism")
        && get(was, "completions") == get(was, "parallelism");
    if !elastic {
        wrong.immutable(at, get(was, "completions"), get(is, "completions"));
    }
}

/// A job that is suspended and has not started may still be told where to run.
fn template_stays(old: &Value, new: &Value, at: &Path, wrong: &mut Causes) {
    let (was, mut is) = (
        dig(old, &["spec", "template"]).clone(),
        dig(new, &["spec", "template"]).clone(),
    );
    let waits = yes(get(old, "spec"), "suspend") && !has(get(old, "status"), "startTime");
    if waits && is.is_object() {
        for field in ["nodeSelector", "tolerations", "affinity", "schedulingGates"] {
            let before = dig(&was, &["spec", field]).clone();
            put(
                object_mut(&mut is)
                    .entry("spec")
                    .or_insert_with(|| json!({})),
                field,
                before,
            );
        }
        for field in ["labels", "annotations"] {
            let before = dig(&was, &["metadata", field]).clone();
            put(
                object_mut(&mut is)
                    .entry("metadata")
                    .or_insert_with(|| json!({})),
                field,
                before,
            );
        }
    }
    if !semantically_equal(&was, &is) {
        wrong.invalid(
            at,
            dig(new, &["spec", "template"]).clone(),
            super::cause::IMMUTABLE,
        );
    }
}
