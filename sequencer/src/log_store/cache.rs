//! The end of the log in memory, without a gap.

use std::collections::VecDeque;

use crate::config::Entry;
use crate::encoding::{self, Record};

/// Entries from some index to the end of the log.
#[derive(Debug, Clone, Default)]
pub(super) struct Cache {
    first: u64,
    records: VecDeque<Record>,
    bytes: usize,
}

impl Cache {
    /// Index of the first entry held; where the log ends if none is.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    fn end(&self) -> u64 {
        self.first + u64::try_from(self.records.len()).expect("fewer than 2^64 entries")
    }

    /// Empty, for a log that ends before this index.
    pub(super) fn restart(&mut self, end: u64) {
        *self = Cache { first: end, ..Cache::default() };
    }

    /// Adds the entry that follows the last one.
    pub(super) fn push(&mut self, record: Record) {
        assert_eq!(record.entry.log_id.index, self.end(), "the log is contiguous");
        self.bytes += encoding::entry_bytes(&record.entry);
        self.records.push_back(record);
    }

    /// Removes this index and everything after it.
    pub(super) fn truncate_from(&mut self, index: u64) {
        if index <= self.first {
            self.restart(index);
            return;
        }
        while self.end() > index
            && let Some(record) = self.records.pop_back()
        {
            self.bytes -= encoding::entry_bytes(&record.entry);
        }
    }

    /// Removes everything before this index.
    pub(super) fn drop_before(&mut self, index: u64) {
        if index >= self.end() {
            self.restart(index);
            return;
        }
        while self.first < index {
            self.drop_first();
        }
    }

    /// Removes the oldest entries before this index until the rest takes at most `bytes_max`.
    pub(super) fn shrink(&mut self, bytes_max: usize, before: u64) {
        while self.bytes > bytes_max && self.first < before.min(self.end()) {
            self.drop_first();
        }
    }

    fn drop_first(&mut self) {
        let record = self.records.pop_front().expect("the caller saw an entry");
        self.bytes -= encoding::entry_bytes(&record.entry);
        self.first += 1;
    }

    /// The entry with this index, if it is held.
    pub(super) fn get(&self, index: u64) -> Option<&Record> {
        let offset = usize::try_from(index.checked_sub(self.first)?).ok()?;
        self.records.get(offset)
    }

    /// Entries from `begin` (which is held) to before `end`, until they reach `bytes_max`; at least one.
    pub(super) fn read(&self, begin: u64, end: u64, bytes_max: usize) -> Vec<Entry> {
        let mut entries = Vec::new();
        let mut bytes = 0;
        for index in begin..end {
            let Some(record) = self.get(index) else { break };
            entries.push(record.entry.clone());
            bytes += encoding::entry_bytes(&record.entry);
            if bytes >= bytes_max {
                break;
            }
        }
        entries
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use openraft::EntryPayload;

    use super::*;
    use crate::machine::EntryId;

    fn cache(begin: u64, end: u64) -> Cache {
        let mut cache = Cache::default();
        cache.restart(begin);
        for index in begin..end {
            let log_id = EntryId { term: 1, node: 1, index }.into();
            cache.push(Record { written: index, entry: Entry { log_id, payload: EntryPayload::Blank } });
        }
        cache
    }

    fn indices(entries: &[Entry]) -> Vec<u64> {
        entries.iter().map(|entry| entry.log_id.index).collect()
    }

    #[test]
    fn cutting_anywhere_leaves_the_end_of_the_log_without_a_gap() {
        for cut in 0..12 {
            let mut cut_end = cache(3, 9);
            cut_end.truncate_from(cut);
            assert_eq!(cut_end.end(), cut.min(9));
            assert_eq!(indices(&cut_end.read(3, 20, usize::MAX)), (3..cut.clamp(3, 9)).collect::<Vec<_>>());
            assert_eq!(cut_end.bytes == 0, cut <= 3);

            let mut cut_front = cache(3, 9);
            cut_front.drop_before(cut);
            assert_eq!(cut_front.first(), cut.max(3));
            assert_eq!(cut_front.end(), cut.max(9));
        }
    }

    #[test]
    fn entries_that_are_not_durable_stay() {
        let mut cache = cache(3, 9);
        cache.shrink(0, 6);
        assert_eq!(cache.first(), 6);
        cache.shrink(0, 100);
        assert_eq!((cache.first(), cache.bytes), (9, 0));
    }

    #[test]
    fn a_read_is_bounded_in_bytes_but_never_empty() {
        let cache = cache(3, 9);
        assert_eq!(indices(&cache.read(4, 9, 0)), [4]);
        let two = 2 * encoding::entry_bytes(&cache.get(3).unwrap().entry);
        assert_eq!(indices(&cache.read(4, 9, two)), [4, 5]);
    }
}
