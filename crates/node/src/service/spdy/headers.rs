//! Blocks of headers: pairs with lengths, compressed in one stream of zlib for the whole connection. Pure.

use std::collections::BTreeMap;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

use super::dictionary;
use super::frame::SpdyError;

/// Names (lower case) and values.
pub(in crate::service) type Headers = BTreeMap<String, String>;

/// A block may grow to this when it is unpacked.
const LARGEST: usize = 64 * 1_024;

/// Unpacks the other side's blocks, which must come in their order.
pub(super) struct Unpacker(Decompress);

impl Unpacker {
    pub(super) fn new() -> Self {
        Self(Decompress::new(true))
    }

    pub(super) fn unpack(&mut self, block: &[u8]) -> Result<Headers, SpdyError> {
        let mut plain = Vec::with_capacity(LARGEST);
        let start = self.0.total_in();
        loop {
            let taken = usize::try_from(self.0.total_in() - start).unwrap_or(usize::MAX);
            let rest = block.get(taken..).unwrap_or_default();
            let held = plain.len();
            match self
                .0
                .decompress_vec(rest, &mut plain, FlushDecompress::Sync)
            {
                Ok(_) => {}
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0
                        .set_dictionary(&dictionary::bytes())
                        .map_err(|_| SpdyError::Headers)?;
                    continue;
                }
                Err(_) => return Err(SpdyError::Headers),
            }
            let after = usize::try_from(self.0.total_in() - start).unwrap_or(usize::MAX);
            if after >= block.len() && plain.len() < plain.capacity() {
                return parse(&plain).ok_or(SpdyError::Headers);
            }
            if plain.len() == plain.capacity() || (after == taken && plain.len() == held) {
                return Err(SpdyError::Headers);
            }
        }
    }
}

/// Reads the pairs of an unpacked block.
pub(super) fn parse(plain: &[u8]) -> Option<Headers> {
    let mut rest = plain;
    let count = number(&mut rest)?;
    let mut headers = Headers::new();
    for _ in 0..count {
        let name = text(&mut rest)?.to_ascii_lowercase();
        let value = text(&mut rest)?;
        headers.insert(name, value);
    }
    rest.is_empty().then_some(headers)
}

fn number(rest: &mut &[u8]) -> Option<u32> {
    let (head, tail) = rest.split_first_chunk::<4>()?;
    *rest = tail;
    Some(u32::from_be_bytes(*head))
}

fn text(rest: &mut &[u8]) -> Option<String> {
    let length = usize::try_from(number(rest)?).ok()?;
    let (head, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    Some(String::from_utf8_lossy(head).into_owned())
}

/// Packs our blocks.
pub(super) struct Packer(Compress);

impl Packer {
    pub(super) fn new() -> Result<Self, SpdyError> {
        let mut compress = Compress::new(Compression::fast(), true);
        compress
            .set_dictionary(&dictionary::bytes())
            .map_err(|_| SpdyError::Headers)?;
        Ok(Self(compress))
    }

    pub(super) fn pack(&mut self, headers: &Headers) -> Result<Vec<u8>, SpdyError> {
        let mut plain = Vec::new();
        plain.extend(length(headers.len()));
        for (name, value) in headers {
            for text in [name, value] {
                plain.extend(length(text.len()));
                plain.extend(text.as_bytes());
            }
        }
        let mut packed = Vec::with_capacity(plain.len() * 2 + 1_024);
        let start = self.0.total_in();
        loop {
            let taken = usize::try_from(self.0.total_in() - start).unwrap_or(usize::MAX);
            let rest = plain.get(taken..).unwrap_or_default();
            self.0
                .compress_vec(rest, &mut packed, FlushCompress::Sync)
                .map_err(|_| SpdyError::Headers)?;
            let taken = usize::try_from(self.0.total_in() - start).unwrap_or(usize::MAX);
            if taken >= plain.len() && packed.len() < packed.capacity() {
                return Ok(packed);
            }
            packed.reserve(4_096);
        }
    }
}

fn length(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn blocks_are_read_as_they_were_written_one_after_the_other(
            blocks in prop::collection::vec(prop::collection::btree_map("[a-z-]{1,12}", ".{0,40}", 0..6), 1..6),
        ) {
            let mut packer = Packer::new().expect("a packer");
            let mut unpacker = Unpacker::new();
            for block in blocks {
                let packed = packer.pack(&block).expect("a block");
                prop_assert_eq!(unpacker.unpack(&packed).expect("our own block"), block);
            }
        }

        #[test]
        fn garbage_is_no_block(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            // Whatever comes of it, it comes.
            let unpacked = Unpacker::new().unpack(&bytes);
            prop_assert!(unpacked.map_or(true, |headers| headers.len() <= LARGEST));
            prop_assert!(parse(&bytes).is_none_or(|headers| headers.len() <= bytes.len()));
        }
    }

    #[test]
    fn a_block_that_unpacks_to_too_much_is_refused() {
        let mut packer = Packer::new().expect("a packer");
        let large = Headers::from([("a".to_owned(), "x".repeat(2 * LARGEST))]);
        let packed = packer.pack(&large).expect("a block");
        assert!(packed.len() < 4_096);
        assert_eq!(Unpacker::new().unpack(&packed), Err(SpdyError::Headers));
    }
}
