//! Reading single fields of a JSON object: what is absent or null is the default, what has another type is said.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

/// A path into an object, remembered for the complaint.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a> {
    root: &'a Value,
}

/// What is wrong with which field, in words.
pub(super) type Wrong = Arc<str>;

impl<'a> Fields<'a> {
    pub(super) fn of(root: &'a Value) -> Fields<'a> {
        Fields { root }
    }

    /// The value at `path`; absent and null are the same.
    pub(super) fn at(self, path: &[&str]) -> Option<&'a Value> {
        path.iter()
            .try_fold(self.root, |value, key| value.get(key))
            .filter(|value| !value.is_null())
    }

    pub(super) fn has(self, path: &[&str]) -> bool {
        self.at(path).is_some()
    }

    /// A string, or "".
    pub(super) fn text(self, path: &[&str]) -> Result<&'a str, Wrong> {
        self.typed(path, "a string", Value::as_str)
            .map(Option::unwrap_or_default)
    }

    /// A string that must be there.
    pub(super) fn required_text(self, path: &[&str]) -> Result<&'a str, Wrong> {
        match self.text(path)? {
            "" => Err(format!("{} is missing", path.join(".")).into()),
            text => Ok(text),
        }
    }

    /// A whole number.
    pub(super) fn number(self, path: &[&str]) -> Result<Option<i64>, Wrong> {
        self.typed(path, "a whole number", Value::as_i64)
    }

    /// A whole number that is not negative and fits an int32, or `default`.
    pub(super) fn count(self, path: &[&str], default: u32) -> Result<u32, Wrong> {
        let Some(number) = self.number(path)? else {
            return Ok(default);
        };
        let fits = i32::try_from(number)
            .ok()
            .and_then(|number| u32::try_from(number).ok());
        fits.ok_or_else(|| {
            format!(
                "{} is {number}, not a count from 0 to {}",
                path.join("."),
                i32::MAX
            )
            .into()
        })
    }

    /// A list, or an empty one.
    pub(super) fn list(self, path: &[&str]) -> Result<&'a [Value], Wrong> {
        self.typed(path, "a list", Value::as_array)
            .map(|list| list.map_or(&[][..], Vec::as_slice))
    }

    /// An RFC 3339 time.
    pub(super) fn time(self, path: &[&str]) -> Result<Option<Timestamp>, Wrong> {
        let text = self.text(path)?;
        if text.is_empty() {
            return Ok(None);
        }
        text.parse()
            .map(Some)
            .map_err(|_| format!("{} is {text:?}, not a time", path.join(".")).into())
    }

    fn typed<T>(
        self,
        path: &[&str],
        what: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, Wrong> {
        match self.at(path) {
            None => Ok(None),
            Some(value) => read(value)
                .map(Some)
                .ok_or_else(|| format!("{} is not {what}", path.join(".")).into()),
        }
    }
}

/// The object's name, as far as it has one.
pub(super) fn name_of(object: &Value) -> Arc<str> {
    Fields::of(object)
        .text(&["metadata", "name"])
        .unwrap_or_default()
        .into()
}
