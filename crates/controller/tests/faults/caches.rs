//! Caches that lag, go backwards, end and expire: nothing is sent that a fresh cache would forbid.

use serde_json::{Value, json};
use stead_controller::call::Request;
use stead_controller::resource::{Resource, text};

use crate::proxy::{Call, Fault, Proxy, status};
use crate::world::{World, assert_harmless, count, creates, set, until_calls};

fn posts(calls: &[Call], name: &str) -> usize {
    count(calls, |call| {
        call.verb == "POST" && call.writes(&format!("/pods/{name}"))
    })
}

/// Creates another set and waits until its first pod is asked for: what was stirred before has had its turn.
async fn fence(world: &World, proxy: &Proxy, name: &str) {
    world
        .create(&Resource::STATEFUL_SETS, set(name, 1, "OrderedReady"))
        .await;
    let first = format!("{name}-0");
    until_calls(proxy, "the fence", |calls| posts(calls, &first) > 0).await;
}

/// Every pod was asked for once, and nothing was refused but a status that a test's own write overtook.
fn assert_once_each(calls: &[Call], pods: usize) {
    let creates = creates(calls);
    assert_eq!(creates.len(), pods, "{creates:?}");
    assert!(creates.values().all(|codes| codes == &[201]), "{creates:?}");
    let overtaken = |call: &Call| call.code == 409 && call.path.ends_with("/status");
    let refused = calls
        .iter()
        .find(|call| call.code >= 400 && !overtaken(call));
    assert!(refused.is_none(), "{refused:?}");
}

#[tokio::test]
async fn while_the_watch_of_pods_is_frozen_nothing_is_created_or_deleted_twice() {
    let world = World::new().await;
    let proxy = world.controller();
    until_calls(&proxy, "it watches", |calls| {
        count(calls, |call| call.is_watch()) == 4
    })
    .await;
    proxy.freeze("pods", true);
    world
        .create(&Resource::STATEFUL_SETS, set("web", 3, "Parallel"))
        .await;
    until_calls(&proxy, "three creates", |calls| creates(calls).len() == 3).await;
    for note in ["a", "b", "c"] {
        world.stir("web", note).await;
    }
    fence(&world, &proxy, "fence").await;
    assert_eq!(creates(&proxy.calls()).len(), 4, "{:?}", proxy.calls());
    proxy.freeze("pods", false);
    world.until_ready("web", 3).await;
    proxy.freeze("pods", true);
    world.scale("web", 0).await;
    let deletes = |calls: &[Call]| count(calls, |call| call.verb == "DELETE");
    until_calls(&proxy, "three deletes", |calls| deletes(calls) == 3).await;
    world.stir("web", "d").await;
    proxy.freeze("pods", false);
    world.until_ready("web", 0).await;
    assert_eq!(deletes(&proxy.calls()), 3);
    assert_once_each(&proxy.calls(), 4);
    assert_harmless(&proxy.calls());
}

#[tokio::test]
async fn while_the_watch_of_sets_is_frozen_the_status_is_not_written_over_and_over() {
    let world = World::new().await;
    let proxy = world.controller();
    world
        .create(&Resource::STATEFUL_SETS, set("web", 2, "OrderedReady"))
        .await;
    world.until_ready("web", 2).await;
    // What it has seen of the fence it has seen of everything before it.
    fence(&world, &proxy, "fence").await;
    proxy.freeze("statefulsets", true);
    let statuses = |calls: &[Call]| count(calls, |call| call.writes("/web/status"));
    let before = statuses(&proxy.calls());
    world.delete(&Resource::PODS, "web-1").await;
    until_calls(&proxy, "one status", |calls| statuses(calls) > before).await;
    proxy.freeze("statefulsets", false);
    world
        .until("web-1 is back", &Resource::PODS, |pods| {
            pods.get("web-1")
                .is_some_and(|pod| !text(pod, "/status/podIP").is_empty())
        })
        .await;
    world.until_ready("web", 2).await;
    let conflicts = count(&proxy.calls(), |call| call.code == 409);
    assert_eq!(conflicts, 0, "{:?}", proxy.calls());
}

#[tokio::test]
async fn a_list_older_than_what_was_seen_is_refused_until_the_server_has_caught_up() {
    let world = World::new().await;
    let proxy = world.controller();
    let old = world.send(Request::list(&Resource::PODS, None)).await;
    world
        .create(&Resource::STATEFUL_SETS, set("web", 3, "Parallel"))
        .await;
    world.until_ready("web", 3).await;
    let served = Fault::Answer {
        code: 200,
        body: old,
        retry_after: None,
    };
    proxy.on(3, served, |call| call.lists("pods"));
    let expired = json!({"type": "ERROR", "object": status(410, "Expired")});
    assert!(proxy.inject("pods", &expired));
    let lists = |calls: &[Call]| count(calls, |call| call.lists("pods"));
    until_calls(&proxy, "an old list", |calls| lists(calls) >= 2).await;
    world.stir("web", "a").await;
    until_calls(&proxy, "the true list", |calls| lists(calls) >= 5).await;
    fence(&world, &proxy, "fence").await;
    world.delete(&Resource::PODS, "web-1").await;
    until_calls(&proxy, "web-1 again", |calls| posts(calls, "web-1") == 2).await;
    world.until_ready("web", 3).await;
    let creates = creates(&proxy.calls());
    let all_well = creates.values().flatten().all(|code| *code == 201);
    assert!(all_well, "{creates:?}");
    assert_eq!(creates.values().flatten().count(), 5, "{creates:?}");
    assert_eq!(count(&proxy.calls(), |call| call.verb == "DELETE"), 0);
}

#[tokio::test]
async fn an_event_older_than_what_was_seen_is_left_out() {
    let world = World::new().await;
    let proxy = world.controller();
    world
        .create(&Resource::STATEFUL_SETS, set("web", 2, "OrderedReady"))
        .await;
    let young = world
        .until("web-0", &Resource::PODS, |pods| pods.contains_key("web-0"))
        .await;
    world.until_ready("web", 2).await;
    let old: &Value = &young["web-0"];
    for kind in ["DELETED", "MODIFIED"] {
        assert!(proxy.inject("pods", &json!({"type": kind, "object": old})));
    }
    world.scale("web", 3).await;
    world.until_ready("web", 3).await;
    assert_once_each(&proxy.calls(), 3);
}

#[tokio::test]
async fn watches_that_close_again_and_again_go_on_where_they_were_and_list_nothing_again() {
    let world = World::new().await;
    let proxy = world.controller();
    world
        .create(&Resource::STATEFUL_SETS, set("web", 3, "OrderedReady"))
        .await;
    for name in ["web-0", "web-1", "web-2"] {
        until_calls(&proxy, name, |calls| posts(calls, name) == 1).await;
        for plural in [
            "pods",
            "statefulsets",
            "persistentvolumeclaims",
            "controllerrevisions",
        ] {
            proxy.close(plural);
        }
    }
    world.until_ready("web", 3).await;
    let calls = proxy.calls();
    assert_once_each(&calls, 3);
    assert_eq!(count(&calls, |call| call.lists("pods")), 1);
    let watches: Vec<&Call> = calls
        .iter()
        .filter(|call| call.is_watch() && call.path.ends_with("/pods"))
        .collect();
    assert!(watches.len() > 1, "{watches:?}");
    let all_go_on = watches
        .iter()
        .all(|call| call.query.contains("resourceVersion="));
    assert!(all_go_on, "{watches:?}");
}

#[tokio::test]
async fn a_watch_whose_version_has_expired_lists_again() {
    let world = World::new().await;
    let proxy = world.controller();
    world
        .create(&Resource::STATEFUL_SETS, set("web", 1, "OrderedReady"))
        .await;
    world.until_ready("web", 1).await;
    proxy.on(1, Fault::refuse(410, "Expired"), |call| {
        call.is_watch() && call.path.ends_with("/pods")
    });
    assert!(proxy.close("pods"));
    let lists = |calls: &[Call]| count(calls, |call| call.lists("pods"));
    until_calls(&proxy, "a second list", |calls| lists(calls) == 2).await;
    world.scale("web", 3).await;
    world.until_ready("web", 3).await;
    assert_eq!(creates(&proxy.calls()).len(), 3);
    assert_eq!(count(&proxy.calls(), |call| call.code == 409), 0);
}

#[tokio::test]
async fn an_error_in_the_stream_is_no_reason_to_list_again() {
    let world = World::new().await;
    let proxy = world.controller();
    world
        .create(&Resource::STATEFUL_SETS, set("web", 1, "OrderedReady"))
        .await;
    world.until_ready("web", 1).await;
    let watches = |calls: &[Call]| {
        count(calls, |call| {
            call.is_watch() && call.path.ends_with("/pods")
        })
    };
    let before = watches(&proxy.calls());
    let broken = json!({"type": "ERROR", "object": status(500, "InternalError")});
    assert!(proxy.inject("pods", &broken));
    until_calls(&proxy, "another watch", |calls| watches(calls) > before).await;
    world.scale("web", 2).await;
    world.until_ready("web", 2).await;
    let calls = proxy.calls();
    assert_once_each(&calls, 2);
    assert_eq!(count(&calls, |call| call.lists("pods")), 1);
}

#[tokio::test]
async fn a_list_whose_pages_expire_is_asked_for_as_a_whole() {
    let world = World::new().await;
    let pages = |call: &Call| call.query.contains("continue=");
    let crowd = (0..501).map(|n| {
        let metadata = json!({"namespace": "default", "name": format!("crowd-{n}")});
        let revision = json!({"apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": metadata, "data": {}, "revision": 1});
        async { world.create(&Resource::REVISIONS, revision).await }
    });
    futures::future::join_all(crowd).await;
    let proxy = world.proxy();
    proxy.on(1, Fault::refuse(410, "Expired"), pages);
    world.start(&proxy);
    world
        .create(&Resource::STATEFUL_SETS, set("web", 2, "OrderedReady"))
        .await;
    world.until_ready("web", 2).await;
    let calls = proxy.calls();
    let lists: Vec<&str> = calls
        .iter()
        .filter(|call| call.lists("controllerrevisions"))
        .map(|call| call.query.split('=').next().unwrap_or_default())
        .collect();
    assert_eq!(lists, ["limit", "limit", ""]);
    assert_eq!(count(&calls, pages), 1);
    assert_eq!(creates(&calls).len(), 2);
}
