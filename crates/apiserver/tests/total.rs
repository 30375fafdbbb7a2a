//! `handle` is total and pure: any request gets an answer, the same for the same input, and its changes are well formed.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use jiff::Timestamp;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use serde_json::{Value, json};
use stead_apiserver::{
    Change, Environment, Listing, NoSuchRevision, Outcome, Reply, Request, Stored, Table, TokenKey,
    User, View, handle,
};

/// The simplest world there can be: a map.
#[derive(Default)]
struct World {
    revision: RefCell<u64>,
    objects: RefCell<BTreeMap<(Table, String), Arc<Stored>>>,
}

impl World {
    fn apply(&self, changes: &[Change]) {
        for change in changes {
            let (key, mut objects) = (
                (change.table, change.key.to_string()),
                self.objects.borrow_mut(),
            );
            if change.deleted {
                objects.remove(&key)
            } else {
                objects.insert(key, change.object.clone())
            };
            *self.revision.borrow_mut() = change.object.revision;
        }
    }
}

impl View for World {
    fn revision(&self) -> u64 {
        *self.revision.borrow()
    }

    fn get(&self, table: Table, key: &str) -> Option<Arc<Stored>> {
        self.objects.borrow().get(&(table, key.to_owned())).cloned()
    }

    fn list(&self, table: Table, prefix: &str) -> Listing {
        let objects = self.objects.borrow();
        let items = objects
            .iter()
            .filter(|((at, key), _)| *at == table && key.starts_with(prefix))
            .map(|((_, key), stored)| (key.as_str().into(), stored.clone()));
        Listing {
            revision: self.revision(),
            items: items.collect(),
        }
    }

    fn list_at(
        &self,
        table: Table,
        prefix: &str,
        revision: u64,
    ) -> Result<Listing, NoSuchRevision> {
        if revision == self.revision() {
            Ok(self.list(table, prefix))
        } else {
            Err(NoSuchRevision::Expired)
        }
    }
}

fn environment() -> Environment {
    Environment {
        service_range: "10.96.0.0/16".to_owned(),
        address: "127.0.0.1:6443".to_owned(),
        token_key: TokenKey::generate().expect("a key"),
        assume_accounts: false,
    }
}

fn request(
    method: &str,
    path: &str,
    query: &str,
    content_type: &str,
    body: impl Into<Bytes>,
) -> Request {
    Request {
        method: method.parse().unwrap_or(Method::GET),
        path: path.to_owned(),
        query: query.to_owned(),
        accept: "application/json".to_owned(),
        content_type: content_type.to_owned(),
        user_agent: "test/1".to_owned(),
        if_none_match: String::new(),
        body: body.into(),
        user: User::admin(),
    }
}

fn ask(world: &World, request: Request) -> Outcome {
    handle(request, world, &environment(), Timestamp::UNIX_EPOCH, 1)
}

fn code(outcome: &Outcome) -> u16 {
    match &outcome.reply {
        Reply::Done(response) => response.status().as_u16(),
        Reply::Watch(_) | Reply::Forward(_) => 200,
    }
}

/// A world with a namespace, an account, a pod, a set and a map.
fn world() -> World {
    let world = World::default();
    let objects = [
        ("/api/v1/namespaces", json!({"metadata": {"name": "d"}})),
        (
            "/api/v1/namespaces/d/serviceaccounts",
            json!({"metadata": {"name": "default"}}),
        ),
        (
            "/api/v1/namespaces/d/configmaps",
            json!({"metadata": {"name": "x"}, "data": {"k": "v"}}),
        ),
        (
            "/api/v1/namespaces/d/pods",
            json!({"metadata": {"name": "x"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}),
        ),
        (
            "/apis/apps/v1/namespaces/d/statefulsets",
            json!({"metadata": {"name": "x"}, "spec": {"serviceName": "x", "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}}),
        ),
    ];
    for (path, object) in objects {
        let outcome = ask(
            &world,
            request("POST", path, "", "application/json", object.to_string()),
        );
        assert_eq!(code(&outcome), 201, "{path}");
        world.apply(&outcome.changes);
    }
    world
}

fn method() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
}

fn path() -> impl Strategy<Value = String> {
    let collection = prop::sample::select(vec![
        "/api/v1/namespaces",
        "/api/v1/namespaces/d/configmaps",
        "/api/v1/namespaces/d/pods",
        "/api/v1/namespaces/d/services",
        "/api/v1/namespaces/d/persistentvolumeclaims",
        "/apis/apps/v1/namespaces/d/statefulsets",
        "/apis/policy/v1/namespaces/d/poddisruptionbudgets",
        "/apis/batch/v1/namespaces/d/jobs",
        "/api/v1/nodes",
        "/api/v1/namespaces/d/events",
        "/apis/events.k8s.io/v1/namespaces/d/events",
        "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
        "/api/v1/watch/namespaces/d/pods",
        "/api",
        "/apis",
        "/openapi/v3",
    ]);
    let rest = prop::sample::select(vec![
        "",
        "/x",
        "/d",
        "/x/status",
        "/x/scale",
        "/x/eviction",
        "/x/binding",
        "/x/finalize",
        "/x/log",
        "/x/exec",
        "/x/token",
        "/x/resize",
        "/x/ephemeralcontainers",
        "/x/%ff",
    ]);
    prop_oneof![8 => (collection, rest).prop_map(|(collection, rest)| format!("{collection}{rest}")), 1 => "/[a-z%/.]{0,40}"]
}

fn query() -> impl Strategy<Value = String> {
    let parameter = prop_oneof![
        prop::sample::select(vec![
            "watch=1",
            "dryRun=All",
            "dryRun=x",
            "limit=1",
            "limit=-5",
            "limit=99999999999999999999",
            "continue=abc",
            "resourceVersion=0",
            "resourceVersion=x",
            "resourceVersionMatch=Exact",
            "fieldValidation=Strict",
            "fieldManager=m",
            "force=true",
            "labelSelector=a%3Db",
            "labelSelector=a+in+(b",
            "fieldSelector=metadata.name%3Dx",
            "fieldSelector=%3D%3D",
            "gracePeriodSeconds=0",
            "gracePeriodSeconds=-1",
            "propagationPolicy=Foreground",
            "orphanDependents=false",
            "timeoutSeconds=1",
            "sendInitialEvents=true",
            "container=c",
            "command=sh",
            "tailLines=x",
        ])
        .prop_map(str::to_owned),
        "[a-zA-Z%=+&(),!<>]{0,20}",
    ];
    prop::collection::vec(parameter, 0..4).prop_map(|parameters| parameters.join("&"))
}

fn content_type() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "",
        "application/json",
        "application/yaml",
        "application/vnd.kubernetes.protobuf",
        "application/json-patch+json",
        "application/merge-patch+json",
        "application/strategic-merge-patch+json",
        "application/apply-patch+yaml",
        "text/plain",
    ])
}

fn leaf() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(
            |number| serde_json::Number::from_f64(number).map_or(Value::Null, Value::Number)
        ),
        prop::sample::select(vec![
            "x",
            "d",
            "",
            "1",
            "1Gi",
            "delete",
            "replace",
            "Always",
            "2026-01-01T00:00:00Z"
        ])
        .prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
    ]
}

fn field() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => prop::sample::select(vec![
            "metadata", "name", "namespace", "generateName", "labels", "annotations", "finalizers", "ownerReferences", "managedFields", "uid", "resourceVersion",
            "deletionTimestamp", "spec", "status", "data", "template", "containers", "volumes", "ports", "containerPort", "replicas", "selector", "matchLabels",
            "image", "env", "value", "apiVersion", "kind", "op", "path", "from", "$patch", "$setElementOrder/containers", "$retainKeys", "$deleteFromPrimitiveList/finalizers",
            "conditions", "type", "target", "preconditions", "gracePeriodSeconds", "propagationPolicy", "resources", "requests", "storage", "volumeClaimTemplates",
            "minAvailable", "clusterIP", "phase", "volumeMode", "updateStrategy", "rollingUpdate", "partition",
        ]).prop_map(str::to_owned),
        1 => "[a-zA-Z$/.]{0,8}",
    ]
}

fn json() -> impl Strategy<Value = Value> {
    leaf().prop_recursive(6, 60, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(field(), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn body() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        6 => json().prop_map(|value| Bytes::from(value.to_string())),
        3 => (json(), json()).prop_map(|(spec, status)| Bytes::from(json!({"metadata": {"name": "x"}, "spec": spec, "status": status}).to_string())),
        2 => json().prop_map(|value| Bytes::from(json!([{"op": "replace", "path": "/spec", "value": value}]).to_string())),
        1 => prop::collection::vec(any::<u8>(), 0..80).prop_map(Bytes::from),
        1 => prop::collection::vec(any::<u8>(), 0..80).prop_map(|bytes| [b"k8s\0".to_vec(), bytes].concat().into()),
    ]
}

proptest! {
    // A fixed seed: a push is not to fail by chance.
    #![proptest_config(ProptestConfig { cases: 500, rng_seed: RngSeed::Fixed(36), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_request_is_answered_the_same_twice(method in method(), path in path(), query in query(), content_type in content_type(), body in body()) {
        let world = world();
        let before = world.revision();
        let asked = request(method, &path, &query, content_type, body);
        let outcome = ask(&world, asked.clone());
        let again = ask(&world, asked);
        prop_assert_eq!(code(&outcome), code(&again));
        prop_assert_eq!(outcome.changes.len(), again.changes.len());
        for (index, (change, other)) in outcome.changes.iter().zip(&again.changes).enumerate() {
            prop_assert_eq!(&change.object.json, &other.object.json);
            prop_assert_eq!(change.object.revision, before + 1 + index as u64, "revisions follow one another");
            let object = change.object.value();
            prop_assert_eq!(&object["metadata"]["resourceVersion"], &json!(change.object.revision.to_string()));
            prop_assert!(change.key.ends_with(object["metadata"]["name"].as_str().unwrap_or("?")));
        }
        if code(&outcome) >= 400 {
            prop_assert!(outcome.changes.is_empty(), "a refusal changes nothing");
        }
        if query.contains("dryRun=All") && matches!(method, "POST" | "PUT" | "PATCH") {
            prop_assert!(outcome.changes.is_empty(), "a dry run changes nothing");
        }
    }
}
