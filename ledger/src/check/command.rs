//! The order-free rules of commands.

use crate::identifier::Party;
use crate::limits::Limits;
use crate::rejection::{Counted, Part, Rejection};
use crate::terms::Terms;
use crate::transaction::Command;

use super::{at_most, index};

pub(super) fn check_counts(command: &Command, limits: &Limits) -> Result<(), Rejection> {
    match command {
        Command::Transfer { .. } => Ok(()),
        Command::Settle { terms } => at_most(Counted::Legs, terms.legs.len(), limits.legs_max),
    }
}

pub(super) fn check(command: &Command, signers: &[Party]) -> Result<(), Rejection> {
    match command {
        Command::Transfer { from, to, quantity, .. } => {
            require_signer(signers, from, 0)?;
            if from == to || !quantity.is_positive() {
                return Err(Rejection::CommandMalformed {});
            }
            Ok(())
        }
        Command::Settle { terms } => {
            for (position, leg) in terms.legs.iter().enumerate() {
                require_signer(signers, &leg.payer, position)?;
            }
            if !well_formed(terms) || terms.legs.iter().any(|leg| !leg.quantity.is_positive()) {
                return Err(Rejection::CommandMalformed {});
            }
            Ok(())
        }
    }
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
