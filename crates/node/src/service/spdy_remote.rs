//! Exec and attach over SPDY, as kubectl up to 1.29 and client-go's fallback speak it: a stream for each of error, stdin,
//! stdout, stderr and window sizes.

use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, watch};

use super::remote::{Asked, Asker, In, MESSAGES, Out, status};
use super::spdy::{Piece, Session, Stream, Writer};
use super::websocket_remote::resize;

/// Best first. They differ in how the end is told: a Status from v4 on, a sentence before.
pub(super) const PROTOCOLS: [&str; 5] = [
    "v5.channel.k8s.io",
    "v4.channel.k8s.io",
    "v3.channel.k8s.io",
    "v2.channel.k8s.io",
    "channel.k8s.io",
];
/// upstream: `StreamCreationTimeout`.
const PATIENCE: Duration = Duration::from_secs(30);

/// The streams of one asker.
#[derive(Default)]
struct Streams {
    error: Option<Stream>,
    stdin: Option<Stream>,
    stdout: Option<Stream>,
    stderr: Option<Stream>,
    resize: Option<Stream>,
}

impl Streams {
    fn add(&mut self, stream: Stream) {
        match stream.headers.get("streamtype").map(String::as_str) {
            Some("error") => self.error = Some(stream),
            Some("stdin") => self.stdin = Some(stream),
            Some("stdout") => self.stdout = Some(stream),
            Some("stderr") => self.stderr = Some(stream),
            Some("resize") => self.resize = Some(stream),
            // A stream that nobody here knows is dropped, and so is what comes on it.
            Some(_) | None => {}
        }
    }

    /// Whether all is there that was asked for.
    fn are_complete(&self, asked: &Asked, sized: bool) -> bool {
        self.error.is_some()
            && (self.stdin.is_some() || !asked.stdin)
            && (self.stdout.is_some() || !asked.stdout)
            && (self.stderr.is_some() || !asked.stderr)
            && (self.resize.is_some() || !(asked.tty && sized))
    }
}

/// Speaks on this connection; `None` when the asker does not open the streams that it asked for.
pub(super) async fn start<S>(connection: S, protocol: &'static str, asked: &Asked) -> Option<Asker>
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let mut session = Session::start(connection);
    let sized = !matches!(protocol, "v2.channel.k8s.io" | "channel.k8s.io");
    let collecting = async {
        let mut streams = Streams::default();
        while !streams.are_complete(asked, sized) {
            streams.add(session.next().await?);
        }
        Some(streams)
    };
    let streams = tokio::time::timeout(PATIENCE, collecting).await.ok()??;
    let gone = session.gone();
    let (typed, input) = mpsc::channel(MESSAGES);
    let (output, messages) = mpsc::channel(MESSAGES);
    let writers = Writers {
        error: streams.error.map(|stream| stream.writer),
        stdout: streams.stdout.map(|stream| stream.writer),
        stderr: streams.stderr.map(|stream| stream.writer),
        others: Vec::new(),
    };
    let mut writers = writers;
    if let Some(stdin) = streams.stdin {
        writers.others.push(stdin.writer);
        tokio::spawn(hear(stdin.pieces, typed.clone(), gone.clone()));
    }
    if let Some(sizes) = streams.resize {
        writers.others.push(sizes.writer);
        tokio::spawn(measure(sizes.pieces, typed));
    }
    let in_words = matches!(protocol, "v5.channel.k8s.io" | "v4.channel.k8s.io");
    tokio::spawn(tell(session, writers, messages, in_words));
    Some(Asker {
        input,
        output,
        gone,
    })
}

/// Our sides of the streams.
struct Writers {
    error: Option<Writer>,
    stdout: Option<Writer>,
    stderr: Option<Writer>,
    /// Those on which only the client speaks.
    others: Vec<Writer>,
}

/// Tells the asker all that there is to tell; then the session is dropped, and the connection closed.
async fn tell(
    _session: Session,
    writers: Writers,
    mut messages: mpsc::Receiver<Out>,
    as_status: bool,
) {
    while let Some(message) = messages.recv().await {
        let sent = match message {
            Out::Stdout(bytes) => send(writers.stdout.as_ref(), bytes).await,
            Out::Stderr(bytes) => send(writers.stderr.as_ref(), bytes).await,
            // The session asks by itself.
            Out::Ask => true,
            Out::End(result) => {
                end(&writers, result, as_status).await;
                false
            }
        };
        if !sent {
            return;
        }
    }
}

async fn send(writer: Option<&Writer>, bytes: Bytes) -> bool {
    match writer {
        Some(writer) => writer.send(bytes).await.is_ok(),
        None => true,
    }
}

/// Closes the outputs, tells the end on the error stream and closes that.
async fn end(writers: &Writers, result: Result<i32, String>, as_status: bool) {
    for writer in [&writers.stdout, &writers.stderr].into_iter().flatten() {
        // Whoever asked may have gone, here and below.
        let _ = writer.finish().await;
    }
    let words = match (as_status, result) {
        (true, result) => Some(status(result)),
        (false, Ok(0)) => None,
        // upstream: the words of v1 to v3.
        (false, Ok(code)) => Some(Bytes::from(format!(
            "Error executing remote command: command terminated with exit code {code}"
        ))),
        (false, Err(why)) => Some(Bytes::from(format!(
            "Error executing remote command: {why}"
        ))),
    };
    if let Some(error) = &writers.error {
        if let Some(words) = words {
            let _ = error.send(words).await;
        }
        let _ = error.finish().await;
    }
    for writer in &writers.others {
        let _ = writer.finish().await;
    }
}

async fn hear(
    mut pieces: mpsc::Receiver<Piece>,
    typed: mpsc::Sender<In>,
    gone: watch::Receiver<bool>,
) {
    while let Some(Piece::Bytes(bytes)) = pieces.recv().await {
        if typed.send(In::Stdin(bytes)).await.is_err() {
            return;
        }
    }
    // The end of the connection is not the end of the input: that is told by `gone`.
    if !*gone.borrow() {
        // A program that has ended needs no end of its input.
        let _ = typed.send(In::StdinEnd).await;
    }
}

/// Window sizes come as JSON, one behind the other.
async fn measure(mut pieces: mpsc::Receiver<Piece>, typed: mpsc::Sender<In>) {
    let mut held = Vec::new();
    while let Some(Piece::Bytes(bytes)) = pieces.recv().await {
        held.extend_from_slice(&bytes);
        while let Some(end) = held.iter().position(|byte| *byte == b'}') {
            let one: Vec<u8> = held.drain(..=end).collect();
            if let Some(size) = resize(&one)
                && typed.send(size).await.is_err()
            {
                return;
            }
        }
        if held.len() > LONGEST_SIZE {
            held.clear();
        }
    }
}

/// No size takes more bytes.
const LONGEST_SIZE: usize = 256;
