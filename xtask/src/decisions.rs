//! `cargo xtask decisions [FILE] [--at-least N] [--first K]`: does Stead decide as the recorded Kubernetes did?
//!
//! Runs every line of `decisions.jsonl.gz` (or of FILE, gzipped or not) as the oracle's README says, prints the first K differences
//! readably (default 5), counts by decision page where Stead differs on purpose, counts apart the lines in which Stead deletes
//! a pod or a claim that upstream keeps (one is a failure), compares Events apart (one that differs is a failure, too), and closes with `N passed, M failed`.
//! The exit code is 1 where anything failed; with `--at-least N`, where fewer passed.

mod differences;
mod line;
mod outcome;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::Value;

use line::Line;
use outcome::{Outcome, compare};

/// Runs the command; prints to standard output, complaints to standard error.
pub(crate) fn run(args: &[String]) -> ExitCode {
    match Options::parse(args).and_then(|options| Ok((lines(&options.file)?, options))) {
        Ok((lines, options)) => report(&lines, &options),
        Err(complaint) => {
            eprintln!("cargo xtask decisions: {complaint}");
            ExitCode::FAILURE
        }
    }
}

struct Options {
    file: PathBuf,
    at_least: Option<usize>,
    first: usize,
}

impl Options {
    fn parse(args: &[String]) -> Result<Options, String> {
        let mut options = Options {
            file: oracle().join("decisions.jsonl.gz"),
            at_least: None,
            first: 5,
        };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut number = || {
                let text = args.next().ok_or_else(|| format!("{arg} needs a number"))?;
                text.parse()
                    .map_err(|_| format!("{arg} {text}: not a number"))
            };
            match arg.as_str() {
                "--at-least" => options.at_least = Some(number()?),
                "--first" => options.first = number()?,
                flag if flag.starts_with('-') => {
                    return Err(format!(
                        "no option {flag}; there are --at-least N and --first K"
                    ));
                }
                file => options.file = PathBuf::from(file),
            }
        }
        Ok(options)
    }
}

/// The folder of the recorded oracles.
fn oracle() -> PathBuf {
    std::env::var_os("STEAD_ORACLE")
        .map_or_else(|| crate::root().join("../shared/oracle"), PathBuf::from)
}

fn lines(file: &Path) -> Result<Vec<Line>, String> {
    let bytes = std::fs::read(file).map_err(|error| {
        format!(
            "{}: {error}; set STEAD_ORACLE to the oracle's folder",
            file.display()
        )
    })?;
    let mut text = String::new();
    let gzipped = bytes.starts_with(&[0x1f, 0x8b]);
    let read = if gzipped {
        flate2::read::MultiGzDecoder::new(&*bytes).read_to_string(&mut text)
    } else {
        (&*bytes).read_to_string(&mut text)
    };
    read.map_err(|error| format!("{}: {error}", file.display()))?;
    let parse = |(index, line): (usize, &str)| {
        let value: Value = serde_json::from_str(line)
            .map_err(|error| format!("{} line {}: {error}", file.display(), index + 1))?;
        Line::parse(value).map_err(|why| format!("{} line {}: {why}", file.display(), index + 1))
    };
    let lines: Vec<Line> = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .map(parse)
        .collect::<Result<_, String>>()?;
    if lines.is_empty() {
        Err(format!("{}: no line in it", file.display()))
    } else {
        Ok(lines)
    }
}

/// What all lines together came to.
#[derive(Default)]
struct Tally {
    passed: usize,
    failed: usize,
    unkind_deletes: usize,
    on_purpose: BTreeMap<&'static str, usize>,
    events_equal: usize,
    events_on_purpose: BTreeMap<&'static str, usize>,
    /// How often, and the line in which first.
    event_differences: BTreeMap<String, (usize, String)>,
    causes: BTreeMap<&'static str, usize>,
}

fn report(lines: &[Line], options: &Options) -> ExitCode {
    let mut tally = Tally::default();
    for line in lines {
        let outcome = compare(line);
        tally.add(line, &outcome, options.first);
    }
    tally.print();
    let enough = options
        .at_least
        .map_or(tally.failed == 0, |least| tally.passed >= least);
    if enough && tally.unkind_deletes == 0 && tally.event_differences.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

impl Tally {
    fn add(&mut self, line: &Line, outcome: &Outcome, first: usize) {
        for page in &outcome.on_purpose {
            *self.on_purpose.entry(page.sentence()).or_default() += 1;
        }
        self.unkind_deletes += usize::from(!outcome.unkind_deletes.is_empty());
        self.events_equal += usize::from(outcome.event_differences.is_empty());
        for difference in &outcome.event_differences {
            self.event_differences
                .entry(difference.clone())
                .or_insert_with(|| (0, line.id.clone()))
                .0 += 1;
        }
        for page in &outcome.events_on_purpose {
            *self.events_on_purpose.entry(page.sentence()).or_default() += 1;
        }
        for delete in &outcome.unkind_deletes {
            println!("{}: deletes {delete}, which upstream keeps", line.id);
        }
        if outcome.differences.is_empty() {
            self.passed += 1;
            return;
        }
        self.failed += 1;
        for difference in &outcome.differences {
            *self.causes.entry(difference.kind).or_default() += 1;
        }
        if self.failed <= first {
            println!("---- {}\n{}", line.id, outcome.readable());
        }
    }

    fn print(&self) {
        for (kind, count) in &self.causes {
            println!("differs in {kind}: {count}");
        }
        for (page, count) in &self.on_purpose {
            println!("lines that differ on purpose, {page}: {count}");
        }
        println!(
            "lines with equal Events: {} of {}",
            self.events_equal,
            self.passed + self.failed
        );
        for (page, count) in &self.events_on_purpose {
            println!("    Events left out with their writes, {page}: {count}");
        }
        for (difference, (count, first)) in &self.event_differences {
            println!("    {difference}: {count}, first in line {first}");
        }
        println!(
            "lines in which Stead deletes what upstream keeps: {}",
            self.unkind_deletes
        );
        println!("{} passed, {} failed", self.passed, self.failed);
    }
}

#[cfg(test)]
mod tests;
