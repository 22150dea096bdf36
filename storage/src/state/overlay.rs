//! Recent changes, held until they are written: net, so that what came and went leaves no live row.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use foldhash::HashMap;
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
    /// Consumed although an older layer holds it.
    Consumed,
}

/// Changes since a point, by table.
#[derive(Debug, Default)]
pub(super) struct Overlay {
    pub(super) live: HashMap<OutputId, LiveChange>,
    /// True where the output is held, false where an older layer's row is void.
    pub(super) owners: BTreeMap<OwnerKey, bool>,
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
    /// Changed rows, roughly.
    pub(super) fn rows(&self) -> usize {
        self.live.len() + self.spent.len() + self.transactions.len()
    }

    /// Bytes of batches.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a batch's changes of the unspent set. `older` is the overlay that is being written, if any.
    pub(super) fn add_effects(&mut self, older: Option<&Overlay>, effects: &BatchEffects) {
        for consumed in &effects.consumed {
            let output = &consumed.output;
            if !consumed.born_in_batch {
                self.consume(older, output);
            }
        }
        for output in &effects.created {
            self.live.insert(output.id, LiveChange::Created(Box::new(*output)));
            self.owners.insert(OwnerKey::of(output), true);
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
            self.owners.remove(&key);
        } else {
            debug_assert!(older.is_none_or(|older| !matches!(older.live.get(&output.id), Some(LiveChange::Consumed))));
            self.live.insert(output.id, LiveChange::Consumed);
            self.owners.insert(key, false);
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
