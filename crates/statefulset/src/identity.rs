//! The names, labels and owner references that make a replica itself: computed, never guessed.

use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::observed::{ClaimTemplate, Set};

/// Label with the pod's own name, which per-pod Services select by.
pub const POD_NAME_LABEL: &str = "statefulset.kubernetes.io/pod-name";
/// Label with the pod's ordinal (absolute, not counted from `ordinals.start`).
pub const POD_INDEX_LABEL: &str = "apps.kubernetes.io/pod-index";
/// Label with the whole *name* of the pod's ControllerRevision.
pub const REVISION_LABEL: &str = "controller-revision-hash";
/// Label of a ControllerRevision with its hash.
pub const HASH_LABEL: &str = "controller.kubernetes.io/hash";
/// Bytes of the set's name that a ControllerRevision's name keeps. upstream: ControllerRevisionName.
const REVISION_PREFIX_MAX_BYTES: usize = 223;

/// The number in a pod's name, for instance 2 in `web-2`. At most `i32::MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ordinal(pub u32);

impl fmt::Display for Ordinal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

/// Splits a pod's name into its set's name and its ordinal.
///
/// `None`: no member of any set. `Some((set, None))`: a member by name whose number does not fit an int32, which upstream counts
/// but never moves. upstream: getParentNameAndOrdinal.
pub fn parent_and_ordinal(pod: &str) -> Option<(&str, Option<Ordinal>)> {
    let (parent, digits) = pod.rsplit_once('-')?;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let ordinal = digits
        .parse::<i32>()
        .ok()
        .and_then(|number| u32::try_from(number).ok())
        .map(Ordinal);
    Some((parent, ordinal))
}

/// The one name of the set's pod with this ordinal.
pub fn pod_name(set: &str, ordinal: Ordinal) -> Arc<str> {
    format!("{set}-{ordinal}").into()
}

/// The member's name is the one that its ordinal's pod has: `web-1`, not `web-01`. Made without building that name.
pub(crate) fn is_canonical(pod: &str) -> bool {
    let digits = pod.rsplit_once('-').map_or("", |(_, digits)| digits);
    digits == "0" || !digits.starts_with('0')
}

/// The one name of the claim that the ordinal holds from this claim template.
pub fn claim_name(template: &str, set: &str, ordinal: Ordinal) -> Arc<str> {
    format!("{template}-{set}-{ordinal}").into()
}

/// The ordinal for which `name` is [`claim_name`] of this template and set; made without building a name.
pub(crate) fn ordinal_of_claim(name: &str, template: &str, set: &str) -> Option<Ordinal> {
    let rest = name.strip_prefix(template)?.strip_prefix('-')?;
    let digits = rest.strip_prefix(set)?.strip_prefix('-')?;
    let canonical = digits.bytes().all(|byte| byte.is_ascii_digit())
        && (digits == "0" || !digits.starts_with('0'));
    let number = digits.parse::<i32>().ok().filter(|_| canonical)?;
    u32::try_from(number).ok().map(Ordinal)
}

/// The name of a ControllerRevision. upstream: ControllerRevisionName.
pub fn revision_name(set: &str, hash: &str) -> Arc<str> {
    let mut end = set.len().min(REVISION_PREFIX_MAX_BYTES);
    while !set.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    format!("{}-{hash}", set.get(..end).unwrap_or(set)).into()
}

/// The owner reference by which the set controls a pod, a revision or a claim.
pub fn set_reference(set: &Set) -> Value {
    reference(&set.api_version, "StatefulSet", &set.name, &set.uid)
}

/// The owner reference by which a condemned pod controls its claim.
pub fn pod_reference(name: &str, uid: &str) -> Value {
    reference("v1", "Pod", name, uid)
}

fn reference(api_version: &str, kind: &str, name: &str, uid: &str) -> Value {
    json!({"apiVersion": api_version, "kind": kind, "name": name, "uid": uid, "controller": true, "blockOwnerDeletion": true})
}

/// The pod to create for an ordinal: the template with the ordinal's identity and storage stamped on it.
///
/// upstream: newStatefulSetPod, then setPodRevision.
pub fn new_pod(set: &Set, template: &Value, revision: &str, ordinal: Ordinal) -> Value {
    let name = pod_name(&set.name, ordinal);
    let mut labels = object_at(template, &["metadata", "labels"]);
    labels.insert(POD_NAME_LABEL.into(), Value::from(&*name));
    labels.insert(POD_INDEX_LABEL.into(), Value::from(ordinal.to_string()));
    labels.insert(REVISION_LABEL.into(), Value::from(revision));
    let mut metadata = json!({
        "name": &*name,
        "generateName": format!("{}-", set.name),
        "namespace": &*set.namespace,
        "labels": labels,
        "ownerReferences": [set_reference(set)],
    });
    for inherited in ["annotations", "finalizers"] {
        if let Some(value) = template
            .get("metadata")
            .and_then(|meta| meta.get(inherited))
            .filter(|value| !value.is_null())
        {
            put(&mut metadata, inherited, value.clone());
        }
    }
    let mut spec = Value::Object(object_at(template, &["spec"]));
    put(&mut spec, "hostname", Value::from(&*name));
    if set.service_name.is_empty() {
        remove(&mut spec, "subdomain");
    } else {
        put(&mut spec, "subdomain", Value::from(&*set.service_name));
    }
    let volumes = volumes_of(set, ordinal, list_at(template, &["spec", "volumes"]));
    if !volumes.is_empty() {
        put(&mut spec, "volumes", Value::Array(volumes));
    }
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
}

/// The volumes of an ordinal: one for each of its claims, then those of `others` whose name no claim template takes.
///
/// upstream: updateStorage; there the order among the claims is that of a map, here that of the templates.
pub fn volumes_of(set: &Set, ordinal: Ordinal, others: &[Value]) -> Vec<Value> {
    let claims = set
        .claim_templates
        .iter()
        .map(|template| claim_volume(set, template, ordinal));
    let taken = |volume: &&Value| {
        let name = volume
            .get("name")
            .and_then(Value::as_str)
            .unwrap_or_default();
        set.claim_templates
            .iter()
            .all(|template| &*template.name != name)
    };
    claims.chain(others.iter().filter(taken).cloned()).collect()
}

fn claim_volume(set: &Set, template: &ClaimTemplate, ordinal: Ordinal) -> Value {
    json!({"name": &*template.name, "persistentVolumeClaim": {"claimName": &*claim_name(&template.name, &set.name, ordinal)}})
}

/// The claim to create for an ordinal from a claim template. upstream: getPersistentVolumeClaims.
pub fn new_claim(set: &Set, template: &ClaimTemplate, ordinal: Ordinal) -> Value {
    let mut claim = template.object.value().clone();
    put(&mut claim, "apiVersion", Value::from("v1"));
    put(&mut claim, "kind", Value::from("PersistentVolumeClaim"));
    let mut labels = object_at(&claim, &["metadata", "labels"]);
    labels.extend(object_at(&set.match_labels, &[]));
    let mut metadata = Value::Object(object_at(&claim, &["metadata"]));
    put(
        &mut metadata,
        "name",
        Value::from(&*claim_name(&template.name, &set.name, ordinal)),
    );
    put(&mut metadata, "namespace", Value::from(&*set.namespace));
    if !labels.is_empty() {
        put(&mut metadata, "labels", Value::Object(labels));
    }
    put(&mut claim, "metadata", metadata);
    claim
}

/// Sets a field of an object; anything that is not an object stays as it is.
pub(crate) fn put(object: &mut Value, key: &str, value: Value) {
    if let Some(map) = object.as_object_mut() {
        map.insert(key.into(), value);
    }
}

fn remove(object: &mut Value, key: &str) {
    if let Some(map) = object.as_object_mut() {
        map.remove(key);
    }
}

fn at<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, key| value.get(key))
}

fn object_at(value: &Value, path: &[&str]) -> Map<String, Value> {
    at(value, path)
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default()
}

fn list_at<'a>(value: &'a Value, path: &[&str]) -> &'a [Value] {
    at(value, path)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}
