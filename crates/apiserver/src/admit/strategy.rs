//! Which rules a kind goes by: its name, what the server fills in, what it checks, how its generation counts.

use serde_json::{Value, json};
use stead_schema::Kind;

use super::cause::Causes;
use super::metadata::NameRule;
use super::read::{drop_field, get, int, map_mut, object_mut, put, semantically_equal};
use super::{
    Context, Refusal, configmap, controllerrevision, cronjob, daemonset, deployment, endpoints,
    endpointslice, event, horizontalpodautoscaler, ingress, job, lease, limitrange, namespace,
    networkpolicy, node, persistentvolume, persistentvolumeclaim, pod, poddisruptionbudget,
    priorityclass, rbac, replicaset, resourcequota, secret, service, serviceaccount, statefulset,
    storageclass, syntax,
};

/// The rules of one kind; upstream's `rest.RESTCreateStrategy` and its like.
pub(crate) struct Strategy {
    /// How its names are spelled.
    pub(crate) name: NameRule,
    /// What `status` is at birth, where it is not simply empty.
    pub(crate) first_status: fn(&Value) -> Value,
    /// What the server fills in on create.
    pub(crate) prepare: fn(&mut Value, &Context<'_>) -> Result<(), Refusal>,
    /// What a new object must look like, beyond its metadata.
    pub(crate) check: fn(&Value, &mut Causes),
    /// What the server fills in or takes back on update.
    pub(crate) prepare_update: fn(&Value, &mut Value, &Context<'_>) -> Result<(), Refusal>,
    /// What may change, and what the changed object must look like.
    pub(crate) check_update: fn(&Value, &Value, &mut Causes),
    /// What the server fills in or takes back on a status update.
    pub(crate) prepare_status: fn(&Value, &mut Value, &Context<'_>),
    /// What a new status must look like.
    pub(crate) check_status: fn(&Value, &Value, &mut Causes),
    /// What is allowed and yet worth a word.
    pub(crate) warnings: fn(&Value) -> Vec<String>,
    /// How `metadata.generation` counts.
    pub(crate) generation: Generation,
    /// Whether the kind's own update rules look at the metadata again, after the generic store has.
    pub(crate) metadata_again: Again,
    /// Whether a PUT to a free name creates.
    pub(crate) create_on_update: bool,
    /// Whether a PUT may come without a resourceVersion.
    pub(crate) unconditional_update: bool,
}

/// What a kind looks at of the metadata on update; it tells broken rules a second time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Again {
    /// Nothing.
    Never,
    /// What may not change.
    Changes,
    /// That, and everything that it looks at on create.
    Everything,
}

/// How `metadata.generation` counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Generation {
    /// There is none.
    Never,
    /// Always 1.
    One,
    /// 1, and one more whenever `spec` changes.
    Spec,
    /// 1, and one more whenever `spec` or an annotation changes.
    SpecOrAnnotations,
    /// 1, and one more whenever anything but metadata, or a label, changes.
    ContentOrLabels,
}

impl Strategy {
    /// A kind without rules of its own: a subdomain as name, nothing filled in.
    pub(crate) const PLAIN: Strategy = Strategy {
        name: syntax::dns1123_subdomain,
        first_status: |_| json!({}),
        prepare: |_, _| Ok(()),
        check: |_, _| {},
        prepare_update: |_, _, _| Ok(()),
        check_update: |_, _, _| {},
        prepare_status: |_, _, _| {},
        check_status: |_, _, _| {},
        warnings: |_| Vec::new(),
        generation: Generation::Never,
        metadata_again: Again::Changes,
        create_on_update: false,
        unconditional_update: true,
    };

    /// What a create starts with: no status but the first one, generation 1 where generations count.
    pub(crate) fn begin(&self, kind: &Kind, object: &mut Value) {
        let is_node = kind.group.is_empty() && kind.kind == "Node";
        if kind.subresource("status").is_some() && !is_node {
            let first = (self.first_status)(object);
            put(object, "status", first);
        }
        match self.generation {
            Generation::Never => drop_field(object_in(object, "metadata"), "generation"),
            Generation::One
            | Generation::Spec
            | Generation::SpecOrAnnotations
            | Generation::ContentOrLabels => {
                set_generation(object, 1);
            }
        }
    }

    /// An update of the object itself never touches `status`.
    pub(crate) fn keep_status(&self, kind: &Kind, old: &Value, new: &mut Value) {
        if kind.subresource("status").is_some() {
            put(new, "status", get(old, "status").clone());
        }
    }

    /// One generation more where something changed that counts.
    pub(crate) fn count_generation(&self, old: &Value, new: &mut Value) {
        let before = int(get(old, "metadata"), "generation").unwrap_or(0);
        let changed = match self.generation {
            Generation::Never | Generation::One => false,
            Generation::Spec => differs(old, new, "spec"),
            Generation::SpecOrAnnotations => {
                differs(old, new, "spec")
                    || differs(get(old, "metadata"), get(new, "metadata"), "annotations")
            }
            Generation::ContentOrLabels => {
                content_differs(old, new)
                    || differs(get(old, "metadata"), get(new, "metadata"), "labels")
            }
        };
        if changed {
            set_generation(new, before.saturating_add(1));
        }
    }
}

fn set_generation(object: &mut Value, generation: i64) {
    map_mut(object, "metadata").insert("generation".to_owned(), generation.into());
}

fn object_in<'a>(object: &'a mut Value, name: &str) -> &'a mut Value {
    object_mut(object).entry(name).or_insert_with(|| json!({}))
}

fn differs(old: &Value, new: &Value, field: &str) -> bool {
    !semantically_equal(get(old, field), get(new, field))
}

fn content_differs(old: &Value, new: &Value) -> bool {
    let fields = |object: &Value| -> Vec<String> {
        object
            .as_object()
            .map(|map| map.keys().cloned().collect())
            .unwrap_or_default()
    };
    fields(old)
        .iter()
        .chain(&fields(new))
        .any(|field| field != "metadata" && differs(old, new, field))
}

/// What no client can change: the birth, the end and the generation of an object; an unsaid uid is the old one.
pub(crate) fn keep_system_metadata(old: &Value, new: &mut Value) {
    let was = get(old, "metadata");
    let own_uid = !get(get(new, "metadata"), "uid")
        .as_str()
        .unwrap_or("")
        .is_empty();
    let meta = object_in(new, "metadata");
    for field in [
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
    ] {
        put(meta, field, get(was, field).clone());
    }
    if !own_uid {
        put(meta, "uid", get(was, "uid").clone());
    }
}

/// A status update never touches anything but `status` and the metadata.
pub(crate) fn keep_all_but_status(old: &Value, new: &mut Value) {
    let mut kept = old.clone();
    for field in ["metadata", "status"] {
        put(&mut kept, field, get(new, field).clone());
    }
    *new = kept;
}

/// The strategy of a kind.
pub(crate) fn of(kind: &Kind) -> Strategy {
    match (kind.group, kind.kind) {
        ("", "ConfigMap") => configmap::RULES,
        ("", "Endpoints") => endpoints::RULES,
        ("", "Event") | ("events.k8s.io", "Event") => event::RULES,
        ("", "LimitRange") => limitrange::RULES,
        ("", "Namespace") => namespace::RULES,
        ("", "Node") => node::RULES,
        ("", "PersistentVolume") => persistentvolume::RULES,
        ("", "PersistentVolumeClaim") => persistentvolumeclaim::RULES,
        ("", "Pod") => pod::RULES,
        ("", "PodTemplate") => replicaset::POD_TEMPLATE,
        ("", "ReplicationController") => replicaset::CONTROLLER,
        ("", "ResourceQuota") => resourcequota::RULES,
        ("", "Secret") => secret::RULES,
        ("", "Service") => service::RULES,
        ("", "ServiceAccount") => serviceaccount::RULES,
        ("apps", "ControllerRevision") => controllerrevision::RULES,
        ("apps", "DaemonSet") => daemonset::RULES,
        ("apps", "Deployment") => deployment::RULES,
        ("apps", "ReplicaSet") => replicaset::RULES,
        ("apps", "StatefulSet") => statefulset::RULES,
        ("autoscaling", "HorizontalPodAutoscaler") => horizontalpodautoscaler::RULES,
        ("batch", "CronJob") => cronjob::RULES,
        ("batch", "Job") => job::RULES,
        ("coordination.k8s.io", "Lease") => lease::RULES,
        ("discovery.k8s.io", "EndpointSlice") => endpointslice::RULES,
        ("networking.k8s.io", "Ingress") => ingress::RULES,
        ("networking.k8s.io", "IngressClass") => ingress::CLASS,
        ("networking.k8s.io", "NetworkPolicy") => networkpolicy::RULES,
        ("policy", "PodDisruptionBudget") => poddisruptionbudget::RULES,
        ("rbac.authorization.k8s.io", "Role" | "ClusterRole") => rbac::ROLE,
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => rbac::BINDING,
        ("scheduling.k8s.io", "PriorityClass") => priorityclass::RULES,
        ("storage.k8s.io", "StorageClass") => storageclass::RULES,
        _ => Strategy::PLAIN,
    }
}
