//! DefaultTolerationSeconds: a pod stays five minutes on a node that is not ready or not reachable, unless it says otherwise.

use serde_json::{Value, json};

use crate::admit::read::{get, list, list_mut, object_mut, text};

const SECONDS: u32 = 300;

/// Adds the two tolerations as far as the pod has no word on them.
pub(super) fn add(pod: &mut Value) {
    for key in [
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
    ] {
        let has_own = list(get(pod, "spec"), "tolerations")
            .iter()
            .any(|toleration| {
                matches!(
                    text(toleration, "key"),
                    "" | "node.kubernetes.io/not-ready" | "node.kubernetes.io/unreachable"
                ) && (text(toleration, "key") == key || text(toleration, "key").is_empty())
                    && matches!(text(toleration, "effect"), "" | "NoExecute")
            });
        if !has_own {
            let spec = object_mut(pod).entry("spec").or_insert_with(|| json!({}));
            list_mut(spec, "tolerations").push(json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS}));
        }
    }
}
