//! What is in configMap, secret, downwardAPI and projected volumes: paths, bytes and modes.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1 as authentication;
use k8s_openapi::api::core::v1 as core;
use kube::api::PostParams;
use kube::{Api, Client};

use super::MountError;
use crate::env::fields;

/// Files by path below the volume.
pub(crate) type Payload = BTreeMap<String, Content>;

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Content {
    /// Its bytes.
    pub(crate) bytes: Vec<u8>,
    /// Its permissions.
    pub(crate) mode: u32,
}

/// Where upstream's defaults end.
const DEFAULT_MODE: i32 = 0o644;

/// The API puts this ConfigMap into every token volume; where nobody publishes it, the volume goes without.
const FOREIGN_CA: &str = "openshift-service-ca.crt";

/// Reads what volumes are made of.
pub(crate) struct Sources<'a> {
    /// The API.
    pub(crate) client: &'a Client,
    /// Whose volumes.
    pub(crate) pod: &'a core::Pod,
}

impl Sources<'_> {
    fn namespace(&self) -> &str {
        self.pod.metadata.namespace.as_deref().unwrap_or_default()
    }

    pub(crate) async fn config_map(
        &self,
        name: &str,
        optional: Option<bool>,
        items: Option<&[core::KeyToPath]>,
        mode: Option<i32>,
    ) -> Result<Payload, MountError> {
        let api: Api<core::ConfigMap> = Api::namespaced(self.client.clone(), self.namespace());
        let found = api
            .get_opt(name)
            .await
            .map_err(|source| api_error("configmap", name, source))?;
        let data = found.map(|map| {
            let text = map
                .data
                .into_iter()
                .flatten()
                .map(|(key, value)| (key, value.into_bytes()));
            let binary = map
                .binary_data
                .into_iter()
                .flatten()
                .map(|(key, value)| (key, value.0));
            text.chain(binary).collect()
        });
        select(
            "configmap",
            name,
            data,
            optional.unwrap_or(false),
            items,
            mode,
        )
    }

    pub(crate) async fn secret(
        &self,
        name: &str,
        optional: Option<bool>,
        items: Option<&[core::KeyToPath]>,
        mode: Option<i32>,
    ) -> Result<Payload, MountError> {
        let api: Api<core::Secret> = Api::namespaced(self.client.clone(), self.namespace());
        let found = api
            .get_opt(name)
            .await
            .map_err(|source| api_error("secret", name, source))?;
        let data = found.map(|secret| {
            secret
                .data
                .into_iter()
                .flatten()
                .map(|(key, value)| (key, value.0))
                .collect()
        });
        select("secret", name, data, optional.unwrap_or(false), items, mode)
    }

    pub(crate) fn downward(
        &self,
        items: &[core::DownwardAPIVolumeFile],
        mode: Option<i32>,
    ) -> Result<Payload, MountError> {
        let mut payload = Payload::new();
        for item in items {
            let text = match (&item.field_ref, &item.resource_field_ref) {
                (Some(field), _) => fields::field(self.pod, &field.field_path, None),
                (None, Some(resource)) => {
                    let container = resource.container_name.as_deref().unwrap_or_default();
                    fields::resource(self.pod, container, resource)
                }
                (None, None) => Ok(String::new()),
            };
            let bytes = text.map_err(MountError::Missing)?.into_bytes();
            let mode = item.mode.or(mode);
            insert(&mut payload, &item.path, bytes, mode)?;
        }
        Ok(payload)
    }

    pub(crate) async fn projected(
        &self,
        source: &core::ProjectedVolumeSource,
    ) -> Result<(Payload, Option<Timestamp>), MountError> {
        let mode = source.default_mode;
        let mut all = Payload::new();
        let mut renew_at = None;
        for part in source.sources.iter().flatten() {
            let payload = if let Some(map) = &part.config_map {
                let optional = map.optional.or((map.name == FOREIGN_CA).then_some(true));
                self.config_map(&map.name, optional, map.items.as_deref(), mode)
                    .await?
            } else if let Some(secret) = &part.secret {
                self.secret(&secret.name, secret.optional, secret.items.as_deref(), mode)
                    .await?
            } else if let Some(downward) = &part.downward_api {
                self.downward(downward.items.as_deref().unwrap_or_default(), mode)?
            } else if let Some(token) = &part.service_account_token {
                let (payload, due) = self.token(token, mode).await?;
                renew_at = renew_at.into_iter().chain(due).min();
                payload
            } else {
                return Err(MountError::Unsupported {
                    kind: "this source of projected",
                });
            };
            all.extend(payload);
        }
        Ok((all, renew_at))
    }

    /// A token of the pod's service account, bound to the pod; and when it is to be renewed.
    async fn token(
        &self,
        source: &core::ServiceAccountTokenProjection,
        mode: Option<i32>,
    ) -> Result<(Payload, Option<Timestamp>), MountError> {
        let asked_at = Timestamp::now();
        let account = self
            .pod
            .spec
            .as_ref()
            .and_then(|spec| spec.service_account_name.as_deref())
            .unwrap_or("default");
        let api: Api<core::ServiceAccount> = Api::namespaced(self.client.clone(), self.namespace());
        let audiences = source
            .audience
            .clone()
            .filter(|audience| !audience.is_empty());
        let request = authentication::TokenRequest {
            spec: Some(authentication::TokenRequestSpec {
                audiences: audiences.map(|audience| vec![audience]),
                expiration_seconds: source.expiration_seconds,
                bound_object_ref: Some(authentication::BoundObjectReference {
                    api_version: Some("v1".to_owned()),
                    kind: Some("Pod".to_owned()),
                    name: self.pod.metadata.name.clone(),
                    uid: self.pod.metadata.uid.clone(),
                }),
            }),
            ..authentication::TokenRequest::default()
        };
        let answer = api
            .create_token_request(account, &PostParams::default(), &request)
            .await;
        let answer =
            answer.map_err(|source| api_error("a token of serviceaccount", account, source))?;
        let status = answer.status.unwrap_or_default();
        let mut payload = Payload::new();
        let token = status.token.unwrap_or_default();
        insert(&mut payload, &source.path, token.into_bytes(), mode)?;
        let until = status.expiration_timestamp;
        Ok((payload, until.map(|until| renewal(asked_at, until.0))))
    }
}

/// upstream: `requiresRefresh`: after 80 % of a token's life, and never later than after a day.
fn renewal(from: Timestamp, until: Timestamp) -> Timestamp {
    const DAY: SignedDuration = SignedDuration::from_hours(24);
    let life = until.duration_since(from);
    let wait = (life / 5 * 4).clamp(SignedDuration::from_secs(1), DAY);
    from.saturating_add(wait).unwrap_or(until)
}

fn api_error(kind: &str, name: &str, source: kube::Error) -> MountError {
    MountError::Api {
        what: format!("{kind} {name}"),
        source: Box::new(source),
    }
}

/// All keys, or just those that `items` names, each where it says. Words of errors are upstream's.
fn select(
    kind: &str,
    name: &str,
    data: Option<BTreeMap<String, Vec<u8>>>,
    optional: bool,
    items: Option<&[core::KeyToPath]>,
    mode: Option<i32>,
) -> Result<Payload, MountError> {
    let data = match data {
        Some(data) => data,
        None if optional => BTreeMap::new(),
        None => return Err(MountError::Missing(format!("{kind} \"{name}\" not found"))),
    };
    let mut payload = Payload::new();
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        for (key, bytes) in data {
            insert(&mut payload, &key, bytes, mode)?;
        }
        return Ok(payload);
    };
    for item in items {
        match data.get(&item.key) {
            Some(bytes) => insert(&mut payload, &item.path, bytes.clone(), item.mode.or(mode))?,
            None if optional => {}
            None => {
                return Err(MountError::Missing(format!(
                    "references non-existent {} key: {}",
                    kind_word(kind),
                    item.key
                )));
            }
        }
    }
    Ok(payload)
}

fn kind_word(kind: &str) -> &str {
    if kind == "configmap" { "config" } else { kind }
}

/// Puts a file in; a path that could lead out of the volume is refused.
fn insert(
    payload: &mut Payload,
    path: &str,
    bytes: Vec<u8>,
    mode: Option<i32>,
) -> Result<(), MountError> {
    let parts = path.split('/');
    if path.is_empty()
        || parts
            .clone()
            .any(|part| part.is_empty() || part == "." || part == "..")
        || path.starts_with("..")
    {
        return Err(MountError::Missing(format!(
            "invalid path {path:?}: it must stay within the volume"
        )));
    }
    let mode = u32::try_from(mode.unwrap_or(DEFAULT_MODE)).unwrap_or(0o644) & 0o777;
    payload.insert(path.to_owned(), Content { bytes, mode });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(pairs: &[(&str, &str, Option<i32>)]) -> Vec<core::KeyToPath> {
        let item = |(key, path, mode): &(&str, &str, Option<i32>)| core::KeyToPath {
            key: (*key).to_owned(),
            path: (*path).to_owned(),
            mode: *mode,
        };
        pairs.iter().map(item).collect()
    }

    /// `path=text:mode` in order, or the error.
    fn check(
        data: Option<&[(&str, &str)]>,
        optional: bool,
        chosen: &[(&str, &str, Option<i32>)],
        mode: Option<i32>,
    ) -> String {
        let data = data.map(|data| {
            data.iter()
                .map(|(k, v)| ((*k).to_owned(), v.as_bytes().to_vec()))
                .collect()
        });
        let chosen = items(chosen);
        match select("configmap", "c", data, optional, Some(&chosen), mode) {
            Ok(payload) => payload
                .iter()
                .map(|(path, c)| {
                    format!("{path}={}:{:o}", String::from_utf8_lossy(&c.bytes), c.mode)
                })
                .collect::<Vec<_>>()
                .join(" "),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_token_is_renewed_after_four_fifths_of_its_life_or_a_day() {
        let check = |seconds: i64| {
            let from = Timestamp::UNIX_EPOCH;
            renewal(from, from + SignedDuration::from_secs(seconds)).as_second()
        };
        assert_eq!((check(3_600), check(600)), (2_880, 480));
        assert_eq!(check(365 * 86_400), 86_400);
        assert_eq!(
            check(-5),
            1,
            "what has ended already is asked for again, but not in a whirl"
        );
    }

    #[test]
    fn keys_items_modes_and_optional_are_upstreams() {
        let data: &[(&str, &str)] = &[("a", "1"), ("b", "2")];
        assert_eq!(check(Some(data), false, &[], None), "a=1:644 b=2:644");
        assert_eq!(
            check(Some(data), false, &[("a", "x/y", Some(0o400))], Some(0o755)),
            "x/y=1:400"
        );
        assert_eq!(
            check(Some(data), false, &[("b", "b", None)], Some(0o755)),
            "b=2:755"
        );
        assert_eq!(
            check(Some(data), false, &[("c", "c", None)], None),
            "references non-existent config key: c"
        );
        assert_eq!(check(Some(data), true, &[("c", "c", None)], None), "");
        assert_eq!(check(None, false, &[], None), "configmap \"c\" not found");
        assert_eq!(check(None, true, &[], None), "");
        for path in ["../x", "a/../x", "/x", "", "..x"] {
            assert!(
                check(Some(data), false, &[("a", path, None)], None).contains("must stay within"),
                "{path}"
            );
        }
    }
}
