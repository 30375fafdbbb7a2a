//! The README's table of what a pod has in each tier, row by row: what it promises is there, what it denies is not.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on tells so by its panic"
)]

mod stead;

use std::collections::BTreeMap;

use stead::{STAYS, Stead, set};

const README: &str = include_str!("../../../README.md");
/// How the table begins.
const HEADER: &str = "| a pod has | containers | rootless | processes |";

/// Each row with what tells of it: a shell text that succeeds in a pod that has it. `HOST_...` are the machine's own.
const CHECKS: [(&str, &str); 8] = [
    (
        "processes of its own",
        "test $(readlink /proc/self/ns/pid) != $HOST_PID",
    ),
    (
        "mounts of its own",
        "test $(readlink /proc/self/ns/mnt) != $HOST_MNT",
    ),
    (
        "a host name of its own",
        "test $(cat /proc/sys/kernel/hostname) = db-0",
    ),
    (
        "a network of its own",
        "test $(readlink /proc/self/ns/net) != $HOST_NET",
    ),
    ("its volumes at their paths", "test -f /data/here"),
    ("its peers' names by the resolver", "getent hosts db-1.db"),
    ("its files away from the machine's", "echo x > $HOST_PROBE"),
    (
        "memory limits that hold",
        "grep -qx 67108864 /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max",
    ),
];

/// The rows of the table: what, and `yes` or `no` in each tier; words may follow them.
fn rows() -> BTreeMap<&'static str, [&'static str; 3]> {
    let table = README.lines().skip_while(|line| *line != HEADER).skip(2);
    table
        .take_while(|line| line.starts_with('|'))
        .map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            let [what, containers, rootless, processes] = cells[..] else {
                panic!("a row of another length: {line}");
            };
            (what, [containers, rootless, processes])
        })
        .collect()
}

fn promised(cell: &str) -> bool {
    match cell.split([',', ' ', ':']).next() {
        Some("yes") => true,
        Some("no") => false,
        _ => panic!("a cell begins with yes or no: {cell}"),
    }
}

/// Tells whether the tier is possible here, and if so holds its column to what a pod finds.
fn check_column(tier: &'static str, column: usize) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let stead = Stead::in_tier(tier);
    let started = stead.run(&["up", "-d", "--listen", "127.0.0.1:0", "--tier", tier]);
    if started.err.contains("is not possible on this machine") {
        return false;
    }
    assert_eq!(started.code, 0, "{started:?}");
    let program = format!("touch ${{STEAD_MOUNT_DATA:-/data}}/here; {STAYS}");
    let pods = set("db", 2, &program).replace(
        "          command:",
        "          resources: {limits: {memory: 64Mi}}\n          command:",
    );
    let service = "\n---\napiVersion: v1\nkind: Service\nmetadata: {name: db}\nspec: {clusterIP: None, selector: {app: db}, ports: [{port: 80}]}\n";
    stead.up_ready(&format!("{pods}{service}"));
    let probe = folder.path().join("probe");
    let own = |kind: &str| std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
    let variables = format!(
        "HOST_PID='{}' HOST_MNT='{}' HOST_NET='{}' HOST_PROBE='{}'",
        own("pid").display(),
        own("mnt").display(),
        own("net").display(),
        probe.display()
    );
    for (row, cells) in rows() {
        let (_, script) = CHECKS.iter().find(|(what, _)| *what == row).unwrap();
        let text = format!("{variables}; mkdir -p ${{HOST_PROBE%/*}}; {script}");
        let said = stead.run(&["exec", "db-0", "--", "/bin/sh", "-c", &text]);
        let has = match row {
            "its files away from the machine's" => !probe.exists(),
            _ => said.code == 0,
        };
        assert_eq!(has, promised(cells[column]), "{tier}: {row}: {said:?}");
    }
    stead.ok(&["down"]);
    true
}

#[test]
fn every_row_has_a_check_and_every_check_a_row() {
    let told: Vec<&str> = rows().into_keys().collect();
    let mut checked: Vec<&str> = CHECKS.iter().map(|(what, _)| *what).collect();
    checked.sort_unstable();
    assert_eq!(told, checked);
}

#[test]
fn the_processes_tier_gives_what_the_table_says() {
    assert!(check_column("processes", 2), "every machine has this tier");
}

/// Where the machine allows no user namespaces, `stead up` says so, and there is nothing to hold the column to.
#[test]
fn the_rootless_tier_gives_what_the_table_says_where_it_is_possible() {
    let possible = check_column("rootless", 1);
    let allowed = std::process::Command::new("unshare")
        .args(["-Ur", "true"])
        .status();
    assert!(
        possible || !allowed.is_ok_and(|status| status.success()),
        "it is refused where it is possible"
    );
}

#[cfg(feature = "root-tests")]
#[test]
fn the_containers_tier_gives_what_the_table_says() {
    assert!(check_column("containers", 0), "root has this tier");
}
