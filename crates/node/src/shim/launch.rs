//! Starting the first process of a container, whatever the tier: it is on record before its program runs.
//!
//! The child stops at a gate, a pipe of its shim: the shim writes down who the child is and opens the gate. A shim
//! that dies before that closes the gate, and the child goes without having run anything.

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::OwnedFd;

use nix::sched::CloneFlags;
use rustix::fs::{Mode, OFlags};
use rustix::process::{Signal, set_parent_process_death_signal};
use rustix::pty::OpenptFlags;

use crate::cgroup::Cgroup;
use crate::runtime::{First, Order, ProcessMark, RecordDir, Tier};
use crate::seccomp::{self, Instruction};
use crate::sys::{Forked, OneThread};

/// A container could not be started. upstream: the kubelet's `StartError`, exit code 128.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StartFailure(pub(super) String);

impl From<io::Error> for StartFailure {
    fn from(error: io::Error) -> Self {
        Self(error.to_string())
    }
}

/// A container whose program runs.
pub(super) struct Launched {
    /// Its first process, a child of this shim.
    pub(super) pid: u32,
    /// Its streams.
    pub(super) streams: ShimStreams,
}

/// The shim's ends of a container's streams.
pub(super) struct ShimStreams {
    /// What it writes; everything, with a terminal.
    pub(super) stdout: OwnedFd,
    /// What it complains about, without a terminal.
    pub(super) stderr: Option<OwnedFd>,
    /// Where it reads, when it is to be able to.
    pub(super) stdin: Option<OwnedFd>,
}

/// Launches the container of this order.
pub(super) fn launch(order: &Order, dir: &RecordDir) -> Result<Launched, StartFailure> {
    match order.tier {
        Tier::Processes => super::processes::launch(order, dir),
        Tier::Rootless => super::rootless::launch(order, dir),
        Tier::Containers => super::containers::launch(order, dir),
    }
}

/// The filter of system calls of a container that has these capabilities. upstream: a privileged one has none.
pub(super) fn filter(
    order: &Order,
    capabilities: &[u32],
) -> Result<Option<Vec<Instruction>>, StartFailure> {
    if order.spec.privileged {
        return Ok(None);
    }
    let capabilities = super::capabilities::names(capabilities);
    seccomp::filter(&order.spec.confinement.seccomp, &capabilities)
        .map_err(|error| StartFailure(format!("use its seccomp profile: {error}")))
}

/// Whether the kernel ended a process of this container for want of memory. Told by its cgroup, where it has one.
pub(super) fn ran_out_of_memory(order: &Order) -> bool {
    cgroup(order).is_some_and(|cgroup| cgroup.ran_out_of_memory())
}

/// Takes back what launching took from the kernel, when every process is gone.
pub(super) fn clean_up(order: &Order) {
    if let Some(cgroup) = cgroup(order) {
        cgroup.remove();
    }
}

/// The cgroup of the container, in the tier that has them.
pub(super) fn cgroup(order: &Order) -> Option<Cgroup> {
    Cgroup::of(order.place.cgroup.as_deref()?, &order.spec.id)
}

/// The child's ends of its standard streams.
pub(super) struct ChildStreams {
    pub(super) stdin: OwnedFd,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
}

impl ChildStreams {
    /// Makes them the standard streams of the calling process, which leads a session; a terminal becomes its own.
    pub(super) fn take_over(&self, tty: bool) -> Result<(), String> {
        if tty {
            rustix::process::ioctl_tiocsctty(&self.stdin)
                .map_err(|error| format!("take the terminal: {error}"))?;
        }
        rustix::stdio::dup2_stdin(&self.stdin)
            .and_then(|()| rustix::stdio::dup2_stdout(&self.stdout))
            .and_then(|()| rustix::stdio::dup2_stderr(&self.stderr))
            .map_err(|error| format!("set up standard streams: {error}"))
    }
}

/// Makes the calling process the leader of a session of its own.
pub(super) fn begin_session() -> Result<(), String> {
    rustix::process::setsid()
        .map(|_| ())
        .map_err(|error| format!("begin a session: {error}"))
}

/// The streams of this container: the shim's ends and the child's.
pub(super) fn make_streams(order: &Order) -> io::Result<(ShimStreams, ChildStreams)> {
    if order.spec.tty {
        let (child, master) = open_terminal()?;
        let shim = ShimStreams {
            stdout: master,
            stderr: None,
            stdin: None,
        };
        return Ok((shim, child));
    }
    let (stdin, child_stdin): (Option<OwnedFd>, OwnedFd) = if order.spec.stdin {
        let (child, shim) = io::pipe()?;
        (Some(shim.into()), child.into())
    } else {
        (None, File::open("/dev/null")?.into())
    };
    let (stdout, child_stdout) = io::pipe()?;
    let (stderr, child_stderr) = io::pipe()?;
    let shim = ShimStreams {
        stdout: stdout.into(),
        stderr: Some(stderr.into()),
        stdin,
    };
    let child = ChildStreams {
        stdin: child_stdin,
        stdout: child_stdout.into(),
        stderr: child_stderr.into(),
    };
    Ok((shim, child))
}

/// A terminal of the caller's /dev: the program's end three times, and the other end.
pub(super) fn open_terminal() -> io::Result<(ChildStreams, OwnedFd)> {
    let master = rustix::fs::open(
        "/dev/ptmx",
        OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    rustix::pty::unlockpt(&master)?;
    let slave = rustix::pty::ioctl_tiocgptpeer(
        &master,
        OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC,
    )?;
    let streams = ChildStreams {
        stdin: slave.try_clone()?,
        stdout: slave.try_clone()?,
        stderr: slave,
    };
    Ok((streams, master))
}

/// The child's side of the way from fork to exec.
pub(super) struct Gate {
    opened: PipeReader,
    failure: PipeWriter,
}

/// The parent's side.
pub(super) struct Keeper {
    pub(super) pid: u32,
    open: PipeWriter,
    failure: PipeReader,
}

/// Which side of [`fork_gated`] this is.
pub(super) enum Side {
    Parent(Keeper),
    Child(Gate),
}

/// Forks a child, into these new namespaces, that is held at a gate and that dies with this process.
pub(super) fn fork_gated(alone: OneThread, namespaces: CloneFlags) -> io::Result<Side> {
    let (opened, open) = io::pipe()?;
    let (failure_read, failure) = io::pipe()?;
    match alone.fork(namespaces)? {
        Forked::Parent(pid) => Ok(Side::Parent(Keeper {
            pid,
            open,
            failure: failure_read,
        })),
        Forked::Child => {
            drop(open);
            drop(failure_read);
            Ok(Side::Child(Gate { opened, failure }))
        }
    }
}

impl Gate {
    /// Waits for the keeper. A keeper that is gone closed the gate: the child then ends.
    pub(super) fn pass(&mut self) {
        // Before the wait: whoever is past the gate had a keeper that lived after this was set.
        let bound = set_parent_process_death_signal(Some(Signal::KILL));
        let mut byte = [0];
        if bound.is_err() || !matches!(self.opened.read(&mut byte), Ok(1)) {
            std::process::exit(1);
        }
    }

    /// Tells the keeper why there will be no program, and ends the child.
    pub(super) fn fail(mut self, sentence: &str) -> ! {
        // A keeper that is gone needs no answer.
        let _ = self.failure.write_all(sentence.as_bytes());
        std::process::exit(1);
    }
}

impl Keeper {
    /// Opens the gate and waits until the program runs, or until the child has said why it does not.
    pub(super) fn open(mut self) -> Result<u32, StartFailure> {
        self.open.write_all(b"+")?;
        drop(self.open);
        let mut sentence = String::new();
        self.failure.read_to_string(&mut sentence)?;
        if sentence.is_empty() {
            Ok(self.pid)
        } else {
            Err(StartFailure(sentence))
        }
    }
}

/// Puts the first process on record; only then may its gate open.
pub(super) fn record_first(
    order: &Order,
    dir: &RecordDir,
    pid: u32,
    streams: &ShimStreams,
) -> io::Result<()> {
    let pipes = match &streams.stderr {
        // Terminals are known by number, which is soon given again: they prove nothing.
        None => Vec::new(),
        Some(stderr) => [&streams.stdout, stderr]
            .into_iter()
            .map(|pipe| Ok(rustix::fs::fstat(pipe)?.st_ino))
            .collect::<io::Result<Vec<u64>>>()?,
    };
    dir.write_first(&First {
        process: ProcessMark::of(pid, &order.boot)?,
        pipes,
    })
}
