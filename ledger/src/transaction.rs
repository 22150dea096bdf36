//! Transactions as clients write them, their canonical encoding and their identifiers.
//!
//! These are plain data: anything that decodes is a [`Transaction`], right or wrong. The types that say that
//! rules were checked are in [`crate::check`].

use std::io;

use borsh::{BorshDeserialize, BorshSerialize};

use crate::asset::AssetType;
use crate::contract::Contract;
use crate::identifier::{
    AtomicGroupId, ClusterId, Hash, OutputId, Party, TransactionId, canonical_bytes, tagged_hash, tagged_hash_of,
};
use crate::quantity::{LogTime, Quantity, Sequence};
use crate::signature::transaction_message;
use crate::terms::Terms;

/// Where an output comes from. Together with the contract it determines the [`OutputId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub struct Origin {
    /// The transaction that created the output.
    pub transaction: TransactionId,
    /// Which of its outputs, from 0.
    pub index: u16,
}

impl Origin {
    /// The name of the output of this origin and content.
    #[must_use]
    pub fn output_id(&self, contract: &Contract) -> OutputId {
        output_id(&self.transaction, self.index, contract)
    }
}

/// The name of output `index` of `transaction` with this content.
#[must_use]
pub fn output_id(transaction: &TransactionId, index: u16, contract: &Contract) -> OutputId {
    let parts: [&[u8]; 2] = [transaction.as_bytes(), &index.to_le_bytes()];
    OutputId::from_bytes(tagged_hash_of(b"seriatim output.", &parts, contract))
}

/// By which right an input is consumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub enum Unlock {
    /// The owner of a position spends it, or the issuer revokes a grant.
    Owner,
    /// An allocation funds its leg of terms settled here.
    Settle,
    /// The payer takes an allocation back.
    Withdraw,
    /// A party to the terms rejects them, which returns the allocation.
    Reject,
    /// Anyone returns an allocation once log time has reached its expiry.
    Expire,
}

/// An output that a transaction consumes, whole: content, origin and right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub struct Input {
    /// Where it comes from.
    pub origin: Origin,
    /// What it holds.
    pub contract: Contract,
    /// By which right it is consumed.
    pub unlock: Unlock,
}

impl Input {
    /// The name of the consumed output.
    #[must_use]
    pub fn output_id(&self) -> OutputId {
        self.origin.output_id(&self.contract)
    }
}

/// An output that a transaction needs to exist and does not consume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub struct Reference {
    /// Where it comes from.
    pub origin: Origin,
    /// What it holds.
    pub contract: Contract,
}

impl Reference {
    /// The name of the referenced output.
    #[must_use]
    pub fn output_id(&self) -> OutputId {
        self.origin.output_id(&self.contract)
    }
}

/// A change of an asset's supply, signed by its issuer: above zero issues, below zero redeems.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub struct SupplyChange {
    /// Which asset.
    pub asset: AssetType,
    /// By how much; never zero.
    pub quantity: Quantity,
}

/// What a transaction does with terms that it reveals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub enum TermsAction {
    /// Locks allocations to them.
    Propose,
    /// Pays every leg.
    Settle,
    /// Refuses them; allocations locked to them return.
    Reject,
}

/// Terms that a transaction reveals, and why.
#[derive(Debug, Clone, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub struct TermsEntry {
    /// What is done with them.
    pub action: TermsAction,
    /// The terms in full.
    pub terms: Terms,
}

/// A transaction that names its inputs: the main lane.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, BorshSerialize, BorshDeserialize)]
pub struct Movements {
    /// Outputs consumed.
    pub inputs: Vec<Input>,
    /// Outputs needed and not consumed.
    pub references: Vec<Reference>,
    /// Contracts created, in output order.
    pub outputs: Vec<Contract>,
    /// Supply issued and redeemed, in strictly ascending order of asset.
    pub supply: Vec<SupplyChange>,
    /// Terms proposed, settled and rejected.
    pub terms: Vec<TermsEntry>,
}

/// A transaction whose inputs are chosen when it is applied: the command lane. It never loses a race, and
/// in return its signers do not know which of their positions it will use.
#[derive(Debug, Clone, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub enum Command {
    /// Pays from the payer's positions.
    Transfer {
        /// What is paid.
        asset: AssetType,
        /// Who pays and signs.
        from: Party,
        /// Who is paid.
        to: Party,
        /// How much, above zero.
        quantity: Quantity,
    },
    /// Pays every leg from its payer's positions; every payer signs.
    Settle {
        /// The terms.
        terms: Terms,
    },
}

/// What a transaction wants.
#[derive(Debug, Clone, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub enum Intent {
    /// Named inputs and outputs.
    Movements(Movements),
    /// Inputs chosen after ordering.
    Command(Command),
}

/// The ledger as a client last saw it, signed with the transaction: on a ledger that forked or was rolled
/// back the transaction is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub struct SeenHead {
    /// The head's number of transactions.
    pub size: Sequence,
    /// The head's log root.
    pub log_root: Hash,
}

/// Everything that is signed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub struct Body {
    /// The ledger it is meant for.
    pub cluster: ClusterId,
    /// The Raft group of that ledger; 0 while there is one.
    pub group: u16,
    /// At this log time and later it is rejected, which bounds how long its outcome can be unknown.
    pub valid_until: LogTime,
    /// Tells otherwise equal transactions apart.
    pub nonce: u64,
    /// A head that the ledger must contain.
    pub seen_head: Option<SeenHead>,
    /// Who signs, in strictly ascending order.
    pub signers: Vec<Party>,
    /// What it wants.
    pub intent: Intent,
    /// The atomic group that it is a member of. Signed, and no part of the identifier: so members can spend each
    /// other's outputs, and a group can be named by its members.
    pub atomic: Option<AtomicGroupId>,
}

impl Body {
    /// The identifier of the transaction with this body: a hash of all of it but its group.
    #[must_use]
    pub fn id(&self) -> TransactionId {
        let bytes = canonical_bytes(self);
        transaction_id(self.identifying(&bytes))
    }

    /// What its signers sign.
    #[must_use]
    pub fn signed_message(&self) -> [u8; 48] {
        transaction_message(&self.id(), self.atomic.as_ref())
    }

    /// Of the canonical bytes of this body those that its identifier is the hash of.
    fn identifying<'a>(&self, canonical: &'a [u8]) -> &'a [u8] {
        let group_bytes = if self.atomic.is_some() { 33 } else { 1 };
        canonical.get(..canonical.len().saturating_sub(group_bytes)).unwrap_or_default()
    }
}

impl AtomicGroupId {
    /// The name of the group that consists of these transactions in this order.
    #[must_use]
    pub fn of(members: &[TransactionId]) -> Self {
        Self::from_bytes(tagged_hash(b"seriatim group..", &[&canonical_bytes(&members)]))
    }
}

fn transaction_id(body_bytes: &[u8]) -> TransactionId {
    TransactionId::from_bytes(tagged_hash(b"seriatim body...", &[body_bytes]))
}

/// An Ed25519 signature (64 bytes of RFC 8032), judged by the ZIP-215 rule.
#[derive(Clone, Copy, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub struct Signature([u8; 64]);

impl Signature {
    /// Wraps 64 bytes, right or wrong.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 64]) -> Self {
        Self(bytes)
    }

    /// The 64 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }
}

impl std::fmt::Debug for Signature {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = hex::encode(self.0);
        write!(formatter, "Signature({}…)", text.get(..8).unwrap_or(&text))
    }
}

/// A body and its signatures, one per signer and in the signers' order.
#[derive(Debug, Clone, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub struct Transaction {
    /// What was signed.
    pub body: Body,
    /// The signatures over [`Body::signed_message`].
    pub signatures: Vec<Signature>,
}

impl Transaction {
    /// The transaction's identifier; its signatures do not enter.
    #[must_use]
    pub fn id(&self) -> TransactionId {
        self.body.id()
    }

    /// The canonical bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        canonical_bytes(self)
    }
}

/// A transaction as received: decoded from canonical bytes, named, and nothing else known about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceivedTransaction {
    transaction: Transaction,
    id: TransactionId,
    encoded_bytes: usize,
}

impl ReceivedTransaction {
    /// Decodes exactly one transaction from its canonical bytes.
    ///
    /// # Errors
    /// Where the bytes are not the canonical encoding of a transaction, whole and nothing more.
    pub fn decode(bytes: &[u8]) -> io::Result<Self> {
        let mut rest = bytes;
        let body = Body::deserialize(&mut rest)?;
        let body_length = bytes.len().saturating_sub(rest.len());
        let signatures = Vec::<Signature>::deserialize(&mut rest)?;
        if !rest.is_empty() {
            let message = format!("{} bytes follow the transaction", rest.len());
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        // the encoding is one-to-one, so the bytes read are the canonical bytes of the body
        let id = transaction_id(body.identifying(bytes.get(..body_length).unwrap_or_default()));
        Ok(Self { transaction: Transaction { body, signatures }, id, encoded_bytes: bytes.len() })
    }

    /// What was decoded.
    #[must_use]
    pub const fn transaction(&self) -> &Transaction {
        &self.transaction
    }

    /// What was decoded, without the rest.
    #[must_use]
    pub fn into_transaction(self) -> Transaction {
        self.transaction
    }

    /// The identifier.
    #[must_use]
    pub const fn id(&self) -> TransactionId {
        self.id
    }

    /// Length of the encoding, in bytes.
    #[must_use]
    pub const fn encoded_bytes(&self) -> usize {
        self.encoded_bytes
    }
}

impl From<Transaction> for ReceivedTransaction {
    fn from(transaction: Transaction) -> Self {
        let id = transaction.id();
        let encoded_bytes = transaction.encode().len();
        Self { transaction, id, encoded_bytes }
    }
}
