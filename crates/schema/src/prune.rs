//! What decoding into Go's types and encoding again makes of an object.
//!
//! Unknown fields go; nulls become Go's zero values; zero values stay or go as the field's tags say; non-pointer
//! structs are always there (`resources: {}`); quantities, times and base64 are written canonically. Values of
//! the wrong type are left as they are: [`check_types`](crate::check_types) names them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::quantity;
use crate::table::{Field, Leaf, Shape, Table, Type, TypeId, table};
use crate::times;

/// Normalises `object` in place as a typed round trip does; kinds that the table does not know are left alone.
pub fn prune(api_version: &str, kind: &str, object: &mut Value) {
    let table = table();
    let resets_managers = object
        .pointer("/metadata/managedFields")
        .and_then(Value::as_array)
        .is_some_and(Vec::is_empty);
    if let (Some(id), Value::Object(map)) = (table.of_kind(api_version, kind), &mut *object) {
        normalise_struct(table, table.of(id), map);
    }
    // An empty list says something that no list does not: forget the managers. See fields::after_update.
    if let (true, Some(Value::Object(metadata))) = (resets_managers, object.get_mut("metadata")) {
        metadata.insert("managedFields".to_owned(), Value::Array(Vec::new()));
    }
}

/// Normalises the fields of a value of this type.
pub(crate) fn prune_as(id: TypeId, map: &mut Map<String, Value>) {
    normalise_struct(table(), table().of(id), map);
}

fn normalise_struct(table: &'static Table, of: &'static Type, map: &mut Map<String, Value>) {
    map.retain(|name, value| {
        of.field(name)
            .is_some_and(|field| keep_field(table, field, value))
    });
    for field in of.always_written() {
        if !map.contains_key(field.name)
            && let Some(zero) = written_zero(table, field)
        {
            map.insert(field.name.to_owned(), zero);
        }
    }
}

/// Normalises one field's value; whether Go's encoder would write it.
fn keep_field(table: &'static Table, field: &'static Field, value: &mut Value) -> bool {
    if value.is_null() {
        return false;
    }
    normalise(table, &field.shape, value);
    field.pointer || !is_zero(&field.shape, value)
}

fn normalise(table: &'static Table, shape: &'static Shape, value: &mut Value) {
    match (shape, &mut *value) {
        // A nil list within a list or map comes back from storage as an empty one.
        (Shape::List(_), Value::Null) => *value = Value::Array(Vec::new()),
        (_, Value::Null) => *value = element_zero(table, shape),
        (Shape::Struct(id), Value::Object(map)) => normalise_struct(table, table.of(*id), map),
        (Shape::List(element), Value::Array(list)) => list
            .iter_mut()
            .for_each(|value| normalise(table, element, value)),
        (Shape::Map(element), Value::Object(map)) => map
            .values_mut()
            .for_each(|value| normalise(table, element, value)),
        (Shape::Leaf(leaf), _) => normalise_leaf(*leaf, value),
        (Shape::Struct(_) | Shape::List(_) | Shape::Map(_), _) => {}
    }
}

fn normalise_leaf(leaf: Leaf, value: &mut Value) {
    match leaf {
        Leaf::Quantity => {
            let canonical = match &*value {
                Value::String(text) => quantity::canonical(text.trim()),
                other => quantity::canonical(&other.to_string()),
            };
            if let Ok(text) = canonical {
                set_text(value, &text);
            }
        }
        Leaf::Time => rewrite_time(value, times::parse, times::seconds),
        Leaf::MicroTime => rewrite_time(value, times::parse_micro, times::micros),
        Leaf::Bytes => {
            let decoded = value
                .as_str()
                .filter(|text| text.contains(['\n', '\r']))
                .and_then(|text| {
                    let bare: String = text.chars().filter(|c| !matches!(c, '\n' | '\r')).collect();
                    STANDARD.decode(bare).ok()
                });
            if let Some(bytes) = decoded {
                *value = Value::String(STANDARD.encode(bytes));
            }
        }
        Leaf::String
        | Leaf::Bool
        | Leaf::Int32
        | Leaf::Int64
        | Leaf::Double
        | Leaf::IntOrString
        | Leaf::Raw
        | Leaf::FieldsV1
        | Leaf::Json
        | Leaf::SchemaOrArray
        | Leaf::SchemaOrBool
        | Leaf::SchemaOrStrings => {}
    }
}

fn set_text(value: &mut Value, text: &str) {
    if value.as_str() != Some(text) {
        *value = Value::String(text.to_owned());
    }
}

fn rewrite_time(
    value: &mut Value,
    read: fn(&str) -> Option<Timestamp>,
    write: fn(Timestamp) -> Option<String>,
) {
    if let Some(time) = value.as_str().and_then(read) {
        *value = write(time).map_or(Value::Null, Value::String);
    }
}

/// Whether a normalised value is what Go calls zero (structs never are, for omitempty).
fn is_zero(shape: &Shape, value: &Value) -> bool {
    match (shape, value) {
        (_, Value::Null) => true,
        (Shape::List(_), Value::Array(list)) => list.is_empty(),
        (Shape::Map(_), Value::Object(map)) => map.is_empty(),
        (Shape::Leaf(Leaf::String | Leaf::Bytes), Value::String(text)) => text.is_empty(),
        (Shape::Leaf(Leaf::Bool), Value::Bool(is)) => !is,
        (Shape::Leaf(Leaf::Int32 | Leaf::Int64 | Leaf::Double), Value::Number(number)) => {
            number.as_f64() == Some(0.0)
        }
        (Shape::Struct(_) | Shape::List(_) | Shape::Map(_) | Shape::Leaf(_), _) => false,
    }
}

/// What Go's encoder writes for a field that holds its zero value; `None` if it leaves the field out.
fn written_zero(table: &'static Table, field: &'static Field) -> Option<Value> {
    field.zero_is_written().then(|| {
        if field.pointer {
            Value::Null
        } else {
            element_zero(table, &field.shape)
        }
    })
}

/// Go's zero value of a shape, encoded.
fn element_zero(table: &'static Table, shape: &'static Shape) -> Value {
    match shape {
        Shape::Struct(id) => {
            let mut map = Map::new();
            normalise_struct(table, table.of(*id), &mut map);
            Value::Object(map)
        }
        Shape::List(_) | Shape::Map(_) => Value::Null,
        Shape::Leaf(Leaf::String | Leaf::Bytes) => Value::String(String::new()),
        Shape::Leaf(Leaf::Bool) => Value::Bool(false),
        Shape::Leaf(Leaf::Int32 | Leaf::Int64 | Leaf::Double | Leaf::IntOrString) => Value::from(0),
        Shape::Leaf(Leaf::Quantity) => Value::String("0".to_owned()),
        Shape::Leaf(
            Leaf::Time
            | Leaf::MicroTime
            | Leaf::Raw
            | Leaf::FieldsV1
            | Leaf::Json
            | Leaf::SchemaOrArray
            | Leaf::SchemaOrBool
            | Leaf::SchemaOrStrings,
        ) => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(api_version: &str, kind: &str, mut object: Value, want: &Value) {
        prune(api_version, kind, &mut object);
        assert_eq!(&object, want);
        prune(api_version, kind, &mut object);
        assert_eq!(&object, want, "a second round trip changes nothing");
    }

    #[test]
    fn unknown_fields_go_and_structs_come() {
        check(
            "v1",
            "Pod",
            json!({"kind": "Pod", "apiVersion": "v1", "foo": 1, "spec": {"containers": [{"name": "a", "bar": {}}]}}),
            &json!({"kind": "Pod", "apiVersion": "v1", "metadata": {}, "spec": {"containers": [{"name": "a", "resources": {}}]}, "status": {}}),
        );
    }

    #[test]
    fn zero_values_follow_the_tags() {
        check(
            "v1",
            "Pod",
            json!({"metadata": {"name": "", "labels": {}, "creationTimestamp": null}, "spec": {"hostNetwork": false, "automountServiceAccountToken": false,
                "nodeSelector": {"a": null}, "containers": null, "volumes": []}}),
            &json!({"metadata": {}, "spec": {"automountServiceAccountToken": false, "nodeSelector": {"a": ""}, "containers": null}, "status": {}}),
        );
    }

    #[test]
    fn quantities_and_times_are_canonical() {
        check(
            "v1",
            "Pod",
            json!({"metadata": {"deletionTimestamp": "2024-01-01T01:00:00.5+01:00"}, "spec": {"overhead": {"cpu": 0.5, "memory": "1024Mi"}, "containers": []}, "status": {"startTime": null}}),
            &json!({"metadata": {"deletionTimestamp": "2024-01-01T00:00:00Z"}, "spec": {"overhead": {"cpu": "500m", "memory": "1Gi"}, "containers": null}, "status": {}}),
        );
        check(
            "v1",
            "Secret",
            json!({"data": {"a": "AA\n==", "b": null}}),
            &json!({"metadata": {}, "data": {"a": "AA==", "b": ""}}),
        );
    }

    #[test]
    fn times_that_are_no_pointers_are_written_as_null() {
        check(
            "v1",
            "Event",
            json!({"involvedObject": {"name": "a"}, "eventTime": "2024-01-01T00:00:00.000000Z"}),
            &json!({"metadata": {}, "involvedObject": {"name": "a"}, "eventTime": "2024-01-01T00:00:00.000000Z", "firstTimestamp": null, "lastTimestamp": null,
                "reportingComponent": "", "reportingInstance": "", "source": {}}),
        );
    }

    #[test]
    fn a_service_has_its_empty_load_balancer() {
        check(
            "v1",
            "Service",
            json!({"spec": {}}),
            &json!({"metadata": {}, "spec": {}, "status": {"loadBalancer": {}}}),
        );
    }

    proptest::proptest! {
        #[test]
        fn any_object_is_pruned_once_for_all(object in crate::testing::any_object()) {
            let text = |name: &str| object[name].as_str().unwrap_or_default().to_owned();
            let (api_version, kind) = (text("apiVersion"), text("kind"));
            let _ = crate::check_types(&api_version, &kind, &object);
            let mut once = object;
            prune(&api_version, &kind, &mut once);
            let mut twice = once.clone();
            prune(&api_version, &kind, &mut twice);
            proptest::prop_assert_eq!(&once, &twice);
            let unknown = |finding: &crate::Finding| matches!(finding, crate::Finding::UnknownField { .. });
            proptest::prop_assert!(!crate::check_types(&api_version, &kind, &once).iter().any(unknown), "{}", once);
        }
    }
}
