//! The rules of Services: which addresses and ports lead to which endpoints, and which to none. Pure.
//!
//! upstream: kube-proxy's proxier for nftables, on the one node that there is: every policy of traffic that prefers
//! endpoints of the own node is met by all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use super::super::objects::{Key, Pod, Service, ServicePort, Slice};
use super::super::ruleset::{Atom, Endpoint, Field, Holds, Kind, Match, Protocol, Rule, Statement};
use super::{Draft, World, within};

/// Where connections come in, and which chain goes on with them.
#[derive(Default)]
struct Doors {
    /// Cluster IPs.
    services: BTreeMap<Vec<Atom>, String>,
    /// Addresses that others than pods may use too.
    exposed: BTreeMap<Vec<Atom>, String>,
    /// Ports of the machine, at each of its addresses.
    ports: BTreeMap<Vec<Atom>, String>,
    /// Like `exposed`, where nobody answers.
    refused: BTreeSet<Vec<Atom>>,
    /// Like `ports`, where nobody answers.
    refused_ports: BTreeSet<Vec<Atom>>,
    /// Endpoints that are neither pods nor the machine.
    elsewhere: BTreeSet<Vec<Atom>>,
}

/// Adds the rules of all Services and of all host ports.
pub(super) fn add(draft: &mut Draft<'_>, world: &World) {
    let mut doors = Doors::default();
    let slices = by_service(world);
    for service in world.services.values() {
        let own = slices
            .get(&service.key)
            .map(Vec::as_slice)
            .unwrap_or_default();
        for port in &service.ports {
            let endpoints = endpoints(draft, service, port, own);
            add_port(draft, &mut doors, service, port, &endpoints);
        }
    }
    for pod in world.pods.values() {
        add_host_ports(draft, &mut doors, pod);
    }
    add_doors(draft, doors);
    let itself = world.pods.values().filter_map(|pod| pod.address);
    let itself: BTreeSet<Ipv4Addr> = itself.collect();
    let twice = |address: &Ipv4Addr| vec![Atom::Address(*address); 2];
    draft.set(
        "itself",
        &[Kind::Address; 2],
        Holds::Keys(itself.iter().map(twice).collect()),
    );
}

fn by_service(world: &World) -> BTreeMap<Key, Vec<&Slice>> {
    let mut found: BTreeMap<Key, Vec<&Slice>> = BTreeMap::new();
    for slice in world
        .slices
        .values()
        .filter(|slice| !slice.service.is_empty())
    {
        let key = Key {
            namespace: slice.key.namespace.clone(),
            name: slice.service.clone(),
        };
        found.entry(key).or_default().push(slice);
    }
    found
}

/// Who answers at one port: those that are ready, or, when there is none, those that serve to their end.
pub(super) fn endpoints(
    draft: &Draft<'_>,
    service: &Service,
    port: &ServicePort,
    slices: &[&Slice],
) -> Vec<Endpoint> {
    let mut ready = BTreeSet::new();
    let mut serving = BTreeSet::new();
    for slice in slices {
        let wanted = |(name, protocol, _): &&(String, Protocol, u16)| {
            *name == port.name && *protocol == port.protocol
        };
        for (_, _, number) in slice.ports.iter().filter(wanted) {
            for endpoint in &slice.endpoints {
                let to = Endpoint {
                    address: reachable(draft, service, endpoint.address),
                    port: *number,
                };
                if endpoint.ready {
                    ready.insert(to);
                } else if endpoint.serving_to_its_end {
                    serving.insert(to);
                }
            }
        }
    }
    let chosen = if ready.is_empty() { serving } else { ready };
    chosen.into_iter().collect()
}

/// A loopback address is the machine's: pods meet the machine at the gateway, and there only what listens on every
/// address answers. The API alone is reached on the loopback itself.
fn reachable(draft: &Draft<'_>, service: &Service, address: Ipv4Addr) -> Ipv4Addr {
    let is_api = service.key.namespace == "default" && service.key.name == "kubernetes";
    if address.is_loopback() && !is_api {
        draft.machine.gateway
    } else {
        address
    }
}

fn add_port(
    draft: &mut Draft<'_>,
    doors: &mut Doors,
    service: &Service,
    port: &ServicePort,
    endpoints: &[Endpoint],
) {
    let key = |address: &Ipv4Addr| service_key(*address, port.protocol, port.port);
    let shown = service.external.iter().chain(&service.balancer);
    let machine = port.node_port.map(|number| port_key(port.protocol, number));
    let Some(cluster_ip) = service.cluster_ip else {
        return;
    };
    if endpoints.is_empty() {
        // The cluster IP is refused with all of its range.
        doors.refused.extend(shown.map(key));
        doors.refused_ports.extend(machine);
        return;
    }
    let name = port_name(service, port);
    let chain = format!("service/{name}");
    add_answer(draft, service, &name, endpoints);
    doors.services.insert(key(&cluster_ip), chain.clone());
    let external = service.external.iter().map(key);
    doors
        .exposed
        .extend(external.map(|key| (key, chain.clone())));
    doors.ports.extend(machine.map(|key| (key, chain.clone())));
    let by_balancer = guard_balancer(draft, service, &name, &chain);
    let balancer = service.balancer.iter().map(key);
    doors
        .exposed
        .extend(balancer.map(|key| (key, by_balancer.clone())));
    let foreign = endpoints.iter().filter(|to| is_elsewhere(draft, **to));
    let foreign = foreign.map(|to| service_key(to.address, port.protocol, to.port));
    doors.elsewhere.extend(foreign);
}

fn is_elsewhere(draft: &Draft<'_>, to: Endpoint) -> bool {
    let own = draft.machine.pods.holds(to.address);
    !own && !to.address.is_loopback()
}

/// `default/web/tcp/http`: what the chains and sets of a port are named by.
fn port_name(service: &Service, port: &ServicePort) -> String {
    let ServicePort {
        name,
        protocol,
        port,
        ..
    } = port;
    let port = if name.is_empty() {
        port.to_string()
    } else {
        name.clone()
    };
    format!("{}/{protocol}/{port}", service.key)
}

/// The chain that chooses who answers.
fn add_answer(draft: &mut Draft<'_>, service: &Service, name: &str, endpoints: &[Endpoint]) {
    let chain = format!("service/{name}");
    match (service.affinity_seconds, endpoints) {
        (None, [only]) => {
            draft.chain(chain, vec![Rule::new([], [Statement::AnswerBy(*only)])]);
        }
        (None, several) => {
            let map = format!("endpoints/{name}");
            let choice = Statement::AnswerOneOf(map.clone(), count(several));
            let numbered = (0..).map(|number| vec![Atom::Number(number)]);
            let holds = Holds::Endpoints(numbered.zip(several.iter().copied()).collect());
            draft.set(map, &[Kind::Number], holds);
            draft.chain(chain, vec![Rule::new([], [choice])]);
        }
        (Some(seconds), several) => add_faithful(draft, name, several, seconds),
    }
}

/// Each client stays with its endpoint until it has made no new connection for so long.
fn add_faithful(draft: &mut Draft<'_>, name: &str, endpoints: &[Endpoint], seconds: u32) {
    let mut rules = Vec::new();
    let mut choices = BTreeMap::new();
    for (number, to) in (0..).zip(endpoints) {
        let of_this = format!("{name}/{}/{}", to.address, to.port);
        let (clients, chain) = (format!("clients/{of_this}"), format!("endpoint/{of_this}"));
        rules.push(Rule::new(
            [Match::In(vec![Field::Source], clients.clone())],
            [Statement::Goto(chain.clone())],
        ));
        choices.insert(vec![Atom::Number(number)], chain.clone());
        let remember = Statement::Remember(clients.clone(), seconds);
        let timeout_seconds = seconds;
        draft.set(
            clients,
            &[Kind::Address],
            Holds::Remembered { timeout_seconds },
        );
        draft.chain(
            chain,
            vec![Rule::new([], [remember, Statement::AnswerBy(*to)])],
        );
    }
    let map = format!("endpoints/{name}");
    rules.push(Rule::new(
        [],
        [Statement::GotoOneOf(map.clone(), count(endpoints))],
    ));
    draft.set(map, &[Kind::Number], Holds::Verdicts(choices));
    draft.chain(format!("service/{name}"), rules);
}

fn count(endpoints: &[Endpoint]) -> u32 {
    u32::try_from(endpoints.len()).unwrap_or(u32::MAX)
}

/// The chain that lets through who may come by the load balancer's address; the Service's own when all may.
fn guard_balancer(draft: &mut Draft<'_>, service: &Service, name: &str, chain: &str) -> String {
    if service.balancer.is_empty() || service.balancer_sources.is_empty() {
        return chain.to_owned();
    }
    let goto = |block| {
        Rule::new(
            [within(Field::Source, block)],
            [Statement::Goto(chain.to_owned())],
        )
    };
    let mut rules: Vec<Rule> = service.balancer_sources.iter().copied().map(goto).collect();
    rules.push(Rule::new([], [Statement::Drop]));
    let guard = format!("balancer/{name}");
    draft.chain(guard.clone(), rules);
    guard
}

fn add_host_ports(draft: &mut Draft<'_>, doors: &mut Doors, pod: &Pod) {
    let Some(address) = pod.address else {
        return;
    };
    for own in &pod.host_ports {
        let shown = own
            .address
            .map_or("any".to_owned(), |address| address.to_string());
        let chain = format!("hostport/{}/{}/{shown}/{}", pod.key, own.protocol, own.port);
        let (map, key) = match own.address {
            Some(at) => (&mut doors.exposed, service_key(at, own.protocol, own.port)),
            None => (&mut doors.ports, port_key(own.protocol, own.port)),
        };
        // What is there came first: a Service, or a pod that had the port before.
        if map.contains_key(&key) {
            continue;
        }
        map.insert(key, chain.clone());
        let to = Endpoint {
            address,
            port: own.container_port,
        };
        draft.chain(chain, vec![Rule::new([], [Statement::AnswerBy(to)])]);
    }
}

fn add_doors(draft: &mut Draft<'_>, doors: Doors) {
    let Doors {
        services,
        exposed,
        ports,
        mut refused,
        mut refused_ports,
        elsewhere,
    } = doors;
    // Another may answer where one does not.
    refused.retain(|key| !exposed.contains_key(key));
    refused_ports.retain(|key| !ports.contains_key(key));
    let service = [Kind::Address, Kind::Protocol, Kind::Port];
    let port = [Kind::Protocol, Kind::Port];
    let keys = |keys: BTreeSet<Vec<Atom>>| Holds::Keys(keys.into_iter().collect());
    draft.set("services", &service, Holds::Verdicts(services));
    draft.set("exposed", &service, Holds::Verdicts(exposed));
    draft.set("ports", &port, Holds::Verdicts(ports));
    draft.set("refused", &service, keys(refused));
    draft.set("refused-ports", &port, keys(refused_ports));
    draft.set("elsewhere", &service, keys(elsewhere));
}

fn service_key(address: Ipv4Addr, protocol: Protocol, port: u16) -> Vec<Atom> {
    vec![
        Atom::Address(address),
        Atom::Protocol(protocol),
        Atom::Port(port),
    ]
}

fn port_key(protocol: Protocol, port: u16) -> Vec<Atom> {
    vec![Atom::Protocol(protocol), Atom::Port(port)]
}
