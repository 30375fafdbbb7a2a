//! What is fuzzed, each with inputs to begin with; the planted one is there to be found.

pub mod images;

use stead_node::fuzzing;

/// One parser with what it promises.
pub struct Target {
    pub name: &'static str,
    /// Panics where a promise is broken.
    pub run: fn(&[u8]),
    pub seeds: Vec<Vec<u8>>,
    /// Words of its language.
    pub words: Vec<Vec<u8>>,
    /// The longest input in bytes.
    pub max: usize,
    /// It is broken on purpose.
    pub planted: bool,
}

impl Target {
    fn new(name: &'static str, run: fn(&[u8]), seeds: Vec<Vec<u8>>, words: &[&str]) -> Self {
        let words = words.iter().map(|word| word.as_bytes().to_vec()).collect();
        Self {
            name,
            run,
            seeds,
            words,
            max: 4096,
            planted: false,
        }
    }
}

/// Every target.
pub fn all() -> Vec<Target> {
    vec![
        planted(),
        Target::new(
            "dns-question",
            fuzzing::dns_question,
            dns_questions(),
            &DNS_WORDS,
        ),
        Target::new("dns-answer", fuzzing::dns_answer, dns_answers(), &DNS_WORDS),
        Target::new(
            "resolv-conf",
            fuzzing::resolv_conf,
            texts(&RESOLV_CONFS),
            &[
                "nameserver ",
                "search ",
                "options ",
                "ndots:",
                "\n",
                "#",
                "::1",
                "127.0.0.1",
            ],
        ),
        Target::new(
            "log",
            fuzzing::log,
            texts(&LOGS),
            &[
                "tailLines=",
                "sinceTime=",
                "sinceSeconds=",
                "limitBytes=",
                "timestamps=true",
                "stream=Stdout",
                " stdout F ",
                " stderr P ",
                "\n",
                "&",
                "2026-01-02T03:04:05.000000006Z",
            ],
        ),
        Target::new(
            "image-manifest",
            images::manifest,
            texts(&images::MANIFESTS),
            &images::WORDS,
        ),
        Target::new(
            "image-layer",
            images::layer,
            images::layers(),
            &[
                "ustar\0",
                "00",
                "././@LongLink",
                "../",
                "/",
                ".wh.",
                ".wh..wh..opq",
                "GNU.sparse.map=",
                "path=",
                "SCHILY.xattr.",
                "\x1f",
            ],
        ),
        Target::new(
            "protobuf",
            protobuf,
            protobufs(),
            &["k8s\0", "v1", "Pod", "apps/v1", "StatefulSet"],
        ),
    ]
}

/// To be found, within a minute: see `finds_what_is_planted`.
fn planted() -> Target {
    let mut target = Target::new(
        "planted",
        stead_planted::parse,
        vec![b"nothing of the kind".to_vec()],
        &[],
    );
    target.planted = true;
    target
}

/// What reads protobuf takes any bytes, and whatever it takes is JSON that can be written.
fn protobuf(bytes: &[u8]) {
    if let Ok(value) = stead_schema::protobuf::decode(bytes) {
        assert!(value.is_object(), "an object of the API is an object");
    }
    let _ = stead_schema::protobuf::decode_as(bytes, "apps/v1", "StatefulSet");
}

const DNS_WORDS: [&str; 10] = [
    "\x03web",
    "\x07default",
    "\x03svc",
    "\x07cluster\x05local\0",
    "\x05_http\x04_tcp",
    "\x03out",
    "\x04loop",
    "\x07in-addr\x04arpa\0",
    "\x03pod",
    "\0\x01\0\x01",
];

/// A question as it goes over the wire.
fn asked(name: &str, record_type: u8, edns: bool) -> Vec<u8> {
    let mut bytes = vec![0, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(edns)];
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.extend([0, 0, record_type, 0, 1]);
    if edns {
        bytes.extend([0, 0, 41, 16, 0, 0, 0, 0, 0, 0, 0]);
    }
    bytes
}

fn dns_questions() -> Vec<Vec<u8>> {
    let names = [
        ("web.default.svc.cluster.local", 1),
        ("web-7.web.default.svc.cluster.local", 28),
        ("_http._tcp.web.default.svc.cluster.local", 33),
        ("out.default.svc.cluster.local", 1),
        ("loop.default.svc.cluster.local", 1),
        ("10-0-1-7.default.pod.cluster.local", 1),
        ("7.1.0.10.in-addr.arpa", 12),
        ("cluster.local", 6),
        ("www.example", 1),
    ];
    names
        .iter()
        .flat_map(|(name, kind)| [asked(name, *kind, false), asked(name, *kind, true)])
        .collect()
}

fn dns_answers() -> Vec<Vec<u8>> {
    let pair = |name: &str| {
        let mut question = asked(name, 1, false);
        let mut answer = question.clone();
        // A response with one address record, its name by a pointer to the question.
        answer[2] |= 0x80;
        answer[7] = 1;
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1]);
        question.resize(64, b' ');
        [question, answer].concat()
    };
    vec![pair("www.example"), pair("out.default.svc.cluster.local")]
}

const RESOLV_CONFS: [&str; 2] = [
    "nameserver 127.0.0.53\nsearch a.example b.example\noptions ndots:5 edns0\n",
    "# comment\ndomain x\nnameserver ::1\nnameserver fe80::1%eth0\n",
];

const LOGS: [&str; 2] = [
    "tailLines=2&timestamps=true\n2026-01-02T03:04:05.000000006Z stdout F one\n2026-01-02T03:04:06Z stderr P tw\n2026-01-02T03:04:06Z stderr F o\n",
    "sinceTime=2026-01-02T03:04:05Z&limitBytes=9&stream=Stderr\n2026-01-02T03:04:05.1Z stderr F x\n",
];

fn texts(all: &[&str]) -> Vec<Vec<u8>> {
    all.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// A Pod with a name, in the envelope that clients send.
fn protobufs() -> Vec<Vec<u8>> {
    let mut bytes = b"k8s\0".to_vec();
    bytes.extend(b"\x0a\x09\x0a\x02v1\x12\x03Pod\x12\x07\x0a\x05\x0a\x03abc");
    vec![bytes]
}
