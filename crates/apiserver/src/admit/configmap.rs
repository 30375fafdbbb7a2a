//! ConfigMaps: keys that can be file names, at most a mebibyte, frozen once `immutable`.

use serde_json::Value;

use super::cause::{Causes, Path};
use super::read::{entries, get, has, semantically_equal, yes};
use super::strategy::{Again, Strategy};
use super::syntax;

pub(crate) const RULES: Strategy = Strategy {
    check,
    check_update,
    metadata_again: Again::Everything,
    ..Strategy::PLAIN
};

const MOST_BYTES: usize = 1024 * 1024;
pub(crate) const FROZEN: &str = "field is immutable when `immutable` is set";

fn check(map: &Value, wrong: &mut Causes) {
    let mut bytes = 0;
    for (key, value) in entries(map, "data") {
        let at = Path::root("data").key(key);
        wrong.complaints(&at, key, &syntax::config_key(key));
        if has(get(map, "binaryData"), key) {
            wrong.invalid(&at, key, "duplicate of key present in binaryData");
        }
        bytes += value.as_str().map_or(0, str::len);
    }
    for (key, value) in entries(map, "binaryData") {
        wrong.complaints(
            &Path::root("binaryData").key(key),
            key,
            &syntax::config_key(key),
        );
        bytes += decoded_bytes(value.as_str().unwrap_or(""));
    }
    if bytes > MOST_BYTES {
        wrong.too_long(&Path::default(), MOST_BYTES);
    }
}

/// The bytes that a base64 text stands for.
pub(crate) fn decoded_bytes(text: &str) -> usize {
    let padding = text.bytes().rev().take_while(|c| *c == b'=').count();
    (text.len() / 4 * 3).saturating_sub(padding)
}

fn check_update(old: &Value, new: &Value, wrong: &mut Causes) {
    frozen(old, new, &["data", "binaryData"], wrong);
    check(new, wrong);
}

/// What `immutable` freezes: itself and the content.
pub(crate) fn frozen(old: &Value, new: &Value, content: &[&str], wrong: &mut Causes) {
    if !yes(old, "immutable") {
        return;
    }
    if !yes(new, "immutable") {
        wrong.forbidden(&Path::root("immutable"), FROZEN);
    }
    for field in content {
        if !semantically_equal(get(old, field), get(new, field)) {
            wrong.forbidden(&Path::root(field), FROZEN);
        }
    }
}
