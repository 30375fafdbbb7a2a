//! The way down: pods stop in reverse, what is wanted stays, and the next start brings everything back.

use std::sync::Mutex;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde_json::json;
use stead_cluster::stop_all;
use stead_controller::resource::{Resource, controller_of, is_terminating, uid};

use crate::town::{Town, web};

/// Stops everything in a town; gives what was told and the UIDs of the pods that keep their objects.
async fn stop(town: &Town) -> (Vec<String>, Vec<String>) {
    let kept = Mutex::new(Vec::new());
    let keep = |uid: String, _: Duration| -> BoxFuture<'_, Result<(), String>> {
        kept.lock().expect("no panic").push(uid);
        std::future::ready(Ok(())).boxed()
    };
    let mut told = Vec::new();
    stop_all(&town.client, &keep, |event| told.push(event.to_string())).await;
    (told, kept.into_inner().expect("no panic"))
}

#[tokio::test]
async fn pods_stop_in_reverse_order_and_come_back_in_order_with_their_claims() {
    let mut town = Town::new().await;
    town.create(&web(3)).await;
    town.until_ready("web", 3).await;
    let set = town
        .get(&Resource::STATEFUL_SETS, "web")
        .await
        .expect("the set");
    let claim = town
        .get(&Resource::CLAIMS, "data-web-2")
        .await
        .expect("a claim");
    town.stop_sets().await;
    let (told, _) = stop(&town).await;
    let expected: Vec<String> = [2, 1, 0]
        .iter()
        .flat_map(|ordinal| {
            let pod = format!("pod default/web-{ordinal}");
            [format!("{pod} is stopping"), format!("{pod} has stopped")]
        })
        .collect();
    assert_eq!(told, expected);
    let after = town
        .get(&Resource::STATEFUL_SETS, "web")
        .await
        .expect("the set stays");
    assert_eq!(after["spec"], set["spec"]);
    let mut pods = town.record_pods().await;
    town.start_sets();
    assert_eq!(pods.steps(3).await, ["+web-0", "+web-1", "+web-2"]);
    town.until_ready("web", 3).await;
    let kept = town
        .get(&Resource::CLAIMS, "data-web-2")
        .await
        .expect("the claim stays");
    assert_eq!(uid(&kept), uid(&claim));
}

#[tokio::test]
async fn a_pod_that_nobody_would_make_again_stops_and_keeps_its_object() {
    let mut town = Town::new().await;
    let bare = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "default", "name": "bare"},
        "spec": {"containers": [{"name": "c", "image": "stead.dev/host"}]}});
    let bare = town.create(&bare).await;
    town.until_one("it runs", &Resource::PODS, "bare", |pod| {
        pod["status"]["phase"] == "Running"
    })
    .await;
    town.stop_sets().await;
    let (told, kept) = stop(&town).await;
    assert_eq!(kept, [uid(&bare)]);
    assert_eq!(
        told,
        [
            "pod default/bare is stopping",
            "pod default/bare has stopped; it runs again at the next start"
        ]
    );
    let after = town
        .get(&Resource::PODS, "bare")
        .await
        .expect("its object stays");
    assert!(!is_terminating(&after) && controller_of(&after).is_none());
}

#[tokio::test]
async fn a_controller_that_starts_anew_goes_on_where_the_former_stopped() {
    let mut town = Town::new().await;
    town.set_sick("web-1", true);
    town.create(&web(3)).await;
    town.until_counts("web", 1, 2).await;
    town.stop_sets().await;
    town.set_sick("web-1", false);
    town.merge(
        &Resource::STATEFUL_SETS,
        "web",
        json!({"spec": {"replicas": 4}}),
    )
    .await;
    town.start_sets();
    town.until_ready("web", 4).await;
}
