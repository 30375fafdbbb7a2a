//! The daemon's side of running a program in a container: starts the helper, hands it the streams, waits for the end.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::pin::Pin;
use std::process::Stdio;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::FutureExt;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::unix::pipe;
use tokio::sync::mpsc;

use crate::shim::{ExecAnswer, ExecOrder};
use crate::sys;

use super::open::system;
use super::record::{CONTAINER_VARIABLE, POD_VARIABLE, RecordDir};
use super::{ContainerId, ExecRequest, ExecSession, RuntimeError};

/// The exit code of a program that SIGKILL ended.
const KILLED: i32 = 137;
/// How many window sizes may wait to be set.
const SIZES: usize = 4;

/// Runs a program in the container of this record.
pub(super) async fn exec(
    shim: &Path,
    id: &ContainerId,
    dir: &RecordDir,
    request: &ExecRequest,
) -> Result<ExecSession, RuntimeError> {
    let program = request.argv.first().map_or("", String::as_str);
    let what = format!("run {program:?} in container {}", id.container);
    run(shim, id, dir, request, what.clone())
        .await
        .map_err(system(what))
}

async fn run(
    shim: &Path,
    id: &ContainerId,
    dir: &RecordDir,
    request: &ExecRequest,
    what: String,
) -> io::Result<ExecSession> {
    let (ours, theirs) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?;
    start_helper(shim, id, dir, theirs)?;
    let (streams, child) = Streams::make(request)?;
    send(ours.as_fd(), request, &child)?;
    drop(child);
    rustix::io::ioctl_fionbio(&ours, true)?;
    let socket = sys::watched(ours, Interest::READABLE)?;
    let terminal = match receive(&socket).await? {
        (ExecAnswer::Started, terminal) => terminal,
        (ExecAnswer::Refused(sentence), _) => return Err(io::Error::other(sentence)),
        (ExecAnswer::Exited(_), _) => return Err(io::Error::from(io::ErrorKind::InvalidData)),
    };
    let exit = async move {
        match receive(&socket).await {
            Ok((ExecAnswer::Exited(code), _)) => Ok(code),
            Ok((ExecAnswer::Started | ExecAnswer::Refused(_), _)) => {
                Err(system(what)(io::Error::from(io::ErrorKind::InvalidData)))
            }
            // The helper bears the container's marks, and was ended with it.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(KILLED),
            Err(error) => Err(system(what)(error)),
        }
    }
    .boxed();
    match terminal {
        None => Ok(streams.session(exit)),
        Some(terminal) => terminal_session(terminal, request.stdin, exit),
    }
}

type Exit = futures::future::BoxFuture<'static, Result<i32, RuntimeError>>;

fn start_helper(shim: &Path, id: &ContainerId, dir: &RecordDir, socket: OwnedFd) -> io::Result<()> {
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(dir.shim_log())?;
    // Not waited for: its answers tell everything, and Tokio reaps it. Its variables are the container's marks: it
    // goes with the container.
    tokio::process::Command::new(shim)
        .args(["shim", "exec"])
        .arg(dir.path())
        .env_clear()
        .env(POD_VARIABLE, &id.pod_uid)
        .env(
            CONTAINER_VARIABLE,
            format!("{}.{}", id.container, id.attempt),
        )
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::from(socket))
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .map(drop)
}

/// The daemon's ends of the streams of a program without a terminal.
struct Streams {
    stdin: Option<pipe::Sender>,
    output: Option<(pipe::Receiver, pipe::Receiver)>,
}

impl Streams {
    /// Ours, and those to hand over: standard input if wanted, output, error; none where a terminal is wanted.
    fn make(request: &ExecRequest) -> io::Result<(Self, Vec<OwnedFd>)> {
        let mut child = Vec::new();
        if request.tty {
            let none = Self {
                stdin: None,
                output: None,
            };
            return Ok((none, child));
        }
        let stdin = if request.stdin {
            let (theirs, ours) = io::pipe()?;
            child.push(theirs.into());
            Some(pipe::Sender::from_owned_fd(ours.into())?)
        } else {
            None
        };
        let mut output = || {
            let (ours, theirs) = io::pipe()?;
            child.push(theirs.into());
            pipe::Receiver::from_owned_fd(ours.into())
        };
        let output = Some((output()?, output()?));
        Ok((Self { stdin, output }, child))
    }

    fn session(self, exit: Exit) -> ExecSession {
        let (stdout, stderr): (
            Box<dyn AsyncRead + Send + Unpin>,
            Option<Box<dyn AsyncRead + Send + Unpin>>,
        ) = match self.output {
            Some((stdout, stderr)) => (Box::new(stdout), Some(Box::new(stderr))),
            None => (Box::new(tokio::io::empty()), None),
        };
        ExecSession {
            stdin: self
                .stdin
                .map(|stdin| Box::new(stdin) as Box<dyn AsyncWrite + Send + Unpin>),
            stdout,
            stderr,
            exit,
            resize: None,
        }
    }
}

fn send(socket: BorrowedFd<'_>, request: &ExecRequest, streams: &[OwnedFd]) -> io::Result<()> {
    let order = serde_json::to_vec(&ExecOrder {
        argv: request.argv.clone(),
        stdin: request.stdin,
        tty: request.tty,
    })?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds: Vec<BorrowedFd<'_>> = streams.iter().map(AsFd::as_fd).collect();
    if !fds.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(&fds));
    }
    sendmsg(
        socket,
        &[io::IoSlice::new(&order)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

/// The next answer, with the terminal that may come with it.
async fn receive(socket: &AsyncFd<OwnedFd>) -> io::Result<(ExecAnswer, Option<OwnedFd>)> {
    loop {
        let mut ready = socket.readable().await?;
        match ready.try_io(|socket| receive_now(socket.get_ref())) {
            Ok(result) => return result,
            Err(_would_block) => {}
        }
    }
}

fn receive_now(socket: &OwnedFd) -> io::Result<(ExecAnswer, Option<OwnedFd>)> {
    let mut bytes = vec![0; 64 * 1024];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = recvmsg(
        socket,
        &mut [io::IoSliceMut::new(&mut bytes)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    if message.bytes == 0 {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the helper ended without an answer",
        ));
    }
    let answer = serde_json::from_slice(bytes.get(..message.bytes).unwrap_or_default())?;
    let fd = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    Ok((answer, fd))
}

fn terminal_session(fd: OwnedFd, stdin: bool, exit: Exit) -> io::Result<ExecSession> {
    rustix::io::ioctl_fionbio(&fd, true)?;
    let fd = Arc::new(sys::watched(fd, Interest::READABLE | Interest::WRITABLE)?);
    let (resize, mut sizes) = mpsc::channel::<(u16, u16)>(SIZES);
    let sized = Arc::clone(&fd);
    tokio::spawn(async move {
        while let Some((columns, rows)) = sizes.recv().await {
            let size = Winsize {
                ws_row: rows,
                ws_col: columns,
                ws_xpixel: 0,
                ws_ypixel: 0,
            };
            // A terminal that is closed has no size.
            let _ = tcsetwinsize(sized.get_ref(), size);
        }
    });
    Ok(ExecSession {
        stdin: stdin
            .then(|| Box::new(Terminal(Arc::clone(&fd))) as Box<dyn AsyncWrite + Send + Unpin>),
        stdout: Box::new(Terminal(fd)),
        stderr: None,
        exit,
        resize: Some(resize),
    })
}

/// The daemon's end of a terminal.
struct Terminal(Arc<AsyncFd<OwnedFd>>);

impl AsyncRead for Terminal {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.0.poll_read_ready(context))?;
            let read = ready.try_io(|fd| {
                Ok(rustix::io::read(
                    fd.get_ref(),
                    buffer.initialize_unfilled(),
                )?)
            });
            match read {
                Ok(Ok(count)) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                // The program's end is closed: that is how a terminal says it.
                Ok(Err(error))
                    if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) =>
                {
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for Terminal {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.0.poll_write_ready(context))?;
            match ready.try_io(|fd| Ok(rustix::io::write(fd.get_ref(), bytes)?)) {
                Ok(result) => return Poll::Ready(result),
                Err(_would_block) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
