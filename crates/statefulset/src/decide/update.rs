//! Rolling update: outdated pods are deleted, highest ordinal first, within the budget; their successors come by [`living`](super::living).

use std::ops::ControlFlow;

use crate::blocker::Blocker;
use crate::identity::Ordinal;
use crate::observed::{MaxUnavailable, Pod, Strategy};

use super::round::Round;

/// Deletes as many outdated pods as may be unavailable.
///
/// upstream 1.37: updateStatefulSetAfterInvariantEstablished, with the gate MaxUnavailableStatefulSet on.
pub(super) fn roll(round: &mut Round<'_>) -> ControlFlow<()> {
    let (partition, max_unavailable) = match &round.seen.set.strategy {
        Strategy::OnDelete | Strategy::Recreate => return ControlFlow::Continue(()),
        Strategy::RollingUpdate(Some(rolling)) => (rolling.partition, rolling.max_unavailable),
        Strategy::RollingUpdate(None) => (0, MaxUnavailable::Pods(1)),
    };
    let max_unavailable = max_unavailable.of(round.seen.set.replicas);
    let unavailable = round.unavailable();
    let outdated: Vec<_> = outdated(round, partition);
    if round.seen.set.is_parallel() {
        clear_broken(round, &outdated);
    }
    let rest = outdated
        .iter()
        .filter(|(_, pod)| !round.seen.set.is_parallel() || pod.is_available(round.seen));
    let budget = max_unavailable.saturating_sub(unavailable);
    replace(
        round,
        rest,
        budget,
        Blocker::BudgetSpent {
            unavailable,
            max_unavailable,
        },
    )
}

/// Outdated pods from the highest ordinal down to the partition that are not already going.
fn outdated<'a>(round: &Round<'a>, partition: u32) -> Vec<(Ordinal, &'a Pod)> {
    let lowest = Ordinal(round.seen.set.start.saturating_add(partition));
    let above = round
        .living
        .range(lowest..)
        .rev()
        .map(|(ordinal, pod)| (*ordinal, *pod));
    above
        .filter(|(_, pod)| round.is_outdated(pod) && !pod.terminating)
        .collect()
}

/// Phase 1 of Parallel: broken outdated pods go at once. They are unavailable already; a budget must not protect them.
fn clear_broken(round: &mut Round<'_>, outdated: &[(Ordinal, &Pod)]) {
    let broken: Vec<_> = outdated
        .iter()
        .filter(|(_, pod)| !pod.is_available(round.seen))
        .collect();
    let lanes: Vec<_> = broken
        .into_iter()
        .map(|(ordinal, pod)| round.delete_outdated(pod, *ordinal).into_iter().collect())
        .collect();
    round.wave(lanes);
}

/// Deletes the first `budget` of these, and says so when it did not reach the others.
fn replace<'a>(
    round: &mut Round<'_>,
    outdated: impl Iterator<Item = &'a (Ordinal, &'a Pod)>,
    budget: u32,
    spent: Blocker,
) -> ControlFlow<()> {
    let outdated: Vec<_> = outdated.collect();
    let budget = usize::try_from(budget).unwrap_or(usize::MAX);
    let lanes: Vec<_> = outdated
        .iter()
        .take(budget)
        .map(|(ordinal, pod)| round.delete_outdated(pod, *ordinal).into_iter().collect())
        .collect();
    round.wave(lanes);
    if outdated.len() > budget {
        return round.stop(spent);
    }
    ControlFlow::Continue(())
}
