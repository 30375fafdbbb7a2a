//! Rules that every decision must keep, whatever was observed: used by each test, the explorer, and the controller before it acts.
//!
//! They are written against the observation and the plan alone, not with the code that decides, so that they can disagree with it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use crate::decision::{Decision, Lane};
use crate::identity::{self, Ordinal};
use crate::observed::{Claim, Observed, Pod, Retention, Strategy};
use crate::owners::{Owner, Owners};
use crate::step::{DeleteReason, Step};

/// A rule that a decision breaks: our own bug. Nothing of such a decision may be carried out.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Violation {
    /// The sentence that does not hold.
    pub rule: &'static str,
    /// What breaks it.
    pub what: String,
}

/// A sentence and what breaks it.
type Rule = (&'static str, fn(&Observed, &Decision) -> Vec<String>);

const RULES: [Rule; 16] = [
    (
        "a step about an existing object names one that was seen, by its UID",
        names_what_was_seen,
    ),
    (
        "no pod is made while its name is held",
        makes_no_second_holder,
    ),
    (
        "a pod is made after all its claims, and on none that is being deleted",
        makes_claims_first,
    ),
    (
        "no object is touched twice by the same kind of step",
        touches_nothing_twice,
    ),
    (
        "OrderedReady makes one pod a round, after all before it are available",
        makes_in_order,
    ),
    (
        "OrderedReady removes one condemned pod a round, the highest, after all kept ones are available",
        removes_in_order,
    ),
    (
        "an update deletes no pod below the partition, none up to date, none already going",
        updates_only_the_outdated,
    ),
    (
        "an update takes no more available pods than the budget",
        keeps_the_budget,
    ),
    (
        "a pod is deleted for a reason that is true",
        deletes_for_true_reasons,
    ),
    (
        "a claim is owned only as the retention policy says",
        owns_claims_by_policy,
    ),
    (
        "what is intended is stored before the first pod goes: the revision, then the owners of every claim that may go",
        stores_what_it_intends_first,
    ),
    (
        "a set that is being deleted makes, deletes and repairs nothing",
        leaves_a_deleted_set,
    ),
    ("no revision in use is deleted", keeps_live_revisions),
    ("nothing is done on a stale cache", waits_for_its_cache),
    ("the counters of the status agree", counts_soundly),
    (
        "where nothing is planned and the set is not done, a blocker says why",
        says_why_it_waits,
    ),
];

/// Every rule that the decision breaks; empty for a sound one. Linear in what was observed and planned.
pub fn all(seen: &Observed, decision: &Decision) -> Vec<Violation> {
    let broken = |(rule, holds): &Rule| {
        holds(seen, decision)
            .into_iter()
            .map(|what| Violation { rule, what })
            .collect::<Vec<_>>()
    };
    RULES.iter().flat_map(broken).collect()
}

/// Nothing is left to do: every wanted pod is available at the update revision, no other pod is there, and the status says so.
pub fn is_done(seen: &Observed, decision: &Decision) -> bool {
    let (status, wanted) = (&decision.status, seen.set.replicas);
    let counters = [
        status.replicas,
        status.ready_replicas,
        status.available_replicas,
        status.updated_replicas,
    ];
    let whole = counters.iter().all(|count| *count == wanted)
        && status.current_revision == status.update_revision;
    whole
        && !seen.set.deleting
        && ours(seen).all(|pod| {
            !pod.terminating && pod.ordinal.is_none_or(|ordinal| seen.set.wants(ordinal))
        })
}

fn ours(seen: &Observed) -> impl Iterator<Item = &Arc<Pod>> {
    seen.pods
        .values()
        .filter(|pod| seen.set.controls(pod.controller.as_ref()))
}

fn complaints<'a>(
    steps: impl Iterator<Item = &'a Step>,
    bad: impl Fn(&Step) -> bool,
) -> Vec<String> {
    steps
        .filter(|step| bad(step))
        .map(Step::to_string)
        .collect()
}

fn names_what_was_seen(seen: &Observed, decision: &Decision) -> Vec<String> {
    complaints(decision.plan.steps(), |step| match step {
        Step::AdoptPod { pod, uid }
        | Step::ReleasePod { pod, uid, .. }
        | Step::UpdatePod { pod, uid, .. }
        | Step::DeletePod { pod, uid, .. } => {
            seen.pods.get(pod).is_none_or(|there| there.uid != *uid)
        }
        Step::AdoptRevision { revision, uid }
        | Step::RenumberRevision { revision, uid, .. }
        | Step::DeleteRevision { revision, uid, .. } => seen
            .revisions
            .get(revision)
            .is_none_or(|there| there.uid != *uid),
        Step::PatchClaim {
            claim,
            uid,
            resource_version,
            ..
        } => claim_named(seen, claim)
            .is_none_or(|there| there.uid != *uid || there.resource_version != *resource_version),
        Step::CreateRevision { revision, .. } => seen.revisions.contains_key(revision),
        Step::CreateClaim { claim, .. } => claim_named(seen, claim).is_some(),
        Step::CreatePod { .. } | Step::WriteStatus { .. } => false,
    })
}

fn claim_named<'a>(seen: &'a Observed, name: &str) -> Option<&'a Arc<Claim>> {
    seen.claims.get(&seen.set.place_of_claim(name)?)
}

fn makes_no_second_holder(seen: &Observed, decision: &Decision) -> Vec<String> {
    complaints(decision.plan.steps(), |step| match step {
        Step::CreatePod { pod, ordinal, .. } => {
            seen.pods.contains_key(pod) || !seen.set.wants(*ordinal)
        }
        _ => false,
    })
}

fn makes_claims_first(seen: &Observed, decision: &Decision) -> Vec<String> {
    let lanes = decision
        .plan
        .prologue
        .iter()
        .chain(&decision.plan.stages)
        .flatten();
    let early = |lane: &Lane| {
        lane.iter()
            .enumerate()
            .any(|(index, step)| lacks_a_claim(seen, step, lane.get(..index).unwrap_or_default()))
    };
    lanes
        .filter(|lane| early(lane))
        .flatten()
        .map(Step::to_string)
        .collect()
}

fn lacks_a_claim(seen: &Observed, step: &Step, earlier: &[Step]) -> bool {
    let Step::CreatePod { ordinal, .. } = step else {
        return false;
    };
    seen.set.claim_templates.iter().any(|template| {
        let name = identity::claim_name(&template.name, &seen.set.name, *ordinal);
        let made = earlier
            .iter()
            .any(|step| matches!(step, Step::CreateClaim { claim, .. } if *claim == name));
        !made && claim_named(seen, &name).is_none_or(|claim| claim.terminating)
    })
}

fn touches_nothing_twice(_seen: &Observed, decision: &Decision) -> Vec<String> {
    let mut touched = BTreeSet::new();
    let twice = decision
        .plan
        .steps()
        .filter(|step| !touched.insert((step.reason(), object_of(step))));
    twice.map(Step::to_string).collect()
}

fn object_of(step: &Step) -> &str {
    match step {
        Step::AdoptPod { pod, .. }
        | Step::ReleasePod { pod, .. }
        | Step::CreatePod { pod, .. }
        | Step::UpdatePod { pod, .. }
        | Step::DeletePod { pod, .. } => pod,
        Step::AdoptRevision { revision, .. }
        | Step::CreateRevision { revision, .. }
        | Step::RenumberRevision { revision, .. }
        | Step::DeleteRevision { revision, .. } => revision,
        Step::CreateClaim { claim, .. } | Step::PatchClaim { claim, .. } => claim,
        Step::WriteStatus { .. } => "",
    }
}

/// The pods that belong to the set, each at its ordinal; of two spellings of an ordinal the canonical one.
fn by_ordinal(seen: &Observed) -> BTreeMap<Ordinal, &Pod> {
    let set = &seen.set;
    let member = |pod: &&Arc<Pod>| {
        let mine = set.controls(pod.controller.as_ref())
            || (pod.controller.is_none() && !pod.terminating && !set.deleting);
        mine && pod.is_member_of(&set.name) && set.selector.matches(&pod.labels)
    };
    seen.pods
        .values()
        .filter(member)
        .filter_map(|pod| Some((pod.ordinal?, &**pod)))
        .collect()
}

/// Every wanted ordinal below this one has an available pod. Counts pods, not ordinals: replicas may be many.
fn all_available_below(seen: &Observed, pods: &BTreeMap<Ordinal, &Pod>, ordinal: Ordinal) -> bool {
    let start = Ordinal(seen.set.start);
    if ordinal <= start {
        return true;
    }
    let available = pods
        .range(start..ordinal)
        .filter(|(_, pod)| !pod.is_unavailable(seen))
        .count();
    u32::try_from(available) == Ok(ordinal.0.saturating_sub(start.0))
}

fn makes_in_order(seen: &Observed, decision: &Decision) -> Vec<String> {
    if seen.set.is_parallel() {
        return Vec::new();
    }
    let pods = by_ordinal(seen);
    let creates: Vec<_> = decision
        .plan
        .steps()
        .filter(|step| matches!(step, Step::CreatePod { .. }))
        .collect();
    let second = creates.get(1..).unwrap_or_default().iter().copied();
    let early = creates.iter().copied().filter(|step| match step {
        Step::CreatePod { ordinal, .. } => !all_available_below(seen, &pods, *ordinal),
        _ => false,
    });
    second.chain(early).map(Step::to_string).collect()
}

fn removes_in_order(seen: &Observed, decision: &Decision) -> Vec<String> {
    if seen.set.is_parallel() {
        return Vec::new();
    }
    let pods = by_ordinal(seen);
    let highest = pods.keys().rfind(|ordinal| !seen.set.wants(**ordinal));
    let end = Ordinal(seen.set.start.saturating_add(seen.set.replicas));
    complaints(decision.plan.steps(), |step| match step {
        Step::DeletePod {
            ordinal,
            because: DeleteReason::Condemned,
            ..
        } => Some(ordinal) != highest || !all_available_below(seen, &pods, end),
        _ => false,
    })
}

/// Update deletes of a rolling strategy, each with the pod that it is about.
fn update_deletes<'a>(
    seen: &'a Observed,
    decision: &'a Decision,
) -> impl Iterator<Item = (&'a Step, &'a Pod)> {
    decision.plan.steps().filter_map(|step| match step {
        Step::DeletePod {
            pod,
            because: DeleteReason::Outdated { .. },
            ..
        } => Some((step, &**seen.pods.get(pod)?)),
        _ => None,
    })
}

fn updates_only_the_outdated(seen: &Observed, decision: &Decision) -> Vec<String> {
    let partition = match &seen.set.strategy {
        Strategy::RollingUpdate(Some(rolling)) => rolling.partition,
        Strategy::RollingUpdate(None) | Strategy::Recreate => 0,
        Strategy::OnDelete => u32::MAX,
    };
    let bad = |(_, pod): &(&Step, &Pod)| {
        let below = pod
            .ordinal
            .is_none_or(|ordinal| ordinal.0.saturating_sub(seen.set.start) < partition);
        below || pod.terminating || pod.revision() == decision_revision(decision)
    };
    update_deletes(seen, decision)
        .filter(bad)
        .map(|(step, _)| step.to_string())
        .collect()
}

fn decision_revision(decision: &Decision) -> Option<&str> {
    decision.status.update_revision.as_deref()
}

fn keeps_the_budget(seen: &Observed, decision: &Decision) -> Vec<String> {
    let max_unavailable = match &seen.set.strategy {
        Strategy::RollingUpdate(Some(rolling)) => rolling.max_unavailable.of(seen.set.replicas),
        Strategy::RollingUpdate(None) => 1,
        Strategy::OnDelete | Strategy::Recreate => return Vec::new(),
    };
    let pods = by_ordinal(seen);
    let kept = |ordinal: &Ordinal| seen.set.wants(*ordinal);
    let available = pods
        .iter()
        .filter(|(ordinal, pod)| kept(ordinal) && !pod.is_unavailable(seen))
        .count();
    let unavailable = usize::try_from(seen.set.replicas)
        .unwrap_or(usize::MAX)
        .saturating_sub(available);
    let taken: Vec<_> = update_deletes(seen, decision)
        .filter(|(_, pod)| !pod.is_unavailable(seen))
        .collect();
    let budget = usize::try_from(max_unavailable)
        .unwrap_or(usize::MAX)
        .saturating_sub(unavailable);
    taken
        .iter()
        .skip(budget)
        .map(|(step, _)| step.to_string())
        .collect()
}

fn deletes_for_true_reasons(seen: &Observed, decision: &Decision) -> Vec<String> {
    complaints(decision.plan.steps(), |step| {
        let Step::DeletePod {
            pod,
            ordinal,
            because,
            ..
        } = step
        else {
            return false;
        };
        let Some(there) = seen.pods.get(pod) else {
            return true;
        };
        there.terminating
            || match because {
                DeleteReason::Ended { phase } => there.phase != *phase || !there.is_terminal(),
                DeleteReason::Condemned => seen.set.wants(*ordinal),
                DeleteReason::Outdated { has, wants } => {
                    there.revision() != has.as_deref() || has.as_ref() == Some(wants)
                }
            }
    })
}

fn owns_claims_by_policy(seen: &Observed, decision: &Decision) -> Vec<String> {
    let policy = seen.set.retention;
    complaints(decision.plan.steps(), |step| {
        let Step::PatchClaim {
            ordinal, owners, ..
        } = step
        else {
            return false;
        };
        let condemned = !seen.set.wants(*ordinal);
        let pod = identity::pod_name(&seen.set.name, *ordinal);
        let pod_owns = seen
            .pods
            .get(&pod)
            .is_some_and(|pod| has_owner(owners, "Pod", &pod.uid));
        let set_owns = has_owner(owners, "StatefulSet", &seen.set.uid);
        let set_may = policy.when_deleted == Retention::Delete
            && (policy.when_scaled == Retention::Retain || !condemned);
        let pod_may = policy.when_scaled == Retention::Delete && condemned;
        (set_owns && !set_may) || (pod_owns && !pod_may)
    })
}

fn has_owner(owners: &Owners, kind: &str, uid: &str) -> bool {
    let is =
        |owner: &Value, key: &str, text: &str| owner.get(key).is_some_and(|value| value == text);
    let is_ours = owners.ours.as_ref().is_some_and(|owner| match owner {
        Owner::Set { uid: has, .. } => kind == "StatefulSet" && **has == *uid,
        Owner::Pod { uid: has, .. } => kind == "Pod" && **has == *uid,
    });
    let mut others = owners.others.iter();
    is_ours || others.any(|owner| is(owner, "kind", kind) && is(owner, "uid", uid))
}

/// upstream: getStatefulSetRevisions stands before any change of a pod, and the claims of all condemned pods are handed over before the
/// first of them is deleted.
fn stores_what_it_intends_first(seen: &Observed, decision: &Decision) -> Vec<String> {
    let plan = &decision.plan;
    let early = plan.prologue.iter().flatten().flatten();
    let early = complaints(early, |step| {
        matches!(
            step,
            Step::CreateClaim { .. }
                | Step::PatchClaim { .. }
                | Step::CreatePod { .. }
                | Step::UpdatePod { .. }
                | Step::DeletePod { .. }
        )
    });
    let stages = plan.stages.iter().flatten().flatten();
    let late = complaints(stages.clone().chain(&plan.closing), |step| {
        matches!(
            step,
            Step::CreateRevision { .. } | Step::RenumberRevision { .. }
        )
    });
    let condemns = |step: &Step| {
        matches!(
            step,
            Step::DeletePod {
                because: DeleteReason::Condemned,
                ..
            }
        )
    };
    let first_delete = plan
        .stages
        .iter()
        .position(|wave| wave.iter().flatten().any(condemns));
    let after = plan.stages.iter().skip(first_delete.unwrap_or(usize::MAX));
    let handed_over_late = complaints(
        after.flatten().flatten(),
        |step| matches!(step, Step::PatchClaim { ordinal, .. } if !seen.set.wants(*ordinal)),
    );
    [early, late, handed_over_late].concat()
}

fn leaves_a_deleted_set(seen: &Observed, decision: &Decision) -> Vec<String> {
    if !seen.set.deleting {
        return Vec::new();
    }
    complaints(decision.plan.steps(), |step| match step {
        Step::AdoptRevision { .. }
        | Step::AdoptPod { .. }
        | Step::ReleasePod { .. }
        | Step::CreateClaim { .. }
        | Step::PatchClaim { .. }
        | Step::CreatePod { .. }
        | Step::UpdatePod { .. }
        | Step::DeletePod { .. } => true,
        // upstream keeps the books to the end: revisions are chosen and truncated as ever.
        Step::CreateRevision { .. }
        | Step::RenumberRevision { .. }
        | Step::DeleteRevision { .. }
        | Step::WriteStatus { .. } => false,
    })
}

fn keeps_live_revisions(seen: &Observed, decision: &Decision) -> Vec<String> {
    let mut live: BTreeSet<&str> = by_ordinal(seen)
        .values()
        .filter_map(|pod| pod.revision())
        .collect();
    live.extend(decision.status.current_revision.as_deref());
    live.extend(decision.status.update_revision.as_deref());
    complaints(
        decision.plan.steps(),
        |step| matches!(step, Step::DeleteRevision { revision, .. } if live.contains(&**revision)),
    )
}

fn waits_for_its_cache(seen: &Observed, decision: &Decision) -> Vec<String> {
    if seen.freshness.behind().is_none() {
        Vec::new()
    } else {
        complaints(decision.plan.steps(), |_| true)
    }
}

fn counts_soundly(seen: &Observed, decision: &Decision) -> Vec<String> {
    let written = decision
        .plan
        .steps()
        .any(|step| matches!(step, Step::WriteStatus { .. }));
    let status = &decision.status;
    let ordered = status.available_replicas <= status.ready_replicas
        && status.ready_replicas <= status.replicas;
    let bounded =
        status.current_replicas <= status.replicas && status.updated_replicas <= status.replicas;
    let forward = status.observed_generation >= seen.set.status.observed_generation
        || seen.set.generation < seen.set.status.observed_generation;
    if written && !(ordered && bounded && forward) {
        vec![format!("{status:?}")]
    } else {
        Vec::new()
    }
}

fn says_why_it_waits(seen: &Observed, decision: &Decision) -> Vec<String> {
    if decision.plan.is_idle() && decision.blocked.is_empty() && !is_done(seen, decision) {
        return vec![format!("{:?}", decision.status)];
    }
    Vec::new()
}
