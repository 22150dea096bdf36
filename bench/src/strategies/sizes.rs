//! How much each settlement moves.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::report::whole;

/// A distribution of sizes, in minor units.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Sizes {
    /// Always one.
    One,
    /// Always this.
    Fixed(u64),
    /// So many percent of what the ones before have left of this.
    Shares {
        /// What there is at first.
        of: u64,
        /// Per size.
        percent: u64,
    },
    /// Its logarithm is normal.
    LogNormal {
        /// Half of the sizes are below.
        median: f64,
        /// Standard deviation of the natural logarithm.
        sigma: f64,
    },
    /// Few are very large.
    Pareto {
        /// The smallest size.
        smallest: f64,
        /// The smaller, the heavier the tail.
        alpha: f64,
    },
}

/// Sizes one after another, the same for the same seed.
#[derive(Debug)]
pub struct SizeSource {
    sizes: Sizes,
    taken: u64,
    random: StdRng,
}

impl SizeSource {
    /// Begins at this seed.
    #[must_use]
    pub fn new(sizes: Sizes, seed: u64) -> Self {
        Self { sizes, taken: 0, random: StdRng::seed_from_u64(seed) }
    }

    /// The next size, at least one.
    pub fn draw(&mut self) -> i128 {
        let size = match self.sizes {
            Sizes::One => 1,
            Sizes::Fixed(size) => size,
            Sizes::Shares { of, percent } => {
                let size = of.saturating_sub(self.taken) / 100 * percent;
                self.taken += size;
                size
            }
            Sizes::LogNormal { median, sigma } => whole(median * (sigma * self.normal()).exp()),
            Sizes::Pareto { smallest, alpha } => whole(smallest / self.above_zero().powf(1.0 / alpha)),
        };
        i128::from(size.max(1))
    }

    /// By Box and Muller.
    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * self.above_zero().ln()).sqrt();
        radius * (std::f64::consts::TAU * self.random.random::<f64>()).cos()
    }

    /// Between zero, left out, and one.
    fn above_zero(&mut self) -> f64 {
        1.0 - self.random.random::<f64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quantile(sizes: Sizes, part: usize) -> i128 {
        let mut source = SizeSource::new(sizes, 1);
        let mut drawn: Vec<i128> = (0..200_000).map(|_| source.draw()).collect();
        drawn.sort_unstable();
        drawn[drawn.len() * part / 100]
    }

    #[test]
    fn sizes_follow_their_distributions() {
        let about = |found: i128, wanted: i128| assert!((found - wanted).abs() * 10 <= wanted, "{found} {wanted}");
        let normal = Sizes::LogNormal { median: 1_000.0, sigma: 1.0 };
        about(quantile(normal, 50), 1_000);
        // exp(2.326)
        about(quantile(normal, 99), 10_240);
        let pareto = Sizes::Pareto { smallest: 100.0, alpha: 1.5 };
        about(quantile(pareto, 50), 158);
        about(quantile(pareto, 99), 2_154);
        assert_eq!((quantile(Sizes::One, 99), quantile(Sizes::Fixed(7), 1)), (1, 7));
    }
}
