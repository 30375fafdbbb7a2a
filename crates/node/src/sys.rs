//! The few calls that have no safe form: fork, default signal dispositions, a descriptor in Tokio's reactor.
#![expect(
    unsafe_code,
    reason = "these calls have no safe form; each use here argues why it is sound"
)]

use std::io;
use std::os::fd::OwnedFd;

use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, signal, sigprocmask};
use nix::unistd::{ForkResult, Pid, fork};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Which side of a fork this is.
pub(crate) enum Forked {
    /// The process that forked, with its child.
    Parent(Pid),
    /// The new process.
    Child,
}

/// Forks a process that has one thread only; refuses in any other, for there a lock could be held by a thread that
/// the child does not have.
pub(crate) fn fork_single_threaded() -> io::Result<Forked> {
    let threads = std::fs::read_dir("/proc/self/task")?.count();
    if threads != 1 {
        return Err(io::Error::other(format!(
            "a process with {threads} threads must not fork"
        )));
    }
    // SAFETY: this is the only thread, so that the child has every thread that could hold a lock or a half-made
    // value; it may go on as ordinary code.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(Forked::Parent(child)),
        ForkResult::Child => Ok(Forked::Child),
    }
}

/// Gives back what a new program expects: nothing blocked, nothing ignored (Rust's start ignores SIGPIPE).
pub(crate) fn default_signals() -> io::Result<()> {
    for number in Signal::iterator() {
        if matches!(number, Signal::SIGKILL | Signal::SIGSTOP) {
            continue;
        }
        // SAFETY: SIG_DFL is no handler; nothing of ours can be called from a signal.
        unsafe { signal(number, SigHandler::SigDfl) }?;
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
    Ok(())
}

/// Hands a descriptor to Tokio's reactor.
pub(crate) fn watched(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd is open and stays the same descriptor for as long as it lives, and it lives in the AsyncFd.
    unsafe { AsyncFd::register_with_interest(fd, interest) }.map_err(io::Error::from)
}
