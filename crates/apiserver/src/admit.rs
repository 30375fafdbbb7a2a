//! Admission: what kube-apiserver's strategies, validation and default admission plugins do to an object before it is stored.
//!
//! Each rule is a pure function of the object, its predecessor and the other objects of the cluster. One file a kind
//! ([`strategy`] names them all); rules that kinds share have files of their own (`metadata`, `selector`, `pod_spec*`).
//! The caller has decoded, pruned and defaulted the object, and filled in name, namespace, uid and creationTimestamp.

pub(crate) mod cause;

mod allocate;
mod configmap;
mod controllerrevision;
mod cronjob;
mod daemonset;
mod deployment;
mod endpoints;
mod endpointslice;
mod event;
mod horizontalpodautoscaler;
mod ingress;
mod job;
mod lease;
mod limitrange;
mod metadata;
mod namespace;
mod networkpolicy;
mod node;
mod persistentvolume;
mod persistentvolumeclaim;
mod plugins;
mod pod;
mod pod_resize;
mod pod_spec;
mod pod_spec_containers;
mod pod_spec_env;
mod pod_spec_resources;
mod pod_spec_scheduling;
mod pod_spec_security;
mod pod_spec_volumes;
mod pod_status;
mod pod_warnings;
mod poddisruptionbudget;
mod priorityclass;
mod qos;
mod rbac;
pub(crate) mod read;
mod replicaset;
mod resourcequota;
mod secret;
pub(crate) mod selector;
mod service;
mod service_update;
mod serviceaccount;
mod statefulset;
mod storageclass;
mod strategy;
mod syntax;
mod workload;

use jiff::Timestamp;
use serde_json::Value;
use stead_schema::Kind;

pub(crate) use allocate::ServiceRange;
pub(crate) use cause::Cause;
pub(crate) use pod::pod_grace_seconds;

use cause::{Causes, Path};
use strategy::{Again, Strategy};

/// The other objects, as of this write.
pub(crate) trait Cluster {
    /// One object; `group` is empty for the core group, `namespace` for cluster-wide kinds.
    fn get(&self, group: &str, plural: &str, namespace: &str, name: &str) -> Option<Value>;
    /// The objects of a namespace, or of all when it is empty.
    fn list(&self, group: &str, plural: &str, namespace: &str) -> Vec<Value>;
}

/// What admission may look at.
pub(crate) struct Context<'a> {
    /// The other objects.
    pub(crate) cluster: &'a dyn Cluster,
    /// The time of the request.
    pub(crate) now: Timestamp,
    /// The addresses that services may get.
    pub(crate) service_range: ServiceRange,
}

/// Why an object was not admitted.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// 422: the object breaks rules.
    Invalid(Vec<Cause>),
    /// 403: a plugin says no. The message is what follows `... is forbidden: `.
    Forbidden {
        message: String,
        causes: Vec<ForbiddenCause>,
    },
    /// 404: another object that this one needs is not there.
    NotFound {
        group: String,
        plural: String,
        name: String,
    },
}

/// A cause that is not about a field's value: `NamespaceTerminating`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ForbiddenCause {
    /// The machine-readable reason.
    pub(crate) reason: &'static str,
    /// The field that it is about.
    pub(crate) field: &'static str,
    /// The words.
    pub(crate) message: String,
}

impl Refusal {
    fn forbidden(message: impl Into<String>) -> Refusal {
        Refusal::Forbidden {
            message: message.into(),
            causes: Vec::new(),
        }
    }
}

/// Prepares and checks an object that is about to be created; answers with the warnings for its author.
///
/// # Errors
/// The rules that it breaks, or a plugin's own refusal.
pub(crate) fn create(
    kind: &Kind,
    object: &mut Value,
    context: &Context<'_>,
) -> Result<Vec<String>, Refusal> {
    plugins::change_created(kind, object, context)?;
    let strategy = strategy::of(kind);
    strategy.begin(kind, object);
    (strategy.prepare)(object, context)?;
    let mut wrong = Causes::default();
    metadata::check(object, kind.namespaced, strategy.name, &mut wrong);
    (strategy.check)(object, &mut wrong);
    refuse(wrong)?;
    plugins::check_created(kind, object, context)?;
    Ok((strategy.warnings)(object))
}

/// Prepares and checks an object that is about to replace `old`. `subresource` is empty for the object itself.
///
/// # Errors
/// The rules that the change breaks, or a plugin's own refusal.
pub(crate) fn update(
    kind: &Kind,
    subresource: &str,
    old: &Value,
    new: &mut Value,
    context: &Context<'_>,
) -> Result<Vec<String>, Refusal> {
    let strategy = strategy::of(kind);
    strategy::keep_system_metadata(old, new);
    let mut wrong = Causes::default();
    let mut warnings = Vec::new();
    match subresource {
        "" => {
            plugins::change_updated(kind, old, new, context)?;
            strategy.keep_status(kind, old, new);
            (strategy.prepare_update)(old, new, context)?;
            strategy.count_generation(old, new);
            metadata::check_update(old, new, &mut wrong);
            check_update(kind, &strategy, old, new, &mut wrong);
            warnings = (strategy.warnings)(new);
        }
        "status" => {
            strategy::keep_all_but_status(old, new);
            (strategy.prepare_status)(old, new, context);
            metadata::check_update(old, new, &mut wrong);
            metadata::check_update_of_kind(old, new, &mut wrong);
            (strategy.check_status)(old, new, &mut wrong);
        }
        "ephemeralcontainers" => pod::update_ephemeral(old, new, &mut wrong),
        "resize" => pod_resize::update(old, new, &mut wrong),
        "finalize" => namespace::finalize(old, new, &mut wrong),
        _ => metadata::check_update(old, new, &mut wrong),
    }
    refuse(wrong)?;
    if subresource.is_empty() {
        plugins::check_updated(kind, old, new, context)?;
    }
    Ok(warnings)
}

fn check_update(kind: &Kind, strategy: &Strategy, old: &Value, new: &Value, wrong: &mut Causes) {
    match strategy.metadata_again {
        Again::Never => {}
        Again::Changes => metadata::check_update_of_kind(old, new, wrong),
        Again::Everything => {
            metadata::check(new, kind.namespaced, strategy.name, wrong);
            metadata::check_update_of_kind(old, new, wrong);
        }
    }
    (strategy.check_update)(old, new, wrong);
}

fn refuse(wrong: Causes) -> Result<(), Refusal> {
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(Refusal::Invalid(wrong.into_vec()))
    }
}

/// Checks a deletion.
///
/// # Errors
/// A plugin's refusal: a few namespaces live as long as the cluster.
pub(crate) fn delete(kind: &Kind, object: &Value, _context: &Context<'_>) -> Result<(), Refusal> {
    plugins::check_deleted(kind, object)
}

/// The rules of an autoscaling/v1 Scale.
///
/// # Errors
/// The rules that it breaks.
pub(crate) fn scale(scale: &Value) -> Result<(), Refusal> {
    let mut wrong = Causes::default();
    let replicas = read::int(read::get(scale, "spec"), "replicas").unwrap_or(0);
    wrong.non_negative(&Path::root("spec").field("replicas"), replicas);
    refuse(wrong)
}

/// Whether a pod asks for no cpu and no memory at all.
pub(crate) fn is_best_effort(pod: &Value) -> bool {
    qos::class(read::get(pod, "spec")) == "BestEffort"
}

/// Whether a PUT to a name that is not there creates the object.
pub(crate) fn allows_create_on_update(kind: &Kind) -> bool {
    strategy::of(kind).create_on_update
}

/// Whether a PUT may come without a resourceVersion.
pub(crate) fn allows_unconditional_update(kind: &Kind) -> bool {
    strategy::of(kind).unconditional_update
}

/// The warning that goes with every answer about a kind that upstream has deprecated.
pub(crate) fn deprecation(kind: &Kind) -> Option<&'static str> {
    match (kind.group, kind.kind) {
        ("", "Endpoints") => {
            Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice")
        }
        ("", "ComponentStatus") => Some("v1 ComponentStatus is deprecated in v1.19+"),
        _ => None,
    }
}

/// The warning that goes with a deletion that does not say what becomes of the dependents.
pub(crate) fn delete_warning(kind: &Kind) -> Option<&'static str> {
    match (kind.group, kind.kind) {
        ("batch", "Job") => Some(
            "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set propagationPolicy=Orphan to suppress this warning",
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
