//! Strategy Recreate (KEP-3541): every pod of an older revision goes before any new pod comes.

use std::ops::ControlFlow;

use crate::blocker::Blocker;
use crate::observed::Strategy;

use super::round::Round;

/// Deletes all outdated pods at once, wanted or condemned, whatever the management policy, and waits until they are gone.
pub(super) fn clear(round: &mut Round<'_>) -> ControlFlow<()> {
    if round.seen.set.strategy != Strategy::Recreate {
        return ControlFlow::Continue(());
    }
    let all = round
        .living
        .iter()
        .chain(&round.condemned)
        .map(|(ordinal, member)| (*ordinal, *member));
    let old: Vec<_> = all
        .filter(|(_, member)| member.created && !member.updated)
        .collect();
    let Some((_, first)) = old.first() else {
        return ControlFlow::Continue(());
    };
    let blocker = Blocker::OldRevisionRemains {
        pod: first.pod.name.clone(),
    };
    let staying: Vec<_> = old
        .into_iter()
        .filter(|(_, member)| !member.terminating)
        .collect();
    let lanes: Vec<_> = staying
        .into_iter()
        .map(|(ordinal, member)| {
            round
                .delete_outdated(member.pod, ordinal)
                .into_iter()
                .collect()
        })
        .collect();
    round.wave(lanes);
    round.stop(blocker)
}
