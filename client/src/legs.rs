//! The legs of terms that somebody has to fund, and what they take.

use std::collections::BTreeMap;

use ledger::view::LiveOutput;
use ledger::{AssetType, Contract, Party, Quantity, Terms};

use crate::builder::BuildFault;

/// The legs that none of these allocations funds, by position, with their payers.
pub(crate) fn open_legs(terms: &Terms, allocations: &[LiveOutput]) -> Vec<(u16, Party)> {
    let funded = |leg: u16| {
        allocations.iter().any(|output| match &output.contract {
            Contract::Allocation(locked) => locked.leg == leg,
            Contract::Position(_) | Contract::Grant(_) => false,
        })
    };
    let legs = (0_u16..).zip(&terms.legs).filter(|(position, _)| !funded(*position));
    legs.map(|(position, leg)| (position, leg.payer)).collect()
}

/// What the legs take, by asset.
pub(crate) fn needs_of(terms: &Terms, legs: &[u16]) -> Result<Vec<(AssetType, Quantity)>, BuildFault> {
    let mut needs: BTreeMap<AssetType, Quantity> = BTreeMap::new();
    for leg in legs.iter().filter_map(|leg| terms.legs.get(usize::from(*leg))) {
        let sum = needs.entry(leg.asset).or_default();
        *sum = sum.checked_add(leg.quantity).ok_or(BuildFault::Overflow(leg.asset))?;
    }
    Ok(needs.into_iter().collect())
}
