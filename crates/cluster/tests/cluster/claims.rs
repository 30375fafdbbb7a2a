//! Claims and volumes: what is made, bound, protected and given back.

use serde_json::{Value, json};
use stead_controller::resource::{Resource, has_finalizer, is_terminating, text, uid};

use crate::town::Town;

fn claim(name: &str, class: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"namespace": "default", "name": name},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": class, "resources": {"requests": {"storage": "1Gi"}}}})
}

fn volume(name: &str, size: &str, policy: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
        "spec": {"capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"], "storageClassName": "",
            "persistentVolumeReclaimPolicy": policy, "csi": {"driver": "volume.stead.dev", "volumeHandle": name}}})
}

async fn until_bound(town: &Town, name: &str) -> Value {
    town.until_one("it is bound", &Resource::CLAIMS, name, |claim| {
        text(claim, "/status/phase") == "Bound"
    })
    .await
}

#[tokio::test]
async fn a_claim_gets_a_volume_of_its_class_with_all_the_marks_of_a_bound_one() {
    let town = Town::new().await;
    town.create(&claim("a", json!("standard"))).await;
    let bound = until_bound(&town, "a").await;
    let annotations = &bound["metadata"]["annotations"];
    assert_eq!(annotations["pv.kubernetes.io/bind-completed"], "yes");
    assert_eq!(annotations["pv.kubernetes.io/bound-by-controller"], "yes");
    assert_eq!(
        annotations["volume.kubernetes.io/storage-provisioner"],
        "stead.dev/volume"
    );
    assert_eq!(bound["status"]["capacity"], json!({"storage": "1Gi"}));
    let name = text(&bound, "/spec/volumeName");
    let volume = town
        .until_one("the volume is bound", &Resource::VOLUMES, name, |own| {
            text(own, "/status/phase") == "Bound"
        })
        .await;
    assert!(has_finalizer(&volume, "stead.dev/volume"));
    assert_eq!(volume["spec"]["persistentVolumeReclaimPolicy"], "Delete");
}

#[tokio::test]
async fn a_claim_that_cannot_be_had_says_why_and_stays_pending() {
    let town = Town::new().await;
    town.create(&claim("odd", json!("odd"))).await;
    let message = town.until_told("ProvisioningFailed", "odd").await;
    assert_eq!(message, "storageclass.storage.k8s.io \"odd\" not found");
    town.create(&claim("none", json!(""))).await;
    let message = town.until_told("FailedBinding", "none").await;
    assert_eq!(
        message,
        "no persistent volumes available for this claim and no storage class is set"
    );
    let mut block = claim("block", json!("standard"));
    block["spec"]["volumeMode"] = "Block".into();
    town.create(&block).await;
    let message = town.until_told("ProvisioningFailed", "block").await;
    assert!(message.contains("block devices"), "{message}");
    for name in ["odd", "none", "block"] {
        let claim = town.get(&Resource::CLAIMS, name).await.expect("it waits");
        assert_eq!(text(&claim, "/status/phase"), "Pending");
    }
}

#[tokio::test]
async fn a_claim_is_bound_once_its_class_is_there() {
    let town = Town::new().await;
    town.create(&claim("early", json!("later"))).await;
    town.until_told("ProvisioningFailed", "early").await;
    let class = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "later"},
        "provisioner": "stead.dev/volume", "reclaimPolicy": "Retain"});
    town.create(&class).await;
    let bound = until_bound(&town, "early").await;
    let volume = town
        .get(&Resource::VOLUMES, text(&bound, "/spec/volumeName"))
        .await
        .expect("a volume");
    assert_eq!(volume["spec"]["persistentVolumeReclaimPolicy"], "Retain");
}

#[tokio::test]
async fn a_claim_that_names_no_class_gets_the_default_one_as_soon_as_there_is_one() {
    let town = Town::new().await;
    town.delete(&Resource::STORAGE_CLASSES, "standard", "Background")
        .await;
    let mut early = claim("early", json!(null));
    early["spec"]
        .as_object_mut()
        .expect("a spec")
        .remove("storageClassName");
    town.create(&early).await;
    town.until_told("FailedBinding", "early").await;
    let class = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "provisioner": "stead.dev/volume",
        "metadata": {"name": "late", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}});
    town.create(&class).await;
    let bound = until_bound(&town, "early").await;
    assert_eq!(text(&bound, "/spec/storageClassName"), "late");
}

#[tokio::test]
async fn a_volume_made_by_hand_is_bound_to_the_claim_that_it_suits() {
    let town = Town::new().await;
    town.create(&volume("small", "512Mi", "Retain")).await;
    town.create(&volume("large", "5Gi", "Retain")).await;
    town.until_one("it is free", &Resource::VOLUMES, "large", |own| {
        text(own, "/status/phase") == "Available"
    })
    .await;
    town.create(&claim("a", json!(""))).await;
    let bound = until_bound(&town, "a").await;
    assert_eq!(text(&bound, "/spec/volumeName"), "large");
}

#[tokio::test]
async fn a_volume_whose_policy_is_retain_outlives_its_claim_and_serves_no_other() {
    let town = Town::new().await;
    town.create(&volume("kept", "1Gi", "Retain")).await;
    town.create(&claim("a", json!(""))).await;
    until_bound(&town, "a").await;
    town.delete(&Resource::CLAIMS, "a", "Background").await;
    town.until_one("it is released", &Resource::VOLUMES, "kept", |own| {
        text(own, "/status/phase") == "Released"
    })
    .await;
    town.create(&claim("a", json!(""))).await;
    town.until_told("FailedBinding", "a").await;
    let kept = town
        .get(&Resource::VOLUMES, "kept")
        .await
        .expect("it is kept");
    assert!(!is_terminating(&kept));
}

#[tokio::test]
async fn a_volume_whose_policy_is_delete_goes_after_its_claim() {
    let town = Town::new().await;
    town.create(&claim("a", json!("standard"))).await;
    let bound = until_bound(&town, "a").await;
    town.delete(&Resource::CLAIMS, "a", "Background").await;
    town.until_gone(&Resource::VOLUMES, text(&bound, "/spec/volumeName"))
        .await;
}

#[tokio::test]
async fn a_claim_in_use_is_not_deleted_before_its_pod_is_gone() {
    let town = Town::new().await;
    town.create(&claim("used", json!("standard"))).await;
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "default", "name": "user"},
        "spec": {"containers": [{"name": "c", "image": "i"}],
            "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "used"}}]}});
    town.create(&pod).await;
    town.until_one("it runs", &Resource::PODS, "user", |pod| {
        text(pod, "/status/phase") == "Running"
    })
    .await;
    town.delete(&Resource::CLAIMS, "used", "Background").await;
    // A claim that nobody uses goes meanwhile: the controller has been at work.
    town.create(&claim("unused", json!("standard"))).await;
    until_bound(&town, "unused").await;
    town.delete(&Resource::CLAIMS, "unused", "Background").await;
    town.until_gone(&Resource::CLAIMS, "unused").await;
    let used = town
        .get(&Resource::CLAIMS, "used")
        .await
        .expect("it is in use");
    assert!(is_terminating(&used));
    town.delete(&Resource::PODS, "user", "Background").await;
    town.until_gone(&Resource::CLAIMS, "used").await;
}

#[tokio::test]
async fn a_claim_whose_volume_was_taken_away_says_that_it_lost_it() {
    let town = Town::new().await;
    town.create(&claim("a", json!("standard"))).await;
    let bound = until_bound(&town, "a").await;
    let name = text(&bound, "/spec/volumeName");
    town.until_one("bound", &Resource::VOLUMES, name, |own| {
        text(own, "/status/phase") == "Bound"
    })
    .await;
    town.merge(
        &Resource::VOLUMES,
        name,
        json!({"metadata": {"finalizers": null}}),
    )
    .await;
    town.delete(&Resource::VOLUMES, name, "Background").await;
    town.until_one("it is lost", &Resource::CLAIMS, "a", |own| {
        text(own, "/status/phase") == "Lost"
    })
    .await;
    let message = town.until_told("ClaimLost", "a").await;
    assert!(message.contains("lost its PersistentVolume"), "{message}");
    let lost = town.get(&Resource::CLAIMS, "a").await.expect("it stays");
    assert_eq!(uid(&lost), uid(&bound));
}
