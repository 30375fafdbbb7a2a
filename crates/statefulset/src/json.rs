//! A shared, immutable JSON value that is cheap to clone, compare and hash, however large it is.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

use serde_json::Value;

/// A JSON value behind an [`Arc`], hashed once when it is made.
///
/// A template is shared by every observation, step and revision that speaks of it; an explorer clones and hashes a million of them.
#[derive(Clone)]
pub struct Json(Arc<Bulk>);

struct Bulk {
    digest: u64,
    value: Value,
}

impl Json {
    /// Shares `value`.
    pub fn new(value: Value) -> Json {
        // DefaultHasher::new has fixed keys: the same value has the same digest in every run.
        let mut hasher = DefaultHasher::new();
        value.hash(&mut hasher);
        Json(Arc::new(Bulk {
            digest: hasher.finish(),
            value,
        }))
    }

    /// The value.
    pub fn value(&self) -> &Value {
        &self.0.value
    }
}

impl Deref for Json {
    type Target = Value;

    fn deref(&self) -> &Value {
        self.value()
    }
}

impl PartialEq for Json {
    fn eq(&self, other: &Json) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
            || (self.0.digest == other.0.digest && self.0.value == other.0.value)
    }
}

impl Eq for Json {}

impl Hash for Json {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.digest.hash(state);
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.value.fmt(out)
    }
}

impl fmt::Display for Json {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.value.fmt(out)
    }
}
