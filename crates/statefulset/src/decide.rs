//! The one entry: from what was observed to what shall happen next.

mod claims;
mod condemned;
mod living;
mod membership;
mod recreate;
mod round;
mod update;

use std::ops::ControlFlow;

use jiff::Timestamp;

use crate::blocker::{Blocker, Retry};
use crate::decision::{Decision, Plan};
use crate::event::KubeEvent;
use crate::observed::{Observed, Ready, Strategy};
use crate::replica::Member;
use crate::revision;
use crate::status::Status;
use crate::step::Step;

use round::Round;

/// Decides what shall happen next to the set. Pure and total: the same observation always gives the same decision.
///
/// For `apps/v1` it is what Kubernetes 1.37 does (gate MaxUnavailableStatefulSet on, StatefulSetRecreateStrategy off), in one sync with
/// caches as observed. Deliberate differences have their pages in `docs/decisions/`.
///
/// What holds this: 6,000 recorded syncs of the built-in controller, every state of the small worlds of `crates/sim`, and the rules of
/// [`check`](crate::check). How that hangs together, and what it does not cover, is told in `docs/explored.md`.
pub fn decide(seen: &Observed) -> Decision {
    if let Some(refusal) = refusal(seen) {
        return refused(seen, refusal);
    }
    let mut plan = Plan::default();
    let history = revision::history(seen);
    if let ControlFlow::Break(blocker) = membership::adopt_revisions(seen, &history, &mut plan) {
        return refused(seen, blocker);
    }
    let revisions = revision::choose(seen, &history);
    let claimed = membership::claim_pods(seen, &revisions, &mut plan);
    if let Some(step) = &revisions.step {
        plan.prologue.push(vec![vec![step.clone()]]);
    }
    let mut round = Round::new(seen, &revisions, &claimed, plan);
    let finished = phases(&mut round).is_continue();
    if finished {
        round.note_what_policy_leaves();
    }
    let old = revision::truncate(seen, &history, &revisions, &claimed);
    close(round, old)
}

/// The stages, each of which may end the round. upstream: updateStatefulSet.
fn phases(round: &mut Round<'_>) -> ControlFlow<()> {
    round.still_wanted()?;
    recreate::clear(round)?;
    living::bring_up(round)?;
    claims::follow_condemned(round)?;
    condemned::scale_down(round)?;
    update::roll(round)
}

/// What forbids any step at all.
fn refusal(seen: &Observed) -> Option<Blocker> {
    if let Some((resource, mark)) = seen.freshness.behind() {
        return Some(Blocker::StaleCache { resource, mark });
    }
    if let Some(malformed) = seen.malformed.first() {
        return Some(Blocker::Malformed(malformed.clone()));
    }
    let upstream_has_it =
        seen.set.strategy != Strategy::Recreate || !seen.set.api_version.starts_with("apps/");
    (!upstream_has_it).then_some(Blocker::StrategyRefused)
}

fn refused(seen: &Observed, blocker: Blocker) -> Decision {
    let mut events = Vec::new();
    if blocker == Blocker::StrategyRefused {
        let (namespace, name) = (&seen.set.namespace, &seen.set.name);
        let message = format!(
            "statefulset {namespace}/{name} uses Recreate strategy but feature gate StatefulSetRecreateStrategy is disabled"
        );
        events.push(KubeEvent::warning("UnknownStrategy", message));
    }
    Decision {
        plan: Plan::default(),
        blocked: vec![blocker],
        status: seen.set.status.clone(),
        recheck_at: None,
        events,
    }
}

fn close(round: Round<'_>, old_revisions: Vec<Step>) -> Decision {
    let seen = round.seen;
    let status = round.status();
    let mut plan = round.plan;
    if status.differs_from(&seen.set.status) {
        plan.closing.push(Step::WriteStatus {
            status: status.clone(),
        });
    }
    plan.closing.extend(old_revisions);
    let failing = round
        .blocked
        .iter()
        .any(|blocker| blocker.retry() == Retry::WithBackoff);
    let recheck_at = if failing {
        None
    } else {
        next_available(seen, round.claimed, &status)
    };
    Decision {
        plan,
        blocked: round.blocked,
        status,
        recheck_at,
        events: round.events,
    }
}

/// When the next ready pod becomes available. upstream: FindMinNextPodAvailabilityCheck.
fn next_available(seen: &Observed, claimed: &[Member<'_>], status: &Status) -> Option<Timestamp> {
    let all_available = status.ready_replicas == status.available_replicas;
    if seen.set.min_ready_seconds == 0 || all_available {
        return None;
    }
    let coming = claimed
        .iter()
        .map(|member| member.pod)
        .filter(|pod| pod.ready != Ready::No)
        .filter_map(|pod| pod.available_at(&seen.set));
    let fallback = seen
        .now
        .checked_add(jiff::SignedDuration::from_secs(i64::from(
            seen.set.min_ready_seconds,
        )))
        .ok();
    coming.filter(|at| *at > seen.now).min().or(fallback)
}
