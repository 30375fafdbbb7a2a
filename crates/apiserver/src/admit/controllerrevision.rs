//! ControllerRevisions: `data` is an object that never changes, `revision` a number of at least zero.

use serde_json::Value;

use super::cause::{Causes, Path};
use super::read::{get, int};
use super::strategy::{Again, Strategy};

pub(crate) const RULES: Strategy = Strategy {
    check,
    check_update,
    metadata_again: Again::Everything,
    ..Strategy::PLAIN
};

fn check(revision: &Value, wrong: &mut Causes) {
    let at = Path::root("data");
    match get(revision, "data") {
        Value::Null => wrong.required(&at, "data is mandatory"),
        Value::Object(_) => {}
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            wrong.required(&at, "data must be a valid JSON object")
        }
    }
    wrong.non_negative(
        &Path::root("revision"),
        int(revision, "revision").unwrap_or(0),
    );
}

fn check_update(old: &Value, new: &Value, wrong: &mut Causes) {
    check(new, wrong);
    wrong.immutable(&Path::root("data"), get(old, "data"), get(new, "data"));
}
