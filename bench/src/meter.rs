//! What workers add to while a run goes on: counts and latencies, of the whole run and second by second.
//!
//! Where a meter has a window, only what falls into it is measured: counts by when something ended, latencies and
//! offers by when it began or was due. What began inside is timed to its end however late that comes: leaving out what
//! takes longest would flatter (coordinated omission).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::time::Instant;

use crate::report::{Latency, Offered, Report, SecondFigures, number};

/// Longest latency that is told apart, in microseconds: ten minutes.
const LATENCY_MAX: u64 = 600_000_000;
/// Significant digits of a whole run's latencies, and of one second's, of which there are many.
const DIGITS: (u8, u8) = (3, 2);

/// Counts of one run. Live views read it while workers write.
#[derive(Debug)]
pub struct Meter {
    /// Also counts what this one counts.
    whole: Option<Arc<Meter>>,
    window: OnceLock<Window>,
    created: Instant,
    /// Settlements committed, in the window or not.
    pub settlements: AtomicU64,
    measured: Mutex<Measured>,
}

#[derive(Debug, Clone, Copy)]
struct Window {
    begin: Instant,
    length: Duration,
}

#[derive(Debug)]
struct Measured {
    whole: Counts,
    seconds: Vec<Counts>,
    rejected: BTreeMap<String, u64>,
}

/// Counts of a whole run or of one second of it.
#[derive(Debug)]
struct Counts {
    settlements: u64,
    transactions: u64,
    refused: u64,
    offered: u64,
    pushed_back: u64,
    settlement_latency: Histogram<u64>,
    transaction_latency: Histogram<u64>,
}

impl Default for Meter {
    fn default() -> Self {
        let measured = Measured { whole: Counts::new(DIGITS.0), seconds: Vec::new(), rejected: BTreeMap::new() };
        Self {
            whole: None,
            window: OnceLock::new(),
            created: Instant::now(),
            settlements: AtomicU64::new(0),
            measured: Mutex::new(measured),
        }
    }
}

impl Meter {
    /// A meter of one run whose counts also go to the meter of all runs.
    #[must_use]
    pub fn part_of(whole: &Arc<Self>) -> Self {
        Self { whole: Some(Arc::clone(whole)), ..Self::default() }
    }

    /// Measures from `begin` for `length` only. The first window counts; a meter without one measures everything.
    pub fn measure(&self, begin: Instant, length: Duration) {
        self.window.get_or_init(|| Window { begin, length });
    }

    /// Counts a committed transaction that was handed over at `since`.
    pub fn transaction(&self, since: Instant) {
        self.whole.iter().for_each(|whole| whole.transaction(since));
        self.count(Instant::now(), |counts| counts.transactions += 1);
        self.time(since, |counts| &mut counts.transaction_latency);
    }

    /// Counts committed settlements that one transaction settled, and that began or were due at `since`.
    pub fn settled(&self, count: u64, since: Instant) {
        self.whole.iter().for_each(|whole| whole.settled(count, since));
        self.settlements.fetch_add(count, Ordering::Relaxed);
        self.count(Instant::now(), |counts| counts.settlements += count);
        self.time(since, |counts| &mut counts.settlement_latency);
    }

    /// Counts a rejection.
    pub fn reject(&self, rejection: &ledger::Rejection) {
        self.whole.iter().for_each(|whole| whole.reject(rejection));
        let name = format!("{} {}", rejection.code(), rejection.name());
        *self.lock().rejected.entry(name).or_default() += 1;
    }

    /// Counts a transaction that no node took in.
    pub fn refuse(&self) {
        self.whole.iter().for_each(|whole| whole.refuse());
        self.count(Instant::now(), |counts| counts.refused += 1);
    }

    /// Counts settlements that were due at this time.
    pub fn offer(&self, count: u64, due: Instant) {
        self.count(due, |counts| counts.offered += count);
    }

    /// Counts settlements that were due at this time and could not begin.
    pub fn push_back(&self, count: u64, due: Instant) {
        self.count(due, |counts| counts.pushed_back += count);
    }

    /// Latency of settlements so far.
    #[must_use]
    pub fn settlement_latency(&self) -> Latency {
        percentiles(&self.lock().whole.settlement_latency)
    }

    /// Fills in what was measured over this many seconds.
    pub fn fill(&self, report: &mut Report, seconds: f64) {
        let measured = self.lock();
        let counts = &measured.whole;
        let per_second = |count: u64| if seconds > 0.0 { number(count) / seconds } else { 0.0 };
        report.seconds = seconds;
        report.settlements_committed = counts.settlements;
        report.transactions_committed = counts.transactions;
        report.settlements_per_second = per_second(counts.settlements);
        report.transactions_per_second = per_second(counts.transactions);
        report.settlement_latency_ms = percentiles(&counts.settlement_latency);
        report.transaction_latency_ms = percentiles(&counts.transaction_latency);
        report.rejected = measured.rejected.clone();
        report.refused = counts.refused;
        report.offered = (counts.offered > 0).then(|| Offered {
            settlements: counts.offered,
            settlements_per_second: per_second(counts.offered),
            pushed_back: counts.pushed_back,
        });
    }

    /// Figures second by second.
    #[must_use]
    pub fn seconds(&self) -> Vec<SecondFigures> {
        self.lock().seconds.iter().map(Counts::figures).collect()
    }

    /// Which second of the window this time falls into, if any.
    fn second(&self, at: Instant) -> Option<usize> {
        let window = self.window.get().copied().unwrap_or(Window { begin: self.created, length: Duration::MAX });
        let offset = at.checked_duration_since(window.begin)?;
        if offset < window.length { usize::try_from(offset.as_secs()).ok() } else { None }
    }

    /// Adds to the whole run and to the second that this time falls into, if it falls into the window.
    fn count(&self, at: Instant, add: impl Fn(&mut Counts)) {
        if let Some(second) = self.second(at) {
            let mut measured = self.lock();
            add(&mut measured.whole);
            add(measured.second(second));
        }
    }

    /// Times what began or was due at `since` and ends now: for the whole run by when it began, for a second by when it
    /// ended.
    fn time(&self, since: Instant, histogram: impl Fn(&mut Counts) -> &mut Histogram<u64>) {
        let now = Instant::now();
        let micros = now.saturating_duration_since(since).as_micros();
        let latency = u64::try_from(micros).unwrap_or(LATENCY_MAX).min(LATENCY_MAX);
        let mut measured = self.lock();
        if self.second(since).is_some() {
            histogram(&mut measured.whole).saturating_record(latency);
        }
        if let Some(second) = self.second(now) {
            histogram(measured.second(second)).saturating_record(latency);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Measured> {
        self.measured.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Measured {
    fn second(&mut self, index: usize) -> &mut Counts {
        while self.seconds.len() <= index {
            self.seconds.push(Counts::new(DIGITS.1));
        }
        &mut self.seconds[index]
    }
}

impl Counts {
    fn new(digits: u8) -> Self {
        let histogram =
            || Histogram::new_with_max(LATENCY_MAX, digits).expect("the bounds are constants that are allowed");
        Self {
            settlements: 0,
            transactions: 0,
            refused: 0,
            offered: 0,
            pushed_back: 0,
            settlement_latency: histogram(),
            transaction_latency: histogram(),
        }
    }

    fn figures(&self) -> SecondFigures {
        SecondFigures {
            settlements: self.settlements,
            transactions: self.transactions,
            refused: self.refused,
            offered: self.offered,
            pushed_back: self.pushed_back,
            settlement_latency_ms: percentiles(&self.settlement_latency),
            transaction_latency_ms: percentiles(&self.transaction_latency),
        }
    }
}

fn percentiles(histogram: &Histogram<u64>) -> Latency {
    let at = |quantile: f64| millis(histogram.value_at_quantile(quantile));
    let max = if histogram.is_empty() { 0.0 } else { millis(histogram.max()) };
    Latency { p50: at(0.50), p95: at(0.95), p99: at(0.99), max }
}

fn millis(micros: u64) -> f64 {
    number(micros) / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(3);

    #[tokio::test(start_paused = true)]
    async fn only_the_window_counts_and_what_began_inside_is_timed_to_its_end() {
        let meter = Meter::default();
        let begin = Instant::now() + Duration::from_secs(1);
        meter.measure(begin, WINDOW);
        let before = Instant::now();
        tokio::time::advance(Duration::from_millis(1_500)).await;
        meter.settled(2, before); // ends inside, began before: counts, and has no latency
        meter.settled(3, begin); // 500 ms
        tokio::time::advance(WINDOW).await;
        meter.settled(4, begin); // ends after, began inside: 3.5 s, and does not count
        meter.settled(5, Instant::now());
        let mut report = Report::default();
        meter.fill(&mut report, WINDOW.as_secs_f64());
        assert_eq!(report.settlements_committed, 5);
        let latency = report.settlement_latency_ms;
        assert!((499.0..501.0).contains(&latency.p50) && (3_498.0..3_504.0).contains(&latency.max), "{latency:?}");
        let by_second: Vec<u64> = meter.seconds().iter().map(|second| second.settlements).collect();
        assert_eq!(by_second, [5]);
        assert_eq!(meter.settlements.load(Ordering::Relaxed), 14, "a live view sees all");
    }

    #[tokio::test(start_paused = true)]
    async fn offers_count_by_when_they_were_due() {
        let meter = Meter::default();
        let begin = Instant::now();
        meter.measure(begin, WINDOW);
        for second in 0..5 {
            meter.offer(10, begin + Duration::from_secs(second));
        }
        meter.push_back(10, begin + Duration::from_secs(2));
        meter.push_back(10, begin + Duration::from_secs(4));
        let mut report = Report::default();
        meter.fill(&mut report, WINDOW.as_secs_f64());
        let offered = report.offered.expect("something was offered");
        assert_eq!((offered.settlements, offered.pushed_back), (30, 10));
        assert_eq!(meter.seconds().len(), 3);
    }

    #[test]
    fn counts_are_exact_as_real_numbers() {
        for count in [0, 1, u64::from(u32::MAX), 1 << 32, (1 << 53) - 1] {
            assert_eq!(format!("{:.0}", number(count)), count.to_string());
        }
    }
}
