//! The daemon's side of an attach: talks to the container's shim at its socket.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use futures::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};

use super::frames::{self, Channel, Frames};
use super::open::system;
use super::record::RecordDir;
use super::{ContainerId, ExecSession, RuntimeError};

/// How much waits between the shim and whoever reads.
const HELD: usize = 64 * 1_024;
/// How many window sizes may wait to be set.
const SIZES: usize = 4;

/// Joins the streams of the container of this record. Returns when the shim has said so: all that the container
/// writes from then on is told.
pub(super) async fn attach(
    id: &ContainerId,
    dir: &RecordDir,
    stdin: bool,
) -> Result<ExecSession, RuntimeError> {
    let what = || system(format!("attach to container {}", id.container));
    let order = dir.order().map_err(what())?;
    let Some(order) = order else {
        return Err(RuntimeError::NotRunning(id.clone()));
    };
    let stdin = stdin && order.spec.stdin;
    join(dir, stdin, order.spec.tty).await.map_err(what())
}

async fn join(dir: &RecordDir, stdin: bool, tty: bool) -> io::Result<ExecSession> {
    let folder = File::open(dir.path())?;
    let name = RecordDir::attach_socket();
    let path = format!("/proc/self/fd/{}/{name}", folder.as_raw_fd());
    let (mut reader, mut writer) = UnixStream::connect(path).await?.into_split();
    let mut frames = Frames::default();
    match next(&mut reader, &mut frames).await? {
        Some((Channel::Attached, _)) => {}
        Some(_) => return Err(io::Error::from(io::ErrorKind::InvalidData)),
        None => return Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
    }
    let (stdout, stdout_in) = tokio::io::duplex(HELD);
    let (stderr, stderr_in) = tokio::io::duplex(HELD);
    let (over, ended) = oneshot::channel();
    tokio::spawn(hear(reader, frames, stdout_in, stderr_in, over));
    let (stdin_out, typed) = tokio::io::duplex(HELD);
    let (resize, sizes) = mpsc::channel(SIZES);
    let typed = if stdin {
        send(&mut writer, Channel::Stdin, &[]).await?;
        Some(typed)
    } else {
        None
    };
    tokio::spawn(tell(writer, typed, sizes));
    Ok(ExecSession {
        stdin: stdin.then(|| Box::new(stdin_out) as Box<dyn tokio::io::AsyncWrite + Send + Unpin>),
        stdout: Box::new(stdout),
        stderr: (!tty).then(|| Box::new(stderr) as Box<dyn tokio::io::AsyncRead + Send + Unpin>),
        // The sender goes with the connection: that is the end too.
        exit: ended.map(|_| Ok(0)).boxed(),
        resize: Some(resize),
    })
}

async fn next(
    reader: &mut OwnedReadHalf,
    frames: &mut Frames,
) -> io::Result<Option<(Channel, Vec<u8>)>> {
    let mut piece = vec![0; HELD];
    loop {
        if let Some(message) = frames.next().map_err(io::Error::other)? {
            return Ok(Some(message));
        }
        match reader.read(&mut piece).await? {
            0 => return Ok(None),
            count => frames.push(&piece[..count]),
        }
    }
}

/// Passes on what the container writes, until it has ended or nobody listens any more.
async fn hear(
    mut reader: OwnedReadHalf,
    mut frames: Frames,
    mut stdout: DuplexStream,
    mut stderr: DuplexStream,
    over: oneshot::Sender<()>,
) {
    while let Ok(Some((channel, bytes))) = next(&mut reader, &mut frames).await {
        let written = match channel {
            Channel::Stdout => stdout.write_all(&bytes).await,
            Channel::Stderr => stderr.write_all(&bytes).await,
            Channel::Stdin | Channel::Resize | Channel::Close | Channel::Attached => Ok(()),
        };
        if written.is_err() {
            return;
        }
    }
    // Whoever listened may be gone.
    let _ = over.send(());
}

/// Passes on what is typed and how large the window is, until the session is dropped.
async fn tell(
    mut writer: OwnedWriteHalf,
    mut typed: Option<DuplexStream>,
    mut sizes: mpsc::Receiver<(u16, u16)>,
) {
    let mut piece = vec![0; HELD];
    loop {
        let told = tokio::select! {
            // A size that was told before a line comes before it.
            biased;
            size = sizes.recv() => match size {
                Some((columns, rows)) => {
                    let [a, b] = columns.to_be_bytes();
                    let [c, d] = rows.to_be_bytes();
                    send(&mut writer, Channel::Resize, &[a, b, c, d]).await
                }
                None => return,
            },
            count = read(&mut typed, &mut piece) => match count {
                Ok(count) if count > 0 => send(&mut writer, Channel::Stdin, &piece[..count]).await,
                Ok(_) | Err(_) => {
                    typed = None;
                    send(&mut writer, Channel::Close, &[]).await
                }
            },
        };
        if told.is_err() {
            return;
        }
    }
}

async fn read(typed: &mut Option<DuplexStream>, piece: &mut [u8]) -> io::Result<usize> {
    match typed {
        Some(typed) => typed.read(piece).await,
        None => std::future::pending().await,
    }
}

async fn send(writer: &mut OwnedWriteHalf, channel: Channel, bytes: &[u8]) -> io::Result<()> {
    let mut message = Vec::with_capacity(bytes.len() + 8);
    frames::write(channel, bytes, &mut message);
    writer.write_all(&message).await
}
