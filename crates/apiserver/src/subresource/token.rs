//! `serviceaccounts/token`: a signed token for a service account.

use http::StatusCode;
use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::auth::token;
use crate::handle::{Outcome, Scene, answer};
use crate::object;
use crate::status::Status;

/// Seconds that a token lives where the request does not say.
const DEFAULT_SECONDS: i64 = 3600;

/// Issues a token.
pub(crate) fn create(scene: &mut Scene<'_>) -> Result<Outcome, Status> {
    let asked = scene.asked;
    let target = &asked.target;
    let stored = scene
        .view
        .object(("", "serviceaccounts"), &target.namespace, &target.name)
        .ok_or_else(|| Status::not_found("", "serviceaccounts", &target.name))?;
    let account = stored.value();
    let spec = &asked.body.value["spec"];
    let seconds = spec["expirationSeconds"]
        .as_i64()
        .unwrap_or(DEFAULT_SECONDS);
    if seconds < 600 {
        let cause = crate::status::Cause::new(
            "FieldValueInvalid",
            "spec.expirationSeconds",
            "Invalid value: may not specify a duration less than 10 minutes",
        );
        return Err(Status::invalid(
            "authentication.k8s.io",
            "TokenRequest",
            &target.name,
            &[cause],
        ));
    }
    let audiences = match spec["audiences"].as_array() {
        Some(list) if !list.is_empty() => spec["audiences"].clone(),
        Some(_) | None => json!([token::ISSUER]),
    };
    let expires = scene
        .now
        .checked_add(SignedDuration::from_secs(seconds))
        .unwrap_or(scene.now);
    let claims = claims(
        &account,
        &audiences,
        spec,
        scene.now.as_second(),
        expires.as_second(),
        &scene.entropy.uuid(),
    );
    let mut answered = asked.body.value.clone();
    answered["apiVersion"] = "authentication.k8s.io/v1".into();
    answered["kind"] = "TokenRequest".into();
    answered["metadata"]["name"] = target.name.as_str().into();
    answered["metadata"]["namespace"] = target.namespace.as_str().into();
    answered["metadata"]["creationTimestamp"] = object::time(scene.now).into();
    answered["spec"]["audiences"] = audiences;
    answered["spec"]["expirationSeconds"] = seconds.into();
    if spec["boundObjectRef"].is_null() {
        answered["spec"]["boundObjectRef"] = Value::Null;
    }
    answered["status"] = json!({"token": token::sign(&scene.environment.token_key, &claims), "expirationTimestamp": object::time(expires)});
    Ok(Outcome::reply(answer(
        StatusCode::CREATED,
        &answered,
        asked.format.yaml,
        &[],
    )))
}

fn claims(
    account: &Value,
    audiences: &Value,
    spec: &Value,
    now: i64,
    expires: i64,
    id: &str,
) -> Value {
    let (namespace, name) = (object::meta(account, "namespace"), object::name(account));
    let mut bound = json!({"namespace": namespace, "serviceaccount": {"name": name, "uid": object::meta(account, "uid")}});
    let reference = &spec["boundObjectRef"];
    if reference["kind"] == "Pod" {
        bound["pod"] = json!({"name": reference["name"], "uid": reference["uid"]});
    }
    json!({
        "iss": token::ISSUER, "aud": audiences, "sub": format!("system:serviceaccount:{namespace}:{name}"),
        "iat": now, "nbf": now, "exp": expires, "jti": id, "kubernetes.io": bound,
    })
}
