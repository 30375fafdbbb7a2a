//! Which addresses and node ports services get: the first free one after a place that the service's uid names.
//!
//! Nothing is stored: what is taken is read from the services themselves, so nothing can leak or go stale.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use serde_json::Value;

use super::read::{get, int, list, text, texts};
use super::{Cluster, Refusal};

/// The addresses that services may get: an IPv4 network without its first and last address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ServiceRange {
    network: u32,
    bits: u32,
}

impl Default for ServiceRange {
    /// `10.96.0.0/12`, kubeadm's own.
    fn default() -> Self {
        ServiceRange {
            network: u32::from(Ipv4Addr::new(10, 96, 0, 0)),
            bits: 12,
        }
    }
}

impl ServiceRange {
    /// Reads `A.B.C.D/bits`; nothing when it is no network of at least four addresses.
    pub(crate) fn parse(text: &str) -> Option<ServiceRange> {
        let (address, bits) = text.split_once('/')?;
        let bits: u32 = bits.parse().ok().filter(|bits| (1..=30).contains(bits))?;
        let address = u32::from(address.parse::<Ipv4Addr>().ok()?);
        Some(ServiceRange {
            network: address & (u32::MAX << (32 - bits)),
            bits,
        })
    }

    /// How many addresses there are to give.
    fn size(self) -> u32 {
        (u32::MAX >> self.bits) - 1
    }

    fn nth(self, index: u32) -> Ipv4Addr {
        Ipv4Addr::from(self.network + 1 + index % self.size())
    }

    /// Whether the address is one that may be given.
    pub(crate) fn holds(self, address: Ipv4Addr) -> bool {
        let offset = u32::from(address).wrapping_sub(self.network);
        (1..=self.size()).contains(&offset)
    }
}

const FIRST_NODE_PORT: u32 = 30_000;
const NODE_PORTS: u32 = 2_768;

/// The addresses that other services have.
pub(crate) fn taken_addresses(cluster: &dyn Cluster, own_uid: &str) -> BTreeSet<Ipv4Addr> {
    others(cluster, own_uid)
        .iter()
        .flat_map(|service| {
            texts(get(service, "spec"), "clusterIPs")
                .into_iter()
                .filter_map(|ip| ip.parse().ok())
                .collect::<Vec<_>>()
        })
        .collect()
}

/// A free address; the same for the same uid and the same neighbours.
pub(crate) fn free_address(
    range: ServiceRange,
    taken: &BTreeSet<Ipv4Addr>,
    uid: &str,
) -> Result<Ipv4Addr, Refusal> {
    let start = hash(uid);
    (0..range.size())
        .map(|step| range.nth(start.wrapping_add(step)))
        // upstream leaves the first addresses of a range to those who ask for them by name; the first is the API's own.
        .find(|address| !taken.contains(address) && *address != range.nth(0))
        .ok_or_else(|| Refusal::forbidden("failed to allocate a serviceIP: range is full"))
}

/// The node ports that other services have, by protocol.
pub(crate) fn taken_ports(cluster: &dyn Cluster, own_uid: &str) -> BTreeSet<(String, i64)> {
    others(cluster, own_uid).iter().flat_map(ports_of).collect()
}

/// The node ports of one service, by protocol.
pub(crate) fn ports_of(service: &Value) -> Vec<(String, i64)> {
    let spec = get(service, "spec");
    let number = |holder: &Value, field: &str| int(holder, field).filter(|number| *number != 0);
    let own = list(spec, "ports")
        .iter()
        .filter_map(|port| Some((text(port, "protocol").to_owned(), number(port, "nodePort")?)));
    own.chain(number(spec, "healthCheckNodePort").map(|number| ("TCP".to_owned(), number)))
        .collect()
}

/// A free node port.
pub(crate) fn free_port(
    taken: &BTreeSet<(String, i64)>,
    protocol: &str,
    uid: &str,
) -> Result<i64, Refusal> {
    let start = hash(uid);
    (0..NODE_PORTS)
        .map(|step| i64::from(FIRST_NODE_PORT + start.wrapping_add(step) % NODE_PORTS))
        .find(|number| !taken.contains(&(protocol.to_owned(), *number)))
        .ok_or_else(|| Refusal::forbidden("failed to allocate a nodePort: range is full"))
}

/// Whether a node port lies where node ports lie.
pub(crate) fn is_node_port(number: i64) -> bool {
    (i64::from(FIRST_NODE_PORT)..i64::from(FIRST_NODE_PORT + NODE_PORTS)).contains(&number)
}

fn others(cluster: &dyn Cluster, own_uid: &str) -> Vec<Value> {
    let mut services = cluster.list("", "services", "");
    services.retain(|service| text(get(service, "metadata"), "uid") != own_uid);
    services
}

/// FNV-1a: spreads uids, nothing more.
fn hash(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}
