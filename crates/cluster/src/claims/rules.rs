//! What a claim and a volume mean to each other: which volume suits, what the new one looks like, what is already done. Pure.

use serde_json::{Map, Value, json};
use stead_controller::resource::{Key, Resource, list, text, uid};
use stead_schema::quantity;

use crate::selector::selector_matches;

/// The provisioner of this cluster: makes a volume that is a folder on the machine.
pub(crate) const PROVISIONER: &str = "stead.dev/volume";
/// The driver that its volumes name; unlike a provisioner's, its name must be a DNS name.
pub(crate) const DRIVER: &str = "volume.stead.dev";
/// Kept on a volume until the node has removed its data.
pub(crate) const VOLUME_FINALIZER: &str = "stead.dev/volume";
/// Kept on a claim while a pod uses it.
pub(crate) const CLAIM_PROTECTION: &str = "kubernetes.io/pvc-protection";
/// Kept on a volume while a claim is bound to it.
pub(crate) const VOLUME_PROTECTION: &str = "kubernetes.io/pv-protection";

/// The provisioner of classes whose volumes are made by hand only.
pub(crate) const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";
/// Where the first consumer of a claim goes: written by the scheduler once it knows.
pub(crate) const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// The parameter of a class whose volumes lie in another folder of the machine.
const FOLDER: &str = "path";
/// Says on each volume what its size means.
const SIZE_NOTE: &str = "stead.dev/capacity";

const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
const STORAGE_PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
const BETA_STORAGE_PROVISIONER: &str = "volume.beta.kubernetes.io/storage-provisioner";

/// An annotation; empty when there is none.
pub(crate) fn annotation<'a>(object: &'a Value, name: &str) -> &'a str {
    object
        .pointer("/metadata/annotations")
        .and_then(|own| own.get(name))
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// Whether a claim was once bound completely.
pub(crate) fn was_bound(claim: &Value) -> bool {
    !annotation(claim, BIND_COMPLETED).is_empty()
}

/// The claim that a volume is bound to or kept for.
pub(crate) fn claim_of(volume: &Value) -> Option<Key> {
    let reference = volume
        .pointer("/spec/claimRef")
        .filter(|reference| !reference.is_null())?;
    Some(Key::new(
        text(reference, "/namespace"),
        text(reference, "/name"),
    ))
}

/// Whether a volume is kept for this very claim: by UID, or by name when nobody has filled in the UID yet.
pub(crate) fn is_for(volume: &Value, claim: &Value) -> bool {
    let by_uid = text(volume, "/spec/claimRef/uid");
    claim_of(volume) == Some(Key::of(claim)) && (by_uid.is_empty() || by_uid == uid(claim))
}

/// The volume that suits a claim best: one kept for it, else the smallest free one that is large enough.
pub(crate) fn best_match<'a>(
    claim: &Value,
    volumes: impl Iterator<Item = &'a Value>,
) -> Option<&'a Value> {
    let mut suiting: Vec<&Value> = volumes.filter(|volume| suits(claim, volume)).collect();
    suiting.sort_by_key(|volume| {
        (
            claim_of(volume).is_none(),
            capacity(volume),
            text(volume, "/metadata/name").to_owned(),
        )
    });
    suiting.first().copied()
}

fn suits(claim: &Value, volume: &Value) -> bool {
    let free = claim_of(volume).is_none() || is_for(volume, claim);
    free && volume.pointer("/metadata/deletionTimestamp").is_none()
        && why_unsuitable(claim, volume).is_none()
        && selector_matches(claim.pointer("/spec/selector"), volume)
}

/// Why a volume is not what a claim asks for, whoever has it; the words are upstream's.
pub(crate) fn why_unsuitable(claim: &Value, volume: &Value) -> Option<&'static str> {
    let modes = list(volume, "/spec/accessModes");
    let mut asked = list(claim, "/spec/accessModes").iter();
    if capacity(volume) < request(claim) {
        Some("requested PV is too small")
    } else if text(claim, "/spec/storageClassName") != text(volume, "/spec/storageClassName") {
        Some("storageClassName does not match")
    } else if mode(claim) != mode(volume) {
        Some("incompatible volumeMode")
    } else if asked.any(|asked| !modes.contains(asked)) {
        Some("incompatible accessMode")
    } else {
        None
    }
}

/// Whether claims to be bound wait until a pod that uses them has a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waits {
    /// Its class says so, and no such pod is there.
    Yes,
    /// Now is the time.
    No,
}

/// Whether claims of a class wait for their first consumer.
pub(crate) fn waits_for_consumer(class: &Value) -> bool {
    text(class, "/volumeBindingMode") == "WaitForFirstConsumer"
}

/// What a bound claim asks for where that is more than its volume has.
pub(crate) fn larger(claim: &Value, volume: &Value) -> Option<Value> {
    let asked = claim.pointer("/spec/resources/requests/storage")?;
    (was_bound(claim) && request(claim) > capacity(volume)).then(|| asked.clone())
}

fn request(claim: &Value) -> i128 {
    amount(claim.pointer("/spec/resources/requests/storage"))
}

fn amount(value: Option<&Value>) -> i128 {
    value.and_then(quantity::nanos_of).unwrap_or(0)
}

fn mode(object: &Value) -> &str {
    let mode = text(object, "/spec/volumeMode");
    if mode.is_empty() { "Filesystem" } else { mode }
}

fn capacity(volume: &Value) -> i128 {
    amount(volume.pointer("/spec/capacity/storage"))
}

/// Why this cluster's provisioner cannot make what the claim asks for of its class.
pub(crate) fn why_impossible(claim: &Value, class: &Value) -> Option<String> {
    if let Some(why) = wrong_parameters(class) {
        return Some(why);
    }
    if mode(claim) == "Block" {
        return Some(format!(
            "{PROVISIONER} makes file systems, not block devices: ask for volumeMode Filesystem"
        ));
    }
    if claim
        .pointer("/spec/dataSource")
        .is_some_and(|source| !source.is_null())
    {
        return Some(format!(
            "{PROVISIONER} cannot fill a new volume from a data source: leave spec.dataSource out"
        ));
    }
    if claim
        .pointer("/spec/selector")
        .is_some_and(|selector| !selector.is_null())
    {
        return Some("claim.Spec.Selector is not supported".to_owned());
    }
    None
}

fn wrong_parameters(class: &Value) -> Option<String> {
    let parameters = class.get("parameters").and_then(Value::as_object);
    let mut parameters = parameters.into_iter().flatten();
    parameters.find_map(|(name, value)| {
        let value = value.as_str().unwrap_or_default();
        if name != FOLDER {
            return Some(format!(
                "{PROVISIONER} knows no parameter \"{name}\": the only one is \"{FOLDER}\", a folder of the machine"
            ));
        }
        let fine = value.starts_with('/') && !value.split('/').any(|part| part == "..");
        (!fine).then(|| {
            format!("the parameter \"{FOLDER}\" must be an absolute path without \"..\", and is \"{value}\"")
        })
    })
}

/// The name of the volume that is made for a claim.
pub(crate) fn new_volume_name(claim: &Value) -> String {
    format!("pvc-{}", uid(claim))
}

/// The volume that is made for a claim of a class.
pub(crate) fn new_volume(claim: &Value, class: &Value) -> Value {
    let name = new_volume_name(claim);
    let reclaim = match text(class, "/reclaimPolicy") {
        "" => "Delete",
        policy => policy,
    };
    let mut spec = json!({
        "capacity": {"storage": claim.pointer("/spec/resources/requests/storage")},
        "accessModes": claim.pointer("/spec/accessModes"),
        "persistentVolumeReclaimPolicy": reclaim,
        "storageClassName": text(class, "/metadata/name"),
        "volumeMode": mode(claim),
        "claimRef": claim_reference(claim),
        "csi": {"driver": DRIVER, "volumeHandle": name},
    });
    if let Some(folder) = class.pointer("/parameters/path") {
        spec["csi"]["volumeAttributes"] = json!({ FOLDER: folder });
    }
    if let Some(options) = class
        .get("mountOptions")
        .filter(|options| !options.is_null())
    {
        spec["mountOptions"] = options.clone();
    }
    json!({
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {
            "name": name,
            "annotations": {
                "pv.kubernetes.io/provisioned-by": PROVISIONER,
                SIZE_NOTE: "recorded, not enforced: the volume may take what its file system has",
            },
            "finalizers": [VOLUME_PROTECTION, VOLUME_FINALIZER],
        },
        "spec": spec,
    })
}

fn claim_reference(claim: &Value) -> Value {
    json!({
        "apiVersion": Resource::CLAIMS.api_version(),
        "kind": Resource::CLAIMS.kind,
        "namespace": text(claim, "/metadata/namespace"),
        "name": text(claim, "/metadata/name"),
        "uid": uid(claim),
        "resourceVersion": text(claim, "/metadata/resourceVersion"),
    })
}

/// What must still be merged into a volume so that it is bound to the claim; `None` when nothing.
pub(crate) fn bind_volume(volume: &Value, claim: &Value) -> Option<Value> {
    if text(volume, "/spec/claimRef/uid") == uid(claim) {
        return None;
    }
    let mut patch = json!({"spec": {"claimRef": claim_reference(claim)}});
    if claim_of(volume).is_none() {
        patch["metadata"] = json!({"annotations": {BOUND_BY_CONTROLLER: "yes"}});
    }
    Some(patch)
}

/// What must still be merged into a claim so that it is bound to the volume; `None` when nothing.
pub(crate) fn bind_claim(claim: &Value, volume: &Value) -> Option<Value> {
    let mut annotations = Map::new();
    let mut wants = |name: &str, value: &str| {
        if annotation(claim, name).is_empty() {
            annotations.insert(name.to_owned(), value.into());
        }
    };
    wants(BIND_COMPLETED, "yes");
    if text(claim, "/spec/volumeName").is_empty() {
        wants(BOUND_BY_CONTROLLER, "yes");
    }
    if text(volume, "/spec/csi/driver") == DRIVER {
        wants(STORAGE_PROVISIONER, PROVISIONER);
        wants(BETA_STORAGE_PROVISIONER, PROVISIONER);
    }
    let mut patch = Map::new();
    if !annotations.is_empty() {
        patch.insert(
            "metadata".to_owned(),
            json!({"uid": uid(claim), "annotations": annotations}),
        );
    }
    if text(claim, "/spec/volumeName").is_empty() {
        patch.insert(
            "spec".to_owned(),
            json!({"volumeName": text(volume, "/metadata/name")}),
        );
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

/// The status that a bound claim must have and has not; `None` when it has.
pub(crate) fn bound_status(claim: &Value, volume: &Value) -> Option<Value> {
    let wanted = json!({
        "phase": "Bound",
        "accessModes": volume.pointer("/spec/accessModes"),
        "capacity": volume.pointer("/spec/capacity"),
    });
    let status = claim.get("status");
    let has = |field: &str| status.and_then(|status| status.get(field)) == wanted.get(field);
    let done = ["phase", "accessModes", "capacity"].into_iter().all(has);
    (!done).then_some(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim() -> Value {
        json!({"metadata": {"namespace": "d", "name": "data-web-0", "uid": "c1"},
            "spec": {"storageClassName": "standard", "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}})
    }

    fn volume(name: &str, size: &str, claim_ref: &Value) -> Value {
        json!({"metadata": {"name": name}, "spec": {"storageClassName": "standard", "accessModes": ["ReadWriteOnce", "ReadOnlyMany"],
            "capacity": {"storage": size}, "claimRef": claim_ref}})
    }

    #[test]
    fn the_smallest_volume_that_is_large_enough_suits_best() {
        let volumes = [
            volume("a", "5Gi", &Value::Null),
            volume("b", "2Gi", &Value::Null),
            volume("c", "512Mi", &Value::Null),
        ];
        let best = best_match(&claim(), volumes.iter()).expect("two suit");
        assert_eq!(text(best, "/metadata/name"), "b");
    }

    #[test]
    fn a_volume_kept_for_the_claim_comes_before_all_others_and_one_kept_for_another_never() {
        let other = json!({"namespace": "d", "name": "data-web-1"});
        let own = json!({"namespace": "d", "name": "data-web-0"});
        let old =
            json!({"namespace": "d", "name": "data-web-0", "uid": "an earlier one of that name"});
        let volumes = [
            volume("a", "2Gi", &other),
            volume("b", "9Gi", &own),
            volume("c", "1Gi", &Value::Null),
            volume("d", "1Gi", &old),
        ];
        let best = best_match(&claim(), volumes.iter()).expect("two suit");
        assert_eq!(text(best, "/metadata/name"), "b");
        assert!(
            best_match(&claim(), [volume("d", "1Gi", &old)].iter()).is_none(),
            "another claim's data"
        );
    }

    #[test]
    fn a_volume_that_was_asked_for_by_name_must_still_be_what_the_claim_wants() {
        let check = |change: &dyn Fn(&mut Value), expected: Option<&str>| {
            let mut volume = volume("v", "1Gi", &Value::Null);
            change(&mut volume["spec"]);
            assert_eq!(why_unsuitable(&claim(), &volume), expected);
        };
        check(&|_| {}, None);
        check(
            &|spec| spec["capacity"]["storage"] = "1Mi".into(),
            Some("requested PV is too small"),
        );
        check(
            &|spec| spec["storageClassName"] = "fast".into(),
            Some("storageClassName does not match"),
        );
        check(
            &|spec| spec["volumeMode"] = "Block".into(),
            Some("incompatible volumeMode"),
        );
        check(
            &|spec| spec["accessModes"] = json!(["ReadWriteOncePod"]),
            Some("incompatible accessMode"),
        );
    }

    #[test]
    fn a_class_may_name_a_folder_and_nothing_else() {
        let class =
            |parameters: Value| json!({"metadata": {"name": "fast"}, "parameters": parameters});
        let says = |parameters: Value| why_impossible(&claim(), &class(parameters));
        assert_eq!(says(json!({"path": "/mnt/fast"})), None);
        let volume = new_volume(&claim(), &class(json!({"path": "/mnt/fast"})));
        assert_eq!(
            volume["spec"]["csi"]["volumeAttributes"],
            json!({"path": "/mnt/fast"})
        );
        for wrong in [
            json!({"path": "mnt"}),
            json!({"path": "/a/../etc"}),
            json!({"fsType": "xfs"}),
        ] {
            assert!(says(wrong.clone()).is_some(), "{wrong}");
        }
    }

    #[test]
    fn binding_stops_writing_once_all_is_written() {
        let class = json!({"metadata": {"name": "standard"}});
        let volume = new_volume(&claim(), &class);
        assert_eq!(bind_volume(&volume, &claim()), None, "made bound");
        let patch = bind_claim(&claim(), &volume).expect("not bound yet");
        let mut bound = claim();
        bound["metadata"]["annotations"] = patch["metadata"]["annotations"].clone();
        bound["spec"]["volumeName"] = patch["spec"]["volumeName"].clone();
        bound["status"] = bound_status(&bound, &volume).expect("no status yet");
        assert_eq!(bind_claim(&bound, &volume), None);
        assert_eq!(bound_status(&bound, &volume), None);
        assert!(was_bound(&bound));
    }
}
