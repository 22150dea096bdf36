//! The bytes on disk and on the wire, fixed: a change here is a new version of the format.

#![expect(clippy::unwrap_used, reason = "tests")]

use openraft::EntryPayload;

use super::*;

fn id(term: u64, node: u64, index: u64) -> LogId {
    EntryId { term, node, index }.into()
}

fn membership() -> Membership {
    let node = |id: u64| (id, Member { address: Address::new(format!("n{id}:7")) });
    Membership::new(vec![BTreeSet::from([1, 2]), BTreeSet::from([1])], BTreeMap::from([node(1), node(2), node(3)]))
        .unwrap()
}

fn entries() -> Vec<Entry> {
    vec![
        Entry { log_id: id(2, 1, 8), payload: EntryPayload::Blank },
        Entry { log_id: id(2, 1, 9), payload: EntryPayload::Normal(Payload(Bytes::from_static(b"bundle"))) },
        Entry { log_id: id(2, 1, 10), payload: EntryPayload::Membership(membership()) },
        Entry { log_id: id(2, 1, 11), payload: EntryPayload::Normal(Payload(Bytes::new())) },
    ]
}

fn golden<T: Form + PartialEq + std::fmt::Debug>(value: T, bytes: &str) {
    let encoded = encode(&value);
    assert_eq!(hex::encode(&encoded), bytes, "{}", T::NAME);
    assert_eq!(decode::<T>(&encoded).unwrap(), value);
    for length in 0..encoded.len() {
        assert!(decode::<T>(&encoded[..length]).is_err(), "{} cut to {length} bytes", T::NAME);
    }
    let longer = [encoded.as_ref(), &[0]].concat();
    assert!(decode::<T>(&longer).is_err(), "{} with a byte more", T::NAME);
    let version = [&[VERSION + 1], &encoded[1..]].concat();
    assert!(decode::<T>(&version).is_err(), "{} of another version", T::NAME);
}

#[test]
fn votes_ids_and_members() {
    golden(Vote::new_committed(3, 2), "010300000000000000020000000000000001");
    golden(id(2, 1, 9), "01020000000000000001000000000000000900000000000000");
    golden(
        StoredMembership::new(Some(id(2, 1, 10)), membership()),
        "0101020000000000000001000000000000000a00000000000000020000000200000001000000000000000200000000000000010000000100000000000000030000000100000000000000040000006e313a370200000000000000040000006e323a370300000000000000040000006e333a37",
    );
    golden(StoredMembership::default(), "01000000000000000000");
}

#[test]
fn log_records() {
    let records = [
        "010a0400000000000002000000000000000100000000000000080000000000000000",
        "0132040000000000000200000000000000010000000000000009000000000000000262756e646c65",
        "01ac04000000000000020000000000000001000000000000000a0000000000000001020000000200000001000000000000000200000000000000010000000100000000000000030000000100000000000000040000006e313a370200000000000000040000006e323a370300000000000000040000006e333a37",
        "01ce04000000000000020000000000000001000000000000000b0000000000000002",
    ];
    let mut written = 1000;
    for (entry, bytes) in entries().into_iter().zip(records) {
        let (record, after) = encode_record(&entry, written);
        assert_eq!(hex::encode(&record), bytes);
        assert_eq!(after, written + u64::try_from(record.len()).unwrap());
        written = after;
        let read = decode_record(record).unwrap();
        assert_eq!((read.entry, read.written), (entry, written));
    }
}

#[test]
fn doubtful_records_are_refused() {
    let [blank, bundle, members, _] = entries().try_into().unwrap();
    for entry in [blank, members] {
        let (record, _) = encode_record(&entry, 0);
        for length in 0..record.len() {
            assert!(decode_record(record.slice(..length)).is_err());
        }
        assert!(decode_record([record.as_ref(), b"x"].concat().into()).is_err());
    }
    let (record, _) = encode_record(&bundle, 0);
    let mut kind = record.to_vec();
    kind[1 + 8 + 24] = 3;
    assert!(decode_record(kind.into()).is_err());
    let mut version = record.to_vec();
    version[0] = 2;
    assert!(decode_record(version.into()).is_err());
}

#[test]
fn appends() {
    let request = AppendEntriesRequest {
        vote: Vote::new_committed(2, 1),
        prev_log_id: Some(id(1, 2, 7)),
        leader_commit: None,
        entries: entries(),
    };
    let encoded = encode_append(&request);
    let parts = "01020000000000000001000000000000000101010000000000000002000000000000000700000000000000000400000019000000020000000000000001000000000000000800000000000000001f0000000200000000000000010000000000000009000000000000000262756e646c6571000000020000000000000001000000000000000a0000000000000001020000000200000001000000000000000200000000000000010000000100000000000000030000000100000000000000040000006e313a370200000000000000040000006e323a370300000000000000040000006e333a3719000000020000000000000001000000000000000b0000000000000002";
    assert_eq!(hex::encode(&encoded), parts);
    let read = decode_append(encoded.clone()).unwrap();
    assert_eq!((read.vote, read.prev_log_id, read.leader_commit), (request.vote, request.prev_log_id, None));
    assert_eq!(read.entries, request.entries);
    for length in 0..encoded.len() {
        assert!(decode_append(encoded.slice(..length)).is_err());
    }
    let gap = AppendEntriesRequest { prev_log_id: Some(id(1, 2, 6)), ..request };
    assert!(decode_append(encode_append(&gap)).is_err(), "entries that do not follow are refused");
}

#[test]
fn messages() {
    golden(
        AppendEntriesResponse::<TypeConfig>::PartialSuccess(Some(id(2, 1, 9))),
        "010101020000000000000001000000000000000900000000000000",
    );
    golden(
        AppendEntriesResponse::<TypeConfig>::HigherVote(Vote::new(4, 3)),
        "01030400000000000000030000000000000000",
    );
    golden::<StreamAppendResult<TypeConfig>>(
        Ok(Some(id(2, 1, 9))),
        "010001020000000000000001000000000000000900000000000000",
    );
    golden::<StreamAppendResult<TypeConfig>>(
        Err(StreamAppendError::Conflict(id(2, 1, 9))),
        "0101020000000000000001000000000000000900000000000000",
    );
    let mut request = VoteRequest::new(Vote::new(4, 3), Some(id(2, 1, 9)));
    request.leadership_transfer = true;
    golden(
        Ballot { only_asking: false, request },
        "010004000000000000000300000000000000000102000000000000000100000000000000090000000000000001",
    );
    golden(
        VoteResponse::<TypeConfig>::new(Vote::new(4, 3), None, true),
        "0104000000000000000300000000000000000100",
    );
    golden(
        TransferLeaderRequest::<TypeConfig>::new(Vote::new_committed(4, 3), 2, None),
        "010400000000000000030000000000000001020000000000000000",
    );
    golden::<TransferLeaderResponse<TypeConfig>>(
        Err(TransferLeaderError::LogNotFlushed { expected: Some(id(2, 1, 9)), actual: None }),
        "01020102000000000000000100000000000000090000000000000000",
    );
    let leader = Leader { id: 2, address: Address::new("n2:7") };
    golden(ReadAnswer::NotLeader(Some(leader)), "0101010200000000000000040000006e323a37");
    golden(Duration::from_millis(1500), "01dc05000000000000");
}

#[test]
fn snapshots() {
    let applied = Applied { last: EntryId { term: 2, node: 1, index: 9 }, membership: Bytes::from_static(b"members") };
    assert_eq!(hex::encode(applied.encode()), "010200000000000000010000000000000009000000000000006d656d62657273");
    assert_eq!(Applied::decode(&applied.encode()), Some(applied));
    assert_eq!(Applied::decode(&Bytes::from_static(&[VERSION; 24])), None);
    golden(TransferAnswer::At { file: 3, offset: 4096 }, "0100030000000010000000000000");
    let transfer = [7; 32];
    for request in [
        TransferRequest::Begin { vote: Vote::new_committed(2, 1), manifest: Bytes::from_static(b"manifest") },
        TransferRequest::Piece { transfer, file: 1, offset: 4096, bytes: Bytes::from_static(b"piece") },
        TransferRequest::Finish { transfer, vote: Vote::new_committed(2, 1) },
    ] {
        assert_eq!(decode_transfer(encode_transfer(&request)).unwrap(), request);
    }
    let piece = TransferRequest::Piece { transfer, file: 1, offset: 4096, bytes: Bytes::from_static(b"piece") };
    let bytes = hex::encode(encode_transfer(&piece));
    assert_eq!(
        bytes,
        "010107070707070707070707070707070707070707070707070707070707070707070100000000100000000000007069656365"
    );
}

/// One encoding of every kind that is longer than a few bytes.
fn encodings() -> Vec<Bytes> {
    let vote = Vote::new_committed(2, 1);
    let request =
        AppendEntriesRequest { vote, prev_log_id: Some(id(1, 2, 7)), leader_commit: None, entries: entries() };
    let mut encodings: Vec<Bytes> = entries().iter().map(|entry| encode_record(entry, 7).0).collect();
    encodings.extend([
        encode_append(&request),
        encode(&StoredMembership::new(Some(id(2, 1, 10)), membership())),
        encode(&AppendEntriesResponse::<TypeConfig>::PartialSuccess(Some(id(2, 1, 9)))),
        encode::<StreamAppendResult<TypeConfig>>(&Err(StreamAppendError::Conflict(id(2, 1, 9)))),
        encode(&Ballot { only_asking: false, request: VoteRequest::new(vote, Some(id(2, 1, 9))) }),
        encode(&TransferLeaderRequest::<TypeConfig>::new(vote, 2, None)),
        encode(&ReadAnswer::NotLeader(Some(Leader { id: 2, address: Address::new("n2:7") }))),
        encode_transfer(&TransferRequest::Begin { vote, manifest: Bytes::from_static(b"manifest") }),
        encode_transfer(&TransferRequest::Finish { transfer: [7; 32], vote }),
    ]);
    encodings
}

#[test]
fn a_changed_byte_is_refused_or_read_as_what_stands_there() {
    for encoding in encodings() {
        any_bytes(&encoding);
        for position in 0..encoding.len() {
            let mut changed = encoding.to_vec();
            for value in 0..=u8::MAX {
                changed[position] = value;
                any_bytes(&changed);
            }
            any_bytes(&encoding[..position]);
            any_bytes(&[&encoding[..position], &[0], &encoding[position..]].concat());
        }
    }
}
