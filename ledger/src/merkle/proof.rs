//! Verification by whoever holds a proof: needs no log, no source and no trust in who made the proof.

use super::shape::{Side, consistency_path, inclusion_path};
use super::{empty_root, node_hash};
use crate::Hash;

/// Why a proof does not prove what it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProofFault {
    /// The tree has no such leaf.
    #[error("leaf {index} cannot be in a tree of {size} leaves")]
    IndexOutOfRange {
        /// The leaf claimed.
        index: u64,
        /// The size claimed.
        size: u64,
    },
    /// The older tree is larger than the newer one.
    #[error("a tree of {old_size} leaves cannot be a prefix of one of {new_size}")]
    SizesReversed {
        /// The size claimed for the older tree.
        old_size: u64,
        /// The size claimed for the newer tree.
        new_size: u64,
    },
    /// A proof of this claim has another length.
    #[error("the proof has {found} hashes instead of {expected}")]
    Length {
        /// Hashes such a proof has.
        expected: usize,
        /// Hashes found.
        found: usize,
    },
    /// The root does not follow: of the tree, or of the newer tree.
    #[error("the proof leads to another root")]
    Root,
    /// The older root does not follow.
    #[error("the proof leads to another old root")]
    OldRoot,
}

/// Checks that the tree of `size` leaves with this root has this leaf hash at `index` (RFC 6962, 2.1.1).
///
/// `size` and `root` must come from one trusted head, because a root alone does not commit to a size.
///
/// # Errors
///
/// The first reason, in the order of [`ProofFault`], why this is not proved.
pub fn verify_inclusion(
    leaf_hash: &Hash,
    index: u64,
    size: u64,
    proof: &[Hash],
    root: &Hash,
) -> Result<(), ProofFault> {
    if index >= size {
        return Err(ProofFault::IndexOutOfRange { index, size });
    }
    let path = inclusion_path(index, size);
    check_length(path.len(), proof)?;
    let computed = path.iter().zip(proof).fold(*leaf_hash, |node, (sibling, hash)| match sibling.side {
        Side::Left => node_hash(hash, &node),
        Side::Right => node_hash(&node, hash),
    });
    check_root(&computed, root, ProofFault::Root)
}

/// Checks that the tree of `new_size` leaves begins with the `old_size` leaves under `old_root` (RFC 6962,
/// 2.1.2). Every tree extends the empty one, so for `old_size` 0 the new root of a larger tree is not looked at.
///
/// # Errors
///
/// The first reason, in the order of [`ProofFault`], why this is not proved.
pub fn verify_consistency(
    old_size: u64,
    old_root: &Hash,
    new_size: u64,
    new_root: &Hash,
    proof: &[Hash],
) -> Result<(), ProofFault> {
    if old_size > new_size {
        return Err(ProofFault::SizesReversed { old_size, new_size });
    }
    if old_size == 0 {
        return verify_from_empty(old_root, new_size, new_root, proof);
    }
    let path = consistency_path(old_size, new_size);
    let (seed, hashes) = match (&path.seed, proof) {
        (Some(_), [seed, hashes @ ..]) => (seed, hashes),
        (Some(_), []) | (None, _) => (old_root, proof),
    };
    check_length(usize::from(path.seed.is_some()).saturating_add(path.siblings.len()), proof)?;

    let (mut old, mut new) = (*seed, *seed);
    for (sibling, hash) in path.siblings.iter().zip(hashes) {
        match sibling.side {
            Side::Left => {
                old = node_hash(hash, &old);
                new = node_hash(hash, &new);
            }
            Side::Right => new = node_hash(&new, hash),
        }
    }
    check_root(&new, new_root, ProofFault::Root)?;
    check_root(&old, old_root, ProofFault::OldRoot)
}

fn verify_from_empty(old_root: &Hash, new_size: u64, new_root: &Hash, proof: &[Hash]) -> Result<(), ProofFault> {
    check_length(0, proof)?;
    if new_size == 0 {
        check_root(&empty_root(), new_root, ProofFault::Root)?;
    }
    check_root(&empty_root(), old_root, ProofFault::OldRoot)
}

fn check_length(expected: usize, proof: &[Hash]) -> Result<(), ProofFault> {
    if proof.len() == expected {
        return Ok(());
    }
    Err(ProofFault::Length { expected, found: proof.len() })
}

fn check_root(computed: &Hash, claimed: &Hash, fault: ProofFault) -> Result<(), ProofFault> {
    if computed == claimed { Ok(()) } else { Err(fault) }
}
