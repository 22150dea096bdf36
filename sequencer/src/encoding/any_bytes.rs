//! What every decoder of the order must do with any bytes: refuse, or return a value whose encoding is those very bytes.

use super::*;

/// Where a log record keeps its count of written bytes.
const COUNTER: std::ops::Range<usize> = 1..9;

/// Puts bytes before every decoder of what nodes send each other about the order, and of what the log holds.
///
/// # Panics
/// Where one reads what no writer writes. For fuzzing; nothing else calls it.
pub fn any_bytes(bytes: &[u8]) {
    form::<LogId>(bytes);
    form::<Vote>(bytes);
    form::<StoredMembership>(bytes);
    form::<AppendEntriesResponse<TypeConfig>>(bytes);
    form::<StreamAppendResult<TypeConfig>>(bytes);
    form::<Ballot>(bytes);
    form::<VoteResponse<TypeConfig>>(bytes);
    form::<TransferLeaderRequest<TypeConfig>>(bytes);
    form::<TransferLeaderResponse<TypeConfig>>(bytes);
    form::<ReadAnswer>(bytes);
    form::<Duration>(bytes);
    form::<TransferAnswer>(bytes);
    let bytes = Bytes::copy_from_slice(bytes);
    if let Ok(request) = decode_append(bytes.clone()) {
        assert_eq!(encode_append(&request), bytes);
    }
    if let Ok(record) = decode_record(bytes.clone()) {
        let (again, _) = encode_record(&record.entry, 0);
        assert_eq!(again.get(COUNTER.end..), bytes.get(COUNTER.end..));
        assert_eq!(record.written.to_le_bytes().as_slice(), bytes.get(COUNTER).unwrap_or_default());
    }
    if let Ok(request) = decode_transfer(bytes.clone()) {
        assert_eq!(encode_transfer(&request), bytes);
    }
    if let Some(applied) = decode_applied(&bytes) {
        assert_eq!(encode_applied(&applied), bytes);
    }
}

fn form<T: Form>(bytes: &[u8]) {
    if let Ok(value) = decode::<T>(bytes) {
        assert_eq!(encode(&value), bytes, "{}", T::NAME);
    }
}
