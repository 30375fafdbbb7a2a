//! Whether a pod fits a node, and in the scheduler's words why not. Pure.

use serde_json::Value;
use stead_controller::resource::{list, text};

use crate::selector::rule_holds;

use super::demand::Demand;
use super::neighbours::{self, Town};
use super::taints;

/// Why a pod does not fit a node, as the scheduler says it after a count of nodes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Misfit {
    /// The node is cordoned.
    Unschedulable,
    /// It has a taint that the pod does not tolerate.
    Taint,
    /// Its labels are not those that the pod asks for.
    Labels,
    /// Another pod has the port.
    HostPorts,
    /// It holds as many pods as it may.
    TooManyPods,
    /// It has too little of a resource left.
    Insufficient(String),
    /// Another pod has a claim that only one pod at a time may use.
    ClaimInUse,
    /// None of the volumes made by hand is free for one of its claims.
    NoVolume,
    /// A volume of the pod is not to be had on this node.
    VolumeAffinity,
    /// The node has no such label as the pod is to be spread over.
    NoTopology,
    /// The pod would make its place too crowded.
    Spread,
    /// No pod is there that it wants to be beside.
    Affinity,
    /// A pod is there that it does not want to be beside.
    AntiAffinity,
    /// A pod is there that does not want it beside itself.
    KeptAway,
}

impl Misfit {
    /// Whether it may pass when other pods, their labels or volumes change, though no room is given back.
    pub(crate) fn is_about_others(&self) -> bool {
        match self {
            Misfit::ClaimInUse
            | Misfit::NoVolume
            | Misfit::VolumeAffinity
            | Misfit::NoTopology
            | Misfit::Spread
            | Misfit::Affinity
            | Misfit::AntiAffinity
            | Misfit::KeptAway => true,
            Misfit::Unschedulable
            | Misfit::Taint
            | Misfit::Labels
            | Misfit::HostPorts
            | Misfit::TooManyPods
            | Misfit::Insufficient(_) => false,
        }
    }
}

impl std::fmt::Display for Misfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Misfit::Unschedulable => "node(s) were unschedulable",
            Misfit::Taint => "node(s) had untolerated taint(s)",
            Misfit::Labels => "node(s) didn't match Pod's node affinity/selector",
            Misfit::HostPorts => "node(s) didn't have free ports for the requested pod ports",
            Misfit::TooManyPods => "Too many pods",
            Misfit::Insufficient(resource) => return write!(f, "Insufficient {resource}"),
            Misfit::ClaimInUse => {
                "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod"
            }
            Misfit::NoVolume => "node(s) didn't find available persistent volumes to bind",
            Misfit::VolumeAffinity => "node(s) didn't match PersistentVolume's node affinity",
            Misfit::NoTopology => {
                "node(s) didn't match pod topology spread constraints (missing required label)"
            }
            Misfit::Spread => "node(s) didn't match pod topology spread constraints",
            Misfit::Affinity => "node(s) didn't match pod affinity rules",
            Misfit::AntiAffinity => "node(s) didn't match pod anti-affinity rules",
            Misfit::KeptAway => "node(s) didn't satisfy existing pods anti-affinity rules",
        })
    }
}

/// What of the pod and its world a node is judged by.
pub(crate) struct Asking<'a> {
    /// The pod.
    pub(crate) pod: &'a Value,
    /// What it takes.
    pub(crate) demand: &'a Demand,
    /// The volumes that its claims are bound to.
    pub(crate) volumes: &'a [Value],
    /// One of its claims wants a volume made by hand, and none is free.
    pub(crate) no_volume_free: bool,
    /// Another pod has one of its claims, which only one pod at a time may use.
    pub(crate) claim_in_use: bool,
    /// The other pods; `None` where neither the pod nor any of them cares.
    pub(crate) town: Option<&'a Town<'a>>,
}

/// What keeps the pod off a node on which `used` is already taken: upstream's filters in upstream's order, of which the
/// first that refuses gives the reasons. Empty when it fits.
pub(crate) fn misfits(asking: &Asking<'_>, node: &Value, used: &Demand) -> Vec<Misfit> {
    let pod = asking.pod;
    if is_cordoned(node) && !taints::tolerates_cordon(pod) {
        return vec![Misfit::Unschedulable];
    }
    if !taints::tolerates_all(pod, node) {
        return vec![Misfit::Taint];
    }
    if !labels_match(pod, node) {
        return vec![Misfit::Labels];
    }
    if asking.demand.ports_conflict(used) {
        return vec![Misfit::HostPorts];
    }
    let short = asking.demand.short_of(node, used);
    if !short.is_empty() {
        return short.into_iter().map(insufficient).collect();
    }
    if asking.claim_in_use {
        return vec![Misfit::ClaimInUse];
    }
    if asking.no_volume_free {
        return vec![Misfit::NoVolume];
    }
    if !asking
        .volumes
        .iter()
        .all(|volume| volume_is_here(volume, node))
    {
        return vec![Misfit::VolumeAffinity];
    }
    let town = asking
        .town
        .and_then(|town| neighbours::misfit(pod, node, town));
    town.into_iter().collect()
}

fn insufficient(resource: String) -> Misfit {
    if resource == "pods" {
        Misfit::TooManyPods
    } else {
        Misfit::Insufficient(resource)
    }
}

fn is_cordoned(node: &Value) -> bool {
    node.pointer("/spec/unschedulable").and_then(Value::as_bool) == Some(true)
}

/// Whether the node is one that the pod's node selector and required node affinity allow.
pub(crate) fn labels_match(pod: &Value, node: &Value) -> bool {
    let wanted = pod.pointer("/spec/nodeSelector").and_then(Value::as_object);
    let selected = wanted
        .into_iter()
        .flatten()
        .all(|(key, value)| label(node, key) == value.as_str());
    let affinity = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution";
    selected && node_selector_matches(pod.pointer(affinity), node)
}

/// One of an object's labels.
pub(crate) fn label<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object.get("metadata")?.get("labels")?.get(key)?.as_str()
}

/// Whether a volume may be used on the node.
fn volume_is_here(volume: &Value, node: &Value) -> bool {
    node_selector_matches(volume.pointer("/spec/nodeAffinity/required"), node)
}

/// A node selector: one of the terms, and of that term every expression. None at all matches every node.
fn node_selector_matches(selector: Option<&Value>, node: &Value) -> bool {
    let Some(selector) = selector.filter(|selector| !selector.is_null()) else {
        return true;
    };
    list(selector, "/nodeSelectorTerms").iter().any(|term| {
        let labels = list(term, "/matchExpressions");
        let fields = list(term, "/matchFields");
        !(labels.is_empty() && fields.is_empty())
            && labels
                .iter()
                .all(|rule| rule_holds(rule, label(node, text(rule, "/key"))))
            && fields
                .iter()
                .all(|rule| rule_holds(rule, Some(text(node, "/metadata/name"))))
    })
}

/// The scheduler's sentence for a pod that fits nowhere: each reason with the number of nodes that it is of.
pub(crate) fn sentence(
    nodes: usize,
    misfits: &std::collections::BTreeMap<Misfit, usize>,
) -> String {
    if nodes == 0 {
        return "no nodes available to schedule pods".to_owned();
    }
    let reason = |(misfit, count): (&Misfit, &usize)| format!("{count} {misfit}");
    let mut reasons: Vec<String> = misfits.iter().map(reason).collect();
    reasons.sort();
    format!("0/{nodes} nodes are available: {}.", reasons.join(", "))
}

#[cfg(test)]
mod tests;
