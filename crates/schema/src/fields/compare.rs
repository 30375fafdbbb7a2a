//! The fields of an object, and what changed between two.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::node::Node;
use super::set::{FieldSet, PathElement};

/// What changed from one object to another. No field is in more than one of the sets.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    pub(super) added: FieldSet,
    pub(super) modified: FieldSet,
    pub(super) removed: FieldSet,
}

impl Comparison {
    /// Without these fields and what is below them.
    pub(super) fn without(mut self, fields: &FieldSet) -> Self {
        for set in [&mut self.added, &mut self.modified, &mut self.removed] {
            set.subtract_recursively(fields);
        }
        self
    }

    fn attach(&mut self, element: &PathElement, inner: Self) {
        self.added.attach(element.clone(), inner.added);
        self.modified.attach(element.clone(), inner.modified);
        self.removed.attach(element.clone(), inner.removed);
    }
}

/// What changed from `old` to `new`, both of the kind of `root`.
pub(super) fn compare(root: Node, old: &Value, new: &Value) -> Comparison {
    let mut comparison = Comparison::default();
    compare_maps(root, old.as_object(), new.as_object(), &mut comparison);
    comparison
}

fn compare_maps(
    node: Node,
    old: Option<&Map<String, Value>>,
    new: Option<&Map<String, Value>>,
    out: &mut Comparison,
) {
    for (key, old_value) in old.into_iter().flatten() {
        compare_value(
            PathElement::field(key),
            node.child(key).0,
            Some(old_value),
            new.and_then(|new| new.get(key)),
            out,
        );
    }
    for (key, new_value) in new.into_iter().flatten() {
        if old.is_none_or(|old| !old.contains_key(key)) {
            compare_value(
                PathElement::field(key),
                node.child(key).0,
                None,
                Some(new_value),
                out,
            );
        }
    }
}

fn compare_value(
    element: PathElement,
    node: Node,
    old: Option<&Value>,
    new: Option<&Value>,
    out: &mut Comparison,
) {
    if old == new {
        return;
    }
    let mut inner = Comparison::default();
    if is_map(node, old, new) {
        compare_maps(
            node,
            old.and_then(Value::as_object),
            new.and_then(Value::as_object),
            &mut inner,
        );
    } else if node.is_list() && (has_elements(old) || has_elements(new)) {
        compare_lists(node, old, new, &mut inner);
    } else {
        return insert_leaf(element, old, new, out);
    }
    out.attach(&element, inner);
    match (old, new) {
        (None, Some(_)) => out.added.insert_member(element),
        (Some(_), None) => out.removed.insert_member(element),
        (Some(_), Some(_)) | (None, None) => {}
    }
}

/// Whether to look into two values by key. Two empty ones are a leaf, so that empty and absent stay apart.
fn is_map(node: Node, old: Option<&Value>, new: Option<&Value>) -> bool {
    let entries = |value: Option<&Value>| {
        value
            .and_then(Value::as_object)
            .is_some_and(|map| !map.is_empty())
    };
    let fits =
        |value: Option<&Value>| value.is_none_or(|value| value.is_object() || value.is_null());
    match node {
        Node::Struct(_) | Node::Map(_) => entries(old) || entries(new),
        Node::Deduced => (entries(old) || entries(new)) && fits(old) && fits(new),
        Node::Leaf | Node::Set | Node::Keyed(..) => false,
    }
}

fn has_elements(value: Option<&Value>) -> bool {
    value
        .and_then(Value::as_array)
        .is_some_and(|list| !list.is_empty())
}

fn insert_leaf(
    element: PathElement,
    old: Option<&Value>,
    new: Option<&Value>,
    out: &mut Comparison,
) {
    match (old, new) {
        (None, Some(_)) => out.added.insert_member(element),
        (Some(_), None) => out.removed.insert_member(element),
        (Some(_), Some(_)) | (None, None) => out.modified.insert_member(element),
    }
}

/// The elements of a list by what they are known by; several where there are duplicates.
fn by_path(node: Node, list: Option<&Value>) -> BTreeMap<PathElement, Vec<&Value>> {
    let mut elements: BTreeMap<PathElement, Vec<&Value>> = BTreeMap::new();
    for element in list.and_then(Value::as_array).into_iter().flatten() {
        if let Some(path) = node.path_of(element) {
            elements.entry(path).or_default().push(element);
        }
    }
    elements
}

fn compare_lists(node: Node, old: Option<&Value>, new: Option<&Value>, out: &mut Comparison) {
    let (old, mut new) = (by_path(node, old), by_path(node, new));
    for (path, old) in old {
        let new = new.remove(&path).unwrap_or_default();
        compare_elements(path, node.element(), &old, &new, out);
    }
    for (path, new) in new {
        compare_elements(path, node.element(), &[], &new, out);
    }
}

/// Duplicates are owned as one, whole; what is single is looked into.
fn compare_elements(
    path: PathElement,
    node: Node,
    old: &[&Value],
    new: &[&Value],
    out: &mut Comparison,
) {
    match (old, new) {
        ([] | [_], [] | [_]) => {
            compare_value(path, node, old.first().copied(), new.first().copied(), out)
        }
        ([_, _, ..], [_, _, ..]) => {
            if old != new {
                out.modified.insert_member(path);
            }
        }
        ([_, _, ..], single) => {
            if let Some(new) = single.first() {
                compare_value(path.clone(), node, None, Some(new), out);
            }
            out.removed.insert_member(path);
        }
        (single, [_, _, ..]) => {
            if let Some(old) = single.first() {
                compare_value(path.clone(), node, Some(old), None, out);
            }
            out.added.insert_member(path);
        }
    }
}

/// All fields of a value: leaves, elements of lists, entries of maps.
pub(super) fn field_set(root: Node, object: &Value) -> FieldSet {
    let mut set = FieldSet::default();
    if let Value::Object(map) = object {
        fields_of_map(root, map, &mut set);
    }
    set
}

fn fields_of_map(node: Node, map: &Map<String, Value>, out: &mut FieldSet) {
    for (key, value) in map {
        let (child, declared) = node.child(key);
        let is_bare = value.is_null() || value.as_object().is_some_and(Map::is_empty);
        let element = PathElement::field(key);
        fields_of_value(element.clone(), child, value, out);
        if is_bare || !declared {
            out.insert_member(element);
        }
    }
}

fn fields_of_value(element: PathElement, node: Node, value: &Value, out: &mut FieldSet) {
    let mut inner = FieldSet::default();
    match value {
        Value::Object(map) if node.is_map() || matches!(node, Node::Deduced) => {
            fields_of_map(node, map, &mut inner)
        }
        Value::Array(list) if node.is_list() => fields_of_list(node, list, &mut inner),
        Value::Null if node.is_map() || node.is_list() => {}
        _ => return out.insert_member(element),
    }
    out.attach(element, inner);
}

fn fields_of_list(node: Node, list: &[Value], out: &mut FieldSet) {
    let mut elements: BTreeMap<PathElement, Vec<&Value>> = BTreeMap::new();
    for element in list {
        if let Some(path) = node.path_of(element) {
            elements.entry(path).or_default().push(element);
        }
    }
    for (path, values) in elements {
        if let [only] = values.as_slice() {
            fields_of_value(path.clone(), node.element(), only, out);
        }
        out.insert_member(path);
    }
}
