//! The command lane: inputs are chosen here, after ordering, ascending by output id until they cover the payment.

use std::collections::BTreeMap;

use crate::asset::AssetType;
use crate::contract::{Contract, Position};
use crate::effects::created_outputs;
use crate::identifier::{OutputId, Party, TransactionId};
use crate::quantity::Quantity;
use crate::rejection::Rejection;
use crate::terms::Leg;
use crate::transaction::Command;
use crate::view::LiveOutput;

use super::{Local, Refusal, Resolver};

/// The payments of a command.
fn legs(command: &Command) -> Vec<Leg> {
    match command {
        Command::Transfer { asset, from, to, quantity } => {
            vec![Leg { payer: *from, receiver: *to, asset: *asset, quantity: *quantity }]
        }
        Command::Settle { terms } => terms.legs.clone(),
    }
}

/// What each payer owes of each asset.
fn owed(command: &Command) -> Result<BTreeMap<(Party, AssetType), Quantity>, Rejection> {
    let mut owed = BTreeMap::new();
    for leg in legs(command) {
        let sum: &mut Quantity = owed.entry((leg.payer, leg.asset)).or_default();
        *sum = sum.checked_add(leg.quantity).ok_or(Rejection::Overflow { asset: leg.asset })?;
    }
    Ok(owed)
}

/// The positions that a command consumes.
pub(super) fn choose(resolver: &Resolver<'_>, command: &Command) -> Result<Vec<LiveOutput>, Refusal> {
    let mut chosen = Vec::new();
    for ((payer, asset), needed) in owed(command)? {
        let room = resolver.context.limits.command_inputs_max.saturating_sub(chosen.len());
        chosen.extend(cover(resolver, payer, asset, needed, room)?);
    }
    Ok(chosen)
}

fn cover(
    resolver: &Resolver<'_>,
    party: Party,
    asset: AssetType,
    needed: Quantity,
    room: usize,
) -> Result<Vec<LiveOutput>, Refusal> {
    let candidates = candidates(resolver, &party, &asset, room.saturating_add(1))?;
    let mut available = Quantity::ZERO;
    let mut covering = Vec::new();
    for candidate in candidates {
        if available >= needed {
            break;
        }
        if covering.len() == room {
            return Err(Rejection::TooFragmented { party, asset }.into());
        }
        let quantity = candidate.contract.value().map(|(_, quantity)| quantity).unwrap_or_default();
        available = available.checked_add(quantity).ok_or(Rejection::Overflow { asset })?;
        covering.push(candidate);
    }
    if available < needed {
        return Err(Rejection::InsufficientFunds { party, asset, available }.into());
    }
    Ok(covering)
}

/// The first `limit` positions of the payer that are live here: those of the view that this batch has not
/// consumed, and those that it created.
fn candidates(
    resolver: &Resolver<'_>,
    owner: &Party,
    asset: &AssetType,
    limit: usize,
) -> Result<impl Iterator<Item = LiveOutput> + use<>, Refusal> {
    let consumed_here = resolver.local.len();
    let stored = resolver.view.positions(owner, asset, limit.saturating_add(consumed_here))?;
    let created = resolver.positions.get(&(*owner, *asset));
    let mut live: BTreeMap<OutputId, LiveOutput> = created.cloned().unwrap_or_default();
    let unspent = |output: &LiveOutput| !matches!(resolver.local.get(&output.id), Some(Local::SpentBy(_)));
    live.extend(stored.into_iter().filter(unspent).map(|output| (output.id, output)));
    Ok(live.into_values().take(limit))
}

/// What a command creates: a position per leg in leg order, then each payer's change.
pub(in crate::apply) fn outputs(
    transaction: &TransactionId,
    command: &Command,
    chosen: &[LiveOutput],
) -> Result<Vec<(OutputId, Contract)>, Rejection> {
    let position = |owner, asset, quantity| Contract::Position(Position { asset, owner, quantity });
    let mut contracts: Vec<Contract> =
        legs(command).iter().map(|leg| position(leg.receiver, leg.asset, leg.quantity)).collect();
    for ((payer, asset), needed) in owed(command)? {
        let mut funds = Quantity::ZERO;
        for held in chosen.iter().filter(|output| output.contract.holder() == payer) {
            if let Some((_, quantity)) = held.contract.value().filter(|(of, _)| *of == asset) {
                funds = funds.checked_add(quantity).ok_or(Rejection::Overflow { asset })?;
            }
        }
        let change = funds.checked_sub(needed).ok_or(Rejection::Overflow { asset })?;
        if change.is_positive() {
            contracts.push(position(payer, asset, change));
        }
    }
    Ok(created_outputs(transaction, &contracts))
}
