//! What commands may choose from: positions above zero, of the state and of the batch, in one order.
//!
//! The state's positions of a party are read when a command first asks and further only as far as commands get, in
//! steps that double, so that reading costs about what is consumed, however many commands a batch holds.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use crate::asset::AssetType;
use crate::contract::Contract;
use crate::identifier::{OutputId, Party};
use crate::view::{LedgerView, LiveOutput, ViewFault};

/// Positions read from the state at first: most commands need one or two.
const FIRST_READ: usize = 16;

/// The positions above zero of every party that a command or a created output concerned.
#[derive(Default)]
pub(super) struct Holdings {
    by_owner: BTreeMap<(Party, AssetType), Holding>,
}

/// The positions of one owner and asset. Complete up to the horizon; beyond it some may be known too.
#[derive(Default)]
struct Holding {
    live: BTreeMap<OutputId, LiveOutput>,
    /// Outputs of the state that the batch consumed: reading further must not bring them back.
    consumed: BTreeSet<OutputId>,
    horizon: Horizon,
    positions_read: usize,
}

/// How far the state's positions were read, by output id.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Horizon {
    #[default]
    Nothing,
    Through(OutputId),
    Everything,
}

impl Holdings {
    /// A position came into being, or its consumption was undone.
    pub(super) fn add(&mut self, output: LiveOutput) {
        if let Some(owner) = owner_of(&output) {
            let holding = self.by_owner.entry(owner).or_default();
            holding.consumed.remove(&output.id);
            holding.live.insert(output.id, output);
        }
    }

    /// A position was consumed, or its creation was undone.
    pub(super) fn remove(&mut self, output: &LiveOutput) {
        if let Some(owner) = owner_of(output) {
            let holding = self.by_owner.entry(owner).or_default();
            holding.live.remove(&output.id);
            holding.consumed.insert(output.id);
        }
    }

    /// The owner's first live position after `after`, ascending by output id.
    pub(super) fn next_after(
        &mut self,
        view: &dyn LedgerView,
        owner: &(Party, AssetType),
        after: Option<OutputId>,
    ) -> Result<Option<LiveOutput>, ViewFault> {
        let holding = self.by_owner.entry(*owner).or_default();
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        loop {
            let next = holding.live.range((start, Bound::Unbounded)).next().map(|(_, output)| *output);
            match (holding.horizon, next) {
                (Horizon::Everything, next) => return Ok(next),
                (Horizon::Through(horizon), Some(next)) if next.id <= horizon => return Ok(Some(next)),
                (Horizon::Through(_) | Horizon::Nothing, _) => holding.read_further(view, owner)?,
            }
        }
    }
}

impl Holding {
    fn read_further(&mut self, view: &dyn LedgerView, (owner, asset): &(Party, AssetType)) -> Result<(), ViewFault> {
        let limit = self.positions_read.saturating_mul(2).max(FIRST_READ);
        let read = view.positions(owner, asset, limit)?;
        self.horizon = match read.last() {
            Some(last) if read.len() >= limit => Horizon::Through(last.id),
            Some(_) | None => Horizon::Everything,
        };
        self.positions_read = limit;
        let unspent = read.into_iter().filter(|output| !self.consumed.contains(&output.id));
        self.live.extend(unspent.map(|output| (output.id, output)));
        Ok(())
    }
}

fn owner_of(output: &LiveOutput) -> Option<(Party, AssetType)> {
    match output.contract {
        Contract::Position(held) if held.quantity.is_positive() => Some((held.owner, held.asset)),
        Contract::Position(_) | Contract::Grant(_) | Contract::Allocation(_) => None,
    }
}
