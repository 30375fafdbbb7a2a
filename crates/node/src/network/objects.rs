//! Services, EndpointSlices, pods and NetworkPolicies as the packet filter sees them: parsed once, at the edge. Pure.
//!
//! What no rule can come from is dropped here: addresses of IPv6, ports out of range, Services without an address.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::api::networking::v1 as networking;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::ruleset::Protocol;

/// The label that ties a slice to its Service.
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
/// The label under which every namespace has its own name.
pub(crate) const NAMESPACE_LABEL: &str = "kubernetes.io/metadata.name";
/// upstream: DefaultClientIPServiceAffinitySeconds.
const AFFINITY_SECONDS: u32 = 10_800;

/// Labels of an object.
pub(crate) type Labels = BTreeMap<String, String>;

/// Namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    /// Empty for an object of no namespace.
    pub(crate) namespace: String,
    /// `metadata.name`.
    pub(crate) name: String,
}

impl Key {
    /// Whose these metadata are.
    pub(crate) fn of(metadata: &ObjectMeta) -> Self {
        Self {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { namespace, name } = self;
        write!(f, "{namespace}/{name}")
    }
}

/// A range of addresses, of any size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Block {
    /// Its first address.
    pub(crate) network: Ipv4Addr,
    /// 0 to 32.
    pub(crate) prefix: u8,
}

impl Block {
    /// Whether an address lies in it.
    pub(crate) fn holds(self, address: Ipv4Addr) -> bool {
        let mask = u32::MAX
            .checked_shl(32 - u32::from(self.prefix))
            .unwrap_or(0);
        u32::from(address) & mask == u32::from(self.network) & mask
    }
}

impl FromStr for Block {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (network, prefix) = text.split_once('/').ok_or(())?;
        let network: Ipv4Addr = network.parse().map_err(|_| ())?;
        let prefix: u8 = prefix.parse().map_err(|_| ())?;
        (prefix <= 32).then_some(Self { network, prefix }).ok_or(())
    }
}

/// A Service that has an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Service {
    /// Which.
    pub(crate) key: Key,
    /// `spec.clusterIP`; `None` for a headless one, which has no rules.
    pub(crate) cluster_ip: Option<Ipv4Addr>,
    /// `spec.externalIPs`.
    pub(crate) external: Vec<Ipv4Addr>,
    /// `status.loadBalancer.ingress[].ip`.
    pub(crate) balancer: Vec<Ipv4Addr>,
    /// `spec.loadBalancerSourceRanges`: who may come by those; empty for all.
    pub(crate) balancer_sources: Vec<Block>,
    /// `spec.ports`.
    pub(crate) ports: Vec<ServicePort>,
    /// How long a client stays with its endpoint; `None` for a Service without affinity.
    pub(crate) affinity_seconds: Option<u32>,
}

/// One port of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServicePort {
    /// Empty when unnamed.
    pub(crate) name: String,
    /// Its protocol.
    pub(crate) protocol: Protocol,
    /// `port`.
    pub(crate) port: u16,
    /// `nodePort`.
    pub(crate) node_port: Option<u16>,
}

/// An EndpointSlice of IPv4 addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Slice {
    /// Which.
    pub(crate) key: Key,
    /// The name of the Service that it belongs to.
    pub(crate) service: String,
    /// Ports of all endpoints: name, protocol, number.
    pub(crate) ports: Vec<(String, Protocol, u16)>,
    /// Its endpoints.
    pub(crate) endpoints: Vec<SliceEndpoint>,
}

/// One address of an EndpointSlice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SliceEndpoint {
    /// The address.
    pub(crate) address: Ipv4Addr,
    /// Takes new connections.
    pub(crate) ready: bool,
    /// Is on its way out, but answers yet.
    pub(crate) serving_to_its_end: bool,
}

/// A pod that has not finished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pod {
    /// Which.
    pub(crate) key: Key,
    /// `metadata.uid`.
    pub(crate) uid: String,
    /// Its labels.
    pub(crate) labels: Labels,
    /// Its own address; `None` while it has none, and when it uses the machine's network.
    pub(crate) address: Option<Ipv4Addr>,
    /// Whether it uses the machine's network: no policy is about it.
    pub(crate) host_network: bool,
    /// Its ports with names: name, protocol, number.
    pub(crate) named_ports: Vec<(String, Protocol, u16)>,
    /// Ports of the machine that lead to it.
    pub(crate) host_ports: Vec<HostPort>,
}

/// A port of the machine that leads to a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HostPort {
    /// Only this address of the machine; `None` for all.
    pub(crate) address: Option<Ipv4Addr>,
    /// Its protocol.
    pub(crate) protocol: Protocol,
    /// The machine's port.
    pub(crate) port: u16,
    /// The container's port.
    pub(crate) container_port: u16,
}

/// A NetworkPolicy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Policy {
    /// Which.
    pub(crate) key: Key,
    /// The pods of its namespace that it is about.
    pub(crate) pods: Selector,
    /// Who may come in; `None` when it says nothing of that.
    pub(crate) ingress: Option<Vec<PolicyRule>>,
    /// Where they may go; `None` when it says nothing of that.
    pub(crate) egress: Option<Vec<PolicyRule>>,
}

/// What a policy allows: these peers at these ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PolicyRule {
    /// `None` for everybody.
    pub(crate) peers: Option<Vec<Peer>>,
    /// `None` for every port and protocol.
    pub(crate) ports: Option<Vec<PolicyPort>>,
}

/// The other side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Peer {
    /// Addresses but for some.
    Block {
        /// These.
        block: Block,
        /// But not these.
        except: Vec<Block>,
    },
    /// Pods.
    Pods {
        /// Of the namespaces with these labels; `None` for the policy's own.
        namespaces: Option<Selector>,
        /// With these labels; `None` for all.
        pods: Option<Selector>,
    },
}

/// A port of a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PolicyPort {
    /// Every port of the protocol.
    Every(Protocol),
    /// From the first to the second, both included.
    Numbers(Protocol, u16, u16),
    /// The port that the answering pod calls so.
    Named(Protocol, String),
}

/// A choice by labels; the empty one chooses all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Selector(Vec<Requirement>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    DoesNotExist(String),
    /// An operator that we do not know: matches nothing.
    Unknown,
}

impl Selector {
    /// Reads a selector of the API.
    pub(crate) fn parse(selector: &LabelSelector) -> Self {
        let equal = selector.match_labels.iter().flatten();
        let equal = equal.map(|(label, value)| Requirement::In(label.clone(), vec![value.clone()]));
        let expressions = selector.match_expressions.iter().flatten().map(|one| {
            let (key, values) = (one.key.clone(), one.values.clone().unwrap_or_default());
            match one.operator.as_str() {
                "In" => Requirement::In(key, values),
                "NotIn" => Requirement::NotIn(key, values),
                "Exists" => Requirement::Exists(key),
                "DoesNotExist" => Requirement::DoesNotExist(key),
                _ => Requirement::Unknown,
            }
        });
        Self(equal.chain(expressions).collect())
    }

    /// Whether labels are chosen.
    pub(crate) fn chooses(&self, labels: &Labels) -> bool {
        self.0.iter().all(|requirement| match requirement {
            Requirement::In(key, values) => {
                labels.get(key).is_some_and(|value| values.contains(value))
            }
            Requirement::NotIn(key, values) => {
                labels.get(key).is_none_or(|value| !values.contains(value))
            }
            Requirement::Exists(key) => labels.contains_key(key),
            Requirement::DoesNotExist(key) => !labels.contains_key(key),
            Requirement::Unknown => false,
        })
    }
}

impl Service {
    /// Reads a Service of the API.
    pub(crate) fn parse(object: &core::Service) -> Self {
        let spec = object.spec.clone().unwrap_or_default();
        let is_alias = spec.type_.as_deref() == Some("ExternalName");
        let balancer = object
            .status
            .as_ref()
            .and_then(|own| own.load_balancer.as_ref());
        let ingress = balancer
            .and_then(|own| own.ingress.as_ref())
            .into_iter()
            .flatten();
        let affinity = || {
            let config = spec.session_affinity_config.as_ref()?.client_ip.as_ref()?;
            config
                .timeout_seconds
                .and_then(|own| u32::try_from(own).ok())
        };
        Self {
            key: Key::of(&object.metadata),
            cluster_ip: addresses(spec.cluster_ip.iter().filter(|_| !is_alias)).next(),
            external: addresses(spec.external_ips.iter().flatten()).collect(),
            balancer: addresses(ingress.filter_map(|own| own.ip.as_ref())).collect(),
            balancer_sources: spec
                .load_balancer_source_ranges
                .iter()
                .flatten()
                .filter_map(|text| text.trim().parse().ok())
                .collect(),
            ports: spec
                .ports
                .iter()
                .flatten()
                .filter_map(service_port)
                .collect(),
            affinity_seconds: (spec.session_affinity.as_deref() == Some("ClientIP"))
                .then(|| affinity().unwrap_or(AFFINITY_SECONDS)),
        }
    }
}

fn addresses<'a>(texts: impl Iterator<Item = &'a String>) -> impl Iterator<Item = Ipv4Addr> {
    texts.filter_map(|text| text.parse().ok())
}

fn service_port(port: &core::ServicePort) -> Option<ServicePort> {
    Some(ServicePort {
        name: port.name.clone().unwrap_or_default(),
        protocol: protocol(port.protocol.as_ref())?,
        port: number(port.port)?,
        node_port: port.node_port.and_then(number),
    })
}

fn protocol(word: Option<&String>) -> Option<Protocol> {
    Protocol::parse(word.map_or("TCP", String::as_str))
}

fn number(number: i32) -> Option<u16> {
    u16::try_from(number).ok().filter(|number| *number > 0)
}

impl Slice {
    /// Reads an EndpointSlice of the API.
    pub(crate) fn parse(object: &discovery::EndpointSlice) -> Self {
        let labels = object.metadata.labels.as_ref();
        let ports = object.ports.iter().flatten().filter_map(|port| {
            let name = port.name.clone().unwrap_or_default();
            Some((
                name,
                protocol(port.protocol.as_ref())?,
                port.port.and_then(number)?,
            ))
        });
        Self {
            key: Key::of(&object.metadata),
            service: labels
                .and_then(|labels| labels.get(SERVICE_NAME_LABEL))
                .cloned()
                .unwrap_or_default(),
            ports: ports.collect(),
            endpoints: object
                .endpoints
                .iter()
                .flatten()
                .filter_map(slice_endpoint)
                .collect(),
        }
    }
}

/// The addresses of one endpoint are one endpoint's: upstream uses the first.
fn slice_endpoint(endpoint: &discovery::Endpoint) -> Option<SliceEndpoint> {
    let conditions = endpoint.conditions.clone().unwrap_or_default();
    // Unknown counts as ready, as the API says of the field, and as serving when it is ready.
    let ready = conditions.ready.unwrap_or(true);
    let serving = conditions.serving.unwrap_or(ready);
    Some(SliceEndpoint {
        address: addresses(endpoint.addresses.iter().take(1)).next()?,
        ready,
        serving_to_its_end: serving && conditions.terminating.unwrap_or(false),
    })
}

impl Pod {
    /// Reads a pod of the API; `None` for one that has finished, whose address may be another's.
    pub(crate) fn parse(object: &core::Pod) -> Option<Self> {
        let spec = object.spec.as_ref()?;
        let status = object.status.clone().unwrap_or_default();
        if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
            return None;
        }
        let host_network = spec.host_network.unwrap_or(false);
        let address = addresses(status.pod_ip.iter()).next();
        let containers = spec
            .containers
            .iter()
            .chain(spec.init_containers.iter().flatten());
        let ports: Vec<&core::ContainerPort> = containers
            .flat_map(|own| own.ports.iter().flatten())
            .collect();
        Some(Self {
            key: Key::of(&object.metadata),
            uid: object.metadata.uid.clone().unwrap_or_default(),
            labels: object.metadata.labels.clone().unwrap_or_default(),
            address: address.filter(|_| !host_network),
            host_network,
            named_ports: ports.iter().filter_map(|port| named_port(port)).collect(),
            host_ports: ports
                .iter()
                .filter(|_| !host_network)
                .filter_map(|port| host_port(port))
                .collect(),
        })
    }
}

fn named_port(port: &core::ContainerPort) -> Option<(String, Protocol, u16)> {
    let name = port.name.clone().filter(|name| !name.is_empty())?;
    Some((
        name,
        protocol(port.protocol.as_ref())?,
        number(port.container_port)?,
    ))
}

fn host_port(port: &core::ContainerPort) -> Option<HostPort> {
    let any = |text: &&String| !text.is_empty() && text.as_str() != "0.0.0.0";
    let address = match port.host_ip.as_ref().filter(any) {
        Some(text) => Some(text.parse().ok()?),
        None => None,
    };
    Some(HostPort {
        address,
        protocol: protocol(port.protocol.as_ref())?,
        port: port.host_port.and_then(number)?,
        container_port: number(port.container_port)?,
    })
}

/// The labels of a namespace, its own name among them.
pub(crate) fn namespace_labels(object: &core::Namespace) -> Labels {
    let mut labels = object.metadata.labels.clone().unwrap_or_default();
    let name = object.metadata.name.clone().unwrap_or_default();
    labels.entry(NAMESPACE_LABEL.to_owned()).or_insert(name);
    labels
}

impl Policy {
    /// Reads a NetworkPolicy of the API.
    pub(crate) fn parse(object: &networking::NetworkPolicy) -> Self {
        let spec = object.spec.clone().unwrap_or_default();
        let types = spec.policy_types.unwrap_or_default();
        let says = |kind: &str| types.iter().any(|own| own == kind);
        let egress = spec.egress.unwrap_or_default();
        // upstream: without types a policy is about ingress, and about egress when it has a rule for it.
        let of_ingress = types.is_empty() || says("Ingress");
        let of_egress = if types.is_empty() {
            !egress.is_empty()
        } else {
            says("Egress")
        };
        let incoming = spec.ingress.unwrap_or_default();
        let incoming = incoming
            .iter()
            .map(|rule| policy_rule(rule.from.as_ref(), rule.ports.as_ref()));
        let outgoing = egress
            .iter()
            .map(|rule| policy_rule(rule.to.as_ref(), rule.ports.as_ref()));
        Self {
            key: Key::of(&object.metadata),
            pods: spec
                .pod_selector
                .as_ref()
                .map(Selector::parse)
                .unwrap_or_default(),
            ingress: of_ingress.then(|| incoming.collect()),
            egress: of_egress.then(|| outgoing.collect()),
        }
    }
}

/// An empty list is as good as none: everybody, every port.
fn policy_rule(
    peers: Option<&Vec<networking::NetworkPolicyPeer>>,
    ports: Option<&Vec<networking::NetworkPolicyPort>>,
) -> PolicyRule {
    let peers = peers.filter(|list| !list.is_empty());
    let ports = ports.filter(|list| !list.is_empty());
    PolicyRule {
        peers: peers.map(|list| list.iter().filter_map(peer).collect()),
        ports: ports.map(|list| list.iter().filter_map(policy_port).collect()),
    }
}

fn peer(peer: &networking::NetworkPolicyPeer) -> Option<Peer> {
    if let Some(own) = &peer.ip_block {
        let except = own.except.iter().flatten();
        return Some(Peer::Block {
            block: own.cidr.parse().ok()?,
            except: except.filter_map(|text| text.parse().ok()).collect(),
        });
    }
    let namespaces = peer.namespace_selector.as_ref().map(Selector::parse);
    let pods = peer.pod_selector.as_ref().map(Selector::parse);
    (namespaces.is_some() || pods.is_some()).then_some(Peer::Pods { namespaces, pods })
}

fn policy_port(port: &networking::NetworkPolicyPort) -> Option<PolicyPort> {
    let protocol = protocol(port.protocol.as_ref())?;
    Some(match &port.port {
        None => PolicyPort::Every(protocol),
        Some(IntOrString::Int(first)) => {
            let first = number(*first)?;
            let last = port.end_port.and_then(number).unwrap_or(first);
            PolicyPort::Numbers(protocol, first, last)
        }
        Some(IntOrString::String(name)) => PolicyPort::Named(protocol, name.clone()),
    })
}
