//! Frontiers: where one chunk ends and the next one begins.

use borsh::{BorshDeserialize, BorshSerialize};
use ledger::digest::UnspentDigest;
use ledger::merkle::empty_root;
use ledger::{Hash, Head, LogTime, Sequence};

/// Whether a chunk ended its batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub enum Standing {
    /// The last batch is complete.
    BetweenBatches,
    /// More of the next batch is to come, at the same log time.
    InsideBatch,
}

/// The ledger between two chunks, in a few bytes. A history is proved when every chunk is and each begins at the
/// frontier where the one before it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub struct Frontier {
    /// The last batch that is complete; 0 before the first.
    pub batch: u64,
    /// Whether a part of the next one is behind this frontier.
    pub standing: Standing,
    /// The place of the next transaction.
    pub next: Sequence,
    /// Root of the Merkle log of the outcomes before.
    pub log_root: Hash,
    /// Digest of the live outputs. An adversary can make digests collide: what authenticates states is the replay.
    pub unspent: UnspentDigest,
    /// The latest invocation so far, as a place in the order: whoever was answered before it must not come later.
    pub real_time: Sequence,
    /// Log time of the last chunk's batch.
    pub log_time: LogTime,
    /// Epoch of the replicated configuration.
    pub epoch: u64,
}

impl Frontier {
    /// Before the first batch of any ledger.
    #[must_use]
    pub fn genesis() -> Self {
        Self {
            batch: 0,
            standing: Standing::BetweenBatches,
            next: Sequence::default(),
            log_root: empty_root(),
            unspent: UnspentDigest::default(),
            real_time: Sequence::default(),
            log_time: LogTime::ZERO,
            epoch: 0,
        }
    }

    /// True where a batch's head says the same as this frontier, which is the one after it.
    #[must_use]
    pub fn agrees_with(&self, head: &Head) -> bool {
        self.standing == Standing::BetweenBatches
            && (self.batch, self.next, self.log_root, self.unspent, self.log_time, self.epoch)
                == (head.batch, head.size, head.log_root, head.unspent, head.log_time, head.epoch)
    }
}
