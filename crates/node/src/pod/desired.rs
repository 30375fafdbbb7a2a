//! What a pod object asks for, parsed once: the `Desired` of [`decide`](super::decide).

use std::str::FromStr;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1 as core;

use super::image::PullPolicy;
use super::probe::{ProbeKind, ProbeSpec};
use super::qos::QosClass;

/// A pod as the API has it, in the node's own words.
#[derive(Debug, Clone, PartialEq)]
pub struct Desired {
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.generation`, 0 where there is none.
    pub generation: i64,
    /// What is to become of it.
    pub fate: Fate,
    /// `spec.restartPolicy`.
    pub restart: RestartPolicy,
    /// `spec.terminationGracePeriodSeconds`.
    pub grace_seconds: i64,
    /// `spec.activeDeadlineSeconds`.
    pub active_deadline: Option<SignedDuration>,
    /// `spec.readinessGates`.
    pub gates: Vec<String>,
    /// `spec.hostNetwork`.
    pub host_network: bool,
    /// Quality of service, from requests and limits.
    pub qos: QosClass,
    /// Every container: init and sidecar containers in order, then the others, then ephemeral ones.
    pub containers: Vec<Container>,
}

/// What is to become of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is to run.
    Live,
    /// Its object carries a deletion timestamp: stop within this grace, then remove the object.
    Deleted {
        /// `metadata.deletionGracePeriodSeconds`.
        grace_seconds: i64,
    },
    /// Its object is gone: stop within this grace, then forget it.
    Gone {
        /// What is left of its grace.
        grace_seconds: i64,
    },
    /// Its object stays, but its processes are to stop within this grace, for now (the cluster goes down).
    Paused {
        /// The grace given by whoever stops it.
        grace_seconds: i64,
    },
}

/// When an ended container is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartPolicy {
    /// Always.
    Always,
    /// When it ended with anything but 0.
    OnFailure,
    /// Never.
    Never,
}

impl RestartPolicy {
    /// Whether a container that ended with `code` is started again.
    pub fn restarts(self, code: i32) -> bool {
        match self {
            RestartPolicy::Always => true,
            RestartPolicy::OnFailure => code != 0,
            RestartPolicy::Never => false,
        }
    }
}

/// Which list of the spec a container stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContainerKind {
    /// An init container: runs to its end before the next.
    Init,
    /// An init container with `restartPolicy: Always`: started in its turn, then stays.
    Sidecar,
    /// One of `spec.containers`.
    Regular,
    /// One of `spec.ephemeralContainers`.
    Ephemeral,
}

/// One container as the pod asks for it.
#[derive(Debug, Clone, PartialEq)]
pub struct Container {
    /// Its name, unique in the pod.
    pub name: String,
    /// Which list it stands in.
    pub kind: ContainerKind,
    /// Its image.
    pub image: String,
    /// When the image is fetched.
    pub pull: PullPolicy,
    /// When it is started again, unless one of its rules says that it is.
    pub restart: RestartPolicy,
    /// `restartPolicyRules`: after which exit codes it is started again whatever its policy.
    pub restart_rules: Vec<RestartRule>,
    /// Whether the pod gives a command or arguments.
    pub has_command: bool,
    /// Startup, liveness and readiness probes, as far as it has them.
    pub probes: Vec<ProbeSpec>,
    /// `lifecycle.postStart`.
    pub post_start: Option<core::LifecycleHandler>,
    /// `lifecycle.preStop`.
    pub pre_stop: Option<core::LifecycleHandler>,
    /// `lifecycle.stopSignal`: the signal that asks it to end; the image's own, or SIGTERM, when not given.
    pub stop_signal: Option<i32>,
}

/// One of `restartPolicyRules`, of which each that holds starts the container again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestartRule {
    /// Exit codes.
    pub codes: Vec<i32>,
    /// Whether it holds for these, rather than for all others.
    pub holds_for_these: bool,
}

impl RestartRule {
    fn of(rule: &core::ContainerRestartRule) -> Option<Self> {
        let on = rule.exit_codes.as_ref()?;
        (rule.action == "Restart").then(|| Self {
            codes: on.values.clone().unwrap_or_default(),
            holds_for_these: on.operator == "In",
        })
    }
}

impl Container {
    /// Whether it is started again after it ended with `code`. upstream: `ContainerShouldRestart`.
    pub fn restarts(&self, code: i32) -> bool {
        let holds = |rule: &RestartRule| rule.codes.contains(&code) == rule.holds_for_these;
        self.restart_rules.iter().any(holds) || self.restart.restarts(code)
    }

    /// Its probe of this kind.
    pub fn probe(&self, kind: ProbeKind) -> Option<&ProbeSpec> {
        self.probes.iter().find(|probe| probe.kind == kind)
    }
}

impl Desired {
    /// Reads a pod. Fields that this node does not know are left alone; odd values become upstream's defaults.
    pub fn parse(pod: &core::Pod) -> Self {
        let empty = core::PodSpec::default();
        let spec = pod.spec.as_ref().unwrap_or(&empty);
        let restart =
            restart_policy(spec.restart_policy.as_deref()).unwrap_or(RestartPolicy::Always);
        let grace_seconds = spec.termination_grace_period_seconds.unwrap_or(30).max(0);
        let fate = match &pod.metadata.deletion_timestamp {
            Some(_) => Fate::Deleted {
                grace_seconds: pod
                    .metadata
                    .deletion_grace_period_seconds
                    .unwrap_or(grace_seconds)
                    .max(0),
            },
            None => Fate::Live,
        };
        Self {
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            name: pod.metadata.name.clone().unwrap_or_default(),
            generation: pod.metadata.generation.unwrap_or(0),
            fate,
            restart,
            grace_seconds,
            active_deadline: spec
                .active_deadline_seconds
                .filter(|s| *s > 0)
                .map(SignedDuration::from_secs),
            gates: spec
                .readiness_gates
                .iter()
                .flatten()
                .map(|gate| gate.condition_type.clone())
                .collect(),
            host_network: spec.host_network.unwrap_or(false),
            qos: QosClass::of(spec),
            containers: containers(spec, restart),
        }
    }

    /// The containers of one kind, in order.
    pub fn of_kind(&self, kind: ContainerKind) -> impl Iterator<Item = &Container> {
        self.containers
            .iter()
            .filter(move |container| container.kind == kind)
    }

    /// Init and sidecar containers, in order.
    pub fn initial(&self) -> impl DoubleEndedIterator<Item = &Container> {
        self.containers.iter().filter(|container| {
            matches!(container.kind, ContainerKind::Init | ContainerKind::Sidecar)
        })
    }

    /// The container of this name.
    pub fn container(&self, name: &str) -> Option<&Container> {
        self.containers
            .iter()
            .find(|container| container.name == name)
    }

    /// Whether the pod has anything to do before its own containers.
    pub fn has_initial(&self) -> bool {
        self.initial().next().is_some()
    }

    /// When it has run too long.
    pub fn deadline(&self, started: Timestamp) -> Option<Timestamp> {
        Some(
            started
                .saturating_add(self.active_deadline?)
                .unwrap_or(Timestamp::MAX),
        )
    }
}

fn containers(spec: &core::PodSpec, pod_restart: RestartPolicy) -> Vec<Container> {
    let initial = spec.init_containers.iter().flatten().map(|container| {
        match container.restart_policy.as_deref() {
            Some("Always") => parse(container, ContainerKind::Sidecar, RestartPolicy::Always),
            own => parse(
                container,
                ContainerKind::Init,
                // An init container that ended well is done, whatever the policy.
                if restart_policy(own).unwrap_or(pod_restart) == RestartPolicy::Never {
                    RestartPolicy::Never
                } else {
                    RestartPolicy::OnFailure
                },
            ),
        }
    });
    let regular = spec.containers.iter().map(|container| {
        let own = restart_policy(container.restart_policy.as_deref());
        parse(
            container,
            ContainerKind::Regular,
            own.unwrap_or(pod_restart),
        )
    });
    let ephemeral = spec.ephemeral_containers.iter().flatten().map(|container| {
        parse(
            &as_container(container),
            ContainerKind::Ephemeral,
            RestartPolicy::Never,
        )
    });
    initial.chain(regular).chain(ephemeral).collect()
}

fn parse(container: &core::Container, kind: ContainerKind, restart: RestartPolicy) -> Container {
    let image = container.image.clone().unwrap_or_default();
    let lifecycle = container.lifecycle.as_ref();
    let probes = [
        (ProbeKind::Startup, &container.startup_probe),
        (ProbeKind::Liveness, &container.liveness_probe),
        (ProbeKind::Readiness, &container.readiness_probe),
    ];
    let probed = matches!(kind, ContainerKind::Sidecar | ContainerKind::Regular);
    Container {
        name: container.name.clone(),
        kind,
        pull: pull_policy(container.image_pull_policy.as_deref(), &image),
        image,
        restart,
        restart_rules: container
            .restart_policy_rules
            .iter()
            .flatten()
            .filter_map(RestartRule::of)
            .collect(),
        has_command: container
            .command
            .iter()
            .chain(&container.args)
            .any(|words| !words.is_empty()),
        probes: probes
            .into_iter()
            .filter_map(|(kind, probe)| {
                Some(ProbeSpec::parse(kind, probe.as_ref().filter(|_| probed)?))
            })
            .collect(),
        post_start: lifecycle.and_then(|l| l.post_start.clone()),
        pre_stop: lifecycle.and_then(|l| l.pre_stop.clone()),
        stop_signal: lifecycle.and_then(|l| signal_number(l.stop_signal.as_deref()?)),
    }
}

/// A signal by its name, with `SIG` or without, or by its number.
pub fn signal_number(name: &str) -> Option<i32> {
    use nix::sys::signal::Signal;
    let real_time = || name.parse().ok().filter(|number| (1..=64).contains(number));
    Signal::from_str(name)
        .or_else(|_| Signal::from_str(&format!("SIG{name}")))
        .map(|signal| signal as i32)
        .ok()
        .or_else(real_time)
}

fn restart_policy(text: Option<&str>) -> Option<RestartPolicy> {
    match text {
        Some("Always") => Some(RestartPolicy::Always),
        Some("OnFailure") => Some(RestartPolicy::OnFailure),
        Some("Never") => Some(RestartPolicy::Never),
        Some(_) | None => None,
    }
}

fn pull_policy(text: Option<&str>, image: &str) -> PullPolicy {
    match text {
        Some("Always") => PullPolicy::Always,
        Some("Never") => PullPolicy::Never,
        Some("IfNotPresent") => PullPolicy::IfNotPresent,
        Some(_) | None if image.ends_with(":latest") => PullPolicy::Always,
        Some(_) | None => PullPolicy::IfNotPresent,
    }
}

/// An ephemeral container is a container with one field more.
pub fn as_container(ephemeral: &core::EphemeralContainer) -> core::Container {
    let e = ephemeral.clone();
    core::Container {
        args: e.args,
        command: e.command,
        env: e.env,
        env_from: e.env_from,
        image: e.image,
        image_pull_policy: e.image_pull_policy,
        name: e.name,
        resources: e.resources,
        security_context: e.security_context,
        stdin: e.stdin,
        stdin_once: e.stdin_once,
        termination_message_path: e.termination_message_path,
        termination_message_policy: e.termination_message_policy,
        tty: e.tty,
        volume_devices: e.volume_devices,
        volume_mounts: e.volume_mounts,
        working_dir: e.working_dir,
        ..core::Container::default()
    }
}
