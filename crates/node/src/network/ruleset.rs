//! What the packet filter of one data folder is to hold: one nftables table as a value, which can be told as text. Pure.
//!
//! Only what Stead's rules need can be said here. The text is close to what `nft list ruleset` prints, and is what
//! tests read; what the kernel is sent is made of the same value by [`super::nftables`].

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;

/// A table of the IPv4 family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ruleset {
    /// Its name, of this data folder alone.
    pub(crate) table: String,
    /// Sets and maps by name.
    pub(crate) sets: BTreeMap<String, Set>,
    /// Chains in the order in which they are told; names are unique.
    pub(crate) chains: Vec<Chain>,
}

/// What of a packet, or of its connection, is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Field {
    /// Its source address.
    Source,
    /// Its destination address.
    Destination,
    /// TCP, UDP, SCTP, ...
    Protocol,
    /// Its destination port.
    DestinationPort,
    /// Who began the connection: true in both directions, before any translation.
    Client,
    /// Who answers the connection: true in both directions, after every translation.
    Server,
    /// The port at which the connection is answered.
    ServerPort,
}

/// The value of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Atom {
    /// An address.
    Address(Ipv4Addr),
    /// A transport protocol.
    Protocol(Protocol),
    /// A port.
    Port(u16),
    /// A plain number: one of the places among which chance chooses.
    Number(u32),
}

/// Transport protocols that Services and policies speak of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Protocol {
    /// `TCP`.
    Tcp,
    /// `UDP`.
    Udp,
    /// `SCTP`.
    Sctp,
}

impl Protocol {
    /// The word of the Kubernetes API; `None` for one that it does not know.
    pub(crate) fn parse(word: &str) -> Option<Self> {
        match word {
            "TCP" => Some(Self::Tcp),
            "UDP" => Some(Self::Udp),
            "SCTP" => Some(Self::Sctp),
            _ => None,
        }
    }

    /// Its number in an IPv4 header.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

/// The kind of a key's part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `ipv4_addr`.
    Address,
    /// `inet_proto`.
    Protocol,
    /// `inet_service`.
    Port,
    /// `integer`.
    Number,
}

/// A set, or a map when its elements have values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Set {
    /// What a key is made of.
    pub(crate) key: Vec<Kind>,
    /// What it holds.
    pub(crate) holds: Holds,
}

/// The contents of a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Holds {
    /// Keys alone.
    Keys(Vec<Vec<Atom>>),
    /// Where to go on, by key.
    Verdicts(BTreeMap<Vec<Atom>, String>),
    /// Who answers, by key.
    Endpoints(BTreeMap<Vec<Atom>, Endpoint>),
    /// Keys that packets add, each for so many seconds after the last packet that added it.
    Remembered {
        /// Seconds.
        timeout_seconds: u32,
    },
}

/// Who answers for a Service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Endpoint {
    /// Its address.
    pub(crate) address: Ipv4Addr,
    /// Its port.
    pub(crate) port: u16,
}

/// Rules in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chain {
    /// Its name.
    pub(crate) name: String,
    /// Where packets enter it; `None` when only other chains lead to it.
    pub(crate) hook: Option<Hook>,
    /// Its rules.
    pub(crate) rules: Vec<Rule>,
}

/// Where packets enter a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Hook {
    /// Whatever arrives, before connections are known.
    Arriving,
    /// Whatever arrives and begins a connection: its destination may change.
    NatArriving,
    /// Whatever the machine sends and begins a connection: its destination may change.
    NatSent,
    /// Whatever leaves and begins a connection: its source may change.
    NatLeaving,
    /// What is for the machine itself.
    Input,
    /// What passes the machine.
    Forward,
    /// What the machine sends.
    Output,
}

/// One rule: when all of it matches, all of it is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    /// When.
    pub(crate) when: Vec<Match>,
    /// What.
    pub(crate) then: Vec<Statement>,
}

/// Which way a packet goes through an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// It came in by it.
    In,
    /// It goes out by it.
    Out,
}

/// A condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Match {
    /// The interface's name begins so, or does not.
    Interface {
        /// In or out.
        way: Way,
        /// The beginning of the name.
        prefix: String,
        /// `false` turns the condition round.
        is: bool,
    },
    /// The interface has just this name.
    InterfaceNamed {
        /// In or out.
        way: Way,
        /// The name.
        name: String,
    },
    /// An address lies in a range, or does not.
    Within {
        /// Which address.
        field: Field,
        /// The range's first address.
        network: Ipv4Addr,
        /// The length of its prefix, 0 to 32.
        prefix: u8,
        /// `false` turns the condition round.
        is: bool,
    },
    /// A field has this value.
    Is(Field, Atom),
    /// A port lies between these two, both included.
    Between(Field, u16, u16),
    /// The fields together are in a set.
    In(Vec<Field>, String),
    /// The destination is an address of this machine.
    ForThisMachine,
    /// The connection's state.
    State(State),
    /// The destination of the connection has been changed.
    Redirected,
}

/// States of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// The packet fits no connection.
    Invalid,
    /// Both sides have spoken.
    Established,
    /// An error message about a connection.
    Related,
}

/// What is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Statement {
    /// The packet is lost.
    Drop,
    /// Back to where this chain was called from.
    Return,
    /// On in another chain, and back.
    Jump(String),
    /// On in another chain, whose end is this one's.
    Goto(String),
    /// On where the map says; a key that it does not have changes nothing.
    GotoFrom(Vec<Field>, String),
    /// TCP connections are reset.
    ResetTcp,
    /// The sender is told that nobody listens.
    RefusePort,
    /// The packet leaves with the machine's address.
    Masquerade,
    /// The connection is answered by one of the map, chosen by chance among so many.
    AnswerOneOf(String, u32),
    /// The connection is answered by this one.
    AnswerBy(Endpoint),
    /// On in one chain of the map, chosen by chance among so many.
    GotoOneOf(String, u32),
    /// The source is remembered in this set.
    Remember(String, u32),
}

impl Rule {
    /// A rule with these parts.
    pub(crate) fn new(
        when: impl IntoIterator<Item = Match>,
        then: impl IntoIterator<Item = Statement>,
    ) -> Self {
        Self {
            when: when.into_iter().collect(),
            then: then.into_iter().collect(),
        }
    }
}

impl fmt::Display for Ruleset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            table,
            sets,
            chains,
        } = self;
        writeln!(f, "table ip {table} {{")?;
        for (name, set) in sets {
            set.tell(name, f)?;
        }
        for chain in chains {
            write!(f, "{chain}")?;
        }
        writeln!(f, "}}")
    }
}

impl Set {
    fn tell(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, holds } = self;
        let key = joined(key.iter(), " . ");
        let (word, value, elements) = match holds {
            Holds::Keys(keys) => (
                "set",
                "",
                keys.iter()
                    .map(|key| joined(key.iter(), " . "))
                    .collect::<Vec<_>>(),
            ),
            Holds::Verdicts(map) => (
                "map",
                " : verdict",
                map.iter()
                    .map(|(key, chain)| format!("{} : goto {chain}", joined(key.iter(), " . ")))
                    .collect(),
            ),
            Holds::Endpoints(map) => (
                "map",
                " : ipv4_addr . inet_service",
                map.iter()
                    .map(|(key, to)| {
                        format!(
                            "{} : {} . {}",
                            joined(key.iter(), " . "),
                            to.address,
                            to.port
                        )
                    })
                    .collect(),
            ),
            Holds::Remembered { timeout_seconds } => {
                return writeln!(
                    f,
                    "  set {name} {{ type {key}; flags dynamic,timeout; timeout {timeout_seconds}s; }}"
                );
            }
        };
        if elements.is_empty() {
            return writeln!(f, "  {word} {name} {{ type {key}{value}; }}");
        }
        writeln!(f, "  {word} {name} {{ type {key}{value};")?;
        for element in elements {
            writeln!(f, "    {element}")?;
        }
        writeln!(f, "  }}")
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, hook, rules } = self;
        match hook {
            Some(hook) => writeln!(f, "  chain {name} {{ {hook}")?,
            None => writeln!(f, "  chain {name} {{")?,
        }
        for rule in rules {
            writeln!(f, "    {rule}")?;
        }
        writeln!(f, "  }}")
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { when, then } = self;
        let when = when.iter().map(ToString::to_string);
        let then = then.iter().map(ToString::to_string);
        f.write_str(&when.chain(then).collect::<Vec<_>>().join(" "))
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Arriving => "type filter hook prerouting priority raw;",
            Self::NatArriving => "type nat hook prerouting priority dstnat;",
            Self::NatSent => "type nat hook output priority dstnat;",
            Self::NatLeaving => "type nat hook postrouting priority srcnat;",
            Self::Input => "type filter hook input priority filter;",
            Self::Forward => "type filter hook forward priority filter;",
            Self::Output => "type filter hook output priority filter;",
        })
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let not = |is: &bool| if *is { "" } else { "!= " };
        match self {
            Self::Interface { way, prefix, is } => write!(f, "{way} {}\"{prefix}*\"", not(is)),
            Self::InterfaceNamed { way, name } => write!(f, "{way} \"{name}\""),
            Self::Within {
                field,
                network,
                prefix,
                is,
            } => write!(f, "{field} {}{network}/{prefix}", not(is)),
            Self::Is(field, atom) => write!(f, "{field} {atom}"),
            Self::Between(field, from, to) => write!(f, "{field} {from}-{to}"),
            Self::In(fields, set) => write!(f, "{} @{set}", joined(fields.iter(), " . ")),
            Self::ForThisMachine => f.write_str("fib daddr type local"),
            Self::State(state) => write!(f, "ct state {state}"),
            Self::Redirected => f.write_str("ct status dnat"),
        }
    }
}

impl fmt::Display for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Drop => f.write_str("drop"),
            Self::Return => f.write_str("return"),
            Self::Jump(chain) => write!(f, "jump {chain}"),
            Self::Goto(chain) => write!(f, "goto {chain}"),
            Self::GotoFrom(fields, map) => {
                write!(f, "{} vmap @{map}", joined(fields.iter(), " . "))
            }
            Self::ResetTcp => f.write_str("reject with tcp reset"),
            Self::RefusePort => f.write_str("reject with icmp port-unreachable"),
            Self::Masquerade => f.write_str("masquerade"),
            Self::AnswerOneOf(map, count) => {
                write!(f, "dnat to numgen random mod {count} map @{map}")
            }
            Self::AnswerBy(Endpoint { address, port }) => write!(f, "dnat to {address}:{port}"),
            Self::GotoOneOf(map, count) => write!(f, "numgen random mod {count} vmap @{map}"),
            Self::Remember(set, seconds) => {
                write!(f, "update @{set} {{ ip saddr timeout {seconds}s }}")
            }
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Source => "ip saddr",
            Self::Destination => "ip daddr",
            Self::Protocol => "meta l4proto",
            Self::DestinationPort => "th dport",
            Self::Client => "ct original ip saddr",
            Self::Server => "ct reply ip saddr",
            Self::ServerPort => "ct reply proto-src",
        })
    }
}

impl fmt::Display for Atom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Protocol(protocol) => write!(f, "{protocol}"),
            Self::Port(port) => write!(f, "{port}"),
            Self::Number(number) => write!(f, "{number}"),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Address => "ipv4_addr",
            Self::Protocol => "inet_proto",
            Self::Port => "inet_service",
            Self::Number => "integer",
        })
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::In => "iifname",
            Self::Out => "oifname",
        })
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Invalid => "invalid",
            Self::Established => "established",
            Self::Related => "related",
        })
    }
}

fn joined<T: fmt::Display>(parts: impl Iterator<Item = T>, between: &str) -> String {
    let parts: Vec<String> = parts.map(|part| part.to_string()).collect();
    parts.join(between)
}
