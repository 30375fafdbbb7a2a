//! DNS questions a second that the daemon answers, beside a bare UDP echo asked by the same clients in the same run.

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::daemon::Daemon;
use super::figure;

const CLIENTS: usize = 16;
const SPAN: Duration = Duration::from_secs(3);
/// What we promise.
const PROMISED: f64 = 5_000.0;
/// A lost packet is asked again after this.
const PATIENCE: Duration = Duration::from_secs(1);
const READY: Duration = Duration::from_secs(60);

/// Prints questions a second.
pub(super) fn run(stead: &Path) -> Result<(), String> {
    let args = ["up", "--listen", "127.0.0.1:0", "--tier", "processes"];
    let mut daemon = Daemon::start(stead, &args)?;
    daemon.until("Ctrl-C")?;
    let server = server(daemon.data_dir())?;
    wait_until_it_knows(server)?;
    let answered = load(server)?;
    let echoed = beside_an_echo()?;
    figure(
        "DNS answers, 16 clients",
        &format!("{answered:.0} /s"),
        &format!(
            "{:.2} x a bare UDP echo ({echoed:.0} /s); promised: {PROMISED:.0} /s",
            answered / echoed
        ),
    );
    Ok(())
}

fn server(data_dir: &Path) -> Result<SocketAddr, String> {
    let file = data_dir.join("daemon.json");
    let text = std::fs::read(&file)
        .map_err(|error| format!("could not read {}: {error}", file.display()))?;
    let about: serde_json::Value =
        serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    let dns = about["dns"].as_str().ok_or("the daemon serves no DNS")?;
    dns.parse().map_err(|error| format!("{dns}: {error}"))
}

/// Until its first list of Services is there it answers SERVFAIL.
fn wait_until_it_knows(server: SocketAddr) -> Result<(), String> {
    let since = Instant::now();
    let mut client = Client::new(server)?;
    while client.ask()? != 0 {
        if since.elapsed() > READY {
            return Err("DNS never knew the Service kubernetes".to_owned());
        }
    }
    Ok(())
}

/// Answers a second to so many clients, each of which asks again when it was answered.
fn load(server: SocketAddr) -> Result<f64, String> {
    let since = Instant::now();
    let ask = |_| {
        std::thread::spawn(move || {
            let mut client = Client::new(server)?;
            let mut answers = 0u32;
            while since.elapsed() < SPAN {
                client.ask()?;
                answers += 1;
            }
            Ok::<u32, String>(answers)
        })
    };
    let clients: Vec<_> = (0..CLIENTS).map(ask).collect();
    let mut all = 0;
    for client in clients {
        all += client.join().map_err(|_| "a client panicked")??;
    }
    Ok(f64::from(all) / since.elapsed().as_secs_f64())
}

/// The same load on a socket that sends back what it receives.
fn beside_an_echo() -> Result<f64, String> {
    let failed = |error: std::io::Error| format!("could not echo: {error}");
    let socket = UdpSocket::bind("127.0.0.1:0").map_err(failed)?;
    socket
        .set_read_timeout(Some(Duration::from_millis(100)))
        .map_err(failed)?;
    let address = socket.local_addr().map_err(failed)?;
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut buffer = [0; 2048];
            while !is_over.load(Ordering::Relaxed) {
                if let Ok((octets, client)) = socket.recv_from(&mut buffer) {
                    // A client that has gone away asks no more.
                    let _ = socket.send_to(&buffer[..octets], client);
                }
            }
        });
        let echoed = load(address);
        is_over.store(true, Ordering::Relaxed);
        echoed
    })
}

struct Client {
    socket: UdpSocket,
    question: Vec<u8>,
}

impl Client {
    fn new(server: SocketAddr) -> Result<Self, String> {
        let open = || -> std::io::Result<UdpSocket> {
            let socket = UdpSocket::bind("127.0.0.1:0")?;
            socket.connect(server)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            Ok(socket)
        };
        let socket = open().map_err(|error| format!("could not open a socket: {error}"))?;
        Ok(Self {
            socket,
            question: question(),
        })
    }

    /// Asks until an answer comes; its code, 0 for a name that is there.
    fn ask(&mut self) -> Result<u8, String> {
        let mut buffer = [0; 2048];
        for _ in 0..10 {
            let sent = self.socket.send(&self.question);
            sent.map_err(|error| format!("could not ask: {error}"))?;
            if let Ok(octets) = self.socket.recv(&mut buffer)
                && octets >= 12
            {
                return Ok(buffer[3] & 0x0f);
            }
        }
        Err("no answer came to ten questions".to_owned())
    }
}

/// The address of the Service that every cluster has.
fn question() -> Vec<u8> {
    let mut bytes = vec![0, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in ["kubernetes", "default", "svc", "cluster", "local"] {
        bytes.extend(u8::try_from(label.len()));
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.extend([0, 0, 1, 0, 1]);
    bytes
}
