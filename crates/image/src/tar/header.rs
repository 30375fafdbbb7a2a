//! One block that heads an entry.

use super::sparse::Segment;
use super::{BLOCK, Entry, Kind};

/// A header whose checksum was right.
pub(super) struct Header([u8; BLOCK as usize]);

impl Header {
    pub(super) fn parse(block: [u8; BLOCK as usize]) -> Result<Header, &'static str> {
        let header = Header(block);
        let said = number(header.field(148, 8))?;
        // The checksum is taken with blanks in its own place.
        let sum: u64 = (0..)
            .zip(header.0)
            .map(|(at, byte)| {
                let own = (148..156).contains(&at);
                u64::from(if own { b' ' } else { byte })
            })
            .sum();
        if said == sum {
            Ok(header)
        } else {
            Err("the checksum of a header is wrong")
        }
    }

    pub(super) fn type_flag(&self) -> u8 {
        self.0[156]
    }

    /// Bytes of the archive that follow it.
    pub(super) fn size(&self) -> Result<u64, &'static str> {
        number(self.field(124, 12))
    }

    /// Only files have bytes of their own, whatever the header says of a size.
    pub(super) fn has_bytes(&self) -> bool {
        !matches!(self.type_flag(), b'1'..=b'6')
    }

    pub(super) fn entry(&self) -> Result<Entry, &'static str> {
        Ok(Entry {
            path: self.path(),
            kind: self.kind(),
            mode: (number(self.field(100, 8))? & 0o7777) as u32,
            uid: id(self.field(108, 8))?,
            gid: id(self.field(116, 8))?,
            mtime: (time(self.field(136, 12)), 0),
            size: self.size()?,
            link: text(self.field(157, 100)).to_vec(),
            // Absent in the oldest form.
            device: (
                number(self.field(329, 8)).unwrap_or(0) as u32,
                number(self.field(337, 8)).unwrap_or(0) as u32,
            ),
            xattrs: Vec::new(),
            segments: None,
        })
    }

    /// The first parts of a sparse file in the old GNU form; whether more follow; the file's size.
    pub(super) fn gnu_map(&self, into: &mut Vec<Segment>) -> Result<(bool, u64), &'static str> {
        super::sparse::gnu_segments(self.field(386, 96), into)?;
        Ok((self.0[482] != 0, number(self.field(483, 12))?))
    }

    fn kind(&self) -> Kind {
        match self.type_flag() {
            // The oldest form has folders as files whose names end in a slash.
            b'0' | 0 | b'7' | b'S' if self.path().last() == Some(&b'/') => Kind::Folder,
            b'0' | 0 | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::CharDevice,
            b'4' => Kind::BlockDevice,
            b'5' => Kind::Folder,
            b'6' => Kind::Fifo,
            other => Kind::Other(other),
        }
    }

    fn path(&self) -> Vec<u8> {
        let name = text(self.field(0, 100));
        let prefix = text(self.field(345, 155));
        // GNU's form uses the place of the prefix for other things.
        if self.field(257, 6) != b"ustar\0" || prefix.is_empty() {
            return name.to_vec();
        }
        [prefix, b"/", name].concat()
    }

    fn field(&self, from: usize, length: usize) -> &[u8] {
        self.0.get(from..from + length).unwrap_or_default()
    }
}

fn text(field: &[u8]) -> &[u8] {
    let end = field
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(field.len());
    field.get(..end).unwrap_or_default()
}

/// Octal digits, or, with the highest bit set, the number itself.
pub(super) fn number(field: &[u8]) -> Result<u64, &'static str> {
    const WRONG: &str = "a number in a header is malformed";
    if let [first, rest @ ..] = field
        && first & 0x80 != 0
    {
        let high = u64::from(first & 0x7f);
        if high & 0x40 != 0 {
            return Err("a number in a header is below zero");
        }
        return rest.iter().try_fold(high, |sum, byte| {
            let shifted = sum.checked_mul(256).ok_or(WRONG)?;
            Ok(shifted | u64::from(*byte))
        });
    }
    let digits = text(field);
    let digits = digits.trim_ascii();
    digits.iter().try_fold(0_u64, |sum, byte| match byte {
        b'0'..=b'7' => sum
            .checked_mul(8)
            .and_then(|sum| sum.checked_add(u64::from(byte - b'0')))
            .ok_or(WRONG),
        _ => Err(WRONG),
    })
}

fn id(field: &[u8]) -> Result<u32, &'static str> {
    u32::try_from(number(field)?).map_err(|_| "an owner's number is too large")
}

/// Times before the epoch are written as negative numbers; they, and nonsense, become the epoch.
fn time(field: &[u8]) -> i64 {
    number(field)
        .ok()
        .and_then(|seconds| i64::try_from(seconds).ok())
        .unwrap_or(0)
}
