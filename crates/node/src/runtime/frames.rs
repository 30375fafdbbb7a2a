//! The messages between a shim and whoever is attached to its container: a channel, a length, the bytes. Pure.

/// What a message is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Channel {
    /// To the container; the first one, which may be empty, says that there will be input.
    Stdin,
    /// From the container; with a terminal, everything.
    Stdout,
    /// From the container.
    Stderr,
    /// To its terminal: columns and rows, two bytes each, the high one first.
    Resize,
    /// To the container: there is no more input.
    Close,
    /// From the shim, once: what the container writes from now on is told.
    Attached,
}

impl Channel {
    const ALL: [Self; 6] = [
        Self::Stdin,
        Self::Stdout,
        Self::Stderr,
        Self::Resize,
        Self::Close,
        Self::Attached,
    ];

    fn byte(self) -> u8 {
        match self {
            Self::Stdin => 0,
            Self::Stdout => 1,
            Self::Stderr => 2,
            Self::Resize => 3,
            Self::Close => 4,
            Self::Attached => 5,
        }
    }
}

/// A length or a channel that nobody of ours writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a malformed message from the other side of an attach")]
pub(crate) struct Malformed;

/// How many bytes a message carries at most.
pub(crate) const LONGEST: usize = 64 * 1_024;
const HEAD: usize = 5;

/// Appends a message, or several where there are more bytes than one carries.
pub(crate) fn write(channel: Channel, bytes: &[u8], out: &mut impl Extend<u8>) {
    let mut rest = bytes;
    loop {
        let (piece, more) = rest.split_at(rest.len().min(LONGEST));
        // A piece is never longer than LONGEST.
        let length = u32::try_from(piece.len()).unwrap_or(0);
        out.extend([channel.byte()]);
        out.extend(length.to_be_bytes());
        out.extend(piece.iter().copied());
        rest = more;
        if rest.is_empty() {
            return;
        }
    }
}

/// Takes bytes as they come and gives whole messages.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    held: Vec<u8>,
}

impl Frames {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
    }

    /// The next message, when it is there whole.
    pub(crate) fn next(&mut self) -> Result<Option<(Channel, Vec<u8>)>, Malformed> {
        let Some((head, rest)) = self.held.split_first_chunk::<HEAD>() else {
            return Ok(None);
        };
        let [channel, length @ ..] = *head;
        let length = usize::try_from(u32::from_be_bytes(length)).map_err(|_| Malformed)?;
        let known = |one: &Channel| one.byte() == channel;
        let channel = Channel::ALL.into_iter().find(known).ok_or(Malformed)?;
        if length > LONGEST {
            return Err(Malformed);
        }
        let Some(bytes) = rest.get(..length) else {
            return Ok(None);
        };
        let bytes = bytes.to_vec();
        self.held.drain(..HEAD + length);
        Ok(Some((channel, bytes)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_however_it_is_cut(
            messages in prop::collection::vec((0usize..6, prop::collection::vec(any::<u8>(), 0..200)), 0..20),
            cut in 1usize..64,
        ) {
            let mut bytes = Vec::new();
            for (channel, text) in &messages {
                write(Channel::ALL[*channel], text, &mut bytes);
            }
            let mut frames = Frames::default();
            let mut read = Vec::new();
            for piece in bytes.chunks(cut) {
                frames.push(piece);
                while let Some(message) = frames.next().expect("our own messages") {
                    read.push(message);
                }
            }
            let want: Vec<_> = messages
                .into_iter()
                .map(|(channel, text)| (Channel::ALL[channel], text))
                .collect();
            prop_assert_eq!(read, want);
        }

        #[test]
        fn garbage_ends_or_waits_but_never_fails_otherwise(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut frames = Frames::default();
            frames.push(&bytes);
            while let Ok(Some((_, text))) = frames.next() {
                prop_assert!(text.len() <= LONGEST);
            }
        }
    }
}
