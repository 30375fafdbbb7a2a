//! The world of a rollout: a user who changes sets, and a kubelet that makes pods ready at once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use stead_controller::call::{CallError, Method, Request, call};
use stead_controller::reflect::{Delta, Part, reflect};
use stead_controller::resource::{Key, Resource, is_terminating, uid};
use tokio::sync::{mpsc, watch};

use super::text;

/// Pods that the kubelet tends at once.
const HANDS: usize = 16;
/// Longest wait for one phase.
const PATIENCE: Duration = Duration::from_secs(900);
/// Whose pods are left to the floor: the kubelet does not touch them.
pub(super) const FLOOR: &str = "floor";

type Sets = BTreeMap<String, Value>;

/// A client for a kubeconfig.
pub(super) async fn client(kubeconfig: &str) -> Result<kube::Client, String> {
    let file = Kubeconfig::read_from(Path::new(kubeconfig)).map_err(|error| error.to_string())?;
    let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
    let config = config.map_err(|error| error.to_string())?;
    kube::Client::try_from(config).map_err(|error| error.to_string())
}

/// The world.
pub(super) struct Lab {
    pub(super) client: kube::Client,
    sets: watch::Receiver<Sets>,
    pods: watch::Receiver<usize>,
    /// How often each set's status changed.
    statuses: Arc<Mutex<BTreeMap<String, u64>>>,
}

impl Lab {
    pub(super) async fn open(kubeconfig: &str) -> Result<Lab, String> {
        let client = client(kubeconfig).await?;
        let statuses: Arc<Mutex<BTreeMap<String, u64>>> = Arc::default();
        let (sender, sets) = watch::channel(Sets::new());
        let counted = Arc::clone(&statuses);
        let sink = move |delta: Delta| sender.send_modify(|sets| keep(sets, &counted, delta));
        let all = Part::default;
        let for_ever = std::future::pending::<()>;
        tokio::spawn(reflect(
            client.clone(),
            Resource::STATEFUL_SETS,
            all(),
            sink,
            for_ever(),
        ));
        let (pods_there, pods) = watch::channel(0);
        let hands = hands(&client);
        let mut next = 0;
        let mut there = BTreeSet::new();
        let sink = move |delta| {
            let news = match delta {
                Delta::Listing => Vec::new(),
                // A watch that fell behind begins again with a list: what is not in it is gone.
                Delta::Reset(pods) => {
                    there.clear();
                    pods
                }
                Delta::Put(pod) => vec![pod],
                Delta::Gone(pod) => {
                    there.remove(uid(&pod));
                    Vec::new()
                }
            };
            there.extend(news.iter().map(|pod| uid(pod).to_owned()));
            pods_there.send_replace(there.len());
            for pod in news {
                next += 1;
                // The hands live as long as the bench.
                let _ = hands[next % HANDS].send(pod);
            }
        };
        tokio::spawn(reflect(
            client.clone(),
            Resource::PODS,
            all(),
            sink,
            for_ever(),
        ));
        Ok(Lab {
            client,
            sets,
            pods,
            statuses,
        })
    }

    /// How often a set's status has changed.
    pub(super) fn statuses(&self, name: &str) -> u64 {
        let statuses = self.statuses.lock();
        let statuses = statuses.unwrap_or_else(PoisonError::into_inner);
        statuses.get(name).copied().unwrap_or(0)
    }

    /// Creates a set and waits until all of it is ready.
    pub(super) async fn create(
        &self,
        name: &str,
        policy: &str,
        replicas: u32,
    ) -> Result<Duration, String> {
        let began = Instant::now();
        let created = Request::create(&Resource::STATEFUL_SETS, set(name, policy, replicas));
        let created = self.send(created).await?;
        self.until_rolled_out(name, &created, replicas).await?;
        Ok(began.elapsed())
    }

    /// Changes a set's template and waits until all of it is replaced.
    pub(super) async fn roll(&self, name: &str, replicas: u32) -> Result<Duration, String> {
        let began = Instant::now();
        let containers = json!([{"name": "c", "image": "b"}]);
        let template = json!({"spec": {"template": {"spec": {"containers": containers}}}});
        let changed = self.merge(name, template).await?;
        self.until_rolled_out(name, &changed, replicas).await?;
        Ok(began.elapsed())
    }

    /// Scales a set and waits until it has so many.
    pub(super) async fn scale(&self, name: &str, replicas: u32) -> Result<Duration, String> {
        let began = Instant::now();
        let scaled = self
            .merge(name, json!({"spec": {"replicas": replicas}}))
            .await?;
        self.until_rolled_out(name, &scaled, replicas).await?;
        Ok(began.elapsed())
    }

    /// Takes a set and its pods away, the pods all at once: here nobody collects garbage.
    pub(super) async fn delete(&self, name: &str) -> Result<(), String> {
        let key = Key::new("default", name);
        let set = self
            .send(Request::get(&Resource::STATEFUL_SETS, &key))
            .await?;
        self.send(Request::delete(&Resource::STATEFUL_SETS, &key, uid(&set)))
            .await?;
        let mut sets = self.sets.clone();
        let gone = sets.wait_for(|sets| !sets.contains_key(name)).await;
        gone.map_err(|error| error.to_string())?;
        let path = Resource::PODS.collection(Some("default"));
        self.send(Request {
            method: Method::Delete,
            path: format!("{path}?labelSelector=app%3D{name}"),
            body: json!({"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0}),
        })
        .await?;
        self.until_pods(0).await
    }

    /// Waits until there are so many pods.
    pub(super) async fn until_pods(&self, count: usize) -> Result<(), String> {
        let mut pods = self.pods.clone();
        let found = tokio::time::timeout(PATIENCE, pods.wait_for(|pods| *pods == count));
        match found.await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(format!("in vain waited until there are {count} pods")),
        }
    }

    pub(super) async fn send(&self, request: Request) -> Result<Value, String> {
        let sent = call(&self.client, request).await;
        sent.map_err(|error| error.to_string())
    }

    async fn merge(&self, name: &str, patch: Value) -> Result<Value, String> {
        let key = Key::new("default", name);
        let resource = &Resource::STATEFUL_SETS;
        self.send(Request::patch(Method::MergePatch, resource, &key, patch))
            .await
    }

    /// Waits until a set as it was answered, not as the watch still shows it, is rolled out.
    async fn until_rolled_out(
        &self,
        name: &str,
        answered: &Value,
        replicas: u32,
    ) -> Result<(), String> {
        let generation = |set: &Value| set["metadata"]["generation"].as_u64();
        let wanted = generation(answered);
        self.until(name, |set| {
            generation(set) >= wanted && is_rolled_out(set, replicas)
        })
        .await
    }

    async fn until(&self, name: &str, wanted: impl Fn(&Value) -> bool) -> Result<(), String> {
        let mut sets = self.sets.clone();
        let found = sets.wait_for(|sets| sets.get(name).is_some_and(&wanted));
        match tokio::time::timeout(PATIENCE, found).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => {
                let set = self.sets.borrow().get(name).cloned().unwrap_or_default();
                Err(format!("in vain waited for {name}: {}", set["status"]))
            }
        }
    }
}

/// Whether a set has so many pods, all of them ready and of its newest revision.
fn is_rolled_out(set: &Value, replicas: u32) -> bool {
    let status = |field: &str| set["status"].get(field).cloned().unwrap_or(0.into());
    status("observedGeneration") == set["metadata"]["generation"]
        && status("currentRevision") == status("updateRevision")
        && ["replicas", "readyReplicas"]
            .iter()
            .all(|field| status(field) == replicas)
}

fn keep(sets: &mut Sets, statuses: &Mutex<BTreeMap<String, u64>>, delta: Delta) {
    let named = |set: Value| (text(&set, "/metadata/name").to_owned(), set);
    match delta {
        Delta::Listing => {}
        Delta::Reset(all) => *sets = all.into_iter().map(named).collect(),
        Delta::Put(set) => {
            let (name, set) = named(set);
            let old = sets.insert(name.clone(), set);
            let changed = old.is_some_and(|old| old["status"] != sets[&name]["status"]);
            let mut statuses = statuses.lock().unwrap_or_else(PoisonError::into_inner);
            *statuses.entry(name).or_default() += u64::from(changed);
        }
        Delta::Gone(set) => drop(sets.remove(text(&set, "/metadata/name"))),
    }
}

fn set(name: &str, policy: &str, replicas: u32) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "StatefulSet",
        "metadata": {"namespace": "default", "name": name},
        "spec": {"replicas": replicas, "serviceName": name, "podManagementPolicy": policy,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": {
                "nodeName": "n1", "containers": [{"name": "c", "image": "a"}]}}}})
}

/// The kubelet's hands: what is sent to one of them it does.
fn hands(client: &kube::Client) -> Vec<mpsc::UnboundedSender<Value>> {
    let hand = |_| {
        let (sender, mut pods) = mpsc::unbounded_channel::<Value>();
        let client = client.clone();
        tokio::spawn(async move {
            while let Some(pod) = pods.recv().await {
                if !text(&pod, "/metadata/name").starts_with(FLOOR) {
                    // One that was overtaken by another change comes again with it.
                    let _ = tend(&client, &pod).await;
                }
            }
        });
        sender
    };
    (0..HANDS).map(hand).collect()
}

/// What a kubelet does for a pod.
async fn tend(client: &kube::Client, pod: &Value) -> Result<(), CallError> {
    if is_terminating(pod) {
        return remove(client, &Key::of(pod), uid(pod)).await;
    }
    if text(pod, "/status/phase") != "Pending" {
        return Ok(());
    }
    make_ready(client, &Key::of(pod), uid(pod)).await
}

/// Lets a pod go that is to go.
pub(super) async fn remove(client: &kube::Client, key: &Key, uid: &str) -> Result<(), CallError> {
    let mut request = Request::delete(&Resource::PODS, key, uid);
    request.body["gracePeriodSeconds"] = 0.into();
    call(client, request).await.map(drop)
}

/// Makes a pod ready.
pub(super) async fn make_ready(
    client: &kube::Client,
    key: &Key,
    uid: &str,
) -> Result<(), CallError> {
    let status = json!({"phase": "Running", "podIP": "10.1.0.1",
        "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
    let patch = json!({"metadata": {"uid": uid}, "status": status});
    let request = Request::patch(Method::StrategicPatch, &Resource::PODS, key, patch);
    call(client, request.on("status")).await.map(drop)
}
