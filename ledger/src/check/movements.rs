//! The order-free rules of transactions that name their inputs, in the order of their numbers.

use std::collections::{BTreeMap, BTreeSet};

use crate::asset::AssetType;
use crate::contract::{Allocation, Contract};
use crate::identifier::{Party, TermsId};
use crate::limits::Limits;
use crate::quantity::Quantity;
use crate::rejection::{Counted, Part, Rejection};
use crate::terms::{Leg, Terms};
use crate::transaction::{Input, Movements, TermsAction, Unlock};

use super::command::well_formed;
use super::{at_most, index};

pub(super) fn check_counts(movements: &Movements, limits: &Limits) -> Result<(), Rejection> {
    at_most(Counted::Inputs, movements.inputs.len(), limits.inputs_max)?;
    at_most(Counted::References, movements.references.len(), limits.references_max)?;
    at_most(Counted::Outputs, movements.outputs.len(), limits.outputs_max)?;
    at_most(Counted::SupplyChanges, movements.supply.len(), limits.supply_max)?;
    at_most(Counted::Terms, movements.terms.len(), limits.terms_max)?;
    for entry in &movements.terms {
        at_most(Counted::Legs, entry.terms.legs.len(), limits.legs_max)?;
    }
    Ok(())
}

pub(super) fn check_not_empty(movements: &Movements) -> Result<(), Rejection> {
    let Movements { inputs, outputs, supply, .. } = movements;
    if inputs.is_empty() && outputs.is_empty() && supply.is_empty() {
        return Err(Rejection::Empty {});
    }
    Ok(())
}

/// The rules after those on signers.
pub(super) fn check(movements: &Movements, signers: &[Party]) -> Result<(), Rejection> {
    let parts = Parts { movements, signers, terms: RevealedTerms::of(movements) };
    parts.names_each_input_once()?;
    parts.quantities_are_in_range()?;
    parts.terms_are_well_formed()?;
    parts.terms_are_distinct()?;
    parts.unlocks_fit_contracts()?;
    parts.references_are_grants()?;
    parts.allocations_match_their_legs()?;
    parts.terms_are_used()?;
    parts.rights_are_signed()?;
    parts.legs_are_funded_once()?;
    parts.silent_parties_are_paid()?;
    parts.assets_are_conserved()?;
    parts.negative_positions_are_granted()?;
    parts.supply_is_well_formed()
}

/// The terms of a transaction by identifier.
struct RevealedTerms<'a> {
    // in entry order
    entries: Vec<(TermsId, TermsAction, &'a Terms)>,
    by_id: BTreeMap<TermsId, usize>,
}

impl<'a> RevealedTerms<'a> {
    fn of(movements: &'a Movements) -> Self {
        let entries: Vec<_> =
            movements.terms.iter().map(|entry| (entry.terms.id(), entry.action, &entry.terms)).collect();
        let by_id = entries.iter().enumerate().map(|(position, (id, ..))| (*id, position)).collect();
        Self { entries, by_id }
    }

    fn get(&self, id: &TermsId, wanted: TermsAction) -> Option<&'a Terms> {
        let (_, action, terms) = self.entries.get(*self.by_id.get(id)?)?;
        (*action == wanted).then_some(*terms)
    }
}

/// Quantities by party and asset; `None` where a sum leaves 128 bits.
type Sums = BTreeMap<(Party, AssetType), Option<Quantity>>;

/// A transaction's movements with what several rules need of them.
struct Parts<'a> {
    movements: &'a Movements,
    signers: &'a [Party],
    terms: RevealedTerms<'a>,
}

impl Parts<'_> {
    /// Outputs are named by origin: two contracts claimed for one origin cannot both exist.
    fn names_each_input_once(&self) -> Result<(), Rejection> {
        let mut named = BTreeSet::new();
        let inputs = self.movements.inputs.iter().map(|input| (input.origin, input.contract));
        let references = self.movements.references.iter().map(|reference| (reference.origin, reference.contract));
        for (origin, contract) in inputs.chain(references) {
            if !named.insert((origin.transaction, origin.index)) {
                return Err(Rejection::DuplicateInput { output: origin.output_id(&contract) });
            }
        }
        Ok(())
    }

    fn quantities_are_in_range(&self) -> Result<(), Rejection> {
        for (position, output) in self.movements.outputs.iter().enumerate() {
            let in_range = match output {
                Contract::Position(held) => held.quantity != Quantity::ZERO,
                Contract::Allocation(locked) => locked.quantity.is_positive(),
                Contract::Grant(_) => true,
            };
            if !in_range {
                return Err(Rejection::QuantityOutOfRange { part: Part::Output, index: index(position) });
            }
        }
        for (position, entry) in self.movements.terms.iter().enumerate() {
            if entry.terms.legs.iter().any(|leg| !leg.quantity.is_positive()) {
                return Err(Rejection::QuantityOutOfRange { part: Part::Terms, index: index(position) });
            }
        }
        Ok(())
    }

    fn terms_are_well_formed(&self) -> Result<(), Rejection> {
        match self.terms.entries.iter().find(|(_, _, terms)| !well_formed(terms)) {
            Some((id, ..)) => Err(Rejection::TermsMalformed { terms: *id }),
            None => Ok(()),
        }
    }

    fn terms_are_distinct(&self) -> Result<(), Rejection> {
        let entries = self.terms.entries.iter().enumerate();
        let repeated = |(position, (id, ..)): &(usize, &(TermsId, TermsAction, &Terms))| {
            self.terms.by_id.get(id) != Some(position)
        };
        match entries.into_iter().find(repeated) {
            Some((_, (id, ..))) => Err(Rejection::DuplicateTerms { terms: *id }),
            None => Ok(()),
        }
    }

    fn unlocks_fit_contracts(&self) -> Result<(), Rejection> {
        let fits = |input: &Input| match input.contract {
            Contract::Position(_) | Contract::Grant(_) => input.unlock == Unlock::Owner,
            Contract::Allocation(_) => input.unlock != Unlock::Owner,
        };
        match self.movements.inputs.iter().position(|input| !fits(input)) {
            Some(position) => Err(Rejection::WrongUnlock { input: index(position) }),
            None => Ok(()),
        }
    }

    fn references_are_grants(&self) -> Result<(), Rejection> {
        let is_grant = |contract: &Contract| matches!(contract, Contract::Grant(_));
        match self.movements.references.iter().position(|reference| !is_grant(&reference.contract)) {
            Some(position) => Err(Rejection::WrongReference { reference: index(position) }),
            None => Ok(()),
        }
    }

    fn allocations_match_their_legs(&self) -> Result<(), Rejection> {
        for (position, input) in self.movements.inputs.iter().enumerate() {
            let Contract::Allocation(allocation) = &input.contract else { continue };
            let wanted = match input.unlock {
                Unlock::Settle => TermsAction::Settle,
                Unlock::Reject => TermsAction::Reject,
                Unlock::Owner | Unlock::Withdraw | Unlock::Expire => continue,
            };
            if !self.matches_leg(allocation, wanted) {
                return Err(Rejection::AllocationMismatch { part: Part::Input, index: index(position) });
            }
        }
        for (position, output) in self.movements.outputs.iter().enumerate() {
            let Contract::Allocation(allocation) = output else { continue };
            if !self.matches_leg(allocation, TermsAction::Propose) {
                return Err(Rejection::AllocationMismatch { part: Part::Output, index: index(position) });
            }
        }
        Ok(())
    }

    fn matches_leg(&self, allocation: &Allocation, wanted: TermsAction) -> bool {
        let terms = self.terms.get(&allocation.terms, wanted);
        let leg = terms.and_then(|terms| terms.legs.get(usize::from(allocation.leg)));
        leg.is_some_and(|leg| {
            leg.payer == allocation.payer && leg.asset == allocation.asset && leg.quantity == allocation.quantity
        })
    }

    fn terms_are_used(&self) -> Result<(), Rejection> {
        let proposed = self.movements.outputs.iter().filter_map(|output| match output {
            Contract::Allocation(allocation) => Some(allocation.terms),
            Contract::Position(_) | Contract::Grant(_) => None,
        });
        let rejected = self.movements.inputs.iter().filter_map(|input| match &input.contract {
            Contract::Allocation(allocation) if input.unlock == Unlock::Reject => Some(allocation.terms),
            Contract::Allocation(_) | Contract::Position(_) | Contract::Grant(_) => None,
        });
        let used: BTreeSet<TermsId> = proposed.chain(rejected).collect();
        let idle = |entry: &&(TermsId, TermsAction, &Terms)| entry.1 != TermsAction::Settle && !used.contains(&entry.0);
        match self.terms.entries.iter().find(idle) {
            Some((id, ..)) => Err(Rejection::TermsUnused { terms: *id }),
            None => Ok(()),
        }
    }

    fn rights_are_signed(&self) -> Result<(), Rejection> {
        for (position, input) in self.movements.inputs.iter().enumerate() {
            self.input_is_signed(input, position)?;
        }
        for (position, output) in self.movements.outputs.iter().enumerate() {
            match output {
                Contract::Position(held) if held.quantity.is_negative() => {
                    self.require_signer(&held.owner, Part::Output, position)?;
                }
                Contract::Grant(grant) => self.require_signer(&grant.asset.issuer, Part::Output, position)?,
                Contract::Position(_) | Contract::Allocation(_) => {}
            }
        }
        for (position, change) in self.movements.supply.iter().enumerate() {
            self.require_signer(&change.asset.issuer, Part::Supply, position)?;
        }
        Ok(())
    }

    fn input_is_signed(&self, input: &Input, position: usize) -> Result<(), Rejection> {
        match (&input.contract, input.unlock) {
            (Contract::Position(held), _) => self.require_signer(&held.owner, Part::Input, position),
            (Contract::Grant(grant), _) => self.require_signer(&grant.asset.issuer, Part::Input, position),
            (Contract::Allocation(locked), Unlock::Withdraw) => {
                self.require_signer(&locked.payer, Part::Input, position)
            }
            (Contract::Allocation(locked), Unlock::Reject) => {
                let terms = self.terms.get(&locked.terms, TermsAction::Reject);
                let party_signs = |leg: &Leg| self.signs(&leg.payer) || self.signs(&leg.receiver);
                if terms.is_some_and(|terms| terms.legs.iter().any(party_signs)) {
                    Ok(())
                } else {
                    self.require_signer(&locked.payer, Part::Input, position)
                }
            }
            (Contract::Allocation(_), Unlock::Owner | Unlock::Settle | Unlock::Expire) => Ok(()),
        }
    }

    fn signs(&self, party: &Party) -> bool {
        self.signers.binary_search(party).is_ok()
    }

    fn require_signer(&self, party: &Party, part: Part, position: usize) -> Result<(), Rejection> {
        if self.signs(party) {
            return Ok(());
        }
        Err(Rejection::MissingSigner { party: *party, part, index: index(position) })
    }

    /// Each leg of settled terms has one allocation, or its payer's signature over this transaction.
    fn legs_are_funded_once(&self) -> Result<(), Rejection> {
        let mut funded = BTreeSet::new();
        for input in &self.movements.inputs {
            let Contract::Allocation(locked) = &input.contract else { continue };
            if input.unlock == Unlock::Settle && !funded.insert((locked.terms, locked.leg)) {
                return Err(Rejection::LegFundedTwice { terms: locked.terms, leg: locked.leg });
            }
        }
        for (id, leg, content) in self.settled_legs() {
            if !funded.contains(&(id, leg)) && !self.signs(&content.payer) {
                return Err(Rejection::LegUnfunded { terms: id, leg });
            }
        }
        Ok(())
    }

    fn settled_legs(&self) -> impl Iterator<Item = (TermsId, u16, &Leg)> {
        let settled = self.terms.entries.iter().filter(|(_, action, _)| *action == TermsAction::Settle);
        settled.flat_map(|(id, _, terms)| {
            terms.legs.iter().enumerate().map(move |(position, leg)| (*id, index(position), leg))
        })
    }

    /// Who signed agreed to the whole transaction; everyone else gets all that settled legs and returned
    /// allocations owe them.
    fn silent_parties_are_paid(&self) -> Result<(), Rejection> {
        let mut due = Sums::default();
        for (_, _, leg) in self.settled_legs() {
            self.owe(&mut due, leg.receiver, leg.asset, leg.quantity);
        }
        for input in &self.movements.inputs {
            let Contract::Allocation(locked) = &input.contract else { continue };
            if input.unlock != Unlock::Settle {
                self.owe(&mut due, locked.return_to, locked.asset, locked.quantity);
            }
        }
        if due.is_empty() {
            return Ok(());
        }
        let mut paid = Sums::default();
        for output in &self.movements.outputs {
            let Contract::Position(held) = output else { continue };
            self.owe(&mut paid, held.owner, held.asset, held.quantity);
        }
        // who is underpaid is told before whose sums leave the range, because its number is lower
        let mut overflow = Ok(());
        for ((party, asset), due) in due {
            let paid = paid.get(&(party, asset)).copied().unwrap_or(Some(Quantity::ZERO));
            match due.zip(paid) {
                Some((due, paid)) if paid < due => return Err(Rejection::Underpaid { party, asset, due, paid }),
                Some(_) => {}
                None => overflow = overflow.and(Err(Rejection::Overflow { asset })),
            }
        }
        overflow
    }

    fn owe(&self, sums: &mut Sums, party: Party, asset: AssetType, quantity: Quantity) {
        if !self.signs(&party) {
            let sum = sums.entry((party, asset)).or_insert(Some(Quantity::ZERO));
            *sum = sum.and_then(|sum| sum.checked_add(quantity));
        }
    }

    fn assets_are_conserved(&self) -> Result<(), Rejection> {
        let mut flows: BTreeMap<AssetType, (Quantity, Quantity)> = BTreeMap::new();
        for (asset, quantity) in self.movements.inputs.iter().filter_map(|input| input.contract.value()) {
            add(&mut flows.entry(asset).or_default().0, asset, quantity)?;
        }
        for change in &self.movements.supply {
            add(&mut flows.entry(change.asset).or_default().0, change.asset, change.quantity)?;
        }
        for (asset, quantity) in self.movements.outputs.iter().filter_map(Contract::value) {
            add(&mut flows.entry(asset).or_default().1, asset, quantity)?;
        }
        match flows.into_iter().find(|(_, (inflow, outflow))| inflow != outflow) {
            Some((asset, (inflow, outflow))) => Err(Rejection::NotConserved { asset, inflow, outflow }),
            None => Ok(()),
        }
    }

    fn negative_positions_are_granted(&self) -> Result<(), Rejection> {
        for (position, output) in self.movements.outputs.iter().enumerate() {
            let Contract::Position(held) = output else { continue };
            let granted = || {
                self.movements.references.iter().any(|reference| match &reference.contract {
                    Contract::Grant(grant) => grant.asset == held.asset && grant.owner == held.owner,
                    Contract::Position(_) | Contract::Allocation(_) => false,
                })
            };
            if held.quantity.is_negative() && !granted() {
                return Err(Rejection::GrantMissing { output: index(position) });
            }
        }
        Ok(())
    }

    fn supply_is_well_formed(&self) -> Result<(), Rejection> {
        let supply = &self.movements.supply;
        if let Some(position) = supply.iter().position(|change| change.quantity == Quantity::ZERO) {
            return Err(Rejection::SupplyMalformed { index: index(position) });
        }
        let unsorted = supply.iter().zip(supply.iter().skip(1)).position(|(a, b)| a.asset >= b.asset);
        match unsorted {
            Some(position) => Err(Rejection::SupplyMalformed { index: index(position.saturating_add(1)) }),
            None => Ok(()),
        }
    }
}

fn add(sum: &mut Quantity, asset: AssetType, quantity: Quantity) -> Result<(), Rejection> {
    *sum = sum.checked_add(quantity).ok_or(Rejection::Overflow { asset })?;
    Ok(())
}
