//! Which life's log is meant, and the kubelet's words where there is none.

use std::path::PathBuf;

use http::StatusCode;
use k8s_openapi::api::core::v1::{ContainerState as Told, ContainerStatus, Pod};

use super::{Aim, Desk, Refusal};
use crate::container::log_folder;
use crate::logs::{self, Wanted};
use crate::runtime::ContainerState;

/// The life whose log is wanted, and its file.
pub(super) async fn life(
    desk: &Desk,
    aim: &Aim,
    wanted: &Wanted,
) -> Result<(u32, PathBuf), Refusal> {
    let mut lives = logs::lives(&log_folder(&desk.node, &aim.uid, &aim.container));
    let latest = lives.pop();
    let found = match (wanted.previous, latest) {
        (false, Some(latest)) => Some(latest),
        (false, None) => None,
        // The one before the present one; a container that waits for its next start has its last life behind it.
        (true, Some((attempt, file))) => match waits(desk, aim, attempt).await {
            true => Some((attempt, file)),
            false => lives.pop(),
        },
        (true, None) => None,
    };
    match found {
        Some(life) => Ok(life),
        None => Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            words(aim, wanted.previous, status(desk, aim).await.as_ref()),
        )),
    }
}

/// Whether this latest life is over and another is to come.
async fn waits(desk: &Desk, aim: &Aim, attempt: u32) -> bool {
    let records = desk.runtime.list().unwrap_or_default();
    let over = !records.iter().any(|record| {
        record.id.pod_uid == aim.uid
            && record.id.container == aim.container
            && record.id.attempt == attempt
            && matches!(
                record.state,
                ContainerState::Created | ContainerState::Running { .. }
            )
    });
    over && status(desk, aim).await.is_some_and(|status| {
        let state = status.state.unwrap_or_default();
        state.waiting.is_some()
    })
}

/// What the API knows of the container.
async fn status(desk: &Desk, aim: &Aim) -> Option<ContainerStatus> {
    let pods: kube::Api<Pod> = kube::Api::namespaced(desk.client.clone(), &aim.namespace);
    let status = pods.get_opt(&aim.pod).await.ok()??.status?;
    let all = [
        status.container_statuses,
        status.init_container_statuses,
        status.ephemeral_container_statuses,
    ];
    all.into_iter()
        .flatten()
        .flatten()
        .find(|status| status.name == aim.container)
}

/// Why there is no log. upstream: the kubelet's `validateContainerLogStatus`.
fn words(aim: &Aim, previous: bool, status: Option<&ContainerStatus>) -> String {
    let whose = format!("container \"{}\" in pod \"{}\"", aim.container, aim.pod);
    if previous {
        return format!("previous terminated {whose} not found");
    }
    let state = status.and_then(|status| status.state.clone());
    match state.unwrap_or_default() {
        Told {
            waiting: Some(waiting),
            ..
        } => match waiting.reason.as_deref() {
            Some("ErrImagePull") => {
                format!("{whose} is waiting to start: image can't be pulled")
            }
            Some("ImagePullBackOff") => {
                format!("{whose} is waiting to start: trying and failing to pull image")
            }
            reason => format!(
                "{whose} is waiting to start: {}",
                reason.unwrap_or_default()
            ),
        },
        Told {
            terminated: Some(_),
            ..
        } => format!("{whose} is terminated"),
        Told { .. } => format!("{whose} is waiting to start - no logs yet"),
    }
}
