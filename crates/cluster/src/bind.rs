//! Binding: gives each pending pod the node, or says in its status and an event why it must wait.

mod fit;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Value, json};
use stead_controller::call::{CallError, Method, Request, call};
use stead_controller::events::{EventType, Recorder};
use stead_controller::queue::{Outcome, Queue};
use stead_controller::resource::{Key, Resource, is_terminating, list, text, uid};

use crate::bind::fit::{Demand, Misfit};
use crate::informer::{Cache, Change, Kit};
use crate::outcome;

/// Bindings under way at once.
const CONCURRENCY: usize = 8;
/// How long a pod's claims may take to be bound before the pod is said to wait for them: usually they are made in the
/// same moment as the pod.
const CLAIMS_TAKE: Duration = Duration::from_millis(500);

/// Adds the controller to the kit.
pub(crate) fn register(kit: &mut Kit) {
    let queue: Queue<Key> = Queue::new();
    let ledger = Arc::new(Mutex::new(Ledger::default()));
    let nodes = kit.cache(Resource::NODES);
    let binder = Arc::new(Binder {
        client: kit.client("default-scheduler"),
        recorder: kit.recorder("default-scheduler"),
        pods: kit.follow(
            Resource::PODS,
            on_pod(Arc::clone(&ledger), queue.clone(), nodes),
        ),
        nodes: kit.follow(Resource::NODES, on_node(Arc::clone(&ledger), queue.clone())),
        claims: kit.follow(
            Resource::CLAIMS,
            on_claim(Arc::clone(&ledger), queue.clone()),
        ),
        queue: queue.clone(),
        ledger,
    });
    kit.work(queue, CONCURRENCY, move |key| {
        let binder = Arc::clone(&binder);
        async move { outcome::of("bind", &key, binder.sync(&key).await) }
    });
}

/// What is taken of each node, and who waits for what.
#[derive(Default)]
struct Ledger {
    /// By pod UID: where it is and what it takes. Holds bindings that the cache does not show yet, too.
    placed: BTreeMap<String, (String, Demand)>,
    /// By node.
    used: BTreeMap<String, Demand>,
    /// Pods that wait for room, in the order in which they get it.
    for_room: BTreeSet<(String, Key)>,
    /// Pods that wait for a claim.
    for_claim: BTreeMap<Key, BTreeSet<Key>>,
    /// By pod UID: until when its claims are given time to be bound before it is said to wait for them.
    patient: BTreeMap<String, Instant>,
}

impl Ledger {
    fn place(&mut self, uid: &str, node: &str, demand: Demand) {
        if self.placed.contains_key(uid) {
            return;
        }
        self.used.entry(node.to_owned()).or_default().take(&demand);
        self.placed
            .insert(uid.to_owned(), (node.to_owned(), demand));
    }

    /// The node that the pod was on, if it was on one.
    fn remove(&mut self, uid: &str) -> Option<String> {
        let (node, demand) = self.placed.remove(uid)?;
        if let Some(used) = self.used.get_mut(&node) {
            used.give_back(&demand);
        }
        Some(node)
    }

    /// The pod no longer waits for a claim.
    fn forget_claim(&mut self, claim: &Key, pod: &Key) {
        let Some(pods) = self.for_claim.get_mut(claim) else {
            return;
        };
        pods.remove(pod);
        if pods.is_empty() {
            self.for_claim.remove(claim);
        }
    }

    /// Takes the next that waits for room behind a place.
    fn next_waiting(&mut self, place: &(String, Key)) -> Option<Key> {
        let next = self
            .for_room
            .range((Bound::Excluded(place), Bound::Unbounded))
            .next()
            .cloned()?;
        self.for_room.remove(&next);
        Some(next.1)
    }

    /// Takes the first of those that wait for room.
    fn first_waiting(&mut self, most: usize) -> Vec<Key> {
        (0..most)
            .map_while(|_| self.for_room.pop_first())
            .map(|(_, key)| key)
            .collect()
    }
}

fn lock(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    ledger
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn on_pod(ledger: Arc<Mutex<Ledger>>, queue: Queue<Key>, nodes: Cache) -> impl Fn(&Change<'_>) {
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
            lock(&ledger).place(uid(pod), node, Demand::of(pod));
        } else if is_ours(pod) && change.old.is_none_or(|old| wants_another_look(old, pod)) {
            queue.add(change.key.clone());
        }
    }
}

/// Changes of a pending pod's status, which are mostly our own, are no reason to look again.
fn wants_another_look(old: &Value, new: &Value) -> bool {
    uid(old) != uid(new) || old.get("spec") != new.get("spec")
}

/// A pod is gone, or done: its room is free for those that wait.
fn leave(ledger: &Mutex<Ledger>, queue: &Queue<Key>, nodes: &Cache, pod: &Value) {
    let mut ledger = lock(ledger);
    ledger.for_room.remove(&waiting_place(pod));
    ledger.patient.remove(uid(pod));
    let key = Key::of(pod);
    for claim in claims_of(pod) {
        ledger.forget_claim(&Key::new(&key.namespace, claim), &key);
    }
    let Some(node) = ledger.remove(uid(pod)) else {
        return;
    };
    let places = free_places(&ledger, nodes, &node);
    for key in ledger.first_waiting(places) {
        queue.add(key);
    }
}

/// How many that wait are worth a look when room was given back on a node.
fn free_places(ledger: &Ledger, nodes: &Cache, node: &str) -> usize {
    let used = ledger.used.get(node).cloned().unwrap_or_default();
    nodes
        .get(&Key::new("", node))
        .and_then(|node| fit::free_places(&node, &used))
        .unwrap_or(1)
}

fn waiting_place(pod: &Value) -> (String, Key) {
    (
        text(pod, "/metadata/creationTimestamp").to_owned(),
        Key::of(pod),
    )
}

fn on_node(ledger: Arc<Mutex<Ledger>>, queue: Queue<Key>) -> impl Fn(&Change<'_>) {
    // A node's heartbeats change nothing here.
    let what_counts = |node: &Value| {
        ["/spec", "/metadata/labels", "/status/allocatable"]
            .map(|pointer| node.pointer(pointer).cloned())
    };
    move |change| {
        if change.old.map(what_counts) == change.new.map(what_counts) {
            return;
        }
        for key in lock(&ledger).first_waiting(usize::MAX) {
            queue.add(key);
        }
    }
}

fn on_claim(ledger: Arc<Mutex<Ledger>>, queue: Queue<Key>) -> impl Fn(&Change<'_>) {
    move |change| {
        for pod in lock(&ledger)
            .for_claim
            .remove(change.key)
            .into_iter()
            .flatten()
        {
            queue.add(pod);
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
    Claim { claim: Key, why: String, soon: bool },
    /// Room on a node.
    Room(String),
}

struct Binder {
    client: kube::Client,
    recorder: Recorder,
    pods: Cache,
    nodes: Cache,
    claims: Cache,
    queue: Queue<Key>,
    ledger: Arc<Mutex<Ledger>>,
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
        let placed = match self.waits_for_claim(&pod) {
            Some(wait) => Err(wait),
            None => self.reserve(&pod),
        };
        match placed {
            Ok(node) => self.bind(&pod, &node).await,
            Err(wait) => self.wait(&pod, wait).await,
        }
    }

    /// The first of the pod's claims that keeps it from being bound.
    fn waits_for_claim(&self, pod: &Value) -> Option<Wait> {
        let namespace = text(pod, "/metadata/namespace");
        claims_of(pod)
            .map(|name| Key::new(namespace, name))
            .find_map(|claim| {
                // Registered before the claim is read: whatever changes after the reading wakes the pod.
                lock(&self.ledger)
                    .for_claim
                    .entry(claim.clone())
                    .or_default()
                    .insert(Key::of(pod));
                let Some((why, soon)) = self.why_unbound(&claim) else {
                    lock(&self.ledger).forget_claim(&claim, &Key::of(pod));
                    return None;
                };
                Some(Wait::Claim { claim, why, soon })
            })
    }

    /// Why a claim cannot be used yet, in the scheduler's words, and whether that may pass by itself.
    fn why_unbound(&self, key: &Key) -> Option<(String, bool)> {
        let name = &key.name;
        let Some(claim) = self.claims.get(key) else {
            return Some((format!("persistentvolumeclaim \"{name}\" not found"), true));
        };
        if is_terminating(&claim) {
            return Some((
                format!("persistentvolumeclaim \"{name}\" is being deleted"),
                false,
            ));
        }
        match text(&claim, "/status/phase") {
            "Bound" => None,
            "Lost" => {
                let volume = text(&claim, "/spec/volumeName");
                Some((
                    format!(
                        "persistentvolumeclaim \"{name}\" bound to non-existent persistentvolume \"{volume}\""
                    ),
                    false,
                ))
            }
            _ => Some((
                "pod has unbound immediate PersistentVolumeClaims".to_owned(),
                true,
            )),
        }
    }

    /// Takes room for the pod on the first node that has it.
    fn reserve(&self, pod: &Value) -> Result<String, Wait> {
        let nodes = self.nodes.all();
        let demand = Demand::of(pod);
        let mut ledger = lock(&self.ledger);
        let mut misfits: BTreeMap<Misfit, usize> = BTreeMap::new();
        for node in &nodes {
            let name = text(node, "/metadata/name");
            let used = ledger.used.get(name).cloned().unwrap_or_default();
            let own = fit::misfits(pod, &demand, node, &used);
            if own.is_empty() {
                ledger.for_room.remove(&waiting_place(pod));
                ledger.place(uid(pod), name, demand);
                return Ok(name.to_owned());
            }
            for misfit in own {
                *misfits.entry(misfit).or_insert(0) += 1;
            }
        }
        let place = waiting_place(pod);
        // Where pods as such have room, one behind this that asks for less may fit.
        if !misfits.contains_key(&Misfit::TooManyPods)
            && let Some(next) = ledger.next_waiting(&place)
        {
            self.queue.add(next);
        }
        ledger.for_room.insert(place);
        Err(Wait::Room(no_room(nodes.len(), &misfits)))
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
        let why = match wait {
            Wait::Claim { claim, why, soon } => {
                tracing::debug!(pod = %Key::of(pod), %claim, "waits for a claim");
                let patience = self.patience(pod);
                if soon && !patience.is_zero() {
                    return Ok(Outcome::Recheck(patience));
                }
                format!("0/{} nodes are available: {why}.", self.nodes.all().len())
            }
            Wait::Room(why) => why,
        };
        self.report(pod, &why).await?;
        Ok(Outcome::Done)
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

/// The scheduler's sentence for a pod that fits nowhere.
fn no_room(nodes: usize, misfits: &BTreeMap<Misfit, usize>) -> String {
    if nodes == 0 {
        return "no nodes available to schedule pods".to_owned();
    }
    let mut reasons: Vec<String> = misfits
        .iter()
        .map(|(misfit, count)| format!("{count} {misfit}"))
        .collect();
    reasons.sort();
    format!("0/{nodes} nodes are available: {}.", reasons.join(", "))
}
