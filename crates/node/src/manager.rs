//! Which pods this node works on: watches the API, keeps one worker a pod, and sees to it that a name has one holder.
//!
//! The manager owns the table of workers and nothing else; what happens to a pod is its worker's business. A pod of the
//! same name as another that is not proved gone is told so, and its worker waits.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use futures::{Stream, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1 as core;
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::env;
use crate::pod::{self, Machine, Share};
use crate::runtime::{ContainerRecord, PodSandbox, RuntimeError};
use crate::service::Directory;
use crate::worker::{Input, Lines, Progress, Shared, Worker};

/// What may be asked of the manager.
#[derive(Debug)]
pub(crate) enum Command {
    /// Stop a pod whose object stays, within so many seconds; answered once it is released.
    Stop {
        /// The pod.
        uid: String,
        /// Its grace.
        grace_seconds: i64,
        /// `false`: no such pod.
        reply: oneshot::Sender<bool>,
    },
}

/// Pods by namespace and name, for requests that name them so.
#[derive(Default)]
pub(crate) struct Names(Mutex<BTreeMap<(String, String), String>>);

impl Directory for Names {
    fn uid(&self, namespace: &str, name: &str) -> Option<String> {
        let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.get(&(namespace.to_owned(), name.to_owned())).cloned()
    }
}

/// One worker.
struct Handle {
    key: (String, String),
    input: watch::Sender<Input>,
    records: watch::Sender<Vec<ContainerRecord>>,
    progress: Progress,
    share: Share,
    uses: Uses,
    waiting: Vec<oneshot::Sender<bool>>,
}

/// ConfigMaps and secrets that a pod uses, by kind and name.
type Uses = BTreeSet<(&'static str, String)>;

pub(crate) struct Manager {
    shared: Arc<Shared>,
    machine: Machine,
    names: Arc<Names>,
    workers: BTreeMap<String, Handle>,
    records: BTreeMap<String, Vec<ContainerRecord>>,
    sandboxes: BTreeMap<String, PodSandbox>,
    told: mpsc::UnboundedSender<(String, Progress)>,
    progress: mpsc::UnboundedReceiver<(String, Progress)>,
    /// Pods of a list that has not ended yet.
    listing: Option<Vec<core::Pod>>,
    tasks: JoinSet<()>,
}

impl Manager {
    /// Reads what the runtime holds; nothing is started yet.
    pub(crate) fn new(
        shared: Arc<Shared>,
        machine: Machine,
        names: Arc<Names>,
    ) -> Result<Self, RuntimeError> {
        let sandboxes = shared.runtime.pods()?;
        let (told, progress) = mpsc::unbounded_channel();
        let mut manager = Self {
            sandboxes: sandboxes
                .into_iter()
                .map(|(sandbox, _)| (sandbox.uid.clone(), sandbox))
                .collect(),
            shared,
            machine,
            names,
            workers: BTreeMap::new(),
            records: BTreeMap::new(),
            told,
            progress,
            listing: None,
            tasks: JoinSet::new(),
        };
        manager.records = by_pod(manager.shared.runtime.list()?);
        Ok(manager)
    }

    /// Works until `commands` is closed. Ends every worker then, and leaves every container alone.
    pub(crate) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let pods: Api<core::Pod> = Api::all(self.shared.client.clone());
        let own = watcher::Config::default()
            .fields(&format!("spec.nodeName={}", self.shared.options.name));
        let mut pods = std::pin::pin!(watcher(pods, own).default_backoff());
        let mut data = std::pin::pin!(data_changes(&self.shared.client));
        let mut changed = self.shared.runtime.changed();
        loop {
            tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => self.obey(command),
                    None => break,
                },
                event = pods.next() => match event {
                    Some(Ok(event)) => self.apply(event).await,
                    Some(Err(error)) => tracing::debug!(%error, "watching pods failed; trying again"),
                    None => break,
                },
                Some((kind, namespace, name)) = data.next() => self.refresh(kind, &namespace, &name),
                Ok(()) = changed.changed() => self.distribute(),
                Some((uid, progress)) = self.progress.recv() => self.progressed(&uid, progress),
            }
        }
        self.tasks.shutdown().await;
    }

    async fn apply(&mut self, event: watcher::Event<core::Pod>) {
        match event {
            watcher::Event::Init => self.listing = Some(Vec::new()),
            watcher::Event::InitApply(pod) => self.listing.get_or_insert_default().push(pod),
            watcher::Event::InitDone => {
                let listed = self.listing.take().unwrap_or_default();
                // First those that are not wanted any more: a namesake must know of them before it decides.
                self.end_absent(&listed.iter().filter_map(ResourceExt::uid).collect())
                    .await;
                for pod in listed {
                    self.take(pod, false).await;
                }
            }
            watcher::Event::Apply(pod) => self.take(pod, false).await,
            watcher::Event::Delete(pod) => self.take(pod, true).await,
        }
    }

    /// Takes the newest state of a pod to its worker, which is started when there is none.
    async fn take(&mut self, pod: core::Pod, gone: bool) {
        let Some(uid) = pod.uid() else { return };
        if let Some(handle) = self.workers.get_mut(&uid) {
            handle.uses = uses(&pod);
            handle.input.send_modify(|input| {
                input.pod = Arc::new(pod);
                // A stop once begun is never taken back: whoever was gone holds its name until it is released.
                input.gone |= gone;
            });
            self.name_holders();
        } else if !gone {
            self.start(uid, pod, false).await;
        }
    }

    /// Whatever the runtime or the disk still has of a pod that the API does not know is stopped and let go.
    async fn end_absent(&mut self, listed: &BTreeSet<String>) {
        for (_, handle) in self
            .workers
            .iter()
            .filter(|(uid, _)| !listed.contains(*uid))
        {
            handle.input.send_modify(|input| input.gone = true);
        }
        let on_disk = folders(&self.shared.node.join("pods"))
            .into_iter()
            .chain(folders(&self.shared.node.join("logs")));
        let mut known: BTreeSet<String> = on_disk.collect();
        known.extend(self.sandboxes.keys().cloned());
        known.extend(self.records.keys().cloned());
        for uid in known {
            if !listed.contains(&uid) && !self.workers.contains_key(&uid) {
                let pod = self.remembered(&uid);
                tracing::info!(pod = %pod.name_any(), uid, "a pod is not in the API any more: stopping what is left of it");
                self.start(uid, pod, true).await;
            }
        }
    }

    /// A pod that is only in the node's own records.
    fn remembered(&self, uid: &str) -> core::Pod {
        let path = self.shared.volumes.pod_folder(uid).join("pod.json");
        let kept = std::fs::read(path)
            .ok()
            .and_then(|bytes| serde_json::from_slice::<core::Pod>(&bytes).ok());
        let sandbox = self.sandboxes.get(uid);
        let mut pod = kept.unwrap_or_else(|| core::Pod {
            spec: Some(core::PodSpec::default()),
            ..core::Pod::default()
        });
        pod.metadata.uid = Some(uid.to_owned());
        pod.metadata.name = pod
            .metadata
            .name
            .or_else(|| sandbox.map(|s| s.name.clone()));
        pod.metadata.namespace = pod
            .metadata
            .namespace
            .or_else(|| sandbox.map(|s| s.namespace.clone()));
        // Every container on record is stopped, also one that the copy does not name.
        let spec = pod.spec.get_or_insert_default();
        for record in self.records.get(uid).into_iter().flatten() {
            let name = &record.id.container;
            let named = spec
                .containers
                .iter()
                .chain(spec.init_containers.iter().flatten())
                .any(|c| c.name == *name);
            if !named {
                spec.containers.push(core::Container {
                    name: name.clone(),
                    ..core::Container::default()
                });
            }
        }
        pod
    }

    async fn start(&mut self, uid: String, pod: core::Pod, gone: bool) {
        let key = (pod.namespace().unwrap_or_default(), pod.name_any());
        let spec = pod.spec.clone().unwrap_or_default();
        let begun = pod
            .status
            .as_ref()
            .is_some_and(|status| status.start_time.is_some());
        let over = pod
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref())
            .is_some_and(pod::is_terminal);
        let others: Vec<Share> = self
            .workers
            .values()
            .filter(|h| !h.progress.released)
            .map(|h| h.share.clone())
            .collect();
        // What was taken once is kept, whatever has come since.
        let rejected = if gone || begun || over {
            None
        } else {
            pod::admit(&spec, &self.machine, &others).err()
        };
        let share = if gone || over || rejected.is_some() {
            Share::default()
        } else {
            Share::of(&spec)
        };
        let placed = self.sandboxes.contains_key(&uid);
        let uses = uses(&pod);
        let (input, input_end) = watch::channel(Input {
            pod: Arc::new(pod),
            gone,
            paused: None,
            former: None,
            rejected,
            refreshed: 0,
        });
        let own = self.records.get(&uid).cloned().unwrap_or_default();
        let (records, records_end) = watch::channel(own);
        let lines = Lines {
            input: input_end,
            records: records_end,
            progress: self.told.clone(),
        };
        let handle = Handle {
            key,
            input,
            records,
            progress: Progress::default(),
            share,
            uses,
            waiting: Vec::new(),
        };
        self.workers.insert(uid, handle);
        // Before it decides for the first time, it must know of a former holder of its name.
        self.name_holders();
        let worker = Worker::new(Arc::clone(&self.shared), lines, placed).await;
        self.tasks.spawn(worker.run());
    }

    /// Tells each pod whether another of its name is not proved gone, and who holds each name for requests.
    fn name_holders(&self) {
        let mut holders: BTreeMap<&(String, String), Vec<(&String, &Handle)>> = BTreeMap::new();
        for (uid, handle) in &self.workers {
            holders.entry(&handle.key).or_default().push((uid, handle));
        }
        let mut table = BTreeMap::new();
        for (key, all) in holders {
            let is_leaving = |handle: &Handle| {
                let input = handle.input.borrow();
                input.gone || input.pod.metadata.deletion_timestamp.is_some()
            };
            let current = all
                .iter()
                .find(|(_, handle)| !is_leaving(handle))
                .or_else(|| all.first());
            table.extend(current.map(|(uid, _)| (key.clone(), (*uid).clone())));
            for (uid, handle) in &all {
                let former = all.iter().find(|(other, h)| {
                    other != uid && !h.progress.released && is_leaving(h) && !is_leaving(handle)
                });
                let former = former.map(|(other, _)| (*other).clone());
                handle.input.send_if_modified(|input| {
                    std::mem::replace(&mut input.former, former.clone()) != former
                });
            }
        }
        *self.names.0.lock().unwrap_or_else(PoisonError::into_inner) = table;
    }

    fn progressed(&mut self, uid: &str, progress: Progress) {
        let Some(handle) = self.workers.get_mut(uid) else {
            return;
        };
        handle.progress = progress;
        if progress.released {
            handle.share = Share::default();
            for reply in handle.waiting.drain(..) {
                // Whoever asked may not wait any more.
                let _ = reply.send(true);
            }
        }
        if progress.finished {
            self.workers.remove(uid);
            self.sandboxes.remove(uid);
            self.records.remove(uid);
        }
        while self.tasks.try_join_next().is_some() {}
        self.name_holders();
    }

    /// Reads what the runtime holds once, for all workers.
    fn distribute(&mut self) {
        let records = match self.shared.runtime.list() {
            Ok(records) => by_pod(records),
            Err(error) => return tracing::warn!(%error, "could not read what the runtime holds"),
        };
        for (uid, handle) in &self.workers {
            let own = records.get(uid).map_or(&[][..], Vec::as_slice);
            handle.records.send_if_modified(|known| {
                let new = known.as_slice() != own;
                if new {
                    *known = own.to_vec();
                }
                new
            });
        }
        self.records = records;
    }

    fn refresh(&self, kind: &'static str, namespace: &str, name: &str) {
        let used = (kind, name.to_owned());
        for handle in self
            .workers
            .values()
            .filter(|h| h.key.0 == namespace && h.uses.contains(&used))
        {
            handle.input.send_modify(|input| input.refreshed += 1);
        }
    }

    fn obey(&mut self, command: Command) {
        let Command::Stop {
            uid,
            grace_seconds,
            reply,
        } = command;
        match self.workers.get_mut(&uid) {
            Some(handle) if handle.progress.released => drop(reply.send(true)),
            Some(handle) => {
                handle
                    .input
                    .send_modify(|input| input.paused = Some(grace_seconds));
                handle.waiting.push(reply);
            }
            None => drop(reply.send(false)),
        }
    }
}

fn by_pod(records: Vec<ContainerRecord>) -> BTreeMap<String, Vec<ContainerRecord>> {
    let mut pods: BTreeMap<String, Vec<ContainerRecord>> = BTreeMap::new();
    for record in records {
        pods.entry(record.id.pod_uid.clone())
            .or_default()
            .push(record);
    }
    pods
}

/// Names of the folders in a folder.
fn folders(path: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(path) else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect()
}

fn uses(pod: &core::Pod) -> Uses {
    let mut uses = Uses::new();
    let Some(spec) = &pod.spec else { return uses };
    for volume in spec.volumes.iter().flatten() {
        let map = volume.config_map.as_ref().map(|source| source.name.clone());
        let secret = volume
            .secret
            .as_ref()
            .and_then(|source| source.secret_name.clone());
        uses.extend(map.map(|name| ("ConfigMap", name)));
        uses.extend(secret.map(|name| ("Secret", name)));
        for part in volume
            .projected
            .iter()
            .flat_map(|source| source.sources.iter().flatten())
        {
            uses.extend(
                part.config_map
                    .as_ref()
                    .map(|source| ("ConfigMap", source.name.clone())),
            );
            uses.extend(
                part.secret
                    .as_ref()
                    .map(|source| ("Secret", source.name.clone())),
            );
        }
    }
    for container in spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten())
    {
        let (maps, secrets) = env::references(container);
        uses.extend(maps.into_iter().map(|name| ("ConfigMap", name)));
        uses.extend(secrets.into_iter().map(|name| ("Secret", name)));
    }
    uses
}

/// Changes of configMaps and secrets after the first list: kind, namespace, name. Only their metadata is read.
fn data_changes(client: &Client) -> impl Stream<Item = (&'static str, String, String)> + use<> {
    let maps: Api<PartialObjectMeta<core::ConfigMap>> = Api::all(client.clone());
    let maps = changes(watcher(maps, watcher::Config::default()), "ConfigMap");
    let secrets: Api<PartialObjectMeta<core::Secret>> = Api::all(client.clone());
    let secrets = changes(watcher(secrets, watcher::Config::default()), "Secret");
    futures::stream::select(maps, secrets)
}

fn changes<K: kube::Resource>(
    events: impl Stream<Item = watcher::Result<watcher::Event<K>>>,
    kind: &'static str,
) -> impl Stream<Item = (&'static str, String, String)> {
    let changed = events.default_backoff().map_ok(|event| match event {
        watcher::Event::Apply(object) | watcher::Event::Delete(object) => Some(object),
        watcher::Event::Init | watcher::Event::InitApply(_) | watcher::Event::InitDone => None,
    });
    changed.filter_map(move |event| async move {
        let object = event.ok().flatten()?;
        Some((
            kind,
            object.namespace().unwrap_or_default(),
            object.name_any(),
        ))
    })
}

/// Deletes volumes whose policy says so, until the stream of volumes ends.
pub(crate) async fn reclaim(shared: Arc<Shared>) {
    use crate::volume::claim;
    let api: Api<core::PersistentVolume> = Api::all(shared.client.clone());
    let stream = watcher(api.clone(), watcher::Config::default()).default_backoff();
    let mut stream = std::pin::pin!(stream);
    while let Some(event) = stream.next().await {
        let volume = match event {
            Ok(watcher::Event::Apply(volume) | watcher::Event::InitApply(volume)) => volume,
            Ok(watcher::Event::Init | watcher::Event::InitDone | watcher::Event::Delete(_))
            | Err(_) => continue,
        };
        if claim::is_condemned(&volume) {
            let (shared, api) = (Arc::clone(&shared), api.clone());
            tokio::spawn(async move { claim::reclaim(&shared, &api, volume).await });
        }
    }
}
