//! The rules of containers, init containers and ephemeral containers: names, images, ports, mounts, probes, hooks.

use std::collections::BTreeSet;

use serde_json::Value;

use super::cause::{Causes, NOT_NEGATIVE, Path};
use super::pod_spec::{Place, on_host_network};
use super::pod_spec_volumes::{Sound, descending};
use super::read::{get, has, int, list, text, yes};
use super::{pod_spec_env, pod_spec_resources, pod_spec_security, syntax};

const PULL_POLICIES: [&str; 3] = ["Always", "IfNotPresent", "Never"];
const MESSAGE_POLICIES: [&str; 2] = ["File", "FallbackToLogsOnError"];
const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];
const PROPAGATIONS: [&str; 3] = ["None", "HostToContainer", "Bidirectional"];
const RESTART_POLICIES: [&str; 3] = ["Always", "OnFailure", "Never"];
const PROBES: [&str; 3] = ["livenessProbe", "readinessProbe", "startupProbe"];

/// What an ephemeral container may not have; it is a visitor.
const NOT_FOR_EPHEMERAL: [&str; 8] = [
    "ports",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
    "resources",
    "resizePolicy",
    "restartPolicy",
];

/// Checks all containers of a spec against its sound volumes.
pub(crate) fn check(spec: &Value, volumes: &Sound<'_>, at: &Path, wrong: &mut Causes) {
    let grace = int(spec, "terminationGracePeriodSeconds");
    ordinary(
        list(spec, "containers"),
        volumes,
        grace,
        &at.field("containers"),
        wrong,
    );
    init(spec, volumes, grace, &at.field("initContainers"), wrong);
    ephemeral(spec, volumes, &at.field("ephemeralContainers"), wrong);
}

fn ordinary(
    containers: &[Value],
    volumes: &Sound<'_>,
    grace: Option<i64>,
    at: &Path,
    wrong: &mut Causes,
) {
    if containers.is_empty() {
        wrong.required(at, "");
        return;
    }
    let mut names = BTreeSet::new();
    let mut ports = BTreeSet::new();
    for (index, container) in containers.iter().enumerate() {
        let at = at.index(index);
        common(container, volumes, &at, wrong);
        if !names.insert(text(container, "name")) {
            wrong.duplicate(&at.field("name"), text(container, "name"));
        }
        hooks_and_probes(container, grace, &at, wrong);
        host_ports(container, &mut ports, &at.field("ports"), wrong);
    }
}

fn init(spec: &Value, volumes: &Sound<'_>, grace: Option<i64>, at: &Path, wrong: &mut Causes) {
    let mut names: BTreeSet<&str> = list(spec, "containers")
        .iter()
        .map(|container| text(container, "name"))
        .collect();
    for (index, container) in list(spec, "initContainers").iter().enumerate() {
        let at = at.index(index);
        common(container, volumes, &at, wrong);
        let name = text(container, "name");
        if !name.is_empty() && !names.insert(name) {
            wrong.duplicate(&at.field("name"), name);
        }
        host_ports(container, &mut BTreeSet::new(), &at.field("ports"), wrong);
        if is_sidecar(container) {
            hooks_and_probes(container, grace, &at, wrong);
        } else {
            nothing_that_lasts(container, &at, wrong);
        }
    }
}

/// Whether an init container runs beside the others for the pod's whole life.
pub(crate) fn is_sidecar(container: &Value) -> bool {
    text(container, "restartPolicy") == "Always"
}

fn nothing_that_lasts(container: &Value, at: &Path, wrong: &mut Causes) {
    for field in [
        "lifecycle",
        "livenessProbe",
        "readinessProbe",
        "startupProbe",
    ] {
        if has(container, field) {
            wrong.forbidden(
                &at.field(field),
                "may not be set for init containers without restartPolicy=Always",
            );
        }
    }
    if !list(container, "resizePolicy").is_empty() {
        wrong.invalid(
            &at.field("resizePolicy"),
            get(container, "resizePolicy").clone(),
            "must not be set for init containers",
        );
    }
}

fn ephemeral(spec: &Value, volumes: &Sound<'_>, at: &Path, wrong: &mut Causes) {
    let mut names: BTreeSet<&str> = ["containers", "initContainers"]
        .iter()
        .flat_map(|field| list(spec, field))
        .map(|container| text(container, "name"))
        .collect();
    let targets = names.clone();
    for (index, container) in list(spec, "ephemeralContainers").iter().enumerate() {
        let at = at.index(index);
        common(container, volumes, &at, wrong);
        if !names.insert(text(container, "name")) {
            wrong.duplicate(&at.field("name"), text(container, "name"));
        }
        let target = text(container, "targetContainerName");
        if !target.is_empty() && !targets.contains(target) {
            wrong.not_found(&at.field("targetContainerName"), target);
        }
        for field in NOT_FOR_EPHEMERAL {
            let set = get(container, field);
            let empty = set.as_object().is_some_and(serde_json::Map::is_empty)
                || set.as_array().is_some_and(Vec::is_empty);
            if !set.is_null() && !empty {
                wrong.forbidden(&at.field(field), "cannot be set for an Ephemeral Container");
            }
        }
        for (index, mount) in list(container, "volumeMounts").iter().enumerate() {
            for field in ["subPath", "subPathExpr"] {
                if !text(mount, field).is_empty() {
                    wrong.forbidden(
                        &at.field("volumeMounts").index(index).field(field),
                        "cannot be set for an Ephemeral Container",
                    );
                }
            }
        }
    }
}

fn common(container: &Value, volumes: &Sound<'_>, at: &Path, wrong: &mut Causes) {
    let name = text(container, "name");
    if name.is_empty() {
        wrong.required(&at.field("name"), "");
    } else {
        wrong.complaints(&at.field("name"), name, &syntax::dns1123_label(name));
    }
    if text(container, "image").is_empty() {
        wrong.required(&at.field("image"), "");
    }
    required_one_of(
        container,
        "terminationMessagePolicy",
        &MESSAGE_POLICIES,
        at,
        wrong,
    );
    ports(container, &at.field("ports"), wrong);
    pod_spec_env::check(container, at, wrong);
    mounts(container, volumes, &at.field("volumeMounts"), wrong);
    devices(container, volumes, &at.field("volumeDevices"), wrong);
    required_one_of(container, "imagePullPolicy", &PULL_POLICIES, at, wrong);
    pod_spec_resources::check(get(container, "resources"), &at.field("resources"), wrong);
    restart_policy(container, at, wrong);
    pod_spec_security::check_container(container, &at.field("securityContext"), wrong);
}

fn required_one_of(
    container: &Value,
    field: &str,
    supported: &[&str],
    at: &Path,
    wrong: &mut Causes,
) {
    match text(container, field) {
        "" => wrong.required(&at.field(field), ""),
        value => wrong.one_of(&at.field(field), value, supported),
    }
}

fn restart_policy(container: &Value, at: &Path, wrong: &mut Causes) {
    let policy_at = at.field("restartPolicy");
    if has(container, "restartPolicy") {
        wrong.one_of(
            &policy_at,
            text(container, "restartPolicy"),
            &RESTART_POLICIES,
        );
    } else if !list(container, "restartPolicyRules").is_empty() {
        wrong.required(
            &policy_at,
            "must specify restartPolicy when restart rules are used",
        );
    }
    resize_policy(container, &at.field("resizePolicy"), wrong);
}

/// upstream tells most faults of these at the list, not at its item.
fn resize_policy(container: &Value, at: &Path, wrong: &mut Causes) {
    let mut resources = BTreeSet::new();
    for (index, resize) in list(container, "resizePolicy").iter().enumerate() {
        let resource = text(resize, "resourceName");
        if !resources.insert(resource) {
            wrong.duplicate(&at.index(index), resource);
        }
        for (value, supported) in [
            (resource, ["cpu", "memory"]),
            (
                text(resize, "restartPolicy"),
                ["NotRequired", "RestartContainer"],
            ),
        ] {
            if value.is_empty() {
                wrong.required(at, "");
            } else {
                wrong.one_of(at, value, &supported);
            }
        }
    }
}

fn ports(container: &Value, at: &Path, wrong: &mut Causes) {
    let mut names = BTreeSet::new();
    for (index, port) in list(container, "ports").iter().enumerate() {
        let at = at.index(index);
        let name = text(port, "name");
        if !name.is_empty() {
            let complaints = syntax::port_name(name);
            if complaints.is_empty() && !names.insert(name) {
                wrong.duplicate(&at.field("name"), name);
            }
            wrong.complaints(&at.field("name"), name, &complaints);
        }
        match int(port, "containerPort").unwrap_or(0) {
            0 => wrong.required(&at.field("containerPort"), ""),
            number => port_number(number, &at.field("containerPort"), wrong),
        }
        if let Some(number) = int(port, "hostPort").filter(|number| *number != 0) {
            port_number(number, &at.field("hostPort"), wrong);
        }
        required_one_of(port, "protocol", &PROTOCOLS, &at, wrong);
    }
}

/// A port number between 1 and 65535.
pub(crate) fn port_number(number: i64, at: &Path, wrong: &mut Causes) {
    for complaint in syntax::port_number(number) {
        wrong.invalid(at, number, &complaint);
    }
}

/// A port by its number or by its name.
pub(crate) fn port_number_or_name(port: &Value, at: &Path, wrong: &mut Causes) {
    match port.as_str() {
        Some(name) => wrong.complaints(at, name, &syntax::port_name(name)),
        None => port_number(port.as_i64().unwrap_or(0), at, wrong),
    }
}

fn host_ports<'a>(
    container: &'a Value,
    taken: &mut BTreeSet<(&'a str, &'a str, i64)>,
    at: &Path,
    wrong: &mut Causes,
) {
    for (index, port) in list(container, "ports").iter().enumerate() {
        let Some(number) = int(port, "hostPort").filter(|number| *number != 0) else {
            continue;
        };
        let (protocol, address) = (text(port, "protocol"), text(port, "hostIP"));
        if !taken.insert((protocol, address, number)) {
            wrong.duplicate(
                &at.index(index).field("hostPort"),
                format!("{protocol}/{address}/{number}"),
            );
        }
    }
}

/// On the machine's own network a container port is the machine's port.
pub(crate) fn check_host_network(spec: &Value, place: Place, at: &Path, wrong: &mut Causes) {
    if !on_host_network(spec) {
        return;
    }
    for field in ["containers", "initContainers"] {
        for (index, container) in list(spec, field).iter().enumerate() {
            let at = at.field(field).index(index).field("ports");
            for (index, port) in list(container, "ports").iter().enumerate() {
                let (host, own) = (
                    int(port, "hostPort").unwrap_or(0),
                    int(port, "containerPort").unwrap_or(0),
                );
                if (place == Place::Pod || host != 0) && host != own {
                    wrong.invalid(
                        &at.index(index).field("hostPort"),
                        host,
                        "must match `containerPort` when `hostNetwork` is true",
                    );
                }
            }
        }
    }
}

fn mounts(container: &Value, volumes: &Sound<'_>, at: &Path, wrong: &mut Causes) {
    let devices = list(container, "volumeDevices");
    let mut paths = BTreeSet::new();
    for (index, mount) in list(container, "volumeMounts").iter().enumerate() {
        let item = at.index(index);
        let (name, path) = (text(mount, "name"), text(mount, "mountPath"));
        if name.is_empty() {
            wrong.required(&item.field("name"), "");
        }
        if !volumes.contains_key(name) {
            wrong.not_found(&item.field("name"), name);
        }
        if path.is_empty() {
            wrong.required(&item.field("mountPath"), "");
        }
        if !paths.insert(path) {
            wrong.invalid(&item.field("mountPath"), path, "must be unique");
        }
        if devices.iter().any(|device| text(device, "name") == name) {
            wrong.invalid(
                &item.field("name"),
                name,
                "must not already exist in volumeDevices",
            );
        }
        if devices
            .iter()
            .any(|device| text(device, "devicePath") == path)
        {
            wrong.invalid(
                &item.field("mountPath"),
                path,
                "must not already exist as a path in volumeDevices",
            );
        }
        // upstream tells faults of these at the list, not at its item.
        sub_paths(mount, at, &item, wrong);
        propagation(mount, container, at, wrong);
        recursive_read_only(mount, &item, wrong);
    }
}

fn sub_paths(mount: &Value, at: &Path, item: &Path, wrong: &mut Causes) {
    let (plain, expression) = (text(mount, "subPath"), text(mount, "subPathExpr"));
    if !plain.is_empty() {
        descending(plain, &at.field("subPath"), wrong);
    }
    if !expression.is_empty() {
        if !plain.is_empty() {
            wrong.invalid(
                &item.field("subPathExpr"),
                expression,
                "subPathExpr and subPath are mutually exclusive",
            );
        }
        descending(expression, &at.field("subPathExpr"), wrong);
    }
}

fn propagation(mount: &Value, container: &Value, at: &Path, wrong: &mut Causes) {
    if !has(mount, "mountPropagation") {
        return;
    }
    let at = at.field("mountPropagation");
    let wanted = text(mount, "mountPropagation");
    wrong.one_of(&at, wanted, &PROPAGATIONS);
    if wanted == "Bidirectional" && !yes(get(container, "securityContext"), "privileged") {
        wrong.forbidden(
            &at,
            "Bidirectional mount propagation is available only to privileged containers",
        );
    }
}

fn recursive_read_only(mount: &Value, item: &Path, wrong: &mut Causes) {
    if !has(mount, "recursiveReadOnly") {
        return;
    }
    let at = item.field("recursiveReadOnly");
    let wanted = text(mount, "recursiveReadOnly");
    match wanted {
        "Disabled" => {}
        "Enabled" | "IfPossible" => {
            if !yes(mount, "readOnly") {
                wrong.forbidden(&at, "may only be specified when readOnly is true");
            }
            if !matches!(text(mount, "mountPropagation"), "" | "None") {
                wrong.forbidden(
                    &at,
                    "may only be specified when mountPropagation is None or not specified",
                );
            }
        }
        _ => wrong.not_supported(&at, wanted, &["Disabled", "IfPossible", "Enabled"]),
    }
}

fn devices(container: &Value, volumes: &Sound<'_>, at: &Path, wrong: &mut Causes) {
    let mut names = BTreeSet::new();
    let mut paths = BTreeSet::new();
    for (index, device) in list(container, "volumeDevices").iter().enumerate() {
        let at = at.index(index);
        let (name, path) = (text(device, "name"), text(device, "devicePath"));
        if name.is_empty() {
            wrong.required(&at.field("name"), "");
        }
        if !names.insert(name) {
            wrong.invalid(&at.field("name"), name, "must be unique");
        }
        match volumes.get(name) {
            None => wrong.not_found(&at.field("name"), name),
            Some(volume) if !has(volume, "persistentVolumeClaim") && !has(volume, "ephemeral") => {
                wrong.invalid(&at.field("name"), name, "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode");
            }
            Some(_) => {}
        }
        if path.is_empty() {
            wrong.required(&at.field("devicePath"), "");
        }
        if !paths.insert(path) {
            wrong.invalid(&at.field("devicePath"), path, "must be unique");
        }
        if syntax::has_backsteps(path) {
            wrong.invalid(
                &at.field("devicePath"),
                path,
                "can not contain backsteps ('..')",
            );
        }
    }
}

fn hooks_and_probes(container: &Value, grace: Option<i64>, at: &Path, wrong: &mut Causes) {
    let hooks = get(container, "lifecycle");
    for name in ["postStart", "preStop"] {
        if has(hooks, name) {
            handler(
                get(hooks, name),
                grace,
                &at.field("lifecycle").field(name),
                wrong,
            );
        }
    }
    for name in PROBES {
        let probe = get(container, name);
        if !probe.is_null() {
            check_probe(name, probe, grace, &at.field(name), wrong);
        }
    }
}

fn check_probe(name: &str, probe: &Value, grace: Option<i64>, at: &Path, wrong: &mut Causes) {
    handler(probe, grace, at, wrong);
    for field in [
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    ] {
        if let Some(number) = int(probe, field).filter(|number| *number < 0) {
            wrong.invalid(&at.field(field), number, NOT_NEGATIVE);
        }
    }
    let own_grace = at.field("terminationGracePeriodSeconds");
    if let Some(seconds) = int(probe, "terminationGracePeriodSeconds") {
        if seconds <= 0 {
            wrong.invalid(&own_grace, seconds, "must be greater than 0");
        }
        if name == "readinessProbe" {
            wrong.invalid(&own_grace, seconds, "must not be set for readinessProbes");
        }
    }
    if let Some(times) =
        int(probe, "successThreshold").filter(|times| *times != 1 && name != "readinessProbe")
    {
        wrong.invalid(&at.field("successThreshold"), times, "must be 1");
    }
}

fn handler(handler: &Value, grace: Option<i64>, at: &Path, wrong: &mut Causes) {
    let mut found = false;
    for name in ["exec", "httpGet", "tcpSocket", "grpc", "sleep"] {
        let action = get(handler, name);
        if action.is_null() {
            continue;
        }
        let at = at.field(name);
        if found {
            wrong.forbidden(&at, "may not specify more than 1 handler type");
            continue;
        }
        found = true;
        match name {
            "exec" if list(action, "command").is_empty() => {
                wrong.required(&at.field("command"), "")
            }
            "httpGet" => http_get(action, &at, wrong),
            "tcpSocket" => port_number_or_name(get(action, "port"), &at.field("port"), wrong),
            "grpc" => port_number(int(action, "port").unwrap_or(0), &at.field("port"), wrong),
            "sleep" => sleep(action, grace.unwrap_or(0), &at, wrong),
            _ => {}
        }
    }
    if !found {
        wrong.required(at, "must specify a handler type");
    }
}

fn http_get(action: &Value, at: &Path, wrong: &mut Causes) {
    if text(action, "path").is_empty() {
        wrong.required(&at.field("path"), "");
    }
    port_number_or_name(get(action, "port"), &at.field("port"), wrong);
    wrong.one_of(
        &at.field("scheme"),
        text(action, "scheme"),
        &["HTTP", "HTTPS"],
    );
    for header in list(action, "httpHeaders") {
        let name = text(header, "name");
        wrong.complaints(
            &at.field("httpHeaders"),
            name,
            &syntax::http_header_name(name),
        );
    }
}

fn sleep(action: &Value, grace: i64, at: &Path, wrong: &mut Causes) {
    let seconds = int(action, "seconds").unwrap_or(0);
    if seconds < 0 || seconds > grace {
        let detail =
            format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
        wrong.invalid(at, seconds, &detail);
    }
}
