//! What the log makes of damage: a fault that names the place, never another answer.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use futures::executor::block_on;
use storage::{LogBatch, LogEngine, LogOptions, MetaKey, SegmentLog, StorageFault};

/// What a segment begins with, and what it is written in.
const BLOCK: usize = 4096;

fn open(path: &Path) -> Result<SegmentLog, StorageFault> {
    let options = LogOptions { segment_bytes: 3 * BLOCK, ..LogOptions::default() };
    SegmentLog::open(path, b"cluster a, node 1", options)
}

/// A log with the entries 1 to 9 in three segments, each synced on its own.
fn nine_entries(path: &Path) -> SegmentLog {
    let log = open(path).unwrap();
    for index in 1..=9 {
        let vote = format!("vote {index}");
        block_on(log.append(LogBatch::new().put(index, vec![7; 1_200]).put_meta(MetaKey::Vote, vote))).unwrap();
    }
    log
}

fn closed(path: &Path) {
    drop(nine_entries(path));
}

/// The segments in order.
fn segments(path: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(path.join("segments")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// The directory as a crash at this moment leaves it.
fn crashed(path: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    fs::create_dir(copy.path().join("segments")).unwrap();
    for name in ["IDENTITY", "FORMAT"] {
        fs::copy(path.join(name), copy.path().join(name)).unwrap();
    }
    for file in segments(path) {
        fs::copy(&file, copy.path().join("segments").join(file.file_name().unwrap())).unwrap();
    }
    copy
}

fn change(file: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut content = fs::read(file).unwrap();
    change(&mut content);
    fs::write(file, content).unwrap();
}

/// Where the bytes of a segment that are not zero end.
fn used(file: &Path) -> usize {
    fs::read(file).unwrap().iter().rposition(|byte| *byte != 0).unwrap() + 1
}

type Content = (Vec<(u64, Bytes)>, Option<Bytes>);

fn content(log: &SegmentLog) -> Result<Content, StorageFault> {
    Ok((log.read(0..u64::MAX, usize::MAX)?, log.meta(MetaKey::Vote)?))
}

#[test]
fn no_flipped_byte_of_a_closed_log_changes_what_it_answers() {
    let place = tempfile::tempdir().unwrap();
    closed(place.path());
    let sound = content(&open(crashed(place.path()).path()).unwrap()).unwrap();
    assert_eq!(sound.0.len(), 9);
    assert_eq!(sound.1.as_deref(), Some(&b"vote 9"[..]));
    let mut noticed = 0;
    for number in 0..segments(place.path()).len() {
        for position in (0..used(&segments(place.path())[number])).step_by(61) {
            let copy = crashed(place.path());
            change(&segments(copy.path())[number], |content| content[position] ^= 0x10);
            match open(copy.path()).and_then(|log| content(&log)) {
                Ok(answered) => assert_eq!(answered, sound, "segment {number}, byte {position}"),
                Err(StorageFault::Corruption { .. }) => noticed += 1,
                Err(other) => panic!("segment {number}, byte {position}: {other:?}"),
            }
        }
    }
    assert!(noticed > 100, "only {noticed} flips were noticed");
}

#[test]
fn a_byte_that_flips_while_the_log_is_open_is_a_fault_that_names_entry_and_file() {
    let place = tempfile::tempdir().unwrap();
    let log = nine_entries(place.path());
    let first = segments(place.path())[0].clone();
    let at = fs::read(&first).unwrap().windows(100).position(|window| window == [7; 100]).unwrap();
    change(&first, |content| content[at + 50] ^= 1);
    let StorageFault::Corruption { location, subject, .. } = log.read(1..4, usize::MAX).unwrap_err() else {
        panic!("damage must be reported as such")
    };
    assert_eq!((subject.as_str(), location), ("log entry 1", first));
    assert_eq!(log.read(2..10, usize::MAX).unwrap().len(), 8);
    let message = log.read(1..2, usize::MAX).unwrap_err().to_string();
    assert!(message.contains("as a new node"), "{message}");
}

#[test]
fn a_torn_last_write_takes_only_its_own_batch_with_it() {
    let place = tempfile::tempdir().unwrap();
    let log = nine_entries(place.path());
    let last = segments(place.path()).len() - 1;
    let begin = used(&segments(place.path())[last]).next_multiple_of(8);
    block_on(log.append(LogBatch::new().put(10, vec![9; 1_000]).put(11, vec![9; 1_000]))).unwrap();
    let end = used(&segments(place.path())[last]);
    assert!(end > begin + 2_000, "the batch stands behind the others");
    for cut in (begin..end).step_by(97) {
        let copy = crashed(place.path());
        change(&segments(copy.path())[last], |content| content[cut..].fill(0));
        let log = open(copy.path()).unwrap();
        assert_eq!(log.bounds().unwrap(), Some((1, 9)), "cut at {cut}");
        assert_eq!(content(&log).unwrap().1.as_deref(), Some(&b"vote 9"[..]));
        block_on(log.append(LogBatch::new().put(10, "again"))).unwrap();
        drop(log);
        let log = open(copy.path()).unwrap();
        assert_eq!(log.read(9..20, usize::MAX).unwrap()[1], (10, Bytes::from_static(b"again")), "cut at {cut}");
    }
    let copy = crashed(place.path());
    drop(log);
    assert_eq!(open(copy.path()).unwrap().bounds().unwrap(), Some((1, 11)));
}

#[test]
fn what_a_crash_left_behind_the_last_write_is_never_read() {
    let place = tempfile::tempdir().unwrap();
    let log = nine_entries(place.path());
    let copy = crashed(place.path());
    drop(log);
    let last = segments(copy.path()).pop().unwrap();
    let end = used(&last);
    // whole frames of this very segment, somewhere else
    change(&last, |content| {
        let frames = content[..end].to_vec();
        content[end.next_multiple_of(8)..][..frames.len()].copy_from_slice(&frames);
    });
    assert_eq!(open(copy.path()).unwrap().bounds().unwrap(), Some((1, 9)));
}

#[test]
fn a_damaged_frame_with_a_sound_one_behind_it_is_no_torn_write() {
    let place = tempfile::tempdir().unwrap();
    closed(place.path());
    let copy = crashed(place.path());
    let last = segments(copy.path()).pop().unwrap();
    let at = fs::read(&last).unwrap().windows(100).position(|window| window == [7; 100]).unwrap();
    change(&last, |content| content[at] ^= 1);
    let fault = open(copy.path()).unwrap_err();
    assert!(matches!(&fault, StorageFault::Corruption { location, .. } if *location == last), "{fault:?}");
    assert!(fault.to_string().contains("was written after it"), "{fault}");
}

#[test]
fn a_missing_segment_is_a_fault() {
    let place = tempfile::tempdir().unwrap();
    closed(place.path());
    let count = segments(place.path()).len();
    assert!(count >= 3, "there is a middle");
    for missing in 0..count - 1 {
        let copy = crashed(place.path());
        fs::remove_file(&segments(copy.path())[missing]).unwrap();
        let fault = open(copy.path()).unwrap_err();
        let named = if missing == 0 {
            matches!(fault, StorageFault::Hole { index: 1, begin: 1, end: 10, .. })
        } else {
            matches!(fault, StorageFault::Corruption { .. }) && fault.to_string().contains("is followed by segment")
        };
        assert!(named, "{missing}: {fault:?}");
    }
    let copy = crashed(place.path());
    segments(copy.path()).iter().for_each(|file| fs::remove_file(file).unwrap());
    assert!(open(copy.path()).unwrap_err().to_string().contains("it has no segment"));
}

#[test]
fn a_segment_under_anothers_name_or_of_another_log_is_a_fault() {
    let place = tempfile::tempdir().unwrap();
    closed(place.path());
    let files = segments(place.path());
    let copy = crashed(place.path());
    fs::copy(&files[0], &segments(copy.path())[1]).unwrap();
    assert!(open(copy.path()).unwrap_err().to_string().contains("it is the header of segment 1"));

    let other = tempfile::tempdir().unwrap();
    closed(other.path());
    let copy = crashed(place.path());
    fs::copy(&segments(other.path())[0], &segments(copy.path())[0]).unwrap();
    let log = open(copy.path()).and_then(|log| content(&log));
    // its frames are sound and say the same; only what differs can be told
    assert!(log.is_ok_and(|(entries, _)| entries.len() == 9));
}

#[test]
fn a_full_disk_is_named() {
    let place = tempfile::tempdir().unwrap();
    let options = LogOptions { segment_bytes: 1 << 50, ..LogOptions::default() };
    let fault = SegmentLog::open(place.path(), b"cluster a, node 1", options).unwrap_err();
    assert!(matches!(fault, StorageFault::DiskFull { .. } | StorageFault::Io { .. }), "{fault:?}");
    assert_eq!(open(place.path()).unwrap().bounds().unwrap(), None);
}
