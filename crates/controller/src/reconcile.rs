//! One round of one set: snapshot, decide, check, execute, report.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use stead_statefulset::{Decision, Plan, check, decide};

use crate::backpressure::Backpressure;
use crate::events::Recorder;
use crate::execute::{Executed, execute};
use crate::metrics::Metrics;
use crate::queue::Outcome;
use crate::report;
use crate::resource::Key;
use crate::snapshot::{self, Snapshot, Written};
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
    /// What the API asked of us.
    pub(crate) backpressure: Backpressure,
    /// What is counted.
    pub(crate) metrics: Metrics,
}

/// One round of the set with this key.
pub(crate) async fn reconcile(shell: Arc<Shell>, key: Key) -> Outcome {
    if let Some(remaining) = shell.backpressure.remaining() {
        return Outcome::RetryAfter(remaining);
    }
    let now = Timestamp::now();
    let Some(seen) = snapshot::take(&shell.watched, &shell.written, &key, now) else {
        shell.written.forget(&key);
        shell.metrics.blocked(&key, Vec::new());
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
    if let Some(remaining) = shell.backpressure.remaining() {
        return Outcome::RetryAfter(remaining);
    }
    outcome(&decision, &executed, now).unwrap_or_else(|| await_caches(&shell.watched, &key, &seen))
}

/// Behind our own writes: the set's turn comes again when the cache that is behind has caught up.
fn await_caches(watched: &Watched, key: &Key, seen: &Snapshot) -> Outcome {
    match seen.observed.freshness.behind() {
        Some((resource, mark)) if watched.wake_at(key, resource, mark.wrote) => {
            Outcome::Recheck(Duration::ZERO)
        }
        Some(_) | None => Outcome::Done,
    }
}

/// When the set's next round is; `None` when news of it brings it.
fn outcome(decision: &Decision, executed: &Executed, now: Timestamp) -> Option<Outcome> {
    if executed.failed() || decision.needs_retry() {
        return Some(Outcome::Retry);
    }
    let at = decision.recheck_at?;
    let delay = at.duration_since(now).try_into().unwrap_or_default();
    Some(Outcome::Recheck(delay))
}
