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
    /// Outputs that the batch consumed at least once: reading further must not bring them back.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::Position;
    use crate::identifier::{Hash, TransactionId};
    use crate::outcome::Outcome;
    use crate::quantity::{Quantity, Sequence};
    use crate::transaction::Origin;
    use crate::view::Place;

    /// A state that holds nothing but these positions of one owner.
    struct Positions(BTreeMap<OutputId, LiveOutput>);

    impl LedgerView for Positions {
        fn live(&self, id: &OutputId) -> Result<Option<Place>, ViewFault> {
            Ok(self.0.get(id).map(|output| output.place))
        }

        fn spender(&self, _: &OutputId, _: &Origin) -> Result<Option<TransactionId>, ViewFault> {
            Ok(None)
        }

        fn outcome(&self, _: &TransactionId) -> Result<Option<(Sequence, Outcome)>, ViewFault> {
            Ok(None)
        }

        fn log_root_at(&self, _: Sequence) -> Result<Option<Hash>, ViewFault> {
            Ok(None)
        }

        fn positions(&self, _: &Party, _: &AssetType, limit: usize) -> Result<Vec<LiveOutput>, ViewFault> {
            Ok(self.0.values().take(limit).copied().collect())
        }
    }

    fn owner() -> (Party, AssetType) {
        let party = Party::from_bytes([1; 32]);
        (party, AssetType { issuer: party, symbol: "USD".parse().expect("a symbol") })
    }

    fn position(number: u8) -> LiveOutput {
        let (owner, asset) = owner();
        LiveOutput {
            id: OutputId::from_bytes([number; 32]),
            origin: Origin { transaction: TransactionId::from_bytes([number; 32]), index: 0 },
            place: Place { sequence: Sequence::new(0), index: 0 },
            contract: Contract::Position(Position { asset, owner, quantity: Quantity::new(1) }),
        }
    }

    fn state(numbers: impl Iterator<Item = u8>) -> Positions {
        Positions(numbers.map(position).map(|output| (output.id, output)).collect())
    }

    fn rest(holdings: &mut Holdings, view: &Positions, mut after: Option<OutputId>) -> Vec<u8> {
        let mut found = Vec::new();
        while let Ok(Some(next)) = holdings.next_after(view, &owner(), after) {
            found.extend(next.id.as_bytes().first());
            after = Some(next.id);
        }
        found
    }

    #[test]
    fn positions_of_the_batch_come_in_order_with_those_of_the_state_that_were_not_read_yet() {
        let view = state((0..100).map(|number| number * 2));
        let mut holdings = Holdings::default();
        holdings.add(position(151));
        let first = holdings.next_after(&view, &owner(), None).ok().flatten().map(|output| output.id);
        assert_eq!(first, Some(position(0).id));
        holdings.add(position(99));
        let mut expected: Vec<u8> = (0..100).map(|number| number * 2).chain([99, 151]).collect();
        expected.sort_unstable();
        assert_eq!(rest(&mut holdings, &view, None), expected);
    }

    #[test]
    fn what_was_consumed_does_not_come_back_when_the_state_is_read_further() {
        let view = state(0..60);
        let mut holdings = Holdings::default();
        (20..60).for_each(|number| holdings.remove(&position(number)));
        assert_eq!(rest(&mut holdings, &view, None), (0..20).collect::<Vec<_>>());
    }

    #[test]
    fn a_consumption_that_was_undone_is_found_whether_read_before_or_after() {
        let view = state(0..60);
        let mut holdings = Holdings::default();
        for number in [3, 50] {
            holdings.remove(&position(number));
            holdings.add(position(number));
        }
        assert_eq!(rest(&mut holdings, &view, None), (0..60).collect::<Vec<_>>());
        for number in [3, 50] {
            holdings.remove(&position(number));
            holdings.add(position(number));
        }
        assert_eq!(rest(&mut holdings, &view, Some(position(2).id)), (3..60).collect::<Vec<_>>());
    }

    #[test]
    fn a_state_that_ends_where_a_reading_ends_is_read_once_more_and_is_complete() {
        let view = state(0..16);
        let mut holdings = Holdings::default();
        assert_eq!(rest(&mut holdings, &view, None), (0..16).collect::<Vec<_>>());
    }
}
