//! The zone as lines of /etc/hosts, for pods that have no DNS of ours to ask.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::{ServiceRecords, Zone};

/// The names of each address, in the order in which a hosts file lists them.
type Names = BTreeMap<IpAddr, Vec<String>>;

/// For every pod with a hostname of its own: `web-0.nginx.default.svc.cluster.local`, `web-0.nginx.default.svc`,
/// `web-0.nginx.default` and `web-0.nginx`; then, for every address of a headless Service, the Service's own names in the
/// same forms but the shortest. The fully qualified name is first: that is what a reverse look-up finds.
///
/// One list is for all pods, whatever their namespace, so `web-0.nginx` is left out where two namespaces have one:
/// better no answer than the neighbour's. [`host_names_in`] has no such doubt.
#[must_use]
pub fn host_names(zone: &Zone) -> Vec<(IpAddr, Vec<String>)> {
    let doubtful = doubtful(zone);
    collect(
        zone,
        |_, short| !doubtful.contains(&short.to_ascii_lowercase()),
        |_| false,
    )
}

/// The same, seen from a pod of one namespace: names short of a namespace are those of its own, and bare names of headless
/// Services of its namespace are there too.
#[must_use]
pub fn host_names_in(zone: &Zone, namespace: &str) -> Vec<(IpAddr, Vec<String>)> {
    collect(zone, |its, _| its == namespace, |its| its == namespace)
}

/// `short_pod` decides on `<hostname>.<service>`, `short_service` on `<service>`.
fn collect(
    zone: &Zone,
    short_pod: impl Fn(&str, &str) -> bool,
    short_service: impl Fn(&str) -> bool,
) -> Vec<(IpAddr, Vec<String>)> {
    let domain = zone.domain().to_ascii();
    let domain = domain.trim_end_matches('.');
    let mut names = Names::new();
    for (namespace, service, records) in zone.services() {
        for (hostname, addresses) in named_hosts(records) {
            let short = format!("{hostname}.{service}");
            add(
                &mut names,
                addresses,
                forms(&short, namespace, domain, short_pod(namespace, &short)),
            );
        }
    }
    for (namespace, service, records) in zone
        .services()
        .filter(|(_, _, records)| records.is_headless())
    {
        let addresses: BTreeSet<IpAddr> = records
            .hosts
            .values()
            .flat_map(|host| host.addresses.iter().copied())
            .collect();
        add(
            &mut names,
            &addresses,
            forms(service, namespace, domain, short_service(namespace)),
        );
    }
    names.into_iter().collect()
}

fn named_hosts(records: &ServiceRecords) -> impl Iterator<Item = (String, &BTreeSet<IpAddr>)> {
    let label = |host: &super::Host| {
        host.name
            .iter()
            .next()
            .map(|label| String::from_utf8_lossy(label).into_owned())
    };
    records
        .hosts
        .values()
        .filter(|host| host.named)
        .filter_map(move |host| Some((label(host)?, &host.addresses)))
}

fn forms(short: &str, namespace: &str, domain: &str, with_short: bool) -> Vec<String> {
    let mut forms = vec![
        format!("{short}.{namespace}.svc.{domain}"),
        format!("{short}.{namespace}.svc"),
        format!("{short}.{namespace}"),
    ];
    if with_short {
        forms.push(short.to_owned());
    }
    forms
}

fn add(names: &mut Names, addresses: &BTreeSet<IpAddr>, forms: Vec<String>) {
    addresses.iter().for_each(|address| {
        names
            .entry(*address)
            .or_default()
            .extend(forms.iter().cloned())
    });
}

/// `<hostname>.<service>` of more than one namespace, in lower case.
fn doubtful(zone: &Zone) -> BTreeSet<String> {
    let mut seen = BTreeMap::<String, usize>::new();
    for (_, service, records) in zone.services() {
        for (hostname, _) in named_hosts(records) {
            *seen
                .entry(format!("{hostname}.{service}").to_ascii_lowercase())
                .or_default() += 1;
        }
    }
    seen.into_iter()
        .filter(|(_, times)| *times > 1)
        .map(|(name, _)| name)
        .collect()
}
