//! The objects in memory: consistent views for readers, an overlay for the writer, and the publication of commits.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use serde_json::Value;
use stead_schema::Kind;
use tokio::sync::watch;

use crate::fields::field_values;
use crate::ring::{Event, EventKind, Ring};

/// Names a table: the API group and the plural.
pub type Table = (&'static str, &'static str);

/// The table in which objects of a kind are kept. Two versions of one resource share it.
pub(crate) fn table_of(kind: &Kind) -> Table {
    match (kind.group, kind.plural) {
        // Events have two groups and one store, as upstream.
        ("events.k8s.io", "events") => ("", "events"),
        other => other,
    }
}

/// The key of an object in its table: `NAMESPACE/NAME`, or only the name. Its byte order is the order of lists, as upstream's.
pub(crate) fn key_of(namespace: &str, name: &str) -> String {
    if namespace.is_empty() {
        name.to_owned()
    } else {
        format!("{namespace}/{name}")
    }
}

/// An object as it is kept: its JSON without `apiVersion` and `kind`, and what selectors read.
#[derive(Debug)]
pub struct Stored {
    /// The kind that it was written as.
    pub kind: &'static Kind,
    /// The revision that wrote it, which is its `resourceVersion`.
    pub revision: u64,
    /// The labels.
    pub labels: BTreeMap<Box<str>, Box<str>>,
    /// The values of the kind's selectable fields beyond name and namespace, in the kind's order.
    pub fields: Box<[Box<str>]>,
    /// The JSON object without its type: starts with `{"`, ends with `}`.
    pub json: Bytes,
}

impl Stored {
    /// Makes the stored form of an object that carries `apiVersion`, `kind` and its `resourceVersion`.
    pub(crate) fn new(kind: &'static Kind, revision: u64, mut object: Value) -> Self {
        if let Some(map) = object.as_object_mut() {
            map.remove("apiVersion");
            map.remove("kind");
        }
        let labels = object["metadata"]["labels"]
            .as_object()
            .map(|map| {
                map.iter()
                    .map(|(key, value)| (key.as_str().into(), value.as_str().unwrap_or("").into()))
                    .collect()
            })
            .unwrap_or_default();
        let fields = field_values(kind, &object);
        // Serialising a Value to memory cannot fail; an empty object would only show as such.
        let json = serde_json::to_vec(&object)
            .map(Bytes::from)
            .unwrap_or_else(|_| Bytes::from_static(b"{}"));
        Self {
            kind,
            revision,
            labels,
            fields,
            json,
        }
    }

    /// The object, with `apiVersion` and `kind`.
    pub fn value(&self) -> Value {
        let mut object: Value = serde_json::from_slice(&self.json).unwrap_or(Value::Null);
        if let Some(map) = object.as_object_mut() {
            map.insert("apiVersion".to_owned(), self.kind.api_version().into());
            map.insert("kind".to_owned(), self.kind.kind.into());
        }
        object
    }
}

/// Objects of one table at one revision.
#[derive(Debug, Clone)]
pub struct Listing {
    /// The revision that this is the state of.
    pub revision: u64,
    /// Keys and objects in the order of keys.
    pub items: Vec<(Box<str>, Arc<Stored>)>,
}

/// Why the state at a revision cannot be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoSuchRevision {
    /// It is no longer known.
    Expired,
    /// It has not happened yet; the newest is given.
    Future(u64),
}

/// What `handle` may read.
pub trait View {
    /// The newest revision.
    fn revision(&self) -> u64;
    /// One object by its key.
    fn get(&self, table: Table, key: &str) -> Option<Arc<Stored>>;
    /// The objects whose keys start with `prefix`: `NAMESPACE/`, or empty for all.
    fn list(&self, table: Table, prefix: &str) -> Listing;
    /// The same as of an earlier revision.
    ///
    /// # Errors
    /// When that revision is not known any more, or not yet.
    fn list_at(&self, table: Table, prefix: &str, revision: u64)
    -> Result<Listing, NoSuchRevision>;

    /// One object by namespace (empty for none) and name.
    fn object(&self, table: Table, namespace: &str, name: &str) -> Option<Arc<Stored>> {
        self.get(table, &key_of(namespace, name))
    }
}

/// A change that `handle` asks for.
#[derive(Debug, Clone)]
pub struct Change {
    /// Where.
    pub table: Table,
    /// Which.
    pub key: Box<str>,
    /// The new state; for a deletion the last state, carrying the revision of the deletion.
    pub object: Arc<Stored>,
    /// Whether this deletes the object.
    pub deleted: bool,
}

/// The objects of one table and its recent history.
#[derive(Debug, Default)]
struct Shelf {
    objects: BTreeMap<Box<str>, Arc<Stored>>,
    ring: Ring,
}

/// Everything that readers see, published commit by commit.
#[derive(Debug)]
struct State {
    revision: u64,
    shelves: HashMap<Table, Shelf>,
}

/// The published state. Cheap to share; locks are held only to look up and to publish, never over IO or encoding.
#[derive(Debug)]
pub(crate) struct Store {
    state: RwLock<State>,
    signals: RwLock<HashMap<Table, watch::Sender<u64>>>,
}

impl Store {
    /// A store with these objects, as of `revision`. What happened before is not known to watches.
    pub(crate) fn new(
        revision: u64,
        objects: impl IntoIterator<Item = (Table, Box<str>, Arc<Stored>)>,
    ) -> Self {
        let mut shelves: HashMap<Table, Shelf> = HashMap::new();
        for (table, key, object) in objects {
            shelves
                .entry(table)
                .or_insert_with(|| Shelf::since(revision))
                .objects
                .insert(key, object);
        }
        Self {
            state: RwLock::new(State { revision, shelves }),
            signals: RwLock::default(),
        }
    }

    /// Publishes a commit: readers and watchers see all of it, or nothing.
    pub(crate) fn publish(&self, start: u64, revision: u64, changes: &[Change]) {
        {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            for change in changes {
                state
                    .shelves
                    .entry(change.table)
                    .or_insert_with(|| Shelf::since(start))
                    .apply(change);
            }
            state.revision = revision;
        }
        let signals = self.signals.read().unwrap_or_else(PoisonError::into_inner);
        for change in changes {
            if let Some(signal) = signals.get(&change.table) {
                signal.send_replace(change.object.revision);
            }
        }
    }

    /// Tells of new events in a table.
    pub(crate) fn subscribe(&self, table: Table) -> watch::Receiver<u64> {
        let mut signals = self.signals.write().unwrap_or_else(PoisonError::into_inner);
        signals
            .entry(table)
            .or_insert_with(|| watch::channel(0).0)
            .subscribe()
    }

    /// The events of a table after a revision, at most `limit`, and the revision up to which nothing is missing.
    pub(crate) fn events_after(
        &self,
        table: Table,
        revision: u64,
        limit: usize,
        start: u64,
    ) -> Result<(Vec<Arc<Event>>, u64), NoSuchRevision> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let Some(shelf) = state.shelves.get(&table) else {
            return if revision < start {
                Err(NoSuchRevision::Expired)
            } else {
                Ok((Vec::new(), state.revision.max(revision)))
            };
        };
        let events = shelf
            .ring
            .after(revision, limit)
            .ok_or(NoSuchRevision::Expired)?;
        let through = if events.len() < limit {
            state.revision.max(revision)
        } else {
            events.last().map_or(revision, |event| event.revision)
        };
        Ok((events, through))
    }
}

impl View for Store {
    fn revision(&self) -> u64 {
        self.state
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .revision
    }

    fn get(&self, table: Table, key: &str) -> Option<Arc<Stored>> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        state.shelves.get(&table)?.objects.get(key).cloned()
    }

    fn list(&self, table: Table, prefix: &str) -> Listing {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let items = state
            .shelves
            .get(&table)
            .map(|shelf| shelf.range(prefix))
            .unwrap_or_default();
        Listing {
            revision: state.revision,
            items,
        }
    }

    fn list_at(
        &self,
        table: Table,
        prefix: &str,
        revision: u64,
    ) -> Result<Listing, NoSuchRevision> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        if revision > state.revision {
            return Err(NoSuchRevision::Future(state.revision));
        }
        let Some(shelf) = state.shelves.get(&table) else {
            return Ok(Listing {
                revision,
                items: Vec::new(),
            });
        };
        let undo = shelf
            .ring
            .after(revision, usize::MAX)
            .ok_or(NoSuchRevision::Expired)?;
        let mut items: BTreeMap<Box<str>, Arc<Stored>> = shelf.range(prefix).into_iter().collect();
        for event in undo
            .iter()
            .rev()
            .filter(|event| event.key.starts_with(prefix))
        {
            match &event.previous {
                Some(previous) => items.insert(event.key.clone(), previous.clone()),
                None => items.remove(&event.key),
            };
        }
        Ok(Listing {
            revision,
            items: items.into_iter().collect(),
        })
    }
}

impl Shelf {
    fn since(revision: u64) -> Self {
        Self {
            objects: BTreeMap::new(),
            ring: Ring::since(revision),
        }
    }

    fn apply(&mut self, change: &Change) {
        let previous = if change.deleted {
            self.objects.remove(&change.key)
        } else {
            self.objects
                .insert(change.key.clone(), change.object.clone())
        };
        let kind = match (&previous, change.deleted) {
            (_, true) => EventKind::Deleted,
            (Some(_), false) => EventKind::Modified,
            (None, false) => EventKind::Added,
        };
        self.ring.push(Event {
            kind,
            revision: change.object.revision,
            key: change.key.clone(),
            object: change.object.clone(),
            previous,
        });
    }

    fn range(&self, prefix: &str) -> Vec<(Box<str>, Arc<Stored>)> {
        self.objects
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, object)| (key.clone(), object.clone()))
            .collect()
    }
}

/// The published state with the changes of a batch that is not committed yet.
pub struct Overlay<'a> {
    base: &'a dyn View,
    revision: u64,
    changes: BTreeMap<(Table, Box<str>), Option<Arc<Stored>>>,
}

impl<'a> Overlay<'a> {
    /// Nothing changed yet; the next change gets the revision after `revision`.
    pub fn new(base: &'a dyn View, revision: u64) -> Self {
        Self {
            base,
            revision,
            changes: BTreeMap::new(),
        }
    }

    /// Lays a request's changes over.
    pub fn apply(&mut self, changes: &[Change]) {
        for change in changes {
            self.revision = self.revision.max(change.object.revision);
            let object = (!change.deleted).then(|| change.object.clone());
            self.changes
                .insert((change.table, change.key.clone()), object);
        }
    }
}

impl View for Overlay<'_> {
    fn revision(&self) -> u64 {
        self.revision
    }

    fn get(&self, table: Table, key: &str) -> Option<Arc<Stored>> {
        if self.changes.is_empty() {
            return self.base.get(table, key);
        }
        match self.changes.get(&(table, Box::from(key))) {
            Some(changed) => changed.clone(),
            None => self.base.get(table, key),
        }
    }

    fn list(&self, table: Table, prefix: &str) -> Listing {
        let base = self.base.list(table, prefix);
        let first = (table, Box::from(prefix));
        let mut touched = self
            .changes
            .range(first..)
            .take_while(|((at, key), _)| *at == table && key.starts_with(prefix))
            .peekable();
        if touched.peek().is_none() {
            return Listing {
                revision: self.revision,
                items: base.items,
            };
        }
        let mut items: BTreeMap<Box<str>, Arc<Stored>> = base.items.into_iter().collect();
        for ((_, key), object) in touched {
            match object {
                Some(object) => items.insert(key.clone(), object.clone()),
                None => items.remove(key),
            };
        }
        Listing {
            revision: self.revision,
            items: items.into_iter().collect(),
        }
    }

    fn list_at(
        &self,
        table: Table,
        prefix: &str,
        revision: u64,
    ) -> Result<Listing, NoSuchRevision> {
        self.base.list_at(table, prefix, revision)
    }
}
