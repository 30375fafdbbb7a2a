//! `cargo xtask bench [start] [memory] [api] [dns] [rollout]`: figures of the release binary, as ratios against something real in the same run.

mod api;
mod daemon;
mod dns;
mod memory;
mod rollout;
mod shims;
mod start;

use std::path::PathBuf;
use std::process::{Command, ExitCode};

/// The benches there are; `rollout-here` is `rollout` with this very build.
const BENCHES: [&str; 6] = ["start", "memory", "api", "dns", "rollout", "rollout-here"];

/// Builds the release binary and runs the benches that are named, or all.
pub(crate) fn run(args: &[String]) -> ExitCode {
    if let Some(ended) = rollout::part(args) {
        return ended;
    }
    match all(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cargo xtask bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn all(args: &[String]) -> Result<(), String> {
    if let Some(unknown) = args.iter().find(|arg| !BENCHES.contains(&arg.as_str())) {
        return Err(format!(
            "there is no bench {unknown:?}; there are {BENCHES:?}"
        ));
    }
    if args == ["rollout-here"] {
        return runtime()?.block_on(rollout::here());
    }
    let wanted = |name: &str| args.is_empty() || args.iter().any(|arg| arg == name);
    if wanted("rollout") {
        rollout::run()?;
    }
    if args == ["rollout"] {
        return Ok(());
    }
    let stead = build()?;
    if wanted("start") {
        start::run(&stead)?;
    }
    if wanted("memory") {
        memory::run(&stead)?;
    }
    if wanted("dns") {
        dns::run(&stead)?;
    }
    if wanted("api") {
        runtime()?.block_on(api::run(&stead))?;
    }
    Ok(())
}

/// A runtime for benches that call the API.
fn runtime() -> Result<tokio::runtime::Runtime, String> {
    // Only a second installation fails, and then there is one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("could not start a runtime: {error}"))
}

/// The release binary, as it is now.
fn build() -> Result<PathBuf, String> {
    let root = crate::root();
    let built = Command::new(env!("CARGO"))
        .args(["build", "--release", "--locked", "-p", "stead-cli"])
        .current_dir(&root)
        .status();
    match built {
        Ok(status) if status.success() => Ok(target_dir(&root).join("release/stead")),
        Ok(status) => Err(format!("the release build ended with {status}")),
        Err(error) => Err(format!("could not run cargo: {error}")),
    }
}

/// Prints one figure: what, how much, and what it is beside.
fn figure(what: &str, value: &str, beside: &str) {
    println!("{what:<44} {value:>14}   {beside}");
}

/// Where cargo builds: `CARGO_TARGET_DIR`, or the workspace's own folder.
fn target_dir(root: &std::path::Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from)
}
