//! Probes, each in a task of its own for as long as its container lives; verdicts come back as news.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::{News, Worker};
use crate::action::{Answer, Target, ports};
use crate::container;
use crate::events::{About, Recorder};
use crate::pod::{
    Attempt, AttemptState, Container, Desired, Note, ProbeKind, ProbeRun, ProbeSpec, Verdict,
    Verdicts, list,
};
use crate::runtime::ContainerId;

/// upstream: `maxProbeRetries`: how often a probe is repeated that could not find anything out.
const TRIES: u32 = 3;

/// The probe tasks of one life of a container. Dropping them ends them.
#[derive(Debug, Default)]
pub(super) struct Probers {
    attempt: u32,
    running: Vec<(ProbeKind, AbortHandle)>,
}

impl Drop for Probers {
    fn drop(&mut self) {
        self.running.iter().for_each(|(_, task)| task.abort());
    }
}

impl Worker {
    /// Takes up what was held of lives from before the daemon, before anything is decided of them.
    pub(super) fn resume_verdicts(&mut self, attempts: &BTreeMap<String, Vec<Attempt>>) {
        let desired = self.desired();
        for container in desired.containers.iter().filter(|c| !c.probes.is_empty()) {
            let latest = attempts.get(&container.name).and_then(|lives| lives.last());
            if let Some(latest) = latest {
                let verdicts = self.first_verdicts(container, latest.number);
                self.verdicts.insert(container.name.clone(), verdicts);
            }
        }
    }

    /// Starts the probes that should run by now and ends those that should not.
    pub(super) fn probe(&mut self) {
        let desired = self.desired();
        let attempts = self.attempts(Timestamp::now());
        for container in desired
            .containers
            .iter()
            .filter(|container| !container.probes.is_empty())
        {
            let latest = attempts.get(&container.name).and_then(|lives| lives.last());
            match latest.map(|latest| (latest.number, &latest.state)) {
                Some((attempt, AttemptState::Running { started })) => {
                    let started = *started;
                    self.probe_container(&desired, container, attempt, started);
                }
                Some((_, AttemptState::Created | AttemptState::Ended(_))) | None => {
                    self.probers.remove(&container.name);
                }
            }
        }
    }

    fn probe_container(
        &mut self,
        desired: &Desired,
        container: &Container,
        attempt: u32,
        started: Timestamp,
    ) {
        if self
            .verdicts
            .get(&container.name)
            .is_none_or(|verdicts| verdicts.attempt != attempt)
        {
            self.verdicts.insert(
                container.name.clone(),
                self.first_verdicts(container, attempt),
            );
            self.probers.insert(
                container.name.clone(),
                Probers {
                    attempt,
                    running: Vec::new(),
                },
            );
        }
        let verdicts = self
            .verdicts
            .get(&container.name)
            .copied()
            .unwrap_or_else(|| Verdicts::fresh(attempt));
        let up =
            container.probe(ProbeKind::Startup).is_none() || verdicts.startup == Verdict::Success;
        // upstream: nobody asks whether a pod lives that is to go.
        let stopping = self.memory.stop.is_some();
        let wanted: Vec<ProbeSpec> = container
            .probes
            .iter()
            .filter(|spec| match spec.kind {
                ProbeKind::Startup => !up && !stopping,
                ProbeKind::Liveness => up && !stopping,
                ProbeKind::Readiness => up,
            })
            .cloned()
            .collect();
        let pod = self.input.borrow().pod.clone();
        let ports = container::find(&pod, &container.name)
            .as_ref()
            .map(ports)
            .unwrap_or_default();
        let target = Target {
            runtime: self.shared.runtime.clone(),
            id: ContainerId {
                pod_uid: desired.uid.clone(),
                container: container.name.clone(),
                attempt,
            },
            ip: self
                .pod_ip(&pod)
                .parse()
                .unwrap_or(self.shared.options.host_ip),
            ports,
        };
        let probers = self.probers.entry(container.name.clone()).or_default();
        probers.attempt = attempt;
        probers.running.retain(|(kind, task)| {
            let keep = wanted.iter().any(|spec| spec.kind == *kind);
            if !keep {
                task.abort();
            }
            keep
        });
        for spec in wanted {
            if !probers.running.iter().any(|(kind, _)| *kind == spec.kind) {
                let prober = Prober {
                    target: target.clone(),
                    about: self.about.clone(),
                    recorder: self.shared.recorder.clone(),
                    news: self.news.clone(),
                    list: list(container.kind),
                };
                let kind = spec.kind;
                let held = match kind {
                    ProbeKind::Startup => verdicts.startup,
                    ProbeKind::Liveness => verdicts.liveness,
                    ProbeKind::Readiness => verdicts.readiness,
                };
                probers.running.push((
                    kind,
                    tokio::spawn(prober.run(spec, started, held)).abort_handle(),
                ));
            }
        }
    }

    /// What holds before the first answer; for a life from before the daemon, what was said of it last.
    fn first_verdicts(&self, container: &Container, attempt: u32) -> Verdicts {
        let mut verdicts = Verdicts::fresh(attempt);
        let lists = [
            &self.reported.init_container_statuses,
            &self.reported.container_statuses,
        ];
        let before = lists.into_iter().flatten().flatten().find(|status| {
            status.name == container.name
                && i64::from(status.restart_count) == i64::from(attempt)
                && status
                    .state
                    .as_ref()
                    .is_some_and(|state| state.running.is_some())
        });
        if let Some(before) = before {
            if before.started == Some(true) {
                verdicts.startup = Verdict::Success;
            }
            if before.ready {
                verdicts.readiness = Verdict::Success;
            }
        }
        verdicts
    }
}

/// One probe of one life of a container.
struct Prober {
    target: Target,
    about: About,
    recorder: Recorder,
    news: mpsc::Sender<News>,
    list: &'static str,
}

impl Prober {
    async fn run(self, spec: ProbeSpec, started: Timestamp, held: Verdict) {
        let mut run = ProbeRun::resume(spec.kind, held);
        let period = Duration::try_from(spec.period).unwrap_or(Duration::from_secs(10));
        let mut due = super::instant(ProbeRun::first_due(&spec, started), Timestamp::now());
        loop {
            tokio::time::sleep_until(due).await;
            if let Some(success) = self.ask(&spec).await
                && run.answer(&spec, success)
                && self.news.send(self.verdict(&spec, &run)).await.is_err()
            {
                return;
            }
            if run.is_over() {
                return;
            }
            due = (due + period).max(tokio::time::Instant::now());
        }
    }

    fn verdict(&self, spec: &ProbeSpec, run: &ProbeRun) -> News {
        let id = &self.target.id;
        News::Probe {
            container: id.container.clone(),
            attempt: id.attempt,
            kind: spec.kind,
            verdict: run.verdict(),
        }
    }

    /// Asks once; `None` when nothing could be found out.
    async fn ask(&self, spec: &ProbeSpec) -> Option<bool> {
        for _ in 0..TRIES {
            match self.try_once(spec).await {
                Answer::Success => return Some(true),
                Answer::Failure(output) => {
                    self.tell(format!("{} probe failed: {output}", spec.kind.word()));
                    return Some(false);
                }
                Answer::Unknown(why) => {
                    tracing::debug!(container = ?self.target.id, kind = ?spec.kind, why, "a probe found nothing out");
                }
            }
        }
        None
    }

    async fn try_once(&self, spec: &ProbeSpec) -> Answer {
        let timeout = Duration::try_from(spec.timeout).unwrap_or(Duration::from_secs(1));
        let action = &spec.action;
        if let Some(exec) = &action.exec {
            self.target
                .exec(exec.command.as_deref().unwrap_or_default(), timeout)
                .await
        } else if let Some(http) = &action.http_get {
            self.target.http(http, timeout).await
        } else if let Some(tcp) = &action.tcp_socket {
            self.target.tcp(tcp, timeout).await
        } else if let Some(grpc) = &action.grpc {
            self.target.grpc(grpc, timeout).await
        } else {
            Answer::Success
        }
    }

    fn tell(&self, message: String) {
        let about = Some((self.list, self.target.id.container.clone()));
        let note = Note {
            warning: true,
            reason: "Unhealthy",
            message,
            about,
        };
        self.recorder.record(&self.about, note, Timestamp::now());
    }
}
