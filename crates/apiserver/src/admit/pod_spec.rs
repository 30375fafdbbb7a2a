//! The rules of a pod's spec, bare or as a template: who may ask for what beyond the shape of the fields.
//!
//! Upstream: `ValidatePodSpec` of `pkg/apis/core/validation`. Containers, volumes, scheduling and security have files of their own.

use serde_json::Value;

use super::cause::{Causes, Path};
use super::read::{get, has, int, list, text, texts, yes};
use super::{
    metadata, pod_spec_containers, pod_spec_resources, pod_spec_scheduling, pod_spec_security,
    pod_spec_volumes, syntax,
};

const RESTART_POLICIES: [&str; 3] = ["Always", "OnFailure", "Never"];
const DNS_POLICIES: [&str; 4] = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
const PREEMPTION_POLICIES: [&str; 2] = ["PreemptLowerPriority", "Never"];
const MOST_NAMESERVERS: usize = 3;
const MOST_SEARCHES: usize = 32;
const MOST_SEARCH_BYTES: usize = 2048;

/// What a spec stands in: a few rules hold only for real pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A pod.
    Pod,
    /// The template of a workload.
    Template,
}

/// The rules of a template: labels, annotations and the spec. Upstream's paths for the first two lack `metadata`.
pub(crate) fn check_template(template: &Value, at: &Path, wrong: &mut Causes) {
    metadata::labels(metadata::labels_of(template), &at.field("labels"), wrong);
    metadata::annotations(
        get(get(template, "metadata"), "annotations"),
        &at.field("annotations"),
        wrong,
    );
    check(
        get(template, "spec"),
        Place::Template,
        &at.field("spec"),
        wrong,
    );
    if !list(get(template, "spec"), "ephemeralContainers").is_empty() {
        wrong.forbidden(
            &at.field("spec").field("ephemeralContainers"),
            "ephemeral containers not allowed in pod template",
        );
    }
}

/// The rules of a spec.
pub(crate) fn check(spec: &Value, place: Place, at: &Path, wrong: &mut Causes) {
    let volumes = pod_spec_volumes::check(list(spec, "volumes"), &at.field("volumes"), wrong);
    pod_spec_containers::check(spec, &volumes, at, wrong);
    pod_spec_containers::check_host_network(spec, place, at, wrong);
    pod_spec_resources::check_pod_level(spec, &at.field("resources"), wrong);
    required_one_of(spec, "restartPolicy", &RESTART_POLICIES, at, wrong);
    required_one_of(spec, "dnsPolicy", &DNS_POLICIES, at, wrong);
    metadata::labels(get(spec, "nodeSelector"), &at.field("nodeSelector"), wrong);
    pod_spec_security::check_pod(spec, &at.field("securityContext"), wrong);
    pod_spec_scheduling::check(spec, at, wrong);
    dns(spec, at, wrong);
    names(spec, at, wrong);
    host_aliases(spec, &at.field("hostAliases"), wrong);
    limits_of_life(spec, at, wrong);
}

fn required_one_of(spec: &Value, field: &str, supported: &[&str], at: &Path, wrong: &mut Causes) {
    match text(spec, field) {
        "" => wrong.required(&at.field(field), ""),
        value => wrong.one_of(&at.field(field), value, supported),
    }
}

fn names(spec: &Value, at: &Path, wrong: &mut Causes) {
    let rules: [(&str, metadata::NameRule); 6] = [
        ("serviceAccountName", syntax::dns1123_subdomain),
        ("nodeName", syntax::dns1123_subdomain),
        ("hostname", syntax::dns1123_label),
        ("subdomain", syntax::dns1123_label),
        ("priorityClassName", syntax::dns1123_subdomain),
        ("runtimeClassName", syntax::dns1123_subdomain),
    ];
    for (field, rule) in rules {
        let name = text(spec, field);
        if !name.is_empty() {
            wrong.complaints(&at.field(field), name, &rule(name));
        }
    }
    let has_class = has(spec, "runtimeClassName") && text(spec, "runtimeClassName").is_empty();
    if has_class {
        wrong.complaints(
            &at.field("runtimeClassName"),
            "",
            &syntax::dns1123_subdomain(""),
        );
    }
    for (index, gate) in list(spec, "readinessGates").iter().enumerate() {
        let name = text(gate, "conditionType");
        wrong.complaints(
            &at.field("readinessGates")
                .index(index)
                .field("conditionType"),
            name,
            &syntax::qualified_name(name),
        );
    }
    scheduling_gates(spec, &at.field("schedulingGates"), wrong);
}

fn scheduling_gates(spec: &Value, at: &Path, wrong: &mut Causes) {
    let mut seen: Vec<&str> = Vec::new();
    for (index, gate) in list(spec, "schedulingGates").iter().enumerate() {
        let name = text(gate, "name");
        wrong.complaints(&at.index(index), name, &syntax::qualified_name(name));
        if seen.contains(&name) {
            wrong.duplicate(&at.index(index), name);
        }
        seen.push(name);
    }
}

fn limits_of_life(spec: &Value, at: &Path, wrong: &mut Causes) {
    if let Some(seconds) = int(spec, "activeDeadlineSeconds") {
        for complaint in syntax::in_range(seconds, 1, i64::from(i32::MAX)) {
            wrong.invalid(&at.field("activeDeadlineSeconds"), seconds, &complaint);
        }
    }
    if has(spec, "preemptionPolicy") {
        required_one_of(spec, "preemptionPolicy", &PREEMPTION_POLICIES, at, wrong);
    }
    if has(spec, "os") {
        let at = at.field("os").field("name");
        match text(get(spec, "os"), "name") {
            "" => wrong.required(&at, "cannot be empty"),
            name => wrong.one_of(&at, name, &["linux", "windows"]),
        }
    }
}

fn dns(spec: &Value, at: &Path, wrong: &mut Causes) {
    let at = at.field("dnsConfig");
    let config = get(spec, "dnsConfig");
    let alone = text(spec, "dnsPolicy") == "None";
    if alone && config.is_null() {
        wrong.required(&at, "must provide `dnsConfig` when `dnsPolicy` is None");
        return;
    }
    let servers = texts(config, "nameservers");
    let servers_at = at.field("nameservers");
    if alone && servers.is_empty() {
        wrong.required(
            &servers_at,
            "must provide at least one DNS nameserver when `dnsPolicy` is None",
        );
    }
    if servers.len() > MOST_NAMESERVERS {
        let detail = format!("must not have more than {MOST_NAMESERVERS} nameservers");
        wrong.invalid(&servers_at, get(config, "nameservers").clone(), &detail);
    }
    for (index, server) in servers.iter().enumerate() {
        wrong.complaints(&servers_at.index(index), server, &syntax::ip(server));
    }
    searches(config, &at.field("searches"), wrong);
    for (index, option) in list(config, "options").iter().enumerate() {
        if text(option, "name").is_empty() {
            wrong.required(&at.field("options").index(index), "must not be empty");
        }
    }
}

fn searches(config: &Value, at: &Path, wrong: &mut Causes) {
    let searches = texts(config, "searches");
    if searches.len() > MOST_SEARCHES {
        wrong.invalid(
            at,
            get(config, "searches").clone(),
            &format!("must not have more than {MOST_SEARCHES} search paths"),
        );
    }
    if searches.join(" ").len() > MOST_SEARCH_BYTES {
        let detail = format!(
            "must not have more than {MOST_SEARCH_BYTES} characters (including spaces) in the search list"
        );
        wrong.invalid(at, get(config, "searches").clone(), &detail);
    }
    for (index, search) in searches.iter().enumerate() {
        // A lone dot and a trailing dot are fine, and so is an underscore (upstream: RelaxedDNSSearchValidation).
        let bare = search.strip_suffix('.').unwrap_or(search).replace('_', "x");
        if *search != "." {
            wrong.complaints(&at.index(index), search, &syntax::dns1123_subdomain(&bare));
        }
    }
}

fn host_aliases(spec: &Value, at: &Path, wrong: &mut Causes) {
    for (index, alias) in list(spec, "hostAliases").iter().enumerate() {
        let at = at.index(index);
        wrong.complaints(
            &at.field("ip"),
            text(alias, "ip"),
            &syntax::ip(text(alias, "ip")),
        );
        for (index, name) in texts(alias, "hostnames").iter().enumerate() {
            wrong.complaints(
                &at.field("hostnames").index(index),
                name,
                &syntax::dns1123_subdomain(name),
            );
        }
    }
}

/// All containers of a spec with the name of their list, in upstream's order of looking: init, ordinary, ephemeral.
pub(crate) fn all_containers(spec: &Value) -> impl Iterator<Item = (&'static str, usize, &Value)> {
    ["initContainers", "containers", "ephemeralContainers"]
        .into_iter()
        .flat_map(move |field| {
            list(spec, field)
                .iter()
                .enumerate()
                .map(move |(index, container)| (field, index, container))
        })
}

/// Whether the pod shares the machine's network.
pub(crate) fn on_host_network(spec: &Value) -> bool {
    yes(spec, "hostNetwork")
}
