//! What every [`LogEngine`] and every [`KvStore`] has to hold, whatever it stands on.
//!
//! The factory opens the medium of a given name: a new name gives an empty one, a name used before gives what
//! the engine under that name left when it was dropped. Each function panics where a property does not hold.

#![expect(clippy::missing_panics_doc, reason = "panicking is how these functions answer")]

use std::sync::Arc;

use bytes::Bytes;
use futures::future::try_join_all;

use crate::{
    KvChanges, KvStore, LogBatch, LogEngine, Manifest, Manner, MetaKey, SnapshotSource, StorageFault, Table,
    snapshot::FileEntry,
};

/// Opens the log of a name.
pub type OpenLog<'a> = &'a dyn Fn(&str) -> Arc<dyn LogEngine>;
/// Opens the store of a name.
pub type OpenKv<'a> = &'a dyn Fn(&str) -> Arc<dyn KvStore>;

/// Every property of a log engine.
pub async fn log_engine(open: OpenLog<'_>) {
    log_starts_empty(open).await;
    log_survives_reopening(open).await;
    log_groups_are_ordered_by_call(open).await;
    log_reads_stop_at_their_bounds(open).await;
    log_truncation_makes_entries_unreadable(open).await;
    log_purge_is_for_ever(open).await;
    log_batches_apply_in_order_and_whole(open).await;
    log_refuses_holes(open).await;
    log_finishes_queued_batches_when_dropped(open).await;
}

/// Every property of a key-value store.
pub fn kv_store(open: OpenKv<'_>) {
    kv_rows_are_found_as_written(open);
    kv_scans_are_ordered_and_bounded(open);
    kv_writes_are_atomic_over_tables(open);
    kv_survives_reopening(open);
    kv_snapshot_is_frozen(open);
    kv_keeps_the_newest_snapshots(open);
    kv_round_trips_a_snapshot(open);
    kv_refuses_a_wrong_snapshot(open);
    kv_forgets_an_unfinished_restore(open);
}

async fn append(log: &Arc<dyn LogEngine>, batch: LogBatch) {
    log.append(batch).await.expect("the append is in order and the medium is sound");
}

/// The entries as text, for comparison.
fn entries(log: &Arc<dyn LogEngine>) -> Vec<(u64, String)> {
    let found = log.read(0..u64::MAX, usize::MAX).expect("the log is readable");
    found.into_iter().map(|(index, record)| (index, String::from_utf8_lossy(&record).into_owned())).collect()
}

fn expected(entries: &[(u64, &str)]) -> Vec<(u64, String)> {
    entries.iter().map(|(index, record)| (*index, (*record).to_owned())).collect()
}

fn bounds(log: &Arc<dyn LogEngine>) -> Option<(u64, u64)> {
    log.bounds().expect("the log is readable")
}

/// A new log holds nothing.
pub async fn log_starts_empty(open: OpenLog<'_>) {
    let log = open("log-empty");
    assert_eq!(bounds(&log), None);
    assert_eq!(entries(&log), []);
    for key in MetaKey::ALL {
        assert_eq!(log.meta(key).expect("metadata is readable"), None);
    }
    append(&log, LogBatch::new()).await;
    assert_eq!(bounds(&log), None);
    assert_eq!(log.stats().entries, 0);
}

/// What was answered is there after the engine is dropped and opened again.
pub async fn log_survives_reopening(open: OpenLog<'_>) {
    let log = open("log-reopen");
    append(&log, LogBatch::new().put(5, "five").put(6, "").put_meta(MetaKey::Vote, "me")).await;
    append(&log, LogBatch::new().put(7, "seven").put_meta(MetaKey::Node, "")).await;
    drop(log);
    let log = open("log-reopen");
    assert_eq!(bounds(&log), Some((5, 7)));
    assert_eq!(entries(&log), expected(&[(5, "five"), (6, ""), (7, "seven")]));
    let meta = |key| log.meta(key).expect("metadata is readable");
    assert_eq!(meta(MetaKey::Vote), Some(Bytes::from_static(b"me")));
    assert_eq!(meta(MetaKey::Node), Some(Bytes::new()));
    assert_eq!(meta(MetaKey::Committed), None);
    append(&log, LogBatch::new().put(8, "eight")).await;
    assert_eq!(bounds(&log), Some((5, 8)));
}

/// Batches take effect in the order of the calls, and there are never more syncs than batches.
pub async fn log_groups_are_ordered_by_call(open: OpenLog<'_>) {
    let log = open("log-groups");
    let mut waiting: Vec<_> = (0..200_u64).map(|index| log.append(LogBatch::new().put(index, "entry"))).collect();
    waiting.reverse(); // polling in another order changes nothing
    try_join_all(waiting).await.expect("every entry follows the one before");
    assert_eq!(bounds(&log), Some((0, 199)));
    let stats = log.stats();
    assert_eq!((stats.batches, stats.entries, stats.payload_bytes), (200, 200, 1_000));
    assert!((1..=200).contains(&stats.syncs), "{stats:?}");
}

/// Reads give what is present of a range, at least one record, and stop at the byte bound.
pub async fn log_reads_stop_at_their_bounds(open: OpenLog<'_>) {
    let log = open("log-read");
    append(&log, (10..20).fold(LogBatch::new(), |batch, index| batch.put(index, vec![0; 100]))).await;
    let indices = |range, bytes_max| -> Vec<u64> {
        log.read(range, bytes_max).expect("the log is readable").into_iter().map(|(index, _)| index).collect()
    };
    assert_eq!(indices(12..14, usize::MAX), [12, 13]);
    assert_eq!(indices(0..12, usize::MAX), [10, 11]);
    assert_eq!(indices(18..u64::MAX, usize::MAX), [18, 19]);
    assert_eq!(indices(0..10, usize::MAX), [0_u64; 0]);
    assert_eq!(indices(20..30, usize::MAX), [0_u64; 0]);
    assert_eq!(indices(14..14, usize::MAX), [0_u64; 0]);
    assert_eq!(indices(10..20, 0), [10]);
    assert_eq!(indices(10..20, 200), [10, 11]);
    assert_eq!(indices(10..20, 201), [10, 11, 12]);
}

/// Truncated entries are gone, also after reopening, and others can be written in their place.
pub async fn log_truncation_makes_entries_unreadable(open: OpenLog<'_>) {
    let log = open("log-truncate");
    append(&log, LogBatch::new().put(1, "a").put(2, "b").put(3, "c").put(4, "d")).await;
    append(&log, LogBatch::new().truncate_from(3)).await;
    assert_eq!(entries(&log), expected(&[(1, "a"), (2, "b")]));
    append(&log, LogBatch::new().truncate_from(2).put(2, "B").put(3, "C")).await;
    drop(log);
    let log = open("log-truncate");
    assert_eq!(entries(&log), expected(&[(1, "a"), (2, "B"), (3, "C")]));
    append(&log, LogBatch::new().truncate_from(0)).await;
    assert_eq!((bounds(&log), entries(&log)), (None, vec![]));
    append(&log, LogBatch::new().put(1, "again")).await;
    assert_eq!(entries(&log), expected(&[(1, "again")]));
}

/// Purged entries are gone, also after reopening, and nothing can be written in their place.
pub async fn log_purge_is_for_ever(open: OpenLog<'_>) {
    let log = open("log-purge");
    append(&log, LogBatch::new().put(1, "a").put(2, "b").put(3, "c")).await;
    append(&log, LogBatch::new().purge_through(2).put_meta(MetaKey::Purged, "2")).await;
    drop(log);
    let log = open("log-purge");
    assert_eq!(entries(&log), expected(&[(3, "c")]));
    append(&log, LogBatch::new().purge_through(9)).await; // past the end, as after a snapshot was installed
    assert_eq!(bounds(&log), None);
    let refused = log.append(LogBatch::new().put(9, "purged")).await;
    assert!(matches!(refused, Err(StorageFault::OutOfOrder { index: 9, .. })), "{refused:?}");
    append(&log, LogBatch::new().put(10, "next")).await;
    drop(log);
    assert_eq!(entries(&open("log-purge")), expected(&[(10, "next")]));
}

/// Operations of a batch take effect in their order; a refused batch leaves nothing behind.
pub async fn log_batches_apply_in_order_and_whole(open: OpenLog<'_>) {
    let log = open("log-batch");
    append(
        &log,
        LogBatch::new().put(1, "a").put(2, "b").truncate_from(2).put(2, "c").put(3, "d").purge_through(1),
    )
    .await;
    assert_eq!(entries(&log), expected(&[(2, "c"), (3, "d")]));
    append(&log, LogBatch::new().put(4, "e").truncate_from(4)).await;
    assert_eq!(entries(&log), expected(&[(2, "c"), (3, "d")]));
    let meta = LogBatch::new().put_meta(MetaKey::Vote, "first").put_meta(MetaKey::Vote, "second");
    append(&log, meta).await;
    let refused = log.append(LogBatch::new().put_meta(MetaKey::Vote, "third").put(4, "e").put(6, "hole")).await;
    assert!(matches!(refused, Err(StorageFault::OutOfOrder { index: 6, .. })), "{refused:?}");
    assert_eq!(entries(&log), expected(&[(2, "c"), (3, "d")]));
    assert_eq!(log.meta(MetaKey::Vote).expect("metadata is readable"), Some(Bytes::from_static(b"second")));
}

/// An entry that does not follow the last one is refused; its neighbours in the queue are not.
pub async fn log_refuses_holes(open: OpenLog<'_>) {
    let log = open("log-holes");
    append(&log, LogBatch::new().put(1, "a")).await;
    let answers = [
        log.append(LogBatch::new().put(2, "b")),
        log.append(LogBatch::new().put(4, "hole")),
        log.append(LogBatch::new().put(2, "twice")),
        log.append(LogBatch::new().put(3, "c")),
    ];
    let mut accepted = Vec::new();
    for answer in answers {
        accepted.push(answer.await.is_ok());
    }
    assert_eq!(accepted, [true, false, false, true]);
    assert_eq!(entries(&log), expected(&[(1, "a"), (2, "b"), (3, "c")]));
}

/// Dropping the engine finishes what was queued; the futures still answer.
pub async fn log_finishes_queued_batches_when_dropped(open: OpenLog<'_>) {
    let log = open("log-drop");
    let waiting: Vec<_> = (0..50_u64).map(|index| log.append(LogBatch::new().put(index, "entry"))).collect();
    drop(log);
    try_join_all(waiting).await.expect("queued batches were finished");
    assert_eq!(bounds(&open("log-drop")), Some((0, 49)));
}

/// Changes with whatever shows as bytes.
struct Rows<'a>(&'a mut dyn KvChanges);

impl Rows<'_> {
    fn put(&mut self, table: Table, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> &mut Self {
        self.0.put(table, key.as_ref(), value.as_ref());
        self
    }

    fn delete(&mut self, table: Table, key: impl AsRef<[u8]>) -> &mut Self {
        self.0.delete(table, key.as_ref());
        self
    }
}

fn write(kv: &Arc<dyn KvStore>, build: impl Fn(&mut Rows<'_>)) {
    kv.write(Manner::default(), &|changes| build(&mut Rows(changes))).expect("the medium is sound");
}

fn value(kv: &Arc<dyn KvStore>, table: Table, key: &str) -> Option<String> {
    let found = kv.get(table, key.as_bytes()).expect("the store is readable");
    found.map(|value| String::from_utf8_lossy(&value).into_owned())
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn keys(rows: Vec<(Bytes, Bytes)>) -> Vec<String> {
    rows.into_iter().map(|(key, _)| String::from_utf8_lossy(&key).into_owned()).collect()
}

/// Rows read back as written, one by one and together; tables do not mix.
pub fn kv_rows_are_found_as_written(open: OpenKv<'_>) {
    let kv = open("kv-rows");
    write(&kv, |batch| {
        batch.put(Table::Live, "a", "1").put(Table::Spent, "a", "2").put(Table::Live, "", "empty key");
    });
    assert_eq!(value(&kv, Table::Live, "a"), some("1"));
    assert_eq!(value(&kv, Table::Spent, "a"), some("2"));
    assert_eq!(value(&kv, Table::Heads, "a"), None);
    let many = kv.get_many(Table::Live, &[b"missing", b"a", b"", b"a"]).expect("the store is readable");
    let one = Some(Bytes::from_static(b"1"));
    assert_eq!(many, [None, one.clone(), Some(Bytes::from_static(b"empty key")), one]);
    assert_eq!(kv.get_many(Table::Live, &[]).expect("the store is readable"), []);
    write(&kv, |batch| {
        batch.delete(Table::Live, "a").delete(Table::Live, "never there");
    });
    assert_eq!(value(&kv, Table::Live, "a"), None);
}

/// Scans give rows in key order, within a prefix, from a key on, up to a limit.
pub fn kv_scans_are_ordered_and_bounded(open: OpenKv<'_>) {
    let kv = open("kv-scan");
    write(&kv, |batch| {
        for key in ["b2", "a1", "b1", "c1", "b", "b3"] {
            batch.put(Table::Owners, key, "row");
        }
    });
    let scan = |prefix: &str, from: &str, limit| {
        keys(kv.scan(Table::Owners, prefix.as_bytes(), from.as_bytes(), limit).expect("the store is readable"))
    };
    assert_eq!(scan("b", "", 10), ["b", "b1", "b2", "b3"]);
    assert_eq!(scan("b", "b1", 10), ["b1", "b2", "b3"]);
    assert_eq!(scan("b", "b1x", 1), ["b2"]);
    assert_eq!(scan("", "", 10), ["a1", "b", "b1", "b2", "b3", "c1"]);
    assert_eq!(scan("b", "c", 10), [""; 0]);
    assert_eq!(scan("b", "a", 2), ["b", "b1"]);
    assert_eq!(scan("b", "", 0), [""; 0]);
}

/// Within one batch the later operation wins, and a reader never sees half of a batch.
pub fn kv_writes_are_atomic_over_tables(open: OpenKv<'_>) {
    let kv = open("kv-atomic");
    write(&kv, |batch| {
        for table in Table::ALL {
            batch.put(table, "key", "old").put(table, "key", table.name());
        }
        batch.put(Table::Meta, "gone", "x").delete(Table::Meta, "gone");
    });
    kv.sync().expect("the medium is sound");
    drop(kv);
    let kv = open("kv-atomic");
    for table in Table::ALL {
        assert_eq!(value(&kv, table, "key"), some(table.name()));
    }
    assert_eq!(value(&kv, Table::Meta, "gone"), None);
}

/// What was synced is there after the store is dropped and opened again.
pub fn kv_survives_reopening(open: OpenKv<'_>) {
    let kv = open("kv-reopen");
    write(&kv, |batch| {
        batch.put(Table::Live, "a", "1");
    });
    kv.sync().expect("the medium is sound");
    drop(kv);
    assert_eq!(value(&open("kv-reopen"), Table::Live, "a"), some("1"));
}

/// A checkpoint holds what was written before it, also unsynced, and nothing from after it was said to be taken.
pub fn kv_snapshot_is_frozen(open: OpenKv<'_>) {
    let kv = open("kv-frozen");
    write(&kv, |batch| {
        batch.put(Table::Live, "before", "1");
    });
    let after = || {
        write(&kv, |batch| {
            batch.put(Table::Live, "after", "1").delete(Table::Live, "before");
        });
        kv.sync().expect("the medium is sound");
    };
    let snapshot = kv.checkpoint(Bytes::from_static(b"frozen"), Box::new(after)).expect("the medium is sound");
    assert_eq!(value(&kv, Table::Live, "after"), some("1"), "it is told that the copy is taken");
    let copy = open("kv-frozen-copy");
    restore(&copy, snapshot.as_ref());
    assert_eq!(value(&copy, Table::Live, "before"), some("1"));
    assert_eq!(value(&copy, Table::Live, "after"), None);
}

/// The newest checkpoint is found, with its label, also after reopening; one that is in use stays readable.
pub fn kv_keeps_the_newest_snapshots(open: OpenKv<'_>) {
    let kv = open("kv-kept");
    assert!(kv.newest_checkpoint().expect("the store is readable").is_none());
    write(&kv, |batch| {
        batch.put(Table::Live, "a", "1");
    });
    let first = checkpoint(&kv, "first");
    for label in ["second", "third", "fourth"] {
        checkpoint(&kv, label);
    }
    let copy = open("kv-kept-copy");
    restore(&copy, first.as_ref());
    assert_eq!(value(&copy, Table::Live, "a"), some("1"));
    let label = |kv: &Arc<dyn KvStore>| {
        kv.newest_checkpoint().expect("the store is readable").map(|newest| newest.manifest().label().clone())
    };
    assert_eq!(label(&kv), Some(Bytes::from_static(b"fourth")));
    drop(first);
    drop(kv);
    let kv = open("kv-kept");
    assert_eq!(label(&kv), Some(Bytes::from_static(b"fourth")));
    assert_eq!(checkpoint(&kv, "fifth").manifest().label(), "fifth");
    assert_eq!(label(&kv), Some(Bytes::from_static(b"fifth")));
}

/// A snapshot replaces the whole content of another store, durably, and the store goes on from there.
pub fn kv_round_trips_a_snapshot(open: OpenKv<'_>) {
    let source = open("kv-source");
    write(&source, |batch| {
        for number in 0..500_u32 {
            batch.put(Table::Live, number.to_be_bytes(), [7; 100]);
        }
        batch.put(Table::Meta, "applied", "500");
    });
    let snapshot = checkpoint(&source, "at 500");
    let manifest = snapshot.manifest();
    assert_eq!(Manifest::decode(&manifest.encode()).as_ref(), Some(manifest));

    let target = open("kv-target");
    write(&target, |batch| {
        batch.put(Table::Owners, "old", "content").put(Table::Meta, "applied", "3");
    });
    restore(&target, snapshot.as_ref());
    let check = |kv: &Arc<dyn KvStore>| {
        assert_eq!(value(kv, Table::Meta, "applied"), some("500"));
        assert_eq!(value(kv, Table::Owners, "old"), None);
        assert_eq!(kv.scan(Table::Live, b"", b"", 1_000).expect("the store is readable").len(), 500);
    };
    check(&target);
    drop(target);
    let target = open("kv-target");
    check(&target);
    write(&target, |batch| {
        batch.put(Table::Owners, "new", "content");
    });
    target.sync().expect("the medium is sound");
    restore(&target, snapshot.as_ref()); // a second one in quick succession
    check(&target);
    assert_eq!(value(&target, Table::Owners, "new"), None);
}

/// Files that are not what the manifest says never become the content.
pub fn kv_refuses_a_wrong_snapshot(open: OpenKv<'_>) {
    let kv = open("kv-wrong");
    write(&kv, |batch| {
        batch.put(Table::Live, "a", "1");
    });
    let snapshot = checkpoint(&kv, "");
    let longest = snapshot.manifest().files().iter().max_by_key(|file| file.length()).expect("there are files");
    let name = longest.name();
    let begin = || kv.begin_restore(snapshot.manifest().clone()).expect("the medium is sound");
    let refused = |outcome: Result<(), StorageFault>, what: &str| {
        let fault = outcome.expect_err(what);
        assert!(matches!(fault, StorageFault::SnapshotMismatch { .. }), "{what}: {fault:?}");
        assert!(fault.retry_is_safe());
    };
    refused(begin().write("unknown", 0, b"x"), "an unknown file");
    refused(begin().write(name, longest.length(), b"x"), "a piece behind the end");
    refused(begin().write(name, u64::MAX, b"x"), "a piece far behind the end");
    refused(begin().finish(), "nothing received");
    let mut damaged = begin();
    copy_files(damaged.as_mut(), snapshot.as_ref());
    let byte = snapshot.read(name, 0, 1).expect("the snapshot is readable");
    let flipped: Vec<u8> = byte.iter().map(|byte| byte ^ 1).collect();
    damaged.write(name, 0, &flipped).expect("the piece fits");
    refused(damaged.finish(), "a flipped bit");
    let unknown = FileEntry::new("other", 1, blake3::hash(b"x")).expect("the name is plain");
    assert!(snapshot.manifest().file(unknown.name()).is_none());
    assert!(snapshot.read(unknown.name(), 0, 1).is_err());
    assert_eq!(value(&kv, Table::Live, "a"), some("1"));
}

/// A restore that never finished leaves the old content, now and after reopening.
pub fn kv_forgets_an_unfinished_restore(open: OpenKv<'_>) {
    let source = open("kv-unfinished-source");
    write(&source, |batch| {
        batch.put(Table::Live, "theirs", "1");
    });
    let snapshot = checkpoint(&source, "");
    let kv = open("kv-unfinished");
    write(&kv, |batch| {
        batch.put(Table::Live, "ours", "1");
    });
    let mut sink = kv.begin_restore(snapshot.manifest().clone()).expect("the medium is sound");
    copy_files(sink.as_mut(), snapshot.as_ref());
    drop(sink);
    assert_eq!(value(&kv, Table::Live, "ours"), some("1"));
    kv.sync().expect("the medium is sound");
    drop(kv);
    let kv = open("kv-unfinished");
    assert_eq!(value(&kv, Table::Live, "ours"), some("1"));
    assert_eq!(value(&kv, Table::Live, "theirs"), None);
}

fn checkpoint(kv: &Arc<dyn KvStore>, label: &'static str) -> Arc<dyn SnapshotSource> {
    kv.checkpoint(Bytes::from_static(label.as_bytes()), Box::new(|| ())).expect("the medium is sound")
}

fn restore(kv: &Arc<dyn KvStore>, snapshot: &dyn SnapshotSource) {
    let mut sink = kv.begin_restore(snapshot.manifest().clone()).expect("the medium is sound");
    copy_files(sink.as_mut(), snapshot);
    sink.finish().expect("the files are what the manifest says");
}

/// Moves all files in pieces, the last piece of each file first.
fn copy_files(sink: &mut dyn crate::SnapshotSink, snapshot: &dyn SnapshotSource) {
    const PIECE_BYTES: u16 = 1_000;
    for file in snapshot.manifest().files() {
        let pieces = file.length().div_ceil(PIECE_BYTES.into());
        for piece in (0..pieces).rev() {
            let offset = piece.saturating_mul(PIECE_BYTES.into());
            let bytes = snapshot.read(file.name(), offset, PIECE_BYTES.into()).expect("the snapshot is readable");
            sink.write(file.name(), offset, &bytes).expect("the piece fits");
        }
    }
}
