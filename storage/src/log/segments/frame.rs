//! What stands in a segment: frames, one for each group of batches that was synced together.
//!
//! `place (8) | length (4) | crc32 over place, length and operations (4) | operations`, numbers big endian, each
//! frame at a multiple of eight bytes. The place is the segment's salt plus the offset. So neither what an earlier
//! use of the disk left behind nor bytes that a client chose can pass for a frame.
//!
//! Operations: `1 | length (4) | sealed record`, `2 | index (8)` cut from here, `3 | index (8)` purged through
//! here, `4 | key (1) | length (4) | value`.

use std::ops::Range;

use bytes::Bytes;

use crate::{LogOp, MetaKey, record};

/// Bytes before the operations.
pub(super) const HEAD_BYTES: usize = 16;
/// Where frames may begin.
pub(super) const ALIGNMENT: usize = 8;

const PUT: u8 = 1;
const TRUNCATE: u8 = 2;
const PURGE: u8 = 3;
const META: u8 = 4;

/// Bytes of a frame with these operations, without what aligns the next one.
pub(super) fn length_of<'a>(ops: impl Iterator<Item = &'a LogOp>) -> usize {
    ops.fold(HEAD_BYTES, |length, op| length + op_length(op))
}

fn op_length(op: &LogOp) -> usize {
    match op {
        LogOp::Put { record, .. } => 1 + 4 + record::FRAME_BYTES + record.len(),
        LogOp::TruncateFrom(_) | LogOp::PurgeThrough(_) => 1 + 8,
        LogOp::PutMeta { value, .. } => 1 + 1 + 4 + value.len(),
    }
}

/// Adds a frame, and what aligns the next one. Gives where each sealed record stands, counted from the frame's
/// begin, in order.
pub(super) fn encode<'a>(buffer: &mut Vec<u8>, place: u64, ops: impl Iterator<Item = &'a LogOp>) -> Vec<Range<usize>> {
    let begin = buffer.len();
    buffer.extend_from_slice(&[0; HEAD_BYTES]);
    let mut records = Vec::new();
    for op in ops {
        match op {
            LogOp::Put { index, record } => {
                buffer.push(PUT);
                put_length(buffer, record::FRAME_BYTES + record.len());
                let from = buffer.len();
                record::seal_into(buffer, *index, record);
                records.push(from - begin..buffer.len() - begin);
            }
            LogOp::TruncateFrom(index) => put_index(buffer, TRUNCATE, *index),
            LogOp::PurgeThrough(index) => put_index(buffer, PURGE, *index),
            LogOp::PutMeta { key, value } => {
                buffer.extend_from_slice(&[META, key.code()]);
                put_length(buffer, value.len());
                buffer.extend_from_slice(value);
            }
        }
    }
    let operations = buffer.len() - begin - HEAD_BYTES;
    let head = head(place, operations, &buffer[begin + HEAD_BYTES..]);
    buffer[begin..begin + HEAD_BYTES].copy_from_slice(&head);
    buffer.resize(begin + (buffer.len() - begin).next_multiple_of(ALIGNMENT), 0);
    records
}

/// A frame around bytes that are not operations.
pub(super) fn wrap(place: u64, content: &[u8]) -> Vec<u8> {
    let mut frame = head(place, content.len(), content).to_vec();
    frame.extend_from_slice(content);
    frame.resize(frame.len().next_multiple_of(ALIGNMENT), 0);
    frame
}

fn put_length(buffer: &mut Vec<u8>, length: usize) {
    buffer.extend_from_slice(&length_field(length));
}

fn put_index(buffer: &mut Vec<u8>, kind: u8, index: u64) {
    buffer.push(kind);
    buffer.extend_from_slice(&index.to_be_bytes());
}

fn length_field(length: usize) -> [u8; 4] {
    u32::try_from(length).expect("a group of batches is far below 4 GiB").to_be_bytes()
}

fn head(place: u64, length: usize, operations: &[u8]) -> [u8; HEAD_BYTES] {
    let (place, length) = (place.to_be_bytes(), length_field(length));
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&place);
    hasher.update(&length);
    hasher.update(operations);
    let mut head = [0; HEAD_BYTES];
    head[..8].copy_from_slice(&place);
    head[8..12].copy_from_slice(&length);
    head[12..].copy_from_slice(&hasher.finalize().to_be_bytes());
    head
}

/// The range of a whole frame's operations, if one for this place stands at `at`.
pub(super) fn find(content: &[u8], at: usize, place: u64) -> Option<Range<usize>> {
    let stored = content.get(at..)?.first_chunk::<HEAD_BYTES>()?;
    if stored[..8] != place.to_be_bytes() {
        return None;
    }
    let length = usize::try_from(u32::from_be_bytes(*stored[8..].first_chunk()?)).ok()?;
    let operations = at + HEAD_BYTES..(at + HEAD_BYTES).checked_add(length)?;
    (head(place, length, content.get(operations.clone())?) == *stored).then_some(operations)
}

/// The operations of a frame, each record with where it stands in `content`, sealed. `None` where the bytes are
/// no operations, which a whole frame cannot hold.
pub(super) fn decode(content: &Bytes, operations: Range<usize>) -> Option<Vec<(LogOp, Range<usize>)>> {
    let mut at = operations.start;
    let mut ops = Vec::new();
    let take = |at: &mut usize, length: usize| -> Option<Range<usize>> {
        let range = *at..at.checked_add(length)?;
        *at = range.end;
        (range.end <= operations.end).then_some(range)
    };
    while at < operations.end {
        let kind = content[take(&mut at, 1)?][0];
        let op = match kind {
            PUT => {
                let range = length_at(content, take(&mut at, 4)?).and_then(|length| take(&mut at, length))?;
                let index = u64::from_be_bytes(*content[range.clone()].first_chunk()?);
                let record = record::unseal(index, &content.slice(range.clone())).ok()?;
                (LogOp::Put { index, record }, range)
            }
            TRUNCATE | PURGE => {
                let range = take(&mut at, 8)?;
                let index = u64::from_be_bytes(*content[range.clone()].first_chunk()?);
                (if kind == TRUNCATE { LogOp::TruncateFrom(index) } else { LogOp::PurgeThrough(index) }, range)
            }
            META => {
                let code = content[take(&mut at, 1)?][0];
                let key = MetaKey::from_code(code)?;
                let range = length_at(content, take(&mut at, 4)?).and_then(|length| take(&mut at, length))?;
                (LogOp::PutMeta { key, value: content.slice(range.clone()) }, range)
            }
            _ => return None,
        };
        ops.push(op);
    }
    Some(ops)
}

fn length_at(content: &Bytes, range: Range<usize>) -> Option<usize> {
    usize::try_from(u32::from_be_bytes(*content[range].first_chunk()?)).ok()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::LogBatch;

    fn batch() -> LogBatch {
        LogBatch::new().put(7, "seven").truncate_from(9).purge_through(3).put_meta(MetaKey::Vote, "me").put(8, "")
    }

    #[test]
    fn a_frame_has_these_bytes() {
        let mut bytes = Vec::new();
        let batch = LogBatch::new().put(7, "abc").truncate_from(9).put_meta(MetaKey::Vote, "x");
        encode(&mut bytes, 0x0102, batch.ops().iter());
        let golden = "0000000000000102\
                      00000024\
                      6eccc870\
                      010000000f00000000000000073c351185616263\
                      020000000000000009\
                      04010000000178\
                      00000000";
        assert_eq!(hex::encode(&bytes), golden.replace(' ', ""));
        assert_eq!(length_of(batch.ops().iter()), 52);
    }

    #[test]
    fn a_frame_gives_its_operations_back() {
        let mut bytes = vec![0xee; 8];
        let records = encode(&mut bytes, 0x0102, batch().ops().iter());
        assert_eq!(bytes.len() % ALIGNMENT, 0);
        let content = Bytes::from(bytes);
        let found = find(&content, 8, 0x0102).unwrap();
        assert_eq!(found.end - 8, length_of(batch().ops().iter()));
        let ops = decode(&content, found).unwrap();
        assert_eq!(ops.iter().map(|(op, _)| op.clone()).collect::<Vec<_>>(), batch().ops());
        let places: Vec<_> = [&ops[0].1, &ops[4].1].into_iter().map(|range| range.start - 8..range.end - 8).collect();
        assert_eq!(records, places);
    }

    #[test]
    fn no_changed_byte_and_no_other_place_passes_for_a_frame() {
        let mut bytes = Vec::new();
        encode(&mut bytes, 0x0102, batch().ops().iter());
        let length = length_of(batch().ops().iter());
        assert!(find(&bytes, 0, 0x0102).is_some());
        assert!(find(&bytes, 0, 0x0103).is_none());
        assert!(find(&bytes[..length - 1], 0, 0x0102).is_none());
        for position in 0..length {
            let mut damaged = bytes.clone();
            damaged[position] ^= 0x10;
            assert!(find(&damaged, 0, 0x0102).is_none(), "byte {position}");
        }
    }
}
