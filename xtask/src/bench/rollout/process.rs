//! A process of the bench: this program once more, as server or as controller, and what it has used.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// Ticks a second of `/proc/PID/stat`: Linux has had no other for user space.
const TICKS: f64 = 100.0;

/// A running part; ended when dropped.
pub(super) struct Part {
    child: Child,
    /// Closed, it ends the part.
    stdin: Option<ChildStdin>,
    lines: BufReader<ChildStdout>,
}

/// What a process has used since its start.
#[derive(Debug, Clone, Copy)]
pub(super) struct Usage {
    /// User and system time.
    pub(super) cpu_seconds: f64,
    /// Most memory it ever held.
    pub(super) peak_mb: f64,
}

impl Usage {
    /// What was used since an earlier look.
    pub(super) fn since(self, before: &Usage) -> Usage {
        Usage {
            cpu_seconds: self.cpu_seconds - before.cpu_seconds,
            peak_mb: self.peak_mb,
        }
    }
}

impl Part {
    pub(super) fn start(what: &str) -> Result<Part, String> {
        Part::start_with(what, "")
    }

    /// Starts this program as a part.
    pub(super) fn start_with(what: &str, argument: &str) -> Result<Part, String> {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut child = Command::new(program)
            .args(["bench", "rollout-part", what, argument])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("could not start the {what}: {error}"))?;
        let stdin = child.stdin.take();
        let lines = BufReader::new(child.stdout.take().ok_or("its output is not there")?);
        Ok(Part {
            child,
            stdin,
            lines,
        })
    }

    /// The first line that it says: it runs then.
    pub(super) fn first_line(&mut self) -> Result<String, String> {
        let mut line = String::new();
        let read = self.lines.read_line(&mut line);
        match read.map_err(|error| error.to_string())? {
            0 => Err("a part of the bench ended before it ran".to_owned()),
            _ => Ok(line.trim().to_owned()),
        }
    }

    /// What it has used so far.
    pub(super) fn usage(&self) -> Result<Usage, String> {
        let read = |file: &str| {
            let path = format!("/proc/{}/{file}", self.child.id());
            std::fs::read_to_string(&path)
                .map_err(|error| format!("could not read {path}: {error}"))
        };
        let stat = read("stat")?;
        let (_, after_name) = stat.rsplit_once(')').ok_or("a stat without a name")?;
        // Fields 14 and 15 of all; the name was the second.
        let ticks = after_name.split_whitespace().skip(11).take(2);
        let ticks: f64 = ticks.filter_map(|field| field.parse::<f64>().ok()).sum();
        let status = read("status")?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes = peak.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
        Ok(Usage {
            cpu_seconds: ticks / TICKS,
            peak_mb: kilobytes.ok_or("a status without VmHWM")? / 1024.0,
        })
    }

    /// Ends it well; what it said last.
    pub(super) fn end(mut self) -> Result<String, String> {
        drop(self.stdin.take());
        let mut said = String::new();
        let read = self.lines.read_to_string(&mut said);
        read.map_err(|error| format!("could not read its output: {error}"))?;
        Ok(said)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        drop(self.stdin.take());
        // It has been asked; whether it had ended already does not matter.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
