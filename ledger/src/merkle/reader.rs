//! Reading the log's history: roots and proofs of any prefix, out of stored tiles and the filling ones. What the
//! source returns is checked against the log before use, so that a damaged disk yields a fault, not a bad proof.

use std::collections::BTreeMap;
use std::ops::Range;

use super::log::level_of;
use super::shape::{Subtree, complete_subtrees, consistency_path, inclusion_path};
use super::tile::{self, TILE_HEIGHT, TileId, TileSource};
use super::{MerkleLog, empty_root, node_hash};
use crate::Hash;

/// Why the log's history could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogFault<E> {
    /// The tree asked for is larger than the log. It may exist later.
    #[error("a tree of {requested} leaves was asked for, the log has {size}")]
    SizeOutOfRange {
        /// The size asked for.
        requested: u64,
        /// The log's size.
        size: u64,
    },
    /// The leaf asked for is not in the tree asked for.
    #[error("leaf {index} was asked for in a tree of {size} leaves")]
    IndexOutOfRange {
        /// The leaf asked for.
        index: u64,
        /// The size of the tree asked for.
        size: u64,
    },
    /// The older tree asked for is larger than the newer one.
    #[error("a tree of {old_size} leaves cannot be a prefix of one of {new_size}")]
    SizesReversed {
        /// The size asked for as the older one.
        old_size: u64,
        /// The size asked for as the newer one.
        new_size: u64,
    },
    /// The source lacks a tile that was complete: it lost it, or holds another log.
    #[error("tile {0} is not stored")]
    TileMissing(TileId),
    /// The source holds something else under a tile's key: its disk or its bookkeeping is broken.
    #[error("tile {0} is not the one that was stored")]
    TileCorrupt(TileId),
    /// The source failed to answer.
    #[error("reading a tile failed")]
    Source(#[source] E),
}

/// Answers questions about any prefix of a log. Keeps every tile it has read (about 16 KiB each) until it is
/// dropped, so that proofs for neighbouring leaves cost their path alone.
#[derive(Debug)]
pub struct LogReader<'a, S> {
    log: &'a MerkleLog,
    source: &'a S,
    tiles: BTreeMap<TileId, TileNodes>,
}

impl<'a, S: TileSource> LogReader<'a, S> {
    pub(super) fn new(log: &'a MerkleLog, source: &'a S) -> Self {
        Self { log, source, tiles: BTreeMap::new() }
    }

    /// Proof that leaf `index` is in the tree of the first `tree_size` leaves, for `verify_inclusion`.
    ///
    /// # Errors
    ///
    /// If `tree_size` is beyond the log, `index` beyond `tree_size`, or a tile cannot be had.
    pub fn inclusion_proof(&mut self, index: u64, tree_size: u64) -> Result<Vec<Hash>, LogFault<S::Error>> {
        self.check_size(tree_size)?;
        if index >= tree_size {
            return Err(LogFault::IndexOutOfRange { index, size: tree_size });
        }
        let siblings = inclusion_path(index, tree_size);
        siblings.into_iter().map(|sibling| self.fold(sibling.leaves)).collect()
    }

    /// Proof that the tree of `new_size` leaves extends that of `old_size`, for `verify_consistency`. Empty
    /// for an empty old tree and for equal sizes.
    ///
    /// # Errors
    ///
    /// If `new_size` is beyond the log, `old_size` beyond `new_size`, or a tile cannot be had.
    pub fn consistency_proof(&mut self, old_size: u64, new_size: u64) -> Result<Vec<Hash>, LogFault<S::Error>> {
        self.check_size(new_size)?;
        if old_size > new_size {
            return Err(LogFault::SizesReversed { old_size, new_size });
        }
        if old_size == 0 {
            return Ok(Vec::new());
        }
        let path = consistency_path(old_size, new_size);
        let siblings = path.siblings.into_iter().map(|sibling| sibling.leaves);
        path.seed.into_iter().chain(siblings).map(|leaves| self.fold(leaves)).collect()
    }

    /// The root of the first `tree_size` leaves.
    ///
    /// # Errors
    ///
    /// If `tree_size` is beyond the log or a tile cannot be had.
    pub fn root_at(&mut self, tree_size: u64) -> Result<Hash, LogFault<S::Error>> {
        self.check_size(tree_size)?;
        if tree_size == 0 {
            return Ok(empty_root());
        }
        self.fold(0..tree_size)
    }

    fn check_size(&self, requested: u64) -> Result<(), LogFault<S::Error>> {
        let size = self.log.size();
        if requested > size {
            return Err(LogFault::SizeOutOfRange { requested, size });
        }
        Ok(())
    }

    /// The hash of the node over these leaves, of which there is at least one.
    fn fold(&mut self, leaves: Range<u64>) -> Result<Hash, LogFault<S::Error>> {
        let subtrees: Vec<Subtree> = complete_subtrees(leaves).collect();
        let mut right_to_left = subtrees.into_iter().rev();
        let last = right_to_left.next().expect("no node of a tree is empty");
        let mut hash = self.subtree(last)?;
        for left in right_to_left {
            hash = node_hash(&self.subtree(left)?, &hash);
        }
        Ok(hash)
    }

    fn subtree(&mut self, subtree: Subtree) -> Result<Hash, LogFault<S::Error>> {
        let id = tile_of(subtree);
        if !self.tiles.contains_key(&id) {
            let tile = self.load(id)?;
            self.tiles.insert(id, tile);
        }
        let tile = self.tiles.get(&id).expect("inserted above");
        Ok(tile.node(subtree).expect("a tile within the log's size holds its complete subtrees"))
    }

    fn load(&mut self, id: TileId) -> Result<TileNodes, LogFault<S::Error>> {
        if let Some(hashes) = self.log.filling(id) {
            return Ok(TileNodes::new(hashes.to_vec()));
        }
        let stored = self.source.tile(id).map_err(LogFault::Source)?;
        let stored = stored.ok_or(LogFault::TileMissing(id))?;
        let hashes = tile::decode(stored.as_ref()).ok_or(LogFault::TileCorrupt(id))?;
        let tile = TileNodes::new(hashes);
        // The level above holds this tile's root, and the top of that chain is in the log itself. Nearly
        // every path needs those tiles anyway, so this costs one hash.
        if tile.root() == Some(self.subtree(root_of(id))?) { Ok(tile) } else { Err(LogFault::TileCorrupt(id)) }
    }
}

/// The tile that holds the root of a subtree, or the hashes that it folds from.
fn tile_of(subtree: Subtree) -> TileId {
    let level = level_of(subtree.height);
    let tile_height = root_of(TileId { level, index: 0 }).height;
    let above = tile_height.checked_sub(subtree.height).expect("a tile is higher than the nodes in it");
    TileId { level, index: subtree.index.checked_shr(above).expect("a tile spans eight heights") }
}

/// The node that a complete tile folds to.
fn root_of(id: TileId) -> Subtree {
    let height = u32::from(id.level).saturating_add(1).saturating_mul(TILE_HEIGHT);
    Subtree { height, index: id.index }
}

/// Every complete node inside one tile.
#[derive(Debug)]
pub(super) struct TileNodes {
    /// Row 0 is the tile's content; each further row holds the parents of the pairs in the row before.
    rows: Vec<Vec<Hash>>,
}

impl TileNodes {
    pub(super) fn new(hashes: Vec<Hash>) -> Self {
        let mut rows = vec![hashes];
        for _ in 0..TILE_HEIGHT {
            let (pairs, _) = rows.last().expect("row 0 is there").as_chunks::<2>();
            rows.push(pairs.iter().map(|[left, right]| node_hash(left, right)).collect());
        }
        Self { rows }
    }

    /// The tile's own root, once the tile is complete.
    fn root(&self) -> Option<Hash> {
        self.rows.last()?.first().copied()
    }

    /// The root of a subtree that lies in this tile; `None` where the tile has not got that far.
    pub(super) fn node(&self, subtree: Subtree) -> Option<Hash> {
        let height = subtree.height.checked_rem(TILE_HEIGHT)?;
        let row = self.rows.get(usize::try_from(height).ok()?)?;
        let width = 1_u64.checked_shl(TILE_HEIGHT.checked_sub(height)?)?;
        let place = usize::try_from(subtree.index.checked_rem(width)?).ok()?;
        row.get(place).copied()
    }
}
