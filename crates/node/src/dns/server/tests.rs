//! The server over loopback sockets, with upstreams and an API made for each test.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use http_body_util::{BodyExt, StreamBody};
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{mpsc, watch};

use super::{
    CONNECTIONS_PER_CLIENT_MAX, Desk, DnsError, DnsOptions, Forwarder, Server, Todo, framed,
    read_framed, settings,
};
use crate::dns::packet::Transport;
use crate::dns::zone::{Catalogue, Service, Slice, Zone};
use crate::dns::{Answer, Upstreams, ask};

fn loopback() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

fn options(upstreams: &[SocketAddr]) -> DnsOptions {
    DnsOptions {
        listen: vec![loopback()],
        upstreams: Upstreams::Given(upstreams.to_vec()),
        ..DnsOptions::default()
    }
}

/// One headless Service `default/web` of so many pods, and ExternalName `default/out` for `www.example`.
fn zone(pods: u8) -> Arc<Zone> {
    let mut catalogue = Catalogue::new(Arc::new(settings(&options(&[])).unwrap()));
    let external = json!({"metadata": {"namespace": "default", "name": "out"}, "spec": {"type": "ExternalName", "externalName": "www.example"}});
    let parse = |object: &Value| Service::parse(&serde_json::from_value(object.clone()).unwrap());
    catalogue.replace_services(vec![parse(&service("web")), parse(&external)]);
    catalogue.replace_slices(vec![Slice::parse(
        &serde_json::from_value(slice("web", pods)).unwrap(),
    )]);
    Arc::new(catalogue.publish().unwrap())
}

fn service(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "default", "name": name, "resourceVersion": "1"}, "spec": {"clusterIP": "None"}})
}

fn slice(of: &str, pods: u8) -> Value {
    let endpoint = |n| json!({"addresses": [format!("10.244.0.{n}")], "hostname": format!("web-{n}"), "conditions": {"ready": true}});
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"namespace": "default", "name": format!("{of}-x"), "resourceVersion": "1", "labels": {"kubernetes.io/service-name": of}},
        "endpoints": (0..pods).map(endpoint).collect::<Vec<_>>(),
    })
}

/// A server of that zone and these upstreams.
async fn serving(pods: u8, upstreams: &[SocketAddr]) -> Server {
    // The sender goes; its last zone stays.
    let (_, zones) = watch::channel(zone(pods));
    Server::serve(&options(upstreams), zones).await.unwrap()
}

async fn asked(server: &Server, name: &str, rtype: &str) -> Answer {
    ask(server.addresses()[0], name, rtype).await.unwrap()
}

fn data(answer: &Answer) -> Vec<&str> {
    answer
        .answers
        .iter()
        .map(|record| record.data.as_str())
        .collect()
}

/// An upstream that answers each question over UDP with the messages that `answer` makes of it.
async fn upstream(answer: impl Fn(Message) -> Vec<Message> + Send + 'static) -> SocketAddr {
    let socket = UdpSocket::bind(loopback()).await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 4_096];
        while let Ok((octets, client)) = socket.recv_from(&mut buffer).await {
            for message in answer(Message::from_vec(&buffer[..octets]).unwrap()) {
                socket
                    .send_to(&message.to_vec().unwrap(), client)
                    .await
                    .unwrap();
            }
        }
    });
    address
}

fn replied(mut question: Message, code: ResponseCode, addresses: &[[u8; 4]]) -> Message {
    question.metadata.message_type = MessageType::Response;
    question.metadata.response_code = code;
    question.metadata.recursion_available = true;
    let owner = question.queries[0].name.clone();
    question.answers.extend(
        addresses
            .iter()
            .map(|it| Record::from_rdata(owner.clone(), 60, RData::A(A((*it).into())))),
    );
    question
}

/// An address that answers nothing and refuses nothing.
async fn deaf() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind(loopback()).await.unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

#[tokio::test]
async fn the_zone_is_answered_with_authority() {
    let server = serving(2, &[]).await;
    let answer = asked(&server, "WEB-1.web.default.svc.cluster.local", "a").await;
    let from = server.addresses()[0];
    let expected = format!(
        ";; NOERROR from {from}, for the cluster\nWEB-1.web.default.svc.cluster.local.\t5\tIN\tA\t10.244.0.1\n"
    );
    assert_eq!(answer.to_string(), expected);
    let none = asked(&server, "web-7.web.default.svc.cluster.local", "A").await;
    assert_eq!(
        (
            none.status.as_str(),
            none.is_empty(),
            none.authorities.len()
        ),
        ("NXDOMAIN", true, 1)
    );
    let back = asked(&server, "10.244.0.1", "PTR").await;
    assert_eq!(data(&back), ["web-1.web.default.svc.cluster.local."]);
    let version = asked(&server, "dns-version.cluster.local", "TXT").await;
    assert_eq!(data(&version), ["\"1.1.0\""]);
}

#[tokio::test]
async fn every_address_is_served_over_both_protocols() {
    let (_, zones) = watch::channel(zone(1));
    let listen = vec![loopback(), SocketAddr::from(([127, 0, 0, 7], 0))];
    let server = Server::serve(
        &DnsOptions {
            listen,
            ..options(&[])
        },
        zones,
    )
    .await
    .unwrap();
    for address in server.addresses() {
        assert_eq!(
            data(
                &ask(*address, "web.default.svc.cluster.local", "A")
                    .await
                    .unwrap()
            ),
            ["10.244.0.0"]
        );
        assert_eq!(
            over_tcp(*address, "web.default.svc.cluster.local.")
                .await
                .answers
                .len(),
            1
        );
    }
}

async fn over_tcp(server: SocketAddr, name: &str) -> Message {
    let mut stream = TcpStream::connect(server).await.unwrap();
    stream.write_all(&framed(&question(name))).await.unwrap();
    Message::from_vec(&read_framed(&mut stream).await.unwrap()).unwrap()
}

fn question(name: &str) -> Vec<u8> {
    let mut message = Message::new(9, MessageType::Query, OpCode::Query);
    message
        .queries
        .push(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    message.to_vec().unwrap()
}

#[tokio::test]
async fn a_long_answer_is_cut_over_udp_and_whole_over_tcp() {
    let server = serving(200, &[]).await;
    let address = server.addresses()[0];
    let socket = UdpSocket::bind(loopback()).await.unwrap();
    socket
        .send_to(&question("web.default.svc.cluster.local."), address)
        .await
        .unwrap();
    let mut buffer = [0; 4_096];
    let octets = socket.recv(&mut buffer).await.unwrap();
    let cut = Message::from_vec(&buffer[..octets]).unwrap();
    assert!(octets <= 512 && cut.metadata.truncation && !cut.answers.is_empty());
    assert_eq!(
        over_tcp(address, "web.default.svc.cluster.local.")
            .await
            .answers
            .len(),
        200
    );
    // The client does the same by itself.
    assert_eq!(
        asked(&server, "web.default.svc.cluster.local", "A")
            .await
            .answers
            .len(),
        200
    );
}

#[tokio::test]
async fn several_questions_go_over_one_connection() {
    let server = serving(1, &[]).await;
    let mut stream = TcpStream::connect(server.addresses()[0]).await.unwrap();
    for _ in 0..3 {
        stream
            .write_all(&framed(&question("web.default.svc.cluster.local.")))
            .await
            .unwrap();
        let answer = Message::from_vec(&read_framed(&mut stream).await.unwrap()).unwrap();
        assert_eq!((answer.metadata.id, answer.answers.len()), (9, 1));
    }
    stream.write_all(&framed(b"nonsense")).await.unwrap();
    assert_eq!(
        stream.read(&mut [0; 1]).await.unwrap(),
        0,
        "nonsense closes the connection"
    );
}

#[tokio::test]
async fn one_client_cannot_take_every_connection() {
    let server = serving(1, &[]).await;
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS_PER_CLIENT_MAX {
        let mut stream = TcpStream::connect(server.addresses()[0]).await.unwrap();
        stream
            .write_all(&framed(&question("web.default.svc.cluster.local.")))
            .await
            .unwrap();
        read_framed(&mut stream).await.unwrap();
        held.push(stream);
    }
    let mut further = TcpStream::connect(server.addresses()[0]).await.unwrap();
    assert_eq!(
        further.read(&mut [0; 1]).await.unwrap_or(0),
        0,
        "closed unanswered"
    );
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, 9], 0))).unwrap();
    let mut other = socket.connect(server.addresses()[0]).await.unwrap();
    other
        .write_all(&framed(&question("web.default.svc.cluster.local.")))
        .await
        .unwrap();
    assert!(
        read_framed(&mut other).await.is_ok(),
        "another client is served"
    );
}

#[tokio::test]
async fn addresses_take_turns_at_being_first() {
    let server = serving(3, &[]).await;
    let mut firsts = BTreeMap::<String, usize>::new();
    for _ in 0..6 {
        let answer = asked(&server, "web.default.svc.cluster.local", "A").await;
        *firsts.entry(answer.answers[0].data.clone()).or_default() += 1;
    }
    assert_eq!(firsts.into_values().collect::<Vec<_>>(), [2, 2, 2]);
}

#[tokio::test]
async fn other_names_are_asked_upstream() {
    let upstream =
        upstream(|question| vec![replied(question, ResponseCode::NoError, &[[192, 0, 2, 1]])])
            .await;
    let server = serving(1, &[upstream]).await;
    let answer = asked(&server, "www.example", "A").await;
    assert_eq!(
        (answer.status.as_str(), answer.authoritative, data(&answer)),
        ("NOERROR", false, vec!["192.0.2.1"])
    );
    let follow = asked(&server, "out.default.svc.cluster.local", "A").await;
    assert_eq!(data(&follow), ["www.example.", "192.0.2.1"]);
}

#[tokio::test]
async fn an_upstreams_no_is_passed_on() {
    let upstream = upstream(|question| vec![replied(question, ResponseCode::NXDomain, &[])]).await;
    let server = serving(1, &[upstream]).await;
    assert_eq!(asked(&server, "no.example", "A").await.status, "NXDOMAIN");
    assert_eq!(
        asked(&server, "out.default.svc.cluster.local", "A")
            .await
            .status,
        "NXDOMAIN"
    );
}

#[tokio::test]
async fn guesses_at_an_answer_are_not_believed() {
    let upstream = upstream(|question| {
        let mut other_id = replied(question.clone(), ResponseCode::NoError, &[[6, 6, 6, 6]]);
        other_id.metadata.id = other_id.metadata.id.wrapping_add(1);
        let mut other_name = replied(question.clone(), ResponseCode::NoError, &[[6, 6, 6, 6]]);
        other_name.queries[0].name = Name::from_ascii("evil.example.").unwrap();
        vec![
            other_id,
            other_name,
            replied(question, ResponseCode::NoError, &[[192, 0, 2, 1]]),
        ]
    })
    .await;
    let server = serving(1, &[upstream]).await;
    assert_eq!(
        data(&asked(&server, "www.example", "A").await),
        ["192.0.2.1"]
    );
}

#[tokio::test]
async fn an_upstream_in_trouble_or_deaf_leaves_it_to_the_next() {
    let sick = upstream(|question| vec![replied(question, ResponseCode::ServFail, &[])]).await;
    let well =
        upstream(|question| vec![replied(question, ResponseCode::NoError, &[[192, 0, 2, 1]])])
            .await;
    let (_socket, deaf) = deaf().await;
    for upstreams in [[sick, well], [deaf, well]] {
        let server = serving(1, &upstreams).await;
        assert_eq!(
            data(&asked(&server, "www.example", "A").await),
            ["192.0.2.1"]
        );
    }
}

#[tokio::test]
async fn without_an_upstream_that_answers_the_client_hears_so_within_two_seconds() {
    let (_socket, deaf) = deaf().await;
    for upstreams in [vec![], vec![deaf], vec![deaf, deaf, deaf, deaf]] {
        let server = serving(1, &upstreams).await;
        let since = std::time::Instant::now();
        assert_eq!(asked(&server, "www.example", "A").await.status, "SERVFAIL");
        assert_eq!(
            asked(&server, "web.default.svc.cluster.local", "A")
                .await
                .status,
            "NOERROR"
        );
        assert!(since.elapsed().as_millis() < 2_000, "{:?}", since.elapsed());
    }
}

#[tokio::test]
async fn it_never_asks_itself() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("resolv.conf");
    let (_, zones) = watch::channel(zone(1));
    let server = Server::serve(
        &DnsOptions {
            upstreams: Upstreams::File(file.clone()),
            ..options(&[])
        },
        zones,
    )
    .await
    .unwrap();
    let own = server.addresses()[0];
    let forwarder =
        |upstreams, ourselves: &str| Forwarder::new(upstreams, vec![ourselves.parse().unwrap()]);
    let given = |upstream: &str| Upstreams::Given(vec![upstream.parse().unwrap()]);
    for (ourselves, upstream, left) in [
        ("127.0.0.1:53", "127.0.0.1:53", 0),
        ("127.0.0.1:53", "0.0.0.0:53", 0),
        ("0.0.0.0:53", "127.0.0.53:53", 0),
        ("127.0.0.1:53", "127.0.0.53:53", 1),
        ("127.0.0.1:5353", "127.0.0.1:53", 1),
    ] {
        assert_eq!(
            forwarder(given(upstream), ourselves).current().len(),
            left,
            "{ourselves} {upstream}"
        );
    }
    std::fs::write(&file, "nameserver 192.0.2.7\nnameserver 127.0.0.1\n").unwrap();
    let read = forwarder(Upstreams::File(file.clone()), "127.0.0.1:53").current();
    assert_eq!(read, ["192.0.2.7:53".parse().unwrap()]);
    std::fs::remove_file(&file).unwrap();
    assert_eq!(
        ask(own, "www.example", "A").await.unwrap().status,
        "SERVFAIL",
        "no file, nobody to ask"
    );
}

#[tokio::test]
async fn a_client_over_tcp_gets_an_upstreams_long_answer_whole() {
    let addresses: Vec<[u8; 4]> = (0..100).map(|n| [192, 0, 2, n]).collect();
    let listener = TcpListener::bind(loopback()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let udp = UdpSocket::bind(address).await.unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        let (octets, client) = udp.recv_from(&mut buffer).await.unwrap();
        let mut cut = replied(
            Message::from_vec(&buffer[..octets]).unwrap(),
            ResponseCode::NoError,
            &[],
        );
        cut.metadata.truncation = true;
        udp.send_to(&cut.to_vec().unwrap(), client).await.unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        let question = Message::from_vec(&read_framed(&mut stream).await.unwrap()).unwrap();
        let whole = replied(question, ResponseCode::NoError, &addresses);
        stream
            .write_all(&framed(&whole.to_vec().unwrap()))
            .await
            .unwrap();
    });
    let server = serving(1, &[address]).await;
    assert_eq!(
        over_tcp(server.addresses()[0], "many.example.")
            .await
            .answers
            .len(),
        100
    );
}

#[tokio::test]
async fn what_cannot_be_started_says_why() {
    let server = serving(1, &[]).await;
    let (_, zones) = watch::channel(zone(1));
    let taken = DnsOptions {
        listen: server.addresses().to_vec(),
        ..options(&[])
    };
    let error = Server::serve(&taken, zones).await.unwrap_err();
    let address = server.addresses()[0];
    let expected = format!(
        "could not listen for DNS on {address} (TCP): another program listens there; stop it or choose another address"
    );
    assert_eq!(error.to_string(), expected);
    for domain in ["", ".", "a..b", "two words"] {
        let wrong = DnsOptions {
            domain: domain.to_owned(),
            ..options(&[])
        };
        assert!(
            matches!(settings(&wrong), Err(DnsError::Domain { .. })),
            "{domain:?}"
        );
    }
    for (name, rtype) in [("a..b", "A"), ("a", "WRONG")] {
        assert!(ask(address, name, rtype).await.is_err(), "{name} {rtype}");
    }
}

#[tokio::test]
async fn after_shutdown_its_ports_are_free() {
    let server = serving(1, &[]).await;
    let address = server.addresses()[0];
    server.shutdown().await;
    let (_, zones) = watch::channel(zone(1));
    Server::serve(
        &DnsOptions {
            listen: vec![address],
            ..options(&[])
        },
        zones,
    )
    .await
    .unwrap();
}

/// An API that lists one Service and one slice; what is sent to it later appears in the watch of the kind named.
fn api(changes: BTreeMap<&'static str, mpsc::Receiver<Value>>) -> kube::Client {
    let changes = Arc::new(std::sync::Mutex::new(changes));
    let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        let (path, query) = (
            request.uri().path().to_owned(),
            request.uri().query().unwrap_or_default().to_owned(),
        );
        let kind = if path.ends_with("services") {
            "services"
        } else {
            "endpointslices"
        };
        let body = if query.contains("watch=true") {
            let lines = changes.lock().unwrap().remove(kind);
            let lines = lines.map(|lines| {
                futures::stream::unfold(lines, |mut lines| async {
                    Some((lines.recv().await?, lines))
                })
            });
            let lines = futures::stream::iter(lines)
                .flatten()
                .chain(futures::stream::pending());
            StreamBody::new(lines.map(|line| {
                Ok::<_, Infallible>(http_body::Frame::data(Bytes::from(format!("{line}\n"))))
            }))
            .boxed_unsync()
        } else {
            let items = if kind == "services" {
                vec![self::service("web")]
            } else {
                vec![slice("web", 1)]
            };
            let list = json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": "1"}, "items": items});
            http_body_util::Full::new(Bytes::from(list.to_string())).boxed_unsync()
        };
        std::future::ready(Ok::<_, Infallible>(http::Response::new(body)))
    });
    kube::Client::new(service, "default")
}

#[tokio::test]
async fn what_changes_in_the_api_changes_the_answers() {
    let (send, receive) = mpsc::channel(4);
    let server = Server::start(
        api(BTreeMap::from([("endpointslices", receive)])),
        options(&[]),
    )
    .await
    .unwrap();
    let mut zones = server.zones();
    server.synced().await;
    assert_eq!(
        data(&asked(&server, "web.default.svc.cluster.local", "A").await),
        ["10.244.0.0"]
    );
    zones.mark_unchanged();
    send.send(json!({"type": "MODIFIED", "object": slice("web", 2)}))
        .await
        .unwrap();
    zones.changed().await.unwrap();
    assert_eq!(
        data(&asked(&server, "web-1.web.default.svc.cluster.local", "A").await),
        ["10.244.0.1"]
    );
    let names: Vec<_> = server
        .lookup_names()
        .into_iter()
        .map(|(address, names)| (address.to_string(), names[0].clone()))
        .collect();
    let expected = ["web-0", "web-1"].map(|pod| format!("{pod}.web.default.svc.cluster.local"));
    assert_eq!(
        names,
        [
            ("10.244.0.0".to_owned(), expected[0].clone()),
            ("10.244.0.1".to_owned(), expected[1].clone())
        ]
    );
    send.send(json!({"type": "DELETED", "object": slice("web", 2)}))
        .await
        .unwrap();
    zones.changed().await.unwrap();
    assert_eq!(
        asked(&server, "web.default.svc.cluster.local", "A")
            .await
            .status,
        "NXDOMAIN"
    );
}

#[tokio::test]
async fn while_the_api_is_silent_cluster_names_fail_and_are_not_denied() {
    let silent = tower::service_fn(|_: http::Request<kube::client::Body>| {
        futures::future::pending::<Result<http::Response<http_body_util::Full<Bytes>>, Infallible>>(
        )
    });
    let server = Server::start(kube::Client::new(silent, "default"), options(&[]))
        .await
        .unwrap();
    assert_eq!(
        asked(&server, "web.default.svc.cluster.local", "A")
            .await
            .status,
        "SERVFAIL"
    );
}

proptest! {
    #[test]
    fn no_packet_makes_the_desk_panic(
        labels in proptest::collection::vec("[a-z0-9_-]{1,12}", 0..6),
        rtype: u16,
        noise in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
    ) {
        let (_, zones) = watch::channel(zone(3));
        let desk = Desk::new(zones, Forwarder::new(Upstreams::Given(vec![]), vec![]));
        let name = Name::from_ascii(format!("{}.svc.cluster.local.", labels.join("."))).unwrap_or_else(|_| Name::root());
        let mut message = Message::new(9, MessageType::Query, OpCode::Query);
        message.queries.push(Query::query(name, RecordType::from(rtype)));
        let mut bytes = message.to_vec().unwrap();
        for (place, octet) in noise {
            let place = place.index(bytes.len());
            bytes[place] = octet;
        }
        if let Todo::Send(reply) = desk.consider(&bytes, Transport::Udp) {
            prop_assert!(reply.len() >= 12 && reply.len() <= 1_232);
            prop_assert_eq!(&reply[..2], &bytes[..2]);
        }
    }
}
