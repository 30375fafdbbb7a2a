//! Removing a set of fields from an object.

use serde_json::{Map, Value};

use crate::fields::node::Node;
use crate::fields::set::{FieldSet, PathElement};

/// The set with every declared field that has members below it as a member itself.
pub(super) fn with_named_fields(node: Node, set: &FieldSet) -> FieldSet {
    let mut named = set.clone();
    for (element, child) in set.children() {
        let (below, declared) = match element {
            PathElement::Field(name) => node.child(name),
            PathElement::Key(_) => (node.element(), false),
            PathElement::Value(_) | PathElement::Index(_) => (Node::Leaf, false),
        };
        if declared {
            named.insert_member(element.clone());
        }
        named.attach(element.clone(), with_named_fields(below, child));
    }
    named
}

/// The object without these fields and elements.
pub(super) fn remove(root: Node, object: &Value, gone: &FieldSet) -> Value {
    without(root, object, gone).unwrap_or_else(|| Value::Object(Map::new()))
}

/// The value without what goes; `None` if nothing is left of it.
fn without(node: Node, value: &Value, gone: &FieldSet) -> Option<Value> {
    match value {
        Value::Object(map) if node.is_map() || matches!(node, Node::Deduced) => {
            map_without(node, map, gone)
        }
        Value::Array(list) if node.is_list() => list_without(node, list, gone),
        Value::Object(_) | Value::Array(_) => None,
        scalar => Some(scalar.clone()),
    }
}

fn map_without(node: Node, map: &Map<String, Value>, gone: &FieldSet) -> Option<Value> {
    let mut left = Map::new();
    let mut had_matches = false;
    for (key, value) in map {
        let element = PathElement::field(key);
        if gone.has_member(&element) {
            continue;
        }
        had_matches |= gone.below(&element).is_some();
        left.insert(
            key.clone(),
            child_without(node.child(key).0, value, &element, gone),
        );
    }
    (!left.is_empty() || had_matches).then_some(Value::Object(left))
}

fn list_without(node: Node, list: &[Value], gone: &FieldSet) -> Option<Value> {
    let mut left = Vec::new();
    let mut had_matches = false;
    for value in list {
        let Some(element) = node.path_of(value) else {
            continue;
        };
        if gone.has_member(&element) {
            continue;
        }
        had_matches |= gone.below(&element).is_some();
        left.push(child_without(node.element(), value, &element, gone));
    }
    (!left.is_empty() || had_matches).then_some(Value::Array(left))
}

/// A child that loses all it holds stays as an empty one: only what is named goes.
fn child_without(node: Node, value: &Value, element: &PathElement, gone: &FieldSet) -> Value {
    let Some(below) = gone.below(element) else {
        return value.clone();
    };
    without(node, value, below).unwrap_or_else(|| match value {
        Value::Object(_) => Value::Object(Map::new()),
        Value::Array(_) => Value::Array(Vec::new()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Value::Null,
    })
}
