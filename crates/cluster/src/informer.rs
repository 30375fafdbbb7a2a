//! One watch a kind, shared by all the small controllers: a cache to read and a call for every change.

mod trim;

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use futures::future::{BoxFuture, Shared};
use serde_json::Value;
use stead_controller::events::Recorder;
use stead_controller::queue::{Outcome, Queue};
use stead_controller::reflect::{Delta, Part, reflect};
use stead_controller::resource::{Key, Resource};
use tokio::sync::watch;

use crate::metadata::{self, MetaHandler, Served};

use trim::trim;

/// Ends all that was given a clone of it.
pub(crate) type Shutdown = Shared<BoxFuture<'static, ()>>;

/// All objects of one kind, as last seen.
#[derive(Clone, Default)]
pub(crate) struct Cache {
    objects: Arc<RwLock<BTreeMap<Key, Arc<Value>>>>,
}

impl Cache {
    /// One object.
    pub(crate) fn get(&self, key: &Key) -> Option<Arc<Value>> {
        self.read(|objects| objects.get(key).cloned())
    }

    /// All objects of a namespace, by name.
    pub(crate) fn list(&self, namespace: &str) -> Vec<Arc<Value>> {
        let from = Key::new(namespace, "");
        self.read(|objects| {
            let own = objects
                .range(from..)
                .take_while(|(key, _)| key.namespace == namespace);
            own.map(|(_, object)| Arc::clone(object)).collect()
        })
    }

    /// All objects.
    pub(crate) fn all(&self) -> Vec<Arc<Value>> {
        self.read(|objects| objects.values().cloned().collect())
    }

    fn read<T>(&self, read: impl FnOnce(&BTreeMap<Key, Arc<Value>>) -> T) -> T {
        read(
            &self
                .objects
                .read()
                .unwrap_or_else(std::sync::PoisonError::into_inner),
        )
    }

    fn set(&self, key: &Key, object: Option<Arc<Value>>) -> Option<Arc<Value>> {
        let mut objects = self
            .objects
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        match object {
            Some(object) => objects.insert(key.clone(), object),
            None => objects.remove(key),
        }
    }

    fn keys(&self) -> Vec<Key> {
        self.read(|objects| objects.keys().cloned().collect())
    }
}

/// One object before and after. Neither is missing in both.
pub(crate) struct Change<'a> {
    /// Which object.
    pub(crate) key: &'a Key,
    /// As it was; `None` when it is new.
    pub(crate) old: Option<&'a Value>,
    /// As it is; `None` when it is gone.
    pub(crate) new: Option<&'a Value>,
}

impl Change<'_> {
    /// The object as it is, or was last.
    pub(crate) fn latest(&self) -> Option<&Value> {
        self.new.or(self.old)
    }
}

type Handler = Box<dyn Fn(&Change<'_>) + Send>;

/// Gives each controller a client of its own name.
pub type Clients = Arc<dyn Fn(&str) -> kube::Client + Send + Sync>;

/// What a small controller is made of: shared caches, a client and a recorder of its own, a place to run.
pub(crate) struct Kit {
    clients: Clients,
    followed: BTreeMap<Resource, (Cache, Vec<Handler>)>,
    served: Vec<Served>,
    meta_handlers: Vec<MetaHandler>,
    tasks: Vec<BoxFuture<'static, ()>>,
    synced: watch::Receiver<usize>,
    count_synced: watch::Sender<usize>,
    shutdown: Shutdown,
}

impl Kit {
    /// An empty kit over an API that serves these kinds.
    pub(crate) fn new(clients: Clients, served: Vec<Served>, shutdown: Shutdown) -> Kit {
        // Until `run` knows how many caches there are, none is synced.
        let (count_synced, synced) = watch::channel(usize::MAX);
        Kit {
            clients,
            followed: BTreeMap::new(),
            served,
            meta_handlers: Vec::new(),
            tasks: Vec::new(),
            synced,
            count_synced,
            shutdown,
        }
    }

    /// Every kind that is served.
    pub(crate) fn served(&self) -> &[Served] {
        &self.served
    }

    /// Tells of each change of the metadata of any object, of every kind that can be followed but events.
    pub(crate) fn follow_metadata(&mut self, handler: MetaHandler) {
        self.meta_handlers.push(handler);
    }

    /// The client of a controller: its requests carry its name.
    pub(crate) fn client(&self, controller: &str) -> kube::Client {
        (self.clients)(controller)
    }

    /// A recorder of Kubernetes Events for a controller.
    pub(crate) fn recorder(&mut self, component: &'static str) -> Recorder {
        let (recorder, writing) = Recorder::new(self.client(component), component);
        let shutdown = self.shutdown.clone();
        self.tasks.push(Box::pin(async move {
            tokio::select! { () = writing => {}, () = shutdown => {} }
        }));
        recorder
    }

    /// The cache of a kind; nobody is told of changes by it.
    pub(crate) fn cache(&mut self, resource: Resource) -> Cache {
        self.followed.entry(resource).or_default().0.clone()
    }

    /// The cache of a kind; `handler` is told of each change once the cache shows it. It must be quick.
    pub(crate) fn follow(
        &mut self,
        resource: Resource,
        handler: impl Fn(&Change<'_>) + Send + 'static,
    ) -> Cache {
        let (cache, handlers) = self.followed.entry(resource).or_default();
        handlers.push(Box::new(handler));
        cache.clone()
    }

    /// Serves a queue once every cache has been filled for the first time.
    pub(crate) fn work<K, F>(
        &mut self,
        queue: Queue<K>,
        concurrency: usize,
        work: impl Fn(K) -> F + Send + 'static,
    ) where
        K: Clone + Eq + std::hash::Hash + std::fmt::Debug + Send + 'static,
        F: Future<Output = Outcome> + Send + 'static,
    {
        let (mut synced, shutdown) = (self.synced.clone(), self.shutdown.clone());
        self.tasks.push(Box::pin(async move {
            let all_synced = async { synced.wait_for(|missing| *missing == 0).await.is_ok() };
            let started =
                tokio::select! { synced = all_synced => synced, () = shutdown.clone() => false };
            if started {
                queue.serve(concurrency, work, shutdown).await;
            }
        }));
    }

    /// Runs all of it until the shutdown; turns that run then are finished first.
    pub(crate) async fn run(self, client: kube::Client) {
        let Kit {
            followed,
            served,
            meta_handlers,
            tasks,
            count_synced,
            shutdown,
            ..
        } = self;
        // upstream: events are neither collected nor counted; there are too many of them.
        let followable =
            |own: &&Served| own.can(&["list", "watch", "delete"]) && own.resource.kind != "Event";
        let kinds: Vec<_> = served
            .iter()
            .filter(followable)
            .map(|own| Arc::clone(&own.resource))
            .collect();
        let kinds = if meta_handlers.is_empty() {
            Vec::new()
        } else {
            kinds
        };
        count_synced.send_replace(followed.len() + kinds.len());
        let mut running = tokio::task::JoinSet::new();
        for kind in kinds {
            let counter = count_synced.clone();
            let synced =
                move || counter.send_modify(|missing| *missing = missing.saturating_sub(1));
            running.spawn(metadata::follow(
                client.clone(),
                kind,
                meta_handlers.clone(),
                synced,
                shutdown.clone(),
            ));
        }
        for (resource, (cache, handlers)) in followed {
            let sink = sink(resource.clone(), cache, handlers, count_synced.clone());
            running.spawn(reflect(
                client.clone(),
                resource,
                Part::default(),
                sink,
                shutdown.clone(),
            ));
        }
        for task in tasks {
            running.spawn(task);
        }
        while let Some(ended) = running.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a controller's task ended by a panic");
            }
        }
    }
}

/// Keeps a cache and tells its handlers.
fn sink(
    resource: Resource,
    cache: Cache,
    handlers: Vec<Handler>,
    count_synced: watch::Sender<usize>,
) -> impl FnMut(Delta) {
    let mut first = true;
    let trimmed = move |mut object: Value| {
        trim(&resource, &mut object);
        object
    };
    move |delta| match delta {
        Delta::Listing => {}
        Delta::Reset(objects) => {
            reset(&cache, &handlers, objects.into_iter().map(&trimmed));
            if std::mem::take(&mut first) {
                count_synced.send_modify(|missing| *missing = missing.saturating_sub(1));
            }
        }
        Delta::Put(object) => apply(&cache, &handlers, &Key::of(&object), Some(trimmed(object))),
        Delta::Gone(object) => apply(&cache, &handlers, &Key::of(&object), None),
    }
}

fn reset(cache: &Cache, handlers: &[Handler], objects: impl Iterator<Item = Value>) {
    let listed: BTreeMap<Key, Value> = objects.map(|object| (Key::of(&object), object)).collect();
    for key in cache.keys().iter().filter(|key| !listed.contains_key(key)) {
        apply(cache, handlers, key, None);
    }
    for (key, object) in listed {
        apply(cache, handlers, &key, Some(object));
    }
}

fn apply(cache: &Cache, handlers: &[Handler], key: &Key, new: Option<Value>) {
    let new = new.map(Arc::new);
    let old = cache.set(key, new.clone());
    if old.is_none() && new.is_none() {
        return;
    }
    let change = Change {
        key,
        old: old.as_deref(),
        new: new.as_deref(),
    };
    for handler in handlers {
        handler(&change);
    }
}
