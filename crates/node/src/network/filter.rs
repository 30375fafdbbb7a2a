//! The packet filter of one data folder while its network is up: takes what the API says, and holds what the kernel has.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::compile::{Machine, TABLE_PREFIX, World, compile};
use super::netlink::{Netlink, Route, Scope};
use super::objects::Block;
use super::ruleset::Ruleset;
use super::{LOOPBACK, conntrack, forwarding, nftables};

/// The network of the pods, for whoever keeps its rules. Clones are the same network.
#[derive(Debug, Clone)]
pub struct PodNetwork(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    machine: Machine,
    state: Mutex<Held>,
}

/// What the kernel has from us.
#[derive(Debug, Default)]
struct Held {
    ruleset: Option<Ruleset>,
    /// What the API said last.
    world: Option<World>,
    /// Addresses of pods by UID, from before the API tells them.
    places: BTreeMap<String, Ipv4Addr>,
    /// Interfaces that forward since we asked.
    opened: Vec<String>,
    is_set_up: bool,
    /// Given back for good: nothing is taken any more.
    is_closed: bool,
}

impl PodNetwork {
    pub(super) fn new(machine: Machine) -> Self {
        Self(Arc::new(Shared {
            machine,
            state: Mutex::default(),
        }))
    }

    /// The addresses of pods and of Services, in CIDR form.
    #[must_use]
    pub fn ranges(&self) -> [String; 2] {
        let text = |Block { network, prefix }| format!("{network}/{prefix}");
        [self.0.machine.pods, self.0.machine.services].map(text)
    }

    fn state(&self) -> MutexGuard<'_, Held> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Brings the packet filter in line with what the API says. Nothing is asked of the kernel when nothing changes.
    pub(super) fn apply(&self, world: World) -> io::Result<()> {
        let mut held = self.state();
        held.world = Some(world);
        self.bring(&mut held)
    }

    /// A pod has got its address. Where policies are about its namespace they hold before this returns: the pod's first
    /// program runs later.
    pub(super) fn place(&self, uid: &str, address: Ipv4Addr) -> io::Result<()> {
        let mut held = self.state();
        held.places.insert(uid.to_owned(), address);
        let is_judged = |world: &World| {
            let pod = world.pods.values().find(|pod| pod.uid == uid);
            pod.is_some_and(|pod| {
                let mut policies = world.policies.keys();
                policies.any(|policy| policy.namespace == pod.key.namespace)
            })
        };
        if held.world.as_ref().is_some_and(is_judged) {
            self.bring(&mut held)?;
        }
        Ok(())
    }

    /// A pod has given its address back.
    pub(super) fn leave(&self, uid: &str) {
        self.state().places.remove(uid);
    }

    fn bring(&self, held: &mut Held) -> io::Result<()> {
        if held.is_closed {
            return Ok(());
        }
        let Some(mut world) = held.world.clone() else {
            return Ok(());
        };
        for pod in world.pods.values_mut().filter(|pod| !pod.host_network) {
            pod.address = pod.address.or(held.places.get(&pod.uid).copied());
        }
        if !held.is_set_up {
            self.set_up(held)?;
        }
        let machine = Machine {
            opened: held.opened.clone(),
            ..self.0.machine.clone()
        };
        let ruleset = compile(&machine, &world);
        if held.ruleset.as_ref() == Some(&ruleset) {
            return Ok(());
        }
        let netlink = Netlink::open_filter()?;
        nftables::apply(&netlink, &ruleset)?;
        let old = held.ruleset.replace(ruleset);
        let (Some(old), Some(new)) = (old, &held.ruleset) else {
            return Ok(());
        };
        let (old, new) = (conntrack::doors(&old), conntrack::doors(new));
        if old == new {
            return Ok(());
        }
        conntrack::forget(&netlink, self.0.machine.pods, &old, &new)
    }

    /// What does not change with the API: the route to Services, and ways out that forward.
    fn set_up(&self, held: &mut Held) -> io::Result<()> {
        let netlink = Netlink::open()?;
        let route = self.route();
        netlink.remove_route(route)?;
        if !netlink.add_first_route(route)? {
            let Block { network, prefix } = self.0.machine.services;
            tracing::warn!(
                "this machine has a route to {network}/{prefix} already: pods reach Services by address, the machine itself does not"
            );
        }
        match forwarding::open(&self.0.machine.instance) {
            Ok(opened) => held.opened = opened,
            Err(error) => {
                tracing::warn!(%error, "the machine's interfaces cannot forward: pods do not reach the world");
            }
        }
        held.is_set_up = true;
        Ok(())
    }

    /// Where the machine itself sends packets for Services: they are redirected on their way, but need one first.
    fn route(&self) -> Route {
        let Block { network, prefix } = self.0.machine.services;
        Route {
            to: (network, prefix),
            interface: LOOPBACK,
            gateway: None,
            source: Some(self.0.machine.gateway),
            scope: Scope::Link,
        }
    }

    /// From here on nothing is taken of the machine any more.
    pub(super) fn close(&self) -> io::Result<()> {
        let mut held = self.state();
        held.is_closed = true;
        held.ruleset = None;
        Netlink::open()?.remove_route(self.route())
    }
}

/// The tables of clusters of ours, by the digits of their data folders; none where the kernel has no such filter.
pub(super) fn instances() -> Vec<String> {
    let tables = Netlink::open_filter().and_then(|netlink| nftables::tables(&netlink));
    let of = |table: &String| table.strip_prefix(TABLE_PREFIX).map(str::to_owned);
    tables.unwrap_or_default().iter().filter_map(of).collect()
}

/// The name of a cluster's table.
pub(super) fn table(instance: &str) -> String {
    format!("{TABLE_PREFIX}{instance}")
}

/// Gives back the table of a cluster; one that is not there is given back.
pub(super) fn remove_table(instance: &str) -> io::Result<()> {
    if !instances().iter().any(|own| own == instance) {
        return Ok(());
    }
    nftables::remove(&Netlink::open_filter()?, &table(instance))
}
