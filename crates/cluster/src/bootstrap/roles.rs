//! The roles that every cluster has and charts bind to: the administrator's, and what may be changed and seen of a namespace.

use std::borrow::Cow;

use serde_json::{Value, json};
use stead_controller::resource::Resource;

const GROUP: &str = "rbac.authorization.k8s.io";
const READ: [&str; 3] = ["get", "list", "watch"];
const WRITE: [&str; 5] = ["create", "delete", "deletecollection", "patch", "update"];

const CLUSTER_ROLES: Resource = Resource {
    group: Cow::Borrowed(GROUP),
    version: Cow::Borrowed("v1"),
    kind: Cow::Borrowed("ClusterRole"),
    plural: Cow::Borrowed("clusterroles"),
    namespaced: false,
};
const CLUSTER_ROLE_BINDINGS: Resource = Resource {
    group: Cow::Borrowed(GROUP),
    version: Cow::Borrowed("v1"),
    kind: Cow::Borrowed("ClusterRoleBinding"),
    plural: Cow::Borrowed("clusterrolebindings"),
    namespaced: false,
};

/// What a namespace holds that anybody who works in it may see: by group, without secrets and roles.
const SEEN: [(&str, &[&str]); 8] = [
    (
        "",
        &[
            "bindings",
            "configmaps",
            "endpoints",
            "events",
            "limitranges",
            "namespaces",
            "namespaces/status",
            "persistentvolumeclaims",
            "persistentvolumeclaims/status",
            "pods",
            "pods/log",
            "pods/status",
            "replicationcontrollers",
            "replicationcontrollers/scale",
            "replicationcontrollers/status",
            "resourcequotas",
            "resourcequotas/status",
            "serviceaccounts",
            "services",
            "services/status",
        ],
    ),
    (
        "apps",
        &[
            "controllerrevisions",
            "daemonsets",
            "daemonsets/status",
            "deployments",
            "deployments/scale",
            "deployments/status",
            "replicasets",
            "replicasets/scale",
            "replicasets/status",
            "statefulsets",
            "statefulsets/scale",
            "statefulsets/status",
        ],
    ),
    (
        "autoscaling",
        &[
            "horizontalpodautoscalers",
            "horizontalpodautoscalers/status",
        ],
    ),
    (
        "batch",
        &["cronjobs", "cronjobs/status", "jobs", "jobs/status"],
    ),
    ("discovery.k8s.io", &["endpointslices"]),
    (
        "networking.k8s.io",
        &["ingresses", "ingresses/status", "networkpolicies"],
    ),
    (
        "policy",
        &["poddisruptionbudgets", "poddisruptionbudgets/status"],
    ),
    ("coordination.k8s.io", &["leases"]),
];

/// What those who change a namespace may write: by group.
const CHANGED: [(&str, &[&str]); 7] = [
    (
        "",
        &[
            "configmaps",
            "events",
            "persistentvolumeclaims",
            "pods",
            "pods/attach",
            "pods/eviction",
            "pods/exec",
            "pods/portforward",
            "pods/proxy",
            "replicationcontrollers",
            "replicationcontrollers/scale",
            "secrets",
            "serviceaccounts",
            "serviceaccounts/token",
            "services",
            "services/proxy",
        ],
    ),
    (
        "apps",
        &[
            "daemonsets",
            "deployments",
            "deployments/rollback",
            "deployments/scale",
            "replicasets",
            "replicasets/scale",
            "statefulsets",
            "statefulsets/scale",
        ],
    ),
    ("autoscaling", &["horizontalpodautoscalers"]),
    ("batch", &["cronjobs", "jobs"]),
    ("networking.k8s.io", &["ingresses", "networkpolicies"]),
    ("policy", &["poddisruptionbudgets"]),
    ("coordination.k8s.io", &["leases"]),
];

/// The roles and their bindings.
pub(super) fn all() -> Vec<(Resource, Value)> {
    let everything = vec![
        json!({"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}),
        json!({"nonResourceURLs": ["*"], "verbs": ["*"]}),
    ];
    let discovery = [
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
    let issuer = [
        "/.well-known/openid-configuration",
        "/.well-known/openid-configuration/",
        "/openid/v1/jwks",
        "/openid/v1/jwks/",
    ];
    let reads = |paths: &[&str]| vec![json!({"nonResourceURLs": paths, "verbs": ["get"]})];
    vec![
        role("cluster-admin", everything),
        role("admin", admin()),
        role("edit", edit()),
        role("view", view()),
        role("system:discovery", reads(&discovery)),
        role("system:service-account-issuer-discovery", reads(&issuer)),
        binding("cluster-admin", "system:masters"),
        binding("system:discovery", "system:authenticated"),
        binding(
            "system:service-account-issuer-discovery",
            "system:serviceaccounts",
        ),
    ]
}

fn rules(of: &[(&str, &[&str])], verbs: &[&str]) -> Vec<Value> {
    let rule = |(group, resources): &(&str, &[&str])| json!({"apiGroups": [group], "resources": resources, "verbs": verbs});
    of.iter().map(rule).collect()
}

fn view() -> Vec<Value> {
    rules(&SEEN, &READ)
}

fn edit() -> Vec<Value> {
    let mut all = view();
    all.extend(rules(&CHANGED, &WRITE));
    let private = [
        "pods/attach",
        "pods/exec",
        "pods/portforward",
        "pods/proxy",
        "secrets",
        "services/proxy",
    ];
    all.push(json!({"apiGroups": [""], "resources": private, "verbs": READ}));
    all.push(
        json!({"apiGroups": [""], "resources": ["serviceaccounts"], "verbs": ["impersonate"]}),
    );
    all
}

fn admin() -> Vec<Value> {
    let mut all = edit();
    let verbs: Vec<&str> = READ.into_iter().chain(WRITE).collect();
    all.push(json!({"apiGroups": [GROUP], "resources": ["rolebindings", "roles"], "verbs": verbs}));
    all.push(json!({"apiGroups": ["authorization.k8s.io"], "resources": ["localsubjectaccessreviews"], "verbs": ["create"]}));
    all
}

fn metadata(name: &str) -> Value {
    json!({"name": name, "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"}})
}

fn role(name: &str, rules: Vec<Value>) -> (Resource, Value) {
    let role = json!({"apiVersion": format!("{GROUP}/v1"), "kind": "ClusterRole", "metadata": metadata(name), "rules": rules});
    (CLUSTER_ROLES, role)
}

/// Binds a role to the group.
fn binding(role: &str, group: &str) -> (Resource, Value) {
    let binding = json!({
        "apiVersion": format!("{GROUP}/v1"),
        "kind": "ClusterRoleBinding",
        "metadata": metadata(role),
        "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": GROUP, "kind": "Group", "name": group}],
    });
    (CLUSTER_ROLE_BINDINGS, binding)
}
