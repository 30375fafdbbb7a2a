//! The records of a PAX header: `<length> <key>=<value>\n`.

use std::collections::BTreeMap;

use super::Entry;
use super::sparse::{PaxMap, Segment};

/// What the records of one header say, or those of several, the later ones winning.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Records {
    fields: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The oldest PAX form of a sparse map repeats its keys, so that order counts.
    pairs: Vec<u64>,
}

const XATTR: &[u8] = b"SCHILY.xattr.";

impl Records {
    pub(super) fn parse(text: &[u8]) -> Result<Records, &'static str> {
        const WRONG: &str = "a record of an extending header is malformed";
        let mut records = Records::default();
        let mut rest = text;
        while !rest.is_empty() && rest.first() != Some(&0) {
            let blank = rest.iter().position(|byte| *byte == b' ').ok_or(WRONG)?;
            let (digits, _) = rest.split_at(blank);
            let length: usize = std::str::from_utf8(digits)
                .ok()
                .and_then(|digits| digits.parse().ok())
                .ok_or(WRONG)?;
            let record = rest.get(blank + 1..length).ok_or(WRONG)?;
            let (record, newline) = record.split_at(record.len().checked_sub(1).ok_or(WRONG)?);
            let equals = record.iter().position(|byte| *byte == b'=').ok_or(WRONG)?;
            if newline != b"\n" {
                return Err(WRONG);
            }
            records.insert(&record[..equals], &record[equals + 1..])?;
            rest = &rest[length..];
        }
        Ok(records)
    }

    pub(super) fn update(&mut self, later: Records) {
        let Records { fields, pairs } = later;
        self.fields.extend(fields);
        if !pairs.is_empty() {
            self.pairs = pairs;
        }
    }

    /// Puts what they say over what the header said.
    pub(super) fn apply(&self, entry: &mut Entry) -> Result<(), &'static str> {
        for (key, value) in &self.fields {
            match key.as_slice() {
                b"path" => entry.path.clone_from(value),
                b"linkpath" => entry.link.clone_from(value),
                b"size" => entry.size = decimal(value)?,
                b"uid" => entry.uid = id(value)?,
                b"gid" => entry.gid = id(value)?,
                b"mtime" => entry.mtime = time(value),
                key => {
                    if let Some(name) = key.strip_prefix(XATTR) {
                        entry.xattrs.push((name.to_vec(), value.clone()));
                    }
                }
            }
        }
        if let Some(name) = self.fields.get(b"GNU.sparse.name".as_slice()) {
            entry.path.clone_from(name);
        }
        Ok(())
    }

    /// Whether the entry is a sparse file in one of the PAX forms, and where its map is.
    pub(super) fn sparse(&self) -> Option<PaxMap> {
        if self.text("GNU.sparse.major") == Some("1") {
            return Some(PaxMap::InData);
        }
        if let Some(map) = self.text("GNU.sparse.map") {
            let numbers: Option<Vec<u64>> = map.split(',').map(|word| word.parse().ok()).collect();
            return Some(PaxMap::Here(Segment::pairs(&numbers.unwrap_or_default())));
        }
        (!self.pairs.is_empty()).then(|| PaxMap::Here(Segment::pairs(&self.pairs)))
    }

    /// The size of the sparse file with its holes.
    pub(super) fn sparse_size(&self) -> Option<u64> {
        self.text("GNU.sparse.realsize")
            .or_else(|| self.text("GNU.sparse.size"))?
            .parse()
            .ok()
    }

    fn insert(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        match key {
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => self.pairs.push(decimal(value)?),
            b"path" | b"linkpath" if value.contains(&0) => {
                return Err("a path with a zero byte in it");
            }
            // upstream: an empty value takes back what an earlier header said.
            _ if value.is_empty() && !key.starts_with(XATTR) => {
                self.fields.remove(key);
            }
            _ => {
                self.fields.insert(key.to_vec(), value.to_vec());
            }
        }
        Ok(())
    }

    fn text(&self, key: &str) -> Option<&str> {
        std::str::from_utf8(self.fields.get(key.as_bytes())?).ok()
    }
}

fn decimal(value: &[u8]) -> Result<u64, &'static str> {
    std::str::from_utf8(value)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or("a number in an extending header is malformed")
}

fn id(value: &[u8]) -> Result<u32, &'static str> {
    u32::try_from(decimal(value)?).map_err(|_| "an owner's number is too large")
}

/// `1350244992.023960108`; what is no time becomes the epoch.
fn time(value: &[u8]) -> (i64, u32) {
    let text = std::str::from_utf8(value).unwrap_or_default();
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let Ok(seconds) = seconds.parse::<i64>() else {
        return (0, 0);
    };
    let digits: String = fraction
        .chars()
        .chain("000000000".chars())
        .take(9)
        .collect();
    (seconds, digits.parse().unwrap_or(0))
}
