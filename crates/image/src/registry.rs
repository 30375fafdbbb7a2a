//! Pulling: from a registry by the OCI distribution protocol, every byte checked before it is used.
//!
//! upstream: opencontainers/distribution-spec. What a registry says of sizes and digests is held against what it sends;
//! what it sends is bounded; where it redirects to never sees credentials.

mod auth;
pub mod credentials;
mod download;
mod http;
pub mod mirrors;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::stream::{self, TryStreamExt};
use tokio::sync::Semaphore;

use crate::digest::Digest;
use crate::document::{
    self, Descriptor, DocumentError, ImageConfig, MANIFEST_TYPES, Manifest, Platform, Pointed,
};
use crate::reference::ImageName;
use crate::store::{Hold, Image, NameRecord, Store, StoreError};

use auth::Session;
use credentials::Credentials;
pub use http::{Client, HttpError};
use mirrors::{Endpoint, Registries};

/// Layers of one image that are downloaded at the same time. upstream: container engines take three.
const LAYERS_AT_ONCE: usize = 3;
/// Layers that are unpacked at the same time, whoever asked for them.
const UNPACKS_AT_ONCE: usize = 2;

/// How long a registry is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patience {
    /// To connect, and to begin an answer.
    pub answer: Duration,
    /// Between two parts of an answer.
    pub stall: Duration,
    /// Attempts of one request, or of one download without any progress.
    pub attempts: u32,
    /// Before the second attempt; twice as long before each next.
    pub pause: Duration,
    /// The longest `Retry-After` that is waited for.
    pub retry_after_most: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            answer: Duration::from_secs(30),
            stall: Duration::from_secs(30),
            attempts: 5,
            pause: Duration::from_millis(250),
            retry_after_most: Duration::from_secs(60),
        }
    }
}

/// What a pull may use besides the name.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// Who to be to which registry.
    pub credentials: Credentials,
    /// Where else to ask, and whom to ask without TLS.
    pub registries: Registries,
}

/// How far a pull is; read by whoever shows it.
#[derive(Debug, Default)]
pub struct Progress {
    /// Bytes that are to come, as far as it is known.
    pub total: AtomicU64,
    /// Bytes that have come.
    pub done: AtomicU64,
    /// Layers that are to be unpacked.
    pub layers: AtomicU64,
    /// Layers that are unpacked.
    pub unpacked: AtomicU64,
}

/// Why an image was not pulled.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// A request failed.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// A document makes no sense.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// The store did not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A registry sent something else than it was asked for.
    #[error("{what} from {host} is not what its digest says: wanted {wanted}, found {found}")]
    Digest {
        /// `the manifest`, `the config`, `a layer`.
        what: &'static str,
        /// Who sent it.
        host: String,
        /// Asked for.
        wanted: Digest,
        /// Got.
        found: Digest,
    },
    /// As above, told by the size.
    #[error("{what} {digest} from {host} has {found} bytes where {wanted} are said")]
    Size {
        /// `the manifest`, `the config`, `a layer`.
        what: &'static str,
        /// Which.
        digest: Digest,
        /// Who sent it.
        host: String,
        /// What its descriptor says.
        wanted: u64,
        /// What came, or began to come.
        found: u64,
    },
    /// A registry sends more than is taken.
    #[error("{what} from {host} is larger than the {most} bytes that are taken")]
    TooLarge {
        /// What.
        what: &'static str,
        /// Who sent it.
        host: String,
        /// The limit.
        most: u64,
    },
    /// An index in an index.
    #[error("the index points at another index where an image should be")]
    NestedIndex,
    /// Every mirror and the registry itself failed; the last one's reason.
    #[error("{0}")]
    System(String),
}

impl PullError {
    /// Whether no registry could be reached at all, which another attempt may change.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, PullError::Http(HttpError::Unreachable { .. }))
    }
}

/// Pulls images into one store; kept, for it keeps its connections.
pub struct Puller {
    store: Store,
    client: Client,
    patience: Patience,
    unpacks: Arc<Semaphore>,
}

impl Puller {
    /// A puller into this store. Reads the machine's TLS roots.
    pub fn new(store: Store, patience: Patience) -> Puller {
        Puller {
            client: Client::new(patience.answer),
            store,
            patience,
            unpacks: Arc::new(Semaphore::new(UNPACKS_AT_ONCE)),
        }
    }

    /// The store that it pulls into.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Asks the registry, or its mirrors first, what the name points at now, and gets what is missing of it. Dropping
    /// the future ends the pull; what has come of a layer is used by the next.
    ///
    /// # Errors
    /// Of the registry itself; those of mirrors are only noted.
    pub async fn pull(
        &self,
        name: &ImageName,
        access: &Access,
        progress: &Progress,
    ) -> Result<Image, PullError> {
        let mut endpoints = access.registries.endpoints(&name.registry);
        let Some(registry) = endpoints.pop() else {
            return Err(PullError::System(format!("no registry for {name}")));
        };
        for mirror in endpoints {
            match self.pull_from(mirror.clone(), name, access, progress).await {
                Ok(image) => return Ok(image),
                Err(error) => {
                    tracing::warn!(%name, mirror = %mirror.host, %error, "a mirror failed; asking the next");
                }
            }
        }
        self.pull_from(registry, name, access, progress).await
    }

    async fn pull_from(
        &self,
        endpoint: Endpoint,
        name: &ImageName,
        access: &Access,
        progress: &Progress,
    ) -> Result<Image, PullError> {
        let session = Session::new(&self.client, &self.patience, endpoint, name, access);
        let store = self.store.clone();
        let hold = blocking(move || store.hold()).await?;
        let pull = Pull {
            puller: self,
            session,
            hold: Arc::new(hold),
            progress,
        };
        let (digest, manifest_digest, size, manifest) = pull.manifest(name).await?;
        let config = pull.config(&manifest).await?;
        pull.layers(&manifest, &config).await?;
        let layers: u64 = manifest.layers.iter().map(|(layer, _)| layer.size).sum();
        let record = NameRecord {
            name: name.to_string(),
            digest,
            manifest: manifest_digest,
            config: manifest.config.digest.clone(),
            layers: config.diff_ids.clone(),
            size: layers + manifest.config.size + size,
            pulled: true,
            at: jiff::Timestamp::now().to_string(),
        };
        let (store, name) = (self.store.clone(), name.clone());
        let found = blocking(move || {
            store.write_name(&record)?;
            store.find(&name)
        });
        found
            .await?
            .ok_or_else(|| PullError::System("the image is gone again".to_owned()))
    }
}

/// One pull from one endpoint.
struct Pull<'a> {
    puller: &'a Puller,
    session: Session<'a>,
    hold: Arc<Hold>,
    progress: &'a Progress,
}

impl Pull<'_> {
    /// What the name points at, the manifest for this machine, and how many bytes that has.
    async fn manifest(
        &self,
        name: &ImageName,
    ) -> Result<(Digest, Digest, u64, Manifest), PullError> {
        let limits = self.puller.store.limits();
        let (digest, bytes) = self.named_manifest(name).await?;
        match document::parse_pointed(&bytes, limits)? {
            Pointed::Manifest(manifest) => {
                let size = bytes.len() as u64;
                self.keep(&digest, bytes).await?;
                Ok((digest.clone(), digest, size, manifest))
            }
            Pointed::Index(entries) => {
                let chosen = document::choose(&entries, &Platform::here())?;
                let path = format!("manifests/{}", chosen.digest);
                let inner = self
                    .document("the manifest", &path, chosen, limits.manifest_bytes)
                    .await?;
                let Pointed::Manifest(manifest) = document::parse_pointed(&inner, limits)? else {
                    return Err(PullError::NestedIndex);
                };
                let size = (bytes.len() + inner.len()) as u64;
                self.keep(&digest, bytes).await?;
                self.keep(&chosen.digest, inner).await?;
                Ok((digest, chosen.digest.clone(), size, manifest))
            }
        }
    }

    /// What the name's tag or digest points at, checked against the digest that the name or the registry gives.
    async fn named_manifest(&self, name: &ImageName) -> Result<(Digest, Vec<u8>), PullError> {
        let most = self.puller.store.limits().manifest_bytes;
        let path = format!("manifests/{}", name.wanted());
        let (headers, bytes) = self
            .session
            .get_all("the manifest", &path, &MANIFEST_TYPES.join(", "), most)
            .await?;
        let said = headers
            .get("docker-content-digest")
            .and_then(|value| value.to_str().ok())
            .and_then(|text| text.parse::<Digest>().ok());
        let Some(wanted) = name.digest.clone().or(said) else {
            return Ok((Digest::of(&bytes), bytes));
        };
        self.same("the manifest", &wanted, &bytes)?;
        Ok((wanted, bytes))
    }

    async fn config(&self, manifest: &Manifest) -> Result<ImageConfig, PullError> {
        let (store, digest) = (self.puller.store.clone(), manifest.config.digest.clone());
        // A damaged one is got anew.
        if let Ok(Some(bytes)) = blocking(move || store.read_document(&digest)).await {
            return Ok(document::parse_config(&bytes, manifest)?);
        }
        let path = format!("blobs/{}", manifest.config.digest);
        let most = self.puller.store.limits().config_bytes;
        let bytes = self
            .document("the config", &path, &manifest.config, most)
            .await?;
        let config = document::parse_config(&bytes, manifest)?;
        self.keep(&manifest.config.digest, bytes).await?;
        Ok(config)
    }

    /// Gets and unpacks the layers that are missing, some at a time; the first failure ends the others.
    async fn layers(&self, manifest: &Manifest, config: &ImageConfig) -> Result<(), PullError> {
        let mut missing: Vec<(Descriptor, Digest)> = Vec::new();
        for ((layer, _), diff_id) in manifest.layers.iter().zip(&config.diff_ids) {
            let known = missing.iter().any(|(_, known)| known == diff_id);
            if !known && !self.puller.store.has_layer(diff_id) {
                missing.push((layer.clone(), diff_id.clone()));
            }
        }
        let total = missing.iter().map(|(layer, _)| layer.size).sum();
        self.progress.total.fetch_add(total, Ordering::Relaxed);
        self.progress
            .layers
            .fetch_add(missing.len() as u64, Ordering::Relaxed);
        stream::iter(missing.into_iter().map(Ok))
            .try_for_each_concurrent(LAYERS_AT_ONCE, |(layer, diff_id)| {
                self.layer(layer, diff_id)
            })
            .await
    }

    async fn layer(&self, layer: Descriptor, diff_id: Digest) -> Result<(), PullError> {
        let store = self.puller.store.clone();
        let arrived = download::layer(&self.session, &store, &layer, self.progress).await?;
        let permit = Arc::clone(&self.puller.unpacks).acquire_owned().await;
        let hold = Arc::clone(&self.hold);
        blocking(move || {
            let unpacked = arrived.unpack(&store, &hold, &layer, &diff_id);
            drop(permit);
            unpacked
        })
        .await?;
        self.progress.unpacked.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// A document whose size and digest another told.
    async fn document(
        &self,
        what: &'static str,
        path: &str,
        descriptor: &Descriptor,
        most: u64,
    ) -> Result<Vec<u8>, PullError> {
        let host = self.session.host();
        if descriptor.size > most {
            return Err(PullError::TooLarge { what, host, most });
        }
        let accept = if descriptor.media_type.is_empty() {
            MANIFEST_TYPES.join(", ")
        } else {
            format!("{}, */*", descriptor.media_type)
        };
        let (_, bytes) = self.session.get_all(what, path, &accept, most).await?;
        if bytes.len() as u64 != descriptor.size {
            return Err(PullError::Size {
                what,
                digest: descriptor.digest.clone(),
                host,
                wanted: descriptor.size,
                found: bytes.len() as u64,
            });
        }
        self.same(what, &descriptor.digest, &bytes)?;
        Ok(bytes)
    }

    fn same(&self, what: &'static str, wanted: &Digest, bytes: &[u8]) -> Result<(), PullError> {
        let mut hasher = wanted.hasher();
        hasher.update(bytes);
        let found = hasher.finish();
        if found == *wanted {
            return Ok(());
        }
        Err(PullError::Digest {
            what,
            host: self.session.host(),
            wanted: wanted.clone(),
            found,
        })
    }

    async fn keep(&self, digest: &Digest, bytes: Vec<u8>) -> Result<(), PullError> {
        let (store, digest) = (self.puller.store.clone(), digest.clone());
        blocking(move || store.write_document(&digest, &bytes)).await
    }
}

/// Runs something that waits for disks beside the tasks that must not wait.
async fn blocking<T, E>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, PullError>
where
    T: Send + 'static,
    E: Into<PullError> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(Into::into),
        Err(error) => Err(PullError::System(error.to_string())),
    }
}
