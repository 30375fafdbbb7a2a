//! The metadata of every object there is, of every kind that is served: owners, finalizers, whether it is going.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;

use futures::StreamExt as _;
use kube::Api;
use kube::core::{ObjectMeta, PartialObjectMeta};
use kube::runtime::{WatchStreamExt as _, watcher};
use serde_json::Value;
use stead_controller::call::{CallError, Method, Request, call};
use stead_controller::resource::{Key, Raw, Resource, list, text};

use crate::informer::Shutdown;

/// A kind that is served, and what may be done with it.
#[derive(Debug, Clone)]
pub(crate) struct Served {
    /// The kind.
    pub(crate) resource: Arc<Resource>,
    /// Its verbs.
    pub(crate) verbs: Vec<String>,
}

impl Served {
    /// Whether all of these verbs are served.
    pub(crate) fn can(&self, verbs: &[&str]) -> bool {
        verbs
            .iter()
            .all(|verb| self.verbs.iter().any(|own| own == verb))
    }
}

/// Every kind that the API serves, in the preferred version of its group, without subresources.
pub(crate) async fn discover(client: &kube::Client) -> Result<Vec<Served>, CallError> {
    let get = |path: String| {
        call(
            client,
            Request {
                method: Method::Get,
                path,
                body: Value::Null,
            },
        )
    };
    let groups = get("/apis".to_owned()).await?;
    let preferred = list(&groups, "/groups")
        .iter()
        .map(|group| text(group, "/preferredVersion/groupVersion"));
    let mut served = resources("", "v1", &get("/api/v1".to_owned()).await?);
    for group_version in preferred {
        let Some((group, version)) = group_version.split_once('/') else {
            continue;
        };
        served.extend(resources(
            group,
            version,
            &get(format!("/apis/{group_version}")).await?,
        ));
    }
    Ok(served)
}

fn resources(group: &str, version: &str, listed: &Value) -> Vec<Served> {
    let top_level = list(listed, "/resources")
        .iter()
        .filter(|own| !text(own, "/name").contains('/'));
    top_level
        .map(|own| Served {
            resource: Arc::new(Resource {
                group: group.to_owned().into(),
                version: version.to_owned().into(),
                kind: text(own, "/kind").to_owned().into(),
                plural: text(own, "/name").to_owned().into(),
                namespaced: own.get("namespaced").and_then(Value::as_bool) == Some(true),
            }),
            verbs: list(own, "/verbs")
                .iter()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect(),
        })
        .collect()
}

/// What is kept of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Meta {
    /// Its kind.
    pub(crate) resource: Arc<Resource>,
    /// Its namespace and name.
    pub(crate) key: Key,
    /// Its UID.
    pub(crate) uid: String,
    /// Its owners.
    pub(crate) owners: Box<[Owner]>,
    /// It carries a `deletionTimestamp`.
    pub(crate) terminating: bool,
    /// It carries the finalizer `foregroundDeletion`: it waits for its dependents to go.
    pub(crate) foreground: bool,
    /// It carries the finalizer `orphan`: its dependents are to stay.
    pub(crate) orphan: bool,
}

/// One owner reference.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Owner {
    /// `apiVersion`.
    pub(crate) api_version: String,
    /// `kind`.
    pub(crate) kind: String,
    /// `name`.
    pub(crate) name: String,
    /// `uid`.
    pub(crate) uid: String,
    /// `blockOwnerDeletion`.
    pub(crate) blocks: bool,
}

impl Meta {
    fn of(resource: &Arc<Resource>, meta: ObjectMeta) -> Meta {
        let finalizers = meta.finalizers.unwrap_or_default();
        let has = |finalizer: &str| finalizers.iter().any(|own| own == finalizer);
        let owners = meta
            .owner_references
            .unwrap_or_default()
            .into_iter()
            .map(|owner| Owner {
                api_version: owner.api_version,
                kind: owner.kind,
                name: owner.name,
                uid: owner.uid,
                blocks: owner.block_owner_deletion == Some(true),
            });
        Meta {
            resource: Arc::clone(resource),
            key: Key::new(
                meta.namespace.unwrap_or_default(),
                meta.name.unwrap_or_default(),
            ),
            uid: meta.uid.unwrap_or_default(),
            owners: owners.collect(),
            terminating: meta.deletion_timestamp.is_some(),
            foreground: has("foregroundDeletion"),
            orphan: has("orphan"),
        }
    }
}

/// One object's metadata before and after; never missing in both, and never of two different UIDs.
pub(crate) struct MetaChange<'a> {
    /// As it was; `None` when it is new.
    pub(crate) old: Option<&'a Arc<Meta>>,
    /// As it is; `None` when it is gone.
    pub(crate) new: Option<&'a Arc<Meta>>,
}

/// Is told of each change of any object's metadata. It must be quick.
pub(crate) type MetaHandler = Arc<dyn Fn(&MetaChange<'_>) + Send + Sync>;

/// Follows the metadata of one kind until the shutdown; `synced` is called after the first list.
pub(crate) async fn follow(
    client: kube::Client,
    resource: Arc<Resource>,
    handlers: Vec<MetaHandler>,
    synced: impl FnOnce(),
    shutdown: Shutdown,
) {
    let api: Api<PartialObjectMeta<Raw>> = Api::all_with(client, &resource.api_resource());
    let events = watcher(api, watcher::Config::default());
    let mut events = pin!(events.default_backoff().take_until(shutdown));
    let mut known = Known {
        objects: BTreeMap::new(),
        handlers,
    };
    let mut listed = BTreeMap::new();
    let mut synced = Some(synced);
    let meta = |object: PartialObjectMeta<Raw>| Meta::of(&resource, object.metadata);
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Init) => listed.clear(),
            Ok(watcher::Event::InitApply(object)) => {
                let meta = meta(object);
                listed.insert(meta.key.clone(), meta);
            }
            Ok(watcher::Event::InitDone) => {
                known.reset(std::mem::take(&mut listed));
                if let Some(synced) = synced.take() {
                    synced();
                }
            }
            Ok(watcher::Event::Apply(object)) => known.put(meta(object)),
            Ok(watcher::Event::Delete(object)) => known.remove(&meta(object).key),
            Err(error) => {
                tracing::warn!(resource = %resource.plural, %error, "watch interrupted; it is resumed")
            }
        }
    }
}

struct Known {
    objects: BTreeMap<Key, Arc<Meta>>,
    handlers: Vec<MetaHandler>,
}

impl Known {
    fn reset(&mut self, listed: BTreeMap<Key, Meta>) {
        let gone: Vec<Key> = self
            .objects
            .keys()
            .filter(|key| !listed.contains_key(key))
            .cloned()
            .collect();
        for key in gone {
            self.remove(&key);
        }
        for meta in listed.into_values() {
            self.put(meta);
        }
    }

    fn put(&mut self, meta: Meta) {
        let key = meta.key.clone();
        if self
            .objects
            .get(&key)
            .is_some_and(|known| known.uid != meta.uid)
        {
            self.remove(&key);
        }
        if self.objects.get(&key).is_some_and(|known| **known == meta) {
            return;
        }
        let new = Arc::new(meta);
        let old = self.objects.insert(key, Arc::clone(&new));
        self.tell(&MetaChange {
            old: old.as_ref(),
            new: Some(&new),
        });
    }

    fn remove(&mut self, key: &Key) {
        if let Some(old) = self.objects.remove(key) {
            self.tell(&MetaChange {
                old: Some(&old),
                new: None,
            });
        }
    }

    fn tell(&self, change: &MetaChange<'_>) {
        for handler in &self.handlers {
            handler(change);
        }
    }
}
