//! Copies of a replay as bytes: what it takes to go on from there without everything before.
//!
//! A copy is whole where it reads. Whether it is true is another question: what a replay takes from it is named by the
//! evidence of every batch that uses it, so whoever compares that evidence with what trusted provers attest need not
//! trust where the copy came from.

use borsh::{BorshDeserialize, BorshSerialize};
use ledger::ClusterId;
use ledger::identifier::{canonical_bytes, tagged_hash};

use crate::frontier::Frontier;
use crate::replay::Replay;
use crate::state::{Snapshot, SnapshotFault};

const DOMAIN: &[u8; 16] = b"seriatim replay.";

/// A replay that stands between two batches.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ReplayCopy {
    cluster: ClusterId,
    group: u16,
    snapshot: Snapshot,
}

/// Why bytes are no copy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CopyFault {
    /// Not what was written: cut off, damaged, or no copy at all.
    #[error("it is not what was written: cut off, damaged, or no copy of a replay")]
    Damaged,
    /// Another version wrote it.
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    /// It is of another ledger.
    #[error("it is of ledger {0}")]
    OtherLedger(ClusterId),
    /// Its parts contradict each other.
    #[error(transparent)]
    Contradictory(#[from] SnapshotFault),
}

impl ReplayCopy {
    /// A copy of a replay; `None` where that stands inside a batch.
    #[must_use]
    pub fn of(replay: &Replay) -> Option<Self> {
        let (cluster, group) = replay.identity();
        replay.snapshot().map(|snapshot| Self { cluster, group, snapshot })
    }

    /// The batch behind which it stands.
    #[must_use]
    pub const fn batch(&self) -> u64 {
        self.snapshot.frontier.batch
    }

    /// Where it stands.
    #[must_use]
    pub const fn frontier(&self) -> &Frontier {
        &self.snapshot.frontier
    }

    /// The bytes: a hash, and what it is the hash of.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let content = canonical_bytes(self);
        [tagged_hash(DOMAIN, &[&content]).as_slice(), &content].concat()
    }

    /// Reads bytes.
    ///
    /// # Errors
    /// Where they are not what [`Self::to_bytes`] wrote.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CopyFault> {
        let (check, content) = bytes.split_first_chunk::<32>().ok_or(CopyFault::Damaged)?;
        if tagged_hash(DOMAIN, &[content]) != *check {
            return Err(CopyFault::Damaged);
        }
        borsh::from_slice(content).map_err(|fault| CopyFault::Unreadable(fault.to_string()))
    }

    /// The replay of this ledger again. The seed should not be known to whoever writes transactions.
    ///
    /// # Errors
    /// Where it is another ledger's, or contradicts itself.
    pub fn replay(&self, cluster: ClusterId, seed: u64) -> Result<Replay, CopyFault> {
        if self.cluster != cluster {
            return Err(CopyFault::OtherLedger(self.cluster));
        }
        Ok(Replay::from_snapshot(cluster, self.group, &self.snapshot, seed)?)
    }
}
