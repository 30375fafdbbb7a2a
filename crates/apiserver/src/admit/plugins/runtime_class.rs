//! RuntimeClass: a pod's class must be there; its overhead becomes the pod's.

use serde_json::Value;

use crate::admit::read::{dig, get, map_mut, text};
use crate::admit::{Context, Refusal};

/// Fills in the overhead of a new pod's runtime class.
pub(super) fn resolve(pod: &mut Value, context: &Context<'_>) -> Result<(), Refusal> {
    let name = text(get(pod, "spec"), "runtimeClassName").to_owned();
    if name.is_empty() {
        return Ok(());
    }
    let Some(class) = context
        .cluster
        .get("node.k8s.io", "runtimeclasses", "", &name)
    else {
        return Err(Refusal::forbidden(format!(
            "pod rejected: RuntimeClass \"{name}\" not found"
        )));
    };
    let overhead = dig(&class, &["overhead", "podFixed"]);
    if !overhead.is_null() {
        map_mut(pod, "spec").insert("overhead".to_owned(), overhead.clone());
    }
    Ok(())
}
