//! Linux capabilities by name: what a container has by default, with what it adds and drops.

use std::collections::BTreeSet;
use std::io;

use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_keep_capabilities,
};

/// Every capability by its number, without the `CAP_` prefix.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// upstream: containerd's default for a container that asks for nothing.
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// The capabilities of a container: all of the machine's when privileged, else the default changed as asked.
/// upstream: `ALL` is taken first, so that `drop: [ALL], add: [X]` leaves X.
pub(crate) fn wanted(privileged: bool, add: &[String], drop: &[String]) -> Vec<u32> {
    let has = |list: &[String], name: &str| list.iter().any(|entry| plain(entry) == name);
    let all_added = privileged || has(add, "ALL");
    let all_dropped = !privileged && has(drop, "ALL");
    (0u32..)
        .zip(NAMES)
        .filter(|(_, name)| {
            let start = all_added || (DEFAULT.contains(name) && !all_dropped);
            (start || has(add, name)) && (privileged || !has(drop, name))
        })
        .map(|(number, _)| number)
        .collect()
}

/// The names of capabilities by their numbers.
pub(crate) fn names(numbers: &[u32]) -> BTreeSet<&'static str> {
    (0u32..)
        .zip(NAMES)
        .filter(|(number, _)| numbers.contains(number))
        .map(|(_, name)| name)
        .collect()
}

/// Names that are no capability.
pub(crate) fn unknown<'a>(names: impl IntoIterator<Item = &'a String>) -> Vec<String> {
    names
        .into_iter()
        .filter(|name| plain(name) != "ALL" && !NAMES.contains(&plain(name).as_str()))
        .cloned()
        .collect()
}

/// Before the user is changed: takes the rest out of reach for good, and keeps what is held over the change.
pub(super) fn limit(keep: &[u32]) -> io::Result<()> {
    for number in 0..64 {
        if keep.contains(&number) {
            continue;
        }
        let Some(set) = 1u64
            .checked_shl(number)
            .map(CapabilitySet::from_bits_retain)
        else {
            continue;
        };
        match remove_capability_from_bounding_set(set) {
            // The kernel knows no more than this.
            Err(rustix::io::Errno::INVAL) => break,
            other => other?,
        }
    }
    clear_ambient_capability_set()?;
    Ok(set_keep_capabilities(true)?)
}

/// After the user was changed: exactly what was asked for. A user that is not root keeps them up to its exec only.
pub(super) fn settle(keep: &[u32]) -> io::Result<()> {
    let have = capabilities(None)?.permitted;
    let asked = keep
        .iter()
        .filter_map(|number| 1u64.checked_shl(*number))
        .fold(0, |set, bit| set | bit);
    let sets = have & CapabilitySet::from_bits_retain(asked);
    set_capabilities(
        None,
        CapabilitySets {
            effective: sets,
            permitted: sets,
            inheritable: CapabilitySet::empty(),
        },
    )?;
    Ok(set_keep_capabilities(false)?)
}

fn plain(name: &str) -> String {
    let upper = name.to_uppercase();
    upper.strip_prefix("CAP_").unwrap_or(&upper).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(privileged: bool, add: &[&str], drop: &[&str], want: &str) {
        let owned = |list: &[&str]| {
            list.iter()
                .map(|name| (*name).to_owned())
                .collect::<Vec<_>>()
        };
        let names: Vec<&str> = wanted(privileged, &owned(add), &owned(drop))
            .into_iter()
            .map(|number| NAMES[number as usize])
            .collect();
        assert_eq!(names.join(" "), want);
    }

    #[test]
    fn dropping_all_and_adding_one_leaves_one() {
        check(false, &["NET_BIND_SERVICE"], &["ALL"], "NET_BIND_SERVICE");
        check(false, &["cap_net_admin"], &["all"], "NET_ADMIN");
    }

    #[test]
    fn the_default_can_lose_one() {
        let all_but = "CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE SYS_CHROOT MKNOD AUDIT_WRITE SETFCAP";
        check(false, &[], &["NET_RAW"], all_but);
    }

    #[test]
    fn a_privileged_container_has_them_all() {
        check(true, &[], &["ALL"], &NAMES.join(" "));
    }
}
