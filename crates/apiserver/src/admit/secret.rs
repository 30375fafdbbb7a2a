//! Secrets: `stringData` becomes `data`, keys that can be file names, the keys that each type must have.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::cause::{Causes, Path};
use super::configmap::{decoded_bytes, frozen};
use super::metadata::annotation;
use super::read::{drop_field, entries, get, has, map_mut, put, text};
use super::strategy::{Again, Strategy};
use super::syntax;
use super::{Context, Refusal};

pub(crate) const RULES: Strategy = Strategy {
    prepare: |secret, _| encode(secret),
    check,
    prepare_update,
    check_update,
    metadata_again: Again::Everything,
    ..Strategy::PLAIN
};

const MOST_BYTES: usize = 1024 * 1024;
const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";
const REDACTED: &str = "<secret contents redacted>";

fn encode(secret: &mut Value) -> Result<(), Refusal> {
    let plain: Map<String, Value> = get(secret, "stringData")
        .as_object()
        .cloned()
        .unwrap_or_default();
    drop_field(secret, "stringData");
    if plain.is_empty() {
        return Ok(());
    }
    let data = map_mut(secret, "data");
    for (key, value) in plain {
        data.insert(key, STANDARD.encode(value.as_str().unwrap_or("")).into());
    }
    Ok(())
}

fn prepare_update(old: &Value, new: &mut Value, _: &Context<'_>) -> Result<(), Refusal> {
    if text(new, "type").is_empty() {
        put(new, "type", get(old, "type").clone());
    }
    encode(new)
}

fn check(secret: &Value, wrong: &mut Causes) {
    let at = Path::root("data");
    let mut bytes = 0;
    for (key, value) in entries(secret, "data") {
        wrong.complaints(&at.key(key), key, &syntax::config_key(key));
        bytes += decoded_bytes(value.as_str().unwrap_or(""));
    }
    if bytes > MOST_BYTES {
        wrong.too_long(&at, MOST_BYTES);
    }
    typed(secret, &at, wrong);
}

fn typed(secret: &Value, at: &Path, wrong: &mut Causes) {
    match text(secret, "type") {
        "kubernetes.io/service-account-token" if annotation(secret, ACCOUNT_NAME).is_empty() => {
            wrong.required(
                &Path::root("metadata")
                    .field("annotations")
                    .key(ACCOUNT_NAME),
                "",
            );
        }
        "kubernetes.io/dockercfg" => registry(secret, ".dockercfg", at, wrong),
        "kubernetes.io/dockerconfigjson" => registry(secret, ".dockerconfigjson", at, wrong),
        "kubernetes.io/basic-auth" => {
            let data = get(secret, "data");
            if !has(data, "username") && !has(data, "password") {
                needed(secret, &["username", "password"], at, wrong);
            }
        }
        "kubernetes.io/ssh-auth" => needed(secret, &["ssh-privatekey"], at, wrong),
        "kubernetes.io/tls" => needed(secret, &["tls.crt", "tls.key"], at, wrong),
        _ => {}
    }
}

fn needed(secret: &Value, keys: &[&str], at: &Path, wrong: &mut Causes) {
    for key in keys {
        if !has(get(secret, "data"), key) {
            wrong.required(&at.key(key), "");
        }
    }
}

fn registry(secret: &Value, key: &str, at: &Path, wrong: &mut Causes) {
    if !has(get(secret, "data"), key) {
        wrong.required(&at.key(key), "");
        return;
    }
    let decoded = STANDARD
        .decode(text(get(secret, "data"), key))
        .unwrap_or_default();
    if let Err(problem) = serde_json::from_slice::<Map<String, Value>>(&decoded) {
        wrong.invalid(&at.key(key), REDACTED, &problem.to_string());
    }
}

fn check_update(old: &Value, new: &Value, wrong: &mut Causes) {
    wrong.immutable(&Path::root("type"), get(old, "type"), get(new, "type"));
    frozen(old, new, &["data"], wrong);
    check(new, wrong);
}
