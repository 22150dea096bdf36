//! Hashing of names that are hashes already: a second strong hash would be the dearest part of a look-up.
//!
//! Whoever writes transactions can search for names that share a bucket, so the map that lives long is seeded by its
//! owner. Maps of one chunk have a fixed seed: a chunk is bounded, and the worst that a search achieves in it is some
//! milliseconds.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};

/// A map keyed by names.
pub(crate) type NameMap<K, V> = HashMap<K, V, NameHashing>;

/// Makes the hashers of a map.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NameHashing {
    masks: [u64; 2],
}

impl NameHashing {
    /// The hashing that belongs to a seed.
    pub(crate) const fn seeded(seed: u64) -> Self {
        // SplitMix64's increments keep both masks apart, and neither is ever close to zero for small seeds
        let second = seed.wrapping_add(0x9E37_79B9_7F4A_7C15).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        Self { masks: [seed ^ 0x94D0_49BB_1331_11EB, second] }
    }
}

impl Default for NameHashing {
    fn default() -> Self {
        Self::seeded(0)
    }
}

impl BuildHasher for NameHashing {
    type Hasher = NameHasher;

    fn build_hasher(&self) -> NameHasher {
        NameHasher { masks: self.masks, hash: 0 }
    }
}

/// Folds the product of a name's first two words, each masked.
#[derive(Debug)]
pub(crate) struct NameHasher {
    masks: [u64; 2],
    hash: u64,
}

impl Hasher for NameHasher {
    fn write(&mut self, bytes: &[u8]) {
        let (words, _) = bytes.as_chunks::<8>();
        let [first, second, ..] = words else { return };
        let [mask_first, mask_second] = self.masks;
        self.hash ^= fold(u64::from_le_bytes(*first) ^ mask_first, u64::from_le_bytes(*second) ^ mask_second);
    }

    fn write_u16(&mut self, index: u16) {
        self.hash = fold(self.hash ^ u64::from(index), 0x9E37_79B9_7F4A_7C15);
    }

    // the length of a name says nothing
    fn write_usize(&mut self, _length: usize) {}

    fn finish(&self) -> u64 {
        self.hash
    }
}

fn fold(a: u64, b: u64) -> u64 {
    let [low, high] = halves(u128::from(a).wrapping_mul(u128::from(b)));
    low ^ high
}

fn halves(product: u128) -> [u64; 2] {
    let bytes = product.to_le_bytes();
    let (words, _) = bytes.as_chunks::<8>();
    match words {
        [low, high] => [u64::from_le_bytes(*low), u64::from_le_bytes(*high)],
        _ => [0, 0],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ledger::{Origin, TransactionId};

    #[test]
    fn neighbours_and_seeds_differ() {
        let name = |number: u8| TransactionId::from_bytes([number; 32]);
        let hash = |seed: u64, number: u8, index: u16| {
            NameHashing::seeded(seed).hash_one(Origin { transaction: name(number), index })
        };
        let mut hashes: Vec<u64> = (0..20)
            .flat_map(|number| (0..50).map(move |index| (number, index)))
            .map(|(number, index)| hash(1, number, index))
            .collect();
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), 1_000);
        assert_ne!(hash(1, 3, 4), hash(2, 3, 4));
        // the low bits choose the bucket
        let mut buckets: Vec<u64> = hashes.iter().map(|hash| hash % 4_096).collect();
        buckets.sort_unstable();
        buckets.dedup();
        assert!(buckets.len() > 700, "{}", buckets.len());
    }
}
