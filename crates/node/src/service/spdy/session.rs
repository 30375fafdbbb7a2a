//! One connection of SPDY: streams that the client opens, each with bytes both ways.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot, watch};

use super::frame::{Decoder, Encoder, Frame};
use super::headers::Headers;

/// How many pieces of one stream wait before the connection waits.
const PIECES: usize = 16;
/// How many frames wait to be written.
const FRAMES: usize = 16;
/// Streams that nobody has taken yet.
const NEW: usize = 16;
/// How much is read, and sent in one frame, at most.
const PIECE: usize = 32 * 1_024;
/// While a stream holds up the connection, whether the client is still there is found out this often.
const ASK: Duration = Duration::from_secs(5);
/// How long a client may take to close its side when all is said.
const FAREWELL: Duration = Duration::from_secs(10);
/// Streams of one connection at a time.
const MOST: usize = 4_096;
/// The status of a stream that was not taken: SPDY/3, section 2.6.3.
const REFUSED_STREAM: u32 = 3;

/// A connection.
pub(in crate::service) struct Session {
    streams: mpsc::Receiver<Stream>,
    gone: watch::Receiver<bool>,
    /// Dropped with the session.
    _life: oneshot::Sender<()>,
}

/// What comes on a stream; after the last piece the channel is closed.
#[derive(Debug)]
pub(in crate::service) enum Piece {
    Bytes(Bytes),
    /// The client gave it up.
    Reset,
}

/// One stream.
pub(in crate::service) struct Stream {
    pub(in crate::service) headers: Headers,
    pub(in crate::service) pieces: mpsc::Receiver<Piece>,
    pub(in crate::service) writer: Writer,
}

/// Our side of a stream.
#[derive(Clone)]
pub(in crate::service) struct Writer {
    stream: u32,
    frames: mpsc::Sender<Frame>,
}

/// The connection is gone.
#[derive(Debug, Clone, Copy)]
pub(in crate::service) struct Gone;

impl Writer {
    pub(in crate::service) async fn send(&self, bytes: Bytes) -> Result<(), Gone> {
        self.data(bytes, false).await
    }

    /// Nothing more comes on it from here.
    pub(in crate::service) async fn finish(&self) -> Result<(), Gone> {
        self.data(Bytes::new(), true).await
    }

    async fn data(&self, bytes: Bytes, last: bool) -> Result<(), Gone> {
        let stream = self.stream;
        let frame = Frame::Data {
            stream,
            bytes,
            last,
        };
        self.frames.send(frame).await.map_err(|_| Gone)
    }
}

impl Session {
    /// Speaks on this connection until it ends, or the session and all of its streams are dropped.
    pub(in crate::service) fn start<S>(connection: S) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (reader, writer) = tokio::io::split(connection);
        let (told, gone) = watch::channel(false);
        let told = Arc::new(told);
        let (new, streams) = mpsc::channel(NEW);
        let (frames, outgoing) = mpsc::channel(FRAMES);
        let (life, ended) = oneshot::channel();
        tokio::spawn(write(writer, outgoing, Arc::clone(&told)));
        tokio::spawn(async move {
            let reading = Reading {
                new,
                frames,
                open: BTreeMap::new(),
                asked: 0,
            };
            reading.run(reader, ended).await;
            told.send_replace(true);
        });
        Self {
            streams,
            gone,
            _life: life,
        }
    }

    /// The next stream that the client opens; `None` when there will be none.
    pub(in crate::service) async fn next(&mut self) -> Option<Stream> {
        self.streams.recv().await
    }

    /// Becomes true when the connection is gone.
    pub(in crate::service) fn gone(&self) -> watch::Receiver<bool> {
        self.gone.clone()
    }
}

/// The reading side.
struct Reading {
    new: mpsc::Sender<Stream>,
    frames: mpsc::Sender<Frame>,
    open: BTreeMap<u32, mpsc::Sender<Piece>>,
    asked: u32,
}

impl Reading {
    async fn run(
        mut self,
        mut reader: ReadHalf<impl AsyncRead + AsyncWrite>,
        mut ended: oneshot::Receiver<()>,
    ) {
        let mut decoder = Decoder::new();
        let mut piece = vec![0; PIECE];
        loop {
            let count = tokio::select! {
                count = reader.read(&mut piece) => count,
                _ = &mut ended => break,
            };
            match count {
                Ok(count) if count > 0 => decoder.push(&piece[..count]),
                Ok(_) | Err(_) => return,
            }
            if self.take_all(&mut decoder).await.is_err() {
                return;
            }
        }
        drop(self);
        // What the client has sent and nobody reads would reset the connection, and take our last words with it.
        let discarding =
            async { while matches!(reader.read(&mut piece).await, Ok(count) if count > 0) {} };
        // A client that stays for no reason is left.
        let _ = tokio::time::timeout(FAREWELL, discarding).await;
    }

    async fn take_all(&mut self, decoder: &mut Decoder) -> Result<(), Gone> {
        loop {
            match decoder.next() {
                Ok(Some(frame)) => self.take(frame).await?,
                Ok(None) => return Ok(()),
                Err(error) => {
                    tracing::debug!(%error, "a client of streams is not understood; its connection is closed");
                    return Err(Gone);
                }
            }
        }
    }

    async fn take(&mut self, frame: Frame) -> Result<(), Gone> {
        match frame {
            Frame::Open {
                stream,
                headers,
                last,
            } => self.open(stream, headers, last).await,
            Frame::Data {
                stream,
                bytes,
                last,
            } => {
                if !bytes.is_empty() {
                    self.pass(stream, Piece::Bytes(bytes)).await?;
                }
                if last {
                    self.open.remove(&stream);
                }
                Ok(())
            }
            Frame::Reset { stream, .. } => {
                self.pass(stream, Piece::Reset).await?;
                self.open.remove(&stream);
                Ok(())
            }
            // Ours have even numbers; an answer to one of those says enough by having come.
            Frame::Ping(id) if id % 2 == 1 => self.send(Frame::Ping(id)).await,
            Frame::Ping(_) | Frame::Accept { .. } | Frame::GoAway | Frame::Other => Ok(()),
        }
    }

    async fn open(&mut self, stream: u32, headers: Headers, last: bool) -> Result<(), Gone> {
        if self.open.len() >= MOST || self.open.contains_key(&stream) {
            let status = REFUSED_STREAM;
            return self.send(Frame::Reset { stream, status }).await;
        }
        let (sender, pieces) = mpsc::channel(PIECES);
        if !last {
            self.open.insert(stream, sender);
        }
        self.send(Frame::Accept { stream }).await?;
        let writer = Writer {
            stream,
            frames: self.frames.clone(),
        };
        let stream = Stream {
            headers,
            pieces,
            writer,
        };
        self.new.send(stream).await.map_err(|_| Gone)
    }

    /// Passes a piece on. While its stream takes none, the client is asked for a sign of life: without one there is
    /// nobody to wait for, and the writing side learns of that.
    async fn pass(&mut self, stream: u32, piece: Piece) -> Result<(), Gone> {
        let Some(sender) = self.open.get(&stream).cloned() else {
            return Ok(());
        };
        let mut passing = std::pin::pin!(sender.send(piece));
        loop {
            tokio::select! {
                // A stream that nobody reads is as good as read.
                _ = &mut passing => return Ok(()),
                () = tokio::time::sleep(ASK) => {
                    self.asked = self.asked.wrapping_add(2);
                    self.send(Frame::Ping(self.asked)).await?;
                }
            }
        }
    }

    async fn send(&self, frame: Frame) -> Result<(), Gone> {
        self.frames.send(frame).await.map_err(|_| Gone)
    }
}

/// Writes frames as they come; closes this direction when nobody can send any more.
async fn write(
    mut writer: WriteHalf<impl AsyncRead + AsyncWrite>,
    mut frames: mpsc::Receiver<Frame>,
    told: Arc<watch::Sender<bool>>,
) {
    let Ok(mut encoder) = Encoder::new() else {
        told.send_replace(true);
        return;
    };
    let mut bytes = Vec::new();
    while let Some(frame) = frames.recv().await {
        let mut next = Some(frame);
        let mut written = Ok(());
        while let Some(frame) = next {
            written = written.and(encoder.write(&frame, &mut bytes));
            next = (bytes.len() < PIECE)
                .then(|| frames.try_recv().ok())
                .flatten();
        }
        let sent = async { writer.write_all(&bytes).await.and(writer.flush().await) };
        if written.is_err() || sent.await.is_err() {
            told.send_replace(true);
            return;
        }
        bytes.clear();
    }
    // The connection ends here whether this is heard or not.
    if encoder.write(&Frame::GoAway, &mut bytes).is_ok() {
        let _ = writer.write_all(&bytes).await;
    }
    let _ = writer.shutdown().await;
}
