//! The keeper of a pod whose containers share their processes, as the daemon sees it: on record, started, ended.

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use super::process::ProcessMark;
use super::record::{Durable, read_json, write_json};

/// The record of the keeper in the pod's folder.
const FILE: &str = "keeper.json";

/// Puts a keeper on record.
pub(crate) fn write(folder: &Path, keeper: &ProcessMark) -> io::Result<()> {
    write_json(&folder.join(FILE), keeper, Durable::No)
}

/// The keeper of the pod, if it lives.
pub(super) fn living(folder: &Path, boot: &str) -> io::Result<Option<ProcessMark>> {
    let keeper = read_json::<ProcessMark>(&folder.join(FILE))?;
    Ok(keeper.filter(|keeper| keeper.is_alive(boot)))
}

/// The living keeper of the pod, started when there is none.
pub(super) fn ensure(shim: &Path, folder: &Path, boot: &str) -> io::Result<ProcessMark> {
    if let Some(keeper) = living(folder, boot)? {
        return Ok(keeper);
    }
    let output = Command::new(shim)
        .args(["shim", "keep"])
        .arg(folder)
        .arg(boot)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?
        .wait_with_output()?;
    let complaint = || String::from_utf8_lossy(&output.stderr).trim().to_owned();
    living(folder, boot)?
        .filter(|_| output.stdout == b"kept\n")
        .ok_or_else(|| {
            io::Error::other(format!(
                "the keeper of the pod's processes ended at once: {}",
                complaint()
            ))
        })
}

/// Ends the keeper, and with it whatever is left in its namespace; returns when it is gone.
pub(super) fn end(folder: &Path, boot: &str) -> io::Result<()> {
    if let Some(keeper) = living(folder, boot)? {
        while keeper.signal(boot, Signal::KILL)? && keeper.is_alive(boot) {
            keeper.wait(boot, Duration::from_secs(1))?;
        }
    }
    match fs::remove_file(folder.join(FILE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}
