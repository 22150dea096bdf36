//! The log as a replica keeps it: the frontier and, of each level, the tile that is still filling.

use std::io;

use borsh::{BorshDeserialize, BorshSerialize};

use super::Frontier;
use super::reader::{LogFault, LogReader, TileNodes};
use super::shape::complete_subtrees;
use super::tile::{self, TILE_HASHES, TILE_HEIGHT, TileId, TileSource};
use crate::Hash;

/// An append-only Merkle log whose complete tiles are stored by the caller.
///
/// Its encoding is the whole state apart from those tiles; a log decoded from it continues identically.
/// Decoding refuses a state whose parts contradict each other.
///
/// Invariant: `filling[n]` holds as many hashes as the n-th base-256 digit of the size (lowest first, no
/// leading zero), and the frontier's peaks are what those hashes fold to.
#[derive(Debug, Clone, Default, PartialEq, Eq, BorshSerialize)]
pub struct MerkleLog {
    frontier: Frontier,
    filling: Vec<Vec<Hash>>,
}

impl MerkleLog {
    /// The empty log.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of leaves.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.frontier.size()
    }

    /// The root of all leaves so far.
    #[must_use]
    pub fn root(&self) -> Hash {
        self.frontier.root()
    }

    /// The right edge, for those who follow the log without its tiles.
    #[must_use]
    pub fn frontier(&self) -> &Frontier {
        &self.frontier
    }

    /// Appends leaves in order and returns the tiles they complete, to be stored before or together with
    /// this log's new state.
    ///
    /// # Panics
    ///
    /// At [`LEAVES_MAX`](super::LEAVES_MAX) leaves.
    #[must_use = "complete tiles are not kept here: proofs need them stored"]
    pub fn append_all(&mut self, leaves: &[Hash]) -> Vec<(TileId, Vec<u8>)> {
        let Self { frontier, filling } = self;
        let mut complete = Vec::new();
        for leaf in leaves {
            let position = frontier.size();
            frontier.append_observed(*leaf, |height, hash| {
                if height.is_multiple_of(TILE_HEIGHT) {
                    complete.extend(push(filling, level_of(height), position, hash));
                }
            });
        }
        complete
    }

    /// Reads this log's history out of its tiles. Ask one reader for several proofs: it reads and hashes
    /// each tile once.
    #[must_use]
    pub fn reader<'a, S: TileSource>(&'a self, source: &'a S) -> LogReader<'a, S> {
        LogReader::new(self, source)
    }

    /// Proof that leaf `index` is in the tree of the first `tree_size` leaves, for `verify_inclusion`.
    ///
    /// # Errors
    ///
    /// If `tree_size` is beyond the log, `index` beyond `tree_size`, or a tile cannot be had.
    pub fn inclusion_proof<S: TileSource>(
        &self,
        source: &S,
        index: u64,
        tree_size: u64,
    ) -> Result<Vec<Hash>, LogFault<S::Error>> {
        self.reader(source).inclusion_proof(index, tree_size)
    }

    /// Proof that the tree of `new_size` leaves extends that of `old_size`, for `verify_consistency`.
    ///
    /// # Errors
    ///
    /// If `new_size` is beyond the log, `old_size` beyond `new_size`, or a tile cannot be had.
    pub fn consistency_proof<S: TileSource>(
        &self,
        source: &S,
        old_size: u64,
        new_size: u64,
    ) -> Result<Vec<Hash>, LogFault<S::Error>> {
        self.reader(source).consistency_proof(old_size, new_size)
    }

    /// The root of the first `tree_size` leaves.
    ///
    /// # Errors
    ///
    /// If `tree_size` is beyond the log or a tile cannot be had.
    pub fn root_at<S: TileSource>(&self, source: &S, tree_size: u64) -> Result<Hash, LogFault<S::Error>> {
        self.reader(source).root_at(tree_size)
    }

    /// The hashes of a tile that is still filling; `None` for one that is complete and hence stored.
    pub(super) fn filling(&self, id: TileId) -> Option<&[Hash]> {
        let filling = self.filling.get(usize::from(id.level))?;
        (id.index == tile_index(id.level, self.size())).then_some(filling)
    }

    /// Whether the frontier and the filling tiles tell the same story.
    fn is_consistent(&self) -> bool {
        let bytes = self.size().to_le_bytes();
        let digits = bytes.iter().rposition(|digit| *digit != 0).map_or(0, |last| last.saturating_add(1));
        let lengths = self.filling.iter().map(Vec::len);
        if !lengths.eq(bytes.iter().take(digits).copied().map(usize::from)) {
            return false;
        }
        let tiles: Vec<TileNodes> = self.filling.iter().map(|hashes| TileNodes::new(hashes.clone())).collect();
        let peaks = complete_subtrees(0..self.size()).map(|subtree| {
            let tile = tiles.get(usize::from(level_of(subtree.height)))?;
            tile.node(subtree)
        });
        peaks.eq(self.frontier.peaks().iter().copied().map(Some))
    }
}

impl BorshDeserialize for MerkleLog {
    fn deserialize_reader<R: io::Read>(reader: &mut R) -> io::Result<Self> {
        let frontier = Frontier::deserialize_reader(reader)?;
        let filling = Vec::<Vec<Hash>>::deserialize_reader(reader)?;
        let log = Self { frontier, filling };
        if log.is_consistent() {
            return Ok(log);
        }
        let message = "the filling tiles of a Merkle log contradict its frontier";
        Err(io::Error::new(io::ErrorKind::InvalidData, message))
    }
}

/// The level of the tile that holds nodes of this height.
pub(super) fn level_of(height: u32) -> u8 {
    let level = height.checked_div(TILE_HEIGHT).and_then(|level| u8::try_from(level).ok());
    level.expect("a height is below 64")
}

/// Which tile of a level is above leaf `position`.
fn tile_index(level: u8, position: u64) -> u64 {
    let height = u32::from(level).saturating_add(1).saturating_mul(TILE_HEIGHT);
    position.checked_shr(height).unwrap_or(0)
}

/// Adds the node above leaf `position` to its level's filling tile; returns that tile if this completes it.
fn push(filling: &mut Vec<Vec<Hash>>, level: u8, position: u64, hash: Hash) -> Option<(TileId, Vec<u8>)> {
    let level_index = usize::from(level);
    if filling.len() == level_index {
        filling.push(Vec::with_capacity(TILE_HASHES));
    }
    let hashes = filling.get_mut(level_index).expect("a level starts when the one below completes a tile");
    hashes.push(hash);
    if hashes.len() < TILE_HASHES {
        return None;
    }
    let bytes = tile::encode(hashes);
    hashes.clear();
    Some((TileId { level, index: tile_index(level, position) }, bytes))
}
