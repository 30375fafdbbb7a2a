//! One pod, its containers, its probes and its API object in simulated time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1 as core;
use serde_json::{Value, json};
use stead_node::pod::{
    Actual, Attempt, AttemptState, Blocker, Decision, Desired, End, Fate, HookId, HookKind,
    HookState, Machine, Memory, Place, ProbeKind, ProbeRun, ProbeSpec, Pull, PullState, Step,
    Verdict, Verdicts, admit, decide,
};

use crate::script::Script;

/// From a shim that holds a container to its first process.
const START: SignedDuration = SignedDuration::from_millis(5);
/// From a signal to the end of a process that hears it.
const HEAR: SignedDuration = SignedDuration::from_millis(50);
/// More rounds at one moment than this are a loop.
const ROUNDS_MAX: usize = 50;

/// One life of a container.
struct Life {
    attempt: Attempt,
    script: Script,
    since: Timestamp,
    /// When and how it will end.
    end: Option<(Timestamp, i32)>,
}

struct Prober {
    container: String,
    attempt: u32,
    spec: ProbeSpec,
    run: ProbeRun,
    due: Timestamp,
}

/// Everything there is.
pub(crate) struct World {
    pub(crate) start: Timestamp,
    pub(crate) now: Timestamp,
    pub(crate) pod: Value,
    /// The object is in the API.
    pub(crate) in_api: bool,
    /// Every status that was reported, in turn.
    pub(crate) trace: Vec<Value>,
    /// Events as (type, reason).
    pub(crate) events: BTreeSet<(String, String)>,
    /// Steps as lines, with seconds since the start.
    pub(crate) log: Vec<String>,
    /// What the last decision waited for.
    pub(crate) blockers: Vec<Blocker>,
    lives: BTreeMap<String, Vec<Life>>,
    probers: Vec<Prober>,
    verdicts: BTreeMap<String, Verdicts>,
    hooks: BTreeMap<HookId, HookState>,
    pulls: BTreeMap<String, Pull>,
    hook_ends: Vec<(Timestamp, HookId, HookState)>,
    reported: core::PodStatus,
    place: Place,
    volumes_ready: bool,
    excess: Option<String>,
    memory: Memory,
    removal_asked: bool,
    finished: bool,
    wake: Option<Timestamp>,
    view: Option<Value>,
}

impl World {
    /// A pod that has just been bound to the node.
    pub(crate) fn new(pod: Value) -> Self {
        let start = "2026-01-01T00:00:00Z".parse().expect("a time");
        let bound =
            json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "True"}]});
        let mut world = Self {
            start,
            now: start,
            pod,
            in_api: true,
            trace: vec![json!({"phase": "Pending"})],
            events: BTreeSet::new(),
            log: Vec::new(),
            blockers: Vec::new(),
            lives: BTreeMap::new(),
            probers: Vec::new(),
            verdicts: BTreeMap::new(),
            hooks: BTreeMap::new(),
            pulls: BTreeMap::new(),
            hook_ends: Vec::new(),
            reported: serde_json::from_value(bound).expect("a status"),
            place: Place::None,
            volumes_ready: false,
            excess: None,
            memory: Memory::default(),
            removal_asked: false,
            finished: false,
            wake: None,
            view: None,
        };
        world.pod["metadata"]["namespace"] = json!("ns");
        world.pod["metadata"]["name"] = json!("p");
        world.pod["metadata"]["uid"] = json!("u");
        world
    }

    /// It was bound by whoever made it.
    #[cfg(feature = "oracle-tests")]
    pub(crate) fn forget_scheduling(&mut self) {
        self.reported.conditions = None;
    }

    /// Lets the time pass until so many seconds after the start.
    pub(crate) fn until(&mut self, seconds: f64) {
        let end = self.start + SignedDuration::from_secs_f64(seconds);
        loop {
            self.rounds();
            match self.next().filter(|at| *at <= end) {
                Some(at) => {
                    self.now = self.now.max(at);
                    self.happen();
                }
                None => break,
            }
        }
        self.now = end;
    }

    /// Does something to the object, in the words of the oracle.
    pub(crate) fn act(&mut self, what: &str) {
        match what {
            "delete" => {
                let grace = self.pod["spec"]["terminationGracePeriodSeconds"]
                    .as_i64()
                    .unwrap_or(30);
                self.pod["metadata"]["deletionTimestamp"] =
                    json!(self.now + SignedDuration::from_secs(grace));
                self.pod["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
            }
            "force" => {
                self.pod["metadata"]["deletionGracePeriodSeconds"] = json!(0);
                self.in_api = false;
            }
            "unfinalize" => {
                self.pod["metadata"]["finalizers"] = json!([]);
                self.in_api &= !self.removal_asked;
            }
            "gate" => {
                let gate = json!({"type": "e.com/gate", "status": "True"});
                let gate: core::PodCondition = serde_json::from_value(gate).expect("a condition");
                self.reported.conditions.get_or_insert_default().push(gate);
            }
            "ephemeral" => {
                let command = json!(["sh", "-c", "exit 0"]);
                self.pod["spec"]["ephemeralContainers"] = json!([
                    {"name": "dbg", "image": "stead.dev/host", "imagePullPolicy": "Never", "command": command}]);
            }
            "evict" => self.excess = Some("too much".to_owned()),
            "reboot" => self.reboot(),
            "image" => self.pod["spec"]["containers"][0]["image"] = json!("stead.dev/hostx"),
            other => panic!("no such act: {other}"),
        }
    }

    /// The machine is started anew: no process is left, and the daemon knows what is on disk.
    fn reboot(&mut self) {
        let now = self.now;
        for life in self.lives.values_mut().flatten() {
            life.attempt.former_boot = true;
            life.end = life.end.filter(|(at, _)| *at <= now);
            if let AttemptState::Created | AttemptState::Running { .. } = life.attempt.state {
                life.attempt.state = AttemptState::Ended(End {
                    code: 137,
                    signal: Some(9),
                    reason: "Error".to_owned(),
                    start_failure: None,
                    started: life.since,
                    finished: now,
                });
                life.end = None;
            }
        }
        self.verdicts.clear();
        self.probers.clear();
        self.hooks.clear();
        self.hook_ends.clear();
        let attempts = self.actual().attempts;
        self.memory = Memory::resume(&attempts);
    }

    fn typed(&self) -> core::Pod {
        serde_json::from_value(self.pod.clone()).expect("a pod")
    }

    fn desired(&self) -> Desired {
        let mut desired = Desired::parse(&self.typed());
        if !self.in_api {
            let grace_seconds = self.pod["metadata"]["deletionGracePeriodSeconds"]
                .as_i64()
                .unwrap_or(desired.grace_seconds);
            desired.fate = Fate::Gone { grace_seconds };
        }
        desired
    }

    fn actual(&self) -> Actual {
        let attempts = self.lives.iter().map(|(name, lives)| {
            (
                name.clone(),
                lives.iter().map(|l| l.attempt.clone()).collect(),
            )
        });
        let machine = Machine {
            cpu_millis: 2_000,
            memory_bytes: 1 << 32,
            pods: 110,
            labels: BTreeMap::new(),
        };
        let spec = self.typed().spec.expect("a spec");
        Actual {
            volumes_stale: false,
            excess: self.excess.clone(),
            place: self.place,
            volumes_ready: self.volumes_ready,
            attempts: attempts.collect(),
            verdicts: self.verdicts.clone(),
            hooks: self.hooks.clone(),
            reported: self.reported.clone(),
            host_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            images: BTreeMap::new(),
            pulls: self.pulls.clone(),
            rejected: admit(&spec, &machine, &[]).err(),
            former: None,
            removal_asked: self.removal_asked,
            memory: self.memory.clone(),
        }
    }

    /// Everything that may wake a worker, as one comparable value.
    fn view(&self) -> Value {
        let running = |life: &Life| match &life.attempt.state {
            AttemptState::Created => Value::Null,
            other => json!(format!("{} {other:?}", life.attempt.number)),
        };
        let lives: Vec<_> = self.lives.values().flatten().map(running).collect();
        let gate = self
            .reported
            .conditions
            .iter()
            .flatten()
            .any(|c| c.type_ == "e.com/gate");
        json!([
            self.pod,
            self.in_api,
            lives,
            format!("{:?}{:?}", self.verdicts, self.hooks),
            self.removal_asked,
            gate,
            self.excess
        ])
    }

    fn rounds(&mut self) {
        for _ in 0..ROUNDS_MAX {
            let view = self.view();
            let due = self.wake.is_some_and(|at| at <= self.now);
            if self.finished || (!due && self.view.as_ref() == Some(&view)) {
                return;
            }
            self.view = Some(view);
            let Decision {
                steps,
                blockers,
                wake_at,
                memory,
            } = decide(&self.desired(), &self.actual(), self.now);
            (self.memory, self.blockers, self.wake) = (memory, blockers, wake_at);
            let idle = steps.is_empty();
            for step in steps {
                if !self.execute(step) {
                    break;
                }
            }
            self.probe();
            assert!(
                !idle || !self.is_stuck(),
                "nothing to do, nothing to wait for, and not there: {:?}",
                self.log
            );
        }
        panic!(
            "the same moment went round {ROUNDS_MAX} times: {:#?}",
            &self.log[self.log.len().saturating_sub(20)..]
        );
    }

    /// Not where it is to be, with no blocker to say why: what the rule of `decide` forbids.
    fn is_stuck(&self) -> bool {
        let phase = self.reported.phase.as_deref();
        let ready = self
            .reported
            .conditions
            .iter()
            .flatten()
            .any(|c| c.type_ == "Ready" && c.status == "True");
        let settled = ready || matches!(phase, Some("Succeeded" | "Failed"));
        let waits = self.wake.is_some_and(|at| at <= self.now);
        !settled && !waits && self.blockers.is_empty() && !self.finished
    }

    fn note(&mut self, line: String) {
        let after = self.now.duration_since(self.start).as_secs_f64();
        self.log.push(format!("{after:.1} {line}"));
    }

    /// `false`: the step failed and the round ends.
    fn execute(&mut self, step: Step) -> bool {
        match step {
            Step::ReportStatus(status) => {
                self.trace
                    .push(serde_json::to_value(&*status).expect("a status"));
                self.reported = *status;
            }
            Step::Record(note) => {
                let kind = if note.warning { "Warning" } else { "Normal" };
                self.note(format!("event {kind} {}: {}", note.reason, note.message));
                self.events
                    .insert((kind.to_owned(), note.reason.to_owned()));
            }
            Step::MakeVolumes => {
                let volumes = self.pod["spec"]["volumes"].to_string();
                if volumes.contains("\"secretName\":\"none\"") {
                    self.events
                        .insert(("Warning".to_owned(), "FailedMount".to_owned()));
                    self.memory.note_trouble(
                        "FailedMount",
                        "secret \"none\" not found".to_owned(),
                        self.now,
                    );
                    self.wake = self.memory.trouble.as_ref().map(|trouble| trouble.retry_at);
                    return false;
                }
                self.volumes_ready = true;
            }
            Step::PreparePod => {
                self.place = Place::Prepared(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)))
            }
            Step::PullImage { container, attempt } => {
                let why = "no registry has it".to_owned();
                let state = PullState::Failed { why, at: self.now };
                self.pulls.insert(container, Pull { attempt, state });
                self.wake = Some(self.now);
            }
            Step::StartContainer { container, attempt } => self.begin(&container, attempt),
            Step::RunHook { id, deadline: _ } => self.run_hook(id),
            Step::StopContainer {
                container, signal, ..
            } => {
                self.note(format!("signal {container} {signal}"));
                let now = self.now;
                let life = self.latest(&container).expect("a life");
                if let Some((_, code)) = life
                    .script
                    .hears
                    .filter(|(from, _)| life.since + *from <= now)
                {
                    let at = life.end.map_or(now + HEAR, |(at, _)| at.min(now + HEAR));
                    life.end = Some((at, code));
                }
            }
            Step::KillContainer { container, .. } => {
                self.note(format!("kill {container}"));
                let now = self.now;
                self.latest(&container).expect("a life").end = Some((now, 137));
            }
            Step::ForgetContainer { container, attempt } => {
                self.lives
                    .entry(container)
                    .or_default()
                    .retain(|life| life.attempt.number != attempt);
            }
            Step::ReleasePod => {
                let alive = self
                    .lives
                    .values()
                    .flatten()
                    .any(|life| life.attempt.end().is_none());
                assert!(
                    !alive,
                    "a place is given back while a container lives: {:?}",
                    self.log
                );
                self.note("release".to_owned());
                self.place = Place::Released;
                self.lives.clear();
            }
            Step::RemovePodObject => {
                assert_ne!(
                    self.place,
                    Place::Prepared(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1))),
                    "removed while placed"
                );
                self.removal_asked = true;
                let held = self.pod["metadata"]["finalizers"]
                    .as_array()
                    .is_some_and(|list| !list.is_empty());
                self.in_api = held;
                self.note("remove".to_owned());
            }
            Step::Finish => self.finished = true,
        }
        true
    }

    fn latest(&mut self, container: &str) -> Option<&mut Life> {
        self.lives.get_mut(container)?.last_mut()
    }

    fn container(&self, name: &str) -> Value {
        let lists = ["initContainers", "containers", "ephemeralContainers"]
            .map(|list| self.pod["spec"][list].clone());
        let all = lists.iter().filter_map(Value::as_array).flatten();
        let mut all = all;
        all.find(|container| container["name"] == name)
            .cloned()
            .expect("a container")
    }

    fn begin(&mut self, name: &str, attempt: u32) {
        let container = self.container(name);
        self.note(format!("start {name} {attempt}"));
        self.events
            .insert(("Normal".to_owned(), "Pulled".to_owned()));
        let no_map = container["envFrom"].to_string().contains("\"none\"");
        let non_root = self.pod["spec"]["securityContext"]["runAsNonRoot"] == true;
        let escapes = container["volumeMounts"]
            .to_string()
            .contains("\"subPath\":\"l\"");
        if no_map || non_root || escapes {
            self.events
                .insert(("Warning".to_owned(), "Failed".to_owned()));
            self.memory.note_failure(
                name,
                "CreateContainerConfigError",
                "as the test asks".to_owned(),
                self.now,
            );
            let again = self.now + SignedDuration::from_secs(10);
            self.wake = Some(self.wake.map_or(again, |at| at.min(again)));
            return;
        }
        let command: Vec<String> =
            serde_json::from_value(container["command"].clone()).expect("a command");
        let script = Script::parse(&command);
        let image = container["image"].as_str().map(str::to_owned);
        let attempt = Attempt {
            former_boot: false,
            number: attempt,
            image,
            image_id: None,
            state: AttemptState::Created,
            message: None,
        };
        let lives = self.lives.entry(name.to_owned()).or_default();
        assert!(
            lives.iter().all(|life| life.attempt.end().is_some()),
            "{name} is started twice"
        );
        lives.push(Life {
            attempt,
            script,
            since: self.now,
            end: None,
        });
    }

    fn run_hook(&mut self, id: HookId) {
        let container = self.container(&id.container);
        let key = match id.kind {
            HookKind::PostStart => "postStart",
            HookKind::PreStop => "preStop",
        };
        let hook = &container["lifecycle"][key];
        let (wait, state) = match hook["sleep"]["seconds"].as_i64() {
            Some(seconds) => (SignedDuration::from_secs(seconds), HookState::Done),
            None => {
                let command: Vec<String> =
                    serde_json::from_value(hook["exec"]["command"].clone()).expect("a command");
                let (wait, code) = Script::parse(&command).end.expect("a hook that ends");
                (
                    wait,
                    if code == 0 {
                        HookState::Done
                    } else {
                        HookState::Failed(format!("exit {code}"))
                    },
                )
            }
        };
        self.hooks.insert(id.clone(), HookState::Running);
        self.hook_ends.push((self.now + wait, id, state));
    }

    /// Starts and ends probes as the worker does.
    fn probe(&mut self) {
        let desired = self.desired();
        let stopping = self.memory.stop.is_some();
        for container in &desired.containers {
            let Some(life) = self
                .lives
                .get(&container.name)
                .and_then(|lives| lives.last())
            else {
                continue;
            };
            let number = life.attempt.number;
            let AttemptState::Running { started } = life.attempt.state else {
                self.probers.retain(|p| p.container != container.name);
                continue;
            };
            let verdicts = self
                .verdicts
                .entry(container.name.clone())
                .or_insert_with(|| Verdicts::fresh(number));
            if verdicts.attempt != number {
                *verdicts = Verdicts::fresh(number);
            }
            let up = container.probe(ProbeKind::Startup).is_none()
                || verdicts.startup == Verdict::Success;
            for spec in &container.probes {
                let wanted = match spec.kind {
                    ProbeKind::Startup => !up && !stopping,
                    ProbeKind::Liveness => up && !stopping,
                    ProbeKind::Readiness => up,
                };
                let same = |p: &Prober| {
                    p.container == container.name && p.attempt == number && p.spec.kind == spec.kind
                };
                if wanted && !self.probers.iter().any(same) {
                    self.probers.push(Prober {
                        container: container.name.clone(),
                        attempt: number,
                        run: ProbeRun::new(spec.kind),
                        due: ProbeRun::first_due(spec, started).max(self.now),
                        spec: spec.clone(),
                    });
                } else if !wanted {
                    self.probers.retain(|p| !same(p));
                }
            }
        }
    }

    /// When something happens next.
    fn next(&self) -> Option<Timestamp> {
        let lives = self
            .lives
            .values()
            .flatten()
            .filter_map(|life| match &life.attempt.state {
                AttemptState::Created => Some(life.since + START),
                AttemptState::Running { .. } => life.end.map(|(at, _)| at),
                AttemptState::Ended(_) => None,
            });
        let hooks = self.hook_ends.iter().map(|(at, ..)| *at);
        let probes = self
            .probers
            .iter()
            .filter(|p| !p.run.is_over())
            .map(|p| p.due);
        lives.chain(hooks).chain(probes).chain(self.wake).min()
    }

    fn happen(&mut self) {
        let now = self.now;
        for life in self.lives.values_mut().flatten() {
            step_life(life, now);
        }
        let (ended, rest) = std::mem::take(&mut self.hook_ends)
            .into_iter()
            .partition(|(at, ..)| *at <= now);
        self.hook_ends = rest;
        self.hooks.extend(
            ended
                .into_iter()
                .map(|(_, id, state): (Timestamp, HookId, HookState)| (id, state)),
        );
        let lives = &self.lives;
        for prober in self
            .probers
            .iter_mut()
            .filter(|p| p.due <= now && !p.run.is_over())
        {
            let Some(life) = lives.get(&prober.container).and_then(|lives| lives.last()) else {
                continue;
            };
            let AttemptState::Running { started } = life.attempt.state else {
                continue;
            };
            let command = prober
                .spec
                .action
                .exec
                .as_ref()
                .and_then(|exec| exec.command.clone())
                .unwrap_or_default();
            let tests = command.iter().any(|word| word.contains("test -e"));
            let success = if tests {
                life.script.is_ok(now.duration_since(started))
            } else {
                !command.iter().any(|w| w.contains("exit 1"))
            };
            if !success {
                self.events
                    .insert(("Warning".to_owned(), "Unhealthy".to_owned()));
            }
            prober.due = now + prober.spec.period;
            if prober.run.answer(&prober.spec, success)
                && let Some(verdicts) = self.verdicts.get_mut(&prober.container)
            {
                match prober.spec.kind {
                    ProbeKind::Startup => verdicts.startup = prober.run.verdict(),
                    ProbeKind::Liveness => verdicts.liveness = prober.run.verdict(),
                    ProbeKind::Readiness => verdicts.readiness = prober.run.verdict(),
                }
            }
        }
    }
}

fn step_life(life: &mut Life, now: Timestamp) {
    match life.attempt.state {
        AttemptState::Created if life.since + START <= now => {
            if life.script.unstartable {
                life.attempt.state = AttemptState::Ended(End {
                    code: 128,
                    signal: None,
                    reason: "StartError".to_owned(),
                    start_failure: Some("no such file or directory".to_owned()),
                    started: Timestamp::UNIX_EPOCH,
                    finished: now,
                });
                return;
            }
            life.attempt.state = AttemptState::Running { started: now };
            life.since = now;
            life.end = life.script.end.map(|(after, code)| (now + after, code));
            end_life(life, now);
        }
        AttemptState::Running { .. } => end_life(life, now),
        AttemptState::Created | AttemptState::Ended(_) => {}
    }
}

fn end_life(life: &mut Life, now: Timestamp) {
    let (Some((at, code)), AttemptState::Running { started }) = (life.end, &life.attempt.state)
    else {
        return;
    };
    if at <= now {
        life.attempt.state = AttemptState::Ended(End {
            code,
            signal: None,
            reason: if code == 0 { "Completed" } else { "Error" }.to_owned(),
            start_failure: None,
            started: *started,
            finished: at,
        });
    }
}
