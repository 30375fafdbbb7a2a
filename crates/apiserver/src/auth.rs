//! Who asks: client certificates and bearer tokens become users.

pub(crate) mod der;
pub(crate) mod token;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::object;
use crate::status::Status;
use crate::store::View;
use crate::user::User;

use token::TokenKey;

/// The user of a verified client certificate: its common name, in the groups of its organisations.
pub(crate) fn certificate_user(certificate: &[u8]) -> Option<User> {
    let subject = der::read(certificate)?;
    Some(User::new(subject.common_name?, subject.organizations))
}

/// The user of a request: the certificate's, else the bearer token's, else nobody.
///
/// # Errors
/// 401 for a token that is not valid.
pub(crate) fn authenticate(
    certificate: Option<&User>,
    headers: &HeaderMap,
    view: &dyn View,
    key: &TokenKey,
    now: Timestamp,
) -> Result<User, Status> {
    if let Some(user) = certificate {
        return Ok(user.clone());
    }
    let Some(header) = headers.get(AUTHORIZATION) else {
        return Ok(User::anonymous());
    };
    let bearer = header
        .to_str()
        .ok()
        .and_then(|text| text.strip_prefix("Bearer "))
        .ok_or_else(Status::unauthorized)?;
    identify(bearer.trim(), &[token::ISSUER], view, key, now)
        .map(|identity| identity.user)
        .ok_or_else(Status::unauthorized)
}

/// What a valid token tells.
#[derive(Debug)]
pub(crate) struct Identity {
    /// The service account as a user.
    pub(crate) user: User,
    /// The account's UID.
    pub(crate) uid: String,
    /// What else is known: the pod, its node, the token's own id.
    pub(crate) extra: Value,
    /// The audiences asked for that the token is good for.
    pub(crate) audiences: Vec<String>,
}

/// What a token tells, if it is signed by this server for one of the audiences, not expired, and the account, pod, secret
/// or node that it names still is the same.
pub(crate) fn identify(
    bearer: &str,
    audiences: &[&str],
    view: &dyn View,
    key: &TokenKey,
    now: Timestamp,
) -> Option<Identity> {
    let claims = key.verify(bearer)?;
    if claims["iss"] != token::ISSUER || claims["exp"].as_i64()? <= now.as_second() {
        return None;
    }
    let good_for = claims["aud"].as_array()?;
    let audiences: Vec<String> = audiences
        .iter()
        .filter(|asked| good_for.iter().any(|own| own == *asked))
        .map(|asked| (*asked).to_owned())
        .collect();
    if audiences.is_empty() {
        return None;
    }
    let bound = &claims["kubernetes.io"];
    let namespace = bound["namespace"].as_str()?;
    let account = &bound["serviceaccount"];
    let name = account["name"].as_str()?;
    let same = |table, namespace: &str, own: &Value| {
        let (name, uid) = (own["name"].as_str()?, own["uid"].as_str()?);
        let stored = view.object(table, namespace, name)?;
        (object::meta(&stored.value(), "uid") == uid).then_some(())
    };
    same(("", "serviceaccounts"), namespace, account)?;
    for (field, plural, namespace) in [("pod", "pods", namespace), ("secret", "secrets", namespace)]
    {
        if bound[field].is_object() {
            same(("", plural), namespace, &bound[field])?;
        }
    }
    // A pod's token names its node too, and ends with the pod; a token of a node alone ends with the node.
    if bound["node"].is_object() && !bound["pod"].is_object() {
        same(("", "nodes"), "", &bound["node"])?;
    }
    let groups = [
        "system:serviceaccounts".to_owned(),
        format!("system:serviceaccounts:{namespace}"),
    ];
    Some(Identity {
        user: User::new(format!("system:serviceaccount:{namespace}:{name}"), groups),
        uid: account["uid"].as_str()?.to_owned(),
        extra: extra(&claims),
        audiences,
    })
}

/// What a token says beyond the account, under upstream's names.
fn extra(claims: &Value) -> Value {
    let bound = &claims["kubernetes.io"];
    let mut extra = serde_json::Map::new();
    if let Some(id) = claims["jti"].as_str() {
        let id = format!("JTI={id}");
        extra.insert(
            "authentication.kubernetes.io/credential-id".to_owned(),
            json!([id]),
        );
    }
    for (kind, field) in [
        ("pod", "name"),
        ("pod", "uid"),
        ("node", "name"),
        ("node", "uid"),
    ] {
        if let Some(text) = bound[kind][field].as_str() {
            let name = format!("authentication.kubernetes.io/{kind}-{field}");
            extra.insert(name, json!([text]));
        }
    }
    Value::Object(extra)
}
