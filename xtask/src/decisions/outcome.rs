//! Compares one line: the writes and what they make of their objects, the status, blockers, when to look again; Events apart.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde_json::{Map, Value};
use stead_statefulset::{
    Action, Blocker, Decision, Freshness, Objects, Observed, PatchKind, check, decide,
};

use super::differences::{self, Excused, OnPurpose};
use super::line::{Line, Recorded};

/// What comparing a line gave.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) differences: Vec<Difference>,
    pub(super) on_purpose: BTreeSet<OnPurpose>,
    /// Pods and claims that Stead deletes and upstream keeps.
    pub(super) unkind_deletes: Vec<String>,
    pub(super) event_differences: Vec<String>,
    /// The page by which each Event is left out that upstream records of a write that Stead does not make.
    pub(super) events_on_purpose: Vec<OnPurpose>,
    blocked: Vec<String>,
    error: Option<String>,
}

/// One way in which a line is not equal.
#[derive(Debug)]
pub(super) struct Difference {
    pub(super) kind: &'static str,
    pub(super) text: String,
}

/// A write and the object that results; `update` and `patch` are both `change`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Write {
    pub(super) verb: Verb,
    pub(super) resource: String,
    pub(super) name: String,
    /// Of a delete.
    pub(super) uid: String,
    /// Normalised; null for a delete.
    pub(super) result: Value,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verb {
    Create,
    Change,
    Delete,
}

impl Write {
    pub(super) fn key(&self) -> (&str, &str, Verb, &str) {
        (&self.resource, &self.name, self.verb, &self.uid)
    }
}

pub(super) fn compare(line: &Line) -> Outcome {
    let objects = Objects {
        set: &line.set,
        pods: &line.pods,
        claims: &line.claims,
        revisions: &line.revisions,
    };
    let seen = Observed::parse(objects, line.now, Freshness::default());
    let decision = decide(&seen);
    compare_decision(line, &seen, &decision)
}

/// Compares a decision, which tests may have tampered with.
pub(super) fn compare_decision(line: &Line, seen: &Observed, decision: &Decision) -> Outcome {
    let mut outcome = Outcome {
        blocked: decision.blocked.iter().map(Blocker::to_string).collect(),
        error: line.expect.error.clone(),
        ..Outcome::default()
    };
    let ours = ours(line, seen, decision);
    let theirs = theirs(line);
    outcome.unkind_deletes = unkind_deletes(&ours, &theirs);
    let Excused {
        kept: theirs,
        left_out,
    } = differences::excuse(line, theirs, &mut outcome.on_purpose);
    let (status_ours, ours): (Vec<_>, Vec<_>) = ours
        .into_iter()
        .partition(|write| write.resource == "statefulsets");
    let (status_theirs, theirs): (Vec<_>, Vec<_>) = theirs
        .into_iter()
        .partition(|write| write.resource == "statefulsets");
    outcome.compare_writes(&ours, &theirs);
    outcome.compare_claim_order(&ours);
    let slack = differences::current_replicas_slack(&outcome.on_purpose, line);
    let stored = line.set.get("status").cloned().unwrap_or_default();
    outcome.compare_status(status_ours.first(), status_theirs.first(), stored, slack);
    outcome.compare_blockers(line, decision);
    outcome.compare_recheck(line, decision);
    outcome.compare_events(line, seen, decision, &left_out);
    for violation in check::all(seen, decision) {
        outcome.differ(
            "invariants",
            format!("{}: {}", violation.rule, violation.what),
        );
    }
    outcome
}

impl Outcome {
    fn differ(&mut self, kind: &'static str, text: String) {
        self.differences.push(Difference { kind, text });
    }

    pub(super) fn readable(&self) -> String {
        let mut text = String::new();
        for Difference { kind, text: what } in &self.differences {
            let _ = writeln!(text, "{kind}: {what}");
        }
        for blocker in &self.blocked {
            let _ = writeln!(text, "    (blocked: {blocker})");
        }
        if let Some(error) = &self.error {
            let _ = writeln!(text, "    (upstream's error: {error})");
        }
        text
    }

    fn compare_writes(&mut self, ours: &[Write], theirs: &[Write]) {
        let mut open: Vec<&Write> = theirs.iter().collect();
        for write in ours {
            match open.iter().position(|there| there.key() == write.key()) {
                None => self.differ("writes", format!("Stead alone does {}", said(write))),
                Some(index) => {
                    let there = open.remove(index);
                    if there.result != write.result {
                        self.differ(
                            "objects",
                            format!(
                                "{} differs{}",
                                said(write),
                                paths(&there.result, &write.result)
                            ),
                        );
                    }
                }
            }
        }
        for write in open {
            self.differ("writes", format!("upstream alone does {}", said(write)));
        }
    }

    /// A claim is made before the pod that mounts it.
    fn compare_claim_order(&mut self, ours: &[Write]) {
        let created = |resource: &str, name: &str| {
            ours.iter()
                .position(|write| write.key() == (resource, name, Verb::Create, ""))
        };
        for (index, pod) in ours
            .iter()
            .enumerate()
            .filter(|(_, write)| write.resource == "pods" && write.verb == Verb::Create)
        {
            let volumes = pod
                .result
                .pointer("/spec/volumes")
                .and_then(Value::as_array)
                .map_or(&[][..], Vec::as_slice);
            for claim in volumes
                .iter()
                .filter_map(|volume| volume.pointer("/persistentVolumeClaim/claimName")?.as_str())
            {
                if created("persistentvolumeclaims", claim).is_some_and(|at| at > index) {
                    self.differ(
                        "order",
                        format!("claim {claim} is made after pod {}", pod.name),
                    );
                }
            }
        }
    }

    fn compare_status(
        &mut self,
        ours: Option<&Write>,
        theirs: Option<&Write>,
        stored: Value,
        slack: u32,
    ) {
        let status = |write: &Write| write.result.get("status").cloned().unwrap_or_default();
        let (mut ours, theirs) = match (ours, theirs) {
            (None, None) => return,
            (Some(ours), None) => {
                return self.differ("status", format!("Stead alone writes {}", status(ours)));
            }
            (None, Some(theirs)) if slack == 0 => {
                return self.differ(
                    "status",
                    format!("upstream alone writes {}", status(theirs)),
                );
            }
            (None, Some(theirs)) => (normalised(stored), status(theirs)),
            (Some(ours), Some(theirs)) => (status(ours), status(theirs)),
        };
        take_slack(&mut ours, &theirs, slack);
        if ours != theirs {
            self.differ("status", format!("differs{}", paths(&theirs, &ours)));
        }
    }

    fn compare_blockers(&mut self, line: &Line, decision: &Decision) {
        let refused = line.expect.writes.iter().filter(|write| write.refused);
        let mut causes: Vec<String> = refused
            .map(|write| format!("{} {:?} already exists", write.resource, write.name))
            .collect();
        causes.extend(line.expect.error.clone());
        for cause in causes {
            if !decision.blocked.iter().any(|blocker| says(blocker, &cause)) {
                self.differ("blockers", format!("no blocker says {cause:?}"));
            }
        }
    }

    fn compare_recheck(&mut self, line: &Line, decision: &Decision) {
        let ours = decision
            .recheck_at
            .map(|at| at.duration_since(line.now).as_secs_f64());
        let near = match (ours, line.expect.recheck_after_seconds) {
            (None, None) => true,
            (Some(ours), Some(theirs)) => (ours - theirs).abs() <= 1.0,
            (Some(_), None) | (None, Some(_)) => false,
        };
        if !near {
            self.differ(
                "recheck",
                format!(
                    "Stead after {ours:?} s, upstream after {:?} s",
                    line.expect.recheck_after_seconds
                ),
            );
        }
    }

    /// Upstream's Events of the writes that Stead leaves out on purpose are left out too, and counted by their page.
    fn compare_events(
        &mut self,
        line: &Line,
        seen: &Observed,
        decision: &Decision,
        left_out: &[(OnPurpose, Write)],
    ) {
        let of_steps = decision
            .plan
            .steps()
            .filter_map(|step| step.event(&seen.set, Ok(())));
        let ours = of_steps.chain(decision.events.iter().cloned());
        let mut balance: BTreeMap<(String, String), i64> = BTreeMap::new();
        for event in ours {
            *balance
                .entry((event.event_type.as_str().into(), event.reason.into()))
                .or_default() += 1;
        }
        for event in &line.expect.events {
            *balance.entry(event.clone()).or_default() -= 1;
        }
        // The second look that upstream takes at what it has just made warns a second time, too.
        let warned_again = line.expect.events_again.iter();
        for event in warned_again.filter(|(event_type, _)| event_type == "Warning") {
            if self.on_purpose.contains(&OnPurpose::NeedlessWrite) {
                *balance.entry(event.clone()).or_default() += 1;
                self.events_on_purpose.push(OnPurpose::NeedlessWrite);
            }
        }
        for (page, write) in left_out {
            if let Some(event) = differences::event_of(write) {
                *balance.entry(event).or_default() += 1;
                self.events_on_purpose.push(*page);
            }
        }
        for ((event_type, reason), more) in balance {
            if more != 0 {
                let who = if more > 0 {
                    "Stead alone"
                } else {
                    "upstream alone"
                };
                self.event_differences
                    .push(format!("{who} records {event_type} {reason}"));
            }
        }
    }
}

/// Stead's writes in their order, with the objects that result one from the other.
pub(super) fn ours(line: &Line, seen: &Observed, decision: &Decision) -> Vec<Write> {
    let mut world = World::of(line);
    let calls = decision.plan.steps().map(|step| step.call(&seen.set));
    calls
        .map(|call| world.apply(call.resource.plural(), &call.name, call.action))
        .collect()
}

/// Upstream's writes in their order, those refused left out.
fn theirs(line: &Line) -> Vec<Write> {
    let mut world = World::of(line);
    line.expect
        .writes
        .iter()
        .filter(|write| !write.refused)
        .map(|write| world.apply(&write.resource, &write.name, action(write)))
        .collect()
}

fn action(write: &Recorded) -> Action {
    match (write.verb.as_str(), &write.patch) {
        ("delete", _) => Action::Delete {
            uid: write.uid.as_str().into(),
        },
        ("create", _) => Action::Create {
            object: write.object.clone().unwrap_or_default(),
        },
        (_, Some(patch)) => Action::Patch {
            kind: PatchKind::Strategic,
            subresource: None,
            patch: patch.clone(),
        },
        // A whole object: said as the merge patch that replaces each top-level field.
        (_, None) => Action::Patch {
            kind: PatchKind::Merge,
            subresource: Some("whole"),
            patch: write.object.clone().unwrap_or_default(),
        },
    }
}

/// The objects as they change from write to write.
struct World(BTreeMap<(String, String), Value>);

impl World {
    fn of(line: &Line) -> World {
        let mut world = BTreeMap::new();
        for resource in [
            "statefulsets",
            "pods",
            "persistentvolumeclaims",
            "controllerrevisions",
        ] {
            for object in line.objects(resource) {
                world.insert((resource.to_owned(), name_of(object)), object.clone());
            }
        }
        World(world)
    }

    fn apply(&mut self, resource: &str, name: &str, action: Action) -> Write {
        let key = (resource.to_owned(), name.to_owned());
        let (verb, uid, result) = match action {
            Action::Delete { uid } => (Verb::Delete, uid.to_string(), Value::Null),
            Action::Create { object } => {
                self.0.insert(key, object.clone());
                (Verb::Create, String::new(), normalised(created(object)))
            }
            Action::Patch {
                subresource: Some("whole"),
                patch: object,
                ..
            } => {
                self.0.insert(key, object.clone());
                (Verb::Change, String::new(), normalised(object))
            }
            Action::Patch { kind, patch, .. } => {
                let object = self.0.entry(key).or_default();
                match kind {
                    PatchKind::Merge => merge(object, &patch),
                    PatchKind::Strategic => patch_owners(object, &patch),
                }
                (Verb::Change, String::new(), normalised(object.clone()))
            }
        };
        Write {
            verb,
            resource: resource.to_owned(),
            name: name.to_owned(),
            uid,
            result,
        }
    }
}

pub(super) fn name_of(object: &Value) -> String {
    object
        .pointer("/metadata/name")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}

/// RFC 7386.
fn merge(target: &mut Value, patch: &Value) {
    let Some(fields) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Some(object) = target.as_object_mut() else {
        return;
    };
    for (key, value) in fields {
        if value.is_null() {
            object.remove(key);
        } else {
            merge(object.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

/// The strategic merge of `metadata.ownerReferences` by `uid`, the only one that either side sends.
fn patch_owners(object: &mut Value, patch: &Value) {
    let patched = patch
        .pointer("/metadata/ownerReferences")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else {
        return;
    };
    let mut owners = metadata
        .get("ownerReferences")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    for mut owner in patched {
        let same = |there: &Value| there.get("uid") == owner.get("uid");
        if owner.get("$patch") == Some(&Value::from("delete")) {
            owners.retain(|there| !same(there));
            continue;
        }
        match owners.iter_mut().find(|there| same(there)) {
            Some(there) => merge(there, &owner),
            None => owners.push(owner.take()),
        }
    }
    metadata.insert("ownerReferences".into(), Value::Array(owners));
}

/// A create's status, creation time and namespace are the server's.
fn created(mut object: Value) -> Value {
    if let Some(fields) = object.as_object_mut() {
        fields.remove("status");
    }
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("creationTimestamp");
        metadata.remove("namespace");
    }
    object
}

/// Without nulls, empty objects and lists, apiVersion and kind; claim volumes first and by name, for upstream takes them from a map.
pub(super) fn normalised(mut object: Value) -> Value {
    if let Some(fields) = object.as_object_mut() {
        fields.remove("apiVersion");
        fields.remove("kind");
    }
    if let Some(volumes) = object
        .pointer_mut("/spec/volumes")
        .and_then(Value::as_array_mut)
    {
        let claim = |volume: &Value| volume.get("persistentVolumeClaim").is_none();
        volumes.sort_by_key(|volume| {
            (
                claim(volume),
                if claim(volume) {
                    String::new()
                } else {
                    volume["name"].to_string()
                },
            )
        });
    }
    prune(&mut object);
    object
}

fn prune(value: &mut Value) {
    let empty = |value: &Value| match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    };
    match value {
        Value::Array(items) => items.iter_mut().for_each(prune),
        Value::Object(fields) => {
            fields.values_mut().for_each(prune);
            fields.retain(|_, value| !empty(value));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Deletes of pods and claims that are not among upstream's.
fn unkind_deletes(ours: &[Write], theirs: &[Write]) -> Vec<String> {
    let deletes =
        |write: &&Write| write.verb == Verb::Delete && write.resource != "controllerrevisions";
    let unkind = ours
        .iter()
        .filter(deletes)
        .filter(|write| !theirs.iter().any(|there| there.key() == write.key()));
    unkind
        .map(|write| format!("{} {} ({})", write.resource, write.name, write.uid))
        .collect()
}

/// `currentReplicas` may be higher than upstream's by the deletes that Stead does not do.
fn take_slack(ours: &mut Value, theirs: &Value, slack: u32) {
    let current = |status: &Value| {
        status
            .get("currentReplicas")
            .and_then(Value::as_u64)
            .unwrap_or_default()
    };
    let more = current(ours).saturating_sub(current(theirs));
    if more > 0
        && more <= u64::from(slack)
        && let Some(fields) = ours.as_object_mut()
    {
        match theirs.get("currentReplicas") {
            Some(theirs) => fields.insert("currentReplicas".into(), theirs.clone()),
            None => fields.remove("currentReplicas"),
        };
    }
}

/// The blocker says this cause, which names its object in quotes or as a word.
fn says(blocker: &Blocker, cause: &str) -> bool {
    let names = |name: &str| {
        cause
            .split(|letter: char| letter.is_whitespace() || "\",[]".contains(letter))
            .any(|word| word == name)
    };
    match blocker {
        Blocker::NameTaken { pod, .. } | Blocker::Unreported { pod } => {
            cause.contains("already exists") && names(pod)
        }
        Blocker::RevisionNameTaken { revision } => {
            cause.contains("already exists") && names(revision)
        }
        Blocker::ClaimTerminating { claim, .. } => {
            cause.contains("is being deleted") && names(claim)
        }
        Blocker::SetDeletingWithOrphans { .. } => {
            cause.starts_with("can't adopt ControllerRevisions")
                && cause.contains("has just been deleted")
        }
        _ => false,
    }
}

fn said(write: &Write) -> String {
    let Write {
        verb,
        resource,
        name,
        uid,
        result: _,
    } = write;
    let verb = match verb {
        Verb::Create => "create",
        Verb::Change => "change",
        Verb::Delete => "delete",
    };
    if uid.is_empty() {
        format!("{verb} {resource} {name}")
    } else {
        format!("{verb} {resource} {name} ({uid})")
    }
}

/// The paths at which two values differ, upstream's value first.
fn paths(theirs: &Value, ours: &Value) -> String {
    let mut text = String::new();
    walk("", theirs, ours, &mut text);
    text
}

fn walk(path: &str, theirs: &Value, ours: &Value, text: &mut String) {
    match (theirs, ours) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: BTreeSet<_> = a.keys().chain(b.keys()).collect();
            for key in keys {
                let null = Value::Null;
                walk(
                    &format!("{path}.{key}"),
                    a.get(key).unwrap_or(&null),
                    b.get(key).unwrap_or(&null),
                    text,
                );
            }
        }
        _ if theirs != ours => {
            let _ = write!(
                text,
                "\n    at {path}\n        upstream {theirs}\n        Stead    {ours}"
            );
        }
        _ => {}
    }
}
