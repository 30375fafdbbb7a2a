//! The profile `RuntimeDefault`: which calls a container may make that asks for nothing else, as data of our own.
//!
//! Every call is allowed that this program knows, but for those that reach beyond a container: some never, some only
//! with the capability that the kernel asks for anyway. What a container engine's default gives, told from its other end.

use std::collections::BTreeSet;

use super::calls;
use super::{Action, Argument, Entry, Operator, Profile};

/// Never allowed: keys of the machine, other kernels, other people's memory, and calls that no program needs.
const NEVER: &[&str] = &[
    "_sysctl",
    "add_key",
    "afs_syscall",
    "create_module",
    "epoll_ctl_old",
    "epoll_wait_old",
    "get_kernel_syms",
    "getpmsg",
    "io_uring_enter",
    "io_uring_register",
    "io_uring_setup",
    "kexec_file_load",
    "kexec_load",
    "keyctl",
    "lookup_dcookie",
    "lsm_set_self_attr",
    "migrate_pages",
    "move_pages",
    "nfsservctl",
    "pivot_root",
    "putpmsg",
    "query_module",
    "request_key",
    "security",
    "swapoff",
    "swapon",
    "sysfs",
    "tuxcall",
    "uselib",
    "userfaultfd",
    "ustat",
    "vserver",
];

/// Allowed with one of these capabilities only.
const WITH: &[(&[&str], &[&str])] = &[
    (
        &["SYS_ADMIN"],
        &[
            "fanotify_init",
            "fsconfig",
            "fsmount",
            "fsopen",
            "fspick",
            "mount",
            "mount_setattr",
            "move_mount",
            "open_tree",
            "open_tree_attr",
            "quotactl",
            "quotactl_fd",
            "setdomainname",
            "sethostname",
            "setns",
            "umount2",
            "unshare",
        ],
    ),
    (&["SYS_ADMIN", "BPF"], &["bpf"]),
    (&["SYS_ADMIN", "PERFMON"], &["perf_event_open"]),
    (&["SYS_ADMIN", "SYSLOG"], &["syslog"]),
    (&["DAC_READ_SEARCH"], &["open_by_handle_at"]),
    (&["SYS_BOOT"], &["reboot"]),
    (&["SYS_CHROOT"], &["chroot"]),
    (
        &["SYS_MODULE"],
        &["delete_module", "finit_module", "init_module"],
    ),
    (
        &["SYS_NICE"],
        &[
            "get_mempolicy",
            "mbind",
            "set_mempolicy",
            "set_mempolicy_home_node",
        ],
    ),
    (&["SYS_PACCT"], &["acct"]),
    (&["SYS_PTRACE"], &["kcmp", "pidfd_getfd", "process_madvise"]),
    (&["SYS_RAWIO"], &["ioperm", "iopl"]),
    (&["SYS_TIME"], &["clock_settime", "settimeofday"]),
    (&["SYS_TTY_CONFIG"], &["vhangup"]),
];

/// Decided by their arguments, below.
const BY_ARGUMENT: &[&str] = &["clone", "clone3", "personality", "socket"];

/// The flags of `clone` that make a namespace.
const NEW_NAMESPACES: u64 = 0x7e02_0000;
/// Linux itself, with or without addresses at random, for 64 and 32 bits; and the question which it is.
const PERSONALITIES: [u64; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];
/// Families of sockets that reach the kernel's ciphers and the machine's hypervisor.
const AF_ALG: u64 = 38;
const AF_VSOCK: u64 = 40;

/// The profile for a container that has these capabilities, named without `CAP_`.
pub(super) fn runtime_default(capabilities: &BTreeSet<&str>) -> Profile {
    let has = |any: &[&str]| any.iter().any(|name| capabilities.contains(name));
    let refused: BTreeSet<&str> = WITH
        .iter()
        .filter(|(any, _)| !has(any))
        .flat_map(|(_, names)| *names)
        .chain(NEVER)
        .chain(BY_ARGUMENT)
        .copied()
        .collect();
    let allowed = calls::numbers()
        .into_keys()
        .filter(|name| !refused.contains(name));
    let mut syscalls = vec![entry(allowed, Vec::new())];
    if has(&["SYS_ADMIN"]) {
        syscalls.push(entry(["clone", "clone3"], Vec::new()));
    } else {
        syscalls.push(entry(["clone"], vec![no_new_namespaces()]));
        // Its flags are in memory, where they cannot be looked at: a C library then takes `clone`.
        syscalls.push(Entry {
            names: vec!["clone3".to_owned()],
            action: Action::Errno,
            errno_ret: Some(38),
            args: Vec::new(),
        });
    }
    syscalls.extend(
        PERSONALITIES.map(|value| entry(["personality"], vec![first(Operator::Equal, value)])),
    );
    syscalls.extend(
        [
            (Operator::Less, AF_ALG),
            (Operator::Equal, AF_ALG + 1),
            (Operator::Greater, AF_VSOCK),
        ]
        .map(|(op, family)| entry(["socket"], vec![first(op, family)])),
    );
    Profile {
        default_action: Action::Errno,
        default_errno_ret: None,
        syscalls,
    }
}

fn entry<'a>(names: impl IntoIterator<Item = &'a str>, args: Vec<Argument>) -> Entry {
    Entry {
        names: names.into_iter().map(str::to_owned).collect(),
        action: Action::Allow,
        errno_ret: None,
        args,
    }
}

fn first(op: Operator, value: u64) -> Argument {
    Argument {
        index: 0,
        value,
        value_two: 0,
        op,
    }
}

fn no_new_namespaces() -> Argument {
    first(Operator::MaskedEqual, NEW_NAMESPACES)
}
