//! The folder of one container: what the daemon orders and what its shim tells, file by file.
//!
//! ```text
//! order.json   the daemon's order, written before the shim starts
//! shim.json    which shim holds it; made once, by link: of two shims only one can win
//! first.json   the first process, written before its program runs
//! state.json   what is true of it, for the daemon
//! layer/       its private files, gone when it is forgotten
//! shim.log     what the shim has to say about itself
//! attach       the socket at which the shim takes attachers
//! ```
//!
//! Every file is written beside and renamed. Only the end of a container is synced: a machine that lost its power
//! has no processes left, and the boot's identity says so.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::process::ProcessMark;
use super::{ContainerId, ContainerSpec, ContainerState, LogLimits, PodSettings, Tier};

/// The variable by which a process of a pod is known in the processes tier.
pub(crate) const POD_VARIABLE: &str = "STEAD_POD_UID";
/// The variable by which a process of one container is known: `<container>.<attempt>`.
pub(crate) const CONTAINER_VARIABLE: &str = "STEAD_CONTAINER";

/// What the daemon tells a shim.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Order {
    /// Given to the shim on its command line too: a shim of an older order of this name goes away.
    pub(crate) number: String,
    /// The boot in which it was given.
    pub(crate) boot: String,
    /// How to launch it.
    pub(crate) tier: Tier,
    /// What to launch.
    pub(crate) spec: ContainerSpec,
    /// Where it lives.
    pub(crate) place: Place,
    /// How large its log may grow.
    #[serde(default)]
    pub(crate) log: LogLimits,
}

/// The machine's side of a pod: files and namespaces that its containers share.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Place {
    /// Short host name.
    pub(crate) hostname: String,
    /// Its /etc/hosts, kept by the daemon.
    pub(crate) hosts: PathBuf,
    /// Its /etc/hostname.
    pub(crate) hostname_file: PathBuf,
    /// Its /etc/resolv.conf, unless the machine's own is to be seen.
    pub(crate) resolv_conf: Option<PathBuf>,
    /// Folder with the namespaces `net`, `ipc` and `uts` of the pod, where it has its own.
    pub(crate) namespaces: Option<PathBuf>,
    /// The pod shares the machine's network.
    pub(crate) host_network: bool,
    /// Folder of the pod's cgroups, below each hierarchy's root.
    pub(crate) cgroup: Option<String>,
    /// What no container may see of the machine: Stead's own data folder.
    pub(crate) hidden: Vec<PathBuf>,
    /// What the pod's containers share, and what holds for all of them together.
    #[serde(default)]
    pub(crate) settings: PodSettings,
    /// Whose processes the container sees.
    #[serde(default)]
    pub(crate) processes: Processes,
}

/// Which PID namespace a container is in.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Processes {
    /// One of its own, of which its first process is the first.
    #[default]
    Own,
    /// The machine's.
    Machine,
    /// That of this process: the pod's keeper, or another container's first.
    Of(ProcessMark),
}

/// The first process of a container, and how what it leaves behind is recognised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct First {
    /// The process; PID 1 of its own namespace in the upper two tiers, so that its death is the death of all.
    pub(crate) process: ProcessMark,
    /// Inode numbers of the pipes that carry its output: who still holds one descends from it.
    pub(crate) pipes: Vec<u64>,
}

/// Who holds a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "holder")]
pub(crate) enum Holder {
    /// A shim.
    Shim(ProcessMark),
    /// Nobody ever will: the order was taken back before a shim had taken it.
    Nobody,
}

/// The folder of one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RecordDir(PathBuf);

impl RecordDir {
    /// The folder of this container below the folder of all.
    pub(crate) fn of(containers: &Path, id: &ContainerId) -> Self {
        Self(
            containers
                .join(&id.pod_uid)
                .join(format!("{}.{}", id.container, id.attempt)),
        )
    }

    /// A folder that is already known.
    pub(crate) fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// The container's private files.
    pub(crate) fn layer(&self) -> PathBuf {
        self.0.join("layer")
    }

    /// The socket at which its shim takes attachers.
    pub(crate) fn attach_socket() -> &'static str {
        "attach"
    }

    /// Where the shim writes about itself.
    pub(crate) fn shim_log(&self) -> PathBuf {
        self.0.join("shim.log")
    }

    pub(crate) fn order(&self) -> io::Result<Option<Order>> {
        self.read("order.json")
    }

    pub(crate) fn write_order(&self, order: &Order) -> io::Result<()> {
        self.write("order.json", order, Durable::No)
    }

    pub(crate) fn holder(&self) -> io::Result<Option<Holder>> {
        self.read("shim.json")
    }

    /// Takes the container for a holder; `false` when another has it.
    pub(crate) fn claim(&self, holder: &Holder) -> io::Result<bool> {
        let temporary = self.0.join(format!("shim.json.{}", std::process::id()));
        fs::write(&temporary, to_json(holder)?)?;
        let linked = fs::hard_link(&temporary, self.0.join("shim.json"));
        fs::remove_file(&temporary)?;
        match linked {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn first(&self) -> io::Result<Option<First>> {
        self.read("first.json")
    }

    pub(crate) fn write_first(&self, first: &First) -> io::Result<()> {
        self.write("first.json", first, Durable::No)
    }

    pub(crate) fn state(&self) -> io::Result<Option<ContainerState>> {
        self.read("state.json")
    }

    /// Writes what is true now; what is final is on the disk when this returns.
    pub(crate) fn write_state(&self, state: &ContainerState) -> io::Result<()> {
        let durable = if is_final(state) {
            Durable::Yes
        } else {
            Durable::No
        };
        self.write("state.json", state, durable)
    }

    /// Takes the folder away into the trash, in one step; `None` when it is gone already.
    pub(crate) fn discard(&self, trash: &Path) -> io::Result<Option<PathBuf>> {
        fs::create_dir_all(trash)?;
        let number = jiff::Timestamp::now().as_nanosecond();
        let away = trash.join(format!("{number}-{}", std::process::id()));
        match fs::rename(&self.0, &away) {
            Ok(()) => Ok(Some(away)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> io::Result<Option<T>> {
        read_json(&self.0.join(name))
    }

    fn write<T: Serialize>(&self, name: &str, value: &T, durable: Durable) -> io::Result<()> {
        write_json(&self.0.join(name), value, durable)
    }
}

/// Whether nothing more can happen to a container in this state.
pub(crate) fn is_final(state: &ContainerState) -> bool {
    match state {
        ContainerState::Created | ContainerState::Running { .. } => false,
        ContainerState::Exited { .. } | ContainerState::Failed { .. } => true,
    }
}

/// Whether a file must be on the disk when its write returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durable {
    Yes,
    No,
}

/// Reads a file of ours: `None` when it is missing, or when a power cut left it empty.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Ok(bytes) if bytes.is_empty() => Ok(None),
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{}: {error}", path.display()),
            )
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes a file of ours beside its place and renames it.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T, durable: Durable) -> io::Result<()> {
    replace(path, &to_json(value)?, durable)
}

/// As [`write_json`], for what need not outlive a power cut.
pub(crate) fn replace_json<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    write_json(path, value, Durable::No)
}

/// Writes bytes beside their place and renames them.
pub(crate) fn replace(path: &Path, bytes: &[u8], durable: Durable) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}", std::process::id()));
    let temporary = PathBuf::from(temporary);
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    if durable == Durable::Yes {
        file.sync_all()?;
    }
    drop(file);
    fs::rename(&temporary, path)?;
    if durable == Durable::Yes
        && let Some(parent) = path.parent()
    {
        File::open(parent)?.sync_all()?;
    }
    Ok(())
}

/// Treats a missing file as removed.
pub(crate) fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Removes a folder that was discarded, whatever modes a program has given to its folders.
pub(crate) fn remove_discarded(path: &Path) -> io::Result<()> {
    make_removable(path);
    ignore_missing(fs::remove_dir_all(path))
}

/// A program may have taken its own right to remove from its folders; the owner takes it back.
fn make_removable(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return;
    };
    if !metadata.is_dir() {
        return;
    }
    if metadata.permissions().mode() & 0o700 != 0o700 {
        // When this is refused the removal that follows tells why.
        let _ = fs::set_permissions(path, fs::Permissions::from_mode(0o700));
    }
    let Ok(entries) = fs::read_dir(path) else {
        return;
    };
    for entry in entries.flatten() {
        make_removable(&entry.path());
    }
}

fn to_json<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(io::Error::other)
}
