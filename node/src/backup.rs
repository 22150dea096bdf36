//! Backups on disk: written from what a node sends, verified without any node, and made into a new cluster's first node.
//!
//! A backup is a directory: `files/` holds a snapshot of the ledger's tables, `manifest.json` says what it is. The
//! manifest is written last, after everything else is durable, so that a directory without one is no backup.
//!
//! Invariants: nothing is written into a directory that is not empty; every byte is compared with the manifest before it
//! is believed; a state is believed only if its live outputs add up to its head, and that head is the manifest's; a data
//! directory counts only once all of it is durable.
//!
//! Deliberately absent: how a backup travels (that is [`crate::api::backup`] and gRPC).

mod fault;
mod files;
mod manifest;
mod restore;
mod verify;
mod writer;

pub use fault::BackupFault;
pub use manifest::{BackupManifest, Origin};
pub use restore::{Restored, Successor, refuse_unfinished, restore};
pub use verify::{Backup, Contents};
pub use writer::{BackupWriter, Received};

/// Says what a backup is.
pub const MANIFEST: &str = "manifest.json";
/// Where the snapshot's files are.
pub const FILES: &str = "files";

/// Told how far something has come: bytes done, of so many.
pub type Progress<'a> = &'a dyn Fn(u64, u64);
