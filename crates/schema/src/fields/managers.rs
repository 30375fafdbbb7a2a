//! The managers of an object: decoding and encoding of `metadata.managedFields`.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::compare::Comparison;
use super::set::{FieldSet, PathElement};

/// How a manager came to its fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    Apply,
    Update,
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

/// What makes two entries the same manager.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Identity {
    pub(super) manager: String,
    pub(super) operation: Operation,
    /// Empty for appliers: an applier keeps its fields when it changes versions.
    pub(super) api_version: String,
    pub(super) subresource: String,
}

impl Identity {
    /// As conflicts name it: `"bob" with subresource "scale" using apps/v1`.
    pub(super) fn sentence(&self) -> String {
        let mut said = format!("{:?}", self.manager);
        if !self.subresource.is_empty() {
            said.push_str(&format!(" with subresource {:?}", self.subresource));
        }
        if self.operation == Operation::Update {
            said.push_str(&format!(" using {}", self.api_version));
        }
        said
    }
}

/// One manager's fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) api_version: String,
    fields: Fields,
    /// RFC 3339, UTC, whole seconds: texts compare as times do.
    pub(super) time: Option<String>,
}

/// Fields as they were read, or decoded: most writes touch few of an object's managers.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fields {
    Encoded(Value),
    Decoded(FieldSet),
}

impl Entry {
    pub(super) fn new(api_version: &str, set: FieldSet, time: Option<String>) -> Self {
        Self {
            api_version: api_version.to_owned(),
            fields: Fields::Decoded(set),
            time,
        }
    }

    /// The fields; none if they cannot be decoded.
    pub(super) fn set(&self) -> Cow<'_, FieldSet> {
        match &self.fields {
            Fields::Encoded(fields) => Cow::Owned(FieldSet::decode(fields).unwrap_or_default()),
            Fields::Decoded(set) => Cow::Borrowed(set),
        }
    }

    pub(super) fn put(&mut self, set: FieldSet) {
        self.fields = Fields::Decoded(set);
    }

    pub(super) fn is_empty(&self) -> bool {
        match &self.fields {
            Fields::Encoded(fields) => fields.as_object().is_none_or(Map::is_empty),
            Fields::Decoded(set) => set.is_empty(),
        }
    }

    /// Takes fields away.
    pub(super) fn lose(&mut self, gone: &FieldSet) {
        let meets = match &self.fields {
            Fields::Encoded(fields) => gone.meets(fields),
            Fields::Decoded(_) => true,
        };
        if meets {
            let mut set = self.set().into_owned();
            set.subtract(gone);
            self.put(set);
        }
    }

    fn encode(self) -> Value {
        match self.fields {
            Fields::Encoded(fields) => fields,
            Fields::Decoded(set) => set.encode(),
        }
    }
}

/// All managers of an object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Managers(pub(super) BTreeMap<Identity, Entry>);

/// The entries cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unreadable;

impl Managers {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether all fields can be decoded; asked of what clients send, for the server writes what can.
    pub(super) fn are_readable(&self) -> bool {
        let readable = |entry: &Entry| match &entry.fields {
            Fields::Encoded(fields) => FieldSet::decode(fields).is_some(),
            Fields::Decoded(_) => true,
        };
        self.0.values().all(readable)
    }

    /// Whether anybody owns this field.
    pub(super) fn own(&self, path: &[PathElement]) -> bool {
        self.0.values().any(|entry| entry.set().contains(path))
    }

    /// Reads the list; nothing at all is no managers.
    pub(super) fn decode(list: Option<Value>) -> Result<Self, Unreadable> {
        let mut managers = Self::default();
        let Some(Value::Array(list)) = list else {
            return Ok(managers);
        };
        for entry in list {
            let (identity, entry) = decode_entry(entry).ok_or(Unreadable)?;
            managers.0.insert(identity, entry);
        }
        Ok(managers)
    }

    /// The list as upstream sorts it, with the entries `apart`; `None` if there are no managers.
    pub(super) fn encode(self, apart: Vec<(Identity, Entry)>) -> Option<Value> {
        let mut entries: Vec<(Identity, Entry)> = self.0.into_iter().chain(apart).collect();
        entries.sort_by(order);
        let list: Vec<Value> = entries
            .into_iter()
            .map(|(identity, entry)| encode_entry(&identity, entry))
            .collect();
        (!list.is_empty()).then_some(Value::Array(list))
    }

    /// Takes one field away from everybody.
    pub(super) fn forget(&mut self, path: &[PathElement]) {
        let mut only = FieldSet::default();
        only.insert(path);
        for entry in self.0.values_mut() {
            entry.lose(&only);
        }
        self.0.retain(|_, entry| !entry.is_empty());
    }

    /// Takes one field out of the updaters' entries into entries of its own, without a time, under the same names.
    ///
    /// A quirk of upstream's scaling: the next write reads the list, finds two entries of one name, and keeps the
    /// later one, so that who owned the field beside others owns it no more. `upstream: ScaleHandler.ToParent`
    pub(super) fn set_apart(&mut self, path: &[PathElement]) -> Vec<(Identity, Entry)> {
        let mut only = FieldSet::default();
        only.insert(path);
        let mut apart = Vec::new();
        for (identity, entry) in &mut self.0 {
            if identity.operation == Operation::Apply || !entry.set().contains(path) {
                continue;
            }
            if *entry.set() == only {
                entry.time = None;
            } else {
                entry.lose(&only);
                apart.push((
                    identity.clone(),
                    Entry::new(&entry.api_version, only.clone(), None),
                ));
            }
        }
        apart
    }

    /// Takes changed and removed fields away from everybody but `keeper`; who has nothing left goes.
    pub(super) fn take_away(&mut self, comparison: &Comparison, keeper: Option<&Identity>) {
        for (_, entry) in self
            .0
            .iter_mut()
            .filter(|(identity, _)| Some(*identity) != keeper)
        {
            for gone in [&comparison.modified, &comparison.added, &comparison.removed] {
                entry.lose(gone);
            }
        }
        self.0.retain(|_, entry| !entry.is_empty());
    }

    /// Merges the oldest update managers of a version into one named `bucket` until at most `most` are left.
    pub(super) fn cap(&mut self, most: usize, bucket: &str) {
        let mut updaters: Vec<Identity> = self
            .0
            .keys()
            .filter(|identity| identity.operation == Operation::Update)
            .cloned()
            .collect();
        let mut left = updaters.len();
        updaters.sort_by_key(|identity| {
            (
                self.0.get(identity).and_then(|entry| entry.time.clone()),
                identity.clone(),
            )
        });
        let mut first_of: BTreeMap<String, Identity> = BTreeMap::new();
        for identity in updaters {
            if left <= most {
                break;
            }
            let version = identity.api_version.clone();
            let Some(first) = first_of.get(&version).cloned() else {
                first_of.insert(version, identity);
                continue;
            };
            let bucket = Identity {
                manager: bucket.to_owned(),
                operation: Operation::Update,
                api_version: version,
                subresource: String::new(),
            };
            if !self.0.contains_key(&bucket)
                && let Some(entry) = self.0.remove(&first)
            {
                self.0.insert(bucket.clone(), entry);
            }
            if let Some(merged) = self.0.remove(&identity)
                && let Some(entry) = self.0.get_mut(&bucket)
            {
                entry.put(entry.set().union(&merged.set()));
                // The time of what is merged is the more recent one.
                entry.time = merged.time;
                left -= 1;
            }
        }
    }
}

fn decode_entry(entry: Value) -> Option<(Identity, Entry)> {
    let Value::Object(mut entry) = entry else {
        return None;
    };
    let mut text = |name: &str| match entry.remove(name) {
        Some(Value::String(text)) => text,
        Some(_) | None => String::new(),
    };
    let operation = match text("operation").as_str() {
        "Apply" => Operation::Apply,
        "Update" => Operation::Update,
        _ => return None,
    };
    let api_version = text("apiVersion");
    if api_version.is_empty() || text("fieldsType") != "FieldsV1" {
        return None;
    }
    let known_version = match operation {
        Operation::Apply => String::new(),
        Operation::Update => api_version.clone(),
    };
    let identity = Identity {
        manager: text("manager"),
        operation,
        api_version: known_version,
        subresource: text("subresource"),
    };
    let time = Some(text("time")).filter(|time| !time.is_empty());
    let fields = match entry.remove("fieldsV1") {
        None | Some(Value::Null) => Fields::Decoded(FieldSet::default()),
        Some(fields) => Fields::Encoded(fields),
    };
    Some((
        identity,
        Entry {
            api_version,
            fields,
            time,
        },
    ))
}

fn encode_entry(identity: &Identity, entry: Entry) -> Value {
    let mut map = Map::new();
    let mut put = |name: &str, text: &str| {
        if !text.is_empty() {
            map.insert(name.to_owned(), json!(text));
        }
    };
    put("manager", &identity.manager);
    put("operation", identity.operation.name());
    put("apiVersion", &entry.api_version);
    put("time", entry.time.as_deref().unwrap_or_default());
    put("fieldsType", "FieldsV1");
    put("subresource", &identity.subresource);
    map.insert("fieldsV1".to_owned(), entry.encode());
    Value::Object(map)
}

/// By operation, time, manager, version, subresource.
fn order(left: &(Identity, Entry), right: &(Identity, Entry)) -> Ordering {
    fn key((identity, entry): &(Identity, Entry)) -> (Operation, Option<&str>, &str, &str, &str) {
        (
            identity.operation,
            entry.time.as_deref(),
            &identity.manager,
            &entry.api_version,
            &identity.subresource,
        )
    }
    key(left).cmp(&key(right))
}
