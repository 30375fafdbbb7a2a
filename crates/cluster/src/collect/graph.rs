//! Who owns whom, by UID, and whose turn it is after a change. Pure.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::metadata::{Meta, MetaChange};

/// What is to be looked at, by UID.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Work {
    /// May it stay, may it go?
    Judge(String),
    /// Its dependents are to be freed of it.
    Orphan(String),
}

/// All objects and the owner references between them.
#[derive(Default)]
pub(crate) struct Graph {
    objects: HashMap<String, Arc<Meta>>,
    /// By owner, which itself may be unknown.
    dependents: HashMap<String, BTreeSet<String>>,
}

impl Graph {
    /// One object.
    pub(crate) fn get(&self, uid: &str) -> Option<Arc<Meta>> {
        self.objects.get(uid).cloned()
    }

    /// The objects that name this UID as an owner.
    pub(crate) fn dependents(&self, uid: &str) -> Vec<Arc<Meta>> {
        let own = self.dependents.get(uid).into_iter().flatten();
        own.filter_map(|dependent| self.objects.get(dependent).cloned())
            .collect()
    }

    /// Takes in a change; answers what is to be looked at because of it.
    pub(crate) fn apply(&mut self, change: &MetaChange<'_>) -> Vec<Work> {
        match (change.old, change.new) {
            (old, Some(new)) => self.put(old, new),
            (Some(old), None) => self.remove(old),
            (None, None) => Vec::new(),
        }
    }

    fn put(&mut self, old: Option<&Arc<Meta>>, new: &Arc<Meta>) -> Vec<Work> {
        let mut work = Vec::new();
        if let Some(old) = old {
            self.unlink(old);
            // An owner that waited for this object may wait for it no longer.
            work.extend(self.waiting_owners(old));
        }
        for owner in &new.owners {
            self.dependents
                .entry(owner.uid.clone())
                .or_default()
                .insert(new.uid.clone());
        }
        self.objects.insert(new.uid.clone(), Arc::clone(new));
        if new.terminating && new.orphan {
            work.push(Work::Orphan(new.uid.clone()));
        }
        if new.terminating && new.foreground {
            work.push(Work::Judge(new.uid.clone()));
            work.extend(
                self.dependents(&new.uid)
                    .iter()
                    .map(|own| Work::Judge(own.uid.clone())),
            );
        }
        if !new.terminating && self.needs_judging(old, new) {
            work.push(Work::Judge(new.uid.clone()));
        }
        work
    }

    /// New owners that are not there, or are waiting to go, decide over the object.
    fn needs_judging(&self, old: Option<&Arc<Meta>>, new: &Meta) -> bool {
        if old.is_some_and(|old| old.owners == new.owners) {
            return false;
        }
        new.owners
            .iter()
            .any(|owner| match self.objects.get(&owner.uid) {
                Some(own) => own.terminating || own.key.namespace != new.key.namespace,
                None => true,
            })
    }

    fn remove(&mut self, old: &Meta) -> Vec<Work> {
        self.unlink(old);
        self.objects.remove(&old.uid);
        let mut work: Vec<Work> = self.waiting_owners(old).collect();
        work.extend(
            self.dependents(&old.uid)
                .iter()
                .map(|own| Work::Judge(own.uid.clone())),
        );
        work
    }

    fn unlink(&mut self, meta: &Meta) {
        for owner in &meta.owners {
            let Some(own) = self.dependents.get_mut(&owner.uid) else {
                continue;
            };
            own.remove(&meta.uid);
            if own.is_empty() {
                self.dependents.remove(&owner.uid);
            }
        }
    }

    fn waiting_owners(&self, meta: &Meta) -> impl Iterator<Item = Work> {
        let owners = meta
            .owners
            .iter()
            .filter_map(|owner| self.objects.get(&owner.uid));
        owners
            .filter(|own| own.terminating && own.foreground)
            .map(|own| Work::Judge(own.uid.clone()))
    }
}

#[cfg(test)]
mod tests {
    use stead_controller::resource::{Key, Resource};

    use super::*;
    use crate::metadata::Owner;

    fn meta(uid: &str, owners: &[&str]) -> Meta {
        let owner = |uid: &&str| Owner {
            api_version: "v1".to_owned(),
            kind: "ConfigMap".to_owned(),
            name: (*uid).to_owned(),
            uid: (*uid).to_owned(),
            blocks: true,
        };
        Meta {
            resource: Arc::new(Resource::CONFIG_MAPS),
            key: Key::new("d", uid),
            uid: uid.to_owned(),
            owners: owners.iter().map(owner).collect(),
            terminating: false,
            foreground: false,
            orphan: false,
        }
    }

    fn put(graph: &mut Graph, meta: &Meta) -> Vec<Work> {
        let old = graph.get(&meta.uid);
        graph.apply(&MetaChange {
            old: old.as_ref(),
            new: Some(&Arc::new(meta.clone())),
        })
    }

    fn remove(graph: &mut Graph, meta: &Meta) -> Vec<Work> {
        graph.apply(&MetaChange {
            old: Some(&Arc::new(meta.clone())),
            new: None,
        })
    }

    #[test]
    fn dependents_are_judged_when_their_owner_goes_and_not_before() {
        let mut graph = Graph::default();
        let (owner, dependent) = (meta("owner", &[]), meta("dependent", &["owner"]));
        assert_eq!(put(&mut graph, &owner), []);
        assert_eq!(put(&mut graph, &dependent), []);
        assert_eq!(
            remove(&mut graph, &owner),
            [Work::Judge("dependent".to_owned())]
        );
    }

    #[test]
    fn an_object_of_an_owner_that_nobody_knows_is_judged_at_once() {
        let mut graph = Graph::default();
        assert_eq!(
            put(&mut graph, &meta("dependent", &["gone"])),
            [Work::Judge("dependent".to_owned())]
        );
    }

    #[test]
    fn an_owner_deleted_in_the_foreground_is_judged_whenever_a_dependent_goes() {
        let mut graph = Graph::default();
        let mut owner = meta("owner", &[]);
        let dependent = meta("dependent", &["owner"]);
        put(&mut graph, &owner);
        put(&mut graph, &dependent);
        (owner.terminating, owner.foreground) = (true, true);
        assert_eq!(
            put(&mut graph, &owner),
            [
                Work::Judge("owner".to_owned()),
                Work::Judge("dependent".to_owned())
            ]
        );
        assert_eq!(
            remove(&mut graph, &dependent),
            [Work::Judge("owner".to_owned())]
        );
    }
}
