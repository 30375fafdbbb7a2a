//! One thing to do, complete: what is needed to do it, on which object exactly, and why.

use std::fmt;
use std::sync::Arc;

use crate::identity::Ordinal;
use crate::json::Json;
use crate::observed::Phase;
use crate::owners::Owners;
use crate::status::Status;

/// A single write to the API. [`Step::call`](crate::Step::call) says how it is sent.
///
/// Every step about an existing object carries the UID that was seen, so that a namesake made meanwhile is never touched.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Make an orphaned revision of the set its own.
    AdoptRevision {
        /// Name of the revision.
        revision: Arc<str>,
        /// UID of the revision.
        uid: Arc<str>,
    },
    /// Make an orphaned pod of the set its own.
    AdoptPod {
        /// Name of the pod.
        pod: Arc<str>,
        /// UID of the pod.
        uid: Arc<str>,
    },
    /// Let a pod go that no longer belongs to the set; it lives on without an owner.
    ReleasePod {
        /// Name of the pod.
        pod: Arc<str>,
        /// UID of the pod.
        uid: Arc<str>,
        /// Why it no longer belongs.
        because: ReleaseReason,
    },
    /// Record the template as a new ControllerRevision.
    CreateRevision {
        /// Name: the set's and the hash.
        revision: Arc<str>,
        /// The hash for its label: that of the first name tried, as upstream leaves it.
        hash: Arc<str>,
        /// Its number, above all others.
        number: i64,
    },
    /// The template equals an older revision: that one becomes the newest again and keeps its name.
    RenumberRevision {
        /// Name of the revision.
        revision: Arc<str>,
        /// UID of the revision.
        uid: Arc<str>,
        /// Number it had.
        from: i64,
        /// Number it gets, above all others.
        to: i64,
    },
    /// Forget an old revision that nothing uses.
    DeleteRevision {
        /// Name of the revision.
        revision: Arc<str>,
        /// UID of the revision.
        uid: Arc<str>,
        /// `spec.revisionHistoryLimit`, which it is beyond.
        limit: u32,
    },
    /// Make a claim that a pod needs.
    CreateClaim {
        /// Name of the claim.
        claim: Arc<str>,
        /// Ordinal that it is for.
        ordinal: Ordinal,
        /// Claim template that it is made from.
        template: Arc<str>,
    },
    /// Set the owners of a claim as the retention policy wants them: they decide what the garbage collector deletes.
    PatchClaim {
        /// Name of the claim.
        claim: Arc<str>,
        /// UID of the claim.
        uid: Arc<str>,
        /// The version that was seen: owners changed meanwhile must not be overwritten.
        resource_version: Arc<str>,
        /// Ordinal that it belongs to.
        ordinal: Ordinal,
        /// The owners it shall have.
        owners: Owners,
    },
    /// Make the pod of an ordinal; its claims come earlier in the same lane.
    CreatePod {
        /// Name of the pod.
        pod: Arc<str>,
        /// Its ordinal.
        ordinal: Ordinal,
        /// Name of the revision that its template comes from.
        revision: Arc<str>,
        /// That template.
        template: Json,
    },
    /// Give a pod back the labels or volumes of its ordinal.
    UpdatePod {
        /// Name of the pod.
        pod: Arc<str>,
        /// UID of the pod.
        uid: Arc<str>,
        /// Its ordinal.
        ordinal: Ordinal,
        /// What is not as it should be.
        because: Repair,
        /// All `spec.volumes` it shall have, a list; `None` where they are right.
        volumes: Option<Json>,
    },
    /// Stop a pod, gracefully.
    DeletePod {
        /// Name of the pod.
        pod: Arc<str>,
        /// UID of the pod, a precondition of the delete.
        uid: Arc<str>,
        /// Its ordinal.
        ordinal: Ordinal,
        /// Why it goes.
        because: DeleteReason,
    },
    /// Store the set's status.
    WriteStatus {
        /// The status.
        status: Status,
    },
}

/// Why a pod is deleted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum DeleteReason {
    /// It has ended (failed, succeeded, was evicted) and shall be replaced.
    Ended {
        /// How: `Failed` or `Succeeded`.
        phase: Phase,
    },
    /// Its ordinal is no longer wanted.
    Condemned,
    /// It does not have the revision that its ordinal shall have.
    Outdated {
        /// The revision its label names.
        has: Option<Arc<str>>,
        /// The update revision.
        wants: Arc<str>,
    },
}

/// Why a pod is let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReleaseReason {
    /// The set's selector does not match its labels any more.
    SelectorMismatch,
    /// Its name is not that of a member of the set.
    NotAMember,
}

/// What of a pod is not as its ordinal's shall be. At least one is true.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Repair {
    /// The pod-name label.
    pub identity: bool,
    /// The volumes.
    pub storage: bool,
}

impl Step {
    /// The variant's name, for metrics, spans and JSON output.
    pub fn reason(&self) -> &'static str {
        match self {
            Step::AdoptRevision { .. } => "AdoptRevision",
            Step::AdoptPod { .. } => "AdoptPod",
            Step::ReleasePod { .. } => "ReleasePod",
            Step::CreateRevision { .. } => "CreateRevision",
            Step::RenumberRevision { .. } => "RenumberRevision",
            Step::DeleteRevision { .. } => "DeleteRevision",
            Step::CreateClaim { .. } => "CreateClaim",
            Step::PatchClaim { .. } => "PatchClaim",
            Step::CreatePod { .. } => "CreatePod",
            Step::UpdatePod { .. } => "UpdatePod",
            Step::DeletePod { .. } => "DeletePod",
            Step::WriteStatus { .. } => "WriteStatus",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::AdoptRevision { revision, uid: _ } => write!(out, "adopt revision {revision}"),
            Step::AdoptPod { pod, uid: _ } => write!(out, "adopt pod {pod}"),
            Step::ReleasePod {
                pod,
                uid: _,
                because,
            } => write!(out, "release pod {pod} because {because}"),
            Step::CreateRevision {
                revision,
                hash: _,
                number,
            } => write!(out, "create revision {revision} as number {number}"),
            Step::RenumberRevision {
                revision,
                uid: _,
                from,
                to,
            } => {
                write!(
                    out,
                    "renumber revision {revision} from {from} to {to} because the template is equal to it"
                )
            }
            Step::DeleteRevision {
                revision,
                uid: _,
                limit,
            } => {
                write!(
                    out,
                    "delete revision {revision} because the history keeps {limit}"
                )
            }
            Step::CreateClaim {
                claim,
                ordinal: _,
                template: _,
            } => write!(out, "create claim {claim}"),
            Step::PatchClaim {
                claim,
                uid: _,
                resource_version: _,
                ordinal: _,
                owners,
            } => {
                write!(out, "patch claim {claim} to be owned by {owners}")
            }
            Step::CreatePod {
                pod,
                ordinal: _,
                revision,
                template: _,
            } => write!(out, "create pod {pod} at revision {revision}"),
            Step::UpdatePod {
                pod,
                uid: _,
                ordinal: _,
                because,
                volumes: _,
            } => write!(out, "update pod {pod} because {because}"),
            Step::DeletePod {
                pod,
                uid: _,
                ordinal: _,
                because,
            } => write!(out, "delete pod {pod} because {because}"),
            Step::WriteStatus { status: _ } => write!(out, "write status"),
        }
    }
}

impl fmt::Display for DeleteReason {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeleteReason::Ended { phase } => write!(out, "it is {phase} and will be replaced"),
            DeleteReason::Condemned => out.write_str("its ordinal is no longer wanted"),
            DeleteReason::Outdated {
                has: Some(has),
                wants,
            } => write!(out, "it has revision {has}, not {wants}"),
            DeleteReason::Outdated { has: None, wants } => {
                write!(out, "it has no revision, not {wants}")
            }
        }
    }
}

impl fmt::Display for ReleaseReason {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            ReleaseReason::SelectorMismatch => "the selector does not match its labels",
            ReleaseReason::NotAMember => "its name is not one of the set's",
        })
    }
}

impl fmt::Display for Repair {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { identity, storage } = self;
        out.write_str(match (identity, storage) {
            (true, true) => "its labels and its volumes are not its ordinal's",
            (false, true) => "its volumes are not its ordinal's",
            (true, false) => "its labels are not its ordinal's",
            (false, false) => "nothing",
        })
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Phase::Absent => "without a phase",
            Phase::Pending => "Pending",
            Phase::Running => "Running",
            Phase::Succeeded => "Succeeded",
            Phase::Failed => "Failed",
            Phase::Unknown => "Unknown",
        })
    }
}
