//! Where the nodes of a tree of a given size are: pure arithmetic on leaf ranges, no hashes.
//!
//! Proofs are made and verified along the same paths, so there is one definition of each path, transcribed
//! from the recursions of RFC 6962 (2.1.1 `PATH`, 2.1.2 `SUBPROOF`).

use std::iter;
use std::ops::Range;

/// A complete subtree: leaves `index * 2^height .. (index + 1) * 2^height`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Subtree {
    pub(super) height: u32,
    pub(super) index: u64,
}

/// On which side of the path a sibling stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Left,
    Right,
}

/// A node next to the path: proofs carry its hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sibling {
    pub(super) side: Side,
    pub(super) leaves: Range<u64>,
}

/// What a consistency proof consists of, in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ConsistencyPath {
    /// The last complete subtree of the old tree; absent where it is the whole old tree, whose root the
    /// verifier has.
    pub(super) seed: Option<Range<u64>>,
    /// From that subtree up to the root of the new tree.
    pub(super) siblings: Vec<Sibling>,
}

/// The complete subtrees that a node over `leaves` is folded from, left to right, each smaller than the one
/// before. `leaves` must be a node of some tree (start at a multiple of a power of two that is no shorter).
pub(super) fn complete_subtrees(leaves: Range<u64>) -> impl Iterator<Item = Subtree> {
    let Range { mut start, end } = leaves;
    iter::from_fn(move || {
        let height = length(&(start..end)).checked_ilog2()?;
        let index = start.checked_shr(height).expect("a logarithm of 64 bits is below 64");
        start = start.checked_add(power(height)).expect("the subtree ends at `end` or before");
        Some(Subtree { height, index })
    })
}

/// The siblings of leaf `index` on its way up to the root of a tree of `size` leaves (`index < size`).
pub(super) fn inclusion_path(index: u64, size: u64) -> Vec<Sibling> {
    let mut siblings = Vec::new();
    let mut node = 0..size;
    while length(&node) > 1 {
        siblings.push(descend(&mut node, index));
    }
    siblings.reverse();
    siblings
}

/// What links the tree of the first `old_size` leaves to that of `new_size` (`0 < old_size <= new_size`).
pub(super) fn consistency_path(old_size: u64, new_size: u64) -> ConsistencyPath {
    let last = old_size.checked_sub(1).expect("callers handle the empty tree, which has no leaf to lead to");
    let mut siblings = Vec::new();
    let mut node = 0..new_size;
    while node.end != old_size {
        siblings.push(descend(&mut node, last));
    }
    siblings.reverse();
    let seed = (node.start != 0).then_some(node);
    ConsistencyPath { seed, siblings }
}

/// Steps from `node` (two leaves or more) to its child that holds `leaf`; returns the other child.
fn descend(node: &mut Range<u64>, leaf: u64) -> Sibling {
    let middle = split(node);
    if leaf < middle {
        let leaves = middle..node.end;
        node.end = middle;
        Sibling { side: Side::Right, leaves }
    } else {
        let leaves = node.start..middle;
        node.start = middle;
        Sibling { side: Side::Left, leaves }
    }
}

/// Where the right child of `node` starts: the left one holds the largest power of two below its length.
fn split(node: &Range<u64>) -> u64 {
    let height = length(node).checked_sub(1).and_then(u64::checked_ilog2);
    let left = power(height.expect("a node with children has two leaves or more"));
    node.start.checked_add(left).expect("the left child ends before the node does")
}

fn length(leaves: &Range<u64>) -> u64 {
    leaves.end.checked_sub(leaves.start).expect("a range of leaves is not reversed")
}

fn power(height: u32) -> u64 {
    1_u64.checked_shl(height).expect("a logarithm of 64 bits is below 64")
}
