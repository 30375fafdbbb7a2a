//! The state of one decision in the making: slots and condemned pods, the plan so far, the reasons so far.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::blocker::Blocker;
use crate::decision::{Lane, Plan, Wave};
use crate::event::KubeEvent;
use crate::identity::Ordinal;
use crate::observed::{Observed, Pod, Strategy};
use crate::replica::Member;
use crate::revision::{Revisions, Target};
use crate::status::Status;
use crate::step::{DeleteReason, Step};

pub(super) struct Round<'a> {
    pub(super) seen: &'a Observed,
    pub(super) revisions: &'a Revisions,
    /// Every pod of the set, those of no usable ordinal too.
    pub(super) claimed: &'a [Member<'a>],
    /// Pods of wanted ordinals.
    pub(super) living: BTreeMap<Ordinal, Member<'a>>,
    /// Pods of unwanted ordinals.
    pub(super) condemned: BTreeMap<Ordinal, Member<'a>>,
    pub(super) plan: Plan,
    pub(super) blocked: Vec<Blocker>,
    pub(super) events: Vec<KubeEvent>,
    /// Wanted ordinals whose pod's delete is planned; none is deleted twice in a round.
    doomed: BTreeSet<Ordinal>,
    /// Update deletes of this round, which upstream takes off `currentReplicas`, whatever revision the pod had.
    rolled: u32,
}

impl<'a> Round<'a> {
    pub(super) fn new(
        seen: &'a Observed,
        revisions: &'a Revisions,
        claimed: &'a [Member<'a>],
        plan: Plan,
    ) -> Round<'a> {
        let mut round = Round {
            seen,
            revisions,
            claimed,
            living: BTreeMap::new(),
            condemned: BTreeMap::new(),
            plan,
            blocked: revisions
                .taken
                .iter()
                .cloned()
                .map(|revision| Blocker::RevisionNameTaken { revision })
                .collect(),
            events: Vec::new(),
            doomed: BTreeSet::new(),
            rolled: 0,
        };
        round.place();
        round
    }

    fn place(&mut self) {
        // upstream counts a pod whose number does not fit, but never moves it.
        let mut placed: Vec<_> = self
            .claimed
            .iter()
            .filter_map(|member| Some((member.pod.ordinal?, *member)))
            .collect();
        // Stable: of two spellings of an ordinal the later name counts, which is the canonical one.
        placed.sort_by_key(|(ordinal, _)| *ordinal);
        let (living, condemned): (Vec<_>, Vec<_>) = placed
            .into_iter()
            .partition(|(ordinal, _)| self.seen.set.wants(*ordinal));
        self.living = living.into_iter().collect();
        self.condemned = condemned.into_iter().collect();
    }

    pub(super) fn still_wanted(&mut self) -> ControlFlow<()> {
        if !self.seen.set.deleting {
            return ControlFlow::Continue(());
        }
        self.stop(Blocker::SetDeleting)
    }

    /// Ends the round for this reason.
    pub(super) fn stop(&mut self, blocker: Blocker) -> ControlFlow<()> {
        self.blocked.push(blocker);
        ControlFlow::Break(())
    }

    /// Adds lanes that may go at once; lanes without a step are left out.
    pub(super) fn wave(&mut self, lanes: impl IntoIterator<Item = Lane>) {
        let wave: Wave = lanes.into_iter().filter(|lane| !lane.is_empty()).collect();
        if !wave.is_empty() {
            self.plan.stages.push(wave);
        }
    }

    /// The step that deletes the pod; `None` where this round already does.
    pub(super) fn delete(
        &mut self,
        pod: &Pod,
        ordinal: Ordinal,
        because: DeleteReason,
    ) -> Option<Step> {
        // A condemned pod is met by one stage alone.
        let first = !self.seen.set.wants(ordinal) || self.doomed.insert(ordinal);
        first.then(|| Step::DeletePod {
            pod: pod.name.clone(),
            uid: pod.uid.clone(),
            ordinal,
            because,
        })
    }

    /// The delete of an outdated pod. It counts as gone from `currentReplicas` even where it goes for another reason as well.
    pub(super) fn delete_outdated(&mut self, pod: &Pod, ordinal: Ordinal) -> Option<Step> {
        self.rolled = self.rolled.saturating_add(1);
        let has = pod.revision().map(Arc::from);
        let because = DeleteReason::Outdated {
            has,
            wants: self.revisions.update.name.clone(),
        };
        self.delete(pod, ordinal, because)
    }

    /// The revision that a missing pod of this ordinal gets. upstream: newVersionedStatefulSetPod.
    pub(super) fn revision_for(&self, ordinal: Ordinal) -> &'a Target {
        let set = &self.seen.set;
        let kept = match &set.strategy {
            Strategy::RollingUpdate(Some(rolling)) => rolling.partition,
            // With a null rollingUpdate, as many as were last seen at the current revision.
            Strategy::RollingUpdate(None) if !set.is_parallel() => set.status.current_replicas,
            // differs: 0103. upstream keeps them under Parallel too, deletes such a pod in the sync that makes it, and so on forever.
            Strategy::RollingUpdate(None) => 0,
            Strategy::OnDelete | Strategy::Recreate => 0,
        };
        let index = ordinal.0.saturating_sub(set.start);
        if index < kept {
            &self.revisions.current
        } else {
            &self.revisions.update
        }
    }

    /// Wanted ordinals that are missing or unavailable.
    pub(super) fn unavailable(&self) -> u32 {
        let available = self
            .living
            .values()
            .filter(|member| !member.is_unavailable())
            .count();
        self.seen
            .set
            .replicas
            .saturating_sub(u32::try_from(available).unwrap_or(u32::MAX))
    }

    /// The status after this round. A set that is being deleted counts every pod of its, others those with an ordinal.
    pub(super) fn status(&self) -> Status {
        let mut status = if self.seen.set.deleting {
            Status::count(self.seen, self.revisions, self.claimed.iter())
        } else {
            Status::count(
                self.seen,
                self.revisions,
                self.living.values().chain(self.condemned.values()),
            )
        };
        // upstream can fall below zero here, and its write is then refused.
        status.current_replicas = status.current_replicas.saturating_sub(self.rolled);
        status.promote(self.seen.set.replicas);
        status
    }

    /// Says which outdated pods stay by policy: the set rests, but is not done.
    pub(super) fn note_what_policy_leaves(&mut self) {
        let outdated = self
            .living
            .values()
            .filter(|member| !member.updated)
            .count();
        let pods = u32::try_from(outdated).unwrap_or(u32::MAX);
        if pods == 0 || self.rolled > 0 {
            return;
        }
        match &self.seen.set.strategy {
            Strategy::OnDelete => self.blocked.push(Blocker::OnDelete { pods }),
            Strategy::RollingUpdate(Some(rolling)) if rolling.partition > 0 => {
                self.blocked.push(Blocker::Partition {
                    partition: rolling.partition,
                    pods,
                });
            }
            Strategy::RollingUpdate(_) | Strategy::Recreate => {}
        }
    }
}
