//! How long a validator takes: a short memory of its answers.

use std::collections::VecDeque;
use std::time::Duration;

/// Answers remembered: enough for a 95th percentile to mean something, few enough to follow a change of load
/// within seconds.
const WINDOW: usize = 32;

/// The latest latencies of one validator.
#[derive(Debug, Default)]
pub(super) struct Latencies {
    recent: VecDeque<Duration>,
    p95: Option<Duration>,
}

impl Latencies {
    pub(super) fn record(&mut self, latency: Duration) {
        if self.recent.len() == WINDOW {
            self.recent.pop_front();
        }
        self.recent.push_back(latency);
        let mut sorted: Vec<Duration> = self.recent.iter().copied().collect();
        sorted.sort_unstable();
        self.p95 = sorted.get((sorted.len() - 1) * 95 / 100).copied();
    }

    /// The time within which 95 % of the latest answers came.
    pub(super) const fn p95(&self) -> Option<Duration> {
        self.p95
    }
}

/// Multiple of a usual answer's time after which an answer is late.
const LATE_FACTOR: u32 = 3;
/// Times the upper bound that answers may take where all are slow.
const SLOW_FACTOR: u32 = 3;

/// After how long an answer is late: the median over validators of their 95th percentile, times [`LATE_FACTOR`] within
/// the bounds. Where all are slow because all are busy, asking another one only takes from the others: then not before half
/// of the usual time again is over, or [`SLOW_FACTOR`] times the upper bound. A median, so that a slow minority cannot make slowness look usual.
pub(super) fn late_after(p95_of_each: impl Iterator<Item = Duration>, min: Duration, max: Duration) -> Duration {
    let mut sorted: Vec<Duration> = p95_of_each.collect();
    sorted.sort_unstable();
    let usual = sorted.get(sorted.len().saturating_sub(1) / 2);
    usual.map_or(max, |usual| {
        let busy = usual.saturating_add(*usual / 2).min(max.saturating_mul(SLOW_FACTOR));
        usual.saturating_mul(LATE_FACTOR).clamp(min, max).max(busy)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_minority_does_not_make_slowness_usual() {
        let millis = |values: &[u64]| values.iter().map(|value| Duration::from_millis(*value)).collect::<Vec<_>>();
        let late = |values: &[u64]| {
            late_after(millis(values).into_iter(), Duration::from_millis(20), Duration::from_millis(500)).as_millis()
        };
        assert_eq!(late(&[]), 500);
        assert_eq!(late(&[10]), 30);
        assert_eq!(late(&[10, 2_000]), 30);
        assert_eq!(late(&[2_000, 11, 10]), 33);
        assert_eq!(late(&[1, 1, 1]), 20);
        assert_eq!(late(&[200, 200]), 500);
        assert_eq!(late(&[900, 900]), 1_350);
        assert_eq!(late(&[2_000, 2_000]), 1_500);
    }

    #[test]
    fn old_latencies_are_forgotten() {
        let mut latencies = Latencies::default();
        for _ in 0..WINDOW {
            latencies.record(Duration::from_secs(1));
        }
        for _ in 0..WINDOW {
            latencies.record(Duration::from_millis(5));
        }
        assert_eq!(latencies.p95(), Some(Duration::from_millis(5)));
    }
}
