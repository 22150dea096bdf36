//! What the log makes of damage: a fault that names the place, never an answer.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{fs, path::Path};

use bytes::Bytes;
use futures::executor::block_on;
use rocksdb::{DB, Options};
use storage::{LogBatch, LogEngine, LogOptions, MetaKey, RocksLog, StorageFault};

fn open(path: &Path) -> Result<RocksLog, StorageFault> {
    RocksLog::open(path, b"cluster a, node 1", LogOptions::default())
}

/// A closed log with the entries 1 to 5, each synced on its own.
fn five_entries(path: &Path) {
    let log = open(path).unwrap();
    for index in 1..=5 {
        block_on(log.append(LogBatch::new().put(index, vec![7; 1_000]).put_meta(MetaKey::Vote, "vote"))).unwrap();
    }
}

/// Changes the closed log behind the engine's back.
fn tamper(path: &Path, change: impl FnOnce(&DB)) {
    let database = DB::open_cf(&Options::default(), path.join("rocksdb"), ["entries", "meta"]).unwrap();
    change(&database);
}

fn flip_stored_byte(database: &DB, family: &str, key: &[u8], position: usize) {
    let family = database.cf_handle(family).unwrap();
    let mut stored = database.get_cf(family, key).unwrap().unwrap();
    stored[position] ^= 1;
    database.put_cf(family, key, stored).unwrap();
}

/// The write-ahead log that holds the most.
fn largest_wal(path: &Path) -> std::path::PathBuf {
    let files = fs::read_dir(path.join("rocksdb")).unwrap().map(|entry| entry.unwrap().path());
    files
        .filter(|file| file.extension().is_some_and(|extension| extension == "log"))
        .max_by_key(|file| fs::metadata(file).unwrap().len())
        .unwrap()
}

#[test]
fn a_flipped_byte_in_a_record_is_a_fault_that_names_the_entry_and_the_file() {
    let place = tempfile::tempdir().unwrap();
    five_entries(place.path());
    tamper(place.path(), |database| {
        flip_stored_byte(database, "entries", &3_u64.to_be_bytes(), 500);
        database.flush_cf(database.cf_handle("entries").unwrap()).unwrap();
    });
    let log = open(place.path()).unwrap();
    assert_eq!(log.read(1..3, usize::MAX).unwrap().len(), 2);
    let StorageFault::Corruption { location, subject, .. } = log.read(1..6, usize::MAX).unwrap_err() else {
        panic!("damage must be reported as such")
    };
    assert_eq!(subject, "log entry 3");
    assert!(location.extension().is_some_and(|extension| extension == "sst"), "{location:?}");
    let message = log.read(3..4, usize::MAX).unwrap_err().to_string();
    assert!(message.contains("as a new node"), "{message}");
}

#[test]
fn a_record_from_another_place_is_a_fault() {
    let place = tempfile::tempdir().unwrap();
    five_entries(place.path());
    tamper(place.path(), |database| {
        let entries = database.cf_handle("entries").unwrap();
        let second = database.get_cf(entries, 2_u64.to_be_bytes()).unwrap().unwrap();
        database.put_cf(entries, 4_u64.to_be_bytes(), second).unwrap();
    });
    let fault = open(place.path()).unwrap().read(4..5, usize::MAX).unwrap_err();
    assert!(fault.to_string().contains("the record of place 2 stands here"), "{fault}");
}

#[test]
fn a_flipped_byte_in_the_vote_is_a_fault() {
    let place = tempfile::tempdir().unwrap();
    five_entries(place.path());
    tamper(place.path(), |database| flip_stored_byte(database, "meta", &[MetaKey::Vote.code()], 13));
    let fault = open(place.path()).unwrap().meta(MetaKey::Vote).unwrap_err();
    assert!(matches!(fault, StorageFault::Corruption { .. }), "{fault:?}");
}

#[test]
fn missing_and_superfluous_entries_are_found_at_open() {
    for (index, present) in [(1, false), (3, false), (5, false), (6, true), (9, true)] {
        let place = tempfile::tempdir().unwrap();
        five_entries(place.path());
        tamper(place.path(), |database| {
            let entries = database.cf_handle("entries").unwrap();
            let key = u64::to_be_bytes(index);
            if present { database.put_cf(entries, key, "x") } else { database.delete_cf(entries, key) }.unwrap();
        });
        let fault = open(place.path()).unwrap_err();
        let named = if present { 6 } else { index };
        assert!(matches!(fault, StorageFault::Hole { index, begin: 1, end: 6, .. } if index == named), "{fault:?}");
    }
}

#[test]
fn damage_in_the_middle_of_the_write_ahead_log_does_not_shorten_the_log_silently() {
    let place = tempfile::tempdir().unwrap();
    five_entries(place.path());
    let wal = largest_wal(place.path());
    let mut content = fs::read(&wal).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 1;
    fs::write(&wal, content).unwrap();
    let fault = open(place.path()).unwrap_err();
    assert!(matches!(fault, StorageFault::Corruption { .. }), "{fault:?}");
}

#[test]
fn a_torn_last_write_takes_only_its_own_batch_with_it() {
    let place = tempfile::tempdir().unwrap();
    five_entries(place.path());
    let wal = largest_wal(place.path());
    let length = fs::metadata(&wal).unwrap().len();
    fs::OpenOptions::new().write(true).open(&wal).unwrap().set_len(length - 10).unwrap();
    let log = open(place.path()).unwrap();
    assert_eq!(log.bounds().unwrap(), Some((1, 4)));
    assert_eq!(log.read(0..9, usize::MAX).unwrap().len(), 4);
    block_on(log.append(LogBatch::new().put(5, "again"))).unwrap();
    assert_eq!(log.read(5..6, 0).unwrap(), [(5, Bytes::from_static(b"again"))]);
}
