//! Plain HTTP requests for writers that each have a thread of their own.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client as Legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A client with connections of its own.
pub(super) struct Client {
    runtime: tokio::runtime::Runtime,
    client: Legacy<HttpConnector, Full<Bytes>>,
}

/// What came back.
pub(super) struct Answer {
    pub(super) status: u16,
    /// The header `X-Ordinal`, where there is one.
    pub(super) ordinal: Option<String>,
    pub(super) body: Vec<u8>,
}

/// Why nothing came back.
#[derive(Debug)]
pub(super) enum Failed {
    /// Nobody listens there.
    Refused,
    /// Anything else: too late, or cut off in the middle.
    Other(String),
}

impl Client {
    pub(super) fn new() -> Result<Client, String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| format!("no runtime: {error}"))?;
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(Duration::from_secs(2)));
        connector.set_nodelay(true);
        let client = Legacy::builder(TokioExecutor::new())
            // A connection kept longer would be one to a server that has said that it stops.
            .pool_max_idle_per_host(0)
            .build(connector);
        Ok(Client { runtime, client })
    }

    /// Sends a request and reads the whole answer.
    pub(super) fn send(&self, method: &str, url: &str, body: &[u8]) -> Result<Answer, Failed> {
        let request = http::Request::builder()
            .method(method)
            .uri(url)
            .body(Full::new(Bytes::copy_from_slice(body)))
            .map_err(|error| Failed::Other(error.to_string()))?;
        let answer = async {
            let response = self.client.request(request).await.map_err(|error| {
                if is_refused(&error) {
                    Failed::Refused
                } else {
                    Failed::Other(error.to_string())
                }
            })?;
            let (parts, body) = response.into_parts();
            let ordinal = parts.headers.get("x-ordinal");
            let body = body
                .collect()
                .await
                .map_err(|error| Failed::Other(error.to_string()))?;
            Ok(Answer {
                status: parts.status.as_u16(),
                ordinal: ordinal.and_then(|value| value.to_str().ok().map(str::to_owned)),
                body: body.to_bytes().to_vec(),
            })
        };
        self.runtime
            .block_on(async { tokio::time::timeout(PATIENCE, answer).await })
            .unwrap_or_else(|_| Err(Failed::Other(format!("{method} {url}: no answer in time"))))
    }
}

fn is_refused(error: &hyper_util::client::legacy::Error) -> bool {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        if error
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
        {
            return true;
        }
        cause = error.source();
    }
    false
}
