//! The positions that a strategy draws on, free or claimed. A claim is taken in one step, all of it or nothing, before
//! anything is sent, and ends with its transaction: spent, or free again.

use std::collections::{BTreeMap, BTreeSet};

use ledger::view::LiveOutput;
use ledger::{AssetType, Contract, OutputId, Quantity};
use seams::{Entropy, next_u64};

use crate::wallet::Shortage;

/// Free positions among which one of the largest size class is drawn: enough that processes which share a key seldom
/// draw the same one.
const DRAWN_FROM: usize = 8;

/// What there is of one asset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stock {
    /// Sum of the free positions.
    pub free: Quantity,
    /// Sum of the positions that transactions under way may consume.
    pub claimed: Quantity,
    /// Free positions.
    pub free_positions: usize,
    /// Claimed positions.
    pub claimed_positions: usize,
}

impl Stock {
    /// Positions, free or not.
    #[must_use]
    pub const fn positions(&self) -> usize {
        self.free_positions + self.claimed_positions
    }

    /// Their sum.
    #[must_use]
    pub fn total(&self) -> Quantity {
        sum(self.free, self.claimed)
    }
}

#[derive(Debug, Default)]
struct Shelf {
    /// Ascending by quantity.
    free: BTreeMap<(Quantity, OutputId), LiveOutput>,
    stock: Stock,
}

/// One party's positions by asset, and its grants.
#[derive(Debug, Default)]
pub(super) struct Funds {
    shelves: BTreeMap<AssetType, Shelf>,
    free: BTreeSet<OutputId>,
    claimed: BTreeMap<OutputId, LiveOutput>,
    grants: BTreeMap<AssetType, LiveOutput>,
    /// What was consumed since a reading of the ledger began, while one is under way: it may still show there.
    consumed: Option<BTreeSet<OutputId>>,
}

impl Funds {
    /// Adds an output that is live, unless it is known.
    pub(super) fn insert(&mut self, output: &LiveOutput) {
        match &output.contract {
            Contract::Position(held) => {
                if !self.claimed.contains_key(&output.id) && self.free.insert(output.id) {
                    let shelf = self.shelves.entry(held.asset).or_default();
                    shelf.free.insert((held.quantity, output.id), *output);
                    shelf.stock.free = sum(shelf.stock.free, held.quantity);
                    shelf.stock.free_positions += 1;
                }
            }
            Contract::Grant(grant) => {
                self.grants.insert(grant.asset, *output);
            }
            Contract::Allocation(_) => {}
        }
    }

    /// A reading of the ledger begins: returns what is free now.
    pub(super) fn begin_reading(&mut self) -> BTreeSet<OutputId> {
        self.consumed = Some(BTreeSet::new());
        self.free.clone()
    }

    /// The reading failed: nothing is learnt.
    pub(super) fn abandon_reading(&mut self) {
        self.consumed = None;
    }

    /// The reading is over. What was free when it began and is not there was spent elsewhere; what is there and unknown
    /// has come from elsewhere.
    pub(super) fn end_reading(&mut self, free_before: &BTreeSet<OutputId>, live: &[LiveOutput]) {
        let consumed = self.consumed.take().unwrap_or_default();
        let there: BTreeSet<OutputId> = live.iter().map(|output| output.id).collect();
        for gone in free_before.difference(&there) {
            self.remove_free(gone);
        }
        self.grants.retain(|_, grant| there.contains(&grant.id));
        for output in live.iter().filter(|output| !consumed.contains(&output.id)) {
            self.insert(output);
        }
    }

    fn remove_free(&mut self, id: &OutputId) {
        if !self.free.remove(id) {
            return;
        }
        for shelf in self.shelves.values_mut() {
            let key = shelf.free.keys().find(|(_, output)| output == id).copied();
            if let Some(output) = key.and_then(|key| shelf.free.remove(&key)) {
                shelf.stock.free = less(shelf.stock.free, quantity_of(&output));
                shelf.stock.free_positions -= 1;
                return;
            }
        }
    }

    pub(super) fn grant(&self, asset: &AssetType) -> Option<LiveOutput> {
        self.grants.get(asset).copied()
    }

    pub(super) fn stock(&self, asset: &AssetType) -> Stock {
        self.shelves.get(asset).map(|shelf| shelf.stock).unwrap_or_default()
    }

    pub(super) fn stocks(&self) -> BTreeMap<AssetType, Stock> {
        let held = self.shelves.iter().filter(|(_, shelf)| shelf.stock.positions() > 0);
        held.map(|(asset, shelf)| (*asset, shelf.stock)).collect()
    }

    /// Free positions of an asset, ascending by quantity.
    pub(super) fn free(&self, asset: &AssetType) -> impl DoubleEndedIterator<Item = &LiveOutput> {
        self.shelves.get(asset).into_iter().flat_map(|shelf| shelf.free.values())
    }

    /// Claimed positions of an asset.
    pub(super) fn claimed(&self, asset: &AssetType) -> impl Iterator<Item = &LiveOutput> {
        let empty = self.stock(asset).claimed_positions == 0;
        let claimed = if empty { None } else { Some(self.claimed.values()) };
        claimed.into_iter().flatten().filter(move |output| output.contract.asset() == *asset)
    }

    /// Claims these free positions.
    pub(super) fn claim(&mut self, outputs: &[LiveOutput]) {
        for output in outputs {
            assert!(self.free.remove(&output.id), "only what is free is claimed");
            let quantity = quantity_of(output);
            if let Some(shelf) = self.shelves.get_mut(&output.contract.asset()) {
                shelf.free.remove(&(quantity, output.id));
                shelf.stock.free = less(shelf.stock.free, quantity);
                shelf.stock.claimed = sum(shelf.stock.claimed, quantity);
                shelf.stock.free_positions -= 1;
                shelf.stock.claimed_positions += 1;
            }
            self.claimed.insert(output.id, *output);
        }
    }

    /// Ends a claim: the outputs are free again.
    pub(super) fn release(&mut self, outputs: &[LiveOutput]) {
        for output in outputs {
            if self.unclaim(&output.id) {
                self.insert(output);
            }
        }
    }

    /// Ends a claim: the outputs are gone.
    pub(super) fn spend(&mut self, outputs: &[LiveOutput]) {
        for output in outputs {
            if !self.unclaim(&output.id) {
                self.remove_free(&output.id);
            }
            if let Some(consumed) = &mut self.consumed {
                consumed.insert(output.id);
            }
        }
    }

    fn unclaim(&mut self, id: &OutputId) -> bool {
        let Some(output) = self.claimed.remove(id) else { return false };
        if let Some(shelf) = self.shelves.get_mut(&output.contract.asset()) {
            shelf.stock.claimed = less(shelf.stock.claimed, quantity_of(&output));
            shelf.stock.claimed_positions -= 1;
        }
        true
    }

    /// The free positions that cover a need with the fewest inputs, largest first; at most `inputs_max`.
    pub(super) fn cover(
        &self,
        asset: &AssetType,
        wanted: Quantity,
        inputs_max: usize,
    ) -> Result<Vec<LiveOutput>, Shortage> {
        let mut held = Quantity::ZERO;
        let mut chosen = Vec::new();
        for output in self.free(asset).rev().take_while(|output| quantity_of(output).is_positive()).take(inputs_max) {
            if held >= wanted {
                break;
            }
            held = sum(held, quantity_of(output));
            chosen.push(*output);
        }
        if held >= wanted { Ok(chosen) } else { Err(self.shortage(asset, wanted, inputs_max)) }
    }

    /// One of the largest free positions, drawn among those of its size class.
    pub(super) fn draw_largest(&self, asset: &AssetType, entropy: &dyn Entropy) -> Option<LiveOutput> {
        let largest = quantity_of(self.free(asset).next_back()?).minor_units();
        let class = |output: &&LiveOutput| quantity_of(output).minor_units() > largest / 2;
        let drawn: Vec<&LiveOutput> = self.free(asset).rev().take_while(class).take(DRAWN_FROM).collect();
        let ticket = next_u64(entropy) % u64::try_from(drawn.len().max(1)).unwrap_or(1);
        drawn.get(usize::try_from(ticket).unwrap_or_default()).copied().copied()
    }

    /// The smallest free position that holds at least `wanted`.
    pub(super) fn smallest_holding(&self, asset: &AssetType, wanted: Quantity) -> Option<LiveOutput> {
        let from = (wanted, OutputId::from_bytes([0; 32]));
        self.shelves.get(asset)?.free.range(from..).next().map(|(_, output)| *output)
    }

    /// Why these needs, paid together, have to wait: of the assets that are not covered, what lasts longest.
    pub(super) fn shortage_of(&self, needs: &[(AssetType, Quantity)], inputs_max: usize) -> Option<Shortage> {
        let lasts = |shortage: &Shortage| match shortage {
            Shortage::Fragmented { .. } => 0,
            Shortage::Locked { .. } => 1,
            Shortage::Insufficient { .. } => 2,
        };
        let mut room = inputs_max;
        let mut shortages = Vec::new();
        for (asset, wanted) in needs {
            match self.cover(asset, *wanted, room) {
                Ok(claim) => room = room.saturating_sub(claim.len()),
                Err(shortage) => shortages.push(shortage),
            }
        }
        shortages.into_iter().max_by_key(lasts)
    }

    /// Why free positions do not cover a need.
    pub(super) fn shortage(&self, asset: &AssetType, wanted: Quantity, inputs_max: usize) -> Shortage {
        let Stock { free, claimed, .. } = self.stock(asset);
        if free >= wanted {
            Shortage::Fragmented { wanted, inputs_max }
        } else if sum(free, claimed) >= wanted {
            Shortage::Locked { wanted, free, claimed }
        } else {
            Shortage::Insufficient { wanted, free, claimed }
        }
    }
}

pub(super) fn quantity_of(output: &LiveOutput) -> Quantity {
    output.contract.value().map(|(_, quantity)| quantity).unwrap_or_default()
}

/// For choosing; where a sum leaves 128 bits the largest number says enough.
pub(super) fn sum(a: Quantity, b: Quantity) -> Quantity {
    Quantity::new(a.minor_units().saturating_add(b.minor_units()))
}

pub(super) fn less(a: Quantity, b: Quantity) -> Quantity {
    Quantity::new(a.minor_units().saturating_sub(b.minor_units()))
}
