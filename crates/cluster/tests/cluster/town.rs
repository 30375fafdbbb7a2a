//! A cluster in memory for tests: the API server, all controllers, and a pretend kubelet that makes bound pods ready.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use stead_apiserver::{ApiServer, Options, User};
use stead_cluster::{Controllers, Machine};
use stead_controller::call::{CallError, Method, Request, call};
use stead_controller::queue::{Outcome, Queue};
use stead_controller::reflect::{Delta, Part, reflect};
use stead_controller::resource::{
    Key, Resource, has_finalizer, is_terminating, list, resource_version, text, uid,
};
use tokio::sync::watch;

/// Longest wait for anything on a machine with much else to do; only a failing test waits that long.
const PATIENCE: Duration = Duration::from_secs(180);

/// A whole cluster, but for containers.
pub(crate) struct Town {
    pub(crate) client: kube::Client,
    /// Names of pods that the kubelet does not make ready.
    sick: Arc<Mutex<BTreeSet<String>>>,
    /// Names of pods that the kubelet does not stop.
    stuck: Arc<Mutex<BTreeSet<String>>>,
    kubelet: Queue<Key>,
    api: ApiServer,
    sets: Option<(watch::Sender<bool>, Running)>,
    _stop: watch::Sender<bool>,
}

type Running = tokio::task::JoinHandle<Result<(), stead_controller::Error>>;

pub(crate) type Objects = BTreeMap<Key, Value>;

impl Town {
    pub(crate) async fn new() -> Town {
        Town::with_room(110).await
    }

    /// A town whose node takes so many pods.
    pub(crate) async fn with_room(pods: usize) -> Town {
        // Only the first of the process's tests sets it; what is logged stands beside a test that fails.
        drop(
            tracing_subscriber::fmt()
                .with_test_writer()
                .with_max_level(tracing::Level::WARN)
                .try_init(),
        );
        let api = ApiServer::open(Options::default()).expect("a server in memory");
        let client = client_of(&api, "test");
        let (stop, stopped) = watch::channel(false);
        let until_stop = move || {
            let mut stopped = stopped.clone();
            async move { drop(stopped.wait_for(|stop| *stop).await) }
        };
        api.ensure_namespaces().await;
        let mut town = Town {
            client: client.clone(),
            sick: Arc::default(),
            stuck: Arc::default(),
            kubelet: Queue::new(),
            api: api.clone(),
            sets: None,
            _stop: stop,
        };
        town.create(&node(pods)).await;
        town.create(&standard_class()).await;
        let clients = api.clone();
        let controllers = Controllers {
            clients: Arc::new(move |name: &str| client_of(&clients, name)),
            certificate: "-----BEGIN CERTIFICATE-----".to_owned(),
            workloads: true,
            balancer: Some(Machine {
                address: std::net::Ipv4Addr::new(198, 51, 100, 7).into(),
                is_held: Arc::new(|protocol, port| (protocol, port) == ("TCP", 22)),
            }),
        };
        tokio::spawn(controllers.run(until_stop()));
        town.start_sets();
        town.start_kubelet(until_stop(), until_stop());
        tokio::spawn(node_volumes(client_of(&api, "kubelet"), until_stop()));
        // Without it the API takes no pods.
        town.until_one("an account", &Resource::SERVICE_ACCOUNTS, "default", |_| {
            true
        })
        .await;
        town
    }

    /// Starts the StatefulSet controller, another one if one ran before.
    pub(crate) fn start_sets(&mut self) {
        let (stop, mut stopped) = watch::channel(false);
        let until = async move { drop(stopped.wait_for(|stop| *stop).await) };
        let client = client_of(&self.api, "statefulset-controller");
        let running = tokio::spawn(stead_controller::run(
            client,
            stead_controller::Options::default(),
            until,
        ));
        self.sets = Some((stop, running));
    }

    /// Ends the StatefulSet controller; what it has under way is finished.
    pub(crate) async fn stop_sets(&mut self) {
        let (stop, running) = self.sets.take().expect("it runs");
        stop.send_replace(true);
        running.await.expect("no panic").expect("no error");
    }

    fn start_kubelet(
        &self,
        first: impl Future<Output = ()> + Send + 'static,
        second: impl Future<Output = ()> + Send + 'static,
    ) {
        let (client, queue) = (self.client.clone(), self.kubelet.clone());
        let pods: Arc<Mutex<Objects>> = Arc::default();
        let sink = {
            let (pods, queue) = (Arc::clone(&pods), queue.clone());
            move |delta| {
                for key in apply(&mut pods.lock().expect("no panic"), delta) {
                    queue.add(key);
                }
            }
        };
        tokio::spawn(reflect(
            client.clone(),
            Resource::PODS,
            Part::default(),
            sink,
            first,
        ));
        let (sick, stuck) = (Arc::clone(&self.sick), Arc::clone(&self.stuck));
        tokio::spawn(async move {
            let work = move |key: Key| {
                let pod = pods.lock().expect("no panic").get(&key).cloned();
                let is_sick = sick.lock().expect("no panic").contains(&key.name);
                let is_stuck = stuck.lock().expect("no panic").contains(&key.name);
                let client = client.clone();
                async move {
                    let Some(pod) = pod else { return Outcome::Done };
                    match live(&client, &pod, is_sick, is_stuck).await {
                        Err(error) if !error.is_not_found() && !error.is_conflict() => {
                            Outcome::Retry
                        }
                        Ok(()) | Err(_) => Outcome::Done,
                    }
                }
            };
            queue.serve(16, work, second).await;
        });
    }

    /// The kubelet makes the pod of this name ready no more, or again.
    pub(crate) fn set_sick(&self, key: &str, sick: bool) {
        mark(&self.sick, key, sick);
        self.kubelet.add(key_of(key));
    }

    /// The kubelet does not let the pod of this name go, or again does.
    pub(crate) fn set_stuck(&self, key: &str, stuck: bool) {
        mark(&self.stuck, key, stuck);
        self.kubelet.add(key_of(key));
    }

    /// Creates an object that carries its apiVersion and kind.
    pub(crate) async fn create(&self, object: &Value) -> Value {
        let request = Request::create(&resource(object), object.clone());
        call(&self.client, request)
            .await
            .unwrap_or_else(|error| panic!("{error}: {object}"))
    }

    pub(crate) async fn get(&self, resource: &Resource, key: &str) -> Result<Value, CallError> {
        call(&self.client, Request::get(resource, &key_of(key))).await
    }

    pub(crate) async fn merge(&self, resource: &Resource, key: &str, patch: Value) -> Value {
        let request = Request::patch(Method::MergePatch, resource, &key_of(key), patch);
        call(&self.client, request)
            .await
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// Merges into the status of an object.
    pub(crate) async fn status(&self, resource: &Resource, key: &str, status: Value) {
        let patch = json!({ "status": status });
        let request = Request::patch(Method::MergePatch, resource, &key_of(key), patch);
        call(&self.client, request.on("status"))
            .await
            .unwrap_or_else(|error| panic!("{error}"));
    }

    /// Lets a set of this name come and go. Every queue is served in order, so what waited in the controllers' queues
    /// before it has had its turn when this returns.
    pub(crate) async fn pass_a_mark(&self, name: &str) {
        let mut mark = web(1);
        mark["metadata"]["name"] = name.into();
        mark["spec"]["selector"]["matchLabels"]["app"] = name.into();
        mark["spec"]["template"]["metadata"]["labels"]["app"] = name.into();
        let (pod, claim) = (format!("{name}-0"), format!("data-{name}-0"));
        self.create(&mark).await;
        self.until_ready(name, 1).await;
        self.until_told("Scheduled", &pod).await;
        self.until_told("ProvisioningSucceeded", &claim).await;
        self.delete(&Resource::STATEFUL_SETS, name, "Background")
            .await;
        self.until_gone(&Resource::PODS, &pod).await;
        self.delete(&Resource::CLAIMS, &claim, "Background").await;
        self.until("its volume is gone", &Resource::VOLUMES, |volumes| {
            volumes
                .values()
                .all(|own| text(own, "/spec/claimRef/name") != claim)
        })
        .await;
    }

    /// The resourceVersions of all that belongs to a set, the events about it included.
    pub(crate) async fn versions_of(&self, set: &str) -> BTreeMap<String, u64> {
        let kinds = [
            Resource::STATEFUL_SETS,
            Resource::REVISIONS,
            Resource::PODS,
            Resource::CLAIMS,
            Resource::VOLUMES,
            Resource::EVENTS,
        ];
        let names = [
            "/metadata/name",
            "/spec/claimRef/name",
            "/involvedObject/name",
        ];
        let is_own = |object: &Value| {
            names.iter().any(|name| {
                let name = text(object, name);
                name.trim_start_matches("data-").starts_with(set)
            })
        };
        let mut versions = BTreeMap::new();
        for kind in kinds {
            let all = call(&self.client, Request::list(&kind, None))
                .await
                .expect("a list");
            for own in list(&all, "/items").iter().filter(|own| is_own(own)) {
                let name = format!("{} {}", kind.plural, Key::of(own));
                versions.insert(name, resource_version(own).expect("a version"));
            }
        }
        versions
    }

    /// Deletes an object with a propagation policy.
    pub(crate) async fn delete(&self, resource: &Resource, key: &str, policy: &str) {
        let body =
            json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": policy});
        let request = Request {
            method: Method::Delete,
            path: resource.object(&key_of(key)),
            body,
        };
        call(&self.client, request)
            .await
            .unwrap_or_else(|error| panic!("{error}"));
    }

    /// Waits until the objects of a kind are as wanted; gives them.
    pub(crate) async fn until(
        &self,
        what: &str,
        resource: &Resource,
        wanted: impl Fn(&Objects) -> bool,
    ) -> Objects {
        until(&self.client, what, resource, wanted).await
    }

    /// Waits until one object is as wanted; gives it.
    pub(crate) async fn until_one(
        &self,
        what: &str,
        resource: &Resource,
        key: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Value {
        let key = key_in(resource, key);
        let mut found = self
            .until(what, resource, |objects| {
                objects.get(&key).is_some_and(&wanted)
            })
            .await;
        found.remove(&key).expect("just seen")
    }

    /// Waits until an object is gone.
    pub(crate) async fn until_gone(&self, resource: &Resource, key: &str) {
        let key = key_in(resource, key);
        self.until(&format!("{key} is gone"), resource, |objects| {
            !objects.contains_key(&key)
        })
        .await;
    }

    /// Waits until a set has so many ready pods and no others.
    pub(crate) async fn until_ready(&self, set: &str, replicas: i64) {
        self.until_counts(set, replicas, replicas).await;
    }

    /// Waits until a set has so many ready of so many pods.
    pub(crate) async fn until_counts(&self, set: &str, ready: i64, replicas: i64) {
        let what = format!("{set} has {ready} of {replicas} ready");
        self.until_one(&what, &Resource::STATEFUL_SETS, set, |set| {
            let count = |field: &str| {
                set["status"]
                    .get(field)
                    .and_then(Value::as_i64)
                    .unwrap_or(0)
            };
            set["status"]["observedGeneration"] == set["metadata"]["generation"]
                && count("readyReplicas") == ready
                && count("replicas") == replicas
        })
        .await;
    }

    /// Waits for an event with this reason about the object of this name; gives its message.
    pub(crate) async fn until_told(&self, reason: &str, about: &str) -> String {
        let key = key_of(about);
        let is_it = |event: &Value| {
            text(event, "/reason") == reason && text(event, "/involvedObject/name") == key.name
        };
        let what = format!("an event {reason} about {about}");
        let events = self
            .until(&what, &Resource::EVENTS, |events| {
                events.values().any(is_it)
            })
            .await;
        events
            .values()
            .find(|event| is_it(event))
            .map(|event| text(event, "/message").to_owned())
            .expect("just seen")
    }

    /// Records what happens to the pods of a namespace from now on: `+web-0`, `-web-0`.
    pub(crate) async fn record_pods(&self) -> Recording {
        let (sender, steps) = watch::channel(Vec::new());
        let (listed, mut is_listed) = watch::channel(false);
        let mut known = Objects::new();
        let sink = move |delta: Delta| {
            let before: BTreeSet<Key> = known.keys().cloned().collect();
            let is_list = matches!(delta, Delta::Reset(_));
            apply(&mut known, delta);
            let after: BTreeSet<Key> = known.keys().cloned().collect();
            if is_list {
                listed.send_replace(true);
                return;
            }
            let new = after
                .difference(&before)
                .map(|key| format!("+{}", key.name));
            let gone = before
                .difference(&after)
                .map(|key| format!("-{}", key.name));
            let steps: Vec<String> = new.chain(gone).collect();
            sender.send_if_modified(|all| {
                all.extend(steps.iter().cloned());
                !steps.is_empty()
            });
        };
        tokio::spawn(reflect(
            self.client.clone(),
            Resource::PODS,
            Part::default(),
            sink,
            std::future::pending(),
        ));
        is_listed
            .wait_for(|listed| *listed)
            .await
            .expect("the watch lives");
        Recording { steps }
    }
}

/// Waits until the objects of a kind are as wanted; gives them.
pub(crate) async fn until(
    client: &kube::Client,
    what: &str,
    resource: &Resource,
    wanted: impl Fn(&Objects) -> bool,
) -> Objects {
    let (sender, mut receiver) = watch::channel((Objects::new(), false));
    let sink = move |delta: Delta| {
        sender.send_modify(|(objects, listed)| {
            *listed |= matches!(delta, Delta::Reset(_));
            apply(objects, delta);
        });
    };
    let waiting = async move {
        let found = receiver
            .wait_for(|(objects, listed)| *listed && wanted(objects))
            .await;
        found.map(|found| found.0.clone()).ok()
    };
    let following = reflect(
        client.clone(),
        resource.clone(),
        Part::default(),
        sink,
        std::future::pending(),
    );
    let found = tokio::time::timeout(PATIENCE, async {
        tokio::select! { found = waiting => found, () = following => None }
    });
    match found.await {
        Ok(Some(found)) => found,
        Ok(None) | Err(_) => panic!(
            "in vain waited until {what}; there is {}",
            picture(client, resource).await
        ),
    }
}

async fn picture(client: &kube::Client, resource: &Resource) -> String {
    match call(client, Request::list(resource, None)).await {
        Ok(all) => list(&all, "/items")
            .iter()
            .map(|own| format!("\n  {own}"))
            .collect(),
        Err(error) => error.to_string(),
    }
}

/// What happened to pods, in order.
pub(crate) struct Recording {
    steps: watch::Receiver<Vec<String>>,
}

impl Recording {
    /// Waits until so many steps have been seen; gives all.
    pub(crate) async fn steps(&mut self, count: usize) -> Vec<String> {
        let waiting = self.steps.wait_for(|steps| steps.len() >= count);
        let found = tokio::time::timeout(PATIENCE, waiting).await;
        found.expect("in time").expect("the watch lives").clone()
    }
}

fn apply(objects: &mut Objects, delta: Delta) -> Vec<Key> {
    match delta {
        Delta::Listing => Vec::new(),
        Delta::Reset(all) => {
            *objects = all
                .into_iter()
                .map(|object| (Key::of(&object), object))
                .collect();
            objects.keys().cloned().collect()
        }
        Delta::Put(object) => {
            let key = Key::of(&object);
            objects.insert(key.clone(), object);
            vec![key]
        }
        Delta::Gone(object) => {
            objects.remove(&Key::of(&object));
            Vec::new()
        }
    }
}

fn mark(names: &Mutex<BTreeSet<String>>, key: &str, marked: bool) {
    let mut names = names.lock().expect("no panic");
    let name = key_of(key).name;
    if marked {
        names.insert(name);
    } else {
        names.remove(&name);
    }
}

/// What a kubelet does for a pod, in one step.
async fn live(
    client: &kube::Client,
    pod: &Value,
    is_sick: bool,
    is_stuck: bool,
) -> Result<(), CallError> {
    let key = Key::of(pod);
    if text(pod, "/spec/nodeName").is_empty() {
        return Ok(());
    }
    if is_terminating(pod) {
        if is_stuck {
            return Ok(());
        }
        let mut request = Request::delete(&Resource::PODS, &key, uid(pod));
        request.body["gracePeriodSeconds"] = 0.into();
        return call(client, request).await.map(drop);
    }
    // As a kubelet, it brings nothing back to life.
    if matches!(text(pod, "/status/phase"), "Failed" | "Succeeded") {
        return Ok(());
    }
    let ready = if is_sick { "False" } else { "True" };
    let known = list(pod, "/status/conditions")
        .iter()
        .find(|own| text(own, "/type") == "Ready");
    if text(pod, "/status/phase") == "Running"
        && known.is_some_and(|own| text(own, "/status") == ready)
    {
        return Ok(());
    }
    let now = jiff::Timestamp::now()
        .strftime("%Y-%m-%dT%H:%M:%SZ")
        .to_string();
    let status = json!({
        "phase": "Running",
        "podIP": "10.1.0.1",
        "podIPs": [{"ip": "10.1.0.1"}],
        "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": now}],
    });
    // Of the version that was seen: a test may have written another status since, and the watch will tell of it.
    let seen = json!({"uid": uid(pod), "resourceVersion": pod["metadata"]["resourceVersion"]});
    let patch = json!({"metadata": seen, "status": status});
    call(
        client,
        Request::patch(Method::StrategicPatch, &Resource::PODS, &key, patch).on("status"),
    )
    .await
    .map(drop)
}

/// What the node does for volumes: it removes their data and lets them go.
async fn node_volumes(client: kube::Client, until: impl Future<Output = ()>) {
    let (sender, mut going) = tokio::sync::mpsc::unbounded_channel();
    let sink = move |delta| {
        let volumes = match delta {
            Delta::Put(volume) => vec![volume],
            Delta::Reset(volumes) => volumes,
            Delta::Listing | Delta::Gone(_) => Vec::new(),
        };
        for volume in volumes {
            if is_terminating(&volume) && has_finalizer(&volume, "stead.dev/volume") {
                drop(sender.send(volume));
            }
        }
    };
    let removing = async {
        while let Some(volume) = going.recv().await {
            let patch =
                json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["stead.dev/volume"]}});
            drop(
                call(
                    &client,
                    Request::patch(
                        Method::StrategicPatch,
                        &Resource::VOLUMES,
                        &Key::of(&volume),
                        patch,
                    ),
                )
                .await,
            );
        }
    };
    tokio::join!(
        removing,
        reflect(
            client.clone(),
            Resource::VOLUMES,
            Part::default(),
            sink,
            until
        )
    );
}

fn client_of(api: &ApiServer, name: &str) -> kube::Client {
    kube::Client::new(api.service(User::controller(name)), "default")
}

fn node(pods: usize) -> Value {
    let amounts = json!({"cpu": "64", "memory": "256Gi", "pods": pods.to_string()});
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "labels": {"kubernetes.io/hostname": "n1"}},
        "status": {"capacity": amounts, "allocatable": amounts, "conditions": [{"type": "Ready", "status": "True"}]}})
}

fn standard_class() -> Value {
    json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
        "metadata": {"name": "standard", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": "stead.dev/volume"})
}

/// `namespace/name`, or a name alone in `default`; for kinds without namespaces the namespace does not matter.
pub(crate) fn key_of(key: &str) -> Key {
    match key.split_once('/') {
        Some((namespace, name)) => Key::new(namespace, name),
        None => Key::new("default", key),
    }
}

fn key_in(resource: &Resource, key: &str) -> Key {
    let key = key_of(key);
    if resource.namespaced {
        key
    } else {
        Key::new("", key.name)
    }
}

fn resource(object: &Value) -> Resource {
    let known = [
        Resource::PODS,
        Resource::CLAIMS,
        Resource::VOLUMES,
        Resource::NODES,
        Resource::SERVICES,
        Resource::NAMESPACES,
        Resource::CONFIG_MAPS,
        Resource::STATEFUL_SETS,
        Resource::STORAGE_CLASSES,
        Resource::DISRUPTION_BUDGETS,
        Resource::PRIORITY_CLASSES,
    ];
    let kind = text(object, "/kind");
    known
        .into_iter()
        .find(|own| own.kind == kind)
        .unwrap_or_else(|| panic!("name the resource of {kind} here"))
}

/// A set called `web` of so many replicas with one claim each.
pub(crate) fn web(replicas: usize) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "StatefulSet",
    "metadata": {"namespace": "default", "name": "web"},
    "spec": {
        "replicas": replicas,
        "serviceName": "web",
        "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {
            "terminationGracePeriodSeconds": 5,
            "containers": [{"name": "c", "image": "stead.dev/host", "ports": [{"name": "http", "containerPort": 80}]}]}},
        "volumeClaimTemplates": [{"metadata": {"name": "data"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}],
    }})
}
