//! Rolling update: outdated pods are deleted, highest ordinal first, within the budget; their successors come by [`living`](super::living).

use std::ops::ControlFlow;

use crate::blocker::Blocker;
use crate::identity::Ordinal;
use crate::observed::{MaxUnavailable, Strategy};
use crate::replica::Member;

use super::round::Round;

/// A pod at its ordinal.
type Placed<'a> = (Ordinal, Member<'a>);

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
    let (broken, healthy) = outdated(round, partition);
    // upstream keeps the two phases to Parallel; under OrderedReady no pod is broken when this runs.
    delete(round, &broken);
    let budget = max_unavailable.saturating_sub(unavailable);
    let (now, later) = healthy.split_at(
        healthy
            .len()
            .min(usize::try_from(budget).unwrap_or(usize::MAX)),
    );
    delete(round, now);
    if later.is_empty() {
        return ControlFlow::Continue(());
    }
    let unavailable = unavailable.saturating_add(u32::try_from(now.len()).unwrap_or(u32::MAX));
    round.stop(Blocker::BudgetSpent {
        unavailable,
        max_unavailable,
    })
}

/// Outdated pods that are not already going, from the highest ordinal down to the partition: the broken ones, which are
/// unavailable already and which no budget must protect, and the healthy ones.
fn outdated<'a>(round: &Round<'a>, partition: u32) -> (Vec<Placed<'a>>, Vec<Placed<'a>>) {
    let lowest = Ordinal(round.seen.set.start.saturating_add(partition));
    let above = round
        .living
        .range(lowest..)
        .rev()
        .map(|(ordinal, member)| (*ordinal, *member));
    let outdated = above.filter(|(_, member)| !member.updated && !member.terminating);
    outdated.partition(|(_, member)| !member.available)
}

fn delete(round: &mut Round<'_>, pods: &[Placed<'_>]) {
    let lanes: Vec<_> = pods
        .iter()
        .map(|(ordinal, member)| {
            round
                .delete_outdated(member.pod, *ordinal)
                .into_iter()
                .collect()
        })
        .collect();
    round.wave(lanes);
}
