//! Where each entry of the log stands on disk. Held in memory: 24 bytes an entry.

use std::{collections::VecDeque, ops::Range};

/// A sealed record in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) segment: u64,
    /// Of its first byte in the segment.
    pub(super) offset: u64,
    /// Of the sealed record.
    pub(super) length: u32,
}

/// Positions of contiguous entries.
#[derive(Debug, Default)]
pub(super) struct Positions {
    begin: u64,
    positions: VecDeque<Position>,
}

impl Position {
    pub(super) fn new(segment: u64, range: &Range<usize>) -> Self {
        let (start, length) = (u64::try_from(range.start), u32::try_from(range.len()));
        Self {
            segment,
            offset: start.expect("a segment is shorter than 2^64 bytes"),
            length: length.expect("a group of batches is far below 4 GiB"),
        }
    }
}

impl Positions {
    /// The indices whose positions are known.
    pub(super) fn range(&self) -> Range<u64> {
        self.begin..self.begin + self.count()
    }

    fn count(&self) -> u64 {
        u64::try_from(self.positions.len()).expect("memory is smaller than 2^64 entries")
    }

    pub(super) fn get(&self, index: u64) -> Option<Position> {
        self.positions.get(usize::try_from(index.checked_sub(self.begin)?).ok()?).copied()
    }

    /// Adds the entry that follows the last one; the first of an empty list may have any index.
    pub(super) fn put(&mut self, index: u64, position: Position) {
        if self.positions.is_empty() {
            self.begin = index;
        }
        assert_eq!(index, self.range().end, "the extent admitted this entry");
        self.positions.push_back(position);
    }

    pub(super) fn truncate_from(&mut self, index: u64) {
        let kept = usize::try_from(index.saturating_sub(self.begin)).unwrap_or(usize::MAX);
        self.positions.truncate(kept);
    }

    pub(super) fn purge_through(&mut self, index: u64) {
        let gone = index.saturating_add(1).saturating_sub(self.begin).min(self.count());
        self.positions.drain(..usize::try_from(gone).expect("not more than there are"));
        self.begin += gone;
    }
}
