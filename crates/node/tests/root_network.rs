//! The pods' network in earnest: real connections between pods, the machine and a world outside, in network namespaces of
//! the tests' own. Needs root.
//!
//! `cargo test -p stead-node --features root-tests --test root_network`; without root it fails, it does not skip.

#[expect(dead_code, reason = "these tests ask less of the API than others")]
#[path = "agent/api.rs"]
mod api;
#[path = "network/place.rs"]
mod place;

use std::sync::Arc;

use serde_json::{Value, json};
use stead_node::runtime::{PodSandbox, PodSettings, Runtime, RuntimeOptions, Tier};
use stead_node::{Node, NodeOptions};

use api::Api;
use place::{Place, on_a_machine, picture};

/// A node on a machine of its own, with pods that are networks without containers.
struct Bench {
    api: Api,
    runtime: Arc<dyn Runtime>,
    node: Node,
    folder: tempfile::TempDir,
}

impl Bench {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let options = RuntimeOptions {
            pod_range: Some("10.77.0.0/24".to_owned()),
            ..RuntimeOptions::new(folder.path(), env!("CARGO_BIN_EXE_stead-node-shim"))
        };
        let runtime = stead_node::runtime::open(Tier::Containers, options).expect("a network");
        let api = Api::default();
        let options = NodeOptions::new("n", folder.path(), "/nowhere/stead");
        let node = Node::start_with(api.client(), options, runtime.clone());
        let node = node.await.expect("a node");
        Self {
            api,
            runtime,
            node,
            folder,
        }
    }

    fn uid(&self, name: &str) -> String {
        let folder = self
            .folder
            .path()
            .file_name()
            .expect("a name")
            .to_string_lossy();
        format!("{name}{folder}")
    }

    /// A pod of namespace `default` with labels, as place and address.
    async fn pod(&self, name: &str, labels: Value) -> (Place, String) {
        self.pod_of("default", name, labels).await
    }

    async fn pod_of(&self, namespace: &str, name: &str, labels: Value) -> (Place, String) {
        let uid = self.uid(name);
        let sandbox = PodSandbox {
            uid: uid.clone(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            hostname: name.to_owned(),
            domain: None,
            host_network: false,
            resolv_conf: None,
            host_aliases: Vec::new(),
            settings: PodSettings::default(),
        };
        let place = self.runtime.prepare(&sandbox).await.expect("a place");
        let address = place.ip.to_string();
        self.api.put(
            "pods",
            json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": name, "namespace": namespace, "uid": uid, "labels": labels},
                "spec": {"nodeName": "another", "containers": [{"name": "c", "image": "i",
                    "ports": [{"name": "web", "containerPort": 80}]}]},
                "status": {"phase": "Running", "podIP": address},
            }),
        );
        let path = self.folder.path().canonicalize().expect("a path");
        let estates = stead_node::leftover::estates(&[path]).expect("a list");
        let own = estates.iter().find(|own| {
            own.data_dir.as_deref() == self.folder.path().canonicalize().ok().as_deref()
        });
        let instance = own.expect("it is known").instance.clone();
        (
            Place::of(format!("/run/stead/{instance}/{uid}/net").into()),
            address,
        )
    }

    fn service(&self, name: &str, spec: Value) {
        let service = json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name, "namespace": "default"}, "spec": spec});
        self.api.put("services", service);
    }

    /// Who answers for a Service at port `to`; a `-` before an address says that it is not ready.
    fn slice(&self, service: &str, protocol: &str, to: u16, addresses: &[&str]) {
        let endpoint = |text: &&str| {
            let address = text.trim_start_matches('-');
            json!({"addresses": [address], "conditions": {"ready": address == *text}})
        };
        let endpoints: Vec<Value> = addresses.iter().map(endpoint).collect();
        let metadata = json!({"name": format!("{service}-1"), "namespace": "default",
            "labels": {"kubernetes.io/service-name": service}});
        let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata,
            "addressType": "IPv4", "ports": [{"name": "p", "protocol": protocol, "port": to}], "endpoints": endpoints});
        self.api.put("endpointslices", slice);
    }

    async fn end(self) {
        for name in ["a", "b", "c", "d"] {
            self.runtime
                .release(&self.uid(name))
                .await
                .expect("it goes");
        }
        self.node.shutdown().await;
    }
}

fn port(number: u16, more: Value) -> Value {
    let mut port = json!({"name": "p", "protocol": "TCP", "port": number});
    for (key, value) in more.as_object().expect("fields") {
        port[key] = value.clone();
    }
    port
}

#[test]
fn a_cluster_ip_is_answered_for_pods_for_the_machine_and_for_the_answering_pod_itself() {
    on_a_machine(|| async {
        let bench = Bench::new().await;
        let (a, at_a) = bench.pod("a", json!({})).await;
        let (b, at_b) = bench.pod("b", json!({})).await;
        a.serve(8080, "a");
        bench.service(
            "web",
            json!({"clusterIP": "10.96.3.4", "ports": [port(80, json!({}))]}),
        );
        bench.slice("web", "TCP", 8080, &[&at_a]);
        // A pod is seen by its own address.
        b.until("10.96.3.4:80", &format!("a {at_b}"));
        Place::here().until("10.96.3.4:80", "a 10.77.0.1");
        a.until("10.96.3.4:80", "a 10.77.0.1");
        bench.end().await;
    });
}

#[test]
fn a_pod_reaches_the_world_by_the_machines_address_and_all_is_given_back() {
    on_a_machine(|| async {
        let world = Place::world();
        let before = picture();
        let bench = Bench::new().await;
        let (a, _) = bench.pod("a", json!({})).await;
        world.serve(7000, "world");
        a.until("198.51.100.9:7000", "world 198.51.100.1");
        assert_ne!(picture(), before);
        bench.end().await;
        assert_eq!(picture(), before);
    });
}

#[test]
fn a_port_of_the_machine_leads_to_the_service_from_everywhere() {
    on_a_machine(|| async {
        let world = Place::world();
        let bench = Bench::new().await;
        let (a, at_a) = bench.pod("a", json!({})).await;
        let (b, at_b) = bench.pod("b", json!({})).await;
        a.serve(8080, "a");
        let ports = json!([port(80, json!({"nodePort": 30080}))]);
        bench.service(
            "web",
            json!({"type": "NodePort", "clusterIP": "10.96.3.4", "ports": ports,
            "externalIPs": ["198.51.100.1"]}),
        );
        bench.slice("web", "TCP", 8080, &[&at_a]);
        world.until("198.51.100.1:30080", "a 198.51.100.9");
        world.until("198.51.100.1:80", "a 198.51.100.9");
        let machine = Place::here();
        machine.until("127.0.0.1:30080", "a 10.77.0.1");
        machine.until("198.51.100.1:30080", "a 198.51.100.1");
        b.until("198.51.100.1:30080", &format!("a {at_b}"));
        a.until("198.51.100.1:30080", "a 10.77.0.1");
        bench.end().await;
    });
}

#[test]
fn where_nobody_answers_the_connection_is_refused_at_once() {
    on_a_machine(|| async {
        let _world = Place::world();
        let bench = Bench::new().await;
        let (a, at_a) = bench.pod("a", json!({})).await;
        a.serve(8080, "a");
        let ports = json!([port(80, json!({"nodePort": 30080}))]);
        bench.service("web", json!({"clusterIP": "10.96.3.4", "ports": ports}));
        bench.slice("web", "TCP", 8080, &[&at_a]);
        a.until("10.96.3.4:80", "a 10.77.0.1");
        bench.slice("web", "TCP", 8080, &[&format!("-{at_a}")]);
        let refused = |answer: &std::io::Result<String>| {
            answer
                .as_ref()
                .is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
        };
        for place in [a, Place::here()] {
            // A known address, one of no Service at all, a port of the machine.
            for at in [
                "10.96.3.4:80",
                "10.96.3.4:81",
                "10.96.200.200:80",
                "198.51.100.1:30080",
            ] {
                let answer = place.until_is(at, refused);
                assert!(refused(&answer), "{at}: {answer:?}");
            }
        }
        bench.end().await;
    });
}

#[test]
fn a_client_stays_with_its_endpoint_through_changes_of_others() {
    on_a_machine(|| async {
        let bench = Bench::new().await;
        let mut addresses = Vec::new();
        for name in ["a", "b", "c"] {
            let (place, address) = bench.pod(name, json!({})).await;
            place.serve(
                80,
                if name == "a" {
                    "a"
                } else if name == "b" {
                    "b"
                } else {
                    "c"
                },
            );
            addresses.push(address);
        }
        let (client, own) = bench.pod("d", json!({})).await;
        let affinity = json!({"clusterIP": "10.96.3.4", "ports": [port(80, json!({}))],
            "sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 600}}});
        bench.service("web", affinity);
        let texts: Vec<&str> = addresses.iter().map(String::as_str).collect();
        bench.slice("web", "TCP", 80, &texts);
        let first = client
            .until_is("10.96.3.4:80", Result::is_ok)
            .expect("an answer");
        // A new Service makes the table anew; what is remembered is carried over.
        for number in 0..12 {
            let ip = format!("10.96.9.{}", number + 1);
            bench.service(
                &format!("other-{number}"),
                json!({"clusterIP": ip, "ports": [port(80, json!({}))]}),
            );
            bench.slice(&format!("other-{number}"), "TCP", 80, &texts[..1]);
            client.until(&format!("{ip}:80"), &format!("a {own}"));
            assert_eq!(client.ask("10.96.3.4:80").expect("an answer"), first);
        }
        // Without its endpoint it goes to another.
        let gone = addresses["abc".find(&first[..1]).expect("one of them")].clone();
        let left: Vec<&str> = texts.into_iter().filter(|own| *own != gone).collect();
        bench.slice("web", "TCP", 80, &left);
        let other = client.until_is("10.96.3.4:80", |answer| {
            answer.as_ref().is_ok_and(|text| *text != first)
        });
        assert!(other.is_ok_and(|text| text != first));
        bench.end().await;
    });
}

#[test]
fn policies_let_through_what_they_allow_and_nothing_else() {
    on_a_machine(|| async {
        let world = Place::world();
        let bench = Bench::new().await;
        let namespace = |name: &str| {
            bench.api.put(
                "namespaces",
                json!({"apiVersion": "v1", "kind": "Namespace",
                "metadata": {"name": name, "labels": {"team": name}}}),
            );
        };
        namespace("default");
        namespace("other");
        let (db, at_db) = bench.pod("a", json!({"app": "db"})).await;
        let (web, at_web) = bench.pod("b", json!({"app": "web"})).await;
        let (near, _) = bench.pod("c", json!({"app": "near"})).await;
        let (far, _) = bench.pod_of("other", "d", json!({"app": "web"})).await;
        for port in [80, 5432, 9000, 9005] {
            db.serve(port, "db");
        }
        web.serve(80, "web");
        world.serve(443, "world");
        let all = [
            ("web", &web),
            ("near", &near),
            ("far", &far),
            ("world", &world),
        ];
        for (_, place) in &all[..3] {
            place.until(
                &format!("{at_db}:5432"),
                &format!("db {}", own_address(place)),
            );
        }
        bench.api.put(
            "networkpolicies",
            json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": "db", "namespace": "default"}, "spec": {
                "podSelector": {"matchLabels": {"app": "db"}},
                "ingress": [
                    {"from": [{"podSelector": {"matchLabels": {"app": "web"}}}],
                     "ports": [{"port": 5432}, {"port": "web"}]},
                    {"from": [{"namespaceSelector": {"matchLabels": {"team": "other"}}}],
                     "ports": [{"port": 9000, "endPort": 9004}]}]}}),
        );
        // The last of what the policy forbids; from then on it is in force.
        let forbidden = near.until_is(&format!("{at_db}:5432"), Result::is_err);
        assert!(forbidden.is_err());
        let mut table = String::new();
        for (name, place) in all.iter().take(3).chain([&("machine", &Place::here())]) {
            let reach = |port: u16| {
                if place.ask(&format!("{at_db}:{port}")).is_ok() {
                    "yes"
                } else {
                    "no"
                }
            };
            let row: Vec<&str> = [80, 5432, 9000, 9005].into_iter().map(reach).collect();
            table.push_str(&format!("{name}: {}\n", row.join(" ")));
        }
        assert_eq!(
            table,
            "web: yes yes no no\n\
             near: no no no no\n\
             far: no no yes no\n\
             machine: yes yes yes yes\n"
        );
        // What the isolated pod asks itself is answered, and so is whatever it reaches by its own Service.
        assert!(db.ask(&format!("{at_web}:80")).is_ok());
        assert!(db.ask("198.51.100.9:443").is_ok());
        bench.api.put("networkpolicies", json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": "out", "namespace": "default"}, "spec": {
                "podSelector": {}, "policyTypes": ["Egress"],
                "egress": [{"to": [{"ipBlock": {"cidr": "198.51.0.0/16", "except": ["198.51.100.128/25"]}}]}]}}));
        assert!(
            db.until_is(&format!("{at_web}:80"), Result::is_err)
                .is_err()
        );
        assert!(db.ask("198.51.100.9:443").is_ok());
        assert!(web.ask(&format!("{at_db}:5432")).is_err());
        bench.end().await;
    });
}

/// The first address of a place beyond its loopback.
fn own_address(place: &Place) -> String {
    place.run(|| {
        let listed = place::ip("-o -4 addr show dev eth0");
        let words: Vec<&str> = listed.split_whitespace().collect();
        words[3].split('/').next().expect("an address").to_owned()
    })
}

#[test]
fn a_live_connection_is_cut_when_a_policy_forbids_it() {
    on_a_machine(|| async {
        let bench = Bench::new().await;
        let (a, at_a) = bench.pod("a", json!({"app": "db"})).await;
        let (b, _) = bench.pod("b", json!({})).await;
        // The server speaks, and never ends: the harder side to cut.
        let stream = a.talk_without_end(80);
        let ticking = b.listen_without_end(&format!("{at_a}:80"));
        ticking
            .recv_timeout(place::PATIENCE)
            .expect("the connection lives");
        bench.api.put("networkpolicies", json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": "deny", "namespace": "default"}, "spec": {"podSelector": {"matchLabels": {"app": "db"}}}}));
        assert!(
            stream.recv_timeout(place::PATIENCE).is_ok(),
            "the server still writes"
        );
        bench.end().await;
    });
}

#[test]
fn a_udp_client_leaves_an_endpoint_that_is_gone() {
    on_a_machine(|| async {
        let bench = Bench::new().await;
        let (a, at_a) = bench.pod("a", json!({})).await;
        let (b, at_b) = bench.pod("b", json!({})).await;
        let (client, own) = bench.pod("c", json!({})).await;
        a.serve_udp(53, "a");
        b.serve_udp(53, "b");
        let mut udp = port(53, json!({}));
        udp["protocol"] = json!("UDP");
        bench.service("dns", json!({"clusterIP": "10.96.0.10", "ports": [udp]}));
        bench.slice("dns", "UDP", 53, &[&at_a]);
        // The same socket all the time: to the kernel that is one connection.
        let asked = client.keep_asking_udp("10.96.0.10:53");
        let until = |wanted: String| {
            let start = std::time::Instant::now();
            while asked.recv_timeout(place::PATIENCE).expect("an answer") != wanted {
                assert!(start.elapsed() < place::PATIENCE, "never {wanted}");
            }
        };
        until(format!("a {own}"));
        bench.slice("dns", "UDP", 53, &[&at_b]);
        until(format!("b {own}"));
        bench.end().await;
    });
}

#[test]
fn ranges_that_overlap_a_network_of_the_machine_are_refused_with_the_reason() {
    on_a_machine(|| async {
        let _world = Place::world();
        place::ip("addr add 10.96.5.1/24 dev eth0");
        let folder = tempfile::tempdir().expect("a folder");
        let shim = env!("CARGO_BIN_EXE_stead-node-shim");
        let refusal = |pods: Option<&str>, services: &str| {
            let options = RuntimeOptions {
                pod_range: pods.map(str::to_owned),
                service_range: services.to_owned(),
                ..RuntimeOptions::new(folder.path(), shim)
            };
            let error = stead_node::runtime::open(Tier::Containers, options).err();
            let error = error.expect("a refusal");
            std::error::Error::source(&error)
                .expect("a reason")
                .to_string()
        };
        assert_eq!(
            refusal(None, "10.96.0.0/16"),
            "10.96.0.0/16, the range of Services, overlaps 10.96.5.1/24, a network of this machine; choose another"
        );
        assert_eq!(
            refusal(Some("10.97.1.0/24"), "10.97.0.0/16"),
            "10.97.1.0/24, the range of pods, overlaps 10.97.0.0/16, a network of this machine or its Services; choose another"
        );
    });
}
