//! Follows one collection: the whole of it first, then every change, for ever, over lost connections and expired versions.

use std::future::Future;
use std::pin::pin;

use futures::StreamExt as _;
use kube::Api;
use kube::runtime::{WatchStreamExt as _, watcher};
use serde_json::Value;

use crate::resource::{Raw, Resource};

/// What is told of the collection.
#[derive(Debug, Clone)]
pub enum Delta {
    /// A list has been asked for: whatever was written before now will be in the next [`Delta::Reset`].
    Listing,
    /// The whole collection: whatever is not in it is gone.
    Reset(Vec<Value>),
    /// An object was created or changed.
    Put(Value),
    /// An object is gone; its last state.
    Gone(Value),
}

/// Which part of a collection is followed.
#[derive(Debug, Clone, Default)]
pub struct Part {
    /// Label selector; `None` for all.
    pub labels: Option<String>,
    /// Field selector; `None` for all.
    pub fields: Option<String>,
}

/// Follows a resource in all namespaces and hands each delta to `sink`, in order. Ends with `shutdown` only.
pub async fn reflect(
    client: kube::Client,
    resource: Resource,
    part: Part,
    mut sink: impl FnMut(Delta),
    shutdown: impl Future<Output = ()>,
) {
    let api: Api<Raw> = Api::all_with(client, &resource.api_resource());
    let config = watcher::Config {
        label_selector: part.labels,
        field_selector: part.fields,
        ..watcher::Config::default()
    };
    let mut events = pin!(watcher(api, config).default_backoff().take_until(shutdown));
    let mut listed = Vec::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Init) => {
                listed.clear();
                sink(Delta::Listing);
            }
            Ok(watcher::Event::InitApply(object)) => listed.push(typed(object, &resource)),
            Ok(watcher::Event::InitDone) => sink(Delta::Reset(std::mem::take(&mut listed))),
            Ok(watcher::Event::Apply(object)) => sink(Delta::Put(typed(object, &resource))),
            Ok(watcher::Event::Delete(object)) => sink(Delta::Gone(typed(object, &resource))),
            Err(error) => {
                tracing::warn!(resource = %resource.plural, %error, "watch interrupted; it is resumed")
            }
        }
    }
}

/// Items of a list carry neither kind nor version: they are written back, and field owners, which nobody here reads,
/// are dropped.
fn typed(object: Raw, resource: &Resource) -> Value {
    let mut value = object.value;
    if let Some(fields) = value.as_object_mut() {
        fields.insert("apiVersion".to_owned(), resource.api_version().into());
        fields.insert("kind".to_owned(), resource.kind.to_string().into());
    }
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    value
}
