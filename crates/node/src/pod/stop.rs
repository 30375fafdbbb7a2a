//! Stopping: preStop hook, the turn of sidecars, the stop signal, the grace, the kill; then the last status.
//!
//! Upstream: `kuberuntime_container.go` (`killContainer`, termination ordering) and `TerminatePod`.

use jiff::{SignedDuration, Timestamp};

use super::actual::{
    AttemptState, ContainerStop, HookId, HookKind, HookState, Place, PodStop, StopBecause,
    StopPhase, StopWhy,
};
use super::desired::{Container, ContainerKind, Desired, Fate};
use super::image::Presence;
use super::probe::ProbeKind;
use super::round::Round;
use super::status;
use super::step::{Blocker, Step};

/// However little grace is left after a hook or a turn, a container has this long from its signal to its kill.
const SMALLEST_GRACE: SignedDuration = SignedDuration::from_secs(1);
/// A kill that left something alive is repeated this much later.
const KILL_AGAIN: SignedDuration = SignedDuration::from_secs(5);

/// Whether, why and until when the whole pod is to stop. A stop once begun is never taken back.
pub(super) fn of_pod(round: &mut Round<'_>) -> Option<PodStop> {
    let wanted = match round.desired.fate {
        Fate::Live => None,
        Fate::Deleted { grace_seconds } | Fate::Gone { grace_seconds } => {
            Some((StopWhy::Deleted, grace_seconds))
        }
        Fate::Paused { grace_seconds } => Some((StopWhy::Paused, grace_seconds)),
    };
    if let Some((why, grace_seconds)) = wanted {
        let deadline = round.after(SignedDuration::from_secs(grace_seconds));
        let deadline = round
            .memory
            .stop
            .map_or(deadline, |stop| stop.deadline.min(deadline));
        let why = match round.memory.stop {
            // What ended for a reason of its own keeps it in its status.
            Some(PodStop {
                why: own @ (StopWhy::DeadlineExceeded | StopWhy::Evicted),
                ..
            }) => own,
            Some(_) | None => why,
        };
        round.memory.stop = Some(PodStop { why, deadline });
    }
    round.memory.stop
}

/// One round of stopping the whole pod.
pub(super) fn pod(round: &mut Round<'_>, stop: PodStop) {
    for container in &round.desired.containers {
        if round.is_alive(container) {
            join(round, container, stop.deadline);
            advance(round, container);
        }
    }
    if round
        .desired
        .containers
        .iter()
        .any(|container| round.is_alive(container))
    {
        report_stopping(round, stop);
    } else {
        ended(round, stop);
    }
}

/// Makes a container part of the pod's stop, whatever it was being stopped for.
fn join(round: &mut Round<'_>, container: &Container, deadline: Timestamp) {
    let Some(latest) = round.latest(container) else {
        return;
    };
    match &mut round.of(container).stop {
        Some(stop) if stop.attempt == latest.number => {
            stop.because = StopBecause::Pod;
            stop.deadline = stop.deadline.min(deadline);
        }
        Some(_) | None => begin_until(round, container, StopBecause::Pod, deadline),
    }
}

/// Begins to stop one container that will be started again.
pub(super) fn begin(round: &mut Round<'_>, container: &Container, because: StopBecause) {
    let own = match because {
        StopBecause::Liveness => container
            .probe(ProbeKind::Liveness)
            .and_then(|p| p.grace_seconds),
        StopBecause::Startup => container
            .probe(ProbeKind::Startup)
            .and_then(|p| p.grace_seconds),
        StopBecause::Pod | StopBecause::PostStart | StopBecause::Definition => None,
    };
    let grace = SignedDuration::from_secs(own.unwrap_or(round.desired.grace_seconds));
    let deadline = round.after(grace);
    begin_until(round, container, because, deadline);
    advance(round, container);
}

fn begin_until(
    round: &mut Round<'_>,
    container: &Container,
    because: StopBecause,
    deadline: Timestamp,
) {
    let Some(latest) = round.latest(container) else {
        return;
    };
    if latest.state == AttemptState::Created {
        // It can take no signal yet; it is stopped as soon as it runs, or killed in the end.
        round.block(Blocker::Starting {
            container: container.name.clone(),
        });
        round.wake(deadline);
        if round.now >= deadline {
            kill(round, container, latest.number);
        }
        return;
    }
    let name = &container.name;
    let message = match because {
        StopBecause::Pod => format!("Stopping container {name}"),
        StopBecause::Liveness => {
            format!("Container {name} failed liveness probe, will be restarted")
        }
        StopBecause::Startup => format!("Container {name} failed startup probe, will be restarted"),
        StopBecause::PostStart => "FailedPostStartHook".to_owned(),
        StopBecause::Definition => {
            format!("Container {name} definition changed, will be restarted")
        }
    };
    round.normal(container, "Killing", message);
    let mut stop = ContainerStop {
        attempt: latest.number,
        because,
        deadline,
        phase: StopPhase::Turn,
    };
    if container.pre_stop.is_some() && round.now < deadline {
        let id = HookId {
            container: name.clone(),
            attempt: latest.number,
            kind: HookKind::PreStop,
        };
        round.step(Step::RunHook {
            id,
            deadline: Some(deadline),
        });
        stop.phase = StopPhase::PreStop;
    }
    round.of(container).stop = Some(stop);
}

/// Moves the stop of a living container on.
pub(super) fn advance(round: &mut Round<'_>, container: &Container) {
    let Some(mut stop) = round.of(container).stop.clone() else {
        return;
    };
    if stop.phase == StopPhase::PreStop && hook_is_over(round, container, &stop) {
        stop.phase = StopPhase::Turn;
    }
    if stop.phase == StopPhase::Turn && has_turn(round, container, &stop) {
        ask(round, container, &mut stop);
    }
    match stop.phase {
        StopPhase::PreStop | StopPhase::Turn => round.wake(stop.deadline),
        StopPhase::Asked if round.now < stop.deadline => round.wake(stop.deadline),
        StopPhase::Killed { at } if round.now < add(at, KILL_AGAIN) => {
            round.wake(add(at, KILL_AGAIN))
        }
        StopPhase::Asked | StopPhase::Killed { .. } => {
            kill(round, container, stop.attempt);
            stop.phase = StopPhase::Killed { at: round.now };
        }
    }
    round.block(Blocker::Stopping {
        container: container.name.clone(),
        deadline: stop.deadline,
    });
    round.of(container).stop = Some(stop);
}

fn add(at: Timestamp, wait: SignedDuration) -> Timestamp {
    at.saturating_add(wait).unwrap_or(Timestamp::MAX)
}

fn hook_is_over(round: &mut Round<'_>, container: &Container, stop: &ContainerStop) -> bool {
    let id = HookId {
        container: container.name.clone(),
        attempt: stop.attempt,
        kind: HookKind::PreStop,
    };
    match round.actual.hooks.get(&id) {
        None | Some(HookState::Running) if round.now < stop.deadline => false,
        Some(HookState::Done) => true,
        // upstream: one that has not ended with the grace ends with its container, and has then failed. What it said
        // is nobody's business.
        None | Some(HookState::Running | HookState::Failed(_)) => {
            let sleeps = container
                .pre_stop
                .as_ref()
                .is_some_and(|hook| hook.sleep.is_some());
            if !sleeps {
                round.warn(container, "FailedPreStopHook", "PreStopHook failed");
            }
            true
        }
    }
}

/// Sidecars go last, in the reverse of the order in which they came.
fn has_turn(round: &Round<'_>, container: &Container, stop: &ContainerStop) -> bool {
    if container.kind != ContainerKind::Sidecar
        || stop.because != StopBecause::Pod
        || round.now >= stop.deadline
    {
        return true;
    }
    let later = |other: &&Container| match other.kind {
        ContainerKind::Regular => true,
        ContainerKind::Sidecar => is_after(round.desired, other, container),
        ContainerKind::Init | ContainerKind::Ephemeral => false,
    };
    !round
        .desired
        .containers
        .iter()
        .filter(later)
        .any(|other| round.is_alive(other))
}

fn is_after(desired: &Desired, one: &Container, other: &Container) -> bool {
    let place = |wanted: &Container| {
        desired
            .containers
            .iter()
            .position(|c| c.name == wanted.name)
    };
    place(one) > place(other)
}

fn ask(round: &mut Round<'_>, container: &Container, stop: &mut ContainerStop) {
    stop.deadline = stop.deadline.max(round.after(SMALLEST_GRACE));
    stop.phase = StopPhase::Asked;
    let (attempt, deadline) = (stop.attempt, stop.deadline);
    let signal = stop_signal(round, container);
    round.step(Step::StopContainer {
        container: container.name.clone(),
        attempt,
        signal,
        deadline,
    });
}

/// `SIGTERM`, which ends a container unless it or its image says otherwise.
const SIGTERM: i32 = 15;

fn stop_signal(round: &Round<'_>, container: &Container) -> i32 {
    let of_image = match round.actual.images.get(&container.name) {
        Some(Presence::Present { stop_signal, .. }) => *stop_signal,
        Some(Presence::Absent | Presence::Unreadable(_)) | None => None,
    };
    container.stop_signal.or(of_image).unwrap_or(SIGTERM)
}

fn kill(round: &mut Round<'_>, container: &Container, attempt: u32) {
    round.step(Step::KillContainer {
        container: container.name.clone(),
        attempt,
    });
    round.wake(round.after(KILL_AGAIN));
}

fn report_stopping(round: &mut Round<'_>, stop: PodStop) {
    // Of a pod without an object there is nobody to tell; its name may be another's by now.
    let gone = matches!(round.desired.fate, Fate::Gone { .. });
    if gone || is_final(round) {
        return;
    }
    let phase = match stop.why {
        StopWhy::DeadlineExceeded | StopWhy::Evicted => "Failed",
        StopWhy::Deleted | StopWhy::Terminal => {
            status::computed_phase(round.desired, round.actual, &round.memory, true)
        }
        StopWhy::Paused => {
            status::computed_phase(round.desired, round.actual, &round.memory, false)
        }
    };
    let status = status::stopping(round.desired, round.actual, &round.memory, phase, round.now);
    round.report(status);
}

/// The API already has a final phase: nothing more is said of the pod.
fn is_final(round: &Round<'_>) -> bool {
    round
        .actual
        .reported
        .phase
        .as_deref()
        .is_some_and(status::is_terminal)
}

/// Every container is gone: says the last word, gives back the place, lets the object go.
///
/// In this order: what the runtime knows of the containers is forgotten with the place.
fn ended(round: &mut Round<'_>, stop: PodStop) {
    let gone = matches!(round.desired.fate, Fate::Gone { .. });
    if !gone && !is_final(round) {
        last_word(round, stop.why);
    }
    match round.actual.place {
        // Also without a place: one that could not be taken up proves nothing, the release does.
        Place::None | Place::Prepared(_) => {
            round.step(Step::ReleasePod);
            round.block(Blocker::Held);
        }
        Place::Released => {}
    }
    match round.desired.fate {
        Fate::Gone { .. } => round.step(Step::Finish),
        Fate::Deleted { .. } if !round.actual.removal_asked => round.step(Step::RemovePodObject),
        Fate::Deleted { .. } => round.block(Blocker::ObjectRemains),
        Fate::Live | Fate::Paused { .. } => {}
    }
}

fn last_word(round: &mut Round<'_>, why: StopWhy) {
    let (desired, actual, now) = (round.desired, round.actual, round.now);
    let failed = match why {
        StopWhy::DeadlineExceeded => Some(("DeadlineExceeded", super::DEADLINE_MESSAGE)),
        StopWhy::Evicted => Some((super::EVICTED, actual.excess.as_deref().unwrap_or_default())),
        StopWhy::Deleted | StopWhy::Terminal | StopWhy::Paused => None,
    };
    let phase = status::computed_phase(desired, actual, &round.memory, false);
    let status = if why == StopWhy::Paused && !status::is_terminal(phase) {
        let released = super::Actual {
            place: Place::Released,
            ..actual.clone()
        };
        status::stopping(desired, &released, &round.memory, phase, now)
    } else {
        status::last(desired, actual, &round.memory, failed, now)
    };
    round.report(status);
}
