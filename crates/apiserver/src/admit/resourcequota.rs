//! ResourceQuotas: resources that can be counted, amounts that are not negative, scopes that never change.

use serde_json::Value;

use super::cause::{Causes, Path};
use super::pod_spec_resources::{check_quantity, resource_name};
use super::read::{entries, get, list, texts};
use super::strategy::Strategy;

pub(crate) const RULES: Strategy = Strategy {
    check,
    check_update,
    check_status,
    ..Strategy::PLAIN
};

const COUNTED: [&str; 22] = [
    "cpu",
    "memory",
    "ephemeral-storage",
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
    "persistentvolumeclaims",
    "configmaps",
    "services.nodeports",
    "services.loadbalancers",
    "storage",
    "hugepages-2Mi",
    "hugepages-1Gi",
];
const SCOPES: [&str; 7] = [
    "Terminating",
    "NotTerminating",
    "BestEffort",
    "NotBestEffort",
    "PriorityClass",
    "CrossNamespacePodAffinity",
    "VolumeAttributesClass",
];

fn check(quota: &Value, wrong: &mut Causes) {
    let (spec, at) = (get(quota, "spec"), Path::root("spec"));
    amounts(spec, "hard", &at, wrong);
    for scope in texts(spec, "scopes") {
        if !SCOPES.contains(&scope) {
            wrong.invalid(
                &at.field("scopes"),
                get(spec, "scopes").clone(),
                "unsupported scope",
            );
        }
    }
    for (index, item) in list(get(spec, "scopeSelector"), "matchExpressions")
        .iter()
        .enumerate()
    {
        let at = at
            .field("scopeSelector")
            .field("matchExpressions")
            .index(index);
        let scope = get(item, "scopeName").as_str().unwrap_or("");
        if !SCOPES.contains(&scope) {
            wrong.invalid(&at.field("scopeName"), scope, "unsupported scope");
        }
    }
}

fn amounts(holder: &Value, field: &str, at: &Path, wrong: &mut Causes) {
    for (name, amount) in entries(holder, field) {
        let at = at.field(field).key(name);
        resource_name(name, &at, wrong);
        if !name.contains('/') && !COUNTED.contains(&name) && !name.contains("hugepages-") {
            wrong.invalid(&at, name, "must be a standard resource for quotas");
        }
        check_quantity(name, amount, &at, wrong);
    }
}

fn check_update(old: &Value, new: &Value, wrong: &mut Causes) {
    check(new, wrong);
    wrong.immutable(
        &Path::root("spec").field("scopes"),
        get(get(old, "spec"), "scopes"),
        get(get(new, "spec"), "scopes"),
    );
}

fn check_status(_: &Value, new: &Value, wrong: &mut Causes) {
    let (status, at) = (get(new, "status"), Path::root("status"));
    amounts(status, "hard", &at, wrong);
    amounts(status, "used", &at, wrong);
}
