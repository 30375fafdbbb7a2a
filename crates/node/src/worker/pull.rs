//! Pulls of a pod's images: each runs beside its worker and tells it when it ends; it ends when the worker lets it go.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use kube::Api;
use stead_image::registry::credentials::Credentials;
use tokio::task::JoinHandle;

use super::{News, Shared, Worker};
use crate::container;
use crate::pod::{Pull, PullState};
use crate::runtime::Tier;

/// Pulls that run or ran, by container.
#[derive(Default)]
pub(super) struct Pulls(BTreeMap<String, Task>);

struct Task {
    pull: Pull,
    handle: Option<JoinHandle<()>>,
}

/// Nobody waits for it any more.
impl Drop for Task {
    fn drop(&mut self) {
        if let Some(handle) = &self.handle {
            handle.abort();
        }
    }
}

impl Pulls {
    /// What a decision reads.
    pub(super) fn states(&self) -> BTreeMap<String, Pull> {
        let each = self.0.iter();
        each.map(|(name, task)| (name.clone(), task.pull.clone()))
            .collect()
    }

    /// Notes how a pull ended; one that was begun since is another.
    pub(super) fn end(&mut self, container: &str, attempt: u32, state: PullState) {
        if let Some(task) = self.0.get_mut(container)
            && task.pull.attempt == attempt
        {
            task.pull.state = state;
            task.handle = None;
        }
    }

    /// What is told of the image that was pulled for this life.
    pub(super) fn sentence(&self, container: &str, attempt: u32) -> Option<String> {
        let pull = &self.0.get(container)?.pull;
        match &pull.state {
            PullState::Done(sentence) if pull.attempt == attempt => Some(sentence.clone()),
            PullState::Done(_) | PullState::Running | PullState::Failed { .. } => None,
        }
    }

    /// Ends all.
    pub(super) fn cancel(&mut self) {
        self.0.clear();
    }
}

impl Worker {
    /// Begins the pull for a life of a container.
    pub(super) fn pull(&mut self, name: &str, attempt: u32) {
        let pod = self.input.borrow().pod.clone();
        let image = container::find(&pod, name).and_then(|container| container.image);
        let shared = Arc::clone(&self.shared);
        let news = self.news.clone();
        let container = name.to_owned();
        let work = async move {
            let state = match fetch(&shared, &pod, &image.unwrap_or_default()).await {
                Ok(sentence) => PullState::Done(sentence),
                Err(why) => PullState::Failed {
                    why,
                    at: Timestamp::now(),
                },
            };
            // A worker that has ended needs no news.
            let _ = news
                .send(News::Pull {
                    container,
                    attempt,
                    state,
                })
                .await;
        };
        let task = Task {
            pull: Pull {
                attempt,
                state: PullState::Running,
            },
            handle: Some(tokio::spawn(work)),
        };
        self.pulls.0.insert(name.to_owned(), task);
    }
}

async fn fetch(shared: &Shared, pod: &core::Pod, image: &str) -> Result<String, String> {
    if shared.runtime.tier() == Tier::Processes {
        return Err(
            "a plain process has the machine's own file system; use the image stead.dev/host"
                .to_owned(),
        );
    }
    let secrets = secrets(shared, pod).await;
    let sentence = shared.images.pull(image, secrets).await?;
    crate::node::report_images(shared).await;
    Ok(sentence)
}

/// The credentials of the pod's pull secrets. upstream: one that is missing or malformed is passed over.
async fn secrets(shared: &Shared, pod: &core::Pod) -> Credentials {
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let api: Api<core::Secret> = Api::namespaced(shared.client.clone(), &namespace);
    let named = pod
        .spec
        .iter()
        .flat_map(|spec| spec.image_pull_secrets.iter().flatten());
    let mut all = Credentials::default();
    for reference in named {
        match api.get_opt(&reference.name).await {
            Ok(Some(secret)) => all = all.and(credentials(&reference.name, &secret)),
            Ok(None) => tracing::debug!(secret = %reference.name, "a pull secret is not there"),
            Err(error) => {
                tracing::warn!(secret = %reference.name, %error, "could not read a pull secret");
            }
        }
    }
    all
}

fn credentials(name: &str, secret: &core::Secret) -> Credentials {
    let data = |key: &str| {
        secret
            .data
            .as_ref()?
            .get(key)
            .map(|value| value.0.as_slice())
    };
    let parsed = match (data(".dockerconfigjson"), data(".dockercfg")) {
        (Some(text), _) => Credentials::parse(text),
        (None, Some(text)) => Credentials::parse_old(text),
        (None, None) => return Credentials::default(),
    };
    parsed.unwrap_or_else(|error| {
        tracing::warn!(secret = %name, %error, "a pull secret is passed over");
        Credentials::default()
    })
}
