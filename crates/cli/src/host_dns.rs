//! The cluster's names on the machine itself: a drop-in for systemd-resolved, or the words for whoever uses another resolver.
//!
//! The drop-in lies below /run, so that it is gone after the next boot whatever happens, and names its data folder: only
//! that one's is ever replaced or removed. /etc/resolv.conf is read and never written.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Below the root folder.
const DROP_IN: &str = "run/systemd/resolved.conf.d/stead.conf";
/// The folder in which systemd-resolved keeps what it knows while it runs.
const RESOLVED: &str = "run/systemd/resolve";

/// The resolver of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MachineResolver {
    /// systemd-resolved, which takes drop-ins and asks by domain.
    Resolved,
    /// dnsmasq with a folder of drop-ins; it has settings of its own that we do not touch.
    Dnsmasq,
    /// Only /etc/resolv.conf: no asking by domain.
    File,
}

/// Why the drop-in was not written or removed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HostDnsError {
    /// Somebody else's file.
    #[error(
        "{path} was not made for this data folder; remove it, or let its owner do so with `stead dns --uninstall`"
    )]
    Foreign {
        /// Where.
        path: PathBuf,
    },
    /// The system refused.
    #[error("could not {what} {path}; root may")]
    System {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// The resolver of the machine with this root folder.
pub(crate) fn resolver(root: &Path) -> MachineResolver {
    if root.join(RESOLVED).is_dir() {
        MachineResolver::Resolved
    } else if root.join("etc/dnsmasq.d").is_dir() {
        MachineResolver::Dnsmasq
    } else {
        MachineResolver::File
    }
}

/// What a person is to do where no drop-in of ours can help.
pub(crate) fn advice(resolver: MachineResolver, server: SocketAddr, domain: &str) -> String {
    let (address, port) = (server.ip(), server.port());
    match resolver {
        MachineResolver::Resolved => "systemctl restart systemd-resolved".to_owned(),
        MachineResolver::Dnsmasq => format!(
            "echo 'server=/{domain}/{address}#{port}' > /etc/dnsmasq.d/stead.conf && systemctl restart dnsmasq"
        ),
        MachineResolver::File if port == 53 => format!(
            "put `nameserver {address}` before the others in /etc/resolv.conf; other names are asked of the others from there"
        ),
        MachineResolver::File => format!(
            "/etc/resolv.conf can name no port and no domain: ask with `stead dns NAME`, or run a resolver that sends {domain} to {address} port {port}"
        ),
    }
}

/// Writes the drop-in that sends the cluster's domain to `server`; its path.
pub(crate) fn install(
    root: &Path,
    data_dir: &Path,
    server: SocketAddr,
    domain: &str,
) -> Result<PathBuf, HostDnsError> {
    let path = root.join(DROP_IN);
    if path.exists() && !is_ours(&path, data_dir) {
        return Err(HostDnsError::Foreign { path });
    }
    let write = || {
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        let part = path.with_extension("part");
        fs::write(&part, content(data_dir, server, domain))?;
        fs::rename(part, &path)
    };
    match write() {
        Ok(()) => Ok(path),
        Err(source) => Err(HostDnsError::System {
            what: "write",
            path,
            source,
        }),
    }
}

/// Removes the drop-in of this data folder; its path, when there was one.
pub(crate) fn uninstall(root: &Path, data_dir: &Path) -> Result<Option<PathBuf>, HostDnsError> {
    let path = root.join(DROP_IN);
    if !is_ours(&path, data_dir) {
        return Ok(None);
    }
    match fs::remove_file(&path) {
        Ok(()) => Ok(Some(path)),
        Err(source) => Err(HostDnsError::System {
            what: "remove",
            path,
            source,
        }),
    }
}

/// Whose drop-in there is.
pub(crate) fn owner(root: &Path) -> Option<PathBuf> {
    let text = fs::read_to_string(root.join(DROP_IN)).ok()?;
    let line = text.lines().next()?.strip_prefix(OWNER)?;
    Some(PathBuf::from(line))
}

const OWNER: &str = "# Made by stead for the data folder ";

fn is_ours(path: &Path, data_dir: &Path) -> bool {
    fs::read_to_string(path).is_ok_and(|text| text.lines().next() == Some(&first_line(data_dir)))
}

fn first_line(data_dir: &Path) -> String {
    format!("{OWNER}{}", data_dir.display())
}

/// The domain with a tilde is for routing alone: it is not searched.
fn content(data_dir: &Path, server: SocketAddr, domain: &str) -> String {
    format!(
        "{}\n# `stead dns --uninstall`, `stead down` and `stead cleanup` remove it.\n[Resolve]\nDNS={server}\nDomains=~{domain}\n",
        first_line(data_dir)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(port: u16) -> SocketAddr {
        SocketAddr::from(([10, 9, 0, 1], port))
    }

    #[test]
    fn a_drop_in_is_written_replaced_and_removed_by_its_own_data_folder_alone() {
        let root = tempfile::tempdir().expect("a folder");
        let (ours, theirs) = (Path::new("/d/ours"), Path::new("/d/theirs"));
        assert_eq!(uninstall(root.path(), ours).expect("nothing to do"), None);
        let path = install(root.path(), ours, server(53), "cluster.local").expect("written");
        let text = fs::read_to_string(&path).expect("it is there");
        assert!(
            text.ends_with("[Resolve]\nDNS=10.9.0.1:53\nDomains=~cluster.local\n"),
            "{text}"
        );
        assert_eq!(owner(root.path()), Some(ours.to_owned()));
        install(root.path(), ours, server(5353), "cluster.local").expect("replaced");
        assert!(
            fs::read_to_string(&path)
                .expect("it is there")
                .contains("DNS=10.9.0.1:5353\n")
        );
        let refused = install(root.path(), theirs, server(53), "cluster.local");
        assert!(
            matches!(refused, Err(HostDnsError::Foreign { .. })),
            "{refused:?}"
        );
        assert_eq!(uninstall(root.path(), theirs).expect("not theirs"), None);
        assert!(path.exists());
        assert_eq!(
            uninstall(root.path(), ours).expect("removed"),
            Some(path.clone())
        );
        assert!(!path.exists());
    }

    #[test]
    fn the_resolver_is_told_by_what_the_machine_has_and_each_gets_its_words() {
        let root = tempfile::tempdir().expect("a folder");
        let words = |port| advice(resolver(root.path()), server(port), "cluster.local");
        assert!(words(53).starts_with("put `nameserver 10.9.0.1` before"));
        assert!(words(5353).contains("`stead dns NAME`"));
        fs::create_dir_all(root.path().join("etc/dnsmasq.d")).expect("a folder");
        assert!(words(53).contains("server=/cluster.local/10.9.0.1#53"));
        fs::create_dir_all(root.path().join(RESOLVED)).expect("a folder");
        assert_eq!(words(53), "systemctl restart systemd-resolved");
    }
}
