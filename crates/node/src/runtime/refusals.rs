//! What a tier cannot honour, said before anything is made. Pure.

use std::collections::BTreeMap;
use std::path::Path;

use crate::shim::unknown_capabilities;

use super::{ContainerSpec, Mount, PodSandbox, RuntimeError, Tier};

/// Where clients look for the API's credentials: mounted into every pod, needed by few. Without mounts it is left
/// out rather than refused.
const CREDENTIALS: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Who starts containers here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Caller {
    /// The effective user.
    pub(super) uid: u32,
    /// The effective group.
    pub(super) gid: u32,
}

impl Caller {
    pub(super) fn current() -> Self {
        Self {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
        }
    }

    fn is_root(self) -> bool {
        self.uid == 0
    }
}

/// The variable that holds the place of a mount where its path cannot be honoured: `STEAD_MOUNT_` and the target
/// path in capitals, every other character an underscore. `/data` is `STEAD_MOUNT_DATA`.
pub(super) fn variable(target: &Path) -> String {
    let path = target.to_string_lossy();
    let name: String = path
        .trim_matches('/')
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_uppercase()
            } else {
                '_'
            }
        })
        .collect();
    format!("STEAD_MOUNT_{name}")
}

/// The variables of all mounts.
pub(super) fn variables(mounts: &[Mount]) -> BTreeMap<String, String> {
    mounts
        .iter()
        .map(|mount| {
            (
                variable(&mount.target),
                mount.source.to_string_lossy().into_owned(),
            )
        })
        .collect()
}

/// Refuses what this tier cannot honour of this pod as a whole.
pub(super) fn check_pod(tier: Tier, pod: &PodSandbox) -> Result<(), RuntimeError> {
    let settings = &pod.settings;
    let own_processes = "each container is proved gone by a PID namespace of its own; use the containers tier, which needs root with the right to mount";
    let kernel = "only the containers tier has a network and a kernel state of the pod's own; it needs root with the right to mount";
    match tier {
        Tier::Containers => Ok(()),
        Tier::Rootless | Tier::Processes if !settings.sysctls.is_empty() => Err(refuse(
            tier,
            format!("sysctl {}", settings.sysctls[0].0),
            kernel,
        )),
        Tier::Rootless if settings.host_pid => Err(refuse(tier, "hostPID", own_processes)),
        Tier::Rootless if settings.shared_pid => {
            Err(refuse(tier, "shareProcessNamespace", own_processes))
        }
        Tier::Rootless if settings.host_ipc => Err(refuse(tier, "hostIPC", kernel)),
        // Plain processes see the machine's processes and memory, and each other's.
        Tier::Rootless | Tier::Processes => Ok(()),
    }
}

/// Refuses what this tier cannot honour of this container.
pub(super) fn check(tier: Tier, caller: Caller, spec: &ContainerSpec) -> Result<(), RuntimeError> {
    check_values(tier, spec)?;
    match tier {
        Tier::Containers => Ok(()),
        Tier::Rootless => {
            check_privileges(tier, spec)?;
            check_target(tier, spec)?;
            check_group_choice(tier, caller, spec)
        }
        Tier::Processes => {
            check_privileges(tier, spec)?;
            check_user(tier, caller, spec)?;
            check_root(tier, spec)?;
            spec.mounts
                .iter()
                .try_for_each(|mount| check_mount(tier, mount, spec))
        }
    }
}

fn check_values(tier: Tier, spec: &ContainerSpec) -> Result<(), RuntimeError> {
    let unknown = unknown_capabilities(spec.add_capabilities.iter().chain(&spec.drop_capabilities));
    if let Some(name) = unknown.first() {
        return Err(refuse(
            tier,
            format!("capability {name}"),
            "no kernel has a capability of this name",
        ));
    }
    if spec.argv.is_empty() {
        return Err(refuse(
            tier,
            "a container without a command",
            "the image names no program; give the container a command",
        ));
    }
    Ok(())
}

fn check_target(tier: Tier, spec: &ContainerSpec) -> Result<(), RuntimeError> {
    match &spec.confinement.target {
        Some(target) => Err(refuse(
            tier,
            format!("a container among the processes of container {target}"),
            "each container has a PID namespace of its own; leave targetContainerName out or use the containers tier",
        )),
        None => Ok(()),
    }
}

fn check_privileges(tier: Tier, spec: &ContainerSpec) -> Result<(), RuntimeError> {
    if spec.privileged {
        return Err(refuse(
            tier,
            "a privileged container",
            "only the containers tier can give privileges; it needs root with the right to mount",
        ));
    }
    if let Some(name) = spec.add_capabilities.first() {
        return Err(refuse(
            tier,
            format!("capability {name}"),
            "only the containers tier can give capabilities; it needs root with the right to mount",
        ));
    }
    Ok(())
}

fn check_user(tier: Tier, caller: Caller, spec: &ContainerSpec) -> Result<(), RuntimeError> {
    let foreign_user = spec.user.filter(|user| *user != caller.uid);
    let foreign_group = spec.group.filter(|group| *group != caller.gid);
    let others = !spec.groups.is_empty() && spec.groups != [caller.gid];
    if caller.is_root() || (foreign_user.is_none() && foreign_group.is_none() && !others) {
        return Ok(());
    }
    let what = match (foreign_user, foreign_group) {
        (Some(user), _) => format!("runAsUser {user}"),
        (None, Some(group)) => format!("runAsGroup {group}"),
        (None, None) => format!("supplementary groups {:?}", spec.groups),
    };
    Err(refuse(
        tier,
        what,
        format!(
            "Stead runs as user {} and cannot become another; leave it out or run Stead as root",
            caller.uid
        ),
    ))
}

/// One user and one group of the machine can be mapped, to whatever numbers the pod asks for; more cannot.
fn check_group_choice(
    tier: Tier,
    caller: Caller,
    spec: &ContainerSpec,
) -> Result<(), RuntimeError> {
    let own = spec.group.unwrap_or(caller.gid);
    match spec.groups.iter().find(|group| **group != own) {
        Some(group) if !caller.is_root() => Err(refuse(
            tier,
            format!("supplementary group {group}"),
            "an ordinary user's namespace has one group only; leave it out or run Stead as root",
        )),
        Some(_) | None => Ok(()),
    }
}

fn check_root(tier: Tier, spec: &ContainerSpec) -> Result<(), RuntimeError> {
    if spec.read_only_root {
        return Err(refuse(
            tier,
            "a read-only root file system",
            "a plain process has the machine's own; use a machine that allows user namespaces",
        ));
    }
    match &spec.root {
        super::Root::Host => Ok(()),
        super::Root::Layers(_) => Err(refuse(
            tier,
            "an image",
            "a plain process has the machine's own file system; use the image stead.dev/host",
        )),
    }
}

fn check_mount(tier: Tier, mount: &Mount, spec: &ContainerSpec) -> Result<(), RuntimeError> {
    let variable = variable(&mount.target);
    let honoured = mount.source == mount.target
        || mount.target.starts_with(CREDENTIALS)
        || spec.termination_message.as_ref() == Some(&mount.source)
        || reads_its_place(spec, &variable, mount);
    if honoured {
        return Ok(());
    }
    Err(refuse(
        tier,
        format!("a mount at {}", mount.target.display()),
        format!(
            "a plain process has no file system of its own; let the container read its place from ${variable}, or use a machine that allows user namespaces"
        ),
    ))
}

/// Whether the command or a variable names the mount's variable, or its place where `$(VAR)` was expanded.
fn reads_its_place(spec: &ContainerSpec, variable: &str, mount: &Mount) -> bool {
    let place = mount.source.to_string_lossy();
    let names_it = |text: &String| text.contains(variable) || text.contains(place.as_ref());
    spec.argv.iter().any(names_it)
        || spec
            .env
            .iter()
            .filter(|(name, _)| !name.starts_with("STEAD_MOUNT_"))
            .any(|(_, value)| names_it(value))
}

fn refuse(tier: Tier, what: impl Into<String>, why: impl Into<String>) -> RuntimeError {
    RuntimeError::Unsupported {
        what: what.into(),
        tier,
        why: why.into(),
    }
}
