//! What a test sees of the kernel: interfaces, addresses, routes, tables, mounts, cgroups and processes, as sorted texts.

// Each test file uses what it needs of this.
#![allow(
    dead_code,
    reason = "every test file compiles this module for itself and uses a part of it"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};

/// A picture of the machine. What other programs do beside the test is not in it: networks and mounts are this test's
/// own, and of cgroups and processes only those that bear a name of this test are looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Machine {
    pub(crate) links: BTreeSet<String>,
    pub(crate) addresses: BTreeSet<String>,
    pub(crate) routes: BTreeSet<String>,
    pub(crate) tables: BTreeSet<String>,
    pub(crate) mounts: BTreeSet<String>,
    pub(crate) folders: BTreeSet<String>,
    pub(crate) cgroups: BTreeSet<String>,
    pub(crate) processes: BTreeSet<String>,
}

impl Machine {
    /// Fails with the differences alone.
    #[track_caller]
    pub(crate) fn assert_is(&self, want: &Machine) {
        let parts = |machine: &Machine| -> BTreeSet<String> {
            let Machine {
                links,
                addresses,
                routes,
                tables,
                mounts,
                folders,
                cgroups,
                processes,
            } = machine;
            [
                links, addresses, routes, tables, mounts, folders, cgroups, processes,
            ]
            .into_iter()
            .flatten()
            .cloned()
            .collect()
        };
        let (here, there) = (parts(self), parts(want));
        let more: Vec<_> = here.difference(&there).collect();
        let less: Vec<_> = there.difference(&here).collect();
        assert!(
            self == want,
            "there is, and should not be: {more:?}; there should be: {less:?}"
        );
    }

    /// Looks at all of it now.
    pub(crate) fn look() -> Self {
        let text = |file: &str| fs::read_to_string(format!("/proc/thread-self/{file}")).unwrap();
        let devices = text("net/dev");
        let links = devices.lines().skip(2);
        let folders = names_in("/run/stead");
        remember(&folders);
        Self {
            links: links
                .filter_map(|line| Some(line.split(':').next()?.trim().to_owned()))
                .collect(),
            addresses: text("net/fib_trie").lines().map(str::to_owned).collect(),
            routes: text("net/route").lines().map(str::to_owned).collect(),
            tables: tables(),
            mounts: OTHERS.with_borrow(|others| &mounts() - others),
            cgroups: instances()
                .iter()
                .flat_map(|instance| cgroups_of(instance))
                .collect(),
            processes: instances()
                .iter()
                .flat_map(|instance| processes_of(instance))
                .collect(),
            folders: folders.into_iter().filter(|name| name != "lock").collect(),
        }
    }
}

thread_local! {
    /// What was mounted by others, on this machine's temporary folders, before the test had a world of its own.
    static OTHERS: std::cell::RefCell<BTreeSet<String>> = const { std::cell::RefCell::new(BTreeSet::new()) };
    /// Every name that had a folder in this test's own /run/stead.
    static INSTANCES: std::cell::RefCell<BTreeSet<String>> = const { std::cell::RefCell::new(BTreeSet::new()) };
}

fn remember(folders: &BTreeSet<String>) {
    INSTANCES.with_borrow_mut(|known| known.extend(folders.iter().cloned()));
}

fn instances() -> BTreeSet<String> {
    INSTANCES.with_borrow(Clone::clone)
}

fn mounts() -> BTreeSet<String> {
    let text = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    let places = text
        .lines()
        .filter_map(|line| line.split_whitespace().nth(4));
    places.map(str::to_owned).collect()
}

fn is_of_others(place: &str) -> bool {
    ["/run/stead/", "/tmp/"]
        .iter()
        .any(|folder| place.starts_with(folder))
}

/// Cgroups have no world of their own: of two tests at the same time, one would give back what the other's crash left.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Runs a test in a network and with mounts of its own: what it does there goes with it, whatever becomes of it.
pub(crate) fn in_a_world_of_its_own(test: impl FnOnce() + Send + 'static) {
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let work = move || {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        fs::create_dir_all("/run/stead").unwrap();
        // What others mounted vanishes from here too when they remove its place.
        OTHERS.set(
            mounts()
                .into_iter()
                .filter(|place| is_of_others(place))
                .collect(),
        );
        mount(
            Some("tmpfs"),
            "/run/stead",
            Some("tmpfs"),
            MsFlags::empty(),
            none,
        )
        .unwrap();
        set_up_the_loopback();
        test();
    };
    if let Err(panic) = std::thread::spawn(work).join() {
        std::panic::resume_unwind(panic);
    }
}

/// The processes whose words hold each of these, each in a word of its own; the last as the beginning of a word.
pub(crate) fn processes_with(words: &[&str]) -> Vec<i32> {
    let fits = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        words
            .iter()
            .all(|word| line.split('\0').any(|part| part.starts_with(word)))
    };
    let mut pids: Vec<i32> = pids().into_iter().filter(fits).collect();
    pids.sort_unstable();
    pids
}

/// Waits until none of these runs any more; fails after a minute.
pub(crate) fn wait_gone(pids: &[i32]) {
    let deadline = Instant::now() + Duration::from_secs(60);
    // Of a process with threads the first may be a zombie while the others still hold its files.
    let lives = |pid: &&i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let is_zombie = stat
            .rsplit(") ")
            .next()
            .is_some_and(|rest| rest.starts_with('Z'));
        let threads = names_in(format!("/proc/{pid}/task")).len();
        threads > usize::from(is_zombie)
    };
    while let Some(pid) = pids.iter().find(lives) {
        assert!(Instant::now() < deadline, "process {pid} does not end");
        std::thread::yield_now();
    }
}

fn pids() -> Vec<i32> {
    names_in("/proc")
        .iter()
        .filter_map(|name| name.parse().ok())
        .collect()
}

fn names_in(folder: impl AsRef<Path>) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

fn cgroups_of(instance: &str) -> BTreeSet<String> {
    let hierarchies = names_in("/sys/fs/cgroup");
    let folders = hierarchies
        .iter()
        .map(|name| format!("/sys/fs/cgroup/{name}/stead/{instance}"));
    folders
        .chain([format!("/sys/fs/cgroup/stead/{instance}")])
        .filter(|folder| Path::new(folder).exists())
        .collect()
}

fn processes_of(instance: &str) -> BTreeSet<String> {
    let marked = |pid: &i32| {
        fs::read_to_string(format!("/proc/{pid}/cgroup"))
            .is_ok_and(|text| text.contains(&format!("/stead/{instance}/")))
    };
    pids()
        .iter()
        .filter(|pid| marked(pid))
        .map(i32::to_string)
        .collect()
}

/// In a new network the loopback is down. One request to the kernel: interface 1, up.
fn set_up_the_loopback() {
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None,
    )
    .unwrap();
    let (new_link, request_and_acknowledge, interface, up) = (16u16, 5u16, 1u32, 1u32);
    let mut message = 32u32.to_ne_bytes().to_vec();
    message.extend(new_link.to_ne_bytes());
    message.extend(request_and_acknowledge.to_ne_bytes());
    message.extend([0; 8]);
    message.extend([0; 4]);
    for field in [interface, up, up] {
        message.extend(field.to_ne_bytes());
    }
    send(&socket, &message, SendFlags::empty()).unwrap();
    let mut answer = [0; 4096];
    recv(&socket, &mut answer[..], RecvFlags::empty()).unwrap();
    assert_eq!(answer[16..20], [0; 4], "the kernel acknowledges");
}

/// The nftables tables of this network, asked of the kernel itself: no program for them need be installed.
fn tables() -> BTreeSet<String> {
    let netfilter = Some(netlink::NETFILTER);
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        netfilter,
    )
    .unwrap();
    let (get_table, request_and_dump) = ((10u16 << 8) | 1, 0x301u16);
    let mut message = 20u32.to_ne_bytes().to_vec();
    message.extend(get_table.to_ne_bytes());
    message.extend(request_and_dump.to_ne_bytes());
    message.extend([0; 12]);
    send(&socket, &message, SendFlags::empty()).unwrap();
    let mut tables = BTreeSet::new();
    loop {
        let mut buffer = [0; 16 * 1024];
        let (count, _) = recv(&socket, &mut buffer[..], RecvFlags::empty()).unwrap();
        let mut rest = &buffer[..count];
        while rest.len() >= 20 {
            let length = u32::from_ne_bytes(rest[..4].try_into().unwrap()) as usize;
            // 3 is the end of the list, 2 an error.
            if rest[4] == 3 || rest[4] == 2 {
                return tables;
            }
            tables.insert(rest[20..length].escape_ascii().to_string());
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}
