//! Contracts of live outputs, kept small: parties and assets are written once, however many outputs name them.

use std::hash::Hash;

use ledger::{Allocation, AssetType, Contract, Grant, LogTime, Party, Position, Quantity, TermsId};

use crate::hashing::{NameHashing, NameMap};
use crate::segments::Segments;

/// Where a contract is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Position(u32),
    Grant(u32),
    Allocation(u32),
}

/// The contracts.
#[derive(Debug, Clone)]
pub(crate) struct Contracts {
    parties: Names<Party>,
    assets: Names<AssetType>,
    positions: Slots<KeptPosition>,
    grants: Slots<KeptGrant>,
    allocations: Slots<KeptAllocation>,
}

#[derive(Debug, Clone, Copy)]
struct KeptPosition {
    asset: u32,
    owner: u32,
    quantity: Quantity,
}

#[derive(Debug, Clone, Copy)]
struct KeptGrant {
    asset: u32,
    owner: u32,
}

#[derive(Debug, Clone, Copy)]
struct KeptAllocation {
    terms: TermsId,
    quantity: Quantity,
    expires_at: LogTime,
    asset: u32,
    payer: u32,
    return_to: u32,
    leg: u16,
}

impl Contracts {
    /// None yet. The seed keeps whoever chooses names from filling one bucket.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            parties: Names::new(seed),
            assets: Names::new(seed),
            positions: Slots::default(),
            grants: Slots::default(),
            allocations: Slots::default(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.positions.len().saturating_add(self.grants.len()).saturating_add(self.allocations.len())
    }

    pub(crate) fn insert(&mut self, contract: &Contract) -> Place {
        match contract {
            Contract::Position(Position { asset, owner, quantity }) => {
                let (asset, owner) = (self.assets.take(asset), self.parties.take(owner));
                Place::Position(self.positions.insert(KeptPosition { asset, owner, quantity: *quantity }))
            }
            Contract::Grant(Grant { asset, owner }) => {
                let (asset, owner) = (self.assets.take(asset), self.parties.take(owner));
                Place::Grant(self.grants.insert(KeptGrant { asset, owner }))
            }
            Contract::Allocation(Allocation { terms, leg, asset, quantity, payer, return_to, expires_at }) => {
                let (asset, payer) = (self.assets.take(asset), self.parties.take(payer));
                let return_to = self.parties.take(return_to);
                let (terms, leg, quantity, expires_at) = (*terms, *leg, *quantity, *expires_at);
                let kept = KeptAllocation { terms, quantity, expires_at, asset, payer, return_to, leg };
                Place::Allocation(self.allocations.insert(kept))
            }
        }
    }

    pub(crate) fn remove(&mut self, place: Place) {
        match place {
            Place::Position(place) => {
                if let Some(KeptPosition { asset, owner, .. }) = self.positions.remove(place) {
                    self.assets.give_back(asset);
                    self.parties.give_back(owner);
                }
            }
            Place::Grant(place) => {
                if let Some(KeptGrant { asset, owner }) = self.grants.remove(place) {
                    self.assets.give_back(asset);
                    self.parties.give_back(owner);
                }
            }
            Place::Allocation(place) => {
                if let Some(KeptAllocation { asset, payer, return_to, .. }) = self.allocations.remove(place) {
                    self.assets.give_back(asset);
                    self.parties.give_back(payer);
                    self.parties.give_back(return_to);
                }
            }
        }
    }

    /// Whether what is written at the place itself is of this contract: all but its parties and its asset.
    pub(crate) fn resembles(&self, place: Place, contract: &Contract) -> bool {
        match (place, contract) {
            (Place::Position(place), Contract::Position(position)) => {
                self.positions.get(place).is_some_and(|kept| kept.quantity == position.quantity)
            }
            (Place::Grant(place), Contract::Grant(_)) => self.grants.get(place).is_some(),
            (Place::Allocation(place), Contract::Allocation(allocation)) => {
                self.allocations.get(place).is_some_and(|kept| {
                    (kept.terms, kept.leg, kept.quantity, kept.expires_at)
                        == (allocation.terms, allocation.leg, allocation.quantity, allocation.expires_at)
                })
            }
            (Place::Position(_) | Place::Grant(_) | Place::Allocation(_), _) => false,
        }
    }

    /// Whether this contract is kept there.
    pub(crate) fn is(&self, place: Place, contract: &Contract) -> bool {
        self.resembles(place, contract) && self.names_are(place, contract)
    }

    /// Whether the rest is of this contract too, where [`Self::resembles`] holds.
    pub(crate) fn names_are(&self, place: Place, contract: &Contract) -> bool {
        let named = |asset: u32, is: &AssetType, party: u32, who: &Party| {
            self.assets.get(asset) == Some(is) && self.parties.get(party) == Some(who)
        };
        match (place, contract) {
            (Place::Position(place), Contract::Position(Position { asset, owner, .. })) => {
                self.positions.get(place).is_some_and(|kept| named(kept.asset, asset, kept.owner, owner))
            }
            (Place::Grant(place), Contract::Grant(Grant { asset, owner })) => {
                self.grants.get(place).is_some_and(|kept| named(kept.asset, asset, kept.owner, owner))
            }
            (Place::Allocation(place), Contract::Allocation(Allocation { asset, payer, return_to, .. })) => {
                self.allocations.get(place).is_some_and(|kept| {
                    named(kept.asset, asset, kept.payer, payer) && self.parties.get(kept.return_to) == Some(return_to)
                })
            }
            (Place::Position(_) | Place::Grant(_) | Place::Allocation(_), _) => false,
        }
    }

    pub(crate) fn get(&self, place: Place) -> Option<Contract> {
        Some(match place {
            Place::Position(place) => {
                let KeptPosition { asset, owner, quantity } = *self.positions.get(place)?;
                let (asset, owner) = (*self.assets.get(asset)?, *self.parties.get(owner)?);
                Contract::Position(Position { asset, owner, quantity })
            }
            Place::Grant(place) => {
                let KeptGrant { asset, owner } = *self.grants.get(place)?;
                Contract::Grant(Grant { asset: *self.assets.get(asset)?, owner: *self.parties.get(owner)? })
            }
            Place::Allocation(place) => {
                let KeptAllocation { terms, quantity, expires_at, asset, payer, return_to, leg } =
                    *self.allocations.get(place)?;
                let (payer, return_to) = (*self.parties.get(payer)?, *self.parties.get(return_to)?);
                let asset = *self.assets.get(asset)?;
                Contract::Allocation(Allocation { terms, leg, asset, quantity, payer, return_to, expires_at })
            }
        })
    }
}

/// Names by number, each for as long as somebody holds it.
#[derive(Debug, Clone)]
struct Names<T> {
    numbers: NameMap<T, u32>,
    /// Each with the number of its holders.
    names: Slots<(T, u32)>,
}

impl<T: Copy + Eq + Hash> Names<T> {
    fn new(seed: u64) -> Self {
        Self { numbers: NameMap::with_hasher(NameHashing::with_seed(seed)), names: Slots::default() }
    }

    /// The name's number, held once more.
    fn take(&mut self, name: &T) -> u32 {
        let names = &mut self.names;
        let number = *self.numbers.entry(*name).or_insert_with(|| names.insert((*name, 0)));
        if let Some((_, holders)) = names.get_mut(number) {
            *holders = holders.saturating_add(1);
        }
        number
    }

    fn give_back(&mut self, number: u32) {
        let Some((name, holders)) = self.names.get_mut(number) else { return };
        *holders = holders.saturating_sub(1);
        if *holders == 0 {
            self.numbers.remove(name);
            self.names.remove(number);
        }
    }

    fn get(&self, number: u32) -> Option<&T> {
        self.names.get(number).map(|(name, _)| name)
    }
}

/// A list whose places are used again.
#[derive(Debug, Clone)]
struct Slots<T> {
    slots: Segments<T>,
    free: Vec<u32>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { slots: Segments::default(), free: Vec::new() }
    }
}

impl<T: Copy> Slots<T> {
    fn len(&self) -> usize {
        self.slots.len().saturating_sub(self.free.len())
    }

    fn insert(&mut self, value: T) -> u32 {
        let free = self.free.pop();
        let slot = free.and_then(|place| self.get_mut(place));
        match (slot, free) {
            (Some(slot), Some(place)) => {
                *slot = value;
                place
            }
            _ => {
                self.slots.push(value);
                u32::try_from(self.slots.len().saturating_sub(1)).expect("fewer than 2^32 of them fit in memory")
            }
        }
    }

    /// What was there; the place is free from now on.
    fn remove(&mut self, place: u32) -> Option<T> {
        let value = *self.get(place)?;
        self.free.push(place);
        Some(value)
    }

    fn get(&self, place: u32) -> Option<&T> {
        self.slots.get(usize::try_from(place).ok()?)
    }

    fn get_mut(&mut self, place: u32) -> Option<&mut T> {
        self.slots.get_mut(usize::try_from(place).ok()?)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn party(number: u8) -> Party {
        Party::from_bytes([number; 32])
    }

    fn contracts(number: u8) -> [Contract; 3] {
        let asset = AssetType { issuer: party(number), symbol: "EUR".parse().unwrap() };
        let (owner, payer, return_to) = (party(number), party(number), party(9));
        let quantity = Quantity::new(i128::from(number));
        let terms = TermsId::from_bytes([number; 32]);
        let expires_at = LogTime::ZERO.plus_millis(u64::from(number));
        [
            Contract::Position(Position { asset, owner, quantity }),
            Contract::Grant(Grant { asset, owner }),
            Contract::Allocation(Allocation { terms, leg: 3, asset, quantity, payer, return_to, expires_at }),
        ]
    }

    #[test]
    fn every_contract_comes_back_as_it_was_and_leaves_nothing_behind() {
        let mut kept = Contracts::new(1);
        let all: Vec<Contract> = (1..5).flat_map(contracts).collect();
        for _ in 0..3 {
            let places: Vec<Place> = all.iter().map(|contract| kept.insert(contract)).collect();
            assert_eq!(kept.len(), all.len());
            for (place, contract) in places.iter().zip(&all) {
                assert_eq!(kept.get(*place), Some(*contract));
                let alike: Vec<&Contract> = all.iter().filter(|other| kept.is(*place, other)).collect();
                assert_eq!(alike, [contract]);
            }
            places.into_iter().for_each(|place| kept.remove(place));
            assert_eq!((kept.len(), kept.parties.numbers.len(), kept.assets.numbers.len()), (0, 0, 0));
        }
        assert_eq!((kept.parties.names.slots.len(), kept.assets.names.slots.len()), (5, 4), "places are used again");
    }
}
