//! How much of anything is taken from a registry or an archive before it is refused.

/// The limits. The defaults let every image through that a registry of today takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a manifest or an index. upstream: registries take 4 MiB.
    pub manifest_bytes: u64,
    /// Bytes of a config.
    pub config_bytes: u64,
    /// Layers of an image. upstream: container engines stop at 127.
    pub layers: usize,
    /// Bytes of one layer as it comes, compressed or not.
    pub layer_bytes: u64,
    /// Bytes of one layer's archive once decompressed.
    pub unpacked_bytes: u64,
    /// How many times larger than it came a layer may become, beyond [`Limits::ratio_from_bytes`].
    pub ratio: u64,
    /// Below so many unpacked bytes the ratio is not looked at: small files of one letter compress well.
    pub ratio_from_bytes: u64,
    /// Entries of one layer.
    pub entries: u64,
    /// Bytes of a layer as it came for each entry beyond [`Limits::entries_free`]; an entry takes 512 bytes before compression.
    pub bytes_per_entry: u64,
    /// So many entries a layer may have whatever its size.
    pub entries_free: u64,
    /// Bytes of the headers that extend one entry: long names and attributes.
    pub extension_bytes: u64,
    /// Folders above an entry.
    pub depth: usize,
}

impl Default for Limits {
    fn default() -> Self {
        const MIB: u64 = 1 << 20;
        const GIB: u64 = 1 << 30;
        Self {
            manifest_bytes: 4 * MIB,
            config_bytes: 4 * MIB,
            layers: 127,
            layer_bytes: 32 * GIB,
            unpacked_bytes: 128 * GIB,
            ratio: 200,
            ratio_from_bytes: GIB,
            entries: 2_000_000,
            bytes_per_entry: 4,
            entries_free: 20_000,
            extension_bytes: MIB,
            depth: 200,
        }
    }
}

impl Limits {
    /// The most that a layer of `size` bytes may become.
    pub fn unpacked(&self, size: u64) -> u64 {
        size.saturating_mul(self.ratio)
            .max(self.ratio_from_bytes)
            .min(self.unpacked_bytes)
    }

    /// The most entries that a layer of `size` bytes may have.
    pub fn entries_of(&self, size: u64) -> u64 {
        let by_size = size / self.bytes_per_entry.max(1);
        self.entries_free.saturating_add(by_size).min(self.entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_layer_may_grow_to_the_free_size_and_a_large_one_by_the_ratio() {
        let limits = Limits::default();
        assert_eq!(limits.unpacked(1_000), limits.ratio_from_bytes);
        assert_eq!(limits.unpacked(10 << 20), 2_000 << 20);
        assert_eq!(limits.unpacked(u64::MAX), limits.unpacked_bytes);
        assert_eq!(limits.entries_of(0), limits.entries_free);
        assert_eq!(limits.entries_of(u64::MAX), limits.entries);
    }
}
