//! Garbage collection by owner references, whatever the kinds.

use serde_json::{Value, json};
use stead_controller::call::{Method, Request, call};
use stead_controller::resource::{Key, Resource, is_terminating, list, text, uid};

use crate::town::Town;

fn map(name: &str, owners: &[Value]) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"namespace": "default", "name": name, "ownerReferences": owners}})
}

fn owner(object: &Value, blocks: bool) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "name": text(object, "/metadata/name"), "uid": uid(object),
        "blockOwnerDeletion": blocks})
}

#[tokio::test]
async fn a_chain_of_owners_goes_link_by_link() {
    let town = Town::new().await;
    let a = town.create(&map("a", &[])).await;
    let b = town.create(&map("b", &[owner(&a, false)])).await;
    town.create(&map("c", &[owner(&b, false)])).await;
    town.delete(&Resource::CONFIG_MAPS, "a", "Background").await;
    town.until_gone(&Resource::CONFIG_MAPS, "c").await;
    town.until_gone(&Resource::CONFIG_MAPS, "b").await;
}

#[tokio::test]
async fn an_object_with_an_owner_left_stays_and_loses_the_reference_to_the_other() {
    let town = Town::new().await;
    let a = town.create(&map("a", &[])).await;
    let b = town.create(&map("b", &[])).await;
    town.create(&map("both", &[owner(&a, false), owner(&b, false)]))
        .await;
    town.delete(&Resource::CONFIG_MAPS, "a", "Background").await;
    let freed = town
        .until_one("one owner is left", &Resource::CONFIG_MAPS, "both", |own| {
            list(own, "/metadata/ownerReferences").len() == 1
        })
        .await;
    assert_eq!(text(&freed, "/metadata/ownerReferences/0/uid"), uid(&b));
    assert!(!is_terminating(&freed));
}

#[tokio::test]
async fn an_owner_of_the_same_name_but_another_uid_is_no_owner() {
    let town = Town::new().await;
    let mut a = town.create(&map("a", &[])).await;
    a["metadata"]["uid"] = "00000000-0000-0000-0000-000000000001".into();
    town.create(&map("b", &[owner(&a, false)])).await;
    town.until_gone(&Resource::CONFIG_MAPS, "b").await;
    assert!(town.get(&Resource::CONFIG_MAPS, "a").await.is_ok());
}

#[tokio::test]
async fn an_owner_of_a_kind_that_is_not_served_keeps_its_dependents() {
    let town = Town::new().await;
    let stranger = json!({"apiVersion": "example.com/v1", "kind": "Widget", "name": "w", "uid": "00000000-0000-0000-0000-000000000002"});
    town.create(&map("kept", &[stranger])).await;
    let a = town.create(&map("a", &[])).await;
    town.create(&map("b", &[owner(&a, false)])).await;
    town.delete(&Resource::CONFIG_MAPS, "a", "Background").await;
    town.until_gone(&Resource::CONFIG_MAPS, "b").await;
    let kept = town
        .get(&Resource::CONFIG_MAPS, "kept")
        .await
        .expect("nobody can say that its owner is gone");
    assert!(!is_terminating(&kept));
}

#[tokio::test]
async fn deleting_in_the_foreground_waits_only_for_those_that_block() {
    let town = Town::new().await;
    let a = town.create(&map("a", &[])).await;
    let mut slow = map("slow", &[owner(&a, true)]);
    slow["metadata"]["finalizers"] = json!(["example.com/slow"]);
    town.create(&slow).await;
    town.create(&map("quick", &[owner(&a, true)])).await;
    town.delete(&Resource::CONFIG_MAPS, "a", "Foreground").await;
    town.until_gone(&Resource::CONFIG_MAPS, "quick").await;
    let slow = town
        .until_one(
            "it is going",
            &Resource::CONFIG_MAPS,
            "slow",
            is_terminating,
        )
        .await;
    assert!(
        town.get(&Resource::CONFIG_MAPS, "a").await.is_ok(),
        "it waits for the slow one"
    );
    let patch = json!({"metadata": {"uid": uid(&slow), "finalizers": null}});
    let request = Request::patch(
        Method::MergePatch,
        &Resource::CONFIG_MAPS,
        &Key::of(&slow),
        patch,
    );
    call(&town.client, request).await.expect("patched");
    town.until_gone(&Resource::CONFIG_MAPS, "a").await;
}

#[tokio::test]
async fn objects_that_own_each_other_do_not_wait_for_each_other_for_ever() {
    let town = Town::new().await;
    let a = town.create(&map("a", &[])).await;
    let b = town.create(&map("b", &[owner(&a, true)])).await;
    town.merge(
        &Resource::CONFIG_MAPS,
        "a",
        json!({"metadata": {"ownerReferences": [owner(&b, true)]}}),
    )
    .await;
    town.delete(&Resource::CONFIG_MAPS, "a", "Foreground").await;
    town.until_gone(&Resource::CONFIG_MAPS, "a").await;
    town.until_gone(&Resource::CONFIG_MAPS, "b").await;
}
