//! Heads: what the whole ledger was after a batch, in a few bytes that can be signed and compared.

use borsh::{BorshDeserialize, BorshSerialize};

use crate::digest::UnspentDigest;
use crate::identifier::{ClusterId, Hash, Party, canonical_bytes, tagged_hash};
use crate::quantity::{LogTime, Sequence};
use crate::signature::{Claim, SigningKey, message};
use crate::transaction::Signature;

/// The ledger after a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub struct Head {
    /// Which ledger.
    pub cluster: ClusterId,
    /// Its Raft group.
    pub group: u16,
    /// The batch's number, from 1; 0 before the first.
    pub batch: u64,
    /// Transactions sequenced so far: the log's size.
    pub size: Sequence,
    /// Root of the Merkle log of outcomes.
    pub log_root: Hash,
    /// Digest of the live outputs.
    pub unspent: UnspentDigest,
    /// Log time of the batch.
    pub log_time: LogTime,
    /// Epoch of the replicated configuration.
    pub epoch: u64,
}

impl Head {
    /// The hash that nodes compare and sign.
    #[must_use]
    pub fn hash(&self) -> Hash {
        Hash::from_bytes(tagged_hash(b"seriatim head...", &[&canonical_bytes(self)]))
    }

    /// Signs as the node with this key.
    #[must_use]
    pub fn sign(&self, key: &SigningKey) -> HeadSignature {
        HeadSignature { node: key.party(), signature: key.sign(&self.message()) }
    }

    fn message(&self) -> [u8; 48] {
        message(b"seriatim sign hd", self.hash().as_bytes())
    }
}

/// A node's signature over a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub struct HeadSignature {
    /// The node's key.
    pub node: Party,
    /// Its signature.
    pub signature: Signature,
}

/// A head and the signatures collected for it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub struct SignedHead {
    /// The head.
    pub head: Head,
    /// Signatures, at most one per node counts.
    pub signatures: Vec<HeadSignature>,
}

impl SignedHead {
    /// How many of the trusted nodes signed this head, each counted once.
    #[must_use]
    pub fn signers_among(&self, trusted: &[Party]) -> usize {
        let message = self.head.message();
        let signed = |node: &&Party| {
            self.signatures.iter().any(|candidate| {
                candidate.node == **node && Claim { signer: **node, message, signature: candidate.signature }.holds()
            })
        };
        let distinct: std::collections::BTreeSet<&Party> = trusted.iter().collect();
        distinct.into_iter().filter(signed).count()
    }
}
