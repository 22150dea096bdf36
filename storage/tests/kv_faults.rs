//! What the key-value store makes of interrupted work and of damage.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::{fs, path::Path, time::Duration};

use bytes::Bytes;
use storage::{KvOptions, KvStore, Manner, RocksKv, SnapshotSource, StorageFault, Table};

fn open(path: &Path) -> Result<RocksKv, StorageFault> {
    RocksKv::open(path, b"cluster a, node 1", KvOptions::default())
}

/// A store with one row, synced.
fn with_row(path: &Path, value: &'static str) -> RocksKv {
    let kv = open(path).unwrap();
    kv.write(Manner::default(), &|changes| changes.put(Table::Live, b"row", value.as_bytes())).unwrap();
    kv.sync().unwrap();
    kv
}

fn row(kv: &RocksKv) -> Option<Bytes> {
    kv.get(Table::Live, b"row").unwrap()
}

fn copy_directory(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_directory(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Receives all of a snapshot into a store, without finishing.
fn receive(kv: &RocksKv, snapshot: &dyn SnapshotSource) -> Box<dyn storage::SnapshotSink> {
    let mut sink = kv.begin_restore(snapshot.manifest().clone()).unwrap();
    for file in snapshot.manifest().files() {
        let content = snapshot.read(file.name(), 0, usize::try_from(file.length()).unwrap()).unwrap();
        sink.write(file.name(), 0, &content).unwrap();
    }
    sink
}

#[test]
fn a_crash_at_any_point_of_a_restore_leaves_the_old_or_the_new_content() {
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| place.path().join(name);
    let snapshot = with_row(&path("source"), "new").checkpoint(Bytes::new(), Box::new(|| ())).unwrap();
    let kv = with_row(&path("target"), "old");

    // a copy of the directory is what a crash at this point leaves
    let sink = receive(&kv, snapshot.as_ref());
    copy_directory(&path("target"), &path("received"));
    sink.finish().unwrap();
    copy_directory(&path("target"), &path("finished"));
    copy_directory(&path("target").join("ledger-2"), &path("received").join("ledger-2"));
    copy_directory(&path("received"), &path("pointer not replaced"));
    copy_directory(&path("finished"), &path("old not removed"));
    copy_directory(&path("received").join("ledger-1"), &path("old not removed").join("ledger-1"));

    for (crash, content) in
        [("received", "old"), ("pointer not replaced", "old"), ("finished", "new"), ("old not removed", "new")]
    {
        let kv = open(&path(crash)).unwrap();
        assert_eq!(row(&kv).unwrap(), content, "{crash}");
        let ledgers = names(&path(crash)).into_iter().filter(|name| name.starts_with("ledger-")).count();
        assert_eq!(ledgers, 1, "{crash}: {:?}", names(&path(crash)));
    }
    assert_eq!(row(&kv).unwrap(), "new");
}

#[test]
fn unfinished_snapshots_are_discarded_and_two_are_kept() {
    let place = tempfile::tempdir().unwrap();
    let kv = with_row(place.path(), "1");
    for label in ["a", "b", "c"] {
        kv.checkpoint(Bytes::from(label), Box::new(|| ())).unwrap();
    }
    drop(kv);
    let snapshots = place.path().join("snapshots");
    assert_eq!(names(&snapshots), ["2", "3"]);
    copy_directory(&snapshots.join("2"), &snapshots.join("1"));
    copy_directory(&snapshots.join("3"), &snapshots.join("4.partial"));
    copy_directory(&snapshots.join("3"), &snapshots.join("4.partial.tmp"));
    let kv = open(place.path()).unwrap();
    assert_eq!(names(&snapshots), ["2", "3"]);
    assert_eq!(kv.newest_checkpoint().unwrap().unwrap().manifest().label(), "c");
}

#[test]
fn a_snapshot_in_use_stays_until_it_is_dropped() {
    let place = tempfile::tempdir().unwrap();
    let kv = with_row(place.path(), "1");
    let first = kv.checkpoint(Bytes::new(), Box::new(|| ())).unwrap();
    for _ in 0..2 {
        kv.checkpoint(Bytes::new(), Box::new(|| ())).unwrap();
    }
    let snapshots = place.path().join("snapshots");
    assert_eq!(names(&snapshots), ["1", "2", "3"]);
    drop(first);
    assert_eq!(names(&snapshots), ["2", "3"]);
}

#[test]
fn a_snapshot_without_its_manifest_is_a_fault() {
    let place = tempfile::tempdir().unwrap();
    let kv = with_row(place.path(), "1");
    drop(kv.checkpoint(Bytes::new(), Box::new(|| ())).unwrap());
    drop(kv);
    fs::remove_file(place.path().join("snapshots/1/MANIFEST.seriatim")).unwrap();
    let fault = open(place.path()).unwrap_err();
    assert!(matches!(fault, StorageFault::Corruption { .. }), "{fault:?}");
}

#[test]
fn a_flipped_byte_in_a_table_file_is_a_fault_that_says_what_to_do() {
    let place = tempfile::tempdir().unwrap();
    let kv = with_row(place.path(), "1");
    drop(kv.checkpoint(Bytes::new(), Box::new(|| ())).unwrap()); // writes the tables out
    drop(kv);
    let ledger = place.path().join("ledger-1");
    let table = names(&ledger).into_iter().find(|name| name.ends_with(".sst")).unwrap();
    let mut content = fs::read(ledger.join(&table)).unwrap();
    content[3] ^= 1; // the first data block
    fs::write(ledger.join(&table), content).unwrap();
    let fault = open(place.path()).and_then(|kv| kv.get(Table::Live, b"row").map(drop)).unwrap_err();
    assert!(matches!(fault, StorageFault::Corruption { .. }), "{fault:?}");
    let message = fault.to_string();
    assert!(message.contains("ledger-1") && message.contains("as a new node"), "{message}");
}

#[test]
fn a_missing_or_damaged_pointer_is_a_fault_and_removes_nothing() {
    for damage in [None, Some("ledger-x\n"), Some("ledger-1"), Some("")] {
        let place = tempfile::tempdir().unwrap();
        drop(with_row(place.path(), "1"));
        let pointer = place.path().join("CURRENT_LEDGER");
        match damage {
            None => fs::remove_file(&pointer).unwrap(),
            Some(text) => fs::write(&pointer, text).unwrap(),
        }
        let fault = open(place.path()).unwrap_err();
        assert!(matches!(fault, StorageFault::Corruption { .. }), "{damage:?}: {fault:?}");
        fs::write(&pointer, "ledger-1\n").unwrap();
        assert_eq!(row(&open(place.path()).unwrap()).unwrap(), "1");
    }
}

#[test]
fn a_ledger_that_is_gone_is_a_fault_and_not_an_empty_one() {
    let place = tempfile::tempdir().unwrap();
    drop(with_row(place.path(), "1"));
    fs::remove_dir_all(place.path().join("ledger-1")).unwrap();
    let fault = open(place.path()).unwrap_err();
    assert!(matches!(fault, StorageFault::Io { .. }), "{fault:?}");
}

const LARGE_ROWS: u32 = 5_000;
const LARGE_ROW: [u8; 1_000] = [7; 1_000];
const LARGE_BYTES: usize = 5_000 * 1_004;

/// Writes five megabytes, and calls `rest` between its parts.
fn write_large(kv: &RocksKv, rest: &dyn Fn(Duration)) -> Result<(), StorageFault> {
    kv.write(Manner { bytes_about: LARGE_BYTES, rest }, &|changes| {
        for number in 0..LARGE_ROWS {
            changes.put(Table::Batches, &number.to_be_bytes(), &LARGE_ROW);
        }
    })
}

fn large_rows(kv: &RocksKv) -> usize {
    kv.scan(Table::Batches, &[], &[], usize::MAX).unwrap().len()
}

#[test]
fn a_large_write_rests_between_its_parts() {
    let place = tempfile::tempdir().unwrap();
    let kv = with_row(place.path(), "value");
    let rests = Cell::new(0);
    write_large(&kv, &|_| rests.set(rests.get() + 1)).unwrap();
    assert!((3..=6).contains(&rests.get()), "{} rests", rests.get());
    kv.sync().unwrap();
    drop(kv);
    assert_eq!(large_rows(&open(place.path()).unwrap()), 5_000);
}

#[test]
fn a_write_that_could_fill_the_memory_tables_is_not_made_in_parts() {
    let place = tempfile::tempdir().unwrap();
    let small = KvOptions { write_buffer_bytes: 2 * LARGE_BYTES - 2, ..KvOptions::default() };
    let kv = RocksKv::open(place.path(), b"cluster a, node 1", small).unwrap();
    write_large(&kv, &|_| panic!("it rests, and RocksDB may write the first part out meanwhile")).unwrap();
    assert_eq!(large_rows(&kv), 5_000);
}

#[test]
fn of_a_write_that_breaks_off_nothing_is_left() {
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| place.path().join(name);
    let kv = with_row(&path("store"), "value");
    // power is cut between the second and the third part
    let rests = Cell::new(0);
    let cut = |_| {
        rests.set(rests.get() + 1);
        if rests.get() == 2 {
            assert!(large_rows(&kv) > 1_000, "parts are seen as they come");
            copy_directory(&path("store"), &path("cut"));
            panic!("the writing thread ends");
        }
    };
    catch_unwind(AssertUnwindSafe(|| write_large(&kv, &cut))).unwrap_err();
    let survivor = open(&path("cut")).unwrap();
    assert_eq!((large_rows(&survivor), row(&survivor)), (0, Some(Bytes::from_static(b"value"))));
    // nor does closing the store bring a part of it to the disk
    drop(kv);
    copy_directory(&path("store"), &path("closed"));
    let closed = open(&path("closed")).unwrap();
    assert_eq!((large_rows(&closed), row(&closed)), (0, Some(Bytes::from_static(b"value"))));
}
