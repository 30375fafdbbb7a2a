//! The runner can fail: an answer changed in each compared way is seen.

use serde_json::{Value, json};

use super::replay::{Answer, Replayed, Talker, conversation};

/// A conversation of two compared steps and a watch, as a recorder would have noted it.
fn recorded() -> Value {
    let object = |labels: Value| json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "a", "namespace": "${ns}", "uid": "<set>", "resourceVersion": "<set>", "creationTimestamp": "<set>", "labels": labels}, "data": {"k": "v"}});
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "labels": {"x": "1"}}, "data": {"k": "v"}});
    let headers = json!({"Content-Type": "application/json", "Accept": "application/json"});
    json!({"id": "test/1", "theme": "test", "managedFields": false, "steps": [
        {"request": {"method": "POST", "path": "/api/v1/namespaces", "headers": headers, "body": {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "${ns}"}}}, "setup": true},
        {"request": {"method": "POST", "path": "/api/v1/namespaces/${ns}/configmaps", "headers": headers, "body": body},
         "response": {"status": 201, "contentType": "application/json", "body": object(json!({"x": "1"}))}},
        {"request": {"method": "GET", "path": "/api/v1/namespaces/${ns}/configmaps/b", "headers": headers},
         "response": {"status": 404, "contentType": "application/json", "body": {"kind": "Status", "status": "Failure", "code": 404, "reason": "NotFound", "details": {"name": "b", "kind": "configmaps"}}}},
        {"request": {"method": "GET", "path": "/api/v1/namespaces/${ns}/configmaps?watch=1&timeoutSeconds=1", "headers": headers},
         "response": {"status": 200, "contentType": "application/json", "events": [{"type": "ADDED", "object": object(json!({"x": "1"}))}]}},
    ]})
}

fn replayed(perturb: fn(&Value, &mut Answer)) -> Replayed {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let talker = Talker::perturbing(perturb)
            .await
            .expect("a server in memory");
        conversation(&talker, &recorded(), 0).await
    })
}

fn check(what: &str, perturb: fn(&Value, &mut Answer)) {
    let replayed = replayed(perturb);
    assert!(
        !replayed.differences.is_empty(),
        "a changed {what} was not seen"
    );
    assert!(
        replayed.equal < replayed.steps,
        "a changed {what} was counted as equal"
    );
}

#[test]
fn an_unchanged_conversation_is_equal() {
    let replayed = replayed(|_, _| {});
    assert_eq!(replayed.differences, Vec::<String>::new());
    assert_eq!((replayed.steps, replayed.equal), (3, 3));
}

#[test]
fn a_change_of_each_compared_thing_is_caught() {
    check("code", |_, answer| answer.code += 1);
    check("content type", |_, answer| {
        answer.content_type = "text/plain".to_owned()
    });
    check("number of warnings", |_, answer| answer.warnings += 1);
    check("value", |_, answer| {
        answer.text = answer.text.replace("\"v\"", "\"w\"")
    });
    check("label", |_, answer| {
        answer.text = answer.text.replace("\"x\"", "\"y\"")
    });
    check("missing field", |_, answer| {
        answer.text = answer.text.replace("\"uid\"", "\"uidx\"")
    });
    check("reason of a status", |_, answer| {
        answer.text = answer.text.replace("\"NotFound\"", "\"Gone\"")
    });
    check("name in a status", |_, answer| {
        answer.text = answer.text.replace("\"name\":\"b\"", "\"name\":\"c\"")
    });
    check("type of an event", |_, answer| {
        answer.text = answer.text.replace("\"ADDED\"", "\"MODIFIED\"")
    });
    check("number of events", |step, answer| {
        if step["request"]["path"]
            .as_str()
            .is_some_and(|path| path.contains("watch="))
        {
            answer.text = answer.text.repeat(2);
        }
    });
}

#[test]
fn what_is_not_compared_does_not_matter() {
    let replayed =
        replayed(|_, answer| answer.text = answer.text.replace("not found", "nowhere to be seen"));
    assert_eq!(replayed.differences, Vec::<String>::new());
}
