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
        .map(|(ordinal, pod)| (*ordinal, *pod));
    let old: Vec<_> = all
        .filter(|(_, pod)| pod.is_created() && round.is_outdated(pod))
        .collect();
    let Some((_, first)) = old.first() else {
        return ControlFlow::Continue(());
    };
    let blocker = Blocker::OldRevisionRemains {
        pod: first.name.clone(),
    };
    let staying: Vec<_> = old
        .into_iter()
        .filter(|(_, pod)| !pod.terminating)
        .collect();
    let lanes: Vec<_> = staying
        .into_iter()
        .map(|(ordinal, pod)| round.delete_outdated(pod, ordinal).into_iter().collect())
        .collect();
    round.wave(lanes);
    round.stop(blocker)
}
