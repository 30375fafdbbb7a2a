//! Strategic merge patch: maps merge, lists merge by the keys of the table, `$` directives steer.
//!
//! Quirks of upstream that can be seen from outside are kept: an element that is new to a list is taken as it is,
//! directives inside it included (they are unknown fields then, and pruned); order follows
//! `$setElementOrder`, then the patch, then the live list. `upstream: apimachinery/pkg/util/strategicpatch`

mod list;

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::table::{Shape, TypeId, table};

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList";
const SET_ORDER: &str = "$setElementOrder";

/// Why a patch cannot be applied.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PatchError {
    /// The patch or the object is not a JSON object.
    #[error("a strategic merge patch and what it is applied to must be JSON objects")]
    NotAnObject,
    /// Kinds that the table does not know (custom resources) have no merge keys.
    #[error(
        "strategic merge patch format is not supported for {api_version} {kind}: send application/merge-patch+json or application/json-patch+json"
    )]
    Unsupported {
        /// As the object says.
        api_version: String,
        /// As the object says.
        kind: String,
    },
    /// `$deleteFromPrimitiveList` without `/field`.
    #[error("invalid patch format of primitive list: write $deleteFromPrimitiveList/FIELD")]
    PrimitiveListFormat,
    /// `$retainKeys` is no list, or the patch sets a key that the list does not name.
    #[error(
        "invalid patch format of retainKeys: it must list every key that the patch sets beside it"
    )]
    RetainKeysFormat,
    /// `$setElementOrder` is no list, or has no `/field`.
    #[error(
        "invalid patch format of setElementOrder list: write $setElementOrder/FIELD with a list"
    )]
    SetElementOrderFormat,
    /// The patch's elements do not follow `$setElementOrder`.
    #[error("the order in the patch list of {field} does not match its $setElementOrder list")]
    OrderMismatch {
        /// The list's field.
        field: String,
    },
    /// Lists in lists cannot be merged.
    #[error("lists of lists are not supported: {field}")]
    ListOfLists {
        /// The list's field.
        field: String,
    },
    /// Elements of one list are of different types, or there are none to order.
    #[error("list element types are not identical, or there are no elements: {field}")]
    ElementTypes {
        /// The list's field.
        field: String,
    },
    /// An element lacks the key by which its list merges.
    #[error("an element of the list {field} does not contain its declared merge key {key}")]
    NoMergeKey {
        /// The list's field.
        field: String,
        /// The key.
        key: String,
    },
    /// A list of objects is to be merged but has no key.
    #[error("the list {field} cannot be merged: it has no merge key")]
    NoDeclaredKey {
        /// The list's field.
        field: String,
    },
    /// `$patch` is neither replace nor delete.
    #[error("unknown patch type {directive}: $patch may be replace or delete")]
    UnknownDirective {
        /// What it says.
        directive: String,
    },
    /// The patch goes into a field that the type does not have.
    #[error("there is no field {field} to merge into")]
    UnknownField {
        /// The field.
        field: String,
    },
}

impl PatchError {
    /// The HTTP code with which upstream answers: 400, 422, or 500 for what it did not foresee.
    #[must_use]
    pub fn upstream_code(&self) -> u16 {
        match self {
            Self::NotAnObject
            | Self::PrimitiveListFormat
            | Self::RetainKeysFormat
            | Self::SetElementOrderFormat => 400,
            Self::Unsupported { .. } => 415,
            Self::ListOfLists { .. } => 422,
            Self::OrderMismatch { .. }
            | Self::ElementTypes { .. }
            | Self::NoMergeKey { .. }
            | Self::NoDeclaredKey { .. }
            | Self::UnknownDirective { .. }
            | Self::UnknownField { .. } => 500,
        }
    }
}

type Object = Map<String, Value>;

/// What is known of the value that is being merged.
#[derive(Clone, Copy)]
enum Schema {
    Struct(TypeId),
    /// A map; its values are all of one shape.
    Map(&'static Shape),
    /// A scalar, or JSON without a schema.
    Opaque,
}

/// How one field merges.
struct Rules {
    /// Of the field's value, or of its elements if it is a list.
    schema: Schema,
    /// Lists merge element by element; others are replaced.
    merges: bool,
    replaces: bool,
    merge_key: &'static str,
}

/// What `patch` makes of `original`, an object of `kind` in `api_version`.
///
/// The result still holds directives that upstream leaves in place: [`prune`](crate::prune) it, then default it.
///
/// # Errors
/// See [`PatchError`]; [`PatchError::upstream_code`] says how upstream answers.
pub fn strategic_merge(
    api_version: &str,
    kind: &str,
    original: &Value,
    patch: &Value,
) -> Result<Value, PatchError> {
    let Some(id) = table().of_kind(api_version, kind) else {
        return Err(PatchError::Unsupported {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
        });
    };
    let (Value::Object(original), Value::Object(patch)) = (original, patch) else {
        return Err(PatchError::NotAnObject);
    };
    merge_map(original.clone(), patch.clone(), Schema::Struct(id)).map(Value::Object)
}

fn merge_map(
    mut original: Object,
    mut patch: Object,
    schema: Schema,
) -> Result<Object, PatchError> {
    if let Some(directive) = patch.remove(PATCH) {
        return match directive.as_str() {
            Some("replace") => Ok(patch),
            Some("delete") => Ok(Object::new()),
            Some(_) | None => Err(PatchError::UnknownDirective {
                directive: directive.to_string(),
            }),
        };
    }
    retain_keys(&mut original, &mut patch)?;
    merge_ordered_lists(&mut original, &mut patch, schema)?;
    for (key, value) in patch {
        merge_field(&mut original, &key, value, schema)?;
    }
    Ok(original)
}

/// `$retainKeys`: of the live object only these keys stay; the patch may set no others.
fn retain_keys(original: &mut Object, patch: &mut Object) -> Result<(), PatchError> {
    let Some(retained) = patch.remove(RETAIN_KEYS) else {
        return Ok(());
    };
    let Value::Array(retained) = retained else {
        return Err(PatchError::RetainKeysFormat);
    };
    let is_retained = |key: &str| retained.iter().any(|name| name == key);
    let is_directive = |key: &str| key.starts_with(DELETE_FROM) || key.starts_with(SET_ORDER);
    if patch
        .iter()
        .any(|(key, value)| !value.is_null() && !is_directive(key) && !is_retained(key))
    {
        return Err(PatchError::RetainKeysFormat);
    }
    original.retain(|key, _| is_retained(key));
    Ok(())
}

/// `$setElementOrder/FIELD`: the list is merged here, with its order, and taken out of the patch.
fn merge_ordered_lists(
    original: &mut Object,
    patch: &mut Object,
    schema: Schema,
) -> Result<(), PatchError> {
    let directives: Vec<String> = patch
        .keys()
        .filter(|key| key.starts_with(SET_ORDER))
        .cloned()
        .collect();
    for directive in directives {
        let Some(Value::Array(order)) = patch.remove(&directive) else {
            return Err(PatchError::SetElementOrderFormat);
        };
        let field =
            directive_field(&directive, SET_ORDER).ok_or(PatchError::SetElementOrderFormat)?;
        let live = original.get(field).map(list_of).transpose()?;
        let patched = patch
            .remove(field)
            .map(|value| list_of(&value))
            .transpose()?;
        if live.is_none() && patched.is_none() {
            continue;
        }
        let rules = rules(schema, field)?;
        let merged =
            list::merge_in_order(field, &rules, live.unwrap_or_default(), patched, &order)?;
        original.insert(field.to_owned(), Value::Array(merged));
    }
    Ok(())
}

fn list_of(value: &Value) -> Result<Vec<Value>, PatchError> {
    value
        .as_array()
        .cloned()
        .ok_or(PatchError::SetElementOrderFormat)
}

/// `PREFIX/field` is `field`.
fn directive_field<'a>(key: &'a str, prefix: &str) -> Option<&'a str> {
    key.strip_prefix(prefix)?.strip_prefix('/')
}

fn merge_field(
    original: &mut Object,
    key: &str,
    value: Value,
    schema: Schema,
) -> Result<(), PatchError> {
    let deletes = key.starts_with(DELETE_FROM);
    let field = if deletes {
        directive_field(key, DELETE_FROM).ok_or(PatchError::PrimitiveListFormat)?
    } else {
        key
    };
    if value.is_null() {
        original.remove(field);
        return Ok(());
    }
    let merged = match (original.remove(field), value) {
        (Some(Value::Object(live)), Value::Object(patch)) => {
            let rules = rules(schema, field)?;
            Some(Value::Object(if rules.replaces {
                patch
            } else {
                merge_map(live, patch, rules.schema)?
            }))
        }
        (Some(Value::Array(live)), Value::Array(patch)) => {
            let rules = rules(schema, field)?;
            let merges = rules.merges || deletes;
            Some(Value::Array(if merges {
                list::merge(field, &rules, live, patch, deletes)?
            } else {
                patch
            }))
        }
        (live, _) if deletes => live,
        (_, mut value) => {
            discard_nulls(&mut value);
            without_directives(value)
        }
    };
    if let Some(merged) = merged {
        original.insert(field.to_owned(), merged);
    }
    Ok(())
}

/// Nulls in maps, at any depth, say nothing about what is not there.
fn discard_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(discard_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(discard_nulls),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The value without maps that carry `$patch`; `None` if it is one itself.
fn without_directives(value: Value) -> Option<Value> {
    match value {
        Value::Object(map) if map.contains_key(PATCH) => None,
        Value::Object(map) => Some(Value::Object(
            map.into_iter()
                .filter_map(|(key, value)| Some((key, without_directives(value)?)))
                .collect(),
        )),
        Value::Array(list) => Some(Value::Array(
            list.into_iter().filter_map(without_directives).collect(),
        )),
        scalar => Some(scalar),
    }
}

fn rules(schema: Schema, field: &str) -> Result<Rules, PatchError> {
    match schema {
        Schema::Struct(id) => {
            let field = table()
                .of(id)
                .field(field)
                .ok_or_else(|| PatchError::UnknownField {
                    field: field.to_owned(),
                })?;
            Ok(Rules {
                schema: element_schema(&field.shape),
                merges: field.merges(),
                replaces: field.patch_strategy == "replace",
                merge_key: field.merge_key,
            })
        }
        Schema::Map(shape) => Ok(Rules {
            schema: element_schema(shape),
            merges: false,
            replaces: false,
            merge_key: "",
        }),
        Schema::Opaque => Err(PatchError::UnknownField {
            field: field.to_owned(),
        }),
    }
}

fn element_schema(shape: &'static Shape) -> Schema {
    match shape {
        Shape::Struct(id) => Schema::Struct(*id),
        Shape::Map(of) => Schema::Map(of),
        Shape::List(of) => element_schema(of),
        Shape::Leaf(_) => Schema::Opaque,
    }
}

/// The value by which an element is known: its merge key's, or itself.
fn key_of<'a>(element: &'a Value, merge_key: &str) -> Cow<'a, Value> {
    match element {
        Value::Object(map) if !merge_key.is_empty() => map
            .get(merge_key)
            .map_or(Cow::Owned(Value::Null), Cow::Borrowed),
        other => Cow::Borrowed(other),
    }
}

#[cfg(test)]
mod tests;
