//! How much of its history the ledger says that it knows: what is older is answered as if it had never been.
//!
//! Where history begins is decided by the order alone, once per batch, from the time that it is to be kept for. It begins
//! at one of a few marks between batches, and only at one before which every transaction has expired. Whatever
//! was forgotten can therefore not be ordered again.

use borsh::{BorshDeserialize, BorshSerialize};
use ledger::entry::ConfigurationChange;
use ledger::{Limits, LogTime, Sequence};

/// The time that is kept is divided by marks into as many steps.
const STEPS: u64 = 32;
/// More marks than these are never kept.
const MARKS_MAX: usize = 256;

/// A place between two batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
struct Mark {
    next_batch: u64,
    next: Sequence,
    /// Log time of the batch behind it.
    log_time: LogTime,
    /// When everything before it has expired.
    expired_by: LogTime,
}

/// The history that the ledger answers from.
#[derive(Debug, Clone, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct KeptHistory {
    keep_ms: Option<u64>,
    beginning: Option<Mark>,
    /// Where it may begin later, oldest first.
    marks: Vec<Mark>,
    expired_by: LogTime,
}

impl KeptHistory {
    /// The first place of the order that is remembered.
    #[must_use]
    pub fn first(&self) -> Sequence {
        self.beginning.map(|mark| mark.next).unwrap_or_default()
    }

    /// The first batch that is remembered.
    #[must_use]
    pub fn first_batch(&self) -> u64 {
        self.beginning.map_or(1, |mark| mark.next_batch)
    }

    /// True where a transaction that is valid until then may have been ordered and forgotten. It must not be ordered.
    #[must_use]
    pub fn may_have_forgotten(&self, valid_until: LogTime) -> bool {
        self.beginning.is_some_and(|mark| valid_until <= mark.expired_by)
    }

    /// The limits under which transactions are ordered: none is valid for longer than history is kept.
    #[must_use]
    pub fn limits(&self) -> Limits {
        let validity_ms_max = Limits::V1.validity_ms_max.min(self.keep_ms.unwrap_or(u64::MAX));
        Limits { validity_ms_max, ..Limits::V1 }
    }

    /// Whether a time is set for which history is kept.
    pub(crate) const fn forgets(&self) -> bool {
        self.keep_ms.is_some()
    }

    /// Moves behind a batch: its number, its first place and its log time, when the last of its transactions expires, and
    /// what it changed.
    pub(crate) fn pass(
        &mut self,
        (batch, next, log_time): (u64, Sequence, LogTime),
        expired_by: LogTime,
        change: Option<&ConfigurationChange>,
    ) {
        let here = Mark { next_batch: batch, next, log_time, expired_by: self.expired_by };
        self.expired_by = self.expired_by.max(expired_by);
        match self.keep_ms {
            None => self.marks.clear(),
            Some(keep_ms) => self.forget(here, keep_ms),
        }
        if let Some(ConfigurationChange::KeepHistory(keep_ms)) = change {
            self.keep_ms = *keep_ms;
        }
    }

    fn forget(&mut self, here: Mark, keep_ms: u64) {
        let step = keep_ms.checked_div(STEPS).unwrap_or_default();
        let is_due = self.marks.last().is_none_or(|last| last.log_time.plus_millis(step) <= here.log_time);
        if is_due && self.marks.len() < MARKS_MAX {
            self.marks.push(here);
        }
        let is_past =
            |mark: &&Mark| mark.log_time.plus_millis(keep_ms) <= here.log_time && mark.expired_by <= here.log_time;
        let past = self.marks.iter().take_while(is_past).count();
        self.beginning = self.marks.drain(..past).next_back().or(self.beginning);
    }
}
