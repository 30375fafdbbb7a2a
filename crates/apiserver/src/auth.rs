//! Who asks: client certificates and bearer tokens become users.

pub(crate) mod der;
pub(crate) mod token;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use jiff::Timestamp;

use crate::object;
use crate::status::Status;
use crate::store::View;
use crate::user::User;

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
    key: &[u8; 32],
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
    token_user(bearer.trim(), view, key, now).ok_or_else(Status::unauthorized)
}

/// The service account of a token, if it is signed by this server, not expired, and the account (and pod) it names still is the same.
pub(crate) fn token_user(
    bearer: &str,
    view: &dyn View,
    key: &[u8; 32],
    now: Timestamp,
) -> Option<User> {
    let claims = token::verify(key, bearer)?;
    if claims["exp"].as_i64()? <= now.as_second() {
        return None;
    }
    let bound = &claims["kubernetes.io"];
    let namespace = bound["namespace"].as_str()?;
    let name = bound["serviceaccount"]["name"].as_str()?;
    let same = |table, name: &str, uid: &str| {
        view.object(table, namespace, name)
            .is_some_and(|stored| object::meta(&stored.value(), "uid") == uid)
    };
    if !same(
        ("", "serviceaccounts"),
        name,
        bound["serviceaccount"]["uid"].as_str()?,
    ) {
        return None;
    }
    if let Some(pod) = bound["pod"]["name"].as_str()
        && !same(("", "pods"), pod, bound["pod"]["uid"].as_str()?)
    {
        return None;
    }
    let groups = [
        "system:serviceaccounts".to_owned(),
        format!("system:serviceaccounts:{namespace}"),
    ];
    Some(User::new(
        format!("system:serviceaccount:{namespace}:{name}"),
        groups,
    ))
}
