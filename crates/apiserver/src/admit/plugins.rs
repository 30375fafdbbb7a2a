//! The admission plugins that kube-apiserver runs by default, as far as they show: who may create where, what is added.
//!
//! Order is upstream's: changes first, in this order; checks after the object's own rules have held.

mod limit_ranger;
mod namespace_lifecycle;
mod nodes;
mod priority;
mod quota;
mod runtime_class;
mod service_account;
mod storage;
mod tolerations;

use serde_json::Value;
use stead_schema::Kind;

use super::{Context, Refusal};

fn is(kind: &Kind, group: &str, name: &str) -> bool {
    kind.group == group && kind.kind == name
}

/// What plugins do to an object that is about to be created.
pub(crate) fn change_created(
    kind: &Kind,
    object: &mut Value,
    context: &Context<'_>,
) -> Result<(), Refusal> {
    namespace_lifecycle::check_created(kind, object, context)?;
    if is(kind, "", "Pod") {
        limit_ranger::fill_in(object, context);
        service_account::mount(object, context)?;
        priority::resolve(object, context)?;
        tolerations::add(object);
        runtime_class::resolve(object, context)?;
    }
    if is(kind, "", "Node") {
        nodes::taint_new(object);
    }
    if is(kind, "", "PersistentVolumeClaim") {
        storage::default_class(object, context);
        storage::protect(object, storage::CLAIM_FINALIZER);
    }
    if is(kind, "", "PersistentVolume") {
        storage::protect(object, storage::VOLUME_FINALIZER);
    }
    Ok(())
}

/// What plugins refuse to create.
pub(crate) fn check_created(
    kind: &Kind,
    object: &Value,
    context: &Context<'_>,
) -> Result<(), Refusal> {
    if is(kind, "", "Pod") || is(kind, "", "PersistentVolumeClaim") {
        limit_ranger::check(kind, object, context)?;
    }
    if is(kind, "scheduling.k8s.io", "PriorityClass") {
        priority::one_default(object, context)?;
    }
    // Last, as upstream: what is refused for another reason has taken nothing.
    quota::check(kind, None, object, context)
}

/// What plugins do to an object that is about to be changed.
pub(crate) fn change_updated(
    kind: &Kind,
    old: &Value,
    new: &mut Value,
    _context: &Context<'_>,
) -> Result<(), Refusal> {
    if is(kind, "", "Pod") {
        priority::keep(old, new);
        tolerations::add(new);
    }
    Ok(())
}

/// What plugins refuse to change.
pub(crate) fn check_updated(
    kind: &Kind,
    old: &Value,
    new: &Value,
    context: &Context<'_>,
) -> Result<(), Refusal> {
    if is(kind, "", "PersistentVolumeClaim") {
        storage::may_grow(old, new, context)?;
        limit_ranger::check(kind, new, context)?;
    }
    if is(kind, "scheduling.k8s.io", "PriorityClass") {
        priority::one_default(new, context)?;
    }
    if is(kind, "", "PersistentVolumeClaim") || is(kind, "", "Service") {
        quota::check(kind, Some(old), new, context)?;
    }
    Ok(())
}

/// What plugins refuse to delete.
pub(crate) fn check_deleted(kind: &Kind, object: &Value) -> Result<(), Refusal> {
    if is(kind, "", "Namespace") {
        namespace_lifecycle::check_deleted(object)
    } else {
        Ok(())
    }
}
