//! Label selectors: whether labels match. Pure.

use serde_json::Value;
use stead_controller::resource::{list, text};

/// Whether an object's labels match a label selector. No selector and an empty one match everything.
pub(crate) fn selector_matches(selector: Option<&Value>, object: &Value) -> bool {
    selector.is_none_or(|selector| {
        matches(selector, |key| {
            object.get("metadata")?.get("labels")?.get(key)?.as_str()
        })
    })
}

/// Whether labels, asked for one by one, match a label selector. An empty one matches everything.
pub(crate) fn matches<'a>(selector: &Value, label: impl Fn(&str) -> Option<&'a str>) -> bool {
    let wanted = selector.get("matchLabels").and_then(Value::as_object);
    let labels = wanted
        .into_iter()
        .flatten()
        .all(|(key, value)| label(key) == value.as_str());
    labels
        && list(selector, "/matchExpressions")
            .iter()
            .all(|rule| rule_holds(rule, label(text(rule, "/key"))))
}

/// Whether a value (`None` where there is none) is as a rule wants it: the rules of label and of node selectors.
pub(crate) fn rule_holds(rule: &Value, value: Option<&str>) -> bool {
    let values = list(rule, "/values");
    let among = value.is_some_and(|value| values.iter().any(|one| one == value));
    let number = |text: Option<&str>| text.and_then(|text| text.parse::<i64>().ok());
    let bound = number(values.first().and_then(Value::as_str));
    match text(rule, "/operator") {
        "In" => among,
        "NotIn" => !among,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => number(value)
            .zip(bound)
            .is_some_and(|(value, bound)| value > bound),
        "Lt" => number(value)
            .zip(bound)
            .is_some_and(|(value, bound)| value < bound),
        // The API server admits no other.
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(selector: &Value, expected: bool) {
        let object = json!({"metadata": {"labels": {"app": "web", "tier": "2"}}});
        assert_eq!(
            selector_matches(Some(selector), &object),
            expected,
            "{selector}"
        );
    }

    #[test]
    fn every_label_and_every_expression_must_hold() {
        let rule = |key: &str, operator: &str, values: Value| json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]});
        check(&json!({}), true);
        check(&json!({"matchLabels": {"app": "web"}}), true);
        check(&json!({"matchLabels": {"app": "web", "tier": "3"}}), false);
        check(&rule("app", "In", json!(["web", "db"])), true);
        check(&rule("app", "NotIn", json!(["web"])), false);
        check(&rule("zone", "NotIn", json!(["a"])), true);
        check(&rule("zone", "Exists", json!([])), false);
        check(&rule("zone", "DoesNotExist", json!([])), true);
        check(&rule("tier", "Gt", json!(["1"])), true);
        check(&rule("tier", "Lt", json!(["1"])), false);
    }
}
