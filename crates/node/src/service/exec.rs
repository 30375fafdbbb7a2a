//! Exec over WebSocket: `v5.channel.k8s.io` and `v4.channel.k8s.io`.
//!
//! The first byte of a message is its channel: 0 stdin, 1 stdout, 2 stderr, 3 the Status that ends it, 4 window sizes,
//! and from v5 on 255: the channel in the second byte is closed.

use std::sync::Arc;

use futures::{Sink, SinkExt, Stream, StreamExt};
use http::{HeaderMap, Request, Response, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role};
use tokio_tungstenite::tungstenite::{Error as WsError, Utf8Bytes};

use super::{Aim, Desk, Refusal, empty, exit_status, query, running};
use crate::node::Body;
use crate::runtime::{ContainerId, ExecRequest, ExecSession, Runtime};

const PROTOCOLS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;
/// How much of a stream goes into one message.
const PIECE: usize = 32 * 1_024;

/// Answers an exec request with 101 and speaks on beside it.
pub(super) fn start(
    desk: &Desk,
    aim: &Aim,
    mut request: Request<Body>,
) -> Result<Response<Body>, Refusal> {
    let asked = query(request.uri().query().unwrap_or_default());
    let flag = |names: [&str; 2]| {
        asked.iter().any(|(name, value)| {
            names.contains(&name.as_str()) && matches!(value.as_str(), "1" | "true")
        })
    };
    let exec = ExecRequest {
        argv: asked
            .iter()
            .filter(|(name, _)| name == "command")
            .map(|(_, value)| value.clone())
            .collect(),
        stdin: flag(["input", "stdin"]),
        tty: flag(["tty", "tty"]),
    };
    if exec.argv.is_empty() {
        return Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            "you must specify at least 1 command for the container",
        ));
    }
    let (key, protocol) = handshake(request.headers())?;
    let upgrade = request.extensions_mut().remove::<OnUpgrade>();
    let upgrade = upgrade.ok_or_else(|| {
        Refusal::new(
            StatusCode::BAD_REQUEST,
            "this connection cannot be upgraded",
        )
    })?;
    let id = running(desk, aim)?;
    let runtime = Arc::clone(&desk.runtime);
    tokio::spawn(async move {
        match upgrade.await {
            Ok(upgraded) => speak(runtime, id, exec, TokioIo::new(upgraded)).await,
            Err(error) => tracing::debug!(%error, "an exec connection was not upgraded"),
        }
    });
    let response = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_ACCEPT, key)
        .header(header::SEC_WEBSOCKET_PROTOCOL, protocol)
        .body(empty());
    response.map_err(|error| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

/// The accept key and the protocol that both sides know.
fn handshake(headers: &HeaderMap) -> Result<(String, &'static str), Refusal> {
    let key = headers
        .get(header::SEC_WEBSOCKET_KEY)
        .and_then(|key| key.to_str().ok());
    let Some(key) = key else {
        let message = "exec is spoken over WebSocket (v5.channel.k8s.io or v4.channel.k8s.io); use kubectl 1.30 or later";
        return Err(Refusal::new(StatusCode::BAD_REQUEST, message));
    };
    let offered = headers
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let offered: Vec<&str> = offered
        .flat_map(|list| list.split(','))
        .map(str::trim)
        .collect();
    let protocol = PROTOCOLS.into_iter().find(|known| offered.contains(known));
    let protocol = protocol.ok_or_else(|| {
        Refusal::new(
            StatusCode::BAD_REQUEST,
            format!("none of the protocols {offered:?} is known; offer one of {PROTOCOLS:?}"),
        )
    })?;
    Ok((derive_accept_key(key.as_bytes()), protocol))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Size {
    width: u16,
    height: u16,
}

async fn speak<S: AsyncRead + AsyncWrite + Unpin>(
    runtime: Arc<dyn Runtime>,
    id: ContainerId,
    exec: ExecRequest,
    stream: S,
) {
    let socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
    let (mut sink, mut source) = socket.split();
    let result = match runtime.exec(&id, &exec).await {
        Ok(session) => carry(&mut sink, &mut source, session).await,
        Err(error) => Some(Err(error.to_string())),
    };
    let Some(result) = result else { return };
    // Whoever asked may have gone. kubectl takes an end without this code for a broken connection.
    let normal = CloseFrame {
        code: CloseCode::Normal,
        reason: Utf8Bytes::default(),
    };
    let status = framed(ERROR, exit_status(result).as_bytes());
    if sink.send(status).await.is_ok() && sink.send(Message::Close(Some(normal))).await.is_ok() {
        // The connection ends when the asker has read all and says so.
        while let Some(Ok(_)) = source.next().await {}
    }
}

fn framed(channel: u8, bytes: &[u8]) -> Message {
    let mut message = Vec::with_capacity(bytes.len() + 1);
    message.push(channel);
    message.extend_from_slice(bytes);
    Message::Binary(message.into())
}

/// Carries both ways until the program has ended and all of its output is told; `None` when the asker went first.
///
/// The two directions are independent: a program that does not read its input for a while can still be heard.
async fn carry(
    sink: &mut (impl Sink<Message> + Unpin),
    source: &mut (impl Stream<Item = Result<Message, WsError>> + Unpin),
    session: ExecSession,
) -> Option<Result<i32, String>> {
    let ExecSession {
        stdin,
        stdout,
        stderr,
        exit,
        resize,
    } = session;
    let (sender, mut output) = mpsc::channel(8);
    tokio::spawn(pump(STDOUT, stdout, sender.clone()));
    if let Some(stderr) = stderr {
        tokio::spawn(pump(STDERR, stderr, sender.clone()));
    }
    drop(sender);
    let told = async {
        while let Some(message) = output.recv().await {
            sink.send(message).await.ok()?;
        }
        Some(exit.await.map_err(|error| error.to_string()))
    };
    tokio::select! {
        told = told => told,
        () = listen(source, stdin, resize) => None,
    }
}

/// Takes what the asker sends until they go.
async fn listen(
    source: &mut (impl Stream<Item = Result<Message, WsError>> + Unpin),
    mut stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    resize: Option<mpsc::Sender<(u16, u16)>>,
) {
    while let Some(Ok(message)) = source.next().await {
        match message {
            Message::Binary(bytes) => take(&bytes, &mut stdin, resize.as_ref()).await,
            Message::Close(_) => return,
            Message::Text(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
        }
    }
}

async fn take(
    bytes: &[u8],
    stdin: &mut Option<Box<dyn AsyncWrite + Send + Unpin>>,
    resize: Option<&mpsc::Sender<(u16, u16)>>,
) {
    match bytes {
        [STDIN, data @ ..] => {
            if let Some(pipe) = stdin
                && (pipe.write_all(data).await.is_err() || pipe.flush().await.is_err())
            {
                // The program reads no more; what is typed at it is lost, as in any pipe.
                *stdin = None;
            }
        }
        [RESIZE, data @ ..] => {
            if let (Some(resize), Ok(size)) = (resize, serde_json::from_slice::<Size>(data)) {
                let _ = resize.send((size.width, size.height)).await;
            }
        }
        [CLOSE, STDIN] => *stdin = None,
        _ => {}
    }
}

/// Turns a stream into messages of its channel.
async fn pump(
    channel: u8,
    mut stream: Box<dyn AsyncRead + Send + Unpin>,
    sender: mpsc::Sender<Message>,
) {
    let mut piece = vec![0; PIECE];
    while let Ok(count) = stream.read(&mut piece).await {
        if count == 0 || sender.send(framed(channel, &piece[..count])).await.is_err() {
            return;
        }
    }
}
