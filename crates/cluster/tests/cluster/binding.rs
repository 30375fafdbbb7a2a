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

/// Waits until the pod of this name runs.
async fn until_runs(town: &Town, name: &str) {
    town.until_one("it runs", &Resource::PODS, name, |pod| {
        text(pod, "/status/phase") == "Running"
    })
    .await;
}

/// Waits until the pod of this name is said to wait for this.
async fn until_waits(town: &Town, name: &str, expected: &str) {
    let expected = format!("0/1 nodes are available: 1 {expected}.");
    town.until_one(&expected, &Resource::PODS, name, |pod| why(pod) == expected)
        .await;
}

#[tokio::test]
async fn a_taint_keeps_pods_off_and_drives_those_away_that_do_not_tolerate_it() {
    let town = Town::new().await;
    town.create(&pod("here", json!({}))).await;
    let tough = json!({"tolerations": [{"key": "maintenance", "operator": "Exists"}]});
    town.create(&pod("tough", tough)).await;
    until_runs(&town, "here").await;
    until_runs(&town, "tough").await;
    let taint = json!([{"key": "maintenance", "effect": "NoExecute"}]);
    town.merge(&Resource::NODES, "n1", json!({"spec": {"taints": taint}}))
        .await;
    town.until_gone(&Resource::PODS, "here").await;
    assert_eq!(
        town.until_told("TaintManagerEviction", "here").await,
        "Marking for deletion Pod default/here"
    );
    town.create(&pod("late", json!({}))).await;
    until_waits(&town, "late", "node(s) had untolerated taint(s)").await;
    town.merge(&Resource::NODES, "n1", json!({"spec": {"taints": null}}))
        .await;
    until_runs(&town, "late").await;
    let tough = town.get(&Resource::PODS, "tough").await.expect("it stays");
    assert!(tough["metadata"]["deletionTimestamp"].is_null());
}

#[tokio::test]
async fn a_pod_that_tolerates_a_taint_for_a_while_goes_after_that_while() {
    let town = Town::new().await;
    let toleration = json!({"key": "maintenance", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1});
    town.create(&pod("patient", json!({ "tolerations": [toleration] })))
        .await;
    until_runs(&town, "patient").await;
    let begin = std::time::Instant::now();
    let taint = json!([{"key": "maintenance", "effect": "NoExecute"}]);
    town.merge(&Resource::NODES, "n1", json!({"spec": {"taints": taint}}))
        .await;
    town.until_gone(&Resource::PODS, "patient").await;
    assert!(begin.elapsed() >= std::time::Duration::from_secs(1));
}

#[tokio::test]
async fn replicas_that_must_not_share_the_node_wait_until_it_is_theirs_and_wishes_wait_for_nothing()
{
    let town = Town::new().await;
    let term = json!({"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "web"}}});
    let mut set = web(2);
    set["spec"]["podManagementPolicy"] = "Parallel".into();
    set["spec"]["template"]["spec"]["affinity"] =
        json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}});
    town.create(&set).await;
    let apart = "node(s) didn't match pod anti-affinity rules";
    until_waits(&town, "web-1", apart).await;
    let wish = json!({"affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution":
        [{"weight": 100, "podAffinityTerm": term}]}}});
    town.create(&pod("wishful", wish)).await;
    until_runs(&town, "wishful").await;
    town.merge(
        &Resource::STATEFUL_SETS,
        "web",
        json!({"spec": {"ordinals": {"start": 1}, "replicas": 1}}),
    )
    .await;
    until_runs(&town, "web-1").await;
}

#[tokio::test]
async fn a_pod_that_wants_company_starts_when_it_comes() {
    let town = Town::new().await;
    let term = json!({"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "web"}}});
    let affinity = json!({"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}});
    town.create(&pod("follower", affinity)).await;
    until_waits(&town, "follower", "node(s) didn't match pod affinity rules").await;
    town.create(&web(1)).await;
    until_runs(&town, "follower").await;
}

#[tokio::test]
async fn a_host_port_is_one_pods_at_a_time() {
    let town = Town::new().await;
    let on = |address: &str| json!({"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80, "hostPort": 8080, "hostIP": address}]}]});
    town.create(&pod("first", on("127.0.0.1"))).await;
    until_runs(&town, "first").await;
    town.create(&pod("beside", on("127.0.0.2"))).await;
    until_runs(&town, "beside").await;
    town.create(&pod("second", on(""))).await;
    let taken = "node(s) didn't have free ports for the requested pod ports";
    until_waits(&town, "second", taken).await;
    town.delete(&Resource::PODS, "first", "Background").await;
    town.delete(&Resource::PODS, "beside", "Background").await;
    until_runs(&town, "second").await;
}

#[tokio::test]
async fn a_gated_pod_says_so_and_is_placed_once_its_gates_are_open() {
    let town = Town::new().await;
    let gates = json!({"schedulingGates": [{"name": "example.com/wait"}]});
    town.create(&pod("gated", gates)).await;
    let gated = town.get(&Resource::PODS, "gated").await.expect("a pod");
    let condition = &gated["status"]["conditions"][0];
    assert_eq!(
        (text(condition, "/type"), text(condition, "/reason")),
        ("PodScheduled", "SchedulingGated")
    );
    town.merge(
        &Resource::PODS,
        "gated",
        json!({"spec": {"schedulingGates": null}}),
    )
    .await;
    until_runs(&town, "gated").await;
}

fn claim(name: &str, class: &str, mode: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"namespace": "default", "name": name},
        "spec": {"accessModes": [mode], "storageClassName": class, "resources": {"requests": {"storage": "1Gi"}}}})
}

fn on_claim(name: &str) -> Value {
    json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": name}}]})
}

#[tokio::test]
async fn a_claim_for_one_pod_is_not_given_to_a_second() {
    let town = Town::new().await;
    town.create(&claim("own", "standard", "ReadWriteOncePod"))
        .await;
    town.create(&pod("first", on_claim("own"))).await;
    until_runs(&town, "first").await;
    town.create(&pod("second", on_claim("own"))).await;
    let used = "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod";
    until_waits(&town, "second", used).await;
    town.delete(&Resource::PODS, "first", "Background").await;
    until_runs(&town, "second").await;
}

#[tokio::test]
async fn a_claim_that_waits_for_its_consumer_is_bound_when_that_has_a_place_and_not_before() {
    let town = Town::new().await;
    let class = |name: &str, provisioner: &str| {
        json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name},
            "provisioner": provisioner, "volumeBindingMode": "WaitForFirstConsumer"})
    };
    town.create(&class("late", "stead.dev/volume")).await;
    town.create(&claim("patient", "late", "ReadWriteOnce"))
        .await;
    let told = town.until_told("WaitForFirstConsumer", "patient").await;
    assert_eq!(
        told,
        "waiting for first consumer to be created before binding"
    );
    let mut misfit = on_claim("patient");
    misfit["nodeSelector"] = json!({"no": "node"});
    town.create(&pod("misfit", misfit)).await;
    let selector = "node(s) didn't match Pod's node affinity/selector";
    until_waits(&town, "misfit", selector).await;
    let waiting = town
        .get(&Resource::CLAIMS, "patient")
        .await
        .expect("a claim");
    assert_eq!(
        text(&waiting, "/status/phase"),
        "Pending",
        "its consumer has no place"
    );
    town.create(&pod("consumer", on_claim("patient"))).await;
    until_runs(&town, "consumer").await;

    town.create(&class("by-hand", "kubernetes.io/no-provisioner"))
        .await;
    town.create(&claim("local", "by-hand", "ReadWriteOnce"))
        .await;
    town.create(&pod("local", on_claim("local"))).await;
    let none = "node(s) didn't find available persistent volumes to bind";
    until_waits(&town, "local", none).await;
    let volume = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "disk"},
        "spec": {"capacity": {"storage": "5Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "by-hand",
            "local": {"path": "/mnt/disk"}, "nodeAffinity": {"required": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["n1"]}]}]}}}});
    town.create(&volume).await;
    until_runs(&town, "local").await;
}

#[tokio::test]
async fn of_those_who_wait_the_most_important_gets_the_room_first() {
    let town = Town::with_room(1).await;
    town.create(&pod("holder", json!({}))).await;
    until_runs(&town, "holder").await;
    town.create(&json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "high"}, "value": 1000}))
        .await;
    town.create(&pod("early", json!({}))).await;
    until_waits(&town, "early", "Too many pods").await;
    let late = town
        .create(&pod("late", json!({"priorityClassName": "high"})))
        .await;
    assert_eq!(late["spec"]["priority"], 1000);
    until_waits(&town, "late", "Too many pods").await;
    // Nobody is sent away for it: there is no preemption.
    let holder = town.get(&Resource::PODS, "holder").await.expect("it stays");
    assert!(holder["metadata"]["deletionTimestamp"].is_null());
    town.delete(&Resource::PODS, "holder", "Background").await;
    until_runs(&town, "late").await;
    let early = town.get(&Resource::PODS, "early").await.expect("it waits");
    assert!(text(&early, "/spec/nodeName").is_empty());
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
