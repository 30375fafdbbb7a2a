//! Runs every target for some seconds: `stead-fuzz SECONDS [TARGET]`, `stead-fuzz replay TARGET FILE`.

mod coverage;
mod driver;
mod mutate;
mod targets;

use std::process::ExitCode;
use std::time::Duration;

use driver::Limits;
use targets::Target;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["replay", target, file] => replay(target, file),
        [seconds] => all(seconds, None),
        [seconds, target] => all(seconds, Some(target)),
        _ => usage(),
    }
}

fn usage() -> ExitCode {
    let names: Vec<&str> = targets::all().iter().map(|target| target.name).collect();
    eprintln!(
        "stead-fuzz SECONDS [TARGET] | replay TARGET FILE; targets: {}",
        names.join(", ")
    );
    ExitCode::from(2)
}

fn all(seconds: &str, only: Option<&str>) -> ExitCode {
    let Ok(seconds) = seconds.parse::<u64>() else {
        return usage();
    };
    let chosen: Vec<Target> = targets::all()
        .into_iter()
        .filter(|target| only.map_or(!target.planted, |name| name == target.name))
        .collect();
    if chosen.is_empty() {
        return usage();
    }
    // The harness first: one that finds nothing where there is something proves nothing elsewhere.
    if only.is_none()
        && let Err(why) = driver::finds_what_is_planted()
    {
        eprintln!("the harness is broken: {why}");
        return ExitCode::FAILURE;
    }
    let limits = Limits {
        time: Duration::from_secs(seconds),
        ..Limits::default()
    };
    let mut broken = 0;
    for target in &chosen {
        let report = driver::fuzz(target, limits);
        println!("{report}");
        broken += u32::from(report.finding.is_some());
    }
    targets::images::leave();
    if broken == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn replay(name: &str, file: &str) -> ExitCode {
    let Some(target) = targets::all()
        .into_iter()
        .find(|target| target.name == name)
    else {
        return usage();
    };
    match std::fs::read(file) {
        Ok(bytes) => {
            (target.run)(&bytes);
            println!("{name}: {} bytes are handled", bytes.len());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("could not read {file}: {error}");
            ExitCode::from(2)
        }
    }
}
