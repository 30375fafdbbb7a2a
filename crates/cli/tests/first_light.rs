//! The main job, through the built binary in the tier that every machine has.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on tells so by its panic"
)]

mod stead;

use stead::{STAYS, Stead, set};

const FIRST: &str = include_str!("../../../examples/first.yaml");

#[test]
fn the_example_comes_up_in_order_stops_and_resumes_on_its_data() {
    let stead = Stead::new();
    stead.up().up_ready(FIRST);
    let created = |pod: &str| {
        stead.get(&format!("pod/{pod}"))["status"]["startTime"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert!(created("first-0") <= created("first-1") && created("first-1") <= created("first-2"));
    assert!(
        stead
            .ok(&["logs", "first-2"])
            .contains("first-2 found its neighbour first-1.first at 127.")
    );

    stead.ok(&["down"]);
    assert_eq!(stead.run(&["status"]).code, 3, "it still runs");
    stead.up().up_ready(FIRST);
    for ordinal in 0..3 {
        let pod = format!("first-{ordinal}");
        let ledger = stead.ok(&[
            "exec",
            &pod,
            "--",
            "/bin/sh",
            "-c",
            "cat $STEAD_MOUNT_DATA/ledger",
        ]);
        assert_eq!(
            ledger
                .lines()
                .filter(|line| line.contains(&format!("start of {pod}")))
                .count(),
            2,
            "{ledger}"
        );
        assert_eq!(
            ledger.lines().count(),
            2,
            "another ordinal wrote here: {ledger}"
        );
    }
}

#[test]
fn down_touches_neither_spec_nor_claim_and_volumes_go_only_when_asked_for() {
    let stead = Stead::new();
    stead.up().up_ready(&set("db", 2, STAYS));
    let spec = || stead.get("sts/db")["spec"].clone();
    let claims = || -> Vec<_> {
        let list = stead.get("pvc");
        list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|claim| claim["metadata"]["uid"].clone())
            .collect()
    };
    let before = (spec(), claims());
    assert_eq!(before.1.len(), 2);
    let volumes = || {
        std::fs::read_dir(stead.data_dir.join("node/volumes"))
            .unwrap()
            .count()
    };
    stead.ok(&["down"]);
    assert_eq!(volumes(), 2);
    stead.up();
    assert_eq!((spec(), claims()), before);
    stead.ok(&["down", "--delete-volumes", "--yes"]);
    assert_eq!(volumes(), 0);
}

#[test]
fn scaling_follows_the_order_and_a_deleted_pod_returns_on_its_claim() {
    let stead = Stead::new();
    stead.up().up_ready(&set(
        "db",
        1,
        &format!("echo $POD >> ${{STEAD_MOUNT_DATA:-/data}}/names; {STAYS}"),
    ));
    stead.ok(&["scale", "db", "--replicas", "3"]);
    stead.until(&["status", "db"], "default/db  3/3 ready");
    let uid = |pod: &str| {
        stead.get(&format!("pod/{pod}"))["metadata"]["uid"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let former = uid("db-1");
    stead.ok(&["delete", "pod", "db-1"]);
    stead.until(&["status", "db"], "default/db  3/3 ready");
    assert_ne!(uid("db-1"), former);
    assert_eq!(
        stead.ok(&[
            "exec",
            "db-1",
            "--",
            "/bin/sh",
            "-c",
            "cat $STEAD_MOUNT_DATA/names"
        ]),
        "db-1\ndb-1\n"
    );
    stead.ok(&["scale", "db", "--replicas", "1"]);
    stead.until(&["status", "db"], "default/db  1/1 ready");
    assert!(
        stead
            .ok(&["get", "pvc", "-o", "name"])
            .contains("data-db-2"),
        "a claim went with its pod"
    );
}

#[test]
fn programs_get_what_they_ask_for() {
    let stead = Stead::new();
    stead.up().up_ready(&set("db", 1, STAYS));
    assert_eq!(
        stead.ok(&["get", "sts", "-o", "name"]),
        "statefulset.apps/db\n"
    );
    assert!(
        stead
            .ok(&["get", "pods"])
            .starts_with("NAME   READY   STATUS")
    );
    assert_eq!(stead.get("pod/db-0")["kind"], "Pod");
    let status: serde_json::Value =
        serde_json::from_str(&stead.ok(&["status", "-o", "json"])).unwrap();
    assert_eq!(status[0]["ready"], 1);
    assert_eq!(
        stead
            .run(&["exec", "db-0", "--", "/bin/sh", "-c", "exit 7"])
            .code,
        7
    );
    assert_eq!(
        stead
            .feed(&["exec", "-i", "db-0", "--", "/bin/cat"], "hello")
            .out,
        "hello"
    );
    let kubeconfig = stead.ok(&["kubeconfig"]);
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(kubeconfig.trim())
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}
