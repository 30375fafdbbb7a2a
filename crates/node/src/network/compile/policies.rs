//! The rules of NetworkPolicies: which pods are isolated, and who may reach them, or be reached by them, all the same. Pure.
//!
//! Every packet of a connection is judged, in both directions, by who began it and who answers it: an answer passes
//! because its question does, and a connection that a new policy forbids ends with its next packet. Both sides judge: the
//! client's by its egress, the server's by its ingress. What the machine itself begins is never judged.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use super::super::objects::{Block, Key, Labels, Peer, Pod, Policy, PolicyPort, PolicyRule};
use super::super::ruleset::{Atom, Field, Holds, Kind, Match, Protocol, Rule, State, Statement};
use super::{Draft, World, within};

/// One of the two sides of a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Ingress,
    Egress,
}

impl Side {
    fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }

    /// The address of the isolated pod.
    fn own(self) -> Field {
        match self {
            Self::Ingress => Field::Server,
            Self::Egress => Field::Client,
        }
    }

    /// The address of its peer.
    fn other(self) -> Field {
        match self {
            Self::Ingress => Field::Client,
            Self::Egress => Field::Server,
        }
    }

    /// The chain that leads to the pods' own.
    fn gate(self) -> &'static str {
        match self {
            Self::Ingress => "ingress-of",
            Self::Egress => "egress-of",
        }
    }

    fn rules(self, policy: &Policy) -> Option<&Vec<PolicyRule>> {
        match self {
            Self::Ingress => policy.ingress.as_ref(),
            Self::Egress => policy.egress.as_ref(),
        }
    }
}

/// Adds the rules of all policies.
pub(super) fn add(draft: &mut Draft<'_>, world: &World) {
    let judge = Judge::new(draft, world);
    let mut isolated = BTreeSet::new();
    let mut groups = Groups::default();
    for side in [Side::Egress, Side::Ingress] {
        let mut verdicts = BTreeMap::new();
        for pod in &judge.pods {
            let Some(rules) = judge.allowed(pod, side, &mut groups) else {
                continue;
            };
            let chain = format!("{}/{}", side.name(), pod.key);
            verdicts.insert(vec![Atom::Address(pod.address)], chain.clone());
            isolated.insert(vec![Atom::Address(pod.address)]);
            draft.chain(chain, rules);
        }
        draft.set(side.name(), &[Kind::Address], Holds::Verdicts(verdicts));
    }
    if isolated.is_empty() {
        draft.sets.remove(Side::Ingress.name());
        draft.sets.remove(Side::Egress.name());
        return;
    }
    draft.policies = true;
    draft.set(
        "isolated",
        &[Kind::Address],
        Holds::Keys(isolated.into_iter().collect()),
    );
    for (addresses, name) in groups.0 {
        let keys = addresses
            .into_iter()
            .map(|address| vec![Atom::Address(address)]);
        draft.set(name, &[Kind::Address], Holds::Keys(keys.collect()));
    }
    draft.chain("policies", frame(&[Side::Egress, Side::Ingress]));
    // Here pods ask the machine, or answer it: only the first is judged.
    draft.chain("policies-input", frame(&[Side::Egress]));
    for side in [Side::Egress, Side::Ingress] {
        draft.chain(side.gate(), gate(side));
    }
    draft.chain("deny", denial());
}

/// Judges packets on their way by these sides.
fn frame(sides: &[Side]) -> Vec<Rule> {
    let isolated = |field| Match::In(vec![field], "isolated".to_owned());
    let lost = |field| {
        Rule::new(
            [Match::State(State::Invalid), isolated(field)],
            [Statement::Drop],
        )
    };
    let both = vec![Field::Client, Field::Server];
    let mut rules = vec![
        // Errors about connections that are let through.
        Rule::new([Match::State(State::Related)], [Statement::Return]),
        // What belongs to no connection cannot be judged.
        lost(Field::Source),
        lost(Field::Destination),
        Rule::new([Match::In(both, "itself".to_owned())], [Statement::Return]),
    ];
    let gate = |side: &Side| Rule::new([], [Statement::Jump(side.gate().to_owned())]);
    rules.extend(sides.iter().map(gate));
    rules
}

/// Leads to the chain of the isolated pod, whose `return` comes back to where this one was called.
fn gate(side: Side) -> Vec<Rule> {
    let own = Statement::GotoFrom(vec![side.own()], side.name().to_owned());
    vec![Rule::new([], [own])]
}

/// New connections are lost, as on other clusters; those that live when they are forbidden are cut.
fn denial() -> Vec<Rule> {
    let tcp = Match::Is(Field::Protocol, Atom::Protocol(Protocol::Tcp));
    vec![
        Rule::new(
            [Match::State(State::Established), tcp],
            [Statement::ResetTcp],
        ),
        Rule::new([], [Statement::Drop]),
    ]
}

/// Sets of addresses by their contents: rules with the same peers share one.
#[derive(Default)]
struct Groups(BTreeMap<BTreeSet<Ipv4Addr>, String>);

impl Groups {
    /// The condition that an address is one of these; `None` when there are none.
    fn among(&mut self, field: Field, addresses: BTreeSet<Ipv4Addr>) -> Option<Match> {
        let first = *addresses.first()?;
        if addresses.len() == 1 {
            return Some(Match::Is(field, Atom::Address(first)));
        }
        let next = format!("addresses/{}", self.0.len() + 1);
        let name = self.0.entry(addresses).or_insert(next).clone();
        Some(Match::In(vec![field], name))
    }
}

/// A pod with an address, as policies see it.
struct Located<'a> {
    key: Key,
    address: Ipv4Addr,
    labels: Labels,
    named_ports: &'a [(String, Protocol, u16)],
}

/// What is needed to judge.
struct Judge<'a> {
    world: &'a World,
    pods: Vec<Located<'a>>,
    /// The cluster's DNS, which answers at the gateway: no pod, but what policies of every cluster call one.
    dns: Located<'a>,
}

impl<'a> Judge<'a> {
    fn new(draft: &Draft<'_>, world: &'a World) -> Self {
        let located = |pod: &'a Pod| {
            Some(Located {
                key: pod.key.clone(),
                address: pod.address?,
                labels: pod.labels.clone(),
                named_ports: &pod.named_ports,
            })
        };
        let label = ("k8s-app".to_owned(), "kube-dns".to_owned());
        let dns = Located {
            key: Key {
                namespace: "kube-system".to_owned(),
                name: "kube-dns".to_owned(),
            },
            address: draft.machine.gateway,
            labels: Labels::from([label]),
            named_ports: &[],
        };
        Self {
            world,
            pods: world.pods.values().filter_map(located).collect(),
            dns,
        }
    }

    /// The rules of one side of a pod; `None` when no policy is about it.
    fn allowed(&self, pod: &Located<'_>, side: Side, groups: &mut Groups) -> Option<Vec<Rule>> {
        let about = |policy: &&Policy| {
            policy.key.namespace == pod.key.namespace && policy.pods.chooses(&pod.labels)
        };
        let policies = self.world.policies.values().filter(about);
        let mut own = policies
            .filter_map(|policy| Some((policy, side.rules(policy)?)))
            .peekable();
        own.peek()?;
        let mut rules: Vec<Rule> = Vec::new();
        for (policy, allowances) in own {
            for allowance in allowances {
                for rule in self.rules(policy, allowance, pod, side, groups) {
                    if !rules.contains(&rule) {
                        rules.push(rule);
                    }
                }
            }
        }
        rules.push(Rule::new([], [Statement::Goto("deny".to_owned())]));
        Some(rules)
    }

    /// One rule for each kind of peer at each port.
    fn rules(
        &self,
        policy: &Policy,
        allowance: &PolicyRule,
        pod: &Located<'_>,
        side: Side,
        groups: &mut Groups,
    ) -> Vec<Rule> {
        let ports: Vec<Option<&PolicyPort>> = match &allowance.ports {
            None => vec![None],
            Some(list) => list.iter().map(Some).collect(),
        };
        let mut rules = Vec::new();
        for port in ports {
            let reached = match side {
                Side::Ingress => ports_of(pod, port)
                    .into_iter()
                    .map(|port| (port, None))
                    .collect(),
                Side::Egress => self.reached(port),
            };
            for (port, only) in reached {
                for peers in self.peers(policy, allowance, side, only.as_ref(), groups) {
                    let when = peers.into_iter().chain(at(port));
                    rules.push(Rule::new(when, [Statement::Return]));
                }
            }
        }
        rules
    }

    /// The ports that are allowed to be reached, each with the only pods that have it when it is a port by name.
    fn reached(&self, port: Option<&PolicyPort>) -> Vec<(Port, Option<BTreeSet<Ipv4Addr>>)> {
        let Some(PolicyPort::Named(..)) = port else {
            return ports_of(&self.dns, port)
                .into_iter()
                .map(|port| (port, None))
                .collect();
        };
        let mut found: BTreeMap<Port, BTreeSet<Ipv4Addr>> = BTreeMap::new();
        for pod in self.all() {
            for own in ports_of(pod, port) {
                found.entry(own).or_default().insert(pod.address);
            }
        }
        found
            .into_iter()
            .map(|(port, pods)| (port, Some(pods)))
            .collect()
    }

    /// Conditions that a peer meets, one list for each kind of peer; `only` narrows them to these pods.
    fn peers(
        &self,
        policy: &Policy,
        allowance: &PolicyRule,
        side: Side,
        only: Option<&BTreeSet<Ipv4Addr>>,
        groups: &mut Groups,
    ) -> Vec<Vec<Match>> {
        let field = side.other();
        let narrowed = |groups: &mut Groups| match only {
            Some(pods) => groups.among(field, pods.clone()).map(|own| vec![own]),
            None => Some(Vec::new()),
        };
        let Some(peers) = &allowance.peers else {
            return narrowed(groups).into_iter().collect();
        };
        let mut found = Vec::new();
        let mut chosen = BTreeSet::new();
        for peer in peers {
            match peer {
                Peer::Block { block, except } => {
                    let own = narrowed(groups);
                    found.extend(
                        own.map(|own| [own, block_matches(field, *block, except)].concat()),
                    );
                }
                Peer::Pods { namespaces, pods } => {
                    let named = self.all().filter(|pod| {
                        let there = match namespaces {
                            Some(selector) => selector.chooses(&self.labels(&pod.key.namespace)),
                            None => pod.key.namespace == policy.key.namespace,
                        };
                        there && pods.as_ref().is_none_or(|own| own.chooses(&pod.labels))
                    });
                    chosen.extend(named.map(|pod| pod.address));
                }
            }
        }
        if let Some(only) = only {
            chosen.retain(|address| only.contains(address));
        }
        found.extend(groups.among(field, chosen).map(|own| vec![own]));
        found
    }

    fn all(&self) -> impl Iterator<Item = &Located<'a>> {
        self.pods.iter().chain([&self.dns])
    }

    /// A namespace that is not known yet has its name at least.
    fn labels(&self, namespace: &str) -> Labels {
        let known = self.world.namespaces.get(namespace).cloned();
        known.unwrap_or_else(|| {
            let name = super::super::objects::NAMESPACE_LABEL.to_owned();
            Labels::from([(name, namespace.to_owned())])
        })
    }
}

/// A port that is allowed: every one of every protocol, or some of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Port {
    Any,
    Every(Protocol),
    Some(Protocol, u16, u16),
}

/// What a policy's port means at a pod.
fn ports_of(pod: &Located<'_>, port: Option<&PolicyPort>) -> Vec<Port> {
    match port {
        None => vec![Port::Any],
        Some(PolicyPort::Every(protocol)) => vec![Port::Every(*protocol)],
        Some(PolicyPort::Numbers(protocol, from, to)) => vec![Port::Some(*protocol, *from, *to)],
        Some(PolicyPort::Named(protocol, name)) => {
            let own = pod.named_ports.iter();
            let named = own.filter(|(own, with, _)| own == name && with == protocol);
            named
                .map(|(.., number)| Port::Some(*protocol, *number, *number))
                .collect()
        }
    }
}

fn at(port: Port) -> Vec<Match> {
    let of = |protocol| Match::Is(Field::Protocol, Atom::Protocol(protocol));
    match port {
        Port::Any => Vec::new(),
        Port::Every(protocol) => vec![of(protocol)],
        Port::Some(protocol, from, to) if from == to => {
            vec![of(protocol), Match::Is(Field::ServerPort, Atom::Port(from))]
        }
        Port::Some(protocol, from, to) => {
            vec![of(protocol), Match::Between(Field::ServerPort, from, to)]
        }
    }
}

fn block_matches(field: Field, block: Block, except: &[Block]) -> Vec<Match> {
    let but = |block: &Block| Match::Within {
        field,
        network: block.network,
        prefix: block.prefix,
        is: false,
    };
    let inside = within(field, block);
    [inside].into_iter().chain(except.iter().map(but)).collect()
}
