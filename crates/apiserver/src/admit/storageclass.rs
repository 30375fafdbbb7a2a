//! StorageClasses: a provisioner, bounded parameters, and nothing that changes how existing volumes were made.

use serde_json::Value;

use super::cause::{Causes, Path};
use super::read::{entries, get, semantically_equal, text};
use super::strategy::Strategy;
use super::syntax;

pub(crate) const RULES: Strategy = Strategy {
    check,
    check_update,
    ..Strategy::PLAIN
};

const MOST_PARAMETERS: usize = 512;
const MOST_PARAMETER_BYTES: usize = 256 * 1024;

fn check(class: &Value, wrong: &mut Causes) {
    let provisioner = text(class, "provisioner");
    let at = Path::root("provisioner");
    if provisioner.is_empty() {
        wrong.required(&at, "");
    } else {
        wrong.complaints(
            &at,
            provisioner,
            &syntax::qualified_name(&provisioner.to_lowercase()),
        );
    }
    parameters(class, &Path::root("parameters"), wrong);
    required_one_of(class, "reclaimPolicy", &["Delete", "Retain"], wrong);
    required_one_of(
        class,
        "volumeBindingMode",
        &["Immediate", "WaitForFirstConsumer"],
        wrong,
    );
}

fn required_one_of(class: &Value, field: &str, supported: &[&str], wrong: &mut Causes) {
    match text(class, field) {
        "" => wrong.required(&Path::root(field), ""),
        value => wrong.one_of(&Path::root(field), value, supported),
    }
}

fn parameters(class: &Value, at: &Path, wrong: &mut Causes) {
    let count = entries(class, "parameters").count();
    if count > MOST_PARAMETERS {
        wrong.too_long(at, MOST_PARAMETERS);
    }
    let mut bytes = 0;
    for (key, value) in entries(class, "parameters") {
        if key.is_empty() {
            wrong.invalid(at, key, "field can not be empty.");
        }
        bytes += key.len() + value.as_str().map_or(0, str::len);
    }
    if bytes > MOST_PARAMETER_BYTES {
        wrong.too_long(at, MOST_PARAMETER_BYTES);
    }
}

fn check_update(old: &Value, new: &Value, wrong: &mut Causes) {
    for field in ["parameters", "provisioner", "reclaimPolicy"] {
        if !semantically_equal(get(old, field), get(new, field)) {
            wrong.forbidden(
                &Path::root(field),
                &format!("updates to {field} are forbidden."),
            );
        }
    }
    wrong.immutable(
        &Path::root("volumeBindingMode"),
        get(old, "volumeBindingMode"),
        get(new, "volumeBindingMode"),
    );
}
