//! What is allowed in a pod and yet worth a word to its author.
//!
//! Upstream: `pkg/api/pod/warnings.go`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use stead_schema::quantity;

use super::cause::Path;
use super::persistentvolumeclaim::spec_warnings;
use super::pod_spec::all_containers;
use super::pod_spec_containers::is_sidecar;
use super::read::{dig, entries, get, has, int, list, text};

/// Volume sources that do nothing any more or soon will not, with upstream's words.
const OLD_SOURCES: [(&str, &str); 14] = [
    (
        "awsElasticBlockStore",
        "deprecated in v1.17, non-functional in v1.27+",
    ),
    ("azureDisk", "deprecated in v1.19, non-functional in v1.27+"),
    ("azureFile", "deprecated in v1.21, non-functional in v1.30+"),
    ("cinder", "deprecated in v1.18, non-functional in v1.26+"),
    ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
    (
        "gcePersistentDisk",
        "deprecated in v1.17, non-functional in v1.28+",
    ),
    (
        "gitRepo",
        "deprecated in v1.11, and disabled by default in v1.33+",
    ),
    ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    (
        "photonPersistentDisk",
        "deprecated in v1.11, non-functional in v1.16+",
    ),
    ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
    ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
];

/// Node labels with newer names.
const OLD_LABELS: [(&str, &str); 5] = [
    (
        "beta.kubernetes.io/arch",
        "deprecated since v1.14; use \"kubernetes.io/arch\" instead",
    ),
    (
        "beta.kubernetes.io/os",
        "deprecated since v1.14; use \"kubernetes.io/os\" instead",
    ),
    (
        "failure-domain.beta.kubernetes.io/region",
        "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
    ),
    (
        "failure-domain.beta.kubernetes.io/zone",
        "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead",
    ),
    (
        "beta.kubernetes.io/instance-type",
        "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead",
    ),
];

const NO_POD: &str = "a null labelSelector results in matching no pod";

/// The warnings of a pod.
pub(crate) fn of_pod(pod: &Value) -> Vec<String> {
    of_spec(get(pod, "spec"), &Path::root("spec"))
}

/// The warnings of a template.
pub(crate) fn of_template(template: &Value, at: &Path) -> Vec<String> {
    of_spec(get(template, "spec"), &at.field("spec"))
}

fn of_spec(spec: &Value, at: &Path) -> Vec<String> {
    let mut words = Vec::new();
    old_labels(spec, at, &mut words);
    selectors_of_nothing(spec, at, &mut words);
    repeated_names(spec, at, &mut words);
    volumes(spec, &at.field("volumes"), &mut words);
    for (field, index, container) in all_containers(spec) {
        let at = at.field(field).index(index);
        fractions(container, &at.field("resources"), &mut words);
        hidden_variables(container, &at.field("env"), &mut words);
    }
    ports(spec, at, &mut words);
    if int(spec, "terminationGracePeriodSeconds").is_some_and(|seconds| seconds < 0) {
        words.push(format!("{at}.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"));
    }
    words
}

fn old_labels(spec: &Value, at: &Path, words: &mut Vec<String>) {
    for (label, word) in OLD_LABELS {
        if has(get(spec, "nodeSelector"), label) {
            words.push(format!("{}: {word}", at.field("nodeSelector").key(label)));
        }
    }
    for (index, constraint) in list(spec, "topologySpreadConstraints").iter().enumerate() {
        for (label, word) in OLD_LABELS {
            if text(constraint, "topologyKey") == label {
                words.push(format!(
                    "{}.topologyKey: {label} is {word}",
                    at.field("topologySpreadConstraints").index(index)
                ));
            }
        }
    }
}

fn selectors_of_nothing(spec: &Value, at: &Path, words: &mut Vec<String>) {
    for (index, constraint) in list(spec, "topologySpreadConstraints").iter().enumerate() {
        if !has(constraint, "labelSelector") {
            words.push(format!(
                "{}.labelSelector: {NO_POD}",
                at.field("topologySpreadConstraints").index(index)
            ));
        }
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let at = at.field("affinity").field(kind);
        let affinity = dig(spec, &["affinity", kind]);
        let required = "requiredDuringSchedulingIgnoredDuringExecution";
        for (index, term) in list(affinity, required).iter().enumerate() {
            if !has(term, "labelSelector") {
                words.push(format!(
                    "{}.labelSelector: {NO_POD}",
                    at.field(required).index(index)
                ));
            }
        }
        let preferred = "preferredDuringSchedulingIgnoredDuringExecution";
        for (index, term) in list(affinity, preferred).iter().enumerate() {
            if !has(get(term, "podAffinityTerm"), "labelSelector") {
                words.push(format!(
                    "{}.podAffinityTerm.labelSelector: {NO_POD}",
                    at.field(preferred).index(index)
                ));
            }
        }
    }
}

fn repeated_names(spec: &Value, at: &Path, words: &mut Vec<String>) {
    let mut addresses = BTreeSet::new();
    for (index, alias) in list(spec, "hostAliases").iter().enumerate() {
        let ip = text(alias, "ip");
        if !addresses.insert(ip) {
            words.push(format!(
                "{}.ip: duplicate ip {ip:?}",
                at.field("hostAliases").index(index)
            ));
        }
    }
    let mut secrets = BTreeSet::new();
    for (index, secret) in list(spec, "imagePullSecrets").iter().enumerate() {
        let name = text(secret, "name");
        let at = at.field("imagePullSecrets").index(index);
        if name.is_empty() {
            words.push(format!("{at}.name: invalid empty name {name:?}"));
        } else if !secrets.insert(name) {
            words.push(format!("{at}.name: duplicate name {name:?}"));
        }
    }
}

fn volumes(spec: &Value, at: &Path, words: &mut Vec<String>) {
    for (index, volume) in list(spec, "volumes").iter().enumerate() {
        let at = at.index(index);
        for (source, word) in OLD_SOURCES {
            if has(volume, source) {
                words.push(format!("{}: {word}", at.field(source)));
            }
        }
        let claim = dig(volume, &["ephemeral", "volumeClaimTemplate", "spec"]);
        words.extend(spec_warnings(
            claim,
            &at.field("ephemeral")
                .field("volumeClaimTemplate")
                .field("spec"),
        ));
    }
}

fn fractions(container: &Value, at: &Path, words: &mut Vec<String>) {
    for field in ["limits", "requests"] {
        for (name, amount) in entries(get(container, "resources"), field) {
            let fraction = quantity::nanos_of(amount).is_some_and(|nano| !quantity::is_whole(nano));
            if matches!(name, "memory" | "ephemeral-storage") && fraction {
                let shown = amount.as_str().unwrap_or("");
                words.push(format!(
                    "{}: fractional byte value {shown:?} is invalid, must be an integer",
                    at.field(field).key(name)
                ));
            }
        }
    }
}

fn hidden_variables(container: &Value, at: &Path, words: &mut Vec<String>) {
    let mut names = BTreeSet::new();
    for (index, variable) in list(container, "env").iter().enumerate() {
        let name = text(variable, "name");
        let is_extended = text(variable, "value").contains(&format!("$({name})"));
        if !names.insert(name) && !is_extended {
            words.push(format!(
                "{}: hides previous definition of {name:?}, which may be dropped when using apply",
                at.index(index)
            ));
        }
    }
}

/// Ports of all containers that live as long as the pod: the same port twice, the same name twice.
fn ports(spec: &Value, at: &Path, words: &mut Vec<String>) {
    let mut names: BTreeMap<&str, Path> = BTreeMap::new();
    let mut numbers: BTreeMap<(i64, &str, i64, &str), Path> = BTreeMap::new();
    let living = all_containers(spec).filter(|(field, _, container)| {
        *field == "containers" || (*field == "initContainers" && is_sidecar(container))
    });
    for (field, index, container) in living {
        for (number, port) in list(container, "ports").iter().enumerate() {
            let at = at.field(field).index(index).field("ports").index(number);
            let name = text(port, "name");
            if !name.is_empty() {
                match names.get(name) {
                    Some(first) => words.push(format!(
                        "{at}: duplicate port name {name:?} with {first}, services and probes that select ports by name will use {first}"
                    )),
                    None => {
                        names.insert(name, at.clone());
                    }
                }
            }
            let own = (
                int(port, "containerPort").unwrap_or(0),
                text(port, "protocol"),
                int(port, "hostPort").unwrap_or(0),
                text(port, "hostIP"),
            );
            match numbers.get(&own) {
                Some(first) => words.push(format!("{at}: duplicate port definition with {first}")),
                None => {
                    numbers.insert(own, at);
                }
            }
        }
    }
}
