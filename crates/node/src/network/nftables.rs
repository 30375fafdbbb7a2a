//! Rulesets as the kernel's packet filter reads them: a batch of netlink messages, made purely, taken whole or not at all.
//!
//! upstream: include/uapi/linux/netfilter/nf_tables.h of Linux. The batch removes the table of the same name and makes
//! it anew, so that nobody ever sees half of it. Connections live on: they are not part of a table.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;

use super::netlink::{Command, Message, Netlink};
use super::ruleset::{
    Atom, Chain, Endpoint, Field, Holds, Hook, Kind, Match, Rule, Ruleset, Set, State, Statement,
    Way,
};

/// The sources that a set remembers, with the milliseconds that each has left.
pub(super) type Remembered = BTreeMap<String, Vec<(Ipv4Addr, u64)>>;

const SUBSYSTEM: u16 = 10 << 8;
const NEW_TABLE: u16 = SUBSYSTEM;
const GET_TABLE: u16 = SUBSYSTEM | 1;
const DELETE_TABLE: u16 = SUBSYSTEM | 2;
const NEW_CHAIN: u16 = SUBSYSTEM | 3;
const NEW_RULE: u16 = SUBSYSTEM | 6;
const NEW_SET: u16 = SUBSYSTEM | 9;
const NEW_ELEMENTS: u16 = SUBSYSTEM | 12;
const GET_ELEMENTS: u16 = SUBSYSTEM | 13;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;

const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;

const IPV4: u8 = 2;
/// The fixed part of a message of this subsystem.
const HEADER: usize = 4;
/// Elements of one message: all of its attributes together must stay below 64 KiB.
const ELEMENTS_MAX: usize = 500;
/// The first of the registers of four bytes. A value of more takes several in a row.
const FIRST_REGISTER: u32 = 8;
const VERDICT_REGISTER: u32 = 0;
/// The type of a map whose values are verdicts.
const VERDICT_TYPE: u32 = 0xffff_ff00;

const SET_CONSTANT: u32 = 0x2;
const SET_MAP: u32 = 0x8;
const SET_TIMEOUT: u32 = 0x10;
const SET_DYNAMIC: u32 = 0x20;

/// What becomes of packets at the end of a chain with a hook.
const ACCEPT: i32 = 1;
const DROP: i32 = 0;
const JUMP: i32 = -3;
const GOTO: i32 = -4;
const RETURN: i32 = -5;

/// Puts the ruleset in the place of the table of its name. What its sets of clients remember stays remembered.
pub(super) fn apply(netlink: &Netlink, ruleset: &Ruleset) -> io::Result<()> {
    let mut remembered = Remembered::new();
    for (name, set) in &ruleset.sets {
        if matches!(set.holds, Holds::Remembered { .. }) {
            remembered.insert(name.clone(), remembers(netlink, &ruleset.table, name)?);
        }
    }
    netlink.transact(&replacement(ruleset, &remembered))
}

/// Removes a table; one that is not there is removed.
pub(super) fn remove(netlink: &Netlink, table: &str) -> io::Result<()> {
    let mut commands = vec![begin()];
    commands.extend(removal(table));
    commands.push(end());
    netlink.transact(&commands)
}

/// The names of the tables of the IPv4 family.
pub(super) fn tables(netlink: &Netlink) -> io::Result<Vec<String>> {
    let answers = netlink.dump(GET_TABLE, &header(IPV4))?;
    let name = |answer: &Vec<u8>| {
        let name = super::netlink::find(answer.get(HEADER..)?, 1)?;
        let name = name.strip_suffix(&[0]).unwrap_or(name);
        Some(String::from_utf8_lossy(name).into_owned())
    };
    Ok(answers.iter().filter_map(name).collect())
}

/// What a set of clients holds now; nothing when there is no such set.
fn remembers(netlink: &Netlink, table: &str, set: &str) -> io::Result<Vec<(Ipv4Addr, u64)>> {
    use super::netlink::find;
    let mut question = header(IPV4);
    question.text(1, table);
    question.text(2, set);
    let answers = match netlink.dump(GET_ELEMENTS, &question) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut found = Vec::new();
    for answer in &answers {
        let list = answer.get(HEADER..).and_then(|body| find(body, 3));
        for element in super::netlink::attributes(list.unwrap_or_default()) {
            let address = find(element, 1).and_then(|key| find(key, 1));
            let left = find(element, 5).and_then(|bytes| <[u8; 8]>::try_from(bytes).ok());
            if let (Some(address), Some(left)) = (address.and_then(super::netlink::address), left) {
                found.push((address, u64::from_be_bytes(left)));
            }
        }
    }
    Ok(found)
}

/// The batch that puts a ruleset in the place of the table of its name.
pub(super) fn replacement(ruleset: &Ruleset, remembered: &Remembered) -> Vec<Command> {
    let Ruleset {
        table,
        sets,
        chains,
    } = ruleset;
    let mut commands = vec![begin()];
    commands.extend(removal(table));
    commands.push(table_message(table, NEW_TABLE, CREATE));
    // Maps name chains, and rules name both: each comes after what it names.
    commands.extend(chains.iter().map(|chain| chain_message(table, chain)));
    for (id, (name, set)) in (1..).zip(sets) {
        commands.push(set_message(table, name, set, id));
        let known = remembered.get(name).map(Vec::as_slice).unwrap_or_default();
        commands.extend(element_messages(table, name, set, known));
    }
    for chain in chains {
        let rules = chain.rules.iter();
        commands.extend(rules.map(|rule| rule_message(table, &chain.name, rule)));
    }
    commands.push(end());
    commands
}

/// Makes the table first: one that is not there cannot be removed.
fn removal(table: &str) -> [Command; 2] {
    [
        table_message(table, NEW_TABLE, CREATE),
        table_message(table, DELETE_TABLE, 0),
    ]
}

fn begin() -> Command {
    batch_edge(BATCH_BEGIN)
}

fn end() -> Command {
    batch_edge(BATCH_END)
}

fn batch_edge(kind: u16) -> Command {
    let mut body = Message::default();
    let [high, low] = (SUBSYSTEM >> 8).to_be_bytes();
    body.raw(&[0, 0, high, low]);
    Command {
        what: String::new(),
        kind,
        flags: 0,
        body,
    }
}

fn header(family: u8) -> Message {
    let mut message = Message::default();
    message.raw(&[family, 0, 0, 0]);
    message
}

fn table_message(table: &str, kind: u16, flags: u16) -> Command {
    let mut body = header(IPV4);
    body.text(1, table);
    body.big(2, 0);
    Command {
        what: format!("table {table}"),
        kind,
        flags,
        body,
    }
}

fn chain_message(table: &str, chain: &Chain) -> Command {
    let mut body = header(IPV4);
    body.text(1, table);
    body.text(3, &chain.name);
    if let Some(hook) = chain.hook {
        let (kind, number, priority) = place(hook);
        body.nest(4, |inner| {
            inner.big(1, number);
            inner.big(2, priority.cast_unsigned());
        });
        body.big(5, ACCEPT.cast_unsigned());
        body.text(7, kind);
    }
    Command {
        what: format!("chain {}", chain.name),
        kind: NEW_CHAIN,
        flags: CREATE,
        body,
    }
}

/// The type of a chain, the number of its hook, and its priority there.
fn place(hook: Hook) -> (&'static str, u32, i32) {
    let (arriving, input, forward, output, leaving) = (0, 1, 2, 3, 4);
    match hook {
        Hook::Arriving => ("filter", arriving, -300),
        Hook::NatArriving => ("nat", arriving, -100),
        Hook::NatSent => ("nat", output, -100),
        Hook::NatLeaving => ("nat", leaving, 100),
        Hook::Input => ("filter", input, 0),
        Hook::Forward => ("filter", forward, 0),
        Hook::Output => ("filter", output, 0),
    }
}

fn set_message(table: &str, name: &str, set: &Set, id: u32) -> Command {
    let mut body = header(IPV4);
    body.text(1, table);
    body.text(2, name);
    let flags = match &set.holds {
        Holds::Keys(_) => SET_CONSTANT,
        Holds::Verdicts(_) | Holds::Endpoints(_) => SET_CONSTANT | SET_MAP,
        Holds::Remembered { .. } => SET_TIMEOUT | SET_DYNAMIC,
    };
    body.big(3, flags);
    body.big(4, concatenated(&set.key));
    body.big(5, length(&set.key));
    match &set.holds {
        Holds::Keys(_) => {}
        Holds::Verdicts(_) => {
            body.big(6, VERDICT_TYPE);
            body.big(7, 0);
        }
        Holds::Endpoints(_) => {
            let value = [Kind::Address, Kind::Port];
            body.big(6, concatenated(&value));
            body.big(7, length(&value));
        }
        Holds::Remembered { timeout_seconds } => {
            body.attribute(11, &milliseconds(*timeout_seconds).to_be_bytes());
        }
    }
    body.big(10, id);
    Command {
        what: format!("set {name}"),
        kind: NEW_SET,
        flags: CREATE,
        body,
    }
}

/// The type of a key as `nft` tells it: six bits for each of its parts.
fn concatenated(kinds: &[Kind]) -> u32 {
    kinds.iter().fold(0, |types, kind| {
        let own = match kind {
            Kind::Number => 4,
            Kind::Address => 7,
            Kind::Protocol => 12,
            Kind::Port => 13,
        };
        types << 6 | own
    })
}

/// Each part of a key takes four bytes.
fn length(kinds: &[Kind]) -> u32 {
    kinds.iter().map(|_| 4).sum()
}

fn milliseconds(seconds: u32) -> u64 {
    u64::from(seconds) * 1_000
}

fn element_messages(
    table: &str,
    name: &str,
    set: &Set,
    remembered: &[(Ipv4Addr, u64)],
) -> Vec<Command> {
    let mut elements: Vec<Message> = Vec::new();
    match &set.holds {
        Holds::Keys(keys) => elements.extend(keys.iter().map(|key| element(key))),
        Holds::Verdicts(map) => elements.extend(map.iter().map(|(key, chain)| {
            let mut element = element(key);
            element.nest(2, |data| verdict(data, GOTO, Some(chain)));
            element
        })),
        Holds::Endpoints(map) => elements.extend(map.iter().map(|(key, to)| {
            let mut element = element(key);
            element.nest(2, |data| data.attribute(1, &endpoint_bytes(*to)));
            element
        })),
        Holds::Remembered { timeout_seconds } => {
            elements.extend(remembered.iter().map(|(address, left)| {
                let whole = milliseconds(*timeout_seconds);
                let mut element = element(&[Atom::Address(*address)]);
                element.attribute(4, &whole.to_be_bytes());
                element.attribute(5, &left.clamp(&1, &whole).to_be_bytes());
                element
            }));
        }
    }
    let command = |chunk: &[Message]| {
        let mut body = header(IPV4);
        body.text(1, table);
        body.text(2, name);
        body.nest(3, |list| {
            for element in chunk {
                list.nest(1, |inner| inner.append(element));
            }
        });
        Command {
            what: format!("elements of {name}"),
            kind: NEW_ELEMENTS,
            flags: CREATE,
            body,
        }
    };
    elements.chunks(ELEMENTS_MAX).map(command).collect()
}

fn element(key: &[Atom]) -> Message {
    let bytes: Vec<u8> = key.iter().flat_map(|atom| padded(*atom)).collect();
    let mut element = Message::default();
    element.nest(1, |inner| inner.attribute(1, &bytes));
    element
}

fn padded(atom: Atom) -> [u8; 4] {
    let mut four = [0; 4];
    for (to, from) in four.iter_mut().zip(atom_bytes(atom)) {
        *to = from;
    }
    four
}

/// As the packet has it; numbers as the machine has them.
fn atom_bytes(atom: Atom) -> Vec<u8> {
    match atom {
        Atom::Address(address) => address.octets().to_vec(),
        Atom::Protocol(protocol) => vec![protocol.number()],
        Atom::Port(port) => port.to_be_bytes().to_vec(),
        Atom::Number(number) => number.to_ne_bytes().to_vec(),
    }
}

fn endpoint_bytes(to: Endpoint) -> Vec<u8> {
    let parts = [Atom::Address(to.address), Atom::Port(to.port)];
    parts.into_iter().flat_map(padded).collect()
}

fn verdict(data: &mut Message, code: i32, chain: Option<&str>) {
    data.nest(2, |inner| {
        inner.big(1, code.cast_unsigned());
        if let Some(chain) = chain {
            inner.text(2, chain);
        }
    });
}

fn rule_message(table: &str, chain: &str, rule: &Rule) -> Command {
    let mut body = header(IPV4);
    body.text(1, table);
    body.text(2, chain);
    body.nest(4, |list| {
        let mut expressions = Expressions(list);
        for condition in &rule.when {
            expressions.condition(condition);
        }
        for statement in &rule.then {
            expressions.statement(statement);
        }
    });
    Command {
        what: format!("rule \"{rule}\" of chain {chain}"),
        kind: NEW_RULE,
        flags: CREATE | APPEND,
        body,
    }
}

/// The expressions of a rule, one after the other.
struct Expressions<'a>(&'a mut Message);

impl Expressions<'_> {
    fn add(&mut self, name: &str, fill: impl FnOnce(&mut Message)) {
        self.0.nest(1, |inner| {
            inner.text(1, name);
            inner.nest(2, fill);
        });
    }

    fn condition(&mut self, condition: &Match) {
        match condition {
            Match::Interface { way, prefix, is } => {
                self.interface(*way);
                self.compare(if *is { 0 } else { 1 }, prefix.as_bytes());
            }
            Match::InterfaceNamed { way, name } => {
                self.interface(*way);
                let mut whole = name.as_bytes().to_vec();
                whole.resize(16, 0);
                self.compare(0, &whole);
            }
            Match::Within {
                field,
                network,
                prefix,
                is,
            } => {
                self.load(*field, FIRST_REGISTER);
                let mask = u32::MAX.checked_shl(32 - u32::from(*prefix)).unwrap_or(0);
                self.mask(&mask.to_be_bytes());
                let network = u32::from(*network) & mask;
                self.compare(if *is { 0 } else { 1 }, &network.to_be_bytes());
            }
            Match::Is(field, atom) => {
                self.load(*field, FIRST_REGISTER);
                self.compare(0, &atom_bytes(*atom));
            }
            Match::Between(field, from, to) => {
                self.load(*field, FIRST_REGISTER);
                self.compare(5, &from.to_be_bytes());
                self.compare(3, &to.to_be_bytes());
            }
            Match::In(fields, set) => {
                self.load_all(fields);
                self.look_up(set, FIRST_REGISTER, None);
            }
            Match::ForThisMachine => {
                let (address_type, of_destination, local) = (3, 2, 2_u32);
                self.add("fib", |fib| {
                    fib.big(1, FIRST_REGISTER);
                    fib.big(2, address_type);
                    fib.big(3, of_destination);
                });
                self.compare(0, &local.to_ne_bytes());
            }
            Match::State(state) => {
                let bit: u32 = match state {
                    State::Invalid => 1,
                    State::Established => 1 << 1,
                    State::Related => 1 << 2,
                };
                self.connection(0, None, FIRST_REGISTER);
                self.any_of(bit);
            }
            Match::Redirected => {
                self.connection(2, None, FIRST_REGISTER);
                self.any_of(1 << 5);
            }
        }
    }

    fn statement(&mut self, statement: &Statement) {
        match statement {
            Statement::Drop => self.end(DROP, None),
            Statement::Return => self.end(RETURN, None),
            Statement::Jump(chain) => self.end(JUMP, Some(chain)),
            Statement::Goto(chain) => self.end(GOTO, Some(chain)),
            Statement::GotoFrom(fields, map) => {
                self.load_all(fields);
                self.look_up(map, FIRST_REGISTER, Some(VERDICT_REGISTER));
            }
            Statement::ResetTcp => self.reject(1, 0),
            Statement::RefusePort => self.reject(0, 3),
            Statement::Masquerade => self.add("masq", |_| {}),
            Statement::AnswerOneOf(map, count) => {
                self.chance(*count);
                self.look_up(map, FIRST_REGISTER, Some(FIRST_REGISTER + 1));
                self.translate(FIRST_REGISTER + 1);
            }
            Statement::AnswerBy(to) => {
                for (register, bytes) in (FIRST_REGISTER..)
                    .zip([to.address.octets().to_vec(), to.port.to_be_bytes().to_vec()])
                {
                    self.add("immediate", |immediate| {
                        immediate.big(1, register);
                        immediate.nest(2, |data| data.attribute(1, &bytes));
                    });
                }
                self.translate(FIRST_REGISTER);
            }
            Statement::GotoOneOf(map, count) => {
                self.chance(*count);
                self.look_up(map, FIRST_REGISTER, Some(VERDICT_REGISTER));
            }
            Statement::Remember(set, seconds) => {
                let update = 1;
                self.load(Field::Source, FIRST_REGISTER);
                self.add("dynset", |dynset| {
                    dynset.text(1, set);
                    dynset.big(3, update);
                    dynset.big(4, FIRST_REGISTER);
                    dynset.attribute(6, &milliseconds(*seconds).to_be_bytes());
                });
            }
        }
    }

    fn interface(&mut self, way: Way) {
        let key = match way {
            Way::In => 6,
            Way::Out => 7,
        };
        self.meta(key, FIRST_REGISTER);
    }

    fn load_all(&mut self, fields: &[Field]) {
        for (register, field) in (FIRST_REGISTER..).zip(fields) {
            self.load(*field, register);
        }
    }

    fn load(&mut self, field: Field, register: u32) {
        let (network, transport) = (1, 2);
        let (original, reply) = (Some(0), Some(1));
        match field {
            Field::Source => self.payload(network, 12, 4, register),
            Field::Destination => self.payload(network, 16, 4, register),
            Field::Protocol => self.meta(16, register),
            Field::DestinationPort => self.payload(transport, 2, 2, register),
            Field::Client => self.connection(19, original, register),
            Field::Server => self.connection(19, reply, register),
            Field::ServerPort => self.connection(11, reply, register),
        }
    }

    fn payload(&mut self, base: u32, offset: u32, length: u32, register: u32) {
        self.add("payload", |payload| {
            payload.big(1, register);
            payload.big(2, base);
            payload.big(3, offset);
            payload.big(4, length);
        });
    }

    fn meta(&mut self, key: u32, register: u32) {
        self.add("meta", |meta| {
            meta.big(1, register);
            meta.big(2, key);
        });
    }

    fn connection(&mut self, key: u32, direction: Option<u8>, register: u32) {
        self.add("ct", |ct| {
            ct.big(1, register);
            ct.big(2, key);
            if let Some(direction) = direction {
                ct.attribute(3, &[direction]);
            }
        });
    }

    fn mask(&mut self, mask: &[u8; 4]) {
        self.add("bitwise", |bitwise| {
            bitwise.big(1, FIRST_REGISTER);
            bitwise.big(2, FIRST_REGISTER);
            bitwise.big(3, 4);
            bitwise.nest(4, |data| data.attribute(1, mask));
            bitwise.nest(5, |data| data.attribute(1, &[0; 4]));
        });
    }

    fn any_of(&mut self, bits: u32) {
        self.mask(&bits.to_ne_bytes());
        self.compare(1, &[0; 4]);
    }

    fn compare(&mut self, operator: u32, bytes: &[u8]) {
        self.add("cmp", |cmp| {
            cmp.big(1, FIRST_REGISTER);
            cmp.big(2, operator);
            cmp.nest(3, |data| data.attribute(1, bytes));
        });
    }

    fn look_up(&mut self, set: &str, from: u32, to: Option<u32>) {
        self.add("lookup", |lookup| {
            lookup.text(1, set);
            lookup.big(2, from);
            if let Some(to) = to {
                lookup.big(3, to);
            }
        });
    }

    fn chance(&mut self, count: u32) {
        let random = 1;
        self.add("numgen", |numgen| {
            numgen.big(1, FIRST_REGISTER);
            numgen.big(2, count);
            numgen.big(3, random);
            numgen.big(4, 0);
        });
    }

    /// The address is in the register, the port in the one after it.
    fn translate(&mut self, register: u32) {
        let destination = 1;
        self.add("nat", |nat| {
            nat.big(1, destination);
            nat.big(2, u32::from(IPV4));
            nat.big(3, register);
            nat.big(5, register + 1);
        });
    }

    fn reject(&mut self, kind: u32, code: u8) {
        self.add("reject", |reject| {
            reject.big(1, kind);
            reject.attribute(2, &[code]);
        });
    }

    fn end(&mut self, code: i32, chain: Option<&str>) {
        self.add("immediate", |immediate| {
            immediate.big(1, VERDICT_REGISTER);
            immediate.nest(2, |data| verdict(data, code, chain));
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::ruleset::Protocol;

    fn hex(bytes: &[u8]) -> String {
        let words = bytes.chunks(4);
        let word = |word: &[u8]| word.iter().map(|byte| format!("{byte:02x}")).collect();
        words.map(word).collect::<Vec<String>>().join(" ")
    }

    #[test]
    fn a_rule_is_told_as_the_kernel_reads_it() {
        let rule = Rule::new(
            [Match::Is(Field::Protocol, Atom::Protocol(Protocol::Tcp))],
            [Statement::Drop],
        );
        let command = rule_message("t", "c", &rule);
        assert_eq!(command.what, "rule \"meta l4proto tcp drop\" of chain c");
        assert_eq!((command.kind, command.flags), (0x0a06, 0x0c00));
        if cfg!(target_endian = "big") {
            return;
        }
        // The family; table "t"; chain "c"; then meta, cmp and the verdict in a list.
        assert_eq!(
            hex(command.body.bytes()),
            "02000000 06000100 74000000 06000200 63000000 84000480 \
             24000180 09000100 6d657461 00000000 14000280 08000100 00000008 08000200 00000010 \
             2c000180 08000100 636d7000 20000280 08000100 00000008 08000200 00000000 0c000380 \
             05000100 06000000 \
             30000180 0e000100 696d6d65 64696174 65000000 1c000280 08000100 00000000 10000280 \
             0c000280 08000100 00000000"
        );
    }

    #[test]
    fn many_elements_go_in_several_messages() {
        let keys = (0..1_200)
            .map(|number| vec![Atom::Number(number)])
            .collect();
        let set = Set {
            key: vec![Kind::Number],
            holds: Holds::Keys(keys),
        };
        let messages = element_messages("t", "s", &set, &[]);
        assert_eq!(messages.len(), 3);
        assert!(messages.iter().all(|one| one.body.bytes().len() < 65_000));
    }

    #[test]
    fn what_is_remembered_stays_with_the_time_it_has_left() {
        let set = Set {
            key: vec![Kind::Address],
            holds: Holds::Remembered {
                timeout_seconds: 60,
            },
        };
        let known = [(Ipv4Addr::new(10, 0, 0, 9), 1_500)];
        let messages = element_messages("t", "s", &set, &known);
        let body = hex(messages[0].body.bytes());
        assert!(body.contains("0a000009"), "{body}");
        assert!(
            body.ends_with("0c000400 00000000 0000ea60 0c000500 00000000 000005dc"),
            "{body}"
        );
    }
}
