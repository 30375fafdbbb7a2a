//! `stead version` and `stead completions`.

use std::process::ExitCode;

use clap::CommandFactory;

use crate::args::Args;

/// Prints the version of Stead and of the Kubernetes API that it serves.
pub(crate) fn run() -> ExitCode {
    println!("stead {} (Kubernetes API 1.36)", env!("CARGO_PKG_VERSION"));
    ExitCode::SUCCESS
}

/// Prints the completion script of a shell.
pub(crate) fn completions(shell: clap_complete::Shell) -> ExitCode {
    clap_complete::generate(shell, &mut Args::command(), "stead", &mut std::io::stdout());
    ExitCode::SUCCESS
}
