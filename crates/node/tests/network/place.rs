//! Network namespaces of the test's own: a machine, a world outside, and pods, each a place where sockets can be used.
//!
//! Nothing here touches the network of the machine that runs the tests: everything happens in namespaces that go with it.

use std::fs::File;
use std::future::Future;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns, unshare};

/// How long anything may take before it counts as stuck.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// How long an answer is waited for where none is expected, and before one more try where one is.
const SHORT: Duration = Duration::from_millis(400);

/// Runs a test in a network namespace that nothing else is in.
pub(crate) fn on_a_machine<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let work = move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("root may make a network namespace");
        ip("link set lo up");
        // The test waits while the node works.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(test());
    };
    // Threads that this one makes are in its namespace too.
    let machine = thread::spawn(work);
    if let Err(panic) = machine.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs `ip` here; its output.
pub(crate) fn ip(words: &str) -> String {
    let output = Command::new("ip")
        .args(words.split(' '))
        .output()
        .expect("the program ip");
    assert!(output.status.success(), "ip {words}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace to work in.
#[derive(Clone)]
pub(crate) struct Place(mpsc::Sender<Job>);

impl Place {
    /// Where this is called.
    pub(crate) fn here() -> Self {
        Self::start(|| {})
    }

    /// The namespace of a file.
    pub(crate) fn of(namespace: PathBuf) -> Self {
        Self::start(move || {
            let file = File::open(&namespace).expect("a namespace");
            setns(file, CloneFlags::CLONE_NEWNET).expect("root may enter");
        })
    }

    /// A world outside: 198.51.100.1 here is 198.51.100.9 there, and it knows no way to anywhere else.
    pub(crate) fn world() -> Self {
        let world = Self::start(|| unshare(CloneFlags::CLONE_NEWNET).expect("root may"));
        let task = world.run(|| {
            let task = std::fs::read_link("/proc/thread-self").expect("a thread");
            task.file_name()
                .expect("a name")
                .to_string_lossy()
                .into_owned()
        });
        ip(&format!(
            "link add eth0 type veth peer name eth0 netns {task}"
        ));
        ip("addr add 198.51.100.1/24 dev eth0");
        ip("link set eth0 up");
        world.run(|| {
            ip("link set lo up");
            ip("addr add 198.51.100.9/24 dev eth0");
            ip("link set eth0 up");
        });
        ip("route add default via 198.51.100.9");
        world
    }

    fn start(enter: impl FnOnce() + Send + 'static) -> Self {
        let (jobs, todo) = mpsc::channel::<Job>();
        thread::spawn(move || {
            enter();
            for job in todo {
                job();
            }
        });
        Self(jobs)
    }

    /// Does something there and waits for it.
    pub(crate) fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (told, answer) = mpsc::channel();
        let job = move || drop(told.send(work()));
        self.0.send(Box::new(job)).expect("the place is there");
        answer.recv().expect("the work did not panic")
    }

    /// Answers whoever connects with a word and the address that it came from.
    pub(crate) fn serve(&self, port: u16, word: &'static str) {
        let at = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        let listener = self
            .run(move || TcpListener::bind(at))
            .expect("the port is free");
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let from = stream.peer_addr().map(|own| own.ip().to_string());
                let said = format!("{word} {}", from.unwrap_or_default());
                drop(stream.write_all(said.as_bytes()));
            }
        });
    }

    /// Answers packets with a word and the address that they came from.
    pub(crate) fn serve_udp(&self, port: u16, word: &'static str) {
        let at = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        let socket = self
            .run(move || UdpSocket::bind(at))
            .expect("the port is free");
        thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok((_, from)) = socket.recv_from(&mut buffer) {
                let said = format!("{word} {}", from.ip());
                drop(socket.send_to(said.as_bytes(), from));
            }
        });
    }

    /// What is answered at an address.
    pub(crate) fn ask(&self, at: &str) -> io::Result<String> {
        self.ask_within(at, SHORT)
    }

    fn ask_within(&self, at: &str, limit: Duration) -> io::Result<String> {
        let at = address(at);
        self.run(move || {
            let mut stream = TcpStream::connect_timeout(&at, limit)?;
            stream.set_read_timeout(Some(limit))?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        })
    }

    /// Sends packets from one port of its own for ever; whatever is answered.
    pub(crate) fn keep_asking_udp(&self, at: &str) -> mpsc::Receiver<String> {
        let at = address(at);
        let socket = self
            .run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))
            .expect("a port");
        let (told, answers) = mpsc::channel();
        socket.set_read_timeout(Some(SHORT)).expect("a limit");
        thread::spawn(move || {
            let mut buffer = [0; 64];
            loop {
                // Nobody listens, or nobody answers: once more.
                drop(socket.send_to(b"?", at));
                let Ok((count, _)) = socket.recv_from(&mut buffer) else {
                    continue;
                };
                let text = String::from_utf8_lossy(&buffer[..count]).into_owned();
                if told.send(text).is_err() {
                    return;
                }
            }
        });
        answers
    }

    /// Speaks without end to the first who connects; tells when it cannot any more.
    pub(crate) fn talk_without_end(&self, port: u16) -> mpsc::Receiver<()> {
        let at = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        let listener = self
            .run(move || TcpListener::bind(at))
            .expect("the port is free");
        let (told, ended) = mpsc::channel();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            while stream.write_all(b".").is_ok() {
                thread::yield_now();
            }
            let _ = told.send(());
        });
        ended
    }

    /// Connects, tells of the first byte, and listens on.
    pub(crate) fn listen_without_end(&self, at: &str) -> mpsc::Receiver<()> {
        let at = address(at);
        let mut stream = self
            .run(move || TcpStream::connect_timeout(&at, PATIENCE))
            .expect("a server");
        let (told, first) = mpsc::channel();
        thread::spawn(move || {
            let mut buffer = [0; 1024];
            while stream.read(&mut buffer).is_ok_and(|count| count > 0) {
                let _ = told.send(());
            }
        });
        first
    }

    /// Asks until the answer is this one.
    pub(crate) fn until(&self, at: &str, wanted: &str) {
        let last = self.until_is(at, |answer| answer.as_deref().ok() == Some(wanted));
        assert!(last.is_ok(), "{at} answers {last:?}, not {wanted}");
    }

    /// Asks until the answer is as wanted; the last one, which may not be.
    pub(crate) fn until_is(
        &self,
        at: &str,
        is: impl Fn(&io::Result<String>) -> bool,
    ) -> io::Result<String> {
        let start = Instant::now();
        loop {
            let answer = self.ask(at);
            if is(&answer) || start.elapsed() > PATIENCE {
                return answer;
            }
            thread::yield_now();
        }
    }
}

pub(crate) fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address with a port")
}

/// The links, addresses, routes and settings of the machine, as text to be compared.
pub(crate) fn picture() -> String {
    let forwarding = std::fs::read_dir("/proc/sys/net/ipv4/conf").expect("settings");
    let mut settings: Vec<String> = forwarding
        .flatten()
        .map(|own| setting(&own.path()))
        .collect();
    settings.sort();
    let links = ip("-o link");
    let addresses = ip("-o -4 addr");
    let routes = ip("route show table all");
    format!("{links}{addresses}{routes}{}", settings.join("\n"))
}

fn setting(folder: &Path) -> String {
    let own = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap_or_default();
    format!(
        "{} {} {}",
        folder.display(),
        own("forwarding").trim(),
        own("rp_filter").trim()
    )
}
