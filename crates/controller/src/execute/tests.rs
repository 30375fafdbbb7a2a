//! Plans against an API that answers as the test tells it: what is sent, in which order, and where a round ends.

use std::sync::Mutex;

use jiff::Timestamp;
use serde_json::{Value, json};
use stead_statefulset::{DeleteReason, Freshness, Objects, Ordinal};

use super::*;
use crate::backpressure::Backpressure;
use crate::events::Recorder;
use crate::metrics::Metrics;
use crate::snapshot::Written;
use crate::watch::Watched;

/// What the API answers to a request line such as `POST /api/v1/namespaces/d/pods`: status and body.
type Answers = fn(&str) -> (u16, Value);

/// Sends a plan to such an API; gives the request lines that it saw and what became of the plan.
async fn carry_out(plan: Plan, answers: Answers) -> (Vec<String>, Executed) {
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let lines = Arc::clone(&seen);
    let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        let line = format!("{} {}", request.method(), request.uri().path());
        let (status, body) = answers(&line);
        lines.lock().expect("no panic").push(line);
        let mut response = http::Response::builder().status(status);
        if status == 429 {
            response = response.header("retry-after", "7");
        }
        let body = http_body_util::Full::new(body.to_string().into_bytes().into());
        std::future::ready(Ok::<
            http::Response<http_body_util::Full<_>>,
            std::convert::Infallible,
        >(response.body(body).expect("a response")))
    });
    let client = kube::Client::new(service, "default");
    let (recorder, _) = Recorder::new(client.clone(), "test");
    let shell = Arc::new(Shell {
        client,
        recorder,
        watched: Watched::default(),
        written: Written::default(),
        backpressure: Backpressure::default(),
        metrics: Metrics::default(),
    });
    let executed = execute(&shell, &observed(), plan).await;
    let lines = seen.lock().expect("no panic").clone();
    (lines, executed)
}

fn observed() -> Observed {
    let set = json!({"apiVersion": "apps/v1", "kind": "StatefulSet",
        "metadata": {"namespace": "d", "name": "web", "uid": "u"},
        "spec": {"replicas": 3, "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}}]}});
    let objects = Objects {
        set: &set,
        pods: &[],
        claims: &[],
        revisions: &[],
    };
    Observed::parse(objects, Timestamp::UNIX_EPOCH, Freshness::default())
}

fn create(ordinal: u32) -> Lane {
    let template = observed().set.template.clone();
    let pod = format!("web-{ordinal}");
    vec![
        Step::CreateClaim {
            claim: format!("data-{pod}").into(),
            ordinal: Ordinal(ordinal),
            template: "data".into(),
        },
        Step::CreatePod {
            pod: pod.into(),
            ordinal: Ordinal(ordinal),
            revision: "web-r".into(),
            template,
        },
    ]
}

fn delete() -> Step {
    let because = DeleteReason::Condemned;
    Step::DeletePod {
        pod: "web-3".into(),
        uid: "p".into(),
        ordinal: Ordinal(3),
        because,
    }
}

fn write_status() -> Step {
    Step::WriteStatus {
        status: observed().set.status.clone(),
    }
}

const CREATE_CLAIM: &str = "POST /api/v1/namespaces/d/persistentvolumeclaims";
const CREATE_POD: &str = "POST /api/v1/namespaces/d/pods";
const DELETE_POD: &str = "DELETE /api/v1/namespaces/d/pods/web-3";
const GET_POD: &str = "GET /api/v1/namespaces/d/pods/web-3";
const WRITE_STATUS: &str = "PATCH /apis/apps/v1/namespaces/d/statefulsets/web/status";

#[tokio::test]
async fn a_claim_is_made_before_its_pod_and_the_status_comes_last() {
    let plan = Plan {
        stages: vec![vec![create(0)]],
        closing: vec![write_status()],
        ..Plan::default()
    };
    let (lines, executed) = carry_out(plan, |_| (200, json!({}))).await;
    assert_eq!(lines, [CREATE_CLAIM, CREATE_POD, WRITE_STATUS]);
    assert!(!executed.failed());
}

#[tokio::test]
async fn a_wave_that_fails_ends_the_stages_and_the_status_is_still_written() {
    let plan = Plan {
        stages: vec![vec![create(0), create(1)], vec![vec![delete()]]],
        closing: vec![write_status()],
        ..Plan::default()
    };
    let refuse_pods: Answers = |line| match line {
        CREATE_POD => (
            403,
            json!({"reason": "Forbidden", "message": "exceeded quota"}),
        ),
        _ => (200, json!({})),
    };
    let (mut lines, executed) = carry_out(plan, refuse_pods).await;
    assert_eq!(lines.pop().as_deref(), Some(WRITE_STATUS));
    lines.sort_unstable();
    assert_eq!(
        lines,
        [CREATE_CLAIM, CREATE_CLAIM, CREATE_POD, CREATE_POD],
        "a lane that fails does not stop its neighbour"
    );
    assert!(executed.failed() && !executed.given_up);
}

#[tokio::test]
async fn a_pod_that_is_gone_already_is_as_good_as_deleted() {
    let plan = Plan {
        stages: vec![vec![vec![delete()]]],
        ..Plan::default()
    };
    let (lines, executed) = carry_out(plan, |_| (404, json!({"reason": "NotFound"}))).await;
    assert_eq!(lines, [DELETE_POD]);
    assert!(!executed.failed());
}

#[tokio::test]
async fn a_pod_of_another_uid_under_the_name_ends_the_round() {
    let plan = Plan {
        stages: vec![vec![vec![delete()]], vec![create(0)]],
        ..Plan::default()
    };
    let (lines, executed) = carry_out(plan, |_| (409, json!({"reason": "Conflict"}))).await;
    assert_eq!(
        lines,
        [DELETE_POD, GET_POD],
        "and how far the cache must come is learnt"
    );
    assert!(executed.failed());
}

#[tokio::test]
async fn a_server_that_is_busy_gets_no_further_call_of_the_plan() {
    let plan = Plan {
        stages: vec![vec![create(0)], vec![vec![delete()]]],
        closing: vec![write_status()],
        ..Plan::default()
    };
    let (lines, executed) = carry_out(plan, |_| (429, json!({"reason": "TooManyRequests"}))).await;
    assert_eq!(lines, [CREATE_CLAIM]);
    assert!(executed.failed() && executed.given_up);
}

#[tokio::test]
async fn an_orphan_is_adopted_only_by_a_set_that_the_api_itself_still_shows() {
    const GET_SET: &str = "GET /apis/apps/v1/namespaces/d/statefulsets/web";
    let plan = || Plan {
        prologue: vec![vec![vec![Step::AdoptPod {
            pod: "web-0".into(),
            uid: "p".into(),
        }]]],
        closing: vec![write_status()],
        ..Plan::default()
    };
    let made_again: Answers = |_| (200, json!({"metadata": {"uid": "another"}}));
    let going: Answers = |_| {
        (
            200,
            json!({"metadata": {"uid": "u", "deletionTimestamp": "2026-01-01T00:00:00Z"}}),
        )
    };
    for answers in [made_again, going] {
        let (lines, executed) = carry_out(plan(), answers).await;
        assert_eq!(lines, [GET_SET]);
        assert!(executed.failed());
    }
    let (lines, executed) = carry_out(plan(), |_| (200, json!({"metadata": {"uid": "u"}}))).await;
    assert_eq!(
        lines,
        [
            GET_SET,
            "PATCH /api/v1/namespaces/d/pods/web-0",
            WRITE_STATUS
        ]
    );
    assert!(!executed.failed());
}
