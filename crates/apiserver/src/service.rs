//! The shell round `handle`: an HTTP service that reads bodies, asks, and turns replies into responses.

use std::convert::Infallible;
use std::error::Error;
use std::future::{Future, ready};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body::Frame;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited, StreamBody};

use crate::compress::compressed;
use crate::handle::{Reply, refusal};
use crate::server::ApiServer;
use crate::status::Status;
use crate::stream;
use crate::user::User;
use crate::watch::Watch;

/// Any error, as bodies have it.
pub type BoxError = Box<dyn Error + Send + Sync>;
/// The body of requests to the node and of all responses.
pub type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, BoxError>;
/// Answers the kubelet's paths: `/containerLogs/...`, `/exec/...`, `/attach/...`, `/portForward/...`.
pub type NodeService = tower::util::BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// Bytes of a request's body at most, as upstream.
const BODY_MAX: usize = 3 << 20;

/// A body of these bytes.
pub fn full(bytes: Bytes) -> Body {
    Full::new(bytes)
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// The server, answering one user.
#[derive(Clone)]
pub struct ApiService {
    server: ApiServer,
    user: User,
}

impl ApiService {
    pub(crate) fn new(server: ApiServer, user: User) -> Self {
        Self { server, user }
    }
}

impl<B> tower::Service<Request<B>> for ApiService
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (server, user) = (self.server.clone(), self.user.clone());
        let request = request.map(|body| body.map_err(Into::into).boxed_unsync());
        let responded = respond(server, user, request);
        Box::pin(async move { Ok(responded.await) })
    }
}

/// A future of no particular type: rustc cannot prove some of these `Send` otherwise (rust-lang/rust#102211).
pub(crate) type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Answers a request of a known user.
pub(crate) fn respond(
    server: ApiServer,
    user: User,
    request: Request<Body>,
) -> Boxed<Response<Body>> {
    let (parts, body) = request.into_parts();
    let collected = collect(body);
    Box::pin(async move {
        match collected.await {
            Ok(body) => answered(server, user, parts, body).await,
            Err(status) => refused(&status),
        }
    })
}

async fn answered(
    server: ApiServer,
    user: User,
    parts: http::request::Parts,
    body: Bytes,
) -> Response<Body> {
    let text = |name: header::HeaderName| joined(&parts.headers, &name);
    let asked = crate::handle::Request {
        method: parts.method.clone(),
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or("").to_owned(),
        accept: text(header::ACCEPT),
        content_type: text(header::CONTENT_TYPE),
        user_agent: text(header::USER_AGENT),
        if_none_match: text(header::IF_NONE_MATCH),
        body: body.clone(),
        user,
    };
    let accept_encoding = text(header::ACCEPT_ENCODING);
    match server.ask(asked).await {
        Reply::Done(response) => compressed(&accept_encoding, response).map(full),
        Reply::Watch(watch) => stream_watch(&server, *watch),
        Reply::Forward(path) => {
            forward(&server, Request::from_parts(parts, full(body)), &path).await
        }
    }
}

/// A refusal as a response.
pub(crate) fn refused(status: &Status) -> Response<Body> {
    refusal(status, &[]).map(full)
}

fn collect(body: Body) -> Boxed<Result<Bytes, Status>> {
    let collecting = Limited::new(body, BODY_MAX).collect();
    Box::pin(collecting.map(|collected| match collected {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Status::too_large(BODY_MAX)),
        Err(error) => Err(Status::bad_request(format!(
            "the body could not be read: {error}"
        ))),
    }))
}

/// The values of a header, joined as one.
fn joined(headers: &HeaderMap, name: &header::HeaderName) -> String {
    let values: Vec<&str> = headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect();
    values.join(",")
}

fn stream_watch(server: &ApiServer, watch: Watch) -> Response<Body> {
    let frames = stream::start(
        server.store().clone(),
        server.since(),
        watch,
        server.closing(),
    );
    let frames = futures::stream::unfold(frames, |mut frames| async move {
        frames
            .recv()
            .await
            .map(|frame| (Ok::<Frame<Bytes>, BoxError>(frame), frames))
    });
    let mut response = Response::new(StreamBody::new(frames.boxed()).boxed_unsync());
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}

/// Asks the node, with the original headers and the connection's upgrade intact.
fn forward(server: &ApiServer, mut request: Request<Body>, path: &str) -> Boxed<Response<Body>> {
    let Some(node) = server.node() else {
        let words = "no node runs pods here: this API server works alone, so there are no logs and nothing to exec into";
        return Box::pin(ready(refused(&Status::unavailable(words))));
    };
    let Ok(uri) = path.parse::<Uri>() else {
        return Box::pin(ready(refused(&Status::bad_request(
            "the request cannot be passed on to the node",
        ))));
    };
    let is_log = path.starts_with("/containerLogs/");
    *request.uri_mut() = uri;
    let asked = tower::ServiceExt::oneshot(node, request);
    Box::pin(asked.then(move |response| match response {
        Ok(response) if is_log && !response.status().is_success() => worded(response),
        Ok(response) => Box::pin(ready(response)) as Boxed<_>,
        Err(never) => match never {},
    }))
}

/// The node's plain words as a Status. upstream: `GenericHttpResponseChecker`. Those to an upgrade stay as they are.
fn worded(response: Response<Body>) -> Boxed<Response<Body>> {
    let (parts, body) = response.into_parts();
    Box::pin(collect(body).map(move |collected| {
        let words = match collected {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(status) => status.message,
        };
        refused(&of_node(parts.status, words))
    }))
}

fn of_node(code: StatusCode, words: String) -> Status {
    let mut status = match code {
        StatusCode::BAD_REQUEST => Status::bad_request(words),
        StatusCode::INTERNAL_SERVER_ERROR => Status::internal(words),
        _ => Status::unknown(words),
    };
    status.code = code;
    status
}

/// 500 for a request that made the server panic.
pub(crate) fn panicked() -> Response<Body> {
    let mut response = refused(&Status::internal("the request made the server fail"));
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    response
}
