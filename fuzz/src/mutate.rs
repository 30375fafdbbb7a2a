//! New inputs from old ones: bits, bytes, numbers, runs of bytes moved, doubled and dropped, halves of two put together.

/// A generator of chance that a number repeats (xorshift64*).
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Below `bound`; 0 where there is nothing below.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() >> 16).unwrap_or(0) % bound.max(1)
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        from.get(self.below(from.len()))
    }
}

/// Bytes at which parsers tend to turn.
const TURNS: [u8; 12] = [
    0, 1, 0x7f, 0x80, 0xc0, 0xff, b' ', b'\n', b'"', b'/', b'.', b'0',
];

/// A few changes of `input`, never longer than `max`.
pub fn mutate(
    input: &[u8],
    other: &[u8],
    words: &[Vec<u8>],
    compared: &[(u64, u8)],
    max: usize,
    chance: &mut Chance,
) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..=chance.below(5) {
        one(&mut bytes, other, words, compared, chance);
    }
    bytes.truncate(max);
    bytes
}

fn one(
    bytes: &mut Vec<u8>,
    other: &[u8],
    words: &[Vec<u8>],
    compared: &[(u64, u8)],
    chance: &mut Chance,
) {
    let at = chance.below(bytes.len());
    match chance.below(11) {
        0 => change(
            bytes,
            at,
            |byte, chance| byte ^ (1 << chance.below(8)),
            chance,
        ),
        1 => change(
            bytes,
            at,
            |_, chance| TURNS[chance.below(TURNS.len())],
            chance,
        ),
        2 => change(
            bytes,
            at,
            |byte, chance| byte.wrapping_add(chance.below(9) as u8).wrapping_sub(4),
            chance,
        ),
        3 => change(bytes, at, |_, chance| chance.next() as u8, chance),
        4 => {
            let end = at + chance.below((bytes.len() - at).min(16));
            bytes.drain(at..end);
        }
        5 => {
            let run = run(bytes, chance);
            splice(bytes, at, &run, false);
        }
        6 => {
            let run = run(other, chance);
            let over = chance.below(2) == 0;
            splice(bytes, at, &run, over);
        }
        7 => {
            bytes.truncate(at);
            bytes.extend_from_slice(&other[chance.below(other.len())..]);
        }
        8 => {
            if let Some(word) = chance.pick(words) {
                let over = chance.below(2) == 0;
                splice(bytes, at, word, over);
            }
        }
        9 => {
            if let Some((value, size)) = chance.pick(compared) {
                let size = usize::from(*size);
                let value = match chance.below(2) {
                    0 => value.to_le_bytes()[..size].to_vec(),
                    _ => value.to_be_bytes()[8 - size..].to_vec(),
                };
                splice(bytes, at, &value, true);
            }
        }
        _ => bytes.truncate(at + 1),
    }
}

fn change(bytes: &mut Vec<u8>, at: usize, to: impl Fn(u8, &mut Chance) -> u8, chance: &mut Chance) {
    match bytes.get(at).copied() {
        Some(byte) => bytes[at] = to(byte, chance),
        None => bytes.push(to(0, chance)),
    }
}

fn run(from: &[u8], chance: &mut Chance) -> Vec<u8> {
    let start = chance.below(from.len());
    let len = chance.below((from.len() - start).min(64)) + 1;
    from.iter().skip(start).take(len).copied().collect()
}

fn splice(bytes: &mut Vec<u8>, at: usize, what: &[u8], over: bool) {
    let end = if over {
        (at + what.len()).min(bytes.len())
    } else {
        at
    };
    bytes.splice(at..end, what.iter().copied());
}
