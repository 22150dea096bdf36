//! The state as the order-bound half sees it before a batch: look-ups, nothing else.

use borsh::{BorshDeserialize, BorshSerialize};

use crate::asset::AssetType;
use crate::contract::Contract;
use crate::identifier::{Hash, OutputId, Party, TransactionId};
use crate::outcome::Outcome;
use crate::quantity::Sequence;
use crate::transaction::Origin;

/// The place of a live output: its creator's place in the order, and which output of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub struct Place {
    /// The creating transaction's place.
    pub sequence: Sequence,
    /// Which of its outputs.
    pub index: u16,
}

/// A live output with everything needed to consume it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LiveOutput {
    /// Its name.
    pub id: OutputId,
    /// Where it comes from.
    pub origin: Origin,
    /// Its place in the order.
    pub place: Place,
    /// What it holds.
    pub contract: Contract,
}

/// A look-up that the storage could not answer. The replica stops: guessing would make it diverge.
#[derive(Debug, thiserror::Error)]
#[error("the ledger's state cannot be read: {0}")]
pub struct ViewFault(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// The state before a batch.
pub trait LedgerView: Sync {
    /// The place of an output that exists and is not consumed.
    ///
    /// # Errors
    /// Where the storage fails.
    fn live(&self, id: &OutputId) -> Result<Option<Place>, ViewFault>;

    /// The transaction that consumed the output with this origin and name, if it ever existed and was consumed.
    ///
    /// # Errors
    /// Where the storage fails.
    fn spender(&self, id: &OutputId, origin: &Origin) -> Result<Option<TransactionId>, ViewFault>;

    /// The place and outcome of a transaction that was sequenced before.
    ///
    /// # Errors
    /// Where the storage fails.
    fn outcome(&self, id: &TransactionId) -> Result<Option<(Sequence, Outcome)>, ViewFault>;

    /// The log root when the log had `size` transactions, where a batch ended there. Every ledger began empty, so
    /// for size 0 it is the empty root.
    ///
    /// # Errors
    /// Where the storage fails.
    fn log_root_at(&self, size: Sequence) -> Result<Option<Hash>, ViewFault>;

    /// The first `limit` of the owner's live positions of the asset with quantities above zero, ascending by
    /// output id; fewer than `limit` only where there are no more.
    ///
    /// # Errors
    /// Where the storage fails.
    fn positions(&self, owner: &Party, asset: &AssetType, limit: usize) -> Result<Vec<LiveOutput>, ViewFault>;
}
