//! Pods and the one node: who gets room, and what those are told that do not.

use serde_json::{Value, json};
use stead_controller::resource::{Resource, list, text};

use crate::town::{Town, web};

fn pod(name: &str, spec: Value) -> Value {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "default", "name": name},
        "spec": {"containers": [{"name": "c", "image": "stead.dev/host"}]}});
    for (field, value) in spec.as_object().into_iter().flatten() {
        pod["spec"][field] = value.clone();
    }
    pod
}

/// Why the scheduler says that a pod waits.
fn why(pod: &Value) -> &str {
    let conditions = list(pod, "/status/conditions").iter();
    let mut own = conditions
        .filter(|own| text(own, "/type") == "PodScheduled" && text(own, "/status") == "False");
    own.next()
        .map(|own| text(own, "/message"))
        .unwrap_or_default()
}

async fn check(town: &Town, name: &str, spec: Value, expected: &str) {
    town.create(&pod(name, spec)).await;
    let pod = town
        .until_one("it is said why it waits", &Resource::PODS, name, |pod| {
            !why(pod).is_empty()
        })
        .await;
    assert_eq!(why(&pod), expected);
    assert_eq!(town.until_told("FailedScheduling", name).await, expected);
}

#[tokio::test]
async fn a_pod_that_fits_nowhere_says_why_in_its_status_and_an_event() {
    let town = Town::new().await;
    let selector = "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.";
    check(
        &town,
        "picky",
        json!({"nodeSelector": {"no": "node"}}),
        selector,
    )
    .await;
    let requests = json!({"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "65"}}}]});
    check(
        &town,
        "greedy",
        requests,
        "0/1 nodes are available: 1 Insufficient cpu.",
    )
    .await;
    let volume =
        json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "none"}}]});
    let missing = "0/1 nodes are available: persistentvolumeclaim \"none\" not found.";
    check(&town, "claimless", volume, missing).await;
}

#[tokio::test]
async fn a_pod_waits_for_its_claim_and_starts_as_soon_as_it_is_bound() {
    let town = Town::new().await;
    let volume =
        json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "later"}}]});
    town.create(&pod("early", volume)).await;
    town.until_one("it waits", &Resource::PODS, "early", |pod| {
        !why(pod).is_empty()
    })
    .await;
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"namespace": "default", "name": "later"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    town.create(&claim).await;
    town.until_one("it runs", &Resource::PODS, "early", |pod| {
        text(pod, "/status/phase") == "Running"
    })
    .await;
}

#[tokio::test]
async fn room_that_is_given_back_goes_to_those_that_wait() {
    let town = Town::with_room(2).await;
    for name in ["a", "b", "c"] {
        town.create(&pod(name, json!({}))).await;
    }
    let full = "0/1 nodes are available: 1 Too many pods.";
    let all = town
        .until("one waits for room", &Resource::PODS, |pods| {
            pods.values().any(|pod| why(pod) == full)
        })
        .await;
    let running = all
        .values()
        .find(|pod| why(pod).is_empty())
        .map(|pod| text(pod, "/metadata/name"))
        .expect("two fit");
    town.delete(&Resource::PODS, running, "Background").await;
    town.until("the other two run", &Resource::PODS, |pods| {
        pods.len() == 2
            && pods
                .values()
                .all(|pod| text(pod, "/status/phase") == "Running")
    })
    .await;
}

#[tokio::test]
async fn a_cordoned_node_takes_no_pods_until_it_is_uncordoned() {
    let town = Town::new().await;
    town.merge(
        &Resource::NODES,
        "n1",
        json!({"spec": {"unschedulable": true}}),
    )
    .await;
    town.create(&web(1)).await;
    let cordoned = "0/1 nodes are available: 1 node(s) were unschedulable.";
    town.until_one("web-0 waits", &Resource::PODS, "web-0", |pod| {
        why(pod) == cordoned
    })
    .await;
    town.merge(
        &Resource::NODES,
        "n1",
        json!({"spec": {"unschedulable": null}}),
    )
    .await;
    town.until_ready("web", 1).await;
}
