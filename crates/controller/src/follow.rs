//! Lists and watches one collection for ever, over closed watches, expired versions and busy servers, and never back in time.
//!
//! # Guarantees
//! - Objects are read one at a time: of a list of whole pods only what `read` makes of each is kept.
//! - `version` in what is told never falls. A list older than what was told before (an API server that lags behind its
//!   store) is refused and asked for again later; an event older than the watch's own version is left out.
//! - After a `Retry-After` nothing is sent until it is over.
//!
//! Versions that are no numbers cannot be compared; such a server is believed. upstream: client-go's Reflector, where a
//! list may go back in time after a restart (kubernetes/kubernetes#59848).

use std::future::Future;
use std::time::Duration;

use http_body_util::BodyExt as _;
use kube::client::Body;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tokio::time::Instant;

use crate::backpressure::Backpressure;
use crate::call::{CallError, Method, Request, refusal, send, status_of};
use crate::page::{Page, read_page};
use crate::reflect::Part;
use crate::resource::{Resource, resource_version, text};

/// Objects a list answer may carry at most. upstream: 500.
const PAGE: usize = 500;
/// Seconds after which a watch is opened anew. upstream: 5 to 10 minutes.
const WATCH_SECONDS: u64 = 290;
/// How much later than promised a watch may end before it counts as dead.
const GRACE: Duration = Duration::from_secs(20);
/// First delay after trouble, doubled each time up to the longest. upstream: 800 ms and 30 s.
const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(30);

/// What stands in a query as it is.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// What is followed, and through what.
pub(crate) struct Source {
    pub(crate) client: kube::Client,
    pub(crate) resource: Resource,
    pub(crate) part: Part,
    pub(crate) backpressure: Backpressure,
}

/// What is told of the collection. Versions are 0 where the server's are no numbers.
pub(crate) enum Told<T> {
    /// A list has been asked for.
    Listing,
    /// The whole collection as of a version: whatever is not in it is gone.
    Listed { objects: Vec<T>, version: u64 },
    /// An object was created or changed.
    Put { object: T, version: u64 },
    /// An object is gone; its last state.
    Gone { object: T, version: u64 },
    /// Everything up to this version has been told.
    Reached { version: u64 },
}

/// Follows a collection and hands what is told to `sink`, in order. Ends with `shutdown` only.
pub(crate) async fn follow<T>(
    source: Source,
    read: impl Fn(Value) -> T,
    sink: impl FnMut(Told<T>),
    shutdown: impl Future<Output = ()>,
) {
    let mut following = Following {
        read: |object| read(typed(object, &source.resource)),
        source: &source,
        sink,
        at: String::new(),
        told: 0,
        failures: 0,
    };
    tokio::select! {
        biased;
        () = shutdown => {}
        () = following.for_ever() => {}
    }
}

/// Why a list or a watch ended.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    /// The version to go on from is no longer known: the collection has to be listed again.
    #[error("the version to go on from has expired")]
    Expired,
    /// The list is older than what was told before.
    #[error(
        "the API answered with a list of version {listed}, but {told} had been seen; it is asked again. If its store was \
         restored from a backup, restart this program"
    )]
    Older { listed: u64, told: u64 },
    /// The call failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The connection went away, or what came was no event.
    #[error("the watch broke off")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// No end and no news long after the watch should have ended.
    #[error("the watch fell silent")]
    Silent,
}

struct Following<'a, R, S> {
    source: &'a Source,
    read: R,
    sink: S,
    /// The version to go on from, as the server gave it.
    at: String,
    /// The same as a number.
    told: u64,
    /// Troubles one after another.
    failures: u32,
}

impl<T, R: Fn(Value) -> T, S: FnMut(Told<T>)> Following<'_, R, S> {
    async fn for_ever(&mut self) {
        loop {
            if let Err(trouble) = self.list().await {
                self.rest(&trouble).await;
                continue;
            }
            loop {
                let (before, begin) = (self.at.clone(), Instant::now());
                match self.watch().await {
                    Ok(()) if self.at != before || begin.elapsed() > LONGEST_DELAY => {
                        self.failures = 0;
                    }
                    // A watch that ends at once, with nothing told, must not become a busy loop.
                    Ok(()) => self.rest(&Trouble::Silent).await,
                    Err(Trouble::Expired) => break,
                    Err(trouble) => self.rest(&trouble).await,
                }
            }
            self.rest(&Trouble::Expired).await;
        }
    }

    /// Waits after trouble: as long as the server asked, or longer each time.
    async fn rest(&mut self, trouble: &Trouble) {
        let resource = &self.source.resource.plural;
        match trouble {
            Trouble::Expired | Trouble::Silent => {
                tracing::debug!(%resource, %trouble, "watch interrupted; it is resumed");
            }
            Trouble::Older { .. } | Trouble::Call(_) | Trouble::Broken(_) => {
                tracing::warn!(%resource, %trouble, "watch interrupted; it is resumed");
            }
        }
        if let Trouble::Call(error) = trouble {
            self.source.backpressure.note(error);
        }
        let delay = FIRST_DELAY.saturating_mul(1 << self.failures.min(20));
        self.failures = self.failures.saturating_add(1);
        tokio::time::sleep(delay.min(LONGEST_DELAY)).await;
    }

    /// Lists everything, page by page, and tells it.
    async fn list(&mut self) -> Result<(), Trouble> {
        (self.sink)(Told::Listing);
        let (objects, version) = match self.source.pages(&self.read, Some(PAGE)).await {
            // The pages' version expired half-way: all at once then. upstream: the same.
            Err(Trouble::Expired) => self.source.pages(&self.read, None).await?,
            other => other?,
        };
        let listed = number(&version);
        if listed < self.told && listed > 0 {
            let told = self.told;
            return Err(Trouble::Older { listed, told });
        }
        (self.at, self.told) = (version, listed);
        let version = listed;
        (self.sink)(Told::Listed { objects, version });
        Ok(())
    }

    /// Watches from where it is until the watch ends.
    async fn watch(&mut self) -> Result<(), Trouble> {
        let seconds = WATCH_SECONDS.to_string();
        let parameters = [
            ("watch", "1"),
            ("allowWatchBookmarks", "true"),
            ("resourceVersion", &self.at),
            ("timeoutSeconds", &seconds),
        ];
        let mut body = self
            .source
            .get(&parameters)
            .await
            .map_err(expired)?
            .into_body();
        let mut buffer: Vec<u8> = Vec::new();
        let silence = Duration::from_secs(WATCH_SECONDS) + GRACE;
        loop {
            let frame = tokio::time::timeout(silence, body.frame()).await;
            let Some(frame) = frame.map_err(|_| Trouble::Silent)? else {
                return Ok(());
            };
            let frame = frame.map_err(|error| Trouble::Broken(error.into()))?;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            buffer.extend_from_slice(&data);
            let mut begin = 0;
            while let Some(end) = buffer[begin..].iter().position(|byte| *byte == b'\n') {
                self.event(&buffer[begin..begin + end])?;
                begin += end + 1;
            }
            buffer.drain(..begin);
        }
    }

    /// Tells what one line of a watch says.
    fn event(&mut self, line: &[u8]) -> Result<(), Trouble> {
        if line.iter().all(u8::is_ascii_whitespace) {
            return Ok(());
        }
        let mut event: Value =
            serde_json::from_slice(line).map_err(|error| Trouble::Broken(error.into()))?;
        let object = event["object"].take();
        let kind = text(&event, "/type");
        if kind == "ERROR" {
            return Err(expired(status_of(
                http::Method::GET,
                self.source.resource.collection(None),
                &object,
            )));
        }
        let at = text(&object, "/metadata/resourceVersion").to_owned();
        let version = resource_version(&object).unwrap_or(0);
        if version < self.told && version > 0 {
            tracing::debug!(resource = %self.source.resource.plural, version, told = self.told, "an old event is left out");
            return Ok(());
        }
        let told = match kind {
            "ADDED" | "MODIFIED" => Told::Put {
                object: (self.read)(object),
                version,
            },
            "DELETED" => Told::Gone {
                object: (self.read)(object),
                version,
            },
            "BOOKMARK" => Told::Reached { version },
            other => return Err(Trouble::Broken(format!("no event is a {other:?}").into())),
        };
        (self.at, self.told, self.failures) = (at, version, 0);
        (self.sink)(told);
        Ok(())
    }
}

impl Source {
    async fn pages<T>(
        &self,
        read: &impl Fn(Value) -> T,
        limit: Option<usize>,
    ) -> Result<(Vec<T>, String), Trouble> {
        let mut all = Vec::new();
        let mut next = String::new();
        loop {
            let page = self.page(read, limit, &next).await?;
            all.extend(page.items);
            if page.next.is_empty() {
                return Ok((all, page.version));
            }
            next = page.next;
        }
    }

    async fn page<T>(
        &self,
        read: &impl Fn(Value) -> T,
        limit: Option<usize>,
        after: &str,
    ) -> Result<Page<T>, Trouble> {
        let limit = limit.map(|limit| limit.to_string()).unwrap_or_default();
        let response = self
            .get(&[("limit", &limit), ("continue", after)])
            .await
            .map_err(expired)?;
        let bytes = response.into_body().collect().await;
        let bytes = bytes
            .map_err(|error| Trouble::Broken(error.into()))?
            .to_bytes();
        read_page(&bytes, read).map_err(|error| Trouble::Broken(error.into()))
    }

    /// Sends a GET of the collection; empty parameters are left out.
    async fn get(&self, parameters: &[(&str, &str)]) -> Result<http::Response<Body>, CallError> {
        let Source {
            client,
            resource,
            part,
            backpressure,
        } = self;
        let selectors = [
            ("labelSelector", part.labels.as_deref().unwrap_or_default()),
            ("fieldSelector", part.fields.as_deref().unwrap_or_default()),
        ];
        let query: Vec<String> = parameters
            .iter()
            .chain(&selectors)
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, QUERY)))
            .collect();
        let mark = if query.is_empty() { "" } else { "?" };
        let path = format!("{}{mark}{}", resource.collection(None), query.join("&"));
        backpressure.welcome().await;
        let request = Request {
            method: Method::Get,
            path,
            body: Value::Null,
        };
        let response = send(client, &request).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(refusal(&request, response).await)
    }
}

/// 410 says that a version is no longer known; all else is a failed call.
fn expired(error: CallError) -> Trouble {
    if error.code() == 410 {
        Trouble::Expired
    } else {
        Trouble::Call(error)
    }
}

fn number(version: &str) -> u64 {
    version.parse().unwrap_or(0)
}

/// Items of a list carry neither kind nor version: they are written back, and field owners, which nobody here reads,
/// are dropped.
fn typed(mut value: Value, resource: &Resource) -> Value {
    if let Some(fields) = value.as_object_mut() {
        fields.insert("apiVersion".to_owned(), resource.api_version().into());
        fields.insert("kind".to_owned(), resource.kind.to_string().into());
    }
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    value
}
