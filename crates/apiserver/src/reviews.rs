//! Reviews: questions about who one is and what one may, answered without storing anything.

use http::StatusCode;
use serde_json::{Value, json};

use crate::auth::{identify, token};
use crate::authorize::{self, Attributes};
use crate::handle::{Outcome, Scene, answer};
use crate::object;
use crate::request::Target;
use crate::status::Status;
use crate::user::User;

/// Whether a target is one of the reviews.
pub(crate) fn is_review(target: &Target) -> bool {
    matches!(
        target.kind.group,
        "authentication.k8s.io" | "authorization.k8s.io"
    ) && target.kind.verbs == ["create"]
}

/// Answers a review.
pub(crate) fn review(scene: &mut Scene<'_>) -> Result<Outcome, Status> {
    let asked = scene.asked;
    let kind = asked.target.kind;
    let mut body = asked.body.value.clone();
    if !body.is_object() {
        return Err(Status::bad_request(format!(
            "the body is not a {}",
            kind.kind
        )));
    }
    body["apiVersion"] = kind.api_version().into();
    body["kind"] = kind.kind.into();
    if !body["metadata"].is_object() {
        body["metadata"] = json!({});
    }
    body["status"] = match kind.kind {
        "SelfSubjectReview" => {
            body["metadata"]["creationTimestamp"] = object::time(scene.now).into();
            json!({"userInfo": user_info(&asked.user)})
        }
        "TokenReview" => token_review(scene, &body),
        "SelfSubjectRulesReview" => authorize::rules(
            &asked.user,
            body["spec"]["namespace"].as_str().unwrap_or(""),
            scene.view,
        ),
        "SelfSubjectAccessReview" => access_review(scene, &asked.user, &body["spec"]),
        _ => access_review(scene, &subject(&body["spec"]), &body["spec"]),
    };
    Ok(Outcome::reply(answer(
        StatusCode::CREATED,
        &body,
        asked.format.yaml,
        &[],
    )))
}

fn user_info(user: &User) -> Value {
    json!({"username": user.name, "groups": user.groups})
}

fn token_review(scene: &Scene<'_>, body: &Value) -> Value {
    let spec = &body["spec"];
    let token = spec["token"].as_str().unwrap_or("");
    let asked = spec["audiences"].as_array().into_iter().flatten();
    let mut audiences: Vec<&str> = asked.filter_map(Value::as_str).collect();
    if audiences.is_empty() {
        audiences.push(token::ISSUER);
    }
    let key = &scene.environment.token_key;
    match identify(token, &audiences, scene.view, key, scene.now) {
        Some(identity) => {
            let mut user = user_info(&identity.user);
            user["uid"] = identity.uid.into();
            user["extra"] = identity.extra;
            json!({"authenticated": true, "user": user, "audiences": identity.audiences})
        }
        None => json!({"user": {}, "error": "[invalid bearer token]"}),
    }
}

fn subject(spec: &Value) -> User {
    let groups = spec["groups"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    User {
        name: spec["user"].as_str().unwrap_or("").to_owned(),
        groups,
    }
}

fn access_review(scene: &Scene<'_>, user: &User, spec: &Value) -> Value {
    let resource = &spec["resourceAttributes"];
    let text = |field: &str| resource[field].as_str().unwrap_or("");
    let attributes = if resource.is_object() {
        Attributes {
            verb: text("verb"),
            group: text("group"),
            resource: text("resource"),
            subresource: text("subresource"),
            namespace: text("namespace"),
            name: text("name"),
            path: "",
        }
    } else {
        let other = &spec["nonResourceAttributes"];
        Attributes {
            verb: other["verb"].as_str().unwrap_or(""),
            path: other["path"].as_str().unwrap_or(""),
            ..Attributes::default()
        }
    };
    match authorize::decide(user, &attributes, scene.view) {
        Some(reason) => json!({"allowed": true, "reason": reason}),
        None => json!({"allowed": false}),
    }
}
