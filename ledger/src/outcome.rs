//! Outcomes: how a sequenced transaction ended, for ever.

use borsh::{BorshDeserialize, BorshSerialize};

use crate::identifier::{Hash, OutputId, TransactionId, canonical_bytes};
use crate::merkle::leaf_hash;
use crate::quantity::{LogTime, Sequence};
use crate::rejection::Rejection;

/// How a sequenced transaction ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub enum Outcome {
    /// It happened.
    Committed {
        /// The outputs that a command consumed; empty for a transaction that names its inputs.
        chosen: Vec<OutputId>,
    },
    /// It did not happen, and never will.
    Rejected(Rejection),
}

impl Outcome {
    /// True where the transaction happened.
    #[must_use]
    pub const fn is_committed(&self) -> bool {
        matches!(self, Self::Committed { .. })
    }
}

/// One line of the ledger: a leaf of the Merkle log.
#[derive(Debug, Clone, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub struct OutcomeRecord {
    /// The transaction's place in the order, which is the leaf's index.
    pub sequence: Sequence,
    /// The transaction.
    pub transaction: TransactionId,
    /// Transactions that its gateway had applied when it arrived.
    pub stamp: Sequence,
    /// The log time of its batch.
    pub log_time: LogTime,
    /// How it ended.
    pub outcome: Outcome,
}

impl OutcomeRecord {
    /// The leaf of the Merkle log.
    #[must_use]
    pub fn leaf(&self) -> Hash {
        leaf_hash(&canonical_bytes(self))
    }
}
