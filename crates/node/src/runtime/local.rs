//! The runtime of this machine: one engine for every tier, for the tiers differ in how a shim launches, not in how
//! containers are recorded, watched, ended and forgotten.
//!
//! Everything that is true is on disk or in the kernel; what is kept in memory can be read again after a restart.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::cgroup::Cgroup;
use crate::network::{Network, PodNetwork, Range};

use super::marks::{self, Marks};
use super::names::{self, Names};
use super::open::system;
use super::process::{ProcessMark, boot_id};
use super::record::{
    Durable, First, Holder, Order, Place, Processes, RecordDir, ignore_missing, is_final,
    read_json, remove_discarded, replace, write_json,
};
use super::refusals::{self, Caller};
use super::watcher;
use super::{
    CHANGES_FILE, ContainerId, ContainerRecord, ContainerSpec, ContainerState, ExecRequest,
    ExecSession, Mount, PodPlace, PodSandbox, Runtime, RuntimeError, RuntimeOptions, Tier,
};

/// The runtime of one data folder.
pub(super) struct Local {
    core: Arc<Core>,
}

/// What its tasks share.
struct Core {
    tier: Tier,
    options: RuntimeOptions,
    /// The pods' own network, in the containers tier.
    network: Option<Network>,
    boot: String,
    caller: Caller,
    containers: PathBuf,
    sandboxes: PathBuf,
    held: Mutex<BTreeMap<ContainerId, Held>>,
    pods: Mutex<BTreeMap<String, Sandbox>>,
    names: Mutex<Names>,
    changes: watch::Sender<u64>,
    tasks: Mutex<JoinSet<()>>,
}

/// A container whose record exists.
#[derive(Clone)]
struct Held {
    dir: RecordDir,
    /// It was ordered in another boot of the machine.
    former_boot: bool,
    /// Its last state, once it is final and its shim is gone.
    end: watch::Receiver<Option<ContainerState>>,
}

impl Held {
    /// Whether its end is on record: told only when nothing of the container is left. Its shim may still be leaving.
    fn has_ended(&self) -> bool {
        self.end.borrow().is_some()
            || self
                .dir
                .state()
                .is_ok_and(|state| state.as_ref().is_some_and(is_final))
    }
}

/// A prepared pod, as recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Sandbox {
    pod: PodSandbox,
    place: PodPlace,
}

impl Local {
    pub(super) fn open(tier: Tier, mut options: RuntimeOptions) -> Result<Self, RuntimeError> {
        make_folder(&options.data_dir)?;
        // Containers cover this path: it must be the true one.
        options.data_dir = options.data_dir.canonicalize().map_err(system(format!(
            "follow the path of {}",
            options.data_dir.display()
        )))?;
        let node = options.data_dir.join("node");
        let containers = node.join("containers");
        let sandboxes = node.join("sandboxes");
        make_private(&containers)?;
        make_folder(&sandboxes)?;
        let boot = match &options.boot {
            Some(boot) => boot.clone(),
            None => boot_id().map_err(system("read the identity of this boot"))?,
        };
        let changes = watch::Sender::new(0);
        let counting =
            watcher::count_changes(&containers.join(CHANGES_FILE), changes.clone()).map_err(
                system(format!("watch {} for changes", containers.display())),
            )?;
        let mut tasks = JoinSet::new();
        tasks.spawn(counting);
        let pods = read_sandboxes(&sandboxes)?;
        let network = match tier {
            Tier::Containers => Some(open_network(&node, &options, &pods)?),
            Tier::Rootless | Tier::Processes => None,
        };
        let core = Arc::new(Core {
            tier,
            network,
            caller: Caller::current(),
            options,
            boot,
            held: Mutex::default(),
            pods: Mutex::new(pods),
            names: Mutex::default(),
            containers,
            sandboxes,
            changes,
            tasks: Mutex::new(tasks),
        });
        core.take_up_containers()?;
        Ok(Self { core })
    }
}

impl Drop for Local {
    /// The containers live on; only the watching ends.
    fn drop(&mut self) {
        lock(&self.core.tasks).abort_all();
    }
}

impl Runtime for Local {
    fn tier(&self) -> Tier {
        self.core.tier
    }

    fn mount_variables(&self, mounts: &[Mount]) -> BTreeMap<String, String> {
        match self.core.tier {
            Tier::Processes => refusals::variables(mounts),
            Tier::Rootless | Tier::Containers => BTreeMap::new(),
        }
    }

    fn check(&self, spec: &ContainerSpec) -> Result<(), RuntimeError> {
        refusals::check(self.core.tier, self.core.caller, spec)
    }

    fn prepare<'a>(&'a self, pod: &'a PodSandbox) -> BoxFuture<'a, Result<PodPlace, RuntimeError>> {
        let core = Arc::clone(&self.core);
        let pod = pod.clone();
        blocking(move || core.prepare(pod)).boxed()
    }

    fn start<'a>(&'a self, spec: &'a ContainerSpec) -> BoxFuture<'a, Result<(), RuntimeError>> {
        Arc::clone(&self.core).start(spec).boxed()
    }

    fn signal<'a>(
        &'a self,
        id: &'a ContainerId,
        signal: i32,
    ) -> BoxFuture<'a, Result<(), RuntimeError>> {
        std::future::ready(self.core.signal(id, signal)).boxed()
    }

    fn kill<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, Result<(), RuntimeError>> {
        self.core.kill(id).boxed()
    }

    fn list(&self) -> Result<Vec<ContainerRecord>, RuntimeError> {
        self.core.list()
    }

    fn pods(&self) -> Result<Vec<(PodSandbox, PodPlace)>, RuntimeError> {
        Ok(lock(&self.core.pods)
            .values()
            .map(|sandbox| (sandbox.pod.clone(), sandbox.place.clone()))
            .collect())
    }

    fn changed(&self) -> watch::Receiver<u64> {
        self.core.changes.subscribe()
    }

    fn exec<'a>(
        &'a self,
        id: &'a ContainerId,
        exec: &'a ExecRequest,
    ) -> BoxFuture<'a, Result<ExecSession, RuntimeError>> {
        self.core.exec(id, exec).boxed()
    }

    fn attach<'a>(
        &'a self,
        id: &'a ContainerId,
        stdin: bool,
    ) -> BoxFuture<'a, Result<ExecSession, RuntimeError>> {
        self.core.join_streams(id, stdin).boxed()
    }

    fn dial<'a>(
        &'a self,
        uid: &'a str,
        port: u16,
    ) -> BoxFuture<'a, Result<tokio::net::TcpStream, RuntimeError>> {
        self.core.dial(uid, port).boxed()
    }

    fn ended(&self, id: &ContainerId) -> BoxFuture<'static, ()> {
        let held = self.core.held(id);
        async move {
            if let Ok(mut held) = held {
                // A watcher that is gone has settled it.
                let _ = held.end.wait_for(Option::is_some).await;
            }
        }
        .boxed()
    }

    fn forget<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, Result<(), RuntimeError>> {
        let core = Arc::clone(&self.core);
        let id = id.clone();
        async move {
            core.settled(|held| *held == id).await;
            blocking(move || core.forget(&id)).await
        }
        .boxed()
    }

    fn release<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<(), RuntimeError>> {
        let core = Arc::clone(&self.core);
        let uid = uid.to_owned();
        async move {
            core.settled(|held| held.pod_uid == uid).await;
            blocking(move || core.release(&uid)).await
        }
        .boxed()
    }

    fn close(&self) -> Result<(), RuntimeError> {
        self.core.close()
    }

    fn gateway(&self) -> Option<IpAddr> {
        let network = self.core.network.as_ref()?;
        Some(IpAddr::V4(network.range().gateway()))
    }

    fn pod_network(&self) -> Option<PodNetwork> {
        self.core.network.as_ref().map(Network::rules)
    }

    fn set_names<'a>(
        &'a self,
        names: &'a [(IpAddr, Vec<String>)],
    ) -> BoxFuture<'a, Result<(), RuntimeError>> {
        let core = Arc::clone(&self.core);
        let names = names.to_vec();
        blocking(move || core.set_names(names)).boxed()
    }
}

impl Core {
    // Pods.

    fn prepare(&self, pod: PodSandbox) -> Result<PodPlace, RuntimeError> {
        check_name("pod UID", &pod.uid)?;
        refusals::check_pod(self.tier, &pod)?;
        let mut pods = lock(&self.pods);
        let place = match pods.get(&pod.uid) {
            Some(known) => known.place.clone(),
            None => PodPlace {
                ip: self.choose_address(&pod, &pods)?,
            },
        };
        let sandbox = Sandbox { pod, place };
        if pods.get(&sandbox.pod.uid) != Some(&sandbox) {
            // On record before the kernel is asked for anything: what a crash leaves has an owner.
            self.write_sandbox(&sandbox)?;
            pods.insert(sandbox.pod.uid.clone(), sandbox.clone());
        }
        drop(pods);
        self.attach(&sandbox)?;
        Ok(sandbox.place)
    }

    fn attach(&self, sandbox: &Sandbox) -> Result<(), RuntimeError> {
        let Some(network) = &self.network else {
            return Ok(());
        };
        let uid = &sandbox.pod.uid;
        let address = match sandbox.place.ip {
            IpAddr::V4(address) if !sandbox.pod.host_network => Some(address),
            IpAddr::V4(_) | IpAddr::V6(_) => None,
        };
        network
            .attach(uid, address)
            .map_err(system(format!("make the network of pod {uid}")))
    }

    fn choose_address(
        &self,
        pod: &PodSandbox,
        pods: &BTreeMap<String, Sandbox>,
    ) -> Result<IpAddr, RuntimeError> {
        if pod.host_network {
            return Ok(IpAddr::V4(Ipv4Addr::LOCALHOST));
        }
        let taken: BTreeSet<Ipv4Addr> = pods
            .values()
            .filter_map(|sandbox| match sandbox.place.ip {
                IpAddr::V4(address) => Some(address),
                IpAddr::V6(_) => None,
            })
            .collect();
        let free = match &self.network {
            Some(network) => network.range().free(&taken),
            None => super::addresses::choose(&pod.uid, &taken),
        };
        free.map(IpAddr::V4).ok_or_else(|| {
            system(format!("find an address for pod {}", pod.uid))(io::Error::other(
                "every address is taken",
            ))
        })
    }

    fn write_sandbox(&self, sandbox: &Sandbox) -> Result<(), RuntimeError> {
        let dir = self.sandboxes.join(&sandbox.pod.uid);
        self.write_sandbox_files(&dir, sandbox)
            .map_err(system(format!(
                "write the files of pod {} in {}",
                sandbox.pod.uid,
                dir.display()
            )))
    }

    fn write_sandbox_files(&self, dir: &Path, sandbox: &Sandbox) -> io::Result<()> {
        fs::create_dir_all(dir)?;
        self.write_hosts(dir, sandbox)?;
        let hostname = format!("{}\n", sandbox.pod.kernel_hostname());
        replace(&dir.join("hostname"), hostname.as_bytes(), Durable::No)?;
        if let Some(text) = &sandbox.pod.resolv_conf {
            replace(&dir.join("resolv.conf"), text.as_bytes(), Durable::No)?;
        }
        // Last: a pod whose record is there has all of its files.
        write_json(&dir.join("sandbox.json"), sandbox, Durable::No)
    }

    fn write_hosts(&self, dir: &Path, sandbox: &Sandbox) -> io::Result<()> {
        let text = names::hosts(&sandbox.pod, sandbox.place.ip, &lock(&self.names));
        names::keep(&dir.join("hosts"), &text)
    }

    fn set_names(&self, names: Names) -> Result<(), RuntimeError> {
        *lock(&self.names) = names;
        for sandbox in lock(&self.pods).values() {
            let dir = self.sandboxes.join(&sandbox.pod.uid);
            self.write_hosts(&dir, sandbox)
                .map_err(system(format!("write {}", dir.join("hosts").display())))?;
        }
        Ok(())
    }

    fn release(&self, uid: &str) -> Result<(), RuntimeError> {
        check_name("pod UID", uid)?;
        let records: Vec<(ContainerId, Held)> = lock(&self.held)
            .iter()
            .filter(|(id, _)| id.pod_uid == uid)
            .map(|(id, held)| (id.clone(), held.clone()))
            .collect();
        let pids = self.holders(uid, &records)?;
        if !pids.is_empty() || records.iter().any(|(_, held)| !held.has_ended()) {
            return Err(RuntimeError::StillHeld {
                uid: uid.to_owned(),
                pids,
            });
        }
        for (id, _) in &records {
            self.forget(id)?;
        }
        super::keeper::end(&self.sandboxes.join(uid), &self.boot)
            .map_err(system(format!("end the keeper of pod {uid}")))?;
        if let Some(network) = &self.network {
            network
                .detach(uid)
                .map_err(system(format!("give back the network of pod {uid}")))?;
            crate::cgroup::remove_pod(&network.cgroup(uid));
        }
        let leave = |dir: PathBuf| ignore_missing(fs::remove_dir_all(dir));
        leave(self.containers.join(uid))
            .and_then(|()| leave(self.sandboxes.join(uid)))
            .map_err(system(format!("remove the records of pod {uid}")))?;
        lock(&self.pods).remove(uid);
        Ok(())
    }

    fn close(&self) -> Result<(), RuntimeError> {
        let living = lock(&self.held)
            .iter()
            .find(|(_, held)| !held.has_ended())
            .map(|(id, held)| (id.clone(), held.clone()));
        if let Some((id, held)) = living {
            return Err(RuntimeError::StillHeld {
                pids: self.holders(&id.pod_uid, &[(id.clone(), held)])?,
                uid: id.pod_uid,
            });
        }
        match &self.network {
            Some(network) => network
                .close()
                .map_err(system("give back the network of the pods")),
            None => Ok(()),
        }
    }

    /// The processes that still hold a pod.
    fn holders(
        &self,
        uid: &str,
        records: &[(ContainerId, Held)],
    ) -> Result<Vec<u32>, RuntimeError> {
        let mut pids = BTreeSet::new();
        for (_, held) in records.iter().filter(|(_, held)| !held.has_ended()) {
            if let Ok(Some(first)) = held.dir.first()
                && first.process.is_alive(&self.boot)
            {
                pids.insert(first.process.pid);
            }
        }
        if self.tier == Tier::Processes {
            let found = marks::find(&Marks::of_pod(uid), &self.boot)
                .map_err(system(format!("look for processes of pod {uid}")))?;
            pids.extend(found.iter().map(|process| process.pid));
        }
        Ok(pids.into_iter().collect())
    }

    // Containers.

    /// Takes up every record on disk: watches those that live, ends what a dead shim left.
    fn take_up_containers(self: &Arc<Self>) -> Result<(), RuntimeError> {
        let what = || system(format!("read the records in {}", self.containers.display()));
        for path in record_folders(&self.containers).map_err(what())? {
            let dir = RecordDir::at(path);
            match dir.order().map_err(what())? {
                Some(order) => self.watch(order.spec.id, dir, order.boot != self.boot),
                // A crash came between the folder and the order, or in the middle of forgetting.
                None => self.discard(&dir).map_err(what())?,
            }
        }
        for left in fs::read_dir(self.trash()).into_iter().flatten().flatten() {
            self.empty_trash(left.path());
        }
        Ok(())
    }

    fn watch(self: &Arc<Self>, id: ContainerId, dir: RecordDir, former_boot: bool) {
        let (told, end) = watch::channel(None);
        let held = Held {
            dir: dir.clone(),
            former_boot,
            end,
        };
        lock(&self.held).insert(id.clone(), held);
        // The shim may have told of the start before this list knew of it: whoever looked then must look again.
        self.changes.send_modify(|count| *count += 1);
        let mut tasks = lock(&self.tasks);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(Arc::clone(self).watch_over(id, dir, told));
    }

    /// Waits for the shim's end, sees to it that the container has an end, and tells.
    async fn watch_over(
        self: Arc<Self>,
        id: ContainerId,
        dir: RecordDir,
        told: watch::Sender<Option<ContainerState>>,
    ) {
        let end = loop {
            match self.end_of(&id, &dir).await {
                Ok(end) => break end,
                Err(error) => {
                    tracing::warn!(container = ?id, %error, "could not settle the end of a container; trying again");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        };
        told.send_replace(Some(end));
        self.changes.send_modify(|count| *count += 1);
    }

    async fn end_of(&self, id: &ContainerId, dir: &RecordDir) -> io::Result<ContainerState> {
        if let Some(Holder::Shim(shim)) = dir.holder()? {
            watcher::ended(&shim, &self.boot).await?;
        } else if dir.claim(&Holder::Nobody)? {
            // The daemon died before the shim took the order; now none will.
        } else if let Some(Holder::Shim(shim)) = dir.holder()? {
            watcher::ended(&shim, &self.boot).await?;
        }
        let last = dir.state()?;
        if let Some(state) = last.as_ref().filter(|state| is_final(state)) {
            return Ok(state.clone());
        }
        let (tier, boot) = (self.tier, self.boot.clone());
        let pod_cgroup = self
            .network
            .as_ref()
            .map(|network| network.cgroup(&id.pod_uid));
        let (id, dir) = (id.clone(), dir.clone());
        tokio::task::spawn_blocking(move || {
            let first = dir.first()?;
            end_orphans(tier, &boot, &id, first.as_ref())?;
            if let Some(cgroup) = pod_cgroup.and_then(|pod| Cgroup::of(&pod, &id)) {
                cgroup.end(&boot)?;
                cgroup.remove();
            }
            let end = orphaned(last, first.is_some());
            dir.write_state(&end)?;
            Ok(end)
        })
        .await
        .map_err(io::Error::other)?
    }

    async fn start(self: Arc<Self>, spec: &ContainerSpec) -> Result<(), RuntimeError> {
        let id = spec.id.clone();
        refusals::check(self.tier, self.caller, spec)?;
        check_name("pod UID", &id.pod_uid)?;
        check_name("container name", &id.container)?;
        let dir = RecordDir::of(&self.containers, &id);
        let what = || {
            system(format!(
                "start container {} of pod {}",
                id.container, spec.pod
            ))
        };
        let order = {
            let (core, spec) = (Arc::clone(&self), spec.clone());
            // A keeper may have to be started first.
            blocking(move || core.order(&spec)).await?
        };
        make_private(&self.containers.join(&id.pod_uid))?;
        match fs::create_dir(dir.path()) {
            Ok(()) => {}
            // This very start was ordered before.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
            Err(error) => return Err(what()(error)),
        }
        let held = match dir.write_order(&order) {
            Ok(()) => self.run_shim(&dir, &order).await,
            Err(error) => Err(error),
        };
        match held {
            Ok(()) => {
                self.watch(id, dir, false);
                Ok(())
            }
            Err(error) => self.take_back(&dir, &id, error).map_err(what()),
        }
    }

    /// The shim has not said that it holds the container. When nobody ever will, the order never was.
    fn take_back(
        self: &Arc<Self>,
        dir: &RecordDir,
        id: &ContainerId,
        error: io::Error,
    ) -> io::Result<()> {
        if dir.claim(&Holder::Nobody)? {
            self.discard(dir)?;
            return Err(error);
        }
        self.watch(id.clone(), dir.clone(), false);
        Ok(())
    }

    fn order(&self, spec: &ContainerSpec) -> Result<Order, RuntimeError> {
        let uid = &spec.id.pod_uid;
        let Some(sandbox) = lock(&self.pods).get(uid).cloned() else {
            return Err(system(format!(
                "start container {} of pod {}",
                spec.id.container, spec.pod
            ))(io::Error::other("the pod is not prepared")));
        };
        let dir = self.sandboxes.join(uid);
        let processes = self.processes(spec, &sandbox.pod)?;
        Ok(Order {
            number: format!("{}", jiff::Timestamp::now().as_nanosecond()),
            boot: self.boot.clone(),
            tier: self.tier,
            spec: spec.clone(),
            place: Place {
                hostname: sandbox.pod.kernel_hostname(),
                hosts: dir.join("hosts"),
                hostname_file: dir.join("hostname"),
                resolv_conf: sandbox
                    .pod
                    .resolv_conf
                    .is_some()
                    .then(|| dir.join("resolv.conf")),
                namespaces: self.network.as_ref().map(|network| network.namespaces(uid)),
                host_network: sandbox.pod.host_network,
                cgroup: self.network.as_ref().map(|network| network.cgroup(uid)),
                hidden: vec![self.options.data_dir.clone()],
                settings: sandbox.pod.settings,
                processes,
            },
            log: self.options.log,
        })
    }

    /// Whose processes a container is to see. A PID namespace can be joined in the containers tier only; in the
    /// processes tier everybody sees everybody.
    fn processes(&self, spec: &ContainerSpec, pod: &PodSandbox) -> Result<Processes, RuntimeError> {
        let what = || {
            system(format!(
                "join container {} to the processes of its pod",
                spec.id.container
            ))
        };
        if self.tier != Tier::Containers {
            return Ok(Processes::Own);
        }
        if pod.settings.host_pid {
            return Ok(Processes::Machine);
        }
        if pod.settings.shared_pid {
            let folder = self.sandboxes.join(&pod.uid);
            return super::keeper::ensure(&self.options.shim, &folder, &self.boot)
                .map(Processes::Of)
                .map_err(what());
        }
        let Some(target) = &spec.confinement.target else {
            return Ok(Processes::Own);
        };
        let latest = lock(&self.held)
            .iter()
            .filter(|(id, held)| {
                id.pod_uid == pod.uid && id.container == *target && !held.has_ended()
            })
            .max_by_key(|(id, _)| id.attempt)
            .map(|(_, held)| held.clone());
        let first = match latest {
            Some(held) => held.dir.first().map_err(what())?,
            None => None,
        };
        first
            .map(|first| Processes::Of(first.process))
            .ok_or_else(|| {
                what()(io::Error::other(format!(
                    "its target, container {target}, is not running"
                )))
            })
    }

    /// Starts a shim and returns when it holds the container.
    async fn run_shim(&self, dir: &RecordDir, order: &Order) -> io::Result<()> {
        let stderr = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(dir.shim_log())?;
        let mut shim = tokio::process::Command::new(&self.options.shim)
            .args(["shim", "hold"])
            .arg(dir.path())
            .arg(&order.number)
            .env_clear()
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .map_err(|error| {
                io::Error::new(
                    error.kind(),
                    format!("{}: {error}", self.options.shim.display()),
                )
            })?;
        let mut word = [0; 5];
        if let Some(mut stdout) = shim.stdout.take()
            && stdout.read_exact(&mut word).await.is_ok()
            && word == *b"held\n"
        {
            return Ok(());
        }
        let complaint = fs::read_to_string(dir.shim_log()).unwrap_or_default();
        Err(io::Error::other(format!(
            "its shim ended at once: {}",
            complaint.trim()
        )))
    }

    fn signal(&self, id: &ContainerId, number: i32) -> Result<(), RuntimeError> {
        let what = || {
            system(format!(
                "send signal {number} to container {}",
                id.container
            ))
        };
        let held = self.held(id)?;
        let Some(first) = held.dir.first().map_err(what())? else {
            return Err(RuntimeError::NotRunning(id.clone()));
        };
        let signal = Signal::from_named_raw(number)
            .ok_or_else(|| what()(io::Error::from(io::ErrorKind::InvalidInput)))?;
        if first.process.signal(&self.boot, signal).map_err(what())? {
            Ok(())
        } else {
            Err(RuntimeError::NotRunning(id.clone()))
        }
    }

    async fn exec(
        &self,
        id: &ContainerId,
        request: &ExecRequest,
    ) -> Result<ExecSession, RuntimeError> {
        let held = self.held(id)?;
        let state = held
            .dir
            .state()
            .map_err(system(format!("read {}", held.dir.path().display())))?;
        match state {
            Some(ContainerState::Running { .. }) => {
                super::exec::exec(&self.options.shim, id, &held.dir, request).await
            }
            Some(_) | None => Err(RuntimeError::NotRunning(id.clone())),
        }
    }

    async fn join_streams(
        &self,
        id: &ContainerId,
        stdin: bool,
    ) -> Result<ExecSession, RuntimeError> {
        let held = self.held(id)?;
        if held.has_ended() {
            return Err(RuntimeError::NotRunning(id.clone()));
        }
        super::attach::attach(id, &held.dir, stdin).await
    }

    async fn dial(&self, uid: &str, port: u16) -> Result<tokio::net::TcpStream, RuntimeError> {
        let sandbox = lock(&self.pods).get(uid).cloned();
        let what = || system(format!("connect to port {port} of pod {uid}"));
        let Some(sandbox) = sandbox else {
            return Err(what()(io::Error::from(io::ErrorKind::NotFound)));
        };
        match &self.network {
            Some(network) if !sandbox.pod.host_network => {
                super::dial::inside(&network.namespaces(uid).join("net"), port).await
            }
            Some(_) => super::dial::to(IpAddr::V4(Ipv4Addr::LOCALHOST), port).await,
            None => super::dial::to(sandbox.place.ip, port).await,
        }
        .map_err(what())
    }

    async fn kill(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let what = || system(format!("end container {}", id.container));
        // What is not recorded has no processes.
        let Ok(mut held) = self.held(id) else {
            return Ok(());
        };
        if held.has_ended() {
            return Ok(());
        }
        if let Some(Holder::Shim(shim)) = held.dir.holder().map_err(what())? {
            // A shim that is gone is being settled by its watcher.
            shim.signal(&self.boot, Signal::TERM).map_err(what())?;
        }
        match held.end.wait_for(Option::is_some).await {
            Ok(_) => Ok(()),
            Err(closed) => Err(what()(io::Error::other(closed))),
        }
    }

    fn list(&self) -> Result<Vec<ContainerRecord>, RuntimeError> {
        let held: Vec<(ContainerId, Held)> = lock(&self.held)
            .iter()
            .map(|(id, held)| (id.clone(), held.clone()))
            .collect();
        held.into_iter()
            .map(|(id, held)| {
                let settled = held.end.borrow().clone();
                let state = match settled {
                    Some(state) => state,
                    None => held
                        .dir
                        .state()
                        .map_err(system(format!("read {}", held.dir.path().display())))?
                        .unwrap_or(ContainerState::Created),
                };
                Ok(ContainerRecord {
                    id,
                    state,
                    former_boot: held.former_boot,
                })
            })
            .collect()
    }

    /// Waits for the shims of ended containers, which are only leaving: their records are about to be removed.
    async fn settled(&self, which: impl Fn(&ContainerId) -> bool) {
        let leaving: Vec<Held> = lock(&self.held)
            .iter()
            .filter(|(id, held)| which(id) && held.has_ended())
            .map(|(_, held)| held.clone())
            .collect();
        for mut held in leaving {
            // A watcher that is gone has settled it.
            let _ = held.end.wait_for(Option::is_some).await;
        }
    }

    fn forget(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let Ok(held) = self.held(id) else {
            return Ok(());
        };
        if !held.has_ended() {
            return Err(RuntimeError::StillHeld {
                uid: id.pod_uid.clone(),
                pids: self.holders(&id.pod_uid, &[(id.clone(), held)])?,
            });
        }
        self.discard(&held.dir).map_err(system(format!(
            "remove the record of container {} in {}",
            id.container,
            held.dir.path().display()
        )))?;
        lock(&self.held).remove(id);
        Ok(())
    }

    fn trash(&self) -> PathBuf {
        self.containers.join(".trash")
    }

    /// Takes a record away at once; its many small files are removed when there is time.
    fn discard(&self, dir: &RecordDir) -> io::Result<()> {
        if let Some(away) = dir.discard(&self.trash())? {
            self.empty_trash(away);
        }
        Ok(())
    }

    fn empty_trash(&self, path: PathBuf) {
        lock(&self.tasks).spawn_blocking(move || {
            if let Err(error) = remove_discarded(&path) {
                tracing::warn!(path = %path.display(), %error, "could not remove what a container left; the next start tries again");
            }
        });
    }

    fn held(&self, id: &ContainerId) -> Result<Held, RuntimeError> {
        lock(&self.held)
            .get(id)
            .cloned()
            .ok_or_else(|| RuntimeError::NotRunning(id.clone()))
    }
}

/// Ends what a dead shim left behind; returns when none is left.
pub(super) fn end_orphans(
    tier: Tier,
    boot: &str,
    id: &ContainerId,
    first: Option<&First>,
) -> io::Result<()> {
    if first.is_some_and(|first| first.process.boot != boot) {
        return Ok(());
    }
    match tier {
        Tier::Processes => {
            let pipes = first
                .map(|first| first.pipes.as_slice())
                .unwrap_or_default();
            marks::end(&Marks::of_container(id).with_pipes(pipes), boot)
        }
        Tier::Rootless | Tier::Containers => {
            first.map_or(Ok(()), |first| end_namespace(&first.process, boot))
        }
    }
}

/// The first process is PID 1 of its namespace: the kernel ends it only after every other process in there.
fn end_namespace(first: &ProcessMark, boot: &str) -> io::Result<()> {
    while first.signal(boot, Signal::KILL)? && first.is_alive(boot) {
        first.wait(boot, Duration::from_secs(1))?;
    }
    Ok(())
}

/// The end of a container whose shim did not live to see it.
fn orphaned(last: Option<ContainerState>, had_process: bool) -> ContainerState {
    let now = format!("{:.9}", jiff::Timestamp::now());
    match last {
        Some(ContainerState::Running { started_at, .. }) => killed(started_at, now),
        Some(_) | None if had_process => killed(now.clone(), now),
        Some(_) | None => ContainerState::Failed {
            reason: "StartError".to_owned(),
            message: "its shim ended before the program was started".to_owned(),
            code: 128,
        },
    }
}

fn killed(started_at: String, finished_at: String) -> ContainerState {
    ContainerState::Exited {
        code: 137,
        signal: Some(9),
        oom: false,
        started_at,
        finished_at,
    }
}

/// The network of the data folder. Its range is on record; it stays while there are pods in it.
fn open_network(
    node: &Path,
    options: &RuntimeOptions,
    pods: &BTreeMap<String, Sandbox>,
) -> Result<Network, RuntimeError> {
    let what = || system("take up the network of the pods");
    let record = node.join("network.json");
    let asked = match &options.pod_range {
        Some(text) => Some(
            text.parse::<Range>()
                .map_err(|why| what()(io::Error::other(why)))?,
        ),
        None => None,
    };
    let recorded = read_json::<Range>(&record).map_err(what())?;
    let services = options.service_range.parse::<Range>();
    let services = services.map_err(|why| what()(io::Error::other(why)))?;
    let network = Network::open(&options.data_dir, asked, recorded, services).map_err(what())?;
    if recorded != Some(network.range()) {
        write_json(&record, &network.range(), Durable::No).map_err(what())?;
    }
    let known: BTreeSet<String> = pods.keys().cloned().collect();
    network.sweep(&known).map_err(what())?;
    Ok(network)
}

/// The folder of every container that is recorded.
pub(super) fn record_folders(containers: &Path) -> io::Result<Vec<PathBuf>> {
    let mut folders = Vec::new();
    for pod in fs::read_dir(containers)? {
        let pod = pod?;
        if !pod.file_type()?.is_dir() || pod.file_name() == ".trash" {
            continue;
        }
        for record in fs::read_dir(pod.path())? {
            folders.push(record?.path());
        }
    }
    Ok(folders)
}

fn read_sandboxes(sandboxes: &Path) -> Result<BTreeMap<String, Sandbox>, RuntimeError> {
    let read = || -> io::Result<BTreeMap<String, Sandbox>> {
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(sandboxes)? {
            let path = entry?.path().join("sandbox.json");
            if let Some(sandbox) = read_json::<Sandbox>(&path)? {
                found.insert(sandbox.pod.uid.clone(), sandbox);
            }
        }
        Ok(found)
    };
    read().map_err(system(format!("read the pods in {}", sandboxes.display())))
}

fn make_folder(path: &Path) -> Result<(), RuntimeError> {
    fs::create_dir_all(path).map_err(system(format!("make the folder {}", path.display())))
}

/// A folder that only its owner can look into: orders hold the variables of containers.
fn make_private(path: &Path) -> Result<(), RuntimeError> {
    make_folder(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))
        .map_err(system(format!("close the folder {}", path.display())))
}

/// Names become names of folders.
fn check_name(what: &str, name: &str) -> Result<(), RuntimeError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if !name.is_empty() && name.len() <= 253 && !name.starts_with('.') && name.chars().all(fits) {
        return Ok(());
    }
    Err(system(format!("use the {what} {name:?}"))(io::Error::from(
        io::ErrorKind::InvalidInput,
    )))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RuntimeError> + Send + 'static,
) -> Result<T, RuntimeError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(system("finish a piece of work")(io::Error::other(error))),
    }
}

/// A poisoned lock guards whole values all the same: each is replaced in one step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
