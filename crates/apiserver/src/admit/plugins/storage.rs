//! DefaultStorageClass, StorageObjectInUseProtection and PersistentVolumeClaimResize: claims get a class, claims and
//! volumes a finalizer that guards them in use, and only bound claims of a class that allows it grow.

use serde_json::{Value, json};
use stead_schema::quantity;

use crate::admit::metadata::annotation;
use crate::admit::read::{dig, get, has, list, list_mut, map_mut, object_mut, text, yes};
use crate::admit::{Context, Refusal};

/// Guards a claim that a pod uses.
pub(super) const CLAIM_FINALIZER: &str = "kubernetes.io/pvc-protection";
/// Guards a volume that is bound.
pub(super) const VOLUME_FINALIZER: &str = "kubernetes.io/pv-protection";

const IS_DEFAULT: [&str; 2] = [
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
];
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

/// A claim without a class gets the default one: the newest, of several, then the first by name.
pub(super) fn default_class(claim: &mut Value, context: &Context<'_>) {
    let said = has(get(claim, "spec"), "storageClassName")
        || !annotation(claim, CLASS_ANNOTATION).is_empty();
    if said {
        return;
    }
    let classes = context.cluster.list("storage.k8s.io", "storageclasses", "");
    let mut defaults: Vec<(&str, &str)> = classes
        .iter()
        .filter(|class| {
            IS_DEFAULT
                .iter()
                .any(|key| annotation(class, key) == "true")
        })
        .map(|class| {
            (
                text(get(class, "metadata"), "creationTimestamp"),
                text(get(class, "metadata"), "name"),
            )
        })
        .collect();
    defaults.sort_by(|a, b| b.0.cmp(a.0).then(a.1.cmp(b.1)));
    if let Some((_, name)) = defaults.first() {
        map_mut(claim, "spec").insert("storageClassName".to_owned(), (*name).into());
    }
}

/// Adds a finalizer as far as it is not there.
pub(super) fn protect(object: &mut Value, finalizer: &str) {
    let meta = object_mut(object)
        .entry("metadata")
        .or_insert_with(|| json!({}));
    if !list(meta, "finalizers")
        .iter()
        .any(|name| name == finalizer)
    {
        list_mut(meta, "finalizers").push(finalizer.into());
    }
}

/// Only a bound claim of a class that allows it may ask for more than before.
pub(super) fn may_grow(old: &Value, new: &Value, context: &Context<'_>) -> Result<(), Refusal> {
    let size = |claim: &Value| {
        quantity::nanos_of(dig(claim, &["spec", "resources", "requests", "storage"])).unwrap_or(0)
    };
    if size(new) <= size(old) {
        return Ok(());
    }
    if text(get(old, "status"), "phase") != "Bound" {
        return Err(Refusal::forbidden(
            "Only bound persistent volume claims can be expanded",
        ));
    }
    let class = text(get(new, "spec"), "storageClassName");
    let class = context
        .cluster
        .get("storage.k8s.io", "storageclasses", "", class);
    if class.is_some_and(|class| yes(&class, "allowVolumeExpansion")) {
        return Ok(());
    }
    Err(Refusal::forbidden(
        "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize",
    ))
}
