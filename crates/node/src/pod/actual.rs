//! What is true of a pod on this machine: the `Actual` of [`decide`](super::decide), and what the node remembers.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1 as core;

use super::admit::Rejection;
use super::backoff::Backoff;
use super::image::{Presence, Pull};
use super::probe::Verdict;
use crate::runtime::{ContainerRecord, ContainerState};

/// Everything that a decision reads besides the pod itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Actual {
    /// The pod's place on the machine.
    pub place: Place,
    /// Whether its volumes are there.
    pub volumes_ready: bool,
    /// They are to be brought up to date: something that they are made of has changed, or a token grows old.
    pub volumes_stale: bool,
    /// Lives of its containers that the runtime knows, oldest first.
    pub attempts: BTreeMap<String, Vec<Attempt>>,
    /// What its probes say, by container, of the life named in it.
    pub verdicts: BTreeMap<String, Verdicts>,
    /// Hooks that run or ran, by container, life and kind.
    pub hooks: BTreeMap<HookId, HookState>,
    /// The status that was last reported, or that the API had when the node began.
    pub reported: core::PodStatus,
    /// The machine's address.
    pub host_ip: IpAddr,
    /// What is true of their images, by container; the machine's own file system is always there.
    pub images: BTreeMap<String, Presence>,
    /// Pulls that run or ran, by container.
    pub pulls: BTreeMap<String, Pull>,
    /// The node cannot take it.
    pub rejected: Option<Rejection>,
    /// It takes more of the disk than it may: the sentence says of what.
    pub excess: Option<String>,
    /// UID of a former pod of the same name that still holds the identity.
    pub former: Option<String>,
    /// The object has been asked to go and was not there any more, or waits for a finalizer.
    pub removal_asked: bool,
    /// What the node remembers from round to round.
    pub memory: Memory,
}

/// The pod's place: its address and its names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Not made yet.
    None,
    /// Made; the pod has this address.
    Prepared(IpAddr),
    /// Given back: no process of the pod is left.
    Released,
}

/// One life of a container.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    /// 0 for the first.
    pub number: u32,
    /// The image it was started from, as far as it is known.
    pub image: Option<String>,
    /// Which bytes that name stood for, as far as it is known.
    pub image_id: Option<String>,
    /// What is true of it.
    pub state: AttemptState,
    /// It lived before the machine was started anew: what it did for the pod may be gone.
    pub former_boot: bool,
    /// The termination message, once it ended.
    pub message: Option<String>,
}

/// What is true of one life of a container.
#[derive(Debug, Clone, PartialEq)]
pub enum AttemptState {
    /// A shim holds it, nothing runs yet.
    Created,
    /// It runs.
    Running {
        /// Since when.
        started: Timestamp,
    },
    /// It ended and nothing of it is left; or it could not be started.
    Ended(End),
}

/// How a life ended.
#[derive(Debug, Clone, PartialEq)]
pub struct End {
    /// Exit code.
    pub code: i32,
    /// Signal that ended it.
    pub signal: Option<i32>,
    /// Status reason: `Completed`, `Error`, `OOMKilled`, `StartError`, ...
    pub reason: String,
    /// What the runtime said of a failed start.
    pub start_failure: Option<String>,
    /// When it started.
    pub started: Timestamp,
    /// When it ended.
    pub finished: Timestamp,
}

impl Attempt {
    /// Takes a record of the runtime.
    /// `seen`: when the state was first seen, which is when a failed start ended.
    pub fn of(
        record: &ContainerRecord,
        (image, image_id): (Option<String>, Option<String>),
        message: Option<String>,
        seen: Timestamp,
    ) -> Self {
        Self {
            number: record.id.attempt,
            image,
            image_id,
            former_boot: record.former_boot,
            state: AttemptState::of(&record.state, seen),
            message,
        }
    }

    /// How it ended, once it did.
    pub fn end(&self) -> Option<&End> {
        match &self.state {
            AttemptState::Ended(end) => Some(end),
            AttemptState::Created | AttemptState::Running { .. } => None,
        }
    }
}

impl AttemptState {
    fn of(state: &ContainerState, seen: Timestamp) -> Self {
        let time = |text: &str| text.parse::<Timestamp>().unwrap_or(Timestamp::UNIX_EPOCH);
        match state {
            ContainerState::Created => AttemptState::Created,
            ContainerState::Running { pid: _, started_at } => AttemptState::Running {
                started: time(started_at),
            },
            ContainerState::Exited {
                code,
                signal,
                oom,
                started_at,
                finished_at,
            } => AttemptState::Ended(End {
                code: *code,
                signal: *signal,
                reason: match (oom, code) {
                    (true, _) => "OOMKilled",
                    (false, 0) => "Completed",
                    (false, _) => "Error",
                }
                .to_owned(),
                start_failure: None,
                started: time(started_at),
                finished: time(finished_at),
            }),
            ContainerState::Failed {
                reason,
                message,
                code,
            } => AttemptState::Ended(End {
                code: *code,
                signal: None,
                reason: reason.clone(),
                start_failure: Some(message.clone()),
                // upstream: what never started began at the epoch.
                started: Timestamp::UNIX_EPOCH,
                finished: seen,
            }),
        }
    }
}

/// What the probes say of one life of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdicts {
    /// Which life.
    pub attempt: u32,
    /// The startup probe.
    pub startup: Verdict,
    /// The liveness probe.
    pub liveness: Verdict,
    /// The readiness probe.
    pub readiness: Verdict,
}

impl Verdicts {
    /// Nothing asked yet.
    pub fn fresh(attempt: u32) -> Self {
        Self {
            attempt,
            startup: Verdict::Unknown,
            liveness: Verdict::Success,
            readiness: Verdict::Failure,
        }
    }
}

/// Which hook of which life of which container.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HookId {
    /// The container.
    pub container: String,
    /// Its life.
    pub attempt: u32,
    /// Which hook.
    pub kind: HookKind,
}

/// The two lifecycle hooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum HookKind {
    /// Right after the start.
    PostStart,
    /// Before it is asked to end.
    PreStop,
}

/// How far a hook is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HookState {
    /// It runs.
    Running,
    /// It ended well.
    Done,
    /// It failed; the text says how.
    Failed(String),
}

/// What the node remembers of a pod between rounds; lost when the daemon ends, and not needed to be safe.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Memory {
    /// `status.startTime`: when the node first took it up.
    pub started: Option<Timestamp>,
    /// By container.
    pub containers: BTreeMap<String, ContainerMemory>,
    /// The pod as a whole is being stopped.
    pub stop: Option<PodStop>,
    /// The last failure to make its volumes or its place, and when.
    pub trouble: Option<Trouble>,
}

impl Memory {
    /// A memory that takes up a pod whose lives were there before the daemon: none of them is told as news.
    pub fn resume(attempts: &BTreeMap<String, Vec<Attempt>>) -> Self {
        let mut memory = Memory::default();
        for (container, lives) in attempts {
            let known = lives
                .last()
                .filter(|latest| latest.state != AttemptState::Created);
            memory
                .containers
                .entry(container.clone())
                .or_default()
                .announced = known.map(|latest| latest.number);
        }
        memory
    }

    /// Notes that a container could not be started.
    pub fn note_failure(
        &mut self,
        container: &str,
        reason: &'static str,
        message: String,
        now: Timestamp,
    ) {
        self.of(container).failure = Some(Failure {
            reason,
            message,
            at: now,
        });
    }

    /// Notes that volumes or place could not be made; the next try is half a second later, then twice as long.
    ///
    /// Upstream: `exponentialbackoff`, from 0.5 s to 2 min 2 s.
    pub fn note_trouble(&mut self, reason: &'static str, message: String, now: Timestamp) {
        let times = self
            .trouble
            .as_ref()
            .filter(|before| before.reason == reason)
            .map_or(0, |before| before.times + 1);
        let wait = SignedDuration::from_millis((500_i64 << times.min(8)).min(122_000));
        let retry_at = now.saturating_add(wait).unwrap_or(Timestamp::MAX);
        self.trouble = Some(Trouble {
            reason,
            message,
            retry_at,
            times,
        });
    }

    /// The memory of one container.
    pub fn of(&mut self, container: &str) -> &mut ContainerMemory {
        self.containers.entry(container.to_owned()).or_default()
    }
}

/// What the node remembers of one container.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ContainerMemory {
    /// The wait before its next start.
    pub backoff: Backoff,
    /// The wait before its image is asked for again.
    pub image_backoff: Backoff,
    /// When the pull failed that was last told of.
    pub image_failed: Option<Timestamp>,
    /// Why its last start failed, shown as `waiting`.
    pub failure: Option<Failure>,
    /// The latest life whose start was told as an event.
    pub announced: Option<u32>,
    /// The life whose postStart hook has not ended yet.
    pub post_start: Option<u32>,
    /// It is being stopped.
    pub stop: Option<ContainerStop>,
}

/// Why a container could not be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The reason in its status: `CrashLoopBackOff`, `CreateContainerConfigError`, ...
    pub reason: &'static str,
    /// What was tried and what the system said.
    pub message: String,
    /// When.
    pub at: Timestamp,
}

/// Why volumes or place could not be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// `FailedMount`, `FailedCreatePodSandBox`.
    pub reason: &'static str,
    /// What was tried and what the system said.
    pub message: String,
    /// When it is tried again.
    pub retry_at: Timestamp,
    /// How often it failed in a row.
    pub times: u32,
}

/// The pod is being stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PodStop {
    /// Why.
    pub why: StopWhy,
    /// When every container must be gone.
    pub deadline: Timestamp,
}

/// Why a whole pod is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopWhy {
    /// Its object is deleted or gone.
    Deleted,
    /// It ran longer than `activeDeadlineSeconds`.
    DeadlineExceeded,
    /// It took more of the disk than it may.
    Evicted,
    /// Its containers have ended for good.
    Terminal,
    /// The cluster goes down.
    Paused,
}

/// A container is being stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerStop {
    /// Which life.
    pub attempt: u32,
    /// Why.
    pub because: StopBecause,
    /// When it must be gone.
    pub deadline: Timestamp,
    /// How far.
    pub phase: StopPhase,
}

/// Why one container is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopBecause {
    /// The whole pod is.
    Pod,
    /// It failed its liveness probe.
    Liveness,
    /// It failed its startup probe.
    Startup,
    /// Its postStart hook failed.
    PostStart,
    /// The pod now asks for another image.
    Definition,
}

/// How far a stop is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopPhase {
    /// Its preStop hook runs.
    PreStop,
    /// A sidecar waits for the containers that came up after it.
    Turn,
    /// It was asked to end.
    Asked,
    /// It was killed, at this time.
    Killed {
        /// When.
        at: Timestamp,
    },
}
