//! What comes out of a decision: a plan in its order, the reasons for waiting, the status, and when to look again.

use jiff::Timestamp;

use crate::blocker::{Blocker, Retry};
use crate::event::KubeEvent;
use crate::status::Status;
use crate::step::Step;

/// What shall happen next to a set.
#[must_use = "a decision is there to be carried out, or to be read"]
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Decision {
    /// What to do, and in which order.
    pub plan: Plan,
    /// Why no more than that. Never empty where nothing is planned and the set is not done.
    pub blocked: Vec<Blocker>,
    /// The set's status after this. Where it differs from the stored one, the plan's closing holds the step that stores it.
    pub status: Status,
    /// When to look again even if nothing changes.
    pub recheck_at: Option<Timestamp>,
    /// Kubernetes Events that no step brings along; those of steps come from [`Step::event`].
    pub events: Vec<KubeEvent>,
}

/// Steps of one ordinal, one after another: a step is sent only when the former has succeeded (claims before their pod).
pub type Lane = Vec<Step>;

/// Lanes that do not touch each other and may be sent all at once.
pub type Wave = Vec<Lane>;

/// Steps in the order in which they may be sent.
///
/// Waves go one after another, a wave only when each lane of the former has succeeded. The lanes of a wave go at once, and one that fails
/// does not stop its neighbours. Where a wave of the `prologue` fails, the round is over. Where a wave of the `stages` fails,
/// the remaining stages are left out, but the `closing` is still done, each of its steps whatever became of the others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Plan {
    /// Whose objects are whose, and the revisions: nothing else makes sense without them.
    pub prologue: Vec<Wave>,
    /// Claims and pods.
    pub stages: Vec<Wave>,
    /// The status, then old revisions.
    pub closing: Lane,
}

impl Plan {
    /// Every step, in order.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        let waves = self.prologue.iter().chain(&self.stages);
        waves.flatten().flatten().chain(&self.closing)
    }

    /// Nothing is to be done but perhaps to store the status.
    pub fn is_idle(&self) -> bool {
        self.steps()
            .all(|step| matches!(step, Step::WriteStatus { .. }))
    }
}

impl Decision {
    /// Nothing watched is certain to tell when it can go on: look again after a back-off, as after an error.
    pub fn needs_retry(&self) -> bool {
        self.blocked
            .iter()
            .any(|blocker| blocker.retry() == Retry::WithBackoff)
    }
}
