//! Which parts of a batch may be resolved side by side: transactions linked by shared outputs form a component.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::identifier::OutputId;

use super::Placement;
use super::prepare::Prepared;

/// Takes eight bytes of an identifier as its hash: identifiers are BLAKE3 hashes already. Making many of them
/// collide costs a search of 2^64 per pair, and collisions cost time only.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct PrefixHasher {
    prefix: u64,
}

impl Hasher for PrefixHasher {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(prefix) = bytes.first_chunk::<8>() {
            self.prefix = u64::from_le_bytes(*prefix);
        }
    }

    fn write_usize(&mut self, _length: usize) {}

    fn finish(&self) -> u64 {
        self.prefix
    }
}

pub(super) type IdHasher = BuildHasherDefault<PrefixHasher>;
pub(super) type OutputMap<V> = HashMap<OutputId, V, IdHasher>;

/// The units of the batch grouped into components, each in order, ordered by their first units.
///
/// Commands choose their inputs later and could meet anything, so a batch with one is a single component.
pub(super) fn components(members: &[Option<Prepared>], placed: &Placement) -> Vec<Vec<usize>> {
    let prepared = |place: usize| {
        placed.transactions.get(place).and_then(|placed| members.get(placed.member)).and_then(Option::as_ref)
    };
    if (0..placed.transactions.len()).filter_map(prepared).any(|member| member.command().is_some()) {
        return vec![(0..placed.units.len()).collect()];
    }
    let mut links = DisjointSets::new(placed.units.len());
    let mut first_toucher: OutputMap<usize> = HashMap::default();
    for (unit, places) in placed.units.iter().enumerate() {
        for id in places.clone().filter_map(prepared).flat_map(|member| member.effects.touched()) {
            let first = *first_toucher.entry(*id).or_insert(unit);
            links.join(first, unit);
        }
    }
    links.into_components()
}

/// Union-find with path halving; the smaller index is the representative.
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

    fn into_components(mut self) -> Vec<Vec<usize>> {
        let mut components: Vec<Vec<usize>> = Vec::new();
        let mut component_of: Vec<usize> = Vec::new();
        for unit in 0..self.parents.len() {
            let root = self.root(unit);
            let component = if root == unit { components.len() } else { component_of.get(root).copied().unwrap_or(0) };
            component_of.push(component);
            match components.get_mut(component) {
                Some(units) => units.push(unit),
                None => components.push(vec![unit]),
            }
        }
        components
    }
}
