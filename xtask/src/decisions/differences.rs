//! Where Stead differs on purpose: a rule for each decision page, never a line's id.

use std::collections::BTreeSet;

use serde_json::Value;

use super::line::Line;
use super::outcome::{Verb, Write, name_of, normalised};

/// A deliberate difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum OnPurpose {
    /// Upstream writes an object as it already is, or twice in one sync.
    NeedlessWrite,
    /// Upstream deletes the same pod twice in one sync.
    DeletedTwice,
    /// Parallel with a null `rollingUpdate`: upstream makes a missing pod at the current revision and deletes it as outdated, again and again.
    MadeOutdated,
    /// Upstream's PUT of an object as it was cached takes back the adoption that it sent a moment before.
    Unadopted,
}

impl OnPurpose {
    pub(super) fn sentence(self) -> &'static str {
        match self {
            OnPurpose::NeedlessWrite => "0101 what changes nothing is not written",
            OnPurpose::DeletedTwice => "0102 a pod is deleted once a round",
            OnPurpose::MadeOutdated => "0103 no pod is made that the update deletes at once",
            OnPurpose::Unadopted => "0104 what is adopted stays adopted",
        }
    }
}

/// What upstream is held to have done, where Stead differs on purpose.
#[derive(Default)]
pub(super) struct Excused {
    /// Its writes without those that Stead leaves out, and as Stead does them where it does them otherwise.
    pub(super) kept: Vec<Write>,
    /// Its writes that Stead leaves out, each with the page that says so.
    pub(super) left_out: Vec<(OnPurpose, Write)>,
}

/// Looks at upstream's writes one after another.
pub(super) fn excuse(
    line: &Line,
    theirs: Vec<Write>,
    on_purpose: &mut BTreeSet<OnPurpose>,
) -> Excused {
    let mut excused_all = Excused::default();
    let Excused { kept, left_out } = &mut excused_all;
    for mut write in theirs {
        if keep_adopted(&mut write, kept) {
            on_purpose.insert(OnPurpose::Unadopted);
        }
        if make_updated(line, &mut write) {
            on_purpose.insert(OnPurpose::MadeOutdated);
        }
        match excused(line, &write, kept) {
            Some(page) => {
                on_purpose.insert(page);
                left_out.push((page, write));
            }
            None => kept.push(write),
        }
    }
    excused_all
}

/// The Event by which upstream tells of a write that Stead leaves out: of pods it tells every one, of other objects none.
pub(super) fn event_of(left_out: &Write) -> Option<(String, String)> {
    let reason = match left_out.verb {
        _ if left_out.resource != "pods" => return None,
        Verb::Create => "SuccessfulCreate",
        Verb::Change => "SuccessfulUpdate",
        Verb::Delete => "SuccessfulDelete",
    };
    Some(("Normal".to_owned(), reason.to_owned()))
}

/// 0104: a change after an adoption keeps the owner that the adoption set.
fn keep_adopted(write: &mut Write, earlier: &[Write]) -> bool {
    let same = |other: &&Write| {
        other.verb == Verb::Change && other.resource == write.resource && other.name == write.name
    };
    let Some(before) = earlier.iter().rfind(same) else {
        return false;
    };
    let owners = |write: &Write| write.result.pointer("/metadata/ownerReferences").cloned();
    let (Verb::Change, Some(adopted), None) = (write.verb, owners(before), owners(write)) else {
        return false;
    };
    write.result["metadata"]["ownerReferences"] = adopted;
    true
}

/// 0103: under Parallel with a null `rollingUpdate`, a pod that is made outdated is made at the update revision instead.
fn make_updated(line: &Line, write: &mut Write) -> bool {
    const LABEL: &str = "/metadata/labels/controller-revision-hash";
    let update = line.expect.update_revision(&line.set);
    let outdated = write
        .result
        .pointer(LABEL)
        .is_some_and(|revision| *revision != update);
    if !(line.is_parallel_with_null_rolling_update()
        && write.resource == "pods"
        && write.verb == Verb::Create
        && outdated)
    {
        return false;
    }
    let template = normalised(line.set["spec"]["template"].clone());
    overlay(
        &mut write.result["metadata"]["labels"],
        &template["metadata"]["labels"],
    );
    write.result["metadata"]["labels"]["controller-revision-hash"] = update;
    write.result["metadata"]["annotations"] = template["metadata"]["annotations"].clone();
    let mut spec = template["spec"].clone();
    for stamped in ["hostname", "subdomain", "volumes"] {
        spec[stamped] = write.result["spec"][stamped].clone();
    }
    write.result["spec"] = spec;
    write.result = normalised(write.result.take());
    true
}

fn overlay(target: &mut Value, fields: &Value) {
    for (key, value) in fields.as_object().into_iter().flatten() {
        target[key] = value.clone();
    }
}

fn excused(line: &Line, write: &Write, earlier: &[Write]) -> Option<OnPurpose> {
    match write.verb {
        Verb::Create => None,
        Verb::Change => is_needless(line, write, earlier).then_some(OnPurpose::NeedlessWrite),
        Verb::Delete if earlier.contains(write) => Some(OnPurpose::DeletedTwice),
        Verb::Delete => {
            let made = earlier
                .iter()
                .any(|other| other.key() == (&*write.resource, &*write.name, Verb::Create, ""));
            (made && write.uid.is_empty()).then_some(OnPurpose::MadeOutdated)
        }
    }
}

/// The pod or claim is already so: as it was seen, or as an earlier write of the same sync made it.
fn is_needless(line: &Line, write: &Write, earlier: &[Write]) -> bool {
    if !["pods", "persistentvolumeclaims"].contains(&&*write.resource) {
        return false;
    }
    let same_object = |other: &&Write| other.resource == write.resource && other.name == write.name;
    if let Some(last) = earlier.iter().rfind(same_object) {
        return same(last, write);
    }
    let seen = line
        .objects(&write.resource)
        .iter()
        .find(|object| name_of(object) == write.name);
    seen.is_some_and(|seen| normalised(seen.clone()) == write.result)
}

/// A created object is compared without what the server fills in.
fn same(earlier: &Write, write: &Write) -> bool {
    let mut result = write.result.clone();
    if earlier.verb == Verb::Create
        && let Some(metadata) = result.get_mut("metadata").and_then(Value::as_object_mut)
    {
        metadata.remove("namespace");
        metadata.remove("creationTimestamp");
    }
    earlier.result == result
}

/// By how much `currentReplicas` may be above upstream's: it takes one off for each delete, those of pods it has just made too.
pub(super) fn current_replicas_slack(on_purpose: &BTreeSet<OnPurpose>, line: &Line) -> u32 {
    if !on_purpose.contains(&OnPurpose::MadeOutdated) {
        return 0;
    }
    let made_and_deleted = line
        .expect
        .writes
        .iter()
        .filter(|write| write.verb == "delete" && write.uid.is_empty());
    u32::try_from(made_and_deleted.count()).unwrap_or(u32::MAX)
}
