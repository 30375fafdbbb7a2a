//! The project's own tools: one module a command, dispatched by its name.

mod bench;
mod conversations;
mod decisions;
mod explore;
mod figures;
mod schema;
mod workloads;

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (command, rest) = args
        .split_first()
        .map_or(("", &[][..]), |(command, rest)| (command.as_str(), rest));
    match command {
        "bench" => bench::run(rest),
        "decisions" => decisions::run(rest),
        "conversations" => conversations::run(rest),
        "explore" => explore::run(rest),
        "figures" => figures::run(rest),
        "schema" => schema::run(rest),
        "workloads" => workloads::run(rest),
        _ => {
            eprintln!(
                "cargo xtask COMMAND: no command {command:?}; there are: bench, conversations, decisions, explore, figures, schema, workloads"
            );
            ExitCode::FAILURE
        }
    }
}

/// The folder of the workspace.
fn root() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
