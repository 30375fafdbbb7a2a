//! News of containers: what became of a start, told once, and the postStart hook that follows it.

use super::actual::{AttemptState, End, HookId, HookKind, HookState, StopBecause};
use super::desired::Container;
use super::round::Round;
use super::step::Step;
use super::stop;

/// Tells every start that went well or wrong since the last round.
pub(super) fn starts(round: &mut Round<'_>) {
    for container in &round.desired.containers {
        let Some(latest) = round.latest(container) else {
            continue;
        };
        if round.of(container).announced == Some(latest.number) {
            continue;
        }
        match &latest.state {
            AttemptState::Created => continue,
            AttemptState::Running { .. } => running(round, container, latest.number),
            AttemptState::Ended(End {
                start_failure: None,
                ..
            }) => told(round, container),
            AttemptState::Ended(End {
                start_failure: Some(message),
                reason,
                ..
            }) => {
                failed(round, container, reason, message);
            }
        }
        round.of(container).announced = Some(latest.number);
    }
}

fn told(round: &mut Round<'_>, container: &Container) {
    round.normal(container, "Created", "Container created");
    round.normal(container, "Started", "Container started");
}

fn running(round: &mut Round<'_>, container: &Container, attempt: u32) {
    told(round, container);
    if container.post_start.is_some() && round.memory.stop.is_none() {
        let id = HookId {
            container: container.name.clone(),
            attempt,
            kind: HookKind::PostStart,
        };
        round.step(Step::RunHook { id, deadline: None });
        round.of(container).post_start = Some(attempt);
    }
}

fn failed(round: &mut Round<'_>, container: &Container, reason: &str, message: &str) {
    let status = if reason == "CreateContainerError" {
        "CreateContainerError"
    } else {
        round.normal(container, "Created", "Container created");
        "RunContainerError"
    };
    round.warn(container, "Failed", format!("Error: {message}"));
    round.fail(container, status, message);
}

/// Takes the ends of postStart hooks: a failed one ends its container.
pub(super) fn post_starts(round: &mut Round<'_>) {
    for container in &round.desired.containers {
        let Some(attempt) = round.of(container).post_start else {
            continue;
        };
        let id = HookId {
            container: container.name.clone(),
            attempt,
            kind: HookKind::PostStart,
        };
        match round.actual.hooks.get(&id) {
            // Not begun yet, or still at it.
            None | Some(HookState::Running) if round.is_alive(container) => continue,
            None | Some(HookState::Running | HookState::Done) => {}
            Some(HookState::Failed(_)) if round.is_alive(container) => {
                // upstream: what it said is nobody's business.
                round.warn(container, "FailedPostStartHook", "PostStartHook failed");
                stop::begin(round, container, StopBecause::PostStart);
            }
            Some(HookState::Failed(_)) => {}
        }
        round.of(container).post_start = None;
    }
}
