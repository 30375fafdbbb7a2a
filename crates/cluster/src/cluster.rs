//! The whole as one value: starts API server, node and controllers, in this order, and ends them in the reverse one.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::json;
use stead_apiserver::{ApiServer, OpenError, User, pki};
use stead_controller::call::CallError;
use stead_node::runtime::{LogLimits, Tier};
use stead_node::{Node, NodeOptions};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::balancer::Machine;
use crate::bootstrap;
use crate::controllers::Controllers;
use crate::ranges::{RangeError, ServiceRange};
use crate::stop::{self, StopEvent};

/// How the cluster is to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The data folder; made if it is not there.
    pub data_dir: PathBuf,
    /// Where the API listens; port 0 takes any free one.
    pub listen: SocketAddr,
    /// The tier asked for; `None` takes the highest that the machine allows.
    pub tier: Option<Tier>,
    /// The program that holds containers, run as `<shim> shim ...`: the stead binary.
    pub shim: PathBuf,
    /// `metadata.name` of the one node.
    pub node_name: String,
    /// How many pods the node takes.
    pub max_pods: u32,
    /// How large the log of a container may grow.
    pub log: LogLimits,
    /// `false`: no pod is run and none is made; only claims and volumes are cared for.
    pub workloads: bool,
    /// The Services' addresses in CIDR form; `None` takes those that the data folder has, or the usual ones.
    pub service_range: Option<String>,
    /// The pods' own network in CIDR form, where they have one; `None` takes a free one.
    pub pod_range: Option<String>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            data_dir: PathBuf::new(),
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 6443),
            tier: None,
            shim: PathBuf::new(),
            node_name: "stead".to_owned(),
            max_pods: 110,
            log: LogLimits::default(),
            workloads: true,
            service_range: None,
            pod_range: None,
        }
    }
}

/// Why the cluster did not start. Nothing runs then.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Somebody else listens there.
    #[error(
        "the address {address} is taken by another program; choose another with --listen, for instance --listen 127.0.0.1:0"
    )]
    Taken {
        /// The address.
        address: SocketAddr,
    },
    /// The address cannot be listened on.
    #[error("could not listen on {address}; choose another with --listen")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The range of Services cannot be that one.
    #[error("{0}")]
    Range(#[from] RangeError),
    /// The API server could not be opened: the folder is locked, newer, unwritable.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The node could not be started.
    #[error(transparent)]
    Node(#[from] stead_node::StartError),
    /// What every cluster has from the start could not be made.
    #[error("could not make the cluster's own objects; `stead apiserver` runs without them")]
    Bootstrap(#[source] Box<CallError>),
    /// The file that tells other programs of this one cannot be written.
    #[error(
        "could not write {path}: make the data folder writable, or choose another with --data-dir"
    )]
    About {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

/// What others need to know of a running cluster.
#[derive(Debug, Clone)]
pub struct About {
    /// `https://127.0.0.1:6443`.
    pub api_url: String,
    /// The tier in use and what it means, in one line.
    pub tier_sentence: String,
    /// The administrator's kubeconfig.
    pub kubeconfig: PathBuf,
    /// Where the cluster's DNS answers.
    pub dns: Option<SocketAddr>,
}

/// A running cluster. It ends with [`Cluster::shutdown`], which leaves pods alone; [`Cluster::stop_pods`] stops them.
pub struct Cluster {
    api: ApiServer,
    node: Node,
    about: About,
    data_dir: PathBuf,
    sets: Mutex<Option<Task>>,
    controllers: Task,
    serving: Task,
}

/// Something that runs until it is told to end.
struct Task {
    stop: watch::Sender<bool>,
    running: JoinHandle<()>,
}

impl Task {
    fn spawn<F: Future<Output = ()> + Send + 'static>(task: impl FnOnce(StopSignal) -> F) -> Task {
        let (stop, stopped) = watch::channel(false);
        Task {
            stop,
            running: tokio::spawn(task(StopSignal(stopped))),
        }
    }

    async fn end(self) {
        self.stop.send_replace(true);
        if let Err(error) = self.running.await {
            tracing::error!(%error, "a part of the cluster ended by a panic");
        }
    }
}

/// Comes when a task is to end.
struct StopSignal(watch::Receiver<bool>);

impl StopSignal {
    async fn wait(mut self) {
        // A dropped sender is an end too.
        drop(self.0.wait_for(|stop| *stop).await);
    }
}

impl Cluster {
    /// Starts everything. The API answers and the node is ready for pods when this returns.
    ///
    /// # Errors
    /// Says what stood in the way and what would help; what was started by then has ended.
    pub async fn start(options: Options) -> Result<Cluster, StartError> {
        let listener = listen(options.listen).await?;
        let unknown = |source| StartError::Listen {
            address: options.listen,
            source,
        };
        let address = listener.local_addr().map_err(unknown)?;
        let services = ServiceRange::of(&options.data_dir, options.service_range.as_deref())?;
        let api = ApiServer::open(stead_apiserver::Options {
            data_dir: Some(options.data_dir.clone()),
            address: address.to_string(),
            service_range: services.to_string(),
            ..stead_apiserver::Options::default()
        })?;
        match Self::start_on(&api, listener, address, options, services).await {
            Ok(cluster) => Ok(cluster),
            Err(error) => {
                api.shutdown().await;
                Err(error)
            }
        }
    }

    /// Starts everything else over an open API server. What was started ends when an error drops it.
    async fn start_on(
        api: &ApiServer,
        listener: TcpListener,
        address: SocketAddr,
        options: Options,
        services: ServiceRange,
    ) -> Result<Cluster, StartError> {
        let api_url = format!("https://{address}");
        let folder = options.data_dir.join("pki");
        let mut hosts = stead_apiserver::hosts(address);
        let api_ip = services.first().to_string();
        if !hosts.contains(&api_ip) {
            hosts.push(api_ip);
        }
        let pki = pki::ensure(&folder, &hosts, jiff::Timestamp::now())?;
        services.keep(&options.data_dir)?;
        let kubeconfig = pki.write_kubeconfig(&options.data_dir, &api_url)?;
        let serving = serve(api, listener, pki.server_config()?);
        let bootstrapping = bootstrap(api, address, services.first());
        let (bootstrapped, node) =
            futures::join!(bootstrapping, start_node(api, &options, services));
        let node = node?;
        let tier_sentence = node.tier_sentence().to_owned();
        let about = About {
            api_url,
            tier_sentence,
            kubeconfig,
            dns: node.dns(),
        };
        let told = bootstrapped.and_then(|()| write_about(&options.data_dir, &about, node.tier()));
        if let Err(error) = told {
            // Unlike the rest, a node that is dropped goes on.
            node.shutdown().await;
            return Err(error);
        }
        api.set_node(node.service());
        let small = small_controllers(api, pki.ca, options.workloads, node.tier());
        let controllers = Task::spawn(|stop| small.run(stop.wait()));
        let client = client_of(api, "statefulset-controller");
        let sets = options
            .workloads
            .then(|| Task::spawn(|stop| sets(client, stop)));
        let sets = Mutex::new(sets);
        Ok(Cluster {
            api: api.clone(),
            node,
            about,
            data_dir: options.data_dir,
            sets,
            controllers,
            serving,
        })
    }

    /// A client with the administrator's rights, in-process.
    pub fn client(&self) -> kube::Client {
        kube::Client::new(self.api.service(User::admin()), "default")
    }

    /// What others need to know.
    pub fn about(&self) -> &About {
        &self.about
    }

    /// Stops all pods and waits until they are gone: of each set the highest ordinal first, the next only when the former
    /// is gone. Sets and claims stay as they are, and nothing makes the pods again before the next start. Pods without
    /// an owner stop too and keep their objects.
    pub async fn stop_pods(&self, tell: impl FnMut(StopEvent)) {
        let sets = self
            .sets
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(sets) = sets {
            sets.end().await;
        }
        let client = client_of(&self.api, "stead-down");
        let stop_kept =
            |uid: String, grace: Duration| -> futures::future::BoxFuture<'_, Result<(), String>> {
                Box::pin(async move {
                    self.node
                        .stop_pod(&uid, grace)
                        .await
                        .map_err(|error| error.to_string())
                })
            };
        stop::stop_all(&client, &stop_kept, tell).await;
    }

    /// Ends everything but the containers: their shims hold them, and the next start finds them again.
    pub async fn shutdown(self) {
        let Cluster {
            api,
            node,
            about: _,
            data_dir,
            sets,
            controllers,
            serving,
        } = self;
        let sets = sets.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(sets) = sets {
            sets.end().await;
        }
        controllers.end().await;
        node.shutdown().await;
        serving.end().await;
        if let Err(error) = std::fs::remove_file(about_file(&data_dir)) {
            tracing::debug!(%error, "daemon.json was not there to be removed");
        }
        api.shutdown().await;
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| match source.kind() {
            std::io::ErrorKind::AddrInUse => StartError::Taken { address },
            _ => StartError::Listen { address, source },
        })
}

fn serve(api: &ApiServer, listener: TcpListener, tls: Arc<rustls::ServerConfig>) -> Task {
    let api = api.clone();
    Task::spawn(move |stop| async move { api.serve(listener, tls, stop.wait()).await })
}

/// The in-process client of one of the cluster's own parts: its user and its user agent say which.
fn client_of(api: &ApiServer, name: &str) -> kube::Client {
    in_process(api, User::controller(name), name)
}

fn in_process(api: &ApiServer, user: User, agent: &str) -> kube::Client {
    let agent =
        http::HeaderValue::from_str(agent).unwrap_or(http::HeaderValue::from_static("stead"));
    let service = tower::ServiceExt::map_request(
        api.service(user),
        move |mut request: http::Request<kube::client::Body>| {
            request
                .headers_mut()
                .insert(http::header::USER_AGENT, agent.clone());
            request
        },
    );
    kube::Client::new(service, "default")
}

async fn bootstrap(
    api: &ApiServer,
    address: SocketAddr,
    service_ip: Ipv4Addr,
) -> Result<(), StartError> {
    let client = client_of(api, "bootstrap");
    bootstrap::ensure(&client, address, service_ip)
        .await
        .map_err(|error| StartError::Bootstrap(Box::new(error)))
}

async fn start_node(
    api: &ApiServer,
    options: &Options,
    services: ServiceRange,
) -> Result<Node, StartError> {
    let user = User::new(
        format!("system:node:{}", options.node_name),
        ["system:masters", "system:nodes"],
    );
    let node = NodeOptions {
        tier: options.tier,
        max_pods: options.max_pods,
        log: options.log,
        workloads: options.workloads,
        service_range: services.to_string(),
        pod_range: options.pod_range.clone(),
        ..NodeOptions::new(&options.node_name, &options.data_dir, &options.shim)
    };
    Ok(Node::start(in_process(api, user, "kubelet"), node).await?)
}

fn small_controllers(
    api: &ApiServer,
    certificate: String,
    workloads: bool,
    tier: Tier,
) -> Controllers {
    let api = api.clone();
    // Only in this tier there is a network that carries the machine's address to the pods.
    let balancer = match tier {
        Tier::Containers => Machine::this(),
        Tier::Rootless | Tier::Processes => None,
    };
    Controllers {
        clients: Arc::new(move |name: &str| client_of(&api, name)),
        certificate,
        workloads,
        balancer,
    }
}

async fn sets(client: kube::Client, stop: StopSignal) {
    let options = stead_controller::Options::default();
    if let Err(error) = stead_controller::run(client, options, stop.wait()).await {
        tracing::error!(%error, "the StatefulSet controller ended");
    }
}

fn about_file(data_dir: &Path) -> PathBuf {
    data_dir.join("daemon.json")
}

/// Tells other programs, by rename, that this one is ready.
fn write_about(data_dir: &Path, about: &About, tier: Tier) -> Result<(), StartError> {
    let path = about_file(data_dir);
    let text =
        json!({"pid": std::process::id(), "api": about.api_url, "tier": tier, "dns": about.dns})
            .to_string();
    let part = path.with_extension("json.part");
    let written = std::fs::write(&part, text).and_then(|()| std::fs::rename(&part, &path));
    written.map_err(|source| StartError::About { path, source })
}
