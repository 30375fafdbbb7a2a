//! Taints and tolerations: which pods a node repels, and which it drives away. Pure.

use serde_json::{Value, json};
use stead_controller::resource::{list, text};

/// Taints that say what the node's conditions say: the condition, its status, the taint's key. upstream: node lifecycle.
const BY_CONDITION: [(&str, &str, &str); 6] = [
    ("Ready", "False", "node.kubernetes.io/not-ready"),
    ("Ready", "Unknown", "node.kubernetes.io/unreachable"),
    (
        "MemoryPressure",
        "True",
        "node.kubernetes.io/memory-pressure",
    ),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
    (
        "NetworkUnavailable",
        "True",
        "node.kubernetes.io/network-unavailable",
    ),
];
/// The taint of a cordoned node.
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// The taints that a node should have: those that its conditions and its cordon ask for, and all of other makers.
pub(crate) fn wanted(node: &Value) -> Vec<Value> {
    let kept = list(node, "/spec/taints")
        .iter()
        .filter(|taint| !is_by_condition(taint));
    kept.cloned().chain(by_condition(node)).collect()
}

fn is_by_condition(taint: &Value) -> bool {
    let key = text(taint, "/key");
    let ours = key == UNSCHEDULABLE || BY_CONDITION.iter().any(|(_, _, own)| *own == key);
    ours && text(taint, "/effect") == "NoSchedule"
}

fn by_condition(node: &Value) -> impl Iterator<Item = Value> {
    let has = |kind: &str, status: &str| {
        let mut conditions = list(node, "/status/conditions").iter();
        conditions.any(|own| text(own, "/type") == kind && text(own, "/status") == status)
    };
    let cordoned = node.pointer("/spec/unschedulable").and_then(Value::as_bool) == Some(true);
    // upstream: a node that has not said that it is ready is not.
    let silent = !list(node, "/status/conditions")
        .iter()
        .any(|own| text(own, "/type") == "Ready");
    let asked = BY_CONDITION
        .iter()
        .filter(move |(kind, status, _)| {
            has(kind, status) || (silent && (*kind, *status) == ("Ready", "False"))
        })
        .map(|(_, _, key)| *key);
    asked
        .chain(cordoned.then_some(UNSCHEDULABLE))
        .map(|key| json!({"key": key, "effect": "NoSchedule"}))
}

/// Whether the pod tolerates every taint of the node that would keep it from being placed there. What the conditions
/// say counts, also where nobody has written the taint down yet or off again.
pub(crate) fn tolerates_all(pod: &Value, node: &Value) -> bool {
    let keeping = |taint: &Value| matches!(text(taint, "/effect"), "NoSchedule" | "NoExecute");
    let mut taints = wanted(node).into_iter().filter(keeping);
    taints.all(|taint| tolerations(pod, &taint).next().is_some())
}

/// Whether the pod tolerates a cordoned node.
pub(crate) fn tolerates_cordon(pod: &Value) -> bool {
    let taint =
        serde_json::json!({"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"});
    tolerations(pod, &taint).next().is_some()
}

/// How long a pod may stay on a node with these taints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stay {
    /// As long as it likes.
    Forever,
    /// Seconds from the moment the taint was added; the shortest of several.
    Seconds(i64),
    /// It must go at once.
    Not,
}

/// How long a pod may stay on the node. upstream: each `NoExecute` taint must be tolerated, and of the tolerations that
/// are used the shortest time counts.
pub(crate) fn stay(pod: &Value, node: &Value) -> Stay {
    let driving = |taint: &&Value| text(taint, "/effect") == "NoExecute";
    let mut stay = Stay::Forever;
    for taint in list(node, "/spec/taints").iter().filter(driving) {
        let mut tolerated = tolerations(pod, taint).peekable();
        if tolerated.peek().is_none() {
            return Stay::Not;
        }
        let seconds = |own: &Value| own.get("tolerationSeconds").and_then(Value::as_i64);
        if let Some(least) = tolerated.filter_map(seconds).min() {
            stay = match stay {
                Stay::Seconds(other) => Stay::Seconds(other.min(least.max(0))),
                Stay::Forever | Stay::Not => Stay::Seconds(least.max(0)),
            };
        }
    }
    stay
}

/// The pod's tolerations that match a taint.
fn tolerations<'a>(pod: &'a Value, taint: &Value) -> impl Iterator<Item = &'a Value> {
    let (key, value, effect) = (
        text(taint, "/key").to_owned(),
        text(taint, "/value").to_owned(),
        text(taint, "/effect").to_owned(),
    );
    list(pod, "/spec/tolerations").iter().filter(move |own| {
        let (own_key, own_effect) = (text(own, "/key"), text(own, "/effect"));
        (own_effect.is_empty() || own_effect == effect)
            && (own_key.is_empty() || own_key == key)
            && match text(own, "/operator") {
                "Exists" => true,
                "" | "Equal" => text(own, "/value") == value,
                // Comparisons by number are alpha upstream.
                _ => false,
            }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(effect: &str) -> Value {
        json!({"spec": {"taints": [{"key": "disk", "value": "slow", "effect": effect}]},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]}})
    }

    #[test]
    fn what_the_conditions_say_is_a_taint_and_what_they_no_longer_say_is_none() {
        let keys = |node: &Value| -> Vec<String> {
            let all = wanted(node);
            all.iter().map(|own| text(own, "/key").to_owned()).collect()
        };
        let mut node = node("NoExecute");
        assert_eq!(keys(&node), ["disk"]);
        node["spec"]["taints"] =
            json!([{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]);
        assert_eq!(keys(&node), Vec::<String>::new(), "it is ready");
        node["status"]["conditions"] = json!([{"type": "Ready", "status": "False"}, {"type": "DiskPressure", "status": "True"}]);
        node["spec"]["unschedulable"] = true.into();
        assert_eq!(
            keys(&node),
            [
                "node.kubernetes.io/not-ready",
                "node.kubernetes.io/disk-pressure",
                "node.kubernetes.io/unschedulable"
            ]
        );
        assert_eq!(
            keys(&json!({})),
            ["node.kubernetes.io/not-ready"],
            "it has said nothing"
        );
    }

    fn pod(toleration: Value) -> Value {
        json!({"spec": {"tolerations": [toleration]}})
    }

    #[test]
    fn a_taint_is_tolerated_by_key_value_and_effect() {
        for (toleration, expected) in [
            (
                json!({"key": "disk", "operator": "Equal", "value": "slow"}),
                true,
            ),
            (
                json!({"key": "disk", "value": "slow", "effect": "NoSchedule"}),
                true,
            ),
            (
                json!({"key": "disk", "value": "slow", "effect": "NoExecute"}),
                false,
            ),
            (json!({"key": "disk", "value": "fast"}), false),
            (json!({"key": "disk", "operator": "Exists"}), true),
            (json!({"operator": "Exists"}), true),
            (json!({"key": "cpu", "operator": "Exists"}), false),
        ] {
            assert_eq!(
                tolerates_all(&pod(toleration.clone()), &node("NoSchedule")),
                expected,
                "{toleration}"
            );
        }
        assert!(tolerates_all(&json!({}), &node("PreferNoSchedule")), "soft");
    }

    #[test]
    fn a_pod_stays_as_long_as_it_tolerates_what_drives_it_away() {
        let exists = json!({"key": "disk", "operator": "Exists"});
        let mut a_while = exists.clone();
        a_while["tolerationSeconds"] = 30.into();
        assert_eq!(stay(&json!({}), &node("NoExecute")), Stay::Not);
        assert_eq!(stay(&json!({}), &node("NoSchedule")), Stay::Forever);
        assert_eq!(stay(&pod(exists), &node("NoExecute")), Stay::Forever);
        assert_eq!(stay(&pod(a_while), &node("NoExecute")), Stay::Seconds(30));
    }
}
