//! What a decision consists of: closed lists of steps, notes and blockers.

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;

use super::actual::{HookId, Memory};

/// What to do now about one pod, in order, and what it waits for.
#[derive(Debug, Clone, PartialEq)]
#[must_use = "a decision does nothing until it is executed"]
pub struct Decision {
    /// To be executed in order; the first failure ends the round.
    pub steps: Vec<Step>,
    /// Everything that keeps the pod from where it is to be.
    pub blockers: Vec<Blocker>,
    /// When to decide again even if nothing changes.
    pub wake_at: Option<Timestamp>,
    /// What to remember for the next round.
    pub memory: Memory,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Write this status to the API.
    ReportStatus(Box<core::PodStatus>),
    /// Tell this as a Kubernetes Event.
    Record(Note),
    /// Make the pod's volumes.
    MakeVolumes,
    /// Give the pod its place.
    PreparePod,
    /// Get the image for this life of this container; how that went is seen in a later round.
    PullImage {
        /// The container.
        container: String,
        /// Which life.
        attempt: u32,
    },
    /// Start this life of this container.
    StartContainer {
        /// The container.
        container: String,
        /// Which life.
        attempt: u32,
    },
    /// Run a hook; its end is seen in a later round.
    RunHook {
        /// Which.
        id: HookId,
        /// When it must have ended.
        deadline: Option<Timestamp>,
    },
    /// Ask a container to end.
    StopContainer {
        /// The container.
        container: String,
        /// Which life.
        attempt: u32,
        /// The signal to send.
        signal: i32,
        /// When it will be killed.
        deadline: Timestamp,
    },
    /// End every process of a container.
    KillContainer {
        /// The container.
        container: String,
        /// Which life.
        attempt: u32,
    },
    /// Forget an old life: its record, its layer and its log.
    ForgetContainer {
        /// The container.
        container: String,
        /// Which life.
        attempt: u32,
    },
    /// Give back the place; refused while any process lives.
    ReleasePod,
    /// Remove the object from the API, by UID.
    RemovePodObject,
    /// Nothing is left to do for this pod, ever: remove its folder and end.
    Finish,
}

/// A Kubernetes Event to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// `Warning` rather than `Normal`.
    pub warning: bool,
    /// CamelCase reason, the kubelet's own.
    pub reason: &'static str,
    /// The sentence.
    pub message: String,
    /// Which container it is about: list of the spec and name, as `fieldPath` has it.
    pub about: Option<(&'static str, String)>,
}

/// Why a pod is not where it is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Blocker {
    /// A former pod of the same name is not proved gone.
    FormerHolder {
        /// Its UID.
        uid: String,
    },
    /// The node refused it.
    Rejected {
        /// The reason in its status.
        reason: String,
    },
    /// Its volumes cannot be made yet.
    Volumes {
        /// Why.
        message: String,
    },
    /// Its place cannot be made yet.
    Place {
        /// Why.
        message: String,
    },
    /// An init container has not ended, or a sidecar has not come up.
    Initializing {
        /// Which.
        container: String,
    },
    /// A container is being started, or its postStart hook runs.
    Starting {
        /// Which.
        container: String,
    },
    /// The image of a container is being fetched.
    Pulling {
        /// Which.
        container: String,
    },
    /// A container waits before its next start.
    BackOff {
        /// Which.
        container: String,
        /// Until when.
        until: Timestamp,
    },
    /// A container cannot be started.
    Failing {
        /// Which.
        container: String,
        /// The reason in its status.
        reason: &'static str,
    },
    /// A container is being stopped.
    Stopping {
        /// Which.
        container: String,
        /// When it will be killed.
        deadline: Timestamp,
    },
    /// A container runs but is not ready.
    NotReady {
        /// Which.
        container: String,
    },
    /// A readiness gate is not true.
    GateClosed {
        /// Its condition.
        gate: String,
    },
    /// Processes are left, or the place could not be given back.
    Held,
    /// The object waits for a finalizer, or for the API to let it go.
    ObjectRemains,
}
