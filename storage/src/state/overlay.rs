//! Recent changes, held until they are written: net, so that what came and went leaves no live row.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use foldhash::{HashMap, HashMapExt};
use ledger::apply::BatchEffects;
use ledger::merkle::TileId;
use ledger::view::LiveOutput;
use ledger::{OutputId, Sequence, TransactionId};

use super::BatchRecord;
use super::codec::{OwnerKey, SpentKey, SpentRow};

/// An output as the overlay changed it.
#[derive(Debug, Clone)]
pub(super) enum LiveChange {
    Created(Box<LiveOutput>),
    /// Consumed although an older layer holds it, under this owner.
    Consumed(Box<OwnerKey>),
}

impl LiveChange {
    /// The row of the owner, and whether the output is held.
    fn owner(&self) -> (OwnerKey, bool) {
        match self {
            Self::Created(output) => (OwnerKey::of(output), true),
            Self::Consumed(owner) => (**owner, false),
        }
    }
}

/// Changed rows of owners: true where the output is held, false where an older layer's row is void.
type Owners = BTreeMap<OwnerKey, bool>;

/// Changes since a point, by table.
#[derive(Debug, Default)]
pub(super) struct Overlay {
    pub(super) live: HashMap<OutputId, LiveChange>,
    /// By owner, what `live` holds: kept only from the first question on, because keeping it costs as much as the
    /// rest of the overlay.
    owners: OnceLock<Owners>,
    owners_asked: AtomicBool,
    pub(super) spent: BTreeMap<SpentKey, SpentRow>,
    pub(super) transactions: HashMap<TransactionId, (Sequence, u64)>,
    pub(super) batches: BTreeMap<u64, Arc<BatchRecord>>,
    /// Batches by (log size afterwards, number).
    pub(super) heads: BTreeMap<(Sequence, u64), [u8; 32]>,
    pub(super) tiles: BTreeMap<TileId, Vec<u8>>,
    /// Rows by their keys.
    pub(super) attestations: BTreeMap<Vec<u8>, Bytes>,
    bytes: usize,
}

impl Overlay {
    /// The overlay that comes after this one: where owners were asked for they will be again.
    pub(super) fn successor(&self) -> Self {
        let owners =
            if self.owners_asked.load(Ordering::Relaxed) { OnceLock::from(Owners::new()) } else { OnceLock::new() };
        // as much will come again, about: growing a table moves it, a few times over
        let live = HashMap::with_capacity(self.live.len());
        let transactions = HashMap::with_capacity(self.transactions.len());
        Self { owners, live, transactions, ..Self::default() }
    }

    /// The changed rows of owners, to look for some of them.
    pub(super) fn owners(&self) -> &Owners {
        self.owners_asked.store(true, Ordering::Relaxed);
        self.owners.get_or_init(|| self.owners_sorted().into_iter().collect())
    }

    /// The changed rows of owners, all of them.
    pub(super) fn owners_sorted(&self) -> Vec<(OwnerKey, bool)> {
        if let Some(owners) = self.owners.get() {
            return owners.iter().map(|(key, held)| (*key, *held)).collect();
        }
        let mut rows: Vec<(OwnerKey, bool)> = self.live.values().map(LiveChange::owner).collect();
        rows.sort_unstable_by_key(|(key, _)| *key);
        rows
    }

    /// Changed rows, roughly.
    pub(super) fn rows(&self) -> usize {
        self.live.len() + self.spent.len() + self.transactions.len()
    }

    /// Bytes of batches.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of all rows and their keys, about.
    pub(super) fn written_bytes_about(&self) -> usize {
        const LIVE_BYTES: usize = 330; // with the row of the owner
        const SPENT_BYTES: usize = 80;
        const TRANSACTION_BYTES: usize = 160; // with its outcome among those of the batch
        const BATCH_BYTES: usize = 1_024; // besides bundle and outcomes
        self.live.len() * LIVE_BYTES
            + self.spent.len() * SPENT_BYTES
            + self.transactions.len() * TRANSACTION_BYTES
            + self.batches.len() * BATCH_BYTES
            + self.bytes
    }

    /// Adds a batch's changes of the unspent set. `older` is the overlay that is being written, if any.
    pub(super) fn add_effects(&mut self, older: Option<&Overlay>, effects: &BatchEffects) {
        for consumed in effects.consumed.iter().filter(|consumed| !consumed.born_in_batch) {
            self.consume(older, &consumed.output);
        }
        self.live.reserve(effects.created.len());
        for output in &effects.created {
            if let Some(owners) = self.owners.get_mut() {
                owners.insert(OwnerKey::of(output), true);
            }
            self.live.insert(output.id, LiveChange::Created(Box::new(*output)));
        }
        let spender = |sequence: Sequence| {
            let first = effects.records.first().map(|record| record.sequence.get()).unwrap_or_default();
            let index = usize::try_from(sequence.get() - first).ok()?;
            effects.records.get(index).map(|record| record.transaction)
        };
        for consumed in &effects.consumed {
            let winner = spender(consumed.spender).expect("the spender is of this batch");
            let place = consumed.output.place;
            let row = self.spent.entry(SpentKey::new(place.sequence, consumed.spender));
            row.or_insert_with(|| SpentRow::new(winner)).add(place.index, &consumed.output.id);
        }
    }

    fn consume(&mut self, older: Option<&Overlay>, output: &LiveOutput) {
        let created_here = matches!(self.live.get(&output.id), Some(LiveChange::Created(_)));
        let key = OwnerKey::of(output);
        // an output created in this overlay is in no older layer: nothing of it is left
        if created_here {
            self.live.remove(&output.id);
            self.owners.get_mut().map(|owners| owners.remove(&key));
        } else {
            debug_assert!(
                older.is_none_or(|older| !matches!(older.live.get(&output.id), Some(LiveChange::Consumed(_))))
            );
            self.live.insert(output.id, LiveChange::Consumed(Box::new(key)));
            self.owners.get_mut().map(|owners| owners.insert(key, false));
        }
    }

    /// Adds the rows of an attestation.
    pub(super) fn add_attestation(&mut self, rows: [(Vec<u8>, Vec<u8>); 2]) {
        for (key, row) in rows {
            self.bytes += row.len();
            self.attestations.insert(key, row.into());
        }
    }

    /// Adds a batch to the history.
    pub(super) fn add_batch(&mut self, record: BatchRecord, tiles: Vec<(TileId, Vec<u8>)>) -> Arc<BatchRecord> {
        let batch = record.head.batch;
        for outcome in &record.records {
            self.transactions.insert(outcome.transaction, (outcome.sequence, batch));
        }
        self.heads.insert((record.head.size, batch), *record.head.log_root.as_bytes());
        self.tiles.extend(tiles);
        self.bytes += record.bundle.len();
        let record = Arc::new(record);
        self.batches.insert(batch, Arc::clone(&record));
        record
    }
}
