//! `PATCH`: JSON patch, merge patch, strategic merge patch, and server-side apply.

use http::StatusCode;
use serde_json::Value;
use stead_schema::Kind;

use crate::create::strictness;
use crate::decode;
use crate::handle::{Outcome, Scene};
use crate::object;
use crate::options::FieldValidation;
use crate::status::{Cause, Status};
use crate::store::table_of;
use crate::update::{check_revision, replace};

/// Operations in one JSON patch at most, as upstream.
const OPERATIONS_MAX: usize = 10_000;

/// The kinds of patches, by their content types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PatchType {
    Json,
    Merge,
    Strategic,
    Apply,
}

/// The kind of patch that a content type names.
///
/// # Errors
/// 415 for any other.
pub(crate) fn patch_type(content_type: &str) -> Result<PatchType, Status> {
    match content_type.split(';').next().unwrap_or("").trim() {
        "application/json-patch+json" => Ok(PatchType::Json),
        "application/merge-patch+json" => Ok(PatchType::Merge),
        "application/strategic-merge-patch+json" => Ok(PatchType::Strategic),
        "application/apply-patch+yaml" => Ok(PatchType::Apply),
        _ => Err(Status::unsupported_media_type(
            "application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml",
        )),
    }
}

/// Patches an object.
pub(crate) fn patch(scene: &mut Scene<'_>) -> Result<Outcome, Status> {
    let asked = scene.asked;
    let target = &asked.target;
    let kind = target.kind;
    if asked.patch == Some(PatchType::Apply) {
        return crate::apply::apply(scene);
    }
    let stored = scene
        .view
        .object(table_of(kind), &target.namespace, &target.name)
        .ok_or_else(|| Status::missing(kind, &target.name))?;
    let stored = crate::convert::to(kind, stored);
    let old = stored.value();
    let patched = patched(scene, kind, &old)?;
    check_revision(kind, &stored, &patched)?;
    if object::meta(&patched, "namespace") != object::meta(&old, "namespace") {
        return Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    replace(scene, &stored, patched, StatusCode::OK)
}

/// The patched object of `kind`, checked, pruned and defaulted.
pub(crate) fn patched(
    scene: &mut Scene<'_>,
    kind: &'static Kind,
    old: &Value,
) -> Result<Value, Status> {
    let asked = scene.asked;
    let (raw, validation) = (&asked.raw, asked.options.field_validation);
    let mut warnings = Vec::new();
    let mut new = match asked.patch {
        Some(PatchType::Json) => json_patch(raw, old)?,
        Some(PatchType::Merge) => {
            let patch = document(raw, validation, &mut warnings)?;
            let mut new = old.clone();
            json_patch::merge(&mut new, &patch);
            new
        }
        Some(PatchType::Strategic) => {
            let patch = document(raw, validation, &mut warnings)?;
            check_object(&patch)?;
            stead_schema::strategic_merge(&kind.api_version(), kind.kind, old, &patch)
                .map_err(|error| strategic_error(&error))?
        }
        Some(PatchType::Apply) | None => {
            return Err(Status::internal("no patch that changes an object in place"));
        }
    };
    check_type(kind, &new)?;
    let found =
        strictness(kind, &new, &[], validation).map_err(|status| invalid_patch(&status.message))?;
    warnings.extend(found);
    scene.warnings.extend(warnings);
    stead_schema::prune(&kind.api_version(), kind.kind, &mut new);
    stead_schema::set_defaults(&mut new);
    Ok(new)
}

fn check_type(kind: &Kind, new: &Value) -> Result<(), Status> {
    let text = |field: &str| new.get(field).and_then(Value::as_str).unwrap_or("");
    let (api_version, own) = (text("apiVersion"), text("kind"));
    if api_version == kind.api_version() && own == kind.kind {
        return Ok(());
    }
    Err(Status::bad_request(format!(
        "{own} in version \"{api_version}\" cannot be handled as a {}",
        kind.kind
    )))
}

/// Upstream words everything that a patched object cannot be decoded with as an invalid `patch`.
fn invalid_patch(why: &str) -> Status {
    Status::invalid(
        "",
        "",
        "",
        &[Cause::new(
            "FieldValueInvalid",
            "patch",
            format!("Invalid value: {why}"),
        )],
    )
}

fn document(
    raw: &[u8],
    validation: FieldValidation,
    warnings: &mut Vec<String>,
) -> Result<Value, Status> {
    let decoded = decode::json(raw).map_err(|status| {
        Status::bad_request(format!("error decoding patch: {}", status.message))
    })?;
    let words: Vec<String> = decoded
        .duplicates
        .iter()
        .map(|path| format!("duplicate field \"{path}\""))
        .collect();
    match validation {
        FieldValidation::Strict if !words.is_empty() => Err(Status::bad_request(format!(
            "strict decoding error: {}",
            words.join(", ")
        ))),
        FieldValidation::Warn => {
            warnings.extend(words);
            Ok(decoded.value)
        }
        FieldValidation::Strict | FieldValidation::Ignore => Ok(decoded.value),
    }
}

/// A strategic merge patch is an object; the words are those of Go's decoder.
fn check_object(patch: &Value) -> Result<(), Status> {
    let word = match patch {
        Value::Object(_) | Value::Null => return Ok(()),
        Value::String(_) => "string",
        Value::Number(_) => "number",
        Value::Bool(_) => "bool",
        Value::Array(_) => "array",
    };
    Err(Status::bad_request(format!(
        "json: cannot unmarshal {word} into Go value of type map[string]interface {{}}"
    )))
}

fn json_patch(raw: &[u8], old: &Value) -> Result<Value, Status> {
    let decoded = decode::json(raw).map_err(|status| {
        Status::bad_request(format!("error decoding patch: {}", status.message))
    })?;
    let count = decoded.value.as_array().map_or(0, Vec::len);
    if count > OPERATIONS_MAX {
        let mut status = Status::too_large(OPERATIONS_MAX);
        status.message = format!(
            "The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {count}"
        );
        return Err(status);
    }
    let patch: json_patch::Patch = serde_json::from_value(decoded.value)
        .map_err(|error| Status::bad_request(format!("error decoding patch: {error}")))?;
    let mut new = old.clone();
    json_patch::patch(&mut new, &patch).map_err(|error| {
        tracing::debug!(%error, "a JSON patch does not apply");
        // Upstream says no more than this.
        Status::unprocessable("the server rejected our request due to an error in our request")
    })?;
    Ok(new)
}

/// Upstream's own 500s, for patches that it did not foresee, are answered as what they are: the client's mistake.
fn strategic_error(error: &stead_schema::PatchError) -> Status {
    match error.upstream_code() {
        415 => Status::unsupported_media_type(
            "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
        ),
        422 => Status::unprocessable(error.to_string()),
        _ => Status::bad_request(error.to_string()),
    }
}
