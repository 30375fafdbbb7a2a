//! Label selectors (`matchLabels`, `matchExpressions`): their rules, and which labels they match.
//!
//! Upstream: `apimachinery/pkg/apis/meta/v1/validation` and `labels.Selector`.

use serde_json::Value;

use super::cause::{Causes, Path};
use super::read::{entries, get, list, text, texts};
use super::syntax;

const OPERATORS: [&str; 4] = ["In", "NotIn", "Exists", "DoesNotExist"];

/// The rules of a label selector.
pub(crate) fn check(selector: &Value, at: &Path, wrong: &mut Causes) {
    super::metadata::labels(
        get(selector, "matchLabels"),
        &at.field("matchLabels"),
        wrong,
    );
    for (index, requirement) in list(selector, "matchExpressions").iter().enumerate() {
        expression(
            requirement,
            &at.field("matchExpressions").index(index),
            wrong,
        );
    }
}

fn expression(requirement: &Value, at: &Path, wrong: &mut Causes) {
    let values = texts(requirement, "values");
    match text(requirement, "operator") {
        "In" | "NotIn" => {
            if values.is_empty() {
                wrong.required(
                    &at.field("values"),
                    "must be specified when `operator` is 'In' or 'NotIn'",
                );
            }
        }
        "Exists" | "DoesNotExist" => {
            if !values.is_empty() {
                wrong.forbidden(
                    &at.field("values"),
                    "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                );
            }
        }
        other => wrong.invalid(
            &at.field("operator"),
            other,
            "not a valid selector operator",
        ),
    }
    let key = text(requirement, "key");
    wrong.complaints(&at.field("key"), key, &syntax::qualified_name(key));
    for (index, value) in values.iter().enumerate() {
        wrong.complaints(
            &at.field("values").index(index),
            value,
            &syntax::label_value(value),
        );
    }
}

/// Whether the selector asks for nothing at all.
pub(crate) fn is_empty(selector: &Value) -> bool {
    entries(selector, "matchLabels").next().is_none()
        && list(selector, "matchExpressions").is_empty()
}

/// Whether the selector can be turned into requirements at all; one that cannot is told of by [`check`] only.
pub(crate) fn is_sound(selector: &Value) -> bool {
    let mut wrong = Causes::default();
    check(selector, &Path::default(), &mut wrong);
    wrong.is_empty()
        && list(selector, "matchExpressions")
            .iter()
            .all(|it| OPERATORS.contains(&text(it, "operator")))
}

/// Whether the labels satisfy the selector. A null selector matches nothing, an empty one everything.
pub(crate) fn matches(selector: &Value, labels: &Value) -> bool {
    if selector.is_null() {
        return false;
    }
    entries(selector, "matchLabels").all(|(key, value)| labels.get(key) == Some(value))
        && list(selector, "matchExpressions")
            .iter()
            .all(|requirement| satisfied(requirement, labels))
}

fn satisfied(requirement: &Value, labels: &Value) -> bool {
    let have = labels.get(text(requirement, "key")).and_then(Value::as_str);
    let listed = have.is_some_and(|have| texts(requirement, "values").contains(&have));
    match text(requirement, "operator") {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => have.is_some(),
        "DoesNotExist" => have.is_none(),
        _ => false,
    }
}

/// The selector as text: `app=db,tier in (a,b),!x`; what Tables and `status.selector` show.
pub(crate) fn words(selector: &Value) -> String {
    let mut parts: Vec<(String, String)> = entries(selector, "matchLabels")
        .map(|(key, value)| {
            (
                key.to_owned(),
                format!("{key}={}", value.as_str().unwrap_or("")),
            )
        })
        .collect();
    for requirement in list(selector, "matchExpressions") {
        let key = text(requirement, "key");
        let mut values = texts(requirement, "values");
        values.sort_unstable();
        let values = values.join(",");
        let part = match text(requirement, "operator") {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_owned(),
        };
        parts.push((key.to_owned(), part));
    }
    parts.sort();
    parts
        .into_iter()
        .map(|(_, part)| part)
        .collect::<Vec<_>>()
        .join(",")
}
