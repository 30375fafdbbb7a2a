//! Scale-down: pods whose ordinal left the wanted set, highest first.
//!
//! Runs after [`living`](super::living), so under OrderedReady every kept pod is available. Never touches claims;
//! see [`claims`](super::claims).

use std::ops::ControlFlow;

use crate::blocker::Blocker;
use crate::observed::Pod;
use crate::step::DeleteReason;

use super::round::Round;

/// Deletes condemned pods: one a round under OrderedReady, all of them under Parallel. upstream: processCondemned.
pub(super) fn scale_down(round: &mut Round<'_>) -> ControlFlow<()> {
    if round.seen.set.is_parallel() {
        all(round)
    } else {
        highest(round)
    }
}

fn all(round: &mut Round<'_>) -> ControlFlow<()> {
    let condemned: Vec<_> = round
        .condemned
        .iter()
        .rev()
        .map(|(ordinal, member)| (*ordinal, member.pod))
        .collect();
    let mut lanes = Vec::with_capacity(condemned.len());
    for (ordinal, pod) in condemned {
        if pod.terminating {
            round.blocked.push(Blocker::Terminating {
                pod: pod.name.clone(),
            });
        } else {
            lanes.push(
                round
                    .delete(pod, ordinal, DeleteReason::Condemned)
                    .into_iter()
                    .collect(),
            );
        }
    }
    round.wave(lanes);
    ControlFlow::Continue(())
}

fn highest(round: &mut Round<'_>) -> ControlFlow<()> {
    let Some((ordinal, member)) = round
        .condemned
        .last_key_value()
        .map(|(ordinal, member)| (*ordinal, *member))
    else {
        return ControlFlow::Continue(());
    };
    let pod = member.pod;
    if member.terminating {
        return round.stop(Blocker::Terminating {
            pod: pod.name.clone(),
        });
    }
    let healthy = member.ready && member.available;
    if !healthy && let Some(behind) = lowest_sick(round).filter(|behind| behind.name != pod.name) {
        let behind = behind.name.clone();
        return round.stop(Blocker::CondemnedWaits {
            pod: pod.name.clone(),
            behind,
        });
    }
    let step = round.delete(pod, ordinal, DeleteReason::Condemned);
    round.wave([step.into_iter().collect()]);
    ControlFlow::Break(())
}

/// The lowest condemned pod that is unavailable; no kept one is when this runs.
fn lowest_sick<'a>(round: &Round<'a>) -> Option<&'a Pod> {
    round
        .condemned
        .values()
        .find(|member| member.is_unavailable())
        .map(|member| member.pod)
}
