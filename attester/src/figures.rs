//! What a prover did so far, for metrics and reports.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use checker::attestation::ProofStatistics;
use ledger::Head;

/// Batches whose lag is remembered.
const LAGS_KEPT: usize = 4_096;
/// Batches whose heads are remembered, to be compared with the nodes'.
const HEADS_KEPT: usize = 4_096;

/// What a prover did since it started.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Figures {
    /// True once the ledger's configuration has its key.
    pub configured: bool,
    /// The newest batch that any node was seen with.
    pub newest_batch: u64,
    /// The last batch that was judged.
    pub judged_batch: u64,
    /// The last batch that its attestations in the ledger are about.
    pub attested_batch: u64,
    /// Attestations that were ordered.
    pub attestations: u64,
    /// Batches proved, refuted, undecided.
    pub proved: u64,
    /// Batches whose evidence was refuted.
    pub refuted: u64,
    /// Batches that were left undecided.
    pub inconclusive: u64,
    /// What judging them cost.
    pub statistics: ProofStatistics,
    /// Patterns in the cache.
    pub patterns: u64,
    /// Solvers that were replaced by fresh ones.
    pub solvers_replaced: u64,
    /// Transactions and live outputs that the replay holds.
    pub replayed_transactions: u64,
    /// The same of live outputs.
    pub live_outputs: u64,
    /// From a batch's log time to its attestation, in milliseconds: median, 99th percentile and longest of the last batches.
    pub lag_ms: [f64; 3],
    /// Nodes that told something wrong, with what.
    pub faulty_nodes: BTreeMap<String, String>,
    /// Why it does not go on, if it does not.
    pub stuck: Option<String>,
}

#[derive(Debug, Default)]
struct Inner {
    figures: Figures,
    lags_ms: VecDeque<u64>,
    heads: BTreeMap<u64, Head>,
    /// Nodes that did not answer when they were asked last.
    silent: BTreeSet<String>,
}

/// Figures that several tasks write.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    inner: Mutex<Inner>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn figures(&self) -> Figures {
        let inner = self.lock();
        let mut lags: Vec<u64> = inner.lags_ms.iter().copied().collect();
        lags.sort_unstable();
        let at = |percent: usize| {
            let place = lags.len().saturating_sub(1) * percent / 100;
            // milliseconds of some hours at most
            lags.get(place).map_or(0.0, |lag| f64::from(u32::try_from(*lag).unwrap_or(u32::MAX)))
        };
        Figures { lag_ms: [at(50), at(99), at(100)], ..inner.figures.clone() }
    }

    /// True once the ledger has an attestation of this prover.
    pub(crate) fn has_attested(&self) -> bool {
        self.lock().figures.attested_batch > 0
    }

    pub(crate) fn newest_batch(&self) -> u64 {
        self.lock().figures.newest_batch
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Figures)) {
        change(&mut self.lock().figures);
    }

    /// A batch with this head was proved.
    pub(crate) fn proved(&self, head: Head) {
        let mut inner = self.lock();
        inner.heads.insert(head.batch, head);
        while inner.heads.len() > HEADS_KEPT {
            inner.heads.pop_first();
        }
    }

    /// The head of a batch that was proved not long ago.
    pub(crate) fn proved_head(&self, batch: u64) -> Option<Head> {
        self.lock().heads.get(&batch).copied()
    }

    /// Attestations about batches of these log times were ordered just now.
    pub(crate) fn attested(&self, now_ms: u64, log_times_ms: impl Iterator<Item = u64>) {
        let mut inner = self.lock();
        inner.lags_ms.extend(log_times_ms.map(|log_time| now_ms.saturating_sub(log_time)));
        while inner.lags_ms.len() > LAGS_KEPT {
            inner.lags_ms.pop_front();
        }
    }

    /// A node told something wrong; the first thing is kept. Returns whether it is new.
    pub(crate) fn blame(&self, node: &str, what: String) -> bool {
        let mut inner = self.lock();
        let new = !inner.figures.faulty_nodes.contains_key(node);
        inner.figures.faulty_nodes.entry(node.to_owned()).or_insert(what);
        new
    }

    /// A node answered, or did not.
    pub(crate) fn heard(&self, node: &str, answered: bool) {
        let mut inner = self.lock();
        if answered {
            inner.silent.remove(node);
        } else {
            inner.silent.insert(node.to_owned());
        }
    }

    pub(crate) fn is_silent(&self, node: &str) -> bool {
        self.lock().silent.contains(node)
    }

    pub(crate) fn is_faulty(&self, node: &str) -> bool {
        self.lock().figures.faulty_nodes.contains_key(node)
    }
}
