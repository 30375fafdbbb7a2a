//! The rootless tier: a user, mount, PID, IPC and UTS namespace a container, made without any privilege.
//!
//! The first process is PID 1 of its namespace and a child of the shim. The kernel ends it when the shim ends, and
//! with it everything in the namespace. An ordinary user has one user and one group in there: its own, under the
//! numbers that the pod asks for. Root, where it may, has all of them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::sched::CloneFlags;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount_change, unmount};

use crate::runtime::{Order, RecordDir, Root};
use crate::sys::OneThread;

use super::inside;
use super::launch::{Launched, Side, StartFailure, fork_gated, make_streams, record_first};
use super::mounts;
use super::program::{DEFAULT_PATH, Program};
use super::rootfs::{HostRoot, Target};

/// The namespaces of a container.
pub(super) const NAMESPACES: CloneFlags = CloneFlags::CLONE_NEWUSER
    .union(CloneFlags::CLONE_NEWNS)
    .union(CloneFlags::CLONE_NEWPID)
    .union(CloneFlags::CLONE_NEWIPC)
    .union(CloneFlags::CLONE_NEWUTS);

/// Devices of the machine that every container has.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
/// Links in /dev, as in every container.
const DEVICE_LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Starts the container's program.
pub(super) fn launch(order: &Order, dir: &RecordDir) -> Result<Launched, StartFailure> {
    fs::create_dir_all(dir.layer())?;
    let program = program(order);
    let (stdout, stderr, streams) = make_streams()?;
    match fork_gated(OneThread::prove()?, NAMESPACES)? {
        Side::Child(mut gate) => {
            gate.pass();
            let sentence = match enter(order, &dir.layer()) {
                Ok(()) => match streams.take_their_place() {
                    Ok(()) => program.run(),
                    Err(error) => format!("set up standard streams: {error}"),
                },
                Err(sentence) => sentence,
            };
            gate.fail(&sentence)
        }
        Side::Parent(keeper) => {
            drop(streams);
            map_users(keeper.pid, &order_users(order))?;
            record_first(order, dir, keeper.pid, &[&stdout, &stderr])?;
            Ok(Launched {
                pid: keeper.open()?,
                stdout,
                stderr,
            })
        }
    }
}

/// Goes the whole way to a container but for its program: what stands in the way, if anything does.
pub(super) fn try_out(order: &Order, layer: &Path) -> Result<(), StartFailure> {
    match fork_gated(OneThread::prove()?, NAMESPACES)? {
        Side::Child(mut gate) => {
            gate.pass();
            match enter(order, layer) {
                Ok(()) => std::process::exit(0),
                Err(sentence) => gate.fail(&sentence),
            }
        }
        Side::Parent(keeper) => {
            map_users(keeper.pid, &order_users(order))
                .map_err(|error| StartFailure(format!("map users: {error}")))?;
            keeper.open().map(|_| ())
        }
    }
}

/// The program of this order, as it is seen from inside.
pub(super) fn program(order: &Order) -> Program {
    let spec = &order.spec;
    let users = order_users(order);
    let own = !users.all;
    let mut program = Program {
        argv: spec.argv.clone(),
        env: spec.env.clone(),
        cwd: spec.cwd.clone().unwrap_or_else(|| PathBuf::from("/")),
        // The only user of the namespace is the one that is wanted.
        user: (!own).then_some(users.user),
        group: (!own).then_some(users.group),
        groups: (!own).then(|| spec.groups.clone()),
        no_new_privileges: spec.no_new_privileges,
        dies_with_parent: true,
        capabilities: Some(super::capabilities::wanted(
            false,
            &[],
            &spec.drop_capabilities,
        )),
    };
    program.default_variable("PATH", DEFAULT_PATH);
    program.default_variable("HOSTNAME", &order.place.hostname);
    program.default_variable("HOME", &super::users::home_of(users.user));
    program
}

/// Whom the container runs as, and how that is mapped.
struct Users {
    user: u32,
    group: u32,
    /// Every user of the machine is one inside, under the same number.
    all: bool,
}

fn order_users(order: &Order) -> Users {
    let caller = rustix::process::geteuid();
    let spec = &order.spec;
    let user = spec.user.unwrap_or(caller.as_raw());
    let group = match (spec.group, spec.user) {
        (Some(group), _) => group,
        (None, Some(user)) if user != caller.as_raw() => super::users::group_of(user),
        (None, Some(_) | None) => rustix::process::getegid().as_raw(),
    };
    Users {
        user,
        group,
        all: caller.is_root(),
    }
}

/// upstream: user_namespaces(7). Without privilege exactly one line may be written, and no groups be set.
fn map_users(pid: u32, users: &Users) -> io::Result<()> {
    let proc = PathBuf::from(format!("/proc/{pid}"));
    if users.all {
        let everyone = "0 0 4294967295";
        fs::write(proc.join("uid_map"), everyone)?;
        return fs::write(proc.join("gid_map"), everyone);
    }
    fs::write(proc.join("setgroups"), "deny")?;
    let uid = rustix::process::geteuid().as_raw();
    let gid = rustix::process::getegid().as_raw();
    fs::write(proc.join("uid_map"), format!("{} {uid} 1", users.user))?;
    fs::write(proc.join("gid_map"), format!("{} {gid} 1", users.group))
}

/// Makes the container's view of the machine and changes into it.
fn enter(order: &Order, layer: &Path) -> Result<(), String> {
    let told = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
    rustix::process::setsid().map_err(|errno| told("start a session")(errno.into()))?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).map_err(|errno| told("keep mounts private")(errno.into()))?;
    let root = make_root(order, layer)?;
    make_kernel_folders(&root)?;
    mount_files(order, &root)?;
    rustix::system::sethostname(order.place.hostname.as_bytes())
        .map_err(|errno| told("set the host name")(errno.into()))?;
    change_root(&root).map_err(told("change into the root folder"))
}

fn make_root(order: &Order, layer: &Path) -> Result<PathBuf, String> {
    match &order.spec.root {
        Root::Host => {}
        Root::Layers(_) => return Err("images are not built into this program".to_owned()),
    }
    let targets: Vec<Target> = order
        .spec
        .mounts
        .iter()
        .map(|mount| (mount.source.clone(), mount.target.clone()))
        .chain(pod_files(order))
        .map(|(source, path)| Target {
            path,
            is_dir: source.is_dir(),
        })
        .collect();
    HostRoot {
        layer,
        hidden: &order.place.hidden,
        targets: &targets,
        unprivileged: true,
        read_only: order.spec.read_only_root,
    }
    .make()
    .map_err(|error| format!("make the root folder from the machine's own: {error}"))
}

/// The files of the pod that lie over the machine's: source and place.
pub(super) fn pod_files(order: &Order) -> Vec<(PathBuf, PathBuf)> {
    let place = &order.place;
    let mut files = vec![
        (place.hosts.clone(), PathBuf::from("/etc/hosts")),
        (place.hostname_file.clone(), PathBuf::from("/etc/hostname")),
    ];
    if let Some(resolv_conf) = &place.resolv_conf {
        files.push((resolv_conf.clone(), PathBuf::from("/etc/resolv.conf")));
    }
    // What the pod mounts itself wins.
    files.retain(|(_, target)| {
        !order
            .spec
            .mounts
            .iter()
            .any(|mount| mount.target == *target)
    });
    files
}

/// /proc, /sys and /dev.
fn make_kernel_folders(root: &Path) -> Result<(), String> {
    let safe = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mounts::make_up("proc", &root.join("proc"), safe, "")
        .map_err(|error| format!("mount /proc: {error}"))?;
    // Some machines have parts of it covered; then it stays away.
    let _ = mounts::bind(Path::new("/sys"), &root.join("sys"), true);
    make_devices(&root.join("dev")).map_err(|error| format!("make /dev: {error}"))
}

fn make_devices(dev: &Path) -> io::Result<()> {
    mounts::make_up("tmpfs", dev, MountFlags::NOSUID, "mode=755,size=64k")?;
    for name in DEVICES {
        let place = dev.join(name);
        fs::write(&place, b"")?;
        mounts::bind(&Path::new("/dev").join(name), &place, false)?;
    }
    for (name, target) in DEVICE_LINKS {
        std::os::unix::fs::symlink(target, dev.join(name))?;
    }
    for name in ["pts", "shm", "mqueue"] {
        fs::create_dir(dev.join(name))?;
    }
    let quiet = MountFlags::NOSUID | MountFlags::NOEXEC;
    mounts::make_up(
        "devpts",
        &dev.join("pts"),
        quiet,
        "newinstance,ptmxmode=0666,mode=0620",
    )?;
    let safe = quiet | MountFlags::NODEV;
    mounts::make_up("tmpfs", &dev.join("shm"), safe, "mode=1777,size=64m")?;
    mounts::make_up("mqueue", &dev.join("mqueue"), safe, "")
}

/// The pod's own files and the container's mounts, in order.
fn mount_files(order: &Order, root: &Path) -> Result<(), String> {
    for (source, target) in pod_files(order) {
        inside::bind(root, &source, &target, false)
            .map_err(|error| format!("mount {}: {error}", target.display()))?;
    }
    for mount in &order.spec.mounts {
        inside::bind(root, &mount.source, &mount.target, mount.read_only).map_err(|error| {
            format!(
                "mount {} at {}: {error}",
                mount.source.display(),
                mount.target.display()
            )
        })?;
    }
    Ok(())
}

/// upstream: pivot_root(2), "pivot_root(".", ".")": the old root lies over the new one until it is let go.
fn change_root(root: &Path) -> io::Result<()> {
    rustix::process::chdir(root)?;
    rustix::process::pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    Ok(rustix::process::chdir("/")?)
}
