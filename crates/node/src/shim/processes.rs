//! The processes tier: the container is a plain child of its shim, known by variables in its environment.

use std::path::PathBuf;

use nix::sched::CloneFlags;

use crate::runtime::{CONTAINER_VARIABLE, Order, POD_VARIABLE, RecordDir};
use crate::sys::OneThread;

use super::launch::{
    Launched, Side, StartFailure, begin_session, fork_gated, make_streams, record_first,
};
use super::program::{DEFAULT_PATH, Program};

/// Starts the container's program.
pub(super) fn launch(order: &Order, dir: &RecordDir) -> Result<Launched, StartFailure> {
    let program = program(order)?;
    let (streams, child) = make_streams(order)?;
    match fork_gated(OneThread::prove()?, CloneFlags::empty())? {
        Side::Child(mut gate) => {
            gate.pass();
            let sentence = match begin_session().and_then(|()| child.take_over(order.spec.tty)) {
                Ok(()) => program.run(),
                Err(sentence) => sentence,
            };
            gate.fail(&sentence)
        }
        Side::Parent(keeper) => {
            drop(child);
            record_first(order, dir, keeper.pid, &streams)?;
            Ok(Launched {
                pid: keeper.open()?,
                streams,
            })
        }
    }
}

/// The program of this order, with the variables that this tier adds.
pub(super) fn program(order: &Order) -> Result<Program, StartFailure> {
    let spec = &order.spec;
    let is_root = rustix::process::geteuid().is_root();
    let filter = super::launch::filter(order, &[])?;
    let changes_user = spec.user.is_some() || spec.group.is_some() || !spec.groups.is_empty();
    let mut program = Program {
        argv: spec.argv.clone(),
        env: spec.env.clone(),
        cwd: spec.cwd.clone().unwrap_or_else(|| PathBuf::from("/")),
        user: spec.user,
        group: spec.group.or(spec.user.map(super::users::group_of)),
        groups: (changes_user && is_root).then(|| spec.groups.clone()),
        // The kernel lets an ordinary user set a filter only where nothing can gain rights afterwards.
        no_new_privileges: spec.no_new_privileges || (filter.is_some() && !is_root),
        filter,
        image_groups: false,
        makes_cwd: false,
        dies_with_parent: true,
        capabilities: None,
    };
    program.default_variable("PATH", DEFAULT_PATH);
    if spec.tty {
        program.default_variable("TERM", "xterm");
    }
    program.default_variable("HOSTNAME", &order.place.hostname);
    let uid = spec
        .user
        .unwrap_or_else(|| rustix::process::geteuid().as_raw());
    program.default_variable("HOME", &super::users::home_of(uid));
    program.default_variable("STEAD_HOSTS", &order.place.hosts.to_string_lossy());
    mark(&mut program, order);
    Ok(program)
}

/// Marks a program as one of this container, so that it is found again when its shim is gone.
pub(super) fn mark(program: &mut Program, order: &Order) {
    let id = &order.spec.id;
    program
        .env
        .retain(|(name, _)| name != POD_VARIABLE && name != CONTAINER_VARIABLE);
    program
        .env
        .push((POD_VARIABLE.to_owned(), id.pod_uid.clone()));
    program.env.push((
        CONTAINER_VARIABLE.to_owned(),
        format!("{}.{}", id.container, id.attempt),
    ));
}
