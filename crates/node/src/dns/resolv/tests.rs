//! A pod's spec and a machine's resolver in, a resolv.conf out.

use serde_json::{Value, json};

use super::{ClusterDns, Resolver, for_pod, resolv_conf};

const MACHINE: &str = "# made by hand\nnameserver 192.0.2.1 ; the router\nnameserver 192.0.2.2\nsearch office.example. example\noptions edns0 trust-ad\n";

fn check(pod_spec: Value, machine: &str, expected: &str) {
    let cluster = ClusterDns {
        nameservers: vec!["10.96.0.10".parse().unwrap()],
        domain: "cluster.local".to_owned(),
    };
    assert_eq!(
        for_pod(&pod_spec, "prod", &cluster, &Resolver::parse(machine)),
        expected
    );
}

const CLUSTER: &str = "nameserver 10.96.0.10\n\
    search prod.svc.cluster.local svc.cluster.local cluster.local office.example example\n\
    options ndots:5\n";

#[test]
fn by_default_a_pod_asks_the_cluster() {
    check(json!({}), MACHINE, CLUSTER);
    check(json!({"dnsPolicy": "ClusterFirst"}), MACHINE, CLUSTER);
    check(
        json!({"dnsPolicy": "ClusterFirstWithHostNet", "hostNetwork": true}),
        MACHINE,
        CLUSTER,
    );
}

#[test]
fn the_plain_form_says_the_same() {
    let text = resolv_conf(
        "prod",
        "10.96.0.10".parse().unwrap(),
        "cluster.local",
        &["office.example".to_owned(), "example".to_owned()],
    );
    assert_eq!(text, CLUSTER);
}

#[test]
fn policy_default_is_the_machines_own() {
    let own = "nameserver 192.0.2.1\nnameserver 192.0.2.2\nsearch office.example example\noptions edns0 trust-ad\n";
    check(json!({"dnsPolicy": "Default"}), MACHINE, own);
    check(
        json!({"dnsPolicy": "ClusterFirst", "hostNetwork": true}),
        MACHINE,
        own,
    );
}

#[test]
fn a_resolver_on_the_machines_loopback_is_replaced_for_pods_with_a_network_of_their_own() {
    let machine = "nameserver 127.0.0.53\nsearch lan\n";
    check(
        json!({"dnsPolicy": "Default"}),
        machine,
        "nameserver 10.96.0.10\nsearch lan\n",
    );
    check(
        json!({"dnsPolicy": "Default", "hostNetwork": true}),
        machine,
        "nameserver 127.0.0.53\nsearch lan\n",
    );
}

#[test]
fn policy_none_is_what_the_pod_says() {
    let config = json!({"nameservers": ["192.0.2.9"], "searches": ["my.example."], "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]});
    check(
        json!({"dnsPolicy": "None", "dnsConfig": config}),
        MACHINE,
        "nameserver 192.0.2.9\nsearch my.example\noptions ndots:2 edns0\n",
    );
    check(json!({"dnsPolicy": "None"}), MACHINE, "");
}

#[test]
fn a_pods_own_settings_are_added_and_its_options_win() {
    check(
        json!({"dnsConfig": {
            "nameservers": ["192.0.2.9", "10.96.0.10"],
            "searches": ["my.example", "example"],
            "options": [{"name": "edns0"}, {"name": "ndots", "value": "2"}],
        }}),
        MACHINE,
        "nameserver 10.96.0.10\nnameserver 192.0.2.9\n\
         search prod.svc.cluster.local svc.cluster.local cluster.local office.example example my.example\n\
         options ndots:2 edns0\n",
    );
}

#[test]
fn no_more_is_written_than_a_libc_reads() {
    let many: Vec<String> = (0..40).map(|n| format!("d{n}.example")).collect();
    let machine = format!(
        "nameserver 192.0.2.1\nnameserver 192.0.2.2\nnameserver 192.0.2.3\nnameserver 192.0.2.4\nsearch {}\n",
        many.join(" ")
    );
    let first = many[..32].join(" ");
    check(
        json!({"dnsPolicy": "Default"}),
        &machine,
        &format!(
            "nameserver 192.0.2.1\nnameserver 192.0.2.2\nnameserver 192.0.2.3\nsearch {first}\n"
        ),
    );
    let (long, short) = ("a".repeat(1_500), "b".repeat(600));
    check(
        json!({"dnsPolicy": "Default"}),
        &format!("search {long} {short} c\n"),
        &format!("nameserver 10.96.0.10\nsearch {long}\n"),
    );
}

#[test]
fn odd_lines_are_passed_over() {
    let text = "nameserver\nnameserver fe80::1%eth0\nnameserver 2001:db8::1\nsortlist 1.2.3.4\nsearch a b\ndomain c\n;x\n\n";
    let expected = Resolver {
        nameservers: vec!["2001:db8::1".parse().unwrap()],
        searches: vec!["c".to_owned()],
        options: vec![],
    };
    assert_eq!(Resolver::parse(text), expected);
}

#[test]
fn odd_specs_are_taken_as_far_as_they_make_sense() {
    check(
        json!({"dnsPolicy": 7, "dnsConfig": {"nameservers": "x", "searches": [1], "options": [{}, {"name": 3}]}}),
        MACHINE,
        CLUSTER,
    );
    check(json!(null), MACHINE, CLUSTER);
}
