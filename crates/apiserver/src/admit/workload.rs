//! What every workload shares: a template that its selector finds, replicas that are not negative, revisions.

use serde_json::Value;

use super::cause::{Causes, Path};
use super::pod_spec;
use super::read::{get, has, int, text};
use super::{metadata, selector, syntax};

/// What a template's rules depend on.
pub(crate) struct Template<'a> {
    /// The word for the workload in upstream's sentences: `statefulset`.
    pub(crate) workload: &'a str,
    /// Whether it may have no selector yet.
    pub(crate) restart_policies: &'a [&'a str],
}

/// A required selector that asks for something, and the template that it must find.
pub(crate) fn selector(spec: &Value, workload: &str, at: &Path, wrong: &mut Causes) {
    let own = get(spec, "selector");
    let at = at.field("selector");
    if own.is_null() {
        wrong.required(&at, "");
        return;
    }
    selector::check(own, &at, wrong);
    if selector::is_empty(own) {
        wrong.invalid(
            &at,
            own.clone(),
            &format!("empty selector is invalid for {workload}"),
        );
    }
}

/// The template's labels satisfy the selector. Answers whether the template is worth looking at: beside a selector that
/// cannot be read upstream does not look.
pub(crate) fn template_is_selected(spec: &Value, at: &Path, wrong: &mut Causes) -> bool {
    let own = get(spec, "selector");
    if !own.is_null() && selector::is_empty(own) {
        return true;
    }
    if !own.is_null() && !selector::is_sound(own) {
        wrong.invalid(&at.field("selector"), own.clone(), "");
        return false;
    }
    let labels = metadata::labels_of(get(spec, "template"));
    if !selector::matches(own, labels) {
        let labels_at = at.field("template").field("metadata").field("labels");
        wrong.invalid(
            &labels_at,
            labels.clone(),
            "`selector` does not match template `labels`",
        );
    }
    true
}

/// The template of a workload that keeps its pods running for ever.
pub(crate) fn template(spec: &Value, template: &Template<'_>, at: &Path, wrong: &mut Causes) {
    if template_is_selected(spec, at, wrong) {
        pod_spec::check_template(get(spec, "template"), &at.field("template"), wrong);
        lasting(spec, template, at, wrong);
    }
}

/// What a pod that must last may not say.
pub(crate) fn lasting(spec: &Value, template: &Template<'_>, at: &Path, wrong: &mut Causes) {
    let inner = get(get(spec, "template"), "spec");
    let at = at.field("template").field("spec");
    let policy = text(inner, "restartPolicy");
    if !template.restart_policies.contains(&policy) {
        wrong.not_supported(
            &at.field("restartPolicy"),
            policy,
            template.restart_policies,
        );
    }
    if has(inner, "activeDeadlineSeconds") {
        let detail = format!(
            "activeDeadlineSeconds in {} is not Supported",
            template.workload
        );
        wrong.forbidden(&at.field("activeDeadlineSeconds"), &detail);
    }
}

/// Fields that hold a number of at least zero, as far as they are set.
pub(crate) fn non_negative(object: &Value, fields: &[&str], at: &Path, wrong: &mut Causes) {
    for field in fields {
        if let Some(number) = int(object, field) {
            wrong.non_negative(&at.field(field), number);
        }
    }
}

/// A number of at least zero or a percentage.
pub(crate) fn int_or_percent(value: &Value, at: &Path, wrong: &mut Causes) {
    match value.as_str() {
        Some(word) => wrong.complaints(at, word, &syntax::percent(word)),
        None => wrong.non_negative(at, value.as_i64().unwrap_or(0)),
    }
}

/// A percentage is at most everything.
pub(crate) fn at_most_all(value: &Value, at: &Path, wrong: &mut Causes) {
    if value
        .as_str()
        .filter(|word| syntax::percent(word).is_empty())
        .and_then(syntax::percent_number)
        .is_some_and(|percent| percent > 100)
    {
        wrong.invalid(at, value.clone(), "must not be greater than 100%");
    }
}

/// The number in a number or percentage; upstream reads what is neither as 0.
pub(crate) fn number_of(value: &Value) -> i64 {
    match value.as_str() {
        Some(word) => syntax::percent_number(word)
            .or_else(|| word.parse().ok())
            .unwrap_or(0),
        None => value.as_i64().unwrap_or(0),
    }
}

/// A counter of a status that can not exceed another.
pub(crate) fn at_most(status: &Value, field: &str, most: &str, at: &Path, wrong: &mut Causes) {
    let (have, limit) = (
        int(status, field).unwrap_or(0),
        int(status, most).unwrap_or(0),
    );
    if have > limit {
        wrong.invalid(
            &at.field(field),
            have,
            &format!("cannot be greater than status.{most}"),
        );
    }
}

/// A collision counter only grows.
pub(crate) fn collisions_grow(old: &Value, new: &Value, wrong: &mut Causes) {
    let (was, is) = (
        int(get(old, "status"), "collisionCount"),
        int(get(new, "status"), "collisionCount"),
    );
    let at = Path::root("status").field("collisionCount");
    match (was, is) {
        (Some(was), Some(is)) if is < was => wrong.invalid(&at, is, "cannot be decremented"),
        (Some(was), None) => wrong.invalid(&at, was, "cannot be decremented"),
        (Some(_) | None, _) => {}
    }
}
