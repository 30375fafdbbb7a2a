//! Wanted ordinals: missing pods are made with their claims, ended ones cleared away, tampered ones repaired.
//!
//! Under OrderedReady ascending, and nothing comes after an ordinal that is not available. Under Parallel all are looked at, in batches
//! of 1, 2, 4, ... as upstream's slow start, so that a refusal that will meet every pod is met a few times only.

use std::ops::ControlFlow;
use std::sync::Arc;

use serde_json::Value;

use crate::blocker::{Blocker, Holder};
use crate::decision::Lane;
use crate::event::Verb;
use crate::identity::{self, Ordinal};
use crate::json::Json;
use crate::observed::{Observed, Phase, Pod};
use crate::replica::Member;
use crate::step::{DeleteReason, Repair, Step};

use super::claims;
use super::round::Round;

/// Lanes of one wave under Parallel. upstream: MaxBatchSize.
const BATCH_MAX: usize = 500;
/// Pods created in one round: a plan stays small however many replicas are asked for.
const CREATES_MAX: u32 = 5_000;

/// What an ordinal means for those after it.
enum Verdict {
    /// Nothing to wait for.
    Next,
    /// Nothing after it under OrderedReady.
    Wait,
    /// upstream has an error here: nothing after its batch.
    Fail,
}

/// upstream: runForAll over processReplica.
pub(super) fn bring_up(round: &mut Round<'_>) -> ControlFlow<()> {
    if round.seen.set.is_parallel() {
        in_batches(round)
    } else {
        in_order(round)
    }
}

fn in_order(round: &mut Round<'_>) -> ControlFlow<()> {
    for ordinal in round.seen.set.ordinals() {
        let mut lane = Lane::new();
        let verdict = replica(round, ordinal, &mut lane);
        round.wave([lane]);
        match verdict {
            Verdict::Next => {}
            Verdict::Wait | Verdict::Fail => return ControlFlow::Break(()),
        }
    }
    ControlFlow::Continue(())
}

fn in_batches(round: &mut Round<'_>) -> ControlFlow<()> {
    let mut ordinals = round.seen.set.ordinals();
    let mut size = 1_usize;
    let mut created = 0_u32;
    loop {
        let batch: Vec<_> = ordinals.by_ref().take(size).collect();
        if batch.is_empty() {
            return ControlFlow::Continue(());
        }
        let mut lanes = Vec::with_capacity(batch.len());
        let mut failed = false;
        for ordinal in batch {
            let mut lane = Lane::new();
            failed |= matches!(replica(round, ordinal, &mut lane), Verdict::Fail);
            created = created.saturating_add(u32::from(matches!(
                lane.last(),
                Some(Step::CreatePod { .. })
            )));
            lanes.push(lane);
        }
        round.wave(lanes);
        if failed {
            return ControlFlow::Break(());
        }
        if created >= CREATES_MAX {
            return round.stop(Blocker::RoundFull { created });
        }
        size = size.saturating_mul(2).min(BATCH_MAX);
    }
}

/// One ordinal. upstream: processReplica.
fn replica(round: &mut Round<'_>, ordinal: Ordinal, lane: &mut Lane) -> Verdict {
    let Some(Member { pod, .. }) = round.living.get(&ordinal).copied() else {
        return missing(round, ordinal, None, lane);
    };
    if pod.is_terminal() {
        return ended(round, pod, ordinal, lane);
    }
    if !pod.is_created() {
        return missing(round, ordinal, Some(pod), lane);
    }
    let pending = pod.phase == Phase::Pending;
    if pending && !claims::complete(round, ordinal, pod, lane) {
        return Verdict::Fail;
    }
    let waits_for = pod.why_unavailable(round.seen);
    let waiting = waits_for.is_some();
    round.blocked.extend(waits_for);
    if waiting && !round.seen.set.is_parallel() {
        return Verdict::Wait;
    }
    repair(round, pod, ordinal, lane)
}

/// A pod that failed or succeeded is deleted; its successor comes when it is gone. upstream: the same for any exit code.
fn ended(round: &mut Round<'_>, pod: &Pod, ordinal: Ordinal, lane: &mut Lane) -> Verdict {
    if pod.terminating {
        round.blocked.push(Blocker::Terminating {
            pod: pod.name.clone(),
        });
    } else {
        lane.extend(round.delete(pod, ordinal, DeleteReason::Ended { phase: pod.phase }));
    }
    Verdict::Wait
}

/// Makes the pod of an ordinal, after its claims. `unreported`: the pod that is there, but that upstream takes for not created.
fn missing(
    round: &mut Round<'_>,
    ordinal: Ordinal,
    unreported: Option<&Pod>,
    lane: &mut Lane,
) -> Verdict {
    let seen = round.seen;
    let pod = identity::pod_name(&seen.set.name, ordinal);
    let uid = unreported.map_or("", |pod| &pod.uid);
    if let Some(claim) = claims::stale(seen, ordinal, &pod, uid) {
        round.blocked.push(Blocker::ClaimStale { claim, pod });
        return Verdict::Wait;
    }
    if !claims::create_missing(round, ordinal, Some(Verb::Create), lane) {
        return Verdict::Fail;
    }
    if let Some(blocker) = why_not_creatable(seen, &pod, unreported) {
        round.blocked.push(blocker);
        return Verdict::Fail;
    }
    let target = round.revision_for(ordinal);
    lane.push(Step::CreatePod {
        pod,
        ordinal,
        revision: target.name.clone(),
        template: target.template.clone(),
    });
    claims::settle_all(round, ordinal, None, lane);
    Verdict::Wait
}

/// upstream learns of a taken name by AlreadyExists; here it is seen.
fn why_not_creatable(
    seen: &Observed,
    name: &Arc<str>,
    unreported: Option<&Pod>,
) -> Option<Blocker> {
    if unreported.is_some() {
        return Some(Blocker::Unreported { pod: name.clone() });
    }
    let there = seen.pods.get(name)?;
    let holder = match &there.controller {
        Some(owner) if owner.uid != seen.set.uid => Holder::Stranger {
            kind: owner.kind.clone(),
            name: owner.name.clone(),
        },
        None if there.terminating && seen.set.selector.matches(&there.labels) => Holder::Leaving,
        Some(_) | None => Holder::Unselected,
    };
    Some(Blocker::NameTaken {
        pod: name.clone(),
        holder,
    })
}

/// Gives a pod back its identity and storage, and its claims their owners. upstream: UpdateStatefulPod.
fn repair(round: &mut Round<'_>, pod: &Pod, ordinal: Ordinal, lane: &mut Lane) -> Verdict {
    let seen = round.seen;
    if !identity::is_canonical(&pod.name) {
        round.blocked.push(Blocker::OddName {
            pod: pod.name.clone(),
            canonical: identity::pod_name(&seen.set.name, ordinal),
        });
        return Verdict::Fail;
    }
    let because = Repair {
        identity: !pod.bears_its_name,
        storage: !pod.has_storage(&seen.set, ordinal),
    };
    if because.storage && !claims::create_missing(round, ordinal, Some(Verb::Update), lane) {
        return Verdict::Fail;
    }
    // A pending pod's claims are settled by now.
    if pod.phase != Phase::Pending {
        claims::follow_retention(round, ordinal, pod, lane);
    }
    if because.identity || because.storage {
        lane.push(update(seen, pod, ordinal, because));
    }
    Verdict::Next
}

fn update(seen: &Observed, pod: &Pod, ordinal: Ordinal, because: Repair) -> Step {
    let others: Vec<Value> = serde_json::from_str(&pod.volumes).unwrap_or_default();
    let volumes = || Json::new(identity::volumes_of(&seen.set, ordinal, &others).into());
    Step::UpdatePod {
        pod: pod.name.clone(),
        uid: pod.uid.clone(),
        ordinal,
        because,
        volumes: because.storage.then(volumes),
    }
}
