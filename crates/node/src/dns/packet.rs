//! DNS messages to questions and answers back. Pure; whatever bytes come in, it never panics.

use hickory_proto::op::{Edns, Message, MessageType, Metadata, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};

use super::zone::Answer;

/// Octets of a message's header.
const HEADER_OCTETS: usize = 12;
/// Octets that a client without EDNS takes over UDP.
const PLAIN_UDP_OCTETS: u16 = 512;
/// Octets that we send over UDP at most, and ask upstreams to keep to: never fragmented (DNS flag day 2020).
pub(crate) const UDP_OCTETS_MAX: u16 = 1232;

/// How a question came, and so how its answer goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Udp,
    Tcp,
}

/// A question that can be answered.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    pub(crate) query: Query,
    metadata: Metadata,
    edns: Option<Edns>,
    transport: Transport,
}

/// Why a packet gets no real answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Not a question at all, or an answer: replying could start a loop.
    Silence,
    /// These bytes are the reply.
    Reply(Vec<u8>),
}

/// Reads a question. A malformed or unserved one comes back as the refusal to send.
pub(crate) fn read(bytes: &[u8], transport: Transport) -> Result<Question, Refusal> {
    let header = Header::read(bytes).ok_or(Refusal::Silence)?;
    if header.is_response {
        return Err(Refusal::Silence);
    }
    if header.op_code != OpCode::Query {
        return Err(header.refuse(ResponseCode::NotImp));
    }
    // Before decoding: the counts say how much memory a decoder sets aside.
    if header.questions != 1 {
        return Err(header.refuse(ResponseCode::FormErr));
    }
    let mut message = Message::from_vec(bytes).map_err(|_| header.refuse(ResponseCode::FormErr))?;
    let query = message
        .queries
        .pop()
        .ok_or_else(|| header.refuse(ResponseCode::FormErr))?;
    let question = Question {
        query,
        metadata: message.metadata,
        edns: message.edns,
        transport,
    };
    match question.unserved() {
        Some(code) => Err(Refusal::Reply(question.refuse(code))),
        None => Ok(question),
    }
}

/// The part of a message that can be read even when the rest is broken.
struct Header {
    id: u16,
    is_response: bool,
    op_code: OpCode,
    recursion_desired: bool,
    questions: u16,
}

impl Header {
    fn read(bytes: &[u8]) -> Option<Self> {
        let header = bytes.get(..HEADER_OCTETS)?;
        Some(Self {
            id: u16::from_be_bytes([header[0], header[1]]),
            is_response: header[2] & 0x80 != 0,
            op_code: OpCode::from_u8((header[2] >> 3) & 0x0f),
            recursion_desired: header[2] & 0x01 != 0,
            questions: u16::from_be_bytes([header[4], header[5]]),
        })
    }

    fn refuse(&self, code: ResponseCode) -> Refusal {
        let mut message = Message::error_msg(self.id, self.op_code, code);
        message.metadata.recursion_desired = self.recursion_desired;
        message.to_vec().map_or(Refusal::Silence, Refusal::Reply)
    }
}

impl Question {
    pub(crate) fn name(&self) -> &Name {
        self.query.name()
    }

    pub(crate) fn record_type(&self) -> RecordType {
        self.query.query_type()
    }

    pub(crate) fn transport(&self) -> Transport {
        self.transport
    }

    /// Octets that the answer may have.
    pub(crate) fn octets_max(&self) -> u16 {
        match (self.transport, &self.edns) {
            (Transport::Tcp, _) => u16::MAX,
            (Transport::Udp, None) => PLAIN_UDP_OCTETS,
            (Transport::Udp, Some(edns)) => {
                edns.max_payload().clamp(PLAIN_UDP_OCTETS, UDP_OCTETS_MAX)
            }
        }
    }

    /// What we do not serve at all, well formed or not.
    fn unserved(&self) -> Option<ResponseCode> {
        if self.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
            return Some(ResponseCode::BADVERS);
        }
        if !matches!(self.query.query_class(), DNSClass::IN | DNSClass::ANY) {
            return Some(ResponseCode::Refused);
        }
        match self.record_type() {
            RecordType::AXFR | RecordType::IXFR => Some(ResponseCode::Refused),
            RecordType::OPT | RecordType::TSIG => Some(ResponseCode::FormErr),
            _ => None,
        }
    }

    /// An answer without records.
    pub(crate) fn refuse(&self, code: ResponseCode) -> Vec<u8> {
        let mut message = self.reply(code);
        message.metadata.authoritative = false;
        self.encode(message)
    }

    /// The authoritative answer, cut to what the client takes.
    pub(crate) fn answer(&self, answer: Answer) -> Vec<u8> {
        let mut message = self.reply(answer.code);
        message.answers = answer.answers;
        message.authorities = answer.authorities;
        message.additionals = answer.additionals;
        self.encode(message)
    }

    /// Says that the answer does not fit and is to be had over TCP.
    pub(crate) fn truncated(&self) -> Vec<u8> {
        let mut message = self.reply(ResponseCode::NoError);
        message.metadata.authoritative = false;
        message.metadata.truncation = true;
        self.encode(message)
    }

    fn reply(&self, code: ResponseCode) -> Message {
        let mut message = Message::response(self.metadata.id, OpCode::Query);
        message.metadata = Metadata::response_from_request(&self.metadata);
        message.metadata.authoritative = code != ResponseCode::ServFail;
        message.metadata.recursion_available = true;
        message.metadata.response_code = code;
        message.queries.push(self.query.clone());
        message.edns = self.edns.as_ref().map(|asked| {
            let mut edns = Edns::new();
            edns.set_max_payload(UDP_OCTETS_MAX);
            edns.set_dnssec_ok(asked.flags().dnssec_ok);
            edns
        });
        message
    }

    /// Additional records go first when space is short, silently, for nobody asked for them (RFC 2181 9). Then answers go,
    /// which is said: as many stay as fit, for some clients never come back over TCP.
    fn encode(&self, mut message: Message) -> Vec<u8> {
        let limit = usize::from(self.octets_max());
        let mut bytes = encoded(&message);
        if bytes.len() > limit {
            message.additionals.clear();
            bytes = encoded(&message);
        }
        while bytes.len() > limit && !message.answers.is_empty() {
            message.metadata.truncation = true;
            let kept = message.answers.len() * limit / bytes.len();
            message
                .answers
                .truncate(kept.min(message.answers.len() - 1));
            bytes = encoded(&message);
        }
        bytes
    }

    /// The same question as one of our own to an upstream, under a new id.
    pub(crate) fn forwarded(&self, id: u16) -> Vec<u8> {
        let mut message = Message::new(id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.metadata.checking_disabled = self.metadata.checking_disabled;
        message.queries.push(self.query.clone());
        message.edns = self.edns.as_ref().map(|asked| {
            let mut edns = Edns::new();
            edns.set_max_payload(self.octets_max().min(UDP_OCTETS_MAX));
            edns.set_dnssec_ok(asked.flags().dnssec_ok);
            edns
        });
        encoded(&message)
    }

    /// The same client asking for another name.
    pub(crate) fn about(&self, name: &Name) -> Self {
        let mut query = self.query.clone();
        query.set_name(name.clone());
        Self {
            query,
            ..self.clone()
        }
    }

    /// An upstream's answer made ours: the client's id, or truncated where it takes less than came.
    pub(crate) fn relayed(&self, mut bytes: Vec<u8>) -> Vec<u8> {
        if bytes.len() > usize::from(self.octets_max()) {
            return self.truncated();
        }
        if let Some(id) = bytes.get_mut(..2) {
            id.copy_from_slice(&self.metadata.id.to_be_bytes());
        }
        bytes
    }
}

/// A message of ours always encodes; if hickory should think otherwise, nothing is sent.
fn encoded(message: &Message) -> Vec<u8> {
    message.to_vec().unwrap_or_default()
}

/// What can be told of an upstream's answer without decoding its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) truncated: bool,
    pub(crate) code: ResponseCode,
}

/// Whether `bytes` answer this very question: the id, and the question repeated. Anything else is somebody's guess.
pub(crate) fn hear(bytes: &[u8], id: u16, query: &Query) -> Option<Heard> {
    let header = Header::read(bytes)?;
    if !header.is_response || header.id != id || header.questions != 1 {
        return None;
    }
    let mut decoder = BinDecoder::new(bytes);
    decoder.read_slice(HEADER_OCTETS).ok()?;
    let repeated = Query::read(&mut decoder).ok()?;
    let same = repeated.name() == query.name()
        && repeated.query_type() == query.query_type()
        && repeated.query_class() == query.query_class();
    let code = ResponseCode::from_low(bytes[3] & 0x0f);
    same.then_some(Heard {
        truncated: bytes[2] & 0x02 != 0,
        code,
    })
}

#[cfg(test)]
mod tests;
