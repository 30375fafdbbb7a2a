//! What Stead still has of this machine: whose it is, who holds it, and giving back what nobody holds.
//!
//! A thing is held while a daemon has the data folder's lock, the network of that folder is in use, or a shim of it
//! lives; of those nothing is touched. All else is processes without a shim, mounts, namespaces, interfaces, addresses and cgroups: the next start
//! makes them anew, so that giving them back never costs data. Files of a data folder are not looked at here.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::mount::{UnmountFlags, unmount};
use rustix::process::Signal;

use crate::network::{self, Owner, RunLock, Taken};
use crate::runtime::orphans::{self, Orphan};
use crate::runtime::{ProcessMark, all_pids, boot_id};

/// How often processes are ended and looked for again before one that does not end is told.
const KILL_ROUNDS: usize = 10;
/// How long a process that was killed is waited for in one round.
const PATIENCE: Duration = Duration::from_secs(1);

/// All that one data folder has of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Estate {
    /// Six digits that stand for the data folder in the names of what it has.
    pub instance: String,
    /// The data folder; `None` when nobody wrote down whose it is.
    pub data_dir: Option<PathBuf>,
    /// Who holds it now. What is held is not listed and never given back.
    pub holder: Option<Holder>,
    /// What is to be given back, in the order in which it is.
    pub things: Vec<Thing>,
}

impl Estate {
    /// The data folder is gone, so that no next start will sweep.
    #[must_use]
    pub fn is_orphaned(&self) -> bool {
        self.data_dir.as_ref().is_some_and(|dir| !dir.exists())
    }
}

/// Who holds what a data folder has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Holder {
    /// A daemon that has its lock; the PID.
    Daemon(u32),
    /// The shim of a container that lives; the PID.
    Shim(u32),
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Daemon(pid) => write!(f, "the daemon with process {pid}"),
            Self::Shim(pid) => write!(f, "a container's shim, process {pid}"),
        }
    }
}

/// One thing of this machine.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Thing {
    /// A process of a container whose shim has died.
    Process {
        /// Its PID.
        pid: u32,
        /// Its name, as the kernel has it.
        name: String,
    },
    /// Something mounted in the data folder.
    Mount(PathBuf),
    /// A network interface.
    Link(String),
    /// An address on the loopback.
    Address(Ipv4Addr),
    /// A namespace kept by a mount.
    Namespace(PathBuf),
    /// A cgroup, relative to the hierarchies that it is in.
    Cgroup(PathBuf),
    /// A table of the packet filter.
    Table(String),
    /// An interface of the machine's own that forwards since we asked.
    Forwarding(String),
    /// A folder below /run.
    Folder(PathBuf),
}

impl fmt::Display for Thing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process { pid, name } => write!(f, "process {pid} ({name})"),
            Self::Mount(path) => write!(f, "mount {}", path.display()),
            Self::Link(name) => write!(f, "interface {name}"),
            Self::Address(address) => write!(f, "address {address} on lo"),
            Self::Namespace(path) => write!(f, "namespace {}", path.display()),
            Self::Cgroup(path) => write!(f, "cgroup {}", path.display()),
            Self::Table(name) => write!(f, "table ip {name} of the packet filter"),
            Self::Forwarding(name) => write!(f, "forwarding by interface {name}"),
            Self::Folder(path) => write!(f, "folder {}", path.display()),
        }
    }
}

impl From<Taken> for Thing {
    fn from(taken: Taken) -> Self {
        match taken {
            Taken::Link(name) => Self::Link(name),
            Taken::Address(address) => Self::Address(address),
            Taken::Namespace(path) => Self::Namespace(path),
            Taken::Cgroup(path) => Self::Cgroup(path),
            Taken::Table(name) => Self::Table(name),
            Taken::Forwarding(name) => Self::Forwarding(name),
            Taken::Folder(path) => Self::Folder(path),
        }
    }
}

/// Why something was not listed or not given back.
#[derive(Debug, thiserror::Error)]
pub enum LeftoverError {
    /// The machine did not tell.
    #[error("could not look for what Stead has of this machine; root sees all of it")]
    Look(#[source] io::Error),
    /// The machine did not take it.
    #[error("could not give back {what}; root may, and a second try does no harm")]
    GiveBack {
        /// What.
        what: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A process does not end.
    #[error("process {pid} does not end, even killed: it hangs in the kernel; try again later")]
    Stuck {
        /// Which.
        pid: u32,
    },
}

/// Every estate on this machine, and those of these data folders; estates without a thing and a holder are left out.
///
/// # Errors
/// [`LeftoverError::Look`] when the kernel cannot be asked.
pub fn estates(data_dirs: &[PathBuf]) -> Result<Vec<Estate>, LeftoverError> {
    let look = || -> io::Result<Vec<Estate>> {
        let mut owners: BTreeMap<String, Option<PathBuf>> = network::instances()?
            .into_iter()
            .map(|instance| {
                let dir = Owner::of(&instance).map(|owner| owner.data_dir);
                (instance, dir)
            })
            .collect();
        for dir in data_dirs {
            let dir = dir.canonicalize().unwrap_or_else(|_| dir.clone());
            owners.insert(network::instance(&dir), Some(dir));
        }
        let holders = holders()?;
        let mut all = Vec::new();
        for (instance, data_dir) in owners {
            all.push(estate(instance, data_dir, &holders)?);
        }
        all.retain(|estate| estate.holder.is_some() || !estate.things.is_empty());
        Ok(all)
    };
    look().map_err(LeftoverError::Look)
}

/// Gives back what this data folder, or whatever bore this instance, has of the machine. Does nothing to what is held
/// by now, which is told.
///
/// # Errors
/// [`LeftoverError`] names what could not be given back; the rest was tried all the same where it could be.
pub fn give_back(estate: &Estate) -> Result<Option<Holder>, LeftoverError> {
    let lock = RunLock::take().map_err(|source| LeftoverError::GiveBack {
        what: format!("anything: {} cannot be locked", network::RUN),
        source,
    })?;
    give_back_locked(&lock, &estate.instance, estate.data_dir.as_deref())
}

/// Gives back what data folders that are gone have left. For the start of another, which goes on whatever comes of it.
pub(crate) fn sweep_gone(lock: &RunLock, starting: &str) {
    let gone: Vec<(String, PathBuf)> = network::instances()
        .unwrap_or_default()
        .into_iter()
        .filter(|instance| instance != starting)
        .filter_map(|instance| {
            let dir = Owner::of(&instance)?.data_dir;
            (!dir.exists()).then_some((instance, dir))
        })
        .collect();
    for (instance, dir) in gone {
        if let Err(error) = give_back_locked(lock, &instance, Some(&dir)) {
            tracing::warn!(dir = %dir.display(), %error, "could not give back what a data folder that is gone has left");
        }
    }
}

fn give_back_locked(
    lock: &RunLock,
    instance: &str,
    data_dir: Option<&Path>,
) -> Result<Option<Holder>, LeftoverError> {
    let looked = holders().map_err(LeftoverError::Look)?;
    if let Some(holder) = holder(instance, data_dir, &looked) {
        return Ok(Some(holder));
    }
    let boot = boot_id().map_err(LeftoverError::Look)?;
    end_processes(instance, data_dir, &boot)?;
    for path in mounts_of(data_dir).map_err(LeftoverError::Look)? {
        unmount(&path, UnmountFlags::DETACH).map_err(|errno| LeftoverError::GiveBack {
            what: Thing::Mount(path).to_string(),
            source: errno.into(),
        })?;
    }
    network::give_back(lock, instance).map_err(|source| LeftoverError::GiveBack {
        what: format!("the network and the cgroups of instance {instance}"),
        source,
    })?;
    Ok(None)
}

fn estate(
    instance: String,
    data_dir: Option<PathBuf>,
    holders: &BTreeMap<String, Holder>,
) -> io::Result<Estate> {
    let holder = holder(&instance, data_dir.as_deref(), holders);
    let things = match holder {
        Some(_) => Vec::new(),
        None => things(&instance, data_dir.as_deref())?,
    };
    Ok(Estate {
        instance,
        data_dir,
        holder,
        things,
    })
}

fn things(instance: &str, data_dir: Option<&Path>) -> io::Result<Vec<Thing>> {
    let boot = boot_id()?;
    let mut pids = crate::cgroup::processes_of(instance);
    for orphan in orphans_of(data_dir, &boot)? {
        pids.extend(orphan.processes(&boot)?);
    }
    let process = |pid| Thing::Process {
        pid,
        name: name_of(pid),
    };
    let mut things: Vec<Thing> = pids.into_iter().map(process).collect();
    things.extend(mounts_of(data_dir)?.into_iter().map(Thing::Mount));
    things.extend(network::taken(instance)?.into_iter().map(Thing::from));
    Ok(things)
}

fn orphans_of(data_dir: Option<&Path>, boot: &str) -> io::Result<Vec<Orphan>> {
    match data_dir {
        Some(dir) => orphans::of(dir, boot),
        None => Ok(Vec::new()),
    }
}

fn name_of(pid: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim_end().to_owned()
}

/// Ends every process that no shim holds; none of them can be held, for nobody holds the estate.
fn end_processes(instance: &str, data_dir: Option<&Path>, boot: &str) -> Result<(), LeftoverError> {
    let failed = |source| LeftoverError::GiveBack {
        what: format!("the processes of instance {instance}"),
        source,
    };
    for orphan in orphans_of(data_dir, boot).map_err(failed)? {
        orphan.end(boot).map_err(failed)?;
    }
    for _ in 0..KILL_ROUNDS {
        let pids = crate::cgroup::processes_of(instance);
        let marks = pids
            .iter()
            .filter_map(|pid| ProcessMark::of(*pid, boot).ok());
        let alive: Vec<ProcessMark> = marks.filter(|mark| mark.is_alive(boot)).collect();
        if alive.is_empty() {
            return Ok(());
        }
        for mark in &alive {
            mark.signal(boot, Signal::KILL).map_err(failed)?;
        }
        for mark in &alive {
            mark.wait(boot, PATIENCE).map_err(failed)?;
        }
    }
    match crate::cgroup::processes_of(instance).first() {
        Some(pid) => Err(LeftoverError::Stuck { pid: *pid }),
        None => Ok(()),
    }
}

/// The folders of a data folder in which we mount. A disk that somebody mounted elsewhere in it, below the volumes, say,
/// is theirs: taken away, its data would seem lost.
const MOUNTED_IN: [&str; 3] = ["node/pods", "node/containers", "node/sandboxes"];

/// What we have mounted in a data folder, as this process sees it, innermost first.
fn mounts_of(data_dir: Option<&Path>) -> io::Result<Vec<PathBuf>> {
    let Some(data_dir) = data_dir else {
        return Ok(Vec::new());
    };
    let mut found = mounts_below(&fs::read("/proc/self/mountinfo")?, data_dir);
    found.reverse();
    Ok(found)
}

/// The mount points of a mountinfo file that are ours in a data folder, in its order: outer ones first.
fn mounts_below(mountinfo: &[u8], folder: &Path) -> Vec<PathBuf> {
    mountinfo
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(4))
        .map(unescaped)
        .filter(|path| {
            MOUNTED_IN
                .iter()
                .any(|own| path.starts_with(folder.join(own)))
        })
        .collect()
}

/// A path of mountinfo: blanks, tabs, newlines and backslashes are written as three octal digits.
fn unescaped(text: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, others)) = rest.split_first() {
        let code = (*first == b'\\').then(|| octal(others)).flatten();
        bytes.push(code.unwrap_or(*first));
        rest = others
            .get(if code.is_some() { 3 } else { 0 }..)
            .unwrap_or_default();
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

fn octal(text: &[u8]) -> Option<u8> {
    u8::from_str_radix(std::str::from_utf8(text.get(..3)?).ok()?, 8).ok()
}

fn holder(
    instance: &str,
    data_dir: Option<&Path>,
    seen: &BTreeMap<String, Holder>,
) -> Option<Holder> {
    let by_lock = || data_dir.and_then(locked_by).map(Holder::Daemon);
    let by_network = || {
        Owner::is_held(instance)
            .then(|| Holder::Daemon(Owner::of(instance).map_or(0, |owner| owner.pid)))
    };
    seen.get(instance)
        .copied()
        .or_else(by_lock)
        .or_else(by_network)
}

/// Who has the lock of a data folder, even where its process cannot be seen: its PID is in the file then, or 0.
fn locked_by(data_dir: &Path) -> Option<u32> {
    let path = data_dir.join("lock");
    let file = fs::File::open(&path).ok()?;
    match file.try_lock_shared() {
        Err(fs::TryLockError::WouldBlock) => {
            let text = fs::read_to_string(path).unwrap_or_default();
            Some(text.trim().parse().unwrap_or(0))
        }
        Ok(()) | Err(fs::TryLockError::Error(_)) => None,
    }
}

/// Who holds which instance, of all processes that can be seen.
fn holders() -> io::Result<BTreeMap<String, Holder>> {
    let own = std::process::id();
    let mut found = BTreeMap::new();
    for pid in all_pids()?.into_iter().filter(|pid| *pid != own) {
        let held = daemon_folders(pid)
            .into_iter()
            .map(|dir| (dir, Holder::Daemon(pid)));
        let kept = shim_folder(pid).map(|dir| (dir, Holder::Shim(pid)));
        for (dir, holder) in held.chain(kept) {
            let known = found.entry(network::instance(&dir)).or_insert(holder);
            // A daemon says more than one of its shims.
            *known = (*known).min(holder);
        }
    }
    Ok(found)
}

/// The folders whose lock this process has open: one, if it is a daemon.
fn daemon_folders(pid: u32) -> BTreeSet<PathBuf> {
    fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|fd| lock_folder(&fs::read_link(fd.path()).ok()?))
        .collect()
}

/// The folder of a lock file, which may be deleted.
fn lock_folder(target: &Path) -> Option<PathBuf> {
    let bytes = target.as_os_str().as_bytes();
    let bytes = bytes.strip_suffix(b" (deleted)").unwrap_or(bytes);
    let folder = Path::new(OsStr::from_bytes(bytes.strip_suffix(b"/lock")?));
    folder.is_absolute().then(|| folder.to_owned())
}

fn shim_folder(pid: u32) -> Option<PathBuf> {
    shim_folder_of(&fs::read(format!("/proc/{pid}/cmdline")).ok()?)
}

/// The data folder of a shim by its command line: `<program> shim <word> <data folder>/node/containers/<pod>/<container> ...`.
fn shim_folder_of(cmdline: &[u8]) -> Option<PathBuf> {
    let mut words = cmdline.split(|byte| *byte == 0).skip(1);
    (words.next()? == b"shim").then_some(())?;
    let record = Path::new(OsStr::from_bytes(words.nth(1)?));
    let node = record.parent()?.parent()?.parent()?;
    record.starts_with(node.join("containers")).then_some(())?;
    node.ends_with("node")
        .then(|| node.parent().map(Path::to_owned))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shim_is_known_by_its_command_line_and_nothing_else_is() {
        let folder = |line: &str| shim_folder_of(line.replace(' ', "\0").as_bytes());
        let data = Some(PathBuf::from("/d/data"));
        assert_eq!(
            folder("/bin/stead shim hold /d/data/node/containers/uid/main.0 17 "),
            data
        );
        assert_eq!(
            folder("/bin/stead shim exec /d/data/node/containers/uid/main.0"),
            data
        );
        for other in [
            "",
            "/bin/stead",
            "/bin/stead shim",
            "/bin/stead shim probe containers /d/data/node/probe",
            "/bin/stead up /d/data/node/containers/uid/main.0 17",
            "vi shim hold /etc/lock",
        ] {
            assert_eq!(folder(other), None, "{other}");
        }
    }

    #[test]
    fn a_lock_is_known_even_when_it_was_deleted() {
        let folder = |text: &str| lock_folder(Path::new(text));
        assert_eq!(folder("/d/data/lock"), Some("/d/data".into()));
        assert_eq!(folder("/d/data/lock (deleted)"), Some("/d/data".into()));
        assert_eq!(folder("/d/data/block"), None);
        assert_eq!(folder("socket:[17]"), None);
    }

    #[test]
    fn mounts_of_ours_are_known_by_whole_names_and_nobody_elses_are_taken() {
        let mountinfo = b"1 0 8:1 / / rw - ext4 /dev/a rw\n\
            2 1 0:5 / /d/data rw - tmpfs t rw\n\
            3 2 0:6 / /d/data/node/pods/a\\040b rw - tmpfs t rw\n\
            4 3 0:7 / /d/data/node/pods/a\\040b/c rw - tmpfs t rw\n\
            5 1 0:8 / /d/data-of-another/node/pods/a rw - tmpfs t rw\n\
            6 2 8:2 / /d/data/node/volumes rw - ext4 /dev/b rw\n\
            7 2 8:3 / /d/data/node/volumes/pvc-1 rw - ext4 /dev/c rw\n";
        let found = mounts_below(mountinfo, Path::new("/d/data"));
        assert_eq!(
            found,
            [
                Path::new("/d/data/node/pods/a b"),
                Path::new("/d/data/node/pods/a b/c")
            ]
        );
        assert_eq!(unescaped(b"/a\\134b\\"), Path::new("/a\\b\\"));
    }
}
