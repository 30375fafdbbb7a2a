//! The world that the controller lives in: an API server in memory, a pretend kubelet, controllers behind proxies.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use stead_apiserver::{ApiServer, Options, User};
use stead_controller::call::{CallError, Method, Request, call};
use stead_controller::reflect::{Delta, Part, reflect};
use stead_controller::resource::{Key, Resource, is_terminating, text, uid};
use tokio::sync::{mpsc, watch};

use crate::proxy::{Call, Proxy};

/// Longest wait for anything; only a failing test waits that long.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) type Objects = BTreeMap<String, Value>;

/// An API server with nothing but a kubelet; all of one namespace.
pub(crate) struct World {
    pub(crate) client: kube::Client,
    api: ApiServer,
    _end: Arc<watch::Sender<bool>>,
    stopped: watch::Receiver<bool>,
}

impl World {
    pub(crate) async fn new() -> World {
        let options = Options {
            assume_accounts: true,
            ..Options::default()
        };
        let api = ApiServer::open(options).expect("a server in memory");
        api.ensure_namespaces().await;
        let client = kube::Client::new(api.service(User::controller("test")), "default");
        let (end, stopped) = watch::channel(false);
        let world = World {
            client,
            api,
            _end: Arc::new(end),
            stopped,
        };
        tokio::spawn(kubelet(world.client.clone(), world.end()));
        world
    }

    /// A controller behind a proxy of its own.
    pub(crate) fn controller(&self) -> Proxy {
        let proxy = Proxy::new(self.api.service(User::controller("statefulset-controller")));
        self.start(&proxy);
        proxy
    }

    /// A proxy with nobody behind it yet.
    pub(crate) fn proxy(&self) -> Proxy {
        Proxy::new(self.api.service(User::controller("statefulset-controller")))
    }

    /// Starts a controller behind a proxy.
    pub(crate) fn start(&self, proxy: &Proxy) {
        let client = kube::Client::new(proxy.clone(), "default");
        let options = stead_controller::Options::default();
        tokio::spawn(stead_controller::run(client, options, self.end()));
    }

    fn end(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut stopped = self.stopped.clone();
        // The world's end is the sender's end.
        async move { drop(stopped.wait_for(|stop| *stop).await) }
    }

    pub(crate) async fn send(&self, request: Request) -> Value {
        let sent = call(&self.client, request).await;
        sent.unwrap_or_else(|error| panic!("{error}"))
    }

    pub(crate) async fn create(&self, resource: &Resource, object: Value) -> Value {
        self.send(Request::create(resource, object)).await
    }

    pub(crate) async fn get(&self, resource: &Resource, name: &str) -> Result<Value, CallError> {
        call(&self.client, Request::get(resource, &key(name))).await
    }

    /// Merges into a set.
    pub(crate) async fn merge(&self, set: &str, patch: Value) -> Value {
        let resource = &Resource::STATEFUL_SETS;
        self.send(Request::patch(
            Method::MergePatch,
            resource,
            &key(set),
            patch,
        ))
        .await
    }

    pub(crate) async fn scale(&self, set: &str, replicas: u32) {
        self.merge(set, json!({"spec": {"replicas": replicas}}))
            .await;
    }

    /// Another template: its pods are to be replaced.
    pub(crate) async fn roll(&self, set: &str, image: &str) {
        let containers = json!([{"name": "c", "image": image}]);
        let spec = json!({"template": {"spec": {"containers": containers}}});
        self.merge(set, json!({ "spec": spec })).await;
    }

    /// Gives the controller a reason to look at the set again.
    pub(crate) async fn stir(&self, set: &str, note: &str) {
        self.merge(set, json!({"metadata": {"annotations": {"note": note}}}))
            .await;
    }

    /// Deletes an object at once, as the garbage collector or a user would.
    pub(crate) async fn delete(&self, resource: &Resource, name: &str) {
        let object = self.get(resource, name).await.expect("it is there");
        let mut request = Request::delete(resource, &key(name), uid(&object));
        request.body["propagationPolicy"] = "Background".into();
        self.send(request).await;
    }

    /// Waits until the objects of a kind are as wanted; gives them, by name.
    pub(crate) async fn until(
        &self,
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
        let following = reflect(
            self.client.clone(),
            resource.clone(),
            Part::default(),
            sink,
            std::future::pending(),
        );
        let waiting = async {
            let found = receiver.wait_for(|(objects, listed)| *listed && wanted(objects));
            found.await.map(|found| found.0.clone()).ok()
        };
        let found = tokio::time::timeout(PATIENCE, async {
            tokio::select! { found = waiting => found, () = following => None }
        });
        let found = found.await.ok().flatten();
        match found {
            Some(found) => found,
            None => panic!(
                "in vain waited until {what}; there is {:#}",
                self.send(Request::list(resource, None)).await
            ),
        }
    }

    /// Waits until a set has so many pods, all of them ready and of its newest revision, and says so.
    pub(crate) async fn until_ready(&self, set: &str, replicas: i64) {
        let what = format!("{set} has {replicas} ready");
        self.until(&what, &Resource::STATEFUL_SETS, |sets| {
            let Some(set) = sets.get(set) else {
                return false;
            };
            let status = |field: &str| set["status"].get(field).cloned().unwrap_or(0.into());
            status("observedGeneration") == set["metadata"]["generation"]
                && ["replicas", "readyReplicas", "updatedReplicas"]
                    .iter()
                    .all(|field| status(field) == replicas)
        })
        .await;
    }

    /// Waits until the pods have these names.
    pub(crate) async fn until_pods(&self, names: &[&str]) -> Objects {
        let what = format!("the pods are {names:?}");
        self.until(&what, &Resource::PODS, |pods| {
            pods.keys().map(String::as_str).eq(names.iter().copied())
        })
        .await
    }
}

/// Waits until the calls through a proxy are as wanted; gives them.
pub(crate) async fn until_calls(
    proxy: &Proxy,
    what: &str,
    wanted: impl Fn(&[Call]) -> bool,
) -> Vec<Call> {
    let mut calls = proxy.subscribe();
    let found = tokio::time::timeout(PATIENCE, calls.wait_for(|calls| wanted(calls))).await;
    match found {
        Ok(found) => found.expect("the proxy lives").clone(),
        Err(_) => panic!(
            "in vain waited until {what}; there was {:#?}",
            proxy.calls().iter().map(Call::line).collect::<Vec<_>>()
        ),
    }
}

/// How many calls match.
pub(crate) fn count(calls: &[Call], matches: impl Fn(&Call) -> bool) -> usize {
    calls.iter().filter(|call| matches(call)).count()
}

/// The successful creates of pods, and how often each was asked for: `web-0` once, unless something went wrong.
pub(crate) fn creates(calls: &[Call]) -> BTreeMap<String, Vec<u16>> {
    let mut all: BTreeMap<String, Vec<u16>> = BTreeMap::new();
    for call in calls
        .iter()
        .filter(|call| call.verb == "POST" && call.path.ends_with("/pods"))
    {
        let name = text(&call.body, "/metadata/name").to_owned();
        all.entry(name).or_default().push(call.code);
    }
    all
}

/// Asserts what holds whatever happens: deletes name a UID, and no claim is deleted.
pub(crate) fn assert_harmless(calls: &[Call]) {
    for call in calls.iter().filter(|call| call.verb == "DELETE") {
        assert!(
            !text(&call.body, "/preconditions/uid").is_empty(),
            "{call:?}"
        );
        assert!(!call.path.contains("persistentvolumeclaims"), "{call:?}");
    }
}

pub(crate) fn key(name: &str) -> Key {
    Key::new("default", name)
}

/// A set of one claim each; its pods are on a node from the beginning.
pub(crate) fn set(name: &str, replicas: u32, policy: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "StatefulSet",
    "metadata": {"namespace": "default", "name": name},
    "spec": {
        "replicas": replicas,
        "serviceName": name,
        "podManagementPolicy": policy,
        "selector": {"matchLabels": {"app": name}},
        "template": {"metadata": {"labels": {"app": name}}, "spec": {
            "nodeName": "n1",
            "terminationGracePeriodSeconds": 5,
            "containers": [{"name": "c", "image": "a"}]}},
        "volumeClaimTemplates": [{"metadata": {"name": "data"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}],
    }})
}

fn apply(objects: &mut Objects, delta: Delta) {
    let named = |object: Value| (text(&object, "/metadata/name").to_owned(), object);
    match delta {
        Delta::Listing => {}
        Delta::Reset(all) => *objects = all.into_iter().map(named).collect(),
        Delta::Put(object) => objects.extend([named(object)]),
        Delta::Gone(object) => drop(objects.remove(text(&object, "/metadata/name"))),
    }
}

/// Makes pods ready, and lets those go that are to go.
async fn kubelet(client: kube::Client, end: impl Future<Output = ()>) {
    let (sender, mut pods) = mpsc::unbounded_channel();
    let sink = move |delta| match delta {
        Delta::Reset(all) => all.into_iter().for_each(|pod| drop(sender.send(pod))),
        Delta::Put(pod) => drop(sender.send(pod)),
        Delta::Listing | Delta::Gone(_) => {}
    };
    let following = reflect(client.clone(), Resource::PODS, Part::default(), sink, end);
    let living = async {
        while let Some(pod) = pods.recv().await {
            // Overtaken by another change: the watch tells of it.
            drop(live(&client, &pod).await);
        }
    };
    tokio::join!(following, living);
}

async fn live(client: &kube::Client, pod: &Value) -> Result<(), CallError> {
    let key = Key::of(pod);
    if is_terminating(pod) {
        let mut request = Request::delete(&Resource::PODS, &key, uid(pod));
        request.body["gracePeriodSeconds"] = 0.into();
        return call(client, request).await.map(drop);
    }
    if !text(pod, "/status/podIP").is_empty() {
        return Ok(());
    }
    let seen = json!({"uid": uid(pod), "resourceVersion": pod["metadata"]["resourceVersion"]});
    let status = json!({"phase": "Running", "podIP": "10.1.0.1",
        "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
    let patch = json!({"metadata": seen, "status": status});
    let request = Request::patch(Method::StrategicPatch, &Resource::PODS, &key, patch);
    call(client, request.on("status")).await.map(drop)
}
