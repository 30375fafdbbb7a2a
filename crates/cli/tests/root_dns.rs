//! Names as a pod finds them, with the machine's own resolver inside it: every dnsPolicy, every form of a name, bad days.
#![cfg(feature = "root-tests")]
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on tells so by its panic"
)]

mod machine;
mod stead;

use machine::{in_a_world_of_its_own, wait_gone};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use stead::{STAYS, Stead, set};

const SERVICES: &str = r"
---
{apiVersion: v1, kind: Service, metadata: {name: db}, spec: {clusterIP: None, selector: {app: db}, ports: [{name: sql, port: 5432}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: api}, spec: {selector: {app: db}, ports: [{port: 80}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: alias}, spec: {type: ExternalName, externalName: db-1.db.default.svc.cluster.local}}
";

fn up(program: &str) -> Stead {
    let stead = Stead::in_tier("containers");
    stead
        .up()
        .up_ready(&format!("{}{SERVICES}", set("db", 2, program)));
    stead
}

fn ip(stead: &Stead, pod: &str) -> String {
    stead.get(&format!("pod/{pod}"))["status"]["podIP"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// The first address that the resolver inside a pod finds; empty when it finds none.
fn found(stead: &Stead, pod: &str, name: &str) -> String {
    let said = stead.run(&["exec", pod, "--", "getent", "ahostsv4", name]);
    said.out
        .split_whitespace()
        .next()
        .unwrap_or_default()
        .to_owned()
}

#[test]
fn a_pod_finds_its_peers_by_every_form_of_their_names() {
    in_a_world_of_its_own(|| {
        let stead = up(STAYS);
        let (own, other) = (ip(&stead, "db-0"), ip(&stead, "db-1"));
        for name in [
            "db-1.db",
            "db-1.db.default",
            "db-1.db.default.svc",
            "db-1.db.default.svc.cluster.local",
            "DB-1.Db.Default.SVC.cluster.LOCAL",
            "alias",
            &format!("{}.default.pod.cluster.local", other.replace('.', "-")),
        ] {
            assert_eq!(found(&stead, "db-0", name), other, "{name}");
        }
        let service = stead.get("svc/api")["spec"]["clusterIP"]
            .as_str()
            .unwrap()
            .to_owned();
        for name in ["api", "api.default", "api.default.svc.cluster.local."] {
            assert_eq!(found(&stead, "db-0", name), service, "{name}");
        }
        assert!([&own, &other].contains(&&found(&stead, "db-0", "db")));
        for name in [
            "db-2.db",
            "nothing",
            "x.api.default.svc.cluster.local",
            "-_-.db",
        ] {
            assert_eq!(found(&stead, "db-0", name), "", "{name}");
        }
        let back = stead.ok(&["exec", "db-0", "--", "getent", "hosts", &other]);
        assert!(
            back.ends_with(" db-1.db.default.svc.cluster.local\n"),
            "{back}"
        );
        let service = stead.ok(&[
            "dns",
            "_sql._tcp.db.default.svc.cluster.local",
            "--type",
            "SRV",
        ]);
        assert!(
            service.contains("5432 db-1.db.default.svc.cluster.local.") && service.contains(&other),
            "{service}"
        );
        let none = stead.run(&["dns", "db-1.db.default.svc.cluster.local", "--type", "AAAA"]);
        assert!(
            none.out.contains("NOERROR") && none.out.contains("\tSOA\t"),
            "no data, not no name: {none:?}"
        );
    });
}

#[test]
fn each_dns_policy_has_the_resolv_conf_that_the_kubelet_would_write() {
    in_a_world_of_its_own(|| {
        let stead = Stead::in_tier("containers");
        stead.up();
        let pods = [
            ("cluster-first", ""),
            ("default", "dnsPolicy: Default, "),
            (
                "none",
                "dnsPolicy: None, dnsConfig: {nameservers: [192.0.2.1], searches: [a.example], options: [{name: ndots, value: '2'}, {name: edns0}]}, ",
            ),
            ("host-network", "hostNetwork: true, "),
            (
                "host-network-too",
                "hostNetwork: true, dnsPolicy: ClusterFirstWithHostNet, ",
            ),
            (
                "more",
                "dnsConfig: {searches: [b.example], options: [{name: ndots, value: '1'}]}, ",
            ),
        ];
        let manifest: String = pods
            .iter()
            .map(|(name, spec)| format!("---\n{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{{spec}terminationGracePeriodSeconds: 0, containers: [{{name: main, image: stead.dev/host, command: [sleep, '1000']}}]}}}}\n"))
            .collect();
        let said = stead.feed(&["apply", "-f", "-"], &manifest);
        assert_eq!(said.code, 0, "{said:?}");
        let file = |pod: &str| {
            stead
                .until(
                    &["exec", pod, "--", "cat", "/etc/resolv.conf"],
                    "nameserver",
                )
                .out
        };
        let machine = std::fs::read_to_string("/etc/resolv.conf").unwrap();
        let servers = |text: &str| -> Vec<String> {
            let lines = text.lines().filter(|line| line.starts_with("nameserver"));
            lines
                .map(|line| line.split_whitespace().nth(1).unwrap().to_owned())
                .take(3)
                .collect()
        };
        let cluster = file("cluster-first");
        let ours = "search default.svc.cluster.local svc.cluster.local cluster.local";
        assert!(
            cluster.starts_with("nameserver 10.") && cluster.contains(ours),
            "{cluster}"
        );
        assert!(cluster.ends_with("options ndots:5\n"), "{cluster}");
        assert_eq!(file("host-network-too"), cluster);
        for pod in ["default", "host-network"] {
            assert_eq!(servers(&file(pod)), servers(&machine), "{pod}");
        }
        assert_eq!(
            file("none"),
            "nameserver 192.0.2.1\nsearch a.example\noptions ndots:2 edns0\n"
        );
        let more = file("more");
        assert!(
            more.contains(ours)
                && more.contains("b.example")
                && more.ends_with("options ndots:1\n"),
            "{more}"
        );
    });
}

/// Asks for ever, a line for each answer.
const ASKS: &str = "trap 'exit 0' TERM; while :; do getent ahostsv4 db-1.db | head -1 | cut -d' ' -f1 | sed 's/^/found /'; sleep 0.05; done";

#[test]
fn a_pod_that_resolves_all_the_time_lives_through_a_deleted_peer_and_a_killed_daemon() {
    in_a_world_of_its_own(|| {
        let stead = up(ASKS);
        let last = |count: &str| stead.ok(&["logs", "db-0", "--tail", count]);
        stead.until(
            &["logs", "db-0", "--tail", "1"],
            &format!("found {}", ip(&stead, "db-1")),
        );
        let daemon = i32::try_from(stead.daemon()).unwrap();
        kill(Pid::from_raw(daemon), Signal::SIGKILL).unwrap();
        wait_gone(&[daemon]);
        stead.up();
        let found = |stead: &Stead| {
            last("5")
                .lines()
                .any(|line| line == format!("found {}", ip(stead, "db-1")))
        };
        let before = lines(&stead);
        until(
            || lines(&stead) > before && found(&stead),
            "the pod finds its peer again",
        );
        stead.ok(&["delete", "pod", "db-1"]);
        stead.until(&["status", "db"], "default/db  2/2 ready");
        let before = lines(&stead);
        until(
            || lines(&stead) > before && found(&stead),
            "the pod finds its new peer",
        );
        let restarts = &stead.get("pod/db-0")["status"]["containerStatuses"][0]["restartCount"];
        assert_eq!(*restarts, 0);
    });
}

fn lines(stead: &Stead) -> usize {
    stead.ok(&["logs", "db-0"]).lines().count()
}

#[track_caller]
fn until(done: impl Fn() -> bool, what: &str) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !done() {
        assert!(std::time::Instant::now() < deadline, "{what}");
    }
}
