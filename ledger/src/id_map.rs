//! Hash maps keyed by identifiers. Identifiers are BLAKE3 hashes already, so that a map needs no second strong hash;
//! but whoever makes transactions can search for identifiers that share a bucket, and enough of them would turn each
//! look-up into a scan. Hence a seed that is not known while the search runs: the digest of the very bundle.
//!
//! Nothing iterates over these maps.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};

/// A map keyed by identifiers.
pub(crate) type IdMap<K, V> = HashMap<K, V, SeededIds>;

/// Makes the hashers of one map.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SeededIds {
    seed: [u64; 2],
}

impl SeededIds {
    /// Seeds with 32 bytes that depend on the whole work at hand.
    pub(crate) fn new(entropy: &[u8; 32]) -> Self {
        Self { seed: leading_words(entropy).unwrap_or_default() }
    }

    /// An empty map with room for as many entries.
    pub(crate) fn map<K, V>(self, capacity: usize) -> IdMap<K, V> {
        HashMap::with_capacity_and_hasher(capacity, self)
    }
}

impl BuildHasher for SeededIds {
    type Hasher = IdHasher;

    fn build_hasher(&self) -> IdHasher {
        IdHasher { seed: self.seed, hash: 0 }
    }
}

/// Folds the product of the identifier's first two words, each masked by the seed.
#[derive(Debug)]
pub(crate) struct IdHasher {
    seed: [u64; 2],
    hash: u64,
}

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        let Some([first, second]) = leading_words(bytes) else { return };
        let [mask_first, mask_second] = self.seed;
        let product = u128::from(first ^ mask_first).wrapping_mul(u128::from(second ^ mask_second));
        let high = u64::try_from(product >> 64).expect("the upper half of 128 bits");
        let low = u64::try_from(product & u128::from(u64::MAX)).expect("the lower half of 128 bits");
        self.hash = high ^ low;
    }

    // the length of an array says nothing
    fn write_usize(&mut self, _length: usize) {}

    fn finish(&self) -> u64 {
        self.hash
    }
}

fn leading_words(bytes: &[u8]) -> Option<[u64; 2]> {
    let (words, _) = bytes.as_chunks::<8>();
    match words {
        [first, second, ..] => Some([u64::from_le_bytes(*first), u64::from_le_bytes(*second)]),
        [] | [_] => None,
    }
}
