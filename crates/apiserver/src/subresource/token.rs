//! `serviceaccounts/token`: a signed token for a service account.

use http::StatusCode;
use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::auth::token;
use crate::handle::{Outcome, Scene, answer};
use crate::object;
use crate::status::{Cause, Status};

/// Seconds that a token lives where the request does not say.
const DEFAULT_SECONDS: i64 = 3600;
const LEAST_SECONDS: i64 = 600;
const MOST_SECONDS: i64 = 1 << 32;

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
    check_seconds(seconds, &target.name)?;
    let audiences = match spec["audiences"].as_array() {
        Some(list) if !list.is_empty() => spec["audiences"].clone(),
        Some(_) | None => json!([token::ISSUER]),
    };
    let expires = scene
        .now
        .checked_add(SignedDuration::from_secs(seconds))
        .unwrap_or(scene.now);
    let bound = bound(scene, &account, &spec["boundObjectRef"])?;
    let claims = claims(
        &account,
        &audiences,
        bound,
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
    let token = scene.environment.token_key.sign(&claims);
    let token = token.ok_or_else(|| Status::internal("the token could not be signed"))?;
    answered["status"] = json!({"token": token, "expirationTimestamp": object::time(expires)});
    Ok(Outcome::reply(answer(
        StatusCode::CREATED,
        &answered,
        asked.format.yaml,
        &[],
    )))
}

fn check_seconds(seconds: i64, name: &str) -> Result<(), Status> {
    let problem = if seconds < LEAST_SECONDS {
        "Invalid value: may not specify a duration less than 10 minutes"
    } else if seconds > MOST_SECONDS {
        "Invalid value: may not specify a duration larger than 2^32 seconds"
    } else {
        return Ok(());
    };
    let cause = Cause::new("FieldValueInvalid", "spec.expirationSeconds", problem);
    Err(Status::invalid(
        "authentication.k8s.io",
        "TokenRequest",
        name,
        &[cause],
    ))
}

/// What the token says of its account, and of the object that it ends with: that must be there, be the one that is
/// meant, and, if it is a pod, run as this account.
fn bound(scene: &Scene<'_>, account: &Value, reference: &Value) -> Result<Value, Status> {
    let (namespace, name) = (object::meta(account, "namespace"), object::name(account));
    let mut bound = json!({"namespace": namespace, "serviceaccount": {"name": name, "uid": object::meta(account, "uid")}});
    let kind = match reference["kind"].as_str() {
        None => return Ok(bound),
        Some(kind) => kind,
    };
    let (field, plural, space) = match kind {
        "Pod" => ("pod", "pods", namespace),
        "Secret" => ("secret", "secrets", namespace),
        "Node" => ("node", "nodes", ""),
        other => {
            let version = reference["apiVersion"].as_str().unwrap_or("");
            let words = format!("cannot bind token to object of type {version}, Kind={other}");
            return Err(Status::bad_request(words));
        }
    };
    let wanted = reference["name"].as_str().unwrap_or("");
    let stored = scene.view.object(("", plural), space, wanted);
    let stored = stored.ok_or_else(|| Status::not_found("", plural, wanted))?;
    let found = stored.value();
    let uid = object::meta(&found, "uid");
    let asked = reference["uid"].as_str().unwrap_or(uid);
    if asked != uid {
        let why = format!(
            "the UID in the bound object reference ({asked}) does not match the UID in record. The object might have been deleted and then recreated"
        );
        return Err(Status::conflict("", plural, wanted, &why));
    }
    bound[field] = json!({"name": wanted, "uid": uid});
    if kind == "Pod" {
        if found["spec"]["serviceAccountName"] != name {
            let words = format!(
                "cannot bind token for serviceaccount \"{name}\" to pod running with different serviceaccount name."
            );
            return Err(Status::bad_request(words));
        }
        let node = found["spec"]["nodeName"].as_str().unwrap_or("");
        if let Some(stored) = scene.view.object(("", "nodes"), "", node) {
            bound["node"] = json!({"name": node, "uid": object::meta(&stored.value(), "uid")});
        }
    }
    Ok(bound)
}

fn claims(
    account: &Value,
    audiences: &Value,
    bound: Value,
    now: i64,
    expires: i64,
    id: &str,
) -> Value {
    let (namespace, name) = (object::meta(account, "namespace"), object::name(account));
    json!({
        "iss": token::ISSUER, "aud": audiences, "sub": format!("system:serviceaccount:{namespace}:{name}"),
        "iat": now, "nbf": now, "exp": expires, "jti": id, "kubernetes.io": bound,
    })
}
