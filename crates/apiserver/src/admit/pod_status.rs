//! The status of a pod as its node reports it: what the report may not touch, and steps that containers cannot take.

use serde_json::{Value, json};

use super::cause::{Causes, Path};
use super::read::{dig, get, has, int, list, map_mut, text};
use super::{Context, syntax};

/// The older field of one address rules: old nodes know no other. upstream: the conversion of PodStatus.
fn addresses_in_step(pod: &mut Value) {
    let status = get(pod, "status");
    let one = text(status, "podIP").to_owned();
    let first = list(status, "podIPs")
        .first()
        .map(|first| text(first, "ip").to_owned());
    if one.is_empty() || first.as_deref() == Some(one.as_str()) {
        return;
    }
    map_mut(pod, "status").insert("podIPs".to_owned(), json!([{"ip": one}]));
}

/// A report keeps the owners, the quality of service and the generation that was seen.
pub(crate) fn prepare(old: &Value, new: &mut Value, _: &Context<'_>) {
    addresses_in_step(new);
    let owners = dig(old, &["metadata", "ownerReferences"]).clone();
    let meta = map_mut(new, "metadata");
    if owners.is_null() {
        meta.remove("ownerReferences");
    } else {
        meta.insert("ownerReferences".to_owned(), owners);
    }
    for field in ["qosClass", "observedGeneration"] {
        let before = dig(old, &["status", field]).clone();
        if !before.is_null() && !has(get(new, "status"), field) {
            map_mut(new, "status").insert(field.to_owned(), before);
        }
    }
}

/// The rules of a report.
pub(crate) fn check(old: &Value, new: &Value, wrong: &mut Causes) {
    let (was, is, at) = (get(old, "status"), get(new, "status"), Path::root("status"));
    conditions(is, wrong);
    let nominated = text(is, "nominatedNodeName");
    if !nominated.is_empty() {
        wrong.complaints(
            &at.field("nominatedNodeName"),
            nominated,
            &syntax::dns1123_subdomain(nominated),
        );
    }
    let policy = text(get(old, "spec"), "restartPolicy");
    let own_policies = list(get(old, "spec"), "containers")
        .iter()
        .any(|container| has(container, "restartPolicy"));
    if policy != "Always" && !own_policies {
        ends_stay(
            list(was, "containerStatuses"),
            list(is, "containerStatuses"),
            policy,
            &at.field("containerStatuses"),
            wrong,
        );
    }
    for (field, single) in [("podIPs", "podIP"), ("hostIPs", "hostIP")] {
        addresses(is, field, single, &at.field(field), wrong);
    }
    let seen = int(is, "observedGeneration").unwrap_or(0);
    wrong.non_negative(&at.field("observedGeneration"), seen);
}

/// Conditions of others carry their domain. upstream tells them below `metadata`.
fn conditions(status: &Value, wrong: &mut Causes) {
    let at = Path::root("metadata").field("conditions");
    for (index, condition) in list(status, "conditions").iter().enumerate() {
        let kind = text(condition, "type");
        wrong.complaints(
            &at.index(index).field("Type"),
            kind,
            &syntax::qualified_name(kind),
        );
    }
}

/// Where nothing is restarted, a container that has ended stays ended.
fn ends_stay(was: &[Value], is: &[Value], policy: &str, at: &Path, wrong: &mut Causes) {
    for (index, before) in was.iter().enumerate() {
        let ended = get(get(before, "state"), "terminated");
        let restarts = policy == "OnFailure" && int(ended, "exitCode").unwrap_or(0) != 0;
        if ended.is_null() || restarts {
            continue;
        }
        let again = is
            .iter()
            .find(|now| text(now, "name") == text(before, "name"));
        if again.is_some_and(|now| !has(get(now, "state"), "terminated")) {
            wrong.forbidden(
                &at.index(index).field("state"),
                "may not be transitioned to non-terminated state",
            );
        }
    }
}

fn addresses(status: &Value, field: &str, single: &str, at: &Path, wrong: &mut Causes) {
    let all: Vec<&str> = list(status, field)
        .iter()
        .map(|item| text(item, "ip"))
        .collect();
    for (index, address) in all.iter().enumerate() {
        wrong.complaints(&at.index(index), address, &syntax::ip(address));
    }
    if field == "hostIPs"
        && all
            .first()
            .is_some_and(|first| *first != text(status, single))
    {
        wrong.invalid(
            &at.index(0).field("ip"),
            all[0],
            "must be equal to `hostIP`",
        );
    }
}
