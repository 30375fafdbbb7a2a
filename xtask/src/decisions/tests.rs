//! The comparison can fail: a line that is equal is corrupted in each compared way, and each is seen.

use serde_json::json;
use stead_statefulset::{Freshness, Objects, Observed, decide};

use super::line::{Expect, Line, Recorded};
use super::outcome::{self, Outcome, Verb, compare, compare_decision};
use super::*;

/// A set at work: one pod short of ready for long enough, one claim to make, one pod to repair, an orphan to adopt, a revision to make.
fn line() -> Line {
    let template = json!({"metadata": {"labels": {"app": "db"}}, "spec": {"containers": [{"name": "main", "image": "a<b"}]}});
    let set = json!({
        "metadata": {"name": "db", "namespace": "default", "uid": "uid-set", "resourceVersion": "7", "generation": 2},
        "spec": {
            "replicas": 4, "selector": {"matchLabels": {"app": "db"}}, "template": template, "podManagementPolicy": "Parallel",
            "updateStrategy": {"type": "OnDelete"}, "minReadySeconds": 30, "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {}}],
        },
        "status": {"replicas": 1, "conditions": [{"type": "Custom", "status": "True"}]},
    });
    let pods = vec![
        pod(
            "db-0",
            json!({"app": "db", "statefulset.kubernetes.io/pod-name": "db-0"}),
            json!([owner()]),
        ),
        pod("db-1", json!({"app": "db"}), json!([])),
        pod(
            "db-7",
            json!({"app": "db", "statefulset.kubernetes.io/pod-name": "db-7"}),
            json!([owner()]),
        ),
    ];
    let mut line = Line {
        id: "1.1".into(),
        now: "2026-01-01T00:00:20Z".parse().expect("a time"),
        set,
        pods,
        claims: vec![
            json!({"metadata": {"name": "data-db-0", "uid": "uid-claim", "resourceVersion": "3"}}),
        ],
        revisions: Vec::new(),
        expect: Expect {
            writes: Vec::new(),
            error: None,
            events: Vec::new(),
            events_again: Vec::new(),
            recheck_after_seconds: None,
        },
    };
    line.expect = expectation(&line);
    line
}

fn owner() -> Value {
    json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db", "uid": "uid-set", "controller": true, "blockOwnerDeletion": true})
}

fn pod(name: &str, labels: Value, owners: Value) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}"), "labels": labels, "ownerReferences": owners},
        "spec": {"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": format!("data-{name}")}}]},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:10Z"}]},
    })
}

fn seen(line: &Line) -> Observed {
    let objects = Objects {
        set: &line.set,
        pods: &line.pods,
        claims: &line.claims,
        revisions: &line.revisions,
    };
    Observed::parse(objects, line.now, Freshness::default())
}

/// What Stead does, written down as a recording: the line is equal by construction, and corrupting it is what the tests are about.
fn expectation(line: &Line) -> Expect {
    let (seen, decision) = (seen(line), decide(&seen(line)));
    let written = |write: outcome::Write| Recorded {
        verb: match write.verb {
            Verb::Create => "create",
            Verb::Change => "update",
            Verb::Delete => "delete",
        }
        .into(),
        subresource: if write.resource == "statefulsets" {
            "status".into()
        } else {
            String::new()
        },
        resource: write.resource,
        name: write.name,
        uid: write.uid,
        object: Some(write.result),
        patch: None,
        refused: false,
    };
    let events = decision
        .plan
        .steps()
        .filter_map(|step| step.event(&seen.set, Ok(())));
    Expect {
        writes: outcome::ours(line, &seen, &decision)
            .into_iter()
            .map(written)
            .collect(),
        error: None,
        events: events
            .map(|event| (event.event_type.as_str().into(), event.reason.into()))
            .collect(),
        events_again: Vec::new(),
        recheck_after_seconds: decision
            .recheck_at
            .map(|at| at.duration_since(line.now).as_secs_f64()),
    }
}

fn kinds(outcome: &Outcome) -> Vec<&'static str> {
    outcome
        .differences
        .iter()
        .map(|difference| difference.kind)
        .collect()
}

/// The line, corrupted, differs in exactly these ways.
#[track_caller]
fn check(corrupt: impl FnOnce(&mut Line), expected: &[&str]) {
    let mut line = line();
    assert_eq!(
        kinds(&compare(&line)),
        Vec::<&str>::new(),
        "{}",
        compare(&line).readable()
    );
    corrupt(&mut line);
    let outcome = compare(&line);
    assert_eq!(kinds(&outcome), expected, "{}", outcome.readable());
}

fn write<'a>(line: &'a mut Line, verb: &str, name: &str) -> &'a mut Recorded {
    let mut writes = line.expect.writes.iter_mut();
    writes
        .find(|write| write.verb == verb && write.name == name)
        .expect("the line has this write")
}

fn object<'a>(line: &'a mut Line, verb: &str, name: &str) -> &'a mut Value {
    write(line, verb, name)
        .object
        .as_mut()
        .expect("it has an object")
}

#[test]
fn a_write_too_few_or_too_many_is_seen() {
    check(
        |line| line.expect.writes.retain(|write| write.name != "db-2"),
        &["writes"],
    );
    check(
        |line| write(line, "create", "db-2").name = "db-9".into(),
        &["writes", "writes"],
    );
    check(
        |line| write(line, "create", "data-db-3").verb = "update".into(),
        &["writes", "writes"],
    );
}

#[test]
fn a_write_twice_is_a_write_too_many() {
    check(
        |line| {
            let again = write(line, "create", "db-2").clone();
            line.expect.writes.push(again);
        },
        &["writes"],
    );
}

#[test]
fn another_uid_of_a_delete_is_seen_and_counted_as_unkind() {
    check(
        |line| write(line, "delete", "db-7").uid = "uid-other".into(),
        &["writes", "writes"],
    );
    let mut line = line();
    assert_eq!(compare(&line).unkind_deletes, Vec::<String>::new());
    line.expect.writes.retain(|write| write.verb != "delete");
    assert_eq!(compare(&line).unkind_deletes, ["pods db-7 (uid-db-7)"]);
}

#[test]
fn another_object_is_seen_to_the_field() {
    check(
        |line| object(line, "create", "db-2")["metadata"]["labels"]["app"] = json!("other"),
        &["objects"],
    );
    check(
        |line| {
            object(line, "create", "db-2")["metadata"]["ownerReferences"][0]["controller"] =
                json!(false)
        },
        &["objects"],
    );
    check(
        |line| {
            object(line, "create", "db-2")["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"] =
                json!("x")
        },
        &["objects"],
    );
    check(
        |line| object(line, "create", "db-2")["spec"]["hostname"] = json!("x"),
        &["objects"],
    );
    check(
        |line| object(line, "create", "data-db-3")["metadata"]["labels"] = json!({}),
        &["objects"],
    );
    check(
        |line| object(line, "update", "db-1")["metadata"]["labels"]["more"] = json!("x"),
        &["objects"],
    );
}

#[test]
fn another_revision_is_seen() {
    let revision = |line: &mut Line| {
        let mut writes = line.expect.writes.iter_mut();
        writes
            .position(|write| write.resource == "controllerrevisions")
            .expect("one is made")
    };
    check(
        |line| {
            let at = revision(line);
            line.expect.writes[at].name = "db-another".into();
        },
        &["writes", "writes"],
    );
    for change in [
        json!({"revision": 2}),
        json!({"data": {"spec": {}}}),
        json!({"metadata": {}}),
    ] {
        check(
            |line| {
                let at = revision(line);
                let object = line.expect.writes[at]
                    .object
                    .as_mut()
                    .expect("it has an object");
                for (key, value) in change.as_object().into_iter().flatten() {
                    object[key] = value.clone();
                }
            },
            &["objects"],
        );
    }
}

#[test]
fn another_status_is_seen() {
    for (field, value) in [
        ("replicas", json!(9)),
        ("currentRevision", json!("x")),
        ("collisionCount", json!(1)),
        ("conditions", json!([])),
    ] {
        check(
            |line| object(line, "update", "db")["status"][field] = value,
            &["status"],
        );
    }
    check(
        |line| {
            line.expect
                .writes
                .retain(|write| write.resource != "statefulsets")
        },
        &["status"],
    );
}

#[test]
fn a_status_that_only_upstream_writes_is_seen() {
    let mut line = line();
    line.set["spec"]["replicas"] = json!(0);
    line.pods.clear();
    let first = expectation(&line);
    let written = first
        .writes
        .iter()
        .find(|write| write.resource == "statefulsets")
        .and_then(|write| write.object.clone())
        .expect("it is");
    line.set["status"] = written["status"].clone();
    line.expect = expectation(&line);
    assert!(
        line.expect
            .writes
            .iter()
            .all(|write| write.resource != "statefulsets")
    );
    assert_eq!(kinds(&compare(&line)), Vec::<&str>::new());
    line.expect.writes.push(Recorded {
        object: Some(written),
        ..first.writes[0].clone()
    });
    let last = line.expect.writes.last_mut().expect("it was just pushed");
    (last.verb, last.resource, last.subresource, last.name) = (
        "update".into(),
        "statefulsets".into(),
        "status".into(),
        "db".into(),
    );
    assert_eq!(kinds(&compare(&line)), ["status"]);
}

#[test]
fn an_error_or_a_refusal_without_its_blocker_is_seen() {
    check(
        |line| line.expect.error = Some("pvc data-db-0 is being deleted".into()),
        &["blockers"],
    );
    check(
        |line| line.expect.error = Some("something new went wrong".into()),
        &["blockers"],
    );
    check(
        |line| {
            let mut refused = write(line, "create", "db-2").clone();
            refused.name = "db-0".into();
            refused.refused = true;
            line.expect.writes.push(refused);
        },
        &["blockers"],
    );
}

#[test]
fn a_refusal_is_known_by_its_blocker() {
    let mut line = line();
    line.pods
        .push(pod("db-2", json!({"app": "other"}), json!([])));
    line.expect = expectation(&line);
    let mut refused = line.expect.writes[0].clone();
    (
        refused.verb,
        refused.resource,
        refused.name,
        refused.refused,
    ) = ("create".into(), "pods".into(), "db-2".into(), true);
    line.expect.writes.push(refused);
    line.expect.error = Some("pods \"db-2\" already exists".into());
    assert_eq!(kinds(&compare(&line)), Vec::<&str>::new());
    line.expect.error = Some("pods \"db-3\" already exists".into());
    assert_eq!(kinds(&compare(&line)), ["blockers"]);
}

#[test]
fn another_time_to_look_again_is_seen() {
    check(|line| line.expect.recheck_after_seconds = Some(20.9), &[]);
    check(
        |line| line.expect.recheck_after_seconds = Some(21.1),
        &["recheck"],
    );
    check(
        |line| line.expect.recheck_after_seconds = None,
        &["recheck"],
    );
}

#[test]
fn a_claim_after_its_pod_is_seen() {
    let line = line();
    let seen = seen(&line);
    let mut decision = decide(&seen);
    decision
        .plan
        .stages
        .iter_mut()
        .flatten()
        .for_each(|lane| lane.reverse());
    let kinds = kinds(&compare_decision(&line, &seen, &decision));
    assert!(kinds.contains(&"order"), "{kinds:?}");
    assert!(kinds.contains(&"invariants"), "{kinds:?}");
}

#[test]
fn other_events_are_counted_apart() {
    let mut line = line();
    assert_eq!(compare(&line).event_differences, Vec::<String>::new());
    line.expect
        .events
        .push(("Warning".into(), "FailedCreate".into()));
    let outcome = compare(&line);
    assert_eq!(
        outcome.event_differences,
        ["upstream alone records Warning FailedCreate"]
    );
    assert_eq!(kinds(&outcome), Vec::<&str>::new());
}

#[test]
fn needless_writes_are_excused_by_page_and_others_are_not() {
    let mut line = line();
    let mut needless = write(&mut line, "update", "db-1").clone();
    needless.name = "db-0".into();
    needless.object = Some(line.pods[0].clone());
    line.expect.writes.push(needless);
    let outcome = compare(&line);
    assert_eq!(
        kinds(&outcome),
        Vec::<&str>::new(),
        "{}",
        outcome.readable()
    );
    assert_eq!(outcome.on_purpose.len(), 1);
    line.expect
        .writes
        .last_mut()
        .and_then(|write| write.object.as_mut())
        .expect("it was just pushed")["spec"] = json!({});
    assert_eq!(kinds(&compare(&line)), ["writes"]);
}

#[test]
fn the_exit_code_tells() {
    let good = [line()];
    let mut bad = line();
    bad.expect.recheck_after_seconds = None;
    let both = [line(), bad];
    let code = |lines: &[Line], at_least| {
        let options = Options {
            file: PathBuf::new(),
            at_least,
            first: 0,
        };
        format!("{:?}", report(lines, &options))
    };
    let (success, failure) = (
        format!("{:?}", ExitCode::SUCCESS),
        format!("{:?}", ExitCode::FAILURE),
    );
    assert_eq!(code(&good, None), success);
    assert_eq!(code(&both, None), failure);
    assert_eq!(code(&both, Some(1)), success);
    assert_eq!(code(&both, Some(2)), failure);
    let mut unkind = line();
    unkind.expect.writes.retain(|write| write.verb != "delete");
    assert_eq!(code(&[line(), unkind], Some(1)), failure);
}

#[test]
fn a_missing_or_empty_or_broken_file_is_a_failure() {
    let folder = tempfile::tempdir().expect("a folder");
    assert!(lines(&folder.path().join("no")).is_err());
    for (name, text) in [
        ("empty", ""),
        ("words", "no json\n"),
        ("half", "{\"id\": \"1\"}\n"),
    ] {
        let file = folder.path().join(name);
        std::fs::write(&file, text).expect("a file");
        assert!(lines(&file).is_err(), "{name}");
    }
}
