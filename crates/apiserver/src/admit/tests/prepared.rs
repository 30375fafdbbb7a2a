//! What the server fills in.

use serde_json::{Value, json};

use super::{Town, changed, created, edited, pod, pod_grace_seconds, service, set, told};

fn made(object: Value, town: &Town) -> Value {
    created(object, town)
        .unwrap_or_else(|refusal| panic!("refused: {}", told::<()>(Err(refusal))))
        .0
}

#[test]
fn a_pod_gets_an_account_a_token_and_patience() {
    let pod = made(pod(), &Town::plain());
    assert_eq!(pod["spec"]["serviceAccountName"], "default");
    assert_eq!(pod["spec"]["priority"], 0);
    assert_eq!(pod["spec"]["tolerations"].as_array().map(Vec::len), Some(2));
    let volume = pod["spec"]["volumes"][0]["name"]
        .as_str()
        .expect("a volume");
    assert!(volume.starts_with("kube-api-access-"));
    assert_eq!(
        pod["spec"]["containers"][0]["volumeMounts"][0]["name"],
        volume
    );
    assert_eq!(
        pod["status"],
        json!({"phase": "Pending", "qosClass": "BestEffort"})
    );
    assert_eq!(pod["metadata"]["generation"], 1);
    let bare = made(
        edited(&super::pod(), "spec.automountServiceAccountToken=false"),
        &Town::plain(),
    );
    assert!(bare["spec"]["volumes"].is_null());
}

#[test]
fn the_quality_of_service_follows_what_is_asked_for() {
    let class = |resources: &str| {
        made(
            edited(&pod(), &format!("spec.containers.0.resources={resources}")),
            &Town::plain(),
        )["status"]["qosClass"]
            .clone()
    };
    assert_eq!(class("{}"), "BestEffort");
    assert_eq!(class(r#"{"requests": {"cpu": "1"}}"#), "Burstable");
    assert_eq!(
        class(r#"{"limits": {"cpu": "1", "memory": "1Gi"}}"#),
        "Guaranteed"
    );
}

#[test]
fn a_pod_takes_its_class_s_priority() {
    let mut town = Town::plain();
    town.add(
        "scheduling.k8s.io",
        "priorityclasses",
        json!({"metadata": {"name": "high"}, "value": 7, "preemptionPolicy": "Never"}),
    );
    let named = made(edited(&pod(), r#"spec.priorityClassName="high""#), &town);
    assert_eq!(
        (
            &named["spec"]["priority"],
            &named["spec"]["preemptionPolicy"]
        ),
        (&json!(7), &json!("Never"))
    );
    let system = made(
        edited(&pod(), r#"spec.priorityClassName="system-node-critical""#),
        &town,
    );
    assert_eq!(system["spec"]["priority"], 2_000_001_000);
}

#[test]
fn limit_ranges_fill_in_and_bound() {
    let mut town = Town::plain();
    let limits = json!([{"type": "Container", "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "100m"}, "max": {"cpu": "1"}}]);
    town.add(
        "",
        "limitranges",
        json!({"metadata": {"name": "l", "namespace": "ns"}, "spec": {"limits": limits}}),
    );
    let filled = made(pod(), &town);
    assert_eq!(
        filled["spec"]["containers"][0]["resources"],
        json!({"limits": {"cpu": "500m"}, "requests": {"cpu": "100m"}})
    );
    let greedy = edited(
        &pod(),
        r#"spec.containers.0.resources={"limits": {"cpu": "2"}}"#,
    );
    assert_eq!(
        told(created(greedy, &town)),
        "forbidden: maximum cpu usage per Container is 1, but limit is 2"
    );
}

#[test]
fn services_get_different_addresses() {
    let mut town = Town::plain();
    let first = made(service(), &town);
    assert_eq!(first["spec"]["ipFamilies"], json!(["IPv4"]));
    assert_eq!(first["spec"]["clusterIPs"][0], first["spec"]["clusterIP"]);
    let mut other = first.clone();
    other["metadata"]["uid"] = "another".into();
    other["metadata"]["name"] = "other".into();
    town.add("", "services", other);
    let second = made(service(), &town);
    assert_ne!(second["spec"]["clusterIP"], first["spec"]["clusterIP"]);
    let taken = edited(
        &service(),
        &format!("spec.clusterIP={}", first["spec"]["clusterIP"]),
    );
    assert_eq!(told(created(taken, &town)), "Invalid spec.clusterIPs");
}

#[test]
fn a_headless_service_without_a_selector_is_of_both_families() {
    let headless = made(
        edited(&service(), r#"spec.clusterIP="None"; spec.selector=-"#),
        &Town::plain(),
    );
    assert_eq!(
        (
            &headless["spec"]["ipFamilyPolicy"],
            &headless["spec"]["ipFamilies"]
        ),
        (&json!("RequireDualStack"), &json!(["IPv4", "IPv6"]))
    );
}

#[test]
fn claims_get_the_default_class_and_a_guard() {
    let mut town = Town::plain();
    let marked = json!({"metadata": {"name": "standard", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}});
    town.add("storage.k8s.io", "storageclasses", marked);
    let claim = made(super::claim(), &town);
    assert_eq!(claim["spec"]["storageClassName"], "standard");
    assert_eq!(
        claim["metadata"]["finalizers"],
        json!(["kubernetes.io/pvc-protection"])
    );
    let bare = made(
        edited(&super::claim(), r#"spec.storageClassName="""#),
        &town,
    );
    assert_eq!(bare["spec"]["storageClassName"], "");
}

#[test]
fn nothing_is_created_in_a_namespace_that_is_going_or_gone() {
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}});
    assert_eq!(
        told(created(map.clone(), &Town::default())),
        "not found: namespaces ns"
    );
    let mut town = Town::default();
    town.add(
        "",
        "namespaces",
        json!({"metadata": {"name": "ns"}, "status": {"phase": "Terminating"}}),
    );
    let words =
        "forbidden: unable to create new content in namespace ns because it is being terminated";
    assert_eq!(told(created(map, &town)), words);
}

#[test]
fn generations_count_what_matters() {
    let town = Town::plain();
    let old = made(set(), &town);
    let generation = |edits: &str, subresource: &str| {
        changed(&old, edited(&old, edits), subresource, &town).expect("a set")["metadata"]["generation"].clone()
    };
    assert_eq!(old["metadata"]["generation"], 1);
    assert_eq!(generation("spec.replicas=9", ""), 2);
    assert_eq!(generation("metadata.generation=77", ""), 1);
    assert_eq!(generation(r#"metadata.labels={"a": "b"}"#, ""), 1);
    assert_eq!(
        generation("status.replicas=1; spec.replicas=9", "status"),
        1
    );
}

#[test]
fn status_and_spec_keep_out_of_each_other_s_way() {
    let town = Town::plain();
    let old = made(edited(&set(), r#"status={"replicas": 99}"#), &town);
    assert_eq!(
        old["status"],
        json!({"replicas": 0, "availableReplicas": 0})
    );
    let spec = changed(
        &old,
        edited(&old, "status.replicas=9; spec.replicas=1"),
        "",
        &town,
    )
    .expect("a set");
    assert_eq!(
        (&spec["status"]["replicas"], &spec["spec"]["replicas"]),
        (&json!(0), &json!(1))
    );
    let status = changed(
        &old,
        edited(&old, "status.replicas=9; spec.replicas=1"),
        "status",
        &town,
    )
    .expect("a set");
    assert_eq!(
        (&status["status"]["replicas"], &status["spec"]["replicas"]),
        (&json!(9), &json!(3))
    );
}

#[test]
fn warnings_tell_of_what_will_surprise() {
    let town = Town::plain();
    let told = |edits: &str| created(edited(&set(), edits), &town).expect("a set").1;
    assert!(told("").is_empty());
    assert_eq!(told("spec.revisionHistoryLimit=-1").len(), 1);
    assert_eq!(
        told("spec.template.spec.terminationGracePeriodSeconds=-5").len(),
        1
    );
    assert_eq!(told(r#"spec.template.spec.containers.0.env=[{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]"#).len(), 1);
    assert_eq!(told(r#"spec.template.spec.containers=[{"name": "a", "image": "i", "ports": [{"containerPort": 80}]}, {"name": "b", "image": "i", "ports": [{"containerPort": 80}]}]"#).len(), 1);
    assert_eq!(
        told(r#"spec.template.spec.nodeSelector={"beta.kubernetes.io/os": "linux"}"#).len(),
        1
    );
}

#[test]
fn a_job_selects_its_own_pods() {
    let job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j"}, "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "b"}]}}}});
    let job = made(job, &Town::plain());
    assert_eq!(
        job["spec"]["selector"],
        json!({"matchLabels": {"batch.kubernetes.io/controller-uid": "0f0f"}})
    );
    assert_eq!(
        job["metadata"]["labels"],
        job["spec"]["template"]["metadata"]["labels"]
    );
    assert_eq!(job["metadata"]["labels"]["job-name"], "j");
}

#[test]
fn secrets_are_encoded() {
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}, "stringData": {"p": "q"}, "data": {"z": "aGk="}});
    let secret = made(secret, &Town::plain());
    assert_eq!(
        (&secret["data"], &secret["stringData"]),
        (&json!({"p": "cQ==", "z": "aGk="}), &Value::Null)
    );
}

#[test]
fn a_pod_that_runs_nowhere_ends_at_once() {
    let at = |edits: &str, asked: Option<i64>| pod_grace_seconds(&edited(&pod(), edits), asked);
    assert_eq!(at("spec.terminationGracePeriodSeconds=30", None), 0);
    assert_eq!(
        at(
            r#"spec.terminationGracePeriodSeconds=30; spec.nodeName="n""#,
            None
        ),
        30
    );
    assert_eq!(
        at(
            r#"spec.terminationGracePeriodSeconds=30; spec.nodeName="n""#,
            Some(5)
        ),
        5
    );
    assert_eq!(
        at(
            r#"spec.terminationGracePeriodSeconds=30; spec.nodeName="n""#,
            Some(-5)
        ),
        1
    );
    assert_eq!(
        at(
            r#"spec.terminationGracePeriodSeconds=30; spec.nodeName="n"; status={"phase": "Failed"}"#,
            None
        ),
        0
    );
}
