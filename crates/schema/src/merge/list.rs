//! Merging of lists: of scalars as sets, of objects by their merge key, and the order of the result.

use std::mem::{Discriminant, discriminant};

use serde_json::Value;

use super::{PATCH, PatchError, Rules, key_of, merge_map, without_directives};

/// Merges `patch` into `live`; with `deletes`, `patch` lists what goes.
pub(super) fn merge(
    field: &str,
    rules: &Rules,
    mut live: Vec<Value>,
    patch: Vec<Value>,
    deletes: bool,
) -> Result<Vec<Value>, PatchError> {
    if live.is_empty() && patch.is_empty() {
        return Ok(live);
    }
    let of_objects = element_type(field, &[&live, &patch])?
        == discriminant(&Value::Object(serde_json::Map::new()));
    if !of_objects {
        if deletes {
            live.retain(|element| !patch.contains(element));
            return Ok(live);
        }
        let merged = deduplicated(live.iter().chain(&patch).cloned().collect());
        return order(field, rules, merged, &patch, &live);
    }
    if rules.merge_key.is_empty() {
        return Err(PatchError::NoDeclaredKey {
            field: field.to_owned(),
        });
    }
    let (live, patch) = follow_directives(field, rules, live, patch)?;
    let merged = merge_objects(field, rules, live.clone(), &patch)?;
    order(field, rules, merged, &patch, &live)
}

/// Merges with `$setElementOrder`: `wanted` holds the elements' keys (or the scalars) in order.
pub(super) fn merge_in_order(
    field: &str,
    rules: &Rules,
    live: Vec<Value>,
    patch: Option<Vec<Value>>,
    wanted: &[Value],
) -> Result<Vec<Value>, PatchError> {
    let patched = patch.as_deref().unwrap_or_default();
    check_order(field, rules, patched, wanted)?;
    element_type(field, &[&live, patched])?;
    let merged = match patch {
        None => live.clone(),
        Some(patch) if live.is_empty() => {
            patch.into_iter().filter_map(without_directives).collect()
        }
        Some(patch) if rules.merges => merge(field, rules, live.clone(), patch, false)?,
        Some(patch) => patch,
    };
    order(field, rules, merged, wanted, &live)
}

/// The patch's elements must stand in the order that the directive names; those it deletes are free.
fn check_order(
    field: &str,
    rules: &Rules,
    patch: &[Value],
    wanted: &[Value],
) -> Result<(), PatchError> {
    if wanted.is_empty() || patch.is_empty() {
        return Ok(());
    }
    let mut left = wanted.iter();
    for element in patch.iter().filter(|element| element.get(PATCH).is_none()) {
        let key = required_key(field, rules, element)?;
        loop {
            let Some(next) = left.next() else {
                return Err(PatchError::OrderMismatch {
                    field: field.to_owned(),
                });
            };
            if required_key(field, rules, next)? == key {
                break;
            }
        }
    }
    Ok(())
}

fn required_key<'a>(
    field: &str,
    rules: &Rules,
    element: &'a Value,
) -> Result<&'a Value, PatchError> {
    if rules.merge_key.is_empty() {
        return Ok(element);
    }
    element
        .get(rules.merge_key)
        .ok_or_else(|| PatchError::NoMergeKey {
            field: field.to_owned(),
            key: rules.merge_key.to_owned(),
        })
}

/// All elements must be of one type, and there must be one.
fn element_type(field: &str, lists: &[&[Value]]) -> Result<Discriminant<Value>, PatchError> {
    let mut elements = lists.iter().flat_map(|list| list.iter());
    let mixed = || PatchError::ElementTypes {
        field: field.to_owned(),
    };
    let first = elements.next().ok_or_else(mixed)?;
    if first.is_array() {
        return Err(PatchError::ListOfLists {
            field: field.to_owned(),
        });
    }
    if first.is_null() || elements.any(|element| discriminant(element) != discriminant(first)) {
        return Err(mixed());
    }
    Ok(discriminant(first))
}

/// Takes `$patch` elements out of the patch: deletions are done, a replacement empties the live list.
fn follow_directives(
    field: &str,
    rules: &Rules,
    mut live: Vec<Value>,
    patch: Vec<Value>,
) -> Result<(Vec<Value>, Vec<Value>), PatchError> {
    let mut plain = Vec::new();
    let mut replaces = false;
    for element in patch {
        match element.get(PATCH) {
            None => plain.push(element),
            Some(directive) if directive == "delete" => {
                let key = required_key(field, rules, &element)?;
                live.retain(|of| of.get(rules.merge_key) != Some(key));
            }
            Some(directive) if directive == "replace" => replaces = true,
            Some(directive) => {
                return Err(PatchError::UnknownDirective {
                    directive: directive.to_string(),
                });
            }
        }
    }
    Ok(if replaces {
        (plain, Vec::new())
    } else {
        (live, plain)
    })
}

fn merge_objects(
    field: &str,
    rules: &Rules,
    mut live: Vec<Value>,
    patch: &[Value],
) -> Result<Vec<Value>, PatchError> {
    for element in patch {
        let key = required_key(field, rules, element)?;
        match (
            live.iter_mut()
                .find(|of| of.get(rules.merge_key) == Some(key)),
            element,
        ) {
            (Some(Value::Object(found)), Value::Object(patch)) => {
                *found = merge_map(std::mem::take(found), patch.clone(), rules.schema)?
            }
            // What is new is taken as it is, with any directives inside: as upstream.
            (Some(_) | None, _) => live.push(element.clone()),
        }
    }
    Ok(live)
}

/// Scalars once each. The place of a duplicate is filled by the last element, as upstream does.
fn deduplicated(mut list: Vec<Value>) -> Vec<Value> {
    let mut at = 0;
    while at + 1 < list.len() {
        let mut other = at + 1;
        while other < list.len() {
            if list[at] == list[other] {
                list.swap_remove(other);
            } else {
                other += 1;
            }
        }
        at += 1;
    }
    list
}

/// Orders `merged`: elements of `wanted` as it says, the others as in `live`, woven together by the order of `live`.
fn order(
    field: &str,
    rules: &Rules,
    merged: Vec<Value>,
    wanted: &[Value],
    live: &[Value],
) -> Result<Vec<Value>, PatchError> {
    if !rules.merge_key.is_empty() {
        for element in merged.iter().chain(wanted) {
            required_key(field, rules, element)?;
        }
    }
    let place = |list: &[Value], element: &Value| {
        let key = key_of(element, rules.merge_key);
        list.iter()
            .position(|of| key_of(of, rules.merge_key) == key)
    };
    let (mut named, mut others): (Vec<Value>, Vec<Value>) = merged
        .into_iter()
        .partition(|element| place(wanted, element).is_some());
    sort_by_place(&mut named, |element| place(wanted, element));
    sort_by_place(&mut others, |element| place(live, element));
    Ok(woven(others, named, |element| place(live, element)))
}

/// Insertion sort; elements without a place go before their left neighbour, as upstream's comparison says.
fn sort_by_place(list: &mut [Value], place: impl Fn(&Value) -> Option<usize>) {
    for end in 1..list.len() {
        let mut at = end;
        while at > 0 && goes_before(place(&list[at]), place(&list[at - 1])) {
            list.swap(at, at - 1);
            at -= 1;
        }
    }
}

fn goes_before(left: Option<usize>, right: Option<usize>) -> bool {
    match (left, right) {
        (Some(left), Some(right)) => left < right,
        (Some(_) | None, None) | (None, Some(_)) => true,
    }
}

/// Inserts each of `others` into `named` before the first element that stands after it in the live list.
fn woven(
    others: Vec<Value>,
    named: Vec<Value>,
    place: impl Fn(&Value) -> Option<usize>,
) -> Vec<Value> {
    let mut all = Vec::with_capacity(others.len() + named.len());
    let mut others = others.into_iter().peekable();
    for element in named {
        while let Some(other) = others.next_if(|other| matches!((place(other), place(&element)), (Some(left), Some(right)) if left < right)) {
            all.push(other);
        }
        all.push(element);
    }
    all.extend(others);
    all
}
