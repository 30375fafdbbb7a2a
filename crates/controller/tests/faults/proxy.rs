//! A proxy before the API server: records every call, and does to calls and watches what the test commands.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _, stream};
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody};
use serde_json::{Value, json};
use stead_apiserver::{ApiService, Body, BoxError};
use stead_controller::resource::text;
use tokio::sync::{broadcast, watch};

/// A call as it was sent.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// `GET`, `POST`, ...
    pub(crate) verb: String,
    /// Path without the query.
    pub(crate) path: String,
    /// The query; empty for none.
    pub(crate) query: String,
    /// JSON body; `null` for none.
    pub(crate) body: Value,
    /// When it came.
    pub(crate) at: Instant,
    /// The status that it was answered with; 0 while there is none, and for a lost reply.
    pub(crate) code: u16,
}

impl Call {
    /// Verb and path; for a create with the name of what is created, for a delete with the UID it names.
    pub(crate) fn line(&self) -> String {
        let Call {
            verb, path, body, ..
        } = self;
        match verb.as_str() {
            "POST" => format!("POST {path}/{}", text(body, "/metadata/name")),
            "DELETE" => format!("DELETE {path} {}", text(body, "/preconditions/uid")),
            _ => format!("{verb} {path}"),
        }
    }

    pub(crate) fn is_write(&self) -> bool {
        self.verb != "GET"
    }

    pub(crate) fn is_watch(&self) -> bool {
        self.query.contains("watch=1")
    }

    /// A list of this resource, or a page of one.
    pub(crate) fn lists(&self, plural: &str) -> bool {
        self.verb == "GET" && !self.is_watch() && self.path.ends_with(&format!("/{plural}"))
    }

    /// A write that is about an object whose line contains this.
    pub(crate) fn writes(&self, part: &str) -> bool {
        self.is_write() && self.line().contains(part)
    }
}

/// What is done to a call.
#[derive(Clone)]
pub(crate) enum Fault {
    /// The server never sees it; this is the answer.
    Answer {
        code: u16,
        body: Value,
        retry_after: Option<u32>,
    },
    /// It takes effect, and nobody hears of it.
    LoseReply,
    /// It waits until the test lets it go.
    Hold(watch::Receiver<bool>),
}

impl Fault {
    /// A refusal with a `Status`.
    pub(crate) fn refuse(code: u16, reason: &str) -> Fault {
        Fault::Answer {
            code,
            body: status(code, reason),
            retry_after: None,
        }
    }

    /// Calls wait until the sender says so.
    pub(crate) fn hold() -> (watch::Sender<bool>, Fault) {
        let (release, held) = watch::channel(false);
        (release, Fault::Hold(held))
    }
}

/// A `Status` of failure.
pub(crate) fn status(code: u16, reason: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code, "reason": reason, "message": "on purpose"})
}

type Matches = Arc<dyn Fn(&Call) -> bool + Send + Sync>;

struct Rule {
    matches: Matches,
    left: usize,
    fault: Fault,
}

/// What is done to open watches.
#[derive(Clone)]
enum Command {
    /// The connection ends.
    Close,
    /// This line comes as if the server had sent it.
    Inject(String),
}

/// The switches of the watches of one resource.
#[derive(Clone)]
struct Tap {
    frozen: watch::Sender<bool>,
    commands: broadcast::Sender<Command>,
}

/// The proxy; clones are the same one.
#[derive(Clone)]
pub(crate) struct Proxy {
    inner: ApiService,
    calls: watch::Sender<Vec<Call>>,
    rules: Arc<Mutex<Vec<Rule>>>,
    taps: Arc<Mutex<BTreeMap<String, Tap>>>,
}

impl Proxy {
    pub(crate) fn new(inner: ApiService) -> Proxy {
        Proxy {
            inner,
            calls: watch::Sender::new(Vec::new()),
            rules: Arc::default(),
            taps: Arc::default(),
        }
    }

    /// Does this to the next so many calls that match.
    pub(crate) fn on(
        &self,
        times: usize,
        fault: Fault,
        matches: impl Fn(&Call) -> bool + Send + Sync + 'static,
    ) {
        lock(&self.rules).push(Rule {
            matches: Arc::new(matches),
            left: times,
            fault,
        });
    }

    /// Nothing more comes through the watches of a resource, or again does.
    pub(crate) fn freeze(&self, plural: &str, frozen: bool) {
        self.tap(plural).frozen.send_replace(frozen);
    }

    /// Ends the open watches of a resource. False when there was none.
    pub(crate) fn close(&self, plural: &str) -> bool {
        self.tap(plural).commands.send(Command::Close).is_ok()
    }

    /// Puts an event into the open watches of a resource. False when there was none.
    pub(crate) fn inject(&self, plural: &str, event: &Value) -> bool {
        let line = format!("{event}\n");
        self.tap(plural)
            .commands
            .send(Command::Inject(line))
            .is_ok()
    }

    /// Every call so far.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.calls.borrow().clone()
    }

    /// The calls that have changed since they were last looked at, for waiting.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Vec<Call>> {
        self.calls.subscribe()
    }

    fn tap(&self, plural: &str) -> Tap {
        let new = || Tap {
            frozen: watch::Sender::new(false),
            commands: broadcast::Sender::new(64),
        };
        lock(&self.taps)
            .entry(plural.to_owned())
            .or_insert_with(new)
            .clone()
    }

    fn record(&self, call: Call) -> usize {
        let mut number = 0;
        self.calls.send_modify(|calls| {
            number = calls.len();
            calls.push(call);
        });
        number
    }

    fn answered(&self, number: usize, code: u16) {
        self.calls.send_modify(|calls| calls[number].code = code);
    }

    fn fault(&self, call: &Call) -> Option<Fault> {
        let mut rules = lock(&self.rules);
        let rule = rules
            .iter_mut()
            .find(|rule| rule.left > 0 && (rule.matches)(call))?;
        rule.left -= 1;
        Some(rule.fault.clone())
    }

    async fn pass(self, request: Request<kube::client::Body>) -> Result<Response<Body>, BoxError> {
        let (parts, body) = request.into_parts();
        let bytes = body.collect().await?.to_bytes();
        let call = Call {
            verb: parts.method.to_string(),
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            body: serde_json::from_slice(&bytes).unwrap_or_default(),
            at: Instant::now(),
            code: 0,
        };
        let fault = self.fault(&call);
        let number = self.record(call.clone());
        let mut lose = false;
        match fault {
            Some(Fault::Answer {
                code,
                body,
                retry_after,
            }) => {
                self.answered(number, code);
                return Ok(response(code, &body, retry_after));
            }
            Some(Fault::Hold(mut held)) => drop(held.wait_for(|release| *release).await),
            Some(Fault::LoseReply) => lose = true,
            None => {}
        }
        let forwarded = Request::from_parts(parts, Full::new(bytes));
        let answer = tower::Service::call(&mut self.inner.clone(), forwarded).await?;
        if lose {
            // The effect is there before anybody can see that there is no answer.
            drop(answer.into_body().collect().await);
            self.answered(number, 0);
            return Err("the connection broke on purpose".into());
        }
        self.answered(number, answer.status().as_u16());
        if call.is_watch() && answer.status().is_success() {
            let plural = call.path.rsplit('/').next().unwrap_or_default();
            return Ok(tapped(answer, &self.tap(plural)));
        }
        Ok(answer)
    }
}

impl tower::Service<Request<kube::client::Body>> for Proxy {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<Body>, BoxError>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), BoxError>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<kube::client::Body>) -> Self::Future {
        self.clone().pass(request).boxed()
    }
}

/// A watch under the test's command.
fn tapped(answer: Response<Body>, tap: &Tap) -> Response<Body> {
    let (frozen, commands) = (tap.frozen.subscribe(), tap.commands.subscribe());
    let (parts, body) = answer.into_parts();
    let state = Tapped {
        body,
        frozen,
        arrived: None,
    };
    let frames = stream::unfold((state, commands), |(mut state, mut commands)| async move {
        let frame = tokio::select! {
            biased;
            command = commands.recv() => match command {
                Ok(Command::Inject(line)) => Some(Ok(Frame::data(Bytes::from(line)))),
                Ok(Command::Close) | Err(_) => None,
            },
            frame = state.next() => frame,
        };
        Some((frame?, (state, commands)))
    });
    Response::from_parts(parts, StreamBody::new(frames.boxed()).boxed_unsync())
}

/// A watch that can be frozen.
struct Tapped {
    body: Body,
    frozen: watch::Receiver<bool>,
    /// What came and waits for the thaw.
    arrived: Option<Result<Frame<Bytes>, BoxError>>,
}

impl Tapped {
    async fn next(&mut self) -> Option<Result<Frame<Bytes>, BoxError>> {
        if self.arrived.is_none() {
            self.arrived = Some(self.body.frame().await?);
        }
        drop(self.frozen.wait_for(|frozen| !*frozen).await);
        self.arrived.take()
    }
}

fn response(code: u16, body: &Value, retry_after: Option<u32>) -> Response<Body> {
    let body = Full::new(Bytes::from(body.to_string())).map_err(|never| match never {});
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() = StatusCode::from_u16(code).expect("a status");
    if let Some(seconds) = retry_after {
        response.headers_mut().insert("retry-after", seconds.into());
    }
    response
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
