//! `stead exec`: runs a program in a container, with its streams and its exit code.

use std::process::ExitCode;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::api::{AttachParams, AttachedProcess, TerminalSize};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::io::{AsyncWriteExt, copy};

use crate::args::Exec;
use crate::failure::{EXIT_FAILED, Failure};
use crate::place::Place;

/// Runs the program and ends with its code.
pub(crate) async fn run(args: Exec, place: &Place) -> Result<ExitCode, Failure> {
    let api = place.connect().await?;
    let pods = kube::Api::<Pod>::namespaced(api.client, &args.namespace.namespace);
    let params = AttachParams {
        container: args.container.clone(),
        stdin: args.stdin,
        stdout: true,
        stderr: !args.tty,
        tty: args.tty,
        ..AttachParams::default()
    };
    let process = pods.exec(&args.pod, &args.command, &params).await;
    let process = process.map_err(|error| {
        Failure::caused(
            &format!("could not run {} in {}", args.command[0], args.pod),
            &error,
        )
    })?;
    let status = pass_on(process, args.tty).await;
    exit_code(&args, status)
}

/// Passes the streams on until the program ends, with the terminal raw where one is asked for.
pub(crate) async fn pass_on(process: AttachedProcess, tty: bool) -> Option<Status> {
    let raw = if tty { RawTerminal::enter() } else { None };
    let status = pump(process).await;
    drop(raw);
    status
}

async fn pump(mut process: AttachedProcess) -> Option<Status> {
    let status = process.take_status();
    if let Some(mut stdin) = process.stdin() {
        // Ends with the process: a read of a terminal cannot be called off.
        tokio::spawn(async move {
            let _ = copy(&mut tokio::io::stdin(), &mut stdin).await;
            let _ = stdin.shutdown().await;
        });
    }
    if let Some(sizes) = process.terminal_size() {
        tokio::spawn(follow_size(sizes));
    }
    let out = process.stdout();
    let err = process.stderr();
    let outs = async {
        if let Some(mut stream) = out {
            let _ = copy(&mut stream, &mut tokio::io::stdout()).await;
        }
    };
    let errs = async {
        if let Some(mut stream) = err {
            let _ = copy(&mut stream, &mut tokio::io::stderr()).await;
        }
    };
    tokio::join!(outs, errs);
    let _ = tokio::io::stdout().flush().await;
    match status {
        Some(status) => status.await,
        None => None,
    }
}

async fn follow_size(mut sizes: futures::channel::mpsc::Sender<TerminalSize>) {
    use futures::SinkExt;
    let Ok(mut changes) =
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::window_change())
    else {
        return;
    };
    loop {
        if let Ok(size) = rustix::termios::tcgetwinsize(std::io::stdout()) {
            let size = TerminalSize {
                width: size.ws_col,
                height: size.ws_row,
            };
            if sizes.send(size).await.is_err() {
                return;
            }
        }
        if changes.recv().await.is_none() {
            return;
        }
    }
}

/// The code that the program ended with, as the Status on the error channel tells it.
fn exit_code(args: &Exec, status: Option<Status>) -> Result<ExitCode, Failure> {
    let Some(status) = status else {
        return Err(Failure::failed(format!(
            "the connection to {} ended before {} did",
            args.pod, args.command[0]
        )));
    };
    if status.status.as_deref() == Some("Success") {
        return Ok(ExitCode::SUCCESS);
    }
    let causes = status
        .details
        .and_then(|details| details.causes)
        .unwrap_or_default();
    let told = causes
        .iter()
        .find(|cause| cause.reason.as_deref() == Some("ExitCode"));
    match told
        .and_then(|cause| cause.message.as_deref())
        .and_then(|code| code.parse::<i32>().ok())
    {
        Some(code) => Ok(ExitCode::from(u8::try_from(code).unwrap_or(EXIT_FAILED))),
        None => Err(Failure::failed(format!(
            "could not run {} in {}: {}",
            args.command[0],
            args.pod,
            status.message.unwrap_or_default()
        ))),
    }
}

/// The terminal without line editing and echo, until dropped.
struct RawTerminal(Termios);

impl RawTerminal {
    /// `None` where standard input is no terminal.
    fn enter() -> Option<RawTerminal> {
        let before = tcgetattr(std::io::stdin()).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(std::io::stdin(), OptionalActions::Now, &raw).ok()?;
        Some(RawTerminal(before))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // A terminal that went away needs no repair.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
    }
}
