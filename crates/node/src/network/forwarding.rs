//! Lets the machine's ways out forward for pods, and takes that back when the last cluster that needed it goes.
//!
//! An interface that forwards already is left alone. One that does not is opened, which is written down by cluster in
//! a folder that the kernel empties when the machine is started anew, as it forgets the setting. The packet filter
//! keeps what is opened from forwarding anything that is not a pod's.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::netlink::Netlink;
use super::{PREFIX, RUN, RunLock};

/// The folder of what was opened, in this network namespace: a folder for each interface, a file for each cluster.
fn folder() -> io::Result<PathBuf> {
    // Interfaces of the same name in other namespaces are other interfaces.
    let namespace = fs::metadata("/proc/thread-self/ns/net")?.ino();
    Ok(Path::new(RUN)
        .join("forwarding")
        .join(namespace.to_string()))
}

fn setting(interface: &str) -> String {
    format!("/proc/sys/net/ipv4/conf/{interface}/forwarding")
}

/// Opens every way out for the pods of a cluster; the names of those that forward only since somebody of us asked.
pub(super) fn open(instance: &str) -> io::Result<Vec<String>> {
    let _lock = RunLock::take()?;
    forget_gone()?;
    let folder = folder()?;
    let netlink = Netlink::open()?;
    let ways = netlink.ways_out()?;
    let mut opened = Vec::new();
    for (index, name) in netlink.interfaces()? {
        if !ways.contains(&index) || name == "lo" || name.starts_with(PREFIX) {
            continue;
        }
        let own = folder.join(&name);
        if !own.exists() {
            if fs::read_to_string(setting(&name))?.trim() == "1" {
                continue;
            }
            // Written down first: what a crash leaves opened is known to be ours.
            fs::create_dir_all(&own)?;
        }
        fs::write(own.join(instance), b"")?;
        fs::write(setting(&name), "1")?;
        opened.push(name);
    }
    opened.sort();
    Ok(opened)
}

/// Takes back what was opened for a cluster, unless another needs it too.
pub(super) fn close(_held: &RunLock, instance: &str) -> io::Result<()> {
    let folder = folder()?;
    for entry in fs::read_dir(&folder).into_iter().flatten() {
        let own = entry?.path();
        match fs::remove_file(own.join(instance)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        }
        if fs::read_dir(&own)?.next().is_some() {
            continue;
        }
        let name = own
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        match fs::write(setting(&name), "0") {
            // The interface is gone, and with it the setting.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
        fs::remove_dir(&own)?;
    }
    // Others may have something there yet.
    match fs::remove_dir(&folder) {
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Forgets what clusters had opened of whom nothing is left: their network namespaces went with them.
fn forget_gone() -> io::Result<()> {
    let here = folder()?;
    for namespace in entries(&Path::new(RUN).join("forwarding")) {
        if namespace == here {
            continue;
        }
        for interface in entries(&namespace) {
            for instance in entries(&interface) {
                let name = instance.file_name().unwrap_or_default();
                if !Path::new(RUN).join(name).exists() {
                    fs::remove_file(&instance)?;
                }
            }
            remove_if_empty(&interface)?;
        }
        remove_if_empty(&namespace)?;
    }
    Ok(())
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let found = fs::read_dir(folder).into_iter().flatten().flatten();
    found.map(|entry| entry.path()).collect()
}

fn remove_if_empty(folder: &Path) -> io::Result<()> {
    if entries(folder).is_empty() {
        fs::remove_dir(folder)?;
    }
    Ok(())
}

/// The interfaces that forward since a cluster asked.
pub(super) fn opened(instance: &str) -> Vec<String> {
    let interfaces = folder().and_then(fs::read_dir);
    let mut names: Vec<String> = interfaces
        .into_iter()
        .flatten()
        .flatten()
        .filter(|own| own.path().join(instance).exists())
        .map(|own| own.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}
