//! Small promises of the house, kept by machine: files say their job, pages name what exists, nothing lies dead.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on tells so by its panic"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn every_file_says_its_job_in_its_first_line_and_no_two_say_the_same() {
    let mut said: BTreeMap<String, PathBuf> = BTreeMap::new();
    for file in sources() {
        let text = fs::read_to_string(&file).unwrap();
        let first = text.lines().next().unwrap_or_default();
        assert!(
            first.starts_with("//! "),
            "{} does not open with a `//!` line that says its job",
            file.display()
        );
        if let Some(other) = said.insert(first.to_owned(), file.clone()) {
            panic!(
                "{} and {} say that they have the same job: {first}",
                other.display(),
                file.display()
            );
        }
    }
}

#[test]
fn every_module_is_reached() {
    for file in sources() {
        let stem = file.file_stem().unwrap().to_string_lossy().into_owned();
        let folder = file.parent().unwrap();
        let is_root = ["lib", "main", "build"].contains(&stem.as_str()) || !in_source_folder(&file);
        if is_root || in_bin_folder(&file) {
            continue;
        }
        let parents = [
            folder.join("lib.rs"),
            folder.join("main.rs"),
            folder.join("mod.rs"),
            folder.with_extension("rs"),
        ];
        let declares =
            |parent: &PathBuf| fs::read_to_string(parent).is_ok_and(|text| declares(&text, &stem));
        assert!(
            parents.iter().any(declares),
            "{} is reached by no `mod {stem}`",
            file.display()
        );
    }
}

#[test]
fn pages_name_only_what_exists() {
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for path in mentioned_paths(&text) {
            assert!(
                root().join(path).exists(),
                "{} names {path}, which is not there",
                page.display()
            );
        }
    }
}

#[test]
fn the_architecture_names_every_crate() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    for entry in fs::read_dir(root().join("crates")).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        assert!(
            text.contains(&format!("crates/{name}")),
            "ARCHITECTURE.md does not name crates/{name}"
        );
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lies in the workspace")
}

fn sources() -> Vec<PathBuf> {
    let mut files = Vec::new();
    for folder in ["crates", "xtask"] {
        collect(&root().join(folder), "rs", &mut files);
    }
    assert!(files.len() > 20, "the sources were not found");
    files
}

fn pages() -> Vec<PathBuf> {
    let mut files = Vec::new();
    collect(&root().join("docs"), "md", &mut files);
    files.extend(["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"].map(|page| root().join(page)));
    files
}

fn collect(folder: &Path, extension: &str, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target") {
                collect(&path, extension, files);
            }
        } else if path.extension().is_some_and(|end| end == extension) {
            files.push(path);
        }
    }
}

fn in_source_folder(file: &Path) -> bool {
    file.components().any(|part| part.as_os_str() == "src")
}

fn in_bin_folder(file: &Path) -> bool {
    file.parent()
        .and_then(Path::file_name)
        .is_some_and(|name| name == "bin")
}

/// Whether a text declares a module, at any visibility.
fn declares(text: &str, module: &str) -> bool {
    text.lines()
        .map(str::trim)
        .any(|line| line.ends_with(&format!("mod {module};")))
}

/// Paths in backticks that begin with a folder of ours.
fn mentioned_paths(text: &str) -> impl Iterator<Item = &str> {
    let known = [
        "crates/",
        "docs/",
        "examples/",
        "scenarios/",
        "xtask/",
        "conformance/",
    ];
    let quoted = text.split('`').skip(1).step_by(2);
    quoted.filter(move |path| {
        known.iter().any(|folder| path.starts_with(folder))
            && !path.contains([' ', '*', '<', '{', ':', '|'])
    })
}
