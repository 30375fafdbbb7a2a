//! Services and slices in, questions and answers out, as text.

use std::sync::Arc;

use hickory_proto::rr::{Name, Record, RecordType};
use serde_json::{Value, json};

use super::{
    Answer, Catalogue, Prefix, Service, Settings, Slice, Verdict, Zone, host_names, host_names_in,
};

fn settings() -> Arc<Settings> {
    Arc::new(Settings {
        domain: Name::from_ascii("cluster.local.").unwrap(),
        nameservers: vec!["10.96.0.10".parse().unwrap()],
        own_ranges: vec![
            "10.244.0.0/16".parse().unwrap(),
            "fd00::/64".parse().unwrap(),
        ],
    })
}

/// The objects of a text, one a line:
/// `service <namespace>/<name> [headless | ip=<a>[,<b>] | external=<host>] [port=[<name>:]<number>[/<protocol>]]...`
/// `slice <service's namespace>/<slice> of=<service> [port=...]... [pod=<address>[,<hostname>][,unready|unknown]]...`
fn catalogue(objects: &str) -> Catalogue {
    let mut catalogue = Catalogue::new(settings());
    catalogue.replace_services(vec![]);
    catalogue.replace_slices(vec![]);
    for line in objects
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
    {
        apply(&mut catalogue, line);
    }
    catalogue
}

fn apply(catalogue: &mut Catalogue, line: &str) {
    let mut words = line.split_whitespace();
    let kind = words.next().unwrap();
    let (namespace, name) = words.next().unwrap().split_once('/').unwrap();
    let words: Vec<&str> = words.collect();
    match kind {
        "service" => {
            let object = json!({"metadata": {"namespace": namespace, "name": name}, "spec": service_spec(&words)});
            catalogue.apply_service(Service::parse(&serde_json::from_value(object).unwrap()));
        }
        "slice" => catalogue.apply_slice(Slice::parse(
            &serde_json::from_value(slice(namespace, name, &words)).unwrap(),
        )),
        other => panic!("no such object: {other}"),
    }
}

fn service_spec(words: &[&str]) -> Value {
    let mut spec = json!({"ports": ports(words)});
    for word in words {
        match word.split_once('=') {
            None if *word == "headless" => spec["clusterIP"] = json!("None"),
            Some(("ip", addresses)) => {
                let all: Vec<&str> = addresses.split(',').collect();
                spec["clusterIP"] = json!(all[0]);
                spec["clusterIPs"] = json!(all);
            }
            Some(("external", host)) => {
                spec["type"] = json!("ExternalName");
                spec["externalName"] = json!(host);
            }
            Some(("port", _)) => {}
            other => panic!("no such word: {other:?}"),
        }
    }
    spec
}

fn slice(namespace: &str, name: &str, words: &[&str]) -> Value {
    let of = words.iter().find_map(|word| word.strip_prefix("of="));
    let pods = words.iter().filter_map(|word| word.strip_prefix("pod="));
    json!({
        "metadata": {"namespace": namespace, "name": name, "labels": of.map(|of| json!({"kubernetes.io/service-name": of}))},
        "addressType": "IPv4",
        "ports": ports(words),
        "endpoints": pods.map(endpoint).collect::<Vec<_>>(),
    })
}

fn endpoint(text: &str) -> Value {
    let mut endpoint = json!({"conditions": {"ready": true}});
    for (place, part) in text.split(',').enumerate() {
        match part {
            address if place == 0 => endpoint["addresses"] = json!([address]),
            "unready" => endpoint["conditions"]["ready"] = json!(false),
            "unknown" => endpoint["conditions"] = json!({}),
            hostname => endpoint["hostname"] = json!(hostname),
        }
    }
    endpoint
}

fn ports(words: &[&str]) -> Value {
    let port = |text: &&str| {
        let (text, protocol) = text.split_once('/').unwrap_or((text, "TCP"));
        let (name, number) = text.split_once(':').unwrap_or(("", text));
        json!({"name": name, "port": number.parse::<i32>().unwrap(), "protocol": protocol})
    };
    words
        .iter()
        .filter_map(|word| word.strip_prefix("port="))
        .map(|text| port(&text))
        .collect()
}

/// Asks each line that begins with `?`, and compares what follows it with the answer. A record reads
/// `<name> <type> <data>`; names end without the root's dot; `+` marks additional records, `-` the SOA.
fn check(objects: &str, questions: &str) {
    let zone = catalogue(objects).publish().unwrap();
    let lines: Vec<&str> = questions
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let told: Vec<String> = lines
        .iter()
        .filter_map(|line| line.strip_prefix("? "))
        .flat_map(|question| [vec![format!("? {question}")], told(&zone, question)].concat())
        .collect();
    assert_eq!(lines.join("\n"), told.join("\n"));
}

fn told(zone: &Zone, question: &str) -> Vec<String> {
    let (name, rtype) = question.split_once(' ').unwrap();
    let mut name = Name::from_ascii(name).unwrap();
    name.set_fqdn(true);
    match zone.answer(&name, rtype.parse().unwrap()) {
        Verdict::Foreign => vec!["foreign".to_owned()],
        Verdict::Ours(answer) => written(&answer),
    }
}

fn written(answer: &Answer) -> Vec<String> {
    let Answer {
        code,
        answers,
        authorities,
        additionals,
        follow,
    } = answer;
    let mut lines = Vec::new();
    if answers.is_empty() {
        lines.push(if u16::from(*code) == 0 {
            "no data".to_owned()
        } else {
            code.to_str().to_owned()
        });
    }
    lines.extend(answers.iter().map(|record| record_text("", record)));
    lines.extend(authorities.iter().map(|record| record_text("- ", record)));
    lines.extend(additionals.iter().map(|record| record_text("+ ", record)));
    lines.extend(
        follow
            .iter()
            .map(|name| format!("then {}", name.to_ascii().trim_end_matches('.'))),
    );
    lines
}

fn record_text(mark: &str, record: &Record) -> String {
    let name = record.name.to_ascii();
    let name = name.trim_end_matches('.');
    match record.record_type() {
        RecordType::SOA => format!("{mark}SOA {name}"),
        rtype => {
            let words = record.data.to_string();
            let words: Vec<&str> = words
                .split(' ')
                .map(|word| word.strip_suffix('.').unwrap_or(word))
                .collect();
            format!("{mark}{name} {rtype} {}", words.join(" "))
        }
    }
}

const NGINX: &str = "
    service default/nginx headless port=web:80
    slice default/nginx-a of=nginx port=web:8080 pod=10.244.0.3,web-0 pod=10.244.0.4,web-1 pod=10.244.0.5,web-2,unready
";

#[test]
fn a_headless_service_is_all_of_its_ready_pods() {
    check(
        NGINX,
        "
        ? nginx.default.svc.cluster.local A
        nginx.default.svc.cluster.local A 10.244.0.3
        nginx.default.svc.cluster.local A 10.244.0.4
        ? nginx.default.svc.cluster.local AAAA
        no data
        - SOA cluster.local
        ",
    );
}

#[test]
fn each_ready_pod_has_a_name_of_its_own() {
    check(
        NGINX,
        "
        ? web-0.nginx.default.svc.cluster.local A
        web-0.nginx.default.svc.cluster.local A 10.244.0.3
        ? web-0.nginx.default.svc.cluster.local AAAA
        no data
        - SOA cluster.local
        ? web-2.nginx.default.svc.cluster.local A
        Non-Existent Domain
        - SOA cluster.local
        ? web-9.nginx.default.svc.cluster.local A
        Non-Existent Domain
        - SOA cluster.local
        ",
    );
}

#[test]
fn a_headless_service_with_nothing_ready_has_no_name() {
    check(
        "service default/db headless port=5432
         slice default/db-a of=db port=5432 pod=10.244.0.9,db-0,unready",
        "
        ? db.default.svc.cluster.local A
        Non-Existent Domain
        - SOA cluster.local
        ? db-0.db.default.svc.cluster.local A
        Non-Existent Domain
        - SOA cluster.local
        ? default.svc.cluster.local A
        no data
        - SOA cluster.local
        ",
    );
}

#[test]
fn readiness_that_is_unknown_counts_as_ready() {
    check(
        "service default/db headless
         slice default/db-a of=db pod=10.244.0.9,db-0,unknown",
        "
        ? db.default.svc.cluster.local A
        db.default.svc.cluster.local A 10.244.0.9
        ",
    );
}

#[test]
fn a_service_with_cluster_ips_is_these_and_not_its_pods() {
    check(
        "service default/api ip=10.96.0.7,fd00::7 port=https:443
         slice default/api-a of=api port=https:8443 pod=10.244.0.6",
        "
        ? api.default.svc.cluster.local A
        api.default.svc.cluster.local A 10.96.0.7
        ? api.default.svc.cluster.local AAAA
        api.default.svc.cluster.local AAAA fd00::7
        ? 10-244-0-6.api.default.svc.cluster.local A
        10-244-0-6.api.default.svc.cluster.local A 10.244.0.6
        ? _https._tcp.api.default.svc.cluster.local SRV
        _https._tcp.api.default.svc.cluster.local SRV 0 100 443 api.default.svc.cluster.local
        + api.default.svc.cluster.local A 10.96.0.7
        + api.default.svc.cluster.local AAAA fd00::7
        ",
    );
}

#[test]
fn a_service_without_an_address_yet_has_no_name() {
    check(
        "service default/new port=80",
        "
        ? new.default.svc.cluster.local A
        Non-Existent Domain
        - SOA cluster.local
        ",
    );
}

#[test]
fn an_endpoint_without_hostname_is_called_by_its_address() {
    check(
        "service default/web headless
         slice default/web-4 of=web pod=10.244.0.7
         slice default/web-6 of=web pod=fd00::2",
        "
        ? 10-244-0-7.web.default.svc.cluster.local A
        10-244-0-7.web.default.svc.cluster.local A 10.244.0.7
        ? fd00--2.web.default.svc.cluster.local AAAA
        fd00--2.web.default.svc.cluster.local AAAA fd00::2
        ? web.default.svc.cluster.local AAAA
        web.default.svc.cluster.local AAAA fd00::2
        ",
    );
}

#[test]
fn one_hostname_may_have_addresses_of_several_slices() {
    check(
        "service default/web headless
         slice default/web-4 of=web pod=10.244.0.7,a pod=10.244.0.8,a
         slice default/web-6 of=web pod=fd00::2,a pod=10.244.0.7,a",
        "
        ? a.web.default.svc.cluster.local A
        a.web.default.svc.cluster.local A 10.244.0.7
        a.web.default.svc.cluster.local A 10.244.0.8
        ? a.web.default.svc.cluster.local AAAA
        a.web.default.svc.cluster.local AAAA fd00::2
        ? 7.0.244.10.in-addr.arpa PTR
        7.0.244.10.in-addr.arpa PTR a.web.default.svc.cluster.local
        ",
    );
}

#[test]
fn named_ports_are_found_with_the_addresses_of_their_targets() {
    check(
        NGINX,
        "
        ? _web._tcp.nginx.default.svc.cluster.local SRV
        _web._tcp.nginx.default.svc.cluster.local SRV 0 50 8080 web-0.nginx.default.svc.cluster.local
        _web._tcp.nginx.default.svc.cluster.local SRV 0 50 8080 web-1.nginx.default.svc.cluster.local
        + web-0.nginx.default.svc.cluster.local A 10.244.0.3
        + web-1.nginx.default.svc.cluster.local A 10.244.0.4
        ? _web._udp.nginx.default.svc.cluster.local SRV
        Non-Existent Domain
        - SOA cluster.local
        ? _other._tcp.nginx.default.svc.cluster.local SRV
        Non-Existent Domain
        - SOA cluster.local
        ",
    );
}

#[test]
fn an_unnamed_port_has_no_name_but_belongs_to_its_service() {
    check(
        "service default/db headless
         slice default/db-a of=db port=5432 port=metrics:9187/UDP pod=10.244.0.9,db-0",
        "
        ? __._tcp.db.default.svc.cluster.local SRV
        Non-Existent Domain
        - SOA cluster.local
        ? _tcp.db.default.svc.cluster.local SRV
        Non-Existent Domain
        - SOA cluster.local
        ? _udp.db.default.svc.cluster.local SRV
        no data
        - SOA cluster.local
        ? _metrics._udp.db.default.svc.cluster.local A
        no data
        - SOA cluster.local
        ? db.default.svc.cluster.local SRV
        db.default.svc.cluster.local SRV 0 50 5432 db-0.db.default.svc.cluster.local
        db.default.svc.cluster.local SRV 0 50 9187 db-0.db.default.svc.cluster.local
        + db-0.db.default.svc.cluster.local A 10.244.0.9
        ",
    );
}

#[test]
fn names_between_names_exist_without_data() {
    check(
        NGINX,
        "
        ? svc.cluster.local A
        no data
        - SOA cluster.local
        ? pod.cluster.local A
        no data
        - SOA cluster.local
        ? default.svc.cluster.local A
        no data
        - SOA cluster.local
        ? _tcp.nginx.default.svc.cluster.local A
        no data
        - SOA cluster.local
        ? _web._tcp.nginx.default.svc.cluster.local A
        no data
        - SOA cluster.local
        ? dns.cluster.local A
        no data
        - SOA cluster.local
        ? cluster.local A
        no data
        - SOA cluster.local
        ",
    );
}

#[test]
fn names_that_nothing_stands_at_do_not_exist() {
    check(
        NGINX,
        "
        ? other.default.svc.cluster.local A
        Non-Existent Domain
        - SOA cluster.local
        ? nginx.other.svc.cluster.local A
        Non-Existent Domain
        - SOA cluster.local
        ? other.svc.cluster.local A
        Non-Existent Domain
        - SOA cluster.local
        ? example.com.default.svc.cluster.local A
        Non-Existent Domain
        - SOA cluster.local
        ? a.web-0.nginx.default.svc.cluster.local A
        Non-Existent Domain
        - SOA cluster.local
        ? a.b.c.nginx.default.svc.cluster.local A
        Non-Existent Domain
        - SOA cluster.local
        ? example.com.cluster.local A
        Non-Existent Domain
        - SOA cluster.local
        ",
    );
}

#[test]
fn names_outside_the_domain_are_foreign() {
    check(
        NGINX,
        "
        ? example.com A
        foreign
        ? local A
        foreign
        ? notcluster.local A
        foreign
        ? nginx.default A
        foreign
        ? . NS
        foreign
        ",
    );
}

#[test]
fn names_are_found_in_any_case_and_keep_the_case_of_the_question() {
    check(
        "service default/nginx headless
         slice default/nginx-a of=nginx port=Web:80 pod=10.244.0.3,Web-0",
        "
        ? WEB-0.nGinx.Default.SVC.cluster.LOCAL A
        WEB-0.nGinx.Default.SVC.cluster.LOCAL A 10.244.0.3
        ? _WEB._Tcp.nginx.default.svc.cluster.local SRV
        _WEB._Tcp.nginx.default.svc.cluster.local SRV 0 100 80 Web-0.nginx.default.svc.cluster.local
        + Web-0.nginx.default.svc.cluster.local A 10.244.0.3
        ? DNS-version.Cluster.local TXT
        DNS-version.Cluster.local TXT 1.1.0
        ? 3.0.244.10.IN-ADDR.Arpa PTR
        3.0.244.10.IN-ADDR.Arpa PTR Web-0.nginx.default.svc.cluster.local
        ",
    );
}

#[test]
fn an_external_name_is_an_alias() {
    check(
        "service default/search external=example.com
         service default/local external=nginx.default.svc.cluster.local.
         service default/gone external=nobody.default.svc.cluster.local
         service default/address external=192.0.2.1
         service default/loop external=loop.default.svc.cluster.local
         service default/nginx ip=10.96.0.3 port=80",
        "
        ? search.default.svc.cluster.local A
        search.default.svc.cluster.local CNAME example.com
        then example.com
        ? search.default.svc.cluster.local CNAME
        search.default.svc.cluster.local CNAME example.com
        ? below.search.default.svc.cluster.local A
        Non-Existent Domain
        - SOA cluster.local
        ? local.default.svc.cluster.local A
        local.default.svc.cluster.local CNAME nginx.default.svc.cluster.local
        nginx.default.svc.cluster.local A 10.96.0.3
        ? local.default.svc.cluster.local AAAA
        local.default.svc.cluster.local CNAME nginx.default.svc.cluster.local
        - SOA cluster.local
        ? gone.default.svc.cluster.local A
        gone.default.svc.cluster.local CNAME nobody.default.svc.cluster.local
        - SOA cluster.local
        ? address.default.svc.cluster.local A
        Non-Existent Domain
        - SOA cluster.local
        ? loop.default.svc.cluster.local A
        Server Failure
        ",
    );
}

#[test]
fn addresses_lead_back_to_names() {
    check(
        "service default/nginx headless
         slice default/nginx-a of=nginx pod=10.244.0.3,web-0 pod=10.244.0.4 pod=fd00::3,web-0
         service default/all ip=10.96.0.9
         slice default/all-a of=all pod=10.244.0.3",
        "
        ? 3.0.244.10.in-addr.arpa PTR
        3.0.244.10.in-addr.arpa PTR web-0.nginx.default.svc.cluster.local
        3.0.244.10.in-addr.arpa PTR 10-244-0-3.all.default.svc.cluster.local
        ? 4.0.244.10.in-addr.arpa PTR
        4.0.244.10.in-addr.arpa PTR 10-244-0-4.nginx.default.svc.cluster.local
        ? 9.0.96.10.in-addr.arpa PTR
        9.0.96.10.in-addr.arpa PTR all.default.svc.cluster.local
        ? 3.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa PTR
        3.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa PTR web-0.nginx.default.svc.cluster.local
        ? 3.0.244.10.in-addr.arpa A
        no data
        - SOA in-addr.arpa
        ",
    );
}

#[test]
fn only_reverse_questions_about_addresses_of_others_are_foreign() {
    check(
        NGINX,
        "
        ? 77.0.244.10.in-addr.arpa PTR
        Non-Existent Domain
        - SOA in-addr.arpa
        ? 8.8.8.8.in-addr.arpa PTR
        foreign
        ? 8.in-addr.arpa PTR
        foreign
        ? 1.0.0.127.in-addr.arpa PTR
        1.0.0.127.in-addr.arpa PTR localhost
        ? 9.0.0.127.in-addr.arpa PTR
        Non-Existent Domain
        - SOA in-addr.arpa
        ",
    );
}

#[test]
fn the_domain_speaks_for_itself() {
    check(
        "",
        "
        ? dns-version.cluster.local TXT
        dns-version.cluster.local TXT 1.1.0
        ? dns-version.cluster.local A
        no data
        - SOA cluster.local
        ? cluster.local SOA
        SOA cluster.local
        ? cluster.local NS
        cluster.local NS ns.dns.cluster.local
        ? ns.dns.cluster.local A
        ns.dns.cluster.local A 10.96.0.10
        ? localhost A
        localhost A 127.0.0.1
        ? 10-1-2-3.default.pod.cluster.local A
        10-1-2-3.default.pod.cluster.local A 10.1.2.3
        ? word.default.pod.cluster.local A
        Non-Existent Domain
        - SOA cluster.local
        ",
    );
}

#[test]
fn any_is_answered_with_one_kind_of_record() {
    check(
        NGINX,
        "
        ? nginx.default.svc.cluster.local ANY
        nginx.default.svc.cluster.local A 10.244.0.3
        nginx.default.svc.cluster.local A 10.244.0.4
        ? _web._tcp.nginx.default.svc.cluster.local MX
        no data
        - SOA cluster.local
        ",
    );
}

#[test]
fn objects_that_do_not_fit_into_dns_are_passed_over() {
    let long = "x".repeat(70);
    check(
        &format!(
            "service default/{long} headless
             slice default/a of={long} pod=10.244.0.3,a
             service default/web headless
             slice default/b of=web pod=10.244.0.4,{long} pod=not-an-address pod=10.244.0.5,ok port=0 port=70000
             slice default/c pod=10.244.0.6,stranger
             slice default/d of=nobody pod=10.244.0.7,orphan"
        ),
        "
        ? web.default.svc.cluster.local A
        web.default.svc.cluster.local A 10.244.0.5
        ? web.default.svc.cluster.local SRV
        no data
        - SOA cluster.local
        ",
    );
}

#[test]
fn answers_may_be_kept_for_five_seconds_and_the_soa_says_the_same_of_a_no() {
    let zone = catalogue(NGINX).publish().unwrap();
    let name = |text| Name::from_ascii(text).unwrap();
    let Verdict::Ours(yes) = zone.answer(&name("nginx.default.svc.cluster.local."), RecordType::A)
    else {
        panic!()
    };
    assert_eq!(
        yes.answers.iter().map(|it| it.ttl).collect::<Vec<_>>(),
        [5, 5]
    );
    let Verdict::Ours(no) = zone.answer(&name("no.default.svc.cluster.local."), RecordType::A)
    else {
        panic!()
    };
    let soa = "cluster.local. 5 IN SOA ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5";
    assert_eq!(no.authorities[0].to_string(), soa);
}

#[test]
fn before_the_first_sync_nothing_is_denied() {
    let zone = Zone::unsynced(settings());
    for (question, expected) in [
        ("nginx.default.svc.cluster.local A", "Server Failure"),
        ("77.0.244.10.in-addr.arpa PTR", "Server Failure"),
        ("example.com A", "foreign"),
    ] {
        assert_eq!(told(&zone, question), [expected]);
    }
}

#[test]
fn another_cluster_domain_is_served_as_well() {
    let domain = Name::from_ascii("k8s.example.").unwrap();
    let mut catalogue = Catalogue::new(Arc::new(Settings {
        domain,
        nameservers: vec![],
        own_ranges: vec![],
    }));
    catalogue.replace_services(vec![]);
    catalogue.replace_slices(vec![]);
    NGINX
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .for_each(|line| apply(&mut catalogue, line));
    let zone = catalogue.publish().unwrap();
    assert_eq!(
        told(&zone, "web-0.nginx.default.svc.k8s.example A"),
        ["web-0.nginx.default.svc.k8s.example A 10.244.0.3"]
    );
    assert_eq!(
        told(&zone, "web-0.nginx.default.svc.cluster.local A"),
        ["foreign"]
    );
}

/// Applies each change in turn: `publishes` says whether a new zone comes of it.
#[test]
fn a_zone_is_published_only_when_an_answer_changed() {
    let mut catalogue = catalogue(NGINX);
    assert_eq!(catalogue.publish().map(|zone| zone.serial()), Some(1));
    for (change, publishes) in [
        (
            "slice default/nginx-a of=nginx port=web:8080 pod=10.244.0.4,web-1 pod=10.244.0.3,web-0",
            false,
        ),
        (
            "slice default/nginx-b of=nginx port=web:8080 pod=10.244.0.3,web-0",
            false,
        ),
        (
            "slice default/nginx-b of=nginx port=web:8080 pod=10.244.0.9,web-9",
            true,
        ),
        (
            "slice default/nginx-b of=other port=web:8080 pod=10.244.0.9,web-9",
            true,
        ),
        ("slice default/stray pod=10.244.0.9,web-9", false),
        ("service other/new ip=10.96.0.77 port=80", true),
    ] {
        apply(&mut catalogue, change);
        assert_eq!(catalogue.publish().is_some(), publishes, "{change}");
    }
    catalogue.delete_slice("default", "nginx-a");
    let zone = catalogue.publish().unwrap();
    assert_eq!(
        told(&zone, "nginx.default.svc.cluster.local A")[0],
        "Non-Existent Domain"
    );
    catalogue.delete_service("other", "new");
    let zone = catalogue.publish().unwrap();
    assert_eq!(
        told(&zone, "other.svc.cluster.local A")[0],
        "Non-Existent Domain"
    );
    assert_eq!(catalogue.publish(), None);
}

#[test]
fn a_relist_removes_what_is_gone() {
    let mut catalogue = catalogue(NGINX);
    catalogue.publish().unwrap();
    catalogue.replace_slices(vec![]);
    let zone = catalogue.publish().unwrap();
    assert_eq!(
        told(&zone, "web-0.nginx.default.svc.cluster.local A")[0],
        "Non-Existent Domain"
    );
    catalogue.replace_services(vec![]);
    let zone = catalogue.publish().unwrap();
    assert_eq!(
        told(&zone, "default.svc.cluster.local A")[0],
        "Non-Existent Domain"
    );
}

#[test]
fn nothing_is_published_before_both_kinds_were_listed() {
    let mut catalogue = Catalogue::new(settings());
    catalogue.replace_services(vec![]);
    assert_eq!(catalogue.publish(), None);
    catalogue.replace_slices(vec![]);
    assert!(catalogue.publish().unwrap().is_synced());
}

fn hosts_text(hosts: &[(std::net::IpAddr, Vec<String>)]) -> String {
    hosts
        .iter()
        .map(|(address, names)| format!("{address} {}\n", names.join(" ")))
        .collect()
}

#[test]
fn every_pod_is_in_the_hosts_file_by_each_form_of_its_name() {
    let zone = catalogue(NGINX).publish().unwrap();
    let service = "nginx.default.svc.cluster.local nginx.default.svc nginx.default";
    let expected = format!(
        "10.244.0.3 web-0.nginx.default.svc.cluster.local web-0.nginx.default.svc web-0.nginx.default web-0.nginx {service}\n\
         10.244.0.4 web-1.nginx.default.svc.cluster.local web-1.nginx.default.svc web-1.nginx.default web-1.nginx {service}\n"
    );
    assert_eq!(hosts_text(&host_names(&zone)), expected);
}

#[test]
fn a_short_name_of_two_namespaces_is_left_out_unless_the_reader_has_one() {
    let zone = catalogue(
        "service a/db headless
         slice a/db-1 of=db pod=127.1.0.1,db-0
         service b/db headless
         slice b/db-1 of=db pod=127.1.0.2,db-0
         service a/front ip=10.96.0.1
         slice a/front-1 of=front pod=127.1.0.3",
    )
    .publish()
    .unwrap();
    assert_eq!(
        hosts_text(&host_names(&zone)),
        "127.1.0.1 db-0.db.a.svc.cluster.local db-0.db.a.svc db-0.db.a db.a.svc.cluster.local db.a.svc db.a\n\
         127.1.0.2 db-0.db.b.svc.cluster.local db-0.db.b.svc db-0.db.b db.b.svc.cluster.local db.b.svc db.b\n"
    );
    assert_eq!(
        hosts_text(&host_names_in(&zone, "b")),
        "127.1.0.1 db-0.db.a.svc.cluster.local db-0.db.a.svc db-0.db.a db.a.svc.cluster.local db.a.svc db.a\n\
         127.1.0.2 db-0.db.b.svc.cluster.local db-0.db.b.svc db-0.db.b db-0.db db.b.svc.cluster.local db.b.svc db.b db\n"
    );
}

#[test]
fn ranges_of_addresses_know_what_lies_in_them() {
    let holds = |range: &str, address: &str| {
        range
            .parse::<Prefix>()
            .unwrap()
            .contains(address.parse().unwrap())
    };
    assert!(holds("10.244.0.0/16", "10.244.255.255"));
    assert!(!holds("10.244.0.0/16", "10.245.0.0"));
    assert!(holds("0.0.0.0/0", "255.1.2.3"));
    assert!(holds("::/0", "fd00::1"));
    assert!(holds("10.0.0.1/32", "10.0.0.1"));
    assert!(!holds("10.0.0.1/32", "10.0.0.2"));
    assert!(!holds("::/0", "10.0.0.1"));
    for wrong in [
        "10.0.0.0",
        "10.0.0.0/33",
        "fd00::/129",
        "x/8",
        "10.0.0.0/",
        "10.0.0.0/-1",
    ] {
        assert!(wrong.parse::<Prefix>().is_err(), "{wrong}");
    }
}

#[test]
fn a_change_among_a_thousand_services_costs_little() {
    let mut catalogue = Catalogue::new(settings());
    catalogue.replace_services(vec![]);
    catalogue.replace_slices(vec![]);
    for n in 0..1_000 {
        let (a, b) = (n / 250, n % 250);
        apply(&mut catalogue, &format!("service ns{a}/s{n} headless"));
        let pods = (0..3)
            .map(|pod| format!("pod=10.{a}.{b}.{pod},p-{pod}"))
            .collect::<Vec<_>>()
            .join(" ");
        apply(
            &mut catalogue,
            &format!("slice ns{a}/s{n}-x of=s{n} port=p:80 {pods}"),
        );
    }
    let first = catalogue.publish().unwrap();
    apply(&mut catalogue, "slice ns1/s300-x of=s300 pod=10.9.9.9,p-0");
    let second = catalogue.publish().unwrap();
    assert_eq!(
        told(&second, "p-0.s300.ns1.svc.cluster.local A"),
        ["p-0.s300.ns1.svc.cluster.local A 10.9.9.9"]
    );
    let shared = |name: &str| Arc::ptr_eq(&first.namespaces[name], &second.namespaces[name]);
    assert_eq!(
        ["ns0", "ns1", "ns2", "ns3"].map(shared),
        [true, false, true, true]
    );
    let kept = first.namespaces["ns1"]
        .iter()
        .filter(|(name, old)| Arc::ptr_eq(old, &second.namespaces["ns1"][*name]));
    assert_eq!(kept.count(), 249);
}
