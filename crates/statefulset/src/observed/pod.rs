//! A pod as decisions see it: who it is, who controls it, how it fares, which claims it mounts. Independent of any set.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use super::fields::{Fields, Wrong, name_of};
use super::{Malformed, Resource};
use crate::identity::{self, Ordinal, POD_NAME_LABEL, REVISION_LABEL};
use crate::json::Json;

/// The facts of a pod that decisions read; a cache may keep this instead of the whole object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pod {
    /// `metadata.name`.
    pub name: Arc<str>,
    /// `metadata.uid`; empty only where a server gave none.
    pub uid: Arc<str>,
    /// The set whose member the pod is by name: `web` for `web-2`.
    pub parent: Option<Arc<str>>,
    /// The number in the name, where it fits an int32.
    pub ordinal: Option<Ordinal>,
    /// `metadata.labels`, which the selector reads.
    pub labels: Arc<BTreeMap<String, String>>,
    /// The label with the name of its ControllerRevision.
    pub revision: Option<Arc<str>>,
    /// The pod-name label is the pod's name.
    pub bears_its_name: bool,
    /// The owner reference that controls, if any.
    pub controller: Option<Controller>,
    /// `metadata.deletionTimestamp` is set: the pod is being stopped.
    pub terminating: bool,
    /// `status.phase`.
    pub phase: Phase,
    /// The condition `Ready`.
    pub ready: Ready,
    /// `spec.volumes`, reduced to what storage is compared by.
    pub volumes: Arc<[Volume]>,
    /// `spec.volumes` as they stand, for a repair that must keep the other ones.
    pub raw_volumes: Json,
}

/// The owner reference with `controller: true`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Controller {
    /// Kind of the owner.
    pub kind: Arc<str>,
    /// Name of the owner.
    pub name: Arc<str>,
    /// UID of the owner, which alone decides whose the object is.
    pub uid: Arc<str>,
}

/// `status.phase`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// No phase at all: to upstream such a pod is "not created".
    Absent,
    /// Accepted, not all containers started.
    Pending,
    /// Bound, all containers created, at least one running or (re)starting.
    Running,
    /// All containers ended with success.
    Succeeded,
    /// All containers ended, one of them with failure; evictions too.
    Failed,
    /// The node does not report; any word that is none of the above counts as this.
    Unknown,
}

/// The condition `Ready` of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ready {
    /// Absent, or not `True`.
    No,
    /// `True` since this time; `None` where no transition time is recorded.
    Since(Option<Timestamp>),
}

/// A volume of a pod: its name and, where it is one, its claim.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Volume {
    /// The volume's name.
    pub name: Arc<str>,
    /// `persistentVolumeClaim.claimName`.
    pub claim: Option<Arc<str>>,
}

impl Pod {
    /// Reads a pod's facts from its JSON.
    ///
    /// # Errors
    /// The first field that has a wrong type, or a missing name.
    pub fn parse(pod: &Value) -> Result<Pod, Malformed> {
        facts(pod).map_err(|why| Malformed {
            resource: Resource::Pods,
            name: name_of(pod),
            why,
        })
    }
}

fn facts(pod: &Value) -> Result<Pod, Wrong> {
    let fields = Fields::of(pod);
    let name = fields.required_text(&["metadata", "name"])?;
    let member = identity::parent_and_ordinal(name);
    let labels = labels(fields)?;
    Ok(Pod {
        name: name.into(),
        uid: fields.text(&["metadata", "uid"])?.into(),
        parent: member.map(|(parent, _)| parent.into()),
        ordinal: member.and_then(|(_, ordinal)| ordinal),
        revision: labels
            .get(REVISION_LABEL)
            .map(|revision| revision.as_str().into()),
        bears_its_name: labels
            .get(POD_NAME_LABEL)
            .is_some_and(|label| label == name),
        labels: Arc::new(labels),
        controller: controller(fields)?,
        terminating: fields.has(&["metadata", "deletionTimestamp"]),
        phase: phase(fields.text(&["status", "phase"])?),
        ready: ready(fields)?,
        volumes: fields
            .list(&["spec", "volumes"])?
            .iter()
            .map(volume)
            .collect::<Result<_, Wrong>>()?,
        raw_volumes: Json::new(Value::Array(fields.list(&["spec", "volumes"])?.to_vec())),
    })
}

pub(super) fn labels(fields: Fields<'_>) -> Result<BTreeMap<String, String>, Wrong> {
    let Some(labels) = fields.at(&["metadata", "labels"]) else {
        return Ok(BTreeMap::new());
    };
    let labels = labels
        .as_object()
        .ok_or("metadata.labels is not an object")?;
    let pair = |(key, value): (&String, &Value)| match value.as_str() {
        Some(value) => Ok((key.clone(), value.to_owned())),
        None => Err(format!("metadata.labels[{key}] is not a string").into()),
    };
    labels.iter().map(pair).collect()
}

/// upstream: metav1.GetControllerOf, the first reference that controls.
pub(super) fn controller(fields: Fields<'_>) -> Result<Option<Controller>, Wrong> {
    for reference in fields.list(&["metadata", "ownerReferences"])? {
        let reference = Fields::of(reference);
        if reference.at(&["controller"]) == Some(&Value::Bool(true)) {
            return Ok(Some(Controller {
                kind: reference.text(&["kind"])?.into(),
                name: reference.text(&["name"])?.into(),
                uid: reference.text(&["uid"])?.into(),
            }));
        }
    }
    Ok(None)
}

fn phase(word: &str) -> Phase {
    match word {
        "" => Phase::Absent,
        "Pending" => Phase::Pending,
        "Running" => Phase::Running,
        "Succeeded" => Phase::Succeeded,
        "Failed" => Phase::Failed,
        _ => Phase::Unknown,
    }
}

fn ready(fields: Fields<'_>) -> Result<Ready, Wrong> {
    for condition in fields.list(&["status", "conditions"])? {
        let condition = Fields::of(condition);
        if condition.text(&["type"])? != "Ready" {
            continue;
        }
        return Ok(match condition.text(&["status"])? {
            "True" => Ready::Since(condition.time(&["lastTransitionTime"])?),
            _ => Ready::No,
        });
    }
    Ok(Ready::No)
}

fn volume(volume: &Value) -> Result<Volume, Wrong> {
    let volume = Fields::of(volume);
    let claim = volume.text(&["persistentVolumeClaim", "claimName"])?;
    let mounts_claim = volume.has(&["persistentVolumeClaim"]);
    Ok(Volume {
        name: volume.text(&["name"])?.into(),
        claim: mounts_claim.then(|| claim.into()),
    })
}
