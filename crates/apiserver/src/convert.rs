//! One stored object seen through another version of its resource.

use std::sync::Arc;

use serde_json::{Value, json};
use stead_schema::Kind;

use crate::store::Stored;

/// The object as `kind`; the same object when it already is.
pub(crate) fn to(kind: &'static Kind, stored: Arc<Stored>) -> Arc<Stored> {
    if std::ptr::eq(kind, stored.kind) {
        return stored;
    }
    let mut object = stored.value();
    if kind.plural == "events" {
        event(&mut object, kind.group.is_empty());
    }
    Arc::new(Stored::new(kind, stored.revision, object))
}

/// The fields of an Event that have another name in the other group.
const EVENT_NAMES: &[(&str, &str)] = &[
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

fn event(object: &mut Value, to_core: bool) {
    let Some(map) = object.as_object_mut() else { return };
    for (core, other) in EVENT_NAMES {
        let (from, to) = if to_core { (other, core) } else { (core, other) };
        if let Some(value) = map.remove(*from) {
            map.insert((*to).to_owned(), value);
        }
    }
    // Times that the core group prints even when they are not set.
    for time in ["firstTimestamp", "lastTimestamp", "deprecatedFirstTimestamp", "deprecatedLastTimestamp"] {
        if map.contains_key(time) && map.get(time) == Some(&Value::Null) {
            map.insert(time.to_owned(), json!(null));
        }
    }
}
