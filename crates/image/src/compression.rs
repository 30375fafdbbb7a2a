//! Compressed streams: gzip and Zstandard, told apart by their first bytes.

use std::io::{self, BufRead, Read};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use crate::document::Compression;

/// What the first bytes of a stream say that it is.
pub fn detect(first: &[u8]) -> Compression {
    match first {
        [0x1f, 0x8b, ..] => Compression::Gzip,
        // A frame, or one that is to be skipped.
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
        _ => Compression::None,
    }
}

/// Reads what a stream was before it was compressed.
///
/// The bytes decide and not what a document says of them: tools are known to write one and to say another, and what
/// comes out is checked by its digest.
///
/// # Errors
/// When the stream cannot be read.
pub fn decompress<'a, R: BufRead + Send + 'a>(
    mut input: R,
) -> io::Result<Box<dyn Read + Send + 'a>> {
    Ok(match detect(input.fill_buf()?) {
        Compression::None => Box::new(input),
        Compression::Gzip => Box::new(MultiGzDecoder::new(input)),
        Compression::Zstd => Box::new(ZstdFrames {
            input,
            decoder: FrameDecoder::new(),
            within: false,
        }),
    })
}

/// All Zstandard frames of a stream, one after another; those that say so are skipped.
struct ZstdFrames<R> {
    input: R,
    decoder: FrameDecoder,
    within: bool,
}

impl<R: BufRead> Read for ZstdFrames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if self.within {
                let count = self.read_frame(buffer)?;
                if count > 0 {
                    return Ok(count);
                }
                self.within = false;
            } else if self.input.fill_buf()?.is_empty() {
                return Ok(0);
            } else {
                self.within = self.begin_frame()?;
            }
        }
    }
}

impl<R: BufRead> ZstdFrames<R> {
    /// Reads the head of the next frame; `false` when it was one to skip.
    fn begin_frame(&mut self) -> io::Result<bool> {
        match self.decoder.init(&mut self.input) {
            Ok(()) => Ok(true),
            Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                length,
                ..
            })) => {
                let wanted = u64::from(length);
                let skipped = io::copy(&mut (&mut self.input).take(wanted), &mut io::sink())?;
                if skipped < wanted {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                Ok(false)
            }
            Err(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        }
    }

    /// Some bytes of the frame; 0 at its end.
    fn read_frame(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
            self.decoder
                .decode_blocks(&mut self.input, BlockDecodingStrategy::UptoBlocks(1))
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        }
        self.decoder.read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn read(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        decompress(bytes)?.read_to_end(&mut out)?;
        Ok(out)
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).expect("memory takes it");
        encoder.finish().expect("memory takes it")
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
    }

    #[test]
    fn a_stream_is_read_whatever_it_is() {
        let text: Vec<u8> = (0_u32..100_000).flat_map(u32::to_le_bytes).collect();
        assert_eq!(read(&text).expect("plain"), text);
        assert_eq!(read(&gzip(&text)).expect("gzip"), text);
        assert_eq!(read(&zstd(&text)).expect("zstd"), text);
        assert_eq!(read(b"").expect("nothing"), b"");
    }

    #[test]
    fn parts_that_were_joined_are_all_read() {
        let joined = [gzip(b"one"), gzip(b"two")].concat();
        assert_eq!(read(&joined).expect("gzip"), b"onetwo");
        let skipped = [0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 9, 9];
        let joined = [
            skipped.to_vec(),
            zstd(b"one"),
            skipped.to_vec(),
            zstd(b"two"),
        ]
        .concat();
        assert_eq!(read(&joined).expect("zstd"), b"onetwo");
    }

    #[test]
    fn what_ends_too_early_is_an_error() {
        for whole in [gzip(&[7; 9_999]), zstd(&[7; 9_999])] {
            for end in 5..whole.len() {
                assert!(read(&whole[..end]).is_err(), "{end} of {}", whole.len());
            }
        }
    }
}
