//! The stead binary: the only composition root. Nothing may depend on it.

mod api;
mod args;
mod commands;
mod failure;
mod host_dns;
mod live;
mod manifest;
mod picture;
mod place;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Args, Command};
use crate::failure::Failure;

fn main() -> ExitCode {
    // The shim must be single-threaded: it is told apart before a runtime, a logger or a parser exists.
    let mut words = std::env::args_os();
    if words.nth(1).is_some_and(|word| word == "shim") {
        return stead_node::shim_main(words);
    }
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return usage(&error),
    };
    match run(args) {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}

/// clap's own answer: help and version go to standard output and are no failure.
fn usage(error: &clap::Error) -> ExitCode {
    // Nothing is left to tell when the terminal itself cannot be written to.
    let _ = error.print();
    if error.use_stderr() {
        ExitCode::from(failure::EXIT_USAGE)
    } else {
        ExitCode::SUCCESS
    }
}

/// What the parts of Stead note down goes to standard error; `STEAD_LOG=debug` tells more, warnings are always told.
fn start_log() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("STEAD_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    let colour = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(colour)
        .with_writer(std::io::stderr)
        .init();
}

fn run(args: Args) -> Result<ExitCode, Failure> {
    start_log();
    // Every client and server here is rustls with ring; a second installation cannot happen.
    rustls::crypto::ring::default_provider()
        .install_default()
        .ok();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|source| Failure::system("start the asynchronous runtime", source))?;
    let place = place::Place::choose(args.data_dir.clone())?;
    let done = runtime.block_on(dispatch(args.command, &place));
    // Watches and forwarded streams may still hang in the background; they hold nothing that must be finished.
    runtime.shutdown_background();
    done
}

async fn dispatch(command: Command, place: &place::Place) -> Result<ExitCode, Failure> {
    use commands as c;
    match command {
        Command::Up(args) => c::up::run(args, place).await,
        Command::Down(args) => c::down::run(args, place).await,
        Command::Status(args) => c::status::run(args, place).await,
        Command::Apply(args) => c::apply::run(args, place).await,
        Command::Get(args) => c::get::run(args, place).await,
        Command::Scale(args) => c::scale::run(args, place).await,
        Command::Delete(args) => c::delete::run(args, place).await,
        Command::Logs(args) => c::logs::run(args, place).await,
        Command::Exec(args) => c::exec::run(args, place).await,
        Command::Attach(args) => c::attach::run(args, place).await,
        Command::PortForward(args) => c::port_forward::run(args, place).await,
        Command::Kubeconfig(args) => c::kubeconfig::run(&args, place),
        Command::Image { command } => c::image::run(command, place).await,
        Command::Dns(args) => c::dns::run(args, place).await,
        Command::Cleanup(args) => c::cleanup::run(&args, place),
        Command::Apiserver(args) => c::apiserver::run(args, place).await,
        Command::Version => Ok(c::version::run()),
        Command::Completions { shell } => Ok(c::version::completions(shell)),
    }
}
