//! Commands: which positions one consumes, and what it creates from them, once more.

use std::collections::BTreeMap;

use ledger::rejection::{Counted, Part};
use ledger::{
    AssetType, Command, Contract, Leg, Limits, Origin, OutputId, Party, Position, Quantity, Rejection, TransactionId,
};

use crate::rules::{count, small};

/// A position that a command may consume, or consumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Its name, by which commands choose.
    pub id: OutputId,
    /// Where it comes from.
    pub origin: Origin,
    /// What it holds.
    pub position: Position,
}

/// Who pays what: the legs of a command, one for a transfer.
#[must_use]
pub fn legs(command: &Command) -> Vec<Leg> {
    match command {
        Command::Transfer { asset, from, to, quantity } => {
            vec![Leg { payer: *from, receiver: *to, asset: *asset, quantity: *quantity }]
        }
        Command::Settle { terms } => terms.legs.clone(),
    }
}

/// What each payer needs of each asset, ascending by payer and asset.
///
/// # Errors
/// Where a sum leaves 128 bits.
pub fn needs(command: &Command) -> Result<BTreeMap<(Party, AssetType), Quantity>, Rejection> {
    let mut needs: BTreeMap<(Party, AssetType), Quantity> = BTreeMap::new();
    for leg in legs(command) {
        let need = needs.entry((leg.payer, leg.asset)).or_default();
        *need = need.checked_add(leg.quantity).ok_or(Rejection::Overflow { asset: leg.asset })?;
    }
    Ok(needs)
}

/// The order-free rules of commands.
pub(crate) fn judge(command: &Command, signers: &[Party], limits: &Limits) -> Result<(), Rejection> {
    let legs = legs(command);
    count(Counted::Legs, legs.len(), limits.legs_max)?;
    let enough = matches!(command, Command::Transfer { .. }) || legs.len() >= 2;
    if !enough || legs.iter().any(|leg| leg.payer == leg.receiver || !leg.quantity.is_positive()) {
        return Err(Rejection::CommandMalformed {});
    }
    for (position, leg) in legs.iter().enumerate() {
        if signers.binary_search(&leg.payer).is_err() {
            return Err(Rejection::MissingSigner { party: leg.payer, part: Part::Command, index: small(position) });
        }
    }
    needs(command).map(|_| ())
}

/// Chooses what a command consumes. `next` gives an owner's first live position of an asset above zero behind a name:
/// the first that cover a need are taken.
///
/// # Errors
/// Where the positions do not cover it, or more are needed than one command may consume.
pub fn choose(
    command: &Command,
    limits: &Limits,
    next: impl Fn(&(Party, AssetType), Option<OutputId>) -> Option<Held>,
) -> Result<Vec<Held>, Rejection> {
    let mut chosen: Vec<Held> = Vec::new();
    for ((party, asset), need) in needs(command)? {
        let mut missing = need;
        let mut last = None;
        while missing.is_positive() {
            let Some(held) = next(&(party, asset), last) else {
                let available = need.checked_sub(missing).ok_or(Rejection::Overflow { asset })?;
                return Err(Rejection::InsufficientFunds { party, asset, available });
            };
            if chosen.len() == limits.command_inputs_max {
                return Err(Rejection::TooFragmented { party, asset });
            }
            missing = missing.checked_sub(held.position.quantity).ok_or(Rejection::Overflow { asset })?;
            last = Some(held.id);
            chosen.push(held);
        }
    }
    Ok(chosen)
}

/// What a command creates: a position per leg, in the order of the legs; then what each payer gets back, ascending by
/// payer and asset. `None` where the consumed positions do not cover its needs.
#[must_use]
pub fn creates(command: &Command, consumed: &[Position]) -> Option<Vec<Contract>> {
    let position = |owner, asset, quantity| Contract::Position(Position { asset, owner, quantity });
    let mut created: Vec<Contract> =
        legs(command).iter().map(|leg| position(leg.receiver, leg.asset, leg.quantity)).collect();
    for ((payer, asset), need) in needs(command).ok()? {
        let mut missing = need;
        for held in consumed.iter().filter(|held| held.owner == payer && held.asset == asset) {
            missing = missing.checked_sub(held.quantity)?;
        }
        let change = Quantity::ZERO.checked_sub(missing)?;
        if change.is_negative() {
            return None;
        }
        if change.is_positive() {
            created.push(position(payer, asset, change));
        }
    }
    Some(created)
}

/// The origins and contents of what a transaction creates.
pub fn originated<'a>(
    id: TransactionId,
    contracts: &'a [Contract],
) -> impl Iterator<Item = (Origin, &'a Contract)> + 'a {
    let origin = move |position: usize| Origin { transaction: id, index: small(position) };
    contracts.iter().enumerate().map(move |(position, contract)| (origin(position), contract))
}
