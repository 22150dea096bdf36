//! Pruning: rows of the history that nobody can ask for any more leave the disk.
//!
//! Where the history begins is decided by the order ([`ledger::history`]); when this node's rows go is its own affair.
//! They go with the net changes of a flush, in the same atomic write, a bounded number at a time.

use ledger::history::KeptHistory;
use ledger::merkle::{TILE_HEIGHT, TileId};
use ledger::{OutcomeRecord, Sequence};

use super::codec::{self, SpentKey};
use super::{BatchRecord, StateFault, attestations, tables};
use crate::{KvBatch, KvStore, Table};

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

/// Adds the deletion of what is stored from `first` on and was pruned. Returns the first batch that stays.
pub(super) fn add_deletions(
    kv: &dyn KvStore,
    history: &KeptHistory,
    first: u64,
    rows: &mut KvBatch,
) -> Result<u64, StateFault> {
    let mut number = first;
    // a few every second: they leave the batches enough room, and a quiet ledger has nothing but them
    let attestations = attestations::keys_before(kv, history.beginning().batch, ROWS_MAX)?;
    let mut deleted = attestations.len();
    for key in attestations {
        rows.delete(Table::Attestations, key);
    }
    while number < history.beginning().batch && deleted < ROWS_MAX {
        // one that is not stored yet is written by this flush and goes with the next
        let Some(value) = kv.get(Table::Batches, &number.to_be_bytes())? else { break };
        deleted += delete_batch(kv, &tables::read_batch(&value)?, rows)?;
        number += 1;
    }
    if number > first {
        rows.put(Table::Meta, FIRST_STORED, number.to_be_bytes().to_vec());
    }
    Ok(number)
}

fn delete_batch(kv: &dyn KvStore, batch: &BatchRecord, rows: &mut KvBatch) -> Result<usize, StateFault> {
    let end = batch.head.size;
    let first = batch.records.first().map_or(end, |record| record.sequence);
    for OutcomeRecord { transaction, .. } in &batch.records {
        rows.delete(Table::Transactions, transaction.as_bytes().to_vec());
    }
    rows.delete(Table::Batches, batch.head.batch.to_be_bytes().to_vec());
    rows.delete(Table::Heads, codec::head_key(end, batch.head.batch));
    // proofs for what is kept need of the tiles on the left only the roots, which are in the tiles above
    let tile_of = |sequence: Sequence| sequence.get() / TILE_LEAVES;
    for index in tile_of(first)..tile_of(end) {
        rows.delete(Table::Tiles, TileId { level: 0, index }.key().to_vec());
    }
    Ok(batch.records.len() + 2 + delete_spent(kv, first, end, rows)?)
}

/// Deletes who spent outputs of the transactions from `first` to before `end`.
fn delete_spent(kv: &dyn KvStore, first: Sequence, end: Sequence, rows: &mut KvBatch) -> Result<usize, StateFault> {
    let mut deleted = 0;
    let mut from = SpentKey::first_of(first).encode();
    loop {
        let page = kv.scan(Table::Spent, &[], &from, ROWS_PER_SCAN)?;
        for (key, _) in &page {
            let creator = SpentKey::decode(key).ok_or(StateFault::Row("spent (key)"))?.creator();
            if creator >= end {
                return Ok(deleted);
            }
            rows.delete(Table::Spent, key.to_vec());
            deleted += 1;
        }
        match page.last() {
            Some((last, _)) if page.len() == ROWS_PER_SCAN => from = [last.as_ref(), &[0]].concat(),
            Some(_) | None => return Ok(deleted),
        }
    }
}
