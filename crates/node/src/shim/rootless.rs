//! The rootless tier: a user, mount, PID, IPC and UTS namespace a container, made without any privilege.
//!
//! The first process is PID 1 of its namespace and a child of the shim. The kernel ends it when the shim ends, and
//! with it everything in the namespace. An ordinary user has one user and one group in there: its own, under the
//! numbers that the pod asks for. Root, where it may, has all of them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::sched::CloneFlags;

use crate::runtime::{Order, RecordDir};
use crate::sys::OneThread;

use super::launch::{
    Launched, Side, StartFailure, begin_session, fork_gated, make_streams, record_first,
};
use super::program::{DEFAULT_PATH, Program};
use super::view::View;

/// The namespaces of a container.
pub(super) const NAMESPACES: CloneFlags = CloneFlags::CLONE_NEWUSER
    .union(CloneFlags::CLONE_NEWNS)
    .union(CloneFlags::CLONE_NEWPID)
    .union(CloneFlags::CLONE_NEWIPC)
    .union(CloneFlags::CLONE_NEWUTS);

/// Starts the container's program.
pub(super) fn launch(order: &Order, dir: &RecordDir) -> Result<Launched, StartFailure> {
    fs::create_dir_all(dir.layer())?;
    let program = program(order)?;
    let view = view(order);
    let (streams, child) = make_streams(order)?;
    match fork_gated(OneThread::prove()?, NAMESPACES)? {
        Side::Child(mut gate) => {
            gate.pass();
            let entered = begin_session().and_then(|()| view.enter(order, &dir.layer()));
            let sentence = match entered.and_then(|()| child.take_over(order.spec.tty)) {
                Ok(()) => program.run(),
                Err(sentence) => sentence,
            };
            gate.fail(&sentence)
        }
        Side::Parent(keeper) => {
            drop(child);
            map_users(keeper.pid, &order_users(order))?;
            record_first(order, dir, keeper.pid, &streams)?;
            Ok(Launched {
                pid: keeper.open()?,
                streams,
            })
        }
    }
}

/// Goes the whole way to a container but for its program: what stands in the way, if anything does.
pub(super) fn try_out(order: &Order, layer: &Path) -> Result<(), StartFailure> {
    let view = view(order);
    match fork_gated(OneThread::prove()?, NAMESPACES)? {
        Side::Child(mut gate) => {
            gate.pass();
            match view.enter(order, layer) {
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
pub(super) fn program(order: &Order) -> Result<Program, StartFailure> {
    let spec = &order.spec;
    let users = order_users(order);
    let own = !users.all;
    let capabilities = super::capabilities::wanted(false, &[], &spec.drop_capabilities);
    let mut program = Program {
        filter: super::launch::filter(order, &capabilities)?,
        image_groups: spec.confinement.image_groups,
        argv: spec.argv.clone(),
        env: spec.env.clone(),
        cwd: spec.cwd.clone().unwrap_or_else(|| PathBuf::from("/")),
        // The only user of the namespace is the one that is wanted.
        user: (!own).then_some(users.user),
        group: (!own).then_some(users.group),
        groups: (!own).then(|| spec.groups.clone()),
        no_new_privileges: spec.no_new_privileges,
        makes_cwd: true,
        dies_with_parent: true,
        capabilities: Some(capabilities),
    };
    program.default_variable("PATH", DEFAULT_PATH);
    if spec.tty {
        program.default_variable("TERM", "xterm");
    }
    program.default_variable("HOSTNAME", &order.place.hostname);
    program.default_variable("HOME", &super::users::home_of(users.user));
    Ok(program)
}

/// What the container sees. Asked for outside of the namespace, where users are those of the machine.
fn view(order: &Order) -> View<'static> {
    View {
        unprivileged: true,
        root: order_users(order).all,
        cgroups: &[],
    }
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
