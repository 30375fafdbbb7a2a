//! How each step is said to the API: one call, with its preconditions in it.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::identity::{self, HASH_LABEL, Ordinal, POD_INDEX_LABEL, POD_NAME_LABEL};
use crate::json::Json;
use crate::observed::{Resource, Set};
use crate::step::Step;

/// One call to the API, in the set's namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The resource; [`Resource::StatefulSets`] in the group of the set's own `apiVersion`.
    pub resource: Resource,
    /// Name of the object.
    pub name: Arc<str>,
    /// What is done to it.
    pub action: Action,
}

/// What a call does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// POST the object.
    Create {
        /// The whole object.
        object: Value,
    },
    /// PATCH the object or one of its subresources. UID, and where it matters resourceVersion, stand in the patch: the server
    /// answers 422 where another object has the name, 409 where the version is not the one that was seen.
    Patch {
        /// How the patch is to be read.
        kind: PatchKind,
        /// `status`, or the object itself.
        subresource: Option<&'static str>,
        /// The patch.
        patch: Value,
    },
    /// DELETE with `preconditions.uid` and nothing else; grace and propagation are the server's defaults.
    Delete {
        /// The UID.
        uid: Arc<str>,
    },
}

/// Media type of a patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchKind {
    /// `application/merge-patch+json`.
    Merge,
    /// `application/strategic-merge-patch+json`: for owner references, so that no other controller's is overwritten.
    Strategic,
}

impl Step {
    /// The call that carries the step out.
    pub fn call(&self, set: &Set) -> Call {
        let owner = || identity::set_reference(set);
        match self {
            Step::AdoptRevision { revision, uid } => {
                strategic(Resource::Revisions, revision, uid, owner())
            }
            Step::AdoptPod { pod, uid } => strategic(Resource::Pods, pod, uid, owner()),
            Step::ReleasePod {
                pod,
                uid,
                because: _,
            } => strategic(
                Resource::Pods,
                pod,
                uid,
                json!({"$patch": "delete", "uid": &*set.uid}),
            ),
            Step::CreateRevision {
                revision,
                hash,
                number,
            } => create(
                Resource::Revisions,
                revision,
                new_revision(set, revision, hash, *number),
            ),
            Step::RenumberRevision {
                revision,
                uid,
                from: _,
                to,
            } => merge(
                Resource::Revisions,
                revision,
                json!({"metadata": {"uid": &**uid}, "revision": to}),
            ),
            Step::DeleteRevision {
                revision,
                uid,
                limit: _,
            } => delete(Resource::Revisions, revision, uid),
            Step::CreateClaim {
                claim,
                ordinal,
                template,
            } => create(Resource::Claims, claim, new_claim(set, template, *ordinal)),
            Step::PatchClaim {
                claim,
                uid,
                resource_version,
                ordinal: _,
                owners,
            } => merge(
                Resource::Claims,
                claim,
                owners_patch(uid, resource_version, owners.references(set)),
            ),
            Step::CreatePod {
                pod,
                ordinal,
                revision,
                template,
            } => create(
                Resource::Pods,
                pod,
                identity::new_pod(set, template, revision, *ordinal),
            ),
            Step::UpdatePod {
                pod,
                uid,
                ordinal,
                because,
                volumes,
            } => {
                let labels = because.identity.then(|| labels_of(pod, *ordinal));
                merge(
                    Resource::Pods,
                    pod,
                    repair_patch(uid, labels, volumes.as_ref()),
                )
            }
            Step::DeletePod {
                pod,
                uid,
                ordinal: _,
                because: _,
            } => delete(Resource::Pods, pod, uid),
            Step::WriteStatus { status } => Call {
                resource: Resource::StatefulSets,
                name: set.name.clone(),
                action: Action::Patch {
                    kind: PatchKind::Merge,
                    subresource: Some("status"),
                    patch: status.patch(set),
                },
            },
        }
    }
}

/// upstream: updateClaimOwnerRefForSetAndPod, sent as a PUT there.
fn owners_patch(uid: &str, resource_version: &str, owners: Vec<Value>) -> Value {
    json!({"metadata": {"uid": uid, "resourceVersion": resource_version, "ownerReferences": owners}})
}

/// upstream: updateIdentity and updateStorage, sent as a PUT there.
fn repair_patch(uid: &str, labels: Option<Value>, volumes: Option<&Json>) -> Value {
    let mut patch = json!({"metadata": {"uid": uid}});
    if let (Some(labels), Some(metadata)) = (labels, patch.get_mut("metadata")) {
        identity::put(metadata, "labels", labels);
    }
    if let Some(volumes) = volumes {
        identity::put(&mut patch, "spec", json!({"volumes": volumes.value()}));
    }
    patch
}

fn labels_of(pod: &str, ordinal: Ordinal) -> Value {
    json!({POD_NAME_LABEL: pod, POD_INDEX_LABEL: ordinal.to_string()})
}

fn new_claim(set: &Set, template: &str, ordinal: Ordinal) -> Value {
    let template = set
        .claim_templates
        .iter()
        .find(|candidate| &*candidate.name == template);
    template.map_or(Value::Null, |template| {
        identity::new_claim(set, template, ordinal)
    })
}

fn create(resource: Resource, name: &Arc<str>, object: Value) -> Call {
    Call {
        resource,
        name: name.clone(),
        action: Action::Create { object },
    }
}

fn merge(resource: Resource, name: &Arc<str>, patch: Value) -> Call {
    Call {
        resource,
        name: name.clone(),
        action: Action::Patch {
            kind: PatchKind::Merge,
            subresource: None,
            patch,
        },
    }
}

fn strategic(resource: Resource, name: &Arc<str>, uid: &str, owner: Value) -> Call {
    let patch = json!({"metadata": {"uid": uid, "ownerReferences": [owner]}});
    Call {
        resource,
        name: name.clone(),
        action: Action::Patch {
            kind: PatchKind::Strategic,
            subresource: None,
            patch,
        },
    }
}

fn delete(resource: Resource, name: &Arc<str>, uid: &Arc<str>) -> Call {
    Call {
        resource,
        name: name.clone(),
        action: Action::Delete { uid: uid.clone() },
    }
}

/// upstream: newRevision, NewControllerRevision.
fn new_revision(set: &Set, name: &str, hash: &str, number: i64) -> Value {
    let labels = set
        .template
        .get("metadata")
        .and_then(|metadata| metadata.get("labels"));
    let mut labels = labels
        .filter(|labels| labels.is_object())
        .cloned()
        .unwrap_or_else(|| json!({}));
    identity::put(&mut labels, HASH_LABEL, Value::from(hash));
    let mut metadata = json!({
        "name": name,
        "namespace": &*set.namespace,
        "labels": labels,
        "ownerReferences": [identity::set_reference(set)],
    });
    if set
        .annotations
        .as_object()
        .is_some_and(|annotations| !annotations.is_empty())
    {
        identity::put(
            &mut metadata,
            "annotations",
            set.annotations.value().clone(),
        );
    }
    json!({"apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": metadata, "data": set.data.value(), "revision": number})
}
