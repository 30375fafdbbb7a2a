//! Why a set does not move: a closed list of reasons, each with its sentence.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;

use crate::observed::{Malformed, Mark, Phase, Resource};

/// A reason why something that is wanted does not happen now. Its `Display` is the sentence that `status` and `explain` print.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Blocker {
    /// A cache does not show our own last write yet.
    StaleCache {
        /// Which cache.
        resource: Resource,
        /// What it shows and what it must show.
        mark: Mark,
    },
    /// An object could not be understood.
    Malformed(Malformed),
    /// `apps/v1` does not have this strategy. upstream: the alpha gate StatefulSetRecreateStrategy is off.
    StrategyRefused,
    /// The set is being deleted: its pods are the garbage collector's.
    SetDeleting,
    /// An orphaned revision cannot be adopted, for the set is being deleted. upstream ends the sync with an error.
    SetDeletingWithOrphans {
        /// The first such revision.
        revision: Arc<str>,
    },
    /// The name that an ordinal's pod must have is taken.
    NameTaken {
        /// The name.
        pod: Arc<str>,
        /// By what.
        holder: Holder,
    },
    /// The name of a new revision is taken by other data, or by equal data out of the set's reach. The round goes on, with the next name or
    /// with that revision; upstream learns of it by a refused create.
    RevisionNameTaken {
        /// The name.
        revision: Arc<str>,
    },
    /// A pod has the ordinal's number in another spelling (`web-01`), which no repair can change.
    OddName {
        /// The pod.
        pod: Arc<str>,
        /// The name it would have to have.
        canonical: Arc<str>,
    },
    /// The pod exists, but nothing has ever reported on it.
    Unreported {
        /// The pod.
        pod: Arc<str>,
    },
    /// A claim that a pod needs is being deleted.
    ClaimTerminating {
        /// The claim.
        claim: Arc<str>,
        /// The pod that needs it.
        pod: Arc<str>,
    },
    /// A claim still belongs to an earlier pod of that name: the garbage collector is about to delete it.
    ClaimStale {
        /// The claim.
        claim: Arc<str>,
        /// The pod that waits for a fresh one.
        pod: Arc<str>,
    },
    /// A pod is being stopped; its successor comes when it is gone.
    Terminating {
        /// The pod.
        pod: Arc<str>,
    },
    /// A pod does not run yet, or no more.
    NotRunning {
        /// The pod.
        pod: Arc<str>,
        /// What it does instead.
        phase: Phase,
    },
    /// A pod runs but is not ready.
    NotReady {
        /// The pod.
        pod: Arc<str>,
    },
    /// A pod is ready, but not for long enough.
    NotAvailable {
        /// The pod.
        pod: Arc<str>,
        /// How long it must be.
        min_ready_seconds: u32,
        /// When it will have been; `None` where nobody noted since when it is ready.
        available_at: Option<Timestamp>,
    },
    /// An unhealthy pod that is to go waits for another unhealthy one. upstream: kubernetes#36333, resolved by hand only.
    CondemnedWaits {
        /// The pod that is to go.
        pod: Arc<str>,
        /// The one that must become available, or be deleted by hand, first.
        behind: Arc<str>,
    },
    /// Pods of an older revision must be gone before new ones come (strategy Recreate).
    OldRevisionRemains {
        /// The first such pod.
        pod: Arc<str>,
    },
    /// An update would make more pods unavailable than allowed.
    BudgetSpent {
        /// Unavailable pods, those that this round deletes included.
        unavailable: u32,
        /// How many may be.
        max_unavailable: u32,
    },
    /// Outdated pods stay because the partition holds them.
    Partition {
        /// `rollingUpdate.partition`.
        partition: u32,
        /// How many pods it holds.
        pods: u32,
    },
    /// Outdated pods stay until somebody deletes them (strategy OnDelete).
    OnDelete {
        /// How many.
        pods: u32,
    },
    /// More was to create than one round takes; the next round goes on.
    RoundFull {
        /// Pods created in this round.
        created: u32,
    },
}

/// What has a name that the set needs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Holder {
    /// A pod of another controller.
    Stranger {
        /// Its kind.
        kind: Arc<str>,
        /// Its name.
        name: Arc<str>,
    },
    /// A pod without an owner that the selector does not match (or that was just released).
    Unselected,
    /// A pod without an owner that is being deleted, too late to adopt.
    Leaving,
}

/// What makes it worth looking again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Retry {
    /// A change of the objects watched, or [`recheck_at`](crate::Decision::recheck_at).
    OnChange,
    /// Nothing that is certain to be seen: look again after a back-off, as upstream does after an error.
    WithBackoff,
}

impl Blocker {
    /// When to look again. Those that answer [`Retry::WithBackoff`] are errors to upstream.
    pub fn retry(&self) -> Retry {
        match self {
            Blocker::SetDeletingWithOrphans { .. }
            | Blocker::NameTaken { .. }
            | Blocker::OddName { .. }
            | Blocker::Unreported { .. }
            | Blocker::ClaimTerminating { .. }
            | Blocker::StrategyRefused
            | Blocker::RoundFull { .. } => Retry::WithBackoff,
            Blocker::StaleCache { .. }
            | Blocker::Malformed(_)
            | Blocker::SetDeleting
            | Blocker::RevisionNameTaken { .. }
            | Blocker::ClaimStale { .. }
            | Blocker::Terminating { .. }
            | Blocker::NotRunning { .. }
            | Blocker::NotReady { .. }
            | Blocker::NotAvailable { .. }
            | Blocker::CondemnedWaits { .. }
            | Blocker::OldRevisionRemains { .. }
            | Blocker::BudgetSpent { .. }
            | Blocker::Partition { .. }
            | Blocker::OnDelete { .. } => Retry::OnChange,
        }
    }

    /// The variant's name, for metrics, JSON output and conditions.
    pub fn reason(&self) -> &'static str {
        match self {
            Blocker::StaleCache { .. } => "StaleCache",
            Blocker::Malformed(_) => "Malformed",
            Blocker::StrategyRefused => "StrategyRefused",
            Blocker::SetDeleting => "SetDeleting",
            Blocker::SetDeletingWithOrphans { .. } => "SetDeletingWithOrphans",
            Blocker::NameTaken { .. } => "NameTaken",
            Blocker::RevisionNameTaken { .. } => "RevisionNameTaken",
            Blocker::OddName { .. } => "OddName",
            Blocker::Unreported { .. } => "Unreported",
            Blocker::ClaimTerminating { .. } => "ClaimTerminating",
            Blocker::ClaimStale { .. } => "ClaimStale",
            Blocker::Terminating { .. } => "Terminating",
            Blocker::NotRunning { .. } => "NotRunning",
            Blocker::NotReady { .. } => "NotReady",
            Blocker::NotAvailable { .. } => "NotAvailable",
            Blocker::CondemnedWaits { .. } => "CondemnedWaits",
            Blocker::OldRevisionRemains { .. } => "OldRevisionRemains",
            Blocker::BudgetSpent { .. } => "BudgetSpent",
            Blocker::Partition { .. } => "Partition",
            Blocker::OnDelete { .. } => "OnDelete",
            Blocker::RoundFull { .. } => "RoundFull",
        }
    }
}

impl fmt::Display for Blocker {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Blocker::StaleCache { resource, mark } => {
                write!(out, "the cache of {} shows version {}, not yet our own write {}", resource.plural(), mark.seen, mark.wrote)
            }
            Blocker::Malformed(malformed) => write!(out, "{malformed}"),
            Blocker::StrategyRefused => out.write_str("apps/v1 does not have the update strategy Recreate; choose RollingUpdate or OnDelete"),
            Blocker::SetDeleting => out.write_str("the set is being deleted; the garbage collector removes its pods"),
            Blocker::SetDeletingWithOrphans { revision } => {
                write!(out, "revision {revision} has no owner and cannot be adopted, for the set is being deleted")
            }
            Blocker::NameTaken { pod, holder } => write!(out, "the name {pod} is taken by {holder}"),
            Blocker::RevisionNameTaken { revision } => write!(out, "the revision name {revision} is taken already"),
            Blocker::OddName { pod, canonical } => write!(out, "{pod} stands in the place of {canonical}; delete it or orphan it"),
            Blocker::Unreported { pod } => write!(out, "{pod} exists, but nothing has reported on it"),
            Blocker::ClaimTerminating { claim, pod } => write!(out, "claim {claim}, which {pod} needs, is being deleted"),
            Blocker::ClaimStale { claim, pod } => {
                write!(out, "claim {claim} belongs to an earlier {pod} and is about to be deleted; {pod} waits for a fresh one")
            }
            Blocker::Terminating { pod } => write!(out, "{pod} is terminating"),
            Blocker::NotRunning { pod, phase } => write!(out, "{pod} is {phase}"),
            Blocker::NotReady { pod } => write!(out, "{pod} is not Ready"),
            Blocker::NotAvailable { pod, min_ready_seconds, available_at: Some(at) } => {
                write!(out, "{pod} is Ready, but not for {min_ready_seconds} s; it is available at {at}")
            }
            Blocker::NotAvailable { pod, min_ready_seconds, available_at: None } => {
                write!(out, "{pod} is Ready, but nobody noted whether for {min_ready_seconds} s")
            }
            Blocker::CondemnedWaits { pod, behind } => {
                write!(out, "{pod} is to go but is not healthy, and waits for {behind}, which is not either; heal or delete {behind}")
            }
            Blocker::OldRevisionRemains { pod } => write!(out, "{pod} still has an older revision; new pods come when all such are gone"),
            Blocker::BudgetSpent { unavailable, max_unavailable } => {
                write!(out, "{unavailable} unavailable, and an update goes on below {max_unavailable}")
            }
            Blocker::Partition { partition, pods } => write!(out, "the partition {partition} keeps {pods} at the current revision"),
            Blocker::OnDelete { pods } => write!(out, "{pods} outdated; the strategy OnDelete leaves it to you to delete them"),
            Blocker::RoundFull { created } => write!(out, "{created} pods are created in this round; the others follow"),
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Holder::Stranger { kind, name } => write!(out, "a pod of {kind} {name}"),
            Holder::Unselected => out.write_str("a pod that the selector does not match"),
            Holder::Leaving => out.write_str("an orphaned pod that is being deleted"),
        }
    }
}
