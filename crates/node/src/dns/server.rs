//! Serves the zone over UDP and TCP, on every address that it was given.
//!
//! Answers what is ours at once and hands the rest to the forwarder. Holds no state about clients, so that stopping needs no
//! ceremony: dropping the server ends it, [`Server::shutdown`] also waits until its ports are free.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::Name;
use kube::Client;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::feed;
use super::forward::{Forwarder, Upstreams, framed};
use super::packet::{self, Question, Refusal, Transport};
use super::zone::{Answer, Catalogue, Prefix, Settings, Verdict, Zone, host_names};

/// TCP connections at once; further ones wait to be accepted.
const CONNECTIONS_MAX: usize = 128;
/// TCP connections of one client at once: no pod can keep the others out. More are closed unanswered.
const CONNECTIONS_PER_CLIENT_MAX: usize = 16;
/// A connection with nothing to say for this long is closed.
const IDLE: Duration = Duration::from_secs(5);
/// The largest message over UDP that we read; a longer one is cut and then refused as malformed.
const UDP_READ_OCTETS: usize = 4_096;
/// UDP questions being forwarded at once; above it the answer is SERVFAIL at once.
const FORWARDS_MAX: usize = 256;
/// After a socket failed to receive: enough not to spin, too short to notice.
const AFTER_FAILURE: Duration = Duration::from_millis(10);

/// What a server is to do.
#[derive(Debug, Clone)]
pub struct DnsOptions {
    /// Where to listen, UDP and TCP alike. Port 0 picks one free for both.
    pub listen: Vec<SocketAddr>,
    /// The cluster domain: `cluster.local`.
    pub domain: String,
    /// Who answers for names outside the cluster.
    pub upstreams: Upstreams,
    /// Addresses of pods and Services: reverse questions about them are never forwarded.
    pub own_ranges: Vec<Prefix>,
}

impl Default for DnsOptions {
    /// `cluster.local`, the machine's own resolvers, and no address to listen on.
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            domain: "cluster.local".to_owned(),
            upstreams: Upstreams::default(),
            own_ranges: Vec::new(),
        }
    }
}

/// Why DNS could not start.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// The domain cannot be one.
    #[error("{domain:?} is not a cluster domain; give one like cluster.local")]
    Domain {
        /// What was given.
        domain: String,
    },
    /// An address cannot be listened on.
    #[error(
        "could not listen for DNS on {address} ({protocol}): {}",
        next_step(source)
    )]
    Bind {
        /// Where.
        address: SocketAddr,
        /// `UDP` or `TCP`.
        protocol: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

fn next_step(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::AddrInUse => {
            "another program listens there; stop it or choose another address"
        }
        io::ErrorKind::PermissionDenied => "ports below 1024 need root; choose a higher one",
        io::ErrorKind::AddrNotAvailable => "the machine has no such address; choose one of its own",
        _ => "choose another address",
    }
}

/// A running DNS server. Dropping it stops it.
#[derive(Debug)]
pub struct Server {
    addresses: Vec<SocketAddr>,
    zones: watch::Receiver<Arc<Zone>>,
    tasks: JoinSet<()>,
}

impl Server {
    /// Binds every address and starts to watch. Returns before the first zone is known: until then names of the cluster
    /// are SERVFAIL, which nobody caches as a no. [`Server::synced`] waits for it.
    ///
    /// # Errors
    /// [`DnsError`] when the domain is none or an address cannot be listened on; nothing keeps running then.
    pub async fn start(client: Client, options: DnsOptions) -> Result<Self, DnsError> {
        let settings = Arc::new(settings(&options)?);
        let (sender, zones) = watch::channel(Arc::new(Zone::unsynced(Arc::clone(&settings))));
        let mut server = Self::serve(&options, zones).await?;
        server
            .tasks
            .spawn(feed::run(client, Catalogue::new(settings), sender));
        Ok(server)
    }

    /// Serves zones that somebody else publishes.
    async fn serve(
        options: &DnsOptions,
        zones: watch::Receiver<Arc<Zone>>,
    ) -> Result<Self, DnsError> {
        let mut sockets = Vec::new();
        for address in &options.listen {
            sockets.push(bind(*address).await?);
        }
        let addresses: Vec<SocketAddr> = sockets.iter().map(|(address, ..)| *address).collect();
        let desk = Arc::new(Desk::new(
            zones.clone(),
            Forwarder::new(options.upstreams.clone(), addresses.clone()),
        ));
        let mut tasks = JoinSet::new();
        for (_, udp, tcp) in sockets {
            tasks.spawn(serve_udp(Arc::new(udp), Arc::clone(&desk)));
            tasks.spawn(serve_tcp(tcp, Arc::clone(&desk)));
        }
        Ok(Self {
            addresses,
            zones,
            tasks,
        })
    }

    /// Where it listens, in the order given, with the ports that were picked.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The zone as of now, and a signal at each change of an answer.
    #[must_use]
    pub fn zones(&self) -> watch::Receiver<Arc<Zone>> {
        self.zones.clone()
    }

    /// Returns once the first zone is known.
    pub async fn synced(&self) {
        // An error means that the feed ended, which it does only with the server itself.
        let _ = self.zones.clone().wait_for(|zone| zone.is_synced()).await;
    }

    /// Names of every pod for /etc/hosts, as of now: see [`host_names`].
    #[must_use]
    pub fn lookup_names(&self) -> Vec<(IpAddr, Vec<String>)> {
        host_names(&self.zones.borrow())
    }

    /// Stops, and returns once every port is free.
    pub async fn shutdown(mut self) {
        self.tasks.shutdown().await;
    }
}

fn settings(options: &DnsOptions) -> Result<Settings, DnsError> {
    let wrong = || DnsError::Domain {
        domain: options.domain.clone(),
    };
    let mut domain = Name::from_ascii(&options.domain)
        .map_err(|_| wrong())?
        .to_lowercase();
    domain.set_fqdn(true);
    if domain.is_root() || options.domain.contains(char::is_whitespace) {
        return Err(wrong());
    }
    let nameservers = options
        .listen
        .iter()
        .map(SocketAddr::ip)
        .filter(|address| !address.is_unspecified())
        .collect();
    Ok(Settings {
        domain,
        nameservers,
        own_ranges: options.own_ranges.clone(),
    })
}

/// One address for both protocols. Of port 0 the kernel picks one for TCP, which UDP may find taken: then another.
async fn bind(address: SocketAddr) -> Result<(SocketAddr, UdpSocket, TcpListener), DnsError> {
    let mut picks_left = if address.port() == 0 { 16 } else { 1 };
    loop {
        picks_left -= 1;
        let failed = |protocol| {
            move |source| DnsError::Bind {
                address,
                protocol,
                source,
            }
        };
        let tcp = TcpListener::bind(address).await.map_err(failed("TCP"))?;
        let bound = tcp.local_addr().map_err(failed("TCP"))?;
        match UdpSocket::bind(bound).await {
            Ok(udp) => return Ok((bound, udp, tcp)),
            Err(source) if picks_left == 0 => return Err(failed("UDP")(source)),
            Err(_) => {}
        }
    }
}

/// What every task shares.
pub(crate) struct Desk {
    zones: watch::Receiver<Arc<Zone>>,
    forwarder: Forwarder,
    forwards: Arc<Semaphore>,
    connections: Arc<Semaphore>,
    clients: Mutex<BTreeMap<IpAddr, usize>>,
    turn: AtomicUsize,
}

/// What is to be done about a packet.
#[derive(Debug)]
pub(crate) enum Todo {
    Nothing,
    Send(Vec<u8>),
    Forward(Box<Errand>),
}

/// A question for upstreams.
#[derive(Debug)]
pub(crate) struct Errand {
    question: Question,
    /// Our alias that leads out: it stands before what upstreams say.
    so_far: Option<Answer>,
}

impl Desk {
    pub(crate) fn new(zones: watch::Receiver<Arc<Zone>>, forwarder: Forwarder) -> Self {
        Self {
            zones,
            forwarder,
            forwards: Arc::new(Semaphore::new(FORWARDS_MAX)),
            connections: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            clients: Mutex::new(BTreeMap::new()),
            turn: AtomicUsize::new(0),
        }
    }

    /// A packet that makes a decoder panic, which is not ours, gets no answer; the others still get theirs.
    fn todo(&self, bytes: &[u8], transport: Transport) -> Todo {
        let read = std::panic::AssertUnwindSafe(|| self.consider(bytes, transport));
        std::panic::catch_unwind(read).unwrap_or(Todo::Nothing)
    }

    pub(crate) fn consider(&self, bytes: &[u8], transport: Transport) -> Todo {
        let question = match packet::read(bytes, transport) {
            Ok(question) => question,
            Err(Refusal::Silence) => return Todo::Nothing,
            Err(Refusal::Reply(bytes)) => return Todo::Send(bytes),
        };
        let verdict = self
            .zones
            .borrow()
            .answer(question.name(), question.record_type());
        match verdict {
            Verdict::Foreign => forward(question, None),
            Verdict::Ours(answer) if answer.follow.is_some() => forward(question, Some(answer)),
            Verdict::Ours(mut answer) => {
                answer.rotate(self.turn.fetch_add(1, Ordering::Relaxed));
                Todo::Send(question.answer(answer))
            }
        }
    }

    /// Asks upstreams; whatever goes wrong is SERVFAIL, which a client tries again.
    async fn run(&self, errand: Errand) -> Vec<u8> {
        let Errand { question, so_far } = &errand;
        let Some(answer) = so_far.clone() else {
            return match self.forwarder.ask(question).await {
                Ok(bytes) => question.relayed(bytes),
                Err(error) => failed(question, &error),
            };
        };
        let Some(target) = answer.follow.clone() else {
            return question.answer(answer);
        };
        match self.forwarder.ask(&question.about(&target)).await {
            Ok(bytes) => followed(question, answer, &bytes),
            Err(error) => failed(question, &error),
        }
    }

    async fn reply(&self, bytes: &[u8], transport: Transport) -> Option<Vec<u8>> {
        match self.todo(bytes, transport) {
            Todo::Nothing => None,
            Todo::Send(reply) => Some(reply),
            Todo::Forward(errand) => Some(self.run(*errand).await),
        }
    }
}

fn forward(question: Question, so_far: Option<Answer>) -> Todo {
    Todo::Forward(Box::new(Errand { question, so_far }))
}

fn failed(question: &Question, error: &(dyn std::error::Error + 'static)) -> Vec<u8> {
    tracing::debug!(name = %question.name(), error, "could not forward a DNS question");
    question.refuse(ResponseCode::ServFail)
}

/// Our alias, then what upstreams say of its target.
pub(crate) fn followed(question: &Question, mut answer: Answer, bytes: &[u8]) -> Vec<u8> {
    match Message::from_vec(bytes) {
        Ok(message) if message.metadata.truncation => question.truncated(),
        Ok(message) => {
            answer.code = message.metadata.response_code;
            answer.answers.extend(message.answers);
            answer.authorities = message.authorities;
            question.answer(answer)
        }
        Err(error) => failed(question, &error),
    }
}

async fn serve_udp(socket: Arc<UdpSocket>, desk: Arc<Desk>) {
    let mut buffer = vec![0; UDP_READ_OCTETS];
    let mut forwards = JoinSet::new();
    loop {
        // Finished forwards are let go of; their replies are sent already.
        while forwards.try_join_next().is_some() {}
        let (octets, client) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                tracing::debug!(%error, "could not receive a DNS question");
                tokio::time::sleep(AFTER_FAILURE).await;
                continue;
            }
        };
        match desk.todo(&buffer[..octets], Transport::Udp) {
            Todo::Nothing => {}
            Todo::Send(reply) => send(&socket, &reply, client).await,
            Todo::Forward(errand) => match Arc::clone(&desk.forwards).try_acquire_owned() {
                Ok(place) => {
                    let (socket, desk) = (Arc::clone(&socket), Arc::clone(&desk));
                    forwards.spawn(async move {
                        send(&socket, &desk.run(*errand).await, client).await;
                        drop(place);
                    });
                }
                Err(_) => {
                    let refusal = errand.question.refuse(ResponseCode::ServFail);
                    send(&socket, &refusal, client).await;
                }
            },
        }
    }
}

/// A client that went away is no trouble of ours.
async fn send(socket: &UdpSocket, reply: &[u8], client: SocketAddr) {
    if reply.is_empty() {
        return;
    }
    if let Err(error) = socket.send_to(reply, client).await {
        tracing::debug!(%client, %error, "could not send a DNS answer");
    }
}

async fn serve_tcp(listener: TcpListener, desk: Arc<Desk>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(place) = Arc::clone(&desk.connections).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, client)) => {
                if let Some(seat) = Seat::take(&desk, client.ip()) {
                    connections.spawn(converse(stream, seat, place));
                }
            }
            Err(error) => {
                tracing::debug!(%error, "could not accept a DNS connection");
                tokio::time::sleep(AFTER_FAILURE).await;
            }
        }
    }
}

/// One of the connections that a client may have; given back when dropped.
struct Seat {
    desk: Arc<Desk>,
    client: IpAddr,
}

impl Seat {
    fn take(desk: &Arc<Desk>, client: IpAddr) -> Option<Self> {
        let mut clients = desk.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = clients.entry(client).or_default();
        if *taken >= CONNECTIONS_PER_CLIENT_MAX {
            return None;
        }
        *taken += 1;
        Some(Self {
            desk: Arc::clone(desk),
            client,
        })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut clients = self
            .desk
            .clients
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(taken) = clients.get_mut(&self.client) {
            *taken -= 1;
            if *taken == 0 {
                clients.remove(&self.client);
            }
        }
    }
}

/// One question after another until the client closes, falls silent or sends what is no question.
async fn converse(mut stream: TcpStream, seat: Seat, _place: OwnedSemaphorePermit) {
    while let Ok(Ok(bytes)) = timeout(IDLE, read_framed(&mut stream)).await {
        let reply = seat.desk.reply(&bytes, Transport::Tcp).await;
        let Some(reply) = reply.filter(|reply| !reply.is_empty()) else {
            return;
        };
        if !matches!(
            timeout(IDLE, stream.write_all(&framed(&reply))).await,
            Ok(Ok(()))
        ) {
            return;
        }
    }
}

async fn read_framed(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let octets = stream.read_u16().await?;
    let mut bytes = vec![0; usize::from(octets)];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
