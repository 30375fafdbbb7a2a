//! Defaulting seen through the crate's boundary: an object in, what is stored out.

use serde_json::{Value, json};

use super::{set_defaults, set_pod_template_defaults};
use crate::prune;

/// Prunes and defaults `object`, expects `want` at the JSON pointer `at`, and that a second time changes nothing.
fn check(mut object: Value, at: &str, want: &Value) {
    let text = |name: &str| {
        object[name]
            .as_str()
            .expect("objects name their kind")
            .to_owned()
    };
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    prune(&api_version, &kind, &mut object);
    set_defaults(&mut object);
    assert_eq!(object.pointer(at), Some(want), "{object:#}");
    let once = object.clone();
    set_defaults(&mut object);
    assert_eq!(object, once, "defaulting twice changes nothing more");
    prune(&api_version, &kind, &mut object);
    assert_eq!(object, once, "what is defaulted is normal");
}

fn pod(spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec})
}

#[test]
fn a_bare_pod_is_completed() {
    check(
        pod(json!({"containers": [{"name": "a", "image": "nginx"}]})),
        "/spec",
        &json!({"containers": [{"name": "a", "image": "nginx", "imagePullPolicy": "Always", "resources": {}, "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"}],
            "dnsPolicy": "ClusterFirst", "enableServiceLinks": true, "restartPolicy": "Always", "schedulerName": "default-scheduler", "securityContext": {}, "terminationGracePeriodSeconds": 30}),
    );
}

#[test]
fn templates_are_not_given_what_pods_are_given() {
    let mut template = json!({"spec": {"containers": [{"name": "a", "image": "nginx:1", "resources": {"limits": {"cpu": "1"}}}]}});
    set_pod_template_defaults(&mut template);
    assert_eq!(template["spec"].get("enableServiceLinks"), None);
    assert_eq!(
        template["spec"]["containers"][0]["resources"],
        json!({"limits": {"cpu": "1"}})
    );
    assert_eq!(
        template["spec"]["containers"][0]["imagePullPolicy"],
        "IfNotPresent"
    );
}

#[test]
fn requests_follow_limits_and_are_rounded() {
    check(
        pod(
            json!({"containers": [{"name": "a", "resources": {"limits": {"cpu": "0.0001", "memory": "1Gi"}, "requests": {"memory": "1Mi"}}}]}),
        ),
        "/spec/containers/0/resources",
        &json!({"limits": {"cpu": "1m", "memory": "1Gi"}, "requests": {"cpu": "1m", "memory": "1Mi"}}),
    );
}

#[test]
fn probes_ports_and_volumes_are_completed() {
    check(
        pod(
            json!({"containers": [{"name": "a", "image": "a:1", "ports": [{"containerPort": 80}], "livenessProbe": {"httpGet": {"port": 80}}, "readinessProbe": {"grpc": {"port": 1}, "failureThreshold": 9}}]}),
        ),
        "/spec/containers/0",
        &json!({"name": "a", "image": "a:1", "imagePullPolicy": "IfNotPresent", "resources": {}, "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
            "ports": [{"containerPort": 80, "protocol": "TCP"}],
            "livenessProbe": {"httpGet": {"path": "/", "port": 80, "scheme": "HTTP"}, "failureThreshold": 3, "periodSeconds": 10, "successThreshold": 1, "timeoutSeconds": 1},
            "readinessProbe": {"grpc": {"port": 1, "service": ""}, "failureThreshold": 9, "periodSeconds": 10, "successThreshold": 1, "timeoutSeconds": 1}}),
    );
    check(
        pod(
            json!({"containers": [], "volumes": [{"name": "a"}, {"name": "b", "secret": {"secretName": "s"}}, {"name": "c", "hostPath": {"path": "/"}},
            {"name": "d", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]}),
        ),
        "/spec/volumes",
        &json!([{"name": "a", "emptyDir": {}}, {"name": "b", "secret": {"secretName": "s", "defaultMode": 420}}, {"name": "c", "hostPath": {"path": "/", "type": ""}},
            {"name": "d", "projected": {"defaultMode": 420, "sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 3600}}]}}]),
    );
}

#[test]
fn the_old_name_of_the_service_account_is_mirrored() {
    check(
        pod(json!({"containers": [], "serviceAccount": "old"})),
        "/spec/serviceAccountName",
        &json!("old"),
    );
    check(
        pod(json!({"containers": [], "serviceAccountName": "new", "serviceAccount": "old"})),
        "/spec/serviceAccount",
        &json!("new"),
    );
}

#[test]
fn a_stateful_set_is_completed() {
    let set = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {}, "spec": {"template": {}, "selector": {}, "volumeClaimTemplates": [{"metadata": {"name": "d"}}]}});
    check(
        set.clone(),
        "/spec/updateStrategy",
        &json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0, "maxUnavailable": 1}}),
    );
    check(set.clone(), "/spec/replicas", &json!(1));
    check(
        set,
        "/spec/volumeClaimTemplates/0",
        &json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "d"}, "spec": {"resources": {}, "volumeMode": "Filesystem"}, "status": {"phase": "Pending"}}),
    );
    let named = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "spec": {"updateStrategy": {"type": "RollingUpdate"}}});
    check(
        named,
        "/spec/updateStrategy",
        &json!({"type": "RollingUpdate"}),
    );
}

#[test]
fn a_secret_takes_its_plain_text_as_data() {
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "data": {"a": "YQ==", "b": "Yg=="}, "stringData": {"a": "x"}});
    check(secret, "/data", &json!({"a": "eA==", "b": "Yg=="}));
}

#[test]
fn services_follow_their_type() {
    let service = |spec: Value| json!({"apiVersion": "v1", "kind": "Service", "spec": spec});
    check(
        service(json!({"ports": [{"port": 80}], "sessionAffinity": "ClientIP"})),
        "/spec",
        &json!({"ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}], "sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10800}},
            "type": "ClusterIP", "internalTrafficPolicy": "Cluster"}),
    );
    check(
        service(json!({"type": "ExternalName"})),
        "/spec",
        &json!({"type": "ExternalName", "sessionAffinity": "None"}),
    );
}

#[test]
fn pods_with_resources_of_their_own_are_completed_from_their_containers() {
    check(
        pod(
            json!({"resources": {"limits": {"cpu": "4"}}, "containers": [{"name": "a", "resources": {"requests": {"cpu": "1", "memory": "1Gi"}}}],
            "initContainers": [{"name": "i", "resources": {"requests": {"cpu": "2"}}}]}),
        ),
        "/spec/resources",
        &json!({"limits": {"cpu": "4"}, "requests": {"cpu": "2", "memory": "1Gi"}}),
    );
}

proptest::proptest! {
    #[test]
    fn any_object_is_answered(object in crate::testing::any_object()) {
        let mut once = object;
        set_defaults(&mut once);
        let mut twice = once.clone();
        set_defaults(&mut twice);
        proptest::prop_assert_eq!(once, twice);
    }
}
