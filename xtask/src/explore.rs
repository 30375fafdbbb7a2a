//! `cargo xtask explore [--worlds NAME,...] [--large] [--mutants]`: every state of the small worlds, and proof that the rules can fail.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Instant;

use stead_sim::{Mutant, Report, World};

/// Worlds explored at once.
const THREADS: usize = 2;

/// Explores the matrix, the large matrix, or the mutants.
pub(crate) fn run(args: &[String]) -> ExitCode {
    let chosen = match Chosen::parse(args) {
        Ok(chosen) => chosen,
        Err(error) => {
            eprintln!("cargo xtask explore: {error}");
            return ExitCode::FAILURE;
        }
    };
    let failed = if chosen.mutants {
        mutants(&chosen)
    } else {
        worlds(&chosen)
    };
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

#[derive(Default)]
struct Chosen {
    names: Option<Vec<String>>,
    large: bool,
    mutants: bool,
}

impl Chosen {
    fn parse(args: &[String]) -> Result<Chosen, String> {
        let mut chosen = Chosen::default();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--large" => chosen.large = true,
                "--mutants" => chosen.mutants = true,
                "--worlds" => {
                    let names = args
                        .next()
                        .ok_or("--worlds needs names, divided by commas")?;
                    chosen.names = Some(names.split(',').map(str::to_owned).collect());
                }
                other => {
                    return Err(format!(
                        "there is no option {other:?}; there are --worlds NAMES, --large and --mutants"
                    ));
                }
            }
        }
        Ok(chosen)
    }

    fn takes(&self, name: &str) -> bool {
        self.names
            .as_ref()
            .is_none_or(|names| names.iter().any(|wanted| wanted == name))
    }
}

/// Explores the worlds and prints the matrix; answers how many failed.
fn worlds(chosen: &Chosen) -> usize {
    let all = if chosen.large {
        stead_sim::large()
    } else {
        stead_sim::matrix()
    };
    let wanted: Vec<World> = all
        .into_iter()
        .filter(|world| chosen.takes(world.name))
        .collect();
    let begun = Instant::now();
    println!(
        "{:26} {:>10} {:>11} {:>6} {:>8} {:>8}  comes to rest",
        "world", "states", "edges", "depth", "views", "seconds"
    );
    let reports = side_by_side(&wanted, |world| {
        let report = stead_sim::explore(world, &stead_sim::SHIPPED);
        print_row(&report);
        report
    });
    let sum = |of: fn(&Report) -> usize| reports.iter().map(of).sum::<usize>();
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{:26} {:>10} {:>11} {:>6} {:>8} {:>8.1}",
        "all",
        sum(|it| it.states),
        sum(|it| it.edges),
        "",
        sum(|it| it.views),
        seconds
    );
    if let Some(peak) = peak_memory() {
        println!("peak memory: {peak}");
    }
    print_rests(&reports);
    for report in &reports {
        print_failure(report);
    }
    let failed = reports
        .iter()
        .filter(|report| report.failure.is_some())
        .count();
    println!("{} passed, {failed} failed", reports.len() - failed);
    failed
}

/// The most memory that this process ever held, as the kernel says it; nothing where it does not.
fn peak_memory() -> Option<String> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().to_owned())
}

/// Runs `work` on every item, two at a time, and answers the results in their order.
fn side_by_side<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = Mutex::new(0..items.len());
    let done = Mutex::new(BTreeMap::new());
    let turn = || next.lock().ok().and_then(|mut next| next.next());
    std::thread::scope(|threads| {
        for _ in 0..THREADS {
            threads.spawn(|| {
                while let Some(at) = turn() {
                    let result = work(&items[at]);
                    if let Ok(mut done) = done.lock() {
                        done.insert(at, result);
                    }
                }
            });
        }
    });
    done.into_inner()
        .map(|done| done.into_values().collect())
        .unwrap_or_default()
}

fn print_row(report: &Report) {
    let Report {
        name,
        states,
        edges,
        depth,
        views,
        rests,
        took,
        failure,
    } = report;
    let rests: Vec<String> = rests
        .iter()
        .map(|(rest, count)| format!("{count} {rest}"))
        .collect();
    let verdict = if failure.is_some() {
        "FAILS".to_owned()
    } else {
        rests.join(", ")
    };
    println!(
        "{name:26} {states:>10} {edges:>11} {depth:>6} {views:>8} {:>8.1}  {verdict}",
        took.as_secs_f64()
    );
}

/// The closed list of ways to rest that were met.
fn print_rests(reports: &[Report]) {
    println!("\nways to rest once the faults have stopped (none but these was met):");
    for rest in stead_sim::rest::RESTS
        .iter()
        .chain([&stead_sim::rest::GONE])
    {
        let states: usize = reports
            .iter()
            .filter_map(|report| report.rests.get(rest.name))
            .sum();
        if states > 0 {
            println!(
                "  {:24} {states:>8} states: {} [{}]",
                rest.name, rest.sentence, rest.source
            );
        }
    }
    println!();
}

fn print_failure(report: &Report) {
    if let Some(failure) = &report.failure {
        println!(
            "world {}: it does not hold that {}: {}",
            report.name, failure.violation.rule, failure.violation.what
        );
        for line in &failure.trace {
            println!("{line}");
        }
        println!();
    }
}

/// Lets every broken rule loose and prints how it was caught; answers how many were not.
fn mutants(chosen: &Chosen) -> usize {
    let all: Vec<&Mutant> = stead_sim::MUTANTS
        .iter()
        .filter(|mutant| chosen.takes(mutant.name))
        .collect();
    let reports = side_by_side(&all, |mutant| stead_sim::hunt(mutant));
    let mut failed = 0;
    for (mutant, hunt) in all.iter().zip(&reports) {
        println!("# mutant {}: {}", mutant.name, mutant.sentence);
        println!("# {}", hunt.verdict);
        for line in hunt.failure.iter().flat_map(|failure| &failure.trace) {
            println!("{line}");
        }
        println!();
        failed += usize::from(!hunt.caught);
    }
    let through_fault = all.iter().filter(|mutant| mutant.through_fault).count();
    println!(
        "{} broken rules, {through_fault} of them visible only through a fault",
        all.len()
    );
    println!("{} passed, {failed} failed", all.len() - failed);
    failed
}
