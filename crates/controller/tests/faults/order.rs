//! One round of a set at a time, its independent calls at once, and no set waits for another's.

use stead_controller::resource::Resource;

use crate::proxy::{Call, Fault};
use crate::world::{World, count, creates, set, until_calls};

#[tokio::test]
async fn a_set_whose_call_hangs_has_no_second_round_and_stops_no_other_set() {
    let world = World::new().await;
    let proxy = world.proxy();
    let (release, held) = Fault::hold();
    proxy.on(1, held, |call| {
        call.verb == "POST" && call.writes("/pods/web-0")
    });
    world.start(&proxy);
    world
        .create(&Resource::STATEFUL_SETS, set("web", 2, "OrderedReady"))
        .await;
    until_calls(&proxy, "a call that hangs", |calls| {
        creates(calls).contains_key("web-0")
    })
    .await;
    let of_web = |calls: &[Call]| count(calls, |call| call.line().contains("/web"));
    let before = of_web(&proxy.calls());
    for note in 0..10 {
        world.stir("web", &note.to_string()).await;
    }
    world
        .create(&Resource::STATEFUL_SETS, set("other", 2, "OrderedReady"))
        .await;
    world.until_ready("other", 2).await;
    assert_eq!(of_web(&proxy.calls()), before);
    release.send_replace(true);
    world.until_ready("web", 2).await;
    assert_eq!(creates(&proxy.calls())["web-0"], [201]);
}

#[tokio::test]
async fn pods_that_do_not_wait_for_each_other_are_asked_for_at_once() {
    let world = World::new().await;
    let proxy = world.proxy();
    let (release, held) = Fault::hold();
    // The first three pass (one, then two at once); the next four hang, all of them at the same time.
    proxy.on(4, held, |call| {
        let name = call.line();
        call.verb == "POST"
            && ["pods/web-3", "pods/web-4", "pods/web-5", "pods/web-6"]
                .iter()
                .any(|pod| name.ends_with(pod))
    });
    world.start(&proxy);
    world
        .create(&Resource::STATEFUL_SETS, set("web", 9, "Parallel"))
        .await;
    let hanging = |calls: &[Call]| {
        creates(calls)
            .values()
            .filter(|codes| codes.contains(&0))
            .count()
    };
    until_calls(&proxy, "four at once", |calls| hanging(calls) == 4).await;
    assert_eq!(creates(&proxy.calls()).len(), 7);
    release.send_replace(true);
    world.until_ready("web", 9).await;
    assert!(creates(&proxy.calls()).values().all(|all| all == &[201]));
}

#[tokio::test]
async fn an_ordered_set_asks_for_a_pod_only_when_the_one_before_is_ready() {
    let world = World::new().await;
    let proxy = world.controller();
    world
        .create(&Resource::STATEFUL_SETS, set("web", 4, "OrderedReady"))
        .await;
    world.until_ready("web", 4).await;
    let calls = proxy.calls();
    let lines: Vec<String> = calls
        .iter()
        .filter(|call| call.verb == "POST" && !call.path.ends_with("/events"))
        .map(|call| {
            call.line()
                .rsplit('/')
                .next()
                .unwrap_or_default()
                .to_owned()
        })
        .filter(|name| name.matches('-').count() == 2 || name.len() == "web-0".len())
        .collect();
    let wanted: Vec<String> = (0..4)
        .flat_map(|n| [format!("data-web-{n}"), format!("web-{n}")])
        .collect();
    assert_eq!(lines, wanted);
}
