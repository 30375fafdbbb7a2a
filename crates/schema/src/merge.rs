//! Strategic merge patch.

use serde_json::Value;

/// Why a patch cannot be applied.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PatchError {
    /// The patch is not an object.
    #[error("a strategic merge patch must be a JSON object")]
    NotAnObject,
}

/// What `patch` makes of `original`, an object of `kind`.
///
/// # Errors
/// See [`PatchError`].
pub fn strategic_merge(
    api_version: &str,
    kind: &str,
    original: &Value,
    patch: &Value,
) -> Result<Value, PatchError> {
    let _ = (api_version, kind);
    if patch.is_object() {
        Ok(original.clone())
    } else {
        Err(PatchError::NotAnObject)
    }
}
