//! Ten thousand replicas asked for where a hundred fit: what does not fit waits and says why, and the API stays quick.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stead_controller::resource::{Resource, list, text};

use crate::town::{Town, web};

/// What a read and a write may take together: a second on a machine that is busy with other things too.
const QUICK: Duration = Duration::from_secs(1);

fn huge(policy: &str) -> Value {
    let mut set = web(10_000);
    set["spec"]["podManagementPolicy"] = policy.into();
    if let Some(spec) = set["spec"].as_object_mut() {
        spec.remove("volumeClaimTemplates");
    }
    set
}

fn waits_for_room(pod: &Value) -> bool {
    let full = |own: &Value| text(own, "/message") == "0/1 nodes are available: 1 Too many pods.";
    list(pod, "/status/conditions").iter().any(full)
}

/// The median of some reads and writes of a user who is there meanwhile: one of them may meet a busy machine.
async fn typical_call(town: &Town) -> Duration {
    let mut calls = Vec::new();
    for round in 0..21 {
        let begin = Instant::now();
        town.merge(
            &Resource::CONFIG_MAPS,
            "mine",
            json!({"data": {"round": round.to_string()}}),
        )
        .await;
        town.get(&Resource::STATEFUL_SETS, "web")
            .await
            .expect("the set");
        calls.push(begin.elapsed());
    }
    calls.sort();
    calls[calls.len() / 2]
}

async fn with_a_map_of_mine() -> Town {
    let town = Town::with_room(100).await;
    town.create(&json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "default", "name": "mine"}})).await;
    town
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ordered_set_of_ten_thousand_fills_the_node_and_waits_with_the_first_that_does_not_fit()
{
    let town = with_a_map_of_mine().await;
    town.create(&huge("OrderedReady")).await;
    town.until_one(
        "web-100 waits for room",
        &Resource::PODS,
        "web-100",
        waits_for_room,
    )
    .await;
    let typical = typical_call(&town).await;
    assert!(typical < QUICK, "{typical:?}");
    town.until_counts("web", 100, 101).await;
    town.merge(
        &Resource::STATEFUL_SETS,
        "web",
        json!({"spec": {"replicas": 3}}),
    )
    .await;
    town.until_gone(&Resource::PODS, "web-100").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parallel_set_of_a_thousand_fills_the_node_and_the_rest_waits_and_says_why() {
    let town = with_a_map_of_mine().await;
    let mut set = huge("Parallel");
    set["spec"]["replicas"] = 1000.into();
    town.create(&set).await;
    let typical = typical_call(&town).await;
    assert!(typical < QUICK, "{typical:?}");
    town.until("900 wait for room", &Resource::PODS, |pods| {
        pods.len() == 1000 && pods.values().filter(|pod| waits_for_room(pod)).count() == 900
    })
    .await;
    town.until_counts("web", 100, 1000).await;
    town.merge(
        &Resource::STATEFUL_SETS,
        "web",
        json!({"spec": {"replicas": 0}}),
    )
    .await;
    town.until_ready("web", 0).await;
}
