//! Namespaces: each has its default service account and the certificate of the API; one that is deleted is emptied of
//! every kind, then let go.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use jiff::Timestamp;
use serde_json::{Value, json};
use stead_controller::call::{CallError, Method, Request, call};
use stead_controller::queue::{Outcome, Queue};
use stead_controller::resource::{Key, Resource, is_terminating, list, text, uid};

use crate::informer::{Cache, Change, Kit};
use crate::metadata::{MetaChange, Served};
use crate::outcome;

/// Namespaces under way at once.
const CONCURRENCY: usize = 4;
/// The ConfigMap in which pods find the certificate of the API.
const ROOT_CERTIFICATE: &str = "kube-root-ca.crt";

/// Adds the controller to the kit. `certificate` is the API's own, as PEM; empty where there is none.
pub(crate) fn register(kit: &mut Kit, certificate: String) {
    let queue: Queue<String> = Queue::new();
    let follow_own = |queue: Queue<String>, name: &'static str| {
        move |change: &Change<'_>| {
            if change.key.name == name {
                queue.add(change.key.namespace.clone());
            }
        }
    };
    let namespaces = kit.follow(Resource::NAMESPACES, {
        let queue = queue.clone();
        move |change: &Change<'_>| queue.add(change.key.name.clone())
    });
    let contents = Arc::new(Mutex::new(Contents::default()));
    kit.follow_metadata({
        let (contents, queue) = (Arc::clone(&contents), queue.clone());
        Arc::new(move |change| {
            if let Some(namespace) = lock(&contents).apply(change) {
                queue.add(namespace);
            }
        })
    });
    let keeper = Arc::new(Keeper {
        client: kit.client("namespace-controller"),
        accounts: kit.follow(
            Resource::SERVICE_ACCOUNTS,
            follow_own(queue.clone(), "default"),
        ),
        maps: kit.follow(
            Resource::CONFIG_MAPS,
            follow_own(queue.clone(), ROOT_CERTIFICATE),
        ),
        served: kit.served().to_vec(),
        namespaces,
        contents,
        certificate,
    });
    kit.work(queue, CONCURRENCY, move |name| {
        let keeper = Arc::clone(&keeper);
        async move { outcome::of("namespaces", &name, keeper.sync(&name).await) }
    });
}

fn lock(contents: &Mutex<Contents>) -> MutexGuard<'_, Contents> {
    contents
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// How many objects of each kind a namespace holds.
#[derive(Default)]
struct Contents {
    counts: BTreeMap<String, BTreeMap<Arc<Resource>, Count>>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Count {
    all: usize,
    terminating: usize,
}

impl Contents {
    /// The namespace that a kind has just vanished from, or gained an object that is not going.
    fn apply(&mut self, change: &MetaChange<'_>) -> Option<String> {
        let meta = change.new.or(change.old)?;
        if !meta.resource.namespaced {
            return None;
        }
        let kinds = self.counts.entry(meta.key.namespace.clone()).or_default();
        let count = kinds.entry(Arc::clone(&meta.resource)).or_default();
        if let Some(old) = change.old {
            count.all -= 1;
            count.terminating -= usize::from(old.terminating);
        }
        if let Some(new) = change.new {
            count.all += 1;
            count.terminating += usize::from(new.terminating);
        }
        let vanished = count.all == 0;
        if vanished {
            kinds.remove(&meta.resource);
        }
        let empty = kinds.is_empty();
        if empty {
            self.counts.remove(&meta.key.namespace);
        }
        let appeared = change.old.is_none();
        (vanished || appeared).then(|| meta.key.namespace.clone())
    }

    fn of(&self, namespace: &str) -> BTreeMap<Arc<Resource>, Count> {
        self.counts.get(namespace).cloned().unwrap_or_default()
    }
}

struct Keeper {
    client: kube::Client,
    namespaces: Cache,
    accounts: Cache,
    maps: Cache,
    served: Vec<Served>,
    contents: Arc<Mutex<Contents>>,
    certificate: String,
}

impl Keeper {
    async fn sync(&self, name: &str) -> Result<Outcome, CallError> {
        match self.namespaces.get(&Key::new("", name)) {
            Some(namespace) if is_terminating(&namespace) => self.empty(&namespace).await,
            Some(_) => self.furnish(name).await.map(|()| Outcome::Done),
            None => Ok(Outcome::Done),
        }
    }

    /// The default service account and the API's certificate.
    async fn furnish(&self, namespace: &str) -> Result<(), CallError> {
        if self.accounts.get(&Key::new(namespace, "default")).is_none() {
            let account = json!({
                "apiVersion": "v1", "kind": "ServiceAccount",
                "metadata": {"namespace": namespace, "name": "default"},
            });
            self.create(&Resource::SERVICE_ACCOUNTS, account).await?;
        }
        let key = Key::new(namespace, ROOT_CERTIFICATE);
        self.publish(&key, json!({"ca.crt": self.certificate}))
            .await
    }

    /// Makes one ConfigMap hold the API's certificate, whoever changed it.
    async fn publish(&self, key: &Key, data: Value) -> Result<(), CallError> {
        match self.maps.get(key) {
            Some(map) if map.get("data") == Some(&data) => Ok(()),
            Some(map) => {
                let patch = json!({"metadata": {"uid": uid(&map)}, "data": data});
                call(
                    &self.client,
                    Request::patch(Method::MergePatch, &Resource::CONFIG_MAPS, key, patch),
                )
                .await
                .map(drop)
            }
            None => {
                let map = json!({
                    "apiVersion": "v1", "kind": "ConfigMap",
                    "metadata": {"namespace": key.namespace, "name": key.name,
                        "annotations": {"kubernetes.io/description": "The certificate by which pods know the API server."}},
                    "data": data,
                });
                self.create(&Resource::CONFIG_MAPS, map).await
            }
        }
    }

    async fn create(&self, resource: &Resource, object: Value) -> Result<(), CallError> {
        match call(&self.client, Request::create(resource, object)).await {
            // The namespace may be going since it was read, or somebody was faster.
            Err(error) if error.is_already_exists() || matches!(error.code(), 403 | 404) => Ok(()),
            other => other.map(drop),
        }
    }

    /// Deletes what a namespace holds; when nothing is left, lets it go.
    async fn empty(&self, namespace: &Value) -> Result<Outcome, CallError> {
        let name = text(namespace, "/metadata/name");
        if text(namespace, "/status/phase") != "Terminating" {
            self.merge_status(namespace, json!({"phase": "Terminating"}))
                .await?;
        }
        let contents = lock(&self.contents).of(name);
        let to_delete = self.deletable().filter(|own| {
            // Events are not counted; of the rest only what is not already going.
            own.kind == "Event"
                || contents
                    .get(own)
                    .is_some_and(|count| count.all > count.terminating)
        });
        for resource in to_delete {
            self.delete_all(&resource, name).await?;
        }
        if contents.is_empty() && self.is_empty(name).await? {
            return self.finalize(namespace).await.map(|()| Outcome::Done);
        }
        self.report(namespace, &contents).await?;
        // The last object of a kind to go names the namespace again. Where the API shows objects that the caches do
        // not show yet, there may be no such event.
        Ok(if contents.is_empty() {
            Outcome::Retry
        } else {
            Outcome::Done
        })
    }

    fn deletable(&self) -> impl Iterator<Item = Arc<Resource>> {
        let own = self
            .served
            .iter()
            .filter(|own| own.resource.namespaced && own.can(&["list", "deletecollection"]));
        own.map(|own| Arc::clone(&own.resource))
    }

    async fn delete_all(&self, resource: &Resource, namespace: &str) -> Result<(), CallError> {
        let options =
            json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"});
        let path = resource.collection(Some(namespace));
        call(
            &self.client,
            Request {
                method: Method::Delete,
                path,
                body: options,
            },
        )
        .await
        .map(drop)
    }

    /// Whether the API itself shows nothing any more.
    async fn is_empty(&self, namespace: &str) -> Result<bool, CallError> {
        for resource in self.deletable() {
            let path = format!("{}?limit=1", resource.collection(Some(namespace)));
            let first = call(
                &self.client,
                Request {
                    method: Method::Get,
                    path,
                    body: Value::Null,
                },
            )
            .await?;
            if !list(&first, "/items").is_empty() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn finalize(&self, namespace: &Value) -> Result<(), CallError> {
        let finalizers = list(namespace, "/spec/finalizers")
            .iter()
            .filter(|own| *own != "kubernetes");
        let mut new = Value::clone(namespace);
        new["spec"]["finalizers"] = finalizers.cloned().collect();
        let request = Request::patch(Method::Put, &Resource::NAMESPACES, &Key::of(namespace), new)
            .on("finalize");
        match call(&self.client, request).await {
            Err(error) if error.is_not_found() => Ok(()),
            other => other.map(drop),
        }
    }

    /// Says in the status what is still there.
    async fn report(
        &self,
        namespace: &Value,
        contents: &BTreeMap<Arc<Resource>, Count>,
    ) -> Result<(), CallError> {
        let conditions = conditions(namespace, contents, Timestamp::now());
        if list(namespace, "/status/conditions") == conditions {
            return Ok(());
        }
        self.merge_status(
            namespace,
            json!({"phase": "Terminating", "conditions": conditions}),
        )
        .await
    }

    async fn merge_status(&self, namespace: &Value, status: Value) -> Result<(), CallError> {
        let patch = json!({"metadata": {"uid": uid(namespace)}, "status": status});
        let request = Request::patch(
            Method::MergePatch,
            &Resource::NAMESPACES,
            &Key::of(namespace),
            patch,
        );
        match call(&self.client, request.on("status")).await {
            Err(error) if error.is_not_found() => Ok(()),
            other => other.map(drop),
        }
    }
}

/// The five conditions of a namespace that is being emptied, in upstream's words.
fn conditions(
    namespace: &Value,
    contents: &BTreeMap<Arc<Resource>, Count>,
    now: Timestamp,
) -> Vec<Value> {
    let counted = contents.iter().map(|(resource, count)| {
        let group = if resource.group.is_empty() {
            String::new()
        } else {
            format!(".{}", resource.group)
        };
        format!(
            "{}{group} has {} resource instances",
            resource.plural, count.all
        )
    });
    let remaining: Vec<String> = counted.collect();
    let (left, why, what) = if remaining.is_empty() {
        (
            "False",
            "ContentRemoved",
            "All content successfully removed".to_owned(),
        )
    } else {
        (
            "True",
            "SomeResourcesRemain",
            format!("Some resources are remaining: {}", remaining.join(", ")),
        )
    };
    let own = [
        (
            "NamespaceDeletionDiscoveryFailure",
            "False",
            "ResourcesDiscovered",
            "All resources successfully discovered",
        ),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            "False",
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed",
        ),
        (
            "NamespaceDeletionContentFailure",
            "False",
            "ContentDeleted",
            "All content successfully deleted, may be waiting on finalization",
        ),
        ("NamespaceContentRemaining", left, why, what.as_str()),
        (
            "NamespaceFinalizersRemaining",
            "False",
            "ContentHasNoFinalizers",
            "All content-preserving finalizers finished",
        ),
    ];
    let old = list(namespace, "/status/conditions");
    own.iter().map(|(kind, status, reason, message)| {
        let known = old.iter().find(|own| text(own, "/type") == *kind && text(own, "/status") == *status);
        let since = known.map_or_else(|| now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into(), |own| own["lastTransitionTime"].clone());
        json!({"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": since})
    }).collect()
}
