//! The Kubernetes Events that upstream records, word for word: runbooks and alerts know them.

use crate::identity;
use crate::observed::Set;
use crate::step::Step;

/// An Event about the set. upstream's source component is `statefulset-controller`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KubeEvent {
    /// `type`.
    pub event_type: EventType,
    /// `reason`.
    pub reason: &'static str,
    /// `message`.
    pub message: String,
}

/// `type` of an Event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    /// All is as planned.
    Normal,
    /// Somebody should look.
    Warning,
}

impl EventType {
    /// The word in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            EventType::Normal => "Normal",
            EventType::Warning => "Warning",
        }
    }
}

impl KubeEvent {
    pub(crate) fn warning(reason: &'static str, message: String) -> KubeEvent {
        KubeEvent {
            event_type: EventType::Warning,
            reason,
            message,
        }
    }

    fn normal(reason: &'static str, message: String) -> KubeEvent {
        KubeEvent {
            event_type: EventType::Normal,
            reason,
            message,
        }
    }

    /// upstream: recordPodEvent with an error.
    pub(crate) fn pod_failed(verb: Verb, pod: &str, set: &str, error: &str) -> KubeEvent {
        KubeEvent::warning(
            verb.failed(),
            format!(
                "{} Pod {pod} in StatefulSet {set} failed error: {error}",
                verb.word()
            ),
        )
    }

    fn pod_done(verb: Verb, pod: &str, set: &str) -> KubeEvent {
        KubeEvent::normal(
            verb.done(),
            format!("{} Pod {pod} in StatefulSet {set} successful", verb.word()),
        )
    }

    fn of_pod(verb: Verb, pod: &str, set: &str, outcome: Result<(), &str>) -> KubeEvent {
        match outcome {
            Ok(()) => KubeEvent::pod_done(verb, pod, set),
            Err(error) => KubeEvent::pod_failed(verb, pod, set, error),
        }
    }

    fn of_claim(claim: &str, pod: &str, set: &str, outcome: Result<(), &str>) -> KubeEvent {
        match outcome {
            Ok(()) => KubeEvent::normal(
                "SuccessfulCreate",
                format!("Create Claim {claim} Pod {pod} in StatefulSet {set} success"),
            ),
            Err(error) => KubeEvent::warning(
                "FailedCreate",
                format!(
                    "Create Claim {claim} for Pod {pod} in StatefulSet {set} failed error: {error}"
                ),
            ),
        }
    }
}

#[derive(Clone, Copy)]
pub(crate) enum Verb {
    Create,
    Update,
    Delete,
}

impl Verb {
    fn word(self) -> &'static str {
        match self {
            Verb::Create => "Create",
            Verb::Update => "Update",
            Verb::Delete => "Delete",
        }
    }

    fn done(self) -> &'static str {
        match self {
            Verb::Create => "SuccessfulCreate",
            Verb::Update => "SuccessfulUpdate",
            Verb::Delete => "SuccessfulDelete",
        }
    }

    fn failed(self) -> &'static str {
        match self {
            Verb::Create => "FailedCreate",
            Verb::Update => "FailedUpdate",
            Verb::Delete => "FailedDelete",
        }
    }
}

impl Step {
    /// The Event that tells of this step, after it was sent; `Err` holds the server's message. Most steps are told by none.
    ///
    /// A create that is refused with AlreadyExists, and a delete answered NotFound, are not failures to tell of: upstream is
    /// silent on the first and takes the second as success.
    pub fn event(&self, set: &Set, outcome: Result<(), &str>) -> Option<KubeEvent> {
        match self {
            Step::CreatePod { pod, .. } => {
                Some(KubeEvent::of_pod(Verb::Create, pod, &set.name, outcome))
            }
            Step::UpdatePod { pod, .. } => {
                Some(KubeEvent::of_pod(Verb::Update, pod, &set.name, outcome))
            }
            Step::DeletePod { pod, .. } => {
                Some(KubeEvent::of_pod(Verb::Delete, pod, &set.name, outcome))
            }
            Step::CreateClaim { claim, ordinal, .. } => Some(KubeEvent::of_claim(
                claim,
                &identity::pod_name(&set.name, *ordinal),
                &set.name,
                outcome,
            )),
            Step::PatchClaim { ordinal, .. } => {
                let pod = identity::pod_name(&set.name, *ordinal);
                outcome
                    .err()
                    .map(|error| KubeEvent::pod_failed(Verb::Update, &pod, &set.name, error))
            }
            Step::AdoptRevision { .. }
            | Step::AdoptPod { .. }
            | Step::ReleasePod { .. }
            | Step::CreateRevision { .. }
            | Step::RenumberRevision { .. }
            | Step::DeleteRevision { .. }
            | Step::WriteStatus { .. } => None,
        }
    }
}
