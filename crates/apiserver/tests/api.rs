//! What clients rely on, asked in-process: watches, pages, dry runs, deletion, warnings, encodings.

use std::pin::Pin;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use stead_apiserver::{ApiServer, Body, Options, User, full};
use tower::ServiceExt;

mod support;
use support::{MAPS, config_map, ready, revision, send, send_as};

/// A server in memory with the namespace `default` and its service account.
async fn server() -> ApiServer {
    ready(ApiServer::open(Options::default()).expect("a server in memory")).await
}

/// An open watch, read line by line.
struct Watching {
    body: Body,
    rest: Vec<u8>,
}

impl Watching {
    async fn start(server: &ApiServer, path: &str) -> Self {
        let request = Request::get(path)
            .body(full(Bytes::new()))
            .expect("a request");
        let answered: Pin<Box<dyn Future<Output = _> + Send>> =
            Box::pin(server.service(User::admin()).oneshot(request));
        let response = answered.await.expect("infallible");
        assert_eq!(response.status(), StatusCode::OK);
        Self {
            body: response.into_body(),
            rest: Vec::new(),
        }
    }

    /// The next event, none when the watch has ended.
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).expect("an event"));
            }
            let frame = self.body.frame().await?.expect("a frame");
            self.rest.extend_from_slice(frame.data_ref().expect("data"));
        }
    }

    /// The next event as `TYPE name`.
    async fn short(&mut self) -> String {
        let event = self.next().await.expect("an event");
        format!(
            "{} {}",
            event["type"].as_str().unwrap_or(""),
            event["object"]["metadata"]["name"].as_str().unwrap_or("")
        )
    }
}

#[tokio::test]
async fn a_watch_follows_writes_and_its_selector() {
    let server = server().await;
    let (_, list) = send(&server, "GET", MAPS, Value::Null).await;
    let mut watch = Watching::start(
        &server,
        &format!(
            "{MAPS}?watch=1&resourceVersion={}&labelSelector=app%3Da",
            revision(&list)
        ),
    )
    .await;
    let mut labelled = config_map("a", "1");
    labelled["metadata"]["labels"] = json!({"app": "a"});
    send(&server, "POST", MAPS, config_map("other", "1")).await;
    send(&server, "POST", MAPS, labelled).await;
    assert_eq!(watch.short().await, "ADDED a");
    let merge = "application/merge-patch+json";
    send_as(
        &server,
        "PATCH",
        &format!("{MAPS}/a"),
        merge,
        json!({"metadata": {"labels": {"app": "b"}}}),
    )
    .await;
    assert_eq!(watch.short().await, "DELETED a");
    send_as(
        &server,
        "PATCH",
        &format!("{MAPS}/a"),
        merge,
        json!({"metadata": {"labels": {"app": "a"}}}),
    )
    .await;
    assert_eq!(watch.short().await, "ADDED a");
    send(&server, "DELETE", &format!("{MAPS}/a"), Value::Null).await;
    let last = watch.next().await.expect("an event");
    assert_eq!(last["type"], "DELETED");
    assert!(
        revision(&last["object"]) > revision(&list),
        "a deletion carries its own revision"
    );
}

#[tokio::test]
async fn a_streaming_list_ends_with_its_bookmark_and_goes_on() {
    let server = server().await;
    send(&server, "POST", MAPS, config_map("a", "1")).await;
    let mut watch = Watching::start(&server, &format!("{MAPS}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true")).await;
    assert_eq!(watch.short().await, "ADDED a");
    let bookmark = watch.next().await.expect("a bookmark");
    assert_eq!(
        (
            &bookmark["type"],
            &bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"]
        ),
        (&json!("BOOKMARK"), &json!("true"))
    );
    send(&server, "POST", MAPS, config_map("b", "1")).await;
    assert_eq!(watch.short().await, "ADDED b");
}

#[tokio::test]
async fn a_watch_from_a_forgotten_revision_is_told_to_list_again() {
    let server = server().await;
    let (_, list) = send(&server, "GET", MAPS, Value::Null).await;
    send(&server, "POST", MAPS, config_map("a", "0")).await;
    let large = "x".repeat(64 << 10);
    for number in 0..400 {
        let patch = json!({"data": {"k": format!("{number}{large}")}});
        assert_eq!(
            send_as(
                &server,
                "PATCH",
                &format!("{MAPS}/a"),
                "application/merge-patch+json",
                patch
            )
            .await
            .0,
            StatusCode::OK
        );
    }
    let mut watch = Watching::start(
        &server,
        &format!("{MAPS}?watch=1&resourceVersion={}", revision(&list)),
    )
    .await;
    let event = watch.next().await.expect("an event");
    assert_eq!(
        (
            &event["type"],
            &event["object"]["code"],
            &event["object"]["reason"]
        ),
        (&json!("ERROR"), &json!(410), &json!("Expired"))
    );
    assert_eq!(watch.next().await, None, "the stream ends");
}

#[tokio::test]
async fn a_closing_server_ends_its_watches() {
    let server = server().await;
    let mut watch = Watching::start(&server, &format!("{MAPS}?watch=1")).await;
    server.close_watches();
    assert_eq!(watch.next().await, None);
}

#[tokio::test]
async fn pages_show_one_moment_whatever_is_written_meanwhile() {
    let server = server().await;
    for name in ["a", "b", "c", "d", "e"] {
        send(&server, "POST", MAPS, config_map(name, "1")).await;
    }
    let (_, first) = send(&server, "GET", &format!("{MAPS}?limit=2"), Value::Null).await;
    assert_eq!(first["metadata"]["remainingItemCount"], 3);
    send(&server, "DELETE", &format!("{MAPS}/d"), Value::Null).await;
    send(&server, "POST", MAPS, config_map("f", "1")).await;
    send_as(
        &server,
        "PATCH",
        &format!("{MAPS}/c"),
        "application/merge-patch+json",
        json!({"data": {"k": "2"}}),
    )
    .await;
    let token = first["metadata"]["continue"].as_str().expect("a token");
    let (_, rest) = send(
        &server,
        "GET",
        &format!("{MAPS}?continue={token}"),
        Value::Null,
    )
    .await;
    let seen: Vec<(&str, &str)> = rest["items"]
        .as_array()
        .expect("items")
        .iter()
        .map(|item| {
            (
                item["metadata"]["name"].as_str().unwrap_or(""),
                item["data"]["k"].as_str().unwrap_or(""),
            )
        })
        .collect();
    assert_eq!(seen, [("c", "1"), ("d", "1"), ("e", "1")]);
    assert_eq!(
        rest["metadata"]["resourceVersion"],
        first["metadata"]["resourceVersion"]
    );
}

#[tokio::test]
async fn a_write_that_changes_nothing_keeps_the_revision() {
    let server = server().await;
    let (_, created) = send(&server, "POST", MAPS, config_map("a", "1")).await;
    let (code, same) = send(&server, "PUT", &format!("{MAPS}/a"), config_map("a", "1")).await;
    assert_eq!(
        (code, revision(&same)),
        (StatusCode::OK, revision(&created))
    );
    let (_, list) = send(&server, "GET", MAPS, Value::Null).await;
    assert_eq!(revision(&list), revision(&created), "nothing was written");
}

#[tokio::test]
async fn a_pod_goes_in_two_steps() {
    let server = server().await;
    let pods = "/api/v1/namespaces/default/pods";
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]}});
    assert_eq!(
        send(&server, "POST", pods, pod).await.0,
        StatusCode::CREATED
    );
    let (code, marked) = send(&server, "DELETE", &format!("{pods}/p"), Value::Null).await;
    assert_eq!(
        (code, &marked["metadata"]["deletionGracePeriodSeconds"]),
        (StatusCode::OK, &json!(30))
    );
    let (_, again) = send(&server, "DELETE", &format!("{pods}/p"), Value::Null).await;
    assert_eq!(
        revision(&again),
        revision(&marked),
        "a second deletion changes nothing"
    );
    let (_, shorter) = send(
        &server,
        "DELETE",
        &format!("{pods}/p?gracePeriodSeconds=3"),
        Value::Null,
    )
    .await;
    assert_eq!(shorter["metadata"]["deletionGracePeriodSeconds"], 3);
    let (_, longer) = send(
        &server,
        "DELETE",
        &format!("{pods}/p?gracePeriodSeconds=60"),
        Value::Null,
    )
    .await;
    assert_eq!(
        longer["metadata"]["deletionGracePeriodSeconds"], 3,
        "grace is only ever shortened"
    );
    let (code, _) = send(
        &server,
        "DELETE",
        &format!("{pods}/p"),
        json!({"gracePeriodSeconds": 0, "preconditions": {"uid": "other"}}),
    )
    .await;
    assert_eq!(code, StatusCode::CONFLICT);
    assert_eq!(
        send(
            &server,
            "DELETE",
            &format!("{pods}/p?gracePeriodSeconds=0"),
            Value::Null
        )
        .await
        .0,
        StatusCode::OK
    );
    assert_eq!(
        send(&server, "GET", &format!("{pods}/p"), Value::Null)
            .await
            .0,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn logs_need_a_container_and_a_node() {
    let server = server().await;
    let pods = "/api/v1/namespaces/default/pods";
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"nodeName": "n", "containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "i"}]}});
    send(&server, "POST", pods, pod).await;
    let (code, unnamed) = send(&server, "GET", &format!("{pods}/p/log"), Value::Null).await;
    assert_eq!(code, StatusCode::BAD_REQUEST);
    assert!(
        unnamed["message"]
            .as_str()
            .is_some_and(|words| words.contains("choose one of: [a b]")),
        "{unnamed}"
    );
    assert_eq!(
        send(
            &server,
            "GET",
            &format!("{pods}/p/log?container=c"),
            Value::Null
        )
        .await
        .0,
        StatusCode::BAD_REQUEST
    );
    assert_eq!(
        send(&server, "GET", &format!("{pods}/gone/log"), Value::Null)
            .await
            .0,
        StatusCode::NOT_FOUND
    );
    let (code, alone) = send(
        &server,
        "GET",
        &format!("{pods}/p/log?container=b"),
        Value::Null,
    )
    .await;
    assert_eq!(
        (code, &alone["reason"]),
        (
            StatusCode::SERVICE_UNAVAILABLE,
            &json!("ServiceUnavailable")
        )
    );
}

#[tokio::test]
async fn the_node_is_asked_with_the_kubelets_paths() {
    let server = server().await;
    let echo = tower::service_fn(|request: Request<Body>| async move {
        Ok::<_, std::convert::Infallible>(http::Response::new(full(
            json!({"asked": request.uri().to_string()})
                .to_string()
                .into(),
        )))
    });
    server.set_node(tower::util::BoxCloneSyncService::new(echo));
    let pods = "/api/v1/namespaces/default/pods";
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"nodeName": "n", "containers": [{"name": "a", "image": "i"}]}});
    send(&server, "POST", pods, pod).await;
    let (_, log) = send(
        &server,
        "GET",
        &format!("{pods}/p/log?follow=true&tailLines=5"),
        Value::Null,
    )
    .await;
    assert_eq!(
        log["asked"],
        "/containerLogs/default/p/a?follow=true&tailLines=5"
    );
    let (_, exec) = send(
        &server,
        "GET",
        &format!("{pods}/p/exec?command=sh&command=-c&command=a%20b&stdin=true&stdout=1&tty=false"),
        Value::Null,
    )
    .await;
    assert_eq!(
        exec["asked"],
        "/exec/default/p/a?command=sh&command=%2Dc&command=a%20b&input=1&output=1"
    );
}

#[tokio::test]
async fn yaml_and_protobuf_bodies_are_understood() {
    let server = server().await;
    let post = |content_type: &'static str, body: Vec<u8>| {
        let request = Request::post(MAPS)
            .header("Content-Type", content_type)
            .body(full(body.into()))
            .expect("a request");
        let answered: Pin<
            Box<dyn Future<Output = Result<http::Response<Body>, std::convert::Infallible>> + Send>,
        > = Box::pin(server.service(User::admin()).oneshot(request));
        answered
    };
    let created = post(
        "application/yaml",
        b"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: yaml\ndata: {k: 'y'}\n".to_vec(),
    )
    .await
    .expect("infallible");
    assert_eq!(created.status(), StatusCode::CREATED);
    // k8s\0, then the envelope: {1: {1: "v1", 2: "ConfigMap"}, 2: {1: {1: "proto"}}}.
    let envelope =
        b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09ConfigMap\x12\x09\x0a\x07\x0a\x05proto".to_vec();
    let created = post("application/vnd.kubernetes.protobuf", envelope)
        .await
        .expect("infallible");
    assert_eq!(created.status(), StatusCode::CREATED);
    assert_eq!(
        send(&server, "GET", &format!("{MAPS}/proto"), Value::Null)
            .await
            .0,
        StatusCode::OK
    );
    assert_eq!(
        post("application/cbor", Vec::new())
            .await
            .expect("infallible")
            .status(),
        StatusCode::UNSUPPORTED_MEDIA_TYPE
    );
}

#[tokio::test]
async fn a_body_beyond_three_megabytes_is_refused() {
    let server = server().await;
    let (code, refused) = send(&server, "POST", MAPS, config_map("a", &"x".repeat(4 << 20))).await;
    assert_eq!(
        (code, &refused["reason"]),
        (
            StatusCode::PAYLOAD_TOO_LARGE,
            &json!("RequestEntityTooLarge")
        )
    );
}

#[tokio::test]
async fn a_token_names_its_service_account_until_that_is_gone() {
    let server = server().await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": ["api"], "expirationSeconds": 600}});
    let (code, issued) = send(
        &server,
        "POST",
        &format!("{accounts}/default/token"),
        request,
    )
    .await;
    assert_eq!(code, StatusCode::CREATED);
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": issued["status"]["token"], "audiences": ["other", "api"]}});
    let reviews = "/apis/authentication.k8s.io/v1/tokenreviews";
    let (_, known) = send(&server, "POST", reviews, review.clone()).await;
    assert_eq!(
        (
            &known["status"]["authenticated"],
            &known["status"]["user"]["username"]
        ),
        (
            &json!(true),
            &json!("system:serviceaccount:default:default")
        )
    );
    assert_eq!(known["status"]["audiences"], json!(["api"]));
    let mut for_the_server = review.clone();
    for_the_server["spec"]["audiences"] = Value::Null;
    let (_, unmeant) = send(&server, "POST", reviews, for_the_server).await;
    assert_eq!(
        unmeant["status"]["authenticated"],
        Value::Null,
        "a token for somebody else is none for this server"
    );
    send(
        &server,
        "DELETE",
        &format!("{accounts}/default"),
        Value::Null,
    )
    .await;
    let (_, gone) = send(&server, "POST", reviews, review).await;
    assert_eq!(gone["status"]["authenticated"], Value::Null);
}

#[tokio::test]
async fn a_token_bound_to_a_pod_ends_with_that_pod_and_is_given_to_no_other() {
    let server = server().await;
    let pods = "/api/v1/namespaces/default/pods";
    let pod = |name: &str| json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let (_, made) = send(&server, "POST", pods, pod("p")).await;
    let request = |kind: &str, name: &str, uid: &Value| {
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": {"expirationSeconds": 600, "boundObjectRef": {"apiVersion": "v1", "kind": kind, "name": name, "uid": uid}}})
    };
    let tokens = "/api/v1/namespaces/default/serviceaccounts/default/token";
    for (kind, name, uid, code) in [
        ("Pod", "q", &Value::Null, 404),
        ("Pod", "p", &json!("another"), 409),
        ("Service", "p", &Value::Null, 400),
    ] {
        let (got, answer) = send(&server, "POST", tokens, request(kind, name, uid)).await;
        assert_eq!(got, code, "{answer}");
    }
    let uid = &made["metadata"]["uid"];
    let (_, issued) = send(&server, "POST", tokens, request("Pod", "p", uid)).await;
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": issued["status"]["token"]}});
    let reviews = "/apis/authentication.k8s.io/v1/tokenreviews";
    let (_, known) = send(&server, "POST", reviews, review.clone()).await;
    let extra = &known["status"]["user"]["extra"];
    assert_eq!(extra["authentication.kubernetes.io/pod-name"], json!(["p"]));
    assert_eq!(&extra["authentication.kubernetes.io/pod-uid"][0], uid);
    let (_, _) = send(
        &server,
        "DELETE",
        &format!("{pods}/p?gracePeriodSeconds=0"),
        Value::Null,
    )
    .await;
    send(&server, "POST", pods, pod("p")).await;
    let (_, gone) = send(&server, "POST", reviews, review).await;
    assert_eq!(
        gone["status"]["authenticated"],
        Value::Null,
        "a namesake is another pod"
    );
}

#[tokio::test]
async fn an_event_is_one_object_in_both_its_groups() {
    let server = server().await;
    let event = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e", "namespace": "default"}, "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"}, "reason": "R", "message": "words", "type": "Normal"});
    let (code, answer) = send(&server, "POST", "/api/v1/namespaces/default/events", event).await;
    assert_eq!(code, StatusCode::CREATED, "{answer}");
    let (_, other) = send(
        &server,
        "GET",
        "/apis/events.k8s.io/v1/namespaces/default/events/e",
        Value::Null,
    )
    .await;
    assert_eq!(
        (&other["note"], &other["regarding"]["name"]),
        (&json!("words"), &json!("p"))
    );
    let (_, found) = send(&server, "GET", "/api/v1/namespaces/default/events?fieldSelector=involvedObject.name%3Dp,involvedObject.kind%3DPod", Value::Null).await;
    assert_eq!(found["items"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn an_autoscaler_loses_nothing_through_its_older_version() {
    let server = server().await;
    let path = |version: &str| {
        format!("/apis/autoscaling/{version}/namespaces/default/horizontalpodautoscalers")
    };
    let metrics = json!([
        {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}},
        {"type": "Resource", "resource": {"name": "memory", "target": {"type": "Utilization", "averageUtilization": 80}}},
    ]);
    let autoscaler = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"}, "spec": {"scaleTargetRef": {"kind": "StatefulSet", "name": "s", "apiVersion": "apps/v1"}, "maxReplicas": 3, "metrics": metrics}});
    let (code, answer) = send(&server, "POST", &path("v2"), autoscaler).await;
    assert_eq!(code, StatusCode::CREATED, "{answer}");
    let (_, old) = send(&server, "GET", &format!("{}/h", path("v1")), Value::Null).await;
    assert_eq!(
        (
            &old["apiVersion"],
            &old["spec"]["targetCPUUtilizationPercentage"]
        ),
        (&json!("autoscaling/v1"), &json!(70))
    );
    let (code, answer) = send_as(
        &server,
        "PATCH",
        &format!("{}/h", path("v1")),
        "application/merge-patch+json",
        json!({"spec": {"maxReplicas": 5}}),
    )
    .await;
    assert_eq!(code, StatusCode::OK, "{answer}");
    let (_, new) = send(&server, "GET", &format!("{}/h", path("v2")), Value::Null).await;
    assert_eq!(
        (&new["spec"]["maxReplicas"], &new["spec"]["metrics"]),
        (&json!(5), &metrics)
    );
}

#[tokio::test]
async fn discovery_is_aggregated_where_asked() {
    let server = server().await;
    let accept =
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    let request = Request::get("/apis")
        .header("Accept", accept)
        .body(full(Bytes::new()))
        .expect("a request");
    let answered: Pin<Box<dyn Future<Output = _> + Send>> =
        Box::pin(server.service(User::admin()).oneshot(request));
    let response = answered.await.expect("infallible");
    assert_eq!(
        response.headers()["content-type"],
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    );
    let (_, plain) = send(&server, "GET", "/apis", Value::Null).await;
    assert_eq!(plain["kind"], "APIGroupList");
    let (_, apps) = send(&server, "GET", "/apis/apps/v1", Value::Null).await;
    assert!(
        apps["resources"].as_array().is_some_and(|list| list
            .iter()
            .any(|entry| entry["name"] == "statefulsets/scale")),
        "{apps}"
    );
}
