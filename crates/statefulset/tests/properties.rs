//! Whatever is observed, a decision keeps every rule of `check`, and no object, however odd, makes it panic.

#[path = "scenarios/world.rs"]
#[expect(
    dead_code,
    reason = "the stories use more of the world than the properties do"
)]
mod world;

use jiff::SignedDuration;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::RngSeed;
use serde_json::{Value, json};
use stead_statefulset::{Freshness, Objects, Observed, check, decide};

use world::World;

/// Worlds a property: the same ones in every run, and more of them with `PROPTEST_CASES=100000`.
fn cases() -> u32 {
    let asked = std::env::var("PROPTEST_CASES").ok();
    asked.and_then(|cases| cases.parse().ok()).unwrap_or(500)
}

/// A set of up to four replicas in any mode, its pods in any condition, its claims and revisions owned by anybody.
fn worlds() -> impl Strategy<Value = World> {
    let spec = (
        (
            0..4_u32,
            0..3_u32,
            select(vec!["OrderedReady", "Parallel"]),
            select(vec!["A", "B", "C"]),
        ),
        (
            select(strategies()),
            select(vec![0, 10]),
            select(vec![-1, 0, 1, 10]),
        ),
        (
            select(vec!["Retain", "Delete"]),
            select(vec!["Retain", "Delete"]),
            select(vec![vec![], vec!["data"], vec!["data", "wal"]]),
        ),
        (select(vec!["A", "B"]), 0..4_u32, prop::bool::weighted(0.1)),
    );
    let pods = prop::collection::vec((0..7_u32, select(vec!["A", "B", "C"]), pod_words()), 0..6);
    let claims = prop::collection::vec(
        (
            0..7_u32,
            select(vec!["data", "wal"]),
            select(owners()),
            prop::bool::weighted(0.2),
        ),
        0..6,
    );
    let revisions = prop::collection::vec(
        (select(vec!["A", "B", "C", "D"]), 1..6_i64, select(owners())),
        0..4,
    );
    (spec, pods, claims, revisions).prop_map(|(spec, pods, claims, revisions)| {
        let mut world = World::new();
        world.set = set(spec);
        for letter in ["A", "B"] {
            world.ensure_revision(letter);
        }
        let current = world.revision_name(spec_current(&world.set));
        world.set["status"]["currentRevision"] = json!(current);
        for (letter, number, owner) in revisions {
            let name = world.ensure_revision(letter);
            let owners = owner_references(&world, owner);
            let revision = world.revisions.get_mut(&name).expect("it was just made");
            revision["revision"] = json!(number);
            revision["metadata"]["ownerReferences"] = owners;
        }
        for (ordinal, letter, words) in pods {
            add_pod(&mut world, ordinal, letter, &words);
        }
        for (ordinal, template, owner, terminating) in claims {
            let owners = owner_references(&world, owner);
            let claim = world.ensure_claim(&format!("{template}-web-{ordinal}"));
            claim["metadata"]["ownerReferences"] = owners;
            claim["metadata"]["deletionTimestamp"] = if terminating {
                json!("2026-01-01T00:00:00Z")
            } else {
                Value::Null
            };
        }
        world
    })
}

type Spec = (
    (u32, u32, &'static str, &'static str),
    (Value, i64, i64),
    (&'static str, &'static str, Vec<&'static str>),
    (&'static str, u32, bool),
);

fn set(spec: Spec) -> Value {
    let (
        (replicas, start, policy, template),
        (strategy, min_ready, history),
        (deleted, scaled, claims),
        (current, counted, deleting),
    ) = spec;
    let claims: Vec<Value> = claims
        .iter()
        .map(|name| json!({"metadata": {"name": name}, "spec": {}}))
        .collect();
    json!({
        "apiVersion": "apps/v1",
        "metadata": {
            "name": "web", "namespace": "default", "uid": "uid-set", "resourceVersion": "1", "generation": 2,
            "labels": {"current": current},
            "deletionTimestamp": if deleting { json!("2026-01-01T00:00:00Z") } else { Value::Null },
        },
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": World::template(template),
            "ordinals": {"start": start}, "podManagementPolicy": policy, "updateStrategy": strategy, "minReadySeconds": min_ready,
            "revisionHistoryLimit": history, "volumeClaimTemplates": claims,
            "persistentVolumeClaimRetentionPolicy": {"whenDeleted": deleted, "whenScaled": scaled},
        },
        "status": {"observedGeneration": 1, "currentReplicas": counted},
    })
}

fn spec_current(set: &Value) -> &'static str {
    if set["metadata"]["labels"]["current"] == "A" {
        "A"
    } else {
        "B"
    }
}

fn strategies() -> Vec<Value> {
    let rolling = |partition: u32, max: Value| json!({"type": "RollingUpdate", "rollingUpdate": {"partition": partition, "maxUnavailable": max}});
    vec![
        json!({"type": "RollingUpdate"}),
        json!({"type": "OnDelete"}),
        rolling(0, json!(1)),
        rolling(2, json!(2)),
        rolling(1, json!("50%")),
        json!({"type": "Recreate"}),
    ]
}

fn owners() -> Vec<&'static str> {
    vec!["none", "set", "old-set", "stranger", "pod", "old-pod"]
}

fn owner_references(world: &World, owner: &str) -> Value {
    let pod = world.pods.values().next();
    let pod = pod.map(|pod| {
        (
            pod["metadata"]["name"].clone(),
            pod["metadata"]["uid"].clone(),
        )
    });
    let (name, uid) = pod.unwrap_or((json!("web-0"), json!("uid-none")));
    let mut set = world.set_reference();
    match owner {
        "set" => json!([set]),
        "old-set" => {
            set["uid"] = json!("uid-old");
            json!([set])
        }
        "stranger" => {
            json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "uid-x", "controller": true}])
        }
        "pod" => {
            json!([{"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid, "controller": true}])
        }
        "old-pod" => {
            json!([{"apiVersion": "v1", "kind": "Pod", "name": name, "uid": "uid-older", "controller": true}])
        }
        _ => json!([]),
    }
}

fn pod_words() -> impl Strategy<Value = Vec<&'static str>> {
    let health = select(vec![
        "ready",
        "ready",
        "fresh",
        "running",
        "pending",
        "failed",
        "succeeded",
        "unknown",
        "unreported",
    ]);
    let oddity = prop::option::weighted(
        0.3,
        select(vec![
            "terminating",
            "orphan",
            "stranger",
            "relabelled",
            "unlabelled",
            "volumes",
        ]),
    );
    (health, oddity)
        .prop_map(|(health, oddity)| [Some(health), oddity].into_iter().flatten().collect())
}

fn add_pod(world: &mut World, ordinal: u32, letter: &str, words: &[&str]) {
    let name = format!("web-{ordinal}");
    world.ensure_pod(&name, letter);
    for word in words {
        match *word {
            "ready" => world.report(&name, "Running", Some(SignedDuration::from_hours(1))),
            "fresh" => world.report(&name, "Running", Some(SignedDuration::from_secs(4))),
            "running" => world.report(&name, "Running", None),
            "pending" => world.report(&name, "Pending", None),
            "failed" => world.report(&name, "Failed", None),
            "succeeded" => world.report(&name, "Succeeded", None),
            "unknown" => world.report(&name, "Unknown", None),
            "unreported" => world.report(&name, "", None),
            odd => make_odd(world, &name, odd),
        }
    }
}

fn make_odd(world: &mut World, name: &str, odd: &str) {
    let stranger = owner_references(world, "stranger");
    let pod = world.pods.get_mut(name).expect("it was just made");
    match odd {
        "terminating" => pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z"),
        "orphan" => pod["metadata"]["ownerReferences"] = json!([]),
        "stranger" => pod["metadata"]["ownerReferences"] = stranger,
        "relabelled" => pod["metadata"]["labels"]["app"] = json!("other"),
        "unlabelled" => {
            pod["metadata"]["labels"]["statefulset.kubernetes.io/pod-name"] = json!("lost")
        }
        _ => pod["spec"]["volumes"] = json!([{"name": "data", "emptyDir": {}}]),
    }
}

/// Any JSON, small.
fn junk() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        select(vec![
            "",
            "web-0",
            "50%",
            "Delete",
            "2026-01-01T00:00:00Z",
            "é"
        ])
        .prop_map(Value::from)
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map(
                select(vec!["name", "uid", "spec", "kind", "type"]),
                inner,
                0..3
            )
            .prop_map(|fields| fields
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value))
                .collect())
        ]
    })
}

/// Puts junk at one place of an object: which one, the number says.
fn spoil(object: &mut Value, place: usize, junk: Value) {
    let mut pointers = Vec::new();
    collect(object, String::new(), &mut pointers);
    let pointer = &pointers[place % pointers.len()];
    if let Some(target) = object.pointer_mut(pointer) {
        *target = junk;
    }
}

fn collect(value: &Value, at: String, pointers: &mut Vec<String>) {
    if let Some(fields) = value.as_object() {
        for (key, value) in fields {
            collect(
                value,
                format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")),
                pointers,
            );
        }
    }
    for (index, value) in value.as_array().into_iter().flatten().enumerate() {
        collect(value, format!("{at}/{index}"), pointers);
    }
    pointers.push(at);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(),
        rng_seed: RngSeed::Fixed(1),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_decision_keeps_every_rule(world in worlds()) {
        let seen = world.observed();
        prop_assert_eq!(seen.malformed.len(), 0);
        let decision = decide(&seen);
        prop_assert_eq!(check::all(&seen, &decision), vec![]);
        prop_assert_eq!(decide(&seen), decision);
    }

    #[test]
    fn a_plan_can_be_carried_out_to_the_letter(mut world in worlds()) {
        // Every call names an object that is there, in the state that the preconditions of the call demand.
        let seen = world.observed();
        let decision = decide(&seen);
        world.carry_out(&seen, &decision);
    }

    #[test]
    fn no_object_makes_a_decision_panic(world in worlds(), which in 0..4_usize, place in 0..200_usize, junk in junk()) {
        let list = |objects: &world::Named| objects.values().cloned().collect::<Vec<_>>();
        let mut set = world.set.clone();
        let mut lists = [list(&world.pods), list(&world.claims), list(&world.revisions)];
        match which.checked_sub(1).and_then(|which| lists[which].first_mut()) {
            None => spoil(&mut set, place, junk),
            Some(object) => spoil(object, place, junk),
        }
        let [pods, claims, revisions] = &lists;
        let seen = Observed::parse(Objects { set: &set, pods, claims, revisions }, world.now, Freshness::default());
        let decision = decide(&seen);
        for step in decision.plan.steps() {
            step.call(&seen.set);
        }
        prop_assert_eq!(check::all(&seen, &decision), vec![]);
    }
}
