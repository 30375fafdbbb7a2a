//! TaintNodesByCondition: a new node takes no pods before somebody has found it ready.

use serde_json::{Value, json};

use crate::admit::read::{get, list, list_mut, object_mut, text};

const NOT_READY: &str = "node.kubernetes.io/not-ready";

/// Taints a new node as not ready.
pub(super) fn taint_new(node: &mut Value) {
    let tainted = list(get(node, "spec"), "taints")
        .iter()
        .any(|taint| text(taint, "key") == NOT_READY && text(taint, "effect") == "NoSchedule");
    if !tainted {
        let spec = object_mut(node).entry("spec").or_insert_with(|| json!({}));
        list_mut(spec, "taints").push(json!({"key": NOT_READY, "effect": "NoSchedule"}));
    }
}
