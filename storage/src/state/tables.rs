//! The layers as one: current overlay over the flushed one over the store.

use borsh::BorshDeserialize;
use bytes::Bytes;
use ledger::check::LedgerIdentity;
use ledger::commitments::Commitments;
use ledger::digest::UnspentDigest;
use ledger::entry::Configuration;
use ledger::history::{KeptHistory, Mark};
use ledger::identifier::append_canonical_bytes;
use ledger::merkle::{TileId, TileSource};
use ledger::view::{LedgerView, LiveOutput, Place, ViewFault};
use ledger::{AssetType, Contract, Hash, Origin, Outcome, OutputId, Party, Sequence, TransactionId};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::attestations::Proofs;
use super::codec::{self, OwnerKey, SpentKey, SpentRow};
use super::overlay::{LiveChange, Overlay};
use super::{BatchRecord, Core, Flushed, Memory, StateFault};
use crate::{KvChanges, KvStore, StorageFault, Table};

/// Key of the only row of `Meta`.
const CORE: &[u8] = b"core";

pub(super) fn read_core(kv: &dyn KvStore, identity: &LedgerIdentity) -> Result<Core, StateFault> {
    let Some(row) = kv.get(Table::Meta, CORE)? else {
        let commitments = Commitments::genesis(identity.cluster, identity.group);
        return Ok(Core {
            commitments,
            configuration: Configuration::genesis(),
            live_outputs: 0,
            history: KeptHistory::default(),
            proofs: Proofs::default(),
            position: None,
        });
    };
    let core = Core::read(&row).ok_or(StateFault::Row("meta/core"))?;
    let head = core.commitments.head();
    if (head.cluster, head.group) != (identity.cluster, identity.group) {
        return Err(StateFault::OtherLedger);
    }
    Ok(core)
}

/// Live rows that are read at once while they are summed.
const ROWS_PER_SCAN: usize = 4_096;

/// The live rows are exactly those that the head commits to: their digest and their number.
pub(super) fn check_live(kv: &dyn KvStore, core: &Core) -> Result<(), StateFault> {
    let head = core.commitments.head();
    let (mut digest, mut rows) = (UnspentDigest::default(), 0);
    let mut from = Vec::new();
    loop {
        let page = kv.scan(Table::Live, &[], &from, ROWS_PER_SCAN)?;
        for (key, _) in &page {
            let id: [u8; 32] = key.as_ref().try_into().map_err(|_reason| StateFault::Row("live (key)"))?;
            digest.insert(&OutputId::from_bytes(id));
            rows += 1;
        }
        match page.last() {
            // the smallest key after the last one seen
            Some((last, _)) if page.len() == ROWS_PER_SCAN => from = [last.as_ref(), &[0]].concat(),
            Some(_) | None => break,
        }
    }
    if (digest, rows) == (head.unspent, core.live_outputs) {
        return Ok(());
    }
    Err(StateFault::Inconsistent { batch: head.batch, rows, expected: core.live_outputs })
}

/// The rows of a hash table in the order of their keys: the store takes them in faster that way.
fn sorted<K: Ord, V, S>(rows: &HashMap<K, V, S>) -> Vec<(&K, &V)> {
    let mut sorted: Vec<(&K, &V)> = rows.iter().collect();
    sorted.sort_unstable_by_key(|(key, _)| *key);
    sorted
}

/// Tells everything that one flush writes of an overlay. Rows are encoded into one buffer, one after another.
pub(super) fn tell(overlay: &Overlay, core: &Core, changes: &mut dyn KvChanges) {
    let mut row = Vec::new();
    let mut encode = |write: &dyn Fn(&mut Vec<u8>), changes: &mut dyn KvChanges, table: Table, key: &[u8]| {
        row.clear();
        write(&mut row);
        changes.put(table, key, &row);
    };
    for (id, change) in sorted(&overlay.live) {
        match change {
            LiveChange::Created(output) => {
                encode(&|row| codec::append_live(row, output), changes, Table::Live, id.as_bytes());
            }
            LiveChange::Consumed(_) => changes.delete(Table::Live, id.as_bytes()),
        }
    }
    for (key, held) in overlay.owners_sorted() {
        if held {
            changes.put(Table::Owners, key.as_bytes(), &[]);
        } else {
            changes.delete(Table::Owners, key.as_bytes());
        }
    }
    let beginning = core.history.beginning();
    // nobody looks for spenders of what was forgotten
    for (key, spent) in overlay.spent.range(SpentKey::first_of(beginning.sequence)..) {
        encode(&|row| spent.append(row), changes, Table::Spent, &key.encode());
    }
    for (id, (sequence, number)) in sorted(&overlay.transactions) {
        changes.put(Table::Transactions, id.as_bytes(), &codec::transaction_value(*sequence, *number));
    }
    for (number, record) in &overlay.batches {
        encode(&|row| append_canonical_bytes(row, &**record), changes, Table::Batches, &number.to_be_bytes());
    }
    for ((size, number), root) in &overlay.heads {
        changes.put(Table::Heads, &codec::head_key(*size, *number), root);
    }
    for (tile, hashes) in &overlay.tiles {
        changes.put(Table::Tiles, &tile.key(), hashes);
    }
    for (key, row) in &overlay.attestations {
        changes.put(Table::Attestations, key, row);
    }
    encode(&|row| core.append(row), changes, Table::Meta, CORE);
}

pub(super) fn read_batch(value: &[u8]) -> Result<BatchRecord, StateFault> {
    BatchRecord::try_from_slice(value).map_err(|_reason| StateFault::Row("batches"))
}

/// The layers at one moment.
pub(super) struct View<'a> {
    pub(super) kv: &'a dyn KvStore,
    pub(super) memory: &'a Memory,
}

impl View<'_> {
    /// The overlays, newest first.
    pub(super) fn overlays(&self) -> impl Iterator<Item = &Overlay> {
        std::iter::once(&self.memory.current).chain(self.flushed().map(|flushed| &*flushed.changes))
    }

    fn flushed(&self) -> Option<&Flushed> {
        self.memory.flushed.as_ref()
    }

    pub(super) fn live_output(&self, id: &OutputId) -> Result<Option<LiveOutput>, StateFault> {
        match self.overlays().find_map(|overlay| overlay.live.get(id)) {
            Some(LiveChange::Created(output)) => Ok(Some(**output)),
            Some(LiveChange::Consumed(_)) => Ok(None),
            None => match self.kv.get(Table::Live, id.as_bytes())? {
                Some(value) => codec::read_live(*id, &value).map(Some).ok_or(StateFault::Row("live")),
                None => Ok(None),
            },
        }
    }

    /// Where the history begins, whatever is still on this node's disk: every replica answers alike.
    pub(super) fn beginning(&self) -> Mark {
        self.memory.core.history.beginning()
    }

    /// Place and batch of a sequenced transaction.
    pub(super) fn transaction(&self, id: &TransactionId) -> Result<Option<(Sequence, u64)>, StateFault> {
        let found = match self.overlays().find_map(|overlay| overlay.transactions.get(id)) {
            Some(found) => Some(*found),
            None => match self.kv.get(Table::Transactions, id.as_bytes())? {
                Some(value) => Some(codec::read_transaction(&value).ok_or(StateFault::Row("transactions"))?),
                None => None,
            },
        };
        Ok(found.filter(|(sequence, _)| *sequence >= self.beginning().sequence))
    }

    pub(super) fn batch(&self, number: u64) -> Result<Option<Arc<BatchRecord>>, StateFault> {
        if number < self.beginning().batch {
            return Ok(None);
        }
        match self.recent_batch(number) {
            Some(recent) => Ok(Some(recent)),
            None => self.batch_bytes(number)?.map(|value| read_batch(&value).map(Arc::new)).transpose(),
        }
    }

    /// Whether a batch is new or kept.
    pub(super) fn kept(&self, number: u64) -> Result<(), StateFault> {
        let earliest_batch = self.beginning().batch;
        if (1..earliest_batch).contains(&number) { Err(StateFault::Pruned { earliest_batch }) } else { Ok(()) }
    }

    /// A batch that is not on disk yet, or has just got there.
    pub(super) fn recent_batch(&self, number: u64) -> Option<Arc<BatchRecord>> {
        self.overlays().find_map(|overlay| overlay.batches.get(&number)).map(Arc::clone)
    }

    /// A batch's record on disk.
    pub(super) fn batch_bytes(&self, number: u64) -> Result<Option<Bytes>, StateFault> {
        Ok(self.kv.get(Table::Batches, &number.to_be_bytes())?)
    }

    /// The first batch (log size afterwards, number, root) with at least this size afterwards.
    pub(super) fn head_from(&self, size: Sequence) -> Result<Option<(Sequence, u64, [u8; 32])>, StateFault> {
        let beginning = self.beginning();
        // older layers hold older batches
        let from = codec::head_key(size, beginning.batch);
        if let Some((key, root)) = self.kv.scan(Table::Heads, &[], &from, 1)?.first() {
            let found = codec::read_head_key(key).zip(root.as_ref().try_into().ok());
            return found.map(|((size, batch), root)| Some((size, batch, root))).ok_or(StateFault::Row("heads"));
        }
        let older = self.flushed().map(|flushed| &*flushed.changes).into_iter().chain([&self.memory.current]);
        let mut found = older.filter_map(|overlay| overlay.heads.range((size, beginning.batch)..).next());
        Ok(found.next().map(|((size, batch), root)| (*size, *batch, *root)))
    }

    /// Up to `limit` keys of held outputs that start with `prefix` and come after `after`, in order.
    pub(super) fn owner_keys(
        &self,
        prefix: &[u8],
        after: Option<OwnerKey>,
        limit: usize,
    ) -> Result<Vec<OwnerKey>, StateFault> {
        let mut changed: BTreeMap<OwnerKey, bool> = BTreeMap::new();
        let from = after.unwrap_or(OwnerKey::lower_bound(prefix)).max(OwnerKey::lower_bound(prefix));
        let beyond = |key: &OwnerKey| after.is_none_or(|after| *key > after);
        // what is stored is found there in order; newest last, so that it prevails
        let unstored = self.flushed().filter(|flushed| !flushed.stored).map(|flushed| &*flushed.changes);
        for overlay in unstored.into_iter().chain([&self.memory.current]) {
            let range = overlay.owners().range(from..).take_while(|(key, _)| key.as_bytes().starts_with(prefix));
            changed.extend(range.map(|(key, held)| (*key, *held)));
        }
        let voided = changed.values().filter(|held| !**held).count();
        let stored = self.kv.scan(Table::Owners, prefix, from.as_bytes(), limit + voided + 1)?;
        for (key, _) in stored {
            let key = OwnerKey::from_bytes(&key).ok_or(StateFault::Row("owners"))?;
            changed.entry(key).or_insert(true);
        }
        // beyond the last stored row only overlays were seen, which is all there is
        Ok(changed.into_iter().filter(|(key, held)| *held && beyond(key)).map(|(key, _)| key).take(limit).collect())
    }
}

fn view_fault(fault: StateFault) -> ViewFault {
    ViewFault(Box::new(fault))
}

impl LedgerView for View<'_> {
    fn live(&self, id: &OutputId) -> Result<Option<Place>, ViewFault> {
        match self.overlays().find_map(|overlay| overlay.live.get(id)) {
            Some(LiveChange::Created(output)) => Ok(Some(output.place)),
            Some(LiveChange::Consumed(_)) => Ok(None),
            None => Ok(self.live_output(id).map_err(view_fault)?.map(|output| output.place)),
        }
    }

    fn spender(&self, id: &OutputId, origin: &Origin) -> Result<Option<TransactionId>, ViewFault> {
        let Some((sequence, _)) = self.transaction(&origin.transaction).map_err(view_fault)? else { return Ok(None) };
        let is_of = |row: &SpentRow| row.has(origin.index, id).then_some(row.winner);
        let recent = self
            .overlays()
            .find_map(|overlay| overlay.spent.range(SpentKey::all_of(sequence)).find_map(|(_, row)| is_of(row)));
        if recent.is_some() {
            return Ok(recent);
        }
        // at most as many rows as a transaction has outputs
        let stored = self.kv.scan(Table::Spent, &SpentKey::prefix(sequence), &[], usize::MAX);
        for (_, value) in stored.map_err(|fault| view_fault(fault.into()))? {
            let row = SpentRow::decode(&value).ok_or_else(|| view_fault(StateFault::Row("spent")))?;
            if let Some(winner) = is_of(&row) {
                return Ok(Some(winner));
            }
        }
        Ok(None)
    }

    fn outcome(&self, id: &TransactionId) -> Result<Option<(Sequence, Outcome)>, ViewFault> {
        let Some((sequence, number)) = self.transaction(id).map_err(view_fault)? else { return Ok(None) };
        let batch = self.batch(number).map_err(view_fault)?;
        let record = batch.and_then(|batch| batch.record(sequence).cloned());
        let record = record.ok_or_else(|| view_fault(StateFault::Row("batches (outcome)")))?;
        Ok(Some((sequence, record.outcome)))
    }

    fn log_root_at(&self, size: Sequence) -> Result<Option<Hash>, ViewFault> {
        if size == Sequence::default() {
            return Ok(Some(ledger::merkle::empty_root()));
        }
        let found = self.head_from(size).map_err(view_fault)?;
        Ok(found.filter(|(at, ..)| *at == size).map(|(_, _, root)| Hash::from_bytes(root)))
    }

    fn positions(&self, owner: &Party, asset: &AssetType, limit: usize) -> Result<Vec<LiveOutput>, ViewFault> {
        let prefix = codec::positions_prefix(owner, asset);
        let mut positions = Vec::new();
        let mut after = None;
        while positions.len() < limit {
            let wanted = limit - positions.len();
            let keys = self.owner_keys(&prefix, after, wanted).map_err(view_fault)?;
            for key in &keys {
                let output = self.live_output(&key.output()).map_err(view_fault)?;
                let output = output.ok_or_else(|| view_fault(StateFault::Row("owners (void)")))?;
                if matches!(output.contract, Contract::Position(held) if held.quantity.is_positive()) {
                    positions.push(output);
                }
            }
            after = keys.last().copied();
            if keys.len() < wanted {
                break;
            }
        }
        Ok(positions)
    }
}

impl TileSource for View<'_> {
    type Tile = Vec<u8>;
    type Error = StorageFault;

    fn tile(&self, id: TileId) -> Result<Option<Self::Tile>, Self::Error> {
        if let Some(tile) = self.overlays().find_map(|overlay| overlay.tiles.get(&id)) {
            return Ok(Some(tile.clone()));
        }
        Ok(self.kv.get(Table::Tiles, &id.key())?.map(|tile| tile.to_vec()))
    }
}
