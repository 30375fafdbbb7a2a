//! PriorityClasses: values below the system's own, and neither value nor preemption ever change.

use serde_json::Value;

use super::cause::{Causes, Path};
use super::read::{get, int, text};
use super::strategy::{Generation, Strategy};

pub(crate) const RULES: Strategy = Strategy {
    check,
    check_update,
    generation: Generation::One,
    ..Strategy::PLAIN
};

const MOST_FOR_USERS: i64 = 1_000_000_000;

/// The two classes that are there from the start, with their values.
pub(crate) const SYSTEM: [(&str, i64); 2] = [
    ("system-cluster-critical", 2_000_000_000),
    ("system-node-critical", 2_000_001_000),
];

fn check(class: &Value, wrong: &mut Causes) {
    let (name, value) = (
        text(get(class, "metadata"), "name"),
        int(class, "value").unwrap_or(0),
    );
    if name.starts_with("system-") {
        let known = SYSTEM
            .iter()
            .any(|(system, own)| *system == name && *own == value);
        if !known {
            wrong.forbidden(
                &Path::root("metadata").field("name"),
                "priority class names with 'system-' prefix are reserved for system use only",
            );
        }
    } else if value > MOST_FOR_USERS {
        wrong.forbidden(
            &Path::root("value"),
            &format!("maximum allowed value of a user defined priority is {MOST_FOR_USERS}"),
        );
    }
    let policy = text(class, "preemptionPolicy");
    if !policy.is_empty() {
        wrong.one_of(
            &Path::root("preemptionPolicy"),
            policy,
            &["PreemptLowerPriority", "Never"],
        );
    }
}

fn check_update(old: &Value, new: &Value, wrong: &mut Causes) {
    if int(old, "value").unwrap_or(0) != int(new, "value").unwrap_or(0) {
        wrong.forbidden(&Path::root("value"), "may not be changed in an update.");
    }
    wrong.immutable(
        &Path::root("preemptionPolicy"),
        get(old, "preemptionPolicy"),
        get(new, "preemptionPolicy"),
    );
}
