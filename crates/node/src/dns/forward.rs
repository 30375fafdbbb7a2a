//! Questions that are not ours: asked of the machine's own resolvers, several at once when the first is slow.
//!
//! Each try has a socket of its own (a random port, its peer checked by the kernel), a random id, and takes only the answer
//! that repeats the question. Never asks ourselves; gives up well within two seconds.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use hickory_proto::op::ResponseCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until, timeout};

use super::packet::{Question, Transport, UDP_OCTETS_MAX, hear};
use super::resolv::Resolver;

/// After this, the client hears SERVFAIL. Less than the two seconds that we promise.
const DEADLINE: Duration = Duration::from_millis(1_800);
/// After this without an answer the next upstream is asked too, or the only one again.
const PATIENCE: Duration = Duration::from_millis(600);
/// Upstreams asked about one question at most; a libc stops at three, too.
const TRIES_MAX: usize = 3;
/// Questions under way at once: each holds a socket.
const UNDER_WAY_MAX: usize = 256;
/// The machine's resolvers are read anew when they were read longer ago than this: laptops move.
const REREAD_AFTER: Duration = Duration::from_secs(1);

/// Who answers for the world outside the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upstreams {
    /// The name servers of this resolv.conf, as it is at the time of the question.
    File(PathBuf),
    /// These, in this order. None: every foreign name is SERVFAIL.
    Given(Vec<SocketAddr>),
}

impl Default for Upstreams {
    /// The machine's own: `/etc/resolv.conf`.
    fn default() -> Self {
        Self::File(PathBuf::from("/etc/resolv.conf"))
    }
}

/// Why no upstream's answer can be passed on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ForwardError {
    #[error("no name server besides ourselves to ask")]
    NoUpstream,
    #[error("more than {UNDER_WAY_MAX} questions are under way")]
    TooMany,
    #[error("no name server answered within {} ms", DEADLINE.as_millis())]
    TooLate,
    #[error("could not ask {upstream}")]
    Asking {
        upstream: SocketAddr,
        #[source]
        source: io::Error,
    },
}

/// Asks upstreams on behalf of clients.
#[derive(Debug)]
pub(crate) struct Forwarder {
    upstreams: Upstreams,
    /// Our own addresses, never asked.
    ourselves: Vec<SocketAddr>,
    under_way: Semaphore,
    read: Mutex<Option<(Instant, Vec<SocketAddr>)>>,
}

impl Forwarder {
    pub(crate) fn new(upstreams: Upstreams, ourselves: Vec<SocketAddr>) -> Self {
        Self {
            upstreams,
            ourselves,
            under_way: Semaphore::new(UNDER_WAY_MAX),
            read: Mutex::new(None),
        }
    }

    /// An upstream's answer, as it came, its id included.
    pub(crate) async fn ask(&self, question: &Question) -> Result<Vec<u8>, ForwardError> {
        let _place = self
            .under_way
            .try_acquire()
            .map_err(|_| ForwardError::TooMany)?;
        let tries = tries(&self.current());
        timeout(DEADLINE, race(question, &tries))
            .await
            .unwrap_or(Err(ForwardError::TooLate))
    }

    /// Whom to ask now. An unreadable file has no name servers, as to a libc.
    pub(crate) fn current(&self) -> Vec<SocketAddr> {
        let path = match &self.upstreams {
            Upstreams::Given(given) => return self.others(given.clone()),
            Upstreams::File(path) => path,
        };
        let mut read = self
            .read
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        match &*read {
            Some((at, known)) if at.elapsed() < REREAD_AFTER => known.clone(),
            Some(_) | None => {
                let text = std::fs::read_to_string(path).unwrap_or_default();
                let fresh = self.others(Resolver::parse(&text).upstreams());
                *read = Some((Instant::now(), fresh.clone()));
                fresh
            }
        }
    }

    fn others(&self, mut all: Vec<SocketAddr>) -> Vec<SocketAddr> {
        all.retain(|upstream| !self.ourselves.iter().any(|own| is_same(*own, *upstream)));
        all
    }
}

/// Whether a packet to `upstream` would reach a socket bound to `own`.
fn is_same(own: SocketAddr, upstream: SocketAddr) -> bool {
    let anywhere = own.ip().is_unspecified() && upstream.ip().is_loopback();
    own.port() == upstream.port()
        && (own.ip() == upstream.ip() || anywhere || upstream.ip().is_unspecified())
}

/// Each upstream once; a single one twice, for a packet may be lost.
fn tries(upstreams: &[SocketAddr]) -> Vec<SocketAddr> {
    let times = if upstreams.len() == 1 {
        2
    } else {
        upstreams.len().min(TRIES_MAX)
    };
    upstreams
        .iter()
        .copied()
        .cycle()
        .take(times.min(upstreams.len() * 2))
        .collect()
}

/// The first useful answer. A try that fails, or that takes longer than our patience, starts the next; none is given up.
async fn race(question: &Question, tries: &[SocketAddr]) -> Result<Vec<u8>, ForwardError> {
    let mut waiting = tries.iter();
    let mut running = FuturesUnordered::new();
    let mut last = Err(ForwardError::NoUpstream);
    let mut next_at = Instant::now();
    loop {
        tokio::select! {
            Some(outcome) = running.next(), if !running.is_empty() => {
                match outcome {
                    Ok((bytes, true)) => return Ok(bytes),
                    Ok((bytes, false)) => last = Ok(bytes),
                    Err(error) => last = last.or(Err(error)),
                }
                next_at = Instant::now();
            }
            () = sleep_until(next_at), if waiting.len() > 0 => {
                running.extend(waiting.next().map(|upstream| ask_one(question, *upstream)));
                next_at = Instant::now() + PATIENCE;
            }
            else => return last,
        }
    }
}

/// One upstream's answer, and whether it settles the question: a server in trouble does not.
async fn ask_one(
    question: &Question,
    upstream: SocketAddr,
) -> Result<(Vec<u8>, bool), ForwardError> {
    let over = exchange(question, upstream).await;
    let (bytes, code) = over.map_err(|source| ForwardError::Asking { upstream, source })?;
    Ok((
        bytes,
        !matches!(
            code,
            ResponseCode::ServFail | ResponseCode::Refused | ResponseCode::NotImp
        ),
    ))
}

/// Over UDP; over TCP when the answer was cut and the client can take more.
async fn exchange(
    question: &Question,
    upstream: SocketAddr,
) -> io::Result<(Vec<u8>, ResponseCode)> {
    let id = random_id()?;
    let packet = question.forwarded(id);
    let (bytes, heard) = over_udp(question, upstream, id, &packet).await?;
    match question.transport() {
        Transport::Tcp if heard.truncated => over_tcp(question, upstream, id, &packet).await,
        Transport::Tcp | Transport::Udp => Ok((bytes, heard.code)),
    }
}

async fn over_udp(
    question: &Question,
    upstream: SocketAddr,
    id: u16,
    packet: &[u8],
) -> io::Result<(Vec<u8>, super::packet::Heard)> {
    let any: IpAddr = if upstream.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(upstream).await?;
    socket.send(packet).await?;
    let mut buffer = vec![0; usize::from(UDP_OCTETS_MAX)];
    loop {
        let octets = socket.recv(&mut buffer).await?;
        if let Some(heard) = hear(&buffer[..octets], id, &question.query) {
            buffer.truncate(octets);
            return Ok((buffer, heard));
        }
    }
}

async fn over_tcp(
    question: &Question,
    upstream: SocketAddr,
    id: u16,
    packet: &[u8],
) -> io::Result<(Vec<u8>, ResponseCode)> {
    let mut stream = TcpStream::connect(upstream).await?;
    stream.write_all(&framed(packet)).await?;
    let mut buffer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut buffer).await?;
    let heard = hear(&buffer, id, &question.query);
    let heard = heard
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "answers another question"))?;
    Ok((buffer, heard.code))
}

/// A message as it goes over TCP: its length first.
pub(crate) fn framed(message: &[u8]) -> Vec<u8> {
    let octets = u16::try_from(message.len()).unwrap_or(0);
    let mut framed = octets.to_be_bytes().to_vec();
    framed.extend_from_slice(&message[..usize::from(octets)]);
    framed
}

/// An id that nobody can guess.
pub(crate) fn random_id() -> io::Result<u16> {
    let mut bytes = [0; 2];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(u16::from_ne_bytes(bytes))
}
