//! The rules of `spec.volumes`: one source each, names that are labels and unique, paths that stay inside.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use stead_schema::quantity;

use super::cause::{Causes, Path};
use super::read::{get, has, int, list, text};
use super::{metadata, persistentvolumeclaim, pod_spec_env, syntax};

const HOST_PATH_TYPES: [&str; 8] = [
    "",
    "DirectoryOrCreate",
    "Directory",
    "FileOrCreate",
    "File",
    "Socket",
    "CharDevice",
    "BlockDevice",
];
const LEAST_TOKEN_SECONDS: i64 = 600;
const MOST_TOKEN_SECONDS: i64 = 1 << 32;
const MODE_WORDS: &str = "must be a number between 0 and 0777 (octal), both inclusive";
const ONE_SOURCE: &str = "may not specify more than 1 volume type";

type SourceRule = fn(&Value, &Path, &mut Causes);

/// Every volume source, in the order in which upstream looks: the second that is set is the one refused.
const SOURCES: [(&str, SourceRule); 29] = [
    ("emptyDir", empty_dir),
    ("hostPath", host_path),
    ("gitRepo", git_repo),
    ("gcePersistentDisk", |source, at, wrong| {
        needed(source, &["pdName"], at, wrong)
    }),
    ("awsElasticBlockStore", |source, at, wrong| {
        needed(source, &["volumeID"], at, wrong)
    }),
    ("secret", secret),
    ("nfs", nfs),
    ("iscsi", |source, at, wrong| {
        needed(source, &["targetPortal", "iqn"], at, wrong)
    }),
    ("glusterfs", |source, at, wrong| {
        needed(source, &["endpoints", "path"], at, wrong)
    }),
    ("flocker", accepted),
    ("persistentVolumeClaim", |source, at, wrong| {
        needed(source, &["claimName"], at, wrong)
    }),
    ("rbd", accepted),
    ("cinder", |source, at, wrong| {
        needed(source, &["volumeID"], at, wrong)
    }),
    ("cephfs", accepted),
    ("quobyte", accepted),
    ("downwardAPI", downward_api),
    ("fc", accepted),
    ("azureFile", |source, at, wrong| {
        needed(source, &["secretName", "shareName"], at, wrong)
    }),
    ("configMap", config_map),
    ("vsphereVolume", |source, at, wrong| {
        needed(source, &["volumePath"], at, wrong)
    }),
    ("photonPersistentDisk", accepted),
    ("portworxVolume", accepted),
    ("azureDisk", |source, at, wrong| {
        needed(source, &["diskName", "diskURI"], at, wrong)
    }),
    ("storageos", accepted),
    ("projected", projected),
    ("scaleIO", accepted),
    ("csi", csi),
    ("ephemeral", ephemeral),
    ("image", image),
];

/// The volumes that a container may mount, by name: only those without fault, as upstream.
pub(crate) type Sound<'a> = BTreeMap<&'a str, &'a Value>;

/// Checks all volumes.
pub(crate) fn check<'a>(volumes: &'a [Value], at: &Path, wrong: &mut Causes) -> Sound<'a> {
    let mut sound = Sound::new();
    for (index, volume) in volumes.iter().enumerate() {
        let at = at.index(index);
        let mut faults = Causes::default();
        one_source(volume, &at, &mut faults);
        let name = text(volume, "name");
        if name.is_empty() {
            faults.required(&at.field("name"), "");
        } else {
            faults.complaints(&at.field("name"), name, &syntax::dns1123_label(name));
        }
        if sound.contains_key(name) {
            faults.duplicate(&at.field("name"), name);
        }
        if faults.is_empty() {
            sound.insert(name, volume);
        }
        wrong.extend(faults);
    }
    sound
}

fn one_source(volume: &Value, at: &Path, wrong: &mut Causes) {
    let mut found = false;
    for (name, rule) in SOURCES {
        if !has(volume, name) {
            continue;
        }
        let at = at.field(name);
        if found {
            wrong.forbidden(&at, ONE_SOURCE);
        } else {
            rule(get(volume, name), &at, wrong);
        }
        found = true;
    }
    if !found {
        wrong.required(at, "must specify a volume type");
    }
}

/// Sources that no driver serves any more or whose rules Stead leaves to the driver.
fn accepted(_: &Value, _: &Path, _: &mut Causes) {}

fn needed(source: &Value, fields: &[&str], at: &Path, wrong: &mut Causes) {
    for field in fields {
        if text(source, field).is_empty() {
            wrong.required(&at.field(field), "");
        }
    }
}

fn empty_dir(source: &Value, at: &Path, wrong: &mut Causes) {
    if quantity::nanos_of(get(source, "sizeLimit")).is_some_and(|limit| limit < 0) {
        wrong.forbidden(
            &at.field("sizeLimit"),
            "SizeLimit field must be a valid resource quantity",
        );
    }
}

fn host_path(source: &Value, at: &Path, wrong: &mut Causes) {
    let path = text(source, "path");
    if path.is_empty() {
        wrong.required(&at.field("path"), "");
        return;
    }
    no_backsteps(path, &at.field("path"), wrong);
    if has(source, "type") {
        wrong.one_of(&at.field("type"), text(source, "type"), &HOST_PATH_TYPES);
    }
}

fn git_repo(source: &Value, at: &Path, wrong: &mut Causes) {
    needed(source, &["repository"], at, wrong);
    descending(text(source, "directory"), &at.field("directory"), wrong);
}

fn nfs(source: &Value, at: &Path, wrong: &mut Causes) {
    needed(source, &["server", "path"], at, wrong);
    let path = text(source, "path");
    if !path.is_empty() && !path.starts_with('/') {
        wrong.invalid(&at.field("path"), path, "must be an absolute path");
    }
}

fn secret(source: &Value, at: &Path, wrong: &mut Causes) {
    needed(source, &["secretName"], at, wrong);
    mode(source, "defaultMode", at, wrong);
    keys_to_paths(source, &at.field("items"), wrong);
}

fn config_map(source: &Value, at: &Path, wrong: &mut Causes) {
    needed(source, &["name"], at, wrong);
    mode(source, "defaultMode", at, wrong);
    keys_to_paths(source, &at.field("items"), wrong);
}

fn keys_to_paths(source: &Value, at: &Path, wrong: &mut Causes) {
    for (index, item) in list(source, "items").iter().enumerate() {
        let at = at.index(index);
        needed(item, &["key", "path"], &at, wrong);
        inner_path(text(item, "path"), &at.field("path"), wrong);
        mode(item, "mode", &at, wrong);
    }
}

fn downward_api(source: &Value, at: &Path, wrong: &mut Causes) {
    mode(source, "defaultMode", at, wrong);
    downward_items(source, &at.field("items"), wrong);
}

fn downward_items(source: &Value, at: &Path, wrong: &mut Causes) {
    for (index, item) in list(source, "items").iter().enumerate() {
        let at = at.index(index);
        needed(item, &["path"], &at, wrong);
        inner_path(text(item, "path"), &at.field("path"), wrong);
        match (has(item, "fieldRef"), has(item, "resourceFieldRef")) {
            (true, both) => {
                pod_spec_env::field_ref(
                    get(item, "fieldRef"),
                    &pod_spec_env::VOLUME_FIELDS,
                    &at.field("fieldRef"),
                    wrong,
                );
                if both {
                    wrong.invalid(
                        &at,
                        "resource",
                        "fieldRef and resourceFieldRef can not be specified simultaneously",
                    );
                }
            }
            (false, true) => {
                pod_spec_env::resource_ref(
                    get(item, "resourceFieldRef"),
                    true,
                    &at.field("resourceFieldRef"),
                    wrong,
                );
            }
            (false, false) => {
                wrong.required(&at, "one of fieldRef and resourceFieldRef is required")
            }
        }
        mode(item, "mode", &at, wrong);
    }
}

fn projected(source: &Value, at: &Path, wrong: &mut Causes) {
    mode(source, "defaultMode", at, wrong);
    let mut paths = BTreeSet::new();
    for (index, projection) in list(source, "sources").iter().enumerate() {
        projection_source(
            projection,
            at,
            &at.field("sources").index(index),
            &mut paths,
            wrong,
        );
    }
}

fn projection_source<'a>(
    projection: &'a Value,
    whole: &Path,
    at: &Path,
    paths: &mut BTreeSet<&'a str>,
    wrong: &mut Causes,
) {
    let mut found = false;
    for name in [
        "secret",
        "configMap",
        "downwardAPI",
        "serviceAccountToken",
        "clusterTrustBundle",
        "podCertificate",
    ] {
        let source = get(projection, name);
        if source.is_null() {
            continue;
        }
        let at = at.field(name);
        if found {
            wrong.forbidden(&at, ONE_SOURCE);
            continue;
        }
        found = true;
        match name {
            "secret" | "configMap" => {
                needed(source, &["name"], &at, wrong);
                keys_to_paths(source, &at.field("items"), wrong);
            }
            "downwardAPI" => downward_items(source, &at.field("items"), wrong),
            "serviceAccountToken" => token(source, &at, wrong),
            _ => {}
        }
        one_owner_of_each_path(name, source, whole, paths, wrong);
    }
}

fn one_owner_of_each_path<'a>(
    name: &str,
    source: &'a Value,
    whole: &Path,
    paths: &mut BTreeSet<&'a str>,
    wrong: &mut Causes,
) {
    let own = match name {
        "serviceAccountToken" => vec![text(source, "path")],
        _ => list(source, "items")
            .iter()
            .map(|item| text(item, "path"))
            .collect(),
    };
    for path in own {
        if !path.is_empty() && !paths.insert(path) {
            wrong.invalid(whole, text(source, "name"), "conflicting duplicate paths");
        }
    }
}

fn token(source: &Value, at: &Path, wrong: &mut Causes) {
    if let Some(seconds) = int(source, "expirationSeconds") {
        let at = at.field("expirationSeconds");
        if seconds < LEAST_TOKEN_SECONDS {
            wrong.invalid(
                &at,
                seconds,
                "may not specify a duration less than 10 minutes",
            );
        }
        if seconds > MOST_TOKEN_SECONDS {
            wrong.invalid(
                &at,
                seconds,
                "may not specify a duration larger than 2^32 seconds",
            );
        }
    }
    needed(source, &["path"], at, wrong);
    inner_path(text(source, "path"), &at.field("path"), wrong);
}

fn csi(source: &Value, at: &Path, wrong: &mut Causes) {
    csi_driver_name(text(source, "driver"), &at.field("driver"), wrong);
    if has(source, "nodePublishSecretRef") {
        needed(
            get(source, "nodePublishSecretRef"),
            &["name"],
            &at.field("nodePublishSecretRef"),
            wrong,
        );
    }
}

/// The name of a CSI driver: a subdomain of 63 bytes.
pub(crate) fn csi_driver_name(name: &str, at: &Path, wrong: &mut Causes) {
    if name.is_empty() {
        wrong.required(at, "");
        return;
    }
    if name.len() > 63 {
        wrong.too_long(at, 63);
    }
    wrong.complaints(at, name, &syntax::dns1123_subdomain(&name.to_lowercase()));
}

fn ephemeral(source: &Value, at: &Path, wrong: &mut Causes) {
    let template = get(source, "volumeClaimTemplate");
    let at = at.field("volumeClaimTemplate");
    if template.is_null() {
        wrong.required(&at, "");
        return;
    }
    metadata::labels(
        metadata::labels_of(template),
        &at.field("metadata").field("labels"),
        wrong,
    );
    metadata::annotations(
        get(get(template, "metadata"), "annotations"),
        &at.field("metadata").field("annotations"),
        wrong,
    );
    persistentvolumeclaim::check_spec(get(template, "spec"), &at.field("spec"), wrong);
}

fn image(source: &Value, at: &Path, wrong: &mut Causes) {
    needed(source, &["reference"], at, wrong);
    if has(source, "pullPolicy") {
        wrong.one_of(
            &at.field("pullPolicy"),
            text(source, "pullPolicy"),
            &["Always", "IfNotPresent", "Never"],
        );
    }
}

fn mode(source: &Value, field: &str, at: &Path, wrong: &mut Causes) {
    if let Some(bits) = int(source, field).filter(|bits| !(0..=0o777).contains(bits)) {
        wrong.invalid(&at.field(field), bits, MODE_WORDS);
    }
}

fn no_backsteps(path: &str, at: &Path, wrong: &mut Causes) {
    if syntax::has_backsteps(path) {
        wrong.invalid(at, path, "must not contain '..'");
    }
}

/// A relative path that never steps back.
pub(crate) fn descending(path: &str, at: &Path, wrong: &mut Causes) {
    if path.starts_with('/') {
        wrong.invalid(at, path, "must be a relative path");
    }
    no_backsteps(path, at, wrong);
}

/// A descending path that does not begin with two dots, for those are the atomic writer's own.
fn inner_path(path: &str, at: &Path, wrong: &mut Causes) {
    descending(path, at, wrong);
    if path.starts_with("..") && !path.starts_with("../") {
        wrong.invalid(at, path, "must not start with '..'");
    }
}
