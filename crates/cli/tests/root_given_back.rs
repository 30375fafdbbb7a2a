//! The machine before and after: what Stead takes from the kernel is given back, by `down`, by `cleanup` and by the next
//! start, whoever was killed meanwhile. Each test has a network and mounts of its own, so that it sees all of them.
#![cfg(feature = "root-tests")]
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on tells so by its panic"
)]

mod machine;
mod stead;

use machine::{Machine, in_a_world_of_its_own, processes_with, wait_gone};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use stead::{STAYS, Stead, set};

/// A set of two pods, each with a volume in which it leaves a file at each start.
fn pods() -> String {
    set("db", 2, &format!("echo started >> /data/ledger; {STAYS}"))
}

fn up_with_pods() -> Stead {
    let stead = Stead::in_tier("containers");
    stead.up().up_ready(&pods());
    stead
}

/// Ends every process of this kind at once, as a crash does, and waits until they are gone.
fn kill_all(pids: &[i32]) {
    for pid in pids {
        // One may have ended with another.
        let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
    }
    wait_gone(pids);
}

fn shims(stead: &Stead) -> Vec<i32> {
    processes_with(&["shim", "hold", stead.data_dir.to_str().unwrap()])
}

fn daemon(stead: &Stead) -> Vec<i32> {
    vec![i32::try_from(stead.daemon()).unwrap()]
}

fn crash(stead: &Stead) {
    let all = [daemon(stead), shims(stead)].concat();
    assert_eq!(all.len(), 3, "a daemon and two shims: {all:?}");
    kill_all(&all);
    // Containers die with their shims; the kernel takes a moment.
    wait_gone(
        &Machine::look()
            .processes
            .iter()
            .filter_map(|pid| pid.parse().ok())
            .collect::<Vec<_>>(),
    );
}

/// What the pods wrote at each start of theirs, of all volumes.
fn ledgers(stead: &Stead) -> usize {
    (0..2)
        .map(|ordinal| {
            stead.ok(&[
                "exec",
                &format!("db-{ordinal}"),
                "--",
                "cat",
                "/data/ledger",
            ])
        })
        .map(|text| text.lines().count())
        .sum()
}

#[test]
fn down_gives_everything_back() {
    in_a_world_of_its_own(|| {
        let before = Machine::look();
        let stead = up_with_pods();
        let during = Machine::look();
        assert!(during.links.len() >= before.links.len() + 2, "{during:?}");
        assert!(during.mounts.len() > before.mounts.len() && during.cgroups != before.cgroups);
        stead.ok(&["down"]);
        Machine::look().assert_is(&before);
    });
}

#[test]
fn cleanup_gives_back_what_a_crash_of_everything_left_and_no_data() {
    in_a_world_of_its_own(|| {
        let before = Machine::look();
        let stead = up_with_pods();
        crash(&stead);
        let left = Machine::look();
        assert_ne!(left, before);
        let listed = stead.ok(&["cleanup", "--dry-run"]);
        for kind in [
            "interface st",
            "namespace /run/stead/",
            "cgroup stead/",
            "address 10.",
        ] {
            assert!(listed.contains(kind), "{kind}: {listed}");
        }
        Machine::look().assert_is(&left);
        stead.ok(&["cleanup"]);
        Machine::look().assert_is(&before);
        // Empty cgroups of others may be about: they are not this test's, but everybody sees them.
        let again = stead.ok(&["cleanup"]);
        assert!(!again.contains(stead.data_dir.to_str().unwrap()), "{again}");
        stead.up();
        stead.until(&["status", "db"], "default/db  2/2 ready");
        assert_eq!(ledgers(&stead), 4, "each pod started twice on its volume");
        stead.ok(&["down"]);
        Machine::look().assert_is(&before);
    });
}

#[test]
fn the_next_start_takes_up_what_a_crash_left_and_down_gives_it_back() {
    in_a_world_of_its_own(|| {
        let before = Machine::look();
        let stead = up_with_pods();
        crash(&stead);
        stead.up();
        stead.until(&["status", "db"], "default/db  2/2 ready");
        stead.ok(&["down"]);
        Machine::look().assert_is(&before);
    });
}

#[test]
fn cleanup_touches_nothing_of_a_daemon_or_of_shims_that_live() {
    in_a_world_of_its_own(|| {
        let stead = up_with_pods();
        let living = Machine::look();
        let said = stead.ok(&["cleanup"]);
        assert!(
            said.contains("is left alone: the daemon with process"),
            "{said}"
        );
        Machine::look().assert_is(&living);
        let holders = shims(&stead);
        kill_all(&daemon(&stead));
        let alone = Machine::look();
        let said = stead.ok(&["cleanup"]);
        assert!(
            said.contains("is left alone: a container's shim, process"),
            "{said}"
        );
        assert_eq!((Machine::look(), shims(&stead)), (alone, holders.clone()));
        stead.up();
        stead.until(&["status", "db"], "default/db  2/2 ready");
        assert_eq!(
            (shims(&stead), ledgers(&stead)),
            (holders, 2),
            "no pod was started again"
        );
    });
}

#[test]
fn the_start_of_another_sweeps_what_a_data_folder_that_is_gone_left() {
    in_a_world_of_its_own(|| {
        let before = Machine::look();
        let lost = up_with_pods();
        crash(&lost);
        std::fs::remove_dir_all(&lost.data_dir).unwrap();
        let left = Machine::look();
        assert_ne!(left, before);
        let other = Stead::in_tier("containers");
        other.up();
        let links = Machine::look().links;
        assert!(links.len() < left.links.len(), "{links:?}");
        other.ok(&["down"]);
        Machine::look().assert_is(&before);
    });
}
