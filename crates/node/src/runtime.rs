//! What a tier can do: the one trait between the pod worker and the machine.
//!
//! A pod is prepared (address, names), its containers are started, watched, signalled and stopped, and the pod is
//! released once every process that it held is proved gone. Each container is held by a shim, a process of its own
//! that outlives the daemon: everything here can be asked again after a restart and answers from disk and kernel.

mod addresses;
mod attach;
mod dial;
mod exec;
pub(crate) mod frames;
mod keeper;
pub(crate) mod layers;
mod local;
pub(crate) mod marks;
mod names;
mod open;
pub(crate) mod orphans;
mod process;
mod record;
mod refusals;
mod watcher;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use futures::FutureExt;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

pub use crate::network::PodNetwork;
pub(crate) use keeper::write as write_keeper;
pub use open::{RuntimeOptions, TierReport, choose, open, probe};
pub(crate) use process::{ProcessMark, all_pids, boot_id, raw_pid};
pub(crate) use record::{
    CONTAINER_VARIABLE, First, Holder, Order, POD_VARIABLE, Place, Processes, RecordDir, read_json,
    replace_json,
};

/// The file below the folder of all containers that every shim touches when a container has changed.
pub(crate) const CHANGES_FILE: &str = ".changed";

/// How much of a pod the machine lets us honour. Chosen by probing, said in one line at the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// Plain supervised processes; nothing is isolated.
    Processes,
    /// A user, mount and PID namespace per pod; real mount paths, no network of its own.
    Rootless,
    /// Mount, PID, IPC, UTS and network namespaces, a cgroup, an overlay root.
    Containers,
}

/// Which container of which pod, and which life of it. `attempt` counts restarts from 0.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerId {
    /// `metadata.uid` of the pod. Never its name: names come back, UIDs do not.
    pub pod_uid: String,
    /// The container's name within the pod.
    pub container: String,
    /// 0 for the first start, one more for each restart.
    pub attempt: u32,
}

/// What a pod needs before its first container starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodSandbox {
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// Short host name inside the pod.
    pub hostname: String,
    /// `<subdomain>.<namespace>.svc.<cluster domain>`, when the pod has a subdomain.
    pub domain: Option<String>,
    /// `spec.hostNetwork`.
    pub host_network: bool,
    /// Lines for the pod's /etc/resolv.conf; `None` keeps the machine's own.
    pub resolv_conf: Option<String>,
    /// `spec.hostAliases`, as (address, names).
    pub host_aliases: Vec<(String, Vec<String>)>,
    /// What its containers share, and what holds for all of them together.
    #[serde(default)]
    pub settings: PodSettings,
}

/// What the containers of a pod share with each other and with the machine, and what holds for all of them together.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSettings {
    /// `spec.hostPID`.
    pub host_pid: bool,
    /// `spec.hostIPC`.
    pub host_ipc: bool,
    /// `spec.shareProcessNamespace`.
    pub shared_pid: bool,
    /// `securityContext.sysctls`, names with dots.
    pub sysctls: Vec<(String, String)>,
    /// How many processes and threads the pod may have at once; `None` is as many as the machine.
    pub pids_limit: Option<u64>,
    /// The host name that programs see, where it is another than the pod's short one (`setHostnameAsFQDN`).
    pub kernel_hostname: Option<String>,
}

impl PodSandbox {
    /// The host name that programs in the pod see. upstream: with the machine's network it is the machine's.
    pub(crate) fn kernel_hostname(&self) -> String {
        let machines = || {
            let name = rustix::system::uname();
            name.nodename().to_string_lossy().into_owned()
        };
        match &self.settings.kernel_hostname {
            _ if self.host_network => machines(),
            Some(full) => full.clone(),
            None => self.hostname.clone(),
        }
    }
}

/// Which system calls a container may make.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Seccomp {
    /// Every one.
    #[default]
    Unconfined,
    /// Those of this program's own profile.
    RuntimeDefault,
    /// Those of this profile: its text, JSON as the OCI runtime specification has it.
    Profile(String),
}

/// How a container is confined, beyond its users and capabilities.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Confinement {
    /// Which system calls it may make.
    pub seccomp: Seccomp,
    /// Its user also has the groups that the image's `/etc/group` gives it (`supplementalGroupsPolicy: Merge`).
    pub image_groups: bool,
    /// The container whose processes it sees (`targetContainerName` of an ephemeral container).
    pub target: Option<String>,
}

/// One mount of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mount {
    /// Folder or file on the machine.
    pub source: PathBuf,
    /// Absolute path inside the container.
    pub target: PathBuf,
    /// Mounted read-only.
    pub read_only: bool,
    /// The volume that `source` is a place of (`subPath`): nothing outside of it is ever mounted, whatever links a
    /// container makes meanwhile.
    #[serde(default)]
    pub within: Option<PathBuf>,
}

/// Where a container's root file system comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Root {
    /// The image `stead.dev/host`: the machine's own file system below, a private layer above.
    Host,
    /// Unpacked layers of an image, lowest first.
    Layers(Vec<PathBuf>),
}

/// Everything needed to start one container. Written to disk for the shim before it is started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerSpec {
    /// Whose start this is.
    pub id: ContainerId,
    /// Namespace and name of the pod, for messages and process titles only.
    pub pod: String,
    /// Root file system.
    pub root: Root,
    /// Program and arguments, already expanded.
    pub argv: Vec<String>,
    /// The whole environment, in order.
    pub env: Vec<(String, String)>,
    /// Working directory inside the container; `None` is the image's own, or `/`.
    pub cwd: Option<PathBuf>,
    /// Numeric user, when the pod asks for one.
    pub user: Option<u32>,
    /// Numeric group, when the pod asks for one.
    pub group: Option<u32>,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Mounts, in the order in which they are made.
    pub mounts: Vec<Mount>,
    /// `securityContext.readOnlyRootFilesystem`.
    pub read_only_root: bool,
    /// `securityContext.privileged`.
    pub privileged: bool,
    /// `securityContext.capabilities.add`, without the `CAP_` prefix.
    pub add_capabilities: Vec<String>,
    /// `securityContext.capabilities.drop`; may hold `ALL`.
    pub drop_capabilities: Vec<String>,
    /// `securityContext.allowPrivilegeEscalation: false`.
    pub no_new_privileges: bool,
    /// How it is confined beyond that.
    #[serde(default)]
    pub confinement: Confinement,
    /// Memory limit in bytes.
    pub memory_limit: Option<u64>,
    /// CPU limit in thousandths of a core.
    pub cpu_limit_millis: Option<u64>,
    /// CPU request in thousandths of a core (becomes shares or weight).
    pub cpu_request_millis: Option<u64>,
    /// `stdin: true`: the container's standard input stays open for attach.
    pub stdin: bool,
    /// `stdinOnce: true`: standard input ends with the first attach that had it.
    #[serde(default)]
    pub stdin_once: bool,
    /// `tty: true`.
    pub tty: bool,
    /// The log file of this attempt, in CRI format, written by the shim alone.
    pub log_path: PathBuf,
    /// File on the machine that becomes the termination message; mounted at the container's `terminationMessagePath`.
    pub termination_message: Option<PathBuf>,
}

/// How large the log of one life of a container may grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogLimits {
    /// Bytes of one file at most; a longer log goes on in the next. upstream: `containerLogMaxSize`.
    pub max_bytes: u64,
    /// Files at most, with the one that is written; at least 2. upstream: `containerLogMaxFiles`.
    pub max_files: u32,
}

impl Default for LogLimits {
    /// As the kubelet's: 10 MiB, 5 files.
    fn default() -> Self {
        Self {
            max_bytes: 10 << 20,
            max_files: 5,
        }
    }
}

/// What is true of one container now. Times are RFC 3339 with nanoseconds, as the shim noted them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "state")]
pub enum ContainerState {
    /// A shim holds it; its process has not started yet.
    Created,
    /// Its first process runs.
    #[serde(rename_all = "camelCase")]
    Running {
        /// Process id in the machine's PID namespace.
        pid: u32,
        /// When it started.
        started_at: String,
    },
    /// Its first process ended, and every process it left behind is proved gone.
    #[serde(rename_all = "camelCase")]
    Exited {
        /// Exit code; 128 + signal when a signal ended it.
        code: i32,
        /// The signal that ended it.
        signal: Option<i32>,
        /// The kernel ended it for want of memory.
        oom: bool,
        /// When it started.
        started_at: String,
        /// When it ended.
        finished_at: String,
    },
    /// It could not be started: the reason is the status reason (`StartError`, `CreateContainerError`, ...).
    #[serde(rename_all = "camelCase")]
    Failed {
        /// Short reason in CamelCase, the kubelet's words where it has one.
        reason: String,
        /// What was tried and what the system said.
        message: String,
        /// Exit code as the kubelet reports it (127, 128, ...).
        code: i32,
    },
}

/// A container that the runtime knows, with the spec it was started from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerRecord {
    /// Which.
    pub id: ContainerId,
    /// What is true of it.
    pub state: ContainerState,
    /// It was started before the machine was started anew.
    pub former_boot: bool,
}

/// A prepared pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodPlace {
    /// The pod's own address: routed in the containers tier, from 127.0.0.0/8 in the lower two.
    pub ip: IpAddr,
}

/// A program to run inside a running container.
#[derive(Debug, Clone)]
pub struct ExecRequest {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Whether standard input is wanted.
    pub stdin: bool,
    /// Whether a terminal is wanted.
    pub tty: bool,
}

/// A running exec, or an attach: its streams and its end. Dropping it kills the program of an exec; an attach only
/// lets go.
pub struct ExecSession {
    /// Standard input, when asked for. Dropping it closes it.
    pub stdin: Option<Box<dyn tokio::io::AsyncWrite + Send + Unpin>>,
    /// Standard output; with a terminal, everything.
    pub stdout: Box<dyn tokio::io::AsyncRead + Send + Unpin>,
    /// Standard error; absent with a terminal.
    pub stderr: Option<Box<dyn tokio::io::AsyncRead + Send + Unpin>>,
    /// The exit code, once. 128 + signal when a signal ended it. Of an attach: 0 when the container has ended.
    pub exit: BoxFuture<'static, Result<i32, RuntimeError>>,
    /// Window sizes (columns, rows) for a terminal.
    pub resize: Option<tokio::sync::mpsc::Sender<(u16, u16)>>,
}

/// What a tier could not do, on what, and why.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The tier does not offer it at all; the pod asks for more than this machine allows.
    #[error("{what} is not possible in the {tier:?} tier: {why}")]
    Unsupported {
        /// What the pod asked for.
        what: String,
        /// The tier in use.
        tier: Tier,
        /// Why, and what would help.
        why: String,
    },
    /// No such container, or it is not running.
    #[error("container {0:?} is not running")]
    NotRunning(ContainerId),
    /// Processes of the pod still live; it cannot be released.
    #[error("pod {uid} is still held by processes {pids:?}")]
    StillHeld {
        /// The pod.
        uid: String,
        /// Who holds it.
        pids: Vec<u32>,
    },
    /// The system said no.
    #[error("could not {what}")]
    System {
        /// What was tried, on what.
        what: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

/// What the pod worker asks of a tier. Every call may be repeated; each says the truth of disk and kernel.
pub trait Runtime: Send + Sync + 'static {
    /// The tier this is.
    fn tier(&self) -> Tier;

    /// Variables to add to every container for each of its mounts: in the processes tier a mount path cannot be
    /// honoured, and the container reads its place from these; empty in the other tiers.
    fn mount_variables(&self, mounts: &[Mount]) -> BTreeMap<String, String>;

    /// Refuses, before anything is made, what this tier cannot honour.
    fn check(&self, spec: &ContainerSpec) -> Result<(), RuntimeError>;

    /// Gives the pod its place. Idempotent by UID: the same pod keeps its address for its whole life.
    fn prepare<'a>(&'a self, pod: &'a PodSandbox) -> BoxFuture<'a, Result<PodPlace, RuntimeError>>;

    /// Starts one container: returns once a shim holds it. How the start itself went is told by [`Runtime::list`].
    fn start<'a>(&'a self, spec: &'a ContainerSpec) -> BoxFuture<'a, Result<(), RuntimeError>>;

    /// Sends a signal to the container's first process.
    fn signal<'a>(
        &'a self,
        id: &'a ContainerId,
        signal: i32,
    ) -> BoxFuture<'a, Result<(), RuntimeError>>;

    /// Ends every process of the container, at once. Returns when none is left.
    fn kill<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, Result<(), RuntimeError>>;

    /// Every container whose record is on disk, whoever started it.
    fn list(&self) -> Result<Vec<ContainerRecord>, RuntimeError>;

    /// Every prepared pod whose record is on disk.
    fn pods(&self) -> Result<Vec<(PodSandbox, PodPlace)>, RuntimeError>;

    /// Wakes whoever waits whenever an answer of [`Runtime::list`] may have changed.
    fn changed(&self) -> tokio::sync::watch::Receiver<u64>;

    /// Runs a program in a running container.
    fn exec<'a>(
        &'a self,
        id: &'a ContainerId,
        exec: &'a ExecRequest,
    ) -> BoxFuture<'a, Result<ExecSession, RuntimeError>>;

    /// Joins the streams of a running container: output from now on, and its standard input where it has one.
    fn attach<'a>(
        &'a self,
        id: &'a ContainerId,
        stdin: bool,
    ) -> BoxFuture<'a, Result<ExecSession, RuntimeError>> {
        let _ = stdin;
        std::future::ready(Err(RuntimeError::NotRunning(id.clone()))).boxed()
    }

    /// Connects to a port of the pod, as a program inside it would to its own localhost; in the lower two tiers to
    /// the pod's loopback address.
    fn dial<'a>(
        &'a self,
        uid: &'a str,
        port: u16,
    ) -> BoxFuture<'a, Result<tokio::net::TcpStream, RuntimeError>> {
        let what = format!("connect to port {port} of pod {uid}");
        let source = std::io::ErrorKind::Unsupported.into();
        std::future::ready(Err(RuntimeError::System { what, source })).boxed()
    }

    /// Returns when this life is over and its log is whole; at once for one that nobody knows.
    fn ended(&self, id: &ContainerId) -> BoxFuture<'static, ()> {
        let _ = id;
        std::future::ready(()).boxed()
    }

    /// Forgets one ended container: its record and its private layer, never its log and never a volume.
    fn forget<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, Result<(), RuntimeError>>;

    /// Gives back the pod's place. Refused with [`RuntimeError::StillHeld`] while any process of it lives.
    fn release<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<(), RuntimeError>>;

    /// The machine's address as pods with a network of their own reach it, where DNS is to answer them; `None` where
    /// pods share the machine's network.
    fn gateway(&self) -> Option<IpAddr> {
        None
    }

    /// The pods' network, whose rules for Services and NetworkPolicies somebody must keep; `None` where pods share the
    /// machine's network.
    fn pod_network(&self) -> Option<PodNetwork> {
        None
    }

    /// Names that containers must be able to resolve where there is no DNS of our own: (address, names).
    /// Kept in each pod's /etc/hosts by the rootless tier; ignored where DNS answers.
    fn set_names<'a>(
        &'a self,
        names: &'a [(IpAddr, Vec<String>)],
    ) -> BoxFuture<'a, Result<(), RuntimeError>>;

    /// Gives back what the tier keeps of the machine between runs: the pods' network and namespaces. Records, logs and
    /// volumes stay, and the next [`open`] takes it all up again. Refused with [`RuntimeError::StillHeld`] while a
    /// container of any pod lives.
    fn close(&self) -> Result<(), RuntimeError> {
        Ok(())
    }
}
