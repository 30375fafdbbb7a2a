//! The project's own tools: one module a command, dispatched by its name.

mod figures;
mod schema;

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (command, rest) = args
        .split_first()
        .map_or(("", &[][..]), |(command, rest)| (command.as_str(), rest));
    match command {
        "figures" => figures::run(rest),
        "schema" => schema::run(rest),
        _ => {
            eprintln!("cargo xtask COMMAND: no command {command:?}; there is: schema");
            ExitCode::FAILURE
        }
    }
}
