//! What the watches show: sets, pods, claims and revisions as parsed facts, how far each watch has come, and which set
//! a change concerns.
//!
//! Facts are kept instead of whole objects: a pod costs what decisions read of it. A change only names the keys of sets;
//! what to do about it is decided from the facts when the key's turn comes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use serde_json::Value;
use stead_statefulset::{self as statefulset, Claim, Malformed, Pod, Revision, Set};

use crate::events::ObjectReference;
use crate::queue::Queue;
use crate::reflect::Delta;
use crate::resource::{Key, resource_version};

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

/// The objects of one kind, with the indexes by which a set finds its own.
pub(crate) struct Kind<T> {
    objects: BTreeMap<Key, Result<Arc<T>, Malformed>>,
    /// By the name of the set that an object's own name points to, with the namespace.
    by_name: BTreeMap<Key, BTreeSet<String>>,
    /// By UID of the controlling owner.
    by_controller: HashMap<Arc<str>, BTreeSet<Key>>,
    /// Newest resourceVersion shown.
    seen: u64,
    /// Newest resourceVersion of our own writes to this kind, of any set.
    wrote: u64,
    /// The same when the list that is under way was asked for: the list will hold all of that.
    wrote_before_list: u64,
}

impl<T> Default for Kind<T> {
    fn default() -> Kind<T> {
        Kind {
            objects: BTreeMap::new(),
            by_name: BTreeMap::new(),
            by_controller: HashMap::new(),
            seen: 0,
            wrote: 0,
            wrote_before_list: 0,
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
        self.objects.get(key)?.as_ref().ok()
    }

    /// Keys of all objects.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.objects.keys()
    }

    /// Everything that bears a name of the set's or is controlled by it, understood or not.
    pub(crate) fn related(
        &self,
        set: &Key,
        uid: &str,
    ) -> impl Iterator<Item = &Result<Arc<T>, Malformed>> {
        let named = self.by_name.get(set).into_iter().flatten();
        let mut keys: BTreeSet<Key> = named.map(|name| Key::new(&set.namespace, name)).collect();
        keys.extend(self.by_controller.get(uid).into_iter().flatten().cloned());
        keys.into_iter().filter_map(|key| self.objects.get(&key))
    }

    /// Newest resourceVersion shown.
    pub(crate) fn seen(&self) -> u64 {
        self.seen
    }

    /// Notes a write of our own.
    pub(crate) fn wrote(&mut self, version: u64) {
        self.wrote = self.wrote.max(version);
    }

    /// Takes in what the watch tells; answers the sets that it concerns.
    fn apply(&mut self, delta: Delta) -> BTreeSet<Key> {
        let mut sets = BTreeSet::new();
        match delta {
            Delta::Listing => self.wrote_before_list = self.wrote,
            Delta::Reset(objects) => {
                let gone: BTreeSet<Key> = self.objects.keys().cloned().collect();
                let listed: BTreeSet<Key> = objects.iter().map(Key::of).collect();
                for key in gone.difference(&listed) {
                    self.set(key, None, &mut sets);
                }
                for object in &objects {
                    self.put(object, &mut sets);
                }
                // A list is asked for at the newest version: it shows all that was written before.
                self.seen = self.seen.max(self.wrote_before_list);
            }
            Delta::Put(object) => self.put(&object, &mut sets),
            Delta::Gone(object) => {
                self.note_version(&object);
                self.set(&Key::of(&object), None, &mut sets);
            }
        }
        sets
    }

    fn put(&mut self, object: &Value, sets: &mut BTreeSet<Key>) {
        self.note_version(object);
        self.set(&Key::of(object), Some(T::parse(object).map(Arc::new)), sets);
    }

    fn note_version(&mut self, object: &Value) {
        self.seen = self.seen.max(resource_version(object).unwrap_or(0));
    }

    fn set(&mut self, key: &Key, new: Option<Result<Arc<T>, Malformed>>, sets: &mut BTreeSet<Key>) {
        let old = self.objects.remove(key);
        let changed = match (&old, &new) {
            (Some(Ok(old)), Some(Ok(new))) => new.differs(old),
            (None, None) => false,
            _ => true,
        };
        for name in T::named_sets(&key.name) {
            let set = Key::new(&key.namespace, name);
            self.index_name(&set, &key.name, new.is_some());
            if changed {
                sets.insert(set);
            }
        }
        for (object, there) in [(&old, false), (&new, true)] {
            let Some(Ok(object)) = object else { continue };
            let Some((uid, name)) = object.controller() else {
                continue;
            };
            self.index_controller(uid, key, there);
            if changed {
                sets.insert(Key::new(&key.namespace, &**name));
            }
        }
        if let Some(new) = new {
            self.objects.insert(key.clone(), new);
        }
    }

    fn index_name(&mut self, set: &Key, name: &str, there: bool) {
        if there {
            self.by_name
                .entry(set.clone())
                .or_default()
                .insert(name.to_owned());
        } else if let Some(names) = self.by_name.get_mut(set) {
            names.remove(name);
            if names.is_empty() {
                self.by_name.remove(set);
            }
        }
    }

    fn index_controller(&mut self, uid: &Arc<str>, key: &Key, there: bool) {
        if there {
            self.by_controller
                .entry(Arc::clone(uid))
                .or_default()
                .insert(key.clone());
        } else if let Some(keys) = self.by_controller.get_mut(uid) {
            keys.remove(key);
            if keys.is_empty() {
                self.by_controller.remove(uid);
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
    pub(crate) fn sink<T: Related + 'static>(
        &self,
        queue: Queue<Key>,
        kind: fn(&mut Facts) -> &mut Kind<T>,
        filled: impl FnOnce() + Send + 'static,
    ) -> Box<dyn FnMut(Delta) + Send> {
        let watched = self.clone();
        let mut filled = Some(filled);
        Box::new(move |delta| {
            let is_list = matches!(delta, Delta::Reset(_));
            let mut facts = watched.write();
            let mut sets = kind(&mut facts).apply(delta);
            if is_list {
                // Whoever waits for a cache to catch up may go on after a list.
                sets.extend(facts.sets.keys().cloned());
            }
            sets.retain(|set| T::IS_SET || facts.sets.objects.contains_key(set));
            drop(facts);
            for set in sets {
                queue.add(set);
            }
            if is_list && let Some(filled) = filled.take() {
                filled();
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, version: u64, owner: Option<&str>) -> Value {
        let owners = owner.map(|uid| json!([{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "uid": uid, "controller": true}]));
        json!({"metadata": {"namespace": "d", "name": name, "uid": name, "resourceVersion": version.to_string(), "ownerReferences": owners.unwrap_or(json!([]))}})
    }

    fn keys(sets: &BTreeSet<Key>) -> Vec<String> {
        sets.iter().map(Key::to_string).collect()
    }

    #[test]
    fn a_pod_concerns_its_owner_and_the_set_whose_name_it_bears() {
        let mut pods: Kind<Pod> = Kind::default();
        assert_eq!(
            keys(&pods.apply(Delta::Put(pod("web-0", 1, None)))),
            ["d/web"]
        );
        assert_eq!(
            keys(&pods.apply(Delta::Put(pod("stray", 2, Some("u"))))),
            ["d/web"]
        );
        assert_eq!(pods.related(&Key::new("d", "web"), "u").count(), 2);
        assert_eq!(
            keys(&pods.apply(Delta::Gone(pod("stray", 3, Some("u"))))),
            ["d/web"]
        );
        assert_eq!(pods.related(&Key::new("d", "web"), "u").count(), 1);
        assert_eq!(pods.seen(), 3);
    }

    #[test]
    fn a_change_that_no_decision_reads_wakes_nobody() {
        let mut pods: Kind<Pod> = Kind::default();
        pods.apply(Delta::Put(pod("web-0", 1, Some("u"))));
        assert!(
            pods.apply(Delta::Put(pod("web-0", 2, Some("u"))))
                .is_empty()
        );
        let mut claims: Kind<Claim> = Kind::default();
        let claim = |version: &str| json!({"metadata": {"namespace": "d", "name": "data-web-0", "uid": "c", "resourceVersion": version}});
        claims.apply(Delta::Put(claim("1")));
        assert!(claims.apply(Delta::Put(claim("2"))).is_empty());
        assert_eq!(claims.seen(), 2);
    }

    #[test]
    fn a_claim_that_is_gone_concerns_every_set_that_it_may_belong_to() {
        let mut claims: Kind<Claim> = Kind::default();
        let claim = json!({"metadata": {"namespace": "d", "name": "data-my-web-0", "uid": "c", "resourceVersion": "1"}});
        claims.apply(Delta::Put(claim.clone()));
        assert_eq!(
            keys(&claims.apply(Delta::Gone(claim))),
            ["d/my-web", "d/web"]
        );
    }

    #[test]
    fn a_list_drops_what_is_gone_and_shows_all_that_was_written_before_it_was_asked_for() {
        let mut pods: Kind<Pod> = Kind::default();
        pods.apply(Delta::Put(pod("web-0", 1, Some("u"))));
        pods.wrote(9);
        pods.apply(Delta::Listing);
        pods.wrote(11);
        assert_eq!(keys(&pods.apply(Delta::Reset(Vec::new()))), ["d/web"]);
        assert_eq!(
            pods.seen(),
            9,
            "the write of version 11 may or may not be in it"
        );
        assert!(pods.get(&Key::new("d", "web-0")).is_none());
    }
}
