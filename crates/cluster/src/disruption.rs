//! Disruption budgets: how many of a budget's pods may be evicted now.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};
use stead_controller::call::{CallError, Method, Request, call};
use stead_controller::queue::{Outcome, Queue};
use stead_controller::resource::{Key, Resource, controller_of, is_terminating, list, text, uid};

use crate::informer::{Cache, Change, Kit};
use crate::outcome;
use crate::selector::selector_matches;

/// Budgets under way at once.
const CONCURRENCY: usize = 4;
/// How long an eviction that was granted counts as a disruption before its pod must be seen to go. upstream: 2 min.
const EVICTION_TAKES: SignedDuration = SignedDuration::from_mins(2);

/// Adds the controller to the kit.
pub(crate) fn register(kit: &mut Kit) {
    let queue: Queue<Key> = Queue::new();
    let budgets = kit.follow(Resource::DISRUPTION_BUDGETS, {
        let queue = queue.clone();
        move |change: &Change<'_>| queue.add(change.key.clone())
    });
    let keeper = Arc::new(Keeper {
        client: kit.client("disruption-controller"),
        pods: kit.follow(Resource::PODS, on_pod(queue.clone(), budgets.clone())),
        sets: kit.follow(
            Resource::STATEFUL_SETS,
            on_set(queue.clone(), budgets.clone()),
        ),
        budgets,
    });
    kit.work(queue, CONCURRENCY, move |key| {
        let keeper = Arc::clone(&keeper);
        async move { outcome::of("disruption", &key, keeper.sync(&key).await) }
    });
}

fn on_pod(queue: Queue<Key>, budgets: Cache) -> impl Fn(&Change<'_>) {
    move |change| {
        for budget in budgets.list(&change.key.namespace) {
            let covers = |pod: Option<&Value>| pod.is_some_and(|pod| covers(&budget, pod));
            if covers(change.old) || covers(change.new) {
                queue.add(Key::of(&budget));
            }
        }
    }
}

fn on_set(queue: Queue<Key>, budgets: Cache) -> impl Fn(&Change<'_>) {
    let replicas = |set: &Value| set.pointer("/spec/replicas").cloned();
    move |change| {
        if change.old.map(replicas) != change.new.map(replicas) {
            for budget in budgets.list(&change.key.namespace) {
                queue.add(Key::of(&budget));
            }
        }
    }
}

/// Whether a budget covers a pod. An empty selector covers all, a missing one none.
fn covers(budget: &Value, pod: &Value) -> bool {
    let selector = budget
        .pointer("/spec/selector")
        .filter(|selector| !selector.is_null());
    selector.is_some() && selector_matches(selector, pod)
}

struct Keeper {
    client: kube::Client,
    budgets: Cache,
    pods: Cache,
    sets: Cache,
}

impl Keeper {
    async fn sync(&self, key: &Key) -> Result<Outcome, CallError> {
        let Some(budget) = self.budgets.get(key) else {
            return Ok(Outcome::Done);
        };
        let pods = self.pods.list(&key.namespace);
        let pods: Vec<&Value> = pods
            .iter()
            .map(AsRef::as_ref)
            .filter(|pod| covers(&budget, pod))
            .collect();
        let sets = self.sets.list(&key.namespace);
        let sets: Vec<&Value> = sets.iter().map(AsRef::as_ref).collect();
        let now = Timestamp::now();
        let (status, recheck) = status(&budget, &pods, &sets, now);
        if budget.get("status") != Some(&status) {
            let mut new = Value::clone(&budget);
            new["status"] = status;
            let request =
                Request::patch(Method::Put, &Resource::DISRUPTION_BUDGETS, key, new).on("status");
            call(&self.client, request).await?;
        }
        Ok(recheck.map_or(Outcome::Done, Outcome::Recheck))
    }
}

/// The status of a budget, and when it may change by the passing of time alone.
fn status(
    budget: &Value,
    pods: &[&Value],
    sets: &[&Value],
    now: Timestamp,
) -> (Value, Option<Duration>) {
    let (disrupted, recheck) = disrupted(budget, pods, now);
    let healthy = pods
        .iter()
        .filter(|pod| is_healthy(pod) && !disrupted.contains_key(text(pod, "/metadata/name")));
    let healthy = i64::try_from(healthy.count()).unwrap_or(i64::MAX);
    let (expected, desired) = wanted(budget, pods, sets);
    let allowed = if expected > 0 {
        (healthy - desired).max(0)
    } else {
        0
    };
    let mut status = json!({
        "currentHealthy": healthy,
        "desiredHealthy": desired,
        "disruptionsAllowed": allowed,
        "expectedPods": expected,
        "observedGeneration": budget.pointer("/metadata/generation"),
        "conditions": conditions(budget, allowed, now),
    });
    if !disrupted.is_empty() {
        status["disruptedPods"] = Value::Object(disrupted);
    }
    (status, recheck)
}

/// Evictions that were granted and whose pods are not yet seen to go.
fn disrupted(
    budget: &Value,
    pods: &[&Value],
    now: Timestamp,
) -> (Map<String, Value>, Option<Duration>) {
    let known = budget
        .pointer("/status/disruptedPods")
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default();
    let going: BTreeMap<&str, bool> = pods
        .iter()
        .map(|pod| (text(pod, "/metadata/name"), is_terminating(pod)))
        .collect();
    let mut left = Map::new();
    let mut recheck = None;
    for (pod, since) in known {
        let Some(granted) = since
            .as_str()
            .and_then(|since| since.parse::<Timestamp>().ok())
        else {
            continue;
        };
        let remaining = EVICTION_TAKES - now.duration_since(granted);
        if going.get(pod.as_str()) != Some(&false) || remaining <= SignedDuration::ZERO {
            continue;
        }
        let remaining = remaining.unsigned_abs();
        recheck = Some(recheck.map_or(remaining, |earlier: Duration| earlier.min(remaining)));
        left.insert(pod, since);
    }
    (left, recheck)
}

fn is_healthy(pod: &Value) -> bool {
    let ready = |own: &Value| text(own, "/type") == "Ready" && text(own, "/status") == "True";
    !is_terminating(pod) && list(pod, "/status/conditions").iter().any(ready)
}

/// Expected pods and how many of them must be healthy.
fn wanted(budget: &Value, pods: &[&Value], sets: &[&Value]) -> (i64, i64) {
    let limit = |name: &str| {
        budget
            .pointer("/spec")
            .and_then(|spec| spec.get(name))
            .filter(|limit| !limit.is_null())
    };
    if let Some(unavailable) = limit("maxUnavailable") {
        let expected = scale(pods, sets);
        return (expected, (expected - scaled(unavailable, expected)).max(0));
    }
    match limit("minAvailable") {
        Some(Value::Number(least)) => (
            i64::try_from(pods.len()).unwrap_or(i64::MAX),
            least.as_i64().unwrap_or(0),
        ),
        Some(share) => {
            let expected = scale(pods, sets);
            (expected, scaled(share, expected))
        }
        // upstream's default where neither is given.
        None => (i64::try_from(pods.len()).unwrap_or(i64::MAX), 1),
    }
}

/// How many pods the owners of these pods want. Pods without an owner that we know do not count.
fn scale(pods: &[&Value], sets: &[&Value]) -> i64 {
    let owners: BTreeSet<&str> = pods
        .iter()
        .filter_map(|pod| controller_of(pod))
        .map(|owner| text(owner, "/uid"))
        .collect();
    let owning = sets.iter().filter(|set| owners.contains(uid(set)));
    owning
        .map(|set| {
            set.pointer("/spec/replicas")
                .and_then(Value::as_i64)
                .unwrap_or(1)
        })
        .sum()
}

/// A number, or a percentage of the total rounded up.
fn scaled(limit: &Value, total: i64) -> i64 {
    match limit {
        Value::String(share) => {
            let percent: i64 = share.trim_end_matches('%').parse().unwrap_or(0);
            let part = percent.saturating_mul(total);
            part / 100 + i64::from(part % 100 > 0)
        }
        number => number.as_i64().unwrap_or(0),
    }
}

fn conditions(budget: &Value, allowed: i64, now: Timestamp) -> Vec<Value> {
    let (state, reason) = if allowed > 0 {
        ("True", "SufficientPods")
    } else {
        ("False", "InsufficientPods")
    };
    let old = list(budget, "/status/conditions");
    let is_ours = |own: &Value| text(own, "/type") == "DisruptionAllowed";
    let known = old
        .iter()
        .find(|own| is_ours(own) && text(own, "/status") == state);
    let since = known.map_or_else(
        || now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into(),
        |own| own["lastTransitionTime"].clone(),
    );
    let own = json!({
        "type": "DisruptionAllowed",
        "status": state,
        "reason": reason,
        "message": "",
        "lastTransitionTime": since,
        "observedGeneration": budget.pointer("/metadata/generation"),
    });
    let others = old.iter().filter(|other| !is_ours(other)).cloned();
    others.chain([own]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pods(healthy: usize, sick: usize) -> Vec<Value> {
        let pod = |n: usize| {
            let ready = if n < healthy { "True" } else { "False" };
            json!({"metadata": {"name": format!("web-{n}"), "ownerReferences": [{"uid": "s", "controller": true}]},
                "status": {"conditions": [{"type": "Ready", "status": ready}]}})
        };
        (0..healthy + sick).map(pod).collect()
    }

    /// `spec` against so many healthy and sick pods of a set of 4: allowed, desired, expected.
    fn check(spec: &Value, healthy: usize, sick: usize, expected: [i64; 3]) {
        let budget = json!({"metadata": {"generation": 3}, "spec": spec});
        let set = json!({"metadata": {"uid": "s"}, "spec": {"replicas": 4}});
        let pods = pods(healthy, sick);
        let pods: Vec<&Value> = pods.iter().collect();
        let (status, _) = status(&budget, &pods, &[&set], Timestamp::UNIX_EPOCH);
        let got = ["disruptionsAllowed", "desiredHealthy", "expectedPods"]
            .map(|field| status[field].as_i64().expect("a number"));
        assert_eq!(got, expected, "{spec} with {healthy} healthy, {sick} sick");
        assert_eq!(status["observedGeneration"], 3);
        let condition = if expected[0] > 0 {
            "SufficientPods"
        } else {
            "InsufficientPods"
        };
        assert_eq!(status["conditions"][0]["reason"], condition);
    }

    #[test]
    fn a_budget_allows_what_its_limit_leaves() {
        check(&json!({"minAvailable": 2}), 4, 0, [2, 2, 4]);
        check(&json!({"minAvailable": 2}), 1, 3, [0, 2, 4]);
        check(&json!({"minAvailable": "50%"}), 3, 0, [1, 2, 4]);
        check(&json!({"maxUnavailable": 1}), 4, 0, [1, 3, 4]);
        check(&json!({"maxUnavailable": 1}), 3, 0, [0, 3, 4]);
        check(&json!({"maxUnavailable": "30%"}), 4, 0, [2, 2, 4]);
        check(&json!({"maxUnavailable": 0}), 4, 0, [0, 4, 4]);
        check(&json!({"maxUnavailable": 1}), 0, 0, [0, 0, 0]);
    }

    #[test]
    fn a_granted_eviction_counts_until_its_pod_goes_or_two_minutes_have_passed() {
        let now = Timestamp::UNIX_EPOCH + SignedDuration::from_secs(60);
        let budget = json!({"spec": {"minAvailable": 1}, "status": {"disruptedPods": {
            "web-0": "1970-01-01T00:00:00Z", "gone": "1970-01-01T00:00:00Z"}}});
        let pods = pods(2, 0);
        let pods: Vec<&Value> = pods.iter().collect();
        let (at_once, recheck) = status(&budget, &pods, &[], now);
        assert_eq!(at_once["currentHealthy"], 1);
        assert_eq!(
            at_once["disruptedPods"],
            json!({"web-0": "1970-01-01T00:00:00Z"})
        );
        assert_eq!(recheck, Some(Duration::from_secs(60)));
        let (later, _) = status(&budget, &pods, &[], now + SignedDuration::from_secs(61));
        assert_eq!(later["currentHealthy"], 2);
    }
}
