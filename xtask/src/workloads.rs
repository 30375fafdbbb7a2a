//! `cargo xtask workloads [NAME]... [--stead PATH]`: real servers on Stead, written to, broken, and checked.
//!
//! Each workload is an example that users apply; needs root (the containers tier) and the servers' own packages.

mod etcd;
mod http;
mod load;
mod nginx;
mod place;
mod postgresql;
mod redis;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use place::Place;

/// What writes to a workload, breaks it and checks it.
type Workload = fn(&Place) -> Result<Story, String>;

const WORKLOADS: [(&str, Workload); 4] = [
    ("postgresql", postgresql::run),
    ("redis", redis::run),
    ("etcd", etcd::run),
    ("nginx", nginx::run),
];

/// What happened to one workload.
struct Story {
    /// What was done to it, and how long it took until it was whole again.
    broken: Vec<(&'static str, Duration)>,
    /// What held all the while: sentences with their figures.
    held: Vec<String>,
}

/// Runs the workloads named, or all.
pub(crate) fn run(args: &[String]) -> ExitCode {
    let (stead, names) = match arguments(args) {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("cargo xtask workloads: {error}");
            return ExitCode::FAILURE;
        }
    };
    let chosen = WORKLOADS
        .iter()
        .filter(|(name, _)| names.is_empty() || names.iter().any(|own| own == name));
    let (mut passed, mut failed) = (0, 0);
    for (name, run) in chosen {
        println!("== {name}");
        match Place::new(&stead).and_then(|place| run(&place)) {
            Ok(story) => {
                passed += 1;
                tell(name, &story);
            }
            Err(error) => {
                failed += 1;
                println!("{name}: {error}");
            }
        }
    }
    println!("{passed} passed, {failed} failed");
    ExitCode::from(u8::from(failed > 0 || passed == 0))
}

fn arguments(args: &[String]) -> Result<(PathBuf, Vec<String>), String> {
    let mut stead = crate::root().join("target/release/stead");
    let mut names = Vec::new();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        if arg == "--stead" {
            stead = args.next().ok_or("--stead needs a path")?.into();
        } else if WORKLOADS.iter().any(|(name, _)| name == arg) {
            names.push(arg.clone());
        } else {
            let known: Vec<_> = WORKLOADS.iter().map(|(name, _)| *name).collect();
            return Err(format!(
                "no workload {arg:?}; there are: {}",
                known.join(", ")
            ));
        }
    }
    let stead = stead
        .canonicalize()
        .map_err(|error| format!("{}: {error}; build it first", stead.display()))?;
    Ok((stead, names))
}

/// The table of what was broken and what held.
fn tell(name: &str, story: &Story) {
    println!("\n| {name}: what was done | whole again after |\n|---|---|");
    for (what, took) in &story.broken {
        println!("| {what} | {:.1} s |", took.as_secs_f64());
    }
    println!();
    for sentence in &story.held {
        println!("held: {sentence}");
    }
}
