//! Finding out what a log holds, from its segments alone.

use std::path::Path;

use bytes::Bytes;

use super::file::{self, Found};
use super::{Durable, frame};
use crate::{LogOp, MetaKey, StorageFault, directory, log::Extent};

/// What the segments hold, and the last one's number and end. `fresh` says that there may be none.
pub(super) fn recover(directory: &Path, fresh: bool) -> Result<(Durable, Option<(u64, usize)>), StorageFault> {
    let mut durable = Durable::default();
    let numbers = numbers(directory, fresh)?;
    let Some(&first) = numbers.first() else { return Ok((durable, None)) };
    let mut found = file::read(directory, first)?;
    restore(&mut durable, &found)?;
    for &number in &numbers[1..] {
        let next = file::read(directory, number)?;
        let end = usize::try_from(next.header.previous_end).unwrap_or(usize::MAX);
        replay(&mut durable, &found, Some(end))?;
        check_header(&durable, &next)?;
        found = next;
    }
    let end = replay(&mut durable, &found, None)?;
    check_complete(&durable, directory)?;
    Ok((durable, Some((found.header.number, end))))
}

/// The numbers of the segments, which follow one another.
fn numbers(directory: &Path, fresh: bool) -> Result<Vec<u64>, StorageFault> {
    let numbers: Vec<u64> = directory::names(directory)?.iter().filter_map(|name| file::number_of(name)).collect();
    if numbers.is_empty() && !fresh {
        return Err(StorageFault::corruption(directory, "the log", "it has no segment"));
    }
    match numbers.windows(2).find(|pair| pair[0].checked_add(1) != Some(pair[1])) {
        Some(pair) => {
            let missing = format!("segment {} is followed by segment {}", pair[0], pair[1]);
            Err(StorageFault::corruption(directory, "the log", missing))
        }
        None => Ok(numbers),
    }
}

/// Begins with what held when the oldest segment began. Entries from before it have no position: they were
/// purged by the time the segments with them went, which [`check_complete`] looks at.
fn restore(durable: &mut Durable, found: &Found) -> Result<(), StorageFault> {
    let extent = Extent::from_bytes(&found.header.extent).ok_or_else(|| damaged(found, 0, "the extent is none"))?;
    durable.extent = extent;
    for (code, value) in &found.header.meta {
        let key = MetaKey::from_code(*code).ok_or_else(|| damaged(found, 0, "unknown metadata"))?;
        durable.meta.insert(key, Bytes::copy_from_slice(value));
    }
    Ok(())
}

/// Does what the frames of a segment say, up to its end where that is known, else up to the last sound frame.
/// Gives where that ends.
fn replay(durable: &mut Durable, found: &Found, end: Option<usize>) -> Result<usize, StorageFault> {
    durable.add_segment(found.header.number, &found.path)?;
    let mut at = found.begin;
    while end.is_none_or(|end| at < end) {
        let Some(operations) = frame::find(&found.content, at, file::place(found.header.salt, at)) else {
            return match end {
                None if !sound_frame_behind(found, at) => Ok(at),
                _ => Err(damaged(found, at, "its checksum does not match, and what follows was written after it")),
            };
        };
        let next = operations.end.next_multiple_of(frame::ALIGNMENT);
        let ops =
            frame::decode(&found.content, operations).ok_or_else(|| damaged(found, at, "it holds no operations"))?;
        for (op, range) in ops {
            let after = durable.extent.after_op(&op).map_err(|fault| damaged(found, at, &fault.to_string()))?;
            let records = matches!(op, LogOp::Put { .. }).then_some(range);
            durable.apply(found.header.number, std::iter::once(&op), records);
            durable.extent = after;
        }
        at = next;
    }
    if end.is_some_and(|end| at != end) {
        return Err(damaged(found, at, "it ends elsewhere than the next segment says"));
    }
    Ok(at)
}

/// Whether a frame that was written after the damaged one at `at` stands in the segment.
fn sound_frame_behind(found: &Found, at: usize) -> bool {
    let candidates = (at..found.content.len()).step_by(frame::ALIGNMENT).skip(1);
    candidates.into_iter().any(|at| frame::find(&found.content, at, file::place(found.header.salt, at)).is_some())
}

fn check_header(durable: &Durable, next: &Found) -> Result<(), StorageFault> {
    let expected = durable.header(next.header.number, 0);
    if (expected.extent, &expected.meta) == (next.header.extent, &next.header.meta) {
        return Ok(());
    }
    Err(damaged(next, 0, "it does not begin with what the segments before it end with"))
}

/// Every entry of the extent has a position.
fn check_complete(durable: &Durable, directory: &Path) -> Result<(), StorageFault> {
    let Some((begin, last)) = durable.extent.bounds() else { return Ok(()) };
    let known = durable.positions.range();
    if known == (begin..durable.extent.end()) {
        return Ok(());
    }
    let index = if known.start == begin { known.end } else { begin };
    debug_assert!(index <= last, "what is known lies inside the extent");
    Err(StorageFault::Hole { location: directory.to_path_buf(), index, begin, end: durable.extent.end() })
}

fn damaged(found: &Found, at: usize, detail: &str) -> StorageFault {
    let subject = format!("what begins at byte {at} of log segment {}", found.header.number);
    StorageFault::corruption(&found.path, subject, detail)
}
