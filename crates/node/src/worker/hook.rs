//! Lifecycle hooks, run beside the worker; their ends come back as news.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;

use super::{News, Worker};
use crate::action::{Answer, Target, ports};
use crate::container;
use crate::pod::{HookId, HookKind, HookState};
use crate::runtime::ContainerId;

/// A hook that has no deadline of its own ends with its container.
const NO_DEADLINE: Duration = Duration::from_secs(24 * 3_600);

/// Runs a hook.
pub(super) fn spawn(worker: &Worker, id: HookId, deadline: Option<Timestamp>) {
    let pod = worker.input.borrow().pod.clone();
    let container = container::find(&pod, &id.container);
    let lifecycle = container
        .as_ref()
        .and_then(|c| c.lifecycle.clone())
        .unwrap_or_default();
    let handler = match id.kind {
        HookKind::PostStart => lifecycle.post_start,
        HookKind::PreStop => lifecycle.pre_stop,
    };
    let target = Target {
        runtime: worker.shared.runtime.clone(),
        id: ContainerId {
            pod_uid: worker.about.uid.clone(),
            container: id.container.clone(),
            attempt: id.attempt,
        },
        ip: worker
            .pod_ip(&pod)
            .parse()
            .unwrap_or(worker.shared.options.host_ip),
        ports: container.as_ref().map(ports).unwrap_or_default(),
    };
    let limit = deadline.map_or(NO_DEADLINE, |at| {
        Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or(Duration::ZERO)
    });
    let news = worker.news.clone();
    tokio::spawn(async move {
        let state =
            match tokio::time::timeout(limit, run(&target, handler.unwrap_or_default(), limit))
                .await
            {
                Ok(Answer::Success) => HookState::Done,
                Ok(Answer::Failure(why) | Answer::Unknown(why)) => HookState::Failed(why),
                Err(_) => HookState::Failed("it did not end within the grace period".to_owned()),
            };
        // The worker may have ended with its pod.
        let _ = news.send(News::Hook(id, state)).await;
    });
}

async fn run(target: &Target, handler: core::LifecycleHandler, limit: Duration) -> Answer {
    if let Some(exec) = handler.exec {
        target.exec(&exec.command.unwrap_or_default(), limit).await
    } else if let Some(http) = handler.http_get {
        target.http_hook(&http, limit).await
    } else if let Some(sleep) = handler.sleep {
        tokio::time::sleep(Duration::from_secs(
            u64::try_from(sleep.seconds).unwrap_or(0),
        ))
        .await;
        Answer::Success
    } else {
        Answer::Failure("this node runs hooks of the kinds exec, httpGet and sleep".to_owned())
    }
}
