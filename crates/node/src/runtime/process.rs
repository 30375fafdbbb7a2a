//! A process named so that a recycled number is never taken for it: PID, start time, boot.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// One process of one boot. The kernel gives the same PID again, but not with the same start time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ProcessMark {
    /// PID in the machine's PID namespace.
    pub(crate) pid: u32,
    /// Field 22 of /proc/PID/stat: clock ticks since boot.
    pub(crate) start_time: u64,
    /// The boot in which it lived.
    pub(crate) boot: String,
}

impl ProcessMark {
    /// Marks a process that lives now.
    pub(crate) fn of(pid: u32, boot: &str) -> io::Result<Self> {
        let stat = Stat::read(pid)?;
        Ok(Self {
            pid,
            start_time: stat.start_time,
            boot: boot.to_owned(),
        })
    }

    /// Marks the calling process.
    pub(crate) fn own(boot: &str) -> io::Result<Self> {
        Self::of(std::process::id(), boot)
    }

    /// Whether this very process still runs. A zombie does not: it holds nothing any more.
    pub(crate) fn is_alive(&self, boot: &str) -> bool {
        self.boot == boot
            && Stat::read(self.pid)
                .is_ok_and(|stat| stat.start_time == self.start_time && !stat.is_dead())
    }

    /// A descriptor of this very process, or `None` when it is gone.
    pub(crate) fn open(&self, boot: &str) -> io::Result<Option<OwnedFd>> {
        let Some(pid) = raw_pid(self.pid) else {
            return Ok(None);
        };
        if self.boot != boot {
            return Ok(None);
        }
        let fd = match pidfd_open(pid, PidfdFlags::NONBLOCK) {
            Ok(fd) => fd,
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            Err(other) => return Err(other.into()),
        };
        // Looked at after the descriptor was taken: what the start time proves, the descriptor now pins.
        Ok(self.is_alive(boot).then_some(fd))
    }

    /// Waits until this very process is gone, but no longer than `patience`.
    pub(crate) fn wait(&self, boot: &str, patience: Duration) -> io::Result<()> {
        let Some(fd) = self.open(boot)? else {
            return Ok(());
        };
        let patience = Timespec::try_from(patience).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&patience)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(other) => Err(other.into()),
        }
    }

    /// Sends a signal to this very process; `false` when it is gone.
    pub(crate) fn signal(&self, boot: &str, signal: Signal) -> io::Result<bool> {
        let Some(fd) = self.open(boot)? else {
            return Ok(false);
        };
        match pidfd_send_signal(&fd, signal) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::SRCH) => Ok(false),
            Err(other) => Err(other.into()),
        }
    }
}

/// A PID as the kernel wrappers want it; `None` for 0 and for what does not fit.
pub(crate) fn raw_pid(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

/// The identity of this boot of the machine.
pub(crate) fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?
        .trim()
        .to_owned())
}

/// What /proc/PID/stat tells of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    state: u8,
    pub(crate) parent: u32,
    threads: u32,
    pub(crate) start_time: u64,
}

impl Stat {
    /// Reads it; `NotFound` when there is no such process.
    pub(crate) fn read(pid: u32) -> io::Result<Self> {
        let text = fs::read(format!("/proc/{pid}/stat"))?;
        Self::parse(&text).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    }

    /// The process name may hold blanks and brackets, so that counting starts behind the last bracket.
    fn parse(text: &[u8]) -> Option<Self> {
        let end_of_name = text.iter().rposition(|byte| *byte == b')')?;
        let rest = std::str::from_utf8(text.get(end_of_name + 1..)?).ok()?;
        let mut fields = rest.split_ascii_whitespace();
        let state = *fields.next()?.as_bytes().first()?;
        let parent = fields.next()?.parse().ok()?;
        let threads = fields.nth(15)?.parse().ok()?;
        let start_time = fields.nth(1)?.parse().ok()?;
        Some(Self {
            state,
            parent,
            threads,
            start_time,
        })
    }

    /// Zombie or being taken down: it runs no more. A process of which only the main thread has ended looks like a
    /// zombie too, but the others still hold its memory and files.
    pub(crate) fn is_dead(&self) -> bool {
        matches!(self.state, b'X' | b'x') || (self.state == b'Z' && self.threads <= 1)
    }
}

/// Every process of the machine that can be seen.
pub(crate) fn all_pids() -> io::Result<Vec<u32>> {
    Ok(fs::read_dir("/proc")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_blanks_does_not_shift_the_fields() {
        let stat = b"42 (a) b (c) S 7 42 42 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 987654 1 1";
        let parsed = Stat::parse(stat).expect("a well-formed line");
        assert_eq!(
            (parsed.parent, parsed.start_time, parsed.is_dead()),
            (7, 987_654, false)
        );
    }

    #[test]
    fn a_process_is_dead_when_its_last_thread_is() {
        let is_dead = |state: &str, threads: u32| {
            let line = format!(
                "42 (db) {state} 7 42 42 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 {threads} 0 9 1 1"
            );
            Stat::parse(line.as_bytes())
                .expect("a well-formed line")
                .is_dead()
        };
        assert!(is_dead("Z", 1));
        assert!(!is_dead("Z", 3), "its other threads run");
        assert!(is_dead("X", 1));
        assert!(!is_dead("D", 1));
    }

    #[test]
    fn a_recycled_pid_is_not_the_process_that_was_marked() {
        let boot = boot_id().expect("the kernel has a boot id");
        let mut mark = ProcessMark::own(&boot).expect("this process lives");
        assert!(mark.is_alive(&boot));
        assert!(!mark.is_alive("another boot"));
        mark.start_time += 1;
        assert!(!mark.is_alive(&boot));
        assert!(mark.open(&boot).expect("a look into /proc").is_none());
    }
}
