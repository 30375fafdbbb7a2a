//! StatefulSets from the outside: what a user sees of ordinals, claims and owners.

use serde_json::json;
use stead_controller::resource::{Resource, text, uid};

use crate::town::{Town, web};

#[tokio::test]
async fn a_set_of_three_comes_up_in_order_each_ordinal_with_its_claim() {
    let town = Town::new().await;
    let mut pods = town.record_pods().await;
    town.create(&web(3)).await;
    town.until_ready("web", 3).await;
    assert_eq!(pods.steps(3).await, ["+web-0", "+web-1", "+web-2"]);
    for ordinal in 0..3 {
        let claim = town
            .get(&Resource::CLAIMS, &format!("data-web-{ordinal}"))
            .await
            .expect("a claim");
        assert_eq!(text(&claim, "/status/phase"), "Bound");
        assert_eq!(
            text(&claim, "/spec/volumeName"),
            format!("pvc-{}", uid(&claim))
        );
        let volume = town
            .get(&Resource::VOLUMES, text(&claim, "/spec/volumeName"))
            .await
            .expect("a volume");
        assert_eq!(text(&volume, "/spec/claimRef/uid"), uid(&claim));
        assert_eq!(text(&volume, "/spec/csi/driver"), "stead.dev/volume");
    }
}

#[tokio::test]
async fn no_ordinal_starts_before_the_one_before_it_is_ready() {
    let town = Town::new().await;
    town.set_sick("web-1", true);
    town.create(&web(3)).await;
    town.until_one(
        "web-1 runs without being ready",
        &Resource::PODS,
        "web-1",
        |pod| text(pod, "/status/phase") == "Running",
    )
    .await;
    town.until_counts("web", 1, 2).await;
    assert!(
        town.get(&Resource::PODS, "web-2")
            .await
            .is_err_and(|error| error.is_not_found())
    );
    town.set_sick("web-1", false);
    town.until_ready("web", 3).await;
}

#[tokio::test]
async fn scaling_down_goes_in_reverse_one_at_a_time_and_keeps_the_claims() {
    let town = Town::new().await;
    town.create(&web(3)).await;
    town.until_ready("web", 3).await;
    let mut pods = town.record_pods().await;
    town.merge(
        &Resource::STATEFUL_SETS,
        "web",
        json!({"spec": {"replicas": 0}}),
    )
    .await;
    assert_eq!(pods.steps(3).await, ["-web-2", "-web-1", "-web-0"]);
    town.until_ready("web", 0).await;
    let claims = town
        .until("three claims", &Resource::CLAIMS, |claims| {
            claims.len() == 3
        })
        .await;
    assert!(
        claims
            .values()
            .all(|claim| text(claim, "/status/phase") == "Bound")
    );
}
