//! The rows of claims, volumes, classes and what attaches them.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::age::age;
use super::{NONE, UNSET, name};
use crate::admit::read::{dig, get, has, list, text, texts, yes};

const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
const IS_DEFAULT: [&str; 2] = [
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
];

fn annotation<'a>(object: &'a Value, key: &str) -> &'a str {
    text(dig(object, &["metadata", "annotations"]), key)
}

fn phase(object: &Value) -> Value {
    let going = has(get(object, "metadata"), "deletionTimestamp");
    json!(if going {
        "Terminating"
    } else {
        text(get(object, "status"), "phase")
    })
}

fn modes(modes: &[&str]) -> Value {
    let mut short: Vec<&str> = Vec::new();
    for (long, word) in [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ] {
        if modes.contains(&long) {
            short.push(word);
        }
    }
    json!(short.join(","))
}

fn class_of(object: &Value) -> Value {
    match annotation(object, CLASS_ANNOTATION) {
        "" => json!(text(get(object, "spec"), "storageClassName")),
        class => json!(class),
    }
}

fn or_unset(object: &Value, field: &str) -> Value {
    json!(get(get(object, "spec"), field).as_str().unwrap_or(UNSET))
}

pub(super) fn claim(claim: &Value, now: Timestamp) -> Vec<Value> {
    let volume = text(get(claim, "spec"), "volumeName");
    let status = get(claim, "status");
    let (capacity, access) = if volume.is_empty() {
        (json!(""), json!(""))
    } else {
        let size = dig(status, &["capacity", "storage"]);
        (
            json!(size.as_str().unwrap_or("0")),
            modes(&texts(status, "accessModes")),
        )
    };
    vec![
        name(claim),
        phase(claim),
        json!(volume),
        capacity,
        access,
        class_of(claim),
        or_unset(claim, "volumeAttributesClassName"),
        age(claim, now),
        or_unset(claim, "volumeMode"),
    ]
}

pub(super) fn volume(volume: &Value, now: Timestamp) -> Vec<Value> {
    let spec = get(volume, "spec");
    let claim = get(spec, "claimRef");
    let claim = if claim.is_null() {
        String::new()
    } else {
        format!("{}/{}", text(claim, "namespace"), text(claim, "name"))
    };
    vec![
        name(volume),
        json!(dig(spec, &["capacity", "storage"]).as_str().unwrap_or("0")),
        modes(&texts(spec, "accessModes")),
        json!(text(spec, "persistentVolumeReclaimPolicy")),
        phase(volume),
        json!(claim),
        class_of(volume),
        or_unset(volume, "volumeAttributesClassName"),
        json!(text(get(volume, "status"), "reason")),
        age(volume, now),
        or_unset(volume, "volumeMode"),
    ]
}

pub(super) fn class(class: &Value, now: Timestamp) -> Vec<Value> {
    let mark = if IS_DEFAULT
        .iter()
        .any(|key| annotation(class, key) == "true")
    {
        " (default)"
    } else {
        ""
    };
    vec![
        json!(format!("{}{mark}", text(get(class, "metadata"), "name"))),
        json!(text(class, "provisioner")),
        json!(text(class, "reclaimPolicy")),
        json!(text(class, "volumeBindingMode")),
        json!(yes(class, "allowVolumeExpansion")),
        age(class, now),
    ]
}

pub(super) fn attachment(attachment: &Value, now: Timestamp) -> Vec<Value> {
    let spec = get(attachment, "spec");
    vec![
        name(attachment),
        json!(text(spec, "attacher")),
        json!(text(get(spec, "source"), "persistentVolumeName")),
        json!(text(spec, "nodeName")),
        json!(yes(get(attachment, "status"), "attached")),
        age(attachment, now),
    ]
}

pub(super) fn driver(driver: &Value, now: Timestamp) -> Vec<Value> {
    let spec = get(driver, "spec");
    let flag = |field: &str, default: bool| json!(get(spec, field).as_bool().unwrap_or(default));
    let audiences: Vec<&str> = list(spec, "tokenRequests")
        .iter()
        .map(|request| text(request, "audience"))
        .collect();
    let lifecycles = texts(spec, "volumeLifecycleModes");
    let shown = |items: &[&str]| {
        json!(if items.is_empty() {
            UNSET.to_owned()
        } else {
            items.join(",")
        })
    };
    vec![
        name(driver),
        flag("attachRequired", true),
        flag("podInfoOnMount", false),
        flag("storageCapacity", false),
        shown(&audiences),
        flag("requiresRepublish", false),
        json!(if lifecycles.is_empty() {
            NONE.to_owned()
        } else {
            lifecycles.join(",")
        }),
        age(driver, now),
    ]
}

pub(super) fn node(node: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(node),
        json!(list(get(node, "spec"), "drivers").len()),
        age(node, now),
    ]
}
