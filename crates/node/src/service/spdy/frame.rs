//! Frames of SPDY/3.1: bytes as they come, to what they say, and back. Pure.

use bytes::{Buf, Bytes, BytesMut};

use super::headers::{Headers, Packer, Unpacker};

/// What cannot be gone on after: the connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::service) enum SpdyError {
    /// Not a frame of this version.
    #[error("a frame that is not of SPDY/3")]
    Version,
    /// A control frame that is longer than any of ours.
    #[error("a control frame of {0} bytes")]
    TooLong(usize),
    /// A control frame that is shorter than its kind.
    #[error("a control frame of kind {0} that is cut short")]
    Short(u16),
    /// Headers that do not unpack.
    #[error("headers that cannot be read")]
    Headers,
}

/// One frame, or a part of a long one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::service) enum Frame {
    /// The other side opens a stream.
    Open {
        stream: u32,
        headers: Headers,
        /// It will send nothing on it.
        last: bool,
    },
    /// Yes to an opened stream.
    Accept {
        stream: u32,
    },
    /// Bytes of a stream. A long frame comes in several of these.
    Data {
        stream: u32,
        bytes: Bytes,
        /// Nothing more comes on it.
        last: bool,
    },
    /// The stream is given up.
    Reset {
        stream: u32,
        status: u32,
    },
    Ping(u32),
    GoAway,
    /// What there is, and changes nothing for us: settings, windows, more headers, kinds of the future.
    Other,
}

const VERSION: u16 = 3;
const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const FIN: u8 = 1;
const HEAD: usize = 8;
/// No client of Kubernetes sends more headers than this.
const LONGEST_CONTROL: usize = 64 * 1_024;

/// Takes bytes as they come and gives frames.
pub(in crate::service) struct Decoder {
    held: BytesMut,
    /// A data frame of which some is still to come: its stream, how much, and whether it is the last.
    data: Option<(u32, usize, bool)>,
    unpacker: Unpacker,
}

impl Decoder {
    pub(in crate::service) fn new() -> Self {
        Self {
            held: BytesMut::new(),
            data: None,
            unpacker: Unpacker::new(),
        }
    }

    pub(in crate::service) fn push(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
    }

    /// The next frame, or the next part of a long data frame.
    pub(in crate::service) fn next(&mut self) -> Result<Option<Frame>, SpdyError> {
        if let Some((stream, left, last)) = self.data {
            return Ok(self.data_part(stream, left, last));
        }
        let Some(head) = self.held.first_chunk::<HEAD>() else {
            return Ok(None);
        };
        let [a, b, c, d, flags, length @ ..] = *head;
        let length = length
            .iter()
            .fold(0, |all, byte| all << 8 | usize::from(*byte));
        if a & 0x80 == 0 {
            self.held.advance(HEAD);
            let stream = u32::from_be_bytes([a, b, c, d]);
            return Ok(self.data_part(stream, length, flags & FIN != 0));
        }
        if u16::from_be_bytes([a & 0x7f, b]) != VERSION {
            return Err(SpdyError::Version);
        }
        if length > LONGEST_CONTROL {
            return Err(SpdyError::TooLong(length));
        }
        if self.held.len() < HEAD + length {
            return Ok(None);
        }
        self.held.advance(HEAD);
        let body = self.held.split_to(length);
        self.control(u16::from_be_bytes([c, d]), flags, &body)
            .map(Some)
    }

    fn data_part(&mut self, stream: u32, left: usize, last: bool) -> Option<Frame> {
        let bytes = self.held.split_to(left.min(self.held.len())).freeze();
        let still = left - bytes.len();
        self.data = (still > 0).then_some((stream, still, last));
        if still > 0 && bytes.is_empty() {
            return None;
        }
        Some(Frame::Data {
            stream,
            bytes,
            last: last && still == 0,
        })
    }

    fn control(&mut self, kind: u16, flags: u8, body: &[u8]) -> Result<Frame, SpdyError> {
        let mut rest = body;
        let mut number = || rest.try_get_u32().map_err(|_| SpdyError::Short(kind));
        match kind {
            SYN_STREAM => {
                let stream = number()? & 0x7fff_ffff;
                number()?;
                // Priority and slot.
                let block = rest.get(2..).ok_or(SpdyError::Short(kind))?;
                let headers = self.unpacker.unpack(block)?;
                Ok(Frame::Open {
                    stream,
                    headers,
                    last: flags & FIN != 0,
                })
            }
            // Their headers change nothing, but all blocks are one stream of zlib.
            SYN_REPLY | HEADERS => {
                number()?;
                self.unpacker.unpack(rest)?;
                Ok(Frame::Other)
            }
            RST_STREAM => Ok(Frame::Reset {
                stream: number()? & 0x7fff_ffff,
                status: number()?,
            }),
            PING => Ok(Frame::Ping(number()?)),
            GOAWAY => Ok(Frame::GoAway),
            _ => Ok(Frame::Other),
        }
    }
}

/// Turns frames into bytes.
pub(in crate::service) struct Encoder(Packer);

impl Encoder {
    pub(in crate::service) fn new() -> Result<Self, SpdyError> {
        Ok(Self(Packer::new()?))
    }

    /// Appends a frame. What only comes from clients, and what says nothing, is nothing.
    pub(in crate::service) fn write(
        &mut self,
        frame: &Frame,
        out: &mut Vec<u8>,
    ) -> Result<(), SpdyError> {
        match frame {
            Frame::Open {
                stream,
                headers,
                last,
            } => {
                let mut body = stream.to_be_bytes().to_vec();
                body.extend([0; 6]);
                body.extend(self.0.pack(headers)?);
                control(SYN_STREAM, u8::from(*last), &body, out);
            }
            Frame::Accept { stream } => {
                let mut body = stream.to_be_bytes().to_vec();
                body.extend(self.0.pack(&Headers::new())?);
                control(SYN_REPLY, 0, &body, out);
            }
            Frame::Data {
                stream,
                bytes,
                last,
            } => {
                out.extend((stream & 0x7fff_ffff).to_be_bytes());
                out.push(u8::from(*last));
                out.extend(length(bytes.len()));
                out.extend_from_slice(bytes);
            }
            Frame::Reset { stream, status } => {
                let body = [stream.to_be_bytes(), status.to_be_bytes()].concat();
                control(RST_STREAM, 0, &body, out);
            }
            Frame::Ping(id) => control(PING, 0, &id.to_be_bytes(), out),
            Frame::GoAway => control(GOAWAY, 0, &[0; 8], out),
            Frame::Other => {}
        }
        Ok(())
    }
}

fn control(kind: u16, flags: u8, body: &[u8], out: &mut Vec<u8>) {
    out.extend((VERSION | 0x8000).to_be_bytes());
    out.extend(kind.to_be_bytes());
    out.push(flags);
    out.extend(length(body.len()));
    out.extend(body);
}

/// Three bytes: no frame of ours is near their limit.
fn length(length: usize) -> [u8; 3] {
    let [_, high, middle, low] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    [high, middle, low]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame() -> impl Strategy<Value = Frame> {
        let stream = 1u32..9;
        let headers = prop::collection::btree_map("[a-z]{1,8}", "[ -~]{0,20}", 0..4);
        prop_oneof![
            (stream.clone(), headers, any::<bool>()).prop_map(|(stream, headers, last)| {
                Frame::Open {
                    stream,
                    headers,
                    last,
                }
            }),
            (
                stream.clone(),
                prop::collection::vec(any::<u8>(), 0..300),
                any::<bool>()
            )
                .prop_map(|(stream, bytes, last)| Frame::Data {
                    stream,
                    bytes: bytes.into(),
                    last
                }),
            (stream, any::<u32>()).prop_map(|(stream, status)| Frame::Reset { stream, status }),
            any::<u32>().prop_map(Frame::Ping),
            Just(Frame::GoAway),
        ]
    }

    /// Parts of one data frame as one again.
    fn joined(frames: Vec<Frame>) -> Vec<(u32, Vec<u8>, bool)> {
        let mut all: Vec<(u32, Vec<u8>, bool)> = Vec::new();
        for frame in frames {
            if let Frame::Data {
                stream,
                bytes,
                last,
            } = frame
            {
                match all.last_mut() {
                    Some((before, held, false)) if *before == stream => {
                        held.extend_from_slice(&bytes);
                        if last {
                            all.last_mut().expect("it is there").2 = true;
                        }
                    }
                    _ => all.push((stream, bytes.to_vec(), last)),
                }
            }
        }
        all
    }

    proptest! {
        #[test]
        fn frames_are_read_as_they_were_written_however_they_are_cut(
            frames in prop::collection::vec(frame(), 0..20),
            cut in 1usize..400,
        ) {
            let mut encoder = Encoder::new().expect("an encoder");
            let mut bytes = Vec::new();
            for frame in &frames {
                encoder.write(frame, &mut bytes).expect("a frame");
            }
            let mut decoder = Decoder::new();
            let mut read = Vec::new();
            for piece in bytes.chunks(cut) {
                decoder.push(piece);
                while let Some(frame) = decoder.next().expect("our own frames") {
                    read.push(frame);
                }
            }
            let control = |frames: &[Frame]| -> Vec<Frame> {
                frames.iter().filter(|frame| !matches!(frame, Frame::Data { .. })).cloned().collect()
            };
            prop_assert_eq!(control(&read), control(&frames));
            prop_assert_eq!(joined(read), joined(frames));
        }

        #[test]
        fn garbage_ends_or_waits_but_never_fails_otherwise(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let mut decoder = Decoder::new();
            decoder.push(&bytes);
            let mut told = 0;
            while let Ok(Some(frame)) = decoder.next() {
                told += match frame {
                    Frame::Data { bytes, .. } => bytes.len(),
                    _ => 8,
                };
            }
            prop_assert!(told <= bytes.len());
        }
    }
}
