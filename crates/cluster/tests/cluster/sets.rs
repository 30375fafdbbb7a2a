//! StatefulSets from the outside: what a user sees of ordinals, claims and owners.

use std::collections::BTreeMap;

use serde_json::json;
use stead_controller::resource::{
    Resource, controller_of, has_finalizer, is_terminating, text, uid,
};

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
        assert_eq!(text(&volume, "/spec/csi/driver"), "volume.stead.dev");
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

#[tokio::test]
async fn the_next_ordinal_is_not_stopped_before_the_one_above_it_is_gone() {
    let town = Town::new().await;
    town.create(&web(3)).await;
    town.until_ready("web", 3).await;
    town.set_stuck("web-2", true);
    town.merge(
        &Resource::STATEFUL_SETS,
        "web",
        json!({"spec": {"replicas": 1}}),
    )
    .await;
    town.until_one("web-2 is going", &Resource::PODS, "web-2", is_terminating)
        .await;
    let web1 = town
        .get(&Resource::PODS, "web-1")
        .await
        .expect("it is there");
    assert!(!is_terminating(&web1));
    let mut pods = town.record_pods().await;
    town.set_stuck("web-2", false);
    assert_eq!(pods.steps(2).await, ["-web-2", "-web-1"]);
    town.until_ready("web", 1).await;
}

#[tokio::test]
async fn a_deleted_pod_comes_back_under_its_name_with_its_claim() {
    let town = Town::new().await;
    town.create(&web(2)).await;
    town.until_ready("web", 2).await;
    let before = town.get(&Resource::PODS, "web-1").await.expect("a pod");
    let claim = town
        .get(&Resource::CLAIMS, "data-web-1")
        .await
        .expect("a claim");
    town.delete(&Resource::PODS, "web-1", "Background").await;
    town.until_one("another web-1 runs", &Resource::PODS, "web-1", |pod| {
        uid(pod) != uid(&before) && text(pod, "/status/phase") == "Running"
    })
    .await;
    town.until_ready("web", 2).await;
    let after = town
        .get(&Resource::CLAIMS, "data-web-1")
        .await
        .expect("a claim");
    assert_eq!(uid(&claim), uid(&after));
}

#[tokio::test]
async fn deleting_a_set_collects_its_pods_and_keeps_its_claims() {
    let town = Town::new().await;
    town.create(&web(3)).await;
    town.until_ready("web", 3).await;
    town.delete(&Resource::STATEFUL_SETS, "web", "Background")
        .await;
    town.until("no pods are left", &Resource::PODS, BTreeMap::is_empty)
        .await;
    town.until(
        "no revisions are left",
        &Resource::REVISIONS,
        BTreeMap::is_empty,
    )
    .await;
    let claims = town
        .until("the claims stay", &Resource::CLAIMS, |claims| {
            claims.len() == 3
        })
        .await;
    assert!(claims.values().all(|claim| !is_terminating(claim)));
}

#[tokio::test]
async fn deleting_in_the_foreground_keeps_the_set_until_its_pods_are_gone() {
    let town = Town::new().await;
    town.create(&web(2)).await;
    town.until_ready("web", 2).await;
    town.set_stuck("web-1", true);
    town.delete(&Resource::STATEFUL_SETS, "web", "Foreground")
        .await;
    town.until_gone(&Resource::PODS, "web-0").await;
    let set = town
        .get(&Resource::STATEFUL_SETS, "web")
        .await
        .expect("it waits");
    assert!(is_terminating(&set) && has_finalizer(&set, "foregroundDeletion"));
    town.set_stuck("web-1", false);
    town.until_gone(&Resource::STATEFUL_SETS, "web").await;
    assert!(
        town.get(&Resource::PODS, "web-1")
            .await
            .is_err_and(|error| error.is_not_found())
    );
}

#[tokio::test]
async fn orphaned_pods_live_on_and_a_set_of_the_same_name_adopts_them() {
    let town = Town::new().await;
    town.create(&web(2)).await;
    town.until_ready("web", 2).await;
    let before = town.get(&Resource::PODS, "web-0").await.expect("a pod");
    town.delete(&Resource::STATEFUL_SETS, "web", "Orphan").await;
    town.until_gone(&Resource::STATEFUL_SETS, "web").await;
    let orphan = town
        .get(&Resource::PODS, "web-0")
        .await
        .expect("it lives on");
    assert!(controller_of(&orphan).is_none() && !is_terminating(&orphan));
    let set = town.create(&web(2)).await;
    let adopted = town
        .until_one("web-0 is adopted", &Resource::PODS, "web-0", |pod| {
            controller_of(pod).is_some()
        })
        .await;
    assert_eq!(uid(&adopted), uid(&before));
    assert_eq!(
        controller_of(&adopted).map(|owner| text(owner, "/uid")),
        Some(uid(&set))
    );
    town.until_ready("web", 2).await;
}

#[tokio::test]
async fn claims_go_with_their_ordinal_and_their_set_where_the_policy_says_so() {
    let town = Town::new().await;
    let mut set = web(3);
    set["spec"]["persistentVolumeClaimRetentionPolicy"] =
        json!({"whenDeleted": "Delete", "whenScaled": "Delete"});
    town.create(&set).await;
    town.until_ready("web", 3).await;
    town.merge(
        &Resource::STATEFUL_SETS,
        "web",
        json!({"spec": {"replicas": 1}}),
    )
    .await;
    town.until_gone(&Resource::CLAIMS, "data-web-2").await;
    town.until_gone(&Resource::CLAIMS, "data-web-1").await;
    town.until("one volume is left", &Resource::VOLUMES, |volumes| {
        volumes.len() == 1
    })
    .await;
    town.until_ready("web", 1).await;
    let kept = town
        .get(&Resource::CLAIMS, "data-web-0")
        .await
        .expect("its ordinal is wanted");
    assert!(!is_terminating(&kept));
    town.delete(&Resource::STATEFUL_SETS, "web", "Background")
        .await;
    town.until("no claims are left", &Resource::CLAIMS, BTreeMap::is_empty)
        .await;
    town.until(
        "no volumes are left",
        &Resource::VOLUMES,
        BTreeMap::is_empty,
    )
    .await;
}

#[tokio::test]
async fn a_set_deleted_and_made_again_starts_over_with_the_claims_of_before() {
    let town = Town::new().await;
    town.create(&web(2)).await;
    town.until_ready("web", 2).await;
    let claim = town
        .get(&Resource::CLAIMS, "data-web-0")
        .await
        .expect("a claim");
    town.delete(&Resource::STATEFUL_SETS, "web", "Background")
        .await;
    town.until_gone(&Resource::STATEFUL_SETS, "web").await;
    let set = town.create(&web(2)).await;
    town.until_ready("web", 2).await;
    let pod = town.get(&Resource::PODS, "web-0").await.expect("a pod");
    assert_eq!(
        controller_of(&pod).map(|owner| text(owner, "/uid")),
        Some(uid(&set))
    );
    let after = town
        .get(&Resource::CLAIMS, "data-web-0")
        .await
        .expect("a claim");
    assert_eq!(uid(&claim), uid(&after));
}

#[tokio::test]
async fn a_failed_pod_is_replaced() {
    let town = Town::new().await;
    town.create(&web(1)).await;
    town.until_ready("web", 1).await;
    let before = town.get(&Resource::PODS, "web-0").await.expect("a pod");
    town.status(
        &Resource::PODS,
        "web-0",
        json!({"phase": "Failed", "reason": "Evicted"}),
    )
    .await;
    town.until_one("another web-0 runs", &Resource::PODS, "web-0", |pod| {
        uid(pod) != uid(&before) && text(pod, "/status/phase") == "Running"
    })
    .await;
}

#[tokio::test]
async fn a_new_template_rolls_from_the_highest_ordinal_down() {
    let town = Town::new().await;
    town.create(&web(3)).await;
    town.until_ready("web", 3).await;
    let mut pods = town.record_pods().await;
    let patch = json!({"spec": {"template": {"metadata": {"annotations": {"new": "yes"}}}}});
    town.merge(&Resource::STATEFUL_SETS, "web", patch).await;
    let steps = pods.steps(6).await;
    assert_eq!(
        steps,
        ["-web-2", "+web-2", "-web-1", "+web-1", "-web-0", "+web-0"]
    );
    town.until_one(
        "the roll is complete",
        &Resource::STATEFUL_SETS,
        "web",
        |set| {
            text(set, "/status/currentRevision") == text(set, "/status/updateRevision")
                && set["status"]["updatedReplicas"] == 3
        },
    )
    .await;
}

#[tokio::test]
async fn two_sets_of_one_selector_keep_to_their_own_pods() {
    let town = Town::new().await;
    let mut other = web(2);
    other["metadata"]["name"] = "shop".into();
    town.create(&web(2)).await;
    town.create(&other).await;
    town.until_ready("web", 2).await;
    town.until_ready("shop", 2).await;
    let pods = town
        .until("four pods", &Resource::PODS, |pods| pods.len() == 4)
        .await;
    for (key, pod) in pods {
        let owner = controller_of(&pod).map(|owner| text(owner, "/name").to_owned());
        assert_eq!(
            owner.as_deref(),
            key.name.rsplit_once('-').map(|(set, _)| set)
        );
    }
}

#[tokio::test]
async fn what_was_done_is_told_in_events() {
    let town = Town::new().await;
    town.create(&web(1)).await;
    let message = town.until_told("SuccessfulCreate", "web").await;
    assert!(
        [
            "Create Claim data-web-0 Pod web-0 in StatefulSet web success",
            "Create Pod web-0 in StatefulSet web successful"
        ]
        .contains(&message.as_str()),
        "{message}"
    );
    assert_eq!(
        town.until_told("Scheduled", "web-0").await,
        "Successfully assigned default/web-0 to n1"
    );
    town.until_told("ProvisioningSucceeded", "data-web-0").await;
}

#[tokio::test]
async fn when_all_is_done_nothing_is_written_any_more() {
    let town = Town::new().await;
    town.create(&web(2)).await;
    town.until_ready("web", 2).await;
    for name in ["web-0", "web-1"] {
        town.until_told("Scheduled", name).await;
        town.until_told("ProvisioningSucceeded", &format!("data-{name}"))
            .await;
    }
    town.pass_a_mark("first").await;
    let before = town.versions_of("web").await;
    assert!(before.len() > 10, "{before:?}");
    // Another set's life makes every controller look again; nothing of the first is written because of it.
    town.pass_a_mark("second").await;
    assert_eq!(town.versions_of("web").await, before);
}
