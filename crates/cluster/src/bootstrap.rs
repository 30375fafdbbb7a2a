//! What a cluster has from the start: its namespaces, the default storage class, two priority classes, and the service
//! under which pods find the API. What is there is left as it is: its owner may have changed it.

use futures::future::join_all;
use serde_json::{Value, json};
use stead_controller::call::{CallError, Request, call};
use stead_controller::resource::{Key, Resource};

/// The cluster IP of `default/kubernetes`: the first of the default service range.
const API_SERVICE_IP: &str = "10.96.0.1";

/// Makes what is missing.
///
/// # Errors
/// The first object that could not be made.
pub(crate) async fn ensure(client: &kube::Client, api_port: u16) -> Result<(), CallError> {
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
        api_service(api_port),
    ];
    create_all(client, rest).await
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

fn api_service(port: u16) -> (Resource, Value) {
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"namespace": "default", "name": "kubernetes", "labels": {"component": "apiserver", "provider": "kubernetes"}},
        "spec": {
            "clusterIP": API_SERVICE_IP,
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": port}],
            "sessionAffinity": "None",
            "type": "ClusterIP",
        },
    });
    (Resource::SERVICES, service)
}
