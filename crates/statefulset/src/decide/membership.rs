//! Whose objects are whose: orphans that match are adopted, pods that no longer match are released.

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::blocker::Blocker;
use crate::decision::{Lane, Plan};
use crate::observed::{Observed, Pod, Revision};
use crate::replica::Member;
use crate::revision::Revisions;
use crate::step::{ReleaseReason, Step};

/// Adopts the revisions that have no controller. upstream: adoptOrphanRevisions.
pub(super) fn adopt_revisions(
    seen: &Observed,
    history: &[&Arc<Revision>],
    plan: &mut Plan,
) -> ControlFlow<Blocker> {
    let orphans: Vec<_> = history
        .iter()
        .filter(|revision| revision.controller.is_none())
        .collect();
    if let Some(first) = orphans.first()
        && seen.set.deleting
    {
        return ControlFlow::Break(Blocker::SetDeletingWithOrphans {
            revision: first.name.clone(),
        });
    }
    let adopt = |revision: &&&Arc<Revision>| {
        vec![Step::AdoptRevision {
            revision: revision.name.clone(),
            uid: revision.uid.clone(),
        }]
    };
    push(
        plan,
        orphans
            .iter()
            .copied()
            .map(|revision| adopt(&revision))
            .collect(),
    );
    ControlFlow::Continue(())
}

/// The set's pods: those it controls and that belong to it, and orphans that do and are adopted now. Those it controls that no
/// longer belong are released. upstream: getPodsForStatefulSet, ClaimPods.
pub(super) fn claim_pods<'a>(
    seen: &'a Observed,
    revisions: &Revisions,
    plan: &mut Plan,
) -> Vec<Member<'a>> {
    let mut claimed = Vec::with_capacity(seen.pods.len());
    let mut lanes = Vec::new();
    for pod in seen.pods.values() {
        match relation(seen, pod) {
            Relation::Member => claimed.push(Member::of(seen, revisions, pod)),
            Relation::Adoptable => {
                claimed.push(Member::of(seen, revisions, pod));
                lanes.push(vec![Step::AdoptPod {
                    pod: pod.name.clone(),
                    uid: pod.uid.clone(),
                }]);
            }
            Relation::Released(because) => {
                lanes.push(vec![Step::ReleasePod {
                    pod: pod.name.clone(),
                    uid: pod.uid.clone(),
                    because,
                }]);
            }
            Relation::NotOurs => {}
        }
    }
    push(plan, lanes);
    claimed
}

enum Relation {
    /// Controlled by the set and belonging to it.
    Member,
    /// Belonging to it, controlled by nobody.
    Adoptable,
    /// Controlled by the set, but it no longer belongs.
    Released(ReleaseReason),
    /// Another's, or nobody's and not to be had.
    NotOurs,
}

fn relation(seen: &Observed, pod: &Pod) -> Relation {
    let set = &seen.set;
    let is_member = pod.is_member_of(&set.name);
    let misfit = match (set.selector.matches(&pod.labels), is_member) {
        (true, true) => None,
        (false, _) => Some(ReleaseReason::SelectorMismatch),
        (true, false) => Some(ReleaseReason::NotAMember),
    };
    match (&pod.controller, misfit) {
        (Some(owner), None) if owner.uid == set.uid => Relation::Member,
        // A set that is being deleted neither takes nor lets go: cascading deletion decides by the references as they are.
        (Some(owner), Some(because)) if owner.uid == set.uid && !set.deleting => {
            Relation::Released(because)
        }
        (None, None) if !set.deleting && !pod.terminating => Relation::Adoptable,
        (Some(_), _) | (None, _) => Relation::NotOurs,
    }
}

fn push(plan: &mut Plan, lanes: Vec<Lane>) {
    if !lanes.is_empty() {
        plan.prologue.push(lanes);
    }
}
