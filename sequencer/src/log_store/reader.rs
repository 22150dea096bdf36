//! Reading the log: from the cache, and from the engine what the cache no longer holds.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use futures::Stream;
use futures::stream;
use openraft::storage::RaftLogReader;
use openraft::{OptionalSend, type_config::alias};
use storage::StorageFault;

use super::Shared;
use crate::config::{Entry, TypeConfig, Vote};
use crate::encoding;

/// How often a read that a cut of the log disturbed is tried again. Cuts are rare: one would do.
const ATTEMPTS_MAX: u32 = 8;

/// Reads the log while it grows and is cut.
#[derive(Clone)]
pub(crate) struct LogReader {
    pub(super) shared: Arc<Shared>,
}

enum Source {
    Nothing,
    Cache(Vec<Entry>),
    Disk { begin: u64, end: u64, cuts: u64 },
}

impl Shared {
    fn locate(&self, begin: u64, end: u64, bytes_max: usize) -> Source {
        let state = self.state();
        let begin = begin.max(state.begin());
        let end = end.min(state.end());
        if begin >= end {
            Source::Nothing
        } else if begin >= state.cache.first() {
            Source::Cache(state.cache.read(begin, end, bytes_max))
        } else {
            Source::Disk { begin, end: end.min(state.cache.first()), cuts: state.cuts }
        }
    }

    /// The first entries of the range until they reach `bytes_max`; at least one, if the log has any of them.
    /// What was purged is left out.
    pub(super) async fn read(self: &Arc<Self>, begin: u64, end: u64, bytes_max: usize) -> io::Result<Vec<Entry>> {
        for _ in 0..ATTEMPTS_MAX {
            let (begin, end, cuts) = match self.locate(begin, end, bytes_max) {
                Source::Nothing => return Ok(Vec::new()),
                Source::Cache(entries) => return Ok(entries),
                Source::Disk { begin, end, cuts } => (begin, end, cuts),
            };
            let shared = Arc::clone(self);
            let read = seams::offload(&*self.compute, move || shared.read_disk(begin, end, bytes_max)).await;
            match read {
                Ok(entries) if entries.first().is_some_and(|entry| entry.log_id.index == begin) => return Ok(entries),
                // the log was cut meanwhile: what is missing may be missing rightly
                _ if self.state().cuts != cuts => {}
                Ok(_) => return Err(io::Error::other(format!("the log lacks entry {begin}, which it should hold"))),
                Err(fault) => return Err(fault),
            }
        }
        Err(io::Error::other("the log is cut faster than it can be read"))
    }

    fn read_disk(&self, begin: u64, end: u64, bytes_max: usize) -> io::Result<Vec<Entry>> {
        let records = self.engine.read(begin..end, bytes_max).map_err(io::Error::other)?;
        let mut entries = Vec::with_capacity(records.len());
        for (expected, (index, bytes)) in (begin..).zip(records) {
            let entry = encoding::decode_record(bytes).map_err(io::Error::other)?.entry;
            if index != expected || entry.log_id.index != expected {
                return Err(io::Error::other(format!("the log holds entry {index} in place of {expected}")));
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    /// Bytes that the log was given up to and including this entry. Blocks.
    fn written_through(&self, index: u64) -> Result<Option<u64>, StorageFault> {
        if let Some(record) = self.state().cache.get(index) {
            return Ok(Some(record.written));
        }
        let found = self.engine.read(index..index.saturating_add(1), 1)?.pop();
        Ok(found.and_then(|(_, bytes)| encoding::decode_record(bytes).ok()).map(|record| record.written))
    }

    /// Through which entry the log can be purged so that at least `bytes_keep` stay. Blocks.
    pub(crate) fn purge_position(&self, bytes_keep: u64) -> Result<Option<u64>, StorageFault> {
        let (begin, end, written) = {
            let state = self.state();
            (state.begin(), state.end(), state.written)
        };
        // the first entry that stays lies in begin..=end, and `written_through` grows with the index
        let (mut low, mut high) = (begin, end);
        while low < high {
            let middle = low + (high - low) / 2;
            let Some(through) = self.written_through(middle)? else { return Ok(None) };
            if written.saturating_sub(through) >= bytes_keep {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low.checked_sub(1).filter(|last| *last >= begin))
    }

    /// Bytes that the log was given up to and including this entry, off the runtime.
    pub(super) async fn written_through_offloaded(self: &Arc<Self>, index: u64) -> io::Result<Option<u64>> {
        let shared = Arc::clone(self);
        seams::offload(&*self.compute, move || shared.written_through(index)).await.map_err(io::Error::other)
    }
}

fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let begin = match range.start_bound() {
        Bound::Included(begin) => *begin,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    (begin, end)
}

impl RaftLogReader<TypeConfig> for LogReader {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<Entry>>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (mut begin, end) = bounds(&range);
        let mut entries: Vec<Entry> = Vec::new();
        loop {
            let more = self.shared.read(begin, end, self.shared.append_bytes_max).await?;
            let Some(last) = more.last() else { return Ok(entries) };
            let joins = entries.is_empty() || more.first().is_some_and(|first| first.log_id.index == begin);
            if !joins {
                return Err(io::Error::other(format!("entry {begin} was purged while it was read")));
            }
            begin = last.log_id.index.saturating_add(1);
            entries.extend(more);
        }
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.shared.read(start, end, self.shared.append_bytes_max).await
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.shared.state().vote)
    }

    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = io::Result<alias::EntryOf<TypeConfig>>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (begin, end) = bounds(&range);
        let rest = Vec::new().into_iter();
        stream::unfold((Arc::clone(&self.shared), begin, rest), move |(shared, begin, mut rest)| async move {
            if let Some(entry) = rest.next() {
                return Some((Ok(entry), (shared, begin, rest)));
            }
            match shared.read(begin, end, shared.append_bytes_max).await {
                Err(fault) => Some((Err(fault), (shared, end, rest))),
                Ok(entries) => {
                    let next = entries.last().map_or(end, |entry| entry.log_id.index.saturating_add(1));
                    let mut rest = entries.into_iter();
                    rest.next().map(|entry| (Ok(entry), (shared, next, rest)))
                }
            }
        })
    }
}
