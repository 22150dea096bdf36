//! One durable, ordered log of opaque records.
//!
//! In flow batches of operations, out flow records in order. Indices inside the log are contiguous: a batch
//! that would leave a hole is refused, and a hole found on disk is a fault. What is deliberately absent: any
//! cache of records that are not synced yet; a reader sees what is durable.

mod extent;
mod segments;

use std::{fmt::Debug, ops::Range};

use bytes::Bytes;
use futures::future::BoxFuture;
use meters::Distribution;

pub use self::extent::Extent;
pub use self::segments::{LogOptions, SegmentLog};
use crate::StorageFault;

/// A durable log. Implementations share [`crate::conformance::log_engine`].
pub trait LogEngine: Send + Sync + Debug + 'static {
    /// Queues a batch. Batches take effect in the order of the calls (not in the order in which the futures
    /// are polled), each whole or not at all, and batches that wait together share one sync.
    ///
    /// The future resolves when the batch is durable; dropping it does not take the batch back. It fails
    /// with [`StorageFault::OutOfOrder`] where an entry does not follow the last one (nothing of that batch is
    /// written, others are unaffected); any other fault is final: every later append fails with it too.
    ///
    /// The call itself waits while the engine's queue is full, which holds a caller back that outruns its disk.
    fn append(&self, batch: LogBatch) -> BoxFuture<'static, Result<(), StorageFault>>;

    /// Records of the range in order, as far as they are present and durable; stops after the record with
    /// which the payloads reach `bytes_max`, so there is at least one record if any is present.
    ///
    /// # Errors
    /// A damaged or missing record inside the log is a fault, never a gap in the answer.
    fn read(&self, range: Range<u64>, bytes_max: usize) -> Result<Vec<(u64, Bytes)>, StorageFault>;

    /// First and last index present, or `None` if the log holds no entry.
    ///
    /// # Errors
    /// The log cannot be read.
    fn bounds(&self) -> Result<Option<(u64, u64)>, StorageFault>;

    /// A durable metadata value.
    ///
    /// # Errors
    /// The value is damaged, or the log cannot be read.
    fn meta(&self, key: MetaKey) -> Result<Option<Bytes>, StorageFault>;

    /// Bytes that the log takes on disk.
    ///
    /// # Errors
    /// The directory cannot be read.
    fn bytes_on_disk(&self) -> Result<u64, StorageFault>;

    /// Counters since the engine was opened.
    fn stats(&self) -> LogStats;
}

/// Operations that become durable together, applied in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogBatch {
    ops: Vec<LogOp>,
}

/// One change of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogOp {
    /// Adds the entry that follows the last one. The first entry of an empty log may have any index that was
    /// not purged.
    Put {
        /// Position of the entry.
        index: u64,
        /// The entry, opaque.
        record: Bytes,
    },
    /// Removes this index and everything after it.
    TruncateFrom(u64),
    /// Removes this index and everything before it, for ever.
    PurgeThrough(u64),
    /// Sets a metadata value.
    PutMeta {
        /// Which value.
        key: MetaKey,
        /// The value, opaque.
        value: Bytes,
    },
}

/// Metadata beside the entries; the numbers are part of the disk format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MetaKey {
    /// The vote of this node.
    Vote,
    /// What is known to be committed.
    Committed,
    /// The last entry that was purged.
    Purged,
    /// What the node knows about itself.
    Node,
}

impl MetaKey {
    /// Every key.
    pub const ALL: [Self; 4] = [Self::Vote, Self::Committed, Self::Purged, Self::Node];

    /// The number on disk.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Vote => 1,
            Self::Committed => 2,
            Self::Purged => 3,
            Self::Node => 4,
        }
    }

    /// The key with this number.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|key| key.code() == code)
    }
}

impl LogBatch {
    /// An empty batch; appending it waits for everything queued before.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds [`LogOp::Put`].
    #[must_use]
    pub fn put(self, index: u64, record: impl Into<Bytes>) -> Self {
        self.with(LogOp::Put { index, record: record.into() })
    }

    /// Adds [`LogOp::TruncateFrom`].
    #[must_use]
    pub fn truncate_from(self, index: u64) -> Self {
        self.with(LogOp::TruncateFrom(index))
    }

    /// Adds [`LogOp::PurgeThrough`].
    #[must_use]
    pub fn purge_through(self, index: u64) -> Self {
        self.with(LogOp::PurgeThrough(index))
    }

    /// Adds [`LogOp::PutMeta`].
    #[must_use]
    pub fn put_meta(self, key: MetaKey, value: impl Into<Bytes>) -> Self {
        self.with(LogOp::PutMeta { key, value: value.into() })
    }

    /// Adds an operation.
    #[must_use]
    pub fn with(mut self, op: LogOp) -> Self {
        self.ops.push(op);
        self
    }

    /// The operations in order.
    #[must_use]
    pub fn ops(&self) -> &[LogOp] {
        &self.ops
    }

    /// Bytes of payload.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        let payload = |op: &LogOp| match op {
            LogOp::Put { record, .. } => record.len(),
            LogOp::PutMeta { value, .. } => value.len(),
            LogOp::TruncateFrom(_) | LogOp::PurgeThrough(_) => 0,
        };
        self.ops.iter().map(payload).fold(0, usize::saturating_add)
    }
}

/// Counters of a log since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogStats {
    /// Batches that became durable.
    pub batches: u64,
    /// Syncs that made them durable; fewer than batches where batches shared one.
    pub syncs: u64,
    /// Entries put.
    pub entries: u64,
    /// Payload bytes of entries and metadata.
    pub payload_bytes: u64,
    /// How long each write took with the sync that made it durable, where the engine measures it.
    pub write_times: Distribution,
}

impl LogStats {
    /// Counts a batch.
    fn count(&mut self, batch: &LogBatch) {
        let entries = batch.ops().iter().filter(|op| matches!(op, LogOp::Put { .. })).count();
        self.batches += 1;
        self.entries = self.entries.saturating_add(u64::try_from(entries).unwrap_or(u64::MAX));
        self.payload_bytes =
            self.payload_bytes.saturating_add(u64::try_from(batch.payload_bytes()).unwrap_or(u64::MAX));
    }
}
