//! Randomness: keys, jitter, nonces.

use std::fmt::Debug;

use rand::rngs::OsRng;
use rand::{RngCore, TryRngCore};

/// Gives random bytes.
pub trait Entropy: Send + Sync + Debug + 'static {
    /// Fills the whole buffer.
    fn fill(&self, buffer: &mut [u8]);
}

/// Draws shorter than this are numbers and jitter, not keys.
const KEY_BYTES: usize = 16;

/// The operating system's generator, fit for keys. Shorter draws, of which every transaction makes some, come from a generator of
/// this thread that is seeded by it, without a system call each.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsEntropy;

impl Entropy for OsEntropy {
    fn fill(&self, buffer: &mut [u8]) {
        if buffer.len() < KEY_BYTES {
            return rand::rng().fill_bytes(buffer);
        }
        OsRng.try_fill_bytes(buffer).expect("an operating system without randomness cannot run a ledger");
    }
}

/// A random number, all 64 bits of it.
pub fn next_u64(entropy: &dyn Entropy) -> u64 {
    let mut bytes = [0; 8];
    entropy.fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_draws_differ() {
        assert_ne!(next_u64(&OsEntropy), next_u64(&OsEntropy));
    }
}
