//! A runtime that only keeps books: containers run until they are told to end.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use stead_node::runtime::{
    ContainerId, ContainerRecord, ContainerSpec, ContainerState, ExecRequest, ExecSession, Mount,
    PodPlace, PodSandbox, Runtime, RuntimeError, Tier,
};
use tokio::sync::watch;

/// The books.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) containers: BTreeMap<ContainerId, ContainerState>,
    pub(crate) pods: BTreeMap<String, (PodSandbox, PodPlace)>,
    pub(crate) refused_releases: u32,
    started: Vec<ContainerSpec>,
    held: BTreeSet<String>,
    homeless: BTreeSet<String>,
}

pub(crate) struct Fake {
    world: Mutex<World>,
    changes: watch::Sender<u64>,
}

impl Default for Fake {
    fn default() -> Self {
        Self {
            world: Mutex::default(),
            changes: watch::Sender::new(0),
        }
    }
}

const WHEN: &str = "2026-01-01T00:00:00Z";

impl Fake {
    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().expect("no test panics while it writes")
    }

    fn change<R>(&self, change: impl FnOnce(&mut World) -> R) -> R {
        let result = change(&mut self.world());
        self.changes.send_modify(|count| *count += 1);
        result
    }

    /// Waits until the books say so.
    pub(crate) async fn until(&self, is: impl Fn(&World) -> bool) {
        let mut changes = self.changes.subscribe();
        let until = tokio::time::Instant::now() + Duration::from_secs(20);
        while !is(&self.world()) {
            let changed = tokio::time::timeout_at(until, changes.changed()).await;
            assert!(changed.is_ok(), "the runtime does not get there");
        }
    }

    pub(crate) fn started(&self) -> Vec<ContainerId> {
        self.world()
            .started
            .iter()
            .map(|spec| spec.id.clone())
            .collect()
    }

    pub(crate) fn refused_releases(&self) -> u32 {
        self.world().refused_releases
    }

    pub(crate) fn argv(&self, id: &ContainerId) -> Vec<String> {
        self.world()
            .started
            .iter()
            .find(|spec| spec.id == *id)
            .map(|spec| spec.argv.clone())
            .unwrap_or_default()
    }

    pub(crate) fn is_running(&self, id: &ContainerId) -> bool {
        matches!(
            self.world().containers.get(id),
            Some(ContainerState::Running { .. })
        )
    }

    /// Whether the pod's processes can be ended.
    pub(crate) fn hold(&self, uid: &str, hold: bool) {
        self.change(|world| {
            if hold {
                world.held.insert(uid.to_owned())
            } else {
                world.held.remove(uid)
            }
        });
    }

    /// From now on the pod's place cannot be made, nor taken up.
    pub(crate) fn refuse_place(&self, uid: &str) {
        self.change(|world| world.homeless.insert(uid.to_owned()));
    }

    pub(crate) fn end(&self, id: &ContainerId, code: i32) {
        let (started_at, finished_at) = (WHEN.to_owned(), WHEN.to_owned());
        let end = ContainerState::Exited {
            code,
            signal: None,
            oom: false,
            started_at,
            finished_at,
        };
        self.change(|world| world.containers.insert(id.clone(), end));
    }
}

fn now<T: Send + 'static>(value: T) -> BoxFuture<'static, T> {
    ready(value).boxed()
}

impl Runtime for Fake {
    fn tier(&self) -> Tier {
        Tier::Processes
    }

    fn mount_variables(&self, _: &[Mount]) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    fn check(&self, _: &ContainerSpec) -> Result<(), RuntimeError> {
        Ok(())
    }

    fn prepare<'a>(&'a self, pod: &'a PodSandbox) -> BoxFuture<'a, Result<PodPlace, RuntimeError>> {
        if self.world().homeless.contains(&pod.uid) {
            return now(Err(RuntimeError::System {
                what: "make a place".to_owned(),
                source: std::io::ErrorKind::Other.into(),
            }));
        }
        let place = self.change(|world| {
            let place = PodPlace {
                ip: IpAddr::from([127, 0, 1, 1]),
            };
            world
                .pods
                .insert(pod.uid.clone(), (pod.clone(), place.clone()));
            place
        });
        now(Ok(place))
    }

    fn start<'a>(&'a self, spec: &'a ContainerSpec) -> BoxFuture<'a, Result<(), RuntimeError>> {
        self.change(|world| {
            let state = ContainerState::Running {
                pid: 1,
                started_at: WHEN.to_owned(),
            };
            world.containers.insert(spec.id.clone(), state);
            world.started.push(spec.clone());
        });
        now(Ok(()))
    }

    fn signal<'a>(
        &'a self,
        id: &'a ContainerId,
        signal: i32,
    ) -> BoxFuture<'a, Result<(), RuntimeError>> {
        self.end(id, 128 + signal);
        now(Ok(()))
    }

    fn kill<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, Result<(), RuntimeError>> {
        self.end(id, 137);
        now(Ok(()))
    }

    fn list(&self) -> Result<Vec<ContainerRecord>, RuntimeError> {
        let record = |(id, state): (&ContainerId, &ContainerState)| ContainerRecord {
            former_boot: false,
            id: id.clone(),
            state: state.clone(),
        };
        Ok(self.world().containers.iter().map(record).collect())
    }

    fn pods(&self) -> Result<Vec<(PodSandbox, PodPlace)>, RuntimeError> {
        Ok(self.world().pods.values().cloned().collect())
    }

    fn changed(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn exec<'a>(
        &'a self,
        id: &'a ContainerId,
        _: &'a ExecRequest,
    ) -> BoxFuture<'a, Result<ExecSession, RuntimeError>> {
        now(Err(RuntimeError::NotRunning(id.clone())))
    }

    fn forget<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, Result<(), RuntimeError>> {
        self.change(|world| world.containers.remove(id));
        now(Ok(()))
    }

    fn release<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<(), RuntimeError>> {
        let result = self.change(|world| {
            let runs = |id: &ContainerId, state: &ContainerState| {
                id.pod_uid == uid && matches!(state, ContainerState::Running { .. })
            };
            if world.held.contains(uid)
                || world.containers.iter().any(|(id, state)| runs(id, state))
            {
                world.refused_releases += 1;
                return Err(RuntimeError::StillHeld {
                    uid: uid.to_owned(),
                    pids: vec![1],
                });
            }
            world.containers.retain(|id, _| id.pod_uid != uid);
            world.pods.remove(uid);
            Ok(())
        });
        now(result)
    }

    fn set_names<'a>(
        &'a self,
        _: &'a [(IpAddr, Vec<String>)],
    ) -> BoxFuture<'a, Result<(), RuntimeError>> {
        now(Ok(()))
    }
}
