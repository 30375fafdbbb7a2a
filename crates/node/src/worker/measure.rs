//! Measuring what a pod takes of the disk, for pods that are limited in it; too much comes back as news.

use std::time::{Duration, Instant};

use tokio::task::AbortHandle;

use super::{News, Worker};
use crate::volume::usage::{self, Places};

/// upstream: how often the kubelet looks.
const EVERY: Duration = Duration::from_secs(10);
/// Measuring takes at most this part of the time.
const SHARE: u32 = 100;

/// Ends the measuring when dropped.
#[derive(Debug)]
pub(super) struct Measuring(AbortHandle);

impl Drop for Measuring {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Measures for as long as the answer is held; nothing is measured of a pod without limits.
pub(super) fn watch(worker: &Worker) -> Option<Measuring> {
    let pod = worker.input.borrow().pod.clone();
    let spec = pod.spec.clone().filter(usage::is_limited)?;
    let uid = &worker.about.uid;
    let node = &worker.shared.node;
    let places = Places {
        volumes: worker.shared.volumes.pod_folder(uid).join("volumes"),
        containers: node.join("containers").join(uid),
        logs: node.join("logs").join(uid),
    };
    let news = worker.news.clone();
    let task = tokio::spawn(async move {
        let mut wait = EVERY;
        loop {
            tokio::time::sleep(wait).await;
            let (spec, places) = (spec.clone(), places.clone());
            let began = Instant::now();
            let measured = tokio::task::spawn_blocking(move || usage::excess(&spec, &places)).await;
            wait = EVERY.max(began.elapsed() * SHARE);
            if let Ok(Some(sentence)) = measured {
                // The worker may have ended with its pod.
                let _ = news.send(News::Excess(sentence)).await;
                return;
            }
        }
    });
    Some(Measuring(task.abort_handle()))
}
