//! What is taken of each node, and who waits for what.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use serde_json::Value;
use stead_controller::resource::{Key, text};

use super::demand::Demand;
use super::neighbours::Neighbour;

/// The order in which those who wait get their turn: by priority, then by age.
pub(super) type Place = (Reverse<i64>, String, Key);

/// A pod's place among those who wait.
pub(super) fn place_of(pod: &Value) -> Place {
    let priority = pod.pointer("/spec/priority").and_then(Value::as_i64);
    (
        Reverse(priority.unwrap_or(0)),
        text(pod, "/metadata/creationTimestamp").to_owned(),
        Key::of(pod),
    )
}

/// A pod that has its node.
struct Placed {
    node: String,
    demand: Demand,
    neighbour: Neighbour,
}

/// What is taken of each node, and who waits for what.
#[derive(Default)]
pub(super) struct Ledger {
    /// By pod UID. Holds bindings that the cache does not show yet, too.
    placed: BTreeMap<String, Placed>,
    /// UIDs of those that keep some others away.
    keeping_away: BTreeSet<String>,
    /// By node.
    used: BTreeMap<String, Demand>,
    /// Pods that wait for room.
    for_room: BTreeSet<Place>,
    /// Pods that wait for other pods, their labels or their volumes to change.
    for_others: BTreeSet<Place>,
    /// Pods that wait for a claim.
    for_claim: BTreeMap<Key, BTreeSet<Key>>,
    /// By pod UID: until when its claims are given time to be bound before it is said to wait for them.
    pub(super) patient: BTreeMap<String, Instant>,
}

/// The ledger, as its users share it.
pub(super) type Shared = Arc<Mutex<Ledger>>;

/// Takes the ledger for a moment.
pub(super) fn lock(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    ledger
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Ledger {
    /// Puts a pod on a node, or notes what changed of one that is there. Whether others may care.
    pub(super) fn place(&mut self, uid: &str, node: &str, demand: Demand, pod: &Value) -> bool {
        let neighbour = Neighbour::of(pod);
        if let Some(known) = self.placed.get_mut(uid) {
            let changed = known.neighbour != neighbour;
            known.neighbour = neighbour;
            return changed;
        }
        self.used.entry(node.to_owned()).or_default().take(&demand);
        if neighbour.keeps_away() {
            self.keeping_away.insert(uid.to_owned());
        }
        let placed = Placed {
            node: node.to_owned(),
            demand,
            neighbour,
        };
        self.placed.insert(uid.to_owned(), placed);
        true
    }

    /// The node that the pod was on, if it was on one.
    pub(super) fn remove(&mut self, uid: &str) -> Option<String> {
        let Placed { node, demand, .. } = self.placed.remove(uid)?;
        self.keeping_away.remove(uid);
        if let Some(used) = self.used.get_mut(&node) {
            used.give_back(&demand);
        }
        Some(node)
    }

    /// What is taken of a node.
    pub(super) fn used(&self, node: &str) -> Demand {
        self.used.get(node).cloned().unwrap_or_default()
    }

    /// Every pod that has a node, with the node's name.
    pub(super) fn placed(&self) -> Vec<(&str, &Neighbour)> {
        let all = self.placed.values();
        all.map(|own| (own.node.as_str(), &own.neighbour)).collect()
    }

    /// Whether any pod keeps some others away.
    pub(super) fn anybody_keeps_away(&self) -> bool {
        !self.keeping_away.is_empty()
    }

    /// Whether another pod that has a node uses a claim.
    pub(super) fn is_used(&self, claim: &Key, by_other_than: &str) -> bool {
        let mut others = self.placed.iter().filter(|(uid, _)| *uid != by_other_than);
        others.any(|(_, own)| own.neighbour.uses(&claim.namespace, &claim.name))
    }

    /// The pod waits for a claim. Noted before the claim is read: whatever changes after the reading wakes the pod.
    pub(super) fn wait_for_claim(&mut self, claim: &Key, pod: &Key) {
        let pods = self.for_claim.entry(claim.clone()).or_default();
        pods.insert(pod.clone());
    }

    /// The pod no longer waits for a claim.
    pub(super) fn forget_claim(&mut self, claim: &Key, pod: &Key) {
        let Some(pods) = self.for_claim.get_mut(claim) else {
            return;
        };
        pods.remove(pod);
        if pods.is_empty() {
            self.for_claim.remove(claim);
        }
    }

    /// Takes those that wait for a claim.
    pub(super) fn waiting_for_claim(&mut self, claim: &Key) -> BTreeSet<Key> {
        self.for_claim.remove(claim).unwrap_or_default()
    }

    /// The pod waits for room, or for others.
    pub(super) fn wait(&mut self, place: Place, for_others: bool) {
        if for_others {
            self.for_others.insert(place);
        } else {
            self.for_room.insert(place);
        }
    }

    /// The pod waits for neither any more.
    pub(super) fn stop_waiting(&mut self, place: &Place) {
        self.for_room.remove(place);
        self.for_others.remove(place);
    }

    /// Takes the next that waits for room behind a place.
    pub(super) fn next_waiting(&mut self, place: &Place) -> Option<Key> {
        let next = self
            .for_room
            .range((Bound::Excluded(place), Bound::Unbounded))
            .next()
            .cloned()?;
        self.for_room.remove(&next);
        Some(next.2)
    }

    /// Takes the first of those that wait for room.
    pub(super) fn first_waiting(&mut self, most: usize) -> Vec<Key> {
        (0..most)
            .map_while(|_| self.for_room.pop_first())
            .map(|(_, _, key)| key)
            .collect()
    }

    /// Takes all that wait for others.
    pub(super) fn waiting_for_others(&mut self) -> Vec<Key> {
        let all = std::mem::take(&mut self.for_others);
        all.into_iter().map(|(_, _, key)| key).collect()
    }
}
