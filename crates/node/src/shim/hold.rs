//! One container from its start to the proof of its end.
//!
//! The shim is the subreaper of everything that the container starts, so that a process that forked itself away
//! comes back to it. It writes the log, notes how the first process ended, ends whatever is left, and only then
//! says that the container has exited. It lives on when the daemon dies and needs nothing of it.
//!
//! It is asked by signals, for a signal to a verified process needs no path and no protocol: SIGTERM ends every
//! process of the container at once, SIGHUP goes on in a new log file.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;

use nix::sys::signal::{SigSet, Signal as NixSignal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, wait};

use crate::runtime::{
    CHANGES_FILE, ContainerState, Holder, Order, ProcessMark, Processes, RecordDir, Tier, marks,
};

use super::launch::launch;
use super::log::{LogFile, now};
use super::outputs::Outputs;

/// Holds the container of this record, when its order still has this number and nobody else holds it.
pub(super) fn hold(dir: &RecordDir, number: &str) -> io::Result<()> {
    let Some(order) = dir.order()?.filter(|order| order.number == number) else {
        // The order was taken back before this shim was there.
        return Ok(());
    };
    let signals = stand_alone()?;
    let me = ProcessMark::own(&order.boot)?;
    if !dir.claim(&Holder::Shim(me))? {
        return Ok(());
    }
    tell_the_daemon()?;
    let (state, outputs) = run(&order, dir, &signals)?;
    dir.write_state(&state)?;
    announce(dir);
    if let Some(outputs) = outputs {
        outputs.linger();
    }
    Ok(())
}

/// A session of its own, parent of all that the container leaves behind, with signals as messages.
fn stand_alone() -> io::Result<SignalFd> {
    // Fails only for a process that leads its group already, which then is as good.
    let _ = rustix::process::setsid();
    rustix::process::set_child_subreaper(Pid::from_raw(1))?;
    let mut mask = SigSet::empty();
    for signal in [NixSignal::SIGCHLD, NixSignal::SIGTERM, NixSignal::SIGHUP] {
        mask.add(signal);
    }
    let mut blocked = mask;
    blocked.add(NixSignal::SIGINT);
    blocked.add(NixSignal::SIGQUIT);
    blocked.thread_block()?;
    Ok(SignalFd::with_flags(
        &mask,
        SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK,
    )?)
}

/// The daemon waits on the standard output for the word that the container is held; then nothing of it is kept.
fn tell_the_daemon() -> io::Result<()> {
    let mut stdout = io::stdout();
    // A daemon that died meanwhile finds the record.
    let _ = stdout.write_all(b"held\n").and_then(|()| stdout.flush());
    let null = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    Ok(())
}

/// How it ended, and the streams whose attachers may not have heard all of it yet.
fn run(
    order: &Order,
    dir: &RecordDir,
    signals: &SignalFd,
) -> io::Result<(ContainerState, Option<Outputs>)> {
    let mut log = LogFile::open(&order.spec.log_path, order.log)?;
    let launched = match launch(order, dir) {
        Ok(launched) => launched,
        Err(failure) => {
            end_everything(order)?;
            super::launch::clean_up(order);
            return Ok((failed(failure.0), None));
        }
    };
    let started_at = now();
    let pid = launched.pid;
    // Before the word that it runs: whoever hears that may attach.
    let mut outputs = Outputs::of(launched, &order.spec, dir.path())?;
    dir.write_state(&ContainerState::Running {
        pid,
        started_at: started_at.clone(),
    })?;
    announce(dir);
    let end = supervise(&mut outputs, &mut log, signals)?;
    let finished_at = now();
    end_everything(order)?;
    outputs.drain(&mut log);
    let oom = super::launch::ran_out_of_memory(order);
    super::launch::clean_up(order);
    let state = ContainerState::Exited {
        code: end.code,
        signal: end.signal,
        oom,
        started_at,
        finished_at,
    };
    Ok((state, Some(outputs)))
}

fn failed(message: String) -> ContainerState {
    ContainerState::Failed {
        reason: "StartError".to_owned(),
        message,
        code: 128,
    }
}

/// How the first process ended.
struct End {
    code: i32,
    signal: Option<i32>,
}

impl End {
    fn of(status: WaitStatus) -> Option<Self> {
        if let Some(code) = status.exit_status() {
            return Some(Self { code, signal: None });
        }
        let signal = status.terminating_signal()?;
        Some(Self {
            code: 128 + signal,
            signal: Some(signal),
        })
    }
}

/// Pumps the outputs and reaps, until the first process has ended.
fn supervise(outputs: &mut Outputs, log: &mut LogFile, signals: &SignalFd) -> io::Result<End> {
    loop {
        outputs.wait(signals)?;
        outputs.pump(log);
        while let Some(info) = signals.read_signal()? {
            match NixSignal::try_from(info.ssi_signo.cast_signed()) {
                Ok(NixSignal::SIGTERM) => kill(outputs.pid),
                Ok(NixSignal::SIGHUP) => log.reopen(),
                // SIGCHLD is answered below, by looking.
                Ok(_) | Err(_) => {}
            }
        }
        if let Some(end) = reap(outputs.pid)? {
            return Ok(end);
        }
    }
}

/// Reaps every child that has ended; the end of the first process, if it was among them.
fn reap(first: u32) -> io::Result<Option<End>> {
    let mut end = None;
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid.as_raw_nonzero().get().unsigned_abs() == first => {
                end = End::of(status).or(end);
            }
            Ok(Some(_)) => {}
            Ok(None) | Err(rustix::io::Errno::CHILD) => return Ok(end),
            Err(rustix::io::Errno::INTR) => {}
            Err(other) => return Err(other.into()),
        }
    }
}

/// Ends every process that the container left behind, and returns when the kernel says that there is none.
///
/// In the upper tiers the PID namespace has died with its first process already; what is reaped here are children
/// of launching. In the processes tier a process that forked itself away is a child of this subreaper, or bears the
/// container's marks.
fn end_everything(order: &Order) -> io::Result<()> {
    end_children()?;
    if order.tier == Tier::Processes {
        marks::end(&marks::Marks::of_container(&order.spec.id), &order.boot)?;
    }
    if order.place.processes != Processes::Own
        && let Some(cgroup) = super::launch::cgroup(order)
    {
        // No namespace has died with its first process: the cgroup knows who is left.
        cgroup.end(&order.boot)?;
    }
    Ok(())
}

fn end_children() -> io::Result<()> {
    loop {
        for child in children()? {
            kill(child);
        }
        match wait(WaitOptions::empty()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::CHILD) => return Ok(()),
            Err(other) => return Err(other.into()),
        }
    }
}

fn children() -> io::Result<Vec<u32>> {
    let own = std::process::id();
    match std::fs::read_to_string(format!("/proc/self/task/{own}/children")) {
        Ok(text) => Ok(text
            .split_ascii_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect()),
        // A kernel without that file: look at every process.
        Err(_) => marks::children_of(own),
    }
}

fn kill(pid: u32) {
    if let Some(pid) = crate::runtime::raw_pid(pid) {
        // Gone already is as good.
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// Wakes whoever watches for changes of containers.
fn announce(dir: &RecordDir) {
    let Some(changes) = changes_file(dir.path()) else {
        return;
    };
    // Opening it for writing and closing it is the whole message; without a daemon nobody listens.
    drop(OpenOptions::new().append(true).open(changes));
}

fn changes_file(dir: &Path) -> Option<std::path::PathBuf> {
    Some(dir.parent()?.parent()?.join(CHANGES_FILE))
}
