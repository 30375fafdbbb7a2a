//! The floor of a rollout: the same writes to the same server, sent back to back by somebody who waits for nothing but answers.

use std::time::{Duration, Instant};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::{Value, json};
use stead_controller::call::{Method, Request, call};
use stead_controller::resource::{Key, Resource, uid};

use super::lab::{FLOOR, Lab, make_ready, remove};

/// Writes under way at once where pods do not wait for each other: as many as the controller and the kubelet send.
const AT_ONCE: usize = 16;

/// The time of each phase: create, roll, scale to 0; with as many status writes of the set as the controller had in it.
pub(super) async fn of(
    lab: &Lab,
    policy: &str,
    replicas: u32,
    statuses: impl Iterator<Item = u64>,
) -> Result<Vec<Duration>, String> {
    let set = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "default", "name": FLOOR}});
    lab.send(Request::create(&Resource::CONFIG_MAPS, set))
        .await?;
    let mut times = Vec::new();
    for (phase, statuses) in statuses.enumerate() {
        let at_once = if policy == "Parallel" && phase != 1 {
            AT_ONCE
        } else {
            1
        };
        let began = Instant::now();
        let pods = stream::iter((0..replicas).map(|number| async move {
            match phase {
                0 => up(lab, number).await?,
                1 => {
                    down(lab, number).await?;
                    up(lab, number).await?;
                }
                _ => down(lab, number).await?,
            }
            let until = |number: u32| u64::from(number) * statuses / u64::from(replicas);
            for _ in until(number)..until(number + 1) {
                status(lab).await?;
            }
            Ok::<(), String>(())
        }));
        pods.buffer_unordered(at_once).try_collect::<()>().await?;
        times.push(began.elapsed());
    }
    let key = Key::new("default", FLOOR);
    let there = lab.send(Request::get(&Resource::CONFIG_MAPS, &key)).await?;
    lab.send(Request::delete(&Resource::CONFIG_MAPS, &key, uid(&there)))
        .await?;
    Ok(times)
}

/// A pod comes: the controller's write and the kubelet's.
async fn up(lab: &Lab, number: u32) -> Result<(), String> {
    let made = lab
        .send(Request::create(&Resource::PODS, pod(number)))
        .await?;
    make_ready(&lab.client, &Key::of(&made), uid(&made))
        .await
        .map_err(|error| error.to_string())
}

/// A pod goes: the controller's write and the kubelet's.
async fn down(lab: &Lab, number: u32) -> Result<(), String> {
    let key = Key::new("default", format!("{FLOOR}-{number}"));
    // The UID is known to whoever has made the pod; reading it here would be a call that nobody else needs.
    let request = Request {
        method: Method::Delete,
        path: Resource::PODS.object(&key),
        body: json!({"kind": "DeleteOptions", "apiVersion": "v1"}),
    };
    let going = call(&lab.client, request).await;
    let going = going.map_err(|error| error.to_string())?;
    remove(&lab.client, &key, uid(&going))
        .await
        .map_err(|error| error.to_string())
}

/// A status of the set: a small patch of one object.
async fn status(lab: &Lab) -> Result<(), String> {
    let key = Key::new("default", FLOOR);
    let patch = json!({"data": {"at": format!("{:?}", Instant::now())}});
    let request = Request::patch(Method::MergePatch, &Resource::CONFIG_MAPS, &key, patch);
    lab.send(request).await.map(drop)
}

fn pod(number: u32) -> Value {
    let name = format!("{FLOOR}-{number}");
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "default", "name": name, "labels": {"app": FLOOR, "statefulset.kubernetes.io/pod-name": name}},
        "spec": {"nodeName": "n1", "hostname": name, "subdomain": FLOOR, "containers": [{"name": "c", "image": "a"}]}})
}
