//! A Stead of the bench's own: a process on a temporary data folder, ended when dropped.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// A running `stead`.
pub(super) struct Daemon {
    child: Child,
    lines: BufReader<ChildStdout>,
    /// When it was started.
    pub(super) began: Instant,
    folder: tempfile::TempDir,
    stead: PathBuf,
}

impl Daemon {
    /// Starts `stead ARGS` on a fresh data folder.
    pub(super) fn start(stead: &Path, args: &[&str]) -> Result<Daemon, String> {
        let folder =
            tempfile::tempdir().map_err(|error| format!("could not make a folder: {error}"))?;
        let began = Instant::now();
        let mut child = Command::new(stead)
            .arg("--data-dir")
            .arg(folder.path())
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("could not start {}: {error}", stead.display()))?;
        let lines = BufReader::new(child.stdout.take().ok_or("its output is not there")?);
        Ok(Daemon {
            child,
            lines,
            began,
            folder,
            // As the kernel names it: its shims are known by that.
            stead: stead
                .canonicalize()
                .map_err(|error| format!("{}: {error}", stead.display()))?,
        })
    }

    /// Its data folder.
    pub(super) fn data_dir(&self) -> &Path {
        self.folder.path()
    }

    /// Reads its output up to a line that holds `text`; how long that took since the start.
    pub(super) fn until(&mut self, text: &str) -> Result<Duration, String> {
        let mut said = String::new();
        loop {
            let start = said.len();
            let read = self
                .lines
                .read_line(&mut said)
                .map_err(|error| format!("could not read its output: {error}"))?;
            if read == 0 {
                return Err(format!("it ended before it said {text:?}; it said: {said}"));
            }
            if said[start..].contains(text) {
                return Ok(self.began.elapsed());
            }
        }
    }

    /// Every process of this Stead: the daemon and the shims of its data folder.
    pub(super) fn processes(&self) -> Vec<u32> {
        let folder = self.folder.path().to_string_lossy().into_owned();
        let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = all.filter_map(|entry| entry.file_name().to_string_lossy().parse::<u32>().ok());
        let ours = |pid: &u32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line);
            let binary =
                std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == self.stead);
            *pid == self.child.id() || (binary && line.contains(&folder))
        };
        pids.filter(ours).collect()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // The bench is over whatever this says; what does not stop so is killed with its shims' help.
        let _ = Command::new(&self.stead)
            .arg("--data-dir")
            .arg(self.folder.path())
            .args(["down", "--timeout", "30s"])
            .output();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
