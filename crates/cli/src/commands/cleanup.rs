//! `stead cleanup`: gives back what crashes left of this machine, whichever data folder it was.

use std::io::Write;
use std::process::ExitCode;

use stead_node::leftover::{self, Estate};

use crate::args::Cleanup;
use crate::failure::Failure;
use crate::place::Place;

/// Lists what nobody holds and gives it back; what lives is named and left alone.
pub(crate) fn run(args: &Cleanup, place: &Place) -> Result<ExitCode, Failure> {
    let estates = leftover::estates(std::slice::from_ref(&place.dir))
        .map_err(|error| Failure::caused("nothing was given back", &error))?;
    let (held, free): (Vec<Estate>, Vec<Estate>) = estates
        .into_iter()
        .partition(|estate| estate.holder.is_some());
    for estate in &held {
        tell_held(estate, estate.holder);
    }
    if free.is_empty() {
        say("nothing to give back".to_owned());
        return Ok(ExitCode::SUCCESS);
    }
    let mut failures = Vec::new();
    for estate in &free {
        let verb = if args.dry_run {
            "would give back"
        } else {
            "gives back"
        };
        say(format!("{} {verb}:", owner(estate)));
        for thing in &estate.things {
            say(format!("  {thing}"));
        }
        if args.dry_run {
            continue;
        }
        match leftover::give_back(estate) {
            Ok(None) => {}
            Ok(holder) => tell_held(estate, holder),
            Err(error) => failures.push(Failure::caused(&owner(estate), &error)),
        }
    }
    end(failures)
}

/// Whose it is, for people.
fn owner(estate: &Estate) -> String {
    match &estate.data_dir {
        Some(dir) if estate.is_orphaned() => format!("{} (gone)", dir.display()),
        Some(dir) => dir.display().to_string(),
        None => format!(
            "a data folder that is not on record (instance {})",
            estate.instance
        ),
    }
}

fn tell_held(estate: &Estate, holder: Option<leftover::Holder>) {
    if let Some(holder) = holder {
        say(format!(
            "{} is left alone: {holder} holds it",
            owner(estate)
        ));
    }
}

/// What is begun is finished, whoever listens: a reader that has gone away is no reason to stop halfway.
fn say(line: String) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// All but the last failure are told here.
fn end(mut failures: Vec<Failure>) -> Result<ExitCode, Failure> {
    let last = failures.pop();
    for failure in failures {
        failure.report();
    }
    last.map_or(Ok(ExitCode::SUCCESS), Err)
}
