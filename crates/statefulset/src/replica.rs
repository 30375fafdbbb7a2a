//! The predicates of a pod: created, terminal, ready, available, and why not.

use jiff::{SignedDuration, Timestamp};

use crate::blocker::Blocker;
use crate::identity::{self, Ordinal};
use crate::observed::{Observed, Phase, Pod, Ready, Set};

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
        let pod = self.name.clone();
        if self.terminating {
            return Some(Blocker::Terminating { pod });
        }
        if self.phase != Phase::Running {
            return Some(Blocker::NotRunning {
                pod,
                phase: self.phase,
            });
        }
        if self.ready == Ready::No {
            return Some(Blocker::NotReady { pod });
        }
        let min_ready_seconds = seen.set.min_ready_seconds;
        (!self.is_available(seen)).then_some(Blocker::NotAvailable {
            pod,
            min_ready_seconds,
            available_at: self.available_at(&seen.set),
        })
    }
}
