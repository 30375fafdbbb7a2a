//! Namespaces: a label of their own name, a finalizer that the namespace controller takes off, a phase that fits.

use serde_json::{Value, json};

use super::cause::{Causes, Path};
use super::read::{dig, get, get_mut, has, list, list_mut, map_mut, object_mut, put, text};
use super::strategy::Strategy;
use super::{Context, Refusal, metadata, syntax};

pub(crate) const RULES: Strategy = Strategy {
    name: syntax::dns1123_label,
    first_status: |_| json!({"phase": "Active"}),
    prepare,
    prepare_update,
    check_update: |_, _, _| {},
    check_status,
    ..Strategy::PLAIN
};

const OWN_FINALIZER: &str = "kubernetes";
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

fn prepare(namespace: &mut Value, _: &Context<'_>) -> Result<(), Refusal> {
    let spec = object_mut(namespace)
        .entry("spec")
        .or_insert_with(|| json!({}));
    let finalizers = list_mut(spec, "finalizers");
    if !finalizers.iter().any(|name| name == OWN_FINALIZER) {
        finalizers.push(OWN_FINALIZER.into());
    }
    label(namespace);
    Ok(())
}

fn prepare_update(old: &Value, new: &mut Value, _: &Context<'_>) -> Result<(), Refusal> {
    put(new, "spec", get(old, "spec").clone());
    label(new);
    Ok(())
}

fn label(namespace: &mut Value) {
    let name = text(get(namespace, "metadata"), "name").to_owned();
    if name.is_empty() {
        return;
    }
    map_mut(namespace, "metadata");
    if let Some(meta) = get_mut(namespace, "metadata") {
        map_mut(meta, "labels").insert(NAME_LABEL.to_owned(), name.into());
    }
}

fn check_status(_: &Value, new: &Value, wrong: &mut Causes) {
    let at = Path::root("status").field("Phase");
    let leaving = has(get(new, "metadata"), "deletionTimestamp");
    match (leaving, text(get(new, "status"), "phase")) {
        (false, phase @ "Terminating") => wrong.invalid(
            &at,
            phase,
            "may only be 'Terminating' if `deletionTimestamp` is not empty",
        ),
        (true, phase) if phase != "Terminating" => wrong.invalid(
            &at,
            phase,
            "may only be 'Active' if `deletionTimestamp` is empty",
        ),
        (true | false, _) => {}
    }
}

/// The subresource `finalize`: only the finalizers of the spec, each with a domain.
pub(crate) fn finalize(old: &Value, new: &mut Value, wrong: &mut Causes) {
    put(new, "status", get(old, "status").clone());
    metadata::check_update(old, new, wrong);
    metadata::check_update_of_kind(old, new, wrong);
    let at = Path::root("spec").field("finalizers");
    for (index, name) in list(dig(new, &["spec"]), "finalizers").iter().enumerate() {
        let name = name.as_str().unwrap_or("");
        wrong.complaints(&at.index(index), name, &syntax::qualified_name(name));
        metadata::finalizer_has_domain(name, &at.index(index), wrong);
    }
}
