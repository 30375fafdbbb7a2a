//! Claims, volumes, storage classes, drivers.

use serde_json::{Map, Value, json};

use super::{default, default_pointer, is_empty, object_made};

pub(super) fn claim(claim: &mut Map<String, Value>) {
    if let Some(status) = object_made(claim, "status") {
        default(status, "phase", "Pending");
    }
}

pub(super) fn volume(volume: &mut Map<String, Value>) {
    if let Some(status) = object_made(volume, "status") {
        default(status, "phase", "Pending");
    }
    if let Some(spec) = object_made(volume, "spec") {
        default(spec, "persistentVolumeReclaimPolicy", "Retain");
        default_pointer(spec, "volumeMode", "Filesystem");
    }
}

pub(super) fn class(class: &mut Map<String, Value>) {
    default_pointer(class, "reclaimPolicy", "Delete");
    default_pointer(class, "volumeBindingMode", "Immediate");
}

pub(super) fn driver(spec: &mut Map<String, Value>) {
    default_pointer(spec, "attachRequired", true);
    for flag in [
        "podInfoOnMount",
        "storageCapacity",
        "requiresRepublish",
        "seLinuxMount",
    ] {
        default_pointer(spec, flag, false);
    }
    default_pointer(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
    if is_empty(spec, "volumeLifecycleModes") {
        spec.insert("volumeLifecycleModes".to_owned(), json!(["Persistent"]));
    }
}
