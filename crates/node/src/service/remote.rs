//! Exec and attach: a container's streams on one side, an asker's on the other, whatever carries them.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, watch};

use super::upgrade::{self, Carrier};
use super::{Aim, Desk, Refusal, exit_status, query, running, spdy_remote, websocket_remote};
use crate::node::Body;
use crate::runtime::{ContainerId, ExecRequest, ExecSession, Runtime, RuntimeError};

/// How much of a stream goes into one message.
const PIECE: usize = 32 * 1_024;
/// Messages that wait on either side.
pub(super) const MESSAGES: usize = 8;

/// What the asker sends.
#[derive(Debug)]
pub(super) enum In {
    Stdin(Bytes),
    /// There is no more input.
    StdinEnd,
    /// Columns and rows.
    Resize(u16, u16),
}

/// What the asker is sent.
#[derive(Debug)]
pub(super) enum Out {
    Stdout(Bytes),
    Stderr(Bytes),
    /// All is said: how it ended. The connection is closed behind it.
    End(Result<i32, String>),
    /// A sign of life is wanted: somebody waits.
    Ask,
}

/// An asker.
pub(super) struct Asker {
    pub(super) input: mpsc::Receiver<In>,
    pub(super) output: mpsc::Sender<Out>,
    /// Becomes true when the connection is gone.
    pub(super) gone: watch::Receiver<bool>,
}

/// Which of the two it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Exec,
    Attach,
}

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) command: Vec<String>,
    pub(super) stdin: bool,
    pub(super) stdout: bool,
    pub(super) stderr: bool,
    pub(super) tty: bool,
}

impl Asked {
    /// Reads the query of an exec or attach.
    pub(super) fn parse(text: &str) -> Self {
        let pairs = query(text);
        let flag = |names: [&str; 2]| {
            pairs.iter().any(|(name, value)| {
                names.contains(&name.as_str()) && matches!(value.as_str(), "1" | "true")
            })
        };
        let tty = flag(["tty", "tty"]);
        Self {
            command: pairs
                .iter()
                .filter(|(name, _)| name == "command")
                .map(|(_, value)| value.clone())
                .collect(),
            stdin: flag(["input", "stdin"]),
            stdout: flag(["output", "stdout"]),
            // upstream: a terminal has one output.
            stderr: flag(["error", "stderr"]) && !tty,
            tty,
        }
    }
}

/// Answers a request with 101 and speaks on beside it.
pub(super) fn start(
    desk: &Desk,
    aim: &Aim,
    verb: Verb,
    mut request: Request<Body>,
) -> Result<Response<Body>, Refusal> {
    let asked = Asked::parse(request.uri().query().unwrap_or_default());
    if verb == Verb::Exec && asked.command.is_empty() {
        return Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            "you must specify at least 1 command for the container",
        ));
    }
    if !asked.stdin && !asked.stdout && !asked.stderr {
        // upstream: remotecommand.NewOptions.
        let message = "you must specify at least 1 of stdin, stdout, stderr";
        return Err(Refusal::new(StatusCode::BAD_REQUEST, message));
    }
    let id = running(desk, aim)?;
    let upgrade = upgrade::take(
        &mut request,
        &websocket_remote::PROTOCOLS,
        &spdy_remote::PROTOCOLS,
    )?;
    let runtime = Arc::clone(&desk.runtime);
    tokio::spawn(async move {
        let Some(connection) = upgrade::upgraded(upgrade.connection).await else {
            return;
        };
        let asker = match upgrade.carrier {
            Carrier::WebSocket => websocket_remote::start(connection).await,
            Carrier::Spdy => match spdy_remote::start(connection, upgrade.protocol, &asked).await {
                Some(asker) => asker,
                None => return,
            },
        };
        speak(runtime.as_ref(), &id, verb, asked, asker).await;
    });
    Ok(upgrade.response)
}

async fn speak(runtime: &dyn Runtime, id: &ContainerId, verb: Verb, asked: Asked, asker: Asker) {
    let output = asker.output.clone();
    let result = match open(runtime, id, verb, &asked).await {
        Ok(session) => carry(session, asker, &asked).await,
        Err(error) => Some(Err(told(&error))),
    };
    if let Some(result) = result {
        // Whoever asked may have gone.
        let _ = output.send(Out::End(result)).await;
    }
}

async fn open(
    runtime: &dyn Runtime,
    id: &ContainerId,
    verb: Verb,
    asked: &Asked,
) -> Result<ExecSession, RuntimeError> {
    match verb {
        Verb::Attach => runtime.attach(id, asked.stdin).await,
        Verb::Exec => {
            let request = ExecRequest {
                argv: asked.command.clone(),
                stdin: asked.stdin,
                tty: asked.tty,
            };
            runtime.exec(id, &request).await
        }
    }
}

/// An error with what caused it.
fn told(error: &RuntimeError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// Carries both ways until the program has ended and all of its output is told; `None` when the asker went first.
///
/// The two directions are independent: a program that does not read its input for a while can still be heard.
async fn carry(session: ExecSession, asker: Asker, asked: &Asked) -> Option<Result<i32, String>> {
    let ExecSession {
        stdin,
        stdout,
        stderr,
        exit,
        resize,
    } = session;
    let Asker {
        input,
        output,
        mut gone,
    } = asker;
    let telling = async {
        let stdout = pump(stdout, output.clone(), asked.stdout, Out::Stdout);
        let stderr = async {
            match stderr {
                Some(stderr) => pump(stderr, output.clone(), asked.stderr, Out::Stderr).await,
                None => true,
            }
        };
        match tokio::join!(stdout, stderr) {
            (true, true) => Some(exit.await.map_err(|error| told(&error))),
            (_, _) => None,
        }
    };
    tokio::select! {
        told = telling => told,
        () = listen(input, stdin, resize) => None,
        () = becomes_true(&mut gone) => None,
    }
}

/// Returns when this is true, or will never be told.
pub(super) async fn becomes_true(told: &mut watch::Receiver<bool>) {
    // What is borrowed must not outlive the wait.
    drop(told.wait_for(|told| *told).await);
}

/// Takes what the asker sends, for as long as it is carried; never returns by itself.
async fn listen(
    mut input: mpsc::Receiver<In>,
    mut stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    resize: Option<mpsc::Sender<(u16, u16)>>,
) {
    while let Some(message) = input.recv().await {
        match message {
            In::Stdin(bytes) => {
                if let Some(pipe) = &mut stdin
                    && (pipe.write_all(&bytes).await.is_err() || pipe.flush().await.is_err())
                {
                    // The program reads no more; what is typed at it is lost, as in any pipe.
                    stdin = None;
                }
            }
            In::StdinEnd => stdin = None,
            In::Resize(columns, rows) => {
                if let Some(resize) = &resize {
                    // A program that has ended needs no size.
                    let _ = resize.send((columns, rows)).await;
                }
            }
        }
    }
    // Whether the asker is gone is told apart from this; without more input there may still be output.
    std::future::pending().await
}

/// Turns a stream into messages; `false` when nobody takes them any more.
async fn pump(
    mut stream: Box<dyn AsyncRead + Send + Unpin>,
    output: mpsc::Sender<Out>,
    wanted: bool,
    message: fn(Bytes) -> Out,
) -> bool {
    let mut piece = vec![0; PIECE];
    loop {
        match stream.read(&mut piece).await {
            Ok(count) if count > 0 => {
                let message = message(Bytes::copy_from_slice(&piece[..count]));
                if wanted && output.send(message).await.is_err() {
                    return false;
                }
            }
            // A stream that fails has ended.
            Ok(_) | Err(_) => return true,
        }
    }
}

/// The Status that ends an exec or attach.
pub(super) fn status(result: Result<i32, String>) -> Bytes {
    Bytes::from(exit_status(result))
}
