//! The container's streams while it lives: from its pipes or terminal to the log and to whoever is attached.
//!
//! Nothing here waits but [`Outputs::wait`]. An attacher that does not keep up holds up the container's output, as a
//! full pipe would; one that takes nothing at all for [`PATIENCE`] is let go, for a container outlives its audience.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signalfd::SignalFd;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen,
    send, socket_with,
};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::runtime::frames::{self, Channel, Frames};
use crate::runtime::{ContainerSpec, RecordDir};

use super::launch::Launched;
use super::log::{Lines, LogFile, Stream};

/// How far an attacher may lag behind before the container's output waits for it.
const LAG: usize = 256 * 1024;
/// How long an attacher may take nothing while others wait for it.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the last words of an ended container wait for its attachers.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// How much is read at once.
const PIECE: usize = 64 * 1024;
/// Attachers that wait to be taken.
const BACKLOG: i32 = 64;

/// A container's streams.
pub(super) struct Outputs {
    pub(super) pid: u32,
    stdout: Output,
    stderr: Output,
    stdin: Stdin,
    /// The shim's end of the terminal, for its size.
    terminal: Option<OwnedFd>,
    listener: Option<OwnedFd>,
    attachers: Vec<Attacher>,
}

impl Outputs {
    /// Takes the streams over, and attachers at a socket in `folder`.
    pub(super) fn of(launched: Launched, spec: &ContainerSpec, folder: &Path) -> io::Result<Self> {
        let Launched { pid, streams } = launched;
        let terminal = spec.tty.then(|| streams.stdout.try_clone()).transpose()?;
        let stdin = match &terminal {
            Some(terminal) if spec.stdin => Some(terminal.try_clone()?),
            Some(_) | None => streams.stdin,
        };
        Ok(Self {
            pid,
            stdout: Output::of(Some(streams.stdout), Stream::Stdout)?,
            stderr: Output::of(streams.stderr, Stream::Stderr)?,
            stdin: Stdin::of(stdin, spec.stdin_once && !spec.tty)?,
            terminal,
            listener: Some(listen_in(folder)?),
            attachers: Vec::new(),
        })
    }

    /// Waits for output, input, attachers, a signal, or the end of a child.
    pub(super) fn wait(&self, signals: &SignalFd) -> io::Result<()> {
        let mut fds = vec![PollFd::new(signals, PollFlags::IN)];
        if let Some(listener) = &self.listener {
            fds.push(PollFd::new(listener, PollFlags::IN));
        }
        let held_up = self.held_up();
        for output in [&self.stdout, &self.stderr] {
            if let Some(pipe) = output.pipe.as_ref().filter(|_| !held_up) {
                fds.push(PollFd::new(pipe, PollFlags::IN));
            }
        }
        if let Some(pipe) = self.stdin.pipe.as_ref().filter(|_| self.stdin.is_full()) {
            fds.push(PollFd::new(pipe, PollFlags::OUT));
        }
        for attacher in &self.attachers {
            let wanted = attacher.wanted(self.stdin.is_full());
            // Without a wish it would be told of a hang-up again and again.
            if !wanted.is_empty() {
                fds.push(PollFd::new(&attacher.socket, wanted));
            }
        }
        let limit = held_up.then(|| timespec(PATIENCE));
        match poll(&mut fds, limit.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(other) => Err(other.into()),
        }
    }

    /// Carries on what can be carried at once.
    pub(super) fn pump(&mut self, log: &mut LogFile) {
        self.take_attachers();
        self.hear_attachers();
        self.stdin.pump();
        if !self.held_up() {
            self.stdout.pump(log, &mut self.attachers);
            self.stderr.pump(log, &mut self.attachers);
        }
        self.tell_attachers();
    }

    /// Nobody writes any more: takes the rest, and the last lines without a newline.
    pub(super) fn drain(&mut self, log: &mut LogFile) {
        for output in [&mut self.stdout, &mut self.stderr] {
            while output.pump(log, &mut self.attachers) {}
            log.finish(&mut output.lines);
        }
        self.tell_attachers();
    }

    /// Stays for a moment until attachers have heard the last words, then closes their sockets.
    pub(super) fn linger(mut self) {
        self.listener = None;
        let end = Instant::now() + LAST_WORDS;
        loop {
            self.tell_attachers();
            let left = end.saturating_duration_since(Instant::now());
            let mut fds: Vec<PollFd<'_>> = self
                .attachers
                .iter()
                .filter(|attacher| !attacher.out.is_empty())
                .map(|attacher| PollFd::new(&attacher.socket, PollFlags::OUT))
                .collect();
            if fds.is_empty() || left.is_zero() || poll(&mut fds, Some(&timespec(left))).is_err() {
                return;
            }
        }
    }

    fn held_up(&self) -> bool {
        self.attachers.iter().any(|one| one.out.len() > LAG)
    }

    fn take_attachers(&mut self) {
        let Some(listener) = &self.listener else {
            return;
        };
        while let Ok(socket) = accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            self.attachers.push(Attacher::new(socket));
        }
    }

    fn hear_attachers(&mut self) {
        for attacher in &mut self.attachers {
            while !self.stdin.is_full() && attacher.open {
                match attacher.hear() {
                    Some((channel, bytes)) => {
                        obey(
                            channel,
                            &bytes,
                            attacher,
                            &mut self.stdin,
                            self.terminal.as_ref(),
                        );
                    }
                    None => break,
                }
            }
            if !attacher.open && attacher.has_stdin {
                attacher.has_stdin = false;
                self.stdin.end_of_session();
            }
        }
        self.attachers.retain(|attacher| attacher.open);
    }

    fn tell_attachers(&mut self) {
        for attacher in &mut self.attachers {
            attacher.tell();
        }
    }
}

/// Does what a message of an attacher asks for.
fn obey(
    channel: Channel,
    bytes: &[u8],
    attacher: &mut Attacher,
    stdin: &mut Stdin,
    terminal: Option<&OwnedFd>,
) {
    match channel {
        Channel::Stdin => {
            attacher.has_stdin = true;
            stdin.push(bytes);
        }
        Channel::Close => {
            attacher.has_stdin = false;
            stdin.end_of_session();
        }
        Channel::Resize => {
            if let (Some(terminal), [a, b, c, d]) = (terminal, bytes) {
                let size = Winsize {
                    ws_col: u16::from_be_bytes([*a, *b]),
                    ws_row: u16::from_be_bytes([*c, *d]),
                    ws_xpixel: 0,
                    ws_ypixel: 0,
                };
                // A terminal that is closed has no size.
                let _ = tcsetwinsize(terminal, size);
            }
        }
        Channel::Stdout | Channel::Stderr | Channel::Attached => attacher.open = false,
    }
}

fn timespec(time: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(time.subsec_nanos()),
    }
}

/// A socket in this folder. Its path may be longer than a socket's name: it is named by the folder's descriptor.
fn listen_in(folder: &Path) -> io::Result<OwnedFd> {
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?;
    let folder = File::open(folder)?;
    let name = RecordDir::attach_socket();
    let path = format!("/proc/self/fd/{}/{name}", folder.as_raw_fd());
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// One output of the container.
struct Output {
    pipe: Option<File>,
    lines: Lines,
    channel: Channel,
}

impl Output {
    fn of(pipe: Option<OwnedFd>, stream: Stream) -> io::Result<Self> {
        if let Some(pipe) = &pipe {
            rustix::io::ioctl_fionbio(pipe, true)?;
        }
        Ok(Self {
            pipe: pipe.map(File::from),
            lines: Lines::new(stream),
            channel: match stream {
                Stream::Stdout => Channel::Stdout,
                Stream::Stderr => Channel::Stderr,
            },
        })
    }

    /// Takes what can be read at once; `false` when there was nothing.
    fn pump(&mut self, log: &mut LogFile, attachers: &mut [Attacher]) -> bool {
        let Some(pipe) = &mut self.pipe else {
            return false;
        };
        let mut buffer = [0; PIECE];
        match pipe.read(&mut buffer) {
            Ok(0) => {
                self.pipe = None;
                false
            }
            Ok(count) => {
                log.push(&mut self.lines, &buffer[..count]);
                for attacher in attachers.iter_mut().filter(|one| !one.deaf) {
                    frames::write(self.channel, &buffer[..count], &mut attacher.out);
                }
                true
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Err(_) => {
                self.pipe = None;
                false
            }
        }
    }
}

/// The container's standard input.
struct Stdin {
    /// Held so that a program that reads waits instead of meeting the end.
    pipe: Option<File>,
    /// It ends with the first session that had it.
    once: bool,
    /// The session is over; what waits is the last of it.
    ending: bool,
    waiting: VecDeque<u8>,
}

impl Stdin {
    fn of(pipe: Option<OwnedFd>, once: bool) -> io::Result<Self> {
        if let Some(pipe) = &pipe {
            rustix::io::ioctl_fionbio(pipe, true)?;
        }
        Ok(Self {
            pipe: pipe.map(File::from),
            once,
            ending: false,
            waiting: VecDeque::new(),
        })
    }

    /// What came before has not been taken yet: no more is asked for.
    fn is_full(&self) -> bool {
        !self.waiting.is_empty()
    }

    fn push(&mut self, bytes: &[u8]) {
        if self.pipe.is_some() && !self.ending {
            self.waiting.extend(bytes);
            self.pump();
        }
    }

    fn end_of_session(&mut self) {
        if self.once {
            self.ending = true;
            self.pump();
        }
    }

    fn pump(&mut self) {
        while let Some(pipe) = &mut self.pipe {
            let (piece, _) = self.waiting.as_slices();
            if piece.is_empty() {
                break;
            }
            match pipe.write(piece) {
                Ok(count) => drop(self.waiting.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // The program reads no more; what is typed at it is lost, as in any pipe.
                Err(_) => {
                    self.pipe = None;
                    self.waiting.clear();
                }
            }
        }
        if self.ending {
            self.pipe = None;
        }
    }
}

/// Somebody who is attached.
struct Attacher {
    socket: OwnedFd,
    heard: Frames,
    out: VecDeque<u8>,
    /// Since when nothing of what waits was taken.
    stuck: Option<Instant>,
    /// Takes no more output; what it has sent still counts.
    deaf: bool,
    /// Has said that it has input, and not that it has no more.
    has_stdin: bool,
    open: bool,
}

impl Attacher {
    fn new(socket: OwnedFd) -> Self {
        let mut out = VecDeque::new();
        frames::write(Channel::Attached, &[], &mut out);
        Self {
            socket,
            heard: Frames::default(),
            out,
            stuck: None,
            deaf: false,
            has_stdin: false,
            open: true,
        }
    }

    fn wanted(&self, stdin_is_full: bool) -> PollFlags {
        let mut wanted = PollFlags::empty();
        if !stdin_is_full {
            wanted |= PollFlags::IN;
        }
        if !self.out.is_empty() {
            wanted |= PollFlags::OUT;
        }
        wanted
    }

    /// Its next message, if one is there. One that is gone or talks nonsense is open no more.
    fn hear(&mut self) -> Option<(Channel, Vec<u8>)> {
        loop {
            match self.heard.next() {
                Ok(Some(message)) => return Some(message),
                Ok(None) => {}
                Err(_malformed) => {
                    self.open = false;
                    return None;
                }
            }
            let mut buffer = [0; PIECE];
            match rustix::io::read(&self.socket, &mut buffer) {
                Ok(0) => self.open = false,
                Ok(count) => {
                    self.heard.push(&buffer[..count]);
                    continue;
                }
                Err(rustix::io::Errno::INTR) => continue,
                Err(rustix::io::Errno::AGAIN) => {}
                Err(_) => self.open = false,
            }
            return None;
        }
    }

    fn tell(&mut self) {
        while !self.out.is_empty() {
            let (piece, _) = self.out.as_slices();
            match send(&self.socket, piece, SendFlags::NOSIGNAL) {
                Ok(count) => {
                    self.out.drain(..count);
                    self.stuck = None;
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => {
                    let since = *self.stuck.get_or_insert_with(Instant::now);
                    if self.out.len() > LAG && since.elapsed() >= PATIENCE {
                        self.open = false;
                        self.out.clear();
                    }
                    return;
                }
                Err(_) => {
                    self.deaf = true;
                    self.out.clear();
                }
            }
        }
    }
}
