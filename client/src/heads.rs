//! Head tracking: the ledger that a client sees today must continue the one that it saw before. A fork or a rollback
//! shows as two signed heads that no proof connects, which anyone can verify.

use std::io;
use std::path::Path;

use borsh::BorshDeserialize;
use ledger::identifier::canonical_bytes;
use ledger::merkle::{ProofFault, verify_consistency};
use ledger::{ClusterId, Head, Party, Sequence, SignedHead};
use proto::convert::{Cluster, Consistency};
use proto::{Problem, ProblemKind};

use crate::client::Client;
use crate::receipts::replace_file;

/// Whose signatures make a head believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedNodes {
    /// The ledger.
    pub cluster: ClusterId,
    /// The nodes' keys.
    pub keys: Vec<Party>,
    /// How many of them must have signed; at least one.
    pub required: usize,
}

impl TrustedNodes {
    /// The keys that the cluster itself names: trust on first use. Keep them.
    #[must_use]
    pub fn named_by(cluster: &Cluster, required: usize) -> Self {
        let keys = cluster.members.iter().filter_map(|member| member.key).collect();
        Self { cluster: cluster.identity.cluster, keys, required: required.max(1) }
    }

    /// True where enough of them signed this head of their ledger.
    #[must_use]
    pub fn signed(&self, head: &SignedHead) -> bool {
        head.head.cluster == self.cluster && head.signers_among(&self.keys) >= self.required.max(1)
    }
}

/// What a tracker found.
#[derive(Debug, thiserror::Error)]
pub enum HeadFault {
    /// No answer. Nothing is known.
    #[error(transparent)]
    Problem(#[from] Problem),
    /// The head is not signed by enough trusted nodes of this ledger.
    #[error("the head of batch {} is not signed by enough trusted nodes of this ledger", .0.head.batch)]
    Untrusted(Box<SignedHead>),
    /// Two signed heads contradict each other: the ledger forked or was rolled back. Keep both: they are the evidence.
    #[error("the ledger forked: the heads of batches {} and {} contradict each other", .0.0.head.batch, .0.1.head.batch)]
    Forked(Box<(SignedHead, SignedHead)>),
    /// No valid proof connects the heads. The node that answered is at fault, or the ledger forked.
    #[error("no proof connects the heads of batches {} and {}: {fault}", .heads.0.head.batch, .heads.1.head.batch)]
    Unconnected {
        /// The older and the newer head.
        heads: Box<(SignedHead, SignedHead)>,
        /// What is wrong with the proof.
        fault: ProofFault,
    },
}

/// The last head that a client verified.
#[derive(Debug, Clone)]
pub struct HeadTracker {
    trusted: TrustedNodes,
    newest: Option<SignedHead>,
}

impl HeadTracker {
    /// A tracker that has seen nothing.
    #[must_use]
    pub const fn new(trusted: TrustedNodes) -> Self {
        Self { trusted, newest: None }
    }

    /// A tracker that goes on from the file that [`Self::save`] wrote, if there is one.
    ///
    /// # Errors
    /// Where the file cannot be read or holds no head.
    pub fn load(trusted: TrustedNodes, path: &Path) -> io::Result<Self> {
        match std::fs::read(path) {
            Ok(bytes) => Ok(Self { trusted, newest: Some(SignedHead::try_from_slice(&bytes)?) }),
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => Ok(Self::new(trusted)),
            Err(fault) => Err(fault),
        }
    }

    /// Keeps the newest head in a file, durably.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        match &self.newest {
            Some(head) => replace_file(path, &canonical_bytes(head)),
            None => Ok(()),
        }
    }

    /// The newest head verified so far. Transactions may name it ([`crate::TransactionBuilder::after_head`]).
    #[must_use]
    pub fn newest(&self) -> Option<&Head> {
        self.newest.as_ref().map(|signed| &signed.head)
    }

    /// Whom to believe from now on, as when the members have changed. What was seen stays: it is still to be continued.
    pub fn trust(&mut self, trusted: TrustedNodes) {
        self.trusted = trusted;
    }

    /// Asks for the newest head and verifies that it continues the last one.
    ///
    /// # Errors
    /// Where it does not, or cannot be verified.
    pub async fn advance(&mut self, client: &Client) -> Result<Head, HeadFault> {
        let head = client.head(Consistency::Linearizable).await?;
        self.observe(client, head).await
    }

    /// Verifies any signed head (that of a receipt, or one from another party) against the last one, in either
    /// direction of time, and remembers the newer.
    ///
    /// # Errors
    /// Where they contradict each other, or cannot be verified.
    pub async fn observe(&mut self, client: &Client, found: SignedHead) -> Result<Head, HeadFault> {
        if !self.trusted.signed(&found) {
            return Err(HeadFault::Untrusted(Box::new(found)));
        }
        let head = found.head;
        let Some(known) = self.newest.clone() else {
            self.newest = Some(found);
            return Ok(head);
        };
        let found_is_newer = (head.size, head.batch) >= (known.head.size, known.head.batch);
        let (older, newer) = if found_is_newer { (known, found.clone()) } else { (found.clone(), known) };
        self.connect(client, older, newer).await?;
        if found_is_newer {
            self.newest = Some(found);
        }
        Ok(head)
    }

    async fn connect(&self, client: &Client, older: SignedHead, newer: SignedHead) -> Result<(), HeadFault> {
        let heads = (&older.head, &newer.head);
        let same_batch_differs = heads.0.batch == heads.1.batch && heads.0.hash() != heads.1.hash();
        let same_size_differs = heads.0.size == heads.1.size && heads.0.log_root != heads.1.log_root;
        let runs_backwards = heads.0.batch > heads.1.batch || heads.0.log_time > heads.1.log_time;
        if same_batch_differs || same_size_differs || runs_backwards {
            return Err(HeadFault::Forked(Box::new((older, newer))));
        }
        if heads.0.size == heads.1.size || heads.0.size == Sequence::default() {
            return Ok(());
        }
        let proof = client.consistency(heads.0.size, heads.1.size).await?;
        if proof.hashes.len() > 128 {
            return Err(Problem::new(ProblemKind::DoubtfulAnswer, "a proof longer than any log's").into());
        }
        let (old_root, new_root) = (&heads.0.log_root, &heads.1.log_root);
        match verify_consistency(heads.0.size.get(), old_root, heads.1.size.get(), new_root, &proof.hashes) {
            Ok(()) => Ok(()),
            Err(fault) => Err(HeadFault::Unconnected { heads: Box::new((older, newer)), fault }),
        }
    }
}
