//! A shared, immutable JSON value that is cheap to clone, compare and hash, however large it is.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use serde_json::Value;

/// A JSON value behind an [`Arc`], hashed once, when it is first asked for.
///
/// A template is shared by every observation, step and revision that speaks of it; an explorer clones and hashes a million of them.
#[derive(Clone)]
pub struct Json(Arc<Bulk>);

struct Bulk {
    digest: OnceLock<u64>,
    value: Value,
}

impl Json {
    /// Shares `value`.
    pub fn new(value: Value) -> Json {
        Json(Arc::new(Bulk {
            digest: OnceLock::new(),
            value,
        }))
    }

    fn digest(&self) -> u64 {
        *self.0.digest.get_or_init(|| {
            // DefaultHasher::new has fixed keys: the same value has the same digest in every run.
            let mut hasher = DefaultHasher::new();
            self.0.value.hash(&mut hasher);
            hasher.finish()
        })
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
        let digests = (self.0.digest.get(), other.0.digest.get());
        let may_be = !matches!(digests, (Some(ours), Some(theirs)) if ours != theirs);
        Arc::ptr_eq(&self.0, &other.0) || (may_be && self.0.value == other.0.value)
    }
}

impl Eq for Json {}

impl Hash for Json {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.digest().hash(state);
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
