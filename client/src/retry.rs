//! When to try again: backoff with jitter, and a budget that keeps many clients from drowning a struggling cluster.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use seams::{Entropy, next_u64};
use tokio::time::Instant;

/// How calls are repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The longest first pause; doubled after each round over all endpoints. Pauses are drawn between half of the
    /// current one and all of it.
    pub pause_first: Duration,
    /// The longest pause.
    pub pause_max: Duration,
    /// How long one attempt may take before another endpoint is tried.
    pub attempt_max: Duration,
    /// Retries that a client makes per second, over all its calls; a retry beyond waits for its turn.
    pub retries_per_second: u32,
    /// Retries that it may make at once after a quiet time.
    pub retries_burst: u32,
}

impl Default for RetryPolicy {
    /// Elections take about a second, so a handful of retries reaches the new leader.
    fn default() -> Self {
        Self {
            pause_first: Duration::from_millis(25),
            pause_max: Duration::from_secs(1),
            attempt_max: Duration::from_secs(10),
            retries_per_second: 200,
            retries_burst: 200,
        }
    }
}

impl RetryPolicy {
    /// The pause before a retry, after `rounds` rounds over all endpoints.
    pub(crate) fn pause(&self, rounds: u32, entropy: &dyn Entropy) -> Duration {
        let factor = 2_u32.saturating_pow(rounds.min(16));
        let longest = self.pause_first.saturating_mul(factor).min(self.pause_max);
        let micros = u64::try_from(longest.as_micros()).unwrap_or(u64::MAX);
        let half = micros.div_ceil(2);
        Duration::from_micros(half.saturating_add(next_u64(entropy) % half.max(1)))
    }
}

/// A token bucket in the form of the time at which it will be full again (the generic cell rate algorithm).
#[derive(Debug)]
pub(crate) struct Budget {
    interval: Duration,
    burst: Duration,
    full_at: Mutex<Option<Instant>>,
}

impl Budget {
    pub(crate) fn new(policy: &RetryPolicy) -> Self {
        let interval = Duration::from_secs(1) / policy.retries_per_second.max(1);
        Self { interval, burst: interval * policy.retries_burst.max(1), full_at: Mutex::new(None) }
    }

    /// Takes a token and returns how long to wait for it.
    pub(crate) fn take(&self) -> Duration {
        let now = Instant::now();
        let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        let next = full_at.map_or(now, |at| at.max(now)) + self.interval;
        *full_at = Some(next);
        next.duration_since(now).saturating_sub(self.burst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_are_jittered_and_stay_bounded() {
        let policy = RetryPolicy::default();
        for round in 0..40 {
            let pause = policy.pause(round, &seams::OsEntropy);
            assert!(pause >= policy.pause_first / 2, "{pause:?}");
            assert!(pause <= policy.pause_max + Duration::from_micros(1), "{pause:?}");
        }
        let pauses: std::collections::BTreeSet<Duration> =
            (0..20).map(|_| policy.pause(5, &seams::OsEntropy)).collect();
        assert!(pauses.len() > 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_spent_budget_delays_and_refills() {
        let policy = RetryPolicy { retries_per_second: 10, retries_burst: 2, ..RetryPolicy::default() };
        let budget = Budget::new(&policy);
        assert_eq!([budget.take(), budget.take()], [Duration::ZERO; 2]);
        assert_eq!(budget.take(), Duration::from_millis(100));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(budget.take(), Duration::ZERO);
    }
}
