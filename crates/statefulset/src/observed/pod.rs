//! A pod as decisions see it: who it is, who controls it, how it fares, which claims it mounts. Independent of any set.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use super::fields::{Fields, Wrong, name_of};
use super::{Malformed, Pairs, Resource};
use crate::identity::{self, Ordinal, POD_NAME_LABEL, REVISION_LABEL};

/// The facts of a pod that decisions read; a cache may keep this instead of the whole object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pod {
    /// `metadata.name`.
    pub name: Arc<str>,
    /// `metadata.uid`; empty only where a server gave none.
    pub uid: Arc<str>,
    /// The number in the name, where it fits an int32.
    pub ordinal: Option<Ordinal>,
    /// `metadata.labels`.
    pub labels: Pairs,
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
    /// `spec.volumes`: each one's name with its claim's, which is empty for a volume of another kind.
    pub mounts: Pairs,
    /// `spec.volumes` as they stand, JSON text, for a repair that must keep the other ones.
    pub volumes: Arc<str>,
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

impl Pod {
    /// By its name the pod is a member of this set: `web` for `web-2`.
    pub fn is_member_of(&self, set: &str) -> bool {
        let digits = self
            .name
            .strip_prefix(set)
            .and_then(|rest| rest.strip_prefix('-'));
        digits.is_some_and(|digits| {
            !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
        })
    }

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
    let volumes = fields.list(&["spec", "volumes"])?;
    let mounts = volumes
        .iter()
        .map(mount)
        .collect::<Result<Vec<_>, Wrong>>()?;
    let labels = labels(fields)?;
    Ok(Pod {
        name: name.into(),
        uid: fields.text(&["metadata", "uid"])?.into(),
        ordinal: member.and_then(|(_, ordinal)| ordinal),
        revision: labels.get(REVISION_LABEL).map(Arc::from),
        bears_its_name: labels.get(POD_NAME_LABEL) == Some(name),
        labels,
        controller: controller(fields)?,
        terminating: fields.has(&["metadata", "deletionTimestamp"]),
        phase: phase(fields.text(&["status", "phase"])?),
        ready: ready(fields)?,
        mounts: Pairs::new(mounts),
        volumes: Value::from(volumes).to_string().into(),
    })
}

pub(super) fn labels(fields: Fields<'_>) -> Result<Pairs, Wrong> {
    let Some(labels) = fields.at(&["metadata", "labels"]) else {
        return Ok(Pairs::new([]));
    };
    let labels = labels
        .as_object()
        .ok_or("metadata.labels is not an object")?;
    let pair = |(key, value): (&'_ String, &'_ Value)| match value.as_str() {
        Some(_) => Ok(()),
        None => Err(Wrong::from(format!(
            "metadata.labels[{key}] is not a string"
        ))),
    };
    labels.iter().try_for_each(pair)?;
    Ok(Pairs::new(labels.iter().filter_map(|(key, value)| {
        Some((key.as_str(), value.as_str()?))
    })))
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

fn mount(volume: &Value) -> Result<(&str, &str), Wrong> {
    let volume = Fields::of(volume);
    Ok((
        volume.text(&["name"])?,
        volume.text(&["persistentVolumeClaim", "claimName"])?,
    ))
}
