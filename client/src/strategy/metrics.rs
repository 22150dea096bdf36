//! What a strategy has done so far.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ledger::Rejection;

/// Counts since the strategy was opened.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Metrics {
    /// Requests taken in.
    pub requests: u64,
    /// Requests carried out.
    pub settled: u64,
    /// Requests that failed, whatever the reason.
    pub failed: u64,
    /// Transactions sent, each once, however often its bytes travelled.
    pub transactions: u64,
    /// Those of them that committed.
    pub committed: u64,
    /// Those that took a place in the order and were rejected there: sequenced for nothing.
    pub wasted: u64,
    /// Rejections by number and name, before the order and in it.
    pub rejected: BTreeMap<String, u64>,
    /// Transactions that lost a race for a position of this party.
    pub lost_races: u64,
    /// Times that a request travelled again in another transaction.
    pub retries: u64,
    /// Committed transactions that carried no request: netting, splitting, rebalancing, returning what expired.
    pub upkeep: u64,
    /// Positions that those consumed.
    pub upkeep_inputs: u64,
    /// Positions and allocations consumed, by all transactions.
    pub inputs: u64,
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

    pub(super) fn reject(&self, rejection: &Rejection, sequenced: bool) {
        let mut metrics = self.add();
        *metrics.rejected.entry(format!("{} {}", rejection.code(), rejection.name())).or_default() += 1;
        metrics.wasted += u64::from(sequenced);
    }
}
