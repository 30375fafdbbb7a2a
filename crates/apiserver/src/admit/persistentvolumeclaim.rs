//! PersistentVolumeClaims: what a claim may ask for, and that it grows only once it is bound.

use serde_json::{Value, json};
use stead_schema::quantity;

use super::cause::{Causes, Path};
use super::metadata::annotation;
use super::read::{dig, get, has, list, map_mut, object_mut, put, semantically_equal, text, texts};
use super::strategy::{Again, Strategy};
use super::{selector, syntax};

pub(crate) const RULES: Strategy = Strategy {
    first_status: |_| json!({"phase": "Pending"}),
    check: |claim, wrong| check_spec(get(claim, "spec"), &Path::root("spec"), wrong),
    check_update,
    check_status,
    warnings: |claim| spec_warnings(get(claim, "spec"), &Path::root("spec")),
    metadata_again: Again::Everything,
    ..Strategy::PLAIN
};

const ACCESS_MODES: [&str; 4] = [
    "ReadWriteOnce",
    "ReadOnlyMany",
    "ReadWriteMany",
    "ReadWriteOncePod",
];
const VOLUME_MODES: [&str; 2] = ["Block", "Filesystem"];
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
const FROZEN: &str = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";

/// The rules of a claim's spec, of its own, as a set's template or in an ephemeral volume.
pub(crate) fn check_spec(spec: &Value, at: &Path, wrong: &mut Causes) {
    access_modes(spec, at, wrong);
    selector::check(get(spec, "selector"), &at.field("selector"), wrong);
    let at_storage = at.field("resources").key("storage");
    let storage = dig(spec, &["resources", "requests", "storage"]);
    match quantity::nanos_of(storage) {
        None => wrong.required(&at_storage, ""),
        Some(nano) if nano <= 0 => {
            wrong.invalid(&at_storage, storage.clone(), "must be greater than 0")
        }
        Some(_) => {}
    }
    for field in ["storageClassName", "volumeAttributesClassName"] {
        let name = text(spec, field);
        if !name.is_empty() {
            wrong.complaints(&at.field(field), name, &syntax::dns1123_subdomain(name));
        }
    }
    if has(spec, "volumeMode") {
        wrong.one_of(
            &at.field("volumeMode"),
            text(spec, "volumeMode"),
            &VOLUME_MODES,
        );
    }
    for field in ["dataSource", "dataSourceRef"] {
        data_source(get(spec, field), &at.field(field), wrong);
    }
}

/// At least one access mode, all of them known, `ReadWriteOncePod` only alone.
pub(crate) fn access_modes(spec: &Value, at: &Path, wrong: &mut Causes) {
    let at = at.field("accessModes");
    let modes = texts(spec, "accessModes");
    if modes.is_empty() {
        wrong.required(&at, "at least 1 access mode is required");
    }
    for mode in &modes {
        wrong.one_of(&at, mode, &ACCESS_MODES);
    }
    if modes.contains(&"ReadWriteOncePod") && modes.iter().any(|mode| *mode != "ReadWriteOncePod") {
        wrong.forbidden(&at, "may not use ReadWriteOncePod with other access modes");
    }
}

fn data_source(source: &Value, at: &Path, wrong: &mut Causes) {
    if source.is_null() {
        return;
    }
    for field in ["name", "kind"] {
        if text(source, field).is_empty() {
            wrong.required(&at.field(field), "");
        }
    }
    let group = text(source, "apiGroup");
    if group.is_empty() && text(source, "kind") != "PersistentVolumeClaim" {
        wrong.invalid(
            at,
            text(source, "kind"),
            "must be 'PersistentVolumeClaim' when referencing the default apiGroup",
        );
    }
    if !group.is_empty() {
        wrong.complaints(
            &at.field("apiGroup"),
            group,
            &syntax::dns1123_subdomain(group),
        );
    }
}

fn check_update(old: &Value, new: &Value, wrong: &mut Causes) {
    let at = Path::root("spec");
    check_spec(get(new, "spec"), &at, wrong);
    if !semantically_equal(&as_it_may_stay(old, new), &before(old, new)) {
        wrong.forbidden(&at, FROZEN);
    }
    shrinks_not(old, new, &at, wrong);
    wrong.immutable(
        &Path::root("volumeMode"),
        dig(old, &["spec", "volumeMode"]),
        dig(new, &["spec", "volumeMode"]),
    );
}

/// The new spec with the fields that may change put back to what they were.
fn as_it_may_stay(old: &Value, new: &Value) -> Value {
    let (was, mut spec) = (get(old, "spec"), get(new, "spec").clone());
    if class_upgraded_from_annotation(old, new) {
        put(&mut spec, "storageClassName", Value::Null);
    } else if class_upgraded_from_nothing(old, new) {
        put(
            &mut spec,
            "storageClassName",
            get(was, "storageClassName").clone(),
        );
    }
    if text(get(new, "status"), "phase") == "Bound" {
        if has(get(&spec, "resources"), "requests") {
            let storage = dig(was, &["resources", "requests", "storage"]).clone();
            let resources = object_mut(&mut spec)
                .entry("resources")
                .or_insert_with(|| json!({}));
            map_mut(resources, "requests").insert("storage".to_owned(), storage);
        }
        if has(&spec, "volumeAttributesClassName") {
            put(
                &mut spec,
                "volumeAttributesClassName",
                get(was, "volumeAttributesClassName").clone(),
            );
        }
    }
    spec
}

/// The old spec; the volume's name may be written once.
fn before(old: &Value, new: &Value) -> Value {
    let mut spec = get(old, "spec").clone();
    if text(&spec, "volumeName").is_empty() {
        put(
            &mut spec,
            "volumeName",
            dig(new, &["spec", "volumeName"]).clone(),
        );
    }
    spec
}

fn class_upgraded_from_annotation(old: &Value, new: &Value) -> bool {
    let (was, is) = (
        annotation(old, CLASS_ANNOTATION),
        annotation(new, CLASS_ANNOTATION),
    );
    let class = dig(new, &["spec", "storageClassName"]);
    !was.is_empty()
        && was == is
        && !has(get(old, "spec"), "storageClassName")
        && class.as_str() == Some(was)
}

fn class_upgraded_from_nothing(old: &Value, new: &Value) -> bool {
    !has(get(old, "spec"), "storageClassName")
        && has(get(new, "spec"), "storageClassName")
        && annotation(old, CLASS_ANNOTATION).is_empty()
        && text(get(old, "spec"), "volumeName").is_empty()
        && text(get(new, "spec"), "volumeName").is_empty()
}

fn shrinks_not(old: &Value, new: &Value, at: &Path, wrong: &mut Causes) {
    let storage = |claim: &Value| {
        quantity::nanos_of(dig(claim, &["spec", "resources", "requests", "storage"]))
    };
    let (Some(was), Some(is)) = (storage(old), storage(new)) else {
        return;
    };
    if is >= was {
        return;
    }
    let capacity = quantity::nanos_of(dig(old, &["status", "capacity", "storage"])).unwrap_or(0);
    if is <= capacity || capacity == 0 {
        let at = at.field("resources").field("requests").field("storage");
        wrong.forbidden(&at, "field can not be less than status.capacity");
    }
}

fn check_status(_: &Value, new: &Value, wrong: &mut Causes) {
    let at = Path::root("status").field("capacity");
    for (name, amount) in super::read::entries(get(new, "status"), "capacity") {
        if quantity::nanos_of(amount).is_some_and(|nano| nano < 0) {
            wrong.invalid(&at.key(name), amount.clone(), super::cause::NOT_NEGATIVE);
        }
    }
    if list(new, "conditions")
        .iter()
        .any(|condition| text(condition, "type").is_empty())
    {
        wrong.required(&Path::root("status").field("conditions"), "");
    }
}

/// Claims whose size is no whole number of bytes.
pub(crate) fn spec_warnings(spec: &Value, at: &Path) -> Vec<String> {
    let storage = dig(spec, &["resources", "requests", "storage"]);
    match quantity::nanos_of(storage) {
        Some(nano) if !quantity::is_whole(nano) => {
            let shown = storage.as_str().unwrap_or("");
            vec![format!(
                "{at}.resources.requests[storage]: fractional byte value \"{shown}\" is invalid, must be an integer"
            )]
        }
        Some(_) | None => Vec::new(),
    }
}
