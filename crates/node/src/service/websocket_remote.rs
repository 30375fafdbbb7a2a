//! Exec and attach over WebSocket: `v5.channel.k8s.io` and `v4.channel.k8s.io`.
//!
//! The first byte of a message is its channel: 0 stdin, 1 stdout, 2 stderr, 3 the Status that ends it, 4 window sizes,
//! and from v5 on 255: the channel in the second byte is closed.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, watch};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role};

use super::remote::{Asker, In, MESSAGES, Out, becomes_true, status};

pub(super) const PROTOCOLS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;
/// While input waits for its program, whether the asker is still there is found out this often.
const ASK: Duration = Duration::from_secs(5);
/// How long an asker may take to close its side when all is said.
const FAREWELL: Duration = Duration::from_secs(10);

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Size {
    width: u16,
    height: u16,
}

/// What a message says, if anything. Pure.
fn read(bytes: &Bytes) -> Option<In> {
    match bytes.as_ref() {
        [STDIN, ..] => Some(In::Stdin(bytes.slice(1..))),
        [RESIZE, size @ ..] => resize(size),
        [CLOSE, STDIN] => Some(In::StdinEnd),
        _ => None,
    }
}

/// A window size as JSON, whoever carries it.
pub(super) fn resize(bytes: &[u8]) -> Option<In> {
    let size: Size = serde_json::from_slice(bytes).ok()?;
    Some(In::Resize(size.width, size.height))
}

/// Speaks on this connection.
pub(super) async fn start<S>(connection: S) -> Asker
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let socket = WebSocketStream::from_raw_socket(connection, Role::Server, None).await;
    let (sink, source) = socket.split();
    let (typed, input) = mpsc::channel(MESSAGES);
    let (output, messages) = mpsc::channel(MESSAGES);
    let (told, gone) = watch::channel(false);
    let told = Arc::new(told);
    let (over, ended) = watch::channel(false);
    tokio::spawn(tell(sink, messages, Arc::clone(&told), over));
    tokio::spawn(hear(source, typed, output.downgrade(), told, ended));
    Asker {
        input,
        output,
        gone,
    }
}

async fn tell<S: AsyncRead + AsyncWrite + Unpin>(
    mut sink: SplitSink<WebSocketStream<S>, Message>,
    mut messages: mpsc::Receiver<Out>,
    told: Arc<watch::Sender<bool>>,
    over: watch::Sender<bool>,
) {
    while let Some(message) = messages.recv().await {
        let (message, last) = match message {
            Out::Stdout(bytes) => (framed(STDOUT, &bytes), false),
            Out::Stderr(bytes) => (framed(STDERR, &bytes), false),
            Out::Ask => (Message::Ping(Bytes::new()), false),
            Out::End(result) => (framed(ERROR, &status(result)), true),
        };
        if sink.send(message).await.is_err() {
            told.send_replace(true);
            break;
        }
        if last {
            // kubectl takes an end without this code for a broken connection.
            let normal = CloseFrame {
                code: CloseCode::Normal,
                reason: Utf8Bytes::default(),
            };
            // Whoever asked may have gone.
            let _ = sink.send(Message::Close(Some(normal))).await;
            break;
        }
    }
    over.send_replace(true);
}

fn framed(channel: u8, bytes: &[u8]) -> Message {
    let mut message = Vec::with_capacity(bytes.len() + 1);
    message.push(channel);
    message.extend_from_slice(bytes);
    Message::Binary(message.into())
}

/// Hears the asker until they go; when all is said, until they have said so too.
async fn hear<S: AsyncRead + AsyncWrite + Unpin>(
    mut source: SplitStream<WebSocketStream<S>>,
    typed: mpsc::Sender<In>,
    output: mpsc::WeakSender<Out>,
    told: Arc<watch::Sender<bool>>,
    mut ended: watch::Receiver<bool>,
) {
    let hearing = async {
        while let Some(Ok(message)) = source.next().await {
            match message {
                Message::Binary(bytes) => match read(&bytes) {
                    Some(message) => pass(&typed, message, &output).await,
                    None => continue,
                },
                Message::Close(_) => return,
                Message::Text(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
    };
    let all_said = tokio::select! {
        () = hearing => false,
        () = becomes_true(&mut ended) => true,
    };
    if all_said {
        let discarding = async { while let Some(Ok(_)) = source.next().await {} };
        // An asker that stays for no reason is left.
        let _ = tokio::time::timeout(FAREWELL, discarding).await;
    }
    told.send_replace(true);
}

/// Passes input on. While the program takes none, the asker is asked for a sign of life: writing to one that is gone
/// fails, and that ends all.
async fn pass(typed: &mpsc::Sender<In>, message: In, output: &mpsc::WeakSender<Out>) {
    let mut passing = std::pin::pin!(typed.send(message));
    loop {
        tokio::select! {
            // A program that has ended takes none.
            _ = &mut passing => return,
            () = tokio::time::sleep(ASK) => match output.upgrade() {
                // A full queue of messages is written right now: that finds out as well.
                Some(output) => drop(output.try_send(Out::Ask)),
                None => return,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a message says, in words.
    fn said(bytes: &'static [u8]) -> String {
        match read(&Bytes::from_static(bytes)) {
            Some(In::Stdin(bytes)) => format!("stdin {bytes:?}"),
            Some(In::StdinEnd) => "end of stdin".to_owned(),
            Some(In::Resize(columns, rows)) => format!("{columns} by {rows}"),
            None => "nothing".to_owned(),
        }
    }

    #[test]
    fn messages_are_read_by_their_channel() {
        assert_eq!(said(b"\x00ls\n"), r#"stdin b"ls\n""#);
        assert_eq!(said(b"\x00"), r#"stdin b"""#);
        assert_eq!(said(b"\xff\x00"), "end of stdin");
        assert_eq!(said(b"\x04{\"Width\":80,\"Height\":24}"), "80 by 24");
        for nonsense in [
            &b""[..],
            b"\x01out",
            b"\x04{",
            b"\x04{\"Width\":-1,\"Height\":2}",
            b"\xff\x01",
            b"\x09",
        ] {
            assert_eq!(said(nonsense), "nothing", "{nonsense:?}");
        }
    }
}
