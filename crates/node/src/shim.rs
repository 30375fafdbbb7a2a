//! The hidden subcommand `stead shim`: single-threaded processes that the daemon starts and does not need afterwards.
//!
//! `hold` keeps one container from its start to the proof of its end, `exec` runs one more program in a container,
//! `keep` holds the processes of a pod together, `probe` tries out whether this machine allows a tier. None of them may make a thread: they fork.

mod capabilities;
mod containers;
mod exec;
mod hold;
mod inside;
mod keeper;
mod launch;
mod layers;
pub(crate) mod log;
mod mounts;
mod outputs;
mod probe;
mod processes;
mod program;
mod rootfs;
mod rootless;
mod users;
mod view;

use std::ffi::OsString;
use std::process::ExitCode;

use crate::runtime::RecordDir;

pub(crate) use capabilities::unknown as unknown_capabilities;
pub(crate) use exec::{ExecAnswer, ExecOrder};

/// Runs `stead shim ...`; `args` are the words behind `shim`. To be called before the process has a second thread.
///
/// - `hold <record folder> <order number>` is a container's keeper: it ends when the container has ended.
/// - `exec <record folder>` runs what it is told on its standard input, a socket, in the container's namespaces.
/// - `keep <sandbox folder> <boot>` starts the keeper of a pod whose containers share their processes, and ends.
/// - `probe <tier> <folder>` tries a tier out, says on standard output what stands in the way, and exits with 1.
pub fn shim_main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.collect();
    let words: Vec<&str> = args.iter().filter_map(|word| word.to_str()).collect();
    match (words.as_slice(), args.as_slice()) {
        (["hold", _, number], [_, dir, _]) => told(hold::hold(&RecordDir::at(dir), number)),
        (["exec", _], [_, dir]) => told(exec::exec(&RecordDir::at(dir))),
        (["keep", _, boot], [_, dir, _]) => told(keeper::keep(dir.as_ref(), boot)),
        (["probe", tier, _], [_, _, dir]) => probe::probe(tier, dir.as_ref()),
        _ => {
            eprintln!("stead shim: this is Stead's own helper; it is not to be called by hand");
            ExitCode::from(2)
        }
    }
}

fn told(result: std::io::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{} {error}", log::now());
            ExitCode::FAILURE
        }
    }
}
