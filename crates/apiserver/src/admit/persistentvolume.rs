//! PersistentVolumes: capacity, access modes, exactly one source, and a source that never changes.

use serde_json::{Value, json};
use stead_schema::quantity;

use super::cause::{Causes, Path};
use super::persistentvolumeclaim::access_modes;
use super::pod_spec_scheduling::node_selector;
use super::pod_spec_volumes::csi_driver_name;
use super::read::{dig, entries, get, has, map_mut, semantically_equal, text};
use super::strategy::{Again, Strategy};
use super::{Context, Refusal, syntax};

pub(crate) const RULES: Strategy = Strategy {
    first_status: |_| json!({"phase": "Pending"}),
    prepare,
    check,
    check_update,
    prepare_status,
    metadata_again: Again::Everything,
    ..Strategy::PLAIN
};

/// Every kind of volume source that a PersistentVolume may have.
const SOURCES: [&str; 22] = [
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "glusterfs",
    "flocker",
    "nfs",
    "rbd",
    "quobyte",
    "cephfs",
    "iscsi",
    "cinder",
    "fc",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "scaleIO",
    "local",
    "storageos",
    "csi",
    "image",
];

fn prepare(volume: &mut Value, context: &Context<'_>) -> Result<(), Refusal> {
    stamp(volume, context);
    Ok(())
}

fn stamp(volume: &mut Value, context: &Context<'_>) {
    let seconds = jiff::Timestamp::from_second(context.now.as_second()).unwrap_or(context.now);
    map_mut(volume, "status").insert(
        "lastPhaseTransitionTime".to_owned(),
        seconds.to_string().into(),
    );
}

fn prepare_status(old: &Value, new: &mut Value, context: &Context<'_>) {
    let phase = |volume: &Value| text(get(volume, "status"), "phase").to_owned();
    let said = !semantically_equal(
        dig(old, &["status", "lastPhaseTransitionTime"]),
        dig(new, &["status", "lastPhaseTransitionTime"]),
    );
    if phase(old) != phase(new) && !said {
        stamp(new, context);
    }
}

fn check(volume: &Value, wrong: &mut Causes) {
    let (spec, at) = (get(volume, "spec"), Path::root("spec"));
    access_modes(spec, &at, wrong);
    capacity(spec, &at.field("capacity"), wrong);
    source(spec, &at, wrong);
    let policy = text(spec, "persistentVolumeReclaimPolicy");
    if !policy.is_empty() {
        wrong.one_of(
            &at.field("persistentVolumeReclaimPolicy"),
            policy,
            &["Delete", "Recycle", "Retain"],
        );
    }
    let class = text(spec, "storageClassName");
    if !class.is_empty() {
        wrong.complaints(
            &at.field("storageClassName"),
            class,
            &syntax::dns1123_subdomain(class),
        );
    }
    if has(spec, "volumeMode") {
        wrong.one_of(
            &at.field("volumeMode"),
            text(spec, "volumeMode"),
            &["Block", "Filesystem"],
        );
    }
    affinity(spec, &at.field("nodeAffinity"), wrong);
}

fn capacity(spec: &Value, at: &Path, wrong: &mut Causes) {
    let names: Vec<&str> = entries(spec, "capacity").map(|(name, _)| name).collect();
    if names.is_empty() {
        wrong.required(at, "");
    }
    if names.as_slice() != ["storage"] {
        wrong.not_supported(at, &names.join(","), &["storage"]);
    }
    for (name, amount) in entries(spec, "capacity") {
        if quantity::nanos_of(amount).is_some_and(|nano| nano <= 0) {
            wrong.invalid(&at.key(name), amount.clone(), "must be greater than 0");
        }
    }
}

fn source(spec: &Value, at: &Path, wrong: &mut Causes) {
    let mut found = false;
    for name in SOURCES {
        let own = get(spec, name);
        if own.is_null() {
            continue;
        }
        let at = at.field(name);
        if found {
            wrong.forbidden(&at, "may not specify more than 1 volume type");
            continue;
        }
        found = true;
        match name {
            "hostPath" | "local" if text(own, "path").is_empty() => {
                wrong.required(&at.field("path"), "")
            }
            "hostPath" | "local" if syntax::has_backsteps(text(own, "path")) => {
                wrong.invalid(
                    &at.field("path"),
                    text(own, "path"),
                    "must not contain '..'",
                );
            }
            "csi" => csi(own, &at, wrong),
            "nfs" => {
                for field in ["server", "path"] {
                    if text(own, field).is_empty() {
                        wrong.required(&at.field(field), "");
                    }
                }
            }
            _ => {}
        }
    }
    if !found {
        wrong.required(at, "must specify a volume type");
    }
}

fn csi(source: &Value, at: &Path, wrong: &mut Causes) {
    csi_driver_name(text(source, "driver"), &at.field("driver"), wrong);
    if text(source, "volumeHandle").is_empty() {
        wrong.required(&at.field("volumeHandle"), "");
    }
}

fn affinity(spec: &Value, at: &Path, wrong: &mut Causes) {
    let affinity = get(spec, "nodeAffinity");
    if affinity.is_null() {
        if has(spec, "local") {
            wrong.required(at, "Local volume requires node affinity");
        }
        return;
    }
    if has(affinity, "required") {
        node_selector(get(affinity, "required"), &at.field("required"), wrong);
    } else {
        wrong.required(
            &at.field("required"),
            "must specify required node constraints",
        );
    }
}

fn check_update(old: &Value, new: &Value, wrong: &mut Causes) {
    check(new, wrong);
    let changed = SOURCES
        .iter()
        .any(|name| !semantically_equal(dig(old, &["spec", name]), dig(new, &["spec", name])));
    if changed {
        wrong.forbidden(
            &Path::root("spec").field("persistentvolumesource"),
            "spec.persistentvolumesource is immutable after creation",
        );
    }
    wrong.immutable(
        &Path::root("volumeMode"),
        dig(old, &["spec", "volumeMode"]),
        dig(new, &["spec", "volumeMode"]),
    );
    if has(get(old, "spec"), "nodeAffinity") {
        let (was, is) = (
            dig(old, &["spec", "nodeAffinity"]),
            dig(new, &["spec", "nodeAffinity"]),
        );
        wrong.immutable(&Path::root("spec").field("nodeAffinity"), was, is);
    }
}
