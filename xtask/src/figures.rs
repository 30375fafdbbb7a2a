//! `cargo xtask figures [--cold]`: what it costs to build Stead: time, size, crates.

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;

/// The largest binary that we allow ourselves, in bytes.
const SIZE_MAX: u64 = 25_000_000;

/// Builds the release binary and prints its figures. `--cold` throws away what was built before.
pub(crate) fn run(args: &[String]) -> ExitCode {
    measure(args).unwrap_or_else(|error| {
        eprintln!("cargo xtask figures: {error}");
        ExitCode::FAILURE
    })
}

fn measure(args: &[String]) -> Result<ExitCode, String> {
    let cold = args.iter().any(|arg| arg == "--cold");
    let target = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .ok_or("xtask lies in no workspace")?
        .join("target");
    if cold {
        remove(&target.join("release"))?;
    }
    let began = Instant::now();
    cargo(&[
        "build",
        "--release",
        "--locked",
        "--package",
        "stead-cli",
        "--target-dir",
        &target.to_string_lossy(),
    ])?;
    let minutes = began.elapsed().as_secs_f64() / 60.0;
    let binary = target.join("release/stead");
    let size = std::fs::metadata(&binary)
        .map_err(|error| format!("could not look at {}: {error}", binary.display()))?
        .len();
    println!(
        "release build   {minutes:5.1} min{}   (goal: 8 cold on 2 cores)",
        if cold {
            ", cold"
        } else {
            ", over what was there"
        }
    );
    println!(
        "binary          {:5.1} MB    (limit: {} MB)",
        size as f64 / 1e6,
        SIZE_MAX / 1_000_000
    );
    println!("crates compiled {:5}", crates()?);
    Ok(if size <= SIZE_MAX {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn remove(folder: &Path) -> Result<(), String> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("could not remove {}: {error}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// How many crates, ours included, go into the binary or run to build it.
fn crates() -> Result<usize, String> {
    let tree = cargo(&[
        "tree",
        "--package",
        "stead-cli",
        "--edges",
        "normal,build",
        "--prefix",
        "none",
        "--no-dedupe",
    ])?;
    let mut lines: Vec<&str> = tree
        .lines()
        .map(|line| line.trim_end_matches(" (*)"))
        .collect();
    lines.sort_unstable();
    lines.dedup();
    Ok(lines.len())
}

fn cargo(args: &[&str]) -> Result<String, String> {
    let output = Command::new(env!("CARGO"))
        .args(args)
        .stderr(std::process::Stdio::inherit())
        .output();
    let output =
        output.map_err(|error| format!("could not run cargo {}: {error}", args.join(" ")))?;
    if !output.status.success() {
        return Err(format!(
            "cargo {} ended with {}",
            args.join(" "),
            output.status
        ));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
