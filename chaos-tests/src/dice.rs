//! Seeded randomness: one sequence of choices from one seed.

use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};

/// The content of a mutex, also where a task panicked with it: that is reported as what it is.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A sequence of choices. Clones draw from the same sequence.
#[derive(Debug, Clone)]
pub struct Dice(Arc<Mutex<StdRng>>);

impl Dice {
    /// The choices of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(StdRng::seed_from_u64(seed))))
    }

    /// Choices of their own, which are drawn from these once and do not disturb each other afterwards.
    #[must_use]
    pub fn branch(&self) -> Self {
        Self::new(self.number())
    }

    fn random(&self) -> MutexGuard<'_, StdRng> {
        lock(&self.0)
    }

    /// Any number.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.random().next_u64()
    }

    /// A number of the range.
    #[must_use]
    pub fn between(&self, range: RangeInclusive<u64>) -> u64 {
        self.random().random_range(range)
    }

    /// A duration of the range, in whole milliseconds: the grain of the runtime's timers.
    #[must_use]
    pub fn pause(&self, range: &RangeInclusive<Duration>) -> Duration {
        let millis = |duration: &Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(self.between(millis(range.start())..=millis(range.end())))
    }

    /// True so many times in a thousand.
    #[must_use]
    pub fn chance(&self, per_mille: u32) -> bool {
        per_mille > 0 && self.random().random_ratio(per_mille.min(1000), 1000)
    }

    /// One of the items; `None` where there are none. Draws once however many there are.
    #[must_use]
    pub fn pick<'a, T>(&self, items: &'a [T]) -> Option<&'a T> {
        let drawn = self.number();
        let count = u64::try_from(items.len()).ok().filter(|count| *count > 0)?;
        items.get(usize::try_from(drawn % count).ok()?)
    }

    /// A 32-byte seed, for keys.
    #[must_use]
    pub fn key_seed(&self) -> [u8; 32] {
        let mut seed = [0; 32];
        self.fill(&mut seed);
        seed
    }

    /// Random bytes.
    pub fn fill(&self, buffer: &mut [u8]) {
        self.random().fill_bytes(buffer);
    }
}

impl seams::Entropy for Dice {
    fn fill(&self, buffer: &mut [u8]) {
        Self::fill(self, buffer);
    }
}
