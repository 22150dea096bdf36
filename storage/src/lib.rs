//! What a replica keeps on disk: one ordered log and one set of key-value tables.
//!
//! The sequencer writes opaque records to a [`LogEngine`]; the ledger's state lives in a [`KvStore`]. Both
//! are traits, because a simulator puts disks of its own behind them; [`SegmentLog`] and [`RocksKv`] are what
//! production runs. [`conformance`] states what any implementation has to hold.
//!
//! Invariants: a log append that was answered is durable; a damaged or missing record is a
//! [`StorageFault`], never an answer; a write to several tables is on disk whole or not at all; a restore
//! replaces the whole content or none of it.
//!
//! Deliberately absent: any idea of what records and rows mean, and of Raft.

pub mod conformance;
mod directory;
pub mod fault;
pub mod kv;
pub mod log;
pub mod record;
pub mod snapshot;
pub mod state;

pub use fault::StorageFault;
pub use kv::{KvChanges, KvOptions, KvStore, Manner, RocksKv, Table};
pub use log::{LogBatch, LogEngine, LogOp, LogOptions, LogStats, MetaKey, SegmentLog};
pub use snapshot::{FileEntry, Manifest, SnapshotSink, SnapshotSource};
pub use state::{AppliedEntry, EntryResult, FlushSize, LedgerState, StateFault};
