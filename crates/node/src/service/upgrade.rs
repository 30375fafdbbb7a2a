//! Leaving HTTP: which of the ways of speaking of streams a client offers, and the 101 that takes one.

use http::{HeaderMap, Request, Response, StatusCode, header};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::{Refusal, empty};
use crate::node::Body;

/// The header by which SPDY clients name their protocols.
const STREAM_PROTOCOL: &str = "x-stream-protocol-version";

/// How a connection goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Carrier {
    WebSocket,
    Spdy,
}

/// A connection that is about to be upgraded.
pub(super) struct Upgrade {
    pub(super) carrier: Carrier,
    /// The one of the offered protocols that was taken.
    pub(super) protocol: &'static str,
    pub(super) connection: OnUpgrade,
    pub(super) response: Response<Body>,
}

/// Upgrades a request: over WebSocket to the first of `over_websocket` that is offered, over SPDY of `over_spdy`.
pub(super) fn take(
    request: &mut Request<Body>,
    over_websocket: &[&'static str],
    over_spdy: &[&'static str],
) -> Result<Upgrade, Refusal> {
    let headers = request.headers();
    let carrier = carrier(headers)?;
    let (name, known) = match carrier {
        Carrier::WebSocket => (header::SEC_WEBSOCKET_PROTOCOL.as_str(), over_websocket),
        Carrier::Spdy => (STREAM_PROTOCOL, over_spdy),
    };
    let protocol = agree(headers, name, known)?;
    let response = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "Upgrade")
        .header(name, protocol);
    let response = match carrier {
        Carrier::Spdy => response.header(header::UPGRADE, "SPDY/3.1"),
        Carrier::WebSocket => response
            .header(header::UPGRADE, "websocket")
            .header(header::SEC_WEBSOCKET_ACCEPT, accept_key(headers)?),
    };
    let response = response
        .body(empty())
        .map_err(|error| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    let connection = request.extensions_mut().remove::<OnUpgrade>();
    let connection = connection.ok_or_else(|| {
        Refusal::new(
            StatusCode::BAD_REQUEST,
            "this connection cannot be upgraded",
        )
    })?;
    Ok(Upgrade {
        carrier,
        protocol,
        connection,
        response,
    })
}

/// The connection, once the client has its 101.
pub(super) async fn upgraded(connection: OnUpgrade) -> Option<TokioIo<Upgraded>> {
    match connection.await {
        Ok(upgraded) => Some(TokioIo::new(upgraded)),
        Err(error) => {
            tracing::debug!(%error, "a connection was not upgraded");
            None
        }
    }
}

fn carrier(headers: &HeaderMap) -> Result<Carrier, Refusal> {
    let wanted = words(headers, header::UPGRADE.as_str());
    let is = |name: &str| wanted.iter().any(|word| word.eq_ignore_ascii_case(name));
    if is("websocket") {
        Ok(Carrier::WebSocket)
    } else if is("SPDY/3.1") {
        Ok(Carrier::Spdy)
    } else {
        // upstream: the words of apimachinery's httpstream.
        Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            "Upgrade request required",
        ))
    }
}

fn agree(headers: &HeaderMap, name: &str, known: &[&'static str]) -> Result<&'static str, Refusal> {
    let offered = words(headers, name);
    let taken = known.iter().find(|known| offered.contains(known));
    taken.copied().ok_or_else(|| {
        // upstream: httpstream.Handshake.
        Refusal::new(
            StatusCode::FORBIDDEN,
            format!("unable to negotiate protocol: client supports {offered:?}, server accepts {known:?}"),
        )
    })
}

fn accept_key(headers: &HeaderMap) -> Result<String, Refusal> {
    let key = headers.get(header::SEC_WEBSOCKET_KEY);
    key.map(|key| derive_accept_key(key.as_bytes()))
        .ok_or_else(|| {
            Refusal::new(
                StatusCode::BAD_REQUEST,
                "a WebSocket request without its key",
            )
        })
}

/// The words of a header, which may come several times and hold several.
fn words<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
    let values = headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok());
    values
        .flat_map(|list| list.split(','))
        .map(str::trim)
        .collect()
}
