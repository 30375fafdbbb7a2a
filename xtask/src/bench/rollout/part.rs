//! What the bench's other processes do: serve the API, or run the controller and say at the end what it called.

use std::collections::BTreeMap;
use std::process::ExitCode;

use tokio::io::AsyncReadExt as _;

use super::lab::client;

/// Calls by method and code.
pub(super) struct Calls(pub(super) BTreeMap<(String, u16), u64>);

impl Calls {
    /// Reads what a controller said at its end: a line a kind of call.
    pub(super) fn parse(said: &str) -> Result<Calls, String> {
        let line = |line: &str| {
            let mut fields = line.split_whitespace();
            let method = fields.next()?.to_owned();
            let code = fields.next()?.parse().ok()?;
            Some(((method, code), fields.next()?.parse().ok()?))
        };
        let calls = said
            .lines()
            .map(|said| line(said).ok_or_else(|| format!("{said:?} is no count of calls")));
        Ok(Calls(calls.collect::<Result<_, _>>()?))
    }

    /// How many there were of a kind.
    pub(super) fn count(&self, method: &str, code: u16) -> u64 {
        let key = (method.to_owned(), code);
        self.0.get(&key).copied().unwrap_or(0)
    }
}

/// Runs the part that the arguments name.
pub(super) fn run(args: &[String]) -> Option<ExitCode> {
    let [first, what, argument] = args else {
        return None;
    };
    if first != "rollout-part" {
        return None;
    }
    let done = super::super::runtime().and_then(|runtime| {
        runtime.block_on(async {
            match what.as_str() {
                "server" => server().await,
                _ => controller(argument).await,
            }
        })
    });
    Some(match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cargo xtask bench: {what}: {error}");
            ExitCode::FAILURE
        }
    })
}

async fn server() -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let options = stead_apiserver::AloneOptions {
        data_dir: folder.path().to_owned(),
        listen: ([127, 0, 0, 1], 0).into(),
        in_memory: false,
    };
    let server = stead_apiserver::start_alone(options).await;
    let server = server.map_err(|error| error.to_string())?;
    println!("{}", server.kubeconfig().display());
    end_of_input().await;
    server.shutdown().await;
    Ok(())
}

async fn controller(kubeconfig: &str) -> Result<(), String> {
    let options = stead_controller::Options::default();
    let metrics = options.metrics.clone();
    let client = client(kubeconfig).await?;
    println!("it runs");
    let running = stead_controller::run(client, options, end_of_input());
    running.await.map_err(|error| error.to_string())?;
    for ((method, code), count) in metrics.calls() {
        println!("{method} {code} {count}");
    }
    Ok(())
}

async fn end_of_input() {
    let mut rest = Vec::new();
    // An input that cannot be read is at its end.
    let _ = tokio::io::stdin().read_to_end(&mut rest).await;
}
