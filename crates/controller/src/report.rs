//! Tells of a round: Kubernetes Events, log lines. No new facts are made here.

use stead_statefulset::{Blocker, Decision, EventType as Type, KubeEvent as Told};

use crate::events::{EventType, KubeEvent, ObjectReference, Recorder};
use crate::execute::Executed;
use crate::reconcile::Shell;
use crate::resource::Key;
use crate::snapshot::Snapshot;

/// Tells what was done and what is waited for.
pub(crate) fn round(
    shell: &Shell,
    key: &Key,
    snapshot: &Snapshot,
    decision: &Decision,
    executed: &Executed,
) {
    let set = &snapshot.observed.set;
    for sent in &executed.sent {
        match &sent.result {
            Ok(()) => tracing::info!(set = %key, step = %sent.step, "done"),
            Err(error) if error.is_conflict() || error.is_not_found() => {
                tracing::debug!(set = %key, step = %sent.step, %error, "overtaken");
                continue;
            }
            Err(error) => tracing::warn!(set = %key, step = %sent.step, %error, "failed"),
        }
        let message = sent
            .result
            .as_ref()
            .err()
            .map(crate::call::CallError::message);
        let outcome = message.as_deref().map_or(Ok(()), Err);
        if let Some(event) = sent.step.event(set, outcome) {
            record(&shell.recorder, &snapshot.about, event);
        }
    }
    for event in &decision.events {
        record(&shell.recorder, &snapshot.about, event.clone());
    }
    let reasons = decision.blocked.iter().map(Blocker::reason).collect();
    shell.metrics.blocked(key, reasons);
    for blocker in &decision.blocked {
        tracing::debug!(set = %key, reason = blocker.reason(), %blocker, "waits");
    }
}

fn record(recorder: &Recorder, about: &ObjectReference, event: Told) {
    let Told {
        event_type,
        reason,
        message,
    } = event;
    let event_type = match event_type {
        Type::Normal => EventType::Normal,
        Type::Warning => EventType::Warning,
    };
    recorder.record(KubeEvent {
        about: about.clone(),
        event_type,
        reason,
        message,
    });
}
