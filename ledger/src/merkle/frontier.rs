//! The right edge of the tree: enough to append to it and to know its root, whatever its size.

use std::io;

use borsh::{BorshDeserialize, BorshSerialize};

use super::{LEAVES_MAX, empty_root, node_hash};
use crate::Hash;

/// A log's size and its peaks, which are the roots of its complete subtrees, left to right.
///
/// Invariant: one peak for each set bit of the size, highest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, BorshSerialize)]
pub struct Frontier {
    size: u64,
    peaks: Vec<Hash>,
}

impl Frontier {
    /// The frontier of the empty log.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of leaves.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The root of all leaves so far; [`empty_root`] where there is none.
    #[must_use]
    pub fn root(&self) -> Hash {
        let right_to_left = self.peaks.iter().copied().rev();
        right_to_left.reduce(|right, left| node_hash(&left, &right)).unwrap_or_else(empty_root)
    }

    /// Appends one leaf.
    ///
    /// # Panics
    ///
    /// At [`LEAVES_MAX`] leaves.
    pub fn append(&mut self, leaf: Hash) {
        self.append_observed(leaf, |_, _| ());
    }

    /// Appends leaves in order.
    ///
    /// # Panics
    ///
    /// At [`LEAVES_MAX`] leaves.
    pub fn append_all(&mut self, leaves: &[Hash]) {
        for leaf in leaves {
            self.append(*leaf);
        }
    }

    /// Appends one leaf and reports the height and hash of each subtree that it completes, lowest first;
    /// the leaf itself is the one of height 0.
    pub(super) fn append_observed(&mut self, leaf: Hash, mut completed: impl FnMut(u32, Hash)) {
        assert!(self.size < LEAVES_MAX, "the log is full");
        completed(0, leaf);
        let mut node = leaf;
        for height in 1..=self.size.trailing_ones() {
            let left = self.peaks.pop().expect("each set bit of the size has its peak");
            node = node_hash(&left, &node);
            completed(height, node);
        }
        self.peaks.push(node);
        self.size = self.size.checked_add(1).expect("below LEAVES_MAX");
    }

    /// The peaks, left to right.
    pub(super) fn peaks(&self) -> &[Hash] {
        &self.peaks
    }
}

impl BorshDeserialize for Frontier {
    fn deserialize_reader<R: io::Read>(reader: &mut R) -> io::Result<Self> {
        let size = u64::deserialize_reader(reader)?;
        let peaks = Vec::<Hash>::deserialize_reader(reader)?;
        let consistent = u32::try_from(peaks.len()) == Ok(size.count_ones());
        if size > LEAVES_MAX || !consistent {
            let message = format!("a frontier of {size} leaves cannot have {} peaks", peaks.len());
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        Ok(Self { size, peaks })
    }
}
