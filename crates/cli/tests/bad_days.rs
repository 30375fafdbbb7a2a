//! Workloads that misbehave: each is told with its reason, and none takes Stead along.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on tells so by its panic"
)]

mod stead;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use stead::{STAYS, Stead, set};

#[test]
fn two_sets_that_select_the_same_pods_each_get_their_own() {
    let stead = Stead::new();
    let same = |name: &str| set(name, 1, STAYS).replace(&format!("app: {name}"), "app: shared");
    stead
        .up()
        .up_ready(&format!("{}\n---\n{}", same("one"), same("two")));
    let owner = |pod: &str| {
        stead.get(&format!("pod/{pod}"))["metadata"]["ownerReferences"][0]["name"].clone()
    };
    assert_eq!(
        (owner("one-0"), owner("two-0")),
        ("one".into(), "two".into())
    );
}

#[test]
fn a_claim_that_cannot_be_provisioned_says_why_and_the_set_waits() {
    let stead = Stead::new();
    let manifest = set("db", 1, STAYS).replace(
        "spec: {accessModes",
        "spec: {storageClassName: missing, accessModes",
    );
    let said = stead
        .up()
        .feed(&["up", "--wait", "--timeout", "2s", "-f", "-"], &manifest);
    assert_eq!(said.code, 4, "{said:?}");
    assert!(said.err.contains("db-0"), "{said:?}");
    stead.until(&["status"], "(not bound)");
    stead.until(&["get", "events"], "missing");
}

#[test]
fn a_container_that_exits_at_once_is_started_again_with_growing_pauses() {
    let stead = Stead::new();
    let manifest = set(
        "db",
        1,
        "cd ${STEAD_MOUNT_DATA:-/data}; echo it fails; exit 3",
    );
    stead.up().feed(&["up", "-f", "-"], &manifest);
    stead.until(&["status"], "CrashLoopBackOff");
    let last = &stead.get("pod/db-0")["status"]["containerStatuses"][0]["lastState"]["terminated"];
    assert_eq!(
        (&last["exitCode"], &last["reason"]),
        (&3.into(), &"Error".into())
    );
    assert_eq!(stead.ok(&["logs", "--previous", "db-0"]), "it fails\n");
}

#[test]
fn a_container_that_never_gets_ready_keeps_the_next_ordinal_waiting() {
    let stead = Stead::new();
    let probe = "volumeMounts: [{name: data, mountPath: /data}]\n          readinessProbe: {exec: {command: [\"false\"]}, periodSeconds: 1}";
    let manifest =
        set("db", 2, STAYS).replace("volumeMounts: [{name: data, mountPath: /data}]", probe);
    let said = stead
        .up()
        .feed(&["up", "--wait", "--timeout", "3s", "-f", "-"], &manifest);
    assert_eq!(said.code, 4, "{said:?}");
    let said = stead.until(&["status"], "waits: ");
    assert!(
        said.out.contains("db-0") && said.out.contains("db-1  waiting")
            || said.out.contains("db-1   waiting"),
        "{said:?}"
    );
}

#[test]
fn a_container_that_ignores_sigterm_is_killed_when_its_grace_is_over() {
    let stead = Stead::new();
    stead.up().up_ready(&set(
        "db",
        1,
        "cd ${STEAD_MOUNT_DATA:-/data}; trap '' TERM; while :; do sleep 0.1; done",
    ));
    let began = std::time::Instant::now();
    stead.ok(&["delete", "pod", "db-0"]);
    let took = began.elapsed().as_secs();
    assert!((1..20).contains(&took), "a grace of 1 s took {took} s");
}

#[test]
fn a_command_that_does_not_exist_is_named() {
    let stead = Stead::new();
    let manifest = set("db", 1, "$STEAD_MOUNT_DATA")
        .replace("\"/bin/sh\", \"-c\"", "\"/bin/no-such-program\"");
    stead.up().feed(&["up", "-f", "-"], &manifest);
    stead.until(&["status"], "/bin/no-such-program");
}

#[test]
fn a_mount_that_this_tier_cannot_honour_is_refused_with_the_reason() {
    let stead = Stead::new();
    stead
        .up()
        .feed(&["up", "-f", "-"], &set("db", 1, "sleep 3600"));
    stead.until(&["status"], "STEAD_MOUNT_DATA");
}

#[test]
fn a_daemon_that_is_just_dying_is_not_taken_for_one_that_runs() {
    let stead = Stead::new();
    stead.up();
    for _ in 0..5 {
        let daemon = i32::try_from(stead.daemon()).unwrap();
        kill(Pid::from_raw(daemon), Signal::SIGKILL).unwrap();
        stead.up();
        stead.ok(&["get", "nodes"]);
    }
}
