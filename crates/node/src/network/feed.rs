//! Keeps the packet filter true to the API: watches what rules come from and applies a ruleset whenever it changes.
//!
//! Decides nothing: [`compile`](super::compile) does. Changes that arrive while a ruleset is being applied go into the
//! next one together. While the API cannot be reached the last ruleset stays in force.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::{FutureExt, Stream, StreamExt};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::api::networking::v1 as networking;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};

use super::compile::World;
use super::filter::PodNetwork;
use super::objects::{self, Key, Labels, Pod, Policy, Service, Slice};

/// After the packet filter refused something, this is waited before it is asked again.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// One change of any kind.
enum Change {
    Service(watcher::Event<core::Service>),
    Slice(watcher::Event<discovery::EndpointSlice>),
    Pod(watcher::Event<core::Pod>),
    Namespace(watcher::Event<core::Namespace>),
    Policy(watcher::Event<networking::NetworkPolicy>),
}

/// Runs until it is dropped.
pub(crate) async fn run(client: Client, network: PodNetwork) {
    let mut changes = changes(client);
    let mut seen = Seen::default();
    while let Some(change) = changes.next().await {
        seen.take(change);
        loop {
            // Everything that has already arrived goes into one ruleset.
            while let Some(Some(change)) = changes.next().now_or_never() {
                seen.take(change);
            }
            if !seen.is_whole() || apply(&network, &seen.world()).await {
                break;
            }
            tokio::time::sleep(AFTER_FAILURE).await;
        }
    }
}

/// Whether it went well; what went wrong has been said.
async fn apply(network: &PodNetwork, world: &World) -> bool {
    let (network, world) = (network.clone(), world.clone());
    let applied = tokio::task::spawn_blocking(move || network.apply(&world)).await;
    match applied {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            tracing::warn!(%error, "the packet filter does not hold the newest Services and NetworkPolicies; it is tried again");
            false
        }
        // Only when everything ends.
        Err(_) => true,
    }
}

fn changes(client: Client) -> impl Stream<Item = Change> + Send + Unpin {
    let services = watch_all(client.clone(), "Services").map(Change::Service);
    let slices = watch_all(client.clone(), "EndpointSlices").map(Change::Slice);
    let pods = watch_all(client.clone(), "Pods").map(Change::Pod);
    let namespaces = watch_all(client.clone(), "Namespaces").map(Change::Namespace);
    let policies = watch_all(client, "NetworkPolicies").map(Change::Policy);
    futures::stream::select_all([
        services.boxed(),
        slices.boxed(),
        pods.boxed(),
        namespaces.boxed(),
        policies.boxed(),
    ])
}

/// The events of all namespaces. Failures are retried with growing pauses and said once each.
fn watch_all<K>(client: Client, kind: &'static str) -> impl Stream<Item = watcher::Event<K>> + Send
where
    K: kube::Resource<DynamicType = ()>
        + Clone
        + serde::de::DeserializeOwned
        + std::fmt::Debug
        + Send
        + 'static,
{
    let events = watcher(Api::<K>::all(client), watcher::Config::default()).default_backoff();
    events.filter_map(move |event| {
        let event = event.inspect_err(|error| {
            tracing::warn!(%error, "the packet filter cannot follow {kind}; its last rules stay in force");
        });
        std::future::ready(event.ok())
    })
}

/// The objects of one kind, and those of a list under way, which counts only when it is whole.
struct Kind<T> {
    known: BTreeMap<Key, T>,
    listed: BTreeMap<Key, T>,
    is_whole: bool,
}

impl<T> Default for Kind<T> {
    fn default() -> Self {
        Self {
            known: BTreeMap::new(),
            listed: BTreeMap::new(),
            is_whole: false,
        }
    }
}

impl<T> Kind<T> {
    fn take<K: kube::Resource>(
        &mut self,
        event: watcher::Event<K>,
        parse: impl Fn(&K) -> Option<T>,
    ) {
        match event {
            watcher::Event::Apply(object) => {
                let key = Key::of(object.meta());
                match parse(&object) {
                    Some(value) => self.known.insert(key, value),
                    None => self.known.remove(&key),
                };
            }
            watcher::Event::Delete(object) => {
                self.known.remove(&Key::of(object.meta()));
            }
            watcher::Event::Init => self.listed.clear(),
            watcher::Event::InitApply(object) => {
                let value = parse(&object).map(|value| (Key::of(object.meta()), value));
                self.listed.extend(value);
            }
            watcher::Event::InitDone => {
                self.known = std::mem::take(&mut self.listed);
                self.is_whole = true;
            }
        }
    }
}

/// All that was seen.
#[derive(Default)]
struct Seen {
    services: Kind<Service>,
    slices: Kind<Slice>,
    pods: Kind<Pod>,
    namespaces: Kind<Labels>,
    policies: Kind<Policy>,
}

impl Seen {
    fn take(&mut self, change: Change) {
        match change {
            Change::Service(event) => self.services.take(event, |own| Some(Service::parse(own))),
            Change::Slice(event) => self.slices.take(event, |own| Some(Slice::parse(own))),
            Change::Pod(event) => self.pods.take(event, Pod::parse),
            Change::Namespace(event) => self
                .namespaces
                .take(event, |own| Some(objects::namespace_labels(own))),
            Change::Policy(event) => self.policies.take(event, |own| Some(Policy::parse(own))),
        }
    }

    /// Before everything has been listed once, rules would let through what is forbidden and cut what is served.
    fn is_whole(&self) -> bool {
        self.services.is_whole
            && self.slices.is_whole
            && self.pods.is_whole
            && self.namespaces.is_whole
            && self.policies.is_whole
    }

    fn world(&self) -> World {
        let namespaces = self.namespaces.known.iter();
        World {
            services: self.services.known.clone(),
            slices: self.slices.known.clone(),
            pods: self.pods.known.clone(),
            namespaces: namespaces
                .map(|(key, labels)| (key.name.clone(), labels.clone()))
                .collect(),
            policies: self.policies.known.clone(),
        }
    }
}
