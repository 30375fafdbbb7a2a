//! A connection inside of WebSocket: binary messages, whose borders mean nothing, as one stream of bytes each way.

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Message, Role};

/// How much waits on its way, and goes into one message.
const PIECE: usize = 32 * 1_024;

/// The inside of the tunnel through this connection. It ends with the connection, and the connection with it.
pub(super) async fn open<S>(connection: S) -> DuplexStream
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let socket = WebSocketStream::from_raw_socket(connection, Role::Server, None).await;
    let (inside, end) = tokio::io::duplex(PIECE);
    tokio::spawn(carry(socket, end));
    inside
}

async fn carry<S>(socket: WebSocketStream<S>, end: DuplexStream)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sink, mut source) = socket.split();
    let (mut reader, mut writer) = tokio::io::split(end);
    let incoming = async {
        while let Some(Ok(message)) = source.next().await {
            match message {
                Message::Binary(bytes) => {
                    if writer.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
                Message::Close(_) => break,
                Message::Text(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
        // The inside sees its end; what it still says finds nobody.
        let _ = writer.shutdown().await;
    };
    let outgoing = async {
        let mut piece = vec![0; PIECE];
        while let Ok(count) = reader.read(&mut piece).await {
            let bytes = Bytes::copy_from_slice(&piece[..count]);
            if count == 0 || sink.send(Message::Binary(bytes)).await.is_err() {
                break;
            }
        }
        let _ = sink.send(Message::Close(None)).await;
    };
    // The inside lives on until it has seen the end of what comes in.
    tokio::join!(incoming, outgoing);
}
