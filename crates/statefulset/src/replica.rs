//! The predicates of a pod: created, terminal, ready, available, and why not; and a member, of which they were asked once.

use jiff::{SignedDuration, Timestamp};

use crate::blocker::Blocker;
use crate::identity::{self, Ordinal};
use crate::observed::{Observed, Phase, Pod, Ready, Set};
use crate::revision::Revisions;

/// A pod of the set with what a decision asks of it again and again, asked once: in large sets pods are far apart in memory.
#[derive(Clone, Copy)]
pub(crate) struct Member<'a> {
    pub(crate) pod: &'a Pod,
    /// Something has reported on it.
    pub(crate) created: bool,
    /// Running and ready.
    pub(crate) ready: bool,
    /// Ready for long enough, whatever its phase.
    pub(crate) available: bool,
    /// Being stopped.
    pub(crate) terminating: bool,
    /// It has the current revision.
    pub(crate) current: bool,
    /// It has the update revision.
    pub(crate) updated: bool,
}

impl<'a> Member<'a> {
    pub(crate) fn of(seen: &Observed, revisions: &Revisions, pod: &'a Pod) -> Member<'a> {
        let revision = pod.revision();
        let updated = revision == Some(&revisions.update.name);
        Member {
            pod,
            created: pod.is_created(),
            ready: pod.is_running_and_ready(),
            available: pod.is_available(seen),
            terminating: pod.terminating,
            current: if revisions.are_one() {
                updated
            } else {
                revision == Some(&revisions.current.name)
            },
            updated,
        }
    }

    /// Not available, or being stopped.
    pub(crate) fn is_unavailable(&self) -> bool {
        self.terminating || !self.available
    }
}

impl Pod {
    /// Something has reported on it. upstream: isCreated.
    pub(crate) fn is_created(&self) -> bool {
        self.phase != Phase::Absent
    }

    /// It has ended and will not come back. upstream: isFailed, isSucceeded.
    pub(crate) fn is_terminal(&self) -> bool {
        match self.phase {
            Phase::Failed | Phase::Succeeded => true,
            Phase::Absent | Phase::Pending | Phase::Running | Phase::Unknown => false,
        }
    }

    /// upstream: isRunningAndReady.
    pub(crate) fn is_running_and_ready(&self) -> bool {
        self.phase == Phase::Running && self.ready != Ready::No
    }

    /// Ready for at least `minReadySeconds`; the phase is not asked. upstream: IsPodAvailable.
    pub(crate) fn is_available(&self, seen: &Observed) -> bool {
        match self.ready {
            Ready::No => false,
            Ready::Since(_) if seen.set.min_ready_seconds == 0 => true,
            Ready::Since(_) => self
                .available_at(&seen.set)
                .is_some_and(|at| at <= seen.now),
        }
    }

    /// Not available, or being stopped. upstream: isUnavailable.
    pub(crate) fn is_unavailable(&self, seen: &Observed) -> bool {
        self.terminating || !self.is_available(seen)
    }

    /// When a ready pod has been ready for `minReadySeconds`; `None` where it is not ready or nobody noted since when.
    pub(crate) fn available_at(&self, set: &Set) -> Option<Timestamp> {
        match self.ready {
            Ready::No | Ready::Since(None) => None,
            Ready::Since(Some(since)) => since
                .checked_add(SignedDuration::from_secs(i64::from(set.min_ready_seconds)))
                .ok(),
        }
    }

    /// The name of its ControllerRevision. upstream: getPodRevision.
    pub(crate) fn revision(&self) -> Option<&str> {
        self.revision.as_deref()
    }

    /// Its volumes are the claims of its ordinal. upstream: storageMatches.
    pub(crate) fn has_storage(&self, set: &Set, ordinal: Ordinal) -> bool {
        set.claim_templates.iter().all(|template| {
            let claim = self.mounts.get(&template.name);
            claim.and_then(|claim| identity::ordinal_of_claim(claim, &template.name, &set.name))
                == Some(ordinal)
        })
    }

    /// What those who wait for this pod wait for; `None` where they need not.
    pub(crate) fn why_unavailable(&self, seen: &Observed) -> Option<Blocker> {
        let pod = || self.name.clone();
        if self.terminating {
            return Some(Blocker::Terminating { pod: pod() });
        }
        if self.phase != Phase::Running {
            return Some(Blocker::NotRunning {
                pod: pod(),
                phase: self.phase,
            });
        }
        if self.ready == Ready::No {
            return Some(Blocker::NotReady { pod: pod() });
        }
        (!self.is_available(seen)).then(|| Blocker::NotAvailable {
            pod: pod(),
            min_ready_seconds: seen.set.min_ready_seconds,
            available_at: self.available_at(&seen.set),
        })
    }
}
