//! Which indices a log holds, and what each operation makes of that. Pure, so that every implementation
//! refuses the same batches.

use super::{LogBatch, LogOp};
use crate::StorageFault;

const WORD_BYTES: usize = 8;

/// The half-open range of indices in a log: it holds exactly `begin..end`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Extent {
    begin: u64,
    end: u64,
}

impl Extent {
    /// First index held; for an empty log the lowest index it still accepts.
    #[must_use]
    pub fn begin(self) -> u64 {
        self.begin
    }

    /// One past the last index held.
    #[must_use]
    pub fn end(self) -> u64 {
        self.end
    }

    /// First and last index held.
    #[must_use]
    pub fn bounds(self) -> Option<(u64, u64)> {
        (self.begin < self.end).then(|| (self.begin, self.end.saturating_sub(1)))
    }

    /// The extent after a batch.
    ///
    /// # Errors
    /// [`StorageFault::OutOfOrder`] for the first entry that does not follow the one before.
    pub fn after(self, batch: &LogBatch) -> Result<Self, StorageFault> {
        batch.ops().iter().try_fold(self, Self::after_op)
    }

    /// The extent after one operation.
    ///
    /// # Errors
    /// [`StorageFault::OutOfOrder`] for an entry that does not follow the one before.
    pub fn after_op(self, op: &LogOp) -> Result<Self, StorageFault> {
        match op {
            LogOp::Put { index, .. } => self.after_put(*index),
            LogOp::TruncateFrom(index) => Ok(self.after_truncation(*index)),
            LogOp::PurgeThrough(index) => Ok(self.after_purge(*index)),
            LogOp::PutMeta { .. } => Ok(self),
        }
    }

    fn after_put(self, index: u64) -> Result<Self, StorageFault> {
        let empty = self.begin == self.end;
        let follows = if empty { index >= self.begin } else { index == self.end };
        match index.checked_add(1).filter(|_| follows) {
            Some(end) => Ok(Self { begin: if empty { index } else { self.begin }, end }),
            None => Err(StorageFault::OutOfOrder { index, begin: self.begin, end: self.end }),
        }
    }

    fn after_truncation(self, from: u64) -> Self {
        Self { begin: self.begin, end: self.end.min(from).max(self.begin) }
    }

    fn after_purge(self, through: u64) -> Self {
        let begin = self.begin.max(through.saturating_add(1));
        Self { begin, end: self.end.max(begin) }
    }

    /// Sixteen bytes: begin and end, big endian.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 2 * WORD_BYTES];
        let (begin, end) = bytes.split_at_mut(WORD_BYTES);
        begin.copy_from_slice(&self.begin.to_be_bytes());
        end.copy_from_slice(&self.end.to_be_bytes());
        bytes
    }

    /// Reads what [`Extent::to_bytes`] wrote; `None` for anything else.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (begin, rest) = bytes.split_first_chunk::<WORD_BYTES>()?;
        let extent = Self {
            begin: u64::from_be_bytes(*begin),
            end: u64::from_be_bytes(<[u8; WORD_BYTES]>::try_from(rest).ok()?),
        };
        (extent.begin <= extent.end).then_some(extent)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn extent(begin: u64, end: u64) -> Extent {
        Extent { begin, end }
    }

    #[test]
    fn operations_move_the_extent_like_this() {
        let batch = LogBatch::new;
        let table = [
            // before, batch, after (None: refused)
            (extent(0, 0), batch().put(0, "a").put(1, "b"), Some(extent(0, 2))),
            (extent(0, 0), batch().put(500, "a"), Some(extent(500, 501))),
            (extent(1, 4), batch().put(4, "a"), Some(extent(1, 5))),
            (extent(1, 4), batch().put(5, "a"), None),
            (extent(1, 4), batch().put(3, "a"), None),
            (extent(1, 4), batch().truncate_from(3).put(3, "a"), Some(extent(1, 4))),
            (extent(1, 4), batch().put(4, "a").truncate_from(2), Some(extent(1, 2))),
            (extent(1, 4), batch().truncate_from(9), Some(extent(1, 4))),
            (extent(1, 4), batch().truncate_from(0), Some(extent(1, 1))),
            (extent(1, 4), batch().purge_through(2), Some(extent(3, 4))),
            (extent(1, 4), batch().purge_through(0), Some(extent(1, 4))),
            (extent(1, 4), batch().purge_through(9), Some(extent(10, 10))),
            (extent(1, 4), batch().purge_through(9).put(9, "a"), None),
            (extent(1, 4), batch().purge_through(9).put(10, "a"), Some(extent(10, 11))),
            (extent(0, 0), batch().put(u64::MAX, "a"), None),
        ];
        for (before, batch, after) in table {
            assert_eq!(before.after(&batch).ok(), after, "{before:?} {batch:?}");
        }
    }

    #[test]
    fn an_extent_survives_encoding_and_nonsense_is_refused() {
        assert_eq!(Extent::from_bytes(&extent(3, 9).to_bytes()).unwrap(), extent(3, 9));
        assert_eq!(Extent::from_bytes(&extent(9, 3).to_bytes()), None);
        assert_eq!(Extent::from_bytes(&[0; 15]), None);
        assert_eq!(Extent::from_bytes(&[0; 17]), None);
    }
}
