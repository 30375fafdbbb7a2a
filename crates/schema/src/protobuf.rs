//! Kubernetes' protobuf bodies, decoded by the numbers of the table into JSON objects.
//!
//! A body is `k8s\0` and an envelope (`runtime.Unknown`) with kind, version and the object's own message. Go's
//! encoder writes zero values of fields that are no pointers; they are dropped again as Go's JSON encoder would.

mod wire;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use crate::prune;
use crate::table::{Field, Leaf, Shape, Table, Type, TypeId, table};
use crate::times;
use wire::{Reader, Wire};

const PREFIX: &[u8] = b"k8s\0";
/// Messages nest no deeper in any type of the table, but for schemas of custom resources.
const DEPTH_MAX: usize = 100;

/// Why a body cannot be decoded. Positions are bytes from the start of the message that is named.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ProtobufError {
    /// The body does not begin with `k8s\0`.
    #[error(
        "the body does not begin with the prefix k8s\\0 of Kubernetes' protobuf: send JSON, or the right Content-Type"
    )]
    NoPrefix,
    /// The envelope names a kind that the table does not know.
    #[error("no kind {kind:?} is registered for version {api_version:?}")]
    UnknownKind {
        /// As the envelope says.
        api_version: String,
        /// As the envelope says.
        kind: String,
    },
    /// The envelope says that the object is compressed or the like.
    #[error(
        "the content encoding {encoding:?} of the envelope is not supported: send the object as it is"
    )]
    ContentEncoding {
        /// As the envelope says.
        encoding: String,
    },
    /// The bytes end within a value.
    #[error("{message}: the bytes end within a value that begins at {at}")]
    Truncated {
        /// The message's type.
        message: &'static str,
        /// Where the value begins.
        at: usize,
    },
    /// A number has more than ten bytes, or a field's number is 0.
    #[error("{message}: no valid number at {at}")]
    BadNumber {
        /// The message's type.
        message: &'static str,
        /// Where it begins.
        at: usize,
    },
    /// A field has another wire type than its type asks for.
    #[error("{message}.{field}: wire type {wire_type} does not fit the field")]
    WireType {
        /// The message's type.
        message: &'static str,
        /// The field's name.
        field: &'static str,
        /// What was found.
        wire_type: u8,
    },
    /// Embedded JSON does not parse.
    #[error("{message}.{field}: the embedded JSON does not parse")]
    EmbeddedJson {
        /// The message's type.
        message: &'static str,
        /// The field's name.
        field: &'static str,
    },
    /// Messages nest too deep.
    #[error("{message}: messages nest deeper than {DEPTH_MAX}")]
    TooDeep {
        /// The message's type.
        message: &'static str,
    },
}

/// Decodes a body into a JSON object with `apiVersion` and `kind`.
///
/// # Errors
/// See [`ProtobufError`].
pub fn decode(bytes: &[u8]) -> Result<Value, ProtobufError> {
    let envelope = Envelope::read(bytes)?;
    let (api_version, kind) = (envelope.api_version.clone(), envelope.kind.clone());
    let mut object = decode_envelope(&envelope, &api_version, &kind)?;
    if let Value::Object(map) = &mut object {
        map.insert("apiVersion".to_owned(), Value::String(api_version));
        map.insert("kind".to_owned(), Value::String(kind));
    }
    Ok(object)
}

/// Decodes a body whose envelope need not say its kind (watch events, for instance) as `kind` of `api_version`.
///
/// # Errors
/// See [`ProtobufError`].
pub fn decode_as(bytes: &[u8], api_version: &str, kind: &str) -> Result<Value, ProtobufError> {
    decode_envelope(&Envelope::read(bytes)?, api_version, kind)
}

fn decode_envelope(
    envelope: &Envelope<'_>,
    api_version: &str,
    kind: &str,
) -> Result<Value, ProtobufError> {
    let table = table();
    let unknown = || ProtobufError::UnknownKind {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
    };
    let id = table.of_kind(api_version, kind).ok_or_else(unknown)?;
    let mut map = Map::new();
    decode_message(table, id, envelope.raw, &mut map, 0)?;
    prune::prune_as(id, &mut map);
    Ok(Value::Object(map))
}

/// The parts of `runtime.Unknown`.
#[derive(Default)]
struct Envelope<'a> {
    api_version: String,
    kind: String,
    raw: &'a [u8],
}

impl<'a> Envelope<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, ProtobufError> {
        let bytes = bytes.strip_prefix(PREFIX).ok_or(ProtobufError::NoPrefix)?;
        let mut envelope = Self::default();
        let mut encoding = String::new();
        let mut reader = Reader::new("runtime.Unknown", bytes);
        while let Some((number, wire)) = reader.next_field()? {
            match (number, wire) {
                (1, Wire::Bytes(meta)) => envelope.read_type(meta)?,
                (2, Wire::Bytes(raw)) => envelope.raw = raw,
                (3, Wire::Bytes(text)) => encoding = text_of(text),
                (_, _) => {}
            }
        }
        if encoding.is_empty() {
            Ok(envelope)
        } else {
            Err(ProtobufError::ContentEncoding { encoding })
        }
    }

    fn read_type(&mut self, bytes: &[u8]) -> Result<(), ProtobufError> {
        let mut reader = Reader::new("runtime.TypeMeta", bytes);
        while let Some((number, wire)) = reader.next_field()? {
            match (number, wire) {
                (1, Wire::Bytes(text)) => self.api_version = text_of(text),
                (2, Wire::Bytes(text)) => self.kind = text_of(text),
                (_, _) => {}
            }
        }
        Ok(())
    }
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A field within its message, for errors and for what is decoded into it.
#[derive(Clone, Copy)]
struct Place {
    table: &'static Table,
    message: &'static str,
    field: &'static str,
    depth: usize,
}

impl Place {
    fn mismatch(&self, wire: Wire<'_>) -> ProtobufError {
        ProtobufError::WireType {
            message: self.message,
            field: self.field,
            wire_type: wire.wire_type(),
        }
    }
}

fn decode_message(
    table: &'static Table,
    id: TypeId,
    bytes: &[u8],
    map: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), ProtobufError> {
    let of = table.of(id);
    if depth > DEPTH_MAX {
        return Err(ProtobufError::TooDeep { message: of.name });
    }
    let mut reader = Reader::new(of.name, bytes);
    while let Some((number, wire)) = reader.next_field()? {
        if let Some(field) = of.numbered(number) {
            decode_field(table, of, field, wire, map, depth + 1)?;
        }
    }
    Ok(())
}

fn decode_field(
    table: &'static Table,
    of: &'static Type,
    field: &'static Field,
    wire: Wire<'_>,
    map: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), ProtobufError> {
    let place = Place {
        table,
        message: of.name,
        field: field.name,
        depth,
    };
    match (&field.shape, wire) {
        (Shape::Struct(id), Wire::Bytes(bytes)) if field.inline => {
            decode_message(table, *id, bytes, map, depth)?
        }
        (Shape::List(element), wire) => {
            let mut values = decode_elements(place, element, wire)?;
            if let Value::Array(list) = map
                .entry(field.name)
                .or_insert_with(|| Value::Array(Vec::new()))
            {
                list.append(&mut values);
            }
        }
        (Shape::Map(element), Wire::Bytes(bytes)) => {
            let (key, value) = decode_entry(place, element, bytes)?;
            if let Value::Object(entries) = map
                .entry(field.name)
                .or_insert_with(|| Value::Object(Map::new()))
            {
                entries.insert(key, value);
            }
        }
        (Shape::Struct(id), Wire::Bytes(bytes)) => {
            // A message that comes twice is merged, as protobuf says.
            if let Value::Object(inner) = map
                .entry(field.name)
                .or_insert_with(|| Value::Object(Map::new()))
            {
                decode_message(table, *id, bytes, inner, depth)?;
            }
        }
        (Shape::Leaf(leaf), wire) => {
            map.insert(field.name.to_owned(), decode_leaf(place, *leaf, wire)?);
        }
        (Shape::Struct(_) | Shape::Map(_), wire) => return Err(place.mismatch(wire)),
    }
    Ok(())
}

/// One element, or several if numbers are packed.
fn decode_elements(
    place: Place,
    element: &'static Shape,
    wire: Wire<'_>,
) -> Result<Vec<Value>, ProtobufError> {
    let packs = matches!(element, Shape::Leaf(Leaf::Int32 | Leaf::Int64 | Leaf::Bool));
    match wire {
        Wire::Bytes(bytes) if packs => {
            let mut reader = Reader::new(place.message, bytes);
            let mut values = Vec::new();
            while !reader.is_at_end() {
                values.push(decode_value(
                    place,
                    element,
                    Wire::Varint(reader.varint()?),
                )?);
            }
            Ok(values)
        }
        wire => Ok(vec![decode_value(place, element, wire)?]),
    }
}

fn decode_value(
    place: Place,
    shape: &'static Shape,
    wire: Wire<'_>,
) -> Result<Value, ProtobufError> {
    match (shape, wire) {
        (Shape::Struct(id), Wire::Bytes(bytes)) => {
            let mut map = Map::new();
            decode_message(place.table, *id, bytes, &mut map, place.depth)?;
            Ok(Value::Object(map))
        }
        // A list within a map is a message of its own with one repeated field (ExtraValue).
        (Shape::List(element), Wire::Bytes(bytes)) => {
            let mut reader = Reader::new(place.message, bytes);
            let mut values = Vec::new();
            while let Some((number, wire)) = reader.next_field()? {
                if number == 1 {
                    values.append(&mut decode_elements(place, element, wire)?);
                }
            }
            Ok(Value::Array(values))
        }
        (Shape::Leaf(leaf), wire) => decode_leaf(place, *leaf, wire),
        (Shape::Struct(_) | Shape::List(_) | Shape::Map(_), wire) => Err(place.mismatch(wire)),
    }
}

fn decode_entry(
    place: Place,
    element: &'static Shape,
    bytes: &[u8],
) -> Result<(String, Value), ProtobufError> {
    let mut key = String::new();
    let mut value = Value::Null;
    let mut reader = Reader::new(place.message, bytes);
    while let Some((number, wire)) = reader.next_field()? {
        match (number, wire) {
            (1, Wire::Bytes(bytes)) => key = text_of(bytes),
            (2, wire) => value = decode_value(place, element, wire)?,
            (_, _) => {}
        }
    }
    Ok((key, value))
}

fn decode_leaf(place: Place, leaf: Leaf, wire: Wire<'_>) -> Result<Value, ProtobufError> {
    match (leaf, wire) {
        (Leaf::String, Wire::Bytes(bytes)) => Ok(Value::String(text_of(bytes))),
        (Leaf::Bytes, Wire::Bytes(bytes)) => Ok(Value::String(STANDARD.encode(bytes))),
        (Leaf::Bool, Wire::Varint(number)) => Ok(Value::Bool(number != 0)),
        (Leaf::Int32, Wire::Varint(number)) => Ok(Value::from(low_half(number))),
        (Leaf::Int64, Wire::Varint(number)) => Ok(Value::from(number.cast_signed())),
        (Leaf::Double, Wire::Fixed64(bits)) => Ok(Value::from(f64::from_bits(bits))),
        (Leaf::Quantity, Wire::Bytes(bytes)) => Ok(Value::String(
            parts(place, bytes)?.text.unwrap_or_else(|| "0".to_owned()),
        )),
        (Leaf::IntOrString, Wire::Bytes(bytes)) => int_or_string(place, bytes),
        (Leaf::Time, Wire::Bytes(bytes)) => Ok(time(&parts(place, bytes)?, false)),
        (Leaf::MicroTime, Wire::Bytes(bytes)) => Ok(time(&parts(place, bytes)?, true)),
        (Leaf::Raw | Leaf::FieldsV1 | Leaf::Json, Wire::Bytes(bytes)) => embedded(place, bytes),
        (Leaf::SchemaOrArray, Wire::Bytes(bytes)) => schema_or(place, bytes, 1, 2),
        (Leaf::SchemaOrBool, Wire::Bytes(bytes)) => schema_or(place, bytes, 2, 0),
        (Leaf::SchemaOrStrings, Wire::Bytes(bytes)) => schema_or(place, bytes, 1, 0),
        (
            Leaf::String
            | Leaf::Bytes
            | Leaf::Bool
            | Leaf::Int32
            | Leaf::Int64
            | Leaf::Double
            | Leaf::Quantity
            | Leaf::IntOrString
            | Leaf::Time
            | Leaf::MicroTime
            | Leaf::Raw
            | Leaf::FieldsV1
            | Leaf::Json
            | Leaf::SchemaOrArray
            | Leaf::SchemaOrBool
            | Leaf::SchemaOrStrings,
            wire,
        ) => Err(place.mismatch(wire)),
    }
}

/// An int32 is written as 64 bits with its sign; only the low half counts.
fn low_half(number: u64) -> i32 {
    let [a, b, c, d, ..] = number.to_le_bytes();
    i32::from_le_bytes([a, b, c, d])
}

/// The fields of the small messages behind leaf values: numbers 1 to 3.
#[derive(Default)]
struct Parts {
    present: bool,
    first: u64,
    second: u64,
    /// Text in field 1 or 3.
    text: Option<String>,
}

fn parts(place: Place, bytes: &[u8]) -> Result<Parts, ProtobufError> {
    let mut parts = Parts {
        present: !bytes.is_empty(),
        ..Parts::default()
    };
    let mut reader = Reader::new(place.message, bytes);
    while let Some((number, wire)) = reader.next_field()? {
        match (number, wire) {
            (1, Wire::Varint(value)) => parts.first = value,
            (2, Wire::Varint(value)) => parts.second = value,
            (1 | 3, Wire::Bytes(bytes)) => parts.text = Some(text_of(bytes)),
            (_, _) => {}
        }
    }
    Ok(parts)
}

fn int_or_string(place: Place, bytes: &[u8]) -> Result<Value, ProtobufError> {
    let parts = parts(place, bytes)?;
    Ok(if parts.first == 1 {
        Value::String(parts.text.unwrap_or_default())
    } else {
        Value::from(low_half(parts.second))
    })
}

/// An empty message is Go's zero time, which is null in JSON.
fn time(parts: &Parts, micro: bool) -> Value {
    let (seconds, nanos) = (parts.first.cast_signed(), low_half(parts.second));
    let time = jiff::Timestamp::new(seconds, nanos)
        .ok()
        .filter(|_| parts.present);
    let text = time.and_then(if micro { times::micros } else { times::seconds });
    text.map_or(Value::Null, Value::String)
}

/// JSON (or, within raw extensions, a whole body) in field 1.
fn embedded(place: Place, bytes: &[u8]) -> Result<Value, ProtobufError> {
    let mut raw: &[u8] = &[];
    let mut reader = Reader::new(place.message, bytes);
    while let Some((number, wire)) = reader.next_field()? {
        if let (1, Wire::Bytes(bytes)) = (number, wire) {
            raw = bytes;
        }
    }
    if raw.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(raw).map_err(|_| ProtobufError::EmbeddedJson {
        message: place.message,
        field: place.field,
    })
}

/// The three choices of custom resource schemas: a schema, several, a flag, or names.
fn schema_or(
    place: Place,
    bytes: &[u8],
    schema_number: u32,
    list_number: u32,
) -> Result<Value, ProtobufError> {
    let schema = place
        .table
        .named("apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps");
    let mut one = None;
    let mut list = Vec::new();
    let mut flag = false;
    let mut reader = Reader::new(place.message, bytes);
    while let Some((number, wire)) = reader.next_field()? {
        match (wire, schema) {
            (Wire::Bytes(bytes), Some(id)) if number == schema_number || number == list_number => {
                let mut map = Map::new();
                decode_message(place.table, id, bytes, &mut map, place.depth)?;
                prune::prune_as(id, &mut map);
                if number == schema_number {
                    one = Some(Value::Object(map));
                } else {
                    list.push(Value::Object(map));
                }
            }
            (Wire::Bytes(bytes), _) => list.push(Value::String(text_of(bytes))),
            (Wire::Varint(value), _) => flag = value != 0,
            (Wire::Fixed64(_) | Wire::Fixed32, _) => {}
        }
    }
    Ok(match one {
        Some(one) => one,
        None if schema_number == 2 => Value::Bool(flag),
        None => Value::Array(list),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    /// Wraps a message into the envelope.
    fn body(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
        let field = |number: u8, bytes: &[u8]| {
            let length = u8::try_from(bytes.len()).expect("test messages are short");
            assert!(length < 0x80, "test messages are short");
            [&[number << 3 | 2, length][..], bytes].concat()
        };
        let meta = [field(1, api_version.as_bytes()), field(2, kind.as_bytes())].concat();
        [PREFIX.to_vec(), field(1, &meta), field(2, raw)].concat()
    }

    #[test]
    fn zero_values_that_go_always_writes_are_dropped_again() {
        // metadata { name: "a", namespace: "" }, spec { hostNetwork: false, terminationGracePeriodSeconds: 0 }
        let raw = [
            0x0a, 0x05, 0x0a, 0x01, b'a', 0x1a, 0x00, 0x12, 0x04, 0x58, 0x00, 0x20, 0x00,
        ];
        let pod = decode(&body("v1", "Pod", &raw)).expect("it decodes");
        assert_eq!(
            pod,
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": null, "terminationGracePeriodSeconds": 0}, "status": {}})
        );
    }

    #[test]
    fn delete_options_come_in_the_version_of_what_is_deleted() {
        let options = decode(&body("apps/v1", "DeleteOptions", &[0x08, 0x05])).expect("it decodes");
        assert_eq!(
            options,
            json!({"apiVersion": "apps/v1", "kind": "DeleteOptions", "gracePeriodSeconds": 5})
        );
    }

    #[test]
    fn broken_bodies_say_what_is_wrong() {
        assert_eq!(decode(b"{}"), Err(ProtobufError::NoPrefix));
        assert_eq!(
            decode(&body("v1", "Nothing", &[])),
            Err(ProtobufError::UnknownKind {
                api_version: "v1".to_owned(),
                kind: "Nothing".to_owned()
            })
        );
        assert_eq!(
            decode(&body("v1", "Pod", &[0x0a, 0x05, 0x0a])),
            Err(ProtobufError::Truncated {
                message: "api.core.v1.Pod",
                at: 0
            })
        );
        assert_eq!(
            decode(&body("v1", "Pod", &[0x08, 0x01])),
            Err(ProtobufError::WireType {
                message: "api.core.v1.Pod",
                field: "metadata",
                wire_type: 0
            })
        );
        assert_eq!(
            decode(&body("v1", "Pod", &[0x00])),
            Err(ProtobufError::BadNumber {
                message: "api.core.v1.Pod",
                at: 0
            })
        );
    }

    #[test]
    fn nesting_is_bounded() {
        let mut raw = vec![0x2a, 0x00];
        for _ in 0..200 {
            // JSONSchemaProps.not
            let length = u8::try_from(raw.len() % 128).expect("it fits");
            let head = if raw.len() < 128 {
                vec![0xe2, 0x01, length]
            } else {
                vec![
                    0xe2,
                    0x01,
                    length | 0x80,
                    u8::try_from(raw.len() / 128).expect("it fits"),
                ]
            };
            raw = [head, raw].concat();
        }
        let id = table()
            .named("apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps")
            .expect("it is in the table");
        assert!(matches!(
            decode_message(table(), id, &raw, &mut Map::new(), 0),
            Err(ProtobufError::TooDeep { .. })
        ));
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(&[PREFIX, &bytes].concat());
            let _ = decode_as(&[PREFIX, &[0x12, 0x80, 0x02][..], &bytes].concat(), "v1", "Pod");
        }
    }
}
