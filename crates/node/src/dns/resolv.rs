//! What a pod's /etc/resolv.conf says: dnsPolicy and dnsConfig, the cluster's search path, the machine's own resolvers.
//!
//! Pure. upstream: kubelet `pkg/kubelet/network/dns`.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde_json::Value;

/// A libc reads no more name servers than these. upstream: `MaxDNSNameservers`.
const NAMESERVERS_MAX: usize = 3;
/// upstream: `MaxDNSSearchPaths`.
const SEARCHES_MAX: usize = 32;
/// Characters of the search line. upstream: `MaxDNSSearchListChars`.
const SEARCH_CHARS_MAX: usize = 2048;
/// Names with fewer dots than this are looked up under the search path first.
const NDOTS: &str = "ndots:5";

/// How a program finds names: the content of a resolv.conf.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resolver {
    /// In the order in which they are asked.
    pub nameservers: Vec<IpAddr>,
    /// Tried in order behind a short name.
    pub searches: Vec<String>,
    /// `ndots:5`, `rotate`, ...
    pub options: Vec<String>,
}

impl Resolver {
    /// Reads a resolv.conf. Lines that a libc would pass over are passed over; the last `search` or `domain` counts.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut found = Self::default();
        for line in text.lines() {
            let line = line.split(['#', ';']).next().unwrap_or_default();
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => found
                    .nameservers
                    .extend(words.next().and_then(|word| word.parse::<IpAddr>().ok())),
                Some("search" | "domain") => {
                    found.searches = words.map(bare).filter(|word| !word.is_empty()).collect()
                }
                Some("options") => found.options.extend(words.map(str::to_owned)),
                Some(_) | None => {}
            }
        }
        found
    }

    /// The name servers as addresses to send questions to, port 53.
    #[must_use]
    pub fn upstreams(&self) -> Vec<SocketAddr> {
        self.nameservers
            .iter()
            .map(|address| SocketAddr::new(*address, 53))
            .collect()
    }

    /// As a resolv.conf, cut down to what a libc reads.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for nameserver in self.nameservers.iter().take(NAMESERVERS_MAX) {
            text.push_str(&format!("nameserver {nameserver}\n"));
        }
        let searches = fitting(&self.searches);
        if !searches.is_empty() {
            text.push_str(&format!("search {searches}\n"));
        }
        if !self.options.is_empty() {
            text.push_str(&format!("options {}\n", self.options.join(" ")));
        }
        text
    }
}

fn bare(word: &str) -> String {
    word.trim_end_matches('.').to_owned()
}

/// As many of the searches as a libc takes, as one line.
fn fitting(searches: &[String]) -> String {
    let mut line = String::new();
    for search in searches.iter().take(SEARCHES_MAX) {
        if line.len() + 1 + search.len() > SEARCH_CHARS_MAX {
            break;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(search);
    }
    line
}

/// What the cluster offers to a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterDns {
    /// Where a pod reaches our server on port 53; empty where it cannot.
    pub nameservers: Vec<IpAddr>,
    /// `cluster.local`.
    pub domain: String,
}

/// `spec.dnsPolicy`, with host networking taken into account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Policy {
    Cluster,
    Machine,
    None,
}

/// The resolv.conf of a pod of policy ClusterFirst: our server, the namespace's search path, the machine's searches after it.
#[must_use]
pub fn resolv_conf(
    namespace: &str,
    nameserver: IpAddr,
    domain: &str,
    host_searches: &[String],
) -> String {
    let cluster = ClusterDns {
        nameservers: vec![nameserver],
        domain: domain.to_owned(),
    };
    let host = Resolver {
        searches: host_searches.to_vec(),
        ..Resolver::default()
    };
    cluster_first(namespace, &cluster, &host).to_text()
}

/// The resolv.conf that a pod's spec asks for: `dnsPolicy`, `dnsConfig`, `hostNetwork`.
///
/// `pod_spec` is `spec` of the pod, defaulted or not; `host` is the machine's own resolver. Under policy Default a name server
/// on the machine's loopback (systemd-resolved) cannot be reached from a pod's network: it is left out, and our server, which
/// forwards to it, stands in when none is left.
#[must_use]
pub fn for_pod(pod_spec: &Value, namespace: &str, cluster: &ClusterDns, host: &Resolver) -> String {
    let host_network = pod_spec["hostNetwork"].as_bool().unwrap_or(false);
    let base = match policy(pod_spec["dnsPolicy"].as_str(), host_network) {
        Policy::Cluster => cluster_first(namespace, cluster, host),
        Policy::Machine if host_network => host.clone(),
        Policy::Machine => reachable(host, cluster),
        Policy::None => Resolver::default(),
    };
    with_config(base, &pod_spec["dnsConfig"]).to_text()
}

/// Absent or unknown is ClusterFirst, the API's default. upstream: `getPodDNSType`.
fn policy(text: Option<&str>, host_network: bool) -> Policy {
    match text {
        Some("None") => Policy::None,
        Some("Default") => Policy::Machine,
        Some("ClusterFirstWithHostNet") => Policy::Cluster,
        Some(_) | None if host_network => Policy::Machine,
        Some(_) | None => Policy::Cluster,
    }
}

fn cluster_first(namespace: &str, cluster: &ClusterDns, host: &Resolver) -> Resolver {
    if cluster.nameservers.is_empty() {
        // upstream: without a cluster DNS the kubelet falls back to the machine's.
        return host.clone();
    }
    let domain = bare(&cluster.domain);
    let own = [
        format!("{namespace}.svc.{domain}"),
        format!("svc.{domain}"),
        domain,
    ];
    Resolver {
        nameservers: cluster.nameservers.clone(),
        searches: without_repeats(own.into_iter().chain(host.searches.iter().cloned())),
        options: vec![NDOTS.to_owned()],
    }
}

fn reachable(host: &Resolver, cluster: &ClusterDns) -> Resolver {
    let mut found = host.clone();
    found.nameservers.retain(|address| !address.is_loopback());
    if found.nameservers.is_empty() {
        found.nameservers.clone_from(&cluster.nameservers);
    }
    found
}

/// Adds `dnsConfig`: name servers and searches behind what is there, options over it. upstream: `appendDNSConfig`.
fn with_config(base: Resolver, config: &Value) -> Resolver {
    let texts = |field: &str| {
        config[field]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(str::to_owned)
    };
    let nameservers = texts("nameservers").filter_map(|text| text.parse().ok());
    Resolver {
        nameservers: without_repeats(base.nameservers.into_iter().chain(nameservers)),
        searches: without_repeats(
            base.searches
                .into_iter()
                .chain(texts("searches").map(|text| bare(&text))),
        ),
        options: merged(
            &base.options,
            config["options"].as_array().map_or(&[], Vec::as_slice),
        ),
    }
}

/// The pod's options replace those of the same name; new ones follow in their order.
fn merged(base: &[String], own: &[Value]) -> Vec<String> {
    let own: Vec<(&str, Option<&str>)> = own
        .iter()
        .filter_map(|it| Some((it["name"].as_str()?, it["value"].as_str())))
        .collect();
    let mut left: BTreeMap<&str, Option<&str>> = own.iter().copied().collect();
    let mut options = Vec::new();
    for option in base {
        let name = option.split(':').next().unwrap_or(option);
        options.push(
            left.remove(name)
                .map_or_else(|| option.clone(), |value| written(name, value)),
        );
    }
    for (name, _) in own {
        options.extend(left.remove(name).map(|value| written(name, value)));
    }
    options
}

fn written(name: &str, value: Option<&str>) -> String {
    value
        .filter(|value| !value.is_empty())
        .map_or_else(|| name.to_owned(), |value| format!("{name}:{value}"))
}

fn without_repeats<T: PartialEq>(all: impl Iterator<Item = T>) -> Vec<T> {
    let mut kept = Vec::new();
    for item in all {
        if !kept.contains(&item) {
            kept.push(item);
        }
    }
    kept
}

#[cfg(test)]
mod tests;
