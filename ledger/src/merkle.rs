//! The append-only log of outcomes: the Merkle tree of RFC 6962 (section 2.1) over BLAKE3.
//!
//! Flows in: leaf hashes in log order. Flows out: the root of every prefix, complete tiles to store, and
//! proofs that a leaf is in a prefix (inclusion) or that one prefix extends another (consistency).
//!
//! Invariants:
//! 1. The root depends on the leaves and their order alone, not on how appends were grouped or on restarts.
//! 2. What is kept in memory is bounded by the tree's height: one peak per set bit of the size, and one
//!    incomplete tile per level.
//! 3. Verification needs nothing but its arguments, never panics, and accepts no proof of another length.
//!
//! A root does not commit to the size of its tree: `index` 0 of 3 leaves and of 4 leaves have paths of one
//! shape. Whoever trusts a root must have got the size from the same signed head.
//!
//! Deliberately absent: what a leaf means (outcomes encode themselves), where tiles are stored
//! ([`TileSource`] is the caller's), and removal of anything.

mod shape;
mod frontier;
mod tile;
mod log;
mod reader;
mod proof;

pub use frontier::Frontier;
pub use log::MerkleLog;
pub use proof::{ProofFault, verify_consistency, verify_inclusion};
pub use reader::{LogFault, LogReader};
pub use tile::{TILE_BYTES, TILE_HASHES, TILE_HEIGHT, TileId, TileSource};

use crate::Hash;

/// Most leaves a log can hold: seven levels of tiles. A million leaves a second fill it in 2,283 years.
pub const LEAVES_MAX: u64 = (1 << 56) - 1;

/// Bytes of one hash.
const HASH_BYTES: usize = 32;

// RFC 6962, 2.1: the prefixes keep a leaf from being taken for an inner node and the other way round.
const LEAF_PREFIX: u8 = 0x00;
const NODE_PREFIX: u8 = 0x01;
/// Leaves shorter than this are put together on the stack: nearly every outcome.
const LEAF_STACK_BYTES: usize = 256;

/// The hash of a leaf with this content. It needs no tree, so leaves can be hashed in parallel.
#[must_use]
pub fn leaf_hash(bytes: &[u8]) -> Hash {
    let mut message = [LEAF_PREFIX; LEAF_STACK_BYTES];
    if let Some(message) = message.get_mut(..=bytes.len()) {
        // in one piece a short message costs half
        message.split_at_mut(1).1.copy_from_slice(bytes);
        return Hash::from_bytes(*blake3::hash(message).as_bytes());
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[LEAF_PREFIX]).update(bytes);
    Hash::from_bytes(*hasher.finalize().as_bytes())
}

/// The hash of an inner node over its two children.
#[must_use]
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    let mut bytes = [NODE_PREFIX; 1 + 2 * HASH_BYTES];
    let (children, _) = bytes.split_at_mut(1).1.as_chunks_mut::<HASH_BYTES>();
    for (place, child) in children.iter_mut().zip([left, right]) {
        *place = *child.as_bytes();
    }
    Hash::from_bytes(*blake3::hash(&bytes).as_bytes())
}

/// The root of the tree without leaves: the hash of nothing.
#[must_use]
pub fn empty_root() -> Hash {
    Hash::from_bytes(*blake3::hash(&[]).as_bytes())
}
