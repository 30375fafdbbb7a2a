//! Pods, their containers and probes.

use serde_json::{Map, Value};

use super::{
    default, default_number, default_pointer, image, is_absent, is_empty, object, object_made,
    object_mut, objects, objects_mut, text,
};
use crate::quantity::{Quantity, canonical_in_list};

/// Rules of pods alone, not of templates: a template's revision must not change with them.
pub(super) fn pod(pod: &mut Map<String, Value>) {
    drop_old_annotations(pod);
    let Some(spec) = object_mut(pod, "spec") else {
        return;
    };
    for list in ["containers", "initContainers"] {
        objects_mut(spec, list).for_each(requests_from_limits);
    }
    pod_level_resources(spec);
    default_pointer(spec, "enableServiceLinks", true);
    if spec.get("hostNetwork") == Some(&Value::Bool(true)) {
        for list in ["containers", "initContainers"] {
            objects_mut(spec, list).for_each(host_ports);
        }
    }
}

/// Pods and templates alike.
pub(super) fn spec(spec: &mut Map<String, Value>) {
    default(spec, "dnsPolicy", "ClusterFirst");
    default(spec, "restartPolicy", "Always");
    default_pointer(spec, "securityContext", Map::new());
    default_pointer(spec, "terminationGracePeriodSeconds", 30);
    default(spec, "schedulerName", "default-scheduler");
    mirror_service_account(spec);
    round_resources(spec, &["overhead"]);
}

/// The old name and the new one always say the same; the new one wins.
fn mirror_service_account(spec: &mut Map<String, Value>) {
    let name = ["serviceAccountName", "serviceAccount"]
        .into_iter()
        .find_map(|name| text(spec, name).filter(|name| !name.is_empty()));
    if let Some(name) = name.map(str::to_owned) {
        spec.insert("serviceAccount".to_owned(), Value::String(name.clone()));
        spec.insert("serviceAccountName".to_owned(), Value::String(name));
    }
}

pub(super) fn container(container: &mut Map<String, Value>) {
    if is_empty(container, "imagePullPolicy") {
        let policy = pull_policy(text(container, "image").unwrap_or_default());
        container.insert("imagePullPolicy".to_owned(), policy.into());
    }
    default(container, "terminationMessagePath", "/dev/termination-log");
    default(container, "terminationMessagePolicy", "File");
}

pub(super) fn pull_policy(image: &str) -> &'static str {
    if image::is_latest(image) {
        "Always"
    } else {
        "IfNotPresent"
    }
}

pub(super) fn probe(probe: &mut Map<String, Value>) {
    default_number(probe, "timeoutSeconds", 1);
    default_number(probe, "periodSeconds", 10);
    default_number(probe, "successThreshold", 1);
    default_number(probe, "failureThreshold", 3);
}

pub(super) fn http_get(action: &mut Map<String, Value>) {
    default(action, "path", "/");
    default(action, "scheme", "HTTP");
}

/// Annotations of the time before init containers had a field of their own are dropped from pods and templates.
pub(super) fn drop_old_annotations(owner: &mut Map<String, Value>) {
    let Some(metadata) = object_mut(owner, "metadata") else {
        return;
    };
    let Some(annotations) = object_mut(metadata, "annotations") else {
        return;
    };
    let before = annotations.len();
    for stage in ["alpha", "beta"] {
        annotations.remove(&format!("pod.{stage}.kubernetes.io/init-containers"));
        annotations.remove(&format!(
            "pod.{stage}.kubernetes.io/init-container-statuses"
        ));
    }
    if before > 0 && annotations.is_empty() {
        metadata.remove("annotations");
    }
}

/// Amounts of resource lists are rounded up to thousandths.
pub(super) fn round_resources(owner: &mut Map<String, Value>, lists: &[&str]) {
    for list in lists {
        for amount in object_mut(owner, list)
            .into_iter()
            .flat_map(|list| list.values_mut())
        {
            let rounded = amount
                .as_str()
                .and_then(|text| canonical_in_list(text).ok());
            if let Some(rounded) = rounded.filter(|rounded| amount.as_str() != Some(rounded)) {
                *amount = Value::String(rounded);
            }
        }
    }
}

fn requests_from_limits(container: &mut Map<String, Value>) {
    let Some(resources) = object_mut(container, "resources") else {
        return;
    };
    let Some(limits) = object(resources, "limits")
        .filter(|limits| !limits.is_empty())
        .cloned()
    else {
        return;
    };
    if let Some(requests) = object_made(resources, "requests") {
        for (resource, limit) in limits {
            requests.entry(resource).or_insert(limit);
        }
    }
}

fn host_ports(container: &mut Map<String, Value>) {
    for port in objects_mut(container, "ports") {
        if let Some(number) = port
            .get("containerPort")
            .cloned()
            .filter(|_| is_empty(port, "hostPort"))
        {
            port.insert("hostPort".to_owned(), number);
        }
    }
}

/// Resources of the pod as a whole, completed from those of its containers.
///
/// `upstream: defaultHugePagePodLimits, defaultPodRequests, defaultPodLimits`
fn pod_level_resources(spec: &mut Map<String, Value>) {
    let Some(resources) = object(spec, "resources") else {
        return;
    };
    let said = |list: &str| object(resources, list).is_some_and(|list| !list.is_empty());
    let (has_limits, has_requests) = (said("limits"), said("requests"));
    let limits_of_containers = aggregate(spec, "limits");
    let mut limits = object(resources, "limits").cloned().unwrap_or_default();
    let mut requests = object(resources, "requests").cloned().unwrap_or_default();
    if has_limits || has_requests {
        let huge = limits_of_containers
            .iter()
            .filter(|(name, _)| name.starts_with("hugepages-") && !requests.contains_key(*name));
        add_missing(&mut limits, huge);
    }
    if !limits.is_empty() {
        let requests_of_containers = aggregate(spec, "requests");
        add_missing(
            &mut requests,
            requests_of_containers
                .iter()
                .filter(|(name, _)| matches!(name.as_str(), "cpu" | "memory")),
        );
        let supported =
            |name: &str| matches!(name, "cpu" | "memory") || name.starts_with("hugepages-");
        let from_limits: Map<String, Value> = limits
            .iter()
            .filter(|(name, _)| supported(name))
            .map(|(name, limit)| (name.clone(), limit.clone()))
            .collect();
        for (name, limit) in from_limits {
            requests.entry(name).or_insert(limit);
        }
    } else if !requests.is_empty() {
        let in_all = |name: &str| {
            objects(spec, "containers")
                .all(|container| quantity_of(container, "limits", name).is_some())
        };
        for (name, amount) in limits_of_containers
            .iter()
            .filter(|(name, _)| matches!(name.as_str(), "cpu" | "memory") && in_all(name))
        {
            limits.insert(name.clone(), Value::String(amount.to_string()));
        }
    }
    let Some(resources) = object_mut(spec, "resources") else {
        return;
    };
    for (name, list) in [("limits", limits), ("requests", requests)] {
        if !list.is_empty() {
            resources.insert(name.to_owned(), Value::Object(list));
        }
    }
}

fn add_missing<'a>(
    list: &mut Map<String, Value>,
    amounts: impl Iterator<Item = (&'a String, &'a Quantity)>,
) {
    for (name, amount) in amounts {
        list.entry(name.clone())
            .or_insert_with(|| Value::String(amount.to_string()));
    }
}

/// What all containers ask for together: side cars add up, init containers count by the greatest.
fn aggregate(
    spec: &Map<String, Value>,
    list: &str,
) -> std::collections::BTreeMap<String, Quantity> {
    let mut sum = std::collections::BTreeMap::new();
    for container in objects(spec, "containers") {
        add_amounts(&mut sum, container, list);
    }
    let mut sidecars = std::collections::BTreeMap::new();
    let mut greatest: std::collections::BTreeMap<String, Quantity> =
        std::collections::BTreeMap::new();
    for init in objects(spec, "initContainers") {
        let mut at_once = sidecars.clone();
        add_amounts(&mut at_once, init, list);
        if text(init, "restartPolicy") == Some("Always") {
            add_amounts(&mut sum, init, list);
            sidecars.clone_from(&at_once);
        }
        raise(&mut greatest, at_once);
    }
    raise(&mut sum, greatest);
    sum
}

fn add_amounts(
    sum: &mut std::collections::BTreeMap<String, Quantity>,
    container: &Map<String, Value>,
    list: &str,
) {
    for name in object(container, "resources")
        .and_then(|resources| object(resources, list))
        .into_iter()
        .flat_map(|list| list.keys())
    {
        if let Some(amount) = quantity_of(container, list, name) {
            let total = sum.get(name).map_or(amount, |before| before.plus(&amount));
            sum.insert(name.clone(), total);
        }
    }
}

fn raise(
    sum: &mut std::collections::BTreeMap<String, Quantity>,
    other: std::collections::BTreeMap<String, Quantity>,
) {
    for (name, amount) in other {
        let known = sum.get(&name).copied();
        sum.insert(name, known.map_or(amount, |known| known.max(amount)));
    }
}

fn quantity_of(container: &Map<String, Value>, list: &str, name: &str) -> Option<Quantity> {
    let resources =
        object(container, "resources").filter(|resources| !is_absent(resources, list))?;
    Quantity::parse(object(resources, list)?.get(name)?.as_str()?).ok()
}
