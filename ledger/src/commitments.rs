//! The running commitments of the ledger: after each batch a new head, and the tiles of the log that filled up.

use borsh::{BorshDeserialize, BorshSerialize};
use flaws::{Flaw, is_planted};

use crate::apply::BatchEffects;
use crate::digest::UnspentDigest;
use crate::head::Head;
use crate::identifier::ClusterId;
use crate::merkle::{MerkleLog, TileId};
use crate::quantity::{LogTime, Sequence};

/// Log, digest and head after the batches so far.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Commitments {
    log: MerkleLog,
    head: Head,
}

impl Commitments {
    /// An empty ledger's.
    #[must_use]
    pub fn genesis(cluster: ClusterId, group: u16) -> Self {
        let log = MerkleLog::new();
        let head = Head {
            cluster,
            group,
            batch: 0,
            size: Sequence::default(),
            log_root: log.root(),
            unspent: UnspentDigest::default(),
            log_time: LogTime::ZERO,
            epoch: 0,
        };
        Self { log, head }
    }

    /// The newest head.
    #[must_use]
    pub const fn head(&self) -> &Head {
        &self.head
    }

    /// The Merkle log of outcomes.
    #[must_use]
    pub const fn log(&self) -> &MerkleLog {
        &self.log
    }

    /// Advances by one batch. Returns the tiles that filled up, to be stored.
    ///
    /// # Panics
    /// Where `log_time` is before that of the last batch: callers pass the largest log time so far.
    #[must_use = "full tiles are not kept here"]
    pub fn advance(&mut self, effects: &BatchEffects, log_time: LogTime, epoch: u64) -> Vec<(TileId, Vec<u8>)> {
        let tiles = self.log.append_all(&effects.leaves);
        for consumed in effects.consumed.iter().filter(|consumed| !consumed.born_in_batch) {
            self.head.unspent.remove(&consumed.output.id);
        }
        for created in &effects.created {
            self.head.unspent.insert(&created.id);
        }
        assert!(log_time >= self.head.log_time || is_planted(Flaw::LogTimeRunsBack), "log time never runs backwards");
        self.head = Head {
            batch: self.head.batch.checked_add(1).expect("fewer than 2^64 batches"),
            size: Sequence::new(self.log.size()),
            log_root: self.log.root(),
            log_time,
            epoch,
            ..self.head
        };
        tiles
    }
}
