//! What a strategy has done so far.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ledger::Rejection;

/// Counts since the strategy was opened. Each request ends up in `settled` or `failed`, each transaction in `committed` or
/// `rejected`, or nobody took it in or knows of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Metrics {
    /// Requests taken in.
    pub requests: u64,
    /// Requests carried out.
    pub settled: u64,
    /// Requests that failed, whatever the reason; those of which nobody knows whether they happened included.
    pub failed: u64,
    /// Transactions sent, each once, however often its bytes travelled.
    pub transactions: u64,
    /// Those of them that committed, upkeep included.
    pub committed: u64,
    /// Those that took a place in the order and were rejected there: sequenced for nothing.
    pub wasted: u64,
    /// Rejections by number and name, before the order and in it.
    pub rejected: BTreeMap<String, u64>,
    /// Transactions that lost a race for a position of this party, each of which was wasted, too.
    pub lost_races: u64,
    /// Times that a request travelled again in another transaction: after a lost race, or because another request of its
    /// transaction failed. Each request of a transaction counts.
    pub retries: u64,
    /// Committed transactions that carried no request: merging, netting, splitting, rebalancing, returning what expired.
    pub upkeep: u64,
    /// Requests that drew on the large remainder of a p99 pool.
    pub on_remainder: u64,
    /// Transactions under way.
    pub in_flight: u64,
}

/// Metrics that several tasks add to.
#[derive(Debug, Clone, Default)]
pub(super) struct Counters(Arc<Mutex<Metrics>>);

impl Counters {
    pub(super) fn add(&self) -> MutexGuard<'_, Metrics> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn read(&self) -> Metrics {
        self.add().clone()
    }

    /// A request came; one that is not sound failed at once.
    pub(super) fn request(&self, sound: bool) {
        let mut metrics = self.add();
        metrics.requests += 1;
        metrics.failed += u64::from(!sound);
    }

    pub(super) fn reject(&self, rejection: &Rejection, sequenced: bool) {
        let mut metrics = self.add();
        *metrics.rejected.entry(format!("{} {}", rejection.code(), rejection.name())).or_default() += 1;
        metrics.wasted += u64::from(sequenced);
    }
}
