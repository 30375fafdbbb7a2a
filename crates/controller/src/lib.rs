//! The kube-rs shell round the StatefulSet decision: watch, observe, decide, check, execute, report. Never sees the API server or the node.
//!
//! [`run`] is the controller. [`observe`] reads once what it would see, for programs that explain. The tools below it are
//! those of any controller over raw JSON objects: [`call`], [`reflect`], [`queue`], [`events`].

pub mod backpressure;
pub mod call;
pub mod events;
mod execute;
mod follow;
pub mod metrics;
mod page;
pub mod queue;
mod reconcile;
pub mod reflect;
mod report;
mod request;
pub mod resource;
mod snapshot;
mod watch;

use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::{BoxFuture, join};
use tokio::sync::watch as channel;

use crate::backpressure::Backpressure;
use crate::events::Recorder;
use crate::follow::{Source, follow};
use crate::metrics::Metrics;
use crate::queue::Queue;
use crate::reconcile::{Shell, reconcile};
use crate::reflect::Part;
use crate::resource::{Key, Resource};
use crate::snapshot::Written;
use crate::watch::{Entry, Facts, Kind, Related, Watched};

pub use crate::snapshot::observe;

/// How the controller is to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The sets to care for: those of `apps/v1`, or another group's of the same shape.
    pub sets: Resource,
    /// Sets under way at once. upstream: 5; a round here waits for no other set's calls.
    pub concurrency: usize,
    /// Where it counts what it does.
    pub metrics: Metrics,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            sets: Resource::STATEFUL_SETS,
            concurrency: 16,
            metrics: Metrics::default(),
        }
    }
}

/// Why the controller ended other than by its shutdown.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A task of the controller ended by a panic.
    #[error("the StatefulSet controller stopped by a bug of its own; please report it")]
    Panicked(#[source] tokio::task::JoinError),
}

/// The four watches, by number, for the one that waits until all have been filled.
const WATCHES: usize = 4;

/// Cares for all sets of all namespaces until `shutdown`; rounds that run then are finished first.
///
/// # Errors
/// A bug of the controller's own. Trouble with the API is met by trying again, for ever.
pub async fn run(
    client: kube::Client,
    options: Options,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Error> {
    let shutdown = shutdown.boxed().shared();
    let client = options.metrics.counted(client);
    let backpressure = Backpressure::default();
    let (recorder, recording) = Recorder::patient(
        client.clone(),
        "statefulset-controller",
        backpressure.clone(),
    );
    let shell = Arc::new(Shell {
        client: client.clone(),
        recorder,
        watched: Watched::default(),
        written: Written::default(),
        backpressure,
        metrics: options.metrics.clone(),
    });
    let queue: Queue<Key> = Queue::measured(options.metrics);
    let (unfilled, mut filled) = channel::channel(WATCHES);
    let follow = Follow {
        client,
        shell: Arc::clone(&shell),
        queue: queue.clone(),
        unfilled,
        shutdown: shutdown.clone(),
    };
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(follow.kind(options.sets, |facts| &mut facts.sets));
    tasks.spawn(follow.kind(Resource::PODS, |facts| &mut facts.pods));
    tasks.spawn(follow.kind(Resource::CLAIMS, |facts| &mut facts.claims));
    tasks.spawn(follow.kind(Resource::REVISIONS, |facts| &mut facts.revisions));
    tasks.spawn(async move {
        // No decision before every cache is filled: what is not there yet would look as if it did not exist.
        let all_filled = async { filled.wait_for(|missing| *missing == 0).await.is_ok() };
        let begin = tokio::select! { begin = all_filled => begin, () = shutdown.clone() => false };
        if begin {
            queue
                .serve(
                    options.concurrency,
                    move |key| reconcile(Arc::clone(&shell), key),
                    shutdown,
                )
                .await;
        }
    });
    drop(follow);
    let finishing = async {
        while let Some(ended) = tasks.join_next().await {
            ended.map_err(Error::Panicked)?;
        }
        Ok(())
    };
    // The recorder writes what is left once the last round has dropped its hold on it.
    join(finishing, recording)
        .map(|(finished, ())| finished)
        .await
}

/// What each of the watches is given.
struct Follow<S> {
    client: kube::Client,
    shell: Arc<Shell>,
    queue: Queue<Key>,
    unfilled: channel::Sender<usize>,
    shutdown: S,
}

impl<S: Future<Output = ()> + Clone + Send + 'static> Follow<S> {
    fn kind<T: Related + Send + Sync + 'static>(
        &self,
        resource: Resource,
        kind: fn(&mut Facts) -> &mut Kind<T>,
    ) -> BoxFuture<'static, ()> {
        let unfilled = self.unfilled.clone();
        let filled = move || unfilled.send_modify(|missing| *missing -= 1);
        let sink = self.shell.watched.sink(self.queue.clone(), kind, filled);
        let source = Source {
            client: self.client.clone(),
            resource,
            part: Part::default(),
            backpressure: self.shell.backpressure.clone(),
        };
        let read = |object| Entry::read(&object);
        follow(source, read, sink, self.shutdown.clone()).boxed()
    }
}
