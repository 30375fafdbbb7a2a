//! What every name under the cluster domain means right now: an immutable zone that answers questions.
//!
//! Pure. A zone is published by a [`Catalogue`], which is fed Services and EndpointSlices; readers share it and never
//! see it change. Follows the Kubernetes DNS specification 1.1.0 and, where that leaves room, CoreDNS's kubernetes plugin.
//!
//! differs from CoreDNS: names between the records (`_tcp.web.default.svc...`) are NODATA, not NXDOMAIN (RFC 8020); a
//! namespace exists once it holds a Service; a question about an unsynced zone is SERVFAIL, so that nobody caches a wrong no.

mod catalogue;
mod hosts;
mod objects;
mod reverse;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};

pub use catalogue::Catalogue;
pub use hosts::{host_names, host_names_in};
pub use objects::{Endpoint, Port, Service, Shape, Slice};
pub use reverse::{Prefix, PrefixError};

/// Seconds that a resolver may keep an answer, yes or no alike. upstream: CoreDNS `defaultTTL`.
pub const TTL_SECONDS: u32 = 5;
/// Seconds for the schema version, which never changes while we run.
const VERSION_TTL_SECONDS: u32 = 28_800;
/// Version of the DNS schema that we speak.
const SCHEMA_VERSION: &str = "1.1.0";
/// An ExternalName may point at another one; more hops than these are a loop.
const CNAME_HOPS_MAX: usize = 8;

/// What holds for as long as the server runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The cluster domain, for instance `cluster.local.`: fully qualified, never the root.
    pub domain: Name,
    /// Where this server is reached: the addresses of `ns.dns.<domain>`.
    pub nameservers: Vec<IpAddr>,
    /// Addresses of pods and Services. A reverse question about one of these is never forwarded: nobody else can know.
    pub own_ranges: Vec<Prefix>,
}

/// An immutable picture of every name under the cluster domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    settings: Arc<Settings>,
    serial: u32,
    synced: bool,
    namespaces: BTreeMap<String, Namespace>,
    /// Names of each address, those with a hostname of their own first.
    reverse: BTreeMap<IpAddr, Vec<Name>>,
}

/// Services of one namespace by name; shared between zones, so that an unchanged namespace costs nothing.
type Namespace = Arc<BTreeMap<String, Arc<ServiceRecords>>>;

/// All that DNS says about one Service.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ServiceRecords {
    name: Name,
    meaning: Meaning,
    /// Ready endpoints by their label: the hostname, or the address with dashes.
    hosts: BTreeMap<String, Host>,
    ports: Vec<ServicePort>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Meaning {
    /// These addresses: cluster IPs, or every ready endpoint of a headless Service.
    Addresses {
        addresses: BTreeSet<IpAddr>,
        headless: bool,
    },
    /// Another name.
    Alias(Name),
    /// No name: a headless Service with nothing ready, or a Service without a cluster IP yet.
    Nothing,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Host {
    name: Name,
    /// The label is the endpoint's own hostname, not its address with dashes.
    named: bool,
    addresses: BTreeSet<IpAddr>,
}

/// One port that an SRV question can find.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct ServicePort {
    /// Lower case, without underscore; empty for an unnamed port.
    name: String,
    /// `tcp`, `udp` or `sctp`.
    protocol: String,
    number: u16,
    /// The key in `hosts` that serves it; `None` is the Service itself.
    host: Option<String>,
}

/// Whether a question is ours to answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// We are the authority.
    Ours(Answer),
    /// Not our name: the machine's resolvers may know.
    Foreign,
}

/// An authoritative answer, section by section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// NOERROR, NXDOMAIN or, before the first sync, SERVFAIL.
    pub code: ResponseCode,
    /// The records that were asked for, aliases before what they lead to.
    pub answers: Vec<Record>,
    /// The SOA of a negative answer.
    pub authorities: Vec<Record>,
    /// Addresses of SRV targets: a kindness, first to go when space is short.
    pub additionals: Vec<Record>,
    /// The last alias leads out of the cluster: this name is to be resolved upstream and its answers appended.
    pub follow: Option<Name>,
}

impl Answer {
    fn empty(code: ResponseCode) -> Self {
        Self {
            code,
            answers: Vec::new(),
            authorities: Vec::new(),
            additionals: Vec::new(),
            follow: None,
        }
    }

    /// Turns the addresses by `turn` places, so that clients that take the first one spread over all of them.
    /// Aliases keep their place before the addresses.
    pub fn rotate(&mut self, turn: usize) {
        let first = self
            .answers
            .iter()
            .position(is_address)
            .unwrap_or(self.answers.len());
        let addresses = &mut self.answers[first..];
        if !addresses.is_empty() && addresses.iter().all(is_address) {
            addresses.rotate_left(turn % addresses.len());
        }
    }
}

fn is_address(record: &Record) -> bool {
    matches!(record.record_type(), RecordType::A | RecordType::AAAA)
}

/// What stands at a name.
enum Node<'z> {
    Apex,
    Version,
    NameServer,
    /// Nothing itself, but names exist below it.
    Between,
    Service(&'z ServiceRecords),
    Host(&'z Host),
    Ports(&'z ServiceRecords, Vec<&'z ServicePort>),
    /// `10-1-2-3.<namespace>.pod.<domain>`: says its own address.
    Address(IpAddr),
}

impl Zone {
    /// A zone that knows nothing yet and says so: every answer about the cluster is SERVFAIL.
    #[must_use]
    pub fn unsynced(settings: Arc<Settings>) -> Self {
        Self {
            settings,
            serial: 0,
            synced: false,
            namespaces: BTreeMap::new(),
            reverse: BTreeMap::new(),
        }
    }

    /// False until Services and EndpointSlices have been listed once.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.synced
    }

    /// Rises with each published zone; the serial of the SOA.
    #[must_use]
    pub fn serial(&self) -> u32 {
        self.serial
    }

    /// The cluster domain, fully qualified.
    #[must_use]
    pub fn domain(&self) -> &Name {
        &self.settings.domain
    }

    /// Answers one question of class IN. Names are compared without case; the answer keeps the case of the question.
    #[must_use]
    pub fn answer(&self, name: &Name, rtype: RecordType) -> Verdict {
        if let Some(address) = reverse::address_of(name) {
            return self.answer_reverse(name, address, rtype);
        }
        if reverse::is_localhost(name) {
            return Verdict::Ours(self.answer_localhost(name, rtype));
        }
        if !self.settings.domain.zone_of(name) {
            return Verdict::Foreign;
        }
        if !self.synced {
            return Verdict::Ours(Answer::empty(ResponseCode::ServFail));
        }
        Verdict::Ours(self.answer_ours(name, rtype))
    }

    /// Follows aliases within the zone, then looks the last name up.
    fn answer_ours(&self, name: &Name, rtype: RecordType) -> Answer {
        let mut answer = Answer::empty(ResponseCode::NoError);
        let mut owner = name.clone();
        for _ in 0..CNAME_HOPS_MAX {
            let Some(node) = self.find(&owner) else {
                answer.code = ResponseCode::NXDomain;
                answer.authorities.push(self.soa(&self.settings.domain));
                return answer;
            };
            let Some(target) = alias(&node, rtype) else {
                self.fill(&mut answer, &owner, &node, rtype);
                return answer;
            };
            answer
                .answers
                .push(record(&owner, RData::CNAME(CNAME(target.clone()))));
            if !self.settings.domain.zone_of(target) {
                answer.follow = Some(target.clone());
                return answer;
            }
            owner = target.clone();
        }
        Answer::empty(ResponseCode::ServFail)
    }

    /// Puts what `node` has of `rtype` into `answer`, or the SOA that says it has none.
    fn fill(&self, answer: &mut Answer, owner: &Name, node: &Node<'_>, rtype: RecordType) {
        let found = match rtype {
            // RFC 8482: one kind of record is answer enough for ANY.
            RecordType::ANY => [
                RecordType::A,
                RecordType::AAAA,
                RecordType::CNAME,
                RecordType::SRV,
                RecordType::TXT,
                RecordType::SOA,
            ]
            .into_iter()
            .map(|rtype| self.data(node, rtype))
            .find(|data| !data.is_empty())
            .unwrap_or_default(),
            rtype => self.data(node, rtype),
        };
        if found.is_empty() {
            answer.authorities.push(self.soa(&self.settings.domain));
            return;
        }
        if rtype == RecordType::SRV {
            answer.additionals = srv_addresses(node);
        }
        let ttl = if matches!(node, Node::Version) {
            VERSION_TTL_SECONDS
        } else {
            TTL_SECONDS
        };
        answer.answers.extend(
            found
                .into_iter()
                .map(|data| Record::from_rdata(owner.clone(), ttl, data)),
        );
    }

    /// The data of one type at a node; empty when it has none.
    fn data(&self, node: &Node<'_>, rtype: RecordType) -> Vec<RData> {
        match (node, rtype) {
            (Node::Apex, RecordType::SOA) => vec![self.soa(&self.settings.domain).data],
            (Node::Apex, RecordType::NS) => vec![RData::NS(NS(self.under_domain("ns.dns")))],
            (Node::Version, RecordType::TXT) => {
                vec![RData::TXT(TXT::new(vec![SCHEMA_VERSION.to_owned()]))]
            }
            (Node::NameServer, _) => addresses(&self.settings.nameservers, rtype),
            (Node::Address(address), _) => addresses([address], rtype),
            (Node::Host(host), _) => addresses(&host.addresses, rtype),
            (Node::Service(service), RecordType::SRV) => {
                srv(service, &service.ports.iter().collect::<Vec<_>>())
            }
            (Node::Ports(service, ports), RecordType::SRV) => srv(service, ports),
            (Node::Service(service), _) => match &service.meaning {
                Meaning::Addresses { addresses: own, .. } => addresses(own, rtype),
                Meaning::Alias(target) if rtype == RecordType::CNAME => {
                    vec![RData::CNAME(CNAME(target.clone()))]
                }
                Meaning::Alias(_) | Meaning::Nothing => Vec::new(),
            },
            (Node::Apex | Node::Version | Node::Between | Node::Ports(..), _) => Vec::new(),
        }
    }

    /// What stands at `name`, which is at or below the domain; `None` is NXDOMAIN.
    fn find(&self, name: &Name) -> Option<Node<'_>> {
        let labels = labels_below(name, &self.settings.domain)?;
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        match labels.as_slice() {
            [] => Some(Node::Apex),
            ["dns-version"] => Some(Node::Version),
            ["dns", "ns"] => Some(Node::NameServer),
            ["dns" | "svc" | "pod"] => Some(Node::Between),
            // upstream: CoreDNS `pods insecure`, kubeadm's default; the namespace is not looked at.
            ["pod", _] => Some(Node::Between),
            ["pod", _, dashed] => reverse::undashed(dashed).map(Node::Address),
            ["svc", namespace] => self
                .namespaces
                .contains_key(*namespace)
                .then_some(Node::Between),
            ["svc", namespace, service, rest @ ..] => self.service(namespace, service)?.find(rest),
            [..] => None,
        }
    }

    fn service(&self, namespace: &str, service: &str) -> Option<&ServiceRecords> {
        self.namespaces
            .get(namespace)?
            .get(service)
            .map(Arc::as_ref)
    }

    fn services(&self) -> impl Iterator<Item = (&str, &str, &ServiceRecords)> {
        self.namespaces.iter().flat_map(|(namespace, services)| {
            services
                .iter()
                .map(|(name, records)| (namespace.as_str(), name.as_str(), records.as_ref()))
        })
    }

    fn soa(&self, owner: &Name) -> Record {
        let mname = self.under_domain("ns.dns");
        let rname = self.under_domain("hostmaster");
        record(
            owner,
            RData::SOA(SOA::new(
                mname,
                rname,
                self.serial,
                7_200,
                1_800,
                86_400,
                TTL_SECONDS,
            )),
        )
    }

    fn under_domain(&self, relative: &str) -> Name {
        Name::parse(relative, Some(&self.settings.domain))
            .unwrap_or_else(|_| self.settings.domain.clone())
    }
}

impl ServiceRecords {
    /// `rest`: the labels left of the Service's, nearest first.
    fn find(&self, rest: &[&str]) -> Option<Node<'_>> {
        match rest {
            [] => (self.meaning != Meaning::Nothing).then_some(Node::Service(self)),
            [label] => match self.hosts.get(*label) {
                Some(host) => Some(Node::Host(host)),
                None => self
                    .ports
                    .iter()
                    .any(|port| port.is_under(label))
                    .then_some(Node::Between),
            },
            [protocol, name] => {
                let found: Vec<_> = self
                    .ports
                    .iter()
                    .filter(|port| port.is_at(protocol, name))
                    .collect();
                (!found.is_empty()).then_some(Node::Ports(self, found))
            }
            [..] => None,
        }
    }

    fn is_headless(&self) -> bool {
        matches!(self.meaning, Meaning::Addresses { headless: true, .. })
    }
}

impl ServicePort {
    fn is_under(&self, label: &str) -> bool {
        !self.name.is_empty() && label.strip_prefix('_') == Some(&self.protocol)
    }

    fn is_at(&self, protocol: &str, name: &str) -> bool {
        self.is_under(protocol) && name.strip_prefix('_') == Some(&self.name)
    }
}

/// The other name that stands at a node, unless the alias itself was asked for.
fn alias<'z>(node: &Node<'z>, rtype: RecordType) -> Option<&'z Name> {
    match node {
        Node::Service(ServiceRecords {
            meaning: Meaning::Alias(target),
            ..
        }) if !matches!(rtype, RecordType::CNAME | RecordType::ANY) => Some(target),
        Node::Apex
        | Node::Version
        | Node::NameServer
        | Node::Between
        | Node::Service(_)
        | Node::Host(_)
        | Node::Ports(..)
        | Node::Address(_) => None,
    }
}

/// One SRV a port and target, all of one priority and of equal weight (upstream: CoreDNS shares 100 out).
fn srv(service: &ServiceRecords, ports: &[&ServicePort]) -> Vec<RData> {
    let weight = u16::try_from(100 / ports.len().max(1)).unwrap_or(1).max(1);
    let target = |port: &ServicePort| target_of(service, port).clone();
    ports
        .iter()
        .map(|port| RData::SRV(SRV::new(0, weight, port.number, target(port))))
        .collect()
}

fn target_of<'z>(service: &'z ServiceRecords, port: &ServicePort) -> &'z Name {
    let host = port.host.as_ref().and_then(|host| service.hosts.get(host));
    host.map_or(&service.name, |host| &host.name)
}

/// The addresses of every target of an SRV answer, each target once.
fn srv_addresses(node: &Node<'_>) -> Vec<Record> {
    let (service, ports): (_, Vec<&ServicePort>) = match node {
        Node::Service(service) => (*service, service.ports.iter().collect()),
        Node::Ports(service, ports) => (*service, ports.clone()),
        Node::Apex
        | Node::Version
        | Node::NameServer
        | Node::Between
        | Node::Host(_)
        | Node::Address(_) => {
            return Vec::new();
        }
    };
    let hosts: BTreeSet<Option<&str>> = ports.iter().map(|port| port.host.as_deref()).collect();
    let mut found = Vec::new();
    for host in hosts {
        let (name, own) = match (
            host.and_then(|host| service.hosts.get(host)),
            &service.meaning,
        ) {
            (Some(host), _) => (&host.name, &host.addresses),
            (None, Meaning::Addresses { addresses, .. }) => (&service.name, addresses),
            (None, Meaning::Alias(_) | Meaning::Nothing) => continue,
        };
        found.extend(
            own.iter()
                .map(|address| record(name, address_data(*address))),
        );
    }
    found
}

fn addresses<'a>(own: impl IntoIterator<Item = &'a IpAddr>, rtype: RecordType) -> Vec<RData> {
    own.into_iter()
        .map(|address| address_data(*address))
        .filter(|data| data.record_type() == rtype)
        .collect()
}

fn address_data(address: IpAddr) -> RData {
    match address {
        IpAddr::V4(address) => RData::A(A(address)),
        IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    }
}

fn pointer(target: Name) -> RData {
    RData::PTR(PTR(target))
}

fn record(owner: &Name, data: RData) -> Record {
    Record::from_rdata(owner.clone(), TTL_SECONDS, data)
}

/// The labels of `name` left of `domain`, nearest to the domain first, in lower case. `None` where one is not text.
fn labels_below(name: &Name, domain: &Name) -> Option<Vec<String>> {
    let below = name.iter().count().checked_sub(domain.iter().count())?;
    let labels: Vec<&[u8]> = name.iter().take(below).collect();
    labels
        .into_iter()
        .rev()
        .map(|label| Some(std::str::from_utf8(label).ok()?.to_ascii_lowercase()))
        .collect()
}

#[cfg(test)]
mod tests;
