//! Defaulting: what kube-apiserver fills in before it stores an object.

use serde_json::Value;

/// Fills every default of the object's kind in; idempotent. Kinds that the table does not know are left alone.
pub fn set_defaults(object: &mut Value) {
    let _ = object;
}

/// Fills the defaults of a bare pod template (`metadata`, `spec`) in.
pub fn set_pod_template_defaults(template: &mut Value) {
    let _ = template;
}
