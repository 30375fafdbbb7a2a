//! Server-side apply: `application/apply-patch+yaml`. Who owns what is `stead_schema::fields`' to say.

use http::StatusCode;
use serde_json::{Value, json};
use stead_schema::Kind;
use stead_schema::fields::{self, ApplyError, Conflict, Writer};

use crate::create::{insert, strictness};
use crate::decode;
use crate::handle::{Outcome, Scene};
use crate::object;
use crate::options::FieldValidation;
use crate::status::Status;
use crate::store::table_of;
use crate::update::{check_place, check_revision, replace};

/// Applies a configuration: changes the object, or creates it.
pub(crate) fn apply(scene: &mut Scene<'_>) -> Result<Outcome, Status> {
    let asked = scene.asked;
    let target = &asked.target;
    let kind = target.kind;
    let mut config = configuration(scene)?;
    check_type(kind, &config)?;
    if object::meta(&config, "namespace").is_empty() && kind.namespaced {
        object::set_meta(&mut config, "namespace", target.namespace.as_str());
    }
    let stored = scene
        .view
        .object(table_of(kind), &target.namespace, &target.name)
        .map(|stored| crate::convert::to(kind, stored));
    if stored.is_none() && !target.subresource.is_empty() {
        return Err(Status::missing(kind, &target.name));
    }
    let live = stored.as_ref().map(|stored| stored.value());
    let api_version = kind.api_version();
    let writer = Writer {
        manager: &asked.options.field_manager,
        api_version: &api_version,
        subresource: &target.subresource,
        now: scene.now,
    };
    let object =
        fields::apply(live.as_ref(), &config, writer, asked.options.force).map_err(refused)?;
    check_place(&object, kind, &target.namespace, &target.name)?;
    scene.applied = true;
    match &stored {
        Some(stored) => {
            check_revision(kind, stored, &config)?;
            replace(scene, stored, object, StatusCode::OK)
        }
        None => insert(scene, object, StatusCode::CREATED),
    }
}

/// The configuration of the body, checked as strictly as asked.
fn configuration(scene: &mut Scene<'_>) -> Result<Value, Status> {
    let (kind, validation) = (
        scene.asked.target.kind,
        scene.asked.options.field_validation,
    );
    let decoded = decode::json(&scene.asked.raw).or_else(|_| decode::yaml(&scene.asked.raw))?;
    if !decoded.value.is_object() {
        return Err(Status::bad_request(
            "error decoding YAML: the body is not an object",
        ));
    }
    if !decoded.duplicates.is_empty() {
        let words: Vec<String> = decoded
            .duplicates
            .iter()
            .map(|path| format!("duplicate field \"{path}\""))
            .collect();
        match validation {
            FieldValidation::Strict => {
                return Err(Status::bad_request(format!(
                    "error strict decoding YAML: {}",
                    words.join(", ")
                )));
            }
            FieldValidation::Warn => scene.warnings.extend(words),
            FieldValidation::Ignore => {}
        }
    }
    // Unknown fields are refused below whatever is asked; wrong types are found here in upstream's words.
    strictness(kind, &decoded.value, &[], FieldValidation::Ignore)?;
    Ok(decoded.value)
}

fn check_type(kind: &Kind, config: &Value) -> Result<(), Status> {
    let text = |field: &str| config.get(field).and_then(Value::as_str).unwrap_or("");
    if text("kind") == kind.kind {
        return Ok(());
    }
    Err(Status::bad_request(format!(
        "the applied object is a {} of {}, the path wants a {} of {}",
        text("kind"),
        text("apiVersion"),
        kind.kind,
        kind.api_version()
    )))
}

fn refused(error: ApplyError) -> Status {
    let message = error.to_string();
    match error {
        ApplyError::Conflicts(conflicts) => {
            Status::field_conflicts(message, conflicts.iter().map(cause).collect())
        }
        ApplyError::WrongVersion { .. }
        | ApplyError::ManagedFieldsGiven
        | ApplyError::UnknownKind { .. } => Status::bad_request(message),
        ApplyError::NotTyped { .. } => Status::unknown(message),
        ApplyError::BadManagedFields => Status::internal(message),
    }
}

fn cause(conflict: &Conflict) -> Value {
    json!({"reason": "FieldManagerConflict", "message": format!("conflict with {}", conflict.manager), "field": conflict.field})
}
