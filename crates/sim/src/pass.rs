//! One walk over a value's fields that either writes them as bits or reads them back: the two can never disagree.

/// A walk over fields.
pub(crate) trait Pass {
    /// A number below `1 << width`.
    fn bits(&mut self, value: &mut u8, width: u32);

    /// A truth value.
    fn flag(&mut self, value: &mut bool) {
        let mut bit = u8::from(*value);
        self.bits(&mut bit, 1);
        *value = bit == 1;
    }

    /// A value that may be absent.
    fn option<T: Default>(
        &mut self,
        value: &mut Option<T>,
        mut some: impl FnMut(&mut T, &mut Self),
    ) {
        let mut there = value.is_some();
        self.flag(&mut there);
        if there {
            some(value.get_or_insert_default(), self);
        } else {
            *value = None;
        }
    }
}

/// Writes bits into words.
pub(crate) struct Writer<'a> {
    words: &'a mut Vec<u64>,
    word: u64,
    used: u32,
}

impl<'a> Writer<'a> {
    /// Appends to `words`.
    pub(crate) fn new(words: &'a mut Vec<u64>) -> Writer<'a> {
        Writer {
            words,
            word: 0,
            used: 0,
        }
    }

    /// Writes the last, unfinished word.
    pub(crate) fn finish(self) {
        if self.used > 0 {
            self.words.push(self.word);
        }
    }
}

impl Pass for Writer<'_> {
    #[inline(always)]
    fn bits(&mut self, value: &mut u8, width: u32) {
        debug_assert!(
            u32::from(*value) < 1 << width,
            "{value} does not fit {width} bits"
        );
        if self.used + width > u64::BITS {
            self.words.push(self.word);
            (self.word, self.used) = (0, 0);
        }
        self.word |= u64::from(*value) << self.used;
        self.used += width;
    }
}

/// Reads what a [`Writer`] wrote.
pub(crate) struct Reader<'a> {
    words: std::slice::Iter<'a, u64>,
    word: u64,
    used: u32,
}

impl<'a> Reader<'a> {
    /// Reads from the first of `words` on.
    pub(crate) fn new(words: &'a [u64]) -> Reader<'a> {
        Reader {
            words: words.iter(),
            word: 0,
            used: u64::BITS,
        }
    }
}

impl Pass for Reader<'_> {
    #[inline(always)]
    fn bits(&mut self, value: &mut u8, width: u32) {
        if self.used + width > u64::BITS {
            (self.word, self.used) = (self.words.next().copied().unwrap_or_default(), 0);
        }
        let mask = (1_u64 << width) - 1;
        // The mask leaves at most eight bits.
        *value = u8::try_from((self.word >> self.used) & mask).unwrap_or_default();
        self.used += width;
    }
}

/// A 64-bit fingerprint of words. Two multiplications a word, of full width: collisions are as rare as chance makes them.
pub(crate) fn fingerprint(words: &[u64]) -> u64 {
    let mut hash = 0x9e37_79b9_7f4a_7c15_u64;
    for word in words {
        hash = fold(hash ^ word, 0xd6e8_feb8_6659_fd93);
        hash = fold(hash ^ 0xa076_1d64_78bd_642f, 0xe703_7ed1_a0b4_28db);
    }
    // The length takes part: a longer state is another one.
    fold(hash ^ words.len() as u64, 0x8ebc_6af0_9c88_c6e3)
}

fn fold(a: u64, b: u64) -> u64 {
    let wide = u128::from(a) * u128::from(b);
    (wide as u64) ^ ((wide >> 64) as u64)
}
