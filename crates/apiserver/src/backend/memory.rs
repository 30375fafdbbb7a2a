//! The backend that keeps nothing: for `--in-memory` servers and tests.

use super::{Backend, BackendError, Put};

/// Accepts every commit.
#[derive(Debug, Default)]
pub(crate) struct Memory;

impl Backend for Memory {
    fn commit(&mut self, _puts: &[Put], _reserved: u64) -> Result<(), BackendError> {
        Ok(())
    }
}
