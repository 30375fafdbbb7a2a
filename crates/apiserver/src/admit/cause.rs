//! What is wrong with a field: its path, one reason of upstream's closed set, and the words a client prints.
//!
//! Upstream: `apimachinery/pkg/util/validation/field`. The reason and the path are part of the wire contract (a
//! Status carries them as `details.causes`), so rules only ever go through the helpers of [`Causes`].

use std::fmt;

use serde_json::Value;

/// The path of a field as upstream spells it: `spec.ports[0].name`, `data[bad key]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Path(String);

impl Path {
    /// A path of one field at the top of the object.
    pub(crate) fn root(name: &str) -> Path {
        Path(name.to_owned())
    }

    /// The path of a field below this one.
    pub(crate) fn field(&self, name: &str) -> Path {
        if self.0.is_empty() {
            Path::root(name)
        } else {
            Path(format!("{}.{name}", self.0))
        }
    }

    /// The path of an item of this list.
    pub(crate) fn index(&self, index: usize) -> Path {
        Path(format!("{}[{index}]", self.0))
    }

    /// The path of an entry of this map.
    pub(crate) fn key(&self, key: &str) -> Path {
        Path(format!("{}[{key}]", self.0))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a field is refused; upstream's `field.ErrorType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reason {
    /// It must be there and is not.
    Required,
    /// Its value is not allowed.
    Invalid,
    /// It may not be set here.
    Forbidden,
    /// It is not one of a closed set of values.
    NotSupported,
    /// Another item of the list has the same key.
    Duplicate,
    /// It names something that is not there.
    NotFound,
    /// It has too many bytes.
    TooLong,
    /// It has too many items.
    TooMany,
}

impl Reason {
    /// The name that a Status cause carries.
    pub(crate) fn wire(self) -> &'static str {
        match self {
            Reason::Required => "FieldValueRequired",
            Reason::Invalid => "FieldValueInvalid",
            Reason::Forbidden => "FieldValueForbidden",
            Reason::NotSupported => "FieldValueNotSupported",
            Reason::Duplicate => "FieldValueDuplicate",
            Reason::NotFound => "FieldValueNotFound",
            Reason::TooLong => "FieldValueTooLong",
            Reason::TooMany => "FieldValueTooMany",
        }
    }
}

/// One refused field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cause {
    /// Why.
    pub(crate) reason: Reason,
    /// Where, as upstream spells it.
    pub(crate) field: String,
    /// The words without the path: `Invalid value: -1: must be greater than or equal to 0`.
    pub(crate) message: String,
}

impl Cause {
    /// A cause of this reason.
    pub(crate) fn new(
        reason: Reason,
        field: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            reason,
            field: field.into(),
            message: message.into(),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// Everything that is wrong with one object, in the order in which the rules found it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Causes(Vec<Cause>);

impl Causes {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn into_vec(self) -> Vec<Cause> {
        self.0
    }

    pub(crate) fn extend(&mut self, other: Causes) {
        self.0.extend(other.0);
    }

    fn push(&mut self, reason: Reason, at: &Path, message: String) {
        self.0.push(Cause {
            reason,
            field: at.to_string(),
            message,
        });
    }

    pub(crate) fn required(&mut self, at: &Path, detail: &str) {
        self.push(
            Reason::Required,
            at,
            with_detail("Required value".to_owned(), detail),
        );
    }

    pub(crate) fn invalid(&mut self, at: &Path, value: impl Into<Value>, detail: &str) {
        self.push(
            Reason::Invalid,
            at,
            with_detail(format!("Invalid value: {}", shown(&value.into())), detail),
        );
    }

    pub(crate) fn forbidden(&mut self, at: &Path, detail: &str) {
        self.push(
            Reason::Forbidden,
            at,
            with_detail("Forbidden".to_owned(), detail),
        );
    }

    pub(crate) fn not_supported(&mut self, at: &Path, value: &str, supported: &[&str]) {
        let mut known: Vec<&str> = supported.to_vec();
        known.sort_unstable();
        let known: Vec<String> = known.iter().map(|word| format!("\"{word}\"")).collect();
        let detail = if known.is_empty() {
            String::new()
        } else {
            format!("supported values: {}", known.join(", "))
        };
        self.push(
            Reason::NotSupported,
            at,
            with_detail(
                format!("Unsupported value: {}", shown(&value.into())),
                &detail,
            ),
        );
    }

    pub(crate) fn duplicate(&mut self, at: &Path, value: impl Into<Value>) {
        self.push(
            Reason::Duplicate,
            at,
            format!("Duplicate value: {}", shown(&value.into())),
        );
    }

    pub(crate) fn not_found(&mut self, at: &Path, value: impl Into<Value>) {
        self.push(
            Reason::NotFound,
            at,
            format!("Not found: {}", shown(&value.into())),
        );
    }

    pub(crate) fn too_long(&mut self, at: &Path, most_bytes: usize) {
        self.push(
            Reason::TooLong,
            at,
            format!("Too long: may not be more than {most_bytes} bytes"),
        );
    }

    pub(crate) fn too_many(&mut self, at: &Path, actual: usize, most: usize) {
        self.push(
            Reason::TooMany,
            at,
            format!("Too many: {actual}: must have at most {most} items"),
        );
    }

    /// Refuses the value once for each complaint of a syntax rule.
    pub(crate) fn complaints(&mut self, at: &Path, value: &str, complaints: &[String]) {
        for complaint in complaints {
            self.invalid(at, value, complaint);
        }
    }

    pub(crate) fn non_negative(&mut self, at: &Path, value: i64) {
        if value < 0 {
            self.invalid(at, value, NOT_NEGATIVE);
        }
    }

    pub(crate) fn one_of(&mut self, at: &Path, value: &str, supported: &[&str]) {
        if !supported.contains(&value) {
            self.not_supported(at, value, supported);
        }
    }

    /// A field that keeps the value it was born with.
    pub(crate) fn immutable(&mut self, at: &Path, old: &Value, new: &Value) {
        if !super::read::semantically_equal(old, new) {
            self.invalid(at, new.clone(), IMMUTABLE);
        }
    }
}

pub(crate) const NOT_NEGATIVE: &str = "must be greater than or equal to 0";
pub(crate) const IMMUTABLE: &str = "field is immutable";

fn with_detail(head: String, detail: &str) -> String {
    if detail.is_empty() {
        head
    } else {
        format!("{head}: {detail}")
    }
}

fn shown(value: &Value) -> String {
    value.to_string()
}
