//! `POST` to a collection.

use std::sync::Arc;

use http::StatusCode;
use serde_json::Value;
use stead_schema::Kind;

use crate::admit;
use crate::authorize;
use crate::decode::Decoded;
use crate::handle::{Outcome, Reply, Scene, encoded};
use crate::object;
use crate::options::FieldValidation;
use crate::render;
use crate::status::{Cause, Status};
use crate::store::{Change, Stored, key_of, table_of};

/// Creates the object of the body.
pub(crate) fn create(scene: &mut Scene<'_>) -> Result<Outcome, Status> {
    let body = typed(scene, scene.asked.target.kind, &scene.asked.body)?;
    insert(scene, body, StatusCode::CREATED)
}

/// Creates a decoded, defaulted object of the target's kind.
pub(crate) fn insert(
    scene: &mut Scene<'_>,
    mut object: Value,
    code: StatusCode,
) -> Result<Outcome, Status> {
    let asked = scene.asked;
    let kind = asked.target.kind;
    place_in_namespace(&mut object, &asked.target.namespace, kind)?;
    let generated = wants_name(&object);
    if generated {
        generate_name(scene, &mut object);
    }
    object::remove_meta(&mut object, "resourceVersion");
    for field in [
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "selfLink",
    ] {
        object::remove_meta(&mut object, field);
    }
    object::set_meta(&mut object, "uid", scene.entropy.uuid());
    object::set_meta(&mut object, "creationTimestamp", object::time(scene.now));
    if !scene.applied {
        track_fields(scene, kind, None, &mut object, "");
    }
    admitted_create(scene, kind, &mut object)?;
    let table = table_of(kind);
    let mut key = key_of(&asked.target.namespace, object::name(&object));
    for _ in 0..8 {
        if !generated || scene.view.get(table, &key).is_none() {
            break;
        }
        generate_name(scene, &mut object);
        key = key_of(&asked.target.namespace, object::name(&object));
    }
    if scene.view.get(table, &key).is_some() {
        return Err(Status::already_exists(
            kind.group,
            kind.plural,
            object::name(&object),
        ));
    }
    let include = asked.query.get("includeObject");
    if asked.options.dry_run {
        let body = render::value(kind, &object, asked.format.shape, include, scene.now);
        return Ok(Outcome::reply(encoded(
            code,
            body,
            asked.format.yaml,
            &scene.warnings,
        )));
    }
    let revision = scene.next_revision();
    object::set_meta(&mut object, "resourceVersion", revision.to_string());
    let stored = Arc::new(Stored::new(kind, revision, object));
    let body = render::one(kind, &stored, asked.format.shape, include, scene.now);
    let change = Change {
        table,
        key: key.into(),
        object: stored,
        deleted: false,
    };
    Ok(Outcome {
        reply: Reply::Done(encoded(code, body, asked.format.yaml, &scene.warnings)),
        changes: vec![change],
    })
}

/// A decoded body as an object of `kind`: its type checked, unknown fields reported and dropped, defaults set.
pub(crate) fn typed(
    scene: &mut Scene<'_>,
    kind: &'static Kind,
    body: &Decoded,
) -> Result<Value, Status> {
    let (object, warnings) = typed_object(kind, body, scene.asked.options.field_validation)?;
    scene.warnings.extend(warnings);
    Ok(object)
}

fn typed_object(
    kind: &'static Kind,
    body: &Decoded,
    validation: FieldValidation,
) -> Result<(Value, Vec<String>), Status> {
    let mut object = body.value.clone();
    let Some(map) = object.as_object_mut() else {
        return Err(Status::bad_request(format!(
            "{} in version \"{}\" cannot be handled as a {}: the body is not a JSON object",
            kind.kind, kind.version, kind.kind
        )));
    };
    let text = |field: &str| map.get(field).and_then(Value::as_str).unwrap_or("");
    let (api_version, own) = (text("apiVersion").to_owned(), text("kind").to_owned());
    if (!api_version.is_empty() && api_version != kind.api_version())
        || (!own.is_empty() && own != kind.kind)
    {
        return Err(Status::bad_request(format!(
            "the object provided is unrecognized (must be of type {}): the body is {own} of {api_version}, the path wants {} of {}",
            kind.kind,
            kind.kind,
            kind.api_version()
        )));
    }
    map.insert("apiVersion".to_owned(), kind.api_version().into());
    map.insert("kind".to_owned(), kind.kind.into());
    let warnings = strictness(kind, &object, &body.duplicates, validation)?;
    stead_schema::prune(&kind.api_version(), kind.kind, &mut object);
    stead_schema::set_defaults(&mut object);
    Ok((object, warnings))
}

/// What strict decoding finds: refused, warned of, or ignored. Wrong types are always refused.
pub(crate) fn strictness(
    kind: &'static Kind,
    object: &Value,
    duplicates: &[String],
    validation: FieldValidation,
) -> Result<Vec<String>, Status> {
    let mut words = Vec::new();
    for finding in stead_schema::check_types(&kind.api_version(), kind.kind, object) {
        match finding {
            stead_schema::Finding::UnknownField { path } => {
                words.push(format!("unknown field \"{path}\""))
            }
            stead_schema::Finding::WrongType { path, message } => {
                return Err(Status::bad_request(format!(
                    "{} in version \"{}\" cannot be handled as a {}: {path}: {message}",
                    kind.kind, kind.version, kind.kind
                )));
            }
        }
    }
    words.extend(
        duplicates
            .iter()
            .map(|path| format!("duplicate field \"{path}\"")),
    );
    match validation {
        FieldValidation::Ignore => Ok(Vec::new()),
        FieldValidation::Warn => Ok(words),
        FieldValidation::Strict if words.is_empty() => Ok(words),
        FieldValidation::Strict => Err(Status::bad_request(format!(
            "{} in version \"{}\" cannot be handled as a {}: strict decoding error: {}",
            kind.kind,
            kind.version,
            kind.kind,
            words.join(", ")
        ))),
    }
}

fn place_in_namespace(object: &mut Value, namespace: &str, kind: &Kind) -> Result<(), Status> {
    let own = object::meta(object, "namespace").to_owned();
    if !own.is_empty() && own != namespace {
        return Err(Status::bad_request(if kind.namespaced {
            "the namespace of the provided object does not match the namespace sent on the request"
        } else {
            "namespace may not be specified on a cluster-scoped object"
        }));
    }
    if kind.namespaced {
        object::set_meta(object, "namespace", namespace);
    }
    Ok(())
}

/// Whether the name is to be made from `generateName`.
fn wants_name(object: &Value) -> bool {
    object::name(object).is_empty() && !object::meta(object, "generateName").is_empty()
}

/// Makes a name from `generateName`. Names have at most 63 letters where a label must hold them, so the base is cut for the five letters.
fn generate_name(scene: &mut Scene<'_>, object: &mut Value) {
    let base: String = object::meta(object, "generateName")
        .chars()
        .take(58)
        .collect();
    let suffix = scene.entropy.suffix();
    object::set_meta(object, "name", format!("{base}{suffix}"));
}

fn admitted_create(
    scene: &mut Scene<'_>,
    kind: &'static Kind,
    object: &mut Value,
) -> Result<(), Status> {
    let cluster = scene.cluster();
    let name = object::name(object).to_owned();
    let warnings = admit::create(kind, object, &scene.admission(&cluster))
        .map_err(|refusal| refused(kind, &name, refusal))?;
    scene.warnings.extend(warnings);
    given(scene, kind, object)?;
    // Admission works with Go's eyes; what it leaves is written as Go writes it.
    stead_schema::prune(&kind.api_version(), kind.kind, object);
    Ok(())
}

/// Nobody gives away rights that they do not have themselves.
pub(crate) fn given(scene: &Scene<'_>, kind: &Kind, object: &Value) -> Result<(), Status> {
    let name = object::name(object);
    authorize::may_give(&scene.asked.user, kind, object, scene.view)
        .map_err(|why| Status::forbidden(kind.group, kind.plural, name, &why))
}

/// A refusal of admission as an answer about the object.
pub(crate) fn refused(kind: &Kind, name: &str, refusal: admit::Refusal) -> Status {
    let causes = |causes: Vec<admit::Cause>| -> Vec<Cause> {
        causes
            .into_iter()
            .map(|cause| Cause::new(cause.reason.wire(), cause.field, cause.message))
            .collect()
    };
    match refusal {
        admit::Refusal::Invalid(found) => {
            Status::invalid(kind.group, kind.kind, name, &causes(found))
        }
        admit::Refusal::Forbidden {
            message,
            causes: found,
        } => {
            let found: Vec<Cause> = found
                .into_iter()
                .map(|cause| Cause::new(cause.reason, cause.field, cause.message))
                .collect();
            Status::forbidden_because(kind.group, kind.plural, name, &message, &found)
        }
        admit::Refusal::NotFound {
            group,
            plural,
            name,
        } => Status::not_found(&group, &plural, &name),
    }
}

/// Writes `metadata.managedFields` as this write changes it.
///
/// Called before admission: what the server fills in is nobody's.
pub(crate) fn track_fields(
    scene: &Scene<'_>,
    kind: &Kind,
    old: Option<&Value>,
    new: &mut Value,
    subresource: &str,
) {
    let api_version = kind.api_version();
    let writer = stead_schema::fields::Writer {
        manager: &scene.asked.options.field_manager,
        api_version: &api_version,
        subresource,
        now: scene.now,
    };
    stead_schema::fields::after_update(old, new, writer);
}
