//! The network: TLS connections, HTTP/1.1 and HTTP/2 on one port, who asks, and an orderly end.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::auth::{authenticate, certificate_user};
use crate::authorize::{self, Attributes};
use crate::request::{Place, Query, Verb, place, verb};
use crate::server::ApiServer;
use crate::service::{Body, Boxed, panicked, refused, respond};
use crate::status::Status;
use crate::user::User;

/// A client that does not finish its handshake in this time is let go.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// Requests still running at the end get this long.
const GRACE: Duration = Duration::from_secs(2);

impl ApiServer {
    /// Serves TLS connections until `shutdown`: then no more are taken, watches end, and requests get a moment to finish.
    pub async fn serve(
        &self,
        listener: TcpListener,
        tls: Arc<rustls::ServerConfig>,
        shutdown: impl Future<Output = ()>,
    ) {
        let acceptor = TlsAcceptor::from(tls);
        let graceful = GracefulShutdown::new();
        let mut connections = JoinSet::new();
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(_) = connections.join_next() => continue,
                () = &mut shutdown => break,
            };
            match accepted {
                Ok((stream, _)) => {
                    let watcher = graceful.watcher();
                    connections.spawn(connection(self.clone(), acceptor.clone(), stream, watcher));
                }
                Err(error) => {
                    // Out of file descriptors, most likely: others must close theirs first.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        drop(listener);
        self.close_watches();
        if tokio::time::timeout(GRACE, graceful.shutdown())
            .await
            .is_err()
        {
            tracing::debug!("connections are cut off at the end");
        }
        connections.shutdown().await;
    }
}

async fn connection(
    server: ApiServer,
    acceptor: TlsAcceptor,
    stream: TcpStream,
    watcher: hyper_util::server::graceful::Watcher,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "the connection stays with delayed packets");
    }
    let stream = match tokio::time::timeout(HANDSHAKE_MAX, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "no TLS handshake"),
        Err(_) => return tracing::debug!("no TLS handshake in time"),
    };
    let user = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(|chain| chain.first())
        .and_then(|certificate| certificate_user(certificate));
    let service = service_fn(move |request: Request<Incoming>| {
        let (server, user) = (server.clone(), user.clone());
        async move { Ok::<_, std::convert::Infallible>(guarded(server, user, request).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http2().max_concurrent_streams(1000);
    let connection = builder
        .serve_connection_with_upgrades(TokioIo::new(stream), service)
        .into_owned();
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// One request; a panic in it is its own misfortune only.
async fn guarded(
    server: ApiServer,
    certificate: Option<User>,
    request: Request<Incoming>,
) -> Response<Body> {
    let path = request.uri().path().to_owned();
    AssertUnwindSafe(admitted(server, certificate, request))
        .catch_unwind()
        .await
        .unwrap_or_else(|_| {
            tracing::error!(path, "a request made the server panic");
            panicked()
        })
}

async fn admitted(
    server: ApiServer,
    certificate: Option<User>,
    request: Request<Incoming>,
) -> Response<Body> {
    let key = &server.environment().token_key;
    let user = match authenticate(
        certificate.as_ref(),
        request.headers(),
        server.store().as_ref(),
        key,
        jiff::Timestamp::now(),
    ) {
        Ok(user) => user,
        Err(status) => return refused(&status),
    };
    let user = match impersonated(&server, user, request.headers()) {
        Ok(user) => user,
        Err(status) => return refused(&status),
    };
    if let Err(status) = permitted(&server, &user, &request) {
        return refused(&status);
    }
    answered(server, user, request).await
}

fn answered(server: ApiServer, user: User, request: Request<Incoming>) -> Boxed<Response<Body>> {
    respond(
        server,
        user,
        request.map(|body| body.map_err(Into::into).boxed_unsync()),
    )
}

/// The user that the caller asks to be taken for (`kubectl --as`), if a role allows that; else the caller.
///
/// # Errors
/// 403 where the caller may not, 400 for groups or more without a user.
fn impersonated(server: &ApiServer, user: User, headers: &HeaderMap) -> Result<User, Status> {
    let texts = |name: &str| -> Vec<String> {
        let all = headers.get_all(name).iter();
        all.filter_map(|value| value.to_str().ok().map(str::to_owned))
            .collect()
    };
    let (names, mut groups) = (texts("impersonate-user"), texts("impersonate-group"));
    let Some(name) = names.into_iter().next().filter(|name| !name.is_empty()) else {
        let asks = headers
            .keys()
            .any(|name| name.as_str().starts_with("impersonate-"));
        let words = "requested to impersonate groups, a UID or extra data without a user";
        return if asks {
            Err(Status::bad_request(words))
        } else {
            Ok(user)
        };
    };
    let account = name
        .strip_prefix("system:serviceaccount:")
        .and_then(|own| own.split_once(':'));
    let may = |resource: &str, namespace: &str, name: &str| {
        let asked = Attributes {
            verb: "impersonate",
            resource,
            namespace,
            name,
            ..Attributes::default()
        };
        decide(server, &user, &asked)
    };
    match account {
        Some((namespace, name)) => may("serviceaccounts", namespace, name)?,
        None => may("users", "", &name)?,
    }
    for group in &groups {
        may("groups", "", group)?;
    }
    if let Some((namespace, _)) = account.filter(|_| groups.is_empty()) {
        groups = vec![
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{namespace}"),
        ];
    }
    if name == "system:anonymous" {
        return Ok(User::anonymous());
    }
    Ok(User::new(name, groups))
}

/// Strangers get health and version; everybody else what RBAC grants.
fn permitted(server: &ApiServer, user: &User, request: &Request<Incoming>) -> Result<(), Status> {
    if user.is_in("system:masters") {
        return Ok(());
    }
    let place = place(request.uri().path());
    if matches!(place, Place::Health | Place::Version) {
        return Ok(());
    }
    if user.is_in("system:unauthenticated") {
        return Err(Status::unauthorized());
    }
    let query = Query::parse(request.uri().query().unwrap_or(""));
    let Place::Target(target) = &place else {
        let method = request.method().as_str().to_ascii_lowercase();
        let asked = Attributes {
            verb: &method,
            path: request.uri().path(),
            ..Attributes::default()
        };
        return decide(server, user, &asked);
    };
    let word = match verb(request.method(), target, &query)? {
        Verb::Get => "get",
        Verb::List => "list",
        Verb::Watch => "watch",
        Verb::Update => "update",
        Verb::Patch => "patch",
        Verb::Delete => "delete",
        Verb::DeleteCollection => "deletecollection",
        Verb::Connect if target.subresource == "log" => "get",
        Verb::Create | Verb::Connect => "create",
    };
    let asked = Attributes {
        verb: word,
        group: target.kind.group,
        resource: target.kind.plural,
        subresource: &target.subresource,
        namespace: &target.namespace,
        name: &target.name,
        path: "",
    };
    decide(server, user, &asked)
}

fn decide(server: &ApiServer, user: &User, asked: &Attributes<'_>) -> Result<(), Status> {
    if authorize::decide(user, asked, server.store().as_ref()).is_some() {
        return Ok(());
    }
    let what = if asked.path.is_empty() {
        let place = if asked.namespace.is_empty() {
            "at the cluster scope".to_owned()
        } else {
            format!("in the namespace \"{}\"", asked.namespace)
        };
        format!(
            "User \"{}\" cannot {} resource \"{}\" in API group \"{}\" {place}",
            user.name, asked.verb, asked.resource, asked.group
        )
    } else {
        format!(
            "User \"{}\" cannot {} path \"{}\"",
            user.name, asked.verb, asked.path
        )
    };
    Err(Status::forbidden(
        asked.group,
        asked.resource,
        asked.name,
        &what,
    ))
}
