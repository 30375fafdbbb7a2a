//! Who has what of this machine's network: told by names in the kernel and one small file, whatever became of the owner.
//!
//! All of one data folder bears its instance's six digits: folders of namespaces, interfaces, cgroups, and labels of
//! addresses. So it can be listed and given back when neither the daemon nor its data folder is there any more.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::runtime::{read_json, replace_json};

use super::netlink::Netlink;
use super::{LOOPBACK, PREFIX, filter, forwarding, is_namespace, remove_folder, remove_namespaces};

/// Where namespaces are kept, a folder for each instance. It is empty when the machine is started anew.
pub(crate) const RUN: &str = "/run/stead";
/// How many digits an instance has.
const DIGITS: usize = 6;
/// The file that says whose a folder of [`RUN`] is.
const FILE: &str = "owner.json";

/// Held while somebody takes a range or gives one back: of two at the same time, the second sees what the first did.
#[derive(Debug)]
pub(crate) struct RunLock(#[expect(dead_code, reason = "held, never read")] File);

impl RunLock {
    /// Waits for it.
    pub(crate) fn take() -> io::Result<Self> {
        fs::create_dir_all(RUN)?;
        let file = File::create(Path::new(RUN).join("lock"))?;
        file.lock()?;
        Ok(Self(file))
    }
}

/// Whose an instance is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Owner {
    /// The data folder, by its true path.
    pub(crate) data_dir: PathBuf,
    /// The machine's own address in the range of its pods.
    pub(crate) gateway: Ipv4Addr,
    /// The process that wrote this.
    pub(crate) pid: u32,
}

impl Owner {
    /// The owner of an instance; `None` for a folder that an older version made.
    pub(crate) fn of(instance: &str) -> Option<Self> {
        read_json(&Path::new(RUN).join(instance).join(FILE)).ok()?
    }

    /// Writes it down, and holds the file for as long as what is returned lives: who lives needs no other proof.
    pub(super) fn hold(&self, folder: &Path) -> io::Result<File> {
        let path = folder.join(FILE);
        replace_json(&path, self)?;
        let file = File::open(path)?;
        file.lock_shared()?;
        Ok(file)
    }

    /// Whether a process of this machine holds the file now.
    pub(crate) fn is_held(instance: &str) -> bool {
        let file = File::open(Path::new(RUN).join(instance).join(FILE));
        file.is_ok_and(|file| matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock)))
    }
}

/// One thing of this machine that an instance has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Taken {
    /// A network interface, by name.
    Link(String),
    /// An address on the loopback.
    Address(Ipv4Addr),
    /// A file on which a namespace is mounted.
    Namespace(PathBuf),
    /// A cgroup, relative to its hierarchies.
    Cgroup(PathBuf),
    /// A table of the packet filter, by name.
    Table(String),
    /// An interface of the machine's own that forwards since we asked, by name.
    Forwarding(String),
    /// A folder for namespaces.
    Folder(PathBuf),
}

/// Every instance that has something of this machine.
pub(crate) fn instances() -> io::Result<BTreeSet<String>> {
    let mut found: BTreeSet<String> = entries(Path::new(RUN))
        .iter()
        .filter(|path| path.is_dir())
        .filter_map(|path| path.file_name()?.to_str().map(str::to_owned))
        .collect();
    found.extend(crate::cgroup::instances());
    let netlink = Netlink::open()?;
    let of_link = |name: String| name.strip_prefix(PREFIX)?.get(..DIGITS).map(str::to_owned);
    // Another program's interface may begin with the same letters; ours have 13 digits behind them.
    let ours = |name: &String| name.len() == PREFIX.len() + DIGITS + 7;
    found.extend(
        netlink
            .names()?
            .into_iter()
            .filter(ours)
            .filter_map(of_link),
    );
    let of_label = |(text, _): (String, _)| text.strip_prefix(&label("")).map(str::to_owned);
    found.extend(netlink.labelled()?.into_iter().filter_map(of_label));
    found.extend(filter::instances());
    found.retain(|name| is_instance(name));
    Ok(found)
}

fn is_instance(name: &str) -> bool {
    let digit = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    name.len() == DIGITS && name.chars().all(digit)
}

/// All that an instance has of this machine.
pub(crate) fn taken(instance: &str) -> io::Result<Vec<Taken>> {
    let netlink = Netlink::open()?;
    let mut all: Vec<Taken> = links(&netlink, instance)?
        .into_iter()
        .map(Taken::Link)
        .collect();
    all.extend(
        addresses(&netlink, instance)?
            .into_iter()
            .map(Taken::Address),
    );
    let tables = filter::instances().into_iter();
    let tables = tables.filter(|own| own == instance);
    all.extend(tables.map(|own| Taken::Table(filter::table(&own))));
    let opened = forwarding::opened(instance).into_iter();
    all.extend(opened.map(Taken::Forwarding));
    let folder = Path::new(RUN).join(instance);
    for pod in entries(&folder) {
        let files = entries(&pod).into_iter().filter(|file| is_namespace(file));
        all.extend(files.map(Taken::Namespace));
    }
    all.extend(
        crate::cgroup::of_instance(instance)
            .into_iter()
            .map(Taken::Cgroup),
    );
    all.extend(folder.exists().then_some(Taken::Folder(folder)));
    Ok(all)
}

/// Gives back what belongs to none of the known pods, whose interfaces are `wanted`.
pub(super) fn sweep(
    instance: &str,
    known: &BTreeSet<String>,
    wanted: &BTreeSet<String>,
) -> io::Result<()> {
    for entry in entries(&Path::new(RUN).join(instance)) {
        let name = entry.file_name().and_then(|name| name.to_str());
        if entry.is_dir() && !name.is_some_and(|uid| known.contains(uid)) {
            remove_namespaces(&entry)?;
        }
    }
    crate::cgroup::sweep(&format!("stead/{instance}"), known);
    let netlink = Netlink::open()?;
    for name in links(&netlink, instance)? {
        if !wanted.contains(&name) {
            netlink.delete(&name)?;
        }
    }
    Ok(())
}

/// Gives back all that an instance has of this machine. To be called when none of its pods lives any more.
pub(crate) fn give_back(lock: &RunLock, instance: &str) -> io::Result<()> {
    filter::remove_table(instance)?;
    forwarding::close(lock, instance)?;
    sweep(instance, &BTreeSet::new(), &BTreeSet::new())?;
    crate::cgroup::remove_instance(instance);
    let netlink = Netlink::open()?;
    for address in addresses(&netlink, instance)? {
        netlink.remove_address(LOOPBACK, address, 32)?;
    }
    // Last: until here it is known whose the rest is.
    let folder = Path::new(RUN).join(instance);
    match fs::remove_file(folder.join(FILE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    remove_folder(&folder)
}

/// The label of an instance's address on the loopback.
pub(super) fn label(instance: &str) -> String {
    format!("lo:{PREFIX}{instance}")
}

fn links(netlink: &Netlink, instance: &str) -> io::Result<Vec<String>> {
    let ours = format!("{PREFIX}{instance}");
    let mut names = netlink.names()?;
    names.retain(|name| name.starts_with(&ours) && name.len() == ours.len() + 7);
    Ok(names)
}

/// The address with this instance's label, and the one that its owner says it took.
fn addresses(netlink: &Netlink, instance: &str) -> io::Result<BTreeSet<Ipv4Addr>> {
    let own = label(instance);
    let claimed = Owner::of(instance).map(|owner| owner.gateway);
    // An address from before there were labels has the plain name of its interface.
    let fits =
        |text: &str, address: Ipv4Addr| text == own || (text == "lo" && claimed == Some(address));
    Ok(netlink
        .labelled()?
        .into_iter()
        .filter(|(text, address)| fits(text, *address))
        .map(|(_, address)| address)
        .collect())
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    paths.sort();
    paths
}
