//! Pruning: rows of the history that nobody can ask for any more leave the disk.
//!
//! Where the history begins is decided by the order ([`ledger::history`]); when this node's rows go is its own affair.
//! They go with the net changes of a flush, in the same atomic write, a bounded number at a time.

use ledger::history::KeptHistory;
use ledger::merkle::{TILE_HEIGHT, TileId};
use ledger::{OutcomeRecord, Sequence};

use super::codec::{self, SpentKey};
use super::{BatchRecord, StateFault, attestations, tables};
use crate::{KvChanges, KvStore, Table};

/// Key of the row of `Meta` with the first batch that is still stored.
const FIRST_STORED: &[u8] = b"first-stored-batch";
/// Rows that one flush removes, about: twice what it usually adds, so that it catches up.
const ROWS_MAX: usize = 400_000;
/// Leaves under one tile of leaf hashes.
const TILE_LEAVES: u64 = 1 << TILE_HEIGHT;
/// Rows that are read at once.
const ROWS_PER_SCAN: usize = 1_024;

/// The first batch that is still stored, pruned ones included.
pub(super) fn first_stored(kv: &dyn KvStore) -> Result<u64, StateFault> {
    match kv.get(Table::Meta, FIRST_STORED)? {
        Some(row) => {
            let bytes = row.as_ref().try_into().map_err(|_reason| StateFault::Row("meta/first-stored-batch"))?;
            Ok(u64::from_be_bytes(bytes))
        }
        None => Ok(1),
    }
}

/// What leaves the disk with a flush.
pub(super) struct Deletions {
    keys: Vec<(Table, Vec<u8>)>,
    before: u64,
    /// The first batch that stays.
    pub(super) first_stored: u64,
}

impl Deletions {
    /// What is stored from `first` on and was pruned.
    pub(super) fn find(kv: &dyn KvStore, history: &KeptHistory, first: u64) -> Result<Self, StateFault> {
        // a few every second: they leave the batches enough room, and a quiet ledger has nothing but them
        let attestations = attestations::keys_before(kv, history.beginning().batch, ROWS_MAX)?;
        let keys = attestations.into_iter().map(|key| (Table::Attestations, key.to_vec())).collect();
        let mut deletions = Self { keys, before: first, first_stored: first };
        while deletions.first_stored < history.beginning().batch && deletions.keys.len() < ROWS_MAX {
            // one that is not stored yet is written by this flush and goes with the next
            let Some(value) = kv.get(Table::Batches, &deletions.first_stored.to_be_bytes())? else { break };
            deletions.add_batch(kv, &tables::read_batch(&value)?)?;
            deletions.first_stored += 1;
        }
        Ok(deletions)
    }

    /// Tells them, and where the stored history begins then.
    pub(super) fn tell(&self, changes: &mut dyn KvChanges) {
        for (table, key) in &self.keys {
            changes.delete(*table, key);
        }
        if self.first_stored > self.before {
            changes.put(Table::Meta, FIRST_STORED, &self.first_stored.to_be_bytes());
        }
    }

    /// What telling them takes, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.keys.iter().map(|(_, key)| key.len()).sum()
    }

    fn add_batch(&mut self, kv: &dyn KvStore, batch: &BatchRecord) -> Result<(), StateFault> {
        let end = batch.head.size;
        let first = batch.records.first().map_or(end, |record| record.sequence);
        for OutcomeRecord { transaction, .. } in &batch.records {
            self.keys.push((Table::Transactions, transaction.as_bytes().to_vec()));
        }
        self.keys.push((Table::Batches, batch.head.batch.to_be_bytes().to_vec()));
        self.keys.push((Table::Heads, codec::head_key(end, batch.head.batch).to_vec()));
        // proofs for what is kept need of the tiles on the left only the roots, which are in the tiles above
        let tile_of = |sequence: Sequence| sequence.get() / TILE_LEAVES;
        for index in tile_of(first)..tile_of(end) {
            self.keys.push((Table::Tiles, TileId { level: 0, index }.key().to_vec()));
        }
        self.add_spent(kv, first, end)
    }

    /// Adds who spent outputs of the transactions from `first` to before `end`.
    fn add_spent(&mut self, kv: &dyn KvStore, first: Sequence, end: Sequence) -> Result<(), StateFault> {
        let mut from = SpentKey::first_of(first).encode().to_vec();
        loop {
            let page = kv.scan(Table::Spent, &[], &from, ROWS_PER_SCAN)?;
            for (key, _) in &page {
                let creator = SpentKey::decode(key).ok_or(StateFault::Row("spent (key)"))?.creator();
                if creator >= end {
                    return Ok(());
                }
                self.keys.push((Table::Spent, key.to_vec()));
            }
            match page.last() {
                Some((last, _)) if page.len() == ROWS_PER_SCAN => from = [last.as_ref(), &[0]].concat(),
                Some(_) | None => return Ok(()),
            }
        }
    }
}
