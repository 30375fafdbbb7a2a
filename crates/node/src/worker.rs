//! One pod's worker: snapshot, decide, execute, report; then wait for news.
//!
//! A worker owns all that the node knows of its pod. It decides again when something that a decision reads has changed,
//! or when the last decision asked to be woken. Nothing is decided here: behaviour belongs in [`crate::pod`].

mod execute;
mod hook;
mod measure;
mod patch;
mod probes;
mod pull;
mod snapshot;
mod unenforced;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use kube::Client;
use tokio::sync::{mpsc, watch};

use crate::events::{About, Recorder};
use crate::images::Images;
use crate::node::NodeOptions;
use crate::pod::{
    self, Desired, Fate, HookId, HookState, Memory, Place, PullState, Rejection, Step, Verdict,
    Verdicts,
};
use crate::runtime::{ContainerRecord, Runtime};
use crate::volume::{Ready, Volumes};

/// What all workers of a node share.
pub(crate) struct Shared {
    pub(crate) client: Client,
    pub(crate) options: NodeOptions,
    pub(crate) runtime: Arc<dyn Runtime>,
    /// The node's folder.
    pub(crate) node: PathBuf,
    pub(crate) volumes: Volumes,
    pub(crate) images: Images,
    pub(crate) recorder: Recorder,
    /// Where pods ask for names.
    pub(crate) resolver: Resolver,
    /// Folders of claims that pods use now, by pod.
    pub(crate) in_use: InUse,
}

/// Folders of claims that pods use now, by the UID of the pod.
#[derive(Debug, Default)]
pub(crate) struct InUse(Mutex<BTreeMap<String, BTreeSet<PathBuf>>>);

impl InUse {
    /// Notes which folders a pod uses; none when it has let go of all.
    pub(crate) fn set(&self, uid: &str, folders: BTreeSet<PathBuf>) {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if folders.is_empty() {
            table.remove(uid);
        } else {
            table.insert(uid.to_owned(), folders);
        }
    }

    /// Whether any pod uses a folder.
    pub(crate) fn contains(&self, folder: &Path) -> bool {
        let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.values().any(|folders| folders.contains(folder))
    }
}

/// How the resolv.conf of a pod is made.
#[derive(Debug, Clone, Default)]
pub(crate) struct Resolver {
    /// Name servers of the cluster that pods can reach.
    pub(crate) cluster: Option<crate::dns::resolv::ClusterDns>,
    /// The machine's own.
    pub(crate) machine: crate::dns::resolv::Resolver,
}

/// What the manager tells a worker; the last value counts.
#[derive(Debug, Clone)]
pub(crate) struct Input {
    /// The pod as it was last seen in the API, or in the node's records.
    pub(crate) pod: Arc<core::Pod>,
    /// It is not in the API any more.
    pub(crate) gone: bool,
    /// It is to stop but stay in the API, within so many seconds.
    pub(crate) paused: Option<i64>,
    /// UID of a former pod of the same name that is not proved gone.
    pub(crate) former: Option<String>,
    /// The node cannot take it.
    pub(crate) rejected: Option<Rejection>,
    /// Counts changes of configMaps and secrets that it uses.
    pub(crate) refreshed: u64,
}

/// What a worker tells the manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Progress {
    /// No process of the pod is left and its place is given back.
    pub(crate) released: bool,
    /// There is nothing left to do for it.
    pub(crate) finished: bool,
}

/// What tasks of the worker tell it.
#[derive(Debug)]
enum News {
    /// A hook ended.
    Hook(HookId, HookState),
    /// A pull ended.
    Pull {
        container: String,
        attempt: u32,
        state: PullState,
    },
    /// It takes more of the disk than it may.
    Excess(String),
    /// A probe's verdict changed.
    Probe {
        container: String,
        attempt: u32,
        kind: pod::ProbeKind,
        verdict: Verdict,
    },
}

/// After a step failed, the round is repeated this much later at the earliest.
const AFTER_FAILURE: Duration = Duration::from_millis(500);
/// A container that could not be started is shown as failing and tried again this much later. upstream: the kubelet looks
/// again after ten seconds.
const AFTER_START_FAILURE: Duration = Duration::from_secs(10);

pub(crate) struct Worker {
    shared: Arc<Shared>,
    about: About,
    input: watch::Receiver<Input>,
    records: watch::Receiver<Vec<ContainerRecord>>,
    progress: mpsc::UnboundedSender<(String, Progress)>,
    news: mpsc::Sender<News>,
    inbox: mpsc::Receiver<News>,
    memory: Memory,
    reported: core::PodStatus,
    place: Place,
    volumes: Option<BTreeMap<String, Ready>>,
    /// They are to be brought up to date.
    stale: bool,
    /// A container could not be started in this round.
    start_failed: bool,
    /// When a token in them is to be renewed.
    renew_at: Option<Timestamp>,
    /// It takes more of the disk than it may.
    excess: Option<String>,
    /// How often volumes were refreshed when they were last made.
    refreshed: u64,
    lives: BTreeMap<(String, u32), snapshot::Life>,
    /// Lives that were ordered but that the runtime has not shown yet.
    ordered: BTreeSet<(String, u32)>,
    verdicts: BTreeMap<String, Verdicts>,
    probers: BTreeMap<String, probes::Probers>,
    hooks: BTreeMap<HookId, HookState>,
    pulls: pull::Pulls,
    removal_asked: bool,
}

/// The ends of the channels that a worker is given.
pub(crate) struct Lines {
    pub(crate) input: watch::Receiver<Input>,
    pub(crate) records: watch::Receiver<Vec<ContainerRecord>>,
    pub(crate) progress: mpsc::UnboundedSender<(String, Progress)>,
}

impl Worker {
    /// A worker that takes the pod up as it finds it. `placed`: the runtime has a place for it already.
    pub(crate) async fn new(shared: Arc<Shared>, lines: Lines, placed: bool) -> Self {
        let Lines {
            input,
            records,
            progress,
        } = lines;
        let first = input.borrow().clone();
        let metadata = &first.pod.metadata;
        let about = About {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
            uid: metadata.uid.clone().unwrap_or_default(),
        };
        let (news, inbox) = mpsc::channel(64);
        let mut worker = Self {
            shared,
            about,
            input,
            progress,
            news,
            inbox,
            memory: Memory::default(),
            reported: first.pod.status.clone().unwrap_or_default(),
            place: Place::None,
            volumes: None,
            stale: false,
            start_failed: false,
            renew_at: None,
            excess: None,
            refreshed: first.refreshed,
            lives: BTreeMap::new(),
            ordered: BTreeSet::new(),
            verdicts: BTreeMap::new(),
            probers: BTreeMap::new(),
            hooks: BTreeMap::new(),
            pulls: pull::Pulls::default(),
            removal_asked: false,
            records,
        };
        if placed {
            worker.take_up_place(&first.pod).await;
        }
        let attempts = worker.attempts(Timestamp::now());
        worker.memory = Memory::resume(&attempts);
        worker.resume_verdicts(&attempts);
        worker
    }

    /// Works until there is nothing left to do.
    pub(crate) async fn run(mut self) {
        let _measuring = measure::watch(&self);
        let mut last: Option<(Desired, pod::Actual)> = None;
        let mut wake: Option<tokio::time::Instant> = None;
        loop {
            // What changes from here on is news; what is read below is not.
            self.input.mark_unchanged();
            self.records.mark_unchanged();
            let now = Timestamp::now();
            let desired = self.desired();
            if desired.fate != Fate::Live {
                // Nothing more is started: what is on its way is not needed.
                self.pulls.cancel();
            }
            let actual = self.actual(now);
            let view = (desired.clone(), snapshot::view(&actual));
            let due = wake.is_some_and(|at| at <= tokio::time::Instant::now());
            if due || last.as_ref() != Some(&view) {
                last = Some(view);
                wake = match self.round(&desired, &actual, now).await {
                    Round::Finished => return,
                    Round::Next(wake) => wake,
                };
                if let Some((_, seen)) = &mut last {
                    // What the round has made up to date is news when it grows stale again.
                    seen.volumes_stale = self.stale;
                }
                self.probe();
            }
            let renewal = self.renew_at.map(|at| instant(at, Timestamp::now()));
            if !self.wait(wake.into_iter().chain(renewal).min()).await {
                return;
            }
        }
    }

    /// Decides and executes once.
    async fn round(&mut self, desired: &Desired, actual: &pod::Actual, now: Timestamp) -> Round {
        let decision = pod::decide(desired, actual, now);
        self.memory = decision.memory;
        let mut failed = false;
        for step in decision.steps {
            if step == Step::Finish {
                self.finish();
                return Round::Finished;
            }
            if let Err(error) = self.execute(step).await {
                tracing::debug!(pod = %self.title(), error = %error, "a step failed; the round ends");
                failed = true;
                break;
            }
        }
        let asked = decision.wake_at.map(|at| instant(at, Timestamp::now()));
        let now = tokio::time::Instant::now();
        let restart = std::mem::take(&mut self.start_failed).then(|| now + AFTER_START_FAILURE);
        let asked = asked.into_iter().chain(restart).min();
        let retry = failed.then(|| now + AFTER_FAILURE);
        Round::Next(match (asked, retry) {
            // What asked to be woken at once is not asked again before the failure may be over.
            (Some(asked), Some(retry)) => Some(asked.max(retry)),
            (asked, retry) => asked.or(retry),
        })
    }

    /// Waits for news or the time; `false` when the node lets go of its workers.
    async fn wait(&mut self, wake: Option<tokio::time::Instant>) -> bool {
        let sleep = async {
            match wake {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = self.input.changed() => changed.is_ok(),
            changed = self.records.changed() => changed.is_ok(),
            Some(news) = self.inbox.recv() => { self.take(news); true }
            () = sleep => true,
        }
    }

    fn take(&mut self, news: News) {
        match news {
            News::Hook(id, state) => {
                self.hooks.insert(id, state);
            }
            News::Pull {
                container,
                attempt,
                state,
            } => self.pulls.end(&container, attempt, state),
            News::Excess(sentence) => self.excess = Some(sentence),
            News::Probe {
                container,
                attempt,
                kind,
                verdict,
            } => {
                let verdicts = self
                    .verdicts
                    .entry(container)
                    .or_insert_with(|| Verdicts::fresh(attempt));
                if verdicts.attempt == attempt {
                    match kind {
                        pod::ProbeKind::Startup => verdicts.startup = verdict,
                        pod::ProbeKind::Liveness => verdicts.liveness = verdict,
                        pod::ProbeKind::Readiness => verdicts.readiness = verdict,
                    }
                }
            }
        }
    }

    fn desired(&self) -> Desired {
        let input = self.input.borrow();
        let mut desired = Desired::parse(&input.pod);
        if input.gone {
            let grace_seconds = input
                .pod
                .metadata
                .deletion_grace_period_seconds
                .unwrap_or(desired.grace_seconds);
            desired.fate = Fate::Gone { grace_seconds };
        } else if let (Some(grace_seconds), Fate::Live) = (input.paused, desired.fate) {
            desired.fate = Fate::Paused { grace_seconds };
        }
        desired
    }

    fn tell(&self, progress: Progress) {
        if progress.released {
            self.shared.in_use.set(&self.about.uid, BTreeSet::new());
        }
        // The manager ends its workers before itself.
        let _ = self.progress.send((self.about.uid.clone(), progress));
    }

    /// `namespace/name`, for messages.
    fn title(&self) -> String {
        format!("{}/{}", self.about.namespace, self.about.name)
    }

    /// The pod is gone for good: what the node kept for it goes too. Never a claim's volume.
    fn finish(&mut self) {
        self.give_back_memory();
        for folder in [
            self.shared.volumes.pod_folder(&self.about.uid),
            self.shared.node.join("logs").join(&self.about.uid),
        ] {
            match std::fs::remove_dir_all(&folder) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    tracing::warn!(folder = %folder.display(), %error, "could not remove the folder of a pod");
                }
                Ok(()) | Err(_) => {}
            }
        }
        self.tell(Progress {
            released: true,
            finished: true,
        });
    }
}

enum Round {
    Finished,
    Next(Option<tokio::time::Instant>),
}

/// A time of day as a moment of the runtime's clock.
fn instant(at: Timestamp, now: Timestamp) -> tokio::time::Instant {
    let wait = at.duration_since(now);
    tokio::time::Instant::now() + Duration::try_from(wait).unwrap_or(Duration::ZERO)
}
