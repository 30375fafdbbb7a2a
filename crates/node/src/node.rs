//! The node as a whole: opens the tier, registers itself, watches its pods, and gives the kubelet's HTTP paths.

mod register;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};

use crate::dns::{self, DnsError, DnsOptions};
use crate::events::Recorder;
use crate::images::Images;
use crate::manager::{self, Command, Manager, Names};
use crate::network;
use crate::pod::Machine;
use crate::runtime::{self, LogLimits, Runtime, RuntimeError, RuntimeOptions, Tier};
use crate::service::{self, Desk};
use crate::volume::{Volumes, claim};
use crate::worker::{InUse, Resolver, Shared};

pub(crate) use register::report_images;

/// Any error of a body or of another crate, boxed.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Bodies of the kubelet's HTTP paths, in and out.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// The kubelet's HTTP paths as a service: `/containerLogs`, `/exec`, `/attach`, `/portForward`.
pub type NodeService =
    tower::util::BoxCloneSyncService<http::Request<Body>, http::Response<Body>, Infallible>;

/// How the node is to run.
#[derive(Debug, Clone)]
pub struct NodeOptions {
    /// `metadata.name` of the Node object; pods bound to it run here.
    pub name: String,
    /// The data folder; the node keeps to `<data_dir>/node`.
    pub data_dir: PathBuf,
    /// The tier asked for; `None` takes the highest that the machine allows.
    pub tier: Option<Tier>,
    /// The program that holds containers, run as `<shim> shim ...`.
    pub shim: PathBuf,
    /// The cluster's DNS domain, `cluster.local` unless told otherwise.
    pub cluster_domain: String,
    /// How many pods the node takes.
    pub max_pods: u32,
    /// How large the log of a container may grow.
    pub log: LogLimits,
    /// `false`: no pod is run; only volumes whose policy says so are deleted.
    pub workloads: bool,
    /// How many processes and threads a pod may have at once; `None` is as many as the machine.
    pub pids_limit: Option<u64>,
    /// The address of the machine in statuses (`hostIP`, the Node's InternalIP).
    pub host_ip: IpAddr,
    /// The Services' addresses in CIDR form, as the API gives them out.
    pub service_range: String,
    /// The pods' own network in CIDR form, for the containers tier; `None` chooses a free one.
    pub pod_range: Option<String>,
}

/// Processes and threads of a pod, unless told otherwise: more than a busy database has, fewer than a machine.
const PIDS_LIMIT: u64 = 4_096;

impl NodeOptions {
    /// Options for a node of this name on this data folder, everything else as usual.
    pub fn new(
        name: impl Into<String>,
        data_dir: impl Into<PathBuf>,
        shim: impl Into<PathBuf>,
    ) -> Self {
        Self {
            name: name.into(),
            data_dir: data_dir.into(),
            tier: None,
            shim: shim.into(),
            cluster_domain: "cluster.local".to_owned(),
            max_pods: 110,
            log: LogLimits::default(),
            workloads: true,
            pids_limit: Some(PIDS_LIMIT),
            host_ip: IpAddr::from([127, 0, 0, 1]),
            service_range: "10.96.0.0/16".to_owned(),
            pod_range: None,
        }
    }
}

/// Why the node could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The node's folder cannot be made or read.
    #[error(
        "could not use the node's folder {path}: make it writable for this user, or choose another with --data-dir"
    )]
    Folder {
        /// Which folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// No tier, or not the one asked for, is possible on this machine: the sentence says why.
    #[error("{0}")]
    Tier(String),
    /// The tier's own records could not be read.
    #[error("could not read what the runtime holds")]
    Runtime(#[source] RuntimeError),
    /// The folder of images could not be opened.
    #[error("could not open the node's images")]
    Images(#[source] stead_image::store::StoreError),
    /// DNS could not start.
    #[error("could not start the cluster's DNS")]
    Dns(#[source] DnsError),
    /// The API server refused the Node object.
    #[error("could not register node {name}")]
    Register {
        /// The node's name.
        name: String,
        /// What the API server said.
        #[source]
        source: Box<kube::Error>,
    },
}

/// Why a pod could not be stopped.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    /// The node does not hold it.
    #[error("no pod with UID {0} runs on this node")]
    Unknown(String),
    /// It still lives after its grace and a kill.
    #[error("pod {uid} was still held {waited:?} after it was asked to stop")]
    Held {
        /// The pod.
        uid: String,
        /// How long it was waited for.
        waited: Duration,
    },
}

/// A running node agent. Dropping it ends it too, without waiting: see [`Node::shutdown`].
pub struct Node {
    shared: Arc<Shared>,
    service: NodeService,
    commands: mpsc::Sender<Command>,
    manager: Option<JoinHandle<()>>,
    tasks: JoinSet<()>,
    dns: Option<dns::Server>,
    sentence: String,
}

impl Node {
    /// Chooses the tier, opens it and starts the agent.
    ///
    /// # Errors
    /// [`StartError`] names what stands in the way.
    pub async fn start(client: kube::Client, options: NodeOptions) -> Result<Node, StartError> {
        let asked = options.tier;
        let runtime_options = RuntimeOptions {
            pod_range: options.pod_range.clone(),
            service_range: options.service_range.clone(),
            log: options.log,
            ..RuntimeOptions::new(options.data_dir.clone(), options.shim.clone())
        };
        let probed = runtime_options.clone();
        // Trying what the machine allows blocks for some milliseconds.
        let reports = tokio::task::spawn_blocking(move || runtime::probe(&probed))
            .await
            .map_err(|error| StartError::Tier(error.to_string()))?;
        let (tier, sentence) = runtime::choose(&reports, asked).map_err(StartError::Tier)?;
        let runtime = runtime::open(tier, runtime_options).map_err(StartError::Runtime)?;
        let mut node = Self::start_with(client, options, runtime).await?;
        node.sentence = sentence;
        Ok(node)
    }

    /// Starts the agent on a runtime that the caller has opened.
    ///
    /// # Errors
    /// [`StartError`] names what stands in the way.
    pub async fn start_with(
        client: kube::Client,
        options: NodeOptions,
        runtime: Arc<dyn Runtime>,
    ) -> Result<Node, StartError> {
        let node = options.data_dir.join("node");
        make_folder(&node)?;
        let dns = start_dns(&client, &options, runtime.as_ref()).await?;
        let resolver = resolver(&options, runtime.as_ref());
        let memory = (runtime.tier() == Tier::Containers).then(|| machine().memory_bytes);
        let shared = Arc::new(Shared {
            volumes: Volumes::new(client.clone(), node.clone(), memory),
            images: Images::open(&options.data_dir).map_err(StartError::Images)?,
            recorder: Recorder::start(client.clone(), options.name.clone()),
            in_use: InUse::default(),
            client,
            options,
            runtime,
            node,
            resolver,
        });
        let names = Arc::new(Names::default());
        let desk = Desk {
            runtime: shared.runtime.clone(),
            node: shared.node.clone(),
            pods: names.clone(),
            client: shared.client.clone(),
        };
        let (commands, commanded) = mpsc::channel(16);
        let mut started = Node {
            service: service::service(desk),
            commands,
            manager: None,
            tasks: JoinSet::new(),
            dns,
            sentence: format!("{:?}", shared.runtime.tier()).to_lowercase(),
            shared,
        };
        started.work(names, commanded).await?;
        Ok(started)
    }

    /// Starts the tasks.
    async fn work(
        &mut self,
        names: Arc<Names>,
        commanded: mpsc::Receiver<Command>,
    ) -> Result<(), StartError> {
        let shared = &self.shared;
        if let Err(error) = claim::empty_trash(&shared.node) {
            tracing::warn!(%error, "could not empty the trash of deleted volumes");
        }
        self.tasks.spawn(manager::reclaim(Arc::clone(shared)));
        if !shared.options.workloads {
            return Ok(());
        }
        let machine = register::register(shared).await?;
        self.tasks.spawn(register::stay_alive(Arc::clone(shared)));
        if let Some(dns) = &self.dns
            && shared.runtime.gateway().is_none()
        {
            self.tasks
                .spawn(keep_names(Arc::clone(shared), dns.zones()));
        }
        if let Some(network) = shared.runtime.pod_network() {
            self.tasks
                .spawn(network::keep_rules(shared.client.clone(), network));
        }
        let manager =
            Manager::new(Arc::clone(shared), machine, names).map_err(StartError::Runtime)?;
        self.manager = Some(tokio::spawn(manager.run(commanded)));
        Ok(())
    }

    /// The tier in use.
    pub fn tier(&self) -> Tier {
        self.shared.runtime.tier()
    }

    /// The tier in a sentence: what it is, and why no better one is possible.
    pub fn tier_sentence(&self) -> &str {
        &self.sentence
    }

    /// The options it was started with.
    pub fn options(&self) -> &NodeOptions {
        &self.shared.options
    }

    /// Where the cluster's DNS answers on the machine's loopback.
    pub fn dns(&self) -> Option<SocketAddr> {
        let addresses = self.dns.as_ref()?.addresses();
        addresses
            .iter()
            .find(|address| address.ip().is_loopback())
            .copied()
    }

    /// The kubelet's HTTP paths.
    pub fn service(&self) -> NodeService {
        self.service.clone()
    }

    /// Stops the containers of a pod whose object stays in the API, within `grace`, and gives back its place.
    ///
    /// For bare pods when the cluster goes down; the pod runs again when the node starts again.
    ///
    /// # Errors
    /// [`StopError`] when the node does not hold the pod, or it lives on after its kill.
    pub async fn stop_pod(&self, uid: &str, grace: Duration) -> Result<(), StopError> {
        let (reply, answer) = oneshot::channel();
        let grace_seconds = i64::try_from(grace.as_secs()).unwrap_or(i64::MAX);
        let unknown = || StopError::Unknown(uid.to_owned());
        self.commands
            .send(Command::Stop {
                uid: uid.to_owned(),
                grace_seconds,
                reply,
            })
            .await
            .map_err(|_| unknown())?;
        let waited = grace + AFTER_GRACE;
        match tokio::time::timeout(waited, answer).await {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false) | Err(_)) => Err(unknown()),
            Err(_) => Err(StopError::Held {
                uid: uid.to_owned(),
                waited,
            }),
        }
    }

    /// Ends the agent and leaves every container alone: shims hold them, the next start finds them again. Where none
    /// lives, the network of the pods is given back to the machine.
    pub async fn shutdown(self) {
        let Node {
            shared,
            commands,
            manager,
            mut tasks,
            dns,
            ..
        } = self;
        drop(commands);
        if let Some(manager) = manager
            && let Err(error) = manager.await
        {
            tracing::warn!(%error, "the node's manager ended badly");
        }
        tasks.shutdown().await;
        if let Some(dns) = dns {
            dns.shutdown().await;
        }
        // Refused while any container lives, as it must be: those keep their addresses.
        match tokio::task::spawn_blocking(move || shared.runtime.close()).await {
            Ok(Ok(()) | Err(RuntimeError::StillHeld { .. })) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, "not all that the pods had of the machine was given back")
            }
            Err(error) => tracing::warn!(%error, "giving back ended badly"),
        }
    }
}

/// Beyond its grace, a pod has this long to be killed and released.
const AFTER_GRACE: Duration = Duration::from_secs(15);

fn make_folder(node: &Path) -> Result<(), StartError> {
    ["pods", "volumes", "trash", "logs"]
        .iter()
        .try_for_each(|name| {
            let path = node.join(name);
            fs::create_dir_all(&path).map_err(|source| StartError::Folder { path, source })
        })
}

/// DNS on a free port of the loopback, and where pods have a network of their own on its gateway.
async fn start_dns(
    client: &kube::Client,
    options: &NodeOptions,
    runtime: &dyn Runtime,
) -> Result<Option<dns::Server>, StartError> {
    if !options.workloads {
        return Ok(None);
    }
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    let gateway = runtime.gateway().map(|ip| SocketAddr::new(ip, 53));
    let dns_options = DnsOptions {
        listen: gateway.into_iter().chain([loopback]).collect(),
        domain: options.cluster_domain.clone(),
        own_ranges: own_ranges(runtime),
        ..DnsOptions::default()
    };
    dns::Server::start(client.clone(), dns_options)
        .await
        .map(Some)
        .map_err(StartError::Dns)
}

/// Addresses that nobody but this cluster knows; its tier gave them out, so that they can be read.
fn own_ranges(runtime: &dyn Runtime) -> Vec<dns::Prefix> {
    let ranges = runtime.pod_network().map(|network| network.ranges());
    let texts = ranges.iter().flatten();
    texts.filter_map(|text| text.parse().ok()).collect()
}

fn resolver(options: &NodeOptions, runtime: &dyn Runtime) -> Resolver {
    let text = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let cluster = runtime.gateway().map(|ip| dns::resolv::ClusterDns {
        nameservers: vec![ip],
        domain: options.cluster_domain.clone(),
    });
    Resolver {
        cluster,
        machine: dns::resolv::Resolver::parse(&text),
    }
}

/// Keeps the names of pods where containers look for them, for as long as the zone lives.
async fn keep_names(shared: Arc<Shared>, mut zones: watch::Receiver<Arc<dns::Zone>>) {
    loop {
        let names = dns::zone::host_names(&zones.borrow_and_update());
        if let Err(error) = shared.runtime.set_names(&names).await {
            tracing::warn!(%error, "could not keep the names of pods");
        }
        if zones.changed().await.is_err() {
            return;
        }
    }
}

/// What the machine has.
pub(crate) fn machine() -> &'static Machine {
    static MACHINE: OnceLock<Machine> = OnceLock::new();
    MACHINE.get_or_init(|| {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let total = meminfo.lines().find_map(|line| {
            line.strip_prefix("MemTotal:")?
                .trim()
                .strip_suffix(" kB")?
                .trim()
                .parse::<u64>()
                .ok()
        });
        Machine {
            cpu_millis: cores as u64 * 1_000,
            memory_bytes: total.unwrap_or(0) * 1_024,
            pods: 0,
            labels: BTreeMap::new(),
        }
    })
}
