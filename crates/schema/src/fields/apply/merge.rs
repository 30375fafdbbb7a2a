//! Merging a configuration into the live object: nothing is removed, the configuration's leaves win.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::{Map, Value};

use super::{ApplyError, no_fields};
use crate::fields::node::Node;
use crate::fields::set::PathElement;

/// Whether a configuration fits its type: known fields, lists and maps where they belong, no duplicate keys.
pub(super) fn check(root: Node, config: &Value) -> Result<(), ApplyError> {
    check_value(root, config, &mut Vec::new())
}

fn check_value(node: Node, value: &Value, path: &mut Vec<String>) -> Result<(), ApplyError> {
    match (node, value) {
        (_, Value::Null) | (Node::Leaf | Node::Deduced, _) => Ok(()),
        (Node::Struct(_) | Node::Map(_), Value::Object(map)) => {
            for (key, value) in map {
                let (child, declared) = node.child(key);
                path.push(PathElement::field(key).to_string());
                if matches!(node, Node::Struct(_)) && !declared {
                    return Err(refused(path, "field not declared in schema"));
                }
                check_value(child, value, path)?;
                path.pop();
            }
            Ok(())
        }
        (Node::Set | Node::Keyed(..), Value::Array(list)) => {
            let mut seen = BTreeSet::new();
            for (at, value) in list.iter().enumerate() {
                let Some(element) = node.path_of(value) else {
                    return Err(refused(
                        path,
                        &format!(
                            "element {at}: associative list with keys has an element that omits its key fields, or is none"
                        ),
                    ));
                };
                if !seen.insert(element.clone()) {
                    return Err(refused(
                        path,
                        &format!("duplicate entries for key {element}"),
                    ));
                }
                path.push(element.to_string());
                check_value(node.element(), value, path)?;
                path.pop();
            }
            Ok(())
        }
        (Node::Struct(_) | Node::Map(_), _) => Err(refused(path, "expected map")),
        (Node::Set | Node::Keyed(..), _) => Err(refused(path, "expected list")),
    }
}

fn refused(path: &[String], message: &str) -> ApplyError {
    ApplyError::NotTyped {
        path: path.concat(),
        message: message.to_owned(),
    }
}

/// The live object with the configuration's fields.
pub(super) fn merge(root: Node, live: &Value, config: &Value) -> Value {
    merge_value(root, Some(live), Some(config)).unwrap_or(Value::Null)
}

fn merge_value(node: Node, live: Option<&Value>, config: Option<&Value>) -> Option<Value> {
    let has = |value: Option<&Value>| match value {
        Some(Value::Object(map)) => !map.is_empty(),
        Some(Value::Array(list)) => !list.is_empty(),
        Some(_) | None => false,
    };
    let looks_into = match node {
        Node::Leaf => false,
        Node::Struct(_) | Node::Map(_) | Node::Set | Node::Keyed(..) => has(live) || has(config),
        Node::Deduced => {
            live.is_none_or(Value::is_object)
                && config.is_none_or(Value::is_object)
                && (has(live) || has(config))
        }
    };
    if !looks_into {
        return config.or(live).cloned();
    }
    if node.is_list() {
        merge_lists(node, live, config)
    } else {
        merge_maps(node, live, config)
    }
}

fn merge_maps(node: Node, live: Option<&Value>, config: Option<&Value>) -> Option<Value> {
    let map_of = |value: Option<&'_ Value>| value.and_then(Value::as_object).cloned();
    let (live, config) = (map_of(live), map_of(config));
    let (live, config) = (
        live.as_ref().unwrap_or_else(|| no_fields()),
        config.as_ref().unwrap_or_else(|| no_fields()),
    );
    let keys: BTreeSet<&String> = live.keys().chain(config.keys()).collect();
    let merged: Map<String, Value> = keys
        .into_iter()
        .filter_map(|key| {
            Some((
                key.clone(),
                merge_value(node.child(key).0, live.get(key), config.get(key))?,
            ))
        })
        .collect();
    (!merged.is_empty()).then_some(Value::Object(merged))
}

/// One list's elements by what they are known by.
struct Indexed<'a> {
    paths: Vec<(PathElement, &'a Value)>,
    /// None where an element is there more than once: then it is not merged.
    single: BTreeMap<PathElement, Option<&'a Value>>,
}

impl<'a> Indexed<'a> {
    fn new(node: Node, list: Option<&'a Value>) -> Self {
        let elements = list.and_then(Value::as_array).into_iter().flatten();
        let paths: Vec<(PathElement, &Value)> = elements
            .filter_map(|value| Some((node.path_of(value)?, value)))
            .collect();
        let mut single = BTreeMap::new();
        for (path, value) in &paths {
            single
                .entry(path.clone())
                .and_modify(|only| *only = None)
                .or_insert(Some(*value));
        }
        Self { paths, single }
    }

    fn has(&self, path: &PathElement) -> bool {
        self.single.contains_key(path)
    }

    fn only(&self, path: &PathElement) -> Option<&'a Value> {
        self.single.get(path).copied().flatten()
    }
}

/// The configuration's order, with live elements that it does not name kept near their neighbours.
fn merge_lists(node: Node, live: Option<&Value>, config: Option<&Value>) -> Option<Value> {
    let (live, config) = (Indexed::new(node, live), Indexed::new(node, config));
    let mut shared: VecDeque<&PathElement> = config
        .paths
        .iter()
        .map(|(path, _)| path)
        .filter(|path| live.has(path))
        .collect();
    let mut next_shared = shared.pop_front();
    let mut merged_paths: BTreeSet<&PathElement> = BTreeSet::new();
    let mut out = Vec::new();
    let (mut at_live, mut at_config) = (0, 0);
    loop {
        let (left, right) = (live.paths.get(at_live), config.paths.get(at_config));
        match (left, right) {
            (None, None) => break,
            (Some((left, _)), Some((right, _))) if left == right => {
                merged_paths.insert(right);
                out.extend(merge_value(
                    node.element(),
                    live.only(left),
                    config.only(right),
                ));
                at_live += 1;
                at_config += 1;
                next_shared = shared.pop_front();
                continue;
            }
            // Both name it, but the configuration wants another one first.
            (Some((left, _)), Some(_))
                if config.has(left) && next_shared.is_some_and(|next| next != left) =>
            {
                at_live += 1;
                continue;
            }
            (Some(_) | None, Some(_) | None) => {}
        }
        if let Some((path, value)) = left {
            if !config.has(path) {
                out.extend(merge_value(node.element(), Some(value), None));
                at_live += 1;
                continue;
            }
            if merged_paths.contains(path) {
                at_live += 1;
            }
        }
        if let Some((path, _)) = right {
            merged_paths.insert(path);
            out.extend(merge_value(
                node.element(),
                live.only(path),
                config.only(path),
            ));
            at_config += 1;
            if next_shared == Some(path) {
                next_shared = shared.pop_front();
            }
        }
    }
    (!out.is_empty()).then_some(Value::Array(out))
}
