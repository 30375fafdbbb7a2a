//! From watched objects to zones: keeps what DNS reads of each, and rebuilds only the Services that changed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use hickory_proto::rr::Name;

use super::{
    Host, Meaning, Namespace, Service, ServicePort, ServiceRecords, Settings, Shape, Slice, Zone,
    reverse,
};

/// Namespace and name.
type Key = (String, String);

/// Everything that zones are made of. Fed by a watch, asked for a zone whenever the feeder has caught up.
#[derive(Debug)]
pub struct Catalogue {
    settings: Arc<Settings>,
    services: BTreeMap<Key, Service>,
    slices: BTreeMap<Key, Slice>,
    /// Names of the slices of each Service.
    slices_of: BTreeMap<Key, BTreeSet<String>>,
    /// Services whose records may have changed since the last zone.
    stale: BTreeSet<Key>,
    built: BTreeMap<String, Namespace>,
    listed_services: bool,
    listed_slices: bool,
    published: Option<u32>,
}

impl Catalogue {
    /// An empty catalogue, which publishes nothing before both kinds were listed.
    #[must_use]
    pub fn new(settings: Arc<Settings>) -> Self {
        Self {
            settings,
            services: BTreeMap::new(),
            slices: BTreeMap::new(),
            slices_of: BTreeMap::new(),
            stale: BTreeSet::new(),
            built: BTreeMap::new(),
            listed_services: false,
            listed_slices: false,
            published: None,
        }
    }

    /// A Service was created or changed.
    pub fn apply_service(&mut self, service: Service) {
        let key = (service.namespace.clone(), service.name.clone());
        if self.services.get(&key) != Some(&service) {
            self.stale.insert(key.clone());
            self.services.insert(key, service);
        }
    }

    /// A Service is gone.
    pub fn delete_service(&mut self, namespace: &str, name: &str) {
        let key = (namespace.to_owned(), name.to_owned());
        if self.services.remove(&key).is_some() {
            self.stale.insert(key);
        }
    }

    /// Exactly these Services exist.
    pub fn replace_services(&mut self, services: Vec<Service>) {
        let kept: BTreeSet<Key> = services
            .iter()
            .map(|it| (it.namespace.clone(), it.name.clone()))
            .collect();
        let gone: Vec<Key> = self
            .services
            .keys()
            .filter(|key| !kept.contains(key))
            .cloned()
            .collect();
        gone.iter()
            .for_each(|(namespace, name)| self.delete_service(namespace, name));
        services
            .into_iter()
            .for_each(|service| self.apply_service(service));
        self.listed_services = true;
    }

    /// An EndpointSlice was created or changed, perhaps moved to another Service.
    pub fn apply_slice(&mut self, slice: Slice) {
        let key = (slice.namespace.clone(), slice.name.clone());
        if self.slices.get(&key) == Some(&slice) {
            return;
        }
        self.delete_slice(&slice.namespace, &slice.name);
        if let Some(service) = &slice.service {
            let owner = (slice.namespace.clone(), service.clone());
            self.slices_of
                .entry(owner.clone())
                .or_default()
                .insert(slice.name.clone());
            self.stale.insert(owner);
        }
        self.slices.insert(key, slice);
    }

    /// An EndpointSlice is gone.
    pub fn delete_slice(&mut self, namespace: &str, name: &str) {
        let removed = self.slices.remove(&(namespace.to_owned(), name.to_owned()));
        let Some(service) = removed.and_then(|slice| slice.service) else {
            return;
        };
        let owner = (namespace.to_owned(), service);
        if let Some(names) = self.slices_of.get_mut(&owner) {
            names.remove(name);
            if names.is_empty() {
                self.slices_of.remove(&owner);
            }
        }
        self.stale.insert(owner);
    }

    /// Exactly these EndpointSlices exist.
    pub fn replace_slices(&mut self, slices: Vec<Slice>) {
        let kept: BTreeSet<Key> = slices
            .iter()
            .map(|it| (it.namespace.clone(), it.name.clone()))
            .collect();
        let gone: Vec<Key> = self
            .slices
            .keys()
            .filter(|key| !kept.contains(key))
            .cloned()
            .collect();
        gone.iter()
            .for_each(|(namespace, name)| self.delete_slice(namespace, name));
        slices.into_iter().for_each(|slice| self.apply_slice(slice));
        self.listed_slices = true;
    }

    /// The zone as of now, or `None` when it would answer like the last one or not everything was listed yet.
    pub fn publish(&mut self) -> Option<Zone> {
        if !(self.listed_services && self.listed_slices) {
            return None;
        }
        let stale = std::mem::take(&mut self.stale);
        let changed = stale.iter().filter(|key| self.rebuild(key)).count();
        if changed == 0 && self.published.is_some() {
            return None;
        }
        let serial = self.published.map_or(1, |serial| serial.wrapping_add(1));
        self.published = Some(serial);
        Some(Zone {
            settings: Arc::clone(&self.settings),
            serial,
            synced: true,
            namespaces: self.built.clone(),
            reverse: pointers(&self.built),
        })
    }

    /// Makes the records of one Service anew. Says whether they differ.
    fn rebuild(&mut self, key: &Key) -> bool {
        let (namespace, name) = key;
        let fresh = self
            .services
            .get(key)
            .and_then(|service| self.records(service));
        let old = self
            .built
            .get(namespace)
            .and_then(|services| services.get(name));
        if old.map(Arc::as_ref) == fresh.as_ref() {
            return false;
        }
        let services = self.built.entry(namespace.clone()).or_default();
        match fresh {
            Some(records) => Arc::make_mut(services).insert(name.clone(), Arc::new(records)),
            None => Arc::make_mut(services).remove(name),
        };
        if services.is_empty() {
            self.built.remove(namespace);
        }
        true
    }

    /// `None` only when the Service's name does not fit into DNS.
    fn records(&self, service: &Service) -> Option<ServiceRecords> {
        let path = format!("{}.{}.svc", service.name, service.namespace);
        let mut records = ServiceRecords {
            name: Name::from_ascii(&path)
                .ok()?
                .append_domain(&self.settings.domain)
                .ok()?,
            meaning: Meaning::Nothing,
            hosts: BTreeMap::new(),
            ports: Vec::new(),
        };
        // upstream: an ExternalName has no endpoints, whatever slices say.
        if !matches!(service.shape, Shape::External(_) | Shape::Nowhere) {
            self.slices_of(service)
                .for_each(|slice| records.add_slice(slice, service.shape == Shape::Headless));
        }
        records.settle(service);
        Some(records)
    }

    fn slices_of(&self, service: &Service) -> impl Iterator<Item = &Slice> {
        let names = self
            .slices_of
            .get(&(service.namespace.clone(), service.name.clone()));
        names
            .into_iter()
            .flatten()
            .filter_map(|name| self.slices.get(&(service.namespace.clone(), name.clone())))
    }
}

impl ServiceRecords {
    /// Adds the ready endpoints of one slice, and for a headless Service the ports that they serve.
    fn add_slice(&mut self, slice: &Slice, headless: bool) {
        for endpoint in &slice.endpoints {
            for address in &endpoint.addresses {
                let label = endpoint
                    .hostname
                    .clone()
                    .unwrap_or_else(|| reverse::dashed(*address));
                let Some(key) = self.add_host(&label, *address, endpoint.hostname.is_some()) else {
                    continue;
                };
                if headless {
                    self.ports
                        .extend(slice.ports.iter().map(|port| ServicePort {
                            name: port.name.clone(),
                            protocol: port.protocol.clone(),
                            number: port.number,
                            host: Some(key.clone()),
                        }));
                }
            }
        }
    }

    /// The key of the host in `hosts`; `None` when its label does not fit into DNS.
    fn add_host(&mut self, label: &str, address: IpAddr, named: bool) -> Option<String> {
        let key = label.to_ascii_lowercase();
        if !self.hosts.contains_key(&key) {
            let name = self.name.prepend_label(label.as_bytes()).ok()?;
            self.hosts.insert(
                key.clone(),
                Host {
                    name,
                    named,
                    addresses: BTreeSet::new(),
                },
            );
        }
        let host = self.hosts.get_mut(&key)?;
        host.addresses.insert(address);
        host.named |= named;
        Some(key)
    }

    /// With every endpoint in: what the Service's own name means.
    fn settle(&mut self, service: &Service) {
        self.meaning = match &service.shape {
            Shape::Cluster(own) => addresses_or_nothing(own.iter().copied().collect(), false),
            Shape::Headless => addresses_or_nothing(
                self.hosts
                    .values()
                    .flat_map(|host| host.addresses.iter().copied())
                    .collect(),
                true,
            ),
            Shape::External(target) => Meaning::Alias(target.clone()),
            Shape::Nowhere => Meaning::Nothing,
        };
        if matches!(
            self.meaning,
            Meaning::Addresses {
                headless: false,
                ..
            }
        ) {
            self.ports = service.ports.iter().map(ServicePort::of_service).collect();
        }
        self.ports.sort();
        self.ports.dedup();
    }
}

impl ServicePort {
    fn of_service(port: &super::Port) -> Self {
        Self {
            name: port.name.clone(),
            protocol: port.protocol.clone(),
            number: port.number,
            host: None,
        }
    }
}

fn addresses_or_nothing(addresses: BTreeSet<IpAddr>, headless: bool) -> Meaning {
    if addresses.is_empty() {
        Meaning::Nothing
    } else {
        Meaning::Addresses {
            addresses,
            headless,
        }
    }
}

/// The names of every address. A cluster IP is its Service alone (upstream: CoreDNS looks no further); of a pod in several
/// Services the name with its own hostname comes first, for that is the one a server takes for its client's.
fn pointers(built: &BTreeMap<String, Namespace>) -> BTreeMap<IpAddr, Vec<Name>> {
    let mut found: BTreeMap<IpAddr, Vec<(u8, &Name)>> = BTreeMap::new();
    for records in built.values().flat_map(|services| services.values()) {
        if let Meaning::Addresses {
            addresses,
            headless: false,
        } = &records.meaning
        {
            addresses
                .iter()
                .for_each(|address| found.entry(*address).or_default().push((0, &records.name)));
        }
        for host in records.hosts.values() {
            let rank = if host.named { 1 } else { 2 };
            host.addresses
                .iter()
                .for_each(|address| found.entry(*address).or_default().push((rank, &host.name)));
        }
    }
    found
        .into_iter()
        .map(|(address, names)| (address, in_order(names)))
        .collect()
}

fn in_order(mut names: Vec<(u8, &Name)>) -> Vec<Name> {
    names.sort();
    if names.first().is_some_and(|(rank, _)| *rank == 0) {
        names.truncate(1);
    }
    names.into_iter().map(|(_, name)| name.clone()).collect()
}
