//! `DELETE`: options, preconditions, graceful deletion, finalizers and propagation.

use std::sync::Arc;

use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use stead_schema::Kind;

use crate::admit;
use crate::convert;
use crate::create::refused;
use crate::decode::Decoded;
use crate::handle::{Outcome, Reply, Scene, answer, encoded};
use crate::list::{self, page, render_list, select, snapshot};
use crate::object;
use crate::options::dry_run;
use crate::render;
use crate::request::Query;
use crate::selector::Selector;
use crate::status::{Cause, Status};
use crate::store::{Change, Stored, key_of, table_of};

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// `DeleteOptions`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct DeleteOptions {
    pub(crate) grace_seconds: Option<i64>,
    pub(crate) propagation: Option<Propagation>,
    pub(crate) uid: Option<String>,
    pub(crate) revision: Option<String>,
    pub(crate) dry_run: bool,
    /// The old `orphanDependents: false` was given: an unfinished deletion answers 202.
    accepted: bool,
}

/// What becomes of dependents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Propagation {
    Background,
    Foreground,
    Orphan,
}

/// Deletes one object.
pub(crate) fn delete(scene: &mut Scene<'_>) -> Result<Outcome, Status> {
    let asked = scene.asked;
    let target = &asked.target;
    let options = options(&asked.query, &asked.body)?;
    let stored = scene
        .view
        .object(table_of(target.kind), &target.namespace, &target.name)
        .ok_or_else(|| Status::missing(target.kind, &target.name))?;
    if options.propagation.is_none() {
        scene
            .warnings
            .extend(admit::delete_warning(target.kind).map(str::to_owned));
    }
    let removed = remove(scene, &convert::to(target.kind, stored.clone()), &options)?;
    Ok(respond(scene, &stored, removed, &options))
}

/// Deletes what a list selects.
pub(crate) fn delete_collection(scene: &mut Scene<'_>) -> Result<Outcome, Status> {
    let asked = scene.asked;
    let options = options(&asked.query, &asked.body)?;
    let selector = Selector::from_query(asked.target.kind, &asked.query)?;
    let page = page(&asked.target, &asked.query)?;
    let listing = select(snapshot(scene.view, &asked.target, &page)?, &selector);
    let mut changes = Vec::new();
    for (_, stored) in &listing.items {
        scene.taken = u64::try_from(changes.len()).unwrap_or(u64::MAX);
        match remove(scene, stored, &options) {
            Ok(removed) => changes.extend(removed.change),
            Err(status) if status.code == StatusCode::NOT_FOUND => {}
            Err(status) => return Err(status),
        }
    }
    let mut outcome = render_list(scene, listing, &list::Page::default(), false);
    outcome.changes = changes;
    Ok(outcome)
}

/// Reads DeleteOptions from the body, or from the query where there is no body.
///
/// # Errors
/// 400 where they cannot be read, 422 where they contradict themselves.
pub(crate) fn options(query: &Query, body: &Decoded) -> Result<DeleteOptions, Status> {
    let given = if body.value.is_null() {
        from_query(query)?
    } else {
        body.value.clone()
    };
    let Some(map) = given.as_object() else {
        return Err(Status::bad_request("the body is not DeleteOptions"));
    };
    if map.get("kind").is_some_and(|kind| kind != "DeleteOptions") {
        return Err(Status::bad_request(
            "the object provided is unrecognized: the body is not DeleteOptions",
        ));
    }
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let mut causes = Vec::new();
    let dry: Vec<&str> = given["dryRun"]
        .as_array()
        .map(|list| list.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    let dry_run = dry_run(&dry, &mut causes);
    let orphan = given["orphanDependents"].as_bool();
    let propagation = match given["propagationPolicy"].as_str() {
        None => orphan.map(|orphan| {
            if orphan {
                Propagation::Orphan
            } else {
                Propagation::Background
            }
        }),
        Some("Background") => Some(Propagation::Background),
        Some("Foreground") => Some(Propagation::Foreground),
        Some("Orphan") => Some(Propagation::Orphan),
        Some(other) => {
            causes.push(Cause::new("FieldValueNotSupported", "propagationPolicy", format!("Unsupported value: \"{other}\": supported values: \"Background\", \"Foreground\", \"Orphan\", \"nil\"")));
            None
        }
    };
    if orphan.is_some() && !given["propagationPolicy"].is_null() {
        causes.push(Cause::new(
            "FieldValueInvalid",
            "propagationPolicy",
            "Invalid value: orphanDependents and deletionPropagation cannot be both set",
        ));
    }
    if !causes.is_empty() {
        return Err(Status::invalid("meta.k8s.io", "DeleteOptions", "", &causes));
    }
    Ok(DeleteOptions {
        // A negative grace is a second, as upstream.
        grace_seconds: given["gracePeriodSeconds"]
            .as_i64()
            .map(|seconds| if seconds < 0 { 1 } else { seconds }),
        propagation,
        uid: text(&given["preconditions"]["uid"]),
        revision: text(&given["preconditions"]["resourceVersion"]),
        dry_run,
        accepted: orphan == Some(false),
    })
}

fn from_query(query: &Query) -> Result<Value, Status> {
    let mut given = json!({});
    if let Some(seconds) = query.number("gracePeriodSeconds")? {
        given["gracePeriodSeconds"] = seconds.into();
    }
    if !query.get("propagationPolicy").is_empty() {
        given["propagationPolicy"] = query.get("propagationPolicy").into();
    }
    if query.has("orphanDependents") {
        given["orphanDependents"] = query.flag("orphanDependents").into();
    }
    if query.has("dryRun") {
        given["dryRun"] = query.all("dryRun").into();
    }
    Ok(given)
}

/// What became of a deletion.
pub(crate) struct Removed {
    /// The object as it is now, or was last.
    pub(crate) object: Value,
    /// The change to commit: none in dry runs and where the deletion is already on its way.
    pub(crate) change: Option<Change>,
    /// The object is gone.
    pub(crate) gone: bool,
}

/// Deletes an object, or marks it for deletion.
pub(crate) fn remove(
    scene: &mut Scene<'_>,
    stored: &Arc<Stored>,
    options: &DeleteOptions,
) -> Result<Removed, Status> {
    let kind = scene.asked.target.kind;
    let old = stored.value();
    check_preconditions(kind, &old, options)?;
    let cluster = scene.cluster();
    admit::delete(kind, &old, &scene.admission(&cluster))
        .map_err(|refusal| refused(kind, object::name(&old), refusal))?;
    Ok(match plan(kind, &old, options, scene.now) {
        Plan::Pending => Removed {
            object: old,
            change: None,
            gone: false,
        },
        Plan::Mark(new) => {
            let changed = new != old;
            let (object, change) = if changed {
                write(scene, stored, new, options, false)
            } else {
                (old, None)
            };
            Removed {
                object,
                change,
                gone: false,
            }
        }
        Plan::Delete(last) => {
            let (object, change) = write(scene, stored, last, options, true);
            Removed {
                object,
                change,
                gone: true,
            }
        }
    })
}

/// How a deletion goes on.
enum Plan {
    /// It is already on its way and not sped up.
    Pending,
    /// The object stays, marked.
    Mark(Value),
    /// The object goes; its last state.
    Delete(Value),
}

/// The uid and revision that a deletion is about must be the object's.
pub(crate) fn check_preconditions(
    kind: &Kind,
    old: &Value,
    options: &DeleteOptions,
) -> Result<(), Status> {
    // Upstream names the kind here, not the resource, but for namespaces; and the group of the store.
    let named = if kind.plural == "namespaces" {
        kind.plural
    } else {
        kind.kind
    };
    let conflict = |what: &str, want: &str, have: &str| {
        Err(Status::conflict(
            table_of(kind).0,
            named,
            object::name(old),
            &format!(
                "the {what} in the precondition ({want}) does not match the {what} in record ({have}). The object might have been deleted and then recreated"
            ),
        ))
    };
    match (&options.uid, &options.revision) {
        (Some(uid), _) if uid != object::meta(old, "uid") => {
            conflict("UID", uid, object::meta(old, "uid"))
        }
        (_, Some(revision)) if revision != object::meta(old, "resourceVersion") => conflict(
            "ResourceVersion",
            revision,
            object::meta(old, "resourceVersion"),
        ),
        (Some(_) | None, Some(_) | None) => Ok(()),
    }
}

fn plan(kind: &Kind, old: &Value, options: &DeleteOptions, now: Timestamp) -> Plan {
    let mut new = old.clone();
    match (kind.group, kind.plural) {
        ("", "namespaces") => return plan_namespace(kind, new, options, now),
        ("", "pods") => match graceful(&mut new, options, now) {
            Grace::Pending => return Plan::Pending,
            Grace::Seconds(seconds) => {
                set_propagation(kind, &mut new, options);
                let waits = seconds > 0 || !object::finalizers(&new).is_empty();
                return if waits {
                    Plan::Mark(new)
                } else {
                    Plan::Delete(new)
                };
            }
            Grace::Now => {}
        },
        _ => {}
    }
    set_propagation(kind, &mut new, options);
    if object::finalizers(&new).is_empty() {
        return Plan::Delete(new);
    }
    mark(&mut new, now, 0);
    Plan::Mark(new)
}

/// A namespace is marked first; when its content is gone and its finalizers are empty it can go.
fn plan_namespace(kind: &Kind, mut new: Value, options: &DeleteOptions, now: Timestamp) -> Plan {
    if object::is_terminating(&new) {
        let waits = new["spec"]["finalizers"]
            .as_array()
            .is_some_and(|list| !list.is_empty())
            || !object::finalizers(&new).is_empty();
        return if waits {
            Plan::Pending
        } else {
            Plan::Delete(new)
        };
    }
    set_propagation(kind, &mut new, options);
    object::set_meta(&mut new, "deletionTimestamp", object::time(now));
    new["status"]["phase"] = "Terminating".into();
    Plan::Mark(new)
}

enum Grace {
    /// Deletion is already on its way and was not sped up.
    Pending,
    /// Marked with this many seconds.
    Seconds(i64),
    /// The seconds are over: nothing to mark.
    Now,
}

/// A pod is marked with its grace; a second deletion may only shorten it.
fn graceful(pod: &mut Value, options: &DeleteOptions, now: Timestamp) -> Grace {
    if object::is_terminating(pod) {
        let have = pod["metadata"]["deletionGracePeriodSeconds"]
            .as_i64()
            .unwrap_or(0);
        return match options.grace_seconds {
            _ if have == 0 => Grace::Now,
            Some(seconds) if seconds < have => {
                let since = object::meta(pod, "deletionTimestamp")
                    .parse()
                    .unwrap_or(now);
                let at = since - SignedDuration::from_secs(have - seconds);
                object::set_meta(pod, "deletionTimestamp", object::time(at));
                object::set_meta(pod, "deletionGracePeriodSeconds", seconds);
                Grace::Seconds(seconds)
            }
            Some(_) | None => Grace::Pending,
        };
    }
    let seconds = admit::pod_grace_seconds(pod, options.grace_seconds);
    mark(pod, now, seconds);
    Grace::Seconds(seconds)
}

fn mark(object: &mut Value, now: Timestamp, grace_seconds: i64) {
    if object::is_terminating(object) {
        return;
    }
    let at = now
        .checked_add(SignedDuration::from_secs(grace_seconds))
        .unwrap_or(now);
    object::set_meta(object, "deletionTimestamp", object::time(at));
    object::set_meta(object, "deletionGracePeriodSeconds", grace_seconds);
    let generation = object::generation(object);
    if generation > 0 {
        object::set_meta(object, "generation", generation + 1);
    }
}

/// Puts the garbage collector's finalizers as the options say.
fn set_propagation(kind: &Kind, object: &mut Value, options: &DeleteOptions) {
    let old: Vec<String> = object::finalizers(object)
        .into_iter()
        .map(str::to_owned)
        .collect();
    let has = |name: &str| old.iter().any(|finalizer| finalizer == name);
    // Where nobody says otherwise, the pods of a Job outlive it; the dependents of everything else do not.
    let by_default = kind.group == "batch" && kind.plural == "jobs" && !has(FOREGROUND);
    let orphan = options.propagation.map_or_else(
        || has(ORPHAN) || by_default,
        |policy| policy == Propagation::Orphan,
    );
    let foreground = options.propagation.map_or_else(
        || has(FOREGROUND),
        |policy| policy == Propagation::Foreground,
    );
    if has(ORPHAN) == orphan && has(FOREGROUND) == foreground {
        return;
    }
    let mut new: Vec<String> = old
        .iter()
        .filter(|finalizer| *finalizer != ORPHAN && *finalizer != FOREGROUND)
        .cloned()
        .collect();
    if orphan {
        new.push(ORPHAN.to_owned());
    }
    if foreground {
        new.push(FOREGROUND.to_owned());
    }
    object::set_finalizers(object, new);
}

fn write(
    scene: &Scene<'_>,
    stored: &Stored,
    mut new: Value,
    options: &DeleteOptions,
    deleted: bool,
) -> (Value, Option<Change>) {
    if options.dry_run {
        return (new, None);
    }
    let revision = scene.next_revision();
    let key: Box<str> = key_of(object::meta(&new, "namespace"), object::name(&new)).into();
    object::set_meta(&mut new, "resourceVersion", revision.to_string());
    let object = Arc::new(Stored::new(stored.kind, revision, new.clone()));
    (
        new,
        Some(Change {
            table: table_of(stored.kind),
            key,
            object,
            deleted,
        }),
    )
}

/// Kinds whose final deletion answers with the object, not with a Status (upstream: `ReturnDeletedObject`).
fn returns_object(kind: &Kind) -> bool {
    matches!(
        (kind.group, kind.plural),
        (
            "storage.k8s.io",
            "storageclasses" | "csidrivers" | "csinodes" | "volumeattachments"
        ) | (
            "",
            "pods"
                | "services"
                | "persistentvolumeclaims"
                | "persistentvolumes"
                | "podtemplates"
                | "resourcequotas"
                | "serviceaccounts"
        )
    )
}

fn respond(
    scene: &Scene<'_>,
    stored: &Stored,
    removed: Removed,
    options: &DeleteOptions,
) -> Outcome {
    let asked = scene.asked;
    let kind = asked.target.kind;
    let code = if !removed.gone && options.accepted {
        StatusCode::ACCEPTED
    } else {
        StatusCode::OK
    };
    let response = if !removed.gone || returns_object(kind) {
        let body = render::value(
            kind,
            &removed.object,
            asked.format.shape,
            asked.query.get("includeObject"),
            scene.now,
        );
        encoded(code, body, asked.format.yaml, &scene.warnings)
    } else {
        answer(
            code,
            &success(kind, &stored.value()),
            asked.format.yaml,
            &scene.warnings,
        )
    };
    Outcome {
        reply: Reply::Done(response),
        changes: removed.change.into_iter().collect(),
    }
}

fn success(kind: &Kind, object: &Value) -> Value {
    let mut details = json!({"name": object::name(object), "kind": kind.plural, "uid": object::meta(object, "uid")});
    if !kind.group.is_empty() {
        details["group"] = kind.group.into();
    }
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}
