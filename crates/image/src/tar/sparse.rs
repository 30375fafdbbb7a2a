//! Maps of sparse files: which parts of them have bytes, in the four forms that tar knows.

use super::BLOCK;
use super::header::number;

/// A part of a file that has bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Where in the file.
    pub offset: u64,
    /// How many.
    pub length: u64,
}

impl Segment {
    /// Offsets and lengths in turn; an odd one out is left.
    pub(super) fn pairs(numbers: &[u64]) -> Vec<Segment> {
        let (pairs, _) = numbers.as_chunks::<2>();
        pairs
            .iter()
            .map(|[offset, length]| Segment {
                offset: *offset,
                length: *length,
            })
            .collect()
    }
}

/// Where the map is, in the forms that use PAX headers.
pub(super) enum PaxMap {
    Here(Vec<Segment>),
    InData,
}

/// Refuses a map that is not ascending, leaves its file, or has other bytes than the archive.
pub(super) fn check(segments: &[Segment], real: u64, bytes: u64) -> Result<(), &'static str> {
    let mut end = 0;
    let mut sum: u64 = 0;
    for segment in segments {
        if segment.offset < end {
            return Err("the map of a sparse file goes backwards");
        }
        end = segment
            .offset
            .checked_add(segment.length)
            .filter(|end| *end <= real)
            .ok_or("the map of a sparse file leaves the file")?;
        sum = sum.saturating_add(segment.length);
    }
    if sum == bytes {
        Ok(())
    } else {
        Err("the map of a sparse file does not fit its bytes")
    }
}

/// A block that goes on with a map in the old GNU form; whether another follows.
pub(super) fn gnu_block(
    block: &[u8; BLOCK as usize],
    into: &mut Vec<Segment>,
) -> Result<bool, &'static str> {
    gnu_segments(block.get(..504).unwrap_or_default(), into)?;
    Ok(block[504] != 0)
}

/// Pairs of octal numbers; a pair of nothing ends them.
pub(super) fn gnu_segments(field: &[u8], into: &mut Vec<Segment>) -> Result<(), &'static str> {
    let (pairs, _) = field.as_chunks::<24>();
    for pair in pairs {
        if pair.first().is_none_or(|byte| *byte == 0) {
            break;
        }
        into.push(Segment {
            offset: number(&pair[..12])?,
            length: number(&pair[12..])?,
        });
    }
    Ok(())
}

/// A map as decimal lines: how many parts, then offset and length of each.
#[derive(Default)]
pub(super) struct Lines {
    numbers: Vec<u64>,
    digits: String,
    bytes: u64,
}

impl Lines {
    pub(super) fn take(&mut self, block: &[u8]) -> Result<(), &'static str> {
        const WRONG: &str = "the map of a sparse file is malformed";
        self.bytes += block.len() as u64;
        for byte in block {
            if self.is_complete() {
                break;
            }
            match byte {
                b'0'..=b'9' if self.digits.len() < 20 => self.digits.push(char::from(*byte)),
                b'\n' => {
                    self.numbers.push(self.digits.parse().map_err(|_| WRONG)?);
                    self.digits.clear();
                }
                _ => return Err(WRONG),
            }
        }
        Ok(())
    }

    pub(super) fn is_complete(&self) -> bool {
        self.numbers.split_first().is_some_and(|(count, rest)| {
            count
                .checked_mul(2)
                .is_some_and(|wanted| rest.len() as u64 >= wanted)
        })
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn segments(&self) -> Result<Vec<Segment>, &'static str> {
        let (_, rest) = self
            .numbers
            .split_first()
            .ok_or("the map of a sparse file is empty")?;
        Ok(Segment::pairs(rest))
    }
}
