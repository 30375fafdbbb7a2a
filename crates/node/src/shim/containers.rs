//! The containers tier: mount and PID namespaces of the container's own, network, IPC and host name of its pod, and
//! a cgroup. Needs root with the right to mount.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns, unshare};

use crate::cgroup::Cgroup;
use crate::network;
use crate::runtime::{Order, Processes, RecordDir};
use crate::sys::OneThread;

use super::launch::{
    Launched, Side, StartFailure, begin_session, cgroup, fork_gated, make_streams, record_first,
};
use super::program::{DEFAULT_PATH, Program};
use super::view::View;

/// The namespaces that are the container's own.
const OWN: CloneFlags = CloneFlags::CLONE_NEWNS.union(CloneFlags::CLONE_NEWPID);

/// Starts the container's program.
pub(super) fn launch(order: &Order, dir: &RecordDir) -> Result<Launched, StartFailure> {
    fs::create_dir_all(dir.layer())?;
    let program = program(order)?;
    let namespaces = pod_namespaces(order)?;
    let cgroup = make_cgroup(order)?;
    let (streams, child) = make_streams(order)?;
    let alone = OneThread::prove()?;
    match fork_gated(alone, join_processes(order)?)? {
        Side::Child(mut gate) => {
            gate.pass();
            let entered = begin_session()
                .and_then(|()| enter(order, &dir.layer(), &namespaces, &cgroup))
                .and_then(|()| child.take_over(order.spec.tty));
            let sentence = match entered {
                Ok(()) => program.run(),
                Err(sentence) => sentence,
            };
            gate.fail(&sentence)
        }
        Side::Parent(keeper) => {
            drop(child);
            cgroup.add(keeper.pid)?;
            record_first(order, dir, keeper.pid, &streams)?;
            Ok(Launched {
                pid: keeper.open()?,
                streams,
            })
        }
    }
}

/// The program of this order, as it is seen from inside.
pub(super) fn program(order: &Order) -> Result<Program, StartFailure> {
    let spec = &order.spec;
    let user = spec.user.unwrap_or(0);
    let capabilities = super::capabilities::wanted(
        spec.privileged,
        &spec.add_capabilities,
        &spec.drop_capabilities,
    );
    let mut program = Program {
        filter: super::launch::filter(order, &capabilities)?,
        image_groups: spec.confinement.image_groups,
        argv: spec.argv.clone(),
        env: spec.env.clone(),
        cwd: spec.cwd.clone().unwrap_or_else(|| PathBuf::from("/")),
        user: Some(user),
        group: Some(spec.group.unwrap_or_else(|| super::users::group_of(user))),
        groups: Some(spec.groups.clone()),
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
    program.default_variable("HOME", &super::users::home_of(user));
    Ok(program)
}

/// The namespaces to make for the container. Where its processes are to be among others', the caller's next child is.
fn join_processes(order: &Order) -> Result<CloneFlags, StartFailure> {
    match &order.place.processes {
        Processes::Own => Ok(OWN),
        Processes::Machine => Ok(CloneFlags::CLONE_NEWNS),
        Processes::Of(other) => {
            let other = other.open(&order.boot)?.ok_or_else(|| {
                StartFailure("the process whose namespace it is to join has ended".to_owned())
            })?;
            setns(other, CloneFlags::CLONE_NEWPID)
                .map_err(|error| StartFailure(format!("join the processes of the pod: {error}")))?;
            Ok(CloneFlags::CLONE_NEWNS)
        }
    }
}

/// Joins a running container: its cgroup first, while that can be seen.
pub(super) fn join(order: &Order, init: &OwnedFd) -> io::Result<()> {
    if let Some(cgroup) = cgroup(order) {
        cgroup.add(std::process::id())?;
    }
    let mut namespaces =
        OWN | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWCGROUP;
    if !order.place.host_network {
        namespaces |= CloneFlags::CLONE_NEWNET;
    }
    Ok(setns(init, namespaces)?)
}

/// Goes the whole way to a container but for its program: what stands in the way, if anything does.
pub(super) fn try_out(order: &Order, layer: &Path) -> Result<(), StartFailure> {
    let cgroup = make_cgroup(order)?;
    let tried = try_out_in(order, layer, &cgroup);
    cgroup.remove();
    if let Some(pod) = &order.place.cgroup {
        crate::cgroup::remove_pod(pod);
    }
    tried
}

fn try_out_in(order: &Order, layer: &Path, cgroup: &Cgroup) -> Result<(), StartFailure> {
    let pod = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS;
    match fork_gated(OneThread::prove()?, OWN | pod)? {
        Side::Child(mut gate) => {
            gate.pass();
            let tried = network::try_out()
                .map_err(|error| format!("make a pair of network interfaces: {error}"))
                .and_then(|()| enter(order, layer, &[], cgroup));
            match tried {
                Ok(()) => std::process::exit(0),
                Err(sentence) => gate.fail(&sentence),
            }
        }
        Side::Parent(keeper) => {
            cgroup.add(keeper.pid)?;
            keeper.open().map(|_| ())
        }
    }
}

fn make_cgroup(order: &Order) -> Result<Cgroup, StartFailure> {
    let Some(cgroup) = cgroup(order) else {
        return Err(StartFailure("this machine has no cgroups".to_owned()));
    };
    match cgroup.make(&order.spec, order.place.settings.pids_limit) {
        Ok(()) => Ok(cgroup),
        Err(error) => {
            cgroup.remove();
            Err(StartFailure(format!("make a cgroup: {error}")))
        }
    }
}

/// The namespaces of the pod, opened while their files can be seen.
fn pod_namespaces(order: &Order) -> Result<Vec<(OwnedFd, CloneFlags)>, StartFailure> {
    let Some(folder) = &order.place.namespaces else {
        return Err(StartFailure("the pod has no namespaces".to_owned()));
    };
    let mut kinds = vec![("uts", CloneFlags::CLONE_NEWUTS)];
    if !order.place.settings.host_ipc {
        kinds.push(("ipc", CloneFlags::CLONE_NEWIPC));
    }
    if !order.place.host_network {
        kinds.push(("net", CloneFlags::CLONE_NEWNET));
    }
    kinds
        .into_iter()
        .map(|(name, kind)| {
            let path = folder.join(name);
            let file = File::open(&path)
                .map_err(|error| StartFailure(format!("open {}: {error}", path.display())))?;
            Ok((file.into(), kind))
        })
        .collect()
}

/// Joins the pod, and makes the container's view of the machine.
fn enter(
    order: &Order,
    layer: &Path,
    namespaces: &[(OwnedFd, CloneFlags)],
    cgroup: &Cgroup,
) -> Result<(), String> {
    for (fd, kind) in namespaces {
        setns(fd, *kind).map_err(|error| format!("join the namespaces of the pod: {error}"))?;
    }
    for (name, value) in &order.place.settings.sysctls {
        // Of the namespaces that the pod has just been joined to.
        let file = Path::new("/proc/sys").join(name.replace('.', "/"));
        fs::write(file, value).map_err(|error| format!("set sysctl {name} to {value}: {error}"))?;
    }
    unshare(CloneFlags::CLONE_NEWCGROUP)
        .map_err(|error| format!("make a cgroup namespace: {error}"))?;
    View {
        unprivileged: false,
        root: true,
        cgroups: &cgroup.places(),
    }
    .enter(order, layer)
}
