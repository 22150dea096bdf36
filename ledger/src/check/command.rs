//! The order-free rules of commands.

use std::collections::BTreeMap;

use crate::asset::AssetType;
use crate::identifier::Party;
use crate::limits::Limits;
use crate::quantity::Quantity;
use crate::rejection::{Counted, Part, Rejection};
use crate::terms::{Leg, Terms};
use crate::transaction::Command;

use super::{at_most, index};

pub(super) fn check_counts(command: &Command, limits: &Limits) -> Result<(), Rejection> {
    match command {
        Command::Transfer { .. } => Ok(()),
        Command::Settle { terms } => at_most(Counted::Legs, terms.legs.len(), limits.legs_max),
    }
}

pub(super) fn check(command: &Command, signers: &[Party]) -> Result<(), Rejection> {
    let legs = command_legs(command);
    for (position, leg) in legs.iter().enumerate() {
        require_signer(signers, &leg.payer, position)?;
    }
    command_owes(command)?;
    let enough_legs = match command {
        Command::Transfer { .. } => true,
        Command::Settle { terms } => well_formed(terms),
    };
    let legs_stand = legs.iter().all(|leg| leg.payer != leg.receiver && leg.quantity.is_positive());
    if enough_legs && legs_stand { Ok(()) } else { Err(Rejection::CommandMalformed {}) }
}

/// The payments of a command.
pub(crate) fn command_legs(command: &Command) -> Vec<Leg> {
    match command {
        Command::Transfer { asset, from, to, quantity } => {
            vec![Leg { payer: *from, receiver: *to, asset: *asset, quantity: *quantity }]
        }
        Command::Settle { terms } => terms.legs.clone(),
    }
}

/// What each payer owes of each asset.
pub(crate) fn command_owes(command: &Command) -> Result<BTreeMap<(Party, AssetType), Quantity>, Rejection> {
    let mut owed = BTreeMap::new();
    for leg in command_legs(command) {
        let sum: &mut Quantity = owed.entry((leg.payer, leg.asset)).or_default();
        *sum = sum.checked_add(leg.quantity).ok_or(Rejection::Overflow { asset: leg.asset })?;
    }
    Ok(owed)
}

/// Two legs or more, and none that pays its own payer.
pub(super) fn well_formed(terms: &Terms) -> bool {
    terms.legs.len() >= 2 && terms.legs.iter().all(|leg| leg.payer != leg.receiver)
}

fn require_signer(signers: &[Party], party: &Party, position: usize) -> Result<(), Rejection> {
    if signers.binary_search(party).is_ok() {
        return Ok(());
    }
    Err(Rejection::MissingSigner { party: *party, part: Part::Command, index: index(position) })
}
