//! One page of a list, read object by object: never more than one of them is held as JSON.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use crate::resource::text;

/// A page as it was read.
pub(crate) struct Page<T> {
    /// What was made of its objects.
    pub(crate) items: Vec<T>,
    /// Version of the list.
    pub(crate) version: String,
    /// Where the next page begins; empty when this was the last.
    pub(crate) next: String,
}

/// Reads a list answer.
///
/// # Errors
/// When the bytes are no JSON object with a list of `items` (or `null`, as Go writes an empty one).
pub(crate) fn read_page<T>(
    bytes: &[u8],
    read: impl Fn(Value) -> T,
) -> Result<Page<T>, serde_json::Error> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let page = json.deserialize_map(Reader { read: &read })?;
    json.end()?;
    Ok(page)
}

struct Reader<'a, R> {
    read: &'a R,
}

impl<'de, T, R: Fn(Value) -> T> Visitor<'de> for Reader<'_, R> {
    type Value = Page<T>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a list")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Page<T>, A::Error> {
        let mut page = Page {
            items: Vec::new(),
            version: String::new(),
            next: String::new(),
        };
        while let Some(field) = map.next_key::<String>()? {
            match field.as_str() {
                "metadata" => {
                    let metadata: Value = map.next_value()?;
                    page.version = text(&metadata, "/resourceVersion").to_owned();
                    page.next = text(&metadata, "/continue").to_owned();
                }
                "items" => page.items = map.next_value_seed(Items { read: self.read })?,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(page)
    }
}

struct Items<'a, R> {
    read: &'a R,
}

impl<'de, T, R: Fn(Value) -> T> DeserializeSeed<'de> for Items<'_, R> {
    type Value = Vec<T>;

    fn deserialize<D: serde::Deserializer<'de>>(self, json: D) -> Result<Vec<T>, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de, T, R: Fn(Value) -> T> Visitor<'de> for Items<'_, R> {
    type Value = Vec<T>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("the items of a list")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Vec<T>, E> {
        Ok(Vec::new())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<T>, A::Error> {
        let mut all = Vec::new();
        while let Some(object) = items.next_element::<Value>()? {
            all.push((self.read)(object));
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(json: &str) -> Result<Page<String>, serde_json::Error> {
        read_page(json.as_bytes(), |object| {
            text(&object, "/metadata/name").to_owned()
        })
    }

    #[test]
    fn a_page_is_its_items_its_version_and_where_the_next_begins() {
        let page = names(
            r#"{"kind":"PodList","items":[{"metadata":{"name":"a"}},{"metadata":{"name":"b"}}],"metadata":{"resourceVersion":"7","continue":"on"}}"#,
        );
        let page = page.expect("a page");
        assert_eq!(page.items, ["a", "b"]);
        assert_eq!((page.version.as_str(), page.next.as_str()), ("7", "on"));
    }

    #[test]
    fn an_empty_list_of_go_is_null() {
        let page = names(r#"{"items":null,"metadata":{"resourceVersion":"7"}}"#).expect("a page");
        assert!(page.items.is_empty() && page.next.is_empty());
    }

    #[test]
    fn what_is_no_list_is_an_error() {
        assert!(names(r#"[]"#).is_err());
        assert!(names(r#"{"items":7}"#).is_err());
        assert!(names(r#"{"items":[]} and more"#).is_err());
    }
}
