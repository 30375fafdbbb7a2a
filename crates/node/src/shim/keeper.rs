//! The keeper of a pod whose containers share their processes: the first process of their PID namespace.
//!
//! It does nothing but take in the processes that have lost their parents. When it is ended the kernel ends every other
//! process of the namespace before it, so that its end proves the pod's.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;

use nix::sched::CloneFlags;
use nix::sys::signal::{SigSet, Signal as NixSignal};
use rustix::process::{WaitOptions, set_parent_process_death_signal, wait};

use crate::runtime::{ProcessMark, write_keeper};
use crate::sys::OneThread;

use super::launch::{Side, begin_session, fork_gated};

/// Starts a keeper, puts it on record in `folder`, and returns while it lives on.
pub(super) fn keep(folder: &Path, boot: &str) -> io::Result<()> {
    match fork_gated(OneThread::prove()?, CloneFlags::CLONE_NEWPID)? {
        Side::Child(mut gate) => {
            gate.pass();
            // From here on it outlives whoever started it.
            let stands = set_parent_process_death_signal(None)
                .map_err(|error| error.to_string())
                .and_then(|()| begin_session())
                .and_then(|()| let_go().map_err(|error| error.to_string()));
            match stands {
                Ok(()) => {
                    drop(gate);
                    take_in_orphans()
                }
                Err(sentence) => gate.fail(&sentence),
            }
        }
        Side::Parent(keeper) => {
            write_keeper(folder, &ProcessMark::of(keeper.pid, boot)?)?;
            keeper
                .open()
                .map_err(|failure| io::Error::other(failure.0))?;
            let mut stdout = io::stdout();
            stdout.write_all(b"kept\n")?;
            stdout.flush()
        }
    }
}

/// Nothing of the daemon stays open.
fn let_go() -> io::Result<()> {
    let null = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    Ok(rustix::stdio::dup2_stderr(&null)?)
}

fn take_in_orphans() -> ! {
    let mut mask = SigSet::empty();
    mask.add(NixSignal::SIGCHLD);
    // Blocked, it can be waited for.
    let waits = mask.thread_block().is_ok();
    loop {
        match wait(WaitOptions::empty()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) if waits => {
                // Without a child there is nothing to do until there is one.
                let _ = mask.wait();
            }
            Err(_) => std::thread::park(),
        }
    }
}
