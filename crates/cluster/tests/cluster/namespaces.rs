//! Namespaces: furnished when made, emptied when deleted.

use serde_json::{Value, json};
use stead_controller::call::{Request, call};
use stead_controller::resource::{Resource, is_terminating, text};

use crate::town::{Objects, Town, web};

fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

#[tokio::test]
async fn a_new_namespace_gets_its_account_and_the_certificate_of_the_api() {
    let town = Town::new().await;
    town.create(&namespace("shop")).await;
    town.until_one(
        "an account",
        &Resource::SERVICE_ACCOUNTS,
        "shop/default",
        |_| true,
    )
    .await;
    let map = town
        .until_one(
            "a certificate",
            &Resource::CONFIG_MAPS,
            "shop/kube-root-ca.crt",
            |_| true,
        )
        .await;
    assert!(text(&map, "/data/ca.crt").contains("BEGIN CERTIFICATE"));
    town.delete(
        &Resource::CONFIG_MAPS,
        "shop/kube-root-ca.crt",
        "Background",
    )
    .await;
    town.until_one(
        "it is made again",
        &Resource::CONFIG_MAPS,
        "shop/kube-root-ca.crt",
        |own| own["metadata"]["uid"] != map["metadata"]["uid"],
    )
    .await;
}

#[tokio::test]
async fn a_deleted_namespace_goes_with_all_that_it_holds() {
    let town = Town::new().await;
    town.create(&namespace("shop")).await;
    town.until_one(
        "an account",
        &Resource::SERVICE_ACCOUNTS,
        "shop/default",
        |_| true,
    )
    .await;
    let mut set = web(2);
    set["metadata"]["namespace"] = "shop".into();
    town.create(&set).await;
    town.until_ready("shop/web", 2).await;
    town.create(&web(1)).await;
    town.delete(&Resource::NAMESPACES, "shop", "Background")
        .await;
    town.until_gone(&Resource::NAMESPACES, "shop").await;
    let none_of_it = |objects: &Objects| objects.keys().all(|key| key.namespace != "shop");
    for resource in [
        Resource::PODS,
        Resource::CLAIMS,
        Resource::STATEFUL_SETS,
        Resource::CONFIG_MAPS,
    ] {
        town.until("none of it is left", &resource, none_of_it)
            .await;
    }
    town.until_ready("web", 1).await;
}

#[tokio::test]
async fn a_namespace_waits_for_what_has_a_finalizer_and_says_so() {
    let town = Town::new().await;
    town.create(&namespace("shop")).await;
    let held = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"namespace": "shop", "name": "held", "finalizers": ["example.com/hold"]}});
    town.create(&held).await;
    town.delete(&Resource::NAMESPACES, "shop", "Background")
        .await;
    let waiting = town
        .until_one(
            "it says what is left",
            &Resource::NAMESPACES,
            "shop",
            |own| {
                own["status"]["conditions"].as_array().is_some_and(|all| {
                    all.iter().any(|own| {
                        own["type"] == "NamespaceContentRemaining" && own["status"] == "True"
                    })
                })
            },
        )
        .await;
    assert!(is_terminating(&waiting));
    town.until_one(
        "it is going",
        &Resource::CONFIG_MAPS,
        "shop/held",
        is_terminating,
    )
    .await;
    town.merge(
        &Resource::CONFIG_MAPS,
        "shop/held",
        json!({"metadata": {"finalizers": null}}),
    )
    .await;
    town.until_gone(&Resource::NAMESPACES, "shop").await;
}

#[tokio::test]
async fn a_quota_tells_what_is_used_and_lets_no_more_in() {
    let town = Town::new().await;
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"namespace": "default", "name": "few"},
        "spec": {"hard": {"pods": "2", "requests.storage": "2Gi"}}});
    let quotas = Resource {
        kind: "ResourceQuota".into(),
        plural: "resourcequotas".into(),
        ..Resource::PODS
    };
    call(&town.client, Request::create(&quotas, quota))
        .await
        .expect("a quota");
    town.create(&web(3)).await;
    town.until_one("two are used", &quotas, "few", |own| {
        own["status"]["used"] == json!({"pods": "2", "requests.storage": "2Gi"})
    })
    .await;
    let message = town.until_told("FailedCreate", "web").await;
    assert!(message.contains("exceeded quota: few"), "{message}");
    town.delete(&Resource::STATEFUL_SETS, "web", "Background")
        .await;
    town.until_one("only claims are left", &quotas, "few", |own| {
        own["status"]["used"] == json!({"pods": "0", "requests.storage": "2Gi"})
    })
    .await;
}
