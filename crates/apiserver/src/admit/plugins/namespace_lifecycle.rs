//! NamespaceLifecycle: nothing is created where there is no namespace or where it is going; a few namespaces stay.

use serde_json::Value;
use stead_schema::Kind;

use crate::admit::read::{get, has, text};
use crate::admit::{Context, ForbiddenCause, Refusal};

const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

/// The namespace of a new object must be there and must stay.
pub(super) fn check_created(
    kind: &Kind,
    object: &Value,
    context: &Context<'_>,
) -> Result<(), Refusal> {
    if !kind.namespaced {
        return Ok(());
    }
    let name = text(get(object, "metadata"), "namespace");
    let Some(namespace) = context.cluster.get("", "namespaces", "", name) else {
        return Err(Refusal::NotFound {
            group: String::new(),
            plural: "namespaces".to_owned(),
            name: name.to_owned(),
        });
    };
    let going = text(get(&namespace, "status"), "phase") == "Terminating"
        || has(get(&namespace, "metadata"), "deletionTimestamp");
    if !going {
        return Ok(());
    }
    Err(Refusal::Forbidden {
        message: format!(
            "unable to create new content in namespace {name} because it is being terminated"
        ),
        causes: vec![ForbiddenCause {
            reason: "NamespaceTerminating",
            field: "metadata.namespace",
            message: format!("namespace {name} is being terminated"),
        }],
    })
}

/// The namespaces that a cluster cannot be without.
pub(super) fn check_deleted(namespace: &Value) -> Result<(), Refusal> {
    if IMMORTAL.contains(&text(get(namespace, "metadata"), "name")) {
        return Err(Refusal::forbidden("this namespace may not be deleted"));
    }
    Ok(())
}
