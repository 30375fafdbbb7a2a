//! Services and EndpointSlices as DNS sees them: parsed once, at the edge; what no name can come from is dropped here.

use std::net::IpAddr;

use hickory_proto::rr::Name;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;

/// The label that ties a slice to its Service.
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// What a name of a Service can lead to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shape {
    /// Its cluster IPs; none as long as none is allocated.
    Cluster(Vec<IpAddr>),
    /// Its endpoints.
    Headless,
    /// `spec.externalName`, fully qualified.
    External(Name),
    /// `spec.externalName` is not a host name: an alias cannot point there. upstream: CoreDNS answers NXDOMAIN.
    Nowhere,
}

/// A named or unnamed port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    /// Lower case; empty when unnamed.
    pub name: String,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    /// 1 to 65535.
    pub number: u16,
}

/// A Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// Where its name leads.
    pub shape: Shape,
    /// `spec.ports`.
    pub ports: Vec<Port>,
}

/// One endpoint of a slice.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// Its addresses; none when the slice's are host names.
    pub addresses: Vec<IpAddr>,
    /// Set for pods whose `spec.subdomain` is the Service.
    pub hostname: Option<String>,
}

/// An EndpointSlice: only its ready endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// The Service that it belongs to; `None` for a slice of somebody else's.
    pub service: Option<String>,
    /// Endpoints whose condition `ready` is true or unknown. `publishNotReadyAddresses` is in that condition already.
    pub endpoints: Vec<Endpoint>,
    /// Ports of all of its endpoints.
    pub ports: Vec<Port>,
}

impl Service {
    /// Reads a Service of the API.
    #[must_use]
    pub fn parse(object: &core::Service) -> Self {
        let spec = object.spec.clone().unwrap_or_default();
        Self {
            namespace: object.metadata.namespace.clone().unwrap_or_default(),
            name: object.metadata.name.clone().unwrap_or_default(),
            shape: shape(&spec),
            ports: spec
                .ports
                .iter()
                .flatten()
                .filter_map(service_port)
                .collect(),
        }
    }
}

fn shape(spec: &core::ServiceSpec) -> Shape {
    if spec.type_.as_deref() == Some("ExternalName") {
        return spec
            .external_name
            .as_deref()
            .and_then(external)
            .map_or(Shape::Nowhere, Shape::External);
    }
    let one = spec.cluster_ip.iter();
    let all: Vec<&String> = spec
        .cluster_ips
        .as_ref()
        .filter(|all| !all.is_empty())
        .map_or(one.collect(), |all| all.iter().collect());
    if all.iter().any(|address| *address == "None") {
        return Shape::Headless;
    }
    Shape::Cluster(
        all.iter()
            .filter_map(|address| address.parse().ok())
            .collect(),
    )
}

/// A host name, fully qualified. An address is none.
fn external(text: &str) -> Option<Name> {
    if text.is_empty() || text.parse::<IpAddr>().is_ok() {
        return None;
    }
    let mut name = Name::from_ascii(text).ok()?;
    name.set_fqdn(true);
    (!name.is_root()).then_some(name)
}

fn service_port(port: &core::ServicePort) -> Option<Port> {
    port_of(port.name.as_deref(), port.protocol.as_deref(), port.port)
}

fn port_of(name: Option<&str>, protocol: Option<&str>, number: i32) -> Option<Port> {
    Some(Port {
        name: name.unwrap_or_default().to_ascii_lowercase(),
        protocol: protocol.unwrap_or("TCP").to_ascii_lowercase(),
        number: u16::try_from(number).ok().filter(|number| *number > 0)?,
    })
}

impl Slice {
    /// Reads an EndpointSlice of the API.
    #[must_use]
    pub fn parse(object: &discovery::EndpointSlice) -> Self {
        let labels = object.metadata.labels.as_ref();
        Self {
            namespace: object.metadata.namespace.clone().unwrap_or_default(),
            name: object.metadata.name.clone().unwrap_or_default(),
            service: labels
                .and_then(|labels| labels.get(SERVICE_NAME_LABEL))
                .filter(|name| !name.is_empty())
                .cloned(),
            endpoints: object
                .endpoints
                .iter()
                .flatten()
                .filter(|endpoint| is_ready(endpoint))
                .map(endpoint)
                .collect(),
            ports: object
                .ports
                .iter()
                .flatten()
                .filter_map(slice_port)
                .collect(),
        }
    }
}

/// Unknown counts as ready, as the API says of the field.
fn is_ready(endpoint: &discovery::Endpoint) -> bool {
    endpoint
        .conditions
        .as_ref()
        .and_then(|conditions| conditions.ready)
        .unwrap_or(true)
}

fn endpoint(endpoint: &discovery::Endpoint) -> Endpoint {
    Endpoint {
        addresses: endpoint
            .addresses
            .iter()
            .filter_map(|address| address.parse().ok())
            .collect(),
        hostname: endpoint
            .hostname
            .clone()
            .filter(|hostname| !hostname.is_empty()),
    }
}

fn slice_port(port: &discovery::EndpointPort) -> Option<Port> {
    port_of(port.name.as_deref(), port.protocol.as_deref(), port.port?)
}
