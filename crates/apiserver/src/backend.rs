//! Where commits become durable: a trait with a file (redb) and a memory implementation.

pub(crate) mod file;
pub(crate) mod memory;

/// One durable write: the whole key (`GROUP/PLURAL|KEY`) and the object's JSON, or none to delete it.
pub type Put = (String, Option<Vec<u8>>);

/// A durable map with one integer beside it. Used by the writer alone.
pub trait Backend: Send + 'static {
    /// Makes all of this durable, or none of it: the entries and the revision below which every number may have been used.
    ///
    /// # Errors
    /// When it could not be made durable. Whether the entries are there is then unknown; the writer puts them again.
    fn commit(&mut self, puts: &[Put], reserved: u64) -> Result<(), BackendError>;
}

/// Why a commit failed or a store could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {cause}")]
pub struct BackendError {
    /// What was tried.
    pub what: String,
    /// What stood in the way.
    pub cause: String,
}

impl BackendError {
    pub(crate) fn new(what: impl Into<String>, cause: impl std::fmt::Display) -> Self {
        Self {
            what: what.into(),
            cause: cause.to_string(),
        }
    }
}

/// What a backend held when it was opened.
#[derive(Debug, Default)]
pub struct Contents {
    /// Every number up to this one may have been used as a revision.
    pub reserved: u64,
    /// The whole keys and the JSON of their objects.
    pub entries: Vec<(String, Vec<u8>)>,
}
