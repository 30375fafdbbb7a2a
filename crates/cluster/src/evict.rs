//! Eviction by taints: pods leave a node whose `NoExecute` taints they do not tolerate, at once or after the time that they do.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stead_controller::call::{CallError, Method, Request, call};
use stead_controller::events::{EventType, Recorder};
use stead_controller::queue::{Outcome, Queue};
use stead_controller::resource::{Key, Resource, is_terminating, text, uid};

use crate::bind::taints::{Stay, stay};
use crate::informer::{Cache, Change, Kit};
use crate::outcome;

/// Evictions under way at once.
const CONCURRENCY: usize = 4;

/// Adds the controller to the kit.
pub(crate) fn register(kit: &mut Kit) {
    let queue: Queue<Key> = Queue::new();
    let pods = kit.follow(Resource::PODS, on_pod(queue.clone()));
    let evictor = Arc::new(Evictor {
        client: kit.client("taint-eviction-controller"),
        recorder: kit.recorder("taint-eviction-controller"),
        nodes: kit.follow(Resource::NODES, on_node(queue.clone(), pods.clone())),
        pods,
        since: Mutex::default(),
    });
    kit.work(queue, CONCURRENCY, move |key| {
        let evictor = Arc::clone(&evictor);
        async move { outcome::of("evict", &key, evictor.sync(&key).await) }
    });
}

fn on_pod(queue: Queue<Key>) -> impl Fn(&Change<'_>) {
    let what_counts = |pod: &Value| {
        ["/metadata/uid", "/spec/nodeName", "/spec/tolerations"]
            .map(|pointer| pod.pointer(pointer).cloned())
    };
    move |change| {
        if change.old.map(what_counts) != change.new.map(what_counts) {
            queue.add(change.key.clone());
        }
    }
}

fn on_node(queue: Queue<Key>, pods: Cache) -> impl Fn(&Change<'_>) {
    let taints = |node: &Value| node.pointer("/spec/taints").cloned();
    move |change| {
        if change.old.and_then(taints) == change.new.and_then(taints) {
            return;
        }
        for pod in pods.all() {
            if text(&pod, "/spec/nodeName") == change.key.name {
                queue.add(Key::of(&pod));
            }
        }
    }
}

struct Evictor {
    client: kube::Client,
    recorder: Recorder,
    pods: Cache,
    nodes: Cache,
    /// By pod: its UID, and since when it stays only for a while.
    since: Mutex<BTreeMap<Key, (String, Instant)>>,
}

impl Evictor {
    async fn sync(&self, key: &Key) -> Result<Outcome, CallError> {
        let pod = self.pods.get(key).filter(|pod| !is_terminating(pod));
        let stay = pod.as_deref().map_or(Stay::Forever, |pod| self.stay(pod));
        let (Some(pod), false) = (pod, stay == Stay::Forever) else {
            self.forget(key);
            return Ok(Outcome::Done);
        };
        let left = match stay {
            Stay::Seconds(seconds) => self.left(&pod, seconds),
            Stay::Forever | Stay::Not => Duration::ZERO,
        };
        if !left.is_zero() {
            return Ok(Outcome::Recheck(left));
        }
        self.evict(&pod).await?;
        self.forget(key);
        Ok(Outcome::Done)
    }

    fn stay(&self, pod: &Value) -> Stay {
        let node = Key::new("", text(pod, "/spec/nodeName"));
        let ended = matches!(text(pod, "/status/phase"), "Succeeded" | "Failed");
        match self.nodes.get(&node) {
            Some(node) if !ended => stay(pod, &node),
            Some(_) | None => Stay::Forever,
        }
    }

    /// How long a pod still stays that tolerates a taint for so many seconds. upstream: from when the taint was first seen.
    fn left(&self, pod: &Value, seconds: i64) -> Duration {
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = || (uid(pod).to_owned(), Instant::now());
        let entry = since.entry(Key::of(pod)).or_insert_with(fresh);
        if entry.0 != uid(pod) {
            *entry = fresh();
        }
        let all = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        all.saturating_sub(entry.1.elapsed())
    }

    fn forget(&self, key: &Key) {
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        since.remove(key);
    }

    async fn evict(&self, pod: &Value) -> Result<(), CallError> {
        let key = Key::of(pod);
        let condition = json!({
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "DeletionByTaintManager",
            "message": "Taint manager: deleting due to NoExecute taint",
        });
        // The UID keeps a namesake made meanwhile from getting this status.
        let patch = json!({"metadata": {"uid": uid(pod)}, "status": {"conditions": [condition]}});
        let marked = Request::patch(Method::StrategicPatch, &Resource::PODS, &key, patch);
        call(&self.client, marked.on("status")).await?;
        call(
            &self.client,
            Request::delete(&Resource::PODS, &key, uid(pod)),
        )
        .await?;
        let message = format!("Marking for deletion Pod {key}");
        self.recorder
            .about(pod, EventType::Normal, "TaintManagerEviction", message);
        Ok(())
    }
}
