//! One round of deciding: what it reads, and what it collects.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1 as core;

use super::actual::{Actual, Attempt, AttemptState, ContainerMemory, Failure, Memory};
use super::desired::{Container, ContainerKind, Desired};
use super::step::{Blocker, Decision, Note, Step};

/// After a failure the kubelet looks again this much later, if nothing happens before.
pub(super) const LOOK_AGAIN: SignedDuration = SignedDuration::from_secs(10);

/// The inputs and the decision in the making.
pub(super) struct Round<'a> {
    pub(super) desired: &'a Desired,
    pub(super) actual: &'a Actual,
    pub(super) now: Timestamp,
    pub(super) memory: Memory,
    steps: Vec<Step>,
    blockers: Vec<Blocker>,
    wake_at: Option<Timestamp>,
    held: Vec<String>,
}

impl<'a> Round<'a> {
    pub(super) fn new(desired: &'a Desired, actual: &'a Actual, now: Timestamp) -> Self {
        let memory = actual.memory.clone();
        Self {
            desired,
            actual,
            now,
            memory,
            steps: Vec::new(),
            blockers: Vec::new(),
            wake_at: None,
            held: Vec::new(),
        }
    }

    pub(super) fn finish(self) -> Decision {
        let Self {
            steps,
            blockers,
            wake_at,
            memory,
            ..
        } = self;
        Decision {
            steps,
            blockers,
            wake_at,
            memory,
        }
    }

    pub(super) fn step(&mut self, step: Step) {
        self.steps.push(step);
    }

    pub(super) fn block(&mut self, blocker: Blocker) {
        self.blockers.push(blocker);
    }

    pub(super) fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
    }

    /// Leaves a container alone until another round, which is asked for at once: its failure is shown first.
    pub(super) fn hold(&mut self, container: &Container) {
        self.held.push(container.name.clone());
        self.again();
    }

    /// Whether it is left alone in this round.
    pub(super) fn is_held(&self, container: &Container) -> bool {
        self.held.contains(&container.name)
    }

    /// Asks for another round at once.
    pub(super) fn again(&mut self) {
        self.wake(self.now);
    }

    pub(super) fn after(&self, wait: SignedDuration) -> Timestamp {
        self.now.saturating_add(wait).unwrap_or(Timestamp::MAX)
    }

    /// Reports a status if it says anything new.
    pub(super) fn report(&mut self, status: core::PodStatus) {
        if status != self.actual.reported {
            self.step(Step::ReportStatus(Box::new(status)));
        }
    }

    pub(super) fn latest(&self, container: &Container) -> Option<&'a Attempt> {
        self.actual
            .attempts
            .get(&container.name)
            .and_then(|lives| lives.last())
    }

    /// A shim holds it or it runs.
    pub(super) fn is_alive(&self, container: &Container) -> bool {
        let alive = |life: &Attempt| {
            matches!(
                life.state,
                AttemptState::Created | AttemptState::Running { .. }
            )
        };
        self.latest(container).is_some_and(alive)
    }

    pub(super) fn of(&mut self, container: &Container) -> &mut ContainerMemory {
        self.memory.of(&container.name)
    }

    pub(super) fn fail(
        &mut self,
        container: &Container,
        reason: &'static str,
        message: impl Into<String>,
    ) {
        let failure = Failure {
            reason,
            message: message.into(),
            at: self.now,
        };
        self.of(container).failure = Some(failure);
        self.block(Blocker::Failing {
            container: container.name.clone(),
            reason,
        });
    }

    pub(super) fn normal(
        &mut self,
        container: &Container,
        reason: &'static str,
        message: impl Into<String>,
    ) {
        self.note(false, Some(container), reason, message.into());
    }

    pub(super) fn warn(
        &mut self,
        container: &Container,
        reason: &'static str,
        message: impl Into<String>,
    ) {
        self.note(true, Some(container), reason, message.into());
    }

    pub(super) fn note(
        &mut self,
        warning: bool,
        about: Option<&Container>,
        reason: &'static str,
        message: String,
    ) {
        let about = about.map(|container| (list(container.kind), container.name.clone()));
        self.step(Step::Record(Note {
            warning,
            reason,
            message,
            about,
        }));
    }
}

/// The list of the spec that a kind of container stands in.
pub fn list(kind: ContainerKind) -> &'static str {
    match kind {
        ContainerKind::Init | ContainerKind::Sidecar => "initContainers",
        ContainerKind::Regular => "containers",
        ContainerKind::Ephemeral => "ephemeralContainers",
    }
}
