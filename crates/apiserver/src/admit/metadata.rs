//! The rules of `metadata` that all kinds share: names, labels, annotations, owners, finalizers, what never changes.
//!
//! Upstream: `apimachinery/pkg/api/validation/objectmeta.go`, with the finalizer rule of `pkg/apis/core/validation`.

use serde_json::Value;

use super::cause::{Causes, NOT_NEGATIVE, Path};
use super::read::{dig, entries, get, int, list, text, yes};
use super::syntax::{self, Complaints};

/// How the name of a kind is spelled.
pub(crate) type NameRule = fn(&str) -> Complaints;

const MOST_ANNOTATION_BYTES: usize = 256 * 1024;
const STANDARD_FINALIZERS: [&str; 3] = ["kubernetes", "orphan", "foregroundDeletion"];

/// Metadata of a new object, or of one whose kind checks it again on update.
pub(crate) fn check(object: &Value, namespaced: bool, name_rule: NameRule, wrong: &mut Causes) {
    let meta = get(object, "metadata");
    let at = Path::root("metadata");
    names(meta, name_rule, &at, wrong);
    namespace(meta, namespaced, &at, wrong);
    if int(meta, "generation").is_some_and(|generation| generation < 0) {
        wrong.invalid(
            &at.field("generation"),
            get(meta, "generation").clone(),
            NOT_NEGATIVE,
        );
    }
    common(meta, &at, wrong);
    let prefixed = at.field("finalizers");
    finalizer_names(meta, &prefixed, wrong);
    kube_finalizers(meta, &prefixed, wrong);
}

fn names(meta: &Value, rule: NameRule, at: &Path, wrong: &mut Causes) {
    let prefix = text(meta, "generateName");
    if !prefix.is_empty() {
        wrong.complaints(
            &at.field("generateName"),
            prefix,
            &syntax::as_prefix(prefix, rule),
        );
    }
    let name = text(meta, "name");
    if name.is_empty() {
        wrong.required(&at.field("name"), "name or generateName is required");
    } else {
        wrong.complaints(&at.field("name"), name, &rule(name));
    }
}

fn namespace(meta: &Value, namespaced: bool, at: &Path, wrong: &mut Causes) {
    let namespace = text(meta, "namespace");
    match (namespaced, namespace.is_empty()) {
        (true, true) => wrong.required(&at.field("namespace"), ""),
        (true, false) => wrong.complaints(
            &at.field("namespace"),
            namespace,
            &syntax::dns1123_label(namespace),
        ),
        (false, false) => wrong.forbidden(&at.field("namespace"), "not allowed on this type"),
        (false, true) => {}
    }
}

fn common(meta: &Value, at: &Path, wrong: &mut Causes) {
    labels(get(meta, "labels"), &at.field("labels"), wrong);
    annotations(get(meta, "annotations"), &at.field("annotations"), wrong);
    owners(
        list(meta, "ownerReferences"),
        &at.field("ownerReferences"),
        wrong,
    );
}

/// What may change of the metadata of an object, and what the changed metadata must look like.
///
/// The generic store asks this of every update and most kinds ask it again, so a broken rule is often told twice.
pub(crate) fn check_update(old: &Value, new: &Value, wrong: &mut Causes) {
    let (was, is) = (get(old, "metadata"), get(new, "metadata"));
    let at = Path::root("metadata");
    if !get(was, "deletionTimestamp").is_null() {
        no_new_finalizers(was, is, &at.field("finalizers"), wrong);
    }
    for field in [
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ] {
        wrong.immutable(&at.field(field), get(was, field), get(is, field));
    }
    common(is, &at, wrong);
}

/// [`check_update`] as the kinds themselves ask it: finalizers without a domain are looked at too.
pub(crate) fn check_update_of_kind(old: &Value, new: &Value, wrong: &mut Causes) {
    check_update(old, new, wrong);
    kube_finalizers(
        get(new, "metadata"),
        &Path::root("metadata").field("finalizers"),
        wrong,
    );
}

fn no_new_finalizers(was: &Value, is: &Value, at: &Path, wrong: &mut Causes) {
    let added: Vec<&Value> = list(is, "finalizers")
        .iter()
        .filter(|name| !list(was, "finalizers").contains(name))
        .collect();
    if !added.is_empty() {
        let words = added
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", ");
        wrong.forbidden(at, &format!("no new finalizers can be added if the object is being deleted, found new finalizers []string{{{words}}}"));
    }
}

/// Labels: qualified keys, short values.
pub(crate) fn labels(labels: &Value, at: &Path, wrong: &mut Causes) {
    for (key, value) in labels.as_object().into_iter().flatten() {
        wrong.complaints(at, key, &syntax::qualified_name(key));
        let value = value.as_str().unwrap_or("");
        wrong.complaints(at, value, &syntax::label_value(value));
    }
}

/// Annotations: qualified keys in any case, not too much in all.
pub(crate) fn annotations(annotations: &Value, at: &Path, wrong: &mut Causes) {
    let mut bytes = 0;
    for (key, value) in annotations.as_object().into_iter().flatten() {
        wrong.complaints(at, key, &syntax::qualified_name(&key.to_lowercase()));
        bytes += key.len() + value.as_str().map_or(0, str::len);
    }
    if bytes > MOST_ANNOTATION_BYTES {
        wrong.too_long(at, MOST_ANNOTATION_BYTES);
    }
}

fn owners(owners: &[Value], at: &Path, wrong: &mut Causes) {
    let mut controllers: Vec<&str> = Vec::new();
    for owner in owners {
        owner_reference(owner, at, wrong);
        if yes(owner, "controller") {
            controllers.push(text(owner, "name"));
        }
    }
    if let [first, .., last] = controllers.as_slice() {
        let detail = format!(
            "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {last}"
        );
        wrong.invalid(at, Value::Array(owners.to_vec()), &detail);
    }
}

fn owner_reference(owner: &Value, at: &Path, wrong: &mut Causes) {
    let api_version = text(owner, "apiVersion");
    if api_version.is_empty() {
        wrong.invalid(
            &at.field("apiVersion"),
            api_version,
            "version must not be empty",
        );
    }
    for field in ["kind", "name", "uid"] {
        if text(owner, field).is_empty() {
            wrong.invalid(&at.field(field), "", "must not be empty");
        }
    }
    if api_version == "v1" && text(owner, "kind") == "Event" {
        wrong.invalid(
            at,
            owner.clone(),
            "/v1, Kind=Event is disallowed from being an owner",
        );
    }
}

fn finalizer_names(meta: &Value, at: &Path, wrong: &mut Causes) {
    let names: Vec<&str> = list(meta, "finalizers")
        .iter()
        .map(|name| name.as_str().unwrap_or(""))
        .collect();
    for name in &names {
        wrong.complaints(at, name, &syntax::qualified_name(name));
    }
    if names.contains(&"orphan") && names.contains(&"foregroundDeletion") {
        wrong.invalid(
            at,
            Value::Array(list(meta, "finalizers").to_vec()),
            "finalizer orphan and foregroundDeletion cannot be both set",
        );
    }
}

fn kube_finalizers(meta: &Value, at: &Path, wrong: &mut Causes) {
    for (index, name) in list(meta, "finalizers").iter().enumerate() {
        finalizer_has_domain(name.as_str().unwrap_or(""), &at.index(index), wrong);
    }
}

/// A finalizer is one of Kubernetes' own or names its domain.
pub(crate) fn finalizer_has_domain(name: &str, at: &Path, wrong: &mut Causes) {
    if !name.contains('/') && !STANDARD_FINALIZERS.contains(&name) {
        wrong.invalid(
            at,
            name,
            "name is neither a standard finalizer name nor is it fully qualified",
        );
    }
}

/// The labels of an object.
pub(crate) fn labels_of(object: &Value) -> &Value {
    dig(object, &["metadata", "labels"])
}

/// The value of an annotation of an object, "" when it has none.
pub(crate) fn annotation<'a>(object: &'a Value, name: &str) -> &'a str {
    entries(get(object, "metadata"), "annotations")
        .find(|(key, _)| *key == name)
        .and_then(|(_, value)| value.as_str())
        .unwrap_or("")
}
