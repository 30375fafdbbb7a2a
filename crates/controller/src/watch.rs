//! What the watches show: sets, pods, claims and revisions as parsed facts, how far each watch has come, and which set
//! a change concerns.
//!
//! Facts are kept instead of whole objects: a pod costs what decisions read of it. A change only names the keys of sets;
//! what to do about it is decided from the facts when the key's turn comes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use serde_json::Value;
use stead_statefulset::{self as statefulset, Claim, Malformed, Pod, Resource, Revision, Set};

use crate::events::ObjectReference;
use crate::follow::Told;
use crate::queue::Queue;
use crate::resource::Key;

/// A set as watched.
#[derive(Debug, Clone)]
pub(crate) struct SetFacts {
    /// Its facts.
    pub(crate) set: Arc<Set>,
    /// What of it could not be understood.
    pub(crate) malformed: Vec<Malformed>,
    /// For events about it.
    pub(crate) about: ObjectReference,
}

/// Everything watched. Each kind is filled by one watch.
#[derive(Default)]
pub(crate) struct Facts {
    /// Sets.
    pub(crate) sets: Kind<SetFacts>,
    /// Pods.
    pub(crate) pods: Kind<Pod>,
    /// Claims.
    pub(crate) claims: Kind<Claim>,
    /// Revisions.
    pub(crate) revisions: Kind<Revision>,
}

/// An object as it is kept: its facts, or why it could not be understood.
pub(crate) type Held<T> = Result<Arc<T>, Malformed>;

/// An object that a watch has told of.
pub(crate) struct Entry<T> {
    key: Key,
    held: Held<T>,
}

impl<T: Related> Entry<T> {
    /// Reads the facts of an object; the rest of it is not kept.
    pub(crate) fn read(object: &Value) -> Entry<T> {
        Entry {
            key: Key::of(object),
            held: T::parse(object).map(Arc::new),
        }
    }
}

/// The objects of one kind, found by the sets that they concern.
pub(crate) struct Kind<T> {
    namespaces: BTreeMap<String, Namespace<T>>,
    /// Everything up to this resourceVersion has been shown.
    seen: u64,
    /// Sets that wait until a version has been shown.
    waiting: BTreeSet<(u64, Key)>,
}

/// The objects of one namespace.
struct Namespace<T> {
    objects: BTreeMap<Arc<str>, Held<T>>,
    /// By the name of the set that an object's own name points to.
    named: BTreeMap<Box<str>, BTreeMap<Arc<str>, Held<T>>>,
    /// By the UID of a controlling set to which their names do not point.
    strays: HashMap<Arc<str>, BTreeMap<Arc<str>, Arc<T>>>,
}

impl<T> Default for Kind<T> {
    fn default() -> Kind<T> {
        Kind {
            namespaces: BTreeMap::new(),
            seen: 0,
            waiting: BTreeSet::new(),
        }
    }
}

impl<T> Default for Namespace<T> {
    fn default() -> Namespace<T> {
        Namespace {
            objects: BTreeMap::new(),
            named: BTreeMap::new(),
            strays: HashMap::new(),
        }
    }
}

/// What an object says of the set it may belong to.
pub(crate) trait Related: Sized {
    /// Whether the object is a set itself: one that is gone has a turn too, to be forgotten.
    const IS_SET: bool = false;
    /// Reads the facts of an object.
    fn parse(object: &Value) -> Result<Self, Malformed>;
    /// Names of sets that the object's own name may point to.
    fn named_sets(name: &str) -> Vec<&str>;
    /// UID and name of the controlling owner, if that is a set.
    fn controller(&self) -> Option<(&Arc<str>, &Arc<str>)>;
    /// Whether a decision could turn out differently because of this change.
    fn differs(&self, old: &Self) -> bool;
}

impl Related for SetFacts {
    const IS_SET: bool = true;

    fn parse(object: &Value) -> Result<SetFacts, Malformed> {
        let mut malformed = Vec::new();
        let set = Arc::new(Set::parse(object, &mut malformed));
        Ok(SetFacts {
            set,
            malformed,
            about: ObjectReference::of(object),
        })
    }

    fn named_sets(name: &str) -> Vec<&str> {
        vec![name]
    }

    fn controller(&self) -> Option<(&Arc<str>, &Arc<str>)> {
        None
    }

    fn differs(&self, _: &SetFacts) -> bool {
        true
    }
}

/// The one set that a name of the form `<set>-<ordinal or hash>` can belong to.
fn before_last_dash(name: &str) -> Vec<&str> {
    name.rsplit_once('-')
        .map(|(set, _)| set)
        .into_iter()
        .collect()
}

impl Related for Pod {
    fn parse(object: &Value) -> Result<Pod, Malformed> {
        Pod::parse(object)
    }

    fn named_sets(name: &str) -> Vec<&str> {
        before_last_dash(name)
    }

    fn controller(&self) -> Option<(&Arc<str>, &Arc<str>)> {
        set_controller(self.controller.as_ref())
    }

    fn differs(&self, old: &Pod) -> bool {
        self != old
    }
}

impl Related for Claim {
    fn parse(object: &Value) -> Result<Claim, Malformed> {
        Claim::parse(object)
    }

    /// `data-my-set-0` may belong to the sets `set` and `my-set`.
    fn named_sets(name: &str) -> Vec<&str> {
        let Some((stem, _)) = name.rsplit_once('-') else {
            return Vec::new();
        };
        stem.match_indices('-')
            .map(|(dash, _)| &stem[dash + 1..])
            .collect()
    }

    fn controller(&self) -> Option<(&Arc<str>, &Arc<str>)> {
        None
    }

    fn differs(&self, old: &Claim) -> bool {
        // A claim's own progress (bound, resized) changes its version and nothing that decisions read.
        (&self.uid, self.terminating, &self.owners) != (&old.uid, old.terminating, &old.owners)
    }
}

impl Related for Revision {
    fn parse(object: &Value) -> Result<Revision, Malformed> {
        Revision::parse(object)
    }

    fn named_sets(name: &str) -> Vec<&str> {
        before_last_dash(name)
    }

    fn controller(&self) -> Option<(&Arc<str>, &Arc<str>)> {
        set_controller(self.controller.as_ref())
    }

    fn differs(&self, old: &Revision) -> bool {
        self != old
    }
}

fn set_controller(controller: Option<&statefulset::Controller>) -> Option<(&Arc<str>, &Arc<str>)> {
    controller
        .filter(|own| &*own.kind == "StatefulSet")
        .map(|own| (&own.uid, &own.name))
}

impl<T: Related> Kind<T> {
    /// One object, if it could be understood.
    pub(crate) fn get(&self, key: &Key) -> Option<&Arc<T>> {
        let namespace = self.namespaces.get(&key.namespace)?;
        namespace.objects.get(&*key.name)?.as_ref().ok()
    }

    /// Keys of all objects.
    pub(crate) fn keys(&self) -> impl Iterator<Item = Key> {
        self.namespaces.iter().flat_map(|(namespace, own)| {
            own.objects
                .keys()
                .map(|name| Key::new(namespace.as_str(), &**name))
        })
    }

    /// Everything that bears a name of the set's or is controlled by it, understood or not; sorted by name but for the
    /// strays, which come last.
    pub(crate) fn related(&self, set: &Key, uid: &str) -> impl Iterator<Item = Held<T>> {
        let namespace = self.namespaces.get(&set.namespace);
        let named = namespace.and_then(|own| own.named.get(&*set.name));
        let strays = namespace.and_then(|own| own.strays.get(uid));
        let named_too = move |name: &str| named.is_some_and(|named| named.contains_key(name));
        let strays = strays.into_iter().flatten();
        named
            .into_iter()
            .flat_map(|named| named.values().cloned())
            .chain(
                strays
                    .filter(move |(name, _)| !named_too(name))
                    .map(|(_, object)| Ok(Arc::clone(object))),
            )
    }

    /// Everything up to this resourceVersion has been shown.
    pub(crate) fn seen(&self) -> u64 {
        self.seen
    }

    /// Takes in what the watch tells; answers the sets that it concerns.
    fn apply(&mut self, told: Told<Entry<T>>) -> BTreeSet<Key> {
        let mut sets = BTreeSet::new();
        match told {
            Told::Listing => {}
            Told::Listed { objects, version } => {
                self.replace(objects, &mut sets);
                self.seen = version;
            }
            Told::Put { object, version } => {
                self.set(&object.key, Some(object.held), &mut sets);
                self.seen = self.seen.max(version);
            }
            Told::Gone { object, version } => {
                self.set(&object.key, None, &mut sets);
                self.seen = self.seen.max(version);
            }
            Told::Reached { version } => self.seen = self.seen.max(version),
        }
        while let Some((version, set)) = self.waiting.pop_first() {
            if version > self.seen {
                self.waiting.insert((version, set));
                break;
            }
            sets.insert(set);
        }
        sets
    }

    fn wake_at(&mut self, set: &Key, version: u64) -> bool {
        if self.seen >= version {
            return true;
        }
        self.waiting.insert((version, set.clone()));
        false
    }

    fn replace(&mut self, objects: Vec<Entry<T>>, sets: &mut BTreeSet<Key>) {
        let mut gone: BTreeSet<Key> = self.keys().collect();
        for Entry { key, held } in objects {
            gone.remove(&key);
            self.set(&key, Some(held), sets);
        }
        for key in gone {
            self.set(&key, None, sets);
        }
    }

    fn set(&mut self, key: &Key, new: Option<Held<T>>, sets: &mut BTreeSet<Key>) {
        let namespace = self.namespaces.entry(key.namespace.clone()).or_default();
        let old = namespace.objects.remove(&*key.name);
        let changed = match (&old, &new) {
            (Some(Ok(old)), Some(Ok(new))) => new.differs(old),
            (None, None) => false,
            _ => true,
        };
        if let Some(Ok(old)) = &old {
            namespace.index_stray(&key.name.as_str().into(), old, false);
        }
        let name: Arc<str> = key.name.as_str().into();
        namespace.index_names(&name, new.as_ref());
        if let Some(Ok(new)) = &new {
            namespace.index_stray(&name, new, true);
        }
        if changed {
            let concerned = concerned(key, [old.as_ref(), new.as_ref()]);
            sets.extend(concerned.map(|set| Key::new(&key.namespace, set)));
        }
        match new {
            Some(new) => drop(namespace.objects.insert(name, new)),
            None if namespace.objects.is_empty() => drop(self.namespaces.remove(&key.namespace)),
            None => {}
        }
    }
}

/// Names of the sets that a change concerns: those that the object's name points to, and those that control it.
fn concerned<'a, T: Related + 'a>(
    key: &'a Key,
    states: [Option<&'a Held<T>>; 2],
) -> impl Iterator<Item = &'a str> {
    let owners = states.into_iter().flatten().filter_map(|state| {
        let (_, name) = state.as_ref().ok()?.controller()?;
        Some(&**name)
    });
    T::named_sets(&key.name).into_iter().chain(owners)
}

impl<T: Related> Namespace<T> {
    fn index_names(&mut self, name: &Arc<str>, new: Option<&Held<T>>) {
        for set in T::named_sets(name) {
            match new {
                Some(new) => {
                    let named = match self.named.get_mut(set) {
                        Some(named) => named,
                        None => self.named.entry(set.into()).or_default(),
                    };
                    named.insert(Arc::clone(name), new.clone());
                }
                None => {
                    if let Some(named) = self.named.get_mut(set) {
                        named.remove(name);
                        if named.is_empty() {
                            self.named.remove(set);
                        }
                    }
                }
            }
        }
    }

    fn index_stray(&mut self, name: &Arc<str>, object: &Arc<T>, there: bool) {
        let Some((uid, set)) = object.controller() else {
            return;
        };
        if T::named_sets(name).contains(&&**set) {
            return;
        }
        if there {
            let strays = self.strays.entry(Arc::clone(uid)).or_default();
            strays.insert(Arc::clone(name), Arc::clone(object));
        } else if let Some(strays) = self.strays.get_mut(uid) {
            strays.remove(name);
            if strays.is_empty() {
                self.strays.remove(uid);
            }
        }
    }
}

/// The facts, shared between the watches that fill them and the turns that read them.
#[derive(Clone, Default)]
pub(crate) struct Watched {
    facts: Arc<RwLock<Facts>>,
}

impl Watched {
    /// The facts as they are.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Facts> {
        self.facts.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The facts, to be changed.
    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, Facts> {
        self.facts.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the watch of one kind puts what it is told. `filled` is called after the first list.
    pub(crate) fn sink<T: Related, F: FnOnce()>(
        &self,
        queue: Queue<Key>,
        kind: fn(&mut Facts) -> &mut Kind<T>,
        filled: F,
    ) -> impl FnMut(Told<Entry<T>>) + use<T, F> {
        let watched = self.clone();
        let mut filled = Some(filled);
        move |told| {
            let is_list = matches!(told, Told::Listed { .. });
            let mut facts = watched.write();
            let mut sets = kind(&mut facts).apply(told);
            sets.retain(|set| T::IS_SET || facts.sets.get(set).is_some());
            drop(facts);
            for set in sets {
                queue.add(set);
            }
            if is_list && let Some(filled) = filled.take() {
                filled();
            }
        }
    }

    /// Wakes the set as soon as the watch of a kind has shown this version; answers whether it has already.
    pub(crate) fn wake_at(&self, set: &Key, resource: Resource, version: u64) -> bool {
        let mut facts = self.write();
        match resource {
            Resource::StatefulSets => facts.sets.wake_at(set, version),
            Resource::Pods => facts.pods.wake_at(set, version),
            Resource::Claims => facts.claims.wake_at(set, version),
            Resource::Revisions => facts.revisions.wake_at(set, version),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::resource::resource_version;

    fn pod(name: &str, version: u64, owner: Option<&str>) -> Value {
        let owners = owner.map(|uid| json!([{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "uid": uid, "controller": true}]));
        json!({"metadata": {"namespace": "d", "name": name, "uid": name, "resourceVersion": version.to_string(), "ownerReferences": owners.unwrap_or(json!([]))}})
    }

    fn put<T: Related>(object: &Value) -> Told<Entry<T>> {
        let version = resource_version(object).expect("a version");
        let object = Entry::read(object);
        Told::Put { object, version }
    }

    fn gone<T: Related>(object: &Value) -> Told<Entry<T>> {
        let version = resource_version(object).expect("a version");
        let object = Entry::read(object);
        Told::Gone { object, version }
    }

    fn keys(sets: &BTreeSet<Key>) -> Vec<String> {
        sets.iter().map(Key::to_string).collect()
    }

    #[test]
    fn a_pod_concerns_its_owner_and_the_set_whose_name_it_bears() {
        let mut pods: Kind<Pod> = Kind::default();
        assert_eq!(keys(&pods.apply(put(&pod("web-0", 1, None)))), ["d/web"]);
        assert_eq!(
            keys(&pods.apply(put(&pod("stray", 2, Some("u"))))),
            ["d/web"]
        );
        assert_eq!(pods.related(&Key::new("d", "web"), "u").count(), 2);
        assert_eq!(
            keys(&pods.apply(gone(&pod("stray", 3, Some("u"))))),
            ["d/web"]
        );
        assert_eq!(pods.related(&Key::new("d", "web"), "u").count(), 1);
        assert_eq!(pods.seen(), 3);
    }

    #[test]
    fn a_change_that_no_decision_reads_wakes_nobody() {
        let mut pods: Kind<Pod> = Kind::default();
        pods.apply(put(&pod("web-0", 1, Some("u"))));
        assert!(pods.apply(put(&pod("web-0", 2, Some("u")))).is_empty());
        let mut claims: Kind<Claim> = Kind::default();
        let claim = |version: &str| json!({"metadata": {"namespace": "d", "name": "data-web-0", "uid": "c", "resourceVersion": version}});
        claims.apply(put(&claim("1")));
        assert!(claims.apply(put(&claim("2"))).is_empty());
        assert_eq!(claims.seen(), 2);
    }

    #[test]
    fn a_claim_that_is_gone_concerns_every_set_that_it_may_belong_to() {
        let mut claims: Kind<Claim> = Kind::default();
        let claim = json!({"metadata": {"namespace": "d", "name": "data-my-web-0", "uid": "c", "resourceVersion": "1"}});
        claims.apply(put(&claim));
        assert_eq!(keys(&claims.apply(gone(&claim))), ["d/my-web", "d/web"]);
    }

    #[test]
    fn a_list_drops_what_is_gone_and_shows_all_up_to_its_version() {
        let mut pods: Kind<Pod> = Kind::default();
        pods.apply(put(&pod("web-0", 1, Some("u"))));
        let (objects, version) = (Vec::new(), 9);
        assert_eq!(
            keys(&pods.apply(Told::Listed { objects, version })),
            ["d/web"]
        );
        assert_eq!(pods.seen(), 9);
        assert!(pods.get(&Key::new("d", "web-0")).is_none());
        assert!(pods.namespaces.is_empty());
    }

    #[test]
    fn a_set_that_waits_for_a_version_is_woken_by_whatever_shows_it() {
        let (mut pods, web): (Kind<Pod>, _) = (Kind::default(), Key::new("d", "web"));
        assert!(!pods.wake_at(&web, 7));
        assert!(pods.apply(Told::Reached { version: 6 }).is_empty());
        assert_eq!(keys(&pods.apply(Told::Reached { version: 7 })), ["d/web"]);
        assert!(pods.apply(Told::Reached { version: 8 }).is_empty());
        assert!(pods.wake_at(&web, 8));
    }

    /// A pod of a real chart: 20 kB of JSON, most of it field owners, containers and their states.
    fn whole_pod(number: usize) -> Value {
        let name = format!("postgresql-{number}");
        let containers: Vec<Value> = (0..3)
            .map(|n| {
                let env: Vec<Value> = (0..25)
                    .map(|n| json!({"name": format!("POSTGRESQL_SETTING_{n}"), "value": "/bitnami/postgresql/conf/conf.d"}))
                    .collect();
                json!({"name": format!("container-{n}"), "image": "registry.example/postgresql@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
                    "env": env, "volumeMounts": [{"name": "data", "mountPath": "/bitnami/postgresql"}, {"name": "kube-api-access-x7z2p", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true}]})
            })
            .collect();
        let owned: serde_json::Map<String, Value> = (0..165)
            .map(|n| {
                (
                    format!("k:{{\"name\":\"POSTGRESQL_SETTING_{n}\"}}"),
                    json!({".": {}, "f:name": {}, "f:value": {}}),
                )
            })
            .collect();
        let managed = json!([{"manager": "kube-controller-manager", "operation": "Update", "fieldsV1": {"f:spec": {"f:containers": owned}}}]);
        json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": "shop", "name": name, "uid": format!("6b3f1c9e-5f5e-4d1f-9a53-{number:012}"), "resourceVersion": format!("{}", 1_000_000 + number),
                "labels": {"app.kubernetes.io/name": "postgresql", "app.kubernetes.io/instance": "shop", "app.kubernetes.io/component": "primary",
                    "apps.kubernetes.io/pod-index": number.to_string(), "controller-revision-hash": "postgresql-5d9c7f6b8d", "statefulset.kubernetes.io/pod-name": name},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "postgresql", "uid": "0b0f8a62-3d5b-4a57-a3a4-5cf9b4f3a111", "controller": true, "blockOwnerDeletion": true}],
                "managedFields": managed},
            "spec": {"containers": containers, "nodeName": "n1", "volumes": [
                {"name": "data", "persistentVolumeClaim": {"claimName": format!("data-{name}")}},
                {"name": "kube-api-access-x7z2p", "projected": {"defaultMode": 420, "sources": [
                    {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                    {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                    {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}}]}}]},
            "status": {"phase": "Running", "podIP": "10.1.0.9", "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}})
    }

    /// Bytes that a kept pod costs, every text of it counted as its own.
    fn cost(pod: &Pod) -> usize {
        let pairs = |pairs: &statefulset::Pairs| -> usize {
            pairs
                .iter()
                .map(|(name, value)| name.len() + value.len() + 2)
                .sum()
        };
        let controller = pod
            .controller
            .as_ref()
            .map_or(0, |own| own.kind.len() + own.name.len() + own.uid.len());
        // Each text behind an `Arc` has two counts before it: name, uid, volumes, labels, mounts, revision, three of the owner; and the pod itself.
        let counts = 10 * 2 * size_of::<usize>();
        let revision = pod.revision.as_ref().map_or(0, |revision| revision.len());
        let texts = pod.name.len() + pod.uid.len() + pod.volumes.len() + revision;
        // In two maps: a shared name and a shared pod each.
        let places = 2 * (size_of::<Arc<str>>() + size_of::<Held<Pod>>());
        size_of::<Pod>()
            + texts
            + pairs(&pod.labels)
            + pairs(&pod.mounts)
            + controller
            + counts
            + places
    }

    #[test]
    fn a_pod_of_twenty_kilobytes_costs_a_thirteenth_of_it() {
        let pods: Vec<Value> = (0..100).map(whole_pod).collect();
        let json: usize = pods.iter().map(|pod| pod.to_string().len()).sum::<usize>() / 100;
        assert!(
            (18_000..22_000).contains(&json),
            "{json} bytes are no realistic pod"
        );
        let kept: usize = pods
            .iter()
            .map(|pod| cost(&Pod::parse(pod).expect("a pod")))
            .sum::<usize>()
            / 100;
        assert!(
            kept < 1_500,
            "a pod of {json} bytes costs {kept}; at most 1,500 is allowed"
        );
    }
}
