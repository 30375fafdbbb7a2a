//! The differences of two JSON values, readably.

use serde_json::Value;

/// Every difference, with its path.
pub(super) fn differences(want: &Value, got: &Value) -> Vec<String> {
    let mut found = Vec::new();
    walk(want, got, "", &mut found);
    found
}

fn short(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() > 140 {
        format!("{}...", text.chars().take(140).collect::<String>())
    } else {
        text
    }
}

fn walk(want: &Value, got: &Value, path: &str, found: &mut Vec<String>) {
    match (want, got) {
        (Value::Object(want), Value::Object(got)) => {
            for (key, value) in want {
                match got.get(key) {
                    Some(other) => walk(value, other, &format!("{path}/{key}"), found),
                    None => found.push(format!("{path}/{key}: missing {}", short(value))),
                }
            }
            for (key, value) in got.iter().filter(|(key, _)| !want.contains_key(*key)) {
                found.push(format!("{path}/{key}: unexpected {}", short(value)));
            }
        }
        (Value::Array(want), Value::Array(got)) if want.len() == got.len() => {
            for (index, (one, other)) in want.iter().zip(got).enumerate() {
                walk(one, other, &format!("{path}/{index}"), found);
            }
        }
        // Python's reader knows no difference between 1 and 1.0, but between 1 and true.
        (Value::Number(want), Value::Number(got)) if want.as_f64() == got.as_f64() => {}
        (want, got) if want == got => {}
        (want, got) => found.push(format!("{path}: want {} got {}", short(want), short(got))),
    }
}
