//! One round of one set: snapshot, decide, check, execute, report.

use std::sync::Arc;

use jiff::Timestamp;
use stead_statefulset::{Decision, Plan, check, decide};

use crate::events::Recorder;
use crate::execute::{Executed, execute};
use crate::queue::Outcome;
use crate::report;
use crate::resource::Key;
use crate::snapshot::{self, Written};
use crate::watch::Watched;

/// What rounds share.
pub(crate) struct Shell {
    /// For the calls of steps.
    pub(crate) client: kube::Client,
    /// For events about sets.
    pub(crate) recorder: Recorder,
    /// What the watches show.
    pub(crate) watched: Watched,
    /// What we wrote ourselves.
    pub(crate) written: Written,
}

/// One round of the set with this key.
pub(crate) async fn reconcile(shell: Arc<Shell>, key: Key) -> Outcome {
    let now = Timestamp::now();
    let Some(seen) = snapshot::take(&shell.watched, &shell.written, &key, now) else {
        shell.written.forget(&key);
        return Outcome::Done;
    };
    let mut decision = decide(&seen.observed);
    let violations = check::all(&seen.observed, &decision);
    if !violations.is_empty() {
        tracing::error!(set = %key, ?violations, "a decision breaks our own rules; nothing of it is carried out");
        return Outcome::Retry;
    }
    let plan: Plan = std::mem::take(&mut decision.plan);
    let executed = execute(&shell, &seen.observed, plan).await;
    report::round(&shell, &key, &seen, &decision, &executed);
    outcome(&decision, &executed, now)
}

/// When the set's next round is.
fn outcome(decision: &Decision, executed: &Executed, now: Timestamp) -> Outcome {
    if let Some(delay) = executed.retry_after() {
        return Outcome::RetryAfter(delay);
    }
    if executed.failed() || decision.needs_retry() {
        return Outcome::Retry;
    }
    match decision.recheck_at {
        Some(at) => Outcome::Recheck(at.duration_since(now).try_into().unwrap_or_default()),
        None => Outcome::Done,
    }
}
