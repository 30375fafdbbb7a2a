//! What should happen next to one pod on this node: the pure heart of the node agent.
//!
//! [`decide`] is one round of what the kubelet calls a sync: first it says what is true, then what to do. It reads
//! nothing but its arguments. The shell ([`worker`](crate::worker)) runs a round whenever something that a decision
//! reads has changed, or when the decision asked to be woken.

mod actual;
mod admit;
mod announce;
mod backoff;
mod desired;
mod hostname;
mod image;
mod probe;
mod qos;
mod round;
mod start;
mod status;
mod step;
mod stop;
mod sysctl;

use jiff::Timestamp;

pub use actual::{
    Actual, Attempt, AttemptState, ContainerMemory, ContainerStop, End, Failure, HookId, HookKind,
    HookState, Memory, Place, PodStop, StopBecause, StopPhase, StopWhy, Trouble, Verdicts,
};
pub use admit::{Machine, Rejection, Share, admit};
pub use desired::{
    Container, ContainerKind, Desired, Fate, RestartPolicy, RestartRule, as_container,
    signal_number,
};
pub(crate) use hostname::{full_hostname, hostname};
pub use image::{HOST_IMAGE, Presence, Pull, PullPolicy, PullState, is_host};
pub use probe::{ProbeKind, ProbeRun, ProbeSpec, Verdict};
pub use qos::QosClass;
pub use round::list;
pub use status::{OWN_CONDITIONS, is_terminal};
pub use step::{Blocker, Decision, Note, Step};
pub(crate) use sysctl::name as sysctl_name;

use round::Round;

/// Said of a pod that ran longer than it asked to. Upstream's words.
const DEADLINE_MESSAGE: &str = "Pod was active on the node longer than the specified deadline";

/// The reason of a pod that took more than it may.
const EVICTED: &str = "Evicted";
/// upstream: `immediateEvictionGracePeriodSeconds`.
const EVICTION_GRACE: jiff::SignedDuration = jiff::SignedDuration::from_secs(1);

/// Decides what to do now about one pod.
///
/// Rule: a decision without steps for a pod that is not where it is to be has at least one blocker.
pub fn decide(desired: &Desired, actual: &Actual, now: Timestamp) -> Decision {
    let mut round = Round::new(desired, actual, now);
    round.memory.started.get_or_insert(now);
    announce::starts(&mut round);
    if let Some(stop) = stop::of_pod(&mut round) {
        stop::pod(&mut round, stop);
    } else if let Some(rejection) = &actual.rejected {
        refuse(&mut round, rejection);
    } else {
        live(&mut round);
    }
    round.finish()
}

fn refuse(round: &mut Round<'_>, rejection: &Rejection) {
    let (reason, message) = (rejection.reason, &rejection.message);
    if !round
        .actual
        .reported
        .phase
        .as_deref()
        .is_some_and(is_terminal)
    {
        round.note(true, None, reason, message.clone());
        let status = status::rejected(round.desired, round.actual, &round.memory, reason, message);
        round.report(status);
    }
    round.block(Blocker::Rejected {
        reason: reason.to_owned(),
    });
}

/// A round in the life of a pod that is to run.
fn live(round: &mut Round<'_>) {
    if is_over(round) {
        return;
    }
    announce::post_starts(round);
    let status = status::living(round.desired, round.actual, &round.memory, round.now);
    start::readiness(round, &status);
    round.report(status);
    if !start::ground(round) {
        return;
    }
    end_restarts(round);
    start::failing(round);
    start::containers(round);
    forget_old_lives(round);
}

/// Stops a pod that has come to its end: by its deadline, by the phase it has, or by the ends of its containers.
fn is_over(round: &mut Round<'_>) -> bool {
    let reported = round.actual.reported.phase.as_deref();
    let started = round
        .actual
        .reported
        .start_time
        .as_ref()
        .map(|time| time.0)
        .or(round.memory.started);
    let deadline = started.and_then(|started| round.desired.deadline(started));
    let phase = status::computed_phase(round.desired, round.actual, &round.memory, false);
    let why = if reported.is_some_and(is_terminal) || is_terminal(phase) {
        StopWhy::Terminal
    } else if let Some(deadline) = deadline
        && round.now >= deadline
    {
        round.note(false, None, "DeadlineExceeded", DEADLINE_MESSAGE.to_owned());
        StopWhy::DeadlineExceeded
    } else if let Some(excess) = &round.actual.excess {
        round.note(true, None, EVICTED, excess.clone());
        StopWhy::Evicted
    } else {
        deadline
            .into_iter()
            .for_each(|deadline| round.wake(deadline));
        return false;
    };
    let grace = match why {
        StopWhy::Evicted => EVICTION_GRACE,
        StopWhy::Deleted | StopWhy::DeadlineExceeded | StopWhy::Terminal | StopWhy::Paused => {
            jiff::SignedDuration::from_secs(round.desired.grace_seconds)
        }
    };
    let stop = PodStop {
        why,
        deadline: round.after(grace),
    };
    round.memory.stop = Some(stop);
    stop::pod(round, stop);
    true
}

/// Takes containers that the node itself ended: they are started again in this round, or say why not.
fn end_restarts(round: &mut Round<'_>) {
    for container in &round.desired.containers {
        let Some(stop) = round.memory.of(&container.name).stop.clone() else {
            continue;
        };
        if round
            .latest(container)
            .is_none_or(|latest| latest.number != stop.attempt)
        {
            round.of(container).stop = None;
        } else if round.is_alive(container) {
            stop::advance(round, container);
        } else if stop.because == StopBecause::PostStart {
            round.fail(container, "PostStartHookError", "PostStartHook failed");
            round.of(container).stop = None;
            round.hold(container);
        } else if round
            .latest(container)
            .and_then(Attempt::end)
            .is_some_and(|end| !container.restarts(end.code))
        {
            round.of(container).stop = None;
            round.hold(container);
        }
    }
}

/// Keeps the last two lives of each container: the present one and its `lastState`.
fn forget_old_lives(round: &mut Round<'_>) {
    for (container, lives) in &round.actual.attempts {
        let old = lives.len().saturating_sub(2);
        for life in lives.iter().take(old).filter(|life| life.end().is_some()) {
            round.step(Step::ForgetContainer {
                container: container.clone(),
                attempt: life.number,
            });
        }
    }
}
