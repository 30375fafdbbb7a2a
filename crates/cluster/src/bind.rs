//! Binding: gives each pending pod the node, or says in its status and an event why it must wait.

mod demand;
mod fit;
mod ledger;
mod neighbours;
pub(crate) mod taints;
mod volumes;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Value, json};
use stead_controller::call::{CallError, Method, Request, call};
use stead_controller::events::{EventType, Recorder};
use stead_controller::queue::{Outcome, Queue};
use stead_controller::resource::{Key, Resource, is_terminating, list, text, uid};

use crate::claims::{SELECTED_NODE, annotation};
use crate::informer::{Cache, Change, Kit};
use crate::outcome;

use demand::Demand;
use fit::{Asking, Misfit};
use ledger::{Ledger, Shared, lock, place_of};
use neighbours::Town;
use volumes::{Found, Unusable, Volumes};

/// Bindings under way at once.
const CONCURRENCY: usize = 8;
/// How long a pod's claims may take to be bound before the pod is said to wait for them: usually they are made in the
/// same moment as the pod.
const CLAIMS_TAKE: Duration = Duration::from_millis(500);

/// Adds the controller to the kit.
pub(crate) fn register(kit: &mut Kit) {
    let queue: Queue<Key> = Queue::new();
    let ledger = Shared::default();
    let nodes = kit.cache(Resource::NODES);
    let others = |what_counts: fn(&Value) -> Option<&Value>| {
        on_others(Arc::clone(&ledger), queue.clone(), what_counts)
    };
    let volumes = others(|volume| volume.get("spec"));
    let namespaces = others(|namespace| namespace.pointer("/metadata/labels"));
    let binder = Arc::new(Binder {
        client: kit.client("default-scheduler"),
        recorder: kit.recorder("default-scheduler"),
        pods: kit.follow(
            Resource::PODS,
            on_pod(Arc::clone(&ledger), queue.clone(), nodes),
        ),
        nodes: kit.follow(Resource::NODES, on_node(Arc::clone(&ledger), queue.clone())),
        namespaces: kit.follow(Resource::NAMESPACES, namespaces),
        volumes: Volumes {
            claims: kit.follow(
                Resource::CLAIMS,
                on_claim(Arc::clone(&ledger), queue.clone()),
            ),
            volumes: kit.follow(Resource::VOLUMES, volumes),
            classes: kit.cache(Resource::STORAGE_CLASSES),
        },
        queue: queue.clone(),
        ledger,
    });
    kit.work(queue, CONCURRENCY, move |key| {
        let binder = Arc::clone(&binder);
        async move { outcome::of("bind", &key, binder.sync(&key).await) }
    });
}

fn on_pod(ledger: Shared, queue: Queue<Key>, nodes: Cache) -> impl Fn(&Change<'_>) {
    move |change| {
        if let Some(old) = change.old
            && change.new.is_none_or(|new| uid(new) != uid(old))
        {
            leave(&ledger, &queue, &nodes, old);
        }
        let Some(pod) = change.new else { return };
        let node = text(pod, "/spec/nodeName");
        if is_terminal(pod) {
            leave(&ledger, &queue, &nodes, pod);
        } else if !node.is_empty() {
            let mut ledger = lock(&ledger);
            if ledger.place(uid(pod), node, Demand::of(pod), pod) {
                wake(&queue, ledger.waiting_for_others());
            }
        } else if is_ours(pod) && change.old.is_none_or(|old| wants_another_look(old, pod)) {
            queue.add(change.key.clone());
        }
    }
}

fn wake(queue: &Queue<Key>, pods: impl IntoIterator<Item = Key>) {
    for pod in pods {
        queue.add(pod);
    }
}

/// Changes of a pending pod's status, which are mostly our own, are no reason to look again.
fn wants_another_look(old: &Value, new: &Value) -> bool {
    uid(old) != uid(new)
        || old.get("spec") != new.get("spec")
        || old.pointer("/metadata/labels") != new.pointer("/metadata/labels")
}

/// A pod is gone, or done: its room is free for those that wait.
fn leave(ledger: &Shared, queue: &Queue<Key>, nodes: &Cache, pod: &Value) {
    let mut ledger = lock(ledger);
    ledger.stop_waiting(&place_of(pod));
    ledger.patient.remove(uid(pod));
    let key = Key::of(pod);
    for claim in claims_of(pod) {
        ledger.forget_claim(&Key::new(&key.namespace, claim), &key);
    }
    let Some(node) = ledger.remove(uid(pod)) else {
        return;
    };
    let places = free_places(&ledger, nodes, &node);
    wake(queue, ledger.first_waiting(places));
    wake(queue, ledger.waiting_for_others());
}

/// How many that wait are worth a look when room was given back on a node.
fn free_places(ledger: &Ledger, nodes: &Cache, node: &str) -> usize {
    let used = ledger.used(node);
    nodes
        .get(&Key::new("", node))
        .and_then(|node| used.free_places(&node))
        .unwrap_or(1)
}

fn on_node(ledger: Shared, queue: Queue<Key>) -> impl Fn(&Change<'_>) {
    // A node's heartbeats change nothing here.
    let what_counts = |node: &Value| {
        let own = ["/spec", "/metadata/labels", "/status/allocatable"];
        (
            own.map(|pointer| node.pointer(pointer).cloned()),
            taints::wanted(node),
        )
    };
    move |change| {
        if change.old.map(what_counts) == change.new.map(what_counts) {
            return;
        }
        let mut ledger = lock(&ledger);
        wake(&queue, ledger.first_waiting(usize::MAX));
        wake(&queue, ledger.waiting_for_others());
    }
}

fn on_claim(ledger: Shared, queue: Queue<Key>) -> impl Fn(&Change<'_>) {
    move |change| wake(&queue, lock(&ledger).waiting_for_claim(change.key))
}

/// Objects that decide who may be beside whom: those who wait for others are asked again when what counts of one changes.
fn on_others(
    ledger: Shared,
    queue: Queue<Key>,
    what_counts: fn(&Value) -> Option<&Value>,
) -> impl Fn(&Change<'_>) {
    move |change| {
        if change.old.and_then(what_counts) != change.new.and_then(what_counts) {
            wake(&queue, lock(&ledger).waiting_for_others());
        }
    }
}

/// Pods of this scheduler that nothing else holds back.
fn is_ours(pod: &Value) -> bool {
    let scheduler = text(pod, "/spec/schedulerName");
    (scheduler.is_empty() || scheduler == "default-scheduler")
        && list(pod, "/spec/schedulingGates").is_empty()
}

fn is_terminal(pod: &Value) -> bool {
    matches!(text(pod, "/status/phase"), "Succeeded" | "Failed")
}

/// What a pod still waits for.
enum Wait {
    /// A claim that is missing, unbound or going.
    Claim(Unusable),
    /// Claims that are bound now that the pod's node is known.
    Binding {
        node: String,
        claims: Vec<Arc<Value>>,
    },
    /// Room on a node, or other pods.
    Room(String),
}

struct Binder {
    client: kube::Client,
    recorder: Recorder,
    pods: Cache,
    nodes: Cache,
    namespaces: Cache,
    volumes: Volumes,
    queue: Queue<Key>,
    ledger: Shared,
}

impl Binder {
    async fn sync(&self, key: &Key) -> Result<Outcome, CallError> {
        let Some(pod) = self.pods.get(key) else {
            return Ok(Outcome::Done);
        };
        if !text(&pod, "/spec/nodeName").is_empty()
            || is_terminating(&pod)
            || is_terminal(&pod)
            || !is_ours(&pod)
        {
            return Ok(Outcome::Done);
        }
        match self
            .claims_of(&pod)
            .and_then(|claims| self.reserve(&pod, claims))
        {
            Ok(node) => self.bind(&pod, &node).await,
            Err(wait) => self.wait(&pod, wait).await,
        }
    }

    /// The pod's claims, or the first that keeps it from being bound.
    fn claims_of(&self, pod: &Value) -> Result<Found, Wait> {
        let key = Key::of(pod);
        for claim in claims_of(pod) {
            let claim = Key::new(&key.namespace, claim);
            lock(&self.ledger).wait_for_claim(&claim, &key);
        }
        let found = self.volumes.of(&key.namespace, claims_of(pod));
        found.map_err(Wait::Claim)
    }

    /// Takes room for the pod on the first node that has it.
    fn reserve(&self, pod: &Value, claims: Found) -> Result<String, Wait> {
        let nodes = self.nodes.all();
        let namespaces = self.namespaces.all();
        let demand = Demand::of(pod);
        let mut ledger = lock(&self.ledger);
        let place = place_of(pod);
        match choose(pod, &demand, &claims, &nodes, &namespaces, &ledger) {
            Ok(node) if claims.choosing.is_empty() => {
                ledger.stop_waiting(&place);
                for claim in claims_of(pod) {
                    ledger.forget_claim(&Key::new(&place.2.namespace, claim), &place.2);
                }
                if ledger.place(uid(pod), &node, demand, pod) {
                    wake(&self.queue, ledger.waiting_for_others());
                }
                Ok(node)
            }
            Ok(node) => Err(Wait::Binding {
                node,
                claims: claims.choosing,
            }),
            Err(misfits) => {
                // Where pods as such have room, one behind this that asks for less may fit.
                if !misfits.contains_key(&Misfit::TooManyPods)
                    && let Some(next) = ledger.next_waiting(&place)
                {
                    self.queue.add(next);
                }
                ledger.wait(place, misfits.keys().any(Misfit::is_about_others));
                Err(Wait::Room(fit::sentence(nodes.len(), &misfits)))
            }
        }
    }

    async fn bind(&self, pod: &Value, node: &str) -> Result<Outcome, CallError> {
        let key = Key::of(pod);
        let binding = json!({
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": key.name, "namespace": key.namespace, "uid": uid(pod)},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        });
        let request = Request::patch(Method::Post, &Resource::PODS, &key, binding).on("binding");
        match call(&self.client, request).await {
            Ok(_) => {
                lock(&self.ledger).patient.remove(uid(pod));
                let message = format!("Successfully assigned {key} to {node}");
                self.recorder
                    .about(pod, EventType::Normal, "Scheduled", message);
                Ok(Outcome::Done)
            }
            Err(error) => {
                // When the answer was lost the pod may be bound: the watch tells, and its room is taken again.
                lock(&self.ledger).remove(uid(pod));
                if error.is_not_found() {
                    Ok(Outcome::Done)
                } else {
                    Err(error)
                }
            }
        }
    }

    async fn wait(&self, pod: &Value, wait: Wait) -> Result<Outcome, CallError> {
        let nodes = self.nodes.all().len();
        let why = match wait {
            Wait::Claim(Unusable { claim, why, soon }) => {
                tracing::debug!(pod = %Key::of(pod), %claim, "waits for a claim");
                let patience = self.patience(pod);
                if soon && !patience.is_zero() {
                    return Ok(Outcome::Recheck(patience));
                }
                format!("0/{nodes} nodes are available: {why}.")
            }
            Wait::Binding { node, claims } => {
                self.select_node(&node, &claims).await?;
                let patience = self.patience(pod);
                if !patience.is_zero() {
                    return Ok(Outcome::Recheck(patience));
                }
                let names = claims.iter().map(|claim| text(claim, "/metadata/name"));
                let names: Vec<_> = names.collect();
                format!("binding volumes: not bound yet: {}", names.join(", "))
            }
            Wait::Room(why) => why,
        };
        self.report(pod, &why).await?;
        Ok(Outcome::Done)
    }

    /// Tells those who make and bind volumes that the consumer of these claims is there, and where.
    async fn select_node(&self, node: &str, claims: &[Arc<Value>]) -> Result<(), CallError> {
        let unaware = claims
            .iter()
            .filter(|claim| annotation(claim, SELECTED_NODE) != node);
        for claim in unaware {
            let metadata = json!({"uid": uid(claim), "annotations": {SELECTED_NODE: node}});
            let patch = json!({ "metadata": metadata });
            let key = Key::of(claim);
            let request = Request::patch(Method::MergePatch, &Resource::CLAIMS, &key, patch);
            call(&self.client, request).await?;
        }
        Ok(())
    }

    /// How long the pod's claims still have.
    fn patience(&self, pod: &Value) -> Duration {
        let mut ledger = lock(&self.ledger);
        let until = ledger
            .patient
            .entry(uid(pod).to_owned())
            .or_insert_with(|| Instant::now() + CLAIMS_TAKE);
        until.saturating_duration_since(Instant::now())
    }

    /// Says in the pod's status and in an event why it waits; nothing when that was said before.
    async fn report(&self, pod: &Value, why: &str) -> Result<(), CallError> {
        let known = list(pod, "/status/conditions")
            .iter()
            .find(|condition| text(condition, "/type") == "PodScheduled");
        if known.is_some_and(|known| {
            text(known, "/message") == why && text(known, "/status") == "False"
        }) {
            return Ok(());
        }
        let since = match known.filter(|known| text(known, "/status") == "False") {
            Some(known) => known["lastTransitionTime"].clone(),
            None => Timestamp::now()
                .strftime("%Y-%m-%dT%H:%M:%SZ")
                .to_string()
                .into(),
        };
        let condition = json!({
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": why,
            "lastProbeTime": null,
            "lastTransitionTime": since,
        });
        // The UID keeps a namesake made meanwhile from getting this status.
        let patch = json!({"metadata": {"uid": uid(pod)}, "status": {"conditions": [condition]}});
        let request = Request::patch(
            Method::StrategicPatch,
            &Resource::PODS,
            &Key::of(pod),
            patch,
        )
        .on("status");
        match call(&self.client, request).await {
            Ok(_) => {
                self.recorder
                    .about(pod, EventType::Warning, "FailedScheduling", why);
                Ok(())
            }
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Names of the claims that a pod's volumes are on.
pub(crate) fn claims_of(pod: &Value) -> impl Iterator<Item = &str> {
    list(pod, "/spec/volumes").iter().filter_map(|volume| {
        let claim = volume
            .get("persistentVolumeClaim")?
            .get("claimName")?
            .as_str()?;
        Some(claim)
    })
}

/// The first node that the pod fits, or what keeps it off each.
fn choose(
    pod: &Value,
    demand: &Demand,
    claims: &Found,
    nodes: &[Arc<Value>],
    namespaces: &[Arc<Value>],
    ledger: &Ledger,
) -> Result<String, BTreeMap<Misfit, usize>> {
    let town = (neighbours::cares(pod) || ledger.anybody_keeps_away()).then(|| Town {
        nodes: nodes.iter().map(AsRef::as_ref).collect(),
        placed: ledger.placed(),
        namespaces: namespaces
            .iter()
            .map(|own| (text(own, "/metadata/name"), own.as_ref()))
            .collect(),
    });
    let asking = Asking {
        pod,
        demand,
        volumes: &claims.volumes,
        no_volume_free: claims.none_free,
        claim_in_use: claims
            .exclusive
            .iter()
            .any(|claim| ledger.is_used(claim, uid(pod))),
        town: town.as_ref(),
    };
    let mut misfits: BTreeMap<Misfit, usize> = BTreeMap::new();
    for node in nodes {
        let name = text(node, "/metadata/name");
        let own = fit::misfits(&asking, node, &ledger.used(name));
        if own.is_empty() {
            return Ok(name.to_owned());
        }
        for misfit in own {
            *misfits.entry(misfit).or_insert(0) += 1;
        }
    }
    Err(misfits)
}
