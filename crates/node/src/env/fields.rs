//! The downward API: fields of the pod and resources of its containers, as text.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1 as core;

use crate::container::find;
use crate::quantity;

/// The field at `path`. `pod_ip`: the address that the pod has by now, where fields of the status are possible.
pub(crate) fn field(pod: &core::Pod, path: &str, pod_ip: Option<&str>) -> Result<String, String> {
    let text = |value: &Option<String>| Ok(value.clone().unwrap_or_default());
    let spec = pod.spec.as_ref();
    if let Some((map, key)) = subscript(path) {
        return match map {
            "metadata.labels" => Ok(entry(pod.metadata.labels.as_ref(), key)),
            "metadata.annotations" => Ok(entry(pod.metadata.annotations.as_ref(), key)),
            _ => Err(unsupported(path)),
        };
    }
    match (path, pod_ip) {
        ("metadata.name", _) => text(&pod.metadata.name),
        ("metadata.namespace", _) => text(&pod.metadata.namespace),
        ("metadata.uid", _) => text(&pod.metadata.uid),
        ("metadata.labels", None) => Ok(listed(pod.metadata.labels.as_ref())),
        ("metadata.annotations", None) => Ok(listed(pod.metadata.annotations.as_ref())),
        ("spec.nodeName", _) => Ok(spec.and_then(|s| s.node_name.clone()).unwrap_or_default()),
        ("spec.serviceAccountName", _) => Ok(spec
            .and_then(|s| s.service_account_name.clone())
            .unwrap_or_default()),
        ("status.hostIP" | "status.hostIPs", Some(_)) => Ok(pod
            .status
            .as_ref()
            .and_then(|s| s.host_ip.clone())
            .unwrap_or_default()),
        ("status.podIP" | "status.podIPs", Some(ip)) => Ok(ip.to_owned()),
        _ => Err(unsupported(path)),
    }
}

fn unsupported(path: &str) -> String {
    format!("unsupported fieldPath: {path}")
}

/// `map['key']`.
fn subscript(path: &str) -> Option<(&str, &str)> {
    path.strip_suffix("']")?.split_once("['")
}

fn entry(map: Option<&BTreeMap<String, String>>, key: &str) -> String {
    map.and_then(|map| map.get(key))
        .cloned()
        .unwrap_or_default()
}

/// upstream: `FormatMap`: a line `key="value"` for each, sorted.
fn listed(map: Option<&BTreeMap<String, String>>) -> String {
    let line = |(key, value): (&String, &String)| format!("{key}={value:?}");
    map.into_iter()
        .flatten()
        .map(line)
        .collect::<Vec<_>>()
        .join("\n")
}

/// A resource of one container, divided and rounded up. A missing limit is all that the machine has.
pub(crate) fn resource(
    pod: &core::Pod,
    container: &str,
    selector: &core::ResourceFieldSelector,
) -> Result<String, String> {
    let found = find(pod, container).ok_or_else(|| format!("container {container} not found"))?;
    let resources = found.resources.unwrap_or_default();
    let (list, name) = selector
        .resource
        .split_once('.')
        .unwrap_or(("", selector.resource.as_str()));
    let map = match list {
        "limits" => resources.limits,
        "requests" => resources.requests,
        _ => {
            return Err(format!(
                "unsupported container resource : {}",
                selector.resource
            ));
        }
    };
    let amount = map.and_then(|map| map.get(name).map(|amount| amount.0.clone()));
    let amount = match (amount, list) {
        (Some(amount), _) => amount,
        (None, "limits") => capacity(name),
        (None, _) => "0".to_owned(),
    };
    let divisor = selector
        .divisor
        .as_ref()
        .map_or("1", |divisor| divisor.0.as_str());
    let value = quantity::ratio(&amount, divisor)
        .ok_or_else(|| format!("{} is not a quantity", selector.resource))?;
    Ok(value.to_string())
}

/// All that the machine has of a resource.
fn capacity(name: &str) -> String {
    let machine = crate::node::machine();
    match name {
        "cpu" => format!("{}m", machine.cpu_millis),
        "memory" => machine.memory_bytes.to_string(),
        _ => "0".to_owned(),
    }
}
