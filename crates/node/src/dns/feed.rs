//! Keeps the zone fresh: watches Services and EndpointSlices and publishes a zone whenever the answers change.
//!
//! Decides nothing: the [`Catalogue`] does. While the API cannot be reached the last zone stays in force.

use std::sync::Arc;

use futures::{FutureExt, Stream, StreamExt};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use tokio::sync::watch;

use super::zone::{Catalogue, Service, Slice, Zone};

/// One change of either kind, parsed.
enum Change {
    Service(watcher::Event<Service>),
    Slice(watcher::Event<Slice>),
}

/// Runs until nobody holds a receiver any more.
pub(crate) async fn run(client: Client, mut catalogue: Catalogue, zones: watch::Sender<Arc<Zone>>) {
    let mut changes = changes(client);
    let mut listing = Listing::default();
    loop {
        tokio::select! {
            () = zones.closed() => return,
            change = changes.next() => match change {
                Some(change) => listing.take(change, &mut catalogue),
                None => return,
            },
        }
        // Everything that has already arrived goes into one zone.
        while let Some(Some(change)) = changes.next().now_or_never() {
            listing.take(change, &mut catalogue);
        }
        if let Some(zone) = catalogue.publish() {
            zones.send_replace(Arc::new(zone));
        }
    }
}

fn changes(client: Client) -> impl Stream<Item = Change> + Send + Unpin {
    let services = watch_all::<core::Service>(client.clone(), "Services");
    let slices = watch_all::<discovery::EndpointSlice>(client, "EndpointSlices");
    let services =
        services.map(|event| Change::Service(mapped(event, |object| Service::parse(&object))));
    let slices = slices.map(|event| Change::Slice(mapped(event, |object| Slice::parse(&object))));
    futures::stream::select(services.boxed(), slices.boxed())
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
        let event = event.inspect_err(|error| tracing::warn!(%error, "DNS cannot watch {kind}; its last answers stay in force"));
        std::future::ready(event.ok())
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

/// Lists under way, each put into the catalogue only when it is whole.
#[derive(Default)]
struct Listing {
    services: Vec<Service>,
    slices: Vec<Slice>,
}

impl Listing {
    fn take(&mut self, change: Change, catalogue: &mut Catalogue) {
        match change {
            Change::Service(watcher::Event::Apply(service)) => catalogue.apply_service(service),
            Change::Service(watcher::Event::Delete(it)) => {
                catalogue.delete_service(&it.namespace, &it.name)
            }
            Change::Service(watcher::Event::Init) => self.services.clear(),
            Change::Service(watcher::Event::InitApply(service)) => self.services.push(service),
            Change::Service(watcher::Event::InitDone) => {
                catalogue.replace_services(std::mem::take(&mut self.services))
            }
            Change::Slice(watcher::Event::Apply(slice)) => catalogue.apply_slice(slice),
            Change::Slice(watcher::Event::Delete(it)) => {
                catalogue.delete_slice(&it.namespace, &it.name)
            }
            Change::Slice(watcher::Event::Init) => self.slices.clear(),
            Change::Slice(watcher::Event::InitApply(slice)) => self.slices.push(slice),
            Change::Slice(watcher::Event::InitDone) => {
                catalogue.replace_slices(std::mem::take(&mut self.slices))
            }
        }
    }
}
