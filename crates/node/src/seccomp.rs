//! Seccomp profiles: what one says, and the program of the kernel that it becomes. Pure, and without a C library.
//!
//! A profile is the JSON of the OCI runtime specification, which is what `localhostProfile` names on a cluster too.
//! Of several entries that name a call the first that fits counts.

mod calls;
mod default;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use nix::libc;

use crate::runtime::Seccomp;

use default::runtime_default;

/// One instruction of a classic BPF program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Instruction {
    pub(crate) code: u16,
    pub(crate) jt: u8,
    pub(crate) jf: u8,
    pub(crate) k: u32,
}

/// A profile as its file has it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    /// What happens to a call that no entry names.
    default_action: Action,
    /// With `SCMP_ACT_ERRNO`: which error; `EPERM` unless told.
    default_errno_ret: Option<u16>,
    /// The entries, in order.
    #[serde(default)]
    syscalls: Vec<Entry>,
}

/// Calls, and what happens to them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    /// Names of calls; those that this architecture does not have are passed over.
    names: Vec<String>,
    /// What happens.
    action: Action,
    /// With `SCMP_ACT_ERRNO`: which error.
    errno_ret: Option<u16>,
    /// All of these must hold of the arguments.
    #[serde(default)]
    args: Vec<Argument>,
}

/// What is asked of one argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Argument {
    /// Which argument, from 0 to 5.
    index: u32,
    /// What it is compared with; the mask of a masked comparison.
    value: u64,
    /// What a masked argument is compared with.
    #[serde(default)]
    value_two: u64,
    /// How.
    op: Operator,
}

/// How an argument is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
enum Operator {
    #[serde(rename = "SCMP_CMP_NE")]
    NotEqual,
    #[serde(rename = "SCMP_CMP_LT")]
    Less,
    #[serde(rename = "SCMP_CMP_LE")]
    LessOrEqual,
    #[serde(rename = "SCMP_CMP_EQ")]
    Equal,
    #[serde(rename = "SCMP_CMP_GE")]
    GreaterOrEqual,
    #[serde(rename = "SCMP_CMP_GT")]
    Greater,
    #[serde(rename = "SCMP_CMP_MASKED_EQ")]
    MaskedEqual,
}

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
enum Action {
    #[serde(rename = "SCMP_ACT_KILL", alias = "SCMP_ACT_KILL_THREAD")]
    KillThread,
    #[serde(rename = "SCMP_ACT_KILL_PROCESS")]
    KillProcess,
    #[serde(rename = "SCMP_ACT_TRAP")]
    Trap,
    #[serde(rename = "SCMP_ACT_ERRNO")]
    Errno,
    #[serde(rename = "SCMP_ACT_TRACE")]
    Trace,
    #[serde(rename = "SCMP_ACT_ALLOW")]
    Allow,
    #[serde(rename = "SCMP_ACT_LOG")]
    Log,
}

impl Action {
    /// The kernel's number for it. `error`: what `Errno` gives.
    fn number(self, error: Option<u16>) -> u32 {
        const EPERM: u16 = 1;
        match self {
            Action::KillThread => libc::SECCOMP_RET_KILL_THREAD,
            Action::KillProcess => libc::SECCOMP_RET_KILL_PROCESS,
            Action::Trap => libc::SECCOMP_RET_TRAP,
            Action::Errno => libc::SECCOMP_RET_ERRNO | u32::from(error.unwrap_or(EPERM)),
            Action::Trace => libc::SECCOMP_RET_TRACE | u32::from(error.unwrap_or(EPERM)),
            Action::Allow => libc::SECCOMP_RET_ALLOW,
            Action::Log => libc::SECCOMP_RET_LOG,
        }
    }
}

/// Why a profile cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProfileError {
    /// The text is no profile.
    #[error("it is not a seccomp profile: {0}")]
    Text(String),
    /// A call has six arguments.
    #[error("it asks for argument {0}; a call has the arguments 0 to 5")]
    Argument(u32),
    /// The kernel takes no more.
    #[error("it becomes {0} instructions; the kernel takes {MOST}")]
    TooLong(usize),
}

/// As many instructions as the kernel takes: `BPF_MAXINSNS`.
const MOST: usize = 4_096;

/// The kernel's program for a container that has these capabilities; `None` where every call is allowed.
pub(crate) fn filter(
    wanted: &Seccomp,
    capabilities: &BTreeSet<&str>,
) -> Result<Option<Vec<Instruction>>, ProfileError> {
    match wanted {
        Seccomp::Unconfined => Ok(None),
        Seccomp::RuntimeDefault => compile(&runtime_default(capabilities)).map(Some),
        Seccomp::Profile(text) => compile(&parse(text)?).map(Some),
    }
}

/// Reads the text of a profile.
fn parse(text: &str) -> Result<Profile, ProfileError> {
    serde_json::from_str(text).map_err(|error| ProfileError::Text(error.to_string()))
}

/// What the kernel checks of one call.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Rule {
    /// The same answer always.
    Always(u32),
    /// The first whose conditions hold, or else the last.
    First(Vec<(Vec<Argument>, u32)>, u32),
}

/// The kernel's program for a profile.
fn compile(profile: &Profile) -> Result<Vec<Instruction>, ProfileError> {
    for argument in profile.syscalls.iter().flat_map(|entry| &entry.args) {
        if argument.index > 5 {
            return Err(ProfileError::Argument(argument.index));
        }
    }
    let numbers = calls::numbers();
    let default = profile.default_action.number(profile.default_errno_ret);
    let mut program = vec![
        load(ARCHITECTURE_AT),
        jump(JUMP_EQUAL, ARCHITECTURE, 1, 0),
        // Programs for another architecture have other numbers for the same calls: none of them is let through.
        answer(UNKNOWN_CALL),
        load(NUMBER_AT),
    ];
    program.extend(tree(&ranges(
        &rules(profile, &numbers, default),
        default,
        unknown(profile, &numbers),
    )));
    if program.len() > MOST {
        return Err(ProfileError::TooLong(program.len()));
    }
    Ok(program)
}

/// The rule of each call that the profile names.
fn rules(
    profile: &Profile,
    numbers: &BTreeMap<&'static str, u32>,
    default: u32,
) -> BTreeMap<u32, Rule> {
    let mut rules: BTreeMap<u32, Rule> = BTreeMap::new();
    let mut settled = BTreeSet::new();
    for entry in &profile.syscalls {
        let action = entry.action.number(entry.errno_ret);
        for number in entry
            .names
            .iter()
            .filter_map(|name| numbers.get(name.as_str()))
        {
            if settled.contains(number) {
                continue;
            }
            let rule = rules.remove(number);
            let checks = match rule {
                Some(Rule::First(checks, _)) => checks,
                Some(Rule::Always(_)) | None => Vec::new(),
            };
            let rule = if entry.args.is_empty() {
                settled.insert(*number);
                if checks.is_empty() {
                    Rule::Always(action)
                } else {
                    Rule::First(checks, action)
                }
            } else {
                let mut checks = checks;
                checks.push((entry.args.clone(), action));
                Rule::First(checks, default)
            };
            rules.insert(*number, rule);
        }
    }
    rules
}

/// From which number on a call counts as unknown, and what it then gets.
///
/// upstream: runc, too, answers ENOSYS to calls that are newer than the profile, so that a C library tries an older one.
fn unknown(profile: &Profile, numbers: &BTreeMap<&'static str, u32>) -> Option<(u32, u32)> {
    let last = profile
        .syscalls
        .iter()
        .flat_map(|entry| &entry.names)
        .filter_map(|name| numbers.get(name.as_str()))
        .max()?;
    (profile.default_action == Action::Errno).then_some((last + 1, UNKNOWN_CALL))
}

/// Neighbours with the same rule become one: the first number of each range, with its rule.
fn ranges(
    rules: &BTreeMap<u32, Rule>,
    default: u32,
    unknown: Option<(u32, u32)>,
) -> Vec<(u32, Rule)> {
    let mut starts: BTreeMap<u32, Rule> = BTreeMap::from([(0, Rule::Always(default))]);
    for (number, rule) in rules {
        starts.insert(*number, rule.clone());
        if !rules.contains_key(&(number + 1)) {
            starts.insert(number + 1, Rule::Always(default));
        }
    }
    if let Some((from, action)) = unknown {
        starts.insert(from, Rule::Always(action));
    }
    #[cfg(target_arch = "x86_64")]
    starts.insert(OTHER_ABI, Rule::Always(UNKNOWN_CALL));
    let mut ranges: Vec<(u32, Rule)> = Vec::new();
    for (start, rule) in starts {
        if ranges.last().is_none_or(|(_, before)| *before != rule) {
            ranges.push((start, rule));
        }
    }
    ranges
}

/// A search for the range that a number is in, by halves.
fn tree(ranges: &[(u32, Rule)]) -> Vec<Instruction> {
    let (left, right) = ranges.split_at(ranges.len() / 2);
    match (left, right) {
        ([], [(_, rule), ..]) => leaf(rule),
        (_, []) => Vec::new(),
        (left, [(start, _), ..]) => {
            let below = tree(left);
            let mut program = vec![
                jump(JUMP_AT_LEAST, *start, 0, 1),
                jump(JUMP_ALWAYS, length(&below), 0, 0),
            ];
            program.extend(below);
            program.extend(tree(right));
            program
        }
    }
}

fn leaf(rule: &Rule) -> Vec<Instruction> {
    match rule {
        Rule::Always(action) => vec![answer(*action)],
        Rule::First(checks, otherwise) => {
            let mut program = Vec::new();
            for (arguments, action) in checks {
                program.extend(all_hold(arguments));
                program.push(answer(*action));
            }
            program.push(answer(*otherwise));
            program
        }
    }
}

/// Goes on behind the answer that follows unless every condition holds. Written from its end, to know how far that is.
fn all_hold(arguments: &[Argument]) -> Vec<Instruction> {
    let mut program: Vec<Instruction> = Vec::new();
    for argument in arguments.iter().rev() {
        let mut checks = holds(argument, u8::try_from(program.len() + 1).unwrap_or(u8::MAX));
        checks.extend(program);
        program = checks;
    }
    program
}

/// One condition on 64 bits, of which the machine compares 32 at a time. Where it does not hold, goes `beyond`
/// instructions further than where it does.
fn holds(argument: &Argument, beyond: u8) -> Vec<Instruction> {
    let at = ARGUMENTS_AT + 8 * argument.index;
    let (low_at, high_at) = if cfg!(target_endian = "little") {
        (at, at + 4)
    } else {
        (at + 4, at)
    };
    let high = |value: u64| u32::try_from(value >> 32).unwrap_or(u32::MAX);
    let low = |value: u64| u32::try_from(value & 0xffff_ffff).unwrap_or(u32::MAX);
    let value = argument.value;
    // The upper half first: by it alone some comparisons are won or lost.
    let wide = |above: (u8, u8), lower: Instruction| {
        vec![
            load(high_at),
            jump(JUMP_ABOVE, high(value), above.0, 0),
            jump(JUMP_EQUAL, high(value), 0, above.1),
            load(low_at),
            lower,
        ]
    };
    match argument.op {
        Operator::Equal => vec![
            load(high_at),
            jump(JUMP_EQUAL, high(value), 0, beyond + 2),
            load(low_at),
            jump(JUMP_EQUAL, low(value), 0, beyond),
        ],
        Operator::NotEqual => vec![
            load(high_at),
            jump(JUMP_EQUAL, high(value), 0, 2),
            load(low_at),
            jump(JUMP_EQUAL, low(value), beyond, 0),
        ],
        Operator::MaskedEqual => {
            let wanted = argument.value_two;
            vec![
                load(high_at),
                mask(high(value)),
                jump(JUMP_EQUAL, high(wanted), 0, beyond + 3),
                load(low_at),
                mask(low(value)),
                jump(JUMP_EQUAL, low(wanted), 0, beyond),
            ]
        }
        Operator::Greater => wide((3, beyond + 2), jump(JUMP_ABOVE, low(value), 0, beyond)),
        Operator::GreaterOrEqual => {
            wide((3, beyond + 2), jump(JUMP_AT_LEAST, low(value), 0, beyond))
        }
        Operator::Less => wide((beyond + 3, 2), jump(JUMP_AT_LEAST, low(value), beyond, 0)),
        Operator::LessOrEqual => wide((beyond + 3, 2), jump(JUMP_ABOVE, low(value), beyond, 0)),
    }
}

// Where the kernel lays out what it knows of a call: `struct seccomp_data`.
const NUMBER_AT: u32 = 0;
const ARCHITECTURE_AT: u32 = 4;
const ARGUMENTS_AT: u32 = 16;

/// The call does not exist: `ENOSYS`.
const UNKNOWN_CALL: u32 = libc::SECCOMP_RET_ERRNO | 38;

/// `AUDIT_ARCH_*` of this architecture.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;
#[cfg(target_arch = "riscv64")]
const ARCHITECTURE: u32 = 0xc000_00f3;

/// Calls of the x32 ABI have the same architecture and numbers from here on.
#[cfg(target_arch = "x86_64")]
const OTHER_ABI: u32 = 0x4000_0000;

// The few operations of the machine that are needed.
const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const RETURN: u16 = 0x06;
const JUMP_ALWAYS: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_ABOVE: u16 = 0x25;
const JUMP_AT_LEAST: u16 = 0x35;

fn load(offset: u32) -> Instruction {
    jump(LOAD, offset, 0, 0)
}

fn mask(bits: u32) -> Instruction {
    jump(AND, bits, 0, 0)
}

fn answer(action: u32) -> Instruction {
    jump(RETURN, action, 0, 0)
}

fn jump(code: u16, k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { code, jt, jf, k }
}

fn length(program: &[Instruction]) -> u32 {
    u32::try_from(program.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
