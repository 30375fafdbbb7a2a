//! `PUT`, and what every replacement of an object has in common: preconditions, admission, no write without a change, removal with the last finalizer.

use std::sync::Arc;

use http::StatusCode;
use serde_json::Value;
use stead_schema::Kind;

use crate::admit;
use crate::convert;
use crate::create::{given, insert, refused, track_fields, typed};
use crate::handle::{Outcome, Reply, Scene, encoded};
use crate::object;
use crate::render;
use crate::status::{Cause, Status};
use crate::store::{Change, Stored, key_of, table_of};

/// Why a replacement is refused when somebody else was faster; clients look for these words.
const MODIFIED: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

/// Replaces an object by the body, or creates it where its kind allows that.
pub(crate) fn update(scene: &mut Scene<'_>) -> Result<Outcome, Status> {
    let asked = scene.asked;
    let target = &asked.target;
    let kind = target.kind;
    let mut new = typed(scene, kind, &asked.body)?;
    check_place(&new, target.kind, &target.namespace, &target.name)?;
    if kind.namespaced {
        object::set_meta(&mut new, "namespace", target.namespace.as_str());
    }
    match scene
        .view
        .object(table_of(kind), &target.namespace, &target.name)
    {
        Some(old) => {
            let old = convert::to(kind, old);
            check_preconditions(kind, &old, &new)?;
            replace(scene, &old, new, StatusCode::OK)
        }
        None if target.subresource.is_empty() && admit::allows_create_on_update(kind) => {
            object::set_meta(&mut new, "name", target.name.as_str());
            insert(scene, new, StatusCode::CREATED)
        }
        None => Err(Status::missing(kind, &target.name)),
    }
}

/// A body's name and namespace, where given, must be the path's.
pub(crate) fn check_place(
    object: &Value,
    kind: &Kind,
    namespace: &str,
    name: &str,
) -> Result<(), Status> {
    let own = object::name(object);
    if own.is_empty() {
        return Err(Status::bad_request("name must be provided"));
    }
    if own != name {
        return Err(Status::bad_request(format!(
            "the name of the object ({own}) does not match the name on the URL ({name})"
        )));
    }
    let own = object::meta(object, "namespace");
    if !own.is_empty() && own != namespace {
        return Err(Status::bad_request(if kind.namespaced {
            format!(
                "the namespace of the object ({own}) does not match the namespace on the URL ({namespace})"
            )
        } else {
            "namespace may not be specified on a cluster-scoped object".to_owned()
        }));
    }
    Ok(())
}

fn check_preconditions(kind: &Kind, old: &Stored, new: &Value) -> Result<(), Status> {
    let name = object::name(new);
    let conflict = |why: &str| Status::conflict(kind.group, kind.plural, name, why);
    let revision = object::meta(new, "resourceVersion");
    if revision.is_empty() || revision == "0" {
        if !admit::allows_unconditional_update(kind) {
            let cause = Cause::new(
                "FieldValueInvalid",
                "metadata.resourceVersion",
                format!("Invalid value: \"{revision}\": must be specified for an update"),
            );
            // Upstream names the resource here, not the kind.
            return Err(Status::invalid(kind.group, kind.plural, name, &[cause]));
        }
    } else if revision != old.revision.to_string() {
        return Err(conflict(MODIFIED));
    }
    let uid = object::meta(new, "uid");
    let old = old.value();
    let have = object::meta(&old, "uid");
    if !uid.is_empty() && uid != have {
        return Err(conflict(&format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {have}"
        )));
    }
    Ok(())
}

/// The revision in a patched object must still be the stored one.
pub(crate) fn check_revision(kind: &Kind, old: &Stored, new: &Value) -> Result<(), Status> {
    let revision = object::meta(new, "resourceVersion");
    if revision.is_empty() || revision == "0" || revision == old.revision.to_string() {
        return Ok(());
    }
    Err(Status::conflict(
        kind.group,
        kind.plural,
        object::name(new),
        MODIFIED,
    ))
}

/// What became of a replacement.
pub(crate) struct Replaced {
    /// The object as it is now; a dry run's is not stored.
    pub(crate) object: Value,
    /// The change to commit, none when nothing changed.
    pub(crate) change: Option<Change>,
}

/// Replaces `old` by a decoded, defaulted object and answers with what came of it.
pub(crate) fn replace(
    scene: &mut Scene<'_>,
    old: &Arc<Stored>,
    new: Value,
    code: StatusCode,
) -> Result<Outcome, Status> {
    let asked = scene.asked;
    let subresource = asked.target.subresource.as_str();
    let replaced = admitted(scene, old, new, subresource, subresource)?;
    Ok(answer(scene, replaced, code))
}

/// Answers with the replaced object in the asked shape.
pub(crate) fn answer(scene: &Scene<'_>, replaced: Replaced, code: StatusCode) -> Outcome {
    let asked = scene.asked;
    let include = asked.query.get("includeObject");
    let body = match &replaced.change {
        Some(change) => render::one(
            asked.target.kind,
            &change.object,
            asked.format.shape,
            include,
            scene.now,
        ),
        None => render::value(
            asked.target.kind,
            &replaced.object,
            asked.format.shape,
            include,
            scene.now,
        ),
    };
    Outcome {
        reply: Reply::Done(encoded(code, body, asked.format.yaml, &scene.warnings)),
        changes: replaced.change.into_iter().collect(),
    }
}

/// Admits a replacement and finds the change that it makes.
///
/// `rules` names the subresource whose rules apply, `tracked` the one that owns the fields.
pub(crate) fn admitted(
    scene: &mut Scene<'_>,
    stored: &Arc<Stored>,
    mut new: Value,
    rules: &str,
    tracked: &str,
) -> Result<Replaced, Status> {
    let kind = scene.asked.target.kind;
    let old = stored.value();
    object::copy_meta(&old, &mut new, "resourceVersion");
    if !scene.applied {
        track_fields(scene, kind, Some(&old), &mut new, tracked);
    }
    let cluster = scene.cluster();
    let name = object::name(&old).to_owned();
    let warnings = admit::update(kind, rules, &old, &mut new, &scene.admission(&cluster))
        .map_err(|refusal| refused(kind, &name, refusal))?;
    scene.warnings.extend(warnings);
    given(scene, kind, &new)?;
    object::copy_meta(&old, &mut new, "resourceVersion");
    stead_schema::prune(&kind.api_version(), kind.kind, &mut new);
    Ok(settle(scene, stored, &old, new))
}

/// The change that turns `old` into `new`: none, a removal, or a write.
pub(crate) fn settle(
    scene: &Scene<'_>,
    stored: &Arc<Stored>,
    old: &Value,
    mut new: Value,
) -> Replaced {
    let kind = scene.asked.target.kind;
    let table = table_of(kind);
    let key: Box<str> = key_of(object::meta(old, "namespace"), object::name(old)).into();
    let deleted = is_finished(kind, &new);
    if (!deleted && same(old, &new)) || scene.asked.options.dry_run {
        let object = if same(old, &new) { old.clone() } else { new };
        return Replaced {
            object,
            change: None,
        };
    }
    let revision = scene.next_revision();
    object::set_meta(&mut new, "resourceVersion", revision.to_string());
    let object = Arc::new(Stored::new(stored.kind, revision, new.clone()));
    Replaced {
        object: new,
        change: Some(Change {
            table,
            key,
            object,
            deleted,
        }),
    }
}

/// Whether an object that is being deleted has nothing left to wait for.
pub(crate) fn is_finished(kind: &Kind, object: &Value) -> bool {
    let waits = object
        .pointer("/metadata/deletionGracePeriodSeconds")
        .and_then(Value::as_i64)
        .unwrap_or(0)
        > 0;
    let spec_finalizers = kind.group.is_empty()
        && kind.plural == "namespaces"
        && object
            .pointer("/spec/finalizers")
            .and_then(Value::as_array)
            .is_some_and(|list| !list.is_empty());
    object::is_terminating(object)
        && !waits
        && object::finalizers(object).is_empty()
        && !spec_finalizers
}

/// Whether two states differ in nothing but the times of their field managers.
fn same(old: &Value, new: &Value) -> bool {
    let (Some(old), Some(new)) = (old.as_object(), new.as_object()) else {
        return false;
    };
    old.len() == new.len()
        && old.iter().all(|(field, value)| match new.get(field) {
            Some(other) if field == "metadata" => same_metadata(value, other),
            other => other == Some(value),
        })
}

fn same_metadata(old: &Value, new: &Value) -> bool {
    let (Some(old), Some(new)) = (old.as_object(), new.as_object()) else {
        return false;
    };
    old.len() == new.len()
        && old.iter().all(|(field, value)| match new.get(field) {
            Some(other) if field == "managedFields" => same_managers(value, other),
            other => other == Some(value),
        })
}

fn same_managers(old: &Value, new: &Value) -> bool {
    let (Some(old), Some(new)) = (old.as_array(), new.as_array()) else {
        return false;
    };
    let timeless = |entry: &Value| {
        let mut entry = entry.clone();
        if let Some(map) = entry.as_object_mut() {
            map.remove("time");
        }
        entry
    };
    old.len() == new.len()
        && old
            .iter()
            .zip(new)
            .all(|(left, right)| left == right || timeless(left) == timeless(right))
}
