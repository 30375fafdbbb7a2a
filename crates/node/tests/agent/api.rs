//! As much of an API server as the agent speaks to: objects by name, watches of everything, no rule but that of the UID.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use serde_json::{Value, json};
use tokio::sync::watch;

type Reply = UnsyncBoxBody<Bytes, Infallible>;

/// Objects by (plural, name), and everything that ever happened to them, in order.
#[derive(Default)]
struct Store {
    objects: BTreeMap<(String, String), Value>,
    changes: Vec<(String, &'static str, Value)>,
}

/// A cheap clone of one server.
#[derive(Clone)]
pub(crate) struct Api {
    store: Arc<Mutex<Store>>,
    revision: Arc<watch::Sender<usize>>,
}

impl Default for Api {
    fn default() -> Self {
        Self {
            store: Arc::default(),
            revision: Arc::new(watch::Sender::new(0)),
        }
    }
}

impl Api {
    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().expect("no test panics while it writes")
    }

    pub(crate) fn client(&self) -> kube::Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.answer(request).await) }
        });
        kube::Client::new(service, "default")
    }

    fn change(&self, plural: &str, what: &'static str, object: Value) {
        let mut store = self.store();
        let name = object["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let mut object = object;
        object["metadata"]["resourceVersion"] = json!((store.changes.len() + 1).to_string());
        if what == "DELETED" {
            store.objects.remove(&(plural.to_owned(), name));
        } else {
            store
                .objects
                .insert((plural.to_owned(), name), object.clone());
        }
        store.changes.push((plural.to_owned(), what, object));
        let count = store.changes.len();
        drop(store);
        self.revision.send_replace(count);
    }

    pub(crate) fn put(&self, plural: &str, object: Value) {
        self.change(plural, "MODIFIED", object);
    }

    pub(crate) fn get(&self, plural: &str, name: &str) -> Option<Value> {
        self.store()
            .objects
            .get(&(plural.to_owned(), name.to_owned()))
            .cloned()
    }

    /// The object goes at once, whatever holds it.
    pub(crate) fn forget(&self, plural: &str, name: &str) {
        if let Some(object) = self.get(plural, name) {
            self.change(plural, "DELETED", object);
        }
    }

    /// Asks for the end of an object, which then waits for its node or its finalizers.
    pub(crate) fn delete(&self, plural: &str, name: &str, grace: i64) {
        let mut object = self.get(plural, name).expect("an object");
        object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        object["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
        self.put(plural, object);
    }

    pub(crate) fn has_event(&self, reason: &str) -> bool {
        self.store()
            .objects
            .iter()
            .any(|((plural, _), event)| plural == "events" && event["reason"] == reason)
    }

    /// Waits until something is told with this reason: events come after what they tell of.
    pub(crate) async fn until_event(&self, reason: &str) {
        let mut revision = self.revision.subscribe();
        let until = tokio::time::Instant::now() + Duration::from_secs(20);
        while !self.has_event(reason) {
            let changed = tokio::time::timeout_at(until, revision.changed()).await;
            assert!(changed.is_ok(), "nothing is told of {reason}");
        }
    }

    /// Waits until an object is as `is` says.
    pub(crate) async fn until(
        &self,
        plural: &str,
        name: &str,
        is: impl Fn(Option<&Value>) -> bool,
    ) -> Option<Value> {
        let mut revision = self.revision.subscribe();
        let until = tokio::time::Instant::now() + Duration::from_secs(20);
        loop {
            revision.mark_unchanged();
            let object = self.get(plural, name);
            if is(object.as_ref()) {
                return object;
            }
            let changed = tokio::time::timeout_at(until, revision.changed()).await;
            assert!(changed.is_ok(), "{plural}/{name} stays {object:?}");
        }
    }

    async fn answer(&self, request: Request<kube::client::Body>) -> Response<Reply> {
        let (parts, body) = request.into_parts();
        let body = body
            .collect()
            .await
            .map(|all| all.to_bytes())
            .unwrap_or_default();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let path: Vec<&str> = parts.uri.path().trim_matches('/').split('/').collect();
        let rest = if path[0] == "api" {
            &path[2..]
        } else {
            &path[3..]
        };
        let rest = if rest[0] == "namespaces" && rest.len() > 2 {
            &rest[2..]
        } else {
            rest
        };
        let plural = rest[0];
        let name = rest.get(1).copied();
        let watching = parts
            .uri
            .query()
            .is_some_and(|query| query.contains("watch=true"));
        match (parts.method, name) {
            (Method::GET, None) if watching => {
                self.watch(plural, parts.uri.query().unwrap_or_default())
            }
            (Method::GET, None) => self.list(plural),
            (Method::GET, Some(name)) => found(self.get(plural, name)),
            (Method::POST, Some(_)) if rest.get(2) == Some(&"token") => self.token(),
            (Method::POST, None) => {
                let mut object = body;
                object["metadata"]["uid"] = json!("made");
                self.put(plural, object.clone());
                reply(StatusCode::CREATED, &object)
            }
            (Method::PATCH, Some(name)) if self.is_another(plural, name, &body["metadata"]) => {
                refused("Invalid", StatusCode::UNPROCESSABLE_ENTITY)
            }
            (Method::PATCH, Some(name)) => found(self.get(plural, name).map(|mut object| {
                merge(&mut object, &body);
                let finalizers = object["metadata"]["finalizers"]
                    .as_array()
                    .is_some_and(|list| !list.is_empty());
                let ended = plural == "persistentvolumes"
                    && !object["metadata"]["deletionTimestamp"].is_null()
                    && !finalizers;
                self.change(
                    plural,
                    if ended { "DELETED" } else { "MODIFIED" },
                    object.clone(),
                );
                object
            })),
            (Method::DELETE, Some(name))
                if self.is_another(plural, name, &body["preconditions"]) =>
            {
                refused("Conflict", StatusCode::CONFLICT)
            }
            (Method::DELETE, Some(name)) => {
                self.forget(plural, name);
                reply(
                    StatusCode::OK,
                    &json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}),
                )
            }
            (method, _) => panic!("the agent never sends {method} {plural}"),
        }
    }

    /// The first token, then a refusal, then one after another; each for three seconds.
    fn token(&self) -> Response<Reply> {
        let asked = self
            .store()
            .objects
            .keys()
            .filter(|(plural, _)| plural == "tokens")
            .count()
            + 1;
        self.put(
            "tokens",
            json!({"metadata": {"name": format!("t-{asked}")}}),
        );
        if asked == 2 {
            return refused("InternalError", StatusCode::INTERNAL_SERVER_ERROR);
        }
        let until = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(3);
        let status =
            json!({"token": format!("t-{asked}"), "expirationTimestamp": until.to_string()});
        reply(
            StatusCode::CREATED,
            &json!({"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "metadata": {}, "spec": {}, "status": status}),
        )
    }

    /// Whether the object of that name is not the one that `asked` names by its UID.
    fn is_another(&self, plural: &str, name: &str, asked: &Value) -> bool {
        let object = self.get(plural, name);
        object.is_some_and(|object| {
            !asked["uid"].is_null() && asked["uid"] != object["metadata"]["uid"]
        })
    }

    fn list(&self, plural: &str) -> Response<Reply> {
        let store = self.store();
        let items: Vec<_> = store
            .objects
            .iter()
            .filter(|((kind, _), _)| kind == plural)
            .map(|(_, object)| object)
            .collect();
        let list = json!({"kind": "List", "apiVersion": "v1", "items": items,
            "metadata": {"resourceVersion": store.changes.len().to_string()}});
        drop(store);
        reply(StatusCode::OK, &list)
    }

    fn watch(&self, plural: &str, query: &str) -> Response<Reply> {
        let from = query
            .split('&')
            .find_map(|pair| pair.strip_prefix("resourceVersion=")?.parse().ok())
            .unwrap_or(0);
        let state = (
            self.clone(),
            self.revision.subscribe(),
            plural.to_owned(),
            from,
        );
        let events = stream::unfold(
            state,
            |(api, mut revision, plural, mut seen): (Api, _, String, usize)| async move {
                loop {
                    revision.mark_unchanged();
                    let next = api.store().changes.get(seen).cloned();
                    match next {
                        Some((kind, what, object)) => {
                            seen += 1;
                            if kind == plural {
                                let line = format!("{}\n", json!({"type": what, "object": object}));
                                return Some((line, (api, revision, plural, seen)));
                            }
                        }
                        None => revision.changed().await.ok()?,
                    }
                }
            },
        );
        let frames = events.map(|line| Ok::<_, Infallible>(Frame::data(Bytes::from(line))));
        Response::new(StreamBody::new(frames).boxed_unsync())
    }
}

fn found(object: Option<Value>) -> Response<Reply> {
    match object {
        Some(object) => reply(StatusCode::OK, &object),
        None => refused("NotFound", StatusCode::NOT_FOUND),
    }
}

fn refused(reason: &str, code: StatusCode) -> Response<Reply> {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason,
        "code": code.as_u16(), "message": reason});
    reply(code, &status)
}

fn reply(code: StatusCode, value: &Value) -> Response<Reply> {
    let mut response = Response::new(Full::new(Bytes::from(value.to_string())).boxed_unsync());
    *response.status_mut() = code;
    response
}

/// A merge patch, which for these tests is as good as a strategic one.
fn merge(target: &mut Value, patch: &Value) {
    match patch {
        Value::Object(fields) => {
            if !target.is_object() {
                *target = json!({});
            }
            for (key, value) in fields {
                if value.is_null() {
                    if let Some(fields) = target.as_object_mut() {
                        fields.remove(key);
                    }
                } else {
                    merge(&mut target[key], value);
                }
            }
        }
        other => *target = other.clone(),
    }
}
