//! Claims: made before their pod, never deleted; what the garbage collector may delete is said by owner references alone.

use std::borrow::Cow;
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::blocker::Blocker;
use crate::decision::Lane;
use crate::event::{KubeEvent, Verb};
use crate::identity::{self, Ordinal};
use crate::observed::{Claim, Observed, OwnerReference, OwnerRole, Place, Pod, Retention, Set};
use crate::owners::{Owner, Owners};
use crate::step::Step;

use super::round::Round;

/// The two owners that the retention policy knows.
struct Policy<'a> {
    set: &'a Set,
    set_role: OwnerRole,
    pod: Cow<'a, Arc<str>>,
    /// `None` for a pod that is not made yet.
    pod_uid: Option<&'a Arc<str>>,
    /// The pod's ordinal is not wanted any more.
    condemned: bool,
}

/// Makes the missing claims of a pod that waits for them and settles the owners of the others. False: a claim is in the way.
///
/// upstream: createMissingPersistentVolumeClaims, which records no Event of that.
pub(super) fn complete(
    round: &mut Round<'_>,
    ordinal: Ordinal,
    pod: &Pod,
    lane: &mut Lane,
) -> bool {
    let complete = create_missing(round, ordinal, None, lane);
    if complete {
        settle_all(round, ordinal, Some(pod), lane);
    }
    complete
}

/// Makes the ordinal's missing claims. False: one of the others is being deleted, which an Event about the `verb` tells.
///
/// upstream: createPersistentVolumeClaims.
pub(super) fn create_missing(
    round: &mut Round<'_>,
    ordinal: Ordinal,
    verb: Option<Verb>,
    lane: &mut Lane,
) -> bool {
    let seen = round.seen;
    let pod = identity::pod_name(&seen.set.name, ordinal);
    let mut leaving = Vec::new();
    for (template, index) in seen.set.claim_templates.iter().zip(0..) {
        let claim = identity::claim_name(&template.name, &seen.set.name, ordinal);
        match seen.claims.get(&Place {
            ordinal,
            template: index,
        }) {
            None => lane.push(Step::CreateClaim {
                claim,
                ordinal,
                template: template.name.clone(),
            }),
            Some(there) if there.terminating => leaving.push(claim),
            Some(_) => {}
        }
    }
    if let Some(verb) = verb.filter(|_| !leaving.is_empty()) {
        round.events.push(KubeEvent::pod_failed(
            verb,
            &pod,
            &seen.set.name,
            &being_deleted(&leaving),
        ));
    }
    let complete = leaving.is_empty();
    round
        .blocked
        .extend(leaving.into_iter().map(|claim| Blocker::ClaimTerminating {
            claim,
            pod: pod.clone(),
        }));
    complete
}

/// The words of upstream's error, several of which it puts in brackets.
fn being_deleted(claims: &[Arc<str>]) -> String {
    let errors: Vec<_> = claims
        .iter()
        .map(|claim| format!("pvc {claim} is being deleted"))
        .collect();
    match errors.as_slice() {
        [only] => only.clone(),
        several => format!("[{}]", several.join(", ")),
    }
}

/// A claim of the ordinal that still belongs to an earlier pod of this name, and so is about to be deleted.
///
/// upstream: PodClaimIsStale.
pub(super) fn stale(
    seen: &Observed,
    ordinal: Ordinal,
    pod: &str,
    pod_uid: &str,
) -> Option<Arc<str>> {
    if seen.set.retention.when_scaled == Retention::Retain {
        return None;
    }
    let mut stale = seen
        .claims_of(ordinal)
        .filter(|claim| is_stale(claim, |owner| is_pod(owner, pod), pod_uid));
    stale.next().map(|claim| claim.name.clone())
}

/// Before a condemned pod goes, its claims follow the policy: with `whenScaled: Delete` they become its own and go with it.
pub(super) fn follow_condemned(round: &mut Round<'_>) -> ControlFlow<()> {
    let condemned: Vec<_> = round
        .condemned
        .iter()
        .rev()
        .map(|(ordinal, member)| (*ordinal, member.pod))
        .collect();
    let mut lanes = Vec::with_capacity(condemned.len());
    for (ordinal, pod) in condemned {
        let mut lane = Lane::new();
        follow_retention(round, ordinal, pod, &mut lane);
        lanes.push(lane);
    }
    round.wave(lanes);
    ControlFlow::Continue(())
}

/// Sets the owners of the ordinal's claims where one of them is not as the policy wants it.
///
/// upstream: ClaimsMatchRetentionPolicy, then UpdatePodClaimForRetentionPolicy.
pub(super) fn follow_retention(
    round: &mut Round<'_>,
    ordinal: Ordinal,
    pod: &Pod,
    lane: &mut Lane,
) {
    let owners = Policy::of(round.seen, ordinal, Some(pod));
    if round
        .seen
        .claims_of(ordinal)
        .any(|claim| !owners.are_right_on(claim))
    {
        settle_all(round, ordinal, Some(pod), lane);
    }
}

/// Sets the owners of the ordinal's claims and tells of strangers. `pod`: `None` while it is being made.
///
/// upstream: UpdatePodClaimForRetentionPolicy.
pub(super) fn settle_all(
    round: &mut Round<'_>,
    ordinal: Ordinal,
    pod: Option<&Pod>,
    lane: &mut Lane,
) {
    let seen = round.seen;
    let owners = Policy::of(seen, ordinal, pod);
    for (place, claim) in seen.placed_claims_of(ordinal) {
        settle(round, &owners, place, claim, lane);
    }
}

fn settle(
    round: &mut Round<'_>,
    owners: &Policy<'_>,
    place: Place,
    claim: &Claim,
    lane: &mut Lane,
) {
    if owners.meet_a_stranger(claim) {
        round.events.push(conflict(&claim.name));
    }
    if owners.are_right_on(claim) {
        return;
    }
    let wanted = owners.wanted_on(claim);
    // differs: 0101. A reference with our UID under another kind is not ours to take away; upstream writes the same again and again.
    if wanted.stand_on(claim, owners.set) {
        return;
    }
    if lane.is_empty() {
        lane.reserve_exact(owners.set.claim_templates.len());
    }
    lane.push(Step::PatchClaim {
        claim: claim.name.clone(),
        uid: claim.uid.clone(),
        resource_version: claim.resource_version.clone(),
        ordinal: place.ordinal,
        owners: wanted,
    });
}

fn conflict(claim: &str) -> KubeEvent {
    // The spelling is upstream's: alerts match it.
    let message = format!(
        "PersistentVolumeClaim {claim} has a conflicting OwnerReference that acts as a manging controller, the retention policy is ignored for this claim"
    );
    KubeEvent::warning("ConflictingController", message)
}

impl<'a> Policy<'a> {
    fn of(seen: &'a Observed, ordinal: Ordinal, pod: Option<&'a Pod>) -> Policy<'a> {
        Policy {
            set: &seen.set,
            set_role: OwnerRole::of(&seen.set.api_version, "StatefulSet"),
            pod: pod.map_or_else(
                || Cow::Owned(identity::pod_name(&seen.set.name, ordinal)),
                |pod| Cow::Borrowed(&pod.name),
            ),
            pod_uid: pod.map(|pod| &pod.uid),
            condemned: !seen.set.wants(ordinal),
        }
    }

    /// The claim's owners are as the policy wants them, or are none of our business. upstream: isClaimOwnerUpToDate.
    fn are_right_on(&self, claim: &Claim) -> bool {
        if let [only] = &*claim.owners
            && only.controller
            && only.uid == self.set.uid
            && self.is_set(only)
        {
            // What nearly every claim of a set with a policy looks like.
            return self.wanted() == (true, false);
        }
        if claim.owners.is_empty() {
            return self.wanted() == (false, false);
        }
        let pod_uid = self.pod_uid();
        if is_stale(claim, |owner| self.is_set(owner), &self.set.uid)
            || is_stale(claim, |owner| is_pod(owner, &self.pod), pod_uid)
        {
            // Left over from an earlier set or pod of the name; the garbage collector sees to it.
            return true;
        }
        let set_owns = self.owns(claim, &self.set.uid);
        let pod_owns = self.owns(claim, pod_uid);
        if self.meet_a_stranger(claim) {
            return !set_owns && !pod_owns;
        }
        if self.own_without_control(claim) {
            return false;
        }
        (set_owns, pod_owns) == self.wanted()
    }

    /// Whether the set and whether the pod shall own the claim. upstream: the table of KEP-1847.
    fn wanted(&self) -> (bool, bool) {
        let policy = self.set.retention;
        match (policy.when_scaled, policy.when_deleted) {
            (Retention::Retain, Retention::Retain) => (false, false),
            (Retention::Retain, Retention::Delete) => (true, false),
            (Retention::Delete, Retention::Retain) => (false, self.condemned),
            (Retention::Delete, Retention::Delete) => (!self.condemned, self.condemned),
        }
    }

    /// Another controller manages the claim, or an earlier set or pod of the name. Nobody asks while everything is retained.
    ///
    /// upstream: hasUnexpectedController.
    fn meet_a_stranger(&self, claim: &Claim) -> bool {
        let policy = self.set.retention;
        if policy.when_scaled == Retention::Retain && policy.when_deleted == Retention::Retain {
            return false;
        }
        claim.owners.iter().any(|owner| {
            if self.is_set(owner) {
                owner.uid != self.set.uid
            } else if is_pod(owner, &self.pod) {
                &*owner.uid != self.pod_uid()
            } else {
                owner.controller
            }
        })
    }

    /// The first of our references does not control, as older controllers wrote them. upstream: hasNonControllerOwner.
    fn own_without_control(&self, claim: &Claim) -> bool {
        let ours = claim
            .owners
            .iter()
            .find(|owner| owner.uid == self.set.uid || &*owner.uid == self.pod_uid());
        ours.is_some_and(|owner| !owner.controller)
    }

    fn owns(&self, claim: &Claim, uid: &str) -> bool {
        claim.owners.iter().any(|owner| &*owner.uid == uid)
    }

    /// The owners the claim shall have: strangers as they stand, then ours. upstream: updateClaimOwnerRefForSetAndPod.
    fn wanted_on(&self, claim: &Claim) -> Owners {
        let strangers = claim
            .owners
            .iter()
            .filter(|owner| !self.is_set(owner) && !is_pod(owner, &self.pod));
        let managed = self.meet_a_stranger(claim);
        Owners {
            others: strangers.map(|owner| owner.raw.clone()).collect(),
            ours: if managed { None } else { self.ours() },
        }
    }

    fn ours(&self) -> Option<Owner> {
        match self.wanted() {
            (true, _) => Some(Owner::Set {
                name: self.set.name.clone(),
                uid: self.set.uid.clone(),
            }),
            (false, true) => Some(Owner::Pod {
                name: Arc::clone(&self.pod),
                uid: self.pod_uid.cloned().unwrap_or_default(),
            }),
            (false, false) => None,
        }
    }

    /// UID of the pod, empty for one that is not made yet.
    fn pod_uid(&self) -> &str {
        self.pod_uid.map_or("", |uid| uid)
    }

    fn is_set(&self, owner: &OwnerReference) -> bool {
        owner.role == self.set_role && owner.name == self.set.name
    }
}

fn is_pod(owner: &OwnerReference, pod: &str) -> bool {
    owner.role == OwnerRole::Pod && &*owner.name == pod
}

/// The first reference to an owner of this name has another UID. upstream: hasStaleOwnerRef.
fn is_stale(claim: &Claim, is_owner: impl Fn(&OwnerReference) -> bool, uid: &str) -> bool {
    claim
        .owners
        .iter()
        .find(|owner| is_owner(owner))
        .is_some_and(|owner| &*owner.uid != uid)
}
