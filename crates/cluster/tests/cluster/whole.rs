//! The cluster as one value, on a data folder of its own: what it makes, what it tells, and why it does not start.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use serde_json::Value;
use stead_cluster::{Cluster, Options, StartError};
use stead_controller::call::{Request, call};
use stead_controller::resource::{Key, Resource};
use stead_node::runtime::Tier;

fn options(data_dir: &Path) -> Options {
    Options {
        data_dir: data_dir.to_owned(),
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        tier: Some(Tier::Processes),
        shim: "/bin/false".into(),
        ..Options::default()
    }
}

async fn check_there(client: &kube::Client, resource: &Resource, key: Key) {
    call(client, Request::get(resource, &key))
        .await
        .unwrap_or_else(|error| panic!("{error}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_cluster_has_what_every_cluster_has_and_tells_where_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let cluster = Cluster::start(options(folder.path()))
        .await
        .expect("it starts");
    let client = cluster.client();
    for namespace in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        check_there(&client, &Resource::NAMESPACES, Key::new("", namespace)).await;
    }
    check_there(
        &client,
        &Resource::STORAGE_CLASSES,
        Key::new("", "standard"),
    )
    .await;
    check_there(
        &client,
        &Resource::SERVICES,
        Key::new("default", "kubernetes"),
    )
    .await;
    check_there(
        &client,
        &Resource::SERVICE_ACCOUNTS,
        Key::new("default", "default"),
    )
    .await;
    let key = Key::new("default", "kubernetes");
    let slice = call(&client, Request::get(&Resource::ENDPOINT_SLICES, &key))
        .await
        .expect("where the API answers");
    let place = format!(
        "https://{}:{}",
        slice["endpoints"][0]["addresses"][0]
            .as_str()
            .expect("an address"),
        slice["ports"][0]["port"]
    );
    assert_eq!(place, cluster.about().api_url);
    let about = std::fs::read(folder.path().join("daemon.json")).expect("it tells");
    let about: Value = serde_json::from_slice(&about).expect("JSON");
    assert_eq!(about["pid"], std::process::id());
    assert_eq!(about["api"], cluster.about().api_url);
    assert_eq!(about["tier"], "processes");
    assert!(cluster.about().kubeconfig.is_file());
    drop(client);
    cluster.shutdown().await;
    assert!(!folder.path().join("daemon.json").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_cluster_on_the_same_folder_or_address_does_not_start_and_says_why() {
    let folder = tempfile::tempdir().expect("a folder");
    let cluster = Cluster::start(options(folder.path()))
        .await
        .expect("it starts");
    let refused = Cluster::start(options(folder.path()))
        .await
        .err()
        .expect("the folder is locked");
    let said = refused.to_string();
    assert!(
        said.contains(&std::process::id().to_string()) && said.contains("--data-dir"),
        "{said}"
    );
    let other = tempfile::tempdir().expect("a folder");
    let address = cluster
        .about()
        .api_url
        .trim_start_matches("https://")
        .parse()
        .expect("an address");
    let refused = Cluster::start(Options {
        listen: address,
        ..options(other.path())
    })
    .await
    .err()
    .expect("taken");
    assert!(matches!(refused, StartError::Taken { .. }));
    let said = refused.to_string();
    assert!(
        said.contains(&address.to_string()) && said.contains("--listen"),
        "{said}"
    );
    cluster.shutdown().await;
    let again = Cluster::start(options(folder.path()))
        .await
        .expect("the folder is free again");
    again.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn for_maintenance_claims_are_deleted_with_their_volumes_and_no_pod_is_made() {
    let folder = tempfile::tempdir().expect("a folder");
    let cluster = Cluster::start(options(folder.path()))
        .await
        .expect("it starts");
    let claim = serde_json::json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"namespace": "default", "name": "a"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    call(&cluster.client(), Request::create(&Resource::CLAIMS, claim))
        .await
        .expect("a claim");
    until_volumes(&cluster, |count| count == 1).await;
    cluster.shutdown().await;
    let cluster = Cluster::start(Options {
        workloads: false,
        ..options(folder.path())
    })
    .await
    .expect("it starts");
    let key = Key::new("default", "a");
    let claim = call(&cluster.client(), Request::get(&Resource::CLAIMS, &key))
        .await
        .expect("it is kept");
    let uid = stead_controller::resource::uid(&claim);
    call(
        &cluster.client(),
        Request::delete(&Resource::CLAIMS, &key, uid),
    )
    .await
    .expect("deleted");
    until_volumes(&cluster, |count| count == 0).await;
    cluster.shutdown().await;
}

/// Waits until there are so many volumes.
async fn until_volumes(cluster: &Cluster, wanted: impl Fn(usize) -> bool) {
    crate::town::until(
        &cluster.client(),
        "so many volumes",
        &Resource::VOLUMES,
        |all| wanted(all.len()),
    )
    .await;
}
