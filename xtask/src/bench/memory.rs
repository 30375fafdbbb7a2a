//! Idle memory of all of Stead with a set of three, beside that of the three programs themselves.

use std::path::Path;
use std::time::Duration;

use super::daemon::Daemon;
use super::figure;

/// Prints the proportional set size (PSS) of every process of Stead, once it has settled, and its processor time when idle.
pub(super) fn run(stead: &Path) -> Result<(), String> {
    let example = crate::root().join("examples/first.yaml");
    let mut daemon = Daemon::start(
        stead,
        &[
            "up",
            "--listen",
            "127.0.0.1:0",
            "-f",
            &example.to_string_lossy(),
        ],
    )?;
    daemon.until("next:")?;
    std::thread::sleep(Duration::from_secs(2)); // let it settle: this measures idleness
    let ours = daemon.processes();
    let before = ticks(&ours)?;
    std::thread::sleep(Duration::from_secs(10)); // the span over which idleness is measured
    let used = ticks(&ours)? - before;
    let total = ours
        .iter()
        .map(|pid| pss(*pid))
        .sum::<Result<u64, String>>()?;
    let programs = children(&ours);
    let theirs = programs
        .iter()
        .map(|pid| pss(*pid))
        .sum::<Result<u64, String>>()?;
    figure(
        "idle memory of Stead with three replicas",
        &megabytes(total),
        &format!("{} processes; goal 40 MB", ours.len()),
    );
    figure(
        "the replicas' own programs",
        &megabytes(theirs),
        &format!("Stead: {:.1} x", total as f64 / theirs.max(1) as f64),
    );
    figure(
        "idle processor time",
        &format!("{:.2} %", used as f64 / 10.0),
        "of one core, over 10 s",
    );
    Ok(())
}

/// Proportional set size in bytes.
fn pss(pid: u32) -> Result<u64, String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))
        .map_err(|error| format!("process {pid}: {error}"))?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Pss:"))
        .ok_or_else(|| format!("process {pid} tells no Pss"))?;
    let kilobytes: u64 = line
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .map_err(|_| format!("{line:?} is no size"))?;
    Ok(kilobytes * 1024)
}

/// User and system time so far, in hundredths of a second.
fn ticks(pids: &[u32]) -> Result<u64, String> {
    let of = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .map_err(|error| format!("process {pid}: {error}"))?;
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .collect();
        let number = |index: usize| {
            fields
                .get(index)
                .and_then(|field| field.parse::<u64>().ok())
                .unwrap_or(0)
        };
        Ok(number(11) + number(12))
    };
    pids.iter().map(of).sum()
}

/// Descendants of these processes that are not among them.
fn children(ours: &[u32]) -> Vec<u32> {
    let mut found: Vec<u32> = Vec::new();
    let mut next: Vec<u32> = ours.to_vec();
    while let Some(pid) = next.pop() {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task"))
            .into_iter()
            .flatten()
            .flatten();
        for task in tasks {
            let text = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
            for child in text
                .split_whitespace()
                .filter_map(|child| child.parse().ok())
            {
                next.push(child);
                if !ours.contains(&child) {
                    found.push(child);
                }
            }
        }
    }
    found
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
