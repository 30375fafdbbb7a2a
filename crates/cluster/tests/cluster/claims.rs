//! Claims and volumes: what is made, bound, protected and given back.

use serde_json::{Value, json};
use stead_controller::call::{CallError, Method, Request, call};
use stead_controller::resource::{Key, Resource, has_finalizer, is_terminating, text, uid};

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

fn asks_for(size: &str) -> Value {
    json!({"spec": {"resources": {"requests": {"storage": size}}}})
}

async fn try_merge(town: &Town, name: &str, patch: Value) -> Result<Value, CallError> {
    let key = Key::new("default", name);
    let request = Request::patch(Method::MergePatch, &Resource::CLAIMS, &key, patch);
    call(&town.client, request).await
}

#[tokio::test]
async fn a_claim_grows_where_its_class_allows_it_and_never_shrinks() {
    let town = Town::new().await;
    town.create(&claim("fixed", json!("standard"))).await;
    until_bound(&town, "fixed").await;
    let refused = try_merge(&town, "fixed", asks_for("2Gi"))
        .await
        .expect_err("its class does not allow it");
    assert_eq!(refused.code(), 403);
    let class = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "elastic"},
        "provisioner": "stead.dev/volume", "allowVolumeExpansion": true});
    town.create(&class).await;
    town.create(&claim("grows", json!("elastic"))).await;
    let bound = until_bound(&town, "grows").await;
    try_merge(&town, "grows", asks_for("2Gi"))
        .await
        .expect("it may grow");
    let grown = town
        .until_one("it has grown", &Resource::CLAIMS, "grows", |own| {
            own["status"]["capacity"]["storage"] == "2Gi"
        })
        .await;
    assert!(
        grown["status"]["conditions"]
            .as_array()
            .is_none_or(Vec::is_empty)
    );
    let name = text(&bound, "/spec/volumeName");
    let volume = town.get(&Resource::VOLUMES, name).await.expect("a volume");
    assert_eq!(volume["spec"]["capacity"]["storage"], "2Gi");
    town.until_told("VolumeResizeSuccessful", "grows").await;
    let refused = try_merge(&town, "grows", asks_for("1Gi"))
        .await
        .expect_err("it never shrinks");
    assert_eq!(refused.code(), 422);
}

#[tokio::test]
async fn what_becomes_of_a_volume_is_what_its_policy_says_in_the_end() {
    let town = Town::new().await;
    for (name, policy) in [("kept", "Retain"), ("doomed", "Delete")] {
        town.create(&claim(name, json!("standard"))).await;
        let bound = until_bound(&town, name).await;
        let volume = text(&bound, "/spec/volumeName").to_owned();
        let patch = json!({"spec": {"persistentVolumeReclaimPolicy": "Retain"}});
        town.merge(&Resource::VOLUMES, &volume, patch).await;
        town.delete(&Resource::CLAIMS, name, "Background").await;
        town.until_one("it is released", &Resource::VOLUMES, &volume, |own| {
            text(own, "/status/phase") == "Released"
        })
        .await;
        let patch = json!({"spec": {"persistentVolumeReclaimPolicy": policy}});
        town.merge(&Resource::VOLUMES, &volume, patch).await;
        if policy == "Delete" {
            town.until_gone(&Resource::VOLUMES, &volume).await;
        } else {
            // Another claim's volume comes and goes meanwhile: the controller has been at work.
            town.create(&claim("mark", json!("standard"))).await;
            let mark = until_bound(&town, "mark").await;
            town.delete(&Resource::CLAIMS, "mark", "Background").await;
            town.until_gone(&Resource::VOLUMES, text(&mark, "/spec/volumeName"))
                .await;
            let kept = town.get(&Resource::VOLUMES, &volume).await.expect("kept");
            assert!(!is_terminating(&kept));
        }
    }
}

#[tokio::test]
async fn a_volume_that_nobody_here_can_delete_says_so() {
    let town = Town::new().await;
    let mut by_hand = volume("disk", "1Gi", "Delete");
    by_hand["spec"]["csi"] = json!(null);
    by_hand["spec"]["hostPath"] = json!({"path": "/mnt/disk"});
    town.create(&by_hand).await;
    let mut named = claim("a", json!(""));
    named["spec"]["volumeName"] = "disk".into();
    town.create(&named).await;
    until_bound(&town, "a").await;
    town.delete(&Resource::CLAIMS, "a", "Background").await;
    let message = town.until_told("VolumeFailedDelete", "disk").await;
    assert!(
        message.contains("no deletable volume plugin matched"),
        "{message}"
    );
    town.until_one("it failed", &Resource::VOLUMES, "disk", |own| {
        text(own, "/status/phase") == "Failed"
    })
    .await;
}

#[tokio::test]
async fn a_claim_that_names_its_volume_gets_that_one_or_is_told_why_not() {
    let town = Town::new().await;
    town.create(&volume("small", "512Mi", "Retain")).await;
    town.create(&volume("large", "5Gi", "Retain")).await;
    let mut named = claim("a", json!(""));
    named["spec"]["volumeName"] = "small".into();
    town.create(&named).await;
    let message = town.until_told("VolumeMismatch", "a").await;
    assert_eq!(
        message,
        "Cannot bind to requested volume \"small\": requested PV is too small"
    );
    let mut labelled = volume("labelled", "1Gi", "Retain");
    labelled["metadata"]["labels"] = json!({"disk": "fast"});
    town.create(&labelled).await;
    let mut picky = claim("b", json!(""));
    picky["spec"]["selector"] = json!({"matchLabels": {"disk": "fast"}});
    picky["spec"]["resources"]["requests"]["storage"] = "1Mi".into();
    town.create(&picky).await;
    let bound = until_bound(&town, "b").await;
    assert_eq!(text(&bound, "/spec/volumeName"), "labelled");
}

#[tokio::test]
async fn a_class_may_keep_its_volumes_in_another_folder() {
    let town = Town::new().await;
    let class = |name: &str, path: &str| {
        json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name},
            "provisioner": "stead.dev/volume", "parameters": {"path": path}})
    };
    town.create(&class("fast", "/mnt/fast")).await;
    town.create(&claim("a", json!("fast"))).await;
    let bound = until_bound(&town, "a").await;
    let name = text(&bound, "/spec/volumeName");
    let volume = town.get(&Resource::VOLUMES, name).await.expect("a volume");
    assert_eq!(
        volume["spec"]["csi"]["volumeAttributes"]["path"],
        "/mnt/fast"
    );
    town.create(&class("odd", "fast")).await;
    town.create(&claim("b", json!("odd"))).await;
    let message = town.until_told("ProvisioningFailed", "b").await;
    assert!(message.contains("must be an absolute path"), "{message}");
}

#[tokio::test]
async fn many_pods_share_a_claim_of_the_shared_kind() {
    let town = Town::new().await;
    let mut shared = claim("shared", json!("standard"));
    shared["spec"]["accessModes"] = json!(["ReadWriteMany", "ReadOnlyMany"]);
    town.create(&shared).await;
    for name in ["one", "two"] {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "default", "name": name},
            "spec": {"containers": [{"name": "c", "image": "i"}],
                "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "shared"}}]}});
        town.create(&pod).await;
        town.until_one("it runs", &Resource::PODS, name, |pod| {
            text(pod, "/status/phase") == "Running"
        })
        .await;
    }
    let bound = until_bound(&town, "shared").await;
    assert_eq!(
        bound["status"]["accessModes"],
        json!(["ReadWriteMany", "ReadOnlyMany"])
    );
}
