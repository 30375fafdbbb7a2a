//! Asks a DNS server one question: what `stead dns NAME` does.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::ProtoError;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::forward::{framed, random_id};
use super::packet::{UDP_OCTETS_MAX, hear};

/// For one try. More than the server takes to give an upstream up.
const PATIENCE: Duration = Duration::from_secs(3);
/// A packet may be lost, even on the loopback of a busy machine.
const TRIES: usize = 2;

/// One record of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AnswerRecord {
    /// Owner, fully qualified.
    pub name: String,
    /// Seconds that it may be kept.
    pub ttl: u32,
    /// `A`, `SRV`, ...
    #[serde(rename = "type")]
    pub record_type: String,
    /// The data as a zone file writes it.
    pub data: String,
}

/// What a server said. Displays as dig prints an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// The server that was asked.
    pub server: SocketAddr,
    /// `NOERROR`, `NXDOMAIN`, `SERVFAIL`, ...
    pub status: String,
    /// The server is the authority for the name.
    pub authoritative: bool,
    /// The records that were asked for.
    pub answers: Vec<AnswerRecord>,
    /// The SOA of a negative answer.
    pub authorities: Vec<AnswerRecord>,
    /// Addresses of what the answer names.
    pub additionals: Vec<AnswerRecord>,
}

impl Answer {
    /// Nothing that was asked for: no such name, or the name has no such records.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.answers.is_empty()
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Not a DNS name.
    #[error("{name:?} is not a DNS name")]
    Name {
        /// What was given.
        name: String,
        /// What is wrong with it.
        #[source]
        source: ProtoError,
    },
    /// Not a record type.
    #[error(
        "{record_type:?} is not a record type; use A, AAAA, SRV, PTR, CNAME, TXT, SOA, NS or ANY"
    )]
    RecordType {
        /// What was given.
        record_type: String,
    },
    /// The server cannot be reached.
    #[error("could not ask the DNS server {server}; is the daemon running?")]
    Unreachable {
        /// Whom we asked.
        server: SocketAddr,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Nothing came back.
    #[error("the DNS server {server} did not answer within {} s", PATIENCE.as_secs() * TRIES as u64)]
    Silent {
        /// Whom we asked.
        server: SocketAddr,
    },
    /// The answer cannot be read.
    #[error("the DNS server {server} sent an answer that cannot be read")]
    Garbled {
        /// Whom we asked.
        server: SocketAddr,
    },
}

/// Asks `server` for records of one type (`A`, `SRV`, ... in any case) at `name`, which is taken as fully qualified. For
/// type `PTR` an address may be given in place of its reverse name.
///
/// # Errors
/// [`AskError`] when the name or the type is none, or nothing readable comes back. "No such name" is an answer, not an error.
pub async fn ask(server: SocketAddr, name: &str, record_type: &str) -> Result<Answer, AskError> {
    let query = query(name, record_type)?;
    for _ in 0..TRIES {
        match timeout(PATIENCE, exchange(server, &query)).await {
            Ok(Ok(bytes)) => return read(server, &bytes),
            Ok(Err(source)) => return Err(AskError::Unreachable { server, source }),
            Err(_) => {}
        }
    }
    Err(AskError::Silent { server })
}

fn query(name: &str, record_type: &str) -> Result<Query, AskError> {
    let wrong = || AskError::RecordType {
        record_type: record_type.to_owned(),
    };
    let record_type: RecordType = record_type
        .to_ascii_uppercase()
        .parse()
        .map_err(|_| wrong())?;
    let asked = match name.parse::<IpAddr>() {
        Ok(address) if record_type == RecordType::PTR => Ok(Name::from(address)),
        Ok(_) | Err(_) => Name::from_ascii(name),
    };
    let mut asked = asked.map_err(|source| AskError::Name {
        name: name.to_owned(),
        source,
    })?;
    asked.set_fqdn(true);
    Ok(Query::query(asked, record_type))
}

async fn exchange(server: SocketAddr, query: &Query) -> io::Result<Vec<u8>> {
    let id = random_id()?;
    let packet = packet(id, query)?;
    let any: IpAddr = if server.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(&packet).await?;
    let mut buffer = vec![0; usize::from(UDP_OCTETS_MAX)];
    loop {
        let octets = socket.recv(&mut buffer).await?;
        match hear(&buffer[..octets], id, query) {
            Some(heard) if heard.truncated => return over_tcp(server, &packet).await,
            Some(_) => return Ok(buffer[..octets].to_vec()),
            None => {}
        }
    }
}

fn packet(id: u16, query: &Query) -> io::Result<Vec<u8>> {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.queries.push(query.clone());
    let mut edns = Edns::new();
    edns.set_max_payload(UDP_OCTETS_MAX);
    message.edns = Some(edns);
    message.to_vec().map_err(io::Error::other)
}

async fn over_tcp(server: SocketAddr, packet: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    stream.write_all(&framed(packet)).await?;
    let mut bytes = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

fn read(server: SocketAddr, bytes: &[u8]) -> Result<Answer, AskError> {
    let message = Message::from_vec(bytes).map_err(|_| AskError::Garbled { server })?;
    Ok(Answer {
        server,
        status: status(&message),
        authoritative: message.metadata.authoritative,
        answers: message.answers.iter().map(written).collect(),
        authorities: message.authorities.iter().map(written).collect(),
        additionals: message.additionals.iter().map(written).collect(),
    })
}

/// In dig's words.
fn status(message: &Message) -> String {
    use hickory_proto::op::ResponseCode as Code;
    match message.metadata.response_code {
        Code::NoError => "NOERROR".to_owned(),
        Code::FormErr => "FORMERR".to_owned(),
        Code::ServFail => "SERVFAIL".to_owned(),
        Code::NXDomain => "NXDOMAIN".to_owned(),
        Code::NotImp => "NOTIMP".to_owned(),
        Code::Refused => "REFUSED".to_owned(),
        other => format!("RCODE{}", u16::from(other)),
    }
}

fn written(record: &Record) -> AnswerRecord {
    let data = match &record.data {
        RData::TXT(text) => {
            let quoted = text
                .txt_data
                .iter()
                .map(|part| format!("\"{}\"", part.escape_ascii()));
            quoted.collect::<Vec<_>>().join(" ")
        }
        data => data.to_string(),
    };
    AnswerRecord {
        name: record.name.to_ascii(),
        ttl: record.ttl,
        record_type: record.record_type().to_string(),
        data,
    }
}

impl fmt::Display for AnswerRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            ttl,
            record_type,
            data,
        } = self;
        write!(f, "{name}\t{ttl}\tIN\t{record_type}\t{data}")
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            server,
            status,
            authoritative,
            answers,
            authorities,
            additionals,
        } = self;
        let by = if *authoritative {
            "for the cluster"
        } else {
            "forwarded"
        };
        writeln!(f, ";; {status} from {server}, {by}")?;
        for record in answers.iter().chain(authorities).chain(additionals) {
            writeln!(f, "{record}")?;
        }
        Ok(())
    }
}
