//! Which parts of a batch may be resolved side by side: transactions linked by outputs that change form a component.

use flaws::{Flaw, is_planted};

use crate::identifier::OutputId;

use super::Placement;
use super::prepare::Prepared;

/// The units of the batch grouped into components, each in order, ordered by their first units.
///
/// An output links its creator, its consumers and those who reference it. Referencing alone links nobody: what
/// nothing in the batch creates or consumes stays as it is, and so one grant does not put all its users in one queue.
/// Commands choose their inputs later and could meet anything, so a batch with one is a single component.
pub(super) fn components(members: &[Option<Prepared>], placed: &Placement) -> Vec<Vec<usize>> {
    if is_planted(Flaw::ConflictsUnlinked) {
        return (0..placed.units.len()).map(|unit| vec![unit]).collect();
    }
    if placed.has_commands {
        return vec![(0..placed.units.len()).collect()];
    }
    let effects_of = |unit: usize| {
        let places = placed.units.get(unit).map(|unit| unit.places.clone()).unwrap_or_default();
        let transactions = placed.transactions.get(places).unwrap_or_default();
        transactions.iter().filter_map(|placed| members.get(placed.member)?.as_ref()).map(|member| &member.effects)
    };
    let mut links = DisjointSets::new(placed.units.len());
    let changed = members.iter().flatten().map(|member| member.effects.changed_count()).sum();
    let mut first_to_change = placed.hashing.map::<OutputId, usize>(changed);
    for unit in 0..placed.units.len() {
        for id in effects_of(unit).flat_map(|effects| effects.changed()) {
            links.join(*first_to_change.entry(*id).or_insert(unit), unit);
        }
    }
    for unit in 0..placed.units.len() {
        for (id, _) in effects_of(unit).flat_map(|effects| &effects.referenced) {
            if let Some(changer) = first_to_change.get(id) {
                links.join(*changer, unit);
            }
        }
    }
    links.into_components()
}

/// Union-find with path halving; the smallest member is the representative.
struct DisjointSets {
    parents: Vec<usize>,
}

impl DisjointSets {
    fn new(count: usize) -> Self {
        Self { parents: (0..count).collect() }
    }

    fn parent(&self, of: usize) -> usize {
        self.parents.get(of).copied().unwrap_or(of)
    }

    fn root(&mut self, mut of: usize) -> usize {
        while self.parent(of) != of {
            let grandparent = self.parent(self.parent(of));
            if let Some(slot) = self.parents.get_mut(of) {
                *slot = grandparent;
            }
            of = grandparent;
        }
        of
    }

    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.root(a), self.root(b));
        if let Some(slot) = self.parents.get_mut(a.max(b)) {
            *slot = a.min(b);
        }
    }

    /// The sets, each ascending, ordered by their smallest members: a root comes before the rest of its set.
    fn into_components(mut self) -> Vec<Vec<usize>> {
        let mut components: Vec<Vec<usize>> = Vec::new();
        let mut component_of: Vec<usize> = Vec::with_capacity(self.parents.len());
        for unit in 0..self.parents.len() {
            let root = self.root(unit);
            let component = component_of.get(root).copied().unwrap_or(components.len());
            component_of.push(component);
            match components.get_mut(component) {
                Some(units) => units.push(unit),
                None => components.push(vec![unit]),
            }
        }
        components
    }
}

#[cfg(test)]
mod tests {
    use super::DisjointSets;

    #[test]
    fn joined_sets_come_out_ascending_and_by_their_smallest_members() {
        let mut sets = DisjointSets::new(7);
        for (a, b) in [(5, 2), (6, 5), (3, 1), (1, 3), (4, 4)] {
            sets.join(a, b);
        }
        assert_eq!(sets.into_components(), [vec![0], vec![1, 3], vec![2, 5, 6], vec![4]]);
    }

    #[test]
    fn a_long_chain_joined_from_its_end_is_one_set() {
        let mut sets = DisjointSets::new(10_000);
        for unit in (1..10_000).rev() {
            sets.join(unit, unit - 1);
        }
        assert_eq!(sets.into_components(), [(0..10_000).collect::<Vec<_>>()]);
    }

    #[test]
    fn no_units_make_no_component() {
        assert!(DisjointSets::new(0).into_components().is_empty());
    }
}
