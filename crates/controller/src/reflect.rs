//! Follows one collection as whole JSON objects, for programs that read more of them than decisions do.

use std::future::Future;

use serde_json::Value;

use crate::backpressure::Backpressure;
use crate::follow::{Source, Told, follow};
use crate::resource::Resource;

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
///
/// What is told never goes back in time: a list older than what was told before is refused and asked for again.
pub async fn reflect(
    client: kube::Client,
    resource: Resource,
    part: Part,
    mut sink: impl FnMut(Delta),
    shutdown: impl Future<Output = ()>,
) {
    let source = Source {
        client,
        resource,
        part,
        backpressure: Backpressure::default(),
    };
    let told = |told| match told {
        Told::Listing => sink(Delta::Listing),
        Told::Listed { objects, .. } => sink(Delta::Reset(objects)),
        Told::Put { object, .. } => sink(Delta::Put(object)),
        Told::Gone { object, .. } => sink(Delta::Gone(object)),
        Told::Reached { .. } => {}
    };
    follow(source, |object| object, told, shutdown).await;
}
