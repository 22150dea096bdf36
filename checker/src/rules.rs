//! The order-free rules, once more: what no transaction in the order may break.
//!
//! Written from the catalogue of reasons and not from the ledger's own checks. A transaction that breaks a rule has no
//! place in the order at all, so which of several broken rules is named does not matter here.

use std::collections::{BTreeMap, BTreeSet};

use ledger::rejection::{Counted, Part};
use ledger::signature::{Claim, transaction_message};
use ledger::transaction::ReceivedTransaction;
use ledger::{
    Allocation, AssetType, ClusterId, Contract, Input, Intent, Leg, Limits, LogTime, Movements, Party, Quantity,
    Rejection, TermsAction, TermsId, Unlock,
};

use crate::commands;

/// What all transactions of a ledger have in common.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The ledger.
    pub cluster: ClusterId,
    /// Its Raft group.
    pub group: u16,
    /// The limits of the protocol version.
    pub limits: &'a Limits,
    /// The log time of its batch.
    pub log_time: LogTime,
}

/// Up to so many names comparing each with each is cheaper than a set.
const FEW: usize = 8;

/// What a rule says: nothing, or why the transaction cannot be in the order.
type Judgement = Result<(), Rejection>;

/// Judges whether a transaction may have a place in the order: by every order-free rule but signatures and completeness
/// of its group, and by how long it is valid.
///
/// # Errors
/// A rule that it breaks.
pub fn judge(received: &ReceivedTransaction, context: &Context<'_>) -> Judgement {
    judge_admission(received, context)?;
    match &received.transaction().body.intent {
        Intent::Movements(movements) => {
            conserves(movements)?;
            keeps_constraints(movements)
        }
        Intent::Command(_) => Ok(()),
    }
}

/// [`judge`] without conservation and constrained positions, which the prover decides by itself.
///
/// # Errors
/// A rule that it breaks.
pub fn judge_admission(received: &ReceivedTransaction, context: &Context<'_>) -> Judgement {
    let (body, limits) = (&received.transaction().body, context.limits);
    if received.encoded_bytes() > limits.transaction_bytes_max {
        let (bytes, bytes_max) = (number(received.encoded_bytes()), number(limits.transaction_bytes_max));
        return Err(Rejection::TooLarge { bytes, bytes_max });
    }
    if body.cluster != context.cluster {
        return Err(Rejection::WrongCluster {});
    }
    if body.group != context.group {
        return Err(Rejection::WrongGroup { group: body.group });
    }
    let latest = context.log_time.plus_millis(limits.validity_ms_max);
    if body.valid_until > latest {
        return Err(Rejection::ValidityTooLong { latest });
    }
    count(Counted::Signers, body.signers.len(), limits.signers_max)?;
    if let Some(signer) = first_unordered(&body.signers) {
        return Err(Rejection::SignersUnsorted { signer });
    }
    let signatures = received.transaction().signatures.len();
    if signatures != body.signers.len() {
        return Err(Rejection::SignatureCount { signatures: number(signatures), signers: number(body.signers.len()) });
    }
    match &body.intent {
        Intent::Movements(movements) => judge_movements(movements, &body.signers, limits),
        Intent::Command(command) => commands::judge(command, &body.signers, limits),
    }
}

/// True where every signature of the transaction is its signer's.
#[must_use]
pub fn signatures_hold(received: &ReceivedTransaction) -> bool {
    let transaction = received.transaction();
    let message = transaction_message(&received.id(), transaction.body.atomic.as_ref());
    let claims = transaction.body.signers.iter().zip(&transaction.signatures);
    transaction.signatures.len() == transaction.body.signers.len()
        && claims
            .into_iter()
            .all(|(signer, signature)| Claim { signer: *signer, message, signature: *signature }.holds())
}

fn judge_movements(movements: &Movements, signers: &[Party], limits: &Limits) -> Judgement {
    let Movements { inputs, references, outputs, supply, terms } = movements;
    count(Counted::Inputs, inputs.len(), limits.inputs_max)?;
    count(Counted::References, references.len(), limits.references_max)?;
    count(Counted::Outputs, outputs.len(), limits.outputs_max)?;
    count(Counted::SupplyChanges, supply.len(), limits.supply_max)?;
    count(Counted::Terms, terms.len(), limits.terms_max)?;
    terms.iter().try_for_each(|entry| count(Counted::Legs, entry.terms.legs.len(), limits.legs_max))?;
    if inputs.is_empty() && outputs.is_empty() && supply.is_empty() {
        return Err(Rejection::Empty {});
    }
    names_nothing_twice(movements)?;
    let signs = |party: &Party| signers.binary_search(party).is_ok();
    let revealed = Revealed::of(movements)?;
    for (position, input) in inputs.iter().enumerate() {
        judge_input(input, small(position), &revealed, &signs)?;
    }
    for (position, reference) in references.iter().enumerate() {
        if !matches!(reference.contract, Contract::Grant(_)) {
            return Err(Rejection::WrongReference { reference: small(position) });
        }
    }
    for (position, output) in outputs.iter().enumerate() {
        judge_output(output, small(position), &revealed, &signs)?;
    }
    judge_supply(movements, &signs)?;
    revealed.all_used(movements)?;
    if terms.is_empty() && inputs.iter().all(|input| matches!(input.unlock, Unlock::Owner)) {
        // nobody is owed anything by a settled leg or a returned allocation
        return Ok(());
    }
    revealed.legs_are_funded(movements, &signs)?;
    pays_what_is_due(movements, &revealed, &signs)
}

fn names_nothing_twice(movements: &Movements) -> Judgement {
    let named = || {
        let inputs = movements.inputs.iter().map(|input| (&input.origin, &input.contract));
        inputs.chain(movements.references.iter().map(|reference| (&reference.origin, &reference.contract)))
    };
    let repeated = if named().count() <= FEW {
        named().enumerate().find(|(position, (origin, _))| named().take(*position).any(|(other, _)| other == *origin))
    } else {
        let mut seen = BTreeSet::new();
        named().enumerate().find(|(_, (origin, _))| !seen.insert((origin.transaction, origin.index)))
    };
    match repeated {
        Some((_, (origin, contract))) => Err(Rejection::DuplicateInput { output: origin.output_id(contract) }),
        None => Ok(()),
    }
}

fn judge_input(input: &Input, index: u16, revealed: &Revealed<'_>, signs: &dyn Fn(&Party) -> bool) -> Judgement {
    let needed = match (&input.contract, input.unlock) {
        (Contract::Position(held), Unlock::Owner) => Some(held.owner),
        (Contract::Grant(grant), Unlock::Owner) => Some(grant.asset.issuer),
        (Contract::Allocation(locked), Unlock::Withdraw) => Some(locked.payer),
        (Contract::Allocation(_), Unlock::Expire) => None,
        (Contract::Allocation(locked), Unlock::Settle) => {
            if !revealed.has_leg(locked, TermsAction::Settle) {
                return Err(Rejection::AllocationMismatch { part: Part::Input, index });
            }
            None
        }
        (Contract::Allocation(locked), Unlock::Reject) => {
            if !revealed.has_leg(locked, TermsAction::Reject) {
                return Err(Rejection::AllocationMismatch { part: Part::Input, index });
            }
            let legs = revealed.legs(&locked.terms);
            let party_signs = legs.iter().any(|leg| signs(&leg.payer) || signs(&leg.receiver));
            (!party_signs).then_some(locked.payer)
        }
        (Contract::Position(_) | Contract::Grant(_), _) | (Contract::Allocation(_), Unlock::Owner) => {
            return Err(Rejection::WrongUnlock { input: index });
        }
    };
    needs_signature(needed, signs, Part::Input, index)
}

fn judge_output(output: &Contract, index: u16, revealed: &Revealed<'_>, signs: &dyn Fn(&Party) -> bool) -> Judgement {
    let out_of_range = Rejection::QuantityOutOfRange { part: Part::Output, index };
    match output {
        Contract::Position(held) if held.quantity == Quantity::ZERO => Err(out_of_range),
        Contract::Position(held) => {
            let debtor = held.quantity.is_negative().then_some(held.owner);
            needs_signature(debtor, signs, Part::Output, index)
        }
        Contract::Grant(grant) => needs_signature(Some(grant.asset.issuer), signs, Part::Output, index),
        Contract::Allocation(locked) if !locked.quantity.is_positive() => Err(out_of_range),
        Contract::Allocation(locked) if revealed.has_leg(locked, TermsAction::Propose) => Ok(()),
        Contract::Allocation(_) => Err(Rejection::AllocationMismatch { part: Part::Output, index }),
    }
}

fn judge_supply(movements: &Movements, signs: &dyn Fn(&Party) -> bool) -> Judgement {
    let mut last: Option<AssetType> = None;
    for (position, change) in movements.supply.iter().enumerate() {
        let index = small(position);
        if change.quantity == Quantity::ZERO || last.is_some_and(|last| last >= change.asset) {
            return Err(Rejection::SupplyMalformed { index });
        }
        last = Some(change.asset);
        needs_signature(Some(change.asset.issuer), signs, Part::Supply, index)?;
    }
    Ok(())
}

fn needs_signature(party: Option<Party>, signs: &dyn Fn(&Party) -> bool, part: Part, index: u16) -> Judgement {
    match party {
        Some(party) if !signs(&party) => Err(Rejection::MissingSigner { party, part, index }),
        Some(_) | None => Ok(()),
    }
}

/// The terms that a transaction reveals, by name.
struct Revealed<'a> {
    by_id: BTreeMap<TermsId, (TermsAction, &'a [Leg])>,
}

impl<'a> Revealed<'a> {
    fn of(movements: &'a Movements) -> Result<Self, Rejection> {
        let mut by_id = BTreeMap::new();
        for (position, entry) in movements.terms.iter().enumerate() {
            let id = entry.terms.id();
            if entry.terms.legs.iter().any(|leg| !leg.quantity.is_positive()) {
                return Err(Rejection::QuantityOutOfRange { part: Part::Terms, index: small(position) });
            }
            if entry.terms.legs.len() < 2 || entry.terms.legs.iter().any(|leg| leg.payer == leg.receiver) {
                return Err(Rejection::TermsMalformed { terms: id });
            }
            if by_id.insert(id, (entry.action, entry.terms.legs.as_slice())).is_some() {
                return Err(Rejection::DuplicateTerms { terms: id });
            }
        }
        Ok(Self { by_id })
    }

    fn legs(&self, terms: &TermsId) -> &'a [Leg] {
        self.by_id.get(terms).map(|(_, legs)| *legs).unwrap_or_default()
    }

    /// True where the allocation is exactly its leg of terms revealed for this use.
    fn has_leg(&self, locked: &Allocation, wanted: TermsAction) -> bool {
        let Some((action, legs)) = self.by_id.get(&locked.terms) else { return false };
        let leg = legs.get(usize::from(locked.leg));
        *action == wanted
            && leg.is_some_and(|leg| {
                (leg.payer, leg.asset, leg.quantity) == (locked.payer, locked.asset, locked.quantity)
            })
    }

    fn settled(&self) -> impl Iterator<Item = (TermsId, u16, &'a Leg)> {
        let settled = self.by_id.iter().filter(|(_, (action, _))| *action == TermsAction::Settle);
        settled.flat_map(|(id, (_, legs))| {
            let legs: &'a [Leg] = legs;
            legs.iter().enumerate().map(move |(position, leg)| (*id, small(position), leg))
        })
    }

    /// Proposed terms have an allocation among the outputs, rejected ones among the inputs.
    fn all_used(&self, movements: &Movements) -> Judgement {
        if self.by_id.is_empty() {
            return Ok(());
        }
        let mut used: BTreeSet<TermsId> = BTreeSet::new();
        used.extend(movements.outputs.iter().filter_map(allocation).map(|locked| locked.terms));
        let rejected = movements.inputs.iter().filter(|input| input.unlock == Unlock::Reject);
        used.extend(rejected.filter_map(|input| allocation(&input.contract)).map(|locked| locked.terms));
        let idle = self.by_id.iter().find(|(id, (action, _))| *action != TermsAction::Settle && !used.contains(id));
        match idle {
            Some((id, _)) => Err(Rejection::TermsUnused { terms: *id }),
            None => Ok(()),
        }
    }

    /// A settled leg is paid by one allocation, or by a payer that signs.
    fn legs_are_funded(&self, movements: &Movements, signs: &dyn Fn(&Party) -> bool) -> Judgement {
        let mut funded = BTreeSet::new();
        let settling = movements.inputs.iter().filter(|input| input.unlock == Unlock::Settle);
        for locked in settling.filter_map(|input| allocation(&input.contract)) {
            if !funded.insert((locked.terms, locked.leg)) {
                return Err(Rejection::LegFundedTwice { terms: locked.terms, leg: locked.leg });
            }
        }
        match self.settled().find(|(terms, leg, content)| !funded.contains(&(*terms, *leg)) && !signs(&content.payer)) {
            Some((terms, leg, _)) => Err(Rejection::LegUnfunded { terms, leg }),
            None => Ok(()),
        }
    }
}

/// Who did not sign gets in positions all that settled legs and returned allocations owe it.
fn pays_what_is_due(movements: &Movements, revealed: &Revealed<'_>, signs: &dyn Fn(&Party) -> bool) -> Judgement {
    let settled = revealed.settled().map(|(_, _, leg)| (leg.receiver, leg.asset, leg.quantity));
    let returned = movements.inputs.iter().filter(|input| input.unlock != Unlock::Settle);
    let returned = returned.filter_map(|input| allocation(&input.contract));
    let returned = returned.map(|locked| (locked.return_to, locked.asset, locked.quantity));
    let due = totals(settled.chain(returned).filter(|(party, ..)| !signs(party)));
    if due.is_empty() {
        return Ok(());
    }
    let positions = movements.outputs.iter().filter_map(|output| match output {
        Contract::Position(held) => Some((held.owner, held.asset, held.quantity)),
        Contract::Grant(_) | Contract::Allocation(_) => None,
    });
    let paid = totals(positions.filter(|(party, ..)| !signs(party)));
    for ((party, asset), due) in due {
        let paid = paid.get(&(party, asset)).copied().unwrap_or(Some(Quantity::ZERO));
        match (due, paid) {
            (Some(due), Some(paid)) if paid >= due => {}
            (Some(due), Some(paid)) => return Err(Rejection::Underpaid { party, asset, due, paid }),
            (None, _) | (_, None) => return Err(Rejection::Overflow { asset }),
        }
    }
    Ok(())
}

/// Sums by party and asset; `None` where one leaves 128 bits.
fn totals(flows: impl Iterator<Item = (Party, AssetType, Quantity)>) -> BTreeMap<(Party, AssetType), Option<Quantity>> {
    let mut sums = BTreeMap::new();
    for (party, asset, quantity) in flows {
        let sum = sums.entry((party, asset)).or_insert(Some(Quantity::ZERO));
        *sum = sum.and_then(|sum| sum.checked_add(quantity));
    }
    sums
}

/// Of each asset: what inputs and supply bring in is what outputs take out, and no sum leaves 128 bits.
///
/// # Errors
/// Where that is not so.
pub fn conserves(movements: &Movements) -> Judgement {
    // few transactions move more than two assets, so a list that is searched is the faster map
    let mut flows: Vec<(AssetType, Quantity, Quantity)> = Vec::with_capacity(2);
    let supply = movements.supply.iter().map(|change| (change.asset, change.quantity));
    let inflow = movements.inputs.iter().filter_map(|input| input.contract.value()).chain(supply);
    for (asset, quantity) in inflow {
        let flow = flow_of(&mut flows, asset);
        flow.1 = flow.1.checked_add(quantity).ok_or(Rejection::Overflow { asset })?;
    }
    for (asset, quantity) in movements.outputs.iter().filter_map(Contract::value) {
        let flow = flow_of(&mut flows, asset);
        flow.2 = flow.2.checked_add(quantity).ok_or(Rejection::Overflow { asset })?;
    }
    match flows.iter().find(|(_, inflow, outflow)| inflow != outflow) {
        Some((asset, inflow, outflow)) => {
            Err(Rejection::NotConserved { asset: *asset, inflow: *inflow, outflow: *outflow })
        }
        None => Ok(()),
    }
}

fn flow_of(flows: &mut Vec<(AssetType, Quantity, Quantity)>, asset: AssetType) -> &mut (AssetType, Quantity, Quantity) {
    let position = flows.iter().position(|(other, ..)| *other == asset).unwrap_or_else(|| {
        flows.push((asset, Quantity::ZERO, Quantity::ZERO));
        flows.len().saturating_sub(1)
    });
    flows.get_mut(position).expect("found or added just now")
}

/// Every negative position that is created has a grant for its owner and asset among the references.
///
/// # Errors
/// Where one has not.
pub fn keeps_constraints(movements: &Movements) -> Judgement {
    let mut negative = movements.outputs.iter().enumerate().filter_map(|(position, output)| match output {
        Contract::Position(held) if held.quantity.is_negative() => Some((position, held)),
        Contract::Position(_) | Contract::Grant(_) | Contract::Allocation(_) => None,
    });
    let ungranted = negative.find(|(_, held)| {
        !movements.references.iter().any(|reference| grants(&reference.contract, &held.owner, &held.asset))
    });
    match ungranted {
        Some((position, _)) => Err(Rejection::GrantMissing { output: small(position) }),
        None => Ok(()),
    }
}

/// True where the contract permits the owner negative positions of the asset.
#[must_use]
pub fn grants(contract: &Contract, owner: &Party, asset: &AssetType) -> bool {
    matches!(contract, Contract::Grant(grant) if grant.owner == *owner && grant.asset == *asset)
}

fn allocation(contract: &Contract) -> Option<&Allocation> {
    match contract {
        Contract::Allocation(locked) => Some(locked),
        Contract::Position(_) | Contract::Grant(_) => None,
    }
}

fn first_unordered(parties: &[Party]) -> Option<u16> {
    let later = parties.iter().skip(1);
    let position = parties.iter().zip(later).position(|(a, b)| a >= b)?;
    Some(small(position.saturating_add(1)))
}

pub(crate) fn count(counted: Counted, count: usize, count_max: usize) -> Judgement {
    if count > count_max {
        return Err(Rejection::TooMany { counted, count: number(count), count_max: number(count_max) });
    }
    Ok(())
}

fn number(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// An index; the limits keep it below 2^16.
pub(crate) fn small(position: usize) -> u16 {
    u16::try_from(position).unwrap_or(u16::MAX)
}
