//! Port forwarding as kube-rs and the Python client speak it: one connection for each port, in channels of WebSocket.
//!
//! Channel 2i carries the data of the i-th port, 2i+1 what goes wrong; the first message of each names the port. No
//! direction can be closed by itself: with the last port's end the connection ends.

use std::sync::Arc;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Message, Role};

use super::forward::{PIECE, Ports};

/// Messages that wait on either side.
const MESSAGES: usize = 8;

/// Carries these ports until each has ended, or the client is gone.
pub(super) async fn serve<S>(connection: S, numbers: Vec<u16>, ports: Ports)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let socket = WebSocketStream::from_raw_socket(connection, Role::Server, None).await;
    let (mut sink, mut source) = socket.split();
    let (outgoing, mut messages) = mpsc::channel::<Message>(MESSAGES);
    let ports = Arc::new(ports);
    let mut carried = JoinSet::new();
    let mut inputs = Vec::new();
    // More channels than a byte can name there are not.
    for (channel, port) in (0..=254u8).step_by(2).zip(numbers) {
        let (input, pieces) = mpsc::channel(MESSAGES);
        inputs.push(input);
        carried.spawn(carry(
            channel,
            port,
            pieces,
            outgoing.clone(),
            Arc::clone(&ports),
        ));
    }
    drop(outgoing);
    let telling = async {
        while let Some(message) = messages.recv().await {
            if sink.send(message).await.is_err() {
                return;
            }
        }
        // Whoever asked may have gone.
        let _ = sink.send(Message::Close(None)).await;
    };
    let hearing = async {
        while let Some(Ok(message)) = source.next().await {
            match message {
                Message::Binary(bytes) => pass(&bytes, &inputs).await,
                Message::Close(_) => return,
                Message::Text(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
    };
    tokio::select! {
        () = telling => {}
        () = hearing => {}
    }
    carried.shutdown().await;
}

async fn pass(message: &Bytes, inputs: &[mpsc::Sender<Bytes>]) {
    let Some((channel, rest)) = message.split_first() else {
        return;
    };
    let input = inputs.get(usize::from(*channel / 2));
    if let Some(input) = input.filter(|_| channel % 2 == 0 && !rest.is_empty()) {
        // A port that has ended takes no more.
        let _ = input.send(message.slice(1..)).await;
    }
}

/// Carries one port.
async fn carry(
    channel: u8,
    port: u16,
    mut pieces: mpsc::Receiver<Bytes>,
    outgoing: mpsc::Sender<Message>,
    ports: Arc<Ports>,
) {
    let send = async |channel: u8, bytes: &[u8]| {
        let mut message = vec![channel];
        message.extend_from_slice(bytes);
        // Whoever asked may have gone: that ends all of this from outside.
        let _ = outgoing.send(Message::Binary(message.into())).await;
    };
    send(channel, &port.to_le_bytes()).await;
    send(channel + 1, &port.to_le_bytes()).await;
    let stream = match ports.dial(port).await {
        Ok(stream) => stream,
        Err(sentence) => return send(channel + 1, sentence.as_bytes()).await,
    };
    let (mut reader, mut writer) = stream.into_split();
    let taking = async {
        while let Some(bytes) = pieces.recv().await {
            if writer.write_all(&bytes).await.is_err() {
                break;
            }
        }
        // The pod takes no more; what it still says is heard.
        std::future::pending::<()>().await;
    };
    let giving = async {
        let mut piece = vec![0; PIECE];
        loop {
            match reader.read(&mut piece).await {
                Ok(0) => return,
                Ok(count) => send(channel, &piece[..count]).await,
                Err(why) => {
                    let sentence = ports.failed(port, &why.to_string());
                    return send(channel + 1, sentence.as_bytes()).await;
                }
            }
        }
    };
    tokio::select! {
        () = taking => {}
        () = giving => {}
    }
}
