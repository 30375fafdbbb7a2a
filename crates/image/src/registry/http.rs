//! Single requests to registries: TLS with the machine's own roots, redirects within a limit, nothing secret to others.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, HeaderMap, HeaderValue, LOCATION};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

/// Redirects that are followed; registries need one.
const REDIRECTS: usize = 5;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Nobody answers there, or not in time, or in no language of ours.
    #[error("could not reach {host}: {why}")]
    Unreachable {
        /// Who was asked.
        host: String,
        /// What went wrong.
        why: String,
    },
    /// The answer stopped in the middle.
    #[error("{host} stopped answering in the middle: {why}")]
    Cut {
        /// Who was asked.
        host: String,
        /// What went wrong.
        why: String,
    },
    /// The credentials were not taken, or none were there.
    #[error("{host} refused access to {what} (401): {hint}")]
    Unauthorized {
        /// Who was asked.
        host: String,
        /// For what.
        what: String,
        /// What can be done.
        hint: String,
    },
    /// There is no such thing.
    #[error("{host} has no {what} (404)")]
    NotFound {
        /// Who was asked.
        host: String,
        /// For what.
        what: String,
    },
    /// Too many requests, and the time to wait is too long.
    #[error("{host} allows no more requests now (429){after}")]
    TooMany {
        /// Who was asked.
        host: String,
        /// `; it asks to wait 300 s`.
        after: String,
    },
    /// Any other status.
    #[error("{host} answered {status} to a request for {what}")]
    Status {
        /// Who was asked.
        host: String,
        /// What it said.
        status: StatusCode,
        /// For what.
        what: String,
    },
    /// Redirects without an end.
    #[error("{host} redirects in a circle, or more than {REDIRECTS} times")]
    Circle {
        /// Who was asked first.
        host: String,
    },
    /// A redirect or a place for tokens that cannot be used.
    #[error("{host} points to {to:?}, which is refused: {why}")]
    Place {
        /// Who was asked.
        host: String,
        /// Where it points.
        to: String,
        /// Why not there.
        why: &'static str,
    },
}

impl HttpError {
    /// Whether the same request may go well a moment later.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            HttpError::Unreachable { .. } | HttpError::Cut { .. } => true,
            HttpError::Status { status, .. } => {
                status.is_server_error() || *status == StatusCode::REQUEST_TIMEOUT
            }
            HttpError::Unauthorized { .. }
            | HttpError::NotFound { .. }
            | HttpError::TooMany { .. }
            | HttpError::Circle { .. }
            | HttpError::Place { .. } => false,
        }
    }
}

/// Sends requests. Cheap to clone; keeps connections.
#[derive(Debug, Clone)]
pub struct Client {
    pool: Pool<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    answer: Duration,
}

/// One request, before it is known where redirects lead.
pub(super) struct Ask<'a> {
    pub(super) uri: Uri,
    pub(super) accept: &'a str,
    /// Bytes that are there already: only the rest is asked for.
    pub(super) from: u64,
    /// Sent to the first host only.
    pub(super) authorization: Option<HeaderValue>,
    /// Whether this registry, and where it redirects to, may be spoken to without TLS.
    pub(super) plain: bool,
}

impl Client {
    /// A client that waits so long for the beginning of an answer.
    pub(super) fn new(answer: Duration) -> Client {
        let mut roots = rustls::RootCertStore::empty();
        // A machine without any can still ask loopback and whoever is allowed without TLS.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring has suites for every default version")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(answer));
        tcp.set_nodelay(true);
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        Client {
            pool: Pool::builder(TokioExecutor::new())
                .pool_idle_timeout(Duration::from_secs(20))
                .build(connector),
            answer,
        }
    }

    /// Sends a request and follows where it is redirected to. Any status is an answer.
    pub(super) async fn get(&self, ask: Ask<'_>) -> Result<Response<Incoming>, HttpError> {
        let first = ask.uri.clone();
        let mut uri = ask.uri.clone();
        for _ in 0..=REDIRECTS {
            let answer = self.send(&ask, &uri, &first).await?;
            if !answer.status().is_redirection() {
                return Ok(answer);
            }
            let next = target(&uri, answer.headers())?;
            allow(&uri, &next, ask.plain)?;
            uri = next;
        }
        Err(HttpError::Circle {
            host: host_of(&first),
        })
    }

    async fn send(
        &self,
        ask: &Ask<'_>,
        uri: &Uri,
        first: &Uri,
    ) -> Result<Response<Incoming>, HttpError> {
        let unreachable = |why: String| HttpError::Unreachable {
            host: host_of(uri),
            why,
        };
        let mut request = Request::get(uri.clone())
            .header("user-agent", concat!("stead/", env!("CARGO_PKG_VERSION")))
            .header("accept", ask.accept);
        if ask.from > 0 {
            request = request.header("range", format!("bytes={}-", ask.from));
        }
        // Host and port and scheme: another port may be another's.
        let same = (uri.scheme(), uri.authority()) == (first.scheme(), first.authority());
        if let Some(authorization) = ask.authorization.as_ref().filter(|_| same) {
            request = request.header(AUTHORIZATION, authorization);
        }
        let request = request
            .body(Empty::new())
            .map_err(|error| unreachable(error.to_string()))?;
        match tokio::time::timeout(self.answer, self.pool.request(request)).await {
            Ok(answer) => answer.map_err(|error| unreachable(chain(&error))),
            Err(_) => Err(unreachable(format!(
                "no answer within {} s",
                self.answer.as_secs_f32()
            ))),
        }
    }
}

/// Where a redirect leads.
fn target(from: &Uri, headers: &HeaderMap) -> Result<Uri, HttpError> {
    let text = headers
        .get(LOCATION)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let refused = |why| HttpError::Place {
        host: host_of(from),
        to: text.chars().take(200).collect(),
        why,
    };
    let (scheme, authority) = (from.scheme_str().unwrap_or("https"), authority(from));
    let full = if text.contains("://") {
        text.to_owned()
    } else if let Some(rest) = text.strip_prefix("//") {
        format!("{scheme}://{rest}")
    } else if text.starts_with('/') {
        format!("{scheme}://{authority}{text}")
    } else {
        return Err(refused("it is no address"));
    };
    let uri: Uri = full.parse().map_err(|_| refused("it is no address"))?;
    match uri.authority() {
        Some(authority) if !authority.as_str().contains('@') => Ok(uri),
        Some(_) | None => Err(refused("it is no address")),
    }
}

/// Refuses to go from a protected connection to an open one, or to speak openly where nobody allowed it.
fn allow(from: &Uri, to: &Uri, plain: bool) -> Result<(), HttpError> {
    let refused = |why| HttpError::Place {
        host: host_of(from),
        to: to.to_string().chars().take(200).collect(),
        why,
    };
    match (from.scheme_str(), to.scheme_str()) {
        (_, Some("https")) => Ok(()),
        (Some("https"), Some("http")) => Err(refused("it leaves TLS")),
        (_, Some("http")) if plain || is_loopback(to.host().unwrap_or_default()) => Ok(()),
        (_, Some("http")) => Err(refused(
            "plain HTTP is for loopback, or where it was allowed",
        )),
        (_, _) => Err(refused("only http and https are spoken")),
    }
}

/// Whether a host is this machine itself.
pub(super) fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Host and port, for messages.
pub(super) fn host_of(uri: &Uri) -> String {
    authority(uri).to_owned()
}

fn authority(uri: &Uri) -> &str {
    uri.authority()
        .map(http::uri::Authority::as_str)
        .unwrap_or_default()
}

/// An error with its causes: the outer ones say little.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let said = cause.to_string();
        if !text.ends_with(&said) {
            text = format!("{text}: {said}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_lead_where_they_may_and_nowhere_else() {
        for (from, to, plain, expected) in [
            (
                "https://r.io/v2/",
                "https://cdn.io/x",
                false,
                "https://cdn.io/x",
            ),
            ("https://r.io/v2/", "/y?z", false, "https://r.io/y?z"),
            ("https://r.io/v2/", "//cdn.io/x", false, "https://cdn.io/x"),
            ("https://r.io/v2/", "http://r.io/x", true, "it leaves TLS"),
            (
                "http://127.0.0.1:5000/v2/",
                "http://127.0.0.1:6000/x",
                false,
                "http://127.0.0.1:6000/x",
            ),
            (
                "http://127.0.0.1:5000/v2/",
                "http://10.0.0.1/x",
                false,
                "plain HTTP",
            ),
            ("https://r.io/", "file:///etc/passwd", false, "no address"),
            ("https://r.io/", "ftp://r.io/", false, "only http"),
            ("https://r.io/", "https://u:p@r.io/", false, "no address"),
            ("https://r.io/", "", false, "no address"),
        ] {
            let from: Uri = from.parse().expect("an address");
            let mut headers = HeaderMap::new();
            headers.insert(LOCATION, HeaderValue::from_static(to));
            let found = target(&from, &headers)
                .and_then(|next| allow(&from, &next, plain).map(|()| next.to_string()))
                .unwrap_or_else(|error| error.to_string());
            assert!(found.contains(expected), "{to}: {found}");
        }
    }

    #[test]
    fn loopback_is_told_by_its_name_or_address() {
        for host in ["localhost", "127.0.0.1", "127.9.9.9", "::1", "[::1]"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["localhost.evil.com", "10.0.0.1", "0.0.0.0", ""] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
