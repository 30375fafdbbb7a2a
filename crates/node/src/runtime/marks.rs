//! The processes of a container in the processes tier, found by what they carry: variables and pipes.
//!
//! A process belongs to a container when its environment at its start had the container's variables, when it still
//! writes to the container's output, or when its parent belongs to it. A program that wipes its environment, closes
//! both outputs and leaves its parent escapes this; nothing short of a PID namespace would hold it.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::time::Duration;

use rustix::process::Signal;

use super::ContainerId;
use super::process::{ProcessMark, Stat, all_pids};
use super::record::{CONTAINER_VARIABLE, POD_VARIABLE};

/// How long a process that was killed is waited for before all are looked for again: it may hang in the kernel.
const PATIENCE: Duration = Duration::from_secs(1);

/// What to look for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Marks {
    /// Variables that a process must have, all of them, as `NAME=value`.
    variables: Vec<String>,
    /// Pipes of which one is enough.
    pipes: Vec<u64>,
}

impl Marks {
    /// What every process of a pod carries.
    pub(crate) fn of_pod(uid: &str) -> Self {
        Self {
            variables: vec![format!("{POD_VARIABLE}={uid}")],
            pipes: Vec::new(),
        }
    }

    /// What every process of one container carries.
    pub(crate) fn of_container(id: &ContainerId) -> Self {
        Self {
            variables: vec![
                format!("{POD_VARIABLE}={}", id.pod_uid),
                format!("{CONTAINER_VARIABLE}={}.{}", id.container, id.attempt),
            ],
            pipes: Vec::new(),
        }
    }

    /// Looks for these pipes too.
    pub(crate) fn with_pipes(mut self, pipes: &[u64]) -> Self {
        self.pipes.extend_from_slice(pipes);
        self
    }

    fn fit(&self, pid: u32) -> bool {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let has = |wanted: &String| {
            environment
                .split(|byte| *byte == 0)
                .any(|variable| variable == wanted.as_bytes())
        };
        self.variables.iter().all(has) || self.writes_to_pipe(pid)
    }

    fn writes_to_pipe(&self, pid: u32) -> bool {
        !self.pipes.is_empty()
            && [1, 2].into_iter().any(|fd| {
                fs::read_link(format!("/proc/{pid}/fd/{fd}")).is_ok_and(|target| {
                    target
                        .to_str()
                        .and_then(|text| text.strip_prefix("pipe:[")?.strip_suffix(']'))
                        .and_then(|inode| inode.parse().ok())
                        .is_some_and(|inode| self.pipes.contains(&inode))
                })
            })
    }
}

/// Every living process with these marks, and whatever descends from one. Never the caller.
pub(crate) fn find(marks: &Marks, boot: &str) -> io::Result<Vec<ProcessMark>> {
    let own = std::process::id();
    let living: Vec<(u32, Stat)> = all_pids()?
        .into_iter()
        .filter_map(|pid| Some((pid, Stat::read(pid).ok()?)))
        .filter(|(pid, stat)| *pid != own && !stat.is_dead())
        .collect();
    let mut found: BTreeSet<u32> = living
        .iter()
        .map(|(pid, _)| *pid)
        .filter(|pid| marks.fit(*pid))
        .collect();
    while found.len() != add_children(&mut found, &living) {}
    // The start time was read before the marks were: a number that was given anew meanwhile does not fit it.
    Ok(living
        .into_iter()
        .filter(|(pid, _)| found.contains(pid))
        .map(|(pid, stat)| ProcessMark {
            pid,
            start_time: stat.start_time,
            boot: boot.to_owned(),
        })
        .collect())
}

/// Adds one generation; the number of those found before.
fn add_children(found: &mut BTreeSet<u32>, living: &[(u32, Stat)]) -> usize {
    let before = found.len();
    for (pid, stat) in living {
        if found.contains(&stat.parent) {
            found.insert(*pid);
        }
    }
    before
}

/// Ends every process with these marks; returns when none is found any more.
pub(crate) fn end(marks: &Marks, boot: &str) -> io::Result<()> {
    loop {
        let found = find(marks, boot)?;
        if found.is_empty() {
            return Ok(());
        }
        for process in &found {
            process.signal(boot, Signal::KILL)?;
        }
        for process in &found {
            process.wait(boot, PATIENCE)?;
        }
    }
}

/// The living children of a process.
pub(crate) fn children_of(parent: u32) -> io::Result<Vec<u32>> {
    Ok(all_pids()?
        .into_iter()
        .filter(|pid| Stat::read(*pid).is_ok_and(|stat| stat.parent == parent && !stat.is_dead()))
        .collect())
}
