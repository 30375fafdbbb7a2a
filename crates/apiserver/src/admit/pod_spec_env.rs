//! The rules of `env`, `envFrom` and of everything that refers to a field, a resource or a key.

use serde_json::Value;
use stead_schema::quantity;

use super::cause::{Causes, Path};
use super::read::{get, has, list, text};
use super::syntax;

/// The fields of a pod that an environment variable may show.
const ENV_FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// The fields of a pod that a file may show.
pub(crate) const VOLUME_FIELDS: [&str; 5] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.labels",
    "metadata.annotations",
    "metadata.uid",
];

/// The fields of a pod that have a name in this API at all.
const KNOWN_FIELDS: [&str; 14] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.serviceAccountName",
    "spec.schedulerName",
    "status.phase",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

const RESOURCES: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
const CPU_DIVISORS: [&str; 2] = ["1m", "1"];
const BYTE_DIVISORS: [&str; 13] = [
    "1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei",
];

/// The rules of `env`.
pub(crate) fn check(container: &Value, at: &Path, wrong: &mut Causes) {
    for (index, variable) in list(container, "env").iter().enumerate() {
        let at = at.field("env").index(index);
        let name = text(variable, "name");
        if name.is_empty() {
            wrong.required(&at.field("name"), "");
        } else {
            wrong.complaints(&at.field("name"), name, &syntax::env_var_name(name));
        }
        if has(variable, "valueFrom") {
            value_from(variable, &at.field("valueFrom"), wrong);
        }
    }
    for (index, source) in list(container, "envFrom").iter().enumerate() {
        env_from(source, &at.field("envFrom"), index, wrong);
    }
}

fn value_from(variable: &Value, at: &Path, wrong: &mut Causes) {
    let source = get(variable, "valueFrom");
    let mut sources = 0;
    for name in [
        "fieldRef",
        "resourceFieldRef",
        "configMapKeyRef",
        "secretKeyRef",
        "fileKeyRef",
    ] {
        let reference = get(source, name);
        if reference.is_null() {
            continue;
        }
        sources += 1;
        let at = at.field(name);
        match name {
            "fieldRef" => field_ref(reference, &ENV_FIELDS, &at, wrong),
            "resourceFieldRef" => resource_ref(reference, false, &at, wrong),
            "fileKeyRef" => file_key(reference, &at, wrong),
            _ => key_ref(reference, &at, wrong),
        }
    }
    match sources {
        0 => wrong.invalid(
            at,
            "",
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        ),
        _ if !text(variable, "value").is_empty() => wrong.invalid(at, "", "may not be specified when `value` is not empty"),
        1 => {}
        _ => wrong.invalid(at, "", "may not have more than one field specified at a time"),
    }
}

fn env_from(source: &Value, at: &Path, index: usize, wrong: &mut Causes) {
    let item = at.index(index);
    let prefix = text(source, "prefix");
    wrong.complaints(&item.field("prefix"), prefix, &syntax::env_prefix(prefix));
    let mut sources = 0;
    for name in ["configMapRef", "secretRef"] {
        let reference = get(source, name);
        if reference.is_null() {
            continue;
        }
        sources += 1;
        if text(reference, "name").is_empty() {
            wrong.required(&item.field(name).field("name"), "");
        }
    }
    // upstream tells these two at the list, not at its item.
    match sources {
        0 => wrong.invalid(at, "", "must specify one of: `configMapRef` or `secretRef`"),
        1 => {}
        _ => wrong.invalid(
            at,
            "",
            "may not have more than one field specified at a time",
        ),
    }
}

fn key_ref(reference: &Value, at: &Path, wrong: &mut Causes) {
    if text(reference, "name").is_empty() {
        wrong.required(&at.field("name"), "");
    }
    match text(reference, "key") {
        "" => wrong.required(&at.field("key"), ""),
        key => wrong.complaints(&at.field("key"), key, &syntax::config_key(key)),
    }
}

fn file_key(reference: &Value, at: &Path, wrong: &mut Causes) {
    for field in ["key", "volumeName", "path"] {
        if text(reference, field).is_empty() {
            wrong.required(&at.field(field), "");
        }
    }
}

/// A reference to a field of the pod.
pub(crate) fn field_ref(reference: &Value, allowed: &[&str], at: &Path, wrong: &mut Causes) {
    let (version, path) = (text(reference, "apiVersion"), text(reference, "fieldPath"));
    if version.is_empty() {
        wrong.required(&at.field("apiVersion"), "");
        return;
    }
    if path.is_empty() {
        wrong.required(&at.field("fieldPath"), "");
        return;
    }
    if version != "v1" {
        wrong.invalid(
            &at.field("fieldPath"),
            path,
            &format!("error converting fieldPath: unsupported pod version: {version}"),
        );
        return;
    }
    match subscripted(path) {
        Some(("metadata.annotations", key)) => {
            wrong.complaints(at, key, &syntax::qualified_name(&key.to_lowercase()))
        }
        Some(("metadata.labels", key)) => wrong.complaints(at, key, &syntax::qualified_name(key)),
        Some(_) => wrong.invalid(
            &at.field("fieldPath"),
            path,
            &format!("error converting fieldPath: field label does not support subscript: {path}"),
        ),
        None => plain_field(path, allowed, &at.field("fieldPath"), wrong),
    }
}

fn plain_field(path: &str, allowed: &[&str], at: &Path, wrong: &mut Causes) {
    let path = if path == "spec.host" {
        "spec.nodeName"
    } else {
        path
    };
    if !KNOWN_FIELDS.contains(&path) {
        wrong.invalid(
            at,
            path,
            &format!("error converting fieldPath: field label not supported: {path}"),
        );
    } else if !allowed.contains(&path) {
        wrong.not_supported(at, path, allowed);
    }
}

/// `metadata.labels['app']` is `("metadata.labels", "app")`.
fn subscripted(path: &str) -> Option<(&str, &str)> {
    let (head, rest) = path.strip_suffix("']")?.split_once("['")?;
    Some((head, rest))
}

/// A reference to a resource of a container; a file must name the container.
pub(crate) fn resource_ref(
    reference: &Value,
    names_container: bool,
    at: &Path,
    wrong: &mut Causes,
) {
    let resource = text(reference, "resource");
    if names_container && text(reference, "containerName").is_empty() {
        wrong.required(&at.field("containerName"), "");
        return;
    }
    if resource.is_empty() {
        wrong.required(&at.field("resource"), "");
        return;
    }
    let huge =
        resource.starts_with("limits.hugepages-") || resource.starts_with("requests.hugepages-");
    if !huge && !RESOURCES.contains(&resource) {
        wrong.not_supported(&at.field("resource"), resource, &RESOURCES);
    }
    divisor(resource, reference, &at.field("divisor"), wrong);
}

fn divisor(resource: &str, reference: &Value, at: &Path, wrong: &mut Causes) {
    let Some(nano) = quantity::nanos_of(get(reference, "divisor")).filter(|nano| *nano != 0) else {
        return;
    };
    let (allowed, what): (&[&str], &str) = match resource {
        "limits.cpu" | "requests.cpu" => (
            &CPU_DIVISORS,
            "only divisor's values 1m and 1 are supported with the cpu resource",
        ),
        _ => (
            &BYTE_DIVISORS,
            "only divisor's values 1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with this resource",
        ),
    };
    let fine = allowed
        .iter()
        .any(|word| quantity::nanos_of(&Value::from(*word)) == Some(nano));
    if !fine {
        wrong.invalid(at, resource, what);
    }
}
