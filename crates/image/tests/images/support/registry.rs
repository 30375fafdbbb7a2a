//! A registry on loopback that speaks the distribution protocol, and misbehaves where it is told to.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use stead_image::Digest;

use super::Built;

/// What it does wrong.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// Sends so many bytes of the body, then nothing more, with the line held open.
    Stall(usize),
    /// Sends so many bytes of the body, then hangs up.
    Cut(usize),
    /// Sends other bytes.
    Instead(Vec<u8>),
    /// Sends these bytes without saying how many.
    Unsized(Vec<u8>),
    /// Answers with this status and header.
    Status(u16, String),
    /// Points elsewhere.
    Redirect(String),
}

/// Who may pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Auth {
    Nobody,
    Basic,
    Bearer,
}

/// One request that it was sent.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
}

struct State {
    auth: Auth,
    /// Does not know of parts.
    whole_only: bool,
    things: BTreeMap<String, (String, Vec<u8>)>,
    /// By a part of the path: what to do wrong, and how often.
    faults: Vec<(String, Fault, usize)>,
    asked: Vec<Asked>,
}

/// The registry; ends when it is dropped.
pub(crate) struct Registry {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    ended: Arc<AtomicBool>,
}

/// The login that it takes.
pub(crate) const USER: &str = "reader";
pub(crate) const PASSWORD: &str = "open:sesame";

impl Registry {
    pub(crate) fn start() -> Registry {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let registry = Registry {
            address: listener.local_addr().expect("it is bound"),
            state: Arc::new(Mutex::new(State {
                auth: Auth::Nobody,
                whole_only: false,
                things: BTreeMap::new(),
                faults: Vec::new(),
                asked: Vec::new(),
            })),
            ended: Arc::new(AtomicBool::new(false)),
        };
        let (state, ended, address) = (
            registry.state.clone(),
            registry.ended.clone(),
            registry.address,
        );
        std::thread::spawn(move || {
            for line in listener.incoming().flatten() {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                let (state, ended) = (state.clone(), ended.clone());
                // A caller that hangs up ends its thread.
                std::thread::spawn(move || serve(line, &state, &ended, address).is_ok());
            }
        });
        registry
    }

    /// `127.0.0.1:port`.
    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    /// A name in it.
    pub(crate) fn name(&self, rest: &str) -> String {
        format!("{}/{rest}", self.address)
    }

    pub(crate) fn protect(&self, auth: Auth) {
        self.lock().auth = auth;
    }

    pub(crate) fn send_whole_only(&self) {
        self.lock().whole_only = true;
    }

    /// Keeps an image under a tag and its digest.
    pub(crate) fn push(&self, repository: &str, tag: &str, image: &Built) {
        self.put_manifest(repository, tag, &image.manifest);
        for (digest, bytes) in &image.blobs {
            let path = format!("/v2/{repository}/blobs/{digest}");
            let kind = "application/octet-stream".to_owned();
            self.lock().things.insert(path, (kind, bytes.clone()));
        }
    }

    /// Keeps a manifest or an index under a tag and its digest.
    pub(crate) fn put_manifest(&self, repository: &str, tag: &str, bytes: &[u8]) {
        let document: serde_json::Value = serde_json::from_slice(bytes).unwrap_or_default();
        let kind = document["mediaType"]
            .as_str()
            .unwrap_or("application/json")
            .to_owned();
        for reference in [tag.to_owned(), Digest::of(bytes).to_string()] {
            let path = format!("/v2/{repository}/manifests/{reference}");
            self.lock()
                .things
                .insert(path, (kind.clone(), bytes.to_vec()));
        }
    }

    /// Does something wrong with the next `times` requests whose path holds `part`.
    pub(crate) fn fault(&self, part: impl Into<String>, fault: Fault, times: usize) {
        self.lock().faults.push((part.into(), fault, times));
    }

    /// Requests so far whose path holds `part`.
    pub(crate) fn asked(&self, part: &str) -> Vec<Asked> {
        let state = self.lock();
        let fits = |asked: &&Asked| asked.path.contains(part);
        state.asked.iter().filter(fits).cloned().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no test panics with it")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// Bytes to send really, and whether the line stays open then.
    send: Option<(usize, bool)>,
    sized: bool,
}

impl Answer {
    fn new(status: u16, body: &[u8]) -> Answer {
        Answer {
            status,
            headers: Vec::new(),
            body: body.to_vec(),
            send: None,
            sized: true,
        }
    }

    fn with(mut self, name: &str, value: impl Into<String>) -> Answer {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

fn serve(
    line: TcpStream,
    state: &Mutex<State>,
    ended: &AtomicBool,
    address: SocketAddr,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(line.try_clone()?);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let path = first
        .split_whitespace()
        .nth(1)
        .unwrap_or_default()
        .to_owned();
    let mut headers = BTreeMap::new();
    loop {
        let mut text = String::new();
        if reader.read_line(&mut text)? == 0 || text.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = text.split_once(':') {
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    let asked = Asked { path, headers };
    let answer = {
        let mut state = state.lock().expect("no test panics with it");
        state.asked.push(asked.clone());
        respond(&mut state, &asked, address)
    };
    send(line, &answer, ended)
}

fn send(mut line: TcpStream, answer: &Answer, ended: &AtomicBool) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", answer.status);
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if answer.sized {
        head.push_str(&format!("Content-Length: {}\r\n", answer.body.len()));
    }
    head.push_str("\r\n");
    line.write_all(head.as_bytes())?;
    let (count, stays) = answer.send.unwrap_or((answer.body.len(), false));
    line.write_all(&answer.body[..count.min(answer.body.len())])?;
    line.flush()?;
    if stays {
        // Until the caller has had enough.
        line.set_read_timeout(Some(std::time::Duration::from_millis(100)))?;
        let mut byte = [0];
        while !ended.load(Ordering::SeqCst) {
            if let Ok(0) = line.read(&mut byte) {
                break;
            }
        }
    }
    Ok(())
}

fn respond(state: &mut State, asked: &Asked, address: SocketAddr) -> Answer {
    if let Some(answer) = authorize(state, asked, address) {
        return answer;
    }
    let fault = state
        .faults
        .iter_mut()
        .find(|(part, _, times)| *times > 0 && asked.path.contains(part.as_str()))
        .map(|(_, fault, times)| {
            *times -= 1;
            fault.clone()
        });
    match fault {
        Some(Fault::Status(status, header)) => {
            let answer = Answer::new(status, b"{}");
            match header.split_once(": ") {
                Some((name, value)) => answer.with(name, value),
                None => answer,
            }
        }
        Some(Fault::Redirect(to)) => Answer::new(307, b"").with("Location", to),
        Some(Fault::Instead(bytes)) => Answer::new(200, &bytes),
        Some(Fault::Unsized(bytes)) => Answer {
            sized: false,
            ..Answer::new(200, &bytes)
        },
        Some(Fault::Cut(count)) => Answer {
            send: Some((count, false)),
            ..thing(state, asked)
        },
        Some(Fault::Stall(count)) => Answer {
            send: Some((count, true)),
            ..thing(state, asked)
        },
        None => thing(state, asked),
    }
}

fn thing(state: &State, asked: &Asked) -> Answer {
    let Some((kind, bytes)) = state.things.get(&asked.path) else {
        return Answer::new(404, br#"{"errors":[{"code":"NAME_UNKNOWN"}]}"#);
    };
    let range = asked
        .headers
        .get("range")
        .and_then(|range| {
            range
                .strip_prefix("bytes=")?
                .strip_suffix('-')?
                .parse::<usize>()
                .ok()
        })
        .filter(|_| !state.whole_only);
    let answer = match range.filter(|from| *from <= bytes.len()) {
        Some(from) => Answer::new(206, &bytes[from..]).with(
            "Content-Range",
            format!(
                "bytes {from}-{}/{}",
                bytes.len().saturating_sub(1),
                bytes.len()
            ),
        ),
        None => Answer::new(200, bytes),
    };
    let answer = answer.with("Content-Type", kind.clone());
    if asked.path.contains("/manifests/") {
        return answer.with("Docker-Content-Digest", Digest::of(bytes).to_string());
    }
    answer
}

fn authorize(state: &State, asked: &Asked, address: SocketAddr) -> Option<Answer> {
    use base64::Engine as _;
    let login = format!("{USER}:{PASSWORD}");
    let basic = format!(
        "Basic {}",
        base64::engine::general_purpose::STANDARD.encode(login)
    );
    let given = asked
        .headers
        .get("authorization")
        .map_or("", String::as_str);
    if asked.path.starts_with("/token") {
        return Some(if given == basic {
            Answer::new(200, br#"{"token": "a-token"}"#)
        } else {
            Answer::new(401, b"{}")
        });
    }
    let wanted = match state.auth {
        Auth::Nobody => return None,
        Auth::Basic => basic.as_str(),
        Auth::Bearer => "Bearer a-token",
    };
    if given == wanted {
        return None;
    }
    let challenge = match state.auth {
        Auth::Bearer => format!("Bearer realm=\"http://{address}/token\",service=\"test\""),
        Auth::Nobody | Auth::Basic => "Basic realm=\"test\"".to_owned(),
    };
    Some(Answer::new(401, b"{}").with("WWW-Authenticate", challenge))
}
