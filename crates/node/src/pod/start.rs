//! Starting: which containers come up now, in which order, and which must wait.
//!
//! Upstream: `computePodActions` and `computeInitContainerActions`: init containers one after another, sidecars in
//! their turn and kept up, then all others; an ended container by its restart policy, after its back-off.

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;

use super::actual::{AttemptState, Place, StopBecause};
use super::backoff::Backoff;
use super::desired::{Container, ContainerKind};
use super::image::{self, ImageProblem, Presence, PullState};
use super::probe::{ProbeKind, Verdict};
use super::round::{LOOK_AGAIN, Round};
use super::status;
use super::step::{Blocker, Step};
use super::stop;

/// Makes volumes and place. `false`: not now.
pub(super) fn ground(round: &mut Round<'_>) -> bool {
    if let Some(uid) = round.actual.former.clone() {
        round.block(Blocker::FormerHolder { uid });
        return false;
    }
    let placed = matches!(round.actual.place, Place::Prepared(_));
    let stands = placed && round.actual.volumes_ready;
    if stands && !round.actual.volumes_stale {
        return true;
    }
    if let Some(trouble) = round
        .memory
        .trouble
        .clone()
        .filter(|trouble| trouble.retry_at > round.now)
    {
        round.wake(trouble.retry_at);
        if stands {
            // upstream: what was mounted once stays, and the pod goes on with it.
            return true;
        }
        let message = trouble.message;
        round.block(if trouble.reason == "FailedMount" {
            Blocker::Volumes { message }
        } else {
            Blocker::Place { message }
        });
        return false;
    }
    if !round.actual.volumes_ready || round.actual.volumes_stale {
        round.step(Step::MakeVolumes);
    }
    if !placed {
        round.step(Step::PreparePod);
        // upstream: the kubelet looks again when it sees the sandbox come up.
        round.again();
    }
    true
}

/// Starts whatever is to start now.
pub(super) fn containers(round: &mut Round<'_>) {
    let begun = has_begun(round);
    for container in round.desired.of_kind(ContainerKind::Ephemeral) {
        start_if_due(round, container);
    }
    let initialized = if begun {
        keep_sidecars(round)
    } else {
        initialize(round)
    };
    if initialized {
        regular(round);
    }
}

/// A container of the pod proper was started once: what came before it is not done again. In a place made anew, after
/// the pod was stopped for a while or the machine was, everything is.
fn has_begun(round: &Round<'_>) -> bool {
    round
        .desired
        .of_kind(ContainerKind::Regular)
        .any(|container| {
            round
                .latest(container)
                .is_some_and(|life| !life.former_boot)
        })
}

/// Whether all that is known of an init container was in a former place of the pod: it must run again.
fn was_elsewhere(round: &Round<'_>, container: &Container) -> bool {
    match round.latest(container) {
        Some(latest) => latest.former_boot && latest.end().is_some(),
        None => status::lost(round.actual, &container.name).is_some(),
    }
}

fn keep_sidecars(round: &mut Round<'_>) -> bool {
    for container in round.desired.of_kind(ContainerKind::Sidecar) {
        start_if_due(round, container);
    }
    true
}

/// Walks the init containers as far as they have come; `true` once all are done.
fn initialize(round: &mut Round<'_>) -> bool {
    for container in round.desired.initial() {
        if !is_past(round, container) {
            start_if_due(round, container);
            round.block(Blocker::Initializing {
                container: container.name.clone(),
            });
            return false;
        }
    }
    true
}

/// An init container that ended well, or a sidecar that has come up.
fn is_past(round: &mut Round<'_>, container: &Container) -> bool {
    if status::runs_unseen(container, round.actual, &round.memory) {
        round.again();
        return false;
    }
    let Some(latest) = round.latest(container) else {
        return false;
    };
    if latest.former_boot {
        return false;
    }
    let pending = round.of(container).post_start.is_some();
    match (&latest.state, container.kind) {
        (AttemptState::Running { .. }, ContainerKind::Sidecar) => {
            !pending && status::has_started(container, round.actual, latest.number)
        }
        (AttemptState::Ended(end), ContainerKind::Init) => end.code == 0,
        (AttemptState::Created | AttemptState::Running { .. } | AttemptState::Ended(_), _) => false,
    }
}

fn regular(round: &mut Round<'_>) {
    for container in round.desired.of_kind(ContainerKind::Regular) {
        start_if_due(round, container);
        let awaited = container.post_start.is_some() && round.of(container).failure.is_none();
        let hooked = round.of(container).post_start.is_some()
            || round
                .latest(container)
                .is_none_or(|latest| latest.state == AttemptState::Created);
        if awaited && hooked {
            // upstream: the next container is not started before this one's postStart hook has ended.
            round.block(Blocker::Starting {
                container: container.name.clone(),
            });
            return;
        }
    }
}

/// The life that comes next, and when the last one ended, if it did.
struct Due {
    attempt: u32,
    ended: Option<Timestamp>,
    /// It was ended by the node itself, to be started again at once.
    by_us: bool,
}

fn due(round: &mut Round<'_>, container: &Container) -> Option<Due> {
    if container.kind == ContainerKind::Init && was_elsewhere(round, container) {
        let before = status::reported(round.actual, &container.name);
        let count = before.map_or(0, |b| u32::try_from(b.restart_count).unwrap_or(0));
        let latest = round.latest(container).map_or(count, |life| life.number);
        return Some(Due {
            attempt: latest + 1,
            ended: None,
            by_us: false,
        });
    }
    let Some(latest) = round.latest(container) else {
        let before = status::reported(round.actual, &container.name);
        let count = before.map_or(0, |b| u32::try_from(b.restart_count).unwrap_or(0));
        return match status::lost(round.actual, &container.name) {
            None => Some(Due {
                attempt: count,
                ended: None,
                by_us: false,
            }),
            Some(end) if container.restarts(end.exit_code) => Some(Due {
                attempt: count + 1,
                ended: None,
                by_us: false,
            }),
            Some(_) => None,
        };
    };
    let end = latest.end()?;
    if status::runs_unseen(container, round.actual, &round.memory) {
        round.again();
        return None;
    }
    if !container.restarts(end.code) {
        return None;
    }
    let by_us = round
        .of(container)
        .stop
        .as_ref()
        .is_some_and(|stop| stop.attempt == latest.number);
    Some(Due {
        attempt: latest.number + 1,
        ended: Some(end.finished),
        by_us,
    })
}

fn start_if_due(round: &mut Round<'_>, container: &Container) {
    let Some(due) = due(round, container) else {
        if round
            .latest(container)
            .is_some_and(|latest| latest.state == AttemptState::Created)
        {
            let container = container.name.clone();
            round.block(Blocker::Starting { container });
        }
        return;
    };
    if round.is_held(container) {
        return;
    }
    if !image_is_there(round, container, due.attempt) || !may_restart(round, container, &due) {
        return;
    }
    if !has_command(round, container) {
        let message = format!(
            "no command specified: image {} has none of its own; give container {} a command",
            container.image, container.name
        );
        pulled(round, container);
        round.warn(container, "Failed", format!("Error: {message}"));
        round.fail(container, "CreateContainerError", message);
        return round.wake(round.after(LOOK_AGAIN));
    }
    round.step(Step::StartContainer {
        container: container.name.clone(),
        attempt: due.attempt,
    });
    let remembered = round.of(container);
    remembered.failure = None;
    remembered.image_failed = None;
    remembered.stop = None;
    round.block(Blocker::Starting {
        container: container.name.clone(),
    });
}

/// Says what keeps a pod from being ready whose containers all run.
pub(super) fn readiness(round: &mut Round<'_>, status: &core::PodStatus) {
    for container in &round.desired.containers {
        let own = status
            .init_container_statuses
            .iter()
            .chain(&status.container_statuses)
            .flatten()
            .find(|own| own.name == container.name);
        let runs = round
            .latest(container)
            .is_some_and(|latest| matches!(latest.state, AttemptState::Running { .. }));
        match container.kind {
            ContainerKind::Regular | ContainerKind::Sidecar
                if runs && own.is_some_and(|own| !own.ready) =>
            {
                let container = container.name.clone();
                round.block(Blocker::NotReady { container });
            }
            ContainerKind::Regular
            | ContainerKind::Sidecar
            | ContainerKind::Init
            | ContainerKind::Ephemeral => {}
        }
    }
    for gate in status::closed_gates(round.desired, status) {
        round.block(Blocker::GateClosed { gate });
    }
}

pub(super) fn pulled(round: &mut Round<'_>, container: &Container) {
    let message = format!(
        "Container image \"{}\" already present on machine and can be accessed by the pod",
        container.image
    );
    round.normal(container, "Pulled", message);
}

/// Whether a container's image can be used now; says what keeps it from that.
fn image_is_there(round: &mut Round<'_>, container: &Container, attempt: u32) -> bool {
    let absent = Presence::Absent;
    let presence = round.actual.images.get(&container.name).unwrap_or(&absent);
    let problem = match image::check(&container.image, container.pull, presence) {
        Ok(()) => return true,
        Err(problem) => problem,
    };
    let image = &container.image;
    match problem {
        ImageProblem::Invalid(why) => {
            let message = format!(
                "Failed to apply default image tag \"{image}\": couldn't parse image name \"{image}\": {why}"
            );
            round.warn(container, "InspectFailed", message.clone());
            round.warn(container, "Failed", "Error: InvalidImageName");
            round.fail(container, "InvalidImageName", message);
            round.wake(round.after(LOOK_AGAIN));
        }
        ImageProblem::Unreadable(why) => {
            let message = format!("Failed to inspect image \"{image}\": {why}");
            round.warn(container, "InspectFailed", message.clone());
            round.warn(container, "Failed", "Error: ImageInspectError");
            round.fail(container, "ImageInspectError", message);
            round.wake(round.after(LOOK_AGAIN));
        }
        ImageProblem::NeverPulled => {
            let message =
                format!("Container image \"{image}\" is not present with pull policy of Never");
            round.warn(container, "ErrImageNeverPull", message.clone());
            round.warn(container, "Failed", "Error: ErrImageNeverPull");
            round.fail(container, "ErrImageNeverPull", message);
            round.wake(round.after(LOOK_AGAIN));
        }
        ImageProblem::MustPull => {
            if is_pulled(round, container, attempt) {
                return true;
            }
        }
    }
    if round.of(container).stop.take().is_some() {
        round.again();
    }
    false
}

/// Whether the container or its image names a program.
fn has_command(round: &Round<'_>, container: &Container) -> bool {
    let presence = round.actual.images.get(&container.name);
    container.has_command
        || matches!(
            presence,
            Some(Presence::Present {
                has_command: true,
                ..
            })
        )
}

/// Whether the image was fetched for this life of the container; fetches it, or waits before it does so again.
/// upstream: `EnsureImageExists`, the pull.
fn is_pulled(round: &mut Round<'_>, container: &Container, attempt: u32) -> bool {
    let pulls = &round.actual.pulls;
    let pull = pulls
        .get(&container.name)
        .filter(|pull| pull.attempt == attempt);
    match pull.map(|pull| pull.state.clone()) {
        Some(PullState::Done(_)) => return true,
        Some(PullState::Running) => round.block(Blocker::Pulling {
            container: container.name.clone(),
        }),
        Some(PullState::Failed { why, at }) if round.of(container).image_failed != Some(at) => {
            pull_failed(round, container, &why, at);
        }
        Some(PullState::Failed { why, at: _ }) => pull_again(round, container, attempt, &why),
        None => pull_again(round, container, attempt, ""),
    }
    false
}

fn pull_failed(round: &mut Round<'_>, container: &Container, why: &str, at: Timestamp) {
    let message = format!("Failed to pull image \"{}\": {why}", container.image);
    round.warn(container, "Failed", message.clone());
    round.warn(container, "Failed", "Error: ErrImagePull");
    round.fail(container, "ErrImagePull", message);
    let now = round.now;
    let remembered = round.of(container);
    let last = remembered.image_failed.replace(at).unwrap_or(at);
    remembered.image_backoff.restarted(last, now);
    // Shown before the wait for the next attempt is.
    round.again();
}

/// Fetches the image, unless the last attempt failed too short a time ago.
fn pull_again(round: &mut Round<'_>, container: &Container, attempt: u32, why: &str) {
    let now = round.now;
    let image = &container.image;
    let remembered = round.of(container);
    let backoff = remembered.image_backoff;
    let waits = remembered
        .image_failed
        .and_then(|at| backoff.waits_until(at, now));
    let Some(until) = waits else {
        round.normal(container, "Pulling", format!("Pulling image \"{image}\""));
        round.step(Step::PullImage {
            container: container.name.clone(),
            attempt,
        });
        return round.block(Blocker::Pulling {
            container: container.name.clone(),
        });
    };
    let shown = round
        .of(container)
        .failure
        .as_ref()
        .is_some_and(|failure| failure.reason == "ImagePullBackOff");
    let message = format!("Back-off pulling image \"{image}\"");
    if !shown {
        round.normal(container, "BackOff", message.clone());
        round.warn(container, "Failed", "Error: ImagePullBackOff");
        round.fail(
            container,
            "ImagePullBackOff",
            format!("{message}: ErrImagePull: {why}"),
        );
    }
    round.block(Blocker::BackOff {
        container: container.name.clone(),
        until,
    });
    round.wake(until);
}

/// Waits out the back-off of a container that ended.
fn may_restart(round: &mut Round<'_>, container: &Container, due: &Due) -> bool {
    let Some(ended) = due.ended else { return true };
    // upstream: a container that the kubelet ends itself is started in the same breath, when only the end of the
    // life before is known; so its back-off counts from there.
    let counted = if due.by_us {
        end_before(round, container)
    } else {
        Some(ended)
    };
    let Some(counted) = counted else { return true };
    let now = round.now;
    let backoff: Backoff = round.of(container).backoff;
    let Some(until) = backoff.waits_until(counted, now) else {
        round.of(container).backoff.restarted(counted, now);
        return true;
    };
    let waiting = round
        .of(container)
        .failure
        .as_ref()
        .is_some_and(|failure| failure.reason == "CrashLoopBackOff");
    if waiting {
        round.wake(until);
    } else {
        let Round { desired, .. } = round;
        let pod = format!("{}_{}({})", desired.name, desired.namespace, desired.uid);
        let message = format!(
            "Back-off restarting failed container {} in pod {pod}",
            container.name
        );
        round.warn(container, "BackOff", message.clone());
        let message = format!(
            "back-off {} restarting failed container={} pod={pod}",
            words(backoff),
            container.name
        );
        round.fail(container, "CrashLoopBackOff", message);
        if due.by_us {
            round.again();
        }
        round.wake(until.min(round.after(LOOK_AGAIN)));
    }
    round.of(container).stop = None;
    round.block(Blocker::BackOff {
        container: container.name.clone(),
        until,
    });
    false
}

/// `1m20s`, as Go writes durations.
fn words(backoff: Backoff) -> String {
    let seconds = backoff.wait().as_secs();
    if seconds < 60 {
        format!("{seconds}s")
    } else {
        format!("{}m{}s", seconds / 60, seconds % 60)
    }
}

fn end_before(round: &Round<'_>, container: &Container) -> Option<Timestamp> {
    let lives = round.actual.attempts.get(&container.name)?;
    let [.., before, _] = lives.as_slice() else {
        return None;
    };
    before.end().map(|end| end.finished)
}

/// Ends running containers whose probe failed or whose definition changed.
pub(super) fn failing(round: &mut Round<'_>) {
    for container in &round.desired.containers {
        let Some(latest) = round.latest(container) else {
            continue;
        };
        let AttemptState::Running { .. } = latest.state else {
            continue;
        };
        if round.of(container).stop.is_some() || round.of(container).post_start.is_some() {
            continue;
        }
        let verdict = |kind: ProbeKind| {
            let verdicts = round
                .actual
                .verdicts
                .get(&container.name)
                .filter(|v| v.attempt == latest.number)?;
            container.probe(kind)?;
            Some(match kind {
                ProbeKind::Startup => verdicts.startup,
                ProbeKind::Liveness => verdicts.liveness,
                ProbeKind::Readiness => verdicts.readiness,
            })
        };
        let changed = latest
            .image
            .as_ref()
            .is_some_and(|image| !image::same(image, &container.image));
        if changed {
            stop::begin(round, container, StopBecause::Definition);
        } else if verdict(ProbeKind::Liveness) == Some(Verdict::Failure) {
            stop::begin(round, container, StopBecause::Liveness);
        } else if verdict(ProbeKind::Startup) == Some(Verdict::Failure) {
            stop::begin(round, container, StopBecause::Startup);
        }
    }
}
