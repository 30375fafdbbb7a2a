//! The rules of security contexts: ids in range, profiles that are complete, contradictions refused.

use serde_json::Value;

use super::cause::{Causes, Path};
use super::pod_spec_volumes::descending;
use super::read::{get, has, int, list, text, yes};
use super::syntax;

const PROFILE_TYPES: [&str; 3] = ["Localhost", "RuntimeDefault", "Unconfined"];

/// The rules of a pod's `securityContext`.
pub(crate) fn check_pod(spec: &Value, at: &Path, wrong: &mut Causes) {
    let context = get(spec, "securityContext");
    for field in ["fsGroup", "runAsUser", "runAsGroup"] {
        id(context, field, at, wrong);
    }
    for (index, group) in list(context, "supplementalGroups").iter().enumerate() {
        for complaint in syntax::id(group.as_i64().unwrap_or(0)) {
            wrong.invalid(
                &at.field("supplementalGroups").index(index),
                group.clone(),
                &complaint,
            );
        }
    }
    if yes(spec, "shareProcessNamespace") && yes(spec, "hostPID") {
        wrong.invalid(
            &at.field("shareProcessNamespace"),
            true,
            "ShareProcessNamespace and HostPID cannot both be enabled",
        );
    }
    one_of_if_set(
        context,
        "fsGroupChangePolicy",
        &["Always", "OnRootMismatch"],
        at,
        wrong,
    );
    one_of_if_set(
        context,
        "supplementalGroupsPolicy",
        &["Merge", "Strict"],
        at,
        wrong,
    );
    one_of_if_set(
        context,
        "seLinuxChangePolicy",
        &["MountOption", "Recursive"],
        at,
        wrong,
    );
    sysctls(context, &at.field("sysctls"), wrong);
    profiles(context, at, wrong);
}

/// The rules of a container's `securityContext`.
pub(crate) fn check_container(container: &Value, at: &Path, wrong: &mut Causes) {
    let context = get(container, "securityContext");
    for field in ["runAsUser", "runAsGroup"] {
        id(context, field, at, wrong);
    }
    one_of_if_set(context, "procMount", &["Default", "Unmasked"], at, wrong);
    profiles(context, at, wrong);
    if get(context, "allowPrivilegeEscalation").as_bool() == Some(false) {
        no_escalation(context, at, wrong);
    }
}

fn no_escalation(context: &Value, at: &Path, wrong: &mut Causes) {
    if yes(context, "privileged") {
        wrong.invalid(
            at,
            context.clone(),
            "cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
        );
    }
    for capability in list(get(context, "capabilities"), "add") {
        if matches!(capability.as_str(), Some("CAP_SYS_ADMIN")) {
            wrong.invalid(at, context.clone(), "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN");
        }
    }
}

fn id(context: &Value, field: &str, at: &Path, wrong: &mut Causes) {
    if let Some(number) = int(context, field) {
        for complaint in syntax::id(number) {
            wrong.invalid(&at.field(field), number, &complaint);
        }
    }
}

fn one_of_if_set(context: &Value, field: &str, supported: &[&str], at: &Path, wrong: &mut Causes) {
    if has(context, field) {
        wrong.one_of(&at.field(field), text(context, field), supported);
    }
}

fn profiles(context: &Value, at: &Path, wrong: &mut Causes) {
    for field in ["seccompProfile", "appArmorProfile"] {
        let profile = get(context, field);
        if !profile.is_null() {
            check_profile(field, profile, &at.field(field), wrong);
        }
    }
}

fn check_profile(field: &str, profile: &Value, at: &Path, wrong: &mut Causes) {
    let path_at = at.field("localhostProfile");
    match text(profile, "type") {
        "" => wrong.required(
            &at.field("type"),
            &format!("type is required when {field} is set"),
        ),
        "Localhost" if !has(profile, "localhostProfile") => {
            wrong.required(&path_at, "must be set when seccomp type is Localhost");
        }
        "Localhost" => descending(text(profile, "localhostProfile"), &path_at, wrong),
        other => {
            wrong.one_of(&at.field("type"), other, &PROFILE_TYPES);
            if has(profile, "localhostProfile") {
                wrong.invalid(
                    &path_at,
                    get(profile, "localhostProfile").clone(),
                    "can only be set when seccomp type is Localhost",
                );
            }
        }
    }
}

fn sysctls(context: &Value, at: &Path, wrong: &mut Causes) {
    let mut seen: Vec<&str> = Vec::new();
    for (index, sysctl) in list(context, "sysctls").iter().enumerate() {
        let at = at.index(index).field("name");
        let name = text(sysctl, "name");
        if name.is_empty() {
            wrong.required(&at, "");
        } else if !is_sysctl(name) {
            wrong.invalid(&at, name, "must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$");
        } else if seen.contains(&name) {
            wrong.duplicate(&at, name);
        }
        seen.push(name);
    }
}

fn is_sysctl(name: &str) -> bool {
    name.len() <= 253
        && name
            .split(['.', '/'])
            .all(|part| syntax::dns1123_label(&part.replace('_', "-")).is_empty())
}
