//! Strict decoding: unknown fields and values of the wrong JSON type, in the words of upstream's decoder.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::quantity::Quantity;
use crate::table::{Field, Leaf, Shape, Table, Type, TypeId, table};
use crate::times;

/// How deep an object may nest before it is no longer looked at; deeper than any type of the table.
const DEPTH_MAX: usize = 128;

/// One thing that a strict decoder objects to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// A field that the type does not have. A server refuses it, warns or is silent, as `fieldValidation` says.
    UnknownField {
        /// Dotted, list elements by index: `spec.template.spec.containers[0].foo`.
        path: String,
    },
    /// A value that Go cannot decode into the field: the object is refused whatever `fieldValidation` says.
    WrongType {
        /// Dotted, list elements by index.
        path: String,
        /// What upstream's decoder says, without the envelope about kind and version.
        message: String,
    },
}

/// All findings of one object, in the order of its fields.
pub type Findings = Vec<Finding>;

impl std::fmt::Display for Finding {
    /// As upstream prints it: `unknown field "spec.foo"`, or the decoder's message.
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::UnknownField { path } => write!(out, "unknown field {path:?}"),
            Self::WrongType { path: _, message } => out.write_str(message),
        }
    }
}

/// Checks `object` as `kind` of `api_version`; a kind that the table does not know has no findings.
#[must_use]
pub fn check_types(api_version: &str, kind: &str, object: &Value) -> Findings {
    let table = table();
    let Some(id) = table.of_kind(api_version, kind) else {
        return Vec::new();
    };
    let mut walk = Walk {
        table,
        findings: Vec::new(),
        path: String::new(),
        fields: Vec::new(),
    };
    match object {
        Value::Object(map) => walk.object(table.of(id), map, 0),
        other => walk.findings.push(Finding::WrongType {
            path: String::new(),
            message: format!(
                "json: cannot unmarshal {} into Go value of type {}",
                said(other),
                go_struct(table, id)
            ),
        }),
    }
    walk.findings
}

struct Walk<'a> {
    table: &'static Table,
    findings: Findings,
    /// The path so far, with indices and map keys.
    path: String,
    /// The field names so far, as Go's decoder joins them.
    fields: Vec<&'a str>,
}

/// The place of a value: the struct and field that Go names, and what is expected.
#[derive(Clone, Copy)]
struct Place<'t> {
    of: &'t Type,
    field: &'t Field,
    shape: &'t Shape,
    /// Whether this is the field itself and not an element of it.
    whole: bool,
}

impl<'a> Walk<'a> {
    fn object(&mut self, of: &'static Type, map: &'a Map<String, Value>, depth: usize) {
        if depth > DEPTH_MAX {
            return;
        }
        for (name, value) in map {
            let length = self.path.len();
            if length > 0 {
                self.path.push('.');
            }
            self.path.push_str(name);
            match of.field(name) {
                None => self.findings.push(Finding::UnknownField {
                    path: self.path.clone(),
                }),
                Some(field) => {
                    let depth_before = self.fields.len();
                    self.fields.extend(embedded(self.table, of, name));
                    self.fields.push(name);
                    self.value(
                        Place {
                            of,
                            field,
                            shape: &field.shape,
                            whole: true,
                        },
                        value,
                        depth + 1,
                    );
                    self.fields.truncate(depth_before);
                }
            }
            self.path.truncate(length);
        }
    }

    fn value(&mut self, place: Place<'static>, value: &'a Value, depth: usize) {
        match (place.shape, value) {
            (_, Value::Null) => {}
            (Shape::Struct(id), Value::Object(map)) => self.object(self.table.of(*id), map, depth),
            (Shape::List(element), Value::Array(list)) => self.list(
                Place {
                    shape: element,
                    whole: false,
                    ..place
                },
                list,
                depth,
            ),
            (Shape::Map(element), Value::Object(map)) => self.map(
                Place {
                    shape: element,
                    whole: false,
                    ..place
                },
                map,
                depth,
            ),
            (Shape::Leaf(leaf), value) => {
                if let Some(message) = self.leaf_error(place, *leaf, value) {
                    self.findings.push(Finding::WrongType {
                        path: self.path.clone(),
                        message,
                    });
                }
            }
            (Shape::Struct(_) | Shape::List(_) | Shape::Map(_), other) => {
                let message = self.cannot(place, other);
                self.findings.push(Finding::WrongType {
                    path: self.path.clone(),
                    message,
                });
            }
        }
    }

    fn list(&mut self, place: Place<'static>, list: &'a [Value], depth: usize) {
        let length = self.path.len();
        for (at, value) in list.iter().enumerate() {
            self.path.push_str(&format!("[{at}]"));
            self.value(place, value, depth + 1);
            self.path.truncate(length);
        }
    }

    fn map(&mut self, place: Place<'static>, map: &'a Map<String, Value>, depth: usize) {
        let length = self.path.len();
        for (key, value) in map {
            self.path.push('.');
            self.path.push_str(key);
            self.value(place, value, depth + 1);
            self.path.truncate(length);
        }
    }

    fn leaf_error(&self, place: Place<'_>, leaf: Leaf, value: &Value) -> Option<String> {
        match (leaf, value) {
            (Leaf::String, Value::String(_))
            | (Leaf::Bool, Value::Bool(_))
            | (Leaf::Double, Value::Number(_)) => None,
            (Leaf::Int32, Value::Number(number))
                if number.as_i64().is_some_and(|n| i32::try_from(n).is_ok()) =>
            {
                None
            }
            (Leaf::Int64, Value::Number(number)) if number.as_i64().is_some() => None,
            (Leaf::Int32 | Leaf::Int64, Value::Number(number)) => {
                Some(self.sentence(place, &format!("number {number}")))
            }
            (Leaf::Bytes, Value::String(text)) => base64_error(text),
            (Leaf::Quantity, value) => quantity_error(value),
            (Leaf::IntOrString, value) => self.int_or_string_error(place, value),
            (Leaf::Time, value) => {
                self.time_error(place, value, times::parse, "2006-01-02T15:04:05Z07:00")
            }
            (Leaf::MicroTime, value) => self.time_error(
                place,
                value,
                times::parse_micro,
                "2006-01-02T15:04:05.000000Z07:00",
            ),
            (
                Leaf::Raw
                | Leaf::FieldsV1
                | Leaf::Json
                | Leaf::SchemaOrArray
                | Leaf::SchemaOrBool
                | Leaf::SchemaOrStrings,
                _,
            ) => None,
            (
                Leaf::String | Leaf::Bytes | Leaf::Bool | Leaf::Int32 | Leaf::Int64 | Leaf::Double,
                other,
            ) => Some(self.cannot(place, other)),
        }
    }

    fn int_or_string_error(&self, place: Place<'_>, value: &Value) -> Option<String> {
        match value {
            Value::String(_) => None,
            Value::Number(number) if number.as_i64().is_some_and(|n| i32::try_from(n).is_ok()) => {
                None
            }
            Value::Number(number) => Some(self.named(place, &format!("number {number}"), "int32")),
            other => Some(self.named(place, said(other), "int32")),
        }
    }

    fn time_error(
        &self,
        place: Place<'_>,
        value: &Value,
        read: fn(&str) -> Option<Timestamp>,
        layout: &str,
    ) -> Option<String> {
        match value {
            Value::String(text) if read(text).is_some() => None,
            Value::String(text) => Some(format!(
                "parsing time {text:?} as {layout:?}: cannot parse {text:?} as \"2006\""
            )),
            other => Some(self.named(place, said(other), "string")),
        }
    }

    fn cannot(&self, place: Place<'_>, value: &Value) -> String {
        self.sentence(place, said(value))
    }

    fn sentence(&self, place: Place<'_>, what: &str) -> String {
        if place.whole && !place.field.go_type.is_empty() {
            self.named(
                place,
                what,
                &format!("{}.{}", package(place.of.name), place.field.go_type),
            )
        } else {
            self.named(place, what, &go_type(self.table, place.shape))
        }
    }

    fn named(&self, place: Place<'_>, what: &str, go_type: &str) -> String {
        format!(
            "json: cannot unmarshal {what} into Go struct field {}.{} of type {go_type}",
            place.of.go_name(),
            self.fields.join(".")
        )
    }
}

/// The embedded struct that a field comes from: Go's decoder names it too.
fn embedded(table: &Table, of: &Type, name: &str) -> Option<&'static str> {
    if matches!(name, "kind" | "apiVersion") && of.field("metadata").is_some() {
        return Some("TypeMeta");
    }
    of.inlined().find_map(|field| match &field.shape {
        Shape::Struct(id) => table.of(*id).field(name).map(|_| table.of(*id).go_name()),
        Shape::List(_) | Shape::Map(_) | Shape::Leaf(_) => None,
    })
}

/// Go's word for a JSON value.
fn said(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn go_type(table: &Table, shape: &Shape) -> String {
    match shape {
        Shape::Leaf(Leaf::String) => "string".to_owned(),
        Shape::Leaf(Leaf::Bytes) => "[]uint8".to_owned(),
        Shape::Leaf(Leaf::Bool) => "bool".to_owned(),
        Shape::Leaf(Leaf::Int32) => "int32".to_owned(),
        Shape::Leaf(Leaf::Int64) => "int64".to_owned(),
        Shape::Leaf(Leaf::Double) => "float64".to_owned(),
        Shape::Leaf(Leaf::Quantity) => "resource.Quantity".to_owned(),
        Shape::Leaf(Leaf::IntOrString) => "intstr.IntOrString".to_owned(),
        Shape::Leaf(Leaf::Time) => "v1.Time".to_owned(),
        Shape::Leaf(Leaf::MicroTime) => "v1.MicroTime".to_owned(),
        Shape::Leaf(Leaf::Raw) => "runtime.RawExtension".to_owned(),
        Shape::Leaf(Leaf::FieldsV1) => "v1.FieldsV1".to_owned(),
        Shape::Leaf(
            Leaf::Json | Leaf::SchemaOrArray | Leaf::SchemaOrBool | Leaf::SchemaOrStrings,
        ) => "v1.JSON".to_owned(),
        Shape::Struct(id) => go_struct(table, *id),
        Shape::List(of) => format!("[]{}", go_type(table, of)),
        Shape::Map(of) => format!("map[string]{}", go_type(table, of)),
    }
}

fn go_struct(table: &Table, id: TypeId) -> String {
    let of = table.of(id);
    format!("{}.{}", package(of.name), of.go_name())
}

/// The Go package of a type: the last but one part of its name.
fn package(name: &str) -> &str {
    name.rsplit('.').nth(1).unwrap_or("v1")
}

fn base64_error(text: &str) -> Option<String> {
    let bare: String = text.chars().filter(|c| !matches!(c, '\n' | '\r')).collect();
    match STANDARD.decode(bare.as_bytes()) {
        Ok(_) => None,
        Err(
            base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _),
        ) => Some(format!("illegal base64 data at input byte {at}")),
        Err(base64::DecodeError::InvalidLength(_) | base64::DecodeError::InvalidPadding) => Some(
            format!("illegal base64 data at input byte {}", bare.len() / 4 * 4),
        ),
    }
}

fn quantity_error(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Quantity::parse(text.trim())
            .err()
            .map(|error| error.to_string()),
        other => Quantity::parse(&other.to_string())
            .err()
            .map(|error| error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(api_version: &str, kind: &str, object: &Value, want: &[&str]) {
        let said: Vec<String> = check_types(api_version, kind, object)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(said, want);
    }

    #[test]
    fn unknown_fields_are_named_by_their_path() {
        let set = json!({"spec": {"foo": 1, "template": {"spec": {"containers": [{"name": "a"}, {"name": "b", "imaeg": "x"}]}}}});
        check(
            "apps/v1",
            "StatefulSet",
            &set,
            &[
                r#"unknown field "spec.foo""#,
                r#"unknown field "spec.template.spec.containers[1].imaeg""#,
            ],
        );
    }

    #[test]
    fn wrong_types_are_told_in_gos_words() {
        let set = json!({"metadata": {"labels": {"a": 1}}, "spec": {"podManagementPolicy": 7, "replicas": "3", "template": {"spec": {"containers": {"name": "a"}, "hostNetwork": "yes"}}}});
        check(
            "apps/v1",
            "StatefulSet",
            &set,
            &[
                "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string",
                "json: cannot unmarshal number into Go struct field StatefulSetSpec.spec.podManagementPolicy of type v1.PodManagementPolicyType",
                "json: cannot unmarshal string into Go struct field StatefulSetSpec.spec.replicas of type int32",
                "json: cannot unmarshal object into Go struct field PodSpec.spec.template.spec.containers of type []v1.Container",
                "json: cannot unmarshal string into Go struct field PodSpec.spec.template.spec.hostNetwork of type bool",
            ],
        );
    }

    #[test]
    fn embedded_structs_are_named_as_go_names_them() {
        let probe = json!({"httpGet": {"port": true}});
        let pod = json!({"kind": 3, "spec": {"containers": [{"livenessProbe": probe}], "volumes": [{"emptyDir": "x"}]}});
        check(
            "v1",
            "Pod",
            &pod,
            &[
                "json: cannot unmarshal number into Go struct field Pod.TypeMeta.kind of type string",
                "json: cannot unmarshal bool into Go struct field HTTPGetAction.spec.containers.livenessProbe.ProbeHandler.httpGet.port of type int32",
                "json: cannot unmarshal string into Go struct field Volume.spec.volumes.VolumeSource.emptyDir of type v1.EmptyDirVolumeSource",
            ],
        );
    }

    #[test]
    fn numbers_must_fit_and_quantities_must_parse() {
        let pod = json!({"spec": {"priority": 1.5, "overhead": {"cpu": "1", "memory": "lots"}, "terminationGracePeriodSeconds": 3}});
        let number = "json: cannot unmarshal number 1.5 into Go struct field PodSpec.spec.priority of type int32";
        check(
            "v1",
            "Pod",
            &pod,
            &[
                "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
                number,
            ],
        );
        check(
            "v1",
            "Secret",
            &json!({"data": {"a": "!"}}),
            &["illegal base64 data at input byte 0"],
        );
    }

    #[test]
    fn null_is_no_type() {
        check(
            "v1",
            "Pod",
            &json!({"metadata": null, "spec": {"containers": null, "hostNetwork": null}}),
            &[],
        );
        check(
            "v1",
            "Pod",
            &json!([1]),
            &["json: cannot unmarshal array into Go value of type v1.Pod"],
        );
        check("nobody.io/v1", "Thing", &json!({"a": 1}), &[]);
    }
}
