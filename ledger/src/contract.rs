//! Contracts: the content of outputs.

use borsh::{BorshDeserialize, BorshSerialize};

use crate::asset::AssetType;
use crate::identifier::{Party, TermsId};
use crate::quantity::{LogTime, Quantity};

/// A quantity of an asset that an owner holds. Negative only under a [`Grant`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub struct Position {
    /// What is held.
    pub asset: AssetType,
    /// Whose signature spends it.
    pub owner: Party,
    /// How much; never zero.
    pub quantity: Quantity,
}

/// The issuer's permission for an owner to hold negative positions of an asset (bookkeeping treatment).
/// Users reference it without consuming it; consuming it revokes the permission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub struct Grant {
    /// For which asset; its issuer signs the grant and its revocation.
    pub asset: AssetType,
    /// For whom.
    pub owner: Party,
}

/// A quantity locked to one leg of settlement terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub struct Allocation {
    /// The terms it may settle.
    pub terms: TermsId,
    /// Which leg of them it funds, from 0.
    pub leg: u16,
    /// What is locked: the leg's asset.
    pub asset: AssetType,
    /// How much: exactly the leg's quantity.
    pub quantity: Quantity,
    /// The leg's payer, who may withdraw.
    pub payer: Party,
    /// Whose position it becomes again on withdrawal, rejection or expiry.
    pub return_to: Party,
    /// From this log time on it can no longer settle and anyone may return it.
    pub expires_at: LogTime,
}

/// What an output holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub enum Contract {
    /// Value that an owner holds.
    Position(Position),
    /// Permission for negative positions.
    Grant(Grant),
    /// Value locked to settlement terms.
    Allocation(Allocation),
}

impl Contract {
    /// The asset and signed quantity that the contract carries, if it carries value.
    #[must_use]
    pub const fn value(&self) -> Option<(AssetType, Quantity)> {
        match self {
            Self::Position(position) => Some((position.asset, position.quantity)),
            Self::Allocation(allocation) => Some((allocation.asset, allocation.quantity)),
            Self::Grant(_) => None,
        }
    }

    /// The party in whose list of holdings the output belongs.
    #[must_use]
    pub const fn holder(&self) -> Party {
        match self {
            Self::Position(position) => position.owner,
            Self::Grant(grant) => grant.owner,
            Self::Allocation(allocation) => allocation.return_to,
        }
    }

    /// The asset that the contract concerns.
    #[must_use]
    pub const fn asset(&self) -> AssetType {
        match self {
            Self::Position(position) => position.asset,
            Self::Grant(grant) => grant.asset,
            Self::Allocation(allocation) => allocation.asset,
        }
    }
}
