//! How far back the history is kept: where it begins is decided by the order alone, so that every replica answers alike
//! from the same place on, whenever each of them clears its disk.
//!
//! What may be forgotten is what can never be asked to happen again: what has expired. A transaction is valid for a
//! bounded time, and where less history than that is kept, for no longer than history is.

use std::collections::VecDeque;

use borsh::{BorshDeserialize, BorshSerialize};

use crate::quantity::{LogTime, Sequence};

/// Marks over the time that is kept: as many steps does the beginning take to move that far.
const MARKS_PER_PERIOD: u64 = 32;
/// Marks kept at most, where the period was changed again and again.
const MARKS_MAX: usize = 256;

/// A place between two batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Mark {
    /// The first batch after it.
    pub batch: u64,
    /// The first place of the order after it.
    pub sequence: Sequence,
    /// The time of the first batch after it. Nothing before it was ordered later.
    pub log_time: LogTime,
    /// Everything before it has expired by then.
    pub expired_by: LogTime,
}

impl Mark {
    /// Before the first batch.
    pub const BEGINNING: Self =
        Self { batch: 1, sequence: Sequence::new(0), log_time: LogTime::ZERO, expired_by: LogTime::ZERO };
}

/// The history that is kept: where it begins, and where it may begin later.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct KeptHistory {
    beginning: Mark,
    marks: VecDeque<Mark>,
    /// Everything so far has expired by then.
    expired_by: LogTime,
}

impl Default for KeptHistory {
    fn default() -> Self {
        Self { beginning: Mark::BEGINNING, marks: VecDeque::new(), expired_by: LogTime::ZERO }
    }
}

impl KeptHistory {
    /// Where it begins.
    #[must_use]
    pub const fn beginning(&self) -> Mark {
        self.beginning
    }

    /// True of a transaction that is not in the history, if it may be because it was forgotten.
    #[must_use]
    pub fn may_have_forgotten(&self, valid_until: LogTime) -> bool {
        self.beginning != Mark::BEGINNING && valid_until <= self.beginning.expired_by
    }

    /// Moves on past a batch of this number, first place and time, whose transactions have all expired by `expired_by`.
    /// What is older than `keep_ms`, and has expired, is forgotten; `None` keeps everything.
    pub fn advance(
        &mut self,
        (batch, sequence, log_time): (u64, Sequence, LogTime),
        expired_by: LogTime,
        keep_ms: Option<u64>,
    ) {
        let mark = Mark { batch, sequence, log_time, expired_by: self.expired_by };
        self.expired_by = self.expired_by.max(expired_by);
        let Some(keep_ms) = keep_ms else {
            self.marks.clear();
            return;
        };
        let is_due = |last: &Mark| last.log_time.plus_millis(keep_ms / MARKS_PER_PERIOD) <= log_time;
        if self.marks.len() < MARKS_MAX && self.marks.back().is_none_or(is_due) {
            self.marks.push_back(mark);
        }
        while let Some(first) = self.marks.front()
            && first.log_time.plus_millis(keep_ms) <= log_time
            && first.expired_by <= log_time
        {
            self.beginning = *first;
            self.marks.pop_front();
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::arithmetic_side_effects, reason = "tests")]
mod tests {
    use super::*;

    const VALIDITY: u64 = 1_000;

    fn time(batch: u64) -> LogTime {
        LogTime::from_unix_millis(batch * 100)
    }

    /// A batch every tenth of a second.
    fn advance(history: &mut KeptHistory, batch: u64, keep_ms: Option<u64>, validity_ms: u64) {
        let expired_by = time(batch).plus_millis(validity_ms);
        history.advance((batch, Sequence::new(batch * 10), time(batch)), expired_by, keep_ms);
    }

    fn after(batches: std::ops::RangeInclusive<u64>, keep_ms: Option<u64>) -> KeptHistory {
        let mut history = KeptHistory::default();
        for batch in batches {
            advance(&mut history, batch, keep_ms, VALIDITY);
            let kept = batch * 100 - history.beginning().log_time.unix_millis();
            let keep = keep_ms.unwrap_or(u64::MAX);
            assert!(history.beginning() == Mark::BEGINNING || kept >= keep, "{batch}: {kept} ms are kept");
            // one step of a thirty-second, and two batches
            let keep = keep.max(VALIDITY);
            assert!(kept <= keep.saturating_add(keep / MARKS_PER_PERIOD).saturating_add(300), "{batch}: {kept} ms");
        }
        history
    }

    #[test]
    fn the_beginning_follows_at_the_distance_that_is_kept() {
        for keep in [0, 1_000, 5_000, 64_000] {
            let history = after(1..=2_000, Some(keep));
            let beginning = history.beginning();
            assert!(beginning.batch > 1_000, "{keep}");
            assert_eq!(
                (beginning.sequence, beginning.log_time),
                (Sequence::new(beginning.batch * 10), time(beginning.batch))
            );
            assert!(history.marks.len() <= usize::try_from(MARKS_PER_PERIOD).unwrap() + 2);
        }
        assert_eq!(after(1..=2_000, None).beginning(), Mark::BEGINNING);
    }

    #[test]
    fn whatever_is_forgotten_has_expired() {
        let history = after(1..=2_000, Some(2_000));
        let beginning = history.beginning();
        // the last one forgotten was ordered a batch before the beginning and valid for as long as may be
        let latest = time(beginning.batch - 1).plus_millis(VALIDITY);
        assert!(history.may_have_forgotten(latest));
        assert!(latest <= time(2_000));
        assert!(!history.may_have_forgotten(latest.plus_millis(1)));
        assert!(!KeptHistory::default().may_have_forgotten(LogTime::ZERO));
    }

    #[test]
    fn what_was_valid_for_longer_once_is_kept_until_it_expires() {
        let mut history = KeptHistory::default();
        advance(&mut history, 1, None, 50_000);
        for batch in 2..=501 {
            advance(&mut history, batch, Some(1_000), 1_000);
            let expected = if batch < 501 { 1 } else { history.beginning().batch };
            assert_eq!(history.beginning().batch, expected, "{batch}");
        }
        assert!(history.beginning().batch > 1);
    }

    #[test]
    fn what_was_forgotten_stays_so_when_more_is_kept_from_then_on() {
        let mut history = after(1..=2_000, Some(2_000));
        let beginning = history.beginning();
        advance(&mut history, 2_001, None, VALIDITY);
        assert_eq!(history.beginning(), beginning);
        for batch in 2_002..=2_100 {
            advance(&mut history, batch, Some(1_000_000), VALIDITY);
        }
        assert_eq!(history.beginning(), beginning);
        for batch in 2_101..=100_000 {
            let keep = if batch % 2 == 0 { 1_000 } else { u64::MAX };
            advance(&mut history, batch, Some(keep), VALIDITY);
        }
        assert!(history.marks.len() <= MARKS_MAX);
        assert!(history.beginning().batch > 99_000);
    }
}
