//! A parser that is broken on purpose, behind bytes that chance alone would not guess: the harness must find it.

/// Panics for the word `pod`, a large kind and one number of four thousand million.
pub fn parse(bytes: &[u8]) {
    if let [b'p', b'o', b'd', kind, a, b, c, d, ..] = bytes
        && *kind > 200
        && u32::from_be_bytes([*a, *b, *c, *d]) == 0x5ead_0400
    {
        panic!("planted");
    }
}
