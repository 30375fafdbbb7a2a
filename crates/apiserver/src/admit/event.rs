//! Events, in both of their groups: about something in their own namespace; the new kind says who reports what.
//!
//! Upstream: `pkg/apis/core/validation/events.go`. The older group is checked as it always was.

use serde_json::Value;

use super::cause::{Causes, Path};
use super::read::{get, has, int, semantically_equal, text};
use super::strategy::{Again, Strategy};
use super::syntax;

pub(crate) const RULES: Strategy = Strategy {
    check,
    check_update,
    metadata_again: Again::Changes,
    create_on_update: true,
    ..Strategy::PLAIN
};

const MOST_WORD: usize = 128;
const MOST_NOTE: usize = 1024;

fn is_new(event: &Value) -> bool {
    text(event, "apiVersion").starts_with("events.k8s.io/")
}

fn subject(event: &Value) -> (&'static str, &Value) {
    if is_new(event) {
        ("regarding", get(event, "regarding"))
    } else {
        ("involvedObject", get(event, "involvedObject"))
    }
}

fn check(event: &Value, wrong: &mut Causes) {
    about_own_namespace(event, wrong);
    if is_new(event) || has(event, "eventTime") {
        reported(event, wrong);
    }
    if is_new(event) {
        new_style(event, wrong);
    }
}

fn about_own_namespace(event: &Value, wrong: &mut Causes) {
    let (_, object) = subject(event);
    let (own, theirs) = (
        text(get(event, "metadata"), "namespace"),
        text(object, "namespace"),
    );
    let fits = if theirs.is_empty() {
        matches!(own, "" | "default")
    } else {
        own == theirs
    };
    if !fits {
        wrong.invalid(
            &Path::root("involvedObject").field("namespace"),
            theirs,
            "does not match event.namespace",
        );
    }
}

/// What an event with a time of its own must say.
fn reported(event: &Value, wrong: &mut Causes) {
    let controller_field = if is_new(event) {
        "reportingController"
    } else {
        "reportingComponent"
    };
    let controller = text(event, controller_field);
    if controller.is_empty() {
        wrong.required(&Path::root(controller_field), "");
    }
    wrong.complaints(
        &Path::root(controller_field),
        controller,
        &syntax::qualified_name(controller),
    );
    for field in ["reportingInstance", "action", "reason"] {
        let word = text(event, field);
        if word.is_empty() {
            wrong.required(&Path::root(field), "");
        }
        if word.len() > MOST_WORD {
            wrong.invalid(
                &Path::root(field),
                "",
                &format!("can have at most {MOST_WORD} characters"),
            );
        }
    }
    let note = text(event, if is_new(event) { "note" } else { "message" });
    if note.len() > MOST_NOTE {
        wrong.invalid(
            &Path::root("message"),
            "",
            &format!("can have at most {MOST_NOTE} characters"),
        );
    }
}

fn new_style(event: &Value, wrong: &mut Causes) {
    if !has(event, "eventTime") {
        wrong.required(&Path::root("eventTime"), "");
    }
    let kind = text(event, "type");
    if !matches!(kind, "Normal" | "Warning") {
        wrong.invalid(
            &Path::root("type"),
            "",
            &format!("has invalid value: {kind}"),
        );
    }
    let series = get(event, "series");
    if !series.is_null() {
        if int(series, "count").unwrap_or(0) < 2 {
            wrong.invalid(
                &Path::root("series").field("count"),
                "",
                "should be at least 2",
            );
        }
        if !has(series, "lastObservedTime") {
            wrong.required(&Path::root("series").field("lastObservedTime"), "");
        }
    }
    for (field, told) in [
        ("deprecatedFirstTimestamp", "firstTimestamp"),
        ("deprecatedLastTimestamp", "lastTimestamp"),
    ] {
        if has(event, field) {
            wrong.invalid(&Path::root(told), "", "needs to be unset");
        }
    }
    if int(event, "deprecatedCount").unwrap_or(0) != 0 {
        wrong.invalid(&Path::root("count"), "", "needs to be unset");
    }
    let source = get(event, "deprecatedSource");
    if !text(source, "component").is_empty() || !text(source, "host").is_empty() {
        wrong.invalid(&Path::root("source"), "", "needs to be unset");
    }
}

fn check_update(old: &Value, new: &Value, wrong: &mut Causes) {
    check(new, wrong);
    if !is_new(new) {
        return;
    }
    let (was_about, is_about) = (subject(old).1, subject(new).1);
    if !semantically_equal(was_about, is_about) && is_new(old) {
        wrong.invalid(
            &Path::root("involvedObject"),
            is_about.clone(),
            super::cause::IMMUTABLE,
        );
    }
    for field in [
        "reason",
        "type",
        "eventTime",
        "action",
        "related",
        "reportingController",
        "reportingInstance",
    ] {
        wrong.immutable(&Path::root(field), get(old, field), get(new, field));
    }
}
