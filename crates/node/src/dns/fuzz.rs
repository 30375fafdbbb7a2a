//! What must hold of every DNS packet, whatever is in it: for the fuzz targets.

use std::sync::{Arc, OnceLock};

use hickory_proto::op::Message;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::Upstreams;
use super::forward::Forwarder;
use super::packet::{self, Transport, hear};
use super::resolv::Resolver;
use super::server::{Desk, Todo, followed};
use super::zone::{Catalogue, Service, Settings, Slice, Verdict, Zone};

/// A packet from a client. What is answered at once is a response to it, readable, and no longer than the client takes.
pub fn question(bytes: &[u8]) {
    static DESK: OnceLock<Desk> = OnceLock::new();
    let desk = DESK.get_or_init(|| {
        let (_, zones) = watch::channel(Arc::new(zone()));
        Desk::new(
            zones,
            Forwarder::new(Upstreams::Given(Vec::new()), Vec::new()),
        )
    });
    for (transport, most) in [(Transport::Udp, 1_232), (Transport::Tcp, 65_535)] {
        // Not `todo`, which would catch a panic that is to be found.
        let Todo::Send(reply) = desk.consider(bytes, transport) else {
            continue;
        };
        assert!(
            reply.len() >= 12 && reply.len() <= most,
            "a reply of {} octets",
            reply.len()
        );
        assert_eq!(reply.get(..2), bytes.get(..2), "another id");
        assert!(reply[2] & 0x80 != 0, "no response");
        assert!(
            Message::from_vec(&reply).is_ok(),
            "a reply that nobody can read"
        );
    }
}

/// A packet from an upstream, whose first octets say what was asked of it.
pub fn answer(bytes: &[u8]) {
    let Some((asked, heard)) = bytes.split_at_checked(64) else {
        return;
    };
    for transport in [Transport::Udp, Transport::Tcp] {
        let Ok(question) = packet::read(asked.trim_ascii_end(), transport) else {
            continue;
        };
        let most = usize::from(question.octets_max());
        // Believed or not, and whatever else it says.
        let _ = hear(heard, 9, &question.query);
        assert!(question.relayed(heard.to_vec()).len() <= most.max(question.truncated().len()));
        if let Verdict::Ours(so_far) = zone().answer(question.name(), question.record_type()) {
            let made = followed(&question, so_far, heard);
            assert!(made.len() <= most, "{} octets of {most}", made.len());
        }
    }
}

/// A resolv.conf: what is made of it for a pod reads the same again.
pub fn resolv_conf(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let written = Resolver::parse(&text).to_text();
    assert_eq!(
        Resolver::parse(&written).to_text(),
        written,
        "read again it says something else"
    );
}

/// Some of each kind of name.
fn zone() -> Zone {
    static ZONE: OnceLock<Zone> = OnceLock::new();
    ZONE.get_or_init(make_zone).clone()
}

fn make_zone() -> Zone {
    let settings = Settings {
        domain: "cluster.local.".parse().unwrap_or_default(),
        nameservers: vec![[10, 0, 0, 1].into()],
        own_ranges: Vec::new(),
    };
    let settings = Arc::new(settings);
    let service = |name: &str, spec: Value| {
        let object = json!({"metadata": {"namespace": "default", "name": name}, "spec": spec});
        serde_json::from_value(object)
            .ok()
            .map(|object| Service::parse(&object))
    };
    let endpoint = |number: u8| json!({"addresses": [format!("10.0.1.{number}")], "hostname": format!("web-{number}")});
    let endpoints: Vec<Value> = (0..100).map(endpoint).collect();
    let slice = json!({
        "metadata": {"namespace": "default", "name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4", "ports": [{"name": "http", "port": 80}], "endpoints": endpoints,
    });
    let mut catalogue = Catalogue::new(Arc::clone(&settings));
    let services = [
        service(
            "web",
            json!({"clusterIP": "None", "ports": [{"name": "http", "port": 80}]}),
        ),
        service(
            "api",
            json!({"clusterIP": "10.96.0.7", "ports": [{"name": "http", "port": 80}]}),
        ),
        service(
            "out",
            json!({"type": "ExternalName", "externalName": "www.example"}),
        ),
        service(
            "loop",
            json!({"type": "ExternalName", "externalName": "loop.default.svc.cluster.local"}),
        ),
    ];
    catalogue.replace_services(services.into_iter().flatten().collect());
    catalogue.replace_slices(
        serde_json::from_value(slice)
            .ok()
            .iter()
            .map(Slice::parse)
            .collect(),
    );
    catalogue
        .publish()
        .unwrap_or_else(|| Zone::unsynced(settings))
}
