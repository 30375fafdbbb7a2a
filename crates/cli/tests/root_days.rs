//! Bad days that need root to be made: a daemon killed over running containers, a full disk.
#![cfg(feature = "root-tests")]
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on tells so by its panic"
)]

mod stead;

use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use stead::{Stead, set};

/// The numbers of a log whose every line is one, in order and none missing.
#[track_caller]
fn count_without_a_gap(log: &str) -> usize {
    let numbers: Vec<usize> = log.lines().map(|line| line.parse().unwrap()).collect();
    assert!(
        numbers
            .iter()
            .enumerate()
            .all(|(index, number)| *number == index),
        "lines are missing: {numbers:?}"
    );
    numbers.len()
}

/// Kills the daemon and waits until the system has let its lock go.
fn kill_daemon(stead: &Stead) {
    let daemon = Pid::from_raw(i32::try_from(stead.daemon()).unwrap());
    kill(daemon, Signal::SIGKILL).unwrap();
    stead.until(&["status"], "no Stead runs");
}

#[test]
fn containers_live_through_the_daemons_death_with_their_pids_and_every_line_of_their_logs() {
    let stead = Stead::in_tier("containers");
    let program = "n=0; trap 'exit 0' TERM; while :; do echo $n; n=$((n+1)); sleep 0.005; done";
    stead.up().up_ready(&set("db", 3, program));
    let pids = || -> Vec<String> {
        let pid = |ordinal| {
            stead.ok(&[
                "exec",
                &format!("db-{ordinal}"),
                "--",
                "/bin/sh",
                "-c",
                "stat -c %y /proc/1",
            ])
        };
        (0..3).map(pid).collect()
    };
    let restarts = |pod: &str| {
        stead.get(&format!("pod/{pod}"))["status"]["containerStatuses"][0]["restartCount"].clone()
    };
    let before = pids();
    for _ in 0..3 {
        let lines = count_without_a_gap(&stead.ok(&["logs", "db-0"]));
        kill_daemon(&stead);
        stead.up();
        stead.until(&["status", "db"], "default/db  3/3 ready");
        assert_eq!(pids(), before, "a container was started again");
        assert!(
            count_without_a_gap(&stead.ok(&["logs", "db-0"])) > lines,
            "nothing was written while the daemon was away"
        );
        (0..3).for_each(|ordinal| assert_eq!(restarts(&format!("db-{ordinal}")), 0));
    }
}

/// A small file system, given back when dropped.
struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    fn new(size: &str) -> Tmpfs {
        let folder = tempfile::tempdir().unwrap();
        let options = format!("size={size}");
        mount(
            Some("tmpfs"),
            folder.path(),
            Some("tmpfs"),
            MsFlags::empty(),
            Some(options.as_str()),
        )
        .unwrap();
        Tmpfs(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        umount2(self.path(), MntFlags::MNT_DETACH).unwrap();
    }
}

#[test]
fn a_full_disk_refuses_writes_loses_nothing_acknowledged_and_recovers_when_there_is_room() {
    let disk = Tmpfs::new("24m");
    let stead = Stead::on(&disk.path().join("data"));
    stead.up();
    std::fs::write(disk.path().join("ballast"), vec![0; 6 << 20]).unwrap();
    let write = |number: usize| {
        let manifest = format!(
            "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: m-{number}}}, data: {{x: {}}}}}",
            "y".repeat(500_000)
        );
        stead.feed(&["apply", "-f", "-"], &manifest)
    };
    let acknowledged = (0..200)
        .take_while(|number| write(*number).code == 0)
        .count();
    assert!(
        (1..200).contains(&acknowledged),
        "the disk did not fill: {acknowledged}"
    );
    let refused = write(acknowledged);
    assert!(refused.err.contains("space"), "{refused:?}");
    let all_there = || {
        (0..acknowledged).for_each(|number| {
            assert_eq!(stead.get(&format!("cm/m-{number}"))["kind"], "ConfigMap")
        })
    };
    all_there();
    assert_eq!(
        stead.run(&["get", &format!("cm/m-{acknowledged}")]).code,
        1,
        "what was refused is there"
    );
    std::fs::remove_file(disk.path().join("ballast")).unwrap();
    assert_eq!(write(acknowledged).code, 0, "there is room again");
    kill_daemon(&stead);
    stead.up();
    all_there();
}
