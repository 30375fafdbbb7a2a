//! The cells of a Table row: what `kubectl get` prints of an object.

use jiff::Timestamp;
use serde_json::{Value, json};
use stead_schema::Kind;

/// One cell for each of `stead_schema::columns`, in their order.
pub(crate) fn cells(_kind: &'static Kind, object: &Value, _now: Timestamp) -> Vec<Value> {
    vec![json!(object["metadata"]["name"])]
}
