//! From what the API says to the packet filter's rules: the one place where it is decided which packet goes where. Pure.
//!
//! Services are told in [`services`], NetworkPolicies in [`policies`]; here is the frame that both hang in. Nothing of
//! the machine is touched but packets of our pods, packets to our Services, and packets that only pass because we let
//! an interface forward.

mod policies;
mod services;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use super::objects::{Block, Key, Labels, Pod, Policy, Service, Slice};
use super::ruleset::{
    Atom, Chain, Field, Holds, Hook, Kind, Match, Rule, Ruleset, Set, Statement, Way,
};

/// The names of our tables begin so; the six digits of the data folder follow.
pub(crate) const TABLE_PREFIX: &str = "stead-";

/// What holds of the machine for as long as its network is up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Machine {
    /// Six digits that stand for the data folder.
    pub(crate) instance: String,
    /// What the names of the pods' interfaces begin with.
    pub(crate) interfaces: String,
    /// The machine's address on every pod's interface.
    pub(crate) gateway: Ipv4Addr,
    /// The pods' addresses.
    pub(crate) pods: Block,
    /// The Services' addresses.
    pub(crate) services: Block,
    /// Interfaces that forward only since we asked for it: they forward to and from pods alone.
    pub(crate) opened: Vec<String>,
}

/// What the API says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct World {
    /// Services.
    pub(crate) services: BTreeMap<Key, Service>,
    /// EndpointSlices.
    pub(crate) slices: BTreeMap<Key, Slice>,
    /// Pods that have not finished.
    pub(crate) pods: BTreeMap<Key, Pod>,
    /// Labels of namespaces.
    pub(crate) namespaces: BTreeMap<String, Labels>,
    /// NetworkPolicies.
    pub(crate) policies: BTreeMap<Key, Policy>,
}

/// The table of one data folder.
pub(crate) fn compile(machine: &Machine, world: &World) -> Ruleset {
    let mut draft = Draft::new(machine);
    services::add(&mut draft, world);
    policies::add(&mut draft, world);
    draft.finish()
}

/// A ruleset being made.
struct Draft<'a> {
    machine: &'a Machine,
    sets: BTreeMap<String, Set>,
    /// Chains that others lead to.
    chains: Vec<Chain>,
    /// Whether any pod is isolated.
    policies: bool,
}

/// The key of a Service's port: address, protocol, port.
const SERVICE: [Field; 3] = [Field::Destination, Field::Protocol, Field::DestinationPort];
/// The key of a port of the machine, whichever its address.
const PORT: [Field; 2] = [Field::Protocol, Field::DestinationPort];

impl<'a> Draft<'a> {
    fn new(machine: &'a Machine) -> Self {
        Self {
            machine,
            sets: BTreeMap::new(),
            chains: Vec::new(),
            policies: false,
        }
    }

    fn set(&mut self, name: impl Into<String>, key: &[Kind], holds: Holds) {
        let key = key.to_vec();
        self.sets.insert(name.into(), Set { key, holds });
    }

    fn chain(&mut self, name: impl Into<String>, rules: Vec<Rule>) {
        self.chains.push(Chain {
            name: name.into(),
            hook: None,
            rules,
        });
    }

    fn finish(self) -> Ruleset {
        let mut chains = vec![
            hooked("arriving", Hook::Arriving, self.arriving()),
            hooked(
                "redirect-arriving",
                Hook::NatArriving,
                self.redirect_arriving(),
            ),
            hooked("redirect-sent", Hook::NatSent, self.redirect_sent()),
            hooked("leaving", Hook::NatLeaving, self.leaving()),
            hooked("forward", Hook::Forward, self.forward()),
            hooked("input", Hook::Input, self.input()),
            hooked("output", Hook::Output, self.output()),
        ];
        chains.extend(self.chains);
        Ruleset {
            table: format!("{TABLE_PREFIX}{}", self.machine.instance),
            sets: self.sets,
            chains,
        }
    }

    /// Pods' interfaces may lead to the machine's loopback, for the API listens there; only our redirection may lead
    /// a pod there, never the pod itself.
    fn arriving(&self) -> Vec<Rule> {
        vec![Rule::new(
            [self.by_pods(Way::In, true), loopback(Field::Destination)],
            [Statement::Drop],
        )]
    }

    fn redirect_arriving(&self) -> Vec<Rule> {
        // Addresses of Services are our pods' business: another cluster on this machine may have the same ones.
        let services = Rule::new(
            [self.by_pods(Way::In, true)],
            [Statement::GotoFrom(SERVICE.to_vec(), "services".to_owned())],
        );
        [vec![services], self.redirect_exposed()].concat()
    }

    fn redirect_sent(&self) -> Vec<Rule> {
        let services = Rule::new(
            [],
            [Statement::GotoFrom(SERVICE.to_vec(), "services".to_owned())],
        );
        [vec![services], self.redirect_exposed()].concat()
    }

    fn redirect_exposed(&self) -> Vec<Rule> {
        vec![
            Rule::new(
                [],
                [Statement::GotoFrom(SERVICE.to_vec(), "exposed".to_owned())],
            ),
            Rule::new(
                [Match::ForThisMachine],
                [Statement::GotoFrom(PORT.to_vec(), "ports".to_owned())],
            ),
        ]
    }

    fn leaving(&self) -> Vec<Rule> {
        let own = |when: Vec<Match>| Rule::new(when, [Statement::Masquerade]);
        vec![
            // A pod that reaches itself through a Service would not know its own answer.
            own(vec![
                Match::Redirected,
                Match::In(vec![Field::Source, Field::Destination], "itself".to_owned()),
            ]),
            own(vec![
                within(Field::Source, self.machine.pods),
                self.by_pods(Way::Out, false),
            ]),
            // From 127.0.0.1 of the machine to a port of it that leads to a pod.
            own(vec![loopback(Field::Source), self.by_pods(Way::Out, true)]),
            // An endpoint beyond the machine must answer by way of it.
            own(vec![
                Match::Redirected,
                Match::In(SERVICE.to_vec(), "elsewhere".to_owned()),
            ]),
        ]
    }

    fn forward(&self) -> Vec<Rule> {
        let mut rules = refusals(vec![
            self.by_pods(Way::In, true),
            within(Field::Destination, self.machine.services),
        ]);
        rules.extend(refusals(vec![Match::In(
            SERVICE.to_vec(),
            "refused".to_owned(),
        )]));
        for name in &self.machine.opened {
            let name = name.clone();
            rules.push(Rule::new(
                [
                    Match::InterfaceNamed { way: Way::In, name },
                    // Pods of every cluster of ours on this machine.
                    Match::Interface {
                        way: Way::Out,
                        prefix: super::PREFIX.to_owned(),
                        is: false,
                    },
                ],
                [Statement::Drop],
            ));
        }
        if self.policies {
            rules.push(Rule::new([], [Statement::Jump("policies".to_owned())]));
        }
        rules
    }

    fn input(&self) -> Vec<Rule> {
        let mut rules = refusals(vec![Match::In(SERVICE.to_vec(), "refused".to_owned())]);
        rules.extend(refusals(vec![
            Match::ForThisMachine,
            Match::In(PORT.to_vec(), "refused-ports".to_owned()),
        ]));
        if self.policies {
            rules.push(Rule::new(
                [],
                [Statement::Jump("policies-input".to_owned())],
            ));
        }
        rules
    }

    /// What the machine itself sends is under no policy: probes must always come through.
    fn output(&self) -> Vec<Rule> {
        let mut rules = refusals(vec![within(Field::Destination, self.machine.services)]);
        rules.extend(refusals(vec![Match::In(
            SERVICE.to_vec(),
            "refused".to_owned(),
        )]));
        rules
    }

    fn by_pods(&self, way: Way, is: bool) -> Match {
        let prefix = self.machine.interfaces.clone();
        Match::Interface { way, prefix, is }
    }
}

fn hooked(name: &str, hook: Hook, rules: Vec<Rule>) -> Chain {
    Chain {
        name: name.to_owned(),
        hook: Some(hook),
        rules,
    }
}

/// Nobody listens: said at once, in the words of the protocol.
fn refusals(when: Vec<Match>) -> Vec<Rule> {
    let tcp = Match::Is(
        Field::Protocol,
        Atom::Protocol(super::ruleset::Protocol::Tcp),
    );
    let of_tcp = when.iter().cloned().chain([tcp]);
    vec![
        Rule::new(of_tcp, [Statement::ResetTcp]),
        Rule::new(when, [Statement::RefusePort]),
    ]
}

fn within(field: Field, block: Block) -> Match {
    let Block { network, prefix } = block;
    Match::Within {
        field,
        network,
        prefix,
        is: true,
    }
}

fn loopback(field: Field) -> Match {
    let network = Ipv4Addr::new(127, 0, 0, 0);
    within(field, Block { network, prefix: 8 })
}

#[cfg(test)]
mod tests;
