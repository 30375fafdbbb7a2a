//! Addresses as names and back: reverse questions, dashed addresses, and what every machine says of itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, RecordType};

use super::{Answer, Verdict, Zone, addresses, pointer, record};

/// A range of addresses: `10.244.0.0/16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    /// Any address of the range.
    pub address: IpAddr,
    /// How many leading bits all of its addresses share: at most 32 or 128.
    pub bits: u8,
}

/// Not a range of addresses.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{text:?} is not a range of addresses; write it like 10.244.0.0/16")]
pub struct PrefixError {
    /// What was given.
    pub text: String,
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let wrong = || PrefixError {
            text: text.to_owned(),
        };
        let (address, bits) = text.split_once('/').ok_or_else(wrong)?;
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let bits: u8 = bits.parse().map_err(|_| wrong())?;
        if bits > width(address) {
            Err(wrong())
        } else {
            Ok(Self { address, bits })
        }
    }
}

impl Prefix {
    /// Whether the address lies in the range. An address of the other family never does.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let host_bits = width(self.address).saturating_sub(self.bits);
        width(address) == width(self.address)
            && (number(address) ^ number(self.address))
                .checked_shr(host_bits.into())
                .unwrap_or(0)
                == 0
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => u128::from(address),
    }
}

impl Zone {
    /// Answers for a whole address under `in-addr.arpa` or `ip6.arpa`. One that we do not know is foreign, unless it can
    /// only be ours: forwarding it would make every server that looks its clients up wait for a resolver that cannot know.
    pub(super) fn answer_reverse(
        &self,
        name: &Name,
        address: IpAddr,
        rtype: RecordType,
    ) -> Verdict {
        let targets = match self.reverse.get(&address) {
            Some(targets) => targets.clone(),
            None if is_own_localhost(address) => vec![localhost()],
            None if address.is_loopback() || self.is_own(address) => Vec::new(),
            None => return Verdict::Foreign,
        };
        if !self.synced && !address.is_loopback() {
            return Verdict::Ours(Answer::empty(ResponseCode::ServFail));
        }
        let code = if targets.is_empty() {
            ResponseCode::NXDomain
        } else {
            ResponseCode::NoError
        };
        let mut answer = Answer::empty(code);
        if matches!(rtype, RecordType::PTR | RecordType::ANY) {
            answer.answers = targets
                .into_iter()
                .map(|target| record(name, pointer(target)))
                .collect();
        }
        if answer.answers.is_empty() {
            answer.authorities.push(self.soa(&name.trim_to(2)));
        }
        Verdict::Ours(answer)
    }

    fn is_own(&self, address: IpAddr) -> bool {
        self.settings
            .own_ranges
            .iter()
            .any(|range| range.contains(address))
    }

    /// RFC 6761: `localhost` and all below it is this machine, whatever a resolver elsewhere would say.
    pub(super) fn answer_localhost(&self, name: &Name, rtype: RecordType) -> Answer {
        let own = [
            IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(Ipv6Addr::LOCALHOST),
        ];
        let mut answer = Answer::empty(ResponseCode::NoError);
        answer.answers = addresses(&own, rtype)
            .into_iter()
            .map(|data| record(name, data))
            .collect();
        if answer.answers.is_empty() {
            answer.authorities.push(self.soa(&name.trim_to(1)));
        }
        answer
    }
}

fn localhost() -> Name {
    Name::from_ascii("localhost.").unwrap_or_else(|_| Name::root())
}

fn is_own_localhost(address: IpAddr) -> bool {
    address == IpAddr::V4(Ipv4Addr::LOCALHOST) || address == IpAddr::V6(Ipv6Addr::LOCALHOST)
}

pub(super) fn is_localhost(name: &Name) -> bool {
    name.iter()
        .next_back()
        .is_some_and(|label| label.eq_ignore_ascii_case(b"localhost"))
}

/// The address that a reverse name stands for, when it names a whole one.
pub(super) fn address_of(name: &Name) -> Option<IpAddr> {
    let labels: Vec<&str> = name
        .iter()
        .rev()
        .map(|label| std::str::from_utf8(label).unwrap_or(""))
        .collect();
    let [top, family, digits @ ..] = labels.as_slice() else {
        return None;
    };
    if !top.eq_ignore_ascii_case("arpa") {
        return None;
    }
    match digits.len() {
        4 if family.eq_ignore_ascii_case("in-addr") => {
            digits.join(".").parse().ok().map(IpAddr::V4)
        }
        32 if family.eq_ignore_ascii_case("ip6") => {
            nibbles(digits).map(|bits| IpAddr::V6(bits.into()))
        }
        _ => None,
    }
}

fn nibbles(digits: &[&str]) -> Option<u128> {
    let single = digits.iter().all(|digit| digit.len() == 1);
    if single {
        u128::from_str_radix(&digits.concat(), 16).ok()
    } else {
        None
    }
}

/// The label of an endpoint without a hostname: `10.1.2.3` is `10-1-2-3`, `fd00::1` is `fd00--1`. upstream: CoreDNS `endpointHostname`.
pub(super) fn dashed(address: IpAddr) -> String {
    address.to_string().replace(['.', ':'], "-")
}

/// The address that a dashed label stands for.
pub(super) fn undashed(label: &str) -> Option<IpAddr> {
    let v4 = label.replace('-', ".").parse().map(IpAddr::V4);
    v4.or_else(|_| label.replace('-', ":").parse().map(IpAddr::V6))
        .ok()
}
