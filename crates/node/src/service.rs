//! The kubelet's HTTP paths: logs, exec, attach and port forwarding.

mod channels_forward;
mod follow;
mod forward;
mod missing;
mod remote;
mod spdy;
mod spdy_remote;
mod tunnel;
mod upgrade;
mod watching;
mod websocket_remote;

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;

use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use jiff::Timestamp;
use serde_json::json;

use remote::Verb;
use watching::Folders;

use crate::logs::Wanted;
use crate::node::{Body, NodeService};
use crate::runtime::{ContainerId, ContainerState, Runtime};

/// Finds pods by namespace and name.
pub(crate) trait Directory: Send + Sync + 'static {
    /// The UID of the pod that holds this name now.
    fn uid(&self, namespace: &str, name: &str) -> Option<String>;
}

/// What the service needs.
pub(crate) struct Desk {
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) node: PathBuf,
    pub(crate) pods: Arc<dyn Directory>,
    /// For the words about a container that has no log yet.
    pub(crate) client: kube::Client,
}

/// The paths as a service.
pub(crate) fn service(desk: Desk) -> NodeService {
    let desk = Arc::new((desk, Folders::default()));
    NodeService::new(tower::service_fn(move |request: Request<Body>| {
        let desk = Arc::clone(&desk);
        async move { Ok::<_, Infallible>(answer(&desk.0, &desk.1, request).await) }
    }))
}

/// An answer that is not what was asked for.
pub(crate) struct Refusal {
    code: StatusCode,
    message: String,
}

impl Refusal {
    fn new(code: StatusCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// upstream: plain text, which the API server passes on in a Status.
    fn response(self) -> Response<Body> {
        let mut response = Response::new(text(self.message));
        *response.status_mut() = self.code;
        let plain = http::HeaderValue::from_static("text/plain; charset=utf-8");
        response
            .headers_mut()
            .insert(http::header::CONTENT_TYPE, plain);
        response
    }
}

pub(crate) fn empty() -> Body {
    Empty::new()
        .map_err(|never: Infallible| match never {})
        .boxed_unsync()
}

fn text(message: String) -> Body {
    Full::new(message.into())
        .map_err(|never: Infallible| match never {})
        .boxed_unsync()
}

/// Which container a path names.
struct Aim {
    namespace: String,
    pod: String,
    uid: String,
    container: String,
}

async fn answer(desk: &Desk, folders: &Folders, request: Request<Body>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let result = match parts.as_slice() {
        ["containerLogs", namespace, pod, container] => {
            match aim(desk, namespace, pod, container) {
                Ok(aim) => {
                    let query = request.uri().query().unwrap_or_default().to_owned();
                    drop(request);
                    container_logs(desk, folders, &aim, &query).await
                }
                Err(refusal) => Err(refusal),
            }
        }
        // upstream: the UID may stand between pod and container.
        ["exec", namespace, pod, container] | ["exec", namespace, pod, _, container] => {
            aim(desk, namespace, pod, container)
                .and_then(|aim| remote::start(desk, &aim, Verb::Exec, request))
        }
        ["attach", namespace, pod, container] | ["attach", namespace, pod, _, container] => {
            aim(desk, namespace, pod, container)
                .and_then(|aim| remote::start(desk, &aim, Verb::Attach, request))
        }
        ["portForward", namespace, pod] | ["portForward", namespace, pod, _] => {
            forward::start(desk, namespace, pod, request)
        }
        ["healthz"] => Ok(Response::new(text("ok".to_owned()))),
        _ => Err(Refusal::new(
            StatusCode::NOT_FOUND,
            format!("no such path: {path}"),
        )),
    };
    result.unwrap_or_else(Refusal::response)
}

fn aim(desk: &Desk, namespace: &str, pod: &str, container: &str) -> Result<Aim, Refusal> {
    let uid = desk.pods.uid(namespace, pod);
    let uid = uid.ok_or_else(|| {
        Refusal::new(
            StatusCode::NOT_FOUND,
            format!("pod not found (\"{pod}_{namespace}\")"),
        )
    })?;
    Ok(Aim {
        namespace: namespace.to_owned(),
        pod: pod.to_owned(),
        uid,
        container: container.to_owned(),
    })
}

async fn container_logs(
    desk: &Desk,
    folders: &Folders,
    aim: &Aim,
    query: &str,
) -> Result<Response<Body>, Refusal> {
    let query = self::query(query);
    let wanted = Wanted::parse(&query, Timestamp::now())
        .map_err(|why| Refusal::new(StatusCode::BAD_REQUEST, why))?;
    let (attempt, file) = missing::life(desk, aim, &wanted).await?;
    let id = ContainerId {
        pod_uid: aim.uid.clone(),
        container: aim.container.clone(),
        attempt,
    };
    let ended = desk.runtime.ended(&id);
    let body = follow::body(folders, file, wanted, ended).await;
    let body = body.map_err(|error| {
        let words = format!(
            "could not read the log of container \"{}\": {error}",
            aim.container
        );
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, words)
    })?;
    let mut response = Response::new(body);
    let plain = http::HeaderValue::from_static("text/plain");
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, plain);
    Ok(response)
}

/// The life of a container that runs now.
fn running(desk: &Desk, aim: &Aim) -> Result<ContainerId, Refusal> {
    let records = desk.runtime.list();
    let records = records
        .map_err(|error| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    let own = records
        .into_iter()
        .filter(|r| r.id.pod_uid == aim.uid && r.id.container == aim.container);
    let latest = own.max_by_key(|record| record.id.attempt);
    match latest {
        Some(record) if matches!(record.state, ContainerState::Running { .. }) => Ok(record.id),
        // upstream: the kubelet's words, which kubectl shows behind "unable to upgrade connection".
        Some(_) | None => Err(Refusal::new(
            StatusCode::NOT_FOUND,
            format!("container not found (\"{}\")", aim.container),
        )),
    }
}

/// The pairs of a query, decoded.
pub(crate) fn query(text: &str) -> Vec<(String, String)> {
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        })
        .collect()
}

fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut place = 0;
    while place < bytes.len() {
        let hex = bytes
            .get(place + 1..place + 3)
            .and_then(|pair| std::str::from_utf8(pair).ok());
        match (
            bytes[place],
            hex.and_then(|pair| u8::from_str_radix(pair, 16).ok()),
        ) {
            (b'%', Some(byte)) => {
                out.push(byte);
                place += 2;
            }
            (b'+', _) => out.push(b' '),
            (other, _) => out.push(other),
        }
        place += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The Status that ends an exec, as channel 3 carries it.
fn exit_status(result: Result<i32, String>) -> String {
    match result {
        Ok(0) => json!({"metadata": {}, "status": "Success"}),
        Ok(code) => json!({
            "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
            "message": format!("command terminated with non-zero exit code: exit status {code}"),
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
        }),
        Err(why) => {
            // upstream: apierrors.NewInternalError.
            let why = format!("error executing command in container: {why}");
            json!({
                "metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500,
                "message": format!("Internal error occurred: {why}"),
                "details": {"causes": [{"message": why}]},
            })
        }
    }
    .to_string()
}
