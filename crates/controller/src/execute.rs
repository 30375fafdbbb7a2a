//! Carries a plan out as it stands: one call a step, in the plan's order. Nothing is decided here.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use stead_statefulset::{Lane, Observed, Plan, Step, Wave};

use crate::call::{CallError, call};
use crate::reconcile::Shell;
use crate::request;
use crate::resource::{is_terminating, uid};

/// Lanes under way at once, at most. upstream: 500.
const WIDEST: usize = 256;

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
}

impl Executed {
    /// Whether a step failed.
    pub(crate) fn failed(&self) -> bool {
        self.sent.iter().any(|sent| sent.result.is_err())
    }

    /// The longest that the server asked us to wait.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        self.sent
            .iter()
            .filter_map(|sent| sent.result.as_ref().err()?.retry_after())
            .max()
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
        executed.sent.push(send(shell, seen, step).await);
    }
    executed
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
    let live = call(&shell.client, get).await.map_err(refused)?;
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

/// Sends the lanes of a wave at once, a few at first and twice as many each time all goes well: where every create is
/// refused, one refusal is enough. upstream: slowStartBatch. Answers whether all went well.
async fn send_wave(
    shell: &Arc<Shell>,
    seen: &Observed,
    wave: Wave,
    executed: &mut Executed,
) -> bool {
    let mut lanes = wave.into_iter();
    let mut batch = 1;
    loop {
        let sending: Vec<_> = lanes
            .by_ref()
            .take(batch)
            .map(|lane| send_lane(shell, seen, lane))
            .collect();
        if sending.is_empty() {
            return true;
        }
        let sent: Vec<Sent> = join_all(sending).await.into_iter().flatten().collect();
        let failed = sent.iter().any(|sent| sent.result.is_err());
        executed.sent.extend(sent);
        if failed {
            return false;
        }
        batch = (batch * 2).min(WIDEST);
    }
}

async fn send_lane(shell: &Shell, seen: &Observed, lane: Lane) -> Vec<Sent> {
    let mut all = Vec::with_capacity(lane.len());
    for step in lane {
        let sent = send(shell, seen, step).await;
        let failed = sent.result.is_err();
        all.push(sent);
        if failed {
            break;
        }
    }
    all
}

async fn send(shell: &Shell, seen: &Observed, step: Step) -> Sent {
    let kind = step.call(&seen.set).resource;
    let result = match call(&shell.client, request::of(&step, &seen.set)).await {
        Ok(answer) => {
            shell.written.note(&shell.watched, &seen.set, kind, &answer);
            Ok(())
        }
        // What was to go is gone: the goal is reached.
        Err(error) if error.is_not_found() && is_delete(&step) => Ok(()),
        Err(error) => Err(error),
    };
    Sent { step, result }
}

fn is_delete(step: &Step) -> bool {
    matches!(step, Step::DeletePod { .. } | Step::DeleteRevision { .. })
}

#[cfg(test)]
mod tests;
