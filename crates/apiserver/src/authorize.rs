//! What a user may: administrators everything, everybody else what RBAC roles and bindings say.

use serde_json::{Value, json};

use crate::store::View;
use crate::user::User;

const GROUP: &str = "rbac.authorization.k8s.io";

/// A question: may this be done?
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Attributes<'a> {
    pub(crate) verb: &'a str,
    pub(crate) group: &'a str,
    pub(crate) resource: &'a str,
    pub(crate) subresource: &'a str,
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    /// The path of something that is not a resource; empty for resources.
    pub(crate) path: &'a str,
}

/// Why it is allowed; none when it is not.
pub(crate) fn decide(user: &User, asked: &Attributes<'_>, view: &dyn View) -> Option<String> {
    if user.is_in("system:masters") {
        return Some(String::new());
    }
    if basic(user, asked) {
        return Some("RBAC: allowed by the basics that every user has".to_owned());
    }
    granted(user, asked.namespace, view)
        .into_iter()
        .find(|(_, rule)| matches(rule, asked))
        .map(|(binding, _)| format!("RBAC: allowed by {binding}"))
}

/// Discovery, health, and questions about oneself are for everybody who is known.
fn basic(user: &User, asked: &Attributes<'_>) -> bool {
    let about_self = matches!(
        asked.resource,
        "selfsubjectreviews" | "selfsubjectaccessreviews" | "selfsubjectrulesreviews"
    ) && asked.verb == "create";
    user.is_in("system:authenticated")
        && (about_self || (!asked.path.is_empty() && asked.verb == "get"))
}

/// The rules that a user's bindings grant in a namespace (empty: cluster-wide), each with the name of its binding.
fn granted(user: &User, namespace: &str, view: &dyn View) -> Vec<(String, Value)> {
    let mut rules = Vec::new();
    let mut collect = |plural: &'static str, prefix: &str, word: &str| {
        for (key, stored) in view.list((GROUP, plural), prefix).items {
            let binding = stored.value();
            let bound = binding["subjects"]
                .as_array()
                .is_some_and(|subjects| subjects.iter().any(|subject| is_subject(user, subject)));
            if bound {
                let named = role_rules(&binding["roleRef"], namespace, view);
                rules.extend(
                    named
                        .into_iter()
                        .map(|rule| (format!("{word} \"{key}\""), rule)),
                );
            }
        }
    };
    collect("clusterrolebindings", "", "ClusterRoleBinding");
    if !namespace.is_empty() {
        collect("rolebindings", &format!("{namespace}/"), "RoleBinding");
    }
    rules
}

fn is_subject(user: &User, subject: &Value) -> bool {
    let name = subject["name"].as_str().unwrap_or("");
    match subject["kind"].as_str() {
        Some("User") => user.name == name,
        Some("Group") => user.is_in(name),
        Some("ServiceAccount") => {
            let namespace = subject["namespace"].as_str().unwrap_or("");
            user.name == format!("system:serviceaccount:{namespace}:{name}")
        }
        Some(_) | None => false,
    }
}

fn role_rules(reference: &Value, namespace: &str, view: &dyn View) -> Vec<Value> {
    let name = reference["name"].as_str().unwrap_or("");
    // The one role that stands in for upstream's bootstrap roles.
    if reference["kind"] == "ClusterRole" && name == "cluster-admin" {
        return vec![
            json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}),
            json!({"verbs": ["*"], "nonResourceURLs": ["*"]}),
        ];
    }
    let role = if reference["kind"] == "ClusterRole" {
        view.object((GROUP, "clusterroles"), "", name)
    } else {
        view.object((GROUP, "roles"), namespace, name)
    };
    role.map(|stored| {
        stored.value()["rules"]
            .as_array()
            .cloned()
            .unwrap_or_default()
    })
    .unwrap_or_default()
}

fn matches(rule: &Value, asked: &Attributes<'_>) -> bool {
    let any = |field: &str, want: &str| {
        rule[field].as_array().is_some_and(|list| {
            list.iter()
                .filter_map(Value::as_str)
                .any(|have| have == "*" || have == want)
        })
    };
    if !any("verbs", asked.verb) {
        return false;
    }
    if !asked.path.is_empty() {
        let covers = |have: &str| {
            have == asked.path
                || have
                    .strip_suffix('*')
                    .is_some_and(|prefix| asked.path.starts_with(prefix))
        };
        return rule["nonResourceURLs"]
            .as_array()
            .is_some_and(|list| list.iter().filter_map(Value::as_str).any(covers));
    }
    let resource = if asked.subresource.is_empty() {
        asked.resource.to_owned()
    } else {
        format!("{}/{}", asked.resource, asked.subresource)
    };
    let named = rule["resourceNames"]
        .as_array()
        .filter(|names| !names.is_empty());
    let by_wildcard =
        !asked.subresource.is_empty() && any("resources", &format!("*/{}", asked.subresource));
    any("apiGroups", asked.group)
        && (any("resources", &resource) || by_wildcard)
        && named.is_none_or(|names| names.iter().any(|name| name == asked.name))
}

/// The rules of a user in a namespace, as a SelfSubjectRulesReview lists them.
pub(crate) fn rules(user: &User, namespace: &str, view: &dyn View) -> Value {
    let mut resources = Vec::new();
    let mut others = vec![
        json!({"verbs": ["get"], "nonResourceURLs": ["/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/openapi", "/openapi/*", "/readyz", "/version"]}),
    ];
    if user.is_in("system:masters") {
        resources.push(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}));
        others.push(json!({"verbs": ["*"], "nonResourceURLs": ["*"]}));
    }
    for (_, rule) in granted(user, namespace, view) {
        if rule["nonResourceURLs"].is_array() {
            others.push(rule)
        } else {
            resources.push(rule)
        }
    }
    json!({"resourceRules": resources, "nonResourceRules": others, "incomplete": false})
}
