//! `stead cleanup`: gives back what crashes left of this machine, whichever data folder it was.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use stead_node::leftover::{self, Estate};

use crate::args::Cleanup;
use crate::failure::Failure;
use crate::host_dns;
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
    let mut failures = Vec::new();
    let drop_in = drop_in(&held);
    if free.is_empty() && drop_in.is_none() {
        say("nothing to give back".to_owned());
    }
    if let Some(dir) = drop_in {
        say(format!(
            "{}: the drop-in for this machine's resolver",
            dir.display()
        ));
        if !args.dry_run
            && let Err(error) = host_dns::uninstall(Path::new("/"), &dir)
        {
            failures.push(Failure::caused("the drop-in stays", &error));
        }
    }
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

/// The data folder of a resolver's drop-in whose server no longer runs.
fn drop_in(held: &[Estate]) -> Option<PathBuf> {
    let dir = host_dns::owner(Path::new("/"))?;
    let place = Place { dir };
    let lives = place.holder().is_some()
        || held
            .iter()
            .any(|estate| estate.data_dir.as_ref() == Some(&place.dir));
    (!lives).then_some(place.dir)
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
