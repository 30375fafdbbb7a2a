//! Protobuf's wire format: numbered fields, read one by one without copying.

use super::ProtobufError;

/// One value on the wire.
#[derive(Clone, Copy)]
pub(super) enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    /// No field of the table is one; it is only stepped over.
    Fixed32,
}

impl Wire<'_> {
    pub(super) fn wire_type(&self) -> u8 {
        match self {
            Self::Varint(_) => 0,
            Self::Fixed64(_) => 1,
            Self::Bytes(_) => 2,
            Self::Fixed32 => 5,
        }
    }
}

/// Reads one message field by field.
pub(super) struct Reader<'a> {
    message: &'static str,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(message: &'static str, bytes: &'a [u8]) -> Self {
        Self {
            message,
            bytes,
            at: 0,
        }
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.at >= self.bytes.len()
    }

    /// The next field's number and value; `None` at the end.
    pub(super) fn next_field(&mut self) -> Result<Option<(u32, Wire<'a>)>, ProtobufError> {
        if self.is_at_end() {
            return Ok(None);
        }
        let start = self.at;
        let tag = self.varint()?;
        let bad = ProtobufError::BadNumber {
            message: self.message,
            at: start,
        };
        let number = u32::try_from(tag >> 3).ok().filter(|number| *number > 0);
        let Some(number) = number else {
            return Err(bad);
        };
        let wire = match tag & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(u64::from_le_bytes(self.fixed(start)?)),
            2 => {
                let length = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
                Wire::Bytes(self.take(length, start)?)
            }
            5 => {
                self.take(4, start)?;
                Wire::Fixed32
            }
            _ => return Err(bad),
        };
        Ok(Some((number, wire)))
    }

    pub(super) fn varint(&mut self) -> Result<u64, ProtobufError> {
        let start = self.at;
        let mut value = 0_u64;
        for shift in (0..70).step_by(7) {
            let byte = *self.bytes.get(self.at).ok_or(ProtobufError::Truncated {
                message: self.message,
                at: start,
            })?;
            self.at += 1;
            value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(ProtobufError::BadNumber {
            message: self.message,
            at: start,
        })
    }

    fn take(&mut self, length: usize, start: usize) -> Result<&'a [u8], ProtobufError> {
        let end = self
            .at
            .checked_add(length)
            .filter(|end| *end <= self.bytes.len());
        let end = end.ok_or(ProtobufError::Truncated {
            message: self.message,
            at: start,
        })?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn fixed<const N: usize>(&mut self, start: usize) -> Result<[u8; N], ProtobufError> {
        let taken = self.take(N, start)?;
        taken.try_into().map_err(|_| ProtobufError::Truncated {
            message: self.message,
            at: start,
        })
    }
}
