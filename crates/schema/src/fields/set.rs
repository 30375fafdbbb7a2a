//! Sets of fields as a tree, and their JSON form `FieldsV1`.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::{Map, Value};

/// A scalar that can be ordered: the value of a set's element or of a key.
#[derive(Debug, Clone)]
pub struct Scalar(Value);

impl Scalar {
    /// Numbers that are whole are kept as integers, so that 1 and 1.0 are one.
    #[must_use]
    pub fn new(value: &Value) -> Self {
        let whole = value
            .as_f64()
            .filter(|number| value.is_f64() && number.fract() == 0.0 && number.abs() < 9e15);
        #[expect(
            clippy::cast_possible_truncation,
            reason = "whole and small, as was just asked"
        )]
        let whole = whole.map(|number| Value::from(number as i64));
        Self(whole.unwrap_or_else(|| value.clone()))
    }

    /// The value.
    #[must_use]
    pub fn value(&self) -> &Value {
        &self.0
    }

    fn rank(&self) -> u8 {
        match self.0 {
            Value::Number(_) => 0,
            Value::String(_) => 1,
            Value::Bool(_) => 2,
            Value::Null => 3,
            Value::Array(_) => 4,
            Value::Object(_) => 5,
        }
    }
}

impl Ord for Scalar {
    fn cmp(&self, other: &Self) -> Ordering {
        match (&self.0, &other.0) {
            (Value::String(left), Value::String(right)) => left.cmp(right),
            (Value::Bool(left), Value::Bool(right)) => left.cmp(right),
            (Value::Number(left), Value::Number(right)) => match (left.as_i64(), right.as_i64()) {
                (Some(left), Some(right)) => left.cmp(&right),
                (_, _) => left
                    .as_f64()
                    .unwrap_or_default()
                    .total_cmp(&right.as_f64().unwrap_or_default()),
            },
            (Value::Null, Value::Null) => Ordering::Equal,
            (Value::Array(_), Value::Array(_)) | (Value::Object(_), Value::Object(_)) => {
                self.0.to_string().cmp(&other.0.to_string())
            }
            (_, _) => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for Scalar {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Scalar {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Scalar {}

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum PathElement {
    /// `f:name`: a struct's field or a map's key.
    Field(String),
    /// `k:{"name":"a"}`: an element of a keyed list, keys sorted by name.
    Key(Vec<(String, Scalar)>),
    /// `v:"a"`: an element of a set.
    Value(Scalar),
    /// `i:0`: an element by its place.
    Index(i64),
}

impl PathElement {
    /// A field or map key.
    #[must_use]
    pub fn field(name: &str) -> Self {
        Self::Field(name.to_owned())
    }

    /// Reads `f:name` and its like; `None` if it is nothing of the kind.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (tag, rest) = text.split_once(':')?;
        match tag {
            "f" => Some(Self::field(rest)),
            "v" => Some(Self::Value(Scalar::new(&serde_json::from_str(rest).ok()?))),
            "i" => rest.parse().ok().map(Self::Index),
            "k" => {
                let keys: Map<String, Value> = serde_json::from_str(rest).ok()?;
                Some(Self::Key(
                    keys.iter()
                        .map(|(name, value)| (name.clone(), Scalar::new(value)))
                        .collect(),
                ))
            }
            _ => None,
        }
    }

    /// As it stands in `FieldsV1`.
    #[must_use]
    pub fn encode(&self) -> String {
        match self {
            Self::Field(name) => format!("f:{name}"),
            Self::Value(value) => format!("v:{}", html_safe(&value.0.to_string())),
            Self::Index(at) => format!("i:{at}"),
            Self::Key(keys) => {
                let map: Map<String, Value> = keys
                    .iter()
                    .map(|(name, value)| (name.clone(), value.0.clone()))
                    .collect();
                format!("k:{}", html_safe(&Value::Object(map).to_string()))
            }
        }
    }
}

/// Go's JSON encoder escapes what could be HTML.
fn html_safe(json: &str) -> String {
    if json.contains(['<', '>', '&']) {
        json.replace('<', "\\u003c")
            .replace('>', "\\u003e")
            .replace('&', "\\u0026")
    } else {
        json.to_owned()
    }
}

impl fmt::Display for PathElement {
    /// As conflicts name it: `.spec`, `[name="a"]`, `[="a"]`, `[0]`.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(out, ".{name}"),
            Self::Value(value) => write!(out, "[={}]", value.0),
            Self::Index(at) => write!(out, "[{at}]"),
            Self::Key(keys) => {
                let keys: Vec<String> = keys
                    .iter()
                    .map(|(name, value)| format!("{name}={}", value.0))
                    .collect();
                write!(out, "[{}]", keys.join(","))
            }
        }
    }
}

/// A set of fields. A field may be a member itself, have members below it, or both.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSet {
    members: BTreeSet<PathElement>,
    children: BTreeMap<PathElement, FieldSet>,
}

impl FieldSet {
    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty() && self.children.values().all(Self::is_empty)
    }

    /// Adds one field; its parents are not added. The empty path is nobody's.
    pub fn insert(&mut self, path: &[PathElement]) {
        match path {
            [] => {}
            [last] => self.insert_member(last.clone()),
            [first, rest @ ..] => self.children.entry(first.clone()).or_default().insert(rest),
        }
    }

    /// Whether this very field is in it.
    #[must_use]
    pub fn contains(&self, path: &[PathElement]) -> bool {
        match path {
            [] => false,
            [last] => self.members.contains(last),
            [first, rest @ ..] => self
                .children
                .get(first)
                .is_some_and(|child| child.contains(rest)),
        }
    }

    pub(super) fn insert_member(&mut self, element: PathElement) {
        self.members.insert(element);
    }

    pub(super) fn has_member(&self, element: &PathElement) -> bool {
        self.members.contains(element)
    }

    /// Hangs a set below an element, unless it is empty.
    pub(super) fn attach(&mut self, element: PathElement, child: FieldSet) {
        if !child.is_empty() {
            self.children.insert(element, child);
        }
    }

    /// What is below an element.
    pub(super) fn below(&self, element: &PathElement) -> Option<&FieldSet> {
        self.children.get(element).filter(|child| !child.is_empty())
    }

    pub(super) fn children(&self) -> impl Iterator<Item = (&PathElement, &FieldSet)> {
        self.children.iter()
    }

    /// The fields of either.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut all = self.clone();
        all.absorb(other.clone());
        all
    }

    /// Takes all fields of the other in.
    pub(super) fn absorb(&mut self, other: Self) {
        if self.members.is_empty() && self.children.is_empty() {
            *self = other;
            return;
        }
        self.members.extend(other.members);
        for (element, theirs) in other.children {
            self.children.entry(element).or_default().absorb(theirs);
        }
    }

    /// The fields of both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let mut both = Self {
            members: self.members.intersection(&other.members).cloned().collect(),
            children: BTreeMap::new(),
        };
        for (element, ours) in &self.children {
            if let Some(theirs) = other.children.get(element) {
                both.attach(element.clone(), ours.intersection(theirs));
            }
        }
        both
    }

    /// The fields of this set that the other does not name; naming a parent does not take its children.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        let mut rest = self.clone();
        rest.subtract(other);
        rest
    }

    /// As [`difference`](Self::difference), but naming a parent takes its children too.
    #[must_use]
    pub fn recursive_difference(&self, other: &Self) -> Self {
        let mut rest = self.clone();
        rest.subtract_recursively(other);
        rest
    }

    pub(super) fn subtract(&mut self, other: &Self) {
        other.members.iter().for_each(|member| {
            self.members.remove(member);
        });
        self.subtract_below(other, Self::subtract);
    }

    pub(super) fn subtract_recursively(&mut self, other: &Self) {
        for member in &other.members {
            self.members.remove(member);
            self.children.remove(member);
        }
        self.subtract_below(other, Self::subtract_recursively);
    }

    fn subtract_below(&mut self, other: &Self, subtract: fn(&mut Self, &Self)) {
        for (element, theirs) in &other.children {
            if let Some(ours) = self.children.get_mut(element) {
                subtract(ours, theirs);
                if ours.is_empty() {
                    self.children.remove(element);
                }
            }
        }
    }

    /// Whether an encoded set names a field of this one; without decoding it.
    pub(super) fn meets(&self, fields: &Value) -> bool {
        let Some(fields) = fields.as_object().filter(|fields| !fields.is_empty()) else {
            return false;
        };
        let is_member = |inner: &Value| {
            inner
                .as_object()
                .is_some_and(|inner| inner.is_empty() || inner.contains_key("."))
        };
        self.members
            .iter()
            .any(|member| fields.get(&member.encode()).is_some_and(is_member))
            || self.children.iter().any(|(element, child)| {
                fields
                    .get(&element.encode())
                    .is_some_and(|inner| child.meets(inner))
            })
    }

    /// All paths in it, parents before children.
    #[must_use]
    pub fn paths(&self) -> Vec<Vec<PathElement>> {
        let mut paths: Vec<Vec<PathElement>> = self
            .members
            .iter()
            .map(|member| vec![member.clone()])
            .collect();
        for (element, child) in &self.children {
            paths.extend(
                child
                    .paths()
                    .into_iter()
                    .map(|path| [vec![element.clone()], path].concat()),
            );
        }
        paths
    }

    /// `FieldsV1`: `{"f:spec":{"f:replicas":{}}}`; `.` marks an element that is a member and has members below it.
    #[must_use]
    pub fn encode(&self) -> Value {
        let mut map: Map<String, Value> = self
            .members
            .iter()
            .map(|member| (member.encode(), Value::Object(Map::new())))
            .collect();
        for (element, child) in self.children.iter().filter(|(_, child)| !child.is_empty()) {
            let mut inner = child.encode();
            if let (true, Value::Object(inner)) = (self.members.contains(element), &mut inner) {
                inner.insert(".".to_owned(), Value::Object(Map::new()));
            }
            map.insert(element.encode(), inner);
        }
        Value::Object(map)
    }

    /// Reads `FieldsV1`; `None` if a key is no path element or a value no object.
    #[must_use]
    pub fn decode(fields: &Value) -> Option<Self> {
        let mut set = Self::default();
        for (key, value) in fields
            .as_object()?
            .iter()
            .filter(|(key, _)| key.as_str() != ".")
        {
            let element = PathElement::parse(key)?;
            let inner = value.as_object()?;
            if inner.is_empty() || inner.contains_key(".") {
                set.members.insert(element.clone());
            }
            if !inner.is_empty() {
                set.attach(element, Self::decode(value)?);
            }
        }
        Some(set)
    }
}
