//! Takes connections through a ruleset as the kernel would: who answers, as whom the client is seen, or how it fails.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use super::super::Machine;
use crate::network::ruleset::{
    Atom, Endpoint, Field, Holds, Hook, Match, Protocol, Rule, Ruleset, State, Statement, Way,
};

/// The machine's address in its own network.
pub(super) const OWN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const LOCAL: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// No Service of these tests has more endpoints.
const PICKS: u32 = 12;

/// Where a connection begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum From {
    Pod(Ipv4Addr),
    Machine(Ipv4Addr),
    World(Ipv4Addr),
}

#[derive(Debug, Clone)]
struct Packet {
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: Protocol,
    port: u16,
    arrived_by: &'static str,
    leaves_by: &'static str,
}

#[derive(Debug, Clone, Copy)]
struct Connection {
    client: Ipv4Addr,
    server: Ipv4Addr,
    port: u16,
    redirected: bool,
    established: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum End {
    Lost,
    Refused,
    Reset,
    AnswerBy(Endpoint),
    Masquerade,
}

/// A ruleset, and what chance picks.
pub(super) struct Walk<'a> {
    pub(super) machine: &'a Machine,
    pub(super) ruleset: &'a Ruleset,
    pick: u32,
    /// Sets of clients that have the client now.
    remembers: Option<String>,
}

/// All that can become of a connection, in order, each once.
pub(super) fn outcomes(
    machine: &Machine,
    ruleset: &Ruleset,
    from: From,
    to: (Protocol, Ipv4Addr, u16),
) -> String {
    let walk = |pick| {
        let remembers = None;
        Walk {
            machine,
            ruleset,
            pick,
            remembers,
        }
        .connect(from, to, false)
    };
    let all: BTreeSet<String> = (0..PICKS).map(walk).collect();
    all.into_iter().collect::<Vec<_>>().join(", ")
}

/// What becomes of a connection that lives already.
pub(super) fn living(
    machine: &Machine,
    ruleset: &Ruleset,
    from: From,
    to: (Protocol, Ipv4Addr, u16),
) -> String {
    let (pick, remembers) = (0, None);
    Walk {
        machine,
        ruleset,
        pick,
        remembers,
    }
    .connect(from, to, true)
}

/// What becomes of a client's connection that such a set remembers.
pub(super) fn remembered(
    machine: &Machine,
    ruleset: &Ruleset,
    set: &str,
    from: From,
    to: (Protocol, Ipv4Addr, u16),
) -> String {
    let walk = |pick| {
        let remembers = Some(set.to_owned());
        Walk {
            machine,
            ruleset,
            pick,
            remembers,
        }
        .connect(from, to, false)
    };
    let all: BTreeSet<String> = (0..PICKS).map(walk).collect();
    all.into_iter().collect::<Vec<_>>().join(", ")
}

impl Walk<'_> {
    fn connect(&self, from: From, to: (Protocol, Ipv4Addr, u16), established: bool) -> String {
        let (source, arrived_by) = match from {
            From::Pod(address) => (address, "pod"),
            From::Machine(address) => (address, ""),
            From::World(address) => (address, "eth0"),
        };
        let (protocol, destination, port) = to;
        let mut packet = Packet {
            source,
            destination,
            protocol,
            port,
            arrived_by,
            leaves_by: "",
        };
        let mut connection = Connection {
            client: source,
            server: destination,
            port,
            redirected: false,
            established,
        };
        let seen_as = match self.question(&mut packet, &mut connection) {
            Ok(seen_as) => seen_as,
            Err(End::Lost) => return "lost".to_owned(),
            Err(End::Reset) => return "reset".to_owned(),
            Err(_) => return "refused".to_owned(),
        };
        let answer = if self.answer(&connection, protocol, seen_as) {
            ""
        } else {
            " without an answer"
        };
        let masked = if seen_as == source {
            String::new()
        } else {
            format!(" as {seen_as}")
        };
        format!("{}:{}{masked}{answer}", connection.server, connection.port)
    }

    /// The first packet on its way; the address that the server sees.
    fn question(&self, packet: &mut Packet, connection: &mut Connection) -> Result<Ipv4Addr, End> {
        let comes_from_machine = packet.arrived_by.is_empty();
        if !comes_from_machine {
            self.filter(Hook::Arriving, packet, connection)?;
        }
        let nat = if comes_from_machine {
            Hook::NatSent
        } else {
            Hook::NatArriving
        };
        if let Some(End::AnswerBy(to)) = self.hook(nat, packet, connection) {
            (packet.destination, packet.port) = (to.address, to.port);
            (connection.server, connection.port) = (to.address, to.port);
            connection.redirected = true;
        }
        packet.leaves_by = self.way_out(packet.destination);
        if comes_from_machine {
            self.filter(Hook::Output, packet, connection)?;
        }
        if self.is_local(packet.destination) {
            self.filter(Hook::Input, packet, connection)?;
            return Ok(packet.source);
        }
        if !comes_from_machine {
            self.filter(Hook::Forward, packet, connection)?;
        }
        Ok(match self.hook(Hook::NatLeaving, packet, connection) {
            Some(End::Masquerade) if packet.leaves_by == "pod" => self.machine.gateway,
            Some(End::Masquerade) => OWN,
            Some(_) | None => packet.source,
        })
    }

    /// Whether the server's answer comes back.
    fn answer(&self, connection: &Connection, protocol: Protocol, seen_as: Ipv4Addr) -> bool {
        let arrived_by = self.way_out(connection.server);
        let mut packet = Packet {
            source: connection.server,
            destination: connection.client,
            protocol,
            port: 40_000,
            arrived_by,
            leaves_by: self.way_out(connection.client),
        };
        let answered = Connection {
            established: true,
            ..*connection
        };
        if arrived_by.is_empty() {
            return self.filter(Hook::Output, &packet, &answered).is_ok();
        }
        // The machine's own address, until the answer is translated back.
        packet.destination = seen_as;
        if self.filter(Hook::Arriving, &packet, &answered).is_err() {
            return false;
        }
        packet.destination = connection.client;
        let hook = if self.is_local(connection.client) {
            Hook::Input
        } else {
            Hook::Forward
        };
        self.filter(hook, &packet, &answered).is_ok()
    }

    fn is_local(&self, address: Ipv4Addr) -> bool {
        address == OWN || address == self.machine.gateway || address.is_loopback()
    }

    fn way_out(&self, address: Ipv4Addr) -> &'static str {
        if self.is_local(address) {
            ""
        } else if self.machine.pods.holds(address) {
            "pod"
        } else {
            "eth0"
        }
    }

    fn filter(&self, hook: Hook, packet: &Packet, connection: &Connection) -> Result<(), End> {
        self.hook(hook, packet, connection).map_or(Ok(()), Err)
    }

    fn hook(&self, hook: Hook, packet: &Packet, connection: &Connection) -> Option<End> {
        let chain = self
            .ruleset
            .chains
            .iter()
            .find(|own| own.hook == Some(hook));
        self.rules(
            &chain.expect("a chain for each hook").rules,
            packet,
            connection,
        )
    }

    fn chain(&self, name: &str, packet: &Packet, connection: &Connection) -> Option<End> {
        let chain = self.ruleset.chains.iter().find(|own| own.name == name);
        let chain = chain.unwrap_or_else(|| panic!("no chain {name}"));
        self.rules(&chain.rules, packet, connection)
    }

    fn rules(&self, rules: &[Rule], packet: &Packet, connection: &Connection) -> Option<End> {
        for rule in rules {
            if !rule
                .when
                .iter()
                .all(|own| self.matches(own, packet, connection))
            {
                continue;
            }
            for statement in &rule.then {
                match self.does(statement, packet, connection) {
                    Next::On => {}
                    Next::Over(end) => return end,
                }
            }
        }
        None
    }

    fn does(&self, statement: &Statement, packet: &Packet, connection: &Connection) -> Next {
        let goto = |name: &str| Next::Over(self.chain(name, packet, connection));
        let key = |fields: &[Field]| self.key(fields, packet, connection);
        match statement {
            Statement::Drop => Next::Over(Some(End::Lost)),
            Statement::Return => Next::Over(None),
            Statement::Jump(chain) => match self.chain(chain, packet, connection) {
                None => Next::On,
                end => Next::Over(end),
            },
            Statement::Goto(chain) => goto(chain),
            Statement::GotoFrom(fields, map) => match self.verdicts(map).get(&key(fields)) {
                Some(chain) => goto(chain),
                None => Next::On,
            },
            Statement::ResetTcp if connection.established => Next::Over(Some(End::Reset)),
            Statement::ResetTcp | Statement::RefusePort => Next::Over(Some(End::Refused)),
            Statement::Masquerade => Next::Over(Some(End::Masquerade)),
            Statement::AnswerBy(to) => Next::Over(Some(End::AnswerBy(*to))),
            Statement::AnswerOneOf(map, count) => match &self.ruleset.sets[map].holds {
                Holds::Endpoints(map) => {
                    let pick = vec![Atom::Number(self.pick % count)];
                    Next::Over(Some(End::AnswerBy(map[&pick])))
                }
                other => panic!("{other:?} holds no endpoints"),
            },
            Statement::GotoOneOf(map, count) => {
                goto(&self.verdicts(map)[&vec![Atom::Number(self.pick % count)]])
            }
            Statement::Remember(set, _) => {
                assert!(self.ruleset.sets.contains_key(set), "no set {set}");
                Next::On
            }
        }
    }

    fn verdicts(&self, map: &str) -> &std::collections::BTreeMap<Vec<Atom>, String> {
        match &self.ruleset.sets[map].holds {
            Holds::Verdicts(map) => map,
            other => panic!("{other:?} holds no verdicts"),
        }
    }

    fn key(&self, fields: &[Field], packet: &Packet, connection: &Connection) -> Vec<Atom> {
        fields
            .iter()
            .map(|field| atom(*field, packet, connection))
            .collect()
    }

    fn matches(&self, condition: &Match, packet: &Packet, connection: &Connection) -> bool {
        let name = |way: &Way| match way {
            Way::In => packet.arrived_by,
            Way::Out => packet.leaves_by,
        };
        match condition {
            // The only interfaces of ours are those of pods.
            Match::Interface { way, is, .. } => (name(way) == "pod") == *is,
            Match::InterfaceNamed { way, name: own } => name(way) == own,
            Match::Within {
                field,
                network,
                prefix,
                is,
            } => {
                let block = crate::network::objects::Block {
                    network: *network,
                    prefix: *prefix,
                };
                match atom(*field, packet, connection) {
                    Atom::Address(address) => block.holds(address) == *is,
                    other => panic!("{other} is no address"),
                }
            }
            Match::Is(field, value) => atom(*field, packet, connection) == *value,
            Match::Between(field, from, to) => match atom(*field, packet, connection) {
                Atom::Port(port) => (*from..=*to).contains(&port),
                other => panic!("{other} is no port"),
            },
            Match::In(fields, set) => match &self.ruleset.sets[set].holds {
                Holds::Keys(keys) => keys.contains(&self.key(fields, packet, connection)),
                Holds::Remembered { .. } => self.remembers.as_deref() == Some(set),
                other => panic!("{other:?} is no set"),
            },
            Match::ForThisMachine => self.is_local(packet.destination),
            Match::State(State::Established) => connection.established,
            Match::State(State::Invalid | State::Related) => false,
            Match::Redirected => connection.redirected,
        }
    }
}

enum Next {
    On,
    Over(Option<End>),
}

fn atom(field: Field, packet: &Packet, connection: &Connection) -> Atom {
    match field {
        Field::Source => Atom::Address(packet.source),
        Field::Destination => Atom::Address(packet.destination),
        Field::Protocol => Atom::Protocol(packet.protocol),
        Field::DestinationPort => Atom::Port(packet.port),
        Field::Client => Atom::Address(connection.client),
        Field::Server => Atom::Address(connection.server),
        Field::ServerPort => Atom::Port(connection.port),
    }
}

/// `web`, `machine`, `local` (the machine from 127.0.0.1) or an address of the world.
pub(super) fn from(word: &str, pod: impl Fn(&str) -> Option<Ipv4Addr>) -> From {
    match word {
        "machine" => From::Machine(Ipv4Addr::new(10, 7, 0, 1)),
        "local" => From::Machine(LOCAL),
        _ => match (pod(word), word.parse()) {
            (Some(address), _) => From::Pod(address),
            (None, Ok(address)) => From::World(address),
            (None, Err(_)) => panic!("nobody is {word}"),
        },
    }
}
