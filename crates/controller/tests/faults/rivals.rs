//! Two controllers at once, one of them paused in the middle of a round, and sets that are made again under their name.

use std::collections::BTreeSet;

use serde_json::Value;
use stead_controller::call::{Request, call};
use stead_controller::resource::{Resource, controller_of, text, uid};

use crate::proxy::{Call, Fault, Proxy};
use crate::world::{World, assert_harmless, count, creates, key, set, until_calls};

/// UIDs of the claims: none may change, whatever controllers do to each other.
async fn claims(world: &World) -> BTreeSet<String> {
    let all = world.until("claims", &Resource::CLAIMS, |_| true).await;
    all.values().map(|claim| uid(claim).to_owned()).collect()
}

fn names(call: &Call, name: &str) -> bool {
    call.path.ends_with(&format!("/pods/{name}"))
}

/// A controller that has caught up with everything, beside the one that was there before.
async fn second(world: &World) -> Proxy {
    let proxy = world.controller();
    until_calls(&proxy, "the second watches", |calls| {
        count(calls, |call| call.is_watch() && call.code == 200) == 4
    })
    .await;
    proxy
}

#[tokio::test]
async fn a_delete_that_was_paused_spares_the_pod_that_another_controller_made_meanwhile() {
    let world = World::new().await;
    let paused = world.controller();
    world
        .create(&Resource::STATEFUL_SETS, set("web", 2, "OrderedReady"))
        .await;
    world.until_ready("web", 2).await;
    let data = claims(&world).await;
    let (release, held) = Fault::hold();
    paused.on(1, held, |call| {
        call.verb == "DELETE" && names(call, "web-1")
    });
    world.roll("web", "b").await;
    until_calls(&paused, "a paused delete", |calls| {
        count(calls, |call| call.verb == "DELETE") == 1
    })
    .await;
    let other = second(&world).await;
    world.until_ready("web", 2).await;
    let living = world.until_pods(&["web-0", "web-1"]).await;
    release.send_replace(true);
    let answered = until_calls(&paused, "its answer", |calls| {
        calls
            .iter()
            .any(|call| call.verb == "DELETE" && call.code != 0)
    })
    .await;
    let delete = answered
        .iter()
        .find(|call| call.verb == "DELETE")
        .expect("it was sent");
    assert_eq!(delete.code, 409, "{delete:?}");
    world.scale("web", 3).await;
    world.until_ready("web", 3).await;
    let after = world.until_pods(&["web-0", "web-1", "web-2"]).await;
    for name in ["web-0", "web-1"] {
        assert_eq!(uid(&after[name]), uid(&living[name]), "{name} still lives");
    }
    assert!(data.is_subset(&claims(&world).await));
    assert_harmless(&paused.calls());
    assert_harmless(&other.calls());
}

#[tokio::test]
async fn a_create_that_was_paused_ends_at_the_name_that_is_taken_or_is_taken_back() {
    let world = World::new().await;
    let paused = world.proxy();
    let (release, held) = Fault::hold();
    paused.on(1, held, |call| {
        call.verb == "POST" && call.writes("/pods/web-2")
    });
    world.start(&paused);
    world
        .create(&Resource::STATEFUL_SETS, set("web", 3, "OrderedReady"))
        .await;
    until_calls(&paused, "a paused create", |calls| {
        creates(calls).contains_key("web-2")
    })
    .await;
    let data = claims(&world).await;
    let other = second(&world).await;
    world.until_ready("web", 3).await;
    world.scale("web", 2).await;
    world.until_ready("web", 2).await;
    // What it asks for was right when it decided. Nobody can forbid it now; it is undone, and its data stays.
    release.send_replace(true);
    until_calls(&paused, "its answer", |calls| {
        creates(calls)["web-2"] == [201]
    })
    .await;
    world.until_pods(&["web-0", "web-1"]).await;
    world.until_ready("web", 2).await;
    assert!(data.is_subset(&claims(&world).await));
    for calls in [paused.calls(), other.calls()] {
        assert_harmless(&calls);
        let lower = |call: &Call| call.verb == "DELETE" && !names(call, "web-2");
        assert_eq!(count(&calls, lower), 0);
    }
}

#[tokio::test]
async fn a_status_that_was_paused_does_not_overwrite_a_newer_one() {
    let world = World::new().await;
    let paused = world.controller();
    world
        .create(&Resource::STATEFUL_SETS, set("web", 2, "OrderedReady"))
        .await;
    world.until_ready("web", 2).await;
    let (release, held) = Fault::hold();
    let is_status = |call: &Call| call.writes("/web/status");
    paused.on(1, held, is_status);
    let before = count(&paused.calls(), is_status);
    world.scale("web", 3).await;
    until_calls(&paused, "a paused status", |calls| {
        count(calls, is_status) > before
    })
    .await;
    second(&world).await;
    world.until_ready("web", 3).await;
    release.send_replace(true);
    let calls = until_calls(&paused, "its answer", |calls| {
        calls
            .iter()
            .filter(|call| is_status(call))
            .nth(before)
            .is_some_and(|call| call.code != 0)
    })
    .await;
    let late = calls.iter().filter(|call| is_status(call)).nth(before);
    assert_eq!(late.map(|call| call.code), Some(409), "{late:?}");
    world.until_ready("web", 3).await;
}

#[tokio::test]
async fn two_controllers_at_once_make_each_pod_once_and_delete_none_that_should_live() {
    let world = World::new().await;
    let rivals = [world.controller(), world.controller()];
    world
        .create(&Resource::STATEFUL_SETS, set("web", 6, "Parallel"))
        .await;
    world.until_ready("web", 6).await;
    let data = claims(&world).await;
    let deletes = |rivals: &[Proxy; 2]| -> usize {
        let done = |call: &Call| call.verb == "DELETE" && call.code == 200;
        rivals.iter().map(|rival| count(&rival.calls(), done)).sum()
    };
    assert_eq!(deletes(&rivals), 0);
    world.roll("web", "b").await;
    world.until_ready("web", 6).await;
    // A pod that is going already may be asked to go by both: still the same one.
    let mut gone: BTreeSet<String> = BTreeSet::new();
    let mut made = 0;
    for rival in &rivals {
        let calls = rival.calls();
        assert_harmless(&calls);
        let deleted = calls
            .iter()
            .filter(|call| call.verb == "DELETE" && call.code == 200);
        gone.extend(deleted.map(|call| text(&call.body, "/preconditions/uid").to_owned()));
        let codes: Vec<u16> = creates(&calls).into_values().flatten().collect();
        assert!(
            codes.iter().all(|code| [201, 409].contains(code)),
            "{codes:?}"
        );
        made += codes.iter().filter(|code| **code == 201).count();
    }
    assert_eq!((made, gone.len()), (12, 6));
    assert_eq!(claims(&world).await, data);
}

#[tokio::test]
async fn a_set_made_again_under_its_name_while_the_cache_shows_the_old_one_gets_pods_of_its_own() {
    let world = World::new().await;
    let proxy = world.controller();
    let web = || set("web", 2, "OrderedReady");
    let old = world.create(&Resource::STATEFUL_SETS, web()).await;
    world.until_ready("web", 2).await;
    let data = claims(&world).await;
    // What it has seen of the fence it has seen of everything before it.
    let other = set("other", 1, "OrderedReady");
    world.create(&Resource::STATEFUL_SETS, other).await;
    until_calls(&proxy, "the fence", |calls| {
        creates(calls).contains_key("other-0")
    })
    .await;
    proxy.freeze("statefulsets", true);
    world.delete(&Resource::STATEFUL_SETS, "web").await;
    let new = world.create(&Resource::STATEFUL_SETS, web()).await;
    assert_ne!(uid(&old), uid(&new));
    // The garbage collector's part: what belonged to the old set goes. The controller, who still sees the old set, would replace it.
    let before = proxy.calls().len();
    for name in ["web-0", "web-1"] {
        world.delete(&Resource::PODS, name).await;
    }
    // Its first write for the old set, whichever that is, is refused or tells it that there is another set.
    let asked = |call: &Call| call.verb == "GET" && call.path.ends_with("/statefulsets/web");
    until_calls(&proxy, "it learns of the new set", |calls| {
        count(&calls[before..], asked) > 0
    })
    .await;
    let owned = |pod: &Value, set: &Value| {
        controller_of(pod).is_some_and(|owner| text(owner, "/uid") == uid(set))
    };
    proxy.freeze("statefulsets", false);
    let swept = collect_garbage(&world, uid(&old));
    let ready = async {
        world
            .until("two of the new set's own", &Resource::PODS, |pods| {
                ["web-0", "web-1"]
                    .iter()
                    .all(|name| pods.get(*name).is_some_and(|pod| owned(pod, &new)))
            })
            .await;
        world.until_ready("web", 2).await;
    };
    tokio::select! { () = ready => {}, () = swept => {} }
    assert!(data.is_subset(&claims(&world).await));
    assert_harmless(&proxy.calls());
    // Pods of the dead set are the garbage collector's: the controller deleted none.
    assert_eq!(count(&proxy.calls(), |call| call.verb == "DELETE"), 0);
}

/// Deletes pods whose owner is gone, for ever.
async fn collect_garbage(world: &World, dead: &str) {
    let is_garbage = |pod: &Value| {
        controller_of(pod).is_some_and(|owner| text(owner, "/uid") == dead)
            && pod["metadata"]["deletionTimestamp"].is_null()
    };
    loop {
        let pods = world
            .until("garbage", &Resource::PODS, |pods| {
                pods.values().any(is_garbage)
            })
            .await;
        for (name, pod) in pods.iter().filter(|(_, pod)| is_garbage(pod)) {
            let request = Request::delete(&Resource::PODS, &key(name), uid(pod));
            // It may have gone by itself.
            drop(call(&world.client, request).await);
        }
    }
}
