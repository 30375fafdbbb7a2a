//! Services and budgets: who answers under which name, and who may be evicted.

use serde_json::{Value, json};
use stead_controller::call::{CallError, Method, Request, call};
use stead_controller::resource::{Key, Resource, list, text};

use crate::town::{Objects, Town, web};

fn service(name: &str, headless: bool) -> Value {
    let mut service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "default", "name": name},
        "spec": {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]}});
    if headless {
        service["spec"]["clusterIP"] = "None".into();
    }
    service
}

/// Host names of the ready endpoints of a service.
fn ready(slices: &Objects, service: &str) -> Vec<String> {
    let own = slices
        .values()
        .filter(|slice| slice["metadata"]["labels"]["kubernetes.io/service-name"] == service);
    let endpoints = own.flat_map(|slice| list(slice, "/endpoints"));
    let ready = endpoints.filter(|own| own["conditions"]["ready"] == true);
    let mut names: Vec<String> = ready.map(|own| text(own, "/hostname").to_owned()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn the_governing_service_names_each_ready_ordinal() {
    let town = Town::new().await;
    town.create(&service("web", true)).await;
    town.set_sick("web-1", true);
    town.create(&web(2)).await;
    let slices = town
        .until("one is ready", &Resource::ENDPOINT_SLICES, |slices| {
            ready(slices, "web") == ["web-0"]
                && slices
                    .values()
                    .any(|own| list(own, "/endpoints").len() == 2)
        })
        .await;
    let slice = slices
        .values()
        .find(|own| !list(own, "/endpoints").is_empty())
        .expect("just seen");
    assert_eq!(
        slice["ports"],
        json!([{"name": "http", "port": 80, "protocol": "TCP"}])
    );
    town.set_sick("web-1", false);
    town.until("both are", &Resource::ENDPOINT_SLICES, |slices| {
        ready(slices, "web") == ["web-0", "web-1"]
    })
    .await;
    town.merge(
        &Resource::STATEFUL_SETS,
        "web",
        json!({"spec": {"replicas": 0}}),
    )
    .await;
    town.until("none is", &Resource::ENDPOINT_SLICES, |slices| {
        ready(slices, "web").is_empty()
    })
    .await;
}

#[tokio::test]
async fn another_service_lists_the_pods_without_their_names_and_its_slices_go_with_it() {
    let town = Town::new().await;
    town.create(&service("front", false)).await;
    town.create(&web(1)).await;
    town.until("one is ready", &Resource::ENDPOINT_SLICES, |slices| {
        ready(slices, "front") == [""]
    })
    .await;
    town.delete(&Resource::SERVICES, "front", "Background")
        .await;
    town.until(
        "its slices are gone",
        &Resource::ENDPOINT_SLICES,
        Objects::is_empty,
    )
    .await;
}

#[tokio::test]
async fn who_still_reads_the_old_endpoints_finds_the_same_pods_there() {
    let town = Town::new().await;
    town.create(&service("web", true)).await;
    town.create(&web(1)).await;
    let endpoints = Resource {
        kind: "Endpoints".into(),
        plural: "endpoints".into(),
        ..Resource::SERVICES
    };
    let own = town
        .until_one("one is ready", &endpoints, "web", |own| {
            list(own, "/subsets/0/addresses").len() == 1
        })
        .await;
    assert_eq!(own["subsets"][0]["addresses"][0]["hostname"], "web-0");
    assert_eq!(
        own["subsets"][0]["ports"],
        json!([{"name": "http", "port": 80, "protocol": "TCP"}])
    );
    town.delete(&Resource::SERVICES, "web", "Background").await;
    town.until_gone(&endpoints, "web").await;
}

fn balanced(name: &str, port: u16) -> Value {
    let mut service = service(name, false);
    service["spec"]["type"] = "LoadBalancer".into();
    service["spec"]["ports"][0]["port"] = port.into();
    service
}

#[tokio::test]
async fn a_load_balancer_gets_the_machines_address_once_its_ports_are_free() {
    let town = Town::new().await;
    let has_address =
        |own: &Value| own["status"]["loadBalancer"]["ingress"][0]["ip"] == "198.51.100.7";
    let first = town.create(&balanced("first", 80)).await;
    assert!(first["spec"]["ports"][0]["nodePort"].as_i64() >= Some(30_000));
    town.until_one("it has it", &Resource::SERVICES, "first", has_address)
        .await;
    town.create(&balanced("second", 80)).await;
    let message = town.until_told("SyncLoadBalancerFailed", "second").await;
    assert!(
        message.contains("held by the service default/first"),
        "{message}"
    );
    town.create(&balanced("ssh", 22)).await;
    let message = town.until_told("SyncLoadBalancerFailed", "ssh").await;
    assert!(
        message.contains("held by a program of the machine"),
        "{message}"
    );
    town.merge(
        &Resource::SERVICES,
        "first",
        json!({"spec": {"type": "ClusterIP"}}),
    )
    .await;
    town.until_one("it has it now", &Resource::SERVICES, "second", has_address)
        .await;
    town.until_one(
        "it has none any more",
        &Resource::SERVICES,
        "first",
        |own| list(own, "/status/loadBalancer/ingress").is_empty(),
    )
    .await;
}

async fn evict(town: &Town, pod: &str) -> Result<Value, CallError> {
    let body = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"namespace": "default", "name": pod}});
    let request = Request::patch(
        Method::Post,
        &Resource::PODS,
        &Key::new("default", pod),
        body,
    )
    .on("eviction");
    call(&town.client, request).await
}

#[tokio::test]
async fn a_budget_lets_so_many_pods_be_evicted_and_no_more() {
    let town = Town::new().await;
    let budget = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": {"namespace": "default", "name": "web"},
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "web"}}}});
    town.create(&budget).await;
    town.create(&web(2)).await;
    town.until_ready("web", 2).await;
    let allowed = |count: i64| {
        move |own: &Value| {
            own["status"]["disruptionsAllowed"] == count && own["status"]["expectedPods"] == 2
        }
    };
    town.until_one(
        "one may go",
        &Resource::DISRUPTION_BUDGETS,
        "web",
        allowed(1),
    )
    .await;
    town.set_stuck("web-0", true);
    evict(&town, "web-0").await.expect("one may go");
    town.until_one(
        "no other may",
        &Resource::DISRUPTION_BUDGETS,
        "web",
        allowed(0),
    )
    .await;
    let refused = evict(&town, "web-1").await.expect_err("no other may go");
    assert_eq!(refused.code(), 429);
    town.set_stuck("web-0", false);
    town.until_ready("web", 2).await;
    town.until_one(
        "one may go again",
        &Resource::DISRUPTION_BUDGETS,
        "web",
        allowed(1),
    )
    .await;
}
