//! Lemmas that were proved: patterns, found by their whole keys.
//!
//! Only proofs are kept. The cache is bounded: two generations, of which the older one goes when the younger is full,
//! so that what is used stays. What is read back from disk is not believed but proved again.

use std::collections::HashMap;
use std::io;

use foldhash::fast::RandomState;
use ledger::Hash;
use ledger::identifier::canonical_bytes;

use crate::encode::encode;
use crate::pattern::{Pattern, PatternKey};
use crate::solver::{Answer, ObligationSolver};

/// Patterns kept at most. Real traffic has hundreds; one key is some hundred bytes.
pub const PATTERNS_MAX: usize = 1 << 16;

/// A bounded set of proved patterns.
#[derive(Debug)]
pub struct PatternCache {
    young: HashMap<PatternKey, Hash, RandomState>,
    old: HashMap<PatternKey, Hash, RandomState>,
    generation_max: usize,
}

/// What became of kept patterns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Loaded {
    /// Proved again.
    pub proved: usize,
    /// Not keys of these versions, or not provable: dropped.
    pub dropped: usize,
}

impl Default for PatternCache {
    fn default() -> Self {
        Self::new(PATTERNS_MAX)
    }
}

impl PatternCache {
    /// An empty cache of at most so many patterns; of none, where that is 0.
    #[must_use]
    pub fn new(patterns_max: usize) -> Self {
        Self { young: HashMap::default(), old: HashMap::default(), generation_max: patterns_max.div_ceil(2) }
    }

    /// Number of patterns.
    #[must_use]
    pub fn len(&self) -> usize {
        self.young.len().saturating_add(self.old.len())
    }

    /// True where there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The digest of a pattern that was proved; the whole key is compared.
    pub fn find(&mut self, key: &PatternKey) -> Option<Hash> {
        if let Some(digest) = self.young.get(key) {
            return Some(*digest);
        }
        let (key, digest) = self.old.remove_entry(key)?;
        self.insert(key, digest);
        Some(digest)
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }

    /// Keeps a pattern. Only called where it was proved.
    pub(crate) fn insert(&mut self, key: PatternKey, digest: Hash) {
        if self.generation_max == 0 {
            return;
        }
        if self.young.len() >= self.generation_max {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, digest);
    }

    /// The patterns as bytes to be kept: their keys. Equal caches have equal bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        // sorted: the maps have no order
        let mut keys: Vec<&PatternKey> = self.young.keys().chain(self.old.keys()).collect();
        keys.sort_unstable();
        let keys: Vec<&[u8]> = keys.into_iter().map(PatternKey::as_bytes).collect();
        canonical_bytes(&keys)
    }

    /// Reads kept patterns, and proves each again before it counts. Those of other versions are dropped.
    ///
    /// # Errors
    /// Where the bytes are not a kept cache.
    pub fn load(&mut self, bytes: &[u8], solver: &mut ObligationSolver) -> io::Result<Loaded> {
        let kept: Vec<Vec<u8>> = borsh::from_slice(bytes)?;
        let mut loaded = Loaded::default();
        for bytes in &kept {
            match PatternKey::from_bytes(bytes).filter(|key| is_lemma(key, solver)) {
                Some(key) => {
                    let digest = key.digest();
                    self.insert(key, digest);
                    loaded.proved += 1;
                }
                None => loaded.dropped += 1,
            }
        }
        Ok(loaded)
    }
}

/// True where the pattern of the key is proved, from the key's bytes alone, and its hypotheses can hold.
fn is_lemma(key: &PatternKey, solver: &mut ObligationSolver) -> bool {
    let formula = key.pattern().as_ref().map(|pattern: &Pattern| encode(pattern, None));
    formula.is_some_and(|formula| solver.can_hold(&formula) == Some(true) && solver.decide(&formula) == Answer::Proved)
}
