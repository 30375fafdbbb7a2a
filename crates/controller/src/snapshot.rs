//! What one decision reads: the facts of one set from the caches, and how fresh they are.
//!
//! Read-your-writes is an explicit record: the newest version that we wrote, per set, by kind. It is kept by the set's
//! UID, so that a set deleted and made again under the same name starts without it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde_json::Value;
use stead_statefulset::{Freshness, Malformed, Mark, Objects, Observed, Resource as Of, Set};

use crate::call::{CallError, Request, call};
use crate::events::ObjectReference;
use crate::resource::{Key, Resource, list, resource_version};
use crate::watch::{Facts, Kind, Related, Watched};

/// What one decision reads, and what its events are about.
pub(crate) struct Snapshot {
    /// What was seen.
    pub(crate) observed: Observed,
    /// The set, for events.
    pub(crate) about: ObjectReference,
}

/// The newest version that we wrote, by set and kind.
#[derive(Default)]
pub(crate) struct Written {
    sets: Mutex<HashMap<Key, OfSet>>,
}

#[derive(Default)]
struct OfSet {
    uid: String,
    set: u64,
    pods: u64,
    claims: u64,
    revisions: u64,
}

impl Written {
    /// Notes what the answer to a write of ours says: the version that a cache must show before the next decision.
    pub(crate) fn note(&self, set: &Set, kind: Of, answer: &Value) {
        let Some(version) = resource_version(answer) else {
            return;
        };
        let key = Key::new(&*set.namespace, &*set.name);
        let mut sets = self.lock();
        let own = sets.entry(key).or_default();
        if own.uid != *set.uid {
            *own = OfSet {
                uid: set.uid.to_string(),
                ..OfSet::default()
            };
        }
        let mark = match kind {
            Of::StatefulSets => &mut own.set,
            Of::Pods => &mut own.pods,
            Of::Claims => &mut own.claims,
            Of::Revisions => &mut own.revisions,
        };
        *mark = version.max(*mark);
    }

    /// Forgets a set that is gone.
    pub(crate) fn forget(&self, key: &Key) {
        self.lock().remove(key);
    }

    fn freshness(&self, key: &Key, uid: &str, facts: &Facts) -> Freshness {
        let sets = self.lock();
        let none = OfSet::default();
        let own = sets.get(key).filter(|own| own.uid == uid).unwrap_or(&none);
        Freshness {
            set: Mark {
                wrote: own.set,
                seen: facts.sets.seen(),
            },
            pods: Mark {
                wrote: own.pods,
                seen: facts.pods.seen(),
            },
            claims: Mark {
                wrote: own.claims,
                seen: facts.claims.seen(),
            },
            revisions: Mark {
                wrote: own.revisions,
                seen: facts.revisions.seen(),
            },
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, OfSet>> {
        self.sets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the caches show of one set; `None` when there is no such set.
pub(crate) fn take(
    watched: &Watched,
    written: &Written,
    key: &Key,
    now: Timestamp,
) -> Option<Snapshot> {
    let facts = watched.read();
    let own = facts.sets.get(key)?;
    let uid = &*own.set.uid;
    let freshness = written.freshness(key, uid, &facts);
    let mut malformed = own.malformed.clone();
    let mut pods = Vec::new();
    let mut claims = Vec::new();
    let mut revisions = Vec::new();
    // Behind our own writes nothing is decided, whatever the objects are.
    if freshness.behind().is_none() {
        pods = understood(&facts.pods, key, uid, &mut malformed);
        claims = understood(&facts.claims, key, uid, &mut malformed);
        revisions = understood(&facts.revisions, key, uid, &mut malformed);
    }
    let (set, about) = (own.set.clone(), own.about.clone());
    drop(facts);
    let mut observed = Observed::new(set, pods, claims, revisions, now, freshness);
    malformed.sort();
    observed.malformed = malformed;
    Some(Snapshot { observed, about })
}

fn understood<T: Related>(
    kind: &Kind<T>,
    key: &Key,
    uid: &str,
    malformed: &mut Vec<Malformed>,
) -> Vec<std::sync::Arc<T>> {
    let mut good = Vec::new();
    for object in kind.related(key, uid) {
        match object {
            Ok(object) => good.push(object),
            Err(odd) => malformed.push(odd),
        }
    }
    good
}

/// What the API shows of one set of `apps/v1` now, read at once and without a watch; `None` when there is no such set.
///
/// # Errors
/// The first call that failed.
pub async fn observe(
    client: &kube::Client,
    namespace: &str,
    name: &str,
) -> Result<Option<Observed>, CallError> {
    let set = match call(
        client,
        Request::get(&Resource::STATEFUL_SETS, &Key::new(namespace, name)),
    )
    .await
    {
        Ok(set) => set,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error),
    };
    let all = |resource: &Resource| call(client, Request::list(resource, Some(namespace)));
    let (pods, claims, revisions) = futures::try_join!(
        all(&Resource::PODS),
        all(&Resource::CLAIMS),
        all(&Resource::REVISIONS)
    )?;
    let objects = Objects {
        set: &set,
        pods: list(&pods, "/items"),
        claims: list(&claims, "/items"),
        revisions: list(&revisions, "/items"),
    };
    Ok(Some(Observed::parse(
        objects,
        Timestamp::now(),
        Freshness::default(),
    )))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::follow::Told;
    use crate::queue::Queue;
    use crate::watch::Entry;

    fn set(uid: &str) -> Value {
        json!({"apiVersion": "apps/v1", "kind": "StatefulSet",
            "metadata": {"namespace": "d", "name": "web", "uid": uid, "resourceVersion": "5"},
            "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}}}})
    }

    fn show<T: Related>(watched: &Watched, kind: fn(&mut Facts) -> &mut Kind<T>, object: &Value) {
        let version = resource_version(object).expect("a version");
        let object = Entry::read(object);
        watched.sink(Queue::new(), kind, || ())(Told::Put { object, version });
    }

    fn pods_mark(watched: &Watched, written: &Written) -> Mark {
        let seen = take(
            watched,
            written,
            &Key::new("d", "web"),
            Timestamp::UNIX_EPOCH,
        )
        .expect("the set");
        seen.observed.freshness.pods
    }

    #[test]
    fn a_cache_that_does_not_show_our_own_write_yet_is_known_to_be_behind() {
        let (watched, written) = (Watched::default(), Written::default());
        show(&watched, |facts| &mut facts.sets, &set("u"));
        let facts = Set::parse(&set("u"), &mut Vec::new());
        let answer = json!({"metadata": {"resourceVersion": "9"}});
        written.note(&facts, Of::Pods, &answer);
        assert_eq!(pods_mark(&watched, &written), Mark { wrote: 9, seen: 0 });
        let pod = json!({"metadata": {"namespace": "d", "name": "web-0", "resourceVersion": "9"}});
        show(&watched, |facts| &mut facts.pods, &pod);
        assert_eq!(pods_mark(&watched, &written), Mark { wrote: 9, seen: 9 });
    }

    #[test]
    fn a_set_deleted_and_made_again_does_not_wait_for_the_writes_of_the_former() {
        let (watched, written) = (Watched::default(), Written::default());
        let facts = Set::parse(&set("former"), &mut Vec::new());
        let answer = json!({"metadata": {"resourceVersion": "9"}});
        written.note(&facts, Of::Pods, &answer);
        show(&watched, |facts| &mut facts.sets, &set("latter"));
        assert_eq!(pods_mark(&watched, &written), Mark { wrote: 0, seen: 0 });
    }
}
