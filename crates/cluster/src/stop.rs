//! Stops pods without touching what their owners want: of each set the highest ordinal first, the next only when the
//! former is gone. Pods that nobody would make again are stopped by the node and keep their objects.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::{BoxFuture, join_all};
use serde_json::Value;
use stead_controller::call::{CallError, Request, call};
use stead_controller::reflect::{Delta, Part, reflect};
use stead_controller::resource::{Key, Resource, controller_of, list, text, uid};
use tokio::sync::{mpsc, watch};

/// Pods that run nowhere and are deleted at once.
const AT_ONCE: usize = 64;

/// One pod on its way down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StopEvent {
    /// Which pod.
    pub pod: Key,
    /// What happens to it.
    pub what: StopWhat,
}

/// What happens to a pod on its way down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StopWhat {
    /// It was asked to stop.
    Stopping,
    /// It is gone; its owner makes it again at the next start.
    Stopped,
    /// It is stopped and keeps its object: the node runs it again at the next start.
    Kept,
    /// It could not be stopped.
    Failed(String),
}

impl std::fmt::Display for StopEvent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let StopEvent { pod, what } = self;
        match what {
            StopWhat::Stopping => write!(f, "pod {pod} is stopping"),
            StopWhat::Stopped => write!(f, "pod {pod} has stopped"),
            StopWhat::Kept => write!(f, "pod {pod} has stopped; it runs again at the next start"),
            StopWhat::Failed(why) => write!(f, "pod {pod} could not be stopped: {why}"),
        }
    }
}

/// Stops a pod whose object stays: its UID and its grace.
pub type StopKept<'a> = &'a (dyn Fn(String, Duration) -> BoxFuture<'a, Result<(), String>> + Sync);

/// Stops all pods of an API and tells of each. Whoever would make them again must have ended before.
pub async fn stop_all(
    client: &kube::Client,
    stop_kept: StopKept<'_>,
    mut tell: impl FnMut(StopEvent),
) {
    let pods = match call(client, Request::list(&Resource::PODS, None)).await {
        Ok(pods) => list(&pods, "/items").to_vec(),
        Err(error) => {
            tracing::error!(%error, "the pods could not be listed; they run on");
            return;
        }
    };
    let (told, mut telling) = mpsc::unbounded_channel();
    let (end, mut ended) = watch::channel(false);
    let (present, following) = follow(client.clone(), &pods, async move {
        // The end of the sender is the end too.
        drop(ended.wait_for(|end| *end).await);
    });
    let stopper = Stopper {
        client,
        told,
        present,
    };
    let stopping = async move {
        stopper.all(pods, stop_kept).await;
        drop(stopper);
        end.send_replace(true);
    };
    let telling = async {
        while let Some(event) = telling.recv().await {
            tell(event);
        }
    };
    futures::join!(stopping, telling, following);
}

/// Ordinals of a set come in order; other pods of one owner in the order of their names.
fn place(pod: &Value) -> (u64, String) {
    let name = text(pod, "/metadata/name");
    let ordinal = name
        .rsplit_once('-')
        .and_then(|(_, digits)| digits.parse().ok())
        .unwrap_or(0);
    (ordinal, name.to_owned())
}

type Present = watch::Receiver<Arc<BTreeSet<String>>>;

/// Follows which pods are there, by UID.
fn follow<F: Future<Output = ()>>(
    client: kube::Client,
    pods: &[Value],
    end: F,
) -> (Present, impl Future<Output = ()> + use<F>) {
    let first: BTreeSet<String> = pods.iter().map(|pod| uid(pod).to_owned()).collect();
    let (sender, present) = watch::channel(Arc::new(first));
    let sink = move |delta| {
        sender.send_if_modified(|known| match delta {
            Delta::Listing => false,
            Delta::Reset(pods) => {
                *known = Arc::new(pods.iter().map(|pod| uid(pod).to_owned()).collect());
                true
            }
            Delta::Put(pod) => {
                !known.contains(uid(&pod)) && Arc::make_mut(known).insert(uid(&pod).to_owned())
            }
            Delta::Gone(pod) => Arc::make_mut(known).remove(uid(&pod)),
        });
    };
    (
        present,
        reflect(client, Resource::PODS, Part::default(), sink, end),
    )
}

struct Stopper<'a> {
    client: &'a kube::Client,
    told: mpsc::UnboundedSender<StopEvent>,
    present: Present,
}

impl Stopper<'_> {
    async fn all(&self, pods: Vec<Value>, stop_kept: StopKept<'_>) {
        let (owned, bare): (Vec<Value>, Vec<Value>) = pods
            .into_iter()
            .partition(|pod| controller_of(pod).is_some());
        let runs = |pod: &Value| !text(pod, "/spec/nodeName").is_empty();
        let (running, idle): (Vec<Value>, Vec<Value>) = owned.into_iter().partition(runs);
        let mut groups: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for pod in running {
            let owner = controller_of(&pod)
                .map(|owner| text(owner, "/uid").to_owned())
                .unwrap_or_default();
            groups.entry(owner).or_default().push(pod);
        }
        // What runs nowhere is gone at once and would else take the room that others give back.
        futures::stream::iter(&idle)
            .for_each_concurrent(AT_ONCE, |pod| self.delete(pod))
            .await;
        let groups = join_all(groups.into_values().map(|group| self.group(group)));
        let bare = join_all(
            bare.iter()
                .filter(|pod| runs(pod))
                .map(|pod| self.keep(pod, stop_kept)),
        );
        futures::join!(groups, bare);
    }

    /// The pods of one owner, the highest ordinal first.
    async fn group(&self, mut pods: Vec<Value>) {
        pods.sort_by_key(place);
        for pod in pods.iter().rev() {
            self.delete(pod).await;
        }
    }

    async fn delete(&self, pod: &Value) {
        self.tell(pod, StopWhat::Stopping);
        let what = match self.delete_and_wait(pod).await {
            Ok(()) => StopWhat::Stopped,
            Err(error) => StopWhat::Failed(error.message()),
        };
        self.tell(pod, what);
    }

    async fn delete_and_wait(&self, pod: &Value) -> Result<(), CallError> {
        match call(
            self.client,
            Request::delete(&Resource::PODS, &Key::of(pod), uid(pod)),
        )
        .await
        {
            // Gone already, or another pod has the name.
            Err(error) if error.is_not_found() || error.is_conflict() => return Ok(()),
            other => other?,
        };
        // An error means that nobody follows the pods any more: the end.
        drop(
            self.present
                .clone()
                .wait_for(|present| !present.contains(uid(pod)))
                .await,
        );
        Ok(())
    }

    async fn keep(&self, pod: &Value, stop_kept: StopKept<'_>) {
        self.tell(pod, StopWhat::Stopping);
        let grace = pod
            .pointer("/spec/terminationGracePeriodSeconds")
            .and_then(Value::as_u64)
            .unwrap_or(30);
        let what = match stop_kept(uid(pod).to_owned(), Duration::from_secs(grace)).await {
            Ok(()) => StopWhat::Kept,
            Err(why) => StopWhat::Failed(why),
        };
        self.tell(pod, what);
    }

    fn tell(&self, pod: &Value, what: StopWhat) {
        // Whoever no longer listens no longer wants to know.
        drop(self.told.send(StopEvent {
            pod: Key::of(pod),
            what,
        }));
    }
}
