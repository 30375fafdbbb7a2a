//! Calls that are refused, postponed, overtaken or never answered.

use std::time::Duration;

use serde_json::json;
use stead_controller::resource::Resource;

use crate::proxy::{Call, Fault, status};
use crate::world::{World, assert_harmless, count, creates, set, until_calls};

/// A create of a pod.
fn makes_pod(call: &Call) -> bool {
    call.verb == "POST" && call.path.ends_with("/pods")
}

#[tokio::test]
async fn after_a_retry_after_not_one_call_is_sent_before_it_is_over() {
    let world = World::new().await;
    let proxy = world.proxy();
    let busy = Fault::Answer {
        code: 429,
        body: status(429, "TooManyRequests"),
        retry_after: Some(2),
    };
    proxy.on(1, busy, makes_pod);
    world.start(&proxy);
    world
        .create(&Resource::STATEFUL_SETS, set("web", 5, "Parallel"))
        .await;
    let calls = until_calls(&proxy, "a refusal", |calls| {
        count(calls, |call| call.code == 429) == 1
    })
    .await;
    // Every reason to send something all the same: news of this set and of others, watches that end.
    world.stir("web", "a").await;
    world
        .create(&Resource::STATEFUL_SETS, set("other", 1, "OrderedReady"))
        .await;
    proxy.close("pods");
    proxy.close("statefulsets");
    let refused = calls
        .iter()
        .position(|call| call.code == 429)
        .expect("it was refused");
    world.until_ready("web", 5).await;
    world.until_ready("other", 1).await;
    let calls = proxy.calls();
    let over = calls[refused].at + Duration::from_secs(2);
    let early = calls[refused + 1..].iter().find(|call| call.at < over);
    assert!(early.is_none(), "{early:?}");
    assert_eq!(creates(&calls)["web-0"], [429, 201]);
}

#[tokio::test]
async fn a_busy_server_is_not_listed_from_either() {
    let world = World::new().await;
    let proxy = world.proxy();
    let busy = Fault::Answer {
        code: 503,
        body: status(503, "ServiceUnavailable"),
        retry_after: Some(1),
    };
    proxy.on(1, busy, |call| call.lists("pods"));
    world.start(&proxy);
    world
        .create(&Resource::STATEFUL_SETS, set("web", 1, "OrderedReady"))
        .await;
    world.until_ready("web", 1).await;
    let calls = proxy.calls();
    let refused = calls
        .iter()
        .find(|call| call.code == 503)
        .expect("it was refused");
    let again = calls
        .iter()
        .filter(|call| call.lists("pods"))
        .nth(1)
        .expect("asked again");
    assert!(again.at >= refused.at + Duration::from_secs(1));
    assert_eq!(creates(&calls)["web-0"], [201]);
}

#[tokio::test]
async fn a_server_that_fails_is_tried_again_and_the_status_is_told_meanwhile() {
    let world = World::new().await;
    let proxy = world.proxy();
    proxy.on(3, Fault::refuse(500, "InternalError"), makes_pod);
    world.start(&proxy);
    world
        .create(&Resource::STATEFUL_SETS, set("web", 2, "OrderedReady"))
        .await;
    world.until_ready("web", 2).await;
    let calls = proxy.calls();
    assert_eq!(creates(&calls)["web-0"], [500, 500, 500, 201]);
    assert_eq!(creates(&calls)["web-1"], [201]);
    let first_status = calls.iter().position(|call| call.writes("/web/status"));
    let first_success = calls
        .iter()
        .position(|call| makes_pod(call) && call.code == 201);
    assert!(first_status < first_success);
}

#[tokio::test]
async fn a_create_whose_answer_is_lost_is_not_sent_again_when_it_took_effect() {
    let world = World::new().await;
    let proxy = world.proxy();
    proxy.on(2, Fault::LoseReply, makes_pod);
    world.start(&proxy);
    world
        .create(&Resource::STATEFUL_SETS, set("web", 3, "OrderedReady"))
        .await;
    world.until_ready("web", 3).await;
    let creates = creates(&proxy.calls());
    assert_eq!(creates["web-0"], [0]);
    assert_eq!(creates["web-1"], [0]);
    assert_eq!(creates["web-2"], [201]);
}

#[tokio::test]
async fn a_create_is_at_worst_refused_when_nothing_can_be_learnt_about_the_lost_one() {
    let world = World::new().await;
    let proxy = world.proxy();
    proxy.freeze("pods", true);
    proxy.on(1, Fault::LoseReply, makes_pod);
    proxy.on(1, Fault::refuse(500, "InternalError"), |call| {
        call.verb == "GET" && call.path.ends_with("/pods/web-0")
    });
    world.start(&proxy);
    world
        .create(&Resource::STATEFUL_SETS, set("web", 1, "OrderedReady"))
        .await;
    let repeated = |calls: &[Call]| {
        creates(calls)
            .get("web-0")
            .is_some_and(|all| all == &[0, 409])
    };
    until_calls(&proxy, "a refused repetition", repeated).await;
    // Now it is known that there is one: no third create, however often the set is looked at.
    for note in ["a", "b", "c"] {
        world.stir("web", note).await;
    }
    proxy.freeze("pods", false);
    world.until_ready("web", 1).await;
    assert_eq!(creates(&proxy.calls())["web-0"], [0, 409]);
}

#[tokio::test]
async fn a_delete_whose_answer_is_lost_hits_no_successor() {
    let world = World::new().await;
    let proxy = world.controller();
    world
        .create(&Resource::STATEFUL_SETS, set("web", 2, "OrderedReady"))
        .await;
    world.until_ready("web", 2).await;
    proxy.on(2, Fault::LoseReply, |call| call.verb == "DELETE");
    world.roll("web", "b").await;
    world.until_ready("web", 2).await;
    let calls = proxy.calls();
    assert_eq!(creates(&calls)["web-0"], [201, 201]);
    assert_eq!(creates(&calls)["web-1"], [201, 201]);
    assert_harmless(&calls);
}

#[tokio::test]
async fn a_storm_of_conflicts_delays_and_harms_nothing() {
    let world = World::new().await;
    let proxy = world.controller();
    world
        .create(&Resource::STATEFUL_SETS, set("web", 3, "Parallel"))
        .await;
    world.until_ready("web", 3).await;
    proxy.on(10, Fault::refuse(409, "Conflict"), |call| {
        call.verb == "PATCH" || call.verb == "DELETE"
    });
    world.roll("web", "b").await;
    for note in 0..10 {
        world.stir("web", &note.to_string()).await;
    }
    world.until_ready("web", 3).await;
    let calls = proxy.calls();
    for name in ["web-0", "web-1", "web-2"] {
        assert_eq!(creates(&calls)[name], [201, 201], "{name}");
    }
    let deleted = |call: &Call| call.verb == "DELETE" && call.code == 200;
    assert_eq!(count(&calls, deleted), 3);
    assert_harmless(&calls);
}

#[tokio::test]
async fn no_pod_is_replaced_before_the_revision_that_it_is_replaced_for_is_stored() {
    let world = World::new().await;
    let proxy = world.controller();
    world
        .create(&Resource::STATEFUL_SETS, set("web", 2, "OrderedReady"))
        .await;
    world.until_ready("web", 2).await;
    let is_revision =
        |call: &Call| call.verb == "POST" && call.path.ends_with("/controllerrevisions");
    proxy.on(3, Fault::refuse(500, "InternalError"), is_revision);
    let before = proxy.calls().len();
    world.roll("web", "b").await;
    world.until_ready("web", 2).await;
    let calls = proxy.calls();
    let rolled = &calls[before..];
    let stored = rolled
        .iter()
        .position(|call| is_revision(call) && call.code == 201);
    let deleted = rolled.iter().position(|call| call.verb == "DELETE");
    assert_eq!(count(rolled, is_revision), 4);
    assert!(
        stored.is_some() && stored < deleted,
        "{stored:?} {deleted:?}"
    );
}

#[tokio::test]
async fn no_condemned_pod_goes_before_its_claim_says_that_it_goes_too() {
    let world = World::new().await;
    let proxy = world.controller();
    let mut web = set("web", 2, "OrderedReady");
    web["spec"]["persistentVolumeClaimRetentionPolicy"] =
        json!({"whenScaled": "Delete", "whenDeleted": "Retain"});
    world.create(&Resource::STATEFUL_SETS, web).await;
    world.until_ready("web", 2).await;
    let claim = |call: &Call| call.verb == "PATCH" && call.path.ends_with("/data-web-1");
    let before = proxy.calls().len();
    proxy.on(3, Fault::refuse(500, "InternalError"), claim);
    world.scale("web", 1).await;
    world.until_ready("web", 1).await;
    let calls = proxy.calls();
    let scaled = &calls[before..];
    let said = scaled
        .iter()
        .position(|call| claim(call) && call.code == 200);
    let deleted = scaled.iter().position(|call| call.verb == "DELETE");
    assert!(said.is_some() && said < deleted, "{said:?} {deleted:?}");
    assert_harmless(&calls);
}
