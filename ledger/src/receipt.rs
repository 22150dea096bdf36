//! Receipts: proof that an outcome is a line of the ledger, which anyone verifies offline.

use borsh::{BorshDeserialize, BorshSerialize};

use crate::head::SignedHead;
use crate::identifier::{ClusterId, Hash, Party};
use crate::merkle::verify_inclusion;
use crate::outcome::OutcomeRecord;

/// An outcome, its inclusion proof and the signed head that it leads to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub struct Receipt {
    /// The outcome.
    pub record: OutcomeRecord,
    /// Sibling hashes from the leaf to the root (RFC 6962, section 2.1.1).
    pub inclusion: Vec<Hash>,
    /// The head, with at least one node's signature.
    pub head: SignedHead,
}

/// Why a receipt proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptFault {
    /// It is of another ledger.
    #[error("the receipt is of ledger {found}, not of {expected}")]
    OtherLedger {
        /// The receipt's ledger.
        found: ClusterId,
        /// The expected one.
        expected: ClusterId,
    },
    /// Too few of the trusted nodes signed the head.
    #[error("{found} of the {trusted} trusted nodes signed the head, {required} are required")]
    TooFewSignatures {
        /// Valid signatures of different trusted nodes.
        found: usize,
        /// How many nodes are trusted.
        trusted: usize,
        /// Required.
        required: usize,
    },
    /// The outcome is not in the log that the head names.
    #[error("the outcome is not in the log of that head: {0}")]
    NotIncluded(String),
}

impl Receipt {
    /// Verifies the receipt against a ledger's name and its nodes' keys; trusts nothing else.
    ///
    /// # Errors
    /// Where the receipt proves nothing.
    pub fn verify(&self, cluster: &ClusterId, nodes: &[Party], required: usize) -> Result<(), ReceiptFault> {
        let head = &self.head.head;
        if head.cluster != *cluster {
            return Err(ReceiptFault::OtherLedger { found: head.cluster, expected: *cluster });
        }
        let found = self.head.signers_among(nodes);
        let required = required.max(1);
        if found < required {
            return Err(ReceiptFault::TooFewSignatures { found, trusted: nodes.len(), required });
        }
        let sequence = self.record.sequence.get();
        verify_inclusion(&self.record.leaf(), sequence, head.size.get(), &self.inclusion, &head.log_root)
            .map_err(|fault| ReceiptFault::NotIncluded(fault.to_string()))
    }
}
