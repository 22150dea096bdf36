//! Settlement terms: who pays whom what, all or nothing.

use borsh::{BorshDeserialize, BorshSerialize};

use crate::asset::AssetType;
use crate::identifier::{Party, TermsId, tagged_hash_of};
use crate::quantity::Quantity;

/// One payment of a settlement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub struct Leg {
    /// Who pays.
    pub payer: Party,
    /// Who is paid.
    pub receiver: Party,
    /// What is paid.
    pub asset: AssetType,
    /// How much, above zero.
    pub quantity: Quantity,
}

/// Two or more legs that settle together or not at all. Rings of any length are terms like any other.
#[derive(Debug, Clone, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub struct Terms {
    /// The payments, in the order by which allocations name them.
    pub legs: Vec<Leg>,
    /// Tells equal trades apart.
    pub nonce: u64,
}

impl Terms {
    /// The identifier that allocations are locked to.
    #[must_use]
    pub fn id(&self) -> TermsId {
        TermsId::from_bytes(tagged_hash_of(b"seriatim terms..", &[], self))
    }

    /// True where the party pays or receives in any leg.
    #[must_use]
    pub fn names(&self, party: &Party) -> bool {
        self.legs.iter().any(|leg| leg.payer == *party || leg.receiver == *party)
    }
}
