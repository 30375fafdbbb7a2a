//! Label and field selectors: parsing as kube-apiserver does, and matching.

use std::collections::BTreeMap;

use serde_json::Value;
use stead_schema::Kind;

use crate::fields::field_index;
use crate::request::Query;
use crate::status::Status;
use crate::store::Stored;

/// What a list or watch selects.
#[derive(Debug, Clone, Default)]
pub(crate) struct Selector {
    labels: Vec<Requirement>,
    fields: Vec<FieldRequirement>,
}

#[derive(Debug, Clone, PartialEq)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Debug, Clone, PartialEq)]
enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Missing,
    Greater(i64),
    Less(i64),
}

#[derive(Debug, Clone)]
struct FieldRequirement {
    place: FieldPlace,
    value: String,
    equal: bool,
}

#[derive(Debug, Clone, Copy)]
enum FieldPlace {
    Name,
    Namespace,
    Field(usize),
}

impl Selector {
    /// Reads `labelSelector` and `fieldSelector` of a query.
    ///
    /// # Errors
    /// 400 when one cannot be parsed or names an unknown field.
    pub(crate) fn from_query(kind: &Kind, query: &Query) -> Result<Self, Status> {
        let labels = parse_labels(query.get("labelSelector")).map_err(Status::bad_request)?;
        let fields = parse_fields(kind, query.get("fieldSelector"))?;
        Ok(Self { labels, fields })
    }

    /// Selects only the object of this name.
    pub(crate) fn require_name(&mut self, name: &str) {
        self.fields.push(FieldRequirement {
            place: FieldPlace::Name,
            value: name.to_owned(),
            equal: true,
        });
    }

    /// Whether nothing is left out.
    pub(crate) fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// Whether an object with this key is selected.
    pub(crate) fn matches(&self, key: &str, stored: &Stored) -> bool {
        self.labels.iter().all(|requirement| {
            requirement.matches(
                stored
                    .labels
                    .get(requirement.key.as_str())
                    .map(AsRef::as_ref),
            )
        }) && self
            .fields
            .iter()
            .all(|requirement| requirement.matches(key, stored))
    }
}

impl Requirement {
    fn matches(&self, value: Option<&str>) -> bool {
        let number = || value.and_then(|text| text.parse::<i64>().ok());
        match &self.test {
            Test::In(values) => value.is_some_and(|value| values.iter().any(|one| one == value)),
            Test::NotIn(values) => value.is_none_or(|value| values.iter().all(|one| one != value)),
            Test::Exists => value.is_some(),
            Test::Missing => value.is_none(),
            Test::Greater(than) => number().is_some_and(|number| number > *than),
            Test::Less(than) => number().is_some_and(|number| number < *than),
        }
    }
}

impl FieldRequirement {
    fn matches(&self, key: &str, stored: &Stored) -> bool {
        let (namespace, name) = key.split_once('/').unwrap_or(("", key));
        let value = match self.place {
            FieldPlace::Name => name,
            FieldPlace::Namespace => namespace,
            FieldPlace::Field(index) => stored.fields.get(index).map_or("", AsRef::as_ref),
        };
        (value == self.value) == self.equal
    }
}

fn parse_fields(kind: &Kind, text: &str) -> Result<Vec<FieldRequirement>, Status> {
    let mut fields = Vec::new();
    for clause in split_clauses(text) {
        let (label, value, equal) = field_clause(&clause).ok_or_else(|| {
            Status::bad_request(format!(
                "invalid selector: '{text}'; can't understand '{clause}'"
            ))
        })?;
        let place = match label.as_str() {
            "metadata.name" => FieldPlace::Name,
            "metadata.namespace" => FieldPlace::Namespace,
            other => FieldPlace::Field(field_index(kind, other).ok_or_else(|| {
                Status::bad_request(format!("field label not supported: {other}"))
            })?),
        };
        fields.push(FieldRequirement {
            place,
            value,
            equal,
        });
    }
    Ok(fields)
}

/// Splits at commas that no backslash escapes.
fn split_clauses(text: &str) -> Vec<String> {
    let mut clauses = vec![String::new()];
    let mut escaped = false;
    for letter in text.chars() {
        if letter == ',' && !escaped {
            clauses.push(String::new());
        } else if let Some(last) = clauses.last_mut() {
            last.push(letter);
        }
        escaped = letter == '\\' && !escaped;
    }
    clauses.retain(|clause| !clause.is_empty());
    clauses
}

fn field_clause(clause: &str) -> Option<(String, String, bool)> {
    let at = clause.find(['=', '!'])?;
    let (label, rest) = clause.split_at(at);
    let (value, equal) = match (rest.strip_prefix("!="), rest.strip_prefix("==")) {
        (Some(value), _) => (value, false),
        (None, Some(value)) => (value, true),
        (None, None) => (rest.strip_prefix('=')?, true),
    };
    Some((
        label.to_owned(),
        value
            .replace("\\=", "=")
            .replace("\\,", ",")
            .replace("\\\\", "\\"),
        equal,
    ))
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Word(String),
    Open,
    Close,
    Comma,
    Operator(&'static str),
}

fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let operator = ["==", "!=", "=", "!", ">", "<"]
            .into_iter()
            .find(|operator| rest.starts_with(operator));
        let (token, length) = match (first, operator) {
            (_, Some(operator)) => (Token::Operator(operator), operator.len()),
            ('(', None) => (Token::Open, 1),
            (')', None) => (Token::Close, 1),
            (',', None) => (Token::Comma, 1),
            (_, None) => {
                let end = rest
                    .find(|letter: char| letter.is_whitespace() || "=!<>(),".contains(letter))
                    .unwrap_or(rest.len());
                (Token::Word(rest[..end].to_owned()), end)
            }
        };
        tokens.push(token);
        rest = rest[length..].trim_start();
    }
    tokens
}

/// A token as it stands in the text, empty at the end.
fn literal(token: Option<&Token>) -> &str {
    match token {
        None => "",
        Some(Token::Word(word)) => word,
        Some(Token::Open) => "(",
        Some(Token::Close) => ")",
        Some(Token::Comma) => ",",
        Some(Token::Operator(operator)) => operator,
    }
}

fn begins_requirement(token: Option<&Token>) -> bool {
    matches!(token, Some(Token::Word(_) | Token::Operator("!")))
}

/// Requirements between commas. The words of errors are upstream's: kubectl shows them.
fn parse_labels(text: &str) -> Result<Vec<Requirement>, String> {
    let tokens = tokens(text);
    let mut requirements = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if !begins_requirement(tokens.get(at)) {
            return Err(format!(
                "found '{}', expected: !, identifier, or 'end of string'",
                literal(tokens.get(at))
            ));
        }
        let parsed = parse_requirement(&tokens, at).and_then(|(requirement, next)| {
            check_requirement(&requirement).map(|()| (requirement, next))
        });
        let (requirement, next) =
            parsed.map_err(|why| format!("unable to parse requirement: {why}"))?;
        requirements.push(requirement);
        match tokens.get(next) {
            None => break,
            Some(Token::Comma) if begins_requirement(tokens.get(next + 1)) => at = next + 1,
            Some(Token::Comma) => {
                return Err(format!(
                    "found '{}', expected: identifier after ','",
                    literal(tokens.get(next + 1))
                ));
            }
            Some(other) => {
                return Err(format!(
                    "found '{}', expected: ',' or 'end of string'",
                    literal(Some(other))
                ));
            }
        }
    }
    Ok(requirements)
}

fn parse_requirement(tokens: &[Token], at: usize) -> Result<(Requirement, usize), String> {
    let word = |at: usize| match tokens.get(at) {
        Some(Token::Word(word)) => Ok(word.clone()),
        other => Err(format!("found '{}', expected: identifier", literal(other))),
    };
    if tokens.get(at) == Some(&Token::Operator("!")) {
        return Ok((
            Requirement {
                key: word(at + 1)?,
                test: Test::Missing,
            },
            at + 2,
        ));
    }
    let key = word(at)?;
    match tokens.get(at + 1) {
        None | Some(Token::Comma) => Ok((
            Requirement {
                key,
                test: Test::Exists,
            },
            at + 1,
        )),
        Some(Token::Word(operator)) if operator == "in" || operator == "notin" => {
            let (values, next) = parse_values(tokens, at + 2)?;
            let test = if operator == "in" {
                Test::In(values)
            } else {
                Test::NotIn(values)
            };
            Ok((Requirement { key, test }, next))
        }
        Some(Token::Operator(operator)) => {
            let (value, next) = match tokens.get(at + 2) {
                Some(Token::Word(value)) => (value.clone(), at + 3),
                None | Some(Token::Comma) => (String::new(), at + 2),
                other => return Err(format!("found '{}', expected: identifier", literal(other))),
            };
            Ok((
                Requirement {
                    key,
                    test: comparison(operator, value)?,
                },
                next,
            ))
        }
        other => Err(format!("found '{}', expected: {OPERATORS}", literal(other))),
    }
}

/// The operators that take values, as upstream lists them.
const OPERATORS: &str = "in, notin, =, ==, !=, gt, lt";

fn comparison(operator: &str, value: String) -> Result<Test, String> {
    let number = |value: &str| {
        value.parse::<i64>().map_err(|_| format!("values[0]: Invalid value: \"{value}\": for 'Gt', 'Lt' operators, the value must be an integer"))
    };
    match operator {
        "=" | "==" => Ok(Test::In(vec![value])),
        "!=" => Ok(Test::NotIn(vec![value])),
        ">" => Ok(Test::Greater(number(&value)?)),
        "<" => Ok(Test::Less(number(&value)?)),
        other => Err(format!("found '{other}', expected: {OPERATORS}")),
    }
}

/// `(a, b, )`: words between commas; an empty place is the empty value.
fn parse_values(tokens: &[Token], at: usize) -> Result<(Vec<String>, usize), String> {
    if tokens.get(at) != Some(&Token::Open) {
        return Err(format!("found '{}' expected: '('", literal(tokens.get(at))));
    }
    let mut values = Vec::new();
    let mut at = at + 1;
    let mut open_place = true;
    loop {
        match tokens.get(at) {
            Some(Token::Word(word)) if open_place => {
                values.push(word.clone());
                open_place = false;
            }
            Some(Token::Comma) => {
                if open_place {
                    values.push(String::new());
                }
                open_place = true;
            }
            Some(Token::Close) => {
                if open_place {
                    values.push(String::new());
                }
                return Ok((values, at + 1));
            }
            other => return Err(format!("found '{}', expected: ',', or ')'", literal(other))),
        }
        at += 1;
    }
}

fn check_requirement(requirement: &Requirement) -> Result<(), String> {
    if !is_qualified_name(&requirement.key) {
        return Err(format!(
            "key: Invalid value: \"{}\": name part must consist of alphanumeric characters, '-', '_' or '.'",
            requirement.key
        ));
    }
    match &requirement.test {
        Test::In(values) | Test::NotIn(values) => {
            match values.iter().find(|value| !is_label_value(value)) {
                Some(bad) => Err(format!(
                    "values: Invalid value: \"{bad}\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.'"
                )),
                None => Ok(()),
            }
        }
        Test::Exists | Test::Missing | Test::Greater(_) | Test::Less(_) => Ok(()),
    }
}

fn is_label_value(value: &str) -> bool {
    value.is_empty() || (value.len() <= 63 && is_name_part(value))
}

fn is_name_part(part: &str) -> bool {
    let alphanumeric =
        |letter: Option<char>| letter.is_some_and(|letter| letter.is_ascii_alphanumeric());
    alphanumeric(part.chars().next())
        && alphanumeric(part.chars().next_back())
        && part
            .chars()
            .all(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(letter))
}

fn is_qualified_name(key: &str) -> bool {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    let prefix_ok = prefix.is_none_or(|prefix| {
        !prefix.is_empty()
            && prefix.len() <= 253
            && prefix.split('.').all(|part| {
                is_name_part(part)
                    && part.chars().all(|letter| {
                        letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-'
                    })
            })
    });
    prefix_ok && name.len() <= 63 && is_name_part(name)
}

/// Whether a LabelSelector object (`matchLabels`, `matchExpressions`) selects these labels. An empty one selects all, null none.
pub(crate) fn label_selector_matches(
    selector: &Value,
    labels: &BTreeMap<Box<str>, Box<str>>,
) -> bool {
    if !selector.is_object() {
        return false;
    }
    let value = |key: &str| labels.get(key).map(AsRef::as_ref);
    let equal = selector["matchLabels"]
        .as_object()
        .is_none_or(|map| map.iter().all(|(key, want)| value(key) == want.as_str()));
    let expressions = selector["matchExpressions"].as_array().is_none_or(|list| {
        list.iter().all(|expression| {
            let have = value(expression["key"].as_str().unwrap_or(""));
            let listed = || {
                expression["values"]
                    .as_array()
                    .is_some_and(|values| values.iter().any(|one| one.as_str() == have))
            };
            match expression["operator"].as_str() {
                Some("In") => have.is_some() && listed(),
                Some("NotIn") => have.is_none() || !listed(),
                Some("Exists") => have.is_some(),
                Some("DoesNotExist") => have.is_none(),
                Some(_) | None => false,
            }
        })
    });
    equal && expressions
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a selector text says of `app=a, n=5`, or why it is none.
    fn check(text: &str, expected: &str) {
        let labels = [("app", "a"), ("n", "5")];
        let found = match parse_labels(text) {
            Err(why) => why,
            Ok(requirements) => {
                let value = |key: &str| {
                    labels
                        .iter()
                        .find(|(label, _)| *label == key)
                        .map(|(_, value)| *value)
                };
                let selected = requirements
                    .iter()
                    .all(|requirement| requirement.matches(value(&requirement.key)));
                if selected {
                    "selected".to_owned()
                } else {
                    "left out".to_owned()
                }
            }
        };
        assert_eq!(found, expected, "{text:?}");
    }

    #[test]
    fn selectors_select() {
        for text in [
            "",
            "app",
            "app=a",
            "app==a",
            "app = a , n",
            "!other",
            "other!=x",
            "app in (b, a)",
            "other notin (x)",
            "n>4",
            "n<6",
            "app notin (b,c),n in (5)",
        ] {
            check(text, "selected");
        }
        for text in [
            "other",
            "app=b",
            "app=",
            "!app",
            "app!=a",
            "app in (b)",
            "app in ()",
            "n>5",
            "n<5",
            "app>1",
            "app,other",
        ] {
            check(text, "left out");
        }
    }

    #[test]
    fn what_is_no_selector_is_told_as_kubectl_expects() {
        check(
            "=",
            "found '=', expected: !, identifier, or 'end of string'",
        );
        check("app,", "found '', expected: identifier after ','");
        check("app=a b", "found 'b', expected: ',' or 'end of string'");
        check(
            "app===a",
            "unable to parse requirement: found '=', expected: identifier",
        );
        check(
            "!",
            "unable to parse requirement: found '', expected: identifier",
        );
        check(
            "app in a",
            "unable to parse requirement: found 'a' expected: '('",
        );
        check(
            "app in (a",
            "unable to parse requirement: found '', expected: ',', or ')'",
        );
        check(
            "app a",
            "unable to parse requirement: found 'a', expected: in, notin, =, ==, !=, gt, lt",
        );
    }

    #[test]
    fn field_selectors_keep_escaped_commas() {
        let pods = stead_schema::kind("v1", "Pod").expect("Pod");
        let fields =
            parse_fields(pods, r"spec.nodeName=a\,b,metadata.name!=c").expect("a selector");
        let read: Vec<(&str, bool)> = fields
            .iter()
            .map(|field| (field.value.as_str(), field.equal))
            .collect();
        assert_eq!(read, [("a,b", true), ("c", false)]);
        let unknown = parse_fields(pods, "spec.image=x").expect_err("no such field");
        assert_eq!(unknown.message, "field label not supported: spec.image");
    }
}
