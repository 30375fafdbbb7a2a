//! The whole as one value: starts API server, node and controllers, in this order, and ends them in the reverse one.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::json;
use stead_apiserver::{ApiServer, OpenError, User, pki};
use stead_controller::call::CallError;
use stead_node::runtime::Tier;
use stead_node::{Node, NodeOptions};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::bootstrap;
use crate::controllers::Controllers;
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
    /// `false`: no pod is run and none is made; only claims and volumes are cared for.
    pub workloads: bool,
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
            workloads: true,
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
        let address = listener.local_addr().map_err(|source| StartError::Listen {
            address: options.listen,
            source,
        })?;
        let api = ApiServer::open(stead_apiserver::Options {
            data_dir: Some(options.data_dir.clone()),
            address: address.to_string(),
            ..stead_apiserver::Options::default()
        })?;
        let pki = pki::ensure(
            &options.data_dir.join("pki"),
            &stead_apiserver::hosts(address),
            jiff::Timestamp::now(),
        )?;
        let api_url = format!("https://{address}");
        let kubeconfig = pki.write_kubeconfig(&options.data_dir, &api_url)?;
        let tls = pki.server_config()?;
        let serving = Task::spawn({
            let api = api.clone();
            move |stop| async move { api.serve(listener, tls, stop.wait()).await }
        });
        let bootstrapping = bootstrap(&api, address.port());
        let starting = start_node(&api, &options);
        let (bootstrapped, node) = futures::join!(bootstrapping, starting);
        let node = match (bootstrapped, node) {
            (Ok(()), Ok(node)) => node,
            (Err(error), node) => {
                if let Ok(node) = node {
                    node.shutdown().await;
                }
                serving.end().await;
                return Err(error);
            }
            (Ok(()), Err(error)) => {
                serving.end().await;
                return Err(error);
            }
        };
        api.set_node(node.service());
        let about = About {
            api_url,
            tier_sentence: sentence(node.tier()),
            kubeconfig,
            dns: None,
        };
        let controllers =
            Task::spawn(|stop| small_controllers(&api, pki.ca, options.workloads).run(stop.wait()));
        let sets = options
            .workloads
            .then(|| Task::spawn(|stop| sets(client_of(&api, "statefulset-controller"), stop)));
        write_about(&options.data_dir, &about, node.tier())?;
        Ok(Cluster {
            api,
            node,
            about,
            data_dir: options.data_dir,
            sets: Mutex::new(sets),
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
        drop(api);
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

async fn bootstrap(api: &ApiServer, port: u16) -> Result<(), StartError> {
    let client = client_of(api, "bootstrap");
    bootstrap::ensure(&client, port)
        .await
        .map_err(|error| StartError::Bootstrap(Box::new(error)))
}

async fn start_node(api: &ApiServer, options: &Options) -> Result<Node, StartError> {
    let user = User::new(
        format!("system:node:{}", options.node_name),
        ["system:masters", "system:nodes"],
    );
    let node = NodeOptions {
        tier: options.tier,
        max_pods: options.max_pods,
        workloads: options.workloads,
        ..NodeOptions::new(&options.node_name, &options.data_dir, &options.shim)
    };
    Ok(Node::start(in_process(api, user, "kubelet"), node).await?)
}

fn small_controllers(api: &ApiServer, certificate: String, workloads: bool) -> Controllers {
    let api = api.clone();
    Controllers {
        clients: Arc::new(move |name: &str| client_of(&api, name)),
        certificate,
        workloads,
    }
}

async fn sets(client: kube::Client, stop: StopSignal) {
    let options = stead_controller::Options::default();
    if let Err(error) = stead_controller::run(client, options, stop.wait()).await {
        tracing::error!(%error, "the StatefulSet controller ended");
    }
}

fn sentence(tier: Tier) -> String {
    match tier {
        Tier::Containers => "containers tier: pods are isolated, with addresses, limits and a file system of their own",
        Tier::Rootless => "rootless tier: pods have mounts and processes of their own and share the machine's network; root would isolate them fully",
        Tier::Processes => "processes tier: pods are plain supervised processes; this machine allows no isolation to this user",
    }
    .to_owned()
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
