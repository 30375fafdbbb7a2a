//! The few calls that have no safe form: fork, mount attributes, system call filters, default signal dispositions, a
//! descriptor in Tokio's reactor.
#![expect(
    unsafe_code,
    reason = "these calls have no safe form; each use here argues why it is sound"
)]

use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::libc;
use nix::sched::CloneFlags;
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, signal, sigprocmask};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Which side of a fork this is.
pub(crate) enum Forked {
    /// The process that forked, with its child's PID.
    Parent(u32),
    /// The new process.
    Child,
}

/// The proof that this process has one thread. Taken while /proc can be read, used where it no longer can.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OneThread(());

impl OneThread {
    /// Looks; an error in a process that has more. Nothing in a shim makes a thread afterwards.
    pub(crate) fn prove() -> io::Result<Self> {
        let threads = std::fs::read_dir("/proc/self/task")?.count();
        if threads == 1 {
            return Ok(Self(()));
        }
        Err(io::Error::other(format!(
            "a process with {threads} threads must not fork"
        )))
    }

    /// Forks, the child into these new namespaces. In a process with more threads a lock could be held by one that
    /// the child does not have; hence the proof.
    pub(crate) fn fork(self, namespaces: CloneFlags) -> io::Result<Forked> {
        let none: libc::c_long = 0;
        let flags = libc::c_long::from(namespaces.bits() | libc::SIGCHLD);
        // SAFETY: without CLONE_VM and with a null stack this is fork: the child goes on with copies of memory and
        // stack. This is the only thread, so that no lock and no half-made value is left to one that is missing.
        match unsafe { libc::syscall(libc::SYS_clone, flags, none, none, none, none) } {
            -1 => Err(io::Error::last_os_error()),
            0 => Ok(Forked::Child),
            pid => u32::try_from(pid)
                .map(Forked::Parent)
                .map_err(io::Error::other),
        }
    }
}

/// What is taken from a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Without {
    /// Nothing can be written.
    Writing,
    /// Device nodes are only files.
    Devices,
}

/// Takes something from a mount and from every mount below it, whatever else holds of them.
pub(crate) fn restrict(path: &Path, without: &[Without]) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)?;
    let attr_set = without.iter().fold(0, |set, what| {
        set | match what {
            Without::Writing => libc::MOUNT_ATTR_RDONLY,
            Without::Devices => libc::MOUNT_ATTR_NODEV,
        }
    });
    let attributes = libc::mount_attr {
        attr_set,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: path and attributes are valid for the call, and the size is that of the attributes.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::AT_RECURSIVE,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Lets a program of the kernel decide about every further system call of this thread and of what it becomes.
pub(crate) fn filter_calls(filter: &[crate::seccomp::Instruction]) -> io::Result<()> {
    let mut program: Vec<libc::sock_filter> = filter
        .iter()
        .map(|step| libc::sock_filter {
            code: step.code,
            jt: step.jt,
            jf: step.jf,
            k: step.k,
        })
        .collect();
    let whole = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(io::Error::other)?,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the program is valid for the call, which copies it, and its length is that of the vector.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            0,
            &raw const whole,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
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
