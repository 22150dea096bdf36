//! Ordered tables of opaque rows, written atomically, copied and replaced as a whole.
//!
//! A write is seen at once and is durable only after [`KvStore::sync`]; until then a crash may lose it, but
//! only as a whole, and together with everything written after it.

mod rocks;

use std::{fmt::Debug, sync::Arc, time::Duration};

use bytes::Bytes;

pub use self::rocks::{KvOptions, RocksKv};
use crate::{
    StorageFault,
    snapshot::{Manifest, SnapshotSink, SnapshotSource},
};

/// Snapshots that a store keeps: the newest for those who need one now, and the one before for those who are
/// still being served from it.
pub const SNAPSHOTS_KEPT: usize = 2;

/// A store of tables. All calls block; implementations share [`crate::conformance::kv_store`].
pub trait KvStore: Send + Sync + Debug + 'static {
    /// One row.
    ///
    /// # Errors
    /// Damage and faults of the disk.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StorageFault>;

    /// Many rows of one table at once, in the order of the keys.
    ///
    /// # Errors
    /// Damage and faults of the disk.
    fn get_many(&self, table: Table, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, StorageFault>;

    /// Up to `limit` rows in key order whose key starts with `prefix` and is `from` or greater.
    ///
    /// # Errors
    /// Damage and faults of the disk.
    fn scan(&self, table: Table, prefix: &[u8], from: &[u8], limit: usize)
    -> Result<Vec<(Bytes, Bytes)>, StorageFault>;

    /// Writes all changes that `tell` tells, over all tables; the later of two on one key wins. Whatever happens, all of
    /// them are on disk in the end or none, but who reads meanwhile may see a part. One write and no sync at a time.
    ///
    /// # Errors
    /// Faults of the disk. They are final: every later write and sync fails with the first one.
    fn write(&self, manner: Manner<'_>, tell: &dyn Fn(&mut dyn KvChanges)) -> Result<(), StorageFault>;

    /// Makes everything written before durable.
    ///
    /// # Errors
    /// As for [`KvStore::write`].
    fn sync(&self) -> Result<(), StorageFault>;

    /// A consistent and durable copy of everything written so far, synced or not. Keeps the newest
    /// [`SNAPSHOTS_KEPT`]; an older one disappears when its last user drops it. Takes time in proportion to
    /// what changed since the last one: call it off the hot path. `taken` is called as soon as nothing that is written
    /// later gets into the copy; to make it last, which is most of the time, goes on after that.
    ///
    /// # Errors
    /// Faults of the disk.
    fn checkpoint(&self, label: Bytes, taken: Box<dyn FnOnce() + '_>) -> Result<Arc<dyn SnapshotSource>, StorageFault>;

    /// The newest copy that is stored, also from before a restart.
    ///
    /// # Errors
    /// Faults of the disk.
    fn newest_checkpoint(&self) -> Result<Option<Arc<dyn SnapshotSource>>, StorageFault>;

    /// Starts to take in a snapshot. It comes instead of the whole content when it is finished, also of what
    /// is written meanwhile. Stored checkpoints stay.
    ///
    /// # Errors
    /// Faults of the disk.
    fn begin_restore(&self, manifest: Manifest) -> Result<Box<dyn SnapshotSink>, StorageFault>;

    /// Bytes that the store and its snapshots take on disk.
    ///
    /// # Errors
    /// The directory cannot be read.
    fn bytes_on_disk(&self) -> Result<u64, StorageFault>;

    /// Bytes that each table takes on disk, snapshots aside; nothing where the store does not know.
    ///
    /// # Errors
    /// Faults of the disk.
    fn table_bytes(&self) -> Result<Vec<(Table, u64)>, StorageFault> {
        Ok(Vec::new())
    }
}

/// The tables; their names are part of the disk format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Unspent outputs.
    Live,
    /// Outputs by owner.
    Owners,
    /// Who spent which outputs, by creator and spender.
    Spent,
    /// Where each transaction id was decided.
    Transactions,
    /// Ordered batches with their outcomes.
    Batches,
    /// Tiles of the Merkle log.
    Tiles,
    /// Heads by sequence.
    Heads,
    /// What provers attest.
    Attestations,
    /// Single values.
    Meta,
}

impl Table {
    /// Every table.
    pub const ALL: [Self; 9] = [
        Self::Live,
        Self::Owners,
        Self::Spent,
        Self::Transactions,
        Self::Batches,
        Self::Tiles,
        Self::Heads,
        Self::Attestations,
        Self::Meta,
    ];

    /// The name on disk.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Owners => "owners",
            Self::Spent => "spent",
            Self::Transactions => "transactions",
            Self::Batches => "batches",
            Self::Tiles => "tiles",
            Self::Heads => "heads",
            Self::Attestations => "attestations",
            Self::Meta => "meta",
        }
    }
}

/// How a write goes about it.
#[derive(Clone, Copy)]
pub struct Manner<'a> {
    /// What keys and values will take together, in bytes, about.
    pub bytes_about: usize,
    /// Called between the parts of a large write with the time that the last one took. It may sleep: nobody waits for this
    /// write, and others want the processor.
    pub rest: &'a dyn Fn(Duration),
}

impl Debug for Manner<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Manner").field("bytes_about", &self.bytes_about).finish_non_exhaustive()
    }
}

impl Default for Manner<'_> {
    /// A small write, without pauses.
    fn default() -> Self {
        Self { bytes_about: 0, rest: &|_| {} }
    }
}

/// Takes changes that are written together, in order, while they are told.
pub trait KvChanges {
    /// Sets a row.
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]);

    /// Removes a row if it is there.
    fn delete(&mut self, table: Table, key: &[u8]);
}
