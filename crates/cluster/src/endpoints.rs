//! EndpointSlices and Endpoints of services with a selector: who answers for the service, and under which name.

mod legacy;
mod slices;

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;
use stead_controller::call::{CallError, Method, Request, call};
use stead_controller::queue::{Outcome, Queue};
use stead_controller::resource::{Key, Resource, is_terminating, text, uid};

use crate::informer::{Cache, Change, Kit};
use crate::outcome;

/// Services under way at once.
const CONCURRENCY: usize = 4;

/// Adds the controller to the kit.
pub(crate) fn register(kit: &mut Kit) {
    let queue: Queue<Key> = Queue::new();
    let services = kit.follow(Resource::SERVICES, {
        let queue = queue.clone();
        move |change: &Change<'_>| queue.add(change.key.clone())
    });
    let keeper = Arc::new(Keeper {
        client: kit.client("endpointslice-controller"),
        pods: kit.follow(Resource::PODS, on_pod(queue.clone(), services.clone())),
        slices: kit.follow(Resource::ENDPOINT_SLICES, on_slice(queue.clone())),
        endpoints: kit.follow(legacy::ENDPOINTS, {
            let queue = queue.clone();
            move |change: &Change<'_>| queue.add(change.key.clone())
        }),
        services,
    });
    kit.work(queue, CONCURRENCY, move |key| {
        let keeper = Arc::clone(&keeper);
        async move { outcome::of("endpoints", &key, keeper.sync(&key).await) }
    });
}

fn on_pod(queue: Queue<Key>, services: Cache) -> impl Fn(&Change<'_>) {
    let what_counts = |pod: &Value| {
        let conditions = pod
            .pointer("/status/conditions")
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        let ready = conditions
            .into_iter()
            .find(|own| text(own, "/type") == "Ready")
            .map(|own| own["status"].clone());
        let pointers = [
            "/metadata/labels",
            "/metadata/uid",
            "/metadata/deletionTimestamp",
            "/spec/nodeName",
        ];
        let status = ["/status/phase", "/status/podIPs", "/status/podIP"];
        let own: Vec<Option<Value>> = pointers
            .iter()
            .chain(&status)
            .map(|pointer| pod.pointer(pointer).cloned())
            .collect();
        (own, ready)
    };
    move |change| {
        if change.old.map(what_counts) == change.new.map(what_counts) {
            return;
        }
        for service in services.list(&change.key.namespace) {
            let selects =
                |pod: Option<&Value>| pod.is_some_and(|pod| slices::selects(&service, pod));
            if selects(change.old) || selects(change.new) {
                queue.add(Key::of(&service));
            }
        }
    }
}

/// A slice that somebody else changed or removed is put right.
fn on_slice(queue: Queue<Key>) -> impl Fn(&Change<'_>) {
    move |change| {
        let services: BTreeSet<&str> = [change.old, change.new]
            .into_iter()
            .flatten()
            .map(service_of)
            .collect();
        for service in services.into_iter().filter(|service| !service.is_empty()) {
            queue.add(Key::new(&change.key.namespace, service));
        }
    }
}

fn service_of(slice: &Value) -> &str {
    let label = |name: &str| {
        slice
            .pointer("/metadata/labels")
            .and_then(|own| own.get(name))
            .and_then(Value::as_str)
    };
    let ours = label(slices::MANAGED_BY) == Some(slices::MANAGER);
    label(slices::SERVICE_NAME)
        .filter(|_| ours)
        .unwrap_or_default()
}

struct Keeper {
    client: kube::Client,
    services: Cache,
    pods: Cache,
    slices: Cache,
    endpoints: Cache,
}

impl Keeper {
    async fn sync(&self, key: &Key) -> Result<Outcome, CallError> {
        let service = self
            .services
            .get(key)
            .filter(|service| !is_terminating(service));
        // Slices of a service that is gone go with it: they carry its owner reference.
        let Some(service) = service.filter(|service| slices::is_kept(service)) else {
            self.drop_endpoints(key).await?;
            return Ok(Outcome::Done);
        };
        let pods = self.pods.list(&key.namespace);
        let pods: Vec<&Value> = pods
            .iter()
            .map(AsRef::as_ref)
            .filter(|pod| slices::selects(&service, pod))
            .collect();
        let slices = self.slices.list(&key.namespace);
        let slices: Vec<&Value> = slices
            .iter()
            .map(AsRef::as_ref)
            .filter(|slice| service_of(slice) == key.name)
            .collect();
        let own = slices
            .into_iter()
            .filter(|slice| owner(slice) == uid(&service))
            .collect::<Vec<_>>();
        self.write(slices::changes(&service, &pods, &own)).await?;
        self.write_endpoints(key, legacy::wanted(&service, &pods))
            .await?;
        Ok(Outcome::Done)
    }

    async fn write_endpoints(&self, key: &Key, wanted: Value) -> Result<(), CallError> {
        let resource = &legacy::ENDPOINTS;
        let known = self.endpoints.get(key);
        let request = match (legacy::change(wanted, known.as_deref()), known) {
            (None, _) => return Ok(()),
            (Some(new), None) => Request::create(resource, new),
            (Some(new), Some(_)) => Request::patch(Method::Put, resource, key, new),
        };
        call(&self.client, request).await.map(drop)
    }

    /// Endpoints of a service that is gone, or kept by its owner: ours go, others stay.
    async fn drop_endpoints(&self, key: &Key) -> Result<(), CallError> {
        let ours = |own: &Value| {
            let labels = own.pointer("/metadata/labels");
            labels.is_some_and(|own| own[legacy::MANAGED_BY] == legacy::MANAGER)
        };
        match self.endpoints.get(key).filter(|own| ours(own)) {
            Some(own) => {
                let request = Request::delete(&legacy::ENDPOINTS, key, uid(&own));
                call(&self.client, request).await.map(drop)
            }
            None => Ok(()),
        }
    }

    async fn write(&self, changes: slices::Changes) -> Result<(), CallError> {
        let slices::Changes {
            create,
            update,
            delete,
        } = changes;
        let resource = &Resource::ENDPOINT_SLICES;
        let creates = create
            .into_iter()
            .map(|slice| Request::create(resource, slice));
        let updates = update
            .into_iter()
            .map(|slice| Request::patch(Method::Put, resource, &Key::of(&slice), slice));
        let deletes = delete
            .into_iter()
            .map(|slice| Request::delete(resource, &Key::of(&slice), uid(&slice)));
        for request in creates.chain(updates).chain(deletes) {
            call(&self.client, request).await?;
        }
        Ok(())
    }
}

/// The UID of the service that a slice belongs to: a namesake made anew has slices of its own.
fn owner(slice: &Value) -> &str {
    stead_controller::resource::controller_of(slice)
        .map(|owner| text(owner, "/uid"))
        .unwrap_or_default()
}
