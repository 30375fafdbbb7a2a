//! The server as a value: opens the store, starts the writer, and answers requests in-process or over TLS.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::{mpsc, oneshot, watch};

use crate::auth::token::TokenKey;
use crate::backend::{Backend, Contents, file::File, memory::Memory};
use crate::folder::{Folder, OpenError};
use crate::handle::{Environment, Operation, Reply, perform, prepare};
use crate::pki;
use crate::service::{ApiService, NodeService};
use crate::status::Status;
use crate::store::{Store, Stored, Table, table_of};
use crate::user::User;
use crate::writer::{Job, Message, Writer, seed};

/// Writes that may wait for the writer; more callers wait to get in.
const QUEUE: usize = 1024;

/// How a server is opened.
#[derive(Clone)]
pub struct Options {
    /// The data folder; none keeps everything in memory.
    pub data_dir: Option<PathBuf>,
    /// Answers `log`, `exec`, `attach` and `portforward`; may be set later.
    pub node: Option<NodeService>,
    /// The addresses that services get.
    pub service_range: String,
    /// `host:port` that discovery tells clients.
    pub address: String,
    /// Pods may name the service account `default` though nobody has made it: for servers without controllers.
    pub assume_accounts: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            data_dir: None,
            node: None,
            service_range: "10.96.0.0/16".to_owned(),
            address: "127.0.0.1:6443".to_owned(),
            assume_accounts: false,
        }
    }
}

/// The embedded Kubernetes API. A clone is another handle on the same server; it ends with its last handle.
#[derive(Clone)]
pub struct ApiServer {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<Store>,
    environment: Arc<Environment>,
    messages: mpsc::Sender<Message>,
    /// Turns true when the writer has ended and the folder is free.
    ended: watch::Receiver<bool>,
    node: RwLock<Option<NodeService>>,
    /// The revision at which this process began: nothing earlier is known to watches.
    since: u64,
    closing: watch::Sender<bool>,
}

impl ApiServer {
    /// Opens a server. The data folder is locked first; the lock ends when the server has ended.
    ///
    /// # Errors
    /// When the folder is locked (the error names the process), newer, unwritable, or its store cannot be read.
    pub fn open(options: Options) -> Result<Self, OpenError> {
        let folder = options.data_dir.as_deref().map(Folder::open).transpose()?;
        let (backend, contents): (Box<dyn Backend>, Contents) = match &folder {
            Some(folder) => {
                let (file, contents) = File::open(&folder.path.join("store.redb"))?;
                (Box::new(file), contents)
            }
            None => (Box::new(Memory), Contents::default()),
        };
        let token_key = match &folder {
            Some(folder) => pki::token_key(&folder.path.join("pki"))?,
            None => pki::random_token_key()?,
        };
        Self::start(options, backend, contents, token_key, folder)
    }

    /// A server over any backend: tests bring one that fails.
    ///
    /// # Errors
    /// When the contents are not understood.
    pub fn open_on(
        options: Options,
        backend: Box<dyn Backend>,
        contents: Contents,
    ) -> Result<Self, OpenError> {
        let key = pki::random_token_key()?;
        Self::start(options, backend, contents, key, None)
    }

    fn start(
        options: Options,
        backend: Box<dyn Backend>,
        contents: Contents,
        token_key: TokenKey,
        folder: Option<Folder>,
    ) -> Result<Self, OpenError> {
        if crate::admit::ServiceRange::parse(&options.service_range).is_none() {
            return Err(OpenError::ServiceRange(options.service_range));
        }
        let since = contents.reserved;
        let objects = contents
            .entries
            .into_iter()
            .map(|(key, json)| stored(key, &json))
            .collect::<Result<Vec<_>, _>>()?;
        let store = Arc::new(Store::new(since, objects));
        let environment = Arc::new(Environment {
            service_range: options.service_range,
            address: options.address,
            token_key,
            assume_accounts: options.assume_accounts,
        });
        let (messages, queue) = mpsc::channel(QUEUE);
        let (end, ended) = watch::channel(false);
        let writer = Writer::new(store.clone(), environment.clone(), backend, since);
        std::thread::Builder::new()
            .name("apiserver-writer".to_owned())
            .spawn(move || {
                writer.run(queue);
                // The folder is free only once nothing can be written any more.
                drop(folder);
                end.send_replace(true);
            })
            .map_err(|cause| OpenError::Io {
                what: "starting the writer of",
                path: options.data_dir.unwrap_or_default(),
                cause,
            })?;
        let (closing, _) = watch::channel(false);
        let inner = Inner {
            store,
            environment,
            messages,
            ended,
            node: RwLock::new(options.node),
            since,
            closing,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// The server as a `tower::Service` for one user, in-process: `kube::Client::new(server.service(user), "default")`.
    pub fn service(&self, user: User) -> ApiService {
        ApiService::new(self.clone(), user)
    }

    /// Sets who answers `log`, `exec`, `attach` and `portforward`.
    pub fn set_node(&self, node: NodeService) {
        *self
            .inner
            .node
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Some(node);
    }

    /// Ends the server: watches end, what was queued is written, then nothing more is, and the data folder is free.
    pub async fn shutdown(&self) {
        self.close_watches();
        // A writer that has ended already cannot be told.
        if self.inner.messages.send(Message::Stop).await.is_err() {
            tracing::debug!("the writer had ended by itself");
        }
        let mut ended = self.inner.ended.clone();
        // A writer that went without a word has freed the folder too.
        drop(ended.wait_for(|ended| *ended).await);
    }

    /// Ends all watches; nothing is lost, clients see their streams end.
    pub fn close_watches(&self) {
        self.inner.closing.send_replace(true);
    }

    pub(crate) fn node(&self) -> Option<NodeService> {
        self.inner
            .node
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn store(&self) -> &Arc<Store> {
        &self.inner.store
    }

    pub(crate) fn environment(&self) -> &Arc<Environment> {
        &self.inner.environment
    }

    pub(crate) fn since(&self) -> u64 {
        self.inner.since
    }

    pub(crate) fn closing(&self) -> watch::Receiver<bool> {
        self.inner.closing.subscribe()
    }

    /// Answers a request: reads from the published state, writes through the writer.
    pub(crate) async fn ask(&self, request: crate::handle::Request) -> Reply {
        let operation = prepare(request, &self.inner.environment);
        if operation.writes() {
            self.write(operation).await
        } else {
            self.read(&operation)
        }
    }

    fn read(&self, operation: &Operation) -> Reply {
        perform(
            operation,
            self.inner.store.as_ref(),
            &self.inner.environment,
            jiff::Timestamp::now(),
            seed(),
        )
        .reply
    }

    async fn write(&self, operation: Operation) -> Reply {
        let (answer, answered) = oneshot::channel();
        let job = Job {
            operation: Box::new(operation),
            answer,
        };
        let gone = || Reply::refused(&Status::unavailable("the server is shutting down"));
        if self.inner.messages.send(Message::Job(job)).await.is_err() {
            return gone();
        }
        answered.await.unwrap_or_else(|_| gone())
    }
}

/// Reads an entry of the store: its key is `GROUP/PLURAL|KEY`, its JSON carries type and revision.
fn stored(whole_key: String, json: &[u8]) -> Result<(Table, Box<str>, Arc<Stored>), OpenError> {
    let unknown = || OpenError::Entry {
        key: whole_key.clone(),
    };
    let object: serde_json::Value = serde_json::from_slice(json).map_err(|_| unknown())?;
    let text = |field: &str| object[field].as_str().unwrap_or("");
    let kind = stead_schema::kind(text("apiVersion"), text("kind")).ok_or_else(unknown)?;
    let revision = crate::object::meta(&object, "resourceVersion")
        .parse()
        .map_err(|_| unknown())?;
    let key: Box<str> = whole_key
        .split_once('|')
        .map(|(_, key)| key.into())
        .ok_or_else(unknown)?;
    Ok((
        table_of(kind),
        key,
        Arc::new(Stored::new(kind, revision, object)),
    ))
}
