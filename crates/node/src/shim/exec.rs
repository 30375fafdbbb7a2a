//! One more program in a running container: a helper that joins its namespaces, runs it and says how it ended.
//!
//! It is told what to run on its standard input, a socket that carries the program's streams too. When that socket
//! closes, whoever asked is gone, and the program is ended.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{SigSet, Signal as NixSignal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use rustix::process::{Signal, WaitOptions, kill_process, waitpid};
use serde::{Deserialize, Serialize};

use crate::runtime::{Order, RecordDir, Tier, raw_pid};
use crate::sys::OneThread;

use super::launch::{ChildStreams, Side, StartFailure, begin_session, fork_gated, open_terminal};
use super::program::Program;

/// What is to run. Its streams come with it: standard input (if wanted), output and error, unless it has a terminal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ExecOrder {
    pub(crate) argv: Vec<String>,
    pub(crate) stdin: bool,
    pub(crate) tty: bool,
}

/// What the helper answers: first whether the program runs, with the terminal if there is one; then its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum ExecAnswer {
    Started,
    /// In the words that runc uses.
    Refused(String),
    Exited(i32),
}

/// Runs what comes on standard input in the container of this record.
pub(super) fn exec(dir: &RecordDir) -> io::Result<()> {
    let socket = io::stdin();
    let (exec, streams) = receive(socket.as_fd())?;
    let mut mask = SigSet::empty();
    mask.add(NixSignal::SIGCHLD);
    mask.thread_block()?;
    let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    match start(dir, &exec, streams) {
        Ok((pid, terminal)) => {
            answer(socket.as_fd(), &ExecAnswer::Started, terminal.as_ref())?;
            drop(terminal);
            let code = supervise(pid, socket.as_fd(), &signals)?;
            answer(socket.as_fd(), &ExecAnswer::Exited(code), None)
        }
        Err(StartFailure(sentence)) => answer(socket.as_fd(), &ExecAnswer::Refused(sentence), None),
    }
}

fn receive(socket: BorrowedFd<'_>) -> io::Result<(ExecOrder, Vec<OwnedFd>)> {
    let mut bytes = vec![0; 1024 * 1024];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = recvmsg(
        socket,
        &mut [io::IoSliceMut::new(&mut bytes)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let streams = control
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        })
        .flatten()
        .collect();
    let order = serde_json::from_slice(bytes.get(..message.bytes).unwrap_or_default())?;
    Ok((order, streams))
}

/// One answer is one message: the socket keeps their borders.
fn answer(socket: BorrowedFd<'_>, answer: &ExecAnswer, fd: Option<&OwnedFd>) -> io::Result<()> {
    let bytes = serde_json::to_vec(answer)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds: Vec<BorrowedFd<'_>> = fd.into_iter().map(AsFd::as_fd).collect();
    if !fds.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(&fds));
    }
    match sendmsg(
        socket,
        &[io::IoSlice::new(&bytes)],
        &mut control,
        SendFlags::NOSIGNAL,
    ) {
        // Whoever asked is gone.
        Ok(_) | Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET) => Ok(()),
        Err(other) => Err(other.into()),
    }
}

/// Starts the program; its PID, and the terminal's end that is not the program's.
fn start(
    dir: &RecordDir,
    exec: &ExecOrder,
    streams: Vec<OwnedFd>,
) -> Result<(u32, Option<OwnedFd>), StartFailure> {
    let alone = OneThread::prove()?;
    let gone = || StartFailure("the container is not running".to_owned());
    let order = dir.order()?.ok_or_else(gone)?;
    let first = dir.first()?.ok_or_else(gone)?;
    let init = first.process.open(&order.boot)?.ok_or_else(gone)?;
    let program = program(&order, exec)?;
    // While the machine's own /dev can still be seen.
    let null: OwnedFd = std::fs::File::open("/dev/null")?.into();
    join(&order, &init)?;
    let (streams, terminal) = if exec.tty {
        let (streams, master) = open_terminal()?;
        (streams, Some(master))
    } else {
        (child_streams(streams, null)?, None)
    };
    match fork_gated(alone, CloneFlags::empty())? {
        Side::Child(mut gate) => {
            gate.pass();
            let sentence = match begin_session().and_then(|()| streams.take_over(exec.tty)) {
                Ok(()) => program.run(),
                Err(sentence) => sentence,
            };
            gate.fail(&sentence)
        }
        Side::Parent(keeper) => {
            drop(streams);
            let pid = keeper.open()?;
            Ok((pid, terminal))
        }
    }
}

/// The container's own program, but for what is run.
fn program(order: &Order, exec: &ExecOrder) -> Result<Program, StartFailure> {
    let mut program = match order.tier {
        Tier::Processes => super::processes::program(order)?,
        Tier::Rootless => super::rootless::program(order)?,
        Tier::Containers => super::containers::program(order)?,
    };
    program.argv.clone_from(&exec.argv);
    if exec.tty {
        program.default_variable("TERM", "xterm");
    }
    Ok(program)
}

/// Joins the namespaces of the container, where it has any.
fn join(order: &Order, init: &OwnedFd) -> io::Result<()> {
    match order.tier {
        Tier::Processes => Ok(()),
        Tier::Rootless => Ok(setns(init, super::rootless::NAMESPACES)?),
        Tier::Containers => super::containers::join(order, init),
    }
}

/// Without standard input it is empty.
fn child_streams(mut streams: Vec<OwnedFd>, null: OwnedFd) -> io::Result<ChildStreams> {
    let mut last = || streams.pop();
    match (last(), last(), last()) {
        (Some(stderr), Some(stdout), stdin) => Ok(ChildStreams {
            stdin: stdin.unwrap_or(null),
            stdout,
            stderr,
        }),
        (_, _, _) => Err(io::Error::from(io::ErrorKind::InvalidInput)),
    }
}

/// Waits for the program's end; ends it when whoever asked is gone.
fn supervise(pid: u32, socket: BorrowedFd<'_>, signals: &SignalFd) -> io::Result<i32> {
    let child = raw_pid(pid);
    let mut asked = true;
    loop {
        match waitpid(child, WaitOptions::NOHANG) {
            Ok(Some((_, status))) => {
                let code = status.exit_status();
                let signal = status.terminating_signal().map(|signal| 128 + signal);
                return Ok(code.or(signal).unwrap_or(1));
            }
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(other) => return Err(other.into()),
        }
        let mut fds = vec![PollFd::new(signals, PollFlags::IN)];
        if asked {
            fds.push(PollFd::from_borrowed_fd(socket, PollFlags::IN));
        }
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(other) => return Err(other.into()),
        }
        // Nothing more is ever sent: what can be read is the end.
        let closed = fds.get(1).is_some_and(|fd| !fd.revents().is_empty());
        if closed && let Some(child) = child {
            asked = false;
            kill_process(child, Signal::KILL)?;
        }
        while signals.read_signal()?.is_some() {}
    }
}
