//! Fuzzes one target: keeps every input that passes a new edge, and tells the first one that breaks it.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::coverage;
use crate::mutate::{Chance, mutate};
use crate::targets::{self, Target};

/// Inputs that are kept at most; a run of seconds stays far below.
const CORPUS_MAX: usize = 20_000;

/// How long and how far.
#[derive(Clone, Copy)]
pub struct Limits {
    pub time: Duration,
    /// One input may take this long; longer is a finding.
    pub patience: Duration,
    pub seed: u64,
}

impl Default for Limits {
    fn default() -> Self {
        let time = Duration::from_secs(5);
        Self {
            time,
            patience: Duration::from_secs(10),
            seed: 1,
        }
    }
}

/// What became of a run.
pub struct Report {
    name: &'static str,
    runs: u64,
    kept: usize,
    passed: usize,
    took: Duration,
    pub finding: Option<Finding>,
}

/// An input that breaks the target.
pub struct Finding {
    pub says: String,
    pub file: PathBuf,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            runs,
            kept,
            passed,
            took,
            finding,
        } = self;
        let rate = *runs as f64 / took.as_secs_f64().max(0.001);
        write!(
            f,
            "{name}: {runs} inputs, {rate:.0} a second, {passed} of {} edges, {kept} kept",
            coverage::edges()
        )?;
        if let Some(Finding { says, file }) = finding {
            write!(
                f,
                "\n{name}: BROKEN by {}: {says}\n  again with: stead-fuzz replay {name} {}",
                file.display(),
                file.display()
            )?;
        }
        Ok(())
    }
}

/// The planted bug lies behind four bytes that chance alone would find once in four thousand million inputs.
pub fn finds_what_is_planted() -> Result<(), String> {
    if coverage::edges() == 0 {
        return Err("nothing is instrumented; build with fuzz/run".to_owned());
    }
    let target = targets::all()
        .into_iter()
        .find(|target| target.planted)
        .ok_or("there is no planted bug")?;
    let report = fuzz(
        &target,
        Limits {
            time: Duration::from_secs(60),
            ..Limits::default()
        },
    );
    match report.finding {
        Some(finding) => {
            println!(
                "harness: the planted bug was found after {} inputs",
                report.runs
            );
            fs::remove_file(finding.file).map_err(|error| error.to_string())
        }
        None => Err(format!(
            "the planted bug was not found in {} inputs",
            report.runs
        )),
    }
}

/// Fuzzes until the time is over or something breaks.
pub fn fuzz(target: &Target, limits: Limits) -> Report {
    let began = Instant::now();
    let watch = Watch::start(target.name, limits.patience);
    let mut chance = Chance::new(limits.seed);
    let mut seen = HashMap::new();
    let mut corpus = Vec::new();
    let mut report = Report {
        name: target.name,
        runs: 0,
        kept: 0,
        passed: 0,
        took: Duration::ZERO,
        finding: None,
    };
    // What other code passed before is nobody's news.
    coverage::take(|_, _| {});
    let mut seeds = seeds(target).into_iter();
    while began.elapsed() < limits.time {
        let input = match seeds.next() {
            Some(seed) => seed,
            None => next(&corpus, target, &mut chance),
        };
        report.runs += 1;
        if let Err(says) = watch.run(target, &input) {
            let file = save(target.name, &input);
            report.finding = Some(Finding { says, file });
            break;
        }
        if is_news(&mut seen) && corpus.len() < CORPUS_MAX {
            corpus.push(input);
        }
    }
    report.kept = corpus.len();
    report.passed = seen.len();
    report.took = began.elapsed();
    report
}

fn next(corpus: &[Vec<u8>], target: &Target, chance: &mut Chance) -> Vec<u8> {
    let empty = Vec::new();
    // Newer ones pass what older ones do not: they are taken more often.
    let half = if chance.below(2) == 0 {
        corpus.len() / 2
    } else {
        0
    };
    let one = chance.pick(&corpus[half..]).unwrap_or(&empty).clone();
    let other = chance.pick(corpus).unwrap_or(&empty).clone();
    mutate(
        &one,
        &other,
        &target.words,
        &coverage::compared(),
        target.max,
        chance,
    )
}

/// Whether an edge was passed that never was, or in another order of magnitude of times.
fn is_news(seen: &mut HashMap<usize, u8>) -> bool {
    let mut news = false;
    coverage::take(|edge, count| {
        let class = 1u8 << count.ilog2();
        let known = seen.entry(edge).or_insert(0);
        news |= *known & class == 0;
        *known |= class;
    });
    news
}

/// The target's own seeds, and every input that once broke it.
fn seeds(target: &Target) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("seeds")
        .join(target.name);
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    files.sort();
    let kept = files.iter().filter_map(|file| fs::read(file).ok());
    kept.chain(target.seeds.iter().cloned())
        .chain([Vec::new()])
        .collect()
}

fn save(name: &str, input: &[u8]) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/findings");
    let file = folder.join(format!("{name}-{}", std::process::id()));
    if let Err(error) = fs::create_dir_all(&folder).and_then(|()| fs::write(&file, input)) {
        eprintln!(
            "could not keep the input ({error}): {}",
            input.escape_ascii()
        );
    }
    file
}

/// Ends the program, with the input kept, when one input takes too long.
struct Watch {
    turn: Arc<AtomicU64>,
    input: Arc<Mutex<Vec<u8>>>,
}

impl Watch {
    fn start(name: &'static str, patience: Duration) -> Self {
        let (turn, input) = (
            Arc::new(AtomicU64::new(0)),
            Arc::new(Mutex::new(Vec::new())),
        );
        let (turns, inputs) = (Arc::downgrade(&turn), Arc::clone(&input));
        std::thread::spawn(move || {
            let mut last = 0;
            loop {
                std::thread::sleep(patience);
                let Some(now) = turns.upgrade().map(|turn| turn.load(Ordering::Relaxed)) else {
                    return;
                };
                // Odd while an input is being run.
                if now == last && now % 2 == 1 {
                    let file = save(name, &inputs.lock().unwrap_or_else(PoisonError::into_inner));
                    eprintln!(
                        "{name}: BROKEN by {}: took longer than {} s",
                        file.display(),
                        patience.as_secs()
                    );
                    std::process::exit(1);
                }
                last = now;
            }
        });
        Self { turn, input }
    }

    /// Runs one input; the error is what the panic said.
    fn run(&self, target: &Target, input: &[u8]) -> Result<(), String> {
        input.clone_into(&mut self.input.lock().unwrap_or_else(PoisonError::into_inner));
        self.turn.fetch_add(1, Ordering::Relaxed);
        let hook = std::panic::take_hook();
        let said = Arc::new(Mutex::new(String::new()));
        let words = Arc::clone(&said);
        std::panic::set_hook(Box::new(move |info| {
            *words.lock().unwrap_or_else(PoisonError::into_inner) = info.to_string();
        }));
        let ended = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
        std::panic::set_hook(hook);
        self.turn.fetch_add(1, Ordering::Relaxed);
        ended.map_err(|_| said.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}
