//! A thin client of the Kubernetes API: JSON in, JSON out.

use std::path::Path;

use http::Request;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::Value;
use stead_schema::Kind;

use crate::failure::Failure;

/// Who writes: the field manager of everything that this command line applies.
pub(crate) const FIELD_MANAGER: &str = "stead";

/// A connection to an API server.
#[derive(Clone)]
pub(crate) struct Api {
    /// The client itself, for streams.
    pub(crate) client: kube::Client,
}

/// Where one object, or all of a kind, is found.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// Its kind.
    pub(crate) kind: &'static Kind,
    /// Its namespace; `None` for all, and for kinds that have none.
    pub(crate) namespace: Option<String>,
    /// Its name; `None` for the whole collection.
    pub(crate) name: Option<String>,
}

impl Target {
    /// All objects of a kind in one namespace, or in all.
    pub(crate) fn all(kind: &'static Kind, namespace: Option<&str>) -> Target {
        let namespace = namespace.filter(|_| kind.namespaced).map(str::to_owned);
        Target {
            kind,
            namespace,
            name: None,
        }
    }

    /// One of them.
    pub(crate) fn named(&self, name: &str) -> Target {
        Target {
            name: Some(name.to_owned()),
            ..self.clone()
        }
    }

    /// As kubectl writes it: `statefulset.apps/web`.
    pub(crate) fn display(&self) -> String {
        let kind = self.kind.kind.to_lowercase();
        let kind = if self.kind.group.is_empty() {
            kind
        } else {
            format!("{kind}.{}", self.kind.group)
        };
        self.name
            .as_ref()
            .map_or(kind.clone(), |name| format!("{kind}/{name}"))
    }

    /// Path of the object or collection.
    pub(crate) fn path(&self) -> String {
        let Kind {
            group,
            version,
            plural,
            ..
        } = *self.kind;
        let root = if group.is_empty() {
            format!("/api/{version}")
        } else {
            format!("/apis/{group}/{version}")
        };
        let namespace = self
            .namespace
            .as_ref()
            .map(|ns| format!("/namespaces/{ns}"))
            .unwrap_or_default();
        let name = self
            .name
            .as_ref()
            .map(|name| format!("/{name}"))
            .unwrap_or_default();
        format!("{root}{namespace}/{plural}{name}")
    }
}

/// The kind that a user means by `pods`, `po`, `pod`, `Pod` or `pods.v1.`-like words.
pub(crate) fn kind_named(word: &str) -> Result<&'static Kind, Failure> {
    let wanted = word.to_lowercase();
    let (plain, group) = wanted
        .split_once('.')
        .map_or((wanted.as_str(), None), |(plain, group)| {
            (plain, Some(group))
        });
    let means = |kind: &&'static Kind| {
        let known = kind.plural == plain
            || kind.singular == plain
            || kind.kind.to_lowercase() == plain
            || kind.short_names.contains(&plain);
        known && group.is_none_or(|group| kind.group == group)
    };
    stead_schema::kinds().find(means).ok_or_else(|| {
        Failure::input(format!(
            "there is no kind {word:?}; `stead get` knows pods, sts, svc, pvc, ..."
        ))
    })
}

/// Reads `KIND/NAME`, or `KIND` and a name.
pub(crate) fn kind_and_name(word: &str) -> Result<(&'static Kind, Option<String>), Failure> {
    match word.split_once('/') {
        Some((kind, name)) if !name.is_empty() => Ok((kind_named(kind)?, Some(name.to_owned()))),
        Some(_) => Err(Failure::input(format!(
            "{word:?} names no object; write KIND/NAME"
        ))),
        None => Ok((kind_named(word)?, None)),
    }
}

impl Api {
    /// Connects as the kubeconfig says.
    pub(crate) async fn from_kubeconfig(path: &Path) -> Result<Api, Failure> {
        let what = format!("could not read {}", path.display());
        let file = Kubeconfig::read_from(path).map_err(|error| Failure::caused(&what, &error))?;
        let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
            .await
            .map_err(|error| Failure::caused(&what, &error))?;
        let client =
            kube::Client::try_from(config).map_err(|error| Failure::caused(&what, &error))?;
        Ok(Api { client })
    }

    /// Sends a request; `None` where the object is not there.
    pub(crate) async fn find(&self, target: &Target) -> Result<Option<Value>, Failure> {
        match self.client.request::<Value>(get(target.path())?).await {
            Ok(object) => Ok(Some(object)),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => Err(refused(&format!("get {}", target.display()), &error)),
        }
    }

    /// The items of a collection.
    pub(crate) async fn list(&self, target: &Target, query: &str) -> Result<Vec<Value>, Failure> {
        let path = format!("{}?{query}", target.path());
        let mut list: Value = self
            .send(&format!("list {}", target.display()), get(path)?)
            .await?;
        match list.get_mut("items").map(Value::take) {
            Some(Value::Array(items)) => Ok(items),
            _ => Err(Failure::failed(format!(
                "the answer to list {} holds no items",
                target.display()
            ))),
        }
    }

    /// Sends a request and reads the JSON that answers it. `what` tells what was tried: "scale statefulset.apps/web".
    pub(crate) async fn send(
        &self,
        what: &str,
        request: Request<Vec<u8>>,
    ) -> Result<Value, Failure> {
        self.client
            .request(request)
            .await
            .map_err(|error| refused(what, &error))
    }
}

/// A GET of a path with its query.
pub(crate) fn get(path: String) -> Result<Request<Vec<u8>>, Failure> {
    request("GET", path, "application/json", Vec::new())
}

/// Any request.
pub(crate) fn request(
    method: &str,
    path: String,
    content: &str,
    body: Vec<u8>,
) -> Result<Request<Vec<u8>>, Failure> {
    let built = Request::builder()
        .method(method)
        .uri(&path)
        .header("content-type", content)
        .body(body);
    built.map_err(|error| Failure::caused(&format!("{path:?} makes no request"), &error))
}

/// The server's own words where it gave some.
pub(crate) fn refused(what: &str, error: &kube::Error) -> Failure {
    match error {
        kube::Error::Api(status) => Failure::failed(format!(
            "could not {what}: {} ({})",
            status.message, status.reason
        )),
        other => Failure::caused(&format!("could not {what}"), other),
    }
}

/// Percent-encodes one value of a query.
pub(crate) fn encode(value: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    value
        .bytes()
        .map(|byte| {
            if plain(byte) {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_known_by_all_their_names() {
        for word in [
            "statefulsets",
            "statefulset",
            "sts",
            "StatefulSet",
            "sts.apps",
        ] {
            assert_eq!(
                kind_named(word).map(|kind| kind.plural).ok(),
                Some("statefulsets"),
                "{word}"
            );
        }
        assert!(kind_named("castle").is_err());
    }

    #[test]
    fn paths_are_kubernetes_own() {
        let set = Target::all(kind_named("sts").unwrap(), Some("db")).named("web");
        assert_eq!(set.path(), "/apis/apps/v1/namespaces/db/statefulsets/web");
        assert_eq!(set.display(), "statefulset.apps/web");
        let node = Target::all(kind_named("node").unwrap(), Some("db"));
        assert_eq!(node.path(), "/api/v1/nodes");
    }

    #[test]
    fn queries_are_encoded() {
        assert_eq!(encode("a=b, c"), "a%3Db%2C%20c");
    }
}
