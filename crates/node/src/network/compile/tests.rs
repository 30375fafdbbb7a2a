//! Rules as texts: a small world of objects, and what becomes of connections in it.
//!
//! Each case lists objects, then lines `who -> [protocol] address:port: what becomes of it`. A pod is named by its name, the
//! machine as `machine`, a stranger by an address. Connections are taken through the compiled ruleset by [`walk`].

mod walk;

use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::api::networking::v1 as networking;
use serde_json::{Value, json};

use super::*;
use crate::network::objects;
use crate::network::ruleset::Protocol;

fn machine() -> Machine {
    Machine {
        instance: "0a1b2c".to_owned(),
        interfaces: "st0a1b2c".to_owned(),
        gateway: Ipv4Addr::new(10, 7, 0, 1),
        pods: "10.7.0.0/24".parse().expect("a range"),
        services: "10.96.0.0/16".parse().expect("a range"),
        opened: vec!["eth0".to_owned()],
    }
}

fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("an object of the API")
}

/// Objects, one a line: `kind namespace/name {fields}`, where the fields are the object's but for its metadata.
fn world(text: &str) -> World {
    let mut world = World::default();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let mut words = line.splitn(3, ' ');
        let (kind, full) = (
            words.next().unwrap_or_default(),
            words.next().unwrap_or_default(),
        );
        let fields = words.next().unwrap_or("{}");
        let mut object: Value =
            serde_json::from_str(fields).unwrap_or_else(|error| panic!("{error} in {line}"));
        let (namespace, name) = full.split_once('/').unwrap_or(("", full));
        let labels = object["labels"].take();
        object["metadata"] =
            json!({"namespace": namespace, "name": name, "labels": labels, "uid": full});
        add(&mut world, kind, object);
    }
    world
}

fn add(world: &mut World, kind: &str, object: Value) {
    match kind {
        "service" => {
            let own = Service::parse(&read::<core::Service>(object));
            world.services.insert(own.key.clone(), own);
        }
        "slice" => {
            let own = Slice::parse(&slice(object));
            world.slices.insert(own.key.clone(), own);
        }
        "pod" => {
            if let Some(own) = Pod::parse(&pod(object)) {
                world.pods.insert(own.key.clone(), own);
            }
        }
        "namespace" => {
            let own: core::Namespace = read(object);
            let name = own.metadata.name.clone().unwrap_or_default();
            world
                .namespaces
                .insert(name, objects::namespace_labels(&own));
        }
        "policy" => {
            let own = Policy::parse(&read::<networking::NetworkPolicy>(object));
            world.policies.insert(own.key.clone(), own);
        }
        other => panic!("no kind {other}"),
    }
}

/// `ports` as in the API, `to` the addresses: one that ends in `-` is not ready, in `~` it is on its way out.
fn slice(object: Value) -> discovery::EndpointSlice {
    let mut slice = json!({"metadata": object["metadata"], "addressType": "IPv4"});
    let name = object["metadata"]["name"].as_str().expect("a name");
    let service = name.split('.').next().unwrap_or_default();
    slice["metadata"]["labels"] = json!({"kubernetes.io/service-name": service});
    slice["ports"] = object["ports"].clone();
    let endpoint = |text: &Value| {
        let text = text.as_str().expect("an address");
        let conditions = match text.chars().next_back() {
            Some('-') => json!({"ready": false}),
            Some('~') => json!({"ready": false, "serving": true, "terminating": true}),
            _ => json!({}),
        };
        json!({"addresses": [text.trim_end_matches(['-', '~'])], "conditions": conditions})
    };
    let addresses = object["to"].as_array().expect("addresses");
    slice["endpoints"] = addresses.iter().map(endpoint).collect();
    read(slice)
}

/// `ip`, `ports`, `phase`, `hostNetwork` make a pod.
fn pod(object: Value) -> core::Pod {
    let container = json!({"name": "c", "ports": object["ports"]});
    read(json!({
        "metadata": object["metadata"],
        "spec": {"containers": [container], "hostNetwork": object["hostNetwork"]},
        "status": {"podIP": object["ip"], "phase": object["phase"]},
    }))
}

/// Lines `who -> [protocol] address:port: outcome`.
fn check(objects: &str, lines: &str) {
    let world = world(objects);
    check_lines(&world, lines, |ruleset, who, to| {
        walk::outcomes(&machine(), ruleset, who, to)
    });
}

fn check_lines(
    world: &World,
    lines: &str,
    outcome: impl Fn(&Ruleset, walk::From, (Protocol, Ipv4Addr, u16)) -> String,
) {
    let ruleset = compile(&machine(), world);
    let mut told = String::new();
    let mut wanted = String::new();
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (question, _) = line.split_once(": ").expect("an outcome");
        let (who, to) = question.split_once(" -> ").expect("a direction");
        let (protocol, to) = to.split_once(' ').unwrap_or(("TCP", to));
        let (address, port) = to.split_once(':').expect("a port");
        let protocol = Protocol::parse(protocol).expect("a protocol");
        let to = (
            protocol,
            address.parse().expect("an address"),
            port.parse().expect("a port"),
        );
        let pod = |name: &str| {
            let pods = world.pods.values();
            pods.filter(|pod| pod.key.name == name)
                .find_map(|pod| pod.address)
        };
        let became = outcome(&ruleset, walk::from(who, pod), to);
        told.push_str(&format!("{question}: {became}\n"));
        wanted.push_str(&format!("{line}\n"));
    }
    assert_eq!(told, wanted);
}

const PODS: &str = r#"
    pod default/a {"ip": "10.7.0.2", "labels": {"app": "a"}, "ports": [{"name": "web", "containerPort": 8080}]}
    pod default/b {"ip": "10.7.0.3", "labels": {"app": "b"}, "ports": [{"name": "web", "containerPort": 8081}]}
    pod default/c {"ip": "10.7.0.4", "labels": {"app": "c"}}
    pod other/x {"ip": "10.7.0.9", "labels": {"app": "a"}}
    namespace default {"labels": {"team": "one"}}
    namespace other {"labels": {"team": "two"}}
"#;

fn with_pods(objects: &str) -> String {
    format!("{PODS}{objects}")
}

const WEB: &str = r#"
    service default/web {"spec": {"clusterIP": "10.96.0.5", "ports": [{"name": "http", "port": 80}]}}
    slice default/web.1 {"ports": [{"name": "http", "port": 8080}], "to": ["10.7.0.2", "10.7.0.3"]}
"#;

#[test]
fn without_any_object_pods_reach_each_other_the_machine_and_the_world() {
    check(
        PODS,
        "a -> 10.7.0.3:9: 10.7.0.3:9
         a -> 10.7.0.1:53: 10.7.0.1:53
         a -> 203.0.113.7:443: 203.0.113.7:443 as 192.0.2.2
         machine -> 10.7.0.3:9: 10.7.0.3:9
         203.0.113.7 -> 10.7.0.3:9: 10.7.0.3:9",
    );
}

#[test]
fn what_an_interface_forwards_only_for_pods_goes_to_pods_alone() {
    check(PODS, "203.0.113.7 -> 198.51.100.1:9: lost");
}

#[test]
fn a_pod_does_not_come_to_the_machines_loopback_by_itself() {
    check(PODS, "a -> 127.0.0.1:6443: lost");
}

#[test]
fn a_cluster_ip_is_answered_by_every_ready_endpoint() {
    check(
        &with_pods(WEB),
        "c -> 10.96.0.5:80: 10.7.0.2:8080, 10.7.0.3:8080
         a -> 10.96.0.5:80: 10.7.0.2:8080 as 10.7.0.1, 10.7.0.3:8080
         machine -> 10.96.0.5:80: 10.7.0.2:8080, 10.7.0.3:8080",
    );
}

#[test]
fn what_no_service_has_is_refused_at_once() {
    check(
        &with_pods(WEB),
        "c -> 10.96.0.5:81: refused
         c -> UDP 10.96.0.5:80: refused
         c -> 10.96.77.77:80: refused
         machine -> 10.96.77.77:80: refused
         machine -> UDP 10.96.0.5:80: refused",
    );
}

#[test]
fn endpoints_on_their_way_out_answer_only_when_there_is_no_ready_one() {
    let service =
        r#"service default/web {"spec": {"clusterIP": "10.96.0.5", "ports": [{"port": 80}]}}"#;
    let to = |to: &str| {
        format!(
            r#"{service}
        slice default/web.1 {{"ports": [{{"port": 80}}], "to": [{to}]}}"#
        )
    };
    let with = |own: &str| with_pods(&to(own));
    check(
        &with(r#""10.7.0.2", "10.7.0.3~""#),
        "c -> 10.96.0.5:80: 10.7.0.2:80",
    );
    check(
        &with(r#""10.7.0.2-", "10.7.0.3~""#),
        "c -> 10.96.0.5:80: 10.7.0.3:80",
    );
    check(&with(r#""10.7.0.2-""#), "c -> 10.96.0.5:80: refused");
}

#[test]
fn ports_by_name_and_several_slices_of_one_service_are_joined() {
    check(
        &with_pods(
            r#"
            service default/web {"spec": {"clusterIP": "10.96.0.5", "ports": [{"name": "http", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}]}}
            slice default/web.1 {"ports": [{"name": "http", "port": 8080}, {"name": "dns", "port": 5353, "protocol": "UDP"}], "to": ["10.7.0.2"]}
            slice default/web.2 {"ports": [{"name": "http", "port": 8081}], "to": ["10.7.0.3"]}
            "#,
        ),
        "c -> 10.96.0.5:80: 10.7.0.2:8080, 10.7.0.3:8081
         c -> UDP 10.96.0.5:53: 10.7.0.2:5353
         c -> 10.96.0.5:53: refused",
    );
}

#[test]
fn headless_and_alias_services_have_no_rules() {
    check(
        &with_pods(
            r#"
            service default/none {"spec": {"clusterIP": "None", "ports": [{"port": 80}]}}
            slice default/none.1 {"ports": [{"port": 80}], "to": ["10.7.0.2"]}
            service default/alias {"spec": {"type": "ExternalName", "externalName": "example.org", "ports": [{"port": 80}]}}
            "#,
        ),
        "c -> 10.7.0.2:80: 10.7.0.2:80
         c -> 10.96.0.6:80: refused",
    );
}

const SHOWN: &str = r#"
    service default/web {"spec": {"type": "LoadBalancer", "clusterIP": "10.96.0.5", "externalIPs": ["192.0.2.50"],
        "ports": [{"port": 80, "nodePort": 30080}], "loadBalancerSourceRanges": ["203.0.113.0/24"]},
        "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.2"}]}}}
"#;

fn shown(to: &str) -> String {
    let service = SHOWN.replace('\n', " ");
    with_pods(&format!(
        "{service}\nslice default/web.1 {{\"ports\": [{{\"port\": 8080}}], \"to\": [{to}]}}"
    ))
}

#[test]
fn node_ports_external_addresses_and_load_balancers_lead_to_the_service() {
    check(
        &shown("\"10.7.0.2\""),
        "203.0.113.7 -> 192.0.2.2:30080: 10.7.0.2:8080
         203.0.113.7 -> 192.0.2.50:80: 10.7.0.2:8080
         203.0.113.7 -> 192.0.2.2:80: 10.7.0.2:8080
         198.51.100.7 -> 192.0.2.2:80: 192.0.2.2:80
         local -> 127.0.0.1:30080: 10.7.0.2:8080 as 10.7.0.1
         machine -> 192.0.2.2:30080: 10.7.0.2:8080
         c -> 192.0.2.2:30080: 10.7.0.2:8080
         a -> 192.0.2.2:30080: 10.7.0.2:8080 as 10.7.0.1
         203.0.113.7 -> 192.0.2.2:30081: 192.0.2.2:30081",
    );
}

#[test]
fn addresses_and_ports_of_the_machine_without_an_endpoint_are_refused() {
    check(
        &shown(""),
        "203.0.113.7 -> 192.0.2.2:30080: refused
         203.0.113.7 -> 192.0.2.50:80: refused
         203.0.113.7 -> 192.0.2.2:80: refused
         machine -> 192.0.2.2:30080: refused
         c -> 192.0.2.50:80: refused",
    );
}

#[test]
fn the_api_is_reached_on_the_machines_loopback_and_nothing_else_is() {
    check(
        &with_pods(
            r#"
            service default/kubernetes {"spec": {"clusterIP": "10.96.0.1", "ports": [{"name": "https", "port": 443}]}}
            slice default/kubernetes {"ports": [{"name": "https", "port": 6443}], "to": ["127.0.0.1"]}
            service default/host {"spec": {"clusterIP": "10.96.0.2", "ports": [{"port": 22}]}}
            slice default/host {"ports": [{"port": 22}], "to": ["127.0.0.1"]}
            "#,
        ),
        "a -> 10.96.0.1:443: 127.0.0.1:6443
         machine -> 10.96.0.1:443: 127.0.0.1:6443
         a -> 10.96.0.2:22: 10.7.0.1:22",
    );
}

#[test]
fn an_endpoint_beyond_the_machine_answers_by_way_of_it() {
    check(
        &with_pods(
            r#"
            service default/db {"spec": {"clusterIP": "10.96.0.8", "ports": [{"port": 5432, "nodePort": 30543}]}}
            slice default/db {"ports": [{"port": 5432}], "to": ["198.51.100.20"]}
            "#,
        ),
        "a -> 10.96.0.8:5432: 198.51.100.20:5432 as 192.0.2.2
         machine -> 10.96.0.8:5432: 198.51.100.20:5432 as 192.0.2.2",
    );
}

#[test]
fn host_ports_lead_to_their_pod_at_the_addresses_they_name() {
    check(
        r#"
        pod default/a {"ip": "10.7.0.2", "ports": [{"containerPort": 8080, "hostPort": 80}, {"containerPort": 53, "hostPort": 53, "protocol": "UDP", "hostIP": "192.0.2.2"}]}
        pod default/b {"ip": "10.7.0.3", "ports": [{"containerPort": 1, "hostPort": 80}]}
        pod default/c {"ip": "10.7.0.4", "phase": "Succeeded", "ports": [{"containerPort": 9, "hostPort": 9}]}
        pod default/h {"ip": "10.7.0.1", "hostNetwork": true, "ports": [{"containerPort": 7, "hostPort": 7}]}
        "#,
        "203.0.113.7 -> 192.0.2.2:80: 10.7.0.2:8080
         203.0.113.7 -> UDP 192.0.2.2:53: 10.7.0.2:53
         local -> UDP 127.0.0.1:53: 127.0.0.1:53
         203.0.113.7 -> 192.0.2.2:9: 192.0.2.2:9
         203.0.113.7 -> 192.0.2.2:7: 192.0.2.2:7",
    );
}

#[test]
fn a_client_that_is_remembered_goes_where_it_went_before() {
    let faithful = WEB.replace(
        r#""clusterIP""#,
        r#""sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 90}}, "clusterIP""#,
    );
    let world = world(&with_pods(&faithful));
    check_lines(
        &world,
        "c -> 10.96.0.5:80: 10.7.0.3:8080",
        |ruleset, who, to| {
            let set = "clients/default/web/tcp/http/10.7.0.3/8080";
            walk::remembered(&machine(), ruleset, set, who, to)
        },
    );
    check(
        &with_pods(&faithful),
        "c -> 10.96.0.5:80: 10.7.0.2:8080, 10.7.0.3:8080",
    );
    let text = compile(&machine(), &world).to_string();
    assert!(
        text.contains("update @clients/default/web/tcp/http/10.7.0.2/8080 { ip saddr timeout 90s } dnat to 10.7.0.2:8080"),
        "{text}"
    );
}

#[test]
fn affinity_without_a_timeout_lasts_for_three_hours() {
    let service = r#"service default/web {"spec": {"clusterIP": "10.96.0.5", "sessionAffinity": "ClientIP", "ports": [{"port": 80}]}}"#;
    let seconds = world(service)
        .services
        .into_values()
        .map(|own| own.affinity_seconds);
    assert_eq!(seconds.collect::<Vec<_>>(), [Some(10_800)]);
}

/// What these policies leave of the connections of the pods.
fn matrix(policies: &str, wanted: &str) {
    check(&with_pods(policies), wanted);
}

#[test]
fn a_policy_without_rules_lets_nobody_in_but_the_machine_and_the_pod_itself() {
    matrix(
        r#"policy default/deny {"spec": {"podSelector": {}}}"#,
        "b -> 10.7.0.2:80: lost
         x -> 10.7.0.2:80: lost
         203.0.113.7 -> 10.7.0.2:80: lost
         machine -> 10.7.0.2:80: 10.7.0.2:80
         a -> 10.7.0.9:80: 10.7.0.9:80
         a -> 203.0.113.7:443: 203.0.113.7:443 as 192.0.2.2",
    );
}

#[test]
fn an_empty_rule_lets_everybody_in() {
    matrix(
        r#"policy default/allow {"spec": {"podSelector": {}, "ingress": [{}]}}"#,
        "b -> 10.7.0.2:80: 10.7.0.2:80
         203.0.113.7 -> UDP 10.7.0.2:53: 10.7.0.2:53",
    );
}

#[test]
fn policies_add_up() {
    matrix(
        r#"
        policy default/deny {"spec": {"podSelector": {}}}
        policy default/b {"spec": {"podSelector": {"matchLabels": {"app": "a"}}, "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "b"}}}]}]}}
        "#,
        "b -> 10.7.0.2:80: 10.7.0.2:80
         c -> 10.7.0.2:80: lost
         a -> 10.7.0.3:80: lost",
    );
}

#[test]
fn selectors_of_pods_are_of_the_policys_namespace_unless_one_of_namespaces_stands_beside_them() {
    let allow = |from: &str| {
        format!(
            r#"policy default/p {{"spec": {{"podSelector": {{"matchLabels": {{"app": "c"}}}}, "ingress": [{{"from": [{from}]}}]}}}}"#
        )
    };
    matrix(
        &allow(r#"{"podSelector": {"matchLabels": {"app": "a"}}}"#),
        "a -> 10.7.0.4:80: 10.7.0.4:80
         x -> 10.7.0.4:80: lost
         b -> 10.7.0.4:80: lost",
    );
    matrix(
        &allow(r#"{"namespaceSelector": {"matchLabels": {"team": "two"}}}"#),
        "x -> 10.7.0.4:80: 10.7.0.4:80
         a -> 10.7.0.4:80: lost",
    );
    // Both in one peer: pods of those namespaces. In two peers: either.
    matrix(
        &allow(
            r#"{"namespaceSelector": {"matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["other"]}]}, "podSelector": {"matchLabels": {"app": "b"}}}"#,
        ),
        "x -> 10.7.0.4:80: lost
         b -> 10.7.0.4:80: lost",
    );
    matrix(
        &allow(
            r#"{"namespaceSelector": {"matchLabels": {"team": "two"}}}, {"podSelector": {"matchLabels": {"app": "b"}}}"#,
        ),
        "x -> 10.7.0.4:80: 10.7.0.4:80
         b -> 10.7.0.4:80: 10.7.0.4:80
         a -> 10.7.0.4:80: lost",
    );
}

#[test]
fn ports_are_numbers_ranges_names_and_protocols() {
    let allow = |ports: &str| {
        format!(
            r#"policy default/p {{"spec": {{"podSelector": {{"matchLabels": {{"app": "a"}}}}, "ingress": [{{"ports": [{ports}]}}]}}}}"#
        )
    };
    matrix(
        &allow(r#"{"port": 80}, {"protocol": "UDP", "port": 53}"#),
        "b -> 10.7.0.2:80: 10.7.0.2:80
         b -> UDP 10.7.0.2:80: lost
         b -> UDP 10.7.0.2:53: 10.7.0.2:53
         b -> 10.7.0.2:81: lost",
    );
    matrix(
        &allow(r#"{"port": 9000, "endPort": 9004}"#),
        "b -> 10.7.0.2:8999: lost
         b -> 10.7.0.2:9000: 10.7.0.2:9000
         b -> 10.7.0.2:9004: 10.7.0.2:9004
         b -> 10.7.0.2:9005: lost",
    );
    matrix(
        &allow(r#"{"port": "web"}"#),
        "b -> 10.7.0.2:8080: 10.7.0.2:8080
         b -> 10.7.0.2:8081: lost",
    );
    matrix(
        &allow(r#"{"protocol": "SCTP"}"#),
        "b -> SCTP 10.7.0.2:7: 10.7.0.2:7
         b -> 10.7.0.2:7: lost",
    );
    // Nothing bears this name: nothing is let through, and the pod is isolated all the same.
    matrix(&allow(r#"{"port": "nothing"}"#), "b -> 10.7.0.2:8080: lost");
}

#[test]
fn egress_is_judged_by_the_endpoint_behind_a_service() {
    let objects = format!(
        r#"{WEB}
        policy default/out {{"spec": {{"podSelector": {{"matchLabels": {{"app": "c"}}}}, "policyTypes": ["Egress"],
            "egress": [{{"to": [{{"podSelector": {{"matchLabels": {{"app": "a"}}}}}}], "ports": [{{"port": "web"}}]}}]}}}}"#
    )
    .replace("\"Egress\"],\n", "\"Egress\"], ");
    matrix(
        &objects,
        "c -> 10.96.0.5:80: 10.7.0.2:8080, lost
         c -> 10.7.0.2:8080: 10.7.0.2:8080
         c -> 10.7.0.2:80: lost
         c -> 203.0.113.7:443: lost
         c -> 10.7.0.1:53: lost
         c -> 10.96.0.99:1: refused
         b -> 10.7.0.4:80: 10.7.0.4:80",
    );
}

#[test]
fn blocks_of_addresses_have_their_exceptions() {
    let policy = r#"policy default/p {"spec": {"podSelector": {"matchLabels": {"app": "a"}}, "policyTypes": ["Ingress", "Egress"], "ingress": [{"from": [{"ipBlock": {"cidr": "203.0.113.0/24", "except": ["203.0.113.128/25", "203.0.113.7/32"]}}]}], "egress": [{"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.7.0.0/24"]}}], "ports": [{"port": 443}]}]}}"#;
    matrix(
        policy,
        "203.0.113.8 -> 10.7.0.2:80: 10.7.0.2:80
         203.0.113.7 -> 10.7.0.2:80: lost
         203.0.113.200 -> 10.7.0.2:80: lost
         a -> 198.51.100.1:443: 198.51.100.1:443 as 192.0.2.2
         a -> 198.51.100.1:80: lost
         a -> 10.7.0.3:443: lost",
    );
}

#[test]
fn the_clusters_dns_is_a_pod_to_policies() {
    let out = |to: &str| {
        format!(
            r#"policy default/out {{"spec": {{"podSelector": {{}}, "policyTypes": ["Egress"], "egress": [{{"to": [{to}], "ports": [{{"protocol": "UDP", "port": 53}}]}}]}}}}"#
        )
    };
    matrix(
        &out(
            r#"{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}, "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}"#,
        ),
        "a -> UDP 10.7.0.1:53: 10.7.0.1:53
         a -> 10.7.0.1:53: lost
         a -> UDP 10.7.0.3:53: lost",
    );
    matrix(
        &out(r#"{"podSelector": {}}"#),
        "a -> UDP 10.7.0.1:53: lost
         a -> UDP 10.7.0.3:53: 10.7.0.3:53",
    );
}

#[test]
fn both_sides_must_agree() {
    let objects = r#"
        policy default/in {"spec": {"podSelector": {"matchLabels": {"app": "a"}}, "ingress": [{"from": [{"podSelector": {}}]}]}}
        policy default/out {"spec": {"podSelector": {"matchLabels": {"app": "b"}}, "policyTypes": ["Egress"]}}
    "#;
    matrix(
        objects,
        "c -> 10.7.0.2:80: 10.7.0.2:80
         b -> 10.7.0.2:80: lost
         b -> 10.7.0.1:53: lost
         machine -> 10.7.0.3:80: 10.7.0.3:80
         c -> 10.7.0.3:80: 10.7.0.3:80",
    );
}

#[test]
fn a_policy_is_about_egress_when_it_says_so_or_has_rules_for_it() {
    let selector = r#""podSelector": {"matchLabels": {"app": "a"}}"#;
    // No types, no rules of egress: ingress alone.
    matrix(
        &format!(r#"policy default/p {{"spec": {{{selector}}}}}"#),
        "a -> 10.7.0.3:80: 10.7.0.3:80
         b -> 10.7.0.2:80: lost",
    );
    matrix(
        &format!(
            r#"policy default/p {{"spec": {{{selector}, "egress": [{{"ports": [{{"port": 80}}]}}]}}}}"#
        ),
        "a -> 10.7.0.3:80: 10.7.0.3:80
         a -> 10.7.0.3:81: lost
         b -> 10.7.0.2:80: lost",
    );
    matrix(
        &format!(r#"policy default/p {{"spec": {{{selector}, "policyTypes": ["Egress"]}}}}"#),
        "a -> 10.7.0.3:80: lost
         b -> 10.7.0.2:80: 10.7.0.2:80",
    );
}

#[test]
fn a_connection_that_lives_is_reset_when_it_is_forbidden() {
    let deny = r#"policy default/deny {"spec": {"podSelector": {"matchLabels": {"app": "a"}}}}"#;
    let lines = "b -> 10.7.0.2:80: reset
                 b -> UDP 10.7.0.2:80: lost
                 b -> 10.7.0.4:80: 10.7.0.4:80";
    check_lines(&world(&with_pods(deny)), lines, |ruleset, who, to| {
        walk::living(&machine(), ruleset, who, to)
    });
}

#[test]
fn policies_are_about_no_pod_of_the_machines_network_and_no_finished_one() {
    check(
        r#"
        pod default/h {"ip": "10.7.0.1", "hostNetwork": true, "labels": {"app": "a"}}
        pod default/done {"ip": "10.7.0.8", "phase": "Failed", "labels": {"app": "a"}}
        pod default/b {"ip": "10.7.0.3"}
        policy default/deny {"spec": {"podSelector": {"matchLabels": {"app": "a"}}}}
        "#,
        "b -> 10.7.0.1:80: 10.7.0.1:80
         b -> 10.7.0.8:80: 10.7.0.8:80",
    );
}

#[test]
fn a_ruleset_reads_like_one_of_nft() {
    let objects = format!(
        r#"pod default/a {{"ip": "10.7.0.2"}}
        {WEB}
        policy default/deny {{"spec": {{"podSelector": {{}}, "ingress": [{{"from": [{{"ipBlock": {{"cidr": "10.0.0.0/8"}}}}], "ports": [{{"port": 80, "endPort": 90}}]}}]}}}}"#
    );
    let text = compile(&machine(), &world(&objects)).to_string();
    for part in [
        "table ip stead-0a1b2c {\n",
        "  map services { type ipv4_addr . inet_proto . inet_service : verdict;\n    10.96.0.5 . tcp . 80 : goto service/default/web/tcp/http\n  }\n",
        "  map endpoints/default/web/tcp/http { type integer : ipv4_addr . inet_service;\n    0 : 10.7.0.2 . 8080\n    1 : 10.7.0.3 . 8080\n  }\n",
        "  chain redirect-arriving { type nat hook prerouting priority dstnat;\n    iifname \"st0a1b2c*\" ip daddr . meta l4proto . th dport vmap @services\n    ip daddr . meta l4proto . th dport vmap @exposed\n    fib daddr type local meta l4proto . th dport vmap @ports\n  }\n",
        "  chain service/default/web/tcp/http {\n    dnat to numgen random mod 2 map @endpoints/default/web/tcp/http\n  }\n",
        "    ip saddr 10.7.0.0/24 oifname != \"st0a1b2c*\" masquerade\n",
        "    iifname \"eth0\" oifname != \"st*\" drop\n",
        "  chain ingress/default/a {\n    ct original ip saddr 10.0.0.0/8 meta l4proto tcp ct reply proto-src 80-90 return\n    goto deny\n  }\n",
        "  chain ingress-of {\n    ct reply ip saddr vmap @ingress\n  }\n",
        "  chain deny {\n    ct state established meta l4proto tcp reject with tcp reset\n    drop\n  }\n",
    ] {
        assert!(text.contains(part), "no\n{part}in\n{text}");
    }
}
