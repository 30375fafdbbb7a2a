//! Carries a plan out as it stands: one call a step, in the plan's order. Nothing is decided here.

use std::sync::Arc;

use futures::stream::{self, StreamExt as _};
use stead_statefulset::{Lane, Observed, Plan, Step, Wave};

use crate::call::{CallError, call};
use crate::reconcile::Shell;
use crate::request;
use crate::resource::{is_terminating, uid};

/// Lanes under way at once, at most. upstream: 500. The API server's one writer is busy with far fewer, and whoever else
/// calls it waits behind all of them.
const WIDEST: usize = 32;

/// One step that was sent, and what came of it.
pub(crate) struct Sent {
    /// The step.
    pub(crate) step: Step,
    /// What came of it.
    pub(crate) result: Result<(), CallError>,
}

/// What became of a plan.
#[derive(Default)]
pub(crate) struct Executed {
    /// Every step that was sent, in no order that matters.
    pub(crate) sent: Vec<Sent>,
    /// The API asked for patience: the rest of the plan was given up.
    pub(crate) given_up: bool,
}

impl Executed {
    /// Whether a step failed or was not sent.
    pub(crate) fn failed(&self) -> bool {
        self.given_up || self.sent.iter().any(|sent| sent.result.is_err())
    }
}

/// Sends the steps of a plan.
pub(crate) async fn execute(shell: &Arc<Shell>, seen: &Observed, plan: Plan) -> Executed {
    let mut executed = Executed::default();
    let Plan {
        prologue,
        stages,
        closing,
    } = plan;
    if adopts(&prologue)
        && let Err(sent) = still_adopts(shell, seen, &prologue).await
    {
        executed.sent.push(sent);
        return executed;
    }
    for wave in prologue {
        if !send_wave(shell, seen, wave, &mut executed).await {
            return executed;
        }
    }
    for wave in stages {
        if !send_wave(shell, seen, wave, &mut executed).await {
            break;
        }
    }
    for step in closing {
        if patient(shell, &mut executed) {
            executed.sent.push(send(shell, seen, step).await);
        }
    }
    executed
}

/// Whether the API takes calls now; where it asked us to wait, what is left of the plan is given up: it would be an old
/// decision by then.
fn patient(shell: &Shell, executed: &mut Executed) -> bool {
    executed.given_up |= shell.backpressure.remaining().is_some();
    !executed.given_up
}

fn adopts(prologue: &[Wave]) -> bool {
    first_adoption(prologue).is_some()
}

fn first_adoption(prologue: &[Wave]) -> Option<&Step> {
    let mut steps = prologue.iter().flatten().flatten();
    steps.find(|step| matches!(step, Step::AdoptPod { .. } | Step::AdoptRevision { .. }))
}

/// Orphans are adopted only by a set that the API itself still shows, with the same UID and not being deleted.
/// upstream: RecheckDeletionTimestamp.
async fn still_adopts(shell: &Shell, seen: &Observed, prologue: &[Wave]) -> Result<(), Sent> {
    let Some(step) = first_adoption(prologue) else {
        return Ok(());
    };
    let refused = |error| Sent {
        step: step.clone(),
        result: Err(error),
    };
    let get = request::of_set(&seen.set);
    let path = get.path.clone();
    let live = call(&shell.client, get).await;
    let live = live
        .inspect_err(|error| shell.backpressure.note(error))
        .map_err(refused)?;
    let why = if uid(&live) != &*seen.set.uid {
        "the set was deleted and made again since it was seen"
    } else if is_terminating(&live) {
        "the set has been deleted since it was seen"
    } else {
        return Ok(());
    };
    Err(refused(CallError::Refused {
        method: http::Method::GET,
        path,
        code: 409,
        reason: "Conflict".to_owned(),
        message: format!("can't adopt: {why}"),
        retry_after: None,
    }))
}

/// Sends the lanes of a wave at once; one that fails does not stop its neighbours. Answers whether all went well. That a
/// refusal which will meet every lane is met a few times only is the plan's care: its waves begin small.
async fn send_wave(
    shell: &Arc<Shell>,
    seen: &Observed,
    wave: Wave,
    executed: &mut Executed,
) -> bool {
    let lanes = wave.into_iter().map(|lane| send_lane(shell, seen, lane));
    let mut sending = stream::iter(lanes).buffer_unordered(WIDEST);
    while let Some(lane) = sending.next().await {
        executed.sent.extend(lane.sent);
        executed.given_up |= lane.given_up;
    }
    !executed.failed()
}

async fn send_lane(shell: &Shell, seen: &Observed, lane: Lane) -> Executed {
    let mut executed = Executed::default();
    for step in lane {
        if !patient(shell, &mut executed) {
            break;
        }
        executed.sent.push(send(shell, seen, step).await);
        if executed.failed() {
            break;
        }
    }
    executed
}

async fn send(shell: &Shell, seen: &Observed, step: Step) -> Sent {
    let kind = step.call(&seen.set).resource;
    let result = match call(&shell.client, request::of(&step, &seen.set)).await {
        Ok(answer) => {
            shell.written.note(&seen.set, kind, &answer);
            Ok(())
        }
        // What was to go is gone: the goal is reached.
        Err(error) if error.is_not_found() && is_delete(&step) => Ok(()),
        Err(error) => {
            shell.backpressure.note(&error);
            learn(shell, seen, &step, &error).await;
            Err(error)
        }
    };
    Sent { step, result }
}

/// After an answer that shows that the cache is behind, and after none at all: how far it must come before the next
/// decision. Without this the same call would be sent, and refused, until the cache has caught up by itself.
async fn learn(shell: &Shell, seen: &Observed, step: &Step, error: &CallError) {
    let is_overtaken = matches!(error.code(), 0 | 409 | 422);
    if !is_overtaken || shell.backpressure.remaining().is_some() {
        return;
    }
    match call(&shell.client, request::of_object(step, &seen.set)).await {
        Ok(there) => {
            let kind = step.call(&seen.set).resource;
            shell.written.note(&seen.set, kind, &there);
        }
        Err(error) => shell.backpressure.note(&error),
    }
}

fn is_delete(step: &Step) -> bool {
    matches!(step, Step::DeletePod { .. } | Step::DeleteRevision { .. })
}

#[cfg(test)]
mod tests;
