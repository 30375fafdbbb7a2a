//! What a cluster has from the start: its namespaces, the default storage class, two priority classes, the roles that
//! charts bind to, and the service under which pods find the API. What is there is left as it is: its owner may have changed it.

mod roles;

use std::net::{Ipv4Addr, SocketAddr};

use futures::future::join_all;
use serde_json::{Value, json};
use stead_controller::call::{CallError, Method, Request, call};
use stead_controller::resource::{Key, Resource};

use crate::balancer::Machine;

/// Makes what is missing; `service_ip` is the first address of the Services' range.
///
/// # Errors
/// The first object that could not be made.
pub(crate) async fn ensure(
    client: &kube::Client,
    api: SocketAddr,
    service_ip: Ipv4Addr,
) -> Result<(), CallError> {
    let namespaces = ["default", "kube-system", "kube-public", "kube-node-lease"].map(namespace);
    create_all(client, namespaces.into()).await?;
    let rest = vec![
        // Its controller makes it for every namespace; here a first pod may come before that.
        default_account(),
        storage_class(),
        priority_class(
            "system-node-critical",
            2_000_001_000,
            "Used for system critical pods that must not be moved from their current node.",
        ),
        priority_class(
            "system-cluster-critical",
            2_000_000_000,
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
        ),
    ];
    let rest = rest.into_iter().chain(roles::all()).collect();
    let (rest, service, slice) = futures::join!(
        create_all(client, rest),
        keep(client, api_service(api.port(), service_ip)),
        keep(client, api_slice(api)),
    );
    rest.and(service).and(slice)
}

/// Makes an object, or puts it right where its ports or addresses are others: the API may listen elsewhere today.
async fn keep(
    client: &kube::Client,
    (resource, object): (Resource, Value),
) -> Result<(), CallError> {
    let key = Key::of(&object);
    let known = match call(client, Request::get(&resource, &key)).await {
        Ok(known) => known,
        Err(error) if error.is_not_found() => return create(client, resource, object).await,
        Err(error) => return Err(error),
    };
    let fields = ["/endpoints/0/addresses", "/ports", "/spec/ports"];
    if fields
        .iter()
        .all(|field| known.pointer(field) == object.pointer(field))
    {
        return Ok(());
    }
    let mut new = known;
    for field in ["endpoints", "ports"] {
        if let Some(value) = object.get(field) {
            new[field] = value.clone();
        }
    }
    if let Some(ports) = object.pointer("/spec/ports") {
        new["spec"]["ports"] = ports.clone();
    }
    let request = Request::patch(Method::Put, &resource, &key, new);
    call(client, request).await.map(drop)
}

async fn create_all(
    client: &kube::Client,
    objects: Vec<(Resource, Value)>,
) -> Result<(), CallError> {
    let creates = objects
        .into_iter()
        .map(|(resource, object)| create(client, resource, object));
    join_all(creates).await.into_iter().collect()
}

/// Asks first: at every start but the first all is there, and reading costs no commit.
async fn create(client: &kube::Client, resource: Resource, object: Value) -> Result<(), CallError> {
    match call(client, Request::get(&resource, &Key::of(&object))).await {
        Ok(_) => return Ok(()),
        Err(error) if error.is_not_found() => {}
        Err(error) => return Err(error),
    }
    match call(client, Request::create(&resource, object)).await {
        Err(error) if error.is_already_exists() => Ok(()),
        // A kind that this API does not serve.
        Err(error) if error.is_not_found() => {
            tracing::debug!(%error, "left out");
            Ok(())
        }
        other => other.map(drop),
    }
}

fn namespace(name: &str) -> (Resource, Value) {
    (
        Resource::NAMESPACES,
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}),
    )
}

fn default_account() -> (Resource, Value) {
    let metadata = json!({"namespace": "default", "name": "default"});
    (
        Resource::SERVICE_ACCOUNTS,
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}),
    )
}

fn storage_class() -> (Resource, Value) {
    let class = json!({
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": "standard", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": "stead.dev/volume",
        "reclaimPolicy": "Delete",
        "allowVolumeExpansion": true,
        "volumeBindingMode": "Immediate",
    });
    (Resource::STORAGE_CLASSES, class)
}

fn priority_class(name: &str, value: i64, description: &str) -> (Resource, Value) {
    let class = json!({
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": {"name": name},
        "value": value,
        "description": description,
    });
    (Resource::PRIORITY_CLASSES, class)
}

/// `address`: the first of the Services' range, as everywhere.
fn api_service(port: u16, address: Ipv4Addr) -> (Resource, Value) {
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"namespace": "default", "name": "kubernetes", "labels": {"component": "apiserver", "provider": "kubernetes"}},
        "spec": {
            "clusterIP": address,
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": port}],
            "sessionAffinity": "None",
            "type": "ClusterIP",
        },
    });
    (Resource::SERVICES, service)
}

/// Where the API answers. upstream: its server keeps this slice itself.
fn api_slice(api: SocketAddr) -> (Resource, Value) {
    let address = match Machine::this() {
        Some(machine) if api.ip().is_unspecified() => machine.address,
        Some(_) | None => api.ip(),
    };
    let family = if address.is_ipv6() { "IPv6" } else { "IPv4" };
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"namespace": "default", "name": "kubernetes", "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": family,
        "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
        "ports": [{"name": "https", "port": api.port(), "protocol": "TCP"}],
    });
    (Resource::ENDPOINT_SLICES, slice)
}
