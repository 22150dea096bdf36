//! Counting what happens on the hot path, for the cost of an atomic addition: no lock, no look-up, no allocation.
//!
//! Deliberately absent: names, labels and formats. Who shows the numbers gives them their names (crate `node`).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets: from a look-up in memory to what a client waits for at most. Three or four to a power of
/// ten, so that a quantile is known within a factor of two and a half.
pub const BOUNDS: [Duration; BOUNDED] = [
    Duration::from_micros(25),
    Duration::from_micros(100),
    Duration::from_micros(250),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2_500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2_500),
    Duration::from_secs(10),
    Duration::from_secs(60),
];

const BOUNDED: usize = 17;
/// One more, for what is longer than every bound.
const BUCKETS: usize = BOUNDED + 1;

fn bucket_of(duration: Duration) -> usize {
    BOUNDS.partition_point(|bound| *bound < duration)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// How long something took, every time, as of one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Distribution {
    buckets: [u64; BUCKETS],
    sum_nanos: u64,
}

impl Distribution {
    /// Adds one time.
    pub fn record(&mut self, duration: Duration) {
        if let Some(bucket) = self.buckets.get_mut(bucket_of(duration)) {
            *bucket = bucket.wrapping_add(1);
        }
        self.sum_nanos = self.sum_nanos.wrapping_add(nanos(duration));
    }

    /// Times by bucket, not cumulative: one for each of [`BOUNDS`], and one for what is longer.
    #[must_use]
    pub const fn buckets(&self) -> &[u64] {
        &self.buckets
    }

    /// How many times.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().fold(0, |sum, bucket| sum.wrapping_add(*bucket))
    }

    /// All of them together.
    #[must_use]
    pub const fn sum(&self) -> Duration {
        Duration::from_nanos(self.sum_nanos)
    }
}

/// The same while many threads add to it.
#[derive(Debug, Default)]
pub struct Durations {
    buckets: [AtomicU64; BUCKETS],
    sum_nanos: AtomicU64,
}

impl Durations {
    /// Adds one time.
    pub fn record(&self, duration: Duration) {
        if let Some(bucket) = self.buckets.get(bucket_of(duration)) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.sum_nanos.fetch_add(nanos(duration), Ordering::Relaxed);
    }

    /// What was recorded so far. What is recorded meanwhile may be in one part and not yet in another.
    #[must_use]
    pub fn distribution(&self) -> Distribution {
        Distribution {
            buckets: std::array::from_fn(|place| {
                self.buckets.get(place).map_or(0, |bucket| bucket.load(Ordering::Relaxed))
            }),
            sum_nanos: self.sum_nanos.load(Ordering::Relaxed),
        }
    }
}

/// Counts events.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts so many more.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// So many so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_in_the_bucket_of_the_first_bound_that_is_not_shorter() {
        assert!(BOUNDS.is_sorted());
        let times = Durations::default();
        let mut alone = Distribution::default();
        let nano = Duration::from_nanos(1);
        for time in [Duration::ZERO, BOUNDS[0], BOUNDS[0] + nano, BOUNDS[BOUNDED - 1], BOUNDS[BOUNDED - 1] + nano] {
            times.record(time);
            alone.record(time);
        }
        let found = times.distribution();
        assert_eq!(found, alone);
        assert_eq!((found.buckets()[0], found.buckets()[1]), (2, 1));
        assert_eq!((found.buckets()[BOUNDED - 1], found.buckets()[BOUNDED]), (1, 1));
        assert_eq!((found.count(), found.sum()), (5, Duration::from_secs(120) + Duration::from_nanos(50_002)));
    }
}
