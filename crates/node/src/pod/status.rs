//! The pod's status as the kubelet gives it: container states, phase, conditions.
//!
//! Upstream: `kubelet_pods.go` (`convertToAPIContainerStatuses`, `getPhase`) and `pkg/kubelet/status/generate.go`.

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::actual::{Actual, Attempt, AttemptState, End, Memory, Place, StopBecause};
use super::desired::{Container, ContainerKind, Desired};
use super::image;
use super::probe::{ProbeKind, Verdict};

/// Conditions that the node owns; others' (readiness gates) are left alone.
pub const OWN_CONDITIONS: [&str; 5] = [
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
];

/// The status of a live pod, before anything is done about it in this round.
pub(super) fn living(
    desired: &Desired,
    actual: &Actual,
    memory: &Memory,
    now: Timestamp,
) -> core::PodStatus {
    let mut status = with_containers(desired, actual, memory);
    let phase = phase(desired, &status, false);
    // upstream: a pod is Succeeded or Failed only once every container of it is proved ended.
    let reported = actual.reported.phase.as_deref();
    status.phase = Some(
        if is_terminal(phase) {
            reported.unwrap_or("Pending")
        } else {
            phase
        }
        .to_owned(),
    );
    conditions(
        desired,
        actual,
        &mut status,
        phase,
        matches!(actual.place, Place::Prepared(_)),
        now,
    );
    status
}

/// The status of a pod that is being stopped.
pub(super) fn stopping(
    desired: &Desired,
    actual: &Actual,
    memory: &Memory,
    phase: &str,
    now: Timestamp,
) -> core::PodStatus {
    let mut status = with_containers(desired, actual, memory);
    status.phase = actual
        .reported
        .phase
        .clone()
        .or_else(|| Some("Pending".to_owned()));
    conditions(
        desired,
        actual,
        &mut status,
        phase,
        matches!(actual.place, Place::Prepared(_)),
        now,
    );
    status
}

/// The last status of a pod whose containers are all gone. `terminal`: it will never run again.
pub(super) fn last(
    desired: &Desired,
    actual: &Actual,
    memory: &Memory,
    failed: Option<(&str, &str)>,
    now: Timestamp,
) -> core::PodStatus {
    let mut status = with_containers(desired, actual, memory);
    let computed = if failed.is_some() {
        "Failed"
    } else {
        phase(desired, &status, true)
    };
    conditions(desired, actual, &mut status, computed, false, now);
    // upstream: TerminatePod. What never came to an end is an end of its own, unless the pod never got that far.
    if has_initialized(desired, &actual.reported) {
        mark_missing(status.container_statuses.iter_mut().flatten());
    }
    status.phase = Some(
        if computed == "Succeeded" {
            "Succeeded"
        } else {
            "Failed"
        }
        .to_owned(),
    );
    if let Some((reason, message)) = failed {
        status.reason = Some(reason.to_owned());
        status.message = Some(message.to_owned());
    }
    status
}

/// The phase that the containers add up to. `ending`: none of them will be started again.
pub(super) fn computed_phase(
    desired: &Desired,
    actual: &Actual,
    memory: &Memory,
    ending: bool,
) -> &'static str {
    phase(desired, &with_containers(desired, actual, memory), ending)
}

/// Whether a phase is final.
pub fn is_terminal(phase: &str) -> bool {
    matches!(phase, "Succeeded" | "Failed")
}

fn with_containers(desired: &Desired, actual: &Actual, memory: &Memory) -> core::PodStatus {
    let mut status = actual.reported.clone();
    status.observed_generation = (desired.generation > 0).then_some(desired.generation);
    status.qos_class = Some(desired.qos.word().to_owned());
    status.start_time = status.start_time.or_else(|| memory.started.map(Time));
    let host = actual.host_ip.to_string();
    status.host_ips = Some(vec![core::HostIP { ip: host.clone() }]);
    status.host_ip = Some(host.clone());
    if let Place::Prepared(ip) = actual.place {
        let ip = if desired.host_network {
            host
        } else {
            ip.to_string()
        };
        status.pod_ips = Some(vec![core::PodIP { ip: ip.clone() }]);
        status.pod_ip = Some(ip);
    }
    let list = |kinds: &[ContainerKind]| -> Vec<_> {
        let chosen = desired
            .containers
            .iter()
            .filter(|c| kinds.contains(&c.kind));
        chosen
            .map(|container| container_status(desired, container, actual, memory))
            .collect()
    };
    let some = |list: Vec<core::ContainerStatus>| (!list.is_empty()).then_some(list);
    status.init_container_statuses = some(list(&[ContainerKind::Init, ContainerKind::Sidecar]));
    status.container_statuses = some(list(&[ContainerKind::Regular]));
    status.ephemeral_container_statuses = some(list(&[ContainerKind::Ephemeral]));
    status
}

/// What was last reported of a container.
pub(super) fn reported<'a>(actual: &'a Actual, name: &str) -> Option<&'a core::ContainerStatus> {
    let status = &actual.reported;
    [
        &status.init_container_statuses,
        &status.container_statuses,
        &status.ephemeral_container_statuses,
    ]
    .into_iter()
    .flatten()
    .flatten()
    .find(|container| container.name == name)
}

/// The end of a container that ran by what was reported, but that the runtime does not know any more.
pub(super) fn lost(actual: &Actual, name: &str) -> Option<core::ContainerStateTerminated> {
    if actual
        .attempts
        .get(name)
        .is_some_and(|lives| !lives.is_empty())
    {
        return None;
    }
    let state = reported(actual, name)?.state.as_ref()?;
    match (&state.terminated, &state.running) {
        (Some(ended), _) => Some(ended.clone()),
        (None, Some(_)) => Some(unknown_end()),
        (None, None) => None,
    }
}

fn unknown_end() -> core::ContainerStateTerminated {
    core::ContainerStateTerminated {
        exit_code: 137,
        reason: Some("ContainerStatusUnknown".to_owned()),
        message: Some("The container could not be located when the pod was terminated".to_owned()),
        ..core::ContainerStateTerminated::default()
    }
}

/// A life that ended before anybody was told that it began is first reported as running.
pub(super) fn runs_unseen(container: &Container, actual: &Actual, memory: &Memory) -> bool {
    let Some(latest) = actual
        .attempts
        .get(&container.name)
        .and_then(|lives| lives.last())
    else {
        return false;
    };
    let Some(end) = latest.end() else {
        return false;
    };
    let remembered = memory.containers.get(&container.name);
    let told = reported(actual, &container.name).is_some_and(|status| {
        let began = status
            .state
            .as_ref()
            .is_some_and(|s| s.running.is_some() || s.terminated.is_some());
        let before = status
            .last_state
            .as_ref()
            .is_some_and(|s| s.terminated.is_some());
        u32::try_from(status.restart_count).is_ok_and(|count| count >= latest.number)
            && (began || before)
    });
    end.start_failure.is_none()
        && !told
        && remembered.is_none_or(|m| m.failure.is_none() && m.stop.is_none())
}

fn container_status(
    desired: &Desired,
    container: &Container,
    actual: &Actual,
    memory: &Memory,
) -> core::ContainerStatus {
    let remembered = memory.containers.get(&container.name);
    let before = reported(actual, &container.name);
    let lives = actual
        .attempts
        .get(&container.name)
        .map_or(&[][..], Vec::as_slice);
    let fresh = || fresh_status(desired, container, before);
    let Some(latest) = lives.last() else {
        let mut status = fresh();
        if let Some(end) = lost(actual, &container.name) {
            status.state = Some(terminated(end));
            status.restart_count = before.map_or(0, |b| b.restart_count);
            status.last_state = before.and_then(|b| b.last_state.clone());
        }
        return with_failure(status, container, memory);
    };
    let in_between = matches!(latest.state, AttemptState::Created)
        || remembered.is_some_and(|m| m.post_start == Some(latest.number))
        || remembered
            .and_then(|m| m.stop.as_ref())
            .is_some_and(|stop| stop.attempt == latest.number && stop.because != StopBecause::Pod);
    if in_between {
        // upstream: while the kubelet starts or restarts a container, it reports nothing new of it.
        return before.cloned().unwrap_or_else(fresh);
    }
    let mut status = fresh();
    status.restart_count = i32::try_from(latest.number).unwrap_or(i32::MAX);
    status.container_id = Some(format!(
        "stead://{}.{}.{}",
        desired.uid, container.name, latest.number
    ));
    status.image = image::shown(latest.image.as_ref().unwrap_or(&container.image));
    status.image_id = latest
        .image_id
        .clone()
        .unwrap_or_else(|| status.image.clone());
    status.last_state = previous_end(desired, container, lives, before);
    match &latest.state {
        AttemptState::Created => {}
        AttemptState::Running { started } => run(&mut status, container, actual, latest, *started),
        AttemptState::Ended(end) if runs_unseen(container, actual, memory) => {
            run(&mut status, container, actual, latest, end.started);
        }
        AttemptState::Ended(end) => {
            status.state = Some(terminated(end_status(desired, container, latest, end)));
            status.ready = container.kind == ContainerKind::Init && end.code == 0;
            status.started = (container.kind != ContainerKind::Ephemeral).then_some(false);
        }
    }
    with_failure(status, container, memory)
}

/// `ContainerCreating`, or `PodInitializing` in a pod with init containers.
fn fresh_status(
    desired: &Desired,
    container: &Container,
    before: Option<&core::ContainerStatus>,
) -> core::ContainerStatus {
    let initializing = desired.has_initial() && container.kind != ContainerKind::Ephemeral;
    let reason = if initializing {
        "PodInitializing"
    } else {
        "ContainerCreating"
    };
    core::ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone(),
        image_id: String::new(),
        ready: false,
        started: (container.kind != ContainerKind::Ephemeral).then_some(false),
        restart_count: before.map_or(0, |b| b.restart_count),
        state: Some(waiting(reason, None)),
        last_state: Some(core::ContainerState::default()),
        ..core::ContainerStatus::default()
    }
}

fn run(
    status: &mut core::ContainerStatus,
    container: &Container,
    actual: &Actual,
    latest: &Attempt,
    started: Timestamp,
) {
    status.state = Some(core::ContainerState {
        running: Some(core::ContainerStateRunning {
            started_at: Some(Time(started)),
        }),
        ..core::ContainerState::default()
    });
    let up = has_started(container, actual, latest.number);
    match container.kind {
        ContainerKind::Ephemeral => {}
        ContainerKind::Init => status.started = Some(true),
        ContainerKind::Sidecar | ContainerKind::Regular => {
            status.started = Some(up);
            status.ready = up && is_ready(container, actual, latest.number);
        }
    }
}

/// The startup probe has passed, or there is none.
pub(super) fn has_started(container: &Container, actual: &Actual, attempt: u32) -> bool {
    container.probe(ProbeKind::Startup).is_none()
        || actual
            .verdicts
            .get(&container.name)
            .is_some_and(|v| v.attempt == attempt && v.startup == Verdict::Success)
}

fn is_ready(container: &Container, actual: &Actual, attempt: u32) -> bool {
    container.probe(ProbeKind::Readiness).is_none()
        || actual
            .verdicts
            .get(&container.name)
            .is_some_and(|v| v.attempt == attempt && v.readiness == Verdict::Success)
}

fn previous_end(
    desired: &Desired,
    container: &Container,
    lives: &[Attempt],
    before: Option<&core::ContainerStatus>,
) -> Option<core::ContainerState> {
    if let [.., previous, _latest] = lives
        && let Some(end) = previous.end()
    {
        return Some(terminated(end_status(desired, container, previous, end)));
    }
    let latest = lives.last()?;
    let kept =
        before.and_then(
            |b| match i64::from(b.restart_count).cmp(&i64::from(latest.number)) {
                std::cmp::Ordering::Equal => b.last_state.clone(),
                std::cmp::Ordering::Less => {
                    b.state.clone().filter(|state| state.terminated.is_some())
                }
                std::cmp::Ordering::Greater => None,
            },
        );
    Some(kept.unwrap_or_default())
}

/// upstream: a container that will be started again but cannot be yet is *waiting*, and says why.
fn with_failure(
    mut status: core::ContainerStatus,
    container: &Container,
    memory: &Memory,
) -> core::ContainerStatus {
    let Some(failure) = memory
        .containers
        .get(&container.name)
        .and_then(|m| m.failure.as_ref())
    else {
        return status;
    };
    let state = status.state.take().unwrap_or_default();
    let ended = state.terminated.as_ref();
    if memory.stop.is_some()
        || state.running.is_some()
        || ended.is_some_and(|e| !container.restarts(e.exit_code))
    {
        status.state = Some(state);
        return status;
    }
    if ended.is_some() {
        status.last_state = Some(state);
    }
    status.state = Some(waiting(failure.reason, Some(&failure.message)));
    status.ready = false;
    status
}

fn waiting(reason: &str, message: Option<&str>) -> core::ContainerState {
    core::ContainerState {
        waiting: Some(core::ContainerStateWaiting {
            reason: Some(reason.to_owned()),
            message: message.map(str::to_owned),
        }),
        ..core::ContainerState::default()
    }
}

fn terminated(end: core::ContainerStateTerminated) -> core::ContainerState {
    core::ContainerState {
        terminated: Some(end),
        ..core::ContainerState::default()
    }
}

fn end_status(
    desired: &Desired,
    container: &Container,
    life: &Attempt,
    end: &End,
) -> core::ContainerStateTerminated {
    core::ContainerStateTerminated {
        container_id: Some(format!(
            "stead://{}.{}.{}",
            desired.uid, container.name, life.number
        )),
        exit_code: end.code,
        // upstream: containerd gives 128 + signal as the code and no signal; so do we.
        signal: None,
        reason: Some(end.reason.clone()),
        message: end.start_failure.clone().or_else(|| life.message.clone()),
        started_at: Some(Time(end.started)),
        finished_at: Some(Time(end.finished)),
    }
}

/// upstream: `getPhase`.
fn phase(desired: &Desired, status: &core::PodStatus, ending: bool) -> &'static str {
    let (mut initializing, mut failed_init, mut lost_init) = (false, false, false);
    for (container, status) in desired
        .initial()
        .zip(status.init_container_statuses.iter().flatten())
    {
        let state = status.state.as_ref();
        let ended = state.and_then(|s| s.terminated.as_ref());
        match container.kind {
            ContainerKind::Sidecar => {
                let before = status
                    .last_state
                    .as_ref()
                    .is_some_and(|s| s.terminated.is_some());
                initializing |= state.is_some_and(|s| s.waiting.is_some()) && !before;
            }
            ContainerKind::Init | ContainerKind::Regular | ContainerKind::Ephemeral => {
                match ended {
                    Some(end) => {
                        failed_init |= end.exit_code != 0;
                        // upstream: one that will not be started again fails the pod.
                        lost_init |= end.exit_code != 0 && !container.restarts(end.exit_code);
                    }
                    None => initializing = true,
                }
            }
        }
    }
    if lost_init {
        return "Failed";
    }
    let begun = |s: &core::ContainerStatus| s.state.as_ref().is_some_and(|s| s.waiting.is_none());
    let has_begun = status.container_statuses.iter().flatten().any(begun);
    if (initializing || failed_init) && !has_begun {
        return "Pending";
    }
    regular_phase(desired, status, ending)
}

fn regular_phase(desired: &Desired, status: &core::PodStatus, ending: bool) -> &'static str {
    let (mut waiting, mut running, mut stopped, mut succeeded) = (0, 0, 0, 0);
    let mut restarts = false;
    for (container, status) in desired
        .of_kind(ContainerKind::Regular)
        .zip(status.container_statuses.iter().flatten())
    {
        let state = status.state.clone().unwrap_or_default();
        let before = status
            .last_state
            .as_ref()
            .and_then(|s| s.terminated.as_ref());
        match (&state.running, &state.terminated, before) {
            (Some(_), _, _) => running += 1,
            (None, Some(end), _) => {
                stopped += 1;
                succeeded += i32::from(end.exit_code == 0);
                restarts |= container.restarts(end.exit_code);
            }
            (None, None, Some(_)) => {
                stopped += 1;
                restarts = true;
            }
            (None, None, None) => waiting += 1,
        }
    }
    match (waiting, running, stopped) {
        (1.., _, _) => "Pending",
        (_, 1.., _) => "Running",
        (_, _, 1..) if restarts && !ending => "Running",
        (_, _, 1..) if stopped == succeeded => "Succeeded",
        (_, _, 1..) => "Failed",
        _ => "Pending",
    }
}

/// upstream: `hasPodInitialized`, read from what was reported before the stop.
fn has_initialized(desired: &Desired, reported: &core::PodStatus) -> bool {
    let begun = |s: &core::ContainerStatus| {
        s.state.as_ref().is_some_and(|s| s.waiting.is_none())
            || s.last_state
                .as_ref()
                .is_some_and(|s| s.terminated.is_some())
    };
    let last_init_done = reported
        .init_container_statuses
        .iter()
        .flatten()
        .next_back()
        .is_some_and(|s| {
            let state = s.state.clone().unwrap_or_default();
            let up = state.running.is_some()
                && s.started == Some(true)
                && desired
                    .initial()
                    .next_back()
                    .is_some_and(|c| c.kind == ContainerKind::Sidecar);
            up || state.terminated.is_some_and(|end| end.exit_code == 0)
        });
    !desired.has_initial()
        || reported.container_statuses.iter().flatten().any(begun)
        || last_init_done
}

fn mark_missing<'a>(statuses: impl Iterator<Item = &'a mut core::ContainerStatus>) {
    for status in statuses {
        if status
            .state
            .as_ref()
            .is_none_or(|state| state.terminated.is_none())
        {
            status.state = Some(terminated(unknown_end()));
            status.ready = false;
        }
    }
}

/// One condition before its times are known.
struct Condition {
    kind: &'static str,
    holds: bool,
    reason: Option<&'static str>,
    message: Option<String>,
}

fn conditions(
    desired: &Desired,
    actual: &Actual,
    status: &mut core::PodStatus,
    phase: &str,
    sandbox: bool,
    now: Timestamp,
) {
    let containers_ready = containers_ready(desired, status, phase);
    let all = [
        Condition {
            kind: "PodReadyToStartContainers",
            holds: sandbox,
            reason: None,
            message: None,
        },
        initialized(desired, status, phase),
        ready(desired, status, &containers_ready),
        containers_ready,
    ];
    let own: Vec<_> = all
        .into_iter()
        .map(|condition| timed(condition, desired, &actual.reported, now))
        .collect();
    let scheduled = find(&actual.reported, "PodScheduled")
        .cloned()
        .unwrap_or_else(|| {
            timed(
                Condition {
                    kind: "PodScheduled",
                    holds: true,
                    reason: None,
                    message: None,
                },
                desired,
                &actual.reported,
                now,
            )
        });
    let foreign = actual
        .reported
        .conditions
        .iter()
        .flatten()
        .filter(|c| !OWN_CONDITIONS.contains(&c.type_.as_str()))
        .cloned();
    status.conditions = Some(own.into_iter().chain([scheduled]).chain(foreign).collect());
}

fn find<'a>(status: &'a core::PodStatus, kind: &str) -> Option<&'a core::PodCondition> {
    status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == kind)
}

/// A condition keeps the time of its last change for as long as its status stays.
fn timed(
    condition: Condition,
    desired: &Desired,
    reported: &core::PodStatus,
    now: Timestamp,
) -> core::PodCondition {
    let status = if condition.holds { "True" } else { "False" };
    let kept = find(reported, condition.kind).filter(|before| before.status == status);
    core::PodCondition {
        type_: condition.kind.to_owned(),
        status: status.to_owned(),
        reason: condition.reason.map(str::to_owned),
        message: condition.message,
        last_probe_time: None,
        last_transition_time: kept
            .and_then(|before| before.last_transition_time.clone())
            .or(Some(Time(now))),
        observed_generation: (desired.generation > 0).then_some(desired.generation),
    }
}

fn names(statuses: Vec<&core::ContainerStatus>) -> String {
    statuses
        .iter()
        .map(|s| s.name.as_str())
        .collect::<Vec<_>>()
        .join(" ")
}

fn containers_ready(desired: &Desired, status: &core::PodStatus, phase: &str) -> Condition {
    let kind = "ContainersReady";
    let sidecars = desired
        .initial()
        .zip(status.init_container_statuses.iter().flatten());
    let sidecars = sidecars
        .filter(|(c, _)| c.kind == ContainerKind::Sidecar)
        .map(|(_, s)| s);
    let all = sidecars.chain(status.container_statuses.iter().flatten());
    let unready: Vec<_> = all.filter(|status| !status.ready).collect();
    let no = |reason, message| Condition {
        kind,
        holds: false,
        reason: Some(reason),
        message,
    };
    match phase {
        "Succeeded" => no("PodCompleted", None),
        "Failed" => no("PodFailed", None),
        _ if !unready.is_empty() => no(
            "ContainersNotReady",
            Some(format!(
                "containers with unready status: [{}]",
                names(unready)
            )),
        ),
        _ => Condition {
            kind,
            holds: true,
            reason: None,
            message: None,
        },
    }
}

fn ready(desired: &Desired, status: &core::PodStatus, containers: &Condition) -> Condition {
    let kind = "Ready";
    if !containers.holds {
        return Condition {
            kind,
            holds: false,
            reason: containers.reason,
            message: containers.message.clone(),
        };
    }
    let open: Vec<String> = desired
        .gates
        .iter()
        .filter_map(|gate| match find(status, gate) {
            None => Some(format!(
                "corresponding condition of pod readiness gate \"{gate}\" does not exist."
            )),
            Some(condition) if condition.status != "True" => Some(format!(
                "the status of pod readiness gate \"{gate}\" is not \"True\", but {}",
                condition.status
            )),
            Some(_) => None,
        })
        .collect();
    if open.is_empty() {
        return Condition {
            kind,
            holds: true,
            reason: None,
            message: None,
        };
    }
    Condition {
        kind,
        holds: false,
        reason: Some("ReadinessGatesNotReady"),
        message: Some(open.join(", ")),
    }
}

/// Readiness gates that are not true in this status.
pub(super) fn closed_gates(desired: &Desired, status: &core::PodStatus) -> Vec<String> {
    let is_closed = |gate: &&String| find(status, gate).is_none_or(|c| c.status != "True");
    desired.gates.iter().filter(is_closed).cloned().collect()
}

fn initialized(desired: &Desired, status: &core::PodStatus, phase: &str) -> Condition {
    let kind = "Initialized";
    let open: Vec<_> = desired
        .initial()
        .zip(status.init_container_statuses.iter().flatten())
        .filter(|(container, status)| match container.kind {
            ContainerKind::Sidecar => status.started != Some(true),
            ContainerKind::Init | ContainerKind::Regular | ContainerKind::Ephemeral => {
                !status.ready
            }
        })
        .map(|(_, status)| status)
        .collect();
    let begun = |s: &core::ContainerStatus| {
        s.state.as_ref().is_some_and(|s| s.waiting.is_none())
            || s.last_state
                .as_ref()
                .is_some_and(|s| s.terminated.is_some())
    };
    let has_begun = status.container_statuses.iter().flatten().any(begun);
    match phase {
        "Succeeded" => Condition {
            kind,
            holds: true,
            reason: Some("PodCompleted"),
            message: None,
        },
        _ if open.is_empty() || has_begun => Condition {
            kind,
            holds: true,
            reason: None,
            message: None,
        },
        _ => Condition {
            kind,
            holds: false,
            reason: Some("ContainersNotInitialized"),
            message: Some(format!(
                "containers with incomplete status: [{}]",
                names(open)
            )),
        },
    }
}

/// The status of a pod that the node refused: nothing but the refusal.
pub(super) fn rejected(
    desired: &Desired,
    actual: &Actual,
    memory: &Memory,
    reason: &str,
    message: &str,
) -> core::PodStatus {
    core::PodStatus {
        phase: Some("Failed".to_owned()),
        reason: Some(reason.to_owned()),
        message: Some(format!("Pod was rejected: {message}")),
        qos_class: Some(desired.qos.word().to_owned()),
        start_time: actual
            .reported
            .start_time
            .clone()
            .or_else(|| memory.started.map(Time)),
        observed_generation: (desired.generation > 0).then_some(desired.generation),
        conditions: actual.reported.conditions.clone(),
        ..core::PodStatus::default()
    }
}
