//! What a user may: administrators everything, everybody else what RBAC roles and bindings say.

use serde_json::{Value, json};
use stead_schema::Kind;

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

/// What everybody who is known may read; a path ending in `*` stands for all below it.
const DISCOVERY: [&str; 11] = [
    "/api",
    "/api/*",
    "/apis",
    "/apis/*",
    "/healthz",
    "/livez",
    "/openapi",
    "/openapi/*",
    "/readyz",
    "/version",
    "/version/",
];
/// What service accounts may read beyond it: how their tokens are verified.
const ISSUER: [&str; 2] = ["/.well-known/openid-configuration", "/openid/v1/jwks"];

/// Discovery, health, and questions about oneself are for everybody who is known.
fn basic(user: &User, asked: &Attributes<'_>) -> bool {
    let about_self = matches!(
        asked.resource,
        "selfsubjectreviews" | "selfsubjectaccessreviews" | "selfsubjectrulesreviews"
    ) && asked.verb == "create";
    let covered = |paths: &[&str]| paths.iter().any(|path| path_covers(path, asked.path));
    let reads = !asked.path.is_empty()
        && asked.verb == "get"
        && (covered(&DISCOVERY) || (user.is_in("system:serviceaccounts") && covered(&ISSUER)));
    user.is_in("system:authenticated") && (about_self || reads)
}

fn path_covers(have: &str, asked: &str) -> bool {
    have == asked
        || have
            .strip_suffix('*')
            .is_some_and(|prefix| asked.starts_with(prefix))
}

/// Whether a user may write these roles or bindings. upstream: nobody gives away more than they have, unless a role lets
/// them `escalate` (roles) or `bind` (the role of a binding).
///
/// # Errors
/// The first rule that the user does not have.
pub(crate) fn may_give(
    user: &User,
    kind: &Kind,
    object: &Value,
    view: &dyn View,
) -> Result<(), String> {
    if kind.group != GROUP || user.is_in("system:masters") {
        return Ok(());
    }
    let namespace = object["metadata"]["namespace"].as_str().unwrap_or("");
    let (verb, plural, name, rules) = match kind.kind {
        "Role" | "ClusterRole" => {
            let name = object["metadata"]["name"].as_str().unwrap_or("");
            let rules = object["rules"].as_array().cloned().unwrap_or_default();
            ("escalate", kind.plural, name, rules)
        }
        "RoleBinding" | "ClusterRoleBinding" => {
            let role = &object["roleRef"];
            let plural = if role["kind"] == "ClusterRole" {
                "clusterroles"
            } else {
                "roles"
            };
            let name = role["name"].as_str().unwrap_or("");
            ("bind", plural, name, role_rules(role, namespace, view))
        }
        _ => return Ok(()),
    };
    let allowed = Attributes {
        verb,
        group: GROUP,
        resource: plural,
        namespace,
        name,
        ..Attributes::default()
    };
    if decide(user, &allowed, view).is_some() {
        return Ok(());
    }
    let own: Vec<Value> = granted(user, namespace, view)
        .into_iter()
        .map(|(_, rule)| rule)
        .collect();
    match rules.iter().find(|rule| !is_held(rule, &own)) {
        Some(rule) => Err(format!(
            "user \"{}\" (groups={:?}) is attempting to grant RBAC permissions not currently held:\n{rule}",
            user.name, user.groups
        )),
        None => Ok(()),
    }
}

/// Whether each single permission of a rule is among those that are held.
fn is_held(rule: &Value, own: &[Value]) -> bool {
    let texts = |field: &str| -> Vec<&str> {
        let list = rule[field].as_array().into_iter().flatten();
        list.filter_map(Value::as_str).collect()
    };
    let mut names = texts("resourceNames");
    if names.is_empty() {
        names.push("");
    }
    let held = |asked: &Attributes<'_>| own.iter().any(|own| matches(own, asked));
    texts("verbs").into_iter().all(|verb| {
        let paths = texts("nonResourceURLs").into_iter().all(|path| {
            held(&Attributes {
                verb,
                path,
                ..Attributes::default()
            })
        });
        let resources = texts("apiGroups").into_iter().all(|group| {
            texts("resources").into_iter().all(|resource| {
                let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
                names.iter().all(|name| {
                    held(&Attributes {
                        verb,
                        group,
                        resource,
                        subresource,
                        name,
                        ..Attributes::default()
                    })
                })
            })
        });
        paths && resources
    })
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
    // Also where nobody has made the bootstrap roles: a server without controllers.
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
        return rule["nonResourceURLs"].as_array().is_some_and(|list| {
            let mut paths = list.iter().filter_map(Value::as_str);
            paths.any(|have| path_covers(have, asked.path))
        });
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
    let mut others = vec![json!({"verbs": ["get"], "nonResourceURLs": DISCOVERY})];
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
