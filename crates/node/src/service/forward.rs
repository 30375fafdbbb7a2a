//! Port forwarding: connections of a client, carried to ports inside a pod. Three ways of speaking, one way of carrying.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::remote::becomes_true;
use super::spdy::{Piece, Session, Stream, Writer};
use super::upgrade::{self, Carrier};
use super::{Desk, Refusal, channels_forward, query, tunnel};
use crate::node::Body;
use crate::runtime::Runtime;

/// SPDY inside of WebSocket, as kubectl speaks it since 1.30.
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
const OVER_WEBSOCKET: [&str; 3] = [TUNNEL, "v4.channel.k8s.io", "portforward.k8s.io"];
const OVER_SPDY: [&str; 1] = ["portforward.k8s.io"];
/// How much is read at once.
pub(super) const PIECE: usize = 32 * 1_024;

/// The pod whose ports they are.
#[derive(Clone)]
pub(super) struct Ports {
    pub(super) runtime: Arc<dyn Runtime>,
    pub(super) pod: String,
    pub(super) uid: String,
}

impl Ports {
    /// Connects to a port; the error is the sentence for the client.
    pub(super) async fn dial(&self, port: u16) -> Result<TcpStream, String> {
        let dialled = self.runtime.dial(&self.uid, port).await;
        dialled.map_err(|error| {
            let why = std::error::Error::source(&error)
                .map_or_else(|| error.to_string(), ToString::to_string);
            // upstream: the kubelet's words round containerd's.
            self.failed(
                port,
                &format!(
                    "failed to connect to localhost:{port} inside namespace \"{}\": {why}",
                    self.uid
                ),
            )
        })
    }

    pub(super) fn failed(&self, port: u16, why: &str) -> String {
        let Self { pod, uid, .. } = self;
        format!("error forwarding port {port} to pod {pod}, uid {uid}: {why}")
    }
}

/// Answers a request with 101 and carries connections beside it.
pub(super) fn start(
    desk: &Desk,
    namespace: &str,
    pod: &str,
    mut request: Request<Body>,
) -> Result<Response<Body>, Refusal> {
    let uid = desk.pods.uid(namespace, pod).ok_or_else(|| {
        Refusal::new(
            StatusCode::NOT_FOUND,
            format!("pod not found (\"{pod}_{namespace}\")"),
        )
    })?;
    let numbers = ports(request.uri().query().unwrap_or_default())?;
    let upgrade = upgrade::take(&mut request, &OVER_WEBSOCKET, &OVER_SPDY)?;
    let in_channels = upgrade.carrier == Carrier::WebSocket && upgrade.protocol != TUNNEL;
    if in_channels && numbers.is_empty() {
        // upstream: portforward.NewV4Options.
        let message = "query parameter \"port\" is required";
        return Err(Refusal::new(StatusCode::BAD_REQUEST, message));
    }
    let ports = Ports {
        runtime: Arc::clone(&desk.runtime),
        pod: format!("{pod}_{namespace}"),
        uid,
    };
    tokio::spawn(async move {
        let Some(connection) = upgrade::upgraded(upgrade.connection).await else {
            return;
        };
        match (upgrade.carrier, in_channels) {
            (Carrier::Spdy, _) => serve(Session::start(connection), ports).await,
            (Carrier::WebSocket, true) => channels_forward::serve(connection, numbers, ports).await,
            (Carrier::WebSocket, false) => {
                serve(Session::start(tunnel::open(connection).await), ports).await;
            }
        }
    });
    Ok(upgrade.response)
}

/// The ports of a query: `ports=80,443`, or several of those.
fn ports(text: &str) -> Result<Vec<u16>, Refusal> {
    let pairs = query(text);
    let values = pairs
        .iter()
        .filter(|(name, _)| matches!(name.as_str(), "ports" | "port"));
    values
        .flat_map(|(_, value)| value.split(','))
        .filter(|word| !word.is_empty())
        .map(|word| match word.parse() {
            Ok(0) | Err(_) => Err(Refusal::new(
                StatusCode::BAD_REQUEST,
                format!("unable to parse {word:?} as a port"),
            )),
            Ok(port) => Ok(port),
        })
        .collect()
}

/// Carries the connections of a session: each is a stream for data and one for what goes wrong, of the same request.
async fn serve(mut session: Session, ports: Ports) {
    let gone = session.gone();
    let mut waiting: BTreeMap<String, (Option<Stream>, Option<Stream>)> = BTreeMap::new();
    let mut carried = JoinSet::new();
    while let Some(stream) = session.next().await {
        while carried.try_join_next().is_some() {}
        let (request, is_error) = about(&stream);
        let pair = waiting.entry(request.clone()).or_default();
        if is_error {
            pair.0 = Some(stream);
        } else {
            pair.1 = Some(stream);
        }
        if let (Some(_), Some(_)) = pair
            && let Some((Some(error), Some(data))) = waiting.remove(&request)
        {
            let (ports, mut gone) = (ports.clone(), gone.clone());
            carried.spawn(async move {
                tokio::select! {
                    () = carry(ports, data, error) => {}
                    () = becomes_true(&mut gone) => {}
                }
            });
        }
    }
    carried.shutdown().await;
}

/// Which connection a stream belongs to, and whether it is the one for errors. Clients before Kubernetes 1.4 gave no
/// number: there the error stream is followed by its data stream of the same port.
fn about(stream: &Stream) -> (String, bool) {
    let header = |name: &str| stream.headers.get(name).cloned().unwrap_or_default();
    let request = match header("requestid") {
        request if request.is_empty() => format!("port {}", header("port")),
        request => request,
    };
    (request, header("streamtype") == "error")
}

/// Carries one connection.
async fn carry(ports: Ports, data: Stream, error: Stream) {
    let port: Option<u16> = data.headers.get("port").and_then(|port| port.parse().ok());
    let dialled = match port {
        Some(port) => ports.dial(port).await.map(|stream| (port, stream)),
        None => Err(format!(
            "error forwarding to pod {}: no port was named",
            ports.pod
        )),
    };
    match dialled {
        // The reason first: a client that sees its data end looks for it.
        Err(sentence) => {
            close(&error, Some(sentence)).await;
            close(&data, None).await;
        }
        Ok((port, stream)) => join(&ports, port, stream, data, &error).await,
    }
}

/// Joins a connection of the pod's with the streams of the client's.
async fn join(ports: &Ports, port: u16, stream: TcpStream, data: Stream, error: &Stream) {
    let (reader, writer) = stream.into_split();
    let Stream {
        pieces,
        writer: to_client,
        ..
    } = data;
    let giving = async {
        let given = give(reader, &to_client).await;
        // Whoever asked may have gone, here and below.
        let _ = to_client.finish().await;
        // upstream: with the pod's end all is said, whatever the client may still send.
        close(
            error,
            given.err().map(|why| ports.failed(port, &why.to_string())),
        )
        .await;
    };
    let (mut giving, mut taking) = (std::pin::pin!(giving), std::pin::pin!(take(pieces, writer)));
    tokio::select! {
        () = &mut giving => drop(taking.await),
        taken = &mut taking => match taken {
            Taken::All => giving.await,
            // The client wants no more of it: the pod's side is closed by being dropped.
            Taken::Reset => {}
        },
    }
}

async fn close(stream: &Stream, sentence: Option<String>) {
    if let Some(sentence) = sentence {
        let _ = stream.writer.send(Bytes::from(sentence)).await;
    }
    let _ = stream.writer.finish().await;
}

/// How the client's direction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    All,
    Reset,
}

/// Carries what the client sends to the pod, and its end.
async fn take(mut pieces: mpsc::Receiver<Piece>, mut writer: OwnedWriteHalf) -> Taken {
    while let Some(piece) = pieces.recv().await {
        match piece {
            Piece::Reset => return Taken::Reset,
            Piece::Bytes(bytes) => {
                if writer.write_all(&bytes).await.is_err() {
                    // The pod takes no more; what it still says is heard.
                    return Taken::All;
                }
            }
        }
    }
    // A connection that is closed already is closed.
    let _ = writer.shutdown().await;
    Taken::All
}

/// Carries what the pod says to the client.
async fn give(mut reader: OwnedReadHalf, writer: &Writer) -> std::io::Result<()> {
    let mut piece = vec![0; PIECE];
    loop {
        let count = reader.read(&mut piece).await?;
        let bytes = Bytes::copy_from_slice(&piece[..count]);
        if count == 0 || writer.send(bytes).await.is_err() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ports;

    #[test]
    fn ports_are_read_from_a_query() {
        assert_eq!(ports("ports=80,443&ports=1").ok(), Some(vec![80, 443, 1]));
        assert_eq!(ports("").ok(), Some(vec![]));
        for bad in ["ports=0", "ports=70000", "ports=http", "ports=80,-1"] {
            assert!(ports(bad).is_err(), "{bad}");
        }
    }
}
