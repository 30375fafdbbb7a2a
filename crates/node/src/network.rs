//! The pods' network in the containers tier: for each pod a network namespace with one interface, routed, no bridge.
//!
//! The machine's end of each pair has the gateway's address and a route to the pod's; the pod's default route leads
//! to the gateway. Packets between pods pass the machine, which forwards on these interfaces only. Namespaces (of
//! IPC and host name too) are kept by files they are mounted on, so that no process need live for a pod to keep them.

mod compile;
mod conntrack;
mod feed;
mod filter;
mod forwarding;
mod netlink;
mod nftables;
mod objects;
mod owner;
mod range;
mod ruleset;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, unshare};
use rustix::mount::{UnmountFlags, mount_bind, unmount};
use sha2::{Digest, Sha256};

use compile::Machine;
pub(crate) use feed::run as keep_rules;
pub use filter::PodNetwork;
use netlink::{Netlink, Route, Scope};
pub(crate) use owner::{Owner, RUN, RunLock, Taken, give_back, instances, taken};
pub(crate) use range::Range;

/// The namespaces that the containers of a pod share, by the names of their files.
const KINDS: [&str; 3] = ["net", "ipc", "uts"];
/// The index of the pod's own interface: the first after the loopback.
const POD_INTERFACE: u32 = 2;
const LOOPBACK: u32 = 1;
/// The longest name of an interface has 15 characters: two of ours, six of the data folder, seven of the pod.
const PREFIX: &str = "st";

/// The network of one data folder.
#[derive(Debug)]
pub(crate) struct Network {
    instance: String,
    range: Range,
    /// Held for as long as this lives: what there is of this instance is in use.
    _held: File,
    /// Folder of the namespaces' files, a folder for each pod.
    namespaces: PathBuf,
    rules: PodNetwork,
}

impl Network {
    /// Takes up the network of a data folder: in its recorded range, in the one asked for, or in one that is free.
    pub(crate) fn open(
        data_dir: &Path,
        asked: Option<Range>,
        recorded: Option<Range>,
        services: Range,
    ) -> io::Result<Self> {
        let instance = instance(data_dir);
        // Of two that choose at the same time the second must see what the first has chosen.
        let lock = RunLock::take()?;
        crate::leftover::sweep_gone(&lock, &instance);
        let netlink = Netlink::open()?;
        // Routes of the loopback are those of other clusters' Services, which this one can have too.
        if let Some((network, prefix)) = services.clash(&netlink.networks_beyond(LOOPBACK)?) {
            return Err(io::Error::other(format!(
                "{services}, the range of Services, overlaps {network}/{prefix}, a network of this machine; choose another"
            )));
        }
        let mut networks = netlink.networks()?;
        networks.push((services.block().network, services.block().prefix));
        let range = match (asked, recorded) {
            // With pods about, the range is the machine's already.
            (None, Some(range)) => range,
            (Some(range), recorded) if recorded == Some(range) => range,
            (Some(range), _) => match range.clash(&networks) {
                None => range,
                Some((network, prefix)) => {
                    return Err(io::Error::other(format!(
                        "{range}, the range of pods, overlaps {network}/{prefix}, a network of this machine or its Services; choose another"
                    )));
                }
            },
            (None, None) => {
                let hash = u32::from_str_radix(&instance, 16).map_err(io::Error::other)?;
                Range::choose(hash, &networks).ok_or_else(|| {
                    io::Error::other(
                        "every range of 10.0.0.0/8 is in use on this machine; name one",
                    )
                })?
            }
        };
        let namespaces = Path::new(RUN).join(&instance);
        fs::create_dir_all(&namespaces)?;
        // Before anything is taken: what a crash leaves has an owner.
        let owner = Owner {
            data_dir: data_dir.to_owned(),
            gateway: range.gateway(),
            pid: std::process::id(),
        };
        let held = owner.hold(&namespaces)?;
        // Answers on the gateway's address even before there is a pod.
        let label = owner::label(&instance);
        netlink.add_address(LOOPBACK, range.gateway(), 32, Some(&label))?;
        let rules = PodNetwork::new(Machine {
            interfaces: format!("{PREFIX}{instance}"),
            gateway: range.gateway(),
            pods: range.block(),
            services: services.block(),
            opened: Vec::new(),
            instance: instance.clone(),
        });
        Ok(Self {
            instance,
            range,
            _held: held,
            namespaces,
            rules,
        })
    }

    /// The network for whoever keeps its rules.
    pub(crate) fn rules(&self) -> PodNetwork {
        self.rules.clone()
    }

    pub(crate) fn range(&self) -> Range {
        self.range
    }

    /// The folder of a pod's namespaces.
    pub(crate) fn namespaces(&self, uid: &str) -> PathBuf {
        self.namespaces.join(uid)
    }

    /// The folder of a pod's cgroups, below each hierarchy.
    pub(crate) fn cgroup(&self, uid: &str) -> String {
        format!("stead/{}/{uid}", self.instance)
    }

    /// Makes the namespaces of a pod, with its interface unless it uses the machine's network. What is there stays.
    pub(crate) fn attach(&self, uid: &str, address: Option<Ipv4Addr>) -> io::Result<()> {
        let folder = self.namespaces(uid);
        if is_namespace(&folder.join("uts")) {
            return Ok(());
        }
        self.detach(uid)?;
        fs::create_dir_all(&folder)?;
        let made = make_namespaces(&folder).and_then(|inside| match address {
            Some(address) => self.connect(uid, address, &folder, &inside),
            None => Ok(()),
        });
        let made = made.and_then(|()| match address {
            Some(address) => self.rules.place(uid, address),
            None => Ok(()),
        });
        if made.is_err() {
            self.detach(uid)?;
        }
        made
    }

    fn connect(
        &self,
        uid: &str,
        address: Ipv4Addr,
        folder: &Path,
        inside: &Netlink,
    ) -> io::Result<()> {
        let name = self.interface(uid);
        let gateway = self.range.gateway();
        let namespace = File::open(folder.join("net"))?;
        let outside = Netlink::open()?;
        outside.add_pair(&name, "eth0", POD_INTERFACE, Some(namespace.as_fd()))?;
        let index = outside
            .index(&name)?
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        outside.add_address(index, gateway, 32, None)?;
        outside.add_route(Route {
            to: (address, 32),
            interface: index,
            gateway: None,
            source: Some(gateway),
            scope: Scope::Link,
        })?;
        // Packets with another's address do not come in; the API, on the machine's loopback, can be reached.
        for setting in ["forwarding", "rp_filter", "route_localnet"] {
            fs::write(format!("/proc/sys/net/ipv4/conf/{name}/{setting}"), "1")?;
        }
        inside.set_up(LOOPBACK)?;
        inside.set_up(POD_INTERFACE)?;
        inside.add_address(POD_INTERFACE, address, 32, None)?;
        inside.add_route(Route {
            to: (gateway, 32),
            interface: POD_INTERFACE,
            gateway: None,
            source: None,
            scope: Scope::Link,
        })?;
        inside.add_route(Route {
            to: (Ipv4Addr::UNSPECIFIED, 0),
            interface: POD_INTERFACE,
            gateway: Some(gateway),
            source: None,
            scope: Scope::Everywhere,
        })
    }

    /// Gives back whatever there is of a pod's namespaces and interfaces.
    pub(crate) fn detach(&self, uid: &str) -> io::Result<()> {
        self.rules.leave(uid);
        Netlink::open()?.delete(&self.interface(uid))?;
        remove_namespaces(&self.namespaces(uid))
    }

    /// Gives back what belongs to no pod that is known: what a crash left.
    pub(crate) fn sweep(&self, known: &BTreeSet<String>) -> io::Result<()> {
        let wanted: BTreeSet<String> = known.iter().map(|uid| self.interface(uid)).collect();
        owner::sweep(&self.instance, known, &wanted)
    }

    /// Gives back all that the network has of the machine. To be called when no pod lives any more.
    pub(crate) fn close(&self) -> io::Result<()> {
        self.rules.close()?;
        let lock = RunLock::take()?;
        give_back(&lock, &self.instance)
    }

    fn interface(&self, uid: &str) -> String {
        format!("{PREFIX}{}{}", self.instance, digits(uid.as_bytes(), 7))
    }
}

/// Whether interfaces can be made in the network namespace of the caller: makes a pair, which goes with the namespace.
pub(crate) fn try_out() -> io::Result<()> {
    let netlink = Netlink::open()?;
    netlink.add_pair("stead0", "stead1", POD_INTERFACE + 1, None)?;
    netlink.set_up(LOOPBACK)
}

/// Six digits that stand for a data folder.
pub(crate) fn instance(data_dir: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    digits(data_dir.as_os_str().as_bytes(), 6)
}

fn digits(bytes: &[u8], count: usize) -> String {
    let hash = Sha256::digest(bytes);
    hash.iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .take(count)
        .filter_map(|digit| char::from_digit(u32::from(digit), 16))
        .collect()
}

/// Makes new namespaces and mounts them on files; the connection is to the new network.
fn make_namespaces(folder: &Path) -> io::Result<Netlink> {
    let folder = folder.to_owned();
    let work = move || -> io::Result<Netlink> {
        let kinds = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS;
        unshare(kinds)?;
        for kind in KINDS {
            let file = folder.join(kind);
            fs::write(&file, b"")?;
            mount_bind(format!("/proc/thread-self/ns/{kind}"), &file)?;
        }
        Netlink::open()
    };
    // Only this thread changes its namespaces, and it ends with that: no other work ever runs on it.
    std::thread::Builder::new()
        .name("pod-namespaces".to_owned())
        .spawn(work)?
        .join()
        .map_err(|_| io::Error::other("the thread that made the namespaces panicked"))?
}

fn remove_namespaces(folder: &Path) -> io::Result<()> {
    for kind in KINDS {
        let file = folder.join(kind);
        match unmount(&file, UnmountFlags::DETACH) {
            // Not there, or not mounted.
            Ok(()) | Err(rustix::io::Errno::NOENT | rustix::io::Errno::INVAL) => {}
            Err(other) => return Err(other.into()),
        }
        match fs::remove_file(&file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    remove_folder(folder)
}

fn remove_folder(folder: &Path) -> io::Result<()> {
    match fs::remove_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Whether a namespace is mounted on this file. After the machine was started anew there may be a file without one.
fn is_namespace(file: &Path) -> bool {
    const NSFS: u64 = 0x6e73_6673;
    // The type of the field differs between architectures.
    rustix::fs::statfs(file).is_ok_and(|stat| u64::try_from(stat.f_type) == Ok(NSFS))
}
