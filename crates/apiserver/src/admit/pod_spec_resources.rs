//! The rules of `resources`: names that are known, quantities that are not negative, requests below limits.

use serde_json::Value;
use stead_schema::quantity;

use super::cause::{Causes, NOT_NEGATIVE, Path};
use super::read::{entries, get};
use super::syntax;

const STANDARD_CONTAINER: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
const STANDARD: [&str; 22] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "storage",
    "requests.cpu",
    "requests.memory",
    "requests.storage",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
    "count/pods",
    "requests.hugepages",
];
const WHOLE: [&str; 9] = [
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];

/// The rules of a container's `resources`.
pub(crate) fn check(resources: &Value, at: &Path, wrong: &mut Causes) {
    check_with(resources, container_resource_name, at, wrong);
}

/// The rules of a pod's own `resources`: only what a whole pod can be bound by.
pub(crate) fn check_pod_level(spec: &Value, at: &Path, wrong: &mut Causes) {
    check_with(get(spec, "resources"), pod_resource_name, at, wrong);
}

fn check_with(
    resources: &Value,
    name_rule: fn(&str, &Path, &mut Causes),
    at: &Path,
    wrong: &mut Causes,
) {
    let (limits_at, requests_at) = (at.field("limits"), at.field("requests"));
    for (name, amount) in entries(resources, "limits") {
        name_rule(name, &limits_at.key(name), wrong);
        check_quantity(name, amount, &limits_at.key(name), wrong);
    }
    for (name, amount) in entries(resources, "requests") {
        name_rule(name, &requests_at.key(name), wrong);
        check_quantity(name, amount, &requests_at.key(name), wrong);
        below_limit(
            name,
            amount,
            get(get(resources, "limits"), name),
            &limits_at,
            &requests_at,
            wrong,
        );
    }
    huge_pages_need_company(resources, at, wrong);
}

fn below_limit(
    name: &str,
    request: &Value,
    limit: &Value,
    limits_at: &Path,
    requests_at: &Path,
    wrong: &mut Causes,
) {
    let (Some(wanted), Some(most)) = (quantity::nanos_of(request), quantity::nanos_of(limit))
    else {
        if limit.is_null() && !may_overcommit(name) {
            wrong.required(limits_at, "Limit must be set for non overcommit resources");
        }
        return;
    };
    let shown = limit.as_str().unwrap_or("");
    if wanted != most && !may_overcommit(name) {
        wrong.invalid(
            requests_at,
            request.clone(),
            &format!("must be equal to {name} limit of {shown}"),
        );
    } else if wanted > most {
        wrong.invalid(
            requests_at,
            request.clone(),
            &format!("must be less than or equal to {name} limit of {shown}"),
        );
    }
}

fn huge_pages_need_company(resources: &Value, at: &Path, wrong: &mut Causes) {
    let names: Vec<&str> = ["limits", "requests"]
        .iter()
        .flat_map(|field| entries(resources, field))
        .map(|(name, _)| name)
        .collect();
    let huge = names.iter().any(|name| is_huge_page(name));
    if huge && !names.iter().any(|name| matches!(*name, "cpu" | "memory")) {
        wrong.forbidden(at, "HugePages require cpu or memory");
    }
}

fn container_resource_name(name: &str, at: &Path, wrong: &mut Causes) {
    resource_name(name, at, wrong);
    if !name.contains('/') {
        if !STANDARD_CONTAINER.contains(&name) && !is_huge_page(name) {
            wrong.invalid(at, name, "must be a standard resource for containers");
        }
    } else if !is_native(name) && !is_extended(name) {
        wrong.invalid(at, name, "doesn't follow extended resource name standard");
    }
}

fn pod_resource_name(name: &str, at: &Path, wrong: &mut Causes) {
    if !matches!(name, "cpu" | "memory") && !is_huge_page(name) {
        wrong.not_supported(at, name, &["cpu", "memory", "hugepages-"]);
    }
}

/// A resource that Kubernetes knows, or one with a domain.
pub(crate) fn resource_name(name: &str, at: &Path, wrong: &mut Causes) {
    let complaints = syntax::qualified_name(name);
    if !complaints.is_empty() {
        wrong.complaints(at, name, &complaints);
    } else if !name.contains('/') && !is_standard(name) {
        wrong.invalid(
            at,
            name,
            "must be a standard resource type or fully qualified",
        );
    }
}

/// A quantity of a resource: not negative, whole where only whole things exist.
pub(crate) fn check_quantity(name: &str, amount: &Value, at: &Path, wrong: &mut Causes) {
    let Some(nano) = quantity::nanos_of(amount) else {
        return;
    };
    if nano < 0 {
        wrong.invalid(at, amount.clone(), NOT_NEGATIVE);
    }
    if (WHOLE.contains(&name) || is_extended(name)) && !quantity::is_whole(nano) {
        wrong.invalid(at, amount.clone(), "must be an integer");
    }
}

fn is_standard(name: &str) -> bool {
    STANDARD.contains(&name) || is_huge_page(name) || name.starts_with("requests.hugepages-")
}

fn is_huge_page(name: &str) -> bool {
    name.starts_with("hugepages-")
}

fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

fn is_extended(name: &str) -> bool {
    !is_native(name)
        && !name.starts_with("requests.")
        && syntax::qualified_name(&format!("requests.{name}")).is_empty()
}

fn may_overcommit(name: &str) -> bool {
    is_native(name) && !is_huge_page(name)
}
