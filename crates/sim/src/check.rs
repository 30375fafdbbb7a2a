//! What must hold, each rule a function with the sentence it checks: of every decision in its own view, of every call, of every rest.
//!
//! Written against the model's objects, not with the helpers of the code that ships: two derivations of one sentence.

use crate::object::{Claims, Deleting, Life, Owner, Pod, Set, Status};
use crate::op::{Entry, Op, Part};
use crate::view::View;
use crate::world::{Strategy, World};

/// A rule that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The sentence that does not hold.
    pub rule: &'static str,
    /// What breaks it.
    pub what: String,
}

/// A rule about one decision, in the view that it was taken in.
pub(crate) struct Rule {
    pub(crate) sentence: &'static str,
    /// What breaks it.
    pub(crate) broken: fn(&View, &[Entry]) -> Option<String>,
}

/// Every rule about decisions.
pub(crate) const RULES: &[Rule] = &[
    Rule {
        sentence: "no pod is created while its former holder exists",
        broken: create_over_holder,
    },
    Rule {
        sentence: "no pod is created for an ordinal that is not wanted",
        broken: create_unwanted,
    },
    Rule {
        sentence: "no pod is created before its claim is there, to stay",
        broken: create_without_claim,
    },
    Rule {
        sentence: "no pod is created at a revision that its ordinal shall not have",
        broken: create_at_wrong_revision,
    },
    Rule {
        sentence: "OrderedReady: no ordinal starts before its predecessors are ready",
        broken: create_out_of_order,
    },
    Rule {
        sentence: "OrderedReady: no condemned ordinal goes before those above it",
        broken: condemned_out_of_order,
    },
    Rule {
        sentence: "OrderedReady: nothing is scaled down while a wanted ordinal is not available",
        broken: condemned_too_early,
    },
    Rule {
        sentence: "a wanted pod that has not ended is deleted only to be updated, and only from the partition up",
        broken: delete_without_reason,
    },
    Rule {
        sentence: "an update by our own hand never takes an available pod beyond the budget",
        broken: over_budget,
    },
    Rule {
        sentence: "an update takes the highest outdated pod first",
        broken: update_out_of_order,
    },
    Rule {
        sentence: "Recreate: no pod is created while one of an older revision is left",
        broken: create_beside_old,
    },
    Rule {
        sentence: "every destructive step names a UID that was seen",
        broken: unseen_uid,
    },
    Rule {
        sentence: "a claim is never given to an owner but by policy",
        broken: claim_against_policy,
    },
    Rule {
        sentence: "a claim is never taken from a stranger",
        broken: claim_from_stranger,
    },
    Rule {
        sentence: "what is intended is stored before a pod goes: the revision first, then whose the claims are that go with it",
        broken: goes_before_intent,
    },
    Rule {
        sentence: "no revision is deleted that is wanted, current or borne by a pod",
        broken: live_revision_deleted,
    },
    Rule {
        sentence: "nothing is done to a set that is being deleted",
        broken: deleting_touched,
    },
    Rule {
        sentence: "nothing is done in a view that lacks our own last write",
        broken: stale_view,
    },
];

/// The sentence of liveness: what is not finished either moves or says why not.
pub(crate) const SILENT: &str = "no step and not done implies a blocker";
/// The shipped rules.
pub(crate) const SHIPPED: &str = "every decision keeps the rules of stead_statefulset::check";
/// Of a create step's template.
pub(crate) const TEMPLATE: &str = "a pod is made of the template of the revision it bears";
/// Of a call.
pub(crate) const STRAYED: &str = "every destructive call hits the object that was seen";
/// Of a call.
pub(crate) const CONFLICTING: &str = "a controller that is alone, lost no reply and never crashed sends no create that finds its name taken";
/// Of a call.
pub(crate) const TAKEN: &str = "no call takes a claim from a stranger";
/// Of a call that made a pod.
pub(crate) const UNCLAIMED: &str =
    "where claims are never deleted, no pod is made without its claim";
/// Of a call that made a pod.
pub(crate) const UNRECORDED: &str = "no pod is made of a revision that is not recorded";
/// Of rests.
pub(crate) const BELOW_PARTITION: &str =
    "at rest no pod below the partition is newer than it should be, none above older";
/// Of rests.
pub(crate) const LEAKED: &str =
    "with whenScaled: Delete and untouched pods, no claim of an unwanted ordinal is left at rest";
/// Of the garbage collector.
pub(crate) const COLLECTED: &str = "a claim is never deleted but by policy";
/// Of rests.
pub(crate) const UNLISTED: &str =
    "with the faults stopped the set converges, or rests in a way that is listed";
/// Of everything.
pub(crate) const RESTLESS: &str = "with the faults stopped the set comes to rest";

fn steps(plan: &[Entry]) -> impl Iterator<Item = Op> + '_ {
    plan.iter().map(|entry| entry.op)
}

fn creates(plan: &[Entry]) -> impl Iterator<Item = (usize, u8)> + '_ {
    steps(plan).filter_map(|op| match op {
        Op::CreatePod { ordinal, revision } => Some((usize::from(ordinal), revision)),
        _ => None,
    })
}

fn deletes(plan: &[Entry]) -> impl Iterator<Item = usize> + '_ {
    steps(plan).filter_map(|op| match op {
        Op::DeletePod { ordinal, .. } => Some(usize::from(ordinal)),
        _ => None,
    })
}

/// The set's own, or an orphan that the same plan adopts first.
fn is_ours(set: &Set, pod: &Pod) -> bool {
    pod.owner == Owner::Set(set.uid) || (pod.owner == Owner::Nobody && !pod.terminating)
}

/// Ready for `minReadySeconds`, and not being stopped.
fn is_available(view: &View, pod: &Pod) -> bool {
    let long_enough = if view.settings.min_ready {
        pod.life == Life::Aged
    } else {
        pod.is_ready()
    };
    long_enough && !pod.terminating
}

pub(crate) fn available_at(view: &View, ordinal: usize) -> bool {
    view.pods[ordinal].is_some_and(|pod| is_ours(&view.set, &pod) && is_available(view, &pod))
}

fn create_over_holder(view: &View, plan: &[Entry]) -> Option<String> {
    let mut over = creates(plan).filter(|&(ordinal, _)| view.pods[ordinal].is_some());
    over.next()
        .map(|(ordinal, _)| format!("web-{ordinal} is still there"))
}

fn create_unwanted(view: &View, plan: &[Entry]) -> Option<String> {
    let mut unwanted = creates(plan).filter(|&(ordinal, _)| !view.set.wants(ordinal));
    unwanted.next().map(|(ordinal, _)| format!("web-{ordinal}"))
}

fn create_without_claim(view: &View, plan: &[Entry]) -> Option<String> {
    if !view.settings.claims {
        return None;
    }
    let made_before = |at: usize, ordinal: usize| {
        let pod = plan[at];
        let same_lane =
            |entry: &Entry| (entry.part, entry.wave, entry.lane) == (pod.part, pod.wave, pod.lane);
        plan[..at].iter().any(|entry| {
            same_lane(entry)
                && entry.op
                    == Op::CreateClaim {
                        ordinal: ordinal as u8,
                    }
        })
    };
    for (at, entry) in plan.iter().enumerate() {
        let Op::CreatePod { ordinal, .. } = entry.op else {
            continue;
        };
        let ordinal = usize::from(ordinal);
        match view.claims[ordinal] {
            None if !made_before(at, ordinal) => {
                return Some(format!("web-{ordinal} has no claim"));
            }
            Some(claim) if claim.terminating => {
                return Some(format!("the claim of web-{ordinal} is being deleted"));
            }
            Some(claim)
                if matches!(claim.owner, Owner::Pod(_)) && view.settings.delete_with_pod =>
            {
                return Some(format!(
                    "the claim of web-{ordinal} goes with the pod before it"
                ));
            }
            None | Some(_) => {}
        }
    }
    None
}

fn create_at_wrong_revision(view: &View, plan: &[Entry]) -> Option<String> {
    let known = view
        .set
        .status
        .current_revision
        .filter(|&template| view.revisions[usize::from(template)].is_some());
    let current = known.unwrap_or(view.set.template);
    let mut wrong = creates(plan).filter(|&(ordinal, revision)| {
        let index = ordinal.wrapping_sub(usize::from(view.set.start));
        let kept = match view.settings.strategy {
            Strategy::Rolling(_) => view.set.partition,
            // Decision 0103: under Parallel a missing pod gets the update revision.
            Strategy::RollingNull if view.settings.parallel => 0,
            Strategy::RollingNull => view.set.status.current,
            Strategy::OnDelete | Strategy::Recreate => 0,
        };
        revision
            != if index < usize::from(kept) {
                current
            } else {
                view.set.template
            }
    });
    wrong
        .next()
        .map(|(ordinal, revision)| format!("web-{ordinal} at {}", letter(revision)))
}

fn create_out_of_order(view: &View, plan: &[Entry]) -> Option<String> {
    if view.settings.parallel {
        return None;
    }
    for (ordinal, _) in creates(plan) {
        let before = view.set.ordinals().take_while(|&below| below < ordinal);
        if let Some(late) = before.into_iter().find(|&below| !available_at(view, below)) {
            return Some(format!("web-{ordinal} before web-{late} is available"));
        }
    }
    None
}

/// Deletes of pods whose ordinal is not wanted.
fn condemned_deletes<'a>(view: &'a View, plan: &'a [Entry]) -> impl Iterator<Item = usize> + 'a {
    deletes(plan)
        .filter(|&ordinal| !view.set.wants(ordinal) && view.settings.strategy != Strategy::Recreate)
}

fn condemned_out_of_order(view: &View, plan: &[Entry]) -> Option<String> {
    if view.settings.parallel {
        return None;
    }
    for ordinal in condemned_deletes(view, plan) {
        let is_condemned = |above: &usize| {
            !view.set.wants(*above) && view.pods[*above].is_some_and(|pod| is_ours(&view.set, &pod))
        };
        if let Some(above) = (ordinal + 1..view.pods.len()).find(is_condemned) {
            return Some(format!("web-{ordinal} while web-{above} is there"));
        }
    }
    None
}

fn condemned_too_early(view: &View, plan: &[Entry]) -> Option<String> {
    if view.settings.parallel {
        return None;
    }
    let ordinal = condemned_deletes(view, plan).next()?;
    let late = view
        .set
        .ordinals()
        .find(|&wanted| !available_at(view, wanted))?;
    Some(format!("web-{ordinal} while web-{late} is not available"))
}

/// Deletes of wanted pods that have not ended.
fn update_deletes<'a>(
    view: &'a View,
    plan: &'a [Entry],
) -> impl Iterator<Item = (usize, Pod)> + 'a {
    let wanted = deletes(plan).filter(|&ordinal| view.set.wants(ordinal));
    let there = wanted.filter_map(|ordinal| view.pods[ordinal].map(|pod| (ordinal, pod)));
    there.filter(|(_, pod)| pod.life != Life::Failed || pod.terminating)
}

fn delete_without_reason(view: &View, plan: &[Entry]) -> Option<String> {
    for (ordinal, pod) in update_deletes(view, plan) {
        let from = match view.settings.strategy {
            Strategy::Rolling(_) => usize::from(view.set.start + view.set.partition),
            Strategy::RollingNull | Strategy::Recreate => 0,
            Strategy::OnDelete => return Some(format!("web-{ordinal} under OnDelete")),
        };
        if pod.revision == view.set.template {
            return Some(format!("web-{ordinal} is up to date"));
        }
        if ordinal < from {
            return Some(format!("web-{ordinal} is below the partition"));
        }
    }
    None
}

fn over_budget(view: &View, plan: &[Entry]) -> Option<String> {
    let max = match view.settings.strategy {
        Strategy::Rolling(max) => usize::from(max),
        Strategy::RollingNull | Strategy::OnDelete => 1,
        Strategy::Recreate => return None,
    };
    let taken = update_deletes(view, plan)
        .filter(|(_, pod)| is_available(view, pod))
        .count();
    let unavailable = view
        .set
        .ordinals()
        .filter(|&ordinal| !available_at(view, ordinal))
        .count();
    (taken > 0 && taken + unavailable > max)
        .then(|| format!("{unavailable} unavailable and {taken} more taken, of {max}"))
}

fn update_out_of_order(view: &View, plan: &[Entry]) -> Option<String> {
    if view.settings.strategy == Strategy::Recreate {
        return None;
    }
    let taken: Vec<usize> = update_deletes(view, plan)
        .filter(|(_, pod)| is_available(view, pod))
        .map(|(ordinal, _)| ordinal)
        .collect();
    let lowest = taken.iter().copied().min()?;
    let is_left = |ordinal: &usize| {
        let outdated = view.pods[*ordinal].is_some_and(|pod| {
            pod.revision != view.set.template
                && is_available(view, &pod)
                && is_ours(&view.set, &pod)
        });
        view.set.wants(*ordinal) && outdated && !taken.contains(ordinal)
    };
    let left = (lowest + 1..view.pods.len()).find(is_left)?;
    Some(format!("web-{lowest} before web-{left}"))
}

fn create_beside_old(view: &View, plan: &[Entry]) -> Option<String> {
    if view.settings.strategy != Strategy::Recreate {
        return None;
    }
    let (created, _) = creates(plan).next()?;
    let is_old = |pod: &Option<Pod>| {
        pod.is_some_and(|pod| is_ours(&view.set, &pod) && pod.revision != view.set.template)
    };
    let old = view.pods.iter().position(is_old)?;
    Some(format!("web-{created} while web-{old} is there"))
}

fn unseen_uid(view: &View, plan: &[Entry]) -> Option<String> {
    let mut unseen = steps(plan).filter(|op| match *op {
        Op::DeletePod { ordinal, uid }
        | Op::UpdatePod { ordinal, uid }
        | Op::AdoptPod { ordinal, uid }
        | Op::ReleasePod { ordinal, uid } => {
            view.pods[usize::from(ordinal)].is_none_or(|pod| pod.uid != uid)
        }
        Op::PatchClaim {
            ordinal,
            uid,
            version,
            ..
        } => view.claims[usize::from(ordinal)]
            .is_none_or(|claim| (claim.uid, claim.version) != (uid, version)),
        Op::AdoptRevision { template, uid }
        | Op::RenumberRevision { template, uid, .. }
        | Op::DeleteRevision { template, uid } => {
            view.revisions[usize::from(template)].is_none_or(|revision| revision.uid != uid)
        }
        Op::CheckSet
        | Op::CreateRevision { .. }
        | Op::CreateClaim { .. }
        | Op::CreatePod { .. }
        | Op::WriteStatus { .. } => false,
    });
    unseen.next().map(|op| format!("{op:?}"))
}

fn claim_against_policy(view: &View, plan: &[Entry]) -> Option<String> {
    let settings = view.settings;
    let mut against = steps(plan).filter(|op| match *op {
        Op::PatchClaim {
            ordinal,
            owner: Owner::Pod(uid),
            ..
        } => {
            let ordinal = usize::from(ordinal);
            let is_holder = view.pods[ordinal].is_some_and(|pod| pod.uid == uid);
            !settings.delete_with_pod || view.set.wants(ordinal) || !is_holder
        }
        Op::PatchClaim {
            owner: Owner::Set(uid),
            ..
        } => !settings.delete_with_set || uid != view.set.uid,
        _ => false,
    });
    against.next().map(|op| format!("{op:?}"))
}

fn claim_from_stranger(view: &View, plan: &[Entry]) -> Option<String> {
    let mut taken = steps(plan).filter_map(|op| match op {
        Op::PatchClaim { ordinal, .. } => Some(usize::from(ordinal)),
        _ => None,
    });
    let ordinal = taken.find(|&ordinal| {
        view.claims[ordinal].is_some_and(|claim| claim.owner == Owner::Stranger)
    })?;
    Some(format!("the claim of web-{ordinal}"))
}

/// upstream: getStatefulSetRevisions stands before any change of a pod, and the claims of all condemned pods are handed over before the
/// first of them goes.
fn goes_before_intent(view: &View, plan: &[Entry]) -> Option<String> {
    let unwanted = |ordinal: u8| !view.set.wants(usize::from(ordinal));
    let deletes = plan.iter().filter_map(|entry| match entry.op {
        Op::DeletePod { ordinal, .. } => Some((entry, ordinal)),
        _ => None,
    });
    for (delete, ordinal) in deletes {
        let not_before = |other: &&Entry| (other.part, other.wave) >= (delete.part, delete.wave);
        let late = plan.iter().filter(not_before).find(|other| match other.op {
            Op::CreateRevision { .. } | Op::RenumberRevision { .. } => true,
            Op::PatchClaim { ordinal: of, .. } => unwanted(of) && unwanted(ordinal),
            _ => false,
        });
        if let Some(late) = late {
            return Some(format!("web-{ordinal} goes before {:?}", late.op));
        }
    }
    None
}

fn live_revision_deleted(view: &View, plan: &[Entry]) -> Option<String> {
    let mut deleted = steps(plan).filter_map(|op| match op {
        Op::DeleteRevision { template, .. } => Some(template),
        _ => None,
    });
    let live = |template: &u8| {
        let borne = view
            .pods
            .iter()
            .flatten()
            .any(|pod| is_ours(&view.set, pod) && pod.revision == *template);
        borne
            || *template == view.set.template
            || Some(*template) == view.set.status.current_revision
    };
    deleted
        .find(live)
        .map(|template| format!("revision {}", letter(template)))
}

fn deleting_touched(view: &View, plan: &[Entry]) -> Option<String> {
    if view.set.deleting == Deleting::No {
        return None;
    }
    let touches = |op: &Op| {
        matches!(
            op,
            Op::CreatePod { .. }
                | Op::DeletePod { .. }
                | Op::CreateClaim { .. }
                | Op::PatchClaim { .. }
                | Op::AdoptPod { .. }
                | Op::ReleasePod { .. }
        )
    };
    steps(plan).find(touches).map(|op| format!("{op:?}"))
}

fn stale_view(view: &View, plan: &[Entry]) -> Option<String> {
    let kind = view.behind?;
    steps(plan)
        .next()
        .map(|op| format!("{op:?} while the cache of {} is behind", kind.word()))
}

/// Nothing is left to do: every wanted ordinal has an available pod of the template, nothing else is there, all of it is recorded.
pub(crate) fn is_done(view: &View) -> bool {
    let set = &view.set;
    let wanted = set.ordinals().all(|ordinal| {
        available_at(view, ordinal)
            && view.pods[ordinal].is_some_and(|pod| {
                pod.revision == set.template && !pod.nameless && pod.owner == Owner::Set(set.uid)
            })
    });
    let surplus = view
        .pods
        .iter()
        .enumerate()
        .any(|(ordinal, pod)| !set.wants(ordinal) && pod.is_some_and(|pod| is_ours(set, &pod)));
    set.deleting == Deleting::No
        && wanted
        && !surplus
        && set.status == expected_status(view)
        && is_history_right(view)
}

/// What is not as it should be at rest, in worlds where it can be said.
pub(crate) fn broken_at_rest(world: &World, view: &View, claims: &Claims) -> Option<Violation> {
    let undisturbed = world.pod_deletes == 0
        && world.fails == 0
        && world.templates.is_empty()
        && world.retentions.is_empty()
        && world.strangers == 0;
    if world.settled && undisturbed && view.settings.delete_with_pod {
        let left = (0..claims.len())
            .find(|&ordinal| !view.set.wants(ordinal) && claims[ordinal].is_some());
        if let Some(ordinal) = left {
            return Some(Violation {
                rule: LEAKED,
                what: format!("data-web-{ordinal}"),
            });
        }
    }
    let partition = usize::from(view.set.start + view.set.partition);
    let Strategy::Rolling(_) = view.settings.strategy else {
        return None;
    };
    for ordinal in view.set.ordinals() {
        let Some(pod) = view.pods[ordinal].filter(|pod| is_ours(&view.set, pod)) else {
            continue;
        };
        // The world began with all pods at the first template, and no partition has been left since.
        let too_new = world.settled
            && world.scales.is_empty()
            && world.starts.is_empty()
            && ordinal < partition
            && pod.revision != 0;
        let too_old = ordinal >= partition
            && pod.revision != view.set.template
            && is_available(view, &pod)
            && is_whole(view);
        if too_new || too_old {
            return Some(Violation {
                rule: BELOW_PARTITION,
                what: format!("web-{ordinal} is at {}", letter(pod.revision)),
            });
        }
    }
    None
}

/// Every wanted ordinal is available, and no other is held: nothing keeps an update from going on.
fn is_whole(view: &View) -> bool {
    let held = |ordinal: usize| view.pods[ordinal].is_some_and(|pod| is_ours(&view.set, &pod));
    let mut ordinals = 0..view.pods.len();
    ordinals.all(|ordinal| {
        if view.set.wants(ordinal) {
            available_at(view, ordinal)
        } else {
            !held(ordinal)
        }
    })
}

/// The status that tells of these pods, once the set has come through.
pub(crate) fn expected_status(view: &View) -> Status {
    let set = &view.set;
    let pods = || view.pods.iter().flatten().filter(|pod| is_ours(set, pod));
    let count = |holds: &dyn Fn(&Pod) -> bool| {
        u8::try_from(pods().filter(|pod| holds(pod)).count()).unwrap_or(u8::MAX)
    };
    let mut status = Status {
        observed: set.generation,
        replicas: count(&|_| true),
        ready: count(&|pod| pod.is_ready()),
        available: count(&|pod| {
            pod.is_ready() && (!view.settings.min_ready || pod.life == Life::Aged)
        }),
        updated: count(&|pod| !pod.terminating && pod.revision == set.template),
        update_revision: Some(set.template),
        current_revision: set.status.current_revision,
        current: 0,
    };
    if (status.updated, status.ready, status.replicas) == (set.replicas, set.replicas, set.replicas)
    {
        status.current_revision = Some(set.template);
    }
    status.current =
        count(&|pod| !pod.terminating && Some(pod.revision) == status.current_revision);
    status
}

/// The template's revision is there and the newest, and no more old ones than the limit.
fn is_history_right(view: &View) -> bool {
    let Some(update) = view.revisions[usize::from(view.set.template)] else {
        return false;
    };
    let newest = view
        .revisions
        .iter()
        .flatten()
        .all(|revision| revision.number <= update.number);
    let borne = |template: u8| {
        view.pods
            .iter()
            .flatten()
            .any(|pod| pod.revision == template)
    };
    let old = (0..).zip(&view.revisions).filter(|&(template, revision)| {
        revision.is_some()
            && template != view.set.template
            && Some(template) != view.set.status.current_revision
            && !borne(template)
    });
    newest && old.count() <= usize::from(view.settings.history)
}

/// Nothing is planned but to store the status.
pub(crate) fn is_idle(plan: &[Entry]) -> bool {
    plan.iter()
        .all(|entry| entry.part == Part::Closing && matches!(entry.op, Op::WriteStatus { .. }))
}

/// A template's name in texts.
pub(crate) fn letter(template: u8) -> char {
    char::from(b'A' + template)
}
