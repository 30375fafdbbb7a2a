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

/// What is known of one object: nothing when no rule can come from it.
type Parsed<T> = (Key, Option<T>);

/// One change of any kind, parsed.
enum Change {
    Service(watcher::Event<Parsed<Service>>),
    Slice(watcher::Event<Parsed<Slice>>),
    Pod(watcher::Event<Parsed<Pod>>),
    Namespace(watcher::Event<Parsed<Labels>>),
    Policy(watcher::Event<Parsed<Policy>>),
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
            if !seen.is_whole() || apply(&network, seen.world()).await {
                break;
            }
            tokio::time::sleep(AFTER_FAILURE).await;
        }
    }
}

/// Whether it went well; what went wrong has been said.
async fn apply(network: &PodNetwork, world: World) -> bool {
    let network = network.clone();
    let applied = tokio::task::spawn_blocking(move || network.apply(world)).await;
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
    let services = watch_all(client.clone(), "Services", |own: &core::Service| {
        Some(Service::parse(own))
    });
    let slices = watch_all(
        client.clone(),
        "EndpointSlices",
        |own: &discovery::EndpointSlice| Some(Slice::parse(own)),
    );
    let pods = watch_all(client.clone(), "Pods", Pod::parse);
    let namespaces = watch_all(client.clone(), "Namespaces", |own: &core::Namespace| {
        Some(objects::namespace_labels(own))
    });
    let policies = watch_all(
        client,
        "NetworkPolicies",
        |own: &networking::NetworkPolicy| Some(Policy::parse(own)),
    );
    futures::stream::select_all([
        services.map(Change::Service).boxed(),
        slices.map(Change::Slice).boxed(),
        pods.map(Change::Pod).boxed(),
        namespaces.map(Change::Namespace).boxed(),
        policies.map(Change::Policy).boxed(),
    ])
}

/// The events of all namespaces. Failures are retried with growing pauses and said once each.
fn watch_all<K, T>(
    client: Client,
    kind: &'static str,
    parse: impl Fn(&K) -> Option<T> + Send,
) -> impl Stream<Item = watcher::Event<Parsed<T>>> + Send
where
    K: kube::Resource<DynamicType = ()>
        + Clone
        + serde::de::DeserializeOwned
        + std::fmt::Debug
        + Send
        + 'static,
    T: Send,
{
    let events = watcher(Api::<K>::all(client), watcher::Config::default()).default_backoff();
    events.filter_map(move |event| {
        let event = event.inspect_err(|error| {
            tracing::warn!(%error, "the packet filter cannot follow {kind}; its last rules stay in force");
        });
        let parsed = |object: K| (Key::of(object.meta()), parse(&object));
        std::future::ready(event.ok().map(|event| mapped(event, parsed)))
    })
}

fn mapped<K, T>(event: watcher::Event<K>, parse: impl Fn(K) -> T) -> watcher::Event<T> {
    match event {
        watcher::Event::Apply(object) => watcher::Event::Apply(parse(object)),
        watcher::Event::Delete(object) => watcher::Event::Delete(parse(object)),
        watcher::Event::Init => watcher::Event::Init,
        watcher::Event::InitApply(object) => watcher::Event::InitApply(parse(object)),
        watcher::Event::InitDone => watcher::Event::InitDone,
    }
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
    fn take(&mut self, event: watcher::Event<Parsed<T>>) {
        match event {
            watcher::Event::Apply((key, Some(value))) => {
                self.known.insert(key, value);
            }
            watcher::Event::Apply((key, None)) | watcher::Event::Delete((key, _)) => {
                self.known.remove(&key);
            }
            watcher::Event::Init => self.listed.clear(),
            watcher::Event::InitApply((key, value)) => {
                self.listed.extend(value.map(|value| (key, value)));
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
            Change::Service(event) => self.services.take(event),
            Change::Slice(event) => self.slices.take(event),
            Change::Pod(event) => self.pods.take(event),
            Change::Namespace(event) => self.namespaces.take(event),
            Change::Policy(event) => self.policies.take(event),
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
