//! Roles and bindings: rules that name something, one role that never changes, subjects that can exist.

use serde_json::Value;

use super::cause::{Causes, Path};
use super::read::{get, list, semantically_equal, text};
use super::strategy::{Again, Strategy};
use super::syntax;

const PLAIN: Strategy = Strategy {
    name: syntax::path_segment,
    metadata_again: Again::Everything,
    create_on_update: true,
    ..Strategy::PLAIN
};

pub(crate) const ROLE: Strategy = Strategy {
    check: check_role,
    check_update: |_, new, wrong| check_role(new, wrong),
    ..PLAIN
};
pub(crate) const BINDING: Strategy = Strategy {
    check: check_binding,
    check_update: update_binding,
    ..PLAIN
};

const GROUP: &str = "rbac.authorization.k8s.io";

fn is_namespaced(object: &Value) -> bool {
    !text(get(object, "metadata"), "namespace").is_empty()
}

fn check_role(role: &Value, wrong: &mut Causes) {
    for (index, rule) in list(role, "rules").iter().enumerate() {
        check_rule(
            rule,
            is_namespaced(role),
            &Path::root("rules").index(index),
            wrong,
        );
    }
}

fn check_rule(rule: &Value, namespaced: bool, at: &Path, wrong: &mut Causes) {
    if list(rule, "verbs").is_empty() {
        wrong.required(&at.field("verbs"), "verbs must contain at least one value");
    }
    if !list(rule, "nonResourceURLs").is_empty() {
        let urls = get(rule, "nonResourceURLs").clone();
        if namespaced {
            wrong.invalid(
                &at.field("nonResourceURLs"),
                urls.clone(),
                "namespaced rules cannot apply to non-resource URLs",
            );
        }
        let mixed = ["apiGroups", "resources", "resourceNames"]
            .iter()
            .any(|field| !list(rule, field).is_empty());
        if mixed {
            wrong.invalid(
                &at.field("nonResourceURLs"),
                urls,
                "rules cannot apply to both regular resources and non-resource URLs",
            );
        }
        return;
    }
    if list(rule, "apiGroups").is_empty() {
        wrong.required(
            &at.field("apiGroups"),
            "resource rules must supply at least one api group",
        );
    }
    if list(rule, "resources").is_empty() {
        wrong.required(
            &at.field("resources"),
            "resource rules must supply at least one resource",
        );
    }
}

fn check_binding(binding: &Value, wrong: &mut Causes) {
    let (role, at) = (get(binding, "roleRef"), Path::root("roleRef"));
    wrong.one_of(&at.field("apiGroup"), text(role, "apiGroup"), &[GROUP]);
    let kinds: &[&str] = if is_namespaced(binding) {
        &["Role", "ClusterRole"]
    } else {
        &["ClusterRole"]
    };
    wrong.one_of(&at.field("kind"), text(role, "kind"), kinds);
    match text(role, "name") {
        "" => wrong.required(&at.field("name"), ""),
        name => wrong.complaints(&at.field("name"), name, &syntax::path_segment(name)),
    }
    for (index, subject) in list(binding, "subjects").iter().enumerate() {
        check_subject(
            subject,
            is_namespaced(binding),
            &Path::root("subjects").index(index),
            wrong,
        );
    }
}

fn check_subject(subject: &Value, namespaced: bool, at: &Path, wrong: &mut Causes) {
    let (name, group) = (text(subject, "name"), text(subject, "apiGroup"));
    if name.is_empty() {
        wrong.required(&at.field("name"), "");
    }
    match text(subject, "kind") {
        "ServiceAccount" => {
            if !name.is_empty() {
                wrong.complaints(&at.field("name"), name, &syntax::dns1123_subdomain(name));
            }
            if !group.is_empty() {
                wrong.not_supported(&at.field("apiGroup"), group, &[""]);
            }
            if !namespaced && text(subject, "namespace").is_empty() {
                wrong.required(&at.field("namespace"), "");
            }
        }
        "User" | "Group" => wrong.one_of(&at.field("apiGroup"), group, &[GROUP]),
        other => wrong.not_supported(
            &at.field("kind"),
            other,
            &["ServiceAccount", "User", "Group"],
        ),
    }
}

fn update_binding(old: &Value, new: &Value, wrong: &mut Causes) {
    check_binding(new, wrong);
    if !semantically_equal(get(old, "roleRef"), get(new, "roleRef")) {
        wrong.invalid(
            &Path::root("roleRef"),
            get(new, "roleRef").clone(),
            "cannot change roleRef",
        );
    }
}
