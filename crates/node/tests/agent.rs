//! The agent as a whole against an API and a runtime of the test's own: what it writes, starts, keeps and lets go.

#[path = "agent/api.rs"]
mod api;
#[path = "agent/fake.rs"]
mod fake;

use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use serde_json::{Value, json};
use stead_node::runtime::ContainerId;
use stead_node::{Node, NodeOptions, NodeService};
use tower::ServiceExt;

use api::Api;
use fake::Fake;

/// One agent on one folder; the API and the runtime outlive it, as they do in earnest.
struct House {
    api: Api,
    runtime: Arc<Fake>,
    folder: tempfile::TempDir,
}

impl House {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Self {
            api: Api::default(),
            runtime: Arc::new(Fake::default()),
            folder,
        }
    }

    async fn node(&self) -> Node {
        let options = NodeOptions::new("n", self.folder.path(), "/nowhere/stead");
        Node::start_with(self.api.client(), options, self.runtime.clone())
            .await
            .expect("a node")
    }

    fn pod(&self, name: &str, uid: &str) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "default", "uid": uid},
            "spec": {"nodeName": "n", "terminationGracePeriodSeconds": 0, "restartPolicy": "Always",
                "containers": [{"name": "c", "image": "stead.dev/host", "command": ["run", "$(NAME)"],
                    "env": [{"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}]},
        })
    }

    /// Waits until the runtime has refused so many more releases.
    async fn until_refused(&self, more: u32) {
        let goal = self.runtime.refused_releases() + more;
        self.runtime
            .until(|world| world.refused_releases >= goal)
            .await;
    }

    async fn until_phase(&self, name: &str, phase: &str) -> Value {
        self.api
            .until("pods", name, |pod| {
                pod.is_some_and(|pod| pod["status"]["phase"] == phase)
            })
            .await
            .expect("a pod")
    }
}

fn id(uid: &str, attempt: u32) -> ContainerId {
    ContainerId {
        pod_uid: uid.to_owned(),
        container: "c".to_owned(),
        attempt,
    }
}

#[tokio::test]
async fn a_pod_is_started_reported_deleted_and_forgotten() {
    let house = House::new();
    let node = house.node().await;
    assert_eq!(
        house.api.get("nodes", "n").expect("a node")["status"]["conditions"][3]["type"],
        "Ready"
    );
    house.api.put("pods", house.pod("web-0", "u1"));
    let pod = house.until_phase("web-0", "Running").await;
    assert_eq!(pod["status"]["podIP"], "127.0.1.1");
    assert_eq!(pod["status"]["containerStatuses"][0]["ready"], true);
    assert_eq!(house.runtime.argv(&id("u1", 0)), ["run", "web-0"]);
    house.api.delete("pods", "web-0", 0);
    house.api.until("pods", "web-0", |pod| pod.is_none()).await;
    house.runtime.until(|world| world.pods.is_empty()).await;
    node.shutdown().await;
    assert_eq!(
        house.runtime.started(),
        [id("u1", 0)],
        "started once, and never again"
    );
}

#[tokio::test]
async fn a_restart_of_the_agent_finds_what_runs_and_starts_nothing_twice() {
    let house = House::new();
    let node = house.node().await;
    house.api.put("pods", house.pod("web-0", "u1"));
    house.until_phase("web-0", "Running").await;
    node.shutdown().await;
    assert!(
        house.runtime.is_running(&id("u1", 0)),
        "the end of the agent is not the end of the container"
    );

    let node = house.node().await;
    house.api.put("pods", house.pod("web-1", "u2"));
    house.until_phase("web-1", "Running").await;
    node.shutdown().await;
    assert_eq!(house.runtime.started(), [id("u1", 0), id("u2", 0)]);
    assert_eq!(
        house.api.get("pods", "web-0").expect("a pod")["status"]["containerStatuses"][0]["restartCount"],
        0
    );
}

#[tokio::test]
async fn a_namesake_waits_until_the_former_holder_is_proved_gone_also_after_a_restart() {
    let house = House::new();
    let node = house.node().await;
    house.api.put("pods", house.pod("web-0", "old"));
    house.until_phase("web-0", "Running").await;
    node.shutdown().await;
    // While no agent runs, the object is replaced; the former's processes cannot be ended at first.
    house.runtime.hold("old", true);
    house.api.forget("pods", "web-0");
    house.api.put("pods", house.pod("web-0", "new"));

    let node = house.node().await;
    house.until_refused(2).await;
    assert!(
        !house.runtime.started().contains(&id("new", 0)),
        "two holders of one name"
    );
    house.runtime.hold("old", false);
    house.until_phase("web-0", "Running").await;
    node.shutdown().await;
    assert_eq!(house.runtime.started(), [id("old", 0), id("new", 0)]);
    assert!(!house.runtime.is_running(&id("old", 0)));
}

#[tokio::test]
async fn a_former_holder_whose_place_cannot_be_taken_up_still_holds_its_name() {
    let house = House::new();
    let node = house.node().await;
    house.api.put("pods", house.pod("web-0", "old"));
    house.until_phase("web-0", "Running").await;
    node.shutdown().await;
    house.runtime.hold("old", true);
    house.runtime.refuse_place("old");
    house.api.forget("pods", "web-0");
    house.api.put("pods", house.pod("web-0", "new"));

    let node = house.node().await;
    house.until_refused(2).await;
    assert_eq!(house.runtime.started(), [id("old", 0)]);
    house.runtime.hold("old", false);
    house.until_phase("web-0", "Running").await;
    node.shutdown().await;
    assert_eq!(house.runtime.started(), [id("old", 0), id("new", 0)]);
}

#[tokio::test]
async fn a_former_holder_whose_object_comes_back_still_holds_its_name() {
    let house = House::new();
    let node = house.node().await;
    house.api.put("pods", house.pod("web-0", "old"));
    house.until_phase("web-0", "Running").await;
    house.runtime.hold("old", true);
    house.api.forget("pods", "web-0");
    house.until_refused(1).await;
    // As when the API is put back to an earlier state and goes on from there.
    house.api.put("pods", house.pod("web-0", "old"));
    house.api.put("pods", house.pod("web-0", "new"));
    house.until_refused(2).await;
    assert_eq!(house.runtime.started(), [id("old", 0)]);
    house.runtime.hold("old", false);
    house.until_phase("web-0", "Running").await;
    node.shutdown().await;
    assert_eq!(house.runtime.started(), [id("old", 0), id("new", 0)]);
}

#[tokio::test]
async fn a_container_that_ends_is_restarted_and_its_former_life_told() {
    let house = House::new();
    let node = house.node().await;
    house.api.put("pods", house.pod("web-0", "u1"));
    house.until_phase("web-0", "Running").await;
    house.runtime.end(&id("u1", 0), 7);
    let pod = house
        .api
        .until("pods", "web-0", |pod| {
            pod.is_some_and(|pod| pod["status"]["containerStatuses"][0]["restartCount"] == 1)
        })
        .await
        .expect("a pod");
    assert_eq!(
        pod["status"]["containerStatuses"][0]["lastState"]["terminated"]["exitCode"],
        7
    );
    node.shutdown().await;
}

#[tokio::test]
async fn a_paused_pod_stops_keeps_its_object_and_runs_again_with_the_next_agent() {
    let house = House::new();
    let node = house.node().await;
    house.api.put("pods", house.pod("bare", "u1"));
    house.until_phase("bare", "Running").await;
    node.stop_pod("u1", Duration::from_secs(0))
        .await
        .expect("stopped");
    assert!(!house.runtime.is_running(&id("u1", 0)));
    assert!(node.stop_pod("nobody", Duration::ZERO).await.is_err());
    node.shutdown().await;

    let node = house.node().await;
    house
        .runtime
        .until(|world| world.containers.contains_key(&id("u1", 1)))
        .await;
    house.until_phase("bare", "Running").await;
    node.shutdown().await;
}

#[tokio::test]
async fn a_volume_is_kept_until_its_policy_asks_for_its_end() {
    let house = House::new();
    let mut pod = house.pod("db-0", "u1");
    pod["spec"]["volumes"] =
        json!([{"name": "data", "persistentVolumeClaim": {"claimName": "data-db-0"}}]);
    pod["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
    let claim = json!({"metadata": {"name": "data-db-0", "namespace": "default"}, "spec": {"volumeName": "pv"}});
    let volume = json!({
        "metadata": {"name": "pv", "uid": "v", "finalizers": ["stead.dev/volume"]},
        "spec": {"persistentVolumeReclaimPolicy": "Delete", "csi": {"driver": "volume.stead.dev", "volumeHandle": "pvc-1"}},
    });
    let node = house.node().await;
    house.api.put("persistentvolumes", volume);
    house.api.put("pods", pod);
    house
        .runtime
        .until(|world| world.containers.is_empty())
        .await;
    // The claim comes late: the pod waits for it.
    house
        .api
        .until("events", "", |_| house.api.has_event("FailedMount"))
        .await;
    house.api.put("persistentvolumeclaims", claim);
    house.until_phase("db-0", "Running").await;
    let folder = house.folder.path().join("node/volumes/pvc-1");
    std::fs::write(folder.join("ledger"), "kept").expect("written");
    house.api.delete("pods", "db-0", 0);
    house.runtime.until(|world| world.pods.is_empty()).await;
    house.api.until("pods", "db-0", |pod| pod.is_none()).await;
    assert_eq!(
        std::fs::read_to_string(folder.join("ledger")).expect("retained"),
        "kept"
    );
    house.api.delete("persistentvolumes", "pv", 0);
    house
        .api
        .until("persistentvolumes", "pv", |volume| volume.is_none())
        .await;
    assert!(!folder.exists(), "deleted as its policy asks");
    node.shutdown().await;
}

#[tokio::test]
async fn logs_are_served_followed_to_the_end_and_errors_are_clear() {
    let house = House::new();
    let node = house.node().await;
    house.api.put("pods", house.pod("web-0", "u1"));
    house.until_phase("web-0", "Running").await;
    let log = house.folder.path().join("node/logs/u1/c/0.log");
    std::fs::write(
        &log,
        "2026-01-01T00:00:00Z stdout F one\n2026-01-01T00:00:01Z stdout F two\n",
    )
    .expect("written");
    let ask = |path: &str| ask(node.service(), path.to_owned());
    assert_eq!(
        ask("/containerLogs/default/web-0/c").await,
        (200, "one\ntwo\n".to_owned())
    );
    assert_eq!(
        ask("/containerLogs/default/web-0/c?tailLines=1").await,
        (200, "two\n".to_owned())
    );
    let (code, message) = ask("/containerLogs/default/web-0/c?tailLines=many").await;
    assert!(code == 400 && message.contains("tailLines"), "{message}");
    let (code, message) = ask("/containerLogs/default/web-0/c?previous=true").await;
    assert!(
        code == 400 && message.contains("previous terminated container"),
        "{message}"
    );
    assert_eq!(ask("/containerLogs/default/nobody/c").await.0, 404);
    for stream in [
        "/attach/default/web-0/c",
        "/exec/default/web-0/c?command=true",
    ] {
        assert_eq!(ask(stream).await.0, 400, "{stream} without WebSocket");
    }
    let followed = ask("/containerLogs/default/web-0/c?follow=true");
    let ((code, text), ()) = tokio::join!(followed, async { house.runtime.end(&id("u1", 0), 0) });
    assert_eq!((code, text.as_str()), (200, "one\ntwo\n"));
    node.shutdown().await;
}

#[tokio::test]
async fn without_workloads_only_volumes_are_looked_after() {
    let house = House::new();
    let options = NodeOptions {
        workloads: false,
        ..NodeOptions::new("n", house.folder.path(), "/nowhere/stead")
    };
    let node = Node::start_with(house.api.client(), options, house.runtime.clone())
        .await
        .expect("a node");
    house.api.put("pods", house.pod("web-0", "u1"));
    let mut volume =
        json!({"metadata": {"name": "pv", "uid": "v", "finalizers": ["stead.dev/volume"]}});
    volume["spec"] = json!({"persistentVolumeReclaimPolicy": "Delete", "csi": {"driver": "volume.stead.dev", "volumeHandle": "pvc-1"}});
    house.api.put("persistentvolumes", volume);
    house.api.delete("persistentvolumes", "pv", 0);
    house
        .api
        .until("persistentvolumes", "pv", |volume| volume.is_none())
        .await;
    assert!(house.runtime.started().is_empty() && house.api.get("nodes", "n").is_none());
    node.shutdown().await;
}

/// Code and text of the answer to a GET.
async fn ask(service: NodeService, path: String) -> (u16, String) {
    let body = http_body_util::Empty::new()
        .map_err(|never: std::convert::Infallible| match never {})
        .boxed_unsync();
    let request = http::Request::get(path).body(body).expect("a request");
    let response = service.oneshot(request).await.expect("infallible");
    let code = response.status().as_u16();
    let bytes = response
        .into_body()
        .collect()
        .await
        .expect("a body")
        .to_bytes();
    (code, String::from_utf8_lossy(&bytes).into_owned())
}

#[tokio::test]
async fn a_token_is_renewed_before_its_end_and_a_refusal_takes_nothing_away() {
    let house = House::new();
    let node = house.node().await;
    let mut pod = house.pod("web-0", "u1");
    pod["spec"]["volumes"] = json!([{"name": "token", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}]);
    house.api.put("pods", pod);
    house.until_phase("web-0", "Running").await;
    let folder = house.folder.path().join("node/pods/u1/volumes/token");
    let read = || std::fs::read_to_string(folder.join("token")).expect("there is a token always");
    assert_eq!(read(), "t-1");
    let swapped = std::fs::read_link(folder.join("..data")).expect("a link");
    house
        .api
        .until("tokens", "t-2", |asked| asked.is_some())
        .await;
    assert!(!read().is_empty(), "what was refused takes nothing away");
    house
        .api
        .until("tokens", "t-4", |asked| asked.is_some())
        .await;
    assert!(["t-3", "t-4"].contains(&read().as_str()), "{}", read());
    assert_ne!(
        std::fs::read_link(folder.join("..data")).expect("a link"),
        swapped
    );
    house.api.until_event("FailedMount").await;
    assert_eq!(house.runtime.started(), [id("u1", 0)], "the pod went on");
    node.shutdown().await;
}

#[tokio::test]
async fn limits_that_a_tier_does_not_enforce_are_told_and_the_pod_runs() {
    let house = House::new();
    let node = house.node().await;
    let mut pod = house.pod("web-0", "u1");
    pod["spec"]["containers"][0]["resources"] = json!({"limits": {"memory": "64Mi"}});
    house.api.put("pods", pod);
    house.until_phase("web-0", "Running").await;
    house.api.until_event("NotEnforced").await;
    node.shutdown().await;
}
