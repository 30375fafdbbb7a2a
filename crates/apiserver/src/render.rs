//! Stored objects as answers: whole, without their type in lists, as metadata only, as Tables.

use bytes::{BufMut, Bytes, BytesMut};
use jiff::Timestamp;
use serde_json::{Value, json};
use stead_schema::Kind;

use crate::negotiate::Shape;
use crate::store::{Listing, Stored};
use crate::table;

/// The complete JSON of an object.
pub(crate) fn object(stored: &Stored) -> Vec<u8> {
    let mut out = Vec::with_capacity(stored.json.len() + 64);
    out.extend_from_slice(type_prefix(stored.kind).as_bytes());
    out.extend_from_slice(stored.json.get(1..).unwrap_or(b"}"));
    out
}

/// `{"apiVersion":"...","kind":"...",`: what turns a stored body into a whole object.
pub(crate) fn type_prefix(kind: &Kind) -> String {
    format!(
        "{{\"apiVersion\":\"{}\",\"kind\":\"{}\",",
        kind.api_version(),
        kind.kind
    )
}

/// One object in the asked shape.
pub(crate) fn one(
    kind: &'static Kind,
    stored: &Stored,
    shape: Shape,
    include: &str,
    now: Timestamp,
) -> Bytes {
    match shape {
        Shape::Whole => object(stored).into(),
        Shape::Table(version) => bytes(&tabled(
            kind,
            version,
            &[stored],
            include,
            now,
            &json!({"resourceVersion": stored.revision.to_string()}),
        )),
        Shape::Partial(version) | Shape::PartialList(version) => bytes(&partial(stored, version)),
    }
}

/// A value (an answer of dry runs and of kinds that are not stored) in the asked shape.
pub(crate) fn value(
    kind: &'static Kind,
    object: &Value,
    shape: Shape,
    include: &str,
    now: Timestamp,
) -> Bytes {
    match shape {
        Shape::Whole => bytes(object),
        Shape::Table(_) | Shape::Partial(_) | Shape::PartialList(_) => one(
            kind,
            &Stored::new(kind, 0, object.clone()),
            shape,
            include,
            now,
        ),
    }
}

/// A list in the asked shape. `metadata` is the list's own.
pub(crate) fn list(
    kind: &'static Kind,
    listing: &Listing,
    shape: Shape,
    include: &str,
    now: Timestamp,
    metadata: &Value,
) -> Bytes {
    match shape {
        Shape::Whole | Shape::Partial(_) => whole_list(kind, listing, metadata),
        Shape::Table(version) => {
            let rows: Vec<&Stored> = listing
                .items
                .iter()
                .map(|(_, stored)| stored.as_ref())
                .collect();
            bytes(&tabled(kind, version, &rows, include, now, metadata))
        }
        Shape::PartialList(version) => {
            let items: Vec<Value> = listing
                .items
                .iter()
                .map(|(_, stored)| partial(stored, version))
                .collect();
            bytes(
                &json!({"kind": "PartialObjectMetadataList", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": metadata, "items": items}),
            )
        }
    }
}

fn whole_list(kind: &Kind, listing: &Listing, metadata: &Value) -> Bytes {
    let size: usize = listing
        .items
        .iter()
        .map(|(_, stored)| stored.json.len() + 1)
        .sum();
    let mut out = BytesMut::with_capacity(size + 256);
    out.put_slice(
        format!(
            "{{\"kind\":\"{}List\",\"apiVersion\":\"{}\",\"metadata\":{metadata},\"items\":[",
            kind.kind,
            kind.api_version()
        )
        .as_bytes(),
    );
    for (index, (_, stored)) in listing.items.iter().enumerate() {
        if index > 0 {
            out.put_u8(b',');
        }
        out.put_slice(&stored.json);
    }
    out.put_slice(b"]}\n");
    out.freeze()
}

fn partial(stored: &Stored, version: &str) -> Value {
    let object = stored.value();
    json!({"kind": "PartialObjectMetadata", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": object["metadata"]})
}

fn tabled(
    kind: &'static Kind,
    version: &str,
    rows: &[&Stored],
    include: &str,
    now: Timestamp,
    metadata: &Value,
) -> Value {
    let columns = stead_schema::columns(kind.group, kind.version, kind.plural);
    let definitions: Vec<Value> = columns
        .iter()
        .map(|column| json!({"name": column.name, "type": column.column_type, "format": column.format, "description": "", "priority": column.priority}))
        .collect();
    let rows: Vec<Value> = rows
        .iter()
        .map(|stored| row(kind, version, stored, include, now))
        .collect();
    json!({
        "kind": "Table", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": metadata,
        "columnDefinitions": definitions, "rows": rows,
    })
}

fn row(
    kind: &'static Kind,
    version: &str,
    stored: &Stored,
    include: &str,
    now: Timestamp,
) -> Value {
    let object = stored.value();
    let cells = table::cells(kind, &object, now);
    let object = match include {
        "None" => Value::Null,
        "Object" => object,
        _ => {
            json!({"kind": "PartialObjectMetadata", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": object["metadata"]})
        }
    };
    json!({"cells": cells, "object": object})
}

fn bytes(value: &Value) -> Bytes {
    serde_json::to_vec(value)
        .map(Bytes::from)
        .unwrap_or_default()
}
