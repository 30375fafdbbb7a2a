//! The node as a whole: opens the tier, registers itself, watches its pods, and gives the kubelet's HTTP paths.

use std::convert::Infallible;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;

use crate::runtime::{Runtime, RuntimeError, Tier};

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
    /// Where pods ask for names; `None` leaves them the machine's own resolver.
    pub dns: Option<IpAddr>,
    /// The address of the machine in statuses (`hostIP`, the Node's InternalIP).
    pub host_ip: IpAddr,
}

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
            dns: None,
            host_ip: IpAddr::from([127, 0, 0, 1]),
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
    /// No tier, or not the one asked for, is possible on this machine.
    #[error("could not open the {tier} tier: {why}")]
    Tier {
        /// The tier asked for, or `any`.
        tier: String,
        /// What stands in the way, and what would help.
        why: String,
    },
    /// The tier's own records could not be read.
    #[error("could not read what the runtime holds")]
    Runtime(#[source] RuntimeError),
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

/// A running node agent. Dropping it is not stopping it: see [`Node::shutdown`].
pub struct Node {
    options: NodeOptions,
    runtime: Arc<dyn Runtime>,
}

impl Node {
    /// Chooses the tier and starts the agent.
    pub async fn start(client: kube::Client, options: NodeOptions) -> Result<Node, StartError> {
        let _ = client;
        Err(StartError::Tier {
            tier: format!("{:?}", options.tier),
            why: "no tier is built yet".to_owned(),
        })
    }

    /// Starts the agent on a runtime that the caller has opened.
    pub async fn start_with(
        client: kube::Client,
        options: NodeOptions,
        runtime: Arc<dyn Runtime>,
    ) -> Result<Node, StartError> {
        let _ = client;
        Ok(Node { options, runtime })
    }

    /// The tier in use.
    pub fn tier(&self) -> Tier {
        self.runtime.tier()
    }

    /// The options it was started with.
    pub fn options(&self) -> &NodeOptions {
        &self.options
    }

    /// The kubelet's HTTP paths.
    pub fn service(&self) -> NodeService {
        NodeService::new(tower::service_fn(|_request: http::Request<Body>| async {
            let mut response = http::Response::new(empty());
            *response.status_mut() = http::StatusCode::NOT_FOUND;
            Ok::<_, Infallible>(response)
        }))
    }

    /// Stops the containers of a pod whose object stays in the API, within `grace`, and gives back its place.
    ///
    /// For bare pods when the cluster goes down; the pod runs again when the node starts again.
    pub async fn stop_pod(&self, uid: &str, grace: Duration) -> Result<(), StopError> {
        let _ = grace;
        Err(StopError::Unknown(uid.to_owned()))
    }

    /// Ends the agent and leaves every container alone: shims hold them, the next start finds them again.
    pub async fn shutdown(self) {}
}

fn empty() -> Body {
    use http_body_util::BodyExt;
    http_body_util::Empty::new()
        .map_err(|never: Infallible| match never {})
        .boxed_unsync()
}
