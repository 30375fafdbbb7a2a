//! `cargo xtask schema`: makes the committed table of `crates/schema` from the facts of the API.
//!
//! Two sources: `schema-1.36.json` of the oracle (`STEAD_ORACLE`, by default `../shared/oracle` beside the
//! workspace), and `xtask/facts/go-types.txt`, which says of each field what OpenAPI cannot: whether it is a
//! pointer in Go and what its encoder leaves out. The latter is remade by `--go-types DIR...` from the types of
//! the Go modules `k8s.io/api`, `k8s.io/apimachinery` and `k8s.io/apiextensions-apiserver`.

mod go_types;
mod table;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Runs the command; `args` are those after `schema`.
///
/// Without arguments the table is written; with `--check` it is compared with the committed one and the first
/// line that differs is printed; with `--go-types DIR...` the facts about Go's types are remade first.
pub(crate) fn run(args: &[String]) -> ExitCode {
    match command(args) {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("cargo xtask schema: {error}");
            ExitCode::FAILURE
        }
    }
}

fn command(args: &[String]) -> Result<String, String> {
    let root = workspace_root();
    match args.first().map(String::as_str) {
        None => {
            let text = make(&root)?;
            let path = table_path(&root);
            write(&path, &text)?;
            Ok(format!(
                "wrote {} lines to {}",
                text.lines().count(),
                path.display()
            ))
        }
        Some("--check") => check(&root)
            .map(|lines| format!("the committed table is what this tool makes: {lines} lines")),
        Some("--go-types") => {
            let facts = go_types::read(&args[1..])?;
            let path = go_types_path(&root);
            write(&path, &facts)?;
            Ok(format!(
                "wrote {} types to {}; now run it without arguments",
                facts.lines().count(),
                path.display()
            ))
        }
        Some(other) => Err(format!(
            "unknown argument {other}: say nothing, --check or --go-types DIR..."
        )),
    }
}

/// Compares the committed table with what the tool makes now; the number of lines, or the first difference.
pub(crate) fn check(root: &Path) -> Result<usize, String> {
    let made = make(root)?;
    let committed = read(&table_path(root))?;
    first_difference(&committed, &made).map_or(Ok(made.lines().count()), Err)
}

fn first_difference(committed: &str, made: &str) -> Option<String> {
    if committed == made {
        return None;
    }
    let mut lines = committed.lines().zip(made.lines()).enumerate();
    let differs = lines.find(|(_, (old, new))| old != new);
    Some(match differs {
        Some((at, (old, new))) => {
            format!("line {} of the committed table differs; run `cargo xtask schema`\n  committed: {old}\n  made:      {new}", at + 1)
        }
        None => "the committed table is shorter or longer than what the tool makes; run `cargo xtask schema`".to_owned(),
    })
}

fn make(root: &Path) -> Result<String, String> {
    let oracle = oracle_dir(root).join("schema-1.36.json");
    let schema = serde_json::from_str(&read(&oracle)?)
        .map_err(|e| format!("{} is not JSON: {e}", oracle.display()))?;
    table::make(&schema, &read(&go_types_path(root))?)
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|e| {
        format!(
            "could not read {}: {e} (STEAD_ORACLE names the oracle's folder)",
            path.display()
        )
    })
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|e| format!("could not write {}: {e}", path.display()))
}

fn workspace_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map(Path::to_path_buf)
        .unwrap_or_default()
}

fn oracle_dir(root: &Path) -> PathBuf {
    std::env::var_os("STEAD_ORACLE").map_or_else(|| root.join("../shared/oracle"), PathBuf::from)
}

fn table_path(root: &Path) -> PathBuf {
    root.join("crates/schema/src/table.txt")
}

fn go_types_path(root: &Path) -> PathBuf {
    root.join("xtask/facts/go-types.txt")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "oracle-tests")]
    #[test]
    fn the_committed_table_is_what_the_tool_makes() {
        check(&workspace_root()).expect("run `cargo xtask schema` and commit the table");
    }

    #[test]
    fn a_changed_table_is_noticed_with_its_line() {
        assert_eq!(first_difference("a\nb\n", "a\nb\n"), None);
        let said = first_difference("a\nb\n", "a\nc\n").expect("they differ");
        assert!(said.starts_with("line 2 "), "{said}");
        assert!(first_difference("a\n", "a\nb\n").is_some());
    }
}
