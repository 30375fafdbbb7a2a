//! Total reading of JSON objects: an absent, null or oddly typed field reads as empty, never as a panic.

use serde_json::{Map, Value};

static NULL: Value = Value::Null;

/// The field, or null.
pub(crate) fn get<'a>(object: &'a Value, name: &str) -> &'a Value {
    object.get(name).unwrap_or(&NULL)
}

/// The field below a chain of fields, or null.
pub(crate) fn dig<'a>(object: &'a Value, names: &[&str]) -> &'a Value {
    names.iter().fold(object, |at, name| get(at, name))
}

/// Whether the field is there and not null.
pub(crate) fn has(object: &Value, name: &str) -> bool {
    !get(object, name).is_null()
}

/// The text of the field, or "".
pub(crate) fn text<'a>(object: &'a Value, name: &str) -> &'a str {
    get(object, name).as_str().unwrap_or("")
}

/// The whole number in the field.
pub(crate) fn int(object: &Value, name: &str) -> Option<i64> {
    get(object, name).as_i64()
}

/// Whether the field is `true`.
pub(crate) fn yes(object: &Value, name: &str) -> bool {
    get(object, name).as_bool().unwrap_or(false)
}

/// The items of the list in the field, or none.
pub(crate) fn list<'a>(object: &'a Value, name: &str) -> &'a [Value] {
    get(object, name).as_array().map_or(&[], Vec::as_slice)
}

/// The texts of the list in the field.
pub(crate) fn texts<'a>(object: &'a Value, name: &str) -> Vec<&'a str> {
    list(object, name)
        .iter()
        .map(|item| item.as_str().unwrap_or(""))
        .collect()
}

/// The entries of the map in the field, by key.
pub(crate) fn entries<'a>(
    object: &'a Value,
    name: &str,
) -> impl Iterator<Item = (&'a str, &'a Value)> + use<'a> {
    get(object, name)
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.as_str(), value))
}

/// The field as a map that can be written to; made when it is absent or no map.
pub(crate) fn map_mut<'a>(object: &'a mut Value, name: &str) -> &'a mut Map<String, Value> {
    let map = object_mut(object);
    object_mut(map.entry(name).or_insert_with(|| Value::Object(Map::new())))
}

/// The value as a map that can be written to; replaced by an empty one when it is something else.
pub(crate) fn object_mut(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) => map,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            unreachable!("the line above made it an object")
        }
    }
}

/// The field as a list that can be written to; made when it is absent or no list.
pub(crate) fn list_mut<'a>(object: &'a mut Value, name: &str) -> &'a mut Vec<Value> {
    let field = object_mut(object)
        .entry(name)
        .or_insert_with(|| Value::Array(Vec::new()));
    if !field.is_array() {
        *field = Value::Array(Vec::new());
    }
    match field {
        Value::Array(items) => items,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
            unreachable!("the line above made it a list")
        }
    }
}

/// The field of the inner object that can be written to, when both exist.
pub(crate) fn get_mut<'a>(object: &'a mut Value, name: &str) -> Option<&'a mut Value> {
    object.get_mut(name).filter(|value| !value.is_null())
}

/// Sets the field, or removes it when the value is null.
pub(crate) fn put(object: &mut Value, name: &str, value: Value) {
    let map = object_mut(object);
    if value.is_null() {
        map.remove(name);
    } else {
        map.insert(name.to_owned(), value);
    }
}

/// Removes the field.
pub(crate) fn drop_field(object: &mut Value, name: &str) {
    if let Some(map) = object.as_object_mut() {
        map.remove(name);
    }
}

/// Equal as upstream's semantic equality sees two pruned objects: absent, null and an empty list are one; an empty
/// object is something (a pointer to an empty struct there: `emptyDir: {}`).
pub(crate) fn semantically_equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Object(a), Value::Object(b)) => {
            a.iter()
                .all(|(key, value)| semantically_equal(value, b.get(key).unwrap_or(&NULL)))
                && b.iter()
                    .all(|(key, value)| a.contains_key(key) || is_nothing(value))
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(x, y)| semantically_equal(x, y))
        }
        _ => (is_nothing(left) && is_nothing(right)) || left == right,
    }
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => false,
    }
}
