//! How large requests are: an estimate of their 99th percentile that forgets.
//!
//! Sizes are counted in generations of a few hundred; the oldest is dropped when a new one begins. So a shift of the
//! distribution is followed within as many requests as are remembered.

use std::collections::VecDeque;

use hdrhistogram::Histogram;
use ledger::Quantity;

/// Requests of a generation.
const GENERATION: u64 = 256;
/// Generations that are remembered: some two thousand requests, of which twenty are beyond the 99th percentile.
const GENERATIONS: usize = 8;
/// Requests after which the estimate is made anew.
const ESTIMATED_EVERY: u64 = 32;
/// Significant digits of sizes.
const DIGITS: u8 = 2;

/// The 99th percentile of the sizes of recent requests.
#[derive(Debug)]
pub(super) struct SizeEstimate {
    generations: VecDeque<Histogram<u64>>,
    observed: u64,
    p99: u64,
}

impl SizeEstimate {
    pub(super) fn new() -> Self {
        Self { generations: VecDeque::from([generation()]), observed: 0, p99: 0 }
    }

    /// A request of this size came. Sizes beyond 64 bits count as the largest of 64.
    pub(super) fn observe(&mut self, size: Quantity) {
        let units = u64::try_from(size.minor_units().max(0)).unwrap_or(u64::MAX);
        if self.generations.back().is_none_or(|newest| newest.len() >= GENERATION) {
            self.generations.push_back(generation());
            if self.generations.len() > GENERATIONS {
                self.generations.pop_front();
            }
        }
        if let Some(newest) = self.generations.back_mut() {
            // it grows with the largest
            if let Err(fault) = newest.record(units) {
                tracing::warn!(?fault, units, "a request's size was not counted");
            }
        }
        self.observed += 1;
        // the first ones matter one by one
        if self.observed < 2 * ESTIMATED_EVERY || self.observed.is_multiple_of(ESTIMATED_EVERY) {
            self.estimate();
        }
    }

    fn estimate(&mut self) {
        let mut all = generation();
        for generation in &self.generations {
            // both resize by themselves
            if let Err(fault) = all.add(generation) {
                tracing::warn!(?fault, "sizes of requests could not be added up");
            }
        }
        self.p99 = all.value_at_quantile(0.99).max(1);
    }

    /// Positions of the pool hold at least this: the 99th percentile.
    pub(super) fn lower(&self) -> Quantity {
        Quantity::new(i128::from(self.p99))
    }

    /// Positions of the pool hold at most this.
    pub(super) fn upper(&self) -> Quantity {
        Quantity::new(2 * i128::from(self.p99))
    }

    /// What a new position of the pool holds. In the upper part of the range, it stays there for a while.
    pub(super) fn fresh(&self) -> Quantity {
        Quantity::new(7 * i128::from(self.p99) / 4)
    }
}

fn generation() -> Histogram<u64> {
    Histogram::new(DIGITS).expect("the number of digits is a constant that is allowed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_estimate_follows_the_sizes_and_forgets() {
        let mut sizes = SizeEstimate::new();
        for size in (1..=1_000).cycle().take(4_000) {
            sizes.observe(Quantity::new(size));
        }
        let near = |estimate: Quantity, wanted: i128| {
            let found = estimate.minor_units();
            assert!((wanted * 97 / 100..=wanted * 103 / 100).contains(&found), "{found}, not about {wanted}");
        };
        near(sizes.lower(), 990);
        for size in (1..=1_000).map(|size| size * 50).cycle().take(2_500) {
            sizes.observe(Quantity::new(size));
        }
        near(sizes.lower(), 49_500);
        for size in (1..=1_000).cycle().take(2_500) {
            sizes.observe(Quantity::new(size));
        }
        near(sizes.lower(), 990);
    }
}
