//! Pods of every kind of wish against small clusters: where they fit, and what is said where they do not.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Asking, Misfit, misfits};
use crate::bind::demand::Demand;
use crate::bind::neighbours::{Neighbour, Town};

fn node(name: &str, zone: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "zone": zone, "disk": "ssd"}},
        "status": {"conditions": [{"type": "Ready", "status": "True"}], "allocatable": {"pods": "3", "cpu": "1", "memory": "1Gi"}}})
}

fn pod(labels: Value, spec: Value) -> Value {
    json!({"metadata": {"namespace": "d", "labels": labels}, "spec": spec})
}

/// What keeps a pod off a node beside these others, as one line.
fn beside(pod: &Value, node: &Value, others: &[(&Value, &Value)]) -> String {
    let mut nodes = vec![node];
    let mut used = Demand::default();
    let neighbours: Vec<(String, Neighbour)> = others
        .iter()
        .map(|(at, other)| {
            (
                at["metadata"]["name"].as_str().unwrap_or("").to_owned(),
                Neighbour::of(other),
            )
        })
        .collect();
    for (at, other) in others {
        if *at == node {
            used.take(&Demand::of(other));
        } else if !nodes.contains(at) {
            nodes.push(at);
        }
    }
    let space = json!({"metadata": {"name": "other", "labels": {"team": "a"}}});
    let town = Town {
        nodes,
        placed: neighbours
            .iter()
            .map(|(at, own)| (at.as_str(), own))
            .collect(),
        namespaces: BTreeMap::from([("other", &space)]),
    };
    let demand = Demand::of(pod);
    let asking = Asking {
        pod,
        demand: &demand,
        volumes: &[],
        no_volume_free: false,
        claim_in_use: false,
        town: Some(&town),
    };
    let said: Vec<String> = misfits(&asking, node, &used)
        .iter()
        .map(Misfit::to_string)
        .collect();
    said.join(", ")
}

/// The same with so many plain pods already there.
fn check(spec: Value, others: usize, expected: &str) {
    let (node, plain) = (node("n", "a"), pod(json!({}), json!({})));
    let others = vec![(&node, &plain); others];
    assert_eq!(
        beside(&pod(json!({}), spec.clone()), &node, &others),
        expected,
        "{spec}"
    );
}

#[test]
fn a_pod_fits_or_the_scheduler_says_why_not() {
    check(json!({"containers": []}), 2, "");
    check(json!({"containers": []}), 3, "Too many pods");
    check(json!({"nodeSelector": {"disk": "ssd"}}), 0, "");
    let labels = "node(s) didn't match Pod's node affinity/selector";
    check(json!({"nodeSelector": {"disk": "hdd"}}), 0, labels);
    let asks = |amounts: Value| json!({"containers": [{"resources": {"requests": amounts}}]});
    check(asks(json!({"cpu": "1500m"})), 0, "Insufficient cpu");
    check(asks(json!({"cpu": "1"})), 0, "");
    check(
        asks(json!({"example.com/gpu": "1"})),
        0,
        "Insufficient example.com/gpu",
    );
    check(
        asks(json!({"memory": "2Gi"})),
        3,
        "Too many pods, Insufficient memory",
    );
}

#[test]
fn required_node_affinity_is_one_of_the_terms_and_a_wish_never_keeps_a_pod_waiting() {
    let affinity = |operator: &str, values: Value| {
        json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "disk", "operator": operator, "values": values}]}]}}}})
    };
    let labels = "node(s) didn't match Pod's node affinity/selector";
    check(affinity("In", json!(["hdd", "ssd"])), 0, "");
    check(affinity("NotIn", json!(["ssd"])), 0, labels);
    check(affinity("DoesNotExist", json!([])), 0, labels);
    let wish = json!({"affinity": {
        "nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference":
            {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["hdd"]}]}}]},
        "podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "podAffinityTerm":
            {"topologyKey": "kubernetes.io/hostname", "labelSelector": {}}}]},
    }, "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "nowhere", "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {}}]});
    check(wish, 2, "");
}

#[test]
fn taints_and_cordons_repel_those_who_do_not_tolerate_them() {
    let mut node = node("n", "a");
    node["spec"] = json!({"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]});
    let plain = pod(json!({}), json!({}));
    assert_eq!(
        beside(&plain, &node, &[]),
        "node(s) had untolerated taint(s)"
    );
    let tough = pod(json!({}), json!({"tolerations": [{"operator": "Exists"}]}));
    assert_eq!(beside(&tough, &node, &[]), "");
    node["spec"] = json!({"unschedulable": true});
    assert_eq!(beside(&plain, &node, &[]), "node(s) were unschedulable");
    assert_eq!(beside(&tough, &node, &[]), "");
}

fn term(which: &str, key: &str, selector: Value) -> Value {
    json!({"affinity": {which: {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": key, "labelSelector": selector}]}}})
}

fn app(name: &str) -> Value {
    json!({"matchLabels": {"app": name}})
}

#[test]
fn replicas_that_must_not_share_a_node_do_not() {
    let (one, two) = (node("n1", "a"), node("n2", "a"));
    let own = pod(
        json!({"app": "db"}),
        term("podAntiAffinity", "kubernetes.io/hostname", app("db")),
    );
    assert_eq!(beside(&own, &one, &[]), "");
    assert_eq!(beside(&own, &one, &[(&two, &own)]), "");
    assert_eq!(
        beside(&own, &one, &[(&one, &own)]),
        "node(s) didn't match pod anti-affinity rules"
    );
    let victim = pod(json!({"app": "db"}), json!({}));
    assert_eq!(
        beside(&victim, &one, &[(&one, &own)]),
        "node(s) didn't satisfy existing pods anti-affinity rules"
    );
    let mut elsewhere = own.clone();
    elsewhere["metadata"]["namespace"] = "e".into();
    assert_eq!(
        beside(&own, &one, &[(&one, &elsewhere)]),
        "",
        "another namespace's pods are not meant"
    );
    let by_zone = pod(
        json!({"app": "db"}),
        term("podAntiAffinity", "zone", app("db")),
    );
    assert_eq!(
        beside(&by_zone, &one, &[(&two, &victim)]),
        "node(s) didn't match pod anti-affinity rules"
    );
}

#[test]
fn a_pod_that_wants_company_waits_for_it_unless_it_would_be_the_first_of_its_own() {
    let node = node("n", "a");
    let follower = pod(json!({}), term("podAffinity", "zone", app("db")));
    let db = pod(json!({"app": "db"}), json!({}));
    assert_eq!(
        beside(&follower, &node, &[]),
        "node(s) didn't match pod affinity rules"
    );
    assert_eq!(beside(&follower, &node, &[(&node, &db)]), "");
    let first = pod(json!({"app": "db"}), term("podAffinity", "zone", app("db")));
    assert_eq!(beside(&first, &node, &[]), "");
    let nowhere = pod(json!({"app": "db"}), term("podAffinity", "rack", app("db")));
    assert_eq!(
        beside(&nowhere, &node, &[]),
        "node(s) didn't match pod affinity rules"
    );
}

#[test]
fn terms_name_or_select_namespaces_and_keys_of_the_pods_own() {
    let node = node("n", "a");
    let mut other = pod(json!({"app": "db", "revision": "2"}), json!({}));
    other["metadata"]["namespace"] = "other".into();
    let with = |extra: Value| {
        let mut pod = pod(
            json!({"revision": "1"}),
            term("podAntiAffinity", "zone", app("db")),
        );
        let term = &mut pod["spec"]["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
            [0];
        for (field, value) in extra.as_object().into_iter().flatten() {
            term[field] = value.clone();
        }
        beside(&pod, &node, &[(&node, &other)])
    };
    let apart = "node(s) didn't match pod anti-affinity rules";
    assert_eq!(with(json!({"namespaces": ["other"]})), apart);
    assert_eq!(
        with(json!({"namespaceSelector": {"matchLabels": {"team": "a"}}})),
        apart
    );
    assert_eq!(
        with(json!({"namespaceSelector": {"matchLabels": {"team": "b"}}})),
        ""
    );
    assert_eq!(
        with(json!({"namespaces": ["other"], "matchLabelKeys": ["revision"]})),
        ""
    );
    assert_eq!(
        with(json!({"namespaces": ["other"], "mismatchLabelKeys": ["revision"]})),
        apart
    );
}

fn spread(key: &str, extra: Value) -> Value {
    let mut own = json!({"maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": "DoNotSchedule", "labelSelector": app("db")});
    for (field, value) in extra.as_object().into_iter().flatten() {
        own[field] = value.clone();
    }
    pod(
        json!({"app": "db"}),
        json!({ "topologySpreadConstraints": [own] }),
    )
}

#[test]
fn on_one_node_every_pod_is_spread_well_enough_unless_more_places_are_asked_for() {
    let node = node("n", "a");
    let own = spread("kubernetes.io/hostname", json!({}));
    assert_eq!(beside(&own, &node, &[(&node, &own), (&node, &own)]), "");
    let more = spread("kubernetes.io/hostname", json!({"minDomains": 2}));
    assert_eq!(beside(&more, &node, &[]), "");
    assert_eq!(
        beside(&more, &node, &[(&node, &own)]),
        "node(s) didn't match pod topology spread constraints"
    );
    assert_eq!(
        beside(&spread("rack", json!({})), &node, &[]),
        "node(s) didn't match pod topology spread constraints (missing required label)"
    );
}

#[test]
fn pods_spread_over_the_zones_there_are() {
    let (a, b) = (node("n1", "a"), node("n2", "b"));
    let own = spread("zone", json!({}));
    let others = [(&b, &pod(json!({}), json!({}))), (&a, &own)];
    assert_eq!(
        beside(&own, &a, &others),
        "node(s) didn't match pod topology spread constraints"
    );
    assert_eq!(beside(&own, &b, &others), "");
}

#[test]
fn a_volume_of_another_node_and_a_claim_of_another_pod_keep_a_pod_waiting() {
    let (node, pod) = (node("n", "a"), pod(json!({}), json!({})));
    let demand = Demand::of(&pod);
    let volume = |name: &str| {
        json!({"spec": {"nodeAffinity": {"required": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [name]}]}]}}}})
    };
    let said = |volumes: &[Value], claim_in_use: bool| {
        let asking = Asking {
            pod: &pod,
            demand: &demand,
            volumes,
            no_volume_free: false,
            claim_in_use,
            town: None,
        };
        misfits(&asking, &node, &Demand::default())
    };
    assert_eq!(said(&[volume("n"), json!({})], false), []);
    assert_eq!(said(&[volume("m")], false), [Misfit::VolumeAffinity]);
    assert_eq!(said(&[], true), [Misfit::ClaimInUse]);
}
