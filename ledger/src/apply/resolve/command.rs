//! The command lane: inputs are chosen here, after ordering, ascending by output id until they cover the payment.

use crate::asset::AssetType;
use crate::check::{command_legs, command_owes};
use crate::contract::{Contract, Position};
use crate::effects::created_outputs;
use crate::identifier::{OutputId, Party, TransactionId};
use crate::quantity::Quantity;
use crate::rejection::Rejection;
use crate::transaction::Command;
use crate::view::{LedgerView, LiveOutput};

use super::Refusal;
use super::holdings::Holdings;

/// The positions that a command consumes, at most `inputs_max` of them.
pub(super) fn choose(
    view: &dyn LedgerView,
    holdings: &mut Holdings,
    command: &Command,
    inputs_max: usize,
) -> Result<Vec<LiveOutput>, Refusal> {
    let mut chosen = Vec::new();
    for (owner, needed) in command_owes(command)? {
        cover(view, holdings, owner, needed, inputs_max, &mut chosen)?;
    }
    Ok(chosen)
}

fn cover(
    view: &dyn LedgerView,
    holdings: &mut Holdings,
    owner: (Party, AssetType),
    needed: Quantity,
    inputs_max: usize,
    chosen: &mut Vec<LiveOutput>,
) -> Result<(), Refusal> {
    let (party, asset) = owner;
    // counting down what is still missing cannot overflow, as counting up what is there could
    let mut missing = needed;
    let mut last = None;
    while missing.is_positive() {
        let Some(position) = holdings.next_after(view, &owner, last)? else {
            let available = needed.checked_sub(missing).ok_or(Rejection::Overflow { asset })?;
            return Err(Rejection::InsufficientFunds { party, asset, available }.into());
        };
        if chosen.len() >= inputs_max {
            return Err(Rejection::TooFragmented { party, asset }.into());
        }
        missing = missing.checked_sub(quantity_of(&position)).ok_or(Rejection::Overflow { asset })?;
        last = Some(position.id);
        chosen.push(position);
    }
    Ok(())
}

/// What a command creates: a position per leg in leg order, then each payer's change.
pub(in crate::apply) fn outputs(
    transaction: &TransactionId,
    command: &Command,
    chosen: &[LiveOutput],
) -> Result<Vec<(OutputId, Contract)>, Rejection> {
    let position = |owner, asset, quantity| Contract::Position(Position { asset, owner, quantity });
    let mut contracts: Vec<Contract> =
        command_legs(command).iter().map(|leg| position(leg.receiver, leg.asset, leg.quantity)).collect();
    for ((payer, asset), needed) in command_owes(command)? {
        let funds =
            chosen.iter().filter(|output| output.contract.holder() == payer && output.contract.asset() == asset);
        let missing = funds.map(quantity_of).try_fold(needed, Quantity::checked_sub);
        let change = missing.and_then(|missing| Quantity::ZERO.checked_sub(missing));
        let change = change.ok_or(Rejection::Overflow { asset })?;
        if change.is_negative() {
            return Err(Rejection::InsufficientFunds { party: payer, asset, available: Quantity::ZERO });
        }
        if change.is_positive() {
            contracts.push(position(payer, asset, change));
        }
    }
    Ok(created_outputs(transaction, &contracts))
}

fn quantity_of(output: &LiveOutput) -> Quantity {
    output.contract.value().map(|(_, quantity)| quantity).unwrap_or_default()
}
