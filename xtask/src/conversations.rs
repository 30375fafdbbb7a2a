//! `cargo xtask conversations [FILE] [--theme a,b] [--show N] [--at-least theme=steps,...]`: replays recorded conversations
//! against an API server of its own and compares every answer as the oracle's README says.
//!
//! `--at-least` makes the verdict: each theme must have that many equal steps, or `all` conversations. Without it every
//! conversation must be equal.

mod compare;
mod normal;
mod replay;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::Value;

use replay::{Replayed, Talker};

/// Differences printed where `--show` does not say.
const SHOWN: usize = 10;

/// What the command line asks for.
struct Options {
    file: PathBuf,
    themes: Vec<String>,
    id: String,
    show: usize,
    at_least: Vec<(String, Least)>,
}

/// What a theme must reach.
enum Least {
    /// All conversations.
    All,
    /// This many equal steps.
    Steps(usize),
}

/// What a theme reached.
#[derive(Default)]
struct Count {
    conversations: usize,
    equal: usize,
    steps: usize,
    equal_steps: usize,
}

/// Runs the command.
pub(crate) fn run(args: &[String]) -> ExitCode {
    match parse(args).and_then(|options| replay_all(&options)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("conversations: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(args: &[String]) -> Result<Options, String> {
    let mut options = Options {
        file: default_file(),
        themes: Vec::new(),
        id: String::new(),
        show: SHOWN,
        at_least: Vec::new(),
    };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut value = || {
            args.next()
                .cloned()
                .ok_or_else(|| format!("{arg} needs a value"))
        };
        match arg.as_str() {
            "--theme" => options.themes = value()?.split(',').map(str::to_owned).collect(),
            "--id" => options.id = value()?,
            "--show" => {
                options.show = value()?
                    .parse()
                    .map_err(|error| format!("--show: {error}"))?
            }
            "--at-least" => {
                options.at_least = value()?.split(',').map(least).collect::<Result<_, _>>()?
            }
            other if other.starts_with('-') => {
                return Err(format!(
                    "no option {other}; there is --theme, --id, --show, --at-least"
                ));
            }
            file => options.file = file.into(),
        }
    }
    Ok(options)
}

fn least(text: &str) -> Result<(String, Least), String> {
    let (theme, want) = text
        .split_once('=')
        .ok_or_else(|| format!("--at-least wants theme=steps or theme=all, not {text:?}"))?;
    let want = if want == "all" {
        Least::All
    } else {
        Least::Steps(want.parse().map_err(|error| format!("{text}: {error}"))?)
    };
    Ok((theme.to_owned(), want))
}

/// The oracle's file: `$STEAD_ORACLE`, by default `../shared/oracle` beside the workspace.
fn default_file() -> PathBuf {
    let folder = std::env::var_os("STEAD_ORACLE")
        .map_or_else(|| crate::root().join("../shared/oracle"), PathBuf::from);
    folder.join("conversations.jsonl.gz")
}

fn read(file: &PathBuf) -> Result<Vec<Value>, String> {
    let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let bytes = std::fs::read(file).map_err(|error| wrong(&error))?;
    let mut text = String::new();
    if bytes.starts_with(&[0x1f, 0x8b]) {
        flate2::read::MultiGzDecoder::new(bytes.as_slice())
            .read_to_string(&mut text)
            .map_err(|error| wrong(&error))?;
    } else {
        text = String::from_utf8(bytes).map_err(|error| wrong(&error))?;
    }
    text.lines()
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_str(line).map_err(|error| wrong(&error)))
        .collect()
}

fn replay_all(options: &Options) -> Result<bool, String> {
    let conversations = read(&options.file)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    let mut counts: BTreeMap<String, Count> = BTreeMap::new();
    let mut shown = 0;
    runtime.block_on(async {
        let talker = Talker::new().await?;
        for (number, conversation) in conversations.iter().enumerate() {
            let theme = conversation["theme"].as_str().unwrap_or("").to_owned();
            let id = conversation["id"].as_str().unwrap_or("");
            if (!options.themes.is_empty() && !options.themes.contains(&theme))
                || (!options.id.is_empty() && options.id != id)
            {
                continue;
            }
            let replayed = replay::conversation(&talker, conversation, number).await;
            if !replayed.differences.is_empty() && shown < options.show {
                shown += 1;
                print(id, &replayed);
            }
            counts.entry(theme).or_default().add(&replayed);
        }
        Ok::<(), String>(())
    })?;
    Ok(verdict(options, &counts))
}

impl Count {
    fn add(&mut self, replayed: &Replayed) {
        self.conversations += 1;
        self.equal += usize::from(replayed.differences.is_empty());
        self.steps += replayed.steps;
        self.equal_steps += replayed.equal;
    }
}

#[expect(clippy::print_stdout, reason = "a report for the terminal")]
fn print(id: &str, replayed: &Replayed) {
    println!("{id}");
    for difference in replayed.differences.iter().take(4) {
        println!("    {difference}");
    }
}

#[expect(clippy::print_stdout, reason = "a report for the terminal")]
fn verdict(options: &Options, counts: &BTreeMap<String, Count>) -> bool {
    let (mut passed, mut failed, mut good) = (0, 0, true);
    for (theme, count) in counts {
        println!(
            "{theme:20} {} of {} conversations, {} of {} steps",
            count.equal, count.conversations, count.equal_steps, count.steps
        );
        passed += count.equal;
        failed += count.conversations - count.equal;
    }
    for (theme, least) in &options.at_least {
        let reached = counts.get(theme);
        let enough = reached.is_some_and(|count| match least {
            Least::All => count.equal == count.conversations,
            Least::Steps(steps) => count.equal_steps >= *steps,
        });
        if !enough {
            println!("{theme}: fewer than demanded");
            good = false;
        }
    }
    println!("{passed} passed, {failed} failed");
    if options.at_least.is_empty() {
        failed == 0 && passed > 0
    } else {
        good
    }
}

#[cfg(test)]
mod tests;
