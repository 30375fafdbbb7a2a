//! The text of a pod's /etc/hosts. Pure but for [`keep`], which changes a file that containers have open.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::Path;

use super::PodSandbox;

/// Addresses with their names, in the order in which they are to be found.
pub(super) type Names = Vec<(IpAddr, Vec<String>)>;

/// The hosts file of one pod: its own line, its aliases, then every name of the cluster.
/// upstream: kubelet's `hostsFileContent`.
pub(super) fn hosts(pod: &PodSandbox, ip: IpAddr, names: &Names) -> String {
    let mut text = String::from(
        "# Kept by Stead: changes are lost.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n",
    );
    let own = match &pod.domain {
        Some(domain) => vec![format!("{}.{domain}", pod.hostname), pod.hostname.clone()],
        None => vec![pod.hostname.clone()],
    };
    push(&mut text, &ip.to_string(), &own);
    for (address, aliases) in &pod.host_aliases {
        push(&mut text, address, aliases);
    }
    for (address, list) in names {
        push(&mut text, &address.to_string(), list);
    }
    text
}

fn push(text: &mut String, address: &str, names: &[String]) {
    if !names.is_empty() {
        text.push_str(address);
        text.push('\t');
        text.push_str(&names.join("\t"));
        text.push('\n');
    }
}

/// Writes new content into a file that is bind-mounted into containers: the file stays the same one, and a reader
/// meets either content whole, or the new with the end of the old.
pub(super) fn keep(path: &Path, text: &str) -> io::Result<()> {
    if std::fs::read(path).is_ok_and(|have| have == text.as_bytes()) {
        return Ok(());
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    file.set_len(u64::try_from(text.len()).map_err(io::Error::other)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_finds_itself_its_aliases_and_its_neighbours() {
        let pod = PodSandbox {
            uid: "u".to_owned(),
            namespace: "default".to_owned(),
            name: "web-0".to_owned(),
            hostname: "web-0".to_owned(),
            domain: Some("web.default.svc.cluster.local".to_owned()),
            host_network: false,
            resolv_conf: None,
            settings: crate::runtime::PodSettings::default(),
            host_aliases: vec![("10.1.2.3".to_owned(), vec!["old-db".to_owned()])],
        };
        let neighbour = (
            IpAddr::from([127, 9, 8, 7]),
            vec!["web-1.web".to_owned(), "web-1".to_owned()],
        );
        let text = hosts(&pod, IpAddr::from([127, 1, 2, 3]), &vec![neighbour]);
        let own: Vec<&str> = text.lines().skip(3).collect();
        assert_eq!(
            own,
            [
                "127.1.2.3\tweb-0.web.default.svc.cluster.local\tweb-0",
                "10.1.2.3\told-db",
                "127.9.8.7\tweb-1.web\tweb-1",
            ]
        );
    }
}
