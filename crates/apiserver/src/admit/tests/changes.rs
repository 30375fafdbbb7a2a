//! What may change of an object that is there.

use serde_json::json;

use super::{Town, changed, check_changed, claim, created, edited, pod, service, set, told};

#[test]
fn metadata_that_never_changes() {
    check_changed(
        &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}),
        "",
        &[
            (
                r#"metadata.labels={"bad key!": "v"}"#,
                "Invalid metadata.labels, Invalid metadata.labels, Invalid metadata.labels",
            ),
            (r#"metadata.creationTimestamp="2020-01-01T00:00:00Z""#, "ok"),
            ("metadata.generation=77", "ok"),
        ],
    );
}

#[test]
fn no_finalizer_comes_to_what_is_going() {
    let town = Town::plain();
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "finalizers": ["e.com/x"]}});
    let (old, _) = created(map, &town).expect("a config map");
    let old = edited(&old, r#"metadata.deletionTimestamp="2026-01-01T00:00:00Z""#);
    let with = |names: &str| {
        told(changed(
            &old,
            edited(&old, &format!("metadata.finalizers={names}")),
            "",
            &town,
        ))
    };
    assert_eq!(
        with(r#"["e.com/x", "e.com/new"]"#),
        "Forbidden metadata.finalizers, Forbidden metadata.finalizers"
    );
    assert_eq!(with("[]"), "ok");
}

#[test]
fn stateful_sets_change_in_seven_fields() {
    check_changed(
        &set(),
        "",
        &[
            (r#"spec.serviceName="other""#, "Forbidden spec"),
            (r#"spec.podManagementPolicy="Parallel""#, "Forbidden spec"),
            (
                r#"spec.volumeClaimTemplates.0.spec.resources.requests.storage="2Gi""#,
                "Forbidden spec",
            ),
            (
                r#"spec.selector={"matchLabels": {"app": "x"}}"#,
                "Forbidden spec, Invalid spec.template.metadata.labels",
            ),
            ("spec.minReadySeconds=9", "ok"),
            ("spec.revisionHistoryLimit=3", "ok"),
            (r#"spec.ordinals={"start": 4}"#, "ok"),
            (r#"spec.template.spec.containers.0.image="i:2""#, "ok"),
            (r#"spec.updateStrategy={"type": "OnDelete"}"#, "ok"),
            (
                r#"spec.persistentVolumeClaimRetentionPolicy={"whenDeleted": "Delete", "whenScaled": "Delete"}"#,
                "ok",
            ),
            ("spec.replicas=-1", "Invalid spec.replicas"),
            (
                "spec.template.spec.containers=[]",
                "Required spec.template.spec.containers",
            ),
        ],
    );
}

#[test]
fn a_broken_template_may_stay_broken() {
    let town = Town::plain();
    let (old, _) = created(set(), &town).expect("a set");
    let broken = edited(&old, "spec.template.spec.containers.0.image=-");
    assert_eq!(
        told(changed(
            &broken,
            edited(&broken, "spec.replicas=5"),
            "",
            &town
        )),
        "ok"
    );
}

#[test]
fn a_set_s_status_adds_up() {
    check_changed(
        &set(),
        "status",
        &[
            ("status.replicas=2; status.readyReplicas=1", "ok"),
            (
                "status.replicas=1; status.readyReplicas=2",
                "Invalid status.readyReplicas",
            ),
            (
                "status.replicas=2; status.readyReplicas=1; status.availableReplicas=2",
                "Invalid status.availableReplicas",
            ),
            (
                "status.replicas=-1",
                "Invalid status.availableReplicas, Invalid status.currentReplicas, Invalid status.readyReplicas, Invalid status.replicas, Invalid status.updatedReplicas",
            ),
            ("spec.replicas=-5", "ok"),
        ],
    );
}

#[test]
fn pods_hardly_change() {
    check_changed(
        &pod(),
        "",
        &[
            (r#"spec.containers.0.image="i:2""#, "ok"),
            (r#"spec.containers.0.command=["x"]"#, "Forbidden spec"),
            ("spec.terminationGracePeriodSeconds=1", "Forbidden spec"),
            (
                r#"spec.tolerations=[{"key": "a", "operator": "Exists"}]"#,
                "ok",
            ),
            ("spec.activeDeadlineSeconds=10", "ok"),
            (
                r#"spec.containers=[{"name": "c", "image": "i:1"}, {"name": "d", "image": "i:1"}]"#,
                "Forbidden spec.containers",
            ),
            (r#"spec.nodeName="n""#, "Forbidden spec"),
            (
                r#"spec.containers.0.resources={"requests": {"cpu": "1"}}"#,
                "Forbidden spec, Invalid metadata",
            ),
        ],
    );
}

#[test]
fn visitors_come_and_never_go() {
    let town = Town::plain();
    let (old, _) = created(pod(), &town).expect("a pod");
    let with = edited(
        &old,
        r#"spec.ephemeralContainers=[{"name": "d", "image": "b"}]"#,
    );
    let visited = changed(&old, with, "ephemeralcontainers", &town).expect("a visitor");
    assert_eq!(visited["metadata"]["generation"], 2);
    let gone = edited(&visited, "spec.ephemeralContainers=[]");
    assert_eq!(
        told(changed(&visited, gone, "ephemeralcontainers", &town)),
        "Forbidden spec.ephemeralContainers"
    );
    let sly = edited(&visited, r#"spec.containers.0.image="other""#);
    assert_eq!(
        changed(&visited, sly, "ephemeralcontainers", &town).expect("nothing")["spec"],
        visited["spec"]
    );
}

#[test]
fn a_resize_keeps_the_quality_of_service() {
    check_changed(
        &pod(),
        "resize",
        &[
            (
                r#"spec.containers.0.resources={"requests": {"cpu": "1"}}"#,
                "Invalid spec",
            ),
            ("", "ok"),
        ],
    );
}

#[test]
fn services_keep_their_first_address() {
    let town = Town::plain();
    let (old, _) = created(service(), &town).expect("a service");
    let unsaid = edited(&old, "spec.clusterIP=-; spec.clusterIPs=-");
    assert_eq!(
        changed(&old, unsaid, "", &town).expect("a service")["spec"],
        old["spec"]
    );
    let table = [
        (
            r#"spec.clusterIP="10.96.0.5"; spec.clusterIPs=["10.96.0.5"]"#,
            "Invalid spec.clusterIPs[0]",
        ),
        (
            r#"spec.clusterIP="None"; spec.clusterIPs=["None"]"#,
            "Invalid spec.clusterIPs[0]",
        ),
        (r#"spec.ports=[{"port": 81}]"#, "ok"),
    ];
    for (edits, expected) in table {
        assert_eq!(
            told(changed(&old, edited(&old, edits), "", &town)),
            expected,
            "after {edits:?}"
        );
    }
}

#[test]
fn services_change_their_type() {
    let town = Town::plain();
    let (old, _) = created(service(), &town).expect("a service");
    let open =
        changed(&old, edited(&old, r#"spec.type="NodePort""#), "", &town).expect("node ports");
    let port = open["spec"]["ports"][0]["nodePort"]
        .as_i64()
        .expect("a node port");
    assert!((30000..32768).contains(&port));
    let again =
        changed(&open, edited(&open, "spec.ports.0.nodePort=-"), "", &town).expect("the same");
    assert_eq!(again["spec"]["ports"][0]["nodePort"], port);
    let closed = changed(&open, edited(&open, r#"spec.type="ClusterIP""#), "", &town)
        .expect("no node ports");
    assert!(closed["spec"]["ports"][0]["nodePort"].is_null());
    assert!(closed["spec"]["externalTrafficPolicy"].is_null());
    let named = changed(
        &closed,
        edited(
            &closed,
            r#"spec.type="ExternalName"; spec.externalName="a.b"; spec.internalTrafficPolicy=-"#,
        ),
        "",
        &town,
    );
    assert!(named.expect("a name")["spec"]["clusterIP"].is_null());
}

#[test]
fn claims_grow_only_when_bound() {
    check_changed(
        &claim(),
        "",
        &[
            (r#"spec.accessModes=["ReadOnlyMany"]"#, "Forbidden spec"),
            (r#"spec.resources.requests.storage="2Gi""#, "Forbidden spec"),
            (r#"spec.volumeName="v""#, "ok"),
            (r#"spec.storageClassName="standard""#, "ok"),
        ],
    );
    let mut town = Town::plain();
    town.add(
        "storage.k8s.io",
        "storageclasses",
        json!({"metadata": {"name": "grows"}, "allowVolumeExpansion": true}),
    );
    let (old, _) =
        created(edited(&claim(), r#"spec.storageClassName="grows""#), &town).expect("a claim");
    let bound = edited(
        &old,
        r#"spec.volumeName="v"; status={"phase": "Bound", "capacity": {"storage": "1Gi"}}"#,
    );
    let to = |size: &str| {
        told(changed(
            &bound,
            edited(&bound, &format!("spec.resources.requests.storage={size}")),
            "",
            &town,
        ))
    };
    assert_eq!(to(r#""2Gi""#), "ok");
    assert_eq!(
        to(r#""512Mi""#),
        "Forbidden spec.resources.requests.storage"
    );
}

#[test]
fn what_is_immutable_stays() {
    check_changed(
        &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "v"}, "immutable": true}),
        "",
        &[
            ("immutable=false", "Forbidden immutable"),
            (r#"data.k="w""#, "Forbidden data"),
            (r#"metadata.labels={"a": "b"}"#, "ok"),
        ],
    );
    check_changed(
        &json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}, "type": "mine"}),
        "",
        &[
            (r#"type="yours""#, "Invalid type"),
            (r#"stringData={"a": "b"}"#, "ok"),
        ],
    );
    check_changed(
        &json!({"apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": {"name": "r"}, "data": {"a": 1}, "revision": 1}),
        "",
        &[("data.a=2", "Invalid data"), ("revision=7", "ok")],
    );
    check_changed(
        &json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "s"}, "provisioner": "x/y"}),
        "",
        &[
            (r#"provisioner="z/y""#, "Forbidden provisioner"),
            (
                r#"volumeBindingMode="WaitForFirstConsumer""#,
                "Invalid volumeBindingMode",
            ),
        ],
    );
    check_changed(
        &json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "p"}, "value": 1}),
        "",
        &[("value=2", "Forbidden value"), (r#"description="d""#, "ok")],
    );
    check_changed(
        &json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "r"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"}}),
        "",
        &[(r#"roleRef.name="x""#, "Invalid roleRef")],
    );
}
