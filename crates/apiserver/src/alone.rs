//! The API server alone: certificates, kubeconfig, a TLS port, no controllers and no node.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::folder::OpenError;
use crate::pki;
use crate::server::{ApiServer, Options};

/// How a server alone is started.
#[derive(Debug, Clone)]
pub struct AloneOptions {
    /// Holds the store, the certificates and the kubeconfig.
    pub data_dir: PathBuf,
    /// Where to listen; port 0 takes any free one.
    pub listen: SocketAddr,
    /// Objects live in memory only; certificates and kubeconfig are written nevertheless.
    pub in_memory: bool,
}

/// A running server.
pub struct Alone {
    server: ApiServer,
    kubeconfig: PathBuf,
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

/// Starts a server that answers once this returns.
///
/// # Errors
/// When the folder is locked, newer or unwritable, or the address is taken.
pub async fn start_alone(options: AloneOptions) -> Result<Alone, OpenError> {
    let listener = TcpListener::bind(options.listen)
        .await
        .map_err(|cause| OpenError::Listen {
            address: options.listen,
            cause,
        })?;
    let address = listener.local_addr().map_err(|cause| OpenError::Listen {
        address: options.listen,
        cause,
    })?;
    let data_dir = (!options.in_memory).then(|| options.data_dir.clone());
    let server = ApiServer::open(Options {
        data_dir,
        address: address.to_string(),
        assume_accounts: true,
        ..Options::default()
    })?;
    let pki = pki::ensure(
        &options.data_dir.join("pki"),
        &hosts(address),
        jiff::Timestamp::now(),
    )?;
    let kubeconfig = pki.write_kubeconfig(&options.data_dir, &format!("https://{address}"))?;
    let tls = pki.server_config()?;
    let (stop, stopped) = oneshot::channel::<()>();
    let served = server.clone();
    let serving = tokio::spawn(async move {
        served
            .serve(listener, tls, async {
                // A dropped sender is an end too.
                drop(stopped.await);
            })
            .await;
    });
    let alone = Alone {
        server,
        kubeconfig,
        address,
        stop,
        serving,
    };
    alone.ensure_namespaces().await;
    Ok(alone)
}

/// The names and addresses that the server's certificate is for.
pub fn hosts(address: SocketAddr) -> Vec<String> {
    let mut hosts: Vec<String> = [
        "localhost",
        "127.0.0.1",
        "::1",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "10.96.0.1",
    ]
    .into_iter()
    .map(str::to_owned)
    .collect();
    let own = address.ip().to_string();
    if !address.ip().is_unspecified() && !hosts.contains(&own) {
        hosts.push(own);
    }
    hosts
}

impl Alone {
    /// The path of the administrator's kubeconfig.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The server itself.
    pub fn server(&self) -> &ApiServer {
        &self.server
    }

    /// Ends watches, lets requests finish, and frees the data folder.
    pub async fn shutdown(self) {
        if self.stop.send(()).is_err() {
            tracing::debug!("the server had ended by itself");
        }
        if let Err(error) = self.serving.await {
            tracing::error!(%error, "the server's task did not end well");
        }
        self.server.shutdown().await;
    }

    /// The namespaces that every cluster has.
    async fn ensure_namespaces(&self) {
        self.server.ensure_namespaces().await;
    }
}
