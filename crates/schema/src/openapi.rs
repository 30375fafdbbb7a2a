//! OpenAPI v3 documents made from the table, one a group and version: what kubectl needs to apply, to validate and to explain.
//!
//! kubectl finds a kind's schema by `x-kubernetes-group-version-kind`, merge keys by `x-kubernetes-patch-*`, and
//! learns from the parameters and bodies of the paths what the server can do. There are no descriptions.

mod paths;

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::kinds::{Kind, group_versions, kinds};
use crate::table::{Field, Leaf, ListType, Shape, Table, Type, TypeId, table};

/// The document of `apis/apps/v1` or `api/v1`, for all kinds of the table; `None` for a path without kinds.
#[must_use]
pub fn openapi_v3(group_version_path: &str) -> Option<Value> {
    openapi_v3_of(group_version_path, |_| true)
}

/// As [`openapi_v3`], for the kinds that a server serves.
pub fn openapi_v3_of(group_version_path: &str, serves: impl Fn(&Kind) -> bool) -> Option<Value> {
    let (group, version) = split_path(group_version_path)?;
    let of_ours = kinds().filter(|kind| kind.group == group && kind.version == version);
    let served: Vec<&'static Kind> = of_ours.filter(|kind| serves(kind)).collect();
    if served.is_empty() {
        return None;
    }
    Some(json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": format!("v{}", table().kubernetes)},
        "paths": paths::of_kinds(group_version_path, &served),
        "components": {"schemas": schemas(&served)},
    }))
}

/// The paths that have a document: `api/v1`, `apis/apps/v1`, ...
pub fn openapi_v3_paths() -> impl Iterator<Item = String> {
    let with_kinds = |(group, version): &(&str, &str)| {
        kinds().any(|kind| kind.group == *group && kind.version == *version)
    };
    group_versions().filter(with_kinds).map(|(group, version)| {
        if group.is_empty() {
            format!("api/{version}")
        } else {
            format!("apis/{group}/{version}")
        }
    })
}

fn split_path(path: &str) -> Option<(&str, &str)> {
    match path.strip_prefix("apis/") {
        Some(rest) => rest.split_once('/'),
        None => path.strip_prefix("api/").map(|version| ("", version)),
    }
}

/// Types of the kinds served, of their lists and subresources, and all that they refer to.
fn schemas(served: &[&'static Kind]) -> Map<String, Value> {
    let table = table();
    let mut todo: Vec<TypeId> = Vec::new();
    for kind in served {
        let api_version = kind.api_version();
        todo.extend(table.of_kind(&api_version, kind.kind));
        todo.extend(table.of_kind(&api_version, &format!("{}List", kind.kind)));
        let subresources = kind.subresources.iter();
        todo.extend(
            subresources.filter_map(|sub| table.of_kind(&join(sub.group, sub.version), sub.kind)),
        );
    }
    for kind in ["Status", "DeleteOptions", "WatchEvent"] {
        todo.extend(table.of_kind("v1", kind));
    }
    let mut schemas = leaf_schemas();
    let mut seen = BTreeSet::new();
    while let Some(id) = todo.pop() {
        if seen.insert(id) {
            let of = table.of(id);
            of.json_fields()
                .for_each(|field| todo.extend(struct_of(&field.shape)));
            schemas.insert(full_name(of.name), schema(table, of));
        }
    }
    schemas
}

fn join(group: &str, version: &str) -> String {
    if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    }
}

fn struct_of(shape: &Shape) -> Option<TypeId> {
    match shape {
        Shape::Struct(id) => Some(*id),
        Shape::List(of) | Shape::Map(of) => struct_of(of),
        Shape::Leaf(_) => None,
    }
}

fn full_name(name: &str) -> String {
    format!("io.k8s.{name}")
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{}", full_name(name))})
}

fn schema(table: &Table, of: &Type) -> Value {
    let properties: Map<String, Value> = of
        .json_fields()
        .map(|field| (field.name.to_owned(), property(table, field)))
        .collect();
    let required: Vec<&str> = of
        .json_fields()
        .filter(|field| field.required)
        .map(|field| field.name)
        .collect();
    let mut schema = Map::new();
    schema.insert("type".to_owned(), "object".into());
    schema.insert("properties".to_owned(), Value::Object(properties));
    if !required.is_empty() {
        schema.insert("required".to_owned(), json!(required));
    }
    if of.atomic {
        schema.insert("x-kubernetes-map-type".to_owned(), "atomic".into());
    }
    if !of.kinds.is_empty() {
        let kinds: Vec<Value> = of
            .kinds
            .iter()
            .map(|(group, version, kind)| json!({"group": group, "kind": kind, "version": version}))
            .collect();
        schema.insert(
            "x-kubernetes-group-version-kind".to_owned(),
            Value::Array(kinds),
        );
    }
    Value::Object(schema)
}

fn property(table: &Table, field: &Field) -> Value {
    let mut property = shape_schema(table, &field.shape);
    let Some(map) = property.as_object_mut() else {
        return property;
    };
    if let Some(default) = default_of(field) {
        map.insert("default".to_owned(), default);
    }
    let mut put = |name: &str, value: &str| {
        if !value.is_empty() {
            map.insert(format!("x-kubernetes-{name}"), value.into());
        }
    };
    put("patch-merge-key", field.merge_key);
    put("patch-strategy", field.patch_strategy);
    put(
        "list-type",
        field.list_type.map(list_type).unwrap_or_default(),
    );
    put(
        "map-type",
        field
            .map_atomic
            .map(|atomic| if atomic { "atomic" } else { "granular" })
            .unwrap_or_default(),
    );
    let keys: Vec<&str> = field.list_keys().collect();
    if !keys.is_empty() {
        map.insert("x-kubernetes-list-map-keys".to_owned(), json!(keys));
    }
    property
}

fn list_type(of: ListType) -> &'static str {
    match of {
        ListType::Atomic => "atomic",
        ListType::Set => "set",
        ListType::Map => "map",
    }
}

/// The default that the table names, or the zero value of a field that Go always writes.
fn default_of(field: &Field) -> Option<Value> {
    match (&field.shape, field.default) {
        (_, Some(json)) => serde_json::from_str(json).ok(),
        (Shape::Struct(_), None) if !field.pointer => Some(json!({})),
        (Shape::Leaf(leaf), None) if !field.pointer && !field.omitempty => zero(*leaf),
        (Shape::Struct(_) | Shape::List(_) | Shape::Map(_) | Shape::Leaf(_), None) => None,
    }
}

fn zero(leaf: Leaf) -> Option<Value> {
    match leaf {
        Leaf::String => Some("".into()),
        Leaf::Bool => Some(false.into()),
        Leaf::Int32 | Leaf::Int64 | Leaf::Double => Some(0.into()),
        Leaf::Bytes
        | Leaf::Quantity
        | Leaf::IntOrString
        | Leaf::Time
        | Leaf::MicroTime
        | Leaf::Raw
        | Leaf::FieldsV1
        | Leaf::Json
        | Leaf::SchemaOrArray
        | Leaf::SchemaOrBool
        | Leaf::SchemaOrStrings => None,
    }
}

fn shape_schema(table: &Table, shape: &Shape) -> Value {
    match shape {
        Shape::Struct(id) => json!({"allOf": [reference(table.of(*id).name)]}),
        Shape::List(of) => json!({"type": "array", "items": element_schema(table, of)}),
        Shape::Map(of) => {
            json!({"type": "object", "additionalProperties": element_schema(table, of)})
        }
        Shape::Leaf(leaf) => leaf_schema(*leaf),
    }
}

/// Elements that Go cannot leave out have their zero value as default.
fn element_schema(table: &Table, shape: &Shape) -> Value {
    let mut schema = shape_schema(table, shape);
    let default = match shape {
        Shape::Struct(_) => Some(json!({})),
        Shape::Leaf(leaf) => zero(*leaf),
        Shape::List(_) | Shape::Map(_) => None,
    };
    if let (Some(default), Some(map)) = (default, schema.as_object_mut()) {
        map.insert("default".to_owned(), default);
    }
    schema
}

const QUANTITY: &str = "apimachinery.pkg.api.resource.Quantity";
const INT_OR_STRING: &str = "apimachinery.pkg.util.intstr.IntOrString";
const TIME: &str = "apimachinery.pkg.apis.meta.v1.Time";
const MICRO_TIME: &str = "apimachinery.pkg.apis.meta.v1.MicroTime";
const RAW: &str = "apimachinery.pkg.runtime.RawExtension";
const FIELDS: &str = "apimachinery.pkg.apis.meta.v1.FieldsV1";

fn leaf_schema(leaf: Leaf) -> Value {
    let shared = |name| json!({"allOf": [reference(name)]});
    match leaf {
        Leaf::String => json!({"type": "string"}),
        Leaf::Bytes => json!({"type": "string", "format": "byte"}),
        Leaf::Bool => json!({"type": "boolean"}),
        Leaf::Int32 => json!({"type": "integer", "format": "int32"}),
        Leaf::Int64 => json!({"type": "integer", "format": "int64"}),
        Leaf::Double => json!({"type": "number", "format": "double"}),
        Leaf::Quantity => shared(QUANTITY),
        Leaf::IntOrString => shared(INT_OR_STRING),
        Leaf::Time => shared(TIME),
        Leaf::MicroTime => shared(MICRO_TIME),
        Leaf::Raw => shared(RAW),
        Leaf::FieldsV1 => shared(FIELDS),
        Leaf::Json | Leaf::SchemaOrArray | Leaf::SchemaOrBool | Leaf::SchemaOrStrings => json!({}),
    }
}

/// The schemas of leaf types that are referred to by name.
fn leaf_schemas() -> Map<String, Value> {
    let schemas = [
        (
            QUANTITY,
            json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
        ),
        (
            INT_OR_STRING,
            json!({"oneOf": [{"type": "integer"}, {"type": "string"}], "format": "int-or-string"}),
        ),
        (TIME, json!({"type": "string", "format": "date-time"})),
        (MICRO_TIME, json!({"type": "string", "format": "date-time"})),
        (RAW, json!({"type": "object"})),
        (FIELDS, json!({"type": "object"})),
    ];
    schemas
        .into_iter()
        .map(|(name, schema)| (full_name(name), schema))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_has_a_document_and_every_reference_leads_somewhere() {
        for path in openapi_v3_paths() {
            let document = openapi_v3(&path).expect("the path was named");
            let schemas = document["components"]["schemas"]
                .as_object()
                .expect("there are schemas");
            let text = document.to_string();
            for reference in text.split("#/components/schemas/").skip(1) {
                let name = reference.split('"').next().unwrap_or_default();
                assert!(schemas.contains_key(name), "{path}: {name}");
            }
        }
        assert_eq!(openapi_v3("apis/nobody.io/v1"), None);
        assert_eq!(openapi_v3("nonsense"), None);
    }

    #[test]
    fn kubectl_finds_kinds_merge_keys_and_parameters() {
        let document = openapi_v3("apis/apps/v1").expect("apps are known");
        let schemas = &document["components"]["schemas"];
        let set = &schemas["io.k8s.api.apps.v1.StatefulSet"];
        let kind = json!({"group": "apps", "kind": "StatefulSet", "version": "v1"});
        assert_eq!(set["x-kubernetes-group-version-kind"], json!([kind]));
        let containers = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
        assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
        assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
        let patch =
            &document["paths"]["/apis/apps/v1/namespaces/{namespace}/statefulsets/{name}"]["patch"];
        assert_eq!(patch["x-kubernetes-group-version-kind"], kind);
        let validates = patch["parameters"]
            .as_array()
            .into_iter()
            .flatten()
            .any(|parameter| parameter["name"] == "fieldValidation" && parameter["in"] == "query");
        assert!(validates, "{patch:#}");
        assert!(
            patch["requestBody"]["content"]
                .get("application/strategic-merge-patch+json")
                .is_some()
        );
    }

    #[test]
    fn what_is_not_served_is_not_told() {
        let document = openapi_v3_of("apis/apps/v1", |kind| kind.kind == "StatefulSet")
            .expect("one is served");
        assert!(
            document["components"]["schemas"]
                .get("io.k8s.api.apps.v1.Deployment")
                .is_none()
        );
        assert!(document["paths"].get("/apis/apps/v1/deployments").is_none());
        assert_eq!(openapi_v3_of("apis/apps/v1", |_| false), None);
    }
}
