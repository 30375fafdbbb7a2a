//! How ownership sees a value: as a whole, by field, by key, by element.

use serde_json::Value;

use super::set::{PathElement, Scalar};
use crate::table::{Field, Leaf, ListType, Shape, TypeId, table};

/// What is known of a value.
#[derive(Clone, Copy)]
pub(super) enum Node {
    /// Owned as a whole: scalars, atomic lists and maps.
    Leaf,
    /// By its fields.
    Struct(TypeId),
    /// By its keys; all values are of one shape.
    Map(&'static Shape),
    /// By its elements, which are scalars.
    Set,
    /// By its elements, which are objects known by keys.
    Keyed(&'static Field, &'static Shape),
    /// JSON without a schema: maps by their keys, all else as a whole.
    Deduced,
}

impl Node {
    /// The root of an object; `None` if the table does not know the kind.
    pub(super) fn of_kind(api_version: &str, kind: &str) -> Option<Self> {
        table().of_kind(api_version, kind).map(Self::Struct)
    }

    fn of_field(field: &'static Field) -> Self {
        match &field.shape {
            Shape::List(element) => match field.list_type {
                None | Some(ListType::Atomic) => Self::Leaf,
                Some(ListType::Set) => Self::Set,
                Some(ListType::Map) => Self::Keyed(field, element),
            },
            Shape::Map(_) if field.map_atomic == Some(true) => Self::Leaf,
            Shape::Struct(id) => Self::of_struct(*id, field.map_atomic),
            Shape::Map(_) | Shape::Leaf(_) => Self::of_shape(&field.shape),
        }
    }

    fn of_struct(id: TypeId, of_field: Option<bool>) -> Self {
        if of_field.unwrap_or(table().of(id).atomic) {
            Self::Leaf
        } else {
            Self::Struct(id)
        }
    }

    fn of_shape(shape: &'static Shape) -> Self {
        match shape {
            Shape::Struct(id) => Self::of_struct(*id, None),
            Shape::Map(of) => Self::Map(of),
            Shape::Leaf(
                Leaf::Raw
                | Leaf::Json
                | Leaf::FieldsV1
                | Leaf::SchemaOrArray
                | Leaf::SchemaOrBool
                | Leaf::SchemaOrStrings,
            ) => Self::Deduced,
            Shape::List(_) | Shape::Leaf(_) => Self::Leaf,
        }
    }

    /// What stands under a key, and whether the key is a field that the type declares.
    pub(super) fn child(self, key: &str) -> (Self, bool) {
        match self {
            Self::Struct(id) => match table().of(id).field(key) {
                Some(field) => (Self::of_field(field), true),
                None => (Self::Deduced, false),
            },
            Self::Map(of) => (Self::of_shape(of), false),
            Self::Leaf | Self::Set | Self::Keyed(..) | Self::Deduced => (Self::Deduced, false),
        }
    }

    /// What the elements of a list are.
    pub(super) fn element(self) -> Self {
        match self {
            Self::Keyed(_, shape) => Self::of_shape(shape),
            Self::Leaf | Self::Struct(_) | Self::Map(_) | Self::Set | Self::Deduced => Self::Leaf,
        }
    }

    /// Whether values are looked into by key.
    pub(super) fn is_map(self) -> bool {
        matches!(self, Self::Struct(_) | Self::Map(_))
    }

    /// Whether values are looked into by element.
    pub(super) fn is_list(self) -> bool {
        matches!(self, Self::Set | Self::Keyed(..))
    }

    /// By what an element of a list is known; `None` if it cannot be: no keys, or no scalar.
    pub(super) fn path_of(self, element: &Value) -> Option<PathElement> {
        match (self, element) {
            (Self::Set, Value::Null | Value::Array(_) | Value::Object(_)) => None,
            (Self::Set, scalar) => Some(PathElement::Value(Scalar::new(scalar))),
            (Self::Keyed(field, shape), Value::Object(map)) => {
                let mut keys: Vec<(String, Scalar)> = Vec::new();
                for name in field.list_keys() {
                    let value = map.get(name).cloned().or_else(|| key_default(shape, name));
                    keys.extend(value.map(|value| (name.to_owned(), Scalar::new(&value))));
                }
                keys.sort();
                (!keys.is_empty()).then_some(PathElement::Key(keys))
            }
            (Self::Keyed(..) | Self::Leaf | Self::Struct(_) | Self::Map(_) | Self::Deduced, _) => {
                None
            }
        }
    }
}

/// The default of a key that an element does not give: the table's, or the zero value that Go always writes.
fn key_default(shape: &Shape, name: &str) -> Option<Value> {
    let Shape::Struct(id) = shape else {
        return None;
    };
    let field = table().of(*id).field(name)?;
    match (field.default, &field.shape) {
        (Some(json), _) => serde_json::from_str(json).ok(),
        (None, Shape::Leaf(Leaf::String)) if !field.pointer && !field.omitempty => {
            Some(Value::from(""))
        }
        (None, Shape::Leaf(Leaf::Int32 | Leaf::Int64)) if !field.pointer && !field.omitempty => {
            Some(Value::from(0))
        }
        (None, _) => None,
    }
}
