//! Checkpoints on disk: `snapshots/<n>/` with the database's files and `MANIFEST.seriatim`.
//!
//! A snapshot appears by a rename, complete with its manifest and synced; nothing about it is written later.

use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::sleep,
    time::{Duration, Instant},
};

use blake3::Hash;
use bytes::Bytes;

use crate::{
    StorageFault, directory,
    directory::PARTIAL,
    kv::SNAPSHOTS_KEPT,
    snapshot::{FileEntry, Manifest, SnapshotSource},
};

const MANIFEST: &str = "MANIFEST.seriatim";

/// The snapshots of a store, oldest first.
#[derive(Debug)]
pub(super) struct Snapshots {
    path: PathBuf,
    stored: Mutex<Vec<Arc<StoredSnapshot>>>,
}

/// One snapshot; removed from disk when it is retired and nobody reads it any more.
#[derive(Debug)]
pub(super) struct StoredSnapshot {
    number: u64,
    path: PathBuf,
    manifest: Manifest,
    retired: AtomicBool,
}

impl Snapshots {
    /// Finds the stored snapshots and discards unfinished and superfluous ones.
    pub(super) fn open(path: PathBuf) -> Result<Self, StorageFault> {
        directory::create(&path)?;
        directory::discard_partial(&path)?;
        let mut numbers: Vec<u64> = directory::names(&path)?.iter().filter_map(|name| name.parse().ok()).collect();
        numbers.sort_unstable();
        let superfluous = numbers.len().saturating_sub(SNAPSHOTS_KEPT);
        for number in numbers.drain(..superfluous) {
            directory::remove(&path.join(number.to_string()))?;
        }
        let stored = numbers.into_iter().map(|number| StoredSnapshot::open(&path, number).map(Arc::new));
        let stored = Mutex::new(stored.collect::<Result<_, _>>()?);
        Ok(Self { path, stored })
    }

    pub(super) fn newest(&self) -> Option<Arc<StoredSnapshot>> {
        self.stored().last().cloned()
    }

    /// Makes a snapshot out of the files that `fill` puts into the directory it is given (which it creates).
    pub(super) fn create(
        &self,
        label: Bytes,
        fill: impl FnOnce(&Path) -> Result<(), StorageFault>,
    ) -> Result<Arc<StoredSnapshot>, StorageFault> {
        let mut stored = self.stored();
        let number = stored.last().map_or(1, |newest| newest.number.saturating_add(1));
        let path = self.path.join(number.to_string());
        let partial = self.path.join(format!("{number}{PARTIAL}"));
        directory::discard_partial(&self.path)?;
        fill(&partial)?;
        let manifest = describe(&partial, label, stored.last())?;
        directory::replace_file(&partial.join(MANIFEST), &manifest.encode())?;
        directory::sync_all(&partial)?;
        directory::rename(&partial, &path)?;
        let created = Arc::new(StoredSnapshot { number, path, manifest, retired: AtomicBool::new(false) });
        stored.push(Arc::clone(&created));
        let superfluous = stored.len().saturating_sub(SNAPSHOTS_KEPT);
        for old in stored.drain(..superfluous) {
            old.retired.store(true, Ordering::Release);
        }
        Ok(created)
    }

    fn stored(&self) -> MutexGuard<'_, Vec<Arc<StoredSnapshot>>> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StoredSnapshot {
    fn open(parent: &Path, number: u64) -> Result<Self, StorageFault> {
        let path = parent.join(number.to_string());
        let corrupt = |detail: &str| StorageFault::corruption(&path, format!("snapshot {number}"), detail);
        let encoded =
            directory::read_optional(&path.join(MANIFEST))?.ok_or_else(|| corrupt("its manifest is missing"))?;
        let manifest = Manifest::decode(&encoded).ok_or_else(|| corrupt("its manifest is not readable"))?;
        for file in manifest.files() {
            let found = fs::metadata(path.join(file.name())).map(|found| found.len());
            if found.ok() != Some(file.length()) {
                return Err(corrupt(&format!("{} is missing or has another length", file.name())));
            }
        }
        Ok(Self { number, path, manifest, retired: AtomicBool::new(false) })
    }
}

impl SnapshotSource for StoredSnapshot {
    fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    fn read(&self, file: &str, offset: u64, length: usize) -> Result<Bytes, StorageFault> {
        let entry = self
            .manifest
            .file(file)
            .ok_or_else(|| StorageFault::SnapshotMismatch { detail: format!("there is no file \"{file}\" in it") })?;
        let path = self.path.join(entry.name());
        let failed = |error| StorageFault::from_io(error, "reading a snapshot", &path);
        let mut source = File::open(&path).map_err(failed)?;
        source.seek(SeekFrom::Start(offset)).map_err(failed)?;
        let mut bytes = Vec::with_capacity(length.min(1 << 20));
        source.take(u64::try_from(length).unwrap_or(u64::MAX)).read_to_end(&mut bytes).map_err(failed)?;
        Ok(bytes.into())
    }
}

impl Drop for StoredSnapshot {
    fn drop(&mut self) {
        if self.retired.load(Ordering::Acquire) {
            // what cannot be removed now is superfluous at the next start, and removed then
            drop(directory::remove(&self.path));
        }
    }
}

/// The manifest of a directory's files.
fn describe(path: &Path, label: Bytes, previous: Option<&Arc<StoredSnapshot>>) -> Result<Manifest, StorageFault> {
    let mut files = Vec::new();
    for name in directory::names(path)? {
        let file = path.join(&name);
        let found = fs::metadata(&file).map_err(|error| StorageFault::from_io(error, "measuring a file", &file))?;
        let known = previous.and_then(|previous| known_hash(previous, &name, &found));
        let hash = known.map_or_else(|| hash_unhurried(&file), Ok)?;
        let unusable = || StorageFault::corruption(&file, "a snapshot's file", "its name is not one of ours");
        files.push(FileEntry::new(name, found.len(), hash).ok_or_else(unusable)?);
    }
    Manifest::new(label, files)
        .ok_or_else(|| StorageFault::corruption(path, "a snapshot", "it has more files than a manifest may name"))
}

/// Table files are never changed and are shared by hard links: one that the previous snapshot holds too needs
/// no second hashing. (The receiver hashes all of them, so damage since then is found there.)
fn known_hash(previous: &StoredSnapshot, name: &str, found: &fs::Metadata) -> Option<Hash> {
    let entry = previous.manifest.file(name)?;
    let shared = fs::metadata(previous.path.join(name)).ok()?;
    (shared.ino() == found.ino() && shared.dev() == found.dev() && entry.length() == found.len()).then(|| entry.hash())
}

/// What is read and summed at once, in bytes.
const PIECE_BYTES: u64 = 1 << 20;
/// The longest pause between two pieces.
const PAUSE_MAX: Duration = Duration::from_millis(10);

/// BLAKE3 of a file, at half the speed of [`hash_file`]: a snapshot is seldom waited for, the processor is.
fn hash_unhurried(file: &Path) -> Result<Hash, StorageFault> {
    let failed = |error| StorageFault::from_io(error, "hashing a file", file);
    let mut content = File::open(file).map_err(failed)?;
    let (mut hasher, mut done) = (blake3::Hasher::new(), 0);
    loop {
        let begun = Instant::now();
        hasher.update_reader(content.by_ref().take(PIECE_BYTES)).map_err(failed)?;
        if hasher.count() == done {
            return Ok(hasher.finalize());
        }
        done = hasher.count();
        sleep(begun.elapsed().min(PAUSE_MAX));
    }
}

/// BLAKE3 of a file.
pub(super) fn hash_file(file: &Path) -> Result<Hash, StorageFault> {
    let mut hasher = blake3::Hasher::new();
    File::open(file)
        .and_then(|content| hasher.update_reader(content).map(drop))
        .map_err(|error| StorageFault::from_io(error, "hashing a file", file))?;
    Ok(hasher.finalize())
}
