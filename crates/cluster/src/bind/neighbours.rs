//! Pods beside pods: affinity, anti-affinity and spreading over the values of a node label. Pure.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use stead_controller::resource::{is_terminating, list, text};

use crate::selector;

use super::fit::{Misfit, label, labels_match};

/// What others need to know of a pod that has its node.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Neighbour {
    namespace: String,
    labels: Map<String, Value>,
    terminating: bool,
    /// Its own required anti-affinity: it keeps others away, too.
    anti: Vec<Term>,
    /// Claims that no other pod may use beside it, if they are of that access mode.
    claims: Vec<String>,
}

impl Neighbour {
    /// What others need to know of this pod.
    pub(crate) fn of(pod: &Value) -> Neighbour {
        let labels = pod.pointer("/metadata/labels").and_then(Value::as_object);
        Neighbour {
            namespace: text(pod, "/metadata/namespace").to_owned(),
            labels: labels.cloned().unwrap_or_default(),
            terminating: is_terminating(pod),
            anti: terms(pod, "podAntiAffinity"),
            claims: super::claims_of(pod).map(str::to_owned).collect(),
        }
    }

    /// Whether it uses a claim.
    pub(crate) fn uses(&self, namespace: &str, claim: &str) -> bool {
        self.namespace == namespace && self.claims.iter().any(|own| own == claim)
    }

    fn label(&self, key: &str) -> Option<&str> {
        self.labels.get(key)?.as_str()
    }
}

/// One required term of an affinity.
#[derive(Debug, Clone, PartialEq)]
struct Term {
    /// The node label whose value makes two nodes the same place.
    topology: String,
    namespaces: Vec<String>,
    namespace_selector: Option<Value>,
    /// `None` matches no pod.
    selector: Option<Value>,
}

fn terms(pod: &Value, which: &str) -> Vec<Term> {
    let own_namespace = text(pod, "/metadata/namespace");
    let path = format!("/spec/affinity/{which}/requiredDuringSchedulingIgnoredDuringExecution");
    let term = |term: &Value| {
        let named = list(term, "/namespaces").iter().filter_map(Value::as_str);
        let mut namespaces: Vec<String> = named.map(str::to_owned).collect();
        let namespace_selector = present(term, "namespaceSelector");
        if namespaces.is_empty() && namespace_selector.is_none() {
            namespaces.push(own_namespace.to_owned());
        }
        Term {
            topology: text(term, "/topologyKey").to_owned(),
            namespaces,
            namespace_selector,
            selector: selector_of(term, pod),
        }
    };
    list(pod, &path).iter().map(term).collect()
}

fn present(object: &Value, field: &str) -> Option<Value> {
    object.get(field).filter(|own| !own.is_null()).cloned()
}

/// The label selector of a term or constraint, with what `matchLabelKeys` and `mismatchLabelKeys` add to it.
fn selector_of(rule: &Value, pod: &Value) -> Option<Value> {
    let mut selector = present(rule, "labelSelector")?;
    let labels = pod.pointer("/metadata/labels");
    for (field, operator) in [("/matchLabelKeys", "In"), ("/mismatchLabelKeys", "NotIn")] {
        for key in list(rule, field).iter().filter_map(Value::as_str) {
            let Some(value) = labels.and_then(|labels| labels.get(key)) else {
                continue;
            };
            let added = json!({"key": key, "operator": operator, "values": [value]});
            match selector.get_mut("matchExpressions") {
                Some(Value::Array(rules)) => rules.push(added),
                Some(_) | None => selector["matchExpressions"] = json!([added]),
            }
        }
    }
    Some(selector)
}

/// The cluster as far as pods care for their neighbours.
pub(crate) struct Town<'a> {
    /// Every node.
    pub(crate) nodes: Vec<&'a Value>,
    /// Every pod that has a node, with the node's name.
    pub(crate) placed: Vec<(&'a str, &'a Neighbour)>,
    /// The namespaces, for terms that select them by label.
    pub(crate) namespaces: BTreeMap<&'a str, &'a Value>,
}

impl Town<'_> {
    fn node(&self, name: &str) -> Option<&Value> {
        let mut nodes = self.nodes.iter().copied();
        nodes.find(|node| text(node, "/metadata/name") == name)
    }

    /// Whether a pod is one that a term speaks of.
    fn is_meant(&self, term: &Term, pod: &Neighbour) -> bool {
        let by_name = term.namespaces.contains(&pod.namespace);
        let by_label = || {
            let namespace = self.namespaces.get(pod.namespace.as_str());
            let selector = term.namespace_selector.as_ref();
            selector
                .zip(namespace)
                .is_some_and(|(selector, namespace)| {
                    selector::matches(selector, |key| label(namespace, key))
                })
        };
        let selected = |selector: &Value| selector::matches(selector, |key| pod.label(key));
        (by_name || by_label()) && term.selector.as_ref().is_some_and(selected)
    }

    /// Whether a node and the node of this name are the same place to a term.
    fn is_near(&self, topology: &str, node: &Value, other: &str) -> bool {
        let here = label(node, topology);
        here.is_some() && self.node(other).and_then(|node| label(node, topology)) == here
    }
}

/// Whether a pod cares where other pods are, or they where it is: only then must they all be looked at.
pub(crate) fn cares(pod: &Value) -> bool {
    let affinity = pod.pointer("/spec/affinity");
    let of = |which: &str| {
        affinity.is_some_and(|own| own.get(which).is_some_and(|which| !which.is_null()))
    };
    of("podAffinity")
        || of("podAntiAffinity")
        || !list(pod, "/spec/topologySpreadConstraints").is_empty()
}

impl Neighbour {
    /// Whether it keeps some pods away.
    pub(crate) fn keeps_away(&self) -> bool {
        !self.anti.is_empty()
    }
}

/// What keeps a pod off a node because of the pods there are. Only required rules count; wishes never keep a pod waiting.
pub(crate) fn misfit(pod: &Value, node: &Value, town: &Town<'_>) -> Option<Misfit> {
    if let Some(misfit) = crowded(pod, node, town) {
        return Some(misfit);
    }
    let own = Neighbour::of(pod);
    let affinity = terms(pod, "podAffinity");
    if !affinity.is_empty() && !has_company(&own, &affinity, node, town) {
        return Some(Misfit::Affinity);
    }
    let near = |term: &Term, other: &str| town.is_near(&term.topology, node, other);
    let unwanted = own.anti.iter().any(|term| {
        let mut placed = town.placed.iter();
        placed.any(|(other, pod)| near(term, other) && town.is_meant(term, pod))
    });
    if unwanted {
        return Some(Misfit::AntiAffinity);
    }
    let kept_away = town.placed.iter().any(|(other, pod)| {
        let mut anti = pod.anti.iter();
        anti.any(|term| near(term, other) && town.is_meant(term, &own))
    });
    kept_away.then_some(Misfit::KeptAway)
}

/// Whether for each term a pod that matches all of them is near. upstream: the first of a group that wants each other's
/// company needs none.
fn has_company(own: &Neighbour, terms: &[Term], node: &Value, town: &Town<'_>) -> bool {
    if terms
        .iter()
        .any(|term| label(node, &term.topology).is_none())
    {
        return false;
    }
    let wanted = |pod: &Neighbour| terms.iter().all(|term| town.is_meant(term, pod));
    let company: Vec<&str> = town
        .placed
        .iter()
        .filter(|(_, pod)| wanted(pod))
        .map(|(node, _)| *node)
        .collect();
    let near = |term: &Term| {
        let mut company = company.iter();
        company.any(|other| town.is_near(&term.topology, node, other))
    };
    terms.iter().all(near) || (company.is_empty() && wanted(own))
}

/// Whether the pod would make the pods of one place too many beside those of the others.
fn crowded(pod: &Value, node: &Value, town: &Town<'_>) -> Option<Misfit> {
    let hard = |own: &&Value| text(own, "/whenUnsatisfiable") == "DoNotSchedule";
    let constraints: Vec<&Value> = list(pod, "/spec/topologySpreadConstraints")
        .iter()
        .filter(hard)
        .collect();
    let key = |own: &&Value| text(own, "/topologyKey").to_owned();
    let keys: Vec<String> = constraints.iter().map(key).collect();
    constraints
        .into_iter()
        .find_map(|own| skewed(own, pod, node, town, &keys))
}

fn skewed(
    constraint: &Value,
    pod: &Value,
    node: &Value,
    town: &Town<'_>,
    keys: &[String],
) -> Option<Misfit> {
    let key = text(constraint, "/topologyKey");
    let Some(here) = label(node, key) else {
        return Some(Misfit::NoTopology);
    };
    let counts = counts(constraint, pod, town, keys);
    let number = |field: &str| constraint.get(field).and_then(Value::as_u64);
    let domains = u64::try_from(counts.len()).unwrap_or(u64::MAX);
    let fewest = if domains < number("minDomains").unwrap_or(1) {
        0
    } else {
        counts.values().copied().min().unwrap_or(0)
    };
    let own = Neighbour::of(pod);
    let counts_itself = selector_of(constraint, pod)
        .is_some_and(|selector| selector::matches(&selector, |key| own.label(key)));
    let then = counts.get(here).copied().unwrap_or(0) + u64::from(counts_itself);
    let too_many = then.saturating_sub(fewest) > number("maxSkew").unwrap_or(1);
    too_many.then_some(Misfit::Spread)
}

/// How many pods that a constraint speaks of are in each place that counts.
fn counts<'a>(
    constraint: &Value,
    pod: &Value,
    town: &'a Town<'_>,
    keys: &[String],
) -> BTreeMap<&'a str, u64> {
    let key = text(constraint, "/topologyKey");
    // upstream's defaults: the pod's node affinity is honoured, taints are not.
    let by_affinity = text(constraint, "/nodeAffinityPolicy") != "Ignore";
    let by_taints = text(constraint, "/nodeTaintsPolicy") == "Honor";
    let counts_in = |node: &&Value| {
        keys.iter().all(|key| label(node, key).is_some())
            && (!by_affinity || labels_match(pod, node))
            && (!by_taints || super::taints::tolerates_all(pod, node))
    };
    let nodes: Vec<&Value> = town
        .nodes
        .iter()
        .copied()
        .filter(|node| counts_in(node))
        .collect();
    let mut counts: BTreeMap<&str, u64> = nodes
        .iter()
        .filter_map(|node| Some((label(node, key)?, 0)))
        .collect();
    let Some(selector) = selector_of(constraint, pod) else {
        return counts;
    };
    let namespace = text(pod, "/metadata/namespace");
    for (name, other) in &town.placed {
        let meant = other.namespace == namespace
            && !other.terminating
            && selector::matches(&selector, |key| other.label(key));
        let mut at = nodes
            .iter()
            .filter(|node| text(node, "/metadata/name") == *name);
        if let Some(place) = at
            .next()
            .filter(|_| meant)
            .and_then(|node| label(node, key))
        {
            *counts.entry(place).or_insert(0) += 1;
        }
    }
    counts
}
