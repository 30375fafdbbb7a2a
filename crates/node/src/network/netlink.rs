//! Asking the kernel's routing netlink: one request at a time, each with its acknowledgement.
//!
//! upstream: rtnetlink(7). Only what a pod's two interfaces need is spelled here.

use std::collections::BTreeSet;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::net::sockopt::{set_socket_recv_buffer_size_force, set_socket_send_buffer_size_force};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};

const NEW_LINK: u16 = 16;
const DELETE_LINK: u16 = 17;
const GET_LINK: u16 = 18;
const NEW_ADDRESS: u16 = 20;
const DELETE_ADDRESS: u16 = 21;
const GET_ADDRESS: u16 = 22;
const NEW_ROUTE: u16 = 24;
const DELETE_ROUTE: u16 = 25;
const GET_ROUTE: u16 = 26;

const ERROR: u16 = 2;
const DONE: u16 = 3;

const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;
const REPLACE: u16 = 0x100;
const DUMP: u16 = 0x300;
const EXCLUSIVE: u16 = 0x200;
const CREATE: u16 = 0x400;

const IPV4: u8 = 2;
const UP: u32 = 1;
/// A length and a type stand before every attribute.
const ATTRIBUTE_HEADER: usize = 4;
const MESSAGE_HEADER: usize = 16;
/// Says of an attribute that it holds attributes.
const NESTED: u16 = 0x8000;
/// The fixed part of a message about a link.
const LINK_HEADER: usize = 16;
/// The fixed part of a message about an address.
const ADDRESS_HEADER: usize = 8;
/// The fixed part of a message about a route.
const ROUTE_HEADER: usize = 12;

/// How far away a route's destination is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// Behind a gateway.
    Everywhere,
    /// On the link itself.
    Link,
}

/// Where packets go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Route {
    /// Address and prefix length; the default route is 0.0.0.0/0.
    pub(super) to: (Ipv4Addr, u8),
    /// The interface's index.
    pub(super) interface: u32,
    pub(super) gateway: Option<Ipv4Addr>,
    /// The address that packets of this machine leave with.
    pub(super) source: Option<Ipv4Addr>,
    pub(super) scope: Scope,
}

impl Route {
    fn message(self) -> Message {
        let (destination, prefix) = self.to;
        let scope = match self.scope {
            Scope::Everywhere => 0,
            Scope::Link => 253,
        };
        let (main_table, by_administrator, unicast) = (254, 4, 1);
        let mut message = Message::default();
        message.bytes.extend_from_slice(&[
            IPV4,
            prefix,
            0,
            0,
            main_table,
            by_administrator,
            scope,
            unicast,
            0,
            0,
            0,
            0,
        ]);
        if prefix > 0 {
            message.attribute(1, &destination.octets());
        }
        message.attribute(4, &self.interface.to_ne_bytes());
        if let Some(gateway) = self.gateway {
            message.attribute(5, &gateway.octets());
        }
        if let Some(source) = self.source {
            message.attribute(7, &source.octets());
        }
        message
    }
}

/// A connection to the network namespace in which it was made.
pub(super) struct Netlink(OwnedFd);

/// One message of a transaction.
#[derive(Debug)]
pub(super) struct Command {
    /// What it is about, for errors.
    pub(super) what: String,
    /// The kind of the message.
    pub(super) kind: u16,
    /// Beyond that it is a request.
    pub(super) flags: u16,
    /// The message without its header.
    pub(super) body: Message,
}

impl Netlink {
    /// Links, addresses and routes.
    pub(super) fn open() -> io::Result<Self> {
        // NETLINK_ROUTE is the protocol without a number.
        Self::open_protocol(None)
    }

    /// The packet filter and its connections.
    pub(super) fn open_filter() -> io::Result<Self> {
        Self::open_protocol(Some(rustix::net::netlink::NETFILTER))
    }

    fn open_protocol(protocol: Option<rustix::net::Protocol>) -> io::Result<Self> {
        Ok(Self(socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            protocol,
        )?))
    }

    /// Sends all of these at once; the kernel does all of them or none. The first and the last are the transaction's
    /// edges. The error is the first, and says what it is about.
    pub(super) fn transact(&self, commands: &[Command]) -> io::Result<()> {
        let last = commands.len().saturating_sub(2);
        let mut bytes = Vec::new();
        for (number, command) in (0..).zip(commands) {
            let flags = if number == last { ACKNOWLEDGE } else { 0 };
            let sequence = u32::try_from(number).map_err(io::Error::other)?;
            let whole = whole(command.kind, command.flags | flags, sequence, &command.body)?;
            bytes.extend_from_slice(&whole);
        }
        // The default holds some hundreds of rules.
        let room = bytes.len().saturating_mul(2).max(1 << 18);
        set_socket_send_buffer_size_force(&self.0, room)?;
        set_socket_recv_buffer_size_force(&self.0, room)?;
        send(&self.0, &bytes, SendFlags::empty())?;
        loop {
            for (kind, sequence, body) in numbered_parts(&self.receive()?) {
                if kind != ERROR {
                    continue;
                }
                let number = usize::try_from(sequence).unwrap_or(usize::MAX);
                let what = commands
                    .get(number)
                    .map_or("", |command| command.what.as_str());
                status(body).map_err(|error| {
                    io::Error::new(
                        error.kind(),
                        format!("the packet filter refused {what}: {error}"),
                    )
                })?;
                if number == last {
                    return Ok(());
                }
            }
        }
    }

    /// Makes a pair of interfaces: `name` here, up; `peer` with index `index` in the other namespace, down, for the
    /// kernel sets it up only when both are there.
    pub(super) fn add_pair(
        &self,
        name: &str,
        peer: &str,
        index: u32,
        namespace: Option<BorrowedFd<'_>>,
    ) -> io::Result<()> {
        let mut message = link(0, UP);
        message.text(3, name);
        message.nested(18, |info| {
            info.text(1, "veth");
            info.nested(2, |data| {
                data.nested(1, |other| {
                    other.bytes.extend_from_slice(&link(index, 0).bytes);
                    other.text(3, peer);
                    if let Some(namespace) = namespace {
                        other.attribute(28, &namespace.as_raw_fd().to_ne_bytes());
                    }
                });
            });
        });
        self.change(NEW_LINK, CREATE | EXCLUSIVE, &message)
    }

    pub(super) fn set_up(&self, index: u32) -> io::Result<()> {
        self.change(NEW_LINK, 0, &link(index, UP))
    }

    /// Removes an interface by name, and with it the other end; one that is not there is removed.
    pub(super) fn delete(&self, name: &str) -> io::Result<()> {
        let mut message = link(0, 0);
        message.text(3, name);
        match self.change(DELETE_LINK, 0, &message) {
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error()) => {
                Ok(())
            }
            other => other,
        }
    }

    /// Gives an interface an address; one that it has already stays. The label, which begins with the interface's name
    /// and has 15 characters at most, tells later whose it is.
    pub(super) fn add_address(
        &self,
        index: u32,
        address: Ipv4Addr,
        prefix: u8,
        label: Option<&str>,
    ) -> io::Result<()> {
        let mut message = address_of(index, address, prefix);
        if let Some(label) = label {
            message.text(3, label);
        }
        self.change(NEW_ADDRESS, CREATE | REPLACE, &message)
    }

    /// Takes an address from an interface; one that it does not have is taken.
    pub(super) fn remove_address(
        &self,
        index: u32,
        address: Ipv4Addr,
        prefix: u8,
    ) -> io::Result<()> {
        match self.change(DELETE_ADDRESS, 0, &address_of(index, address, prefix)) {
            Err(error)
                if error.raw_os_error() == Some(rustix::io::Errno::ADDRNOTAVAIL.raw_os_error()) =>
            {
                Ok(())
            }
            other => other,
        }
    }

    /// Sets the route to a destination, in place of one that was there.
    pub(super) fn add_route(&self, route: Route) -> io::Result<()> {
        self.change(NEW_ROUTE, CREATE | REPLACE, &route.message())
    }

    /// Sets the route to a destination that has none yet; `false` when it has one.
    pub(super) fn add_first_route(&self, route: Route) -> io::Result<bool> {
        match self.change(NEW_ROUTE, CREATE | EXCLUSIVE, &route.message()) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes just this route; one that is not there is removed.
    pub(super) fn remove_route(&self, route: Route) -> io::Result<()> {
        let missing = Some(rustix::io::Errno::SRCH.raw_os_error());
        match self.change(DELETE_ROUTE, 0, &route.message()) {
            Err(error) if error.raw_os_error() == missing => Ok(()),
            other => other,
        }
    }

    /// The indices of the interfaces that packets of IPv4 leave by, but for the loopback.
    pub(super) fn ways_out(&self) -> io::Result<BTreeSet<u32>> {
        let mut question = Message::default();
        question.raw(&[IPV4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let answers = self.dump(GET_ROUTE, &question)?;
        let unicast = 1;
        let leads = answers
            .iter()
            .filter(|answer| answer.get(7) == Some(&unicast));
        let index = |answer: &Vec<u8>| number(find(answer.get(ROUTE_HEADER..)?, 4)?, 0);
        Ok(leads.filter_map(index).collect())
    }

    /// Index and name of every interface.
    pub(super) fn interfaces(&self) -> io::Result<Vec<(u32, String)>> {
        let answers = self.dump(GET_LINK, &link(0, 0))?;
        let one = |answer: &Vec<u8>| {
            let name = find(answer.get(LINK_HEADER..)?, 3)?;
            let name = name.strip_suffix(&[0]).unwrap_or(name);
            Some((
                number(answer, 4)?,
                String::from_utf8_lossy(name).into_owned(),
            ))
        };
        Ok(answers.iter().filter_map(one).collect())
    }

    /// The index of an interface; `None` when there is none of this name.
    pub(super) fn index(&self, name: &str) -> io::Result<Option<u32>> {
        match rustix::net::netdevice::name_to_index(&self.0, name) {
            Ok(index) => Ok(Some(index)),
            Err(rustix::io::Errno::NODEV) => Ok(None),
            Err(other) => Err(other.into()),
        }
    }

    /// The names of all interfaces.
    pub(super) fn names(&self) -> io::Result<Vec<String>> {
        Ok(self
            .interfaces()?
            .into_iter()
            .map(|(_, name)| name)
            .collect())
    }

    /// Every address that has a label, with the label.
    pub(super) fn labelled(&self) -> io::Result<Vec<(String, Ipv4Addr)>> {
        let mut question = Message::default();
        question
            .bytes
            .extend_from_slice(&[IPV4, 0, 0, 0, 0, 0, 0, 0]);
        let answers = self.dump(GET_ADDRESS, &question)?;
        Ok(answers
            .iter()
            .filter_map(|answer| {
                let attributes = answer.get(ADDRESS_HEADER..)?;
                let label = find(attributes, 3)?;
                let label = label.strip_suffix(&[0]).unwrap_or(label);
                let label = String::from_utf8_lossy(label).into_owned();
                Some((label, address(find(attributes, 2)?)?))
            })
            .collect())
    }

    /// Every network that the machine has an address in or a route to, but for default routes.
    pub(super) fn networks(&self) -> io::Result<Vec<(Ipv4Addr, u8)>> {
        self.networks_beyond(0)
    }

    /// The same without what is behind one interface.
    pub(super) fn networks_beyond(&self, without: u32) -> io::Result<Vec<(Ipv4Addr, u8)>> {
        let mut question = Message::default();
        question.raw(&[IPV4, 0, 0, 0, 0, 0, 0, 0]);
        let network = |answer: &Vec<u8>, index: Option<u32>, of_address: &[u8]| {
            let prefix = *answer.get(1)?;
            let counts = prefix > 0 && index != Some(without);
            counts.then_some((address(find(of_address, 1)?)?, prefix))
        };
        let of_address =
            |answer: &Vec<u8>| network(answer, number(answer, 4), answer.get(ADDRESS_HEADER..)?);
        let answers = self.dump(GET_ADDRESS, &question)?;
        let mut networks: Vec<_> = answers.iter().filter_map(of_address).collect();
        question.raw(&[0, 0, 0, 0]);
        let of_route = |answer: &Vec<u8>| {
            let attributes = answer.get(ROUTE_HEADER..)?;
            let index = find(attributes, 4).and_then(|bytes| number(bytes, 0));
            network(answer, index, attributes)
        };
        let answers = self.dump(GET_ROUTE, &question)?;
        networks.extend(answers.iter().filter_map(of_route));
        Ok(networks)
    }

    /// Sends one request and waits for its acknowledgement, the only answer that was asked for.
    pub(super) fn change(&self, kind: u16, flags: u16, message: &Message) -> io::Result<()> {
        self.send(kind, flags | ACKNOWLEDGE, message)?;
        loop {
            for (kind, body) in parts(&self.receive()?) {
                if kind == ERROR {
                    return status(body);
                }
            }
        }
    }

    /// Asks for all of something; the bodies of the answers.
    pub(super) fn dump(&self, kind: u16, message: &Message) -> io::Result<Vec<Vec<u8>>> {
        self.send(kind, DUMP, message)?;
        let mut answers = Vec::new();
        loop {
            for (kind, body) in parts(&self.receive()?) {
                match kind {
                    DONE => return Ok(answers),
                    ERROR => status(body)?,
                    _ => answers.push(body.to_vec()),
                }
            }
        }
    }

    fn send(&self, kind: u16, flags: u16, message: &Message) -> io::Result<()> {
        // One request at a time needs no number.
        send(
            &self.0,
            &whole(kind, flags, 0, message)?,
            SendFlags::empty(),
        )?;
        Ok(())
    }

    fn receive(&self) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match recv(&self.0, &mut buffer[..], RecvFlags::empty()) {
                Ok((count, _)) => {
                    buffer.truncate(count);
                    return Ok(buffer);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(other) => return Err(other.into()),
            }
        }
    }
}

/// A message with its header. The kernel knows who sends it.
fn whole(kind: u16, flags: u16, sequence: u32, message: &Message) -> io::Result<Vec<u8>> {
    let length = u32::try_from(MESSAGE_HEADER + message.bytes.len()).map_err(io::Error::other)?;
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(&(flags | REQUEST).to_ne_bytes());
    bytes.extend_from_slice(&sequence.to_ne_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&message.bytes);
    Ok(bytes)
}

/// A message without its header.
#[derive(Debug, Default)]
pub(super) struct Message {
    bytes: Vec<u8>,
}

impl Message {
    #[cfg(test)]
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Bytes as they are.
    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(super) fn append(&mut self, other: &Message) {
        self.raw(&other.bytes);
    }

    /// A number as the packet filter wants it.
    pub(super) fn big(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_be_bytes());
    }

    /// Attributes within an attribute, marked as such.
    pub(super) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Message)) {
        self.nested(kind | NESTED, fill);
    }

    pub(super) fn attribute(&mut self, kind: u16, value: &[u8]) {
        // An attribute is far shorter than its length can tell.
        let length = u16::try_from(ATTRIBUTE_HEADER + value.len()).unwrap_or(u16::MAX);
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.pad();
    }

    pub(super) fn text(&mut self, kind: u16, value: &str) {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attribute(kind, &bytes);
    }

    fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Message)) {
        let mut inner = Message::default();
        fill(&mut inner);
        self.attribute(kind, &inner.bytes);
    }

    fn pad(&mut self) {
        while !self.bytes.len().is_multiple_of(4) {
            self.bytes.push(0);
        }
    }
}

/// The fixed part of a message about a link.
fn link(index: u32, flags: u32) -> Message {
    let mut message = Message::default();
    message.bytes.extend_from_slice(&[0; 4]);
    message.bytes.extend_from_slice(&index.to_ne_bytes());
    message.bytes.extend_from_slice(&flags.to_ne_bytes());
    message.bytes.extend_from_slice(&flags.to_ne_bytes());
    message
}

/// A message about an interface's address.
fn address_of(index: u32, address: Ipv4Addr, prefix: u8) -> Message {
    let mut message = Message::default();
    message.bytes.extend_from_slice(&[IPV4, prefix, 0, 0]);
    message.bytes.extend_from_slice(&index.to_ne_bytes());
    message.attribute(1, &address.octets());
    message.attribute(2, &address.octets());
    message
}

/// The messages of one answer: kind and body.
fn parts(bytes: &[u8]) -> Vec<(u16, &[u8])> {
    let parts = numbered_parts(bytes).into_iter();
    parts.map(|(kind, _, body)| (kind, body)).collect()
}

/// The messages of one answer: kind, the number of the request, and body.
fn numbered_parts(bytes: &[u8]) -> Vec<(u16, u32, &[u8])> {
    let mut parts = Vec::new();
    let mut rest = bytes;
    while let Some(length) = number(rest, 0).and_then(|length| usize::try_from(length).ok()) {
        let (Some(kind), Some(sequence), Some(body)) = (
            half(rest, 4),
            number(rest, 8),
            rest.get(MESSAGE_HEADER..length),
        ) else {
            break;
        };
        parts.push((kind, sequence, body));
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    parts
}

/// The first attribute of this kind.
pub(super) fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    let found = kinds_and_values(bytes).find(|(own, _)| own & !NESTED == kind);
    found.map(|(_, value)| value)
}

/// The values of all attributes.
pub(super) fn attributes(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    kinds_and_values(bytes).map(|(_, value)| value)
}

fn kinds_and_values(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::from(half(rest, 0)?);
        let kind = half(rest, 2)?;
        let value = rest.get(ATTRIBUTE_HEADER..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// An acknowledgement is an error with the number 0.
fn status(body: &[u8]) -> io::Result<()> {
    match number(body, 0).map(u32::cast_signed) {
        Some(0) => Ok(()),
        Some(negative) => Err(io::Error::from_raw_os_error(negative.saturating_neg())),
        None => Err(io::Error::from(io::ErrorKind::InvalidData)),
    }
}

pub(super) fn address(bytes: &[u8]) -> Option<Ipv4Addr> {
    <[u8; 4]>::try_from(bytes).ok().map(Ipv4Addr::from)
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(four.try_into().ok()?))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    let two = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_ne_bytes(two.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_found_behind_others_whatever_their_length() {
        let mut message = Message::default();
        message.text(3, "eth0");
        message.attribute(1, &[10, 0, 0, 1]);
        assert_eq!(
            find(&message.bytes, 1).and_then(address),
            Some(Ipv4Addr::new(10, 0, 0, 1))
        );
        assert_eq!(find(&message.bytes, 3), Some(&b"eth0\0"[..]));
        assert_eq!(find(&message.bytes, 9), None);
        assert_eq!(find(&message.bytes[..6], 3), None);
    }

    #[test]
    fn the_loopback_network_is_among_the_machines_networks() {
        let netlink = Netlink::open().expect("a socket");
        let networks = netlink.networks().expect("an answer");
        assert!(
            networks.iter().any(|(address, _)| address.is_loopback()),
            "{networks:?}"
        );
        assert!(
            netlink
                .names()
                .expect("an answer")
                .contains(&"lo".to_owned())
        );
        assert_eq!(netlink.index("lo").expect("an answer"), Some(1));
        assert_eq!(netlink.index("no-such-thing").expect("an answer"), None);
    }
}
