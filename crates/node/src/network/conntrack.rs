//! Forgets connections over UDP that lead to endpoints which no longer answer: their clients go on with another.
//!
//! The packet filter chooses an endpoint for the first packet of a connection only, and to the kernel a connection over UDP
//! lasts for as long as its client keeps asking. TCP needs none of this: a connection ends with its endpoint.
//! upstream: kube-proxy's conntrack cleanup, for UDP alone as well.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv4Addr;

use super::netlink::{Message, Netlink, address, find};
use super::objects::Block;
use super::ruleset::{Atom, Endpoint, Holds, Protocol, Ruleset, Statement};

const GET: u16 = 1 << 8 | 1;
const DELETE: u16 = 1 << 8 | 2;
const IPV4: u8 = 2;
/// The fixed part of a message of this subsystem.
const HEADER: usize = 4;
const TUPLE: u16 = 1;
const REPLY_TUPLE: u16 = 2;
const ID: u16 = 12;

/// Where connections over UDP come in (address, where only one counts, and port), and who answers there.
pub(super) type Doors = BTreeMap<(Option<Ipv4Addr>, u16), BTreeSet<Endpoint>>;

/// A connection over UDP that was redirected, as the kernel knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Connection {
    client: Ipv4Addr,
    /// Where the client thinks that it speaks to.
    door: Endpoint,
    /// Who answers.
    answered_by: Endpoint,
    /// What identifies it, as the kernel told it.
    tuple: Vec<u8>,
    id: Option<Vec<u8>>,
}

/// Who answers over UDP, and where, by a ruleset.
pub(super) fn doors(ruleset: &Ruleset) -> Doors {
    let mut doors = Doors::new();
    for name in ["services", "exposed", "ports"] {
        let Some(Holds::Verdicts(map)) = ruleset.sets.get(name).map(|set| &set.holds) else {
            continue;
        };
        for (key, chain) in map {
            let door = match key.as_slice() {
                [
                    Atom::Address(at),
                    Atom::Protocol(Protocol::Udp),
                    Atom::Port(port),
                ] => (Some(*at), *port),
                [Atom::Protocol(Protocol::Udp), Atom::Port(port)] => (None, *port),
                _ => continue,
            };
            let answers = doors.entry(door).or_default();
            add_answers(ruleset, chain, answers);
        }
    }
    doors
}

fn add_answers(ruleset: &Ruleset, chain: &str, answers: &mut BTreeSet<Endpoint>) {
    let rules = ruleset.chains.iter().filter(|own| own.name == chain);
    for statement in rules.flat_map(|own| &own.rules).flat_map(|rule| &rule.then) {
        match statement {
            Statement::AnswerBy(to) => {
                answers.insert(*to);
            }
            Statement::Goto(next) => add_answers(ruleset, next, answers),
            Statement::AnswerOneOf(map, _) | Statement::GotoOneOf(map, _) => {
                match ruleset.sets.get(map).map(|set| &set.holds) {
                    Some(Holds::Endpoints(map)) => answers.extend(map.values()),
                    Some(Holds::Verdicts(map)) => {
                        for next in map.values() {
                            add_answers(ruleset, next, answers);
                        }
                    }
                    Some(Holds::Keys(_) | Holds::Remembered { .. }) | None => {}
                }
            }
            Statement::Drop
            | Statement::Return
            | Statement::Jump(_)
            | Statement::GotoFrom(..)
            | Statement::ResetTcp
            | Statement::RefusePort
            | Statement::Masquerade
            | Statement::Remember(..) => {}
        }
    }
}

/// Forgets what is over: connections by a door that was or is ours to somebody who does not answer there.
pub(super) fn forget(netlink: &Netlink, pods: Block, old: &Doors, new: &Doors) -> io::Result<()> {
    let known = connections(netlink)?;
    for connection in known.iter().filter(|own| is_over(own, pods, old, new)) {
        delete(netlink, connection)?;
    }
    Ok(())
}

fn is_over(connection: &Connection, pods: Block, old: &Doors, new: &Doors) -> bool {
    let Connection {
        client,
        door,
        answered_by,
        ..
    } = connection;
    // Another cluster of this machine may have the same doors.
    if !pods.holds(*client) && !pods.holds(answered_by.address) {
        return false;
    }
    let doors = [(Some(door.address), door.port), (None, door.port)];
    let answers =
        |doors: &Doors, door| doors.get(door).is_some_and(|own| own.contains(answered_by));
    let was = doors.iter().any(|door| answers(old, door));
    let is = doors.iter().any(|door| answers(new, door));
    was && !is
}

fn connections(netlink: &Netlink) -> io::Result<Vec<Connection>> {
    let answers = netlink.dump(GET, &header())?;
    let own = answers
        .iter()
        .filter_map(|answer| read(answer.get(HEADER..)?));
    Ok(own.collect())
}

fn read(body: &[u8]) -> Option<Connection> {
    let tuple = find(body, TUPLE)?;
    let reply = find(body, REPLY_TUPLE)?;
    let (client, door) = (source(tuple)?.address, destination(tuple)?);
    let answered_by = source(reply)?;
    let protocol = find(find(tuple, 2)?, 1)?.first().copied()?;
    (protocol == Protocol::Udp.number() && door != answered_by).then(|| Connection {
        client,
        door,
        answered_by,
        tuple: tuple.to_vec(),
        id: find(body, ID).map(<[u8]>::to_vec),
    })
}

fn source(tuple: &[u8]) -> Option<Endpoint> {
    end(tuple, 1, 2)
}

fn destination(tuple: &[u8]) -> Option<Endpoint> {
    end(tuple, 2, 3)
}

fn end(tuple: &[u8], of_address: u16, of_port: u16) -> Option<Endpoint> {
    let port = find(find(tuple, 2)?, of_port)?;
    Some(Endpoint {
        address: address(find(find(tuple, 1)?, of_address)?)?,
        port: u16::from_be_bytes(port.try_into().ok()?),
    })
}

fn delete(netlink: &Netlink, connection: &Connection) -> io::Result<()> {
    let mut message = header();
    message.nest(TUPLE, |tuple| tuple.raw(&connection.tuple));
    if let Some(id) = &connection.id {
        message.attribute(ID, id);
    }
    match netlink.change(DELETE, 0, &message) {
        // It ended by itself meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn header() -> Message {
    let mut message = Message::default();
    message.raw(&[IPV4, 0, 0, 0]);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(text: &str) -> Endpoint {
        let (address, port) = text.split_once(':').expect("a port");
        Endpoint {
            address: address.parse().expect("an address"),
            port: port.parse().expect("a port"),
        }
    }

    fn check(client: &str, door: &str, answered_by: &str) -> bool {
        let doors = |answers: &str| {
            let answers: BTreeSet<_> = answers.split(' ').map(to).collect();
            let service = (Some(Ipv4Addr::new(10, 96, 0, 10)), 53);
            Doors::from([(service, answers.clone()), ((None, 30053), answers)])
        };
        let connection = Connection {
            client: client.parse().expect("an address"),
            door: to(door),
            answered_by: to(answered_by),
            tuple: Vec::new(),
            id: None,
        };
        let pods = "10.7.0.0/24".parse().expect("a range");
        let (old, new) = (doors("10.7.0.2:53 10.7.0.3:53"), doors("10.7.0.3:53"));
        is_over(&connection, pods, &old, &new)
    }

    #[test]
    fn only_our_own_connections_to_endpoints_that_are_gone_are_over() {
        assert!(check("10.7.0.9", "10.96.0.10:53", "10.7.0.2:53"));
        assert!(check("192.0.2.1", "192.0.2.2:30053", "10.7.0.2:53"));
        // It answers yet.
        assert!(!check("10.7.0.9", "10.96.0.10:53", "10.7.0.3:53"));
        // Another Service's, another cluster's, and one that we never redirected.
        assert!(!check("10.7.0.9", "10.96.0.11:53", "10.7.0.2:53"));
        assert!(!check("10.8.0.9", "10.96.0.10:53", "10.8.0.2:53"));
        assert!(!check("10.7.0.9", "10.7.0.2:53", "10.7.0.2:53"));
    }
}
