//! Tiles: how the tree is cut for storage. A level-0 tile holds 256 leaf hashes; a tile of level n holds the
//! roots of 256 tiles of level n - 1. Only complete tiles are stored, each written once and never changed.

use std::fmt;

use super::HASH_BYTES;
use crate::Hash;

/// Levels of the tree that one tile spans. Eight make a tile 8 KiB and the tiles of a billion leaves four
/// levels high, so that a proof reads four to eight tiles.
pub const TILE_HEIGHT: u32 = 8;

/// Hashes in a complete tile.
pub const TILE_HASHES: usize = 1 << TILE_HEIGHT;

/// Bytes of a complete tile.
pub const TILE_BYTES: usize = TILE_HASHES * HASH_BYTES;

/// Names a tile. Tiles of one level are numbered from the left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TileId {
    /// 0 for tiles of leaf hashes.
    pub level: u8,
    /// Position within the level.
    pub index: u64,
}

impl TileId {
    /// The storage key: level, then index, both big-endian, so that keys sort as ids do.
    #[must_use]
    pub fn key(self) -> [u8; 9] {
        let [a, b, c, d, e, f, g, h] = self.index.to_be_bytes();
        [self.level, a, b, c, d, e, f, g, h]
    }
}

impl fmt::Display for TileId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.level, self.index)
    }
}

/// Where complete tiles are read back from: every tile that `MerkleLog::append_all` has ever returned.
pub trait TileSource {
    /// A tile's content.
    type Tile: AsRef<[u8]>;
    /// Why reading failed.
    type Error: std::error::Error + 'static;

    /// The stored content of a tile, or `None` where it was never stored.
    ///
    /// # Errors
    ///
    /// Whatever keeps the source from answering.
    fn tile(&self, id: TileId) -> Result<Option<Self::Tile>, Self::Error>;
}

/// A tile's stored form: its hashes one after another.
pub(super) fn encode(hashes: &[Hash]) -> Vec<u8> {
    hashes.iter().flat_map(Hash::as_bytes).copied().collect()
}

/// The hashes of a stored complete tile; `None` where the length is not that of one.
pub(super) fn decode(bytes: &[u8]) -> Option<Vec<Hash>> {
    let (hashes, []) = bytes.as_chunks::<HASH_BYTES>() else {
        return None;
    };
    (hashes.len() == TILE_HASHES).then(|| hashes.iter().copied().map(Hash::from_bytes).collect())
}
