//! Names with values in one allocation: a cache holds a hundred thousand pods, and a decision reads each of them.

use std::fmt;
use std::sync::Arc;

/// Pairs of texts in their order, for instance labels; without a NUL, which neither labels nor names may have.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Pairs(Arc<str>);

impl Pairs {
    /// Packs pairs; what follows a NUL in a text is cut off.
    pub fn new<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Pairs {
        let mut packed = String::new();
        for text in pairs.into_iter().flat_map(|(name, value)| [name, value]) {
            packed.push_str(text.split('\0').next().unwrap_or_default());
            packed.push('\0');
        }
        Pairs(packed.into())
    }

    /// The value of a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value)
    }

    /// Every pair.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut rest = &*self.0;
        let mut text = move || {
            let (text, after) = rest.split_once('\0')?;
            rest = after;
            Some(text)
        };
        std::iter::from_fn(move || Some((text()?, text()?)))
    }
}

impl fmt::Debug for Pairs {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_map().entries(self.iter()).finish()
    }
}
