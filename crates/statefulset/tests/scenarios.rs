//! The readable tests of `scenarios/`: text in, text out, through `decide` alone.
//!
//! A file is a story of blocks. Above `----` stand lines that change the world and end in a question; below stands the answer. The world
//! lives on from block to block. `UPDATE_EXPECT=1 cargo test -p stead-statefulset --test scenarios` writes the answers anew.
//! The words are explained in `scenarios/README.md`.

#[path = "scenarios/story.rs"]
mod story;
#[path = "scenarios/world.rs"]
mod world;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use story::Told;

/// Tells every block of a file and compares the answers; with `UPDATE_EXPECT=1` the file is written anew instead.
fn check(file: &Path) -> Result<Told, String> {
    let text = std::fs::read_to_string(file).expect("a listed file can be read");
    let told =
        story::tell(&text).map_err(|complaint| format!("{}: {complaint}", file.display()))?;
    if told.text == text {
        return Ok(told);
    }
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        // By rename: another test may be reading the same story.
        let anew = file.with_extension("anew");
        std::fs::write(&anew, &told.text).expect("the folder can be written");
        std::fs::rename(&anew, file).expect("a listed file can be replaced");
        return Ok(told);
    }
    let (line, wanted, got) = first_difference(&text, &told.text);
    Err(format!(
        "{} line {line}: expected {wanted:?}, got {got:?}. The whole story as it is now, to paste back:\n\n{}",
        file.display(),
        told.text
    ))
}

/// All stories; fails with every one that goes otherwise.
fn check_all() -> Vec<Told> {
    let (told, wrong): (Vec<_>, Vec<_>) = files()
        .iter()
        .map(|file| check(file))
        .partition(Result::is_ok);
    let wrong: Vec<String> = wrong.into_iter().filter_map(Result::err).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    told.into_iter().filter_map(Result::ok).collect()
}

fn first_difference<'a>(wanted: &'a str, got: &'a str) -> (usize, &'a str, &'a str) {
    let mut lines = wanted
        .lines()
        .chain([""])
        .zip(got.lines().chain([""]))
        .enumerate();
    let (index, (wanted, got)) = lines
        .find(|(_, (wanted, got))| wanted != got)
        .unwrap_or_default();
    (index + 1, wanted, got)
}

fn files() -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scenarios")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("the scenarios are there") {
            let path = entry.expect("the scenarios can be listed").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "txt") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

#[test]
fn every_story_goes_as_it_is_told() {
    let told = check_all();
    assert!(told.len() >= 25, "only {} stories found", told.len());
}

#[test]
fn every_step_and_every_blocker_occurs_in_a_story() {
    let told = check_all();
    let occurring = |words: fn(&Told) -> &BTreeSet<&'static str>| -> BTreeSet<String> {
        told.iter()
            .flat_map(words)
            .map(|word| (*word).to_owned())
            .collect()
    };
    assert_eq!(variants("src/step.rs"), occurring(|told| &told.steps));
    assert_eq!(variants("src/blocker.rs"), occurring(|told| &told.blockers));
}

/// The names that a source file gives to its variants: what stands after `=>` in quotes in `fn reason`.
fn variants(source: &str) -> BTreeSet<String> {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(source))
        .expect("the source is there");
    let reason = text
        .split("pub fn reason(")
        .nth(1)
        .expect("there is fn reason");
    let body = reason.split("\n    }\n").next().unwrap_or_default();
    body.split("=> \"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .map(str::to_owned)
        .collect()
}

#[test]
fn a_wrong_answer_is_caught() {
    let story = "set web replicas=1\ndecide\n----\ncreate pod web-7 at revision A\n";
    let told = story::tell(story).expect("the story is well formed");
    assert_ne!(told.text, story);
    assert!(
        told.text.contains("create pod web-0 at revision A"),
        "{}",
        told.text
    );
}

/// The regressions that are known by name. Each has a row in `scenarios/regressions.md`.
const REGRESSIONS: [&str; 30] = [
    "k#67250",
    "k#137409",
    "k#112307",
    "k#119234",
    "enhancements#1010",
    "kr-return",
    "kr#1662",
    "kr#2285",
    "kr#1104",
    "KB#10641",
    "KB#6082",
    "rbg#307",
    "cockroach#1151",
    "luksa's leak",
    "grafana's cancel",
    "AWS#28",
    "AWS-rollback",
    "openbao#341",
    "k#55045",
    "CNPG-lost-WAL",
    "formance#1634",
    "tidb#7037",
    "k#134773",
    "k#64023",
    "k#54368",
    "quarks#741",
    "k#68627",
    "k#61998",
    "kr-cancel",
    "kr#2342",
];

#[test]
fn every_known_regression_is_told_by_a_story_that_names_it_or_is_owed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scenarios");
    let page = std::fs::read_to_string(folder.join("regressions.md")).expect("the page is there");
    let rows: Vec<Vec<&str>> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"))
        .map(|row| row.split(" | ").collect())
        .skip(1)
        .collect();
    let names: Vec<&str> = rows.iter().map(|row| row[0]).collect();
    assert_eq!(names, REGRESSIONS);
    for row in &rows {
        let [name, _, told_by] = row[..] else {
            panic!("{row:?} has not three cells");
        };
        if ["owed: ", "every story: "]
            .iter()
            .any(|word| told_by.starts_with(word))
        {
            continue;
        }
        for file in told_by.split(", ") {
            let story = std::fs::read_to_string(folder.join(file.trim_matches('`')))
                .unwrap_or_else(|error| panic!("{name} is told by {file}: {error}"));
            let sources = story
                .lines()
                .next()
                .unwrap_or_default()
                .split_once("upstream: ");
            let (_, sources) = sources.unwrap_or_else(|| panic!("{file} names no source"));
            assert!(
                sources.split(", ").any(|source| source == name),
                "{file} does not name {name}"
            );
        }
    }
}
