//! A data directory opens only for the process, the node and the format it belongs to.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{fs, path::Path};

use storage::{KvOptions, LogOptions, RocksKv, SegmentLog, StorageFault};

type Open = fn(&Path, &[u8]) -> Result<Box<dyn std::fmt::Debug>, StorageFault>;

const ENGINES: [(&str, Open); 2] = [
    ("log", |path, identity| {
        SegmentLog::open(path, identity, LogOptions::default()).map(|log| -> Box<dyn std::fmt::Debug> { Box::new(log) })
    }),
    ("store", |path, identity| {
        RocksKv::open(path, identity, KvOptions::default()).map(|kv| -> Box<dyn std::fmt::Debug> { Box::new(kv) })
    }),
];

const US: &[u8] = b"cluster a, node 1";

#[test]
fn a_directory_of_another_node_is_refused_by_name() {
    for (engine, open) in ENGINES {
        let place = tempfile::tempdir().unwrap();
        drop(open(place.path(), b"cluster a, node 2").unwrap());
        let fault = open(place.path(), US).unwrap_err();
        assert!(matches!(fault, StorageFault::WrongIdentity { .. }), "{engine}: {fault:?}");
        let message = fault.to_string();
        assert!(message.contains("belongs to node \"cluster a, node 2\""), "{message}");
        open(place.path(), b"cluster a, node 2").unwrap();
    }
}

#[test]
fn an_identity_that_is_no_text_is_shown_in_hexadecimal() {
    let place = tempfile::tempdir().unwrap();
    let (_, open) = ENGINES[0];
    drop(open(place.path(), &[0, 255]).unwrap());
    assert!(open(place.path(), US).unwrap_err().to_string().contains("0x00ff"));
}

#[test]
fn a_directory_in_use_is_refused() {
    for (engine, open) in ENGINES {
        let place = tempfile::tempdir().unwrap();
        let first = open(place.path(), US).unwrap();
        let fault = open(place.path(), US).unwrap_err();
        assert!(matches!(fault, StorageFault::Locked { .. }), "{engine}: {fault:?}");
        assert!(fault.to_string().contains(&format!("process {}", std::process::id())), "{fault}");
        drop(first);
        open(place.path(), US).unwrap();
    }
}

#[test]
fn an_unknown_format_and_a_foreign_directory_are_refused() {
    for (engine, open) in ENGINES {
        let place = tempfile::tempdir().unwrap();
        drop(open(place.path(), US).unwrap());
        fs::write(place.path().join("FORMAT"), "seriatim-log 9\n").unwrap();
        let fault = open(place.path(), US).unwrap_err();
        assert!(matches!(fault, StorageFault::UnknownFormat { .. }), "{engine}: {fault:?}");

        let foreign = tempfile::tempdir().unwrap();
        fs::write(foreign.path().join("holiday.jpg"), "").unwrap();
        let fault = open(foreign.path(), US).unwrap_err();
        assert!(fault.to_string().contains("holiday.jpg"), "{engine}: {fault}");
    }
}

#[test]
fn a_log_directory_is_no_store_directory() {
    let place = tempfile::tempdir().unwrap();
    let [(_, log), (_, store)] = ENGINES;
    let path = place.path().join("not/there/yet");
    drop(log(&path, US).unwrap());
    assert!(matches!(store(&path, US).unwrap_err(), StorageFault::UnknownFormat { .. }));
}

#[test]
fn a_creation_that_was_interrupted_is_taken_up_again() {
    for (_, open) in ENGINES {
        let place = tempfile::tempdir().unwrap();
        drop(open(place.path(), US).unwrap());
        fs::remove_file(place.path().join("FORMAT")).unwrap(); // written last
        fs::write(place.path().join("FORMAT.partial"), "seri").unwrap();
        drop(open(place.path(), US).unwrap());
        assert!(place.path().join("FORMAT").exists());
        assert!(!place.path().join("FORMAT.partial").exists());
    }
}

#[test]
fn a_lost_identity_is_a_fault() {
    let place = tempfile::tempdir().unwrap();
    let (_, open) = ENGINES[0];
    drop(open(place.path(), US).unwrap());
    fs::remove_file(place.path().join("IDENTITY")).unwrap();
    assert!(matches!(open(place.path(), US).unwrap_err(), StorageFault::Corruption { .. }));
}
