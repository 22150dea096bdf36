//! The log in RocksDB: one writer thread, one write batch and one sync per group of queued batches.
//!
//! Column family `entries` maps the index (big endian) to a sealed record; `meta` maps a one-byte code to a
//! sealed value, code 0 being the [`Extent`]. The extent is written in the same RocksDB batch as the entries,
//! so what should be there is known exactly, at open and at every read. It also hides purged entries that
//! `delete_file_in_range` can bring back when it drops a file with range tombstones.

use std::{
    fmt,
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Receiver, SyncSender},
    },
    thread::{self, JoinHandle},
};

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use rocksdb::{
    BlockBasedOptions, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType, DBRecoveryMode, Direction,
    IteratorMode, Options, ReadOptions, SnapshotWithThreadMode, WriteBatch, WriteOptions,
};
use tokio::sync::oneshot;

use super::{Extent, LogBatch, LogEngine, LogOp, LogStats, MetaKey};
use crate::{
    StorageFault,
    directory::{self, Directory},
    fault::Poison,
    record,
};

const FORMAT: &str = "seriatim-log 1\n";
const DATABASE: &str = "rocksdb";
const ENTRIES: &str = "entries";
const META: &str = "meta";
/// Key of the extent in `meta`; [`MetaKey::code`] starts at 1.
const EXTENT_CODE: u8 = 0;
/// Sorts after every index: nine bytes, where keys have eight.
const AFTER_EVERY_INDEX: [u8; 9] = [0xff; 9];

/// How the log uses memory.
#[derive(Debug, Clone, Copy)]
pub struct LogOptions {
    /// RocksDB's write buffer for entries, in bytes. Entries that are purged before it is full never become
    /// a file of their own.
    pub write_buffer_bytes: usize,
    /// Batches that may wait for the writer. Each holds at least one appender of the caller, so this bounds
    /// memory; a caller that meets the bound waits for one sync.
    pub queue_batches_max: usize,
    /// Payload bytes after which a group is closed, so that one sync stays short.
    pub group_bytes_max: usize,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { write_buffer_bytes: 64 << 20, queue_batches_max: 4096, group_bytes_max: 32 << 20 }
    }
}

/// [`LogEngine`] over RocksDB. Dropping it writes what is queued and joins the writer thread, which blocks
/// for as long as that takes.
pub struct RocksLog {
    shared: Arc<Shared>,
    queue: Option<SyncSender<Request>>,
    writer: Option<JoinHandle<()>>,
}

/// What readers and the writer thread share.
struct Shared {
    directory: Directory,
    database: DB,
    database_path: PathBuf,
    durable: Mutex<Durable>,
    poison: Poison,
}

/// What is durable as of the last sync.
#[derive(Debug, Clone, Copy, Default)]
struct Durable {
    extent: Extent,
    stats: LogStats,
}

struct Request {
    batch: LogBatch,
    done: oneshot::Sender<Result<(), StorageFault>>,
}

impl RocksLog {
    /// Opens the log of this node, creating it if the directory is empty or missing.
    ///
    /// `identity` names cluster and node; a directory keeps it for ever.
    ///
    /// # Errors
    /// The directory is in use, belongs to another node, has an unknown format, or its content is damaged
    /// or incomplete.
    pub fn open(path: &Path, identity: &[u8], options: LogOptions) -> Result<Self, StorageFault> {
        let mut directory = Directory::claim(path, FORMAT, identity)?;
        let database_path = path.join(DATABASE);
        let database = open_database(&database_path, directory.is_fresh(), options)?;
        directory.complete()?;
        let shared =
            Shared { directory, database, database_path, durable: Mutex::default(), poison: Poison::default() };
        let extent = shared.stored_extent(&shared.database.snapshot())?;
        shared.check_contiguous(extent)?;
        shared.durable().extent = extent;

        let shared = Arc::new(shared);
        let (queue, inbox) = mpsc::sync_channel(options.queue_batches_max);
        let writer = thread::Builder::new()
            .name("log-writer".to_owned())
            .spawn({
                let shared = Arc::clone(&shared);
                move || write_groups(&shared, &inbox, options.group_bytes_max)
            })
            .map_err(|error| StorageFault::from_io(error, "starting the log's writer thread", path))?;
        Ok(Self { shared, queue: Some(queue), writer: Some(writer) })
    }
}

impl LogEngine for RocksLog {
    fn append(&self, batch: LogBatch) -> BoxFuture<'static, Result<(), StorageFault>> {
        let (done, outcome) = oneshot::channel();
        if let Some(queue) = &self.queue {
            // a writer that is gone drops `done`, which the future reports
            drop(queue.send(Request { batch, done }));
        }
        outcome.map(|received| received.unwrap_or(Err(StorageFault::Stopped))).boxed()
    }

    fn read(&self, range: Range<u64>, bytes_max: usize) -> Result<Vec<(u64, Bytes)>, StorageFault> {
        let snapshot = self.shared.database.snapshot();
        let extent = self.shared.stored_extent(&snapshot)?;
        let wanted = range.start.max(extent.begin())..range.end.min(extent.end());
        self.shared.read_present(&snapshot, extent, wanted, bytes_max)
    }

    fn bounds(&self) -> Result<Option<(u64, u64)>, StorageFault> {
        Ok(self.shared.durable().extent.bounds())
    }

    fn meta(&self, key: MetaKey) -> Result<Option<Bytes>, StorageFault> {
        self.shared.meta(&self.shared.database.snapshot(), key.code())
    }

    fn bytes_on_disk(&self) -> Result<u64, StorageFault> {
        directory::bytes_below(self.shared.directory.path())
    }

    fn stats(&self) -> LogStats {
        self.shared.durable().stats
    }
}

impl Drop for RocksLog {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(writer) = self.writer.take() {
            // a panic of the writer has been reported by the panic hook and to every append
            drop(writer.join());
        }
    }
}

impl fmt::Debug for RocksLog {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("RocksLog")
            .field("directory", &self.shared.directory)
            .field("durable", &*self.shared.durable())
            .finish_non_exhaustive()
    }
}

/// The writer thread: ends when the queue is closed and empty.
fn write_groups(shared: &Shared, inbox: &Receiver<Request>, group_bytes_max: usize) {
    while let Some(group) = next_group(inbox, group_bytes_max) {
        shared.commit(group);
    }
}

/// Waits for a request, then takes all that are queued up to the byte bound.
fn next_group(inbox: &Receiver<Request>, bytes_max: usize) -> Option<Vec<Request>> {
    let first = inbox.recv().ok()?;
    let mut bytes = first.batch.payload_bytes();
    let mut group = vec![first];
    while bytes < bytes_max {
        let Ok(next) = inbox.try_recv() else { break };
        bytes = bytes.saturating_add(next.batch.payload_bytes());
        group.push(next);
    }
    Some(group)
}

impl Shared {
    fn durable(&self) -> std::sync::MutexGuard<'_, Durable> {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn family(&self, name: &str) -> &ColumnFamily {
        self.database.cf_handle(name).expect("the database was opened with this column family")
    }

    fn failed(&self, action: &'static str) -> impl Fn(rocksdb::Error) -> StorageFault + '_ {
        move |error| StorageFault::from_rocks(error, action, &self.database_path)
    }

    /// Makes a group durable with one write and one sync, then answers it.
    fn commit(&self, group: Vec<Request>) {
        let before = *self.durable();
        let mut next = before;
        let mut write = WriteBatch::default();
        let (mut accepted, mut purged) = (Vec::with_capacity(group.len()), None);
        for Request { batch, done } in group {
            match self.poison.check().and_then(|()| next.extent.after(&batch)) {
                Ok(extent) => {
                    self.stage(&mut write, &batch, &mut next.stats, &mut purged);
                    next.extent = extent;
                    accepted.push(done);
                }
                Err(fault) => answer(done, Err(fault)),
            }
        }
        if accepted.is_empty() {
            return;
        }
        let outcome = self.poison.guard(self.write(write, before.extent, &mut next));
        if outcome.is_ok() {
            *self.durable() = next;
        }
        for done in accepted {
            answer(done, outcome.clone());
        }
        if let (Ok(()), Some(through)) = (outcome, purged) {
            self.reclaim(through);
        }
    }

    fn stage(&self, write: &mut WriteBatch, batch: &LogBatch, stats: &mut LogStats, purged: &mut Option<u64>) {
        let (entries, meta) = (self.family(ENTRIES), self.family(META));
        for op in batch.ops() {
            match op {
                LogOp::Put { index, record } => {
                    write.put_cf(entries, index.to_be_bytes(), record::seal(*index, record));
                    stats.entries = stats.entries.saturating_add(1);
                }
                LogOp::TruncateFrom(index) => {
                    write.delete_range_cf(entries, &index.to_be_bytes()[..], &AFTER_EVERY_INDEX[..]);
                }
                LogOp::PurgeThrough(index) => {
                    let mut after = index.to_be_bytes().to_vec();
                    after.push(0); // the smallest key that sorts after the index
                    write.delete_range_cf(entries, &0_u64.to_be_bytes()[..], &after[..]);
                    *purged = (*purged).max(Some(*index));
                }
                LogOp::PutMeta { key, value } => {
                    write.put_cf(meta, [key.code()], record::seal(key.code().into(), value));
                }
            }
        }
        stats.batches = stats.batches.saturating_add(1);
        stats.payload_bytes =
            stats.payload_bytes.saturating_add(u64::try_from(batch.payload_bytes()).unwrap_or(u64::MAX));
    }

    fn write(&self, mut write: WriteBatch, before: Extent, next: &mut Durable) -> Result<(), StorageFault> {
        if write.is_empty() {
            return Ok(()); // only empty batches: everything before them is durable already
        }
        if next.extent != before {
            let sealed = record::seal(EXTENT_CODE.into(), &next.extent.to_bytes());
            write.put_cf(self.family(META), [EXTENT_CODE], sealed);
        }
        let mut synced = WriteOptions::default();
        synced.set_sync(true);
        self.database.write_opt(write, &synced).map_err(self.failed("appending to the log"))?;
        next.stats.syncs = next.stats.syncs.saturating_add(1);
        Ok(())
    }

    /// Gives the space of purged entries back at once, except for files that are new or being merged: merging
    /// drops those entries later. What stays behind lies below the extent and is never seen.
    fn reclaim(&self, through: u64) {
        let (from, to) = (0_u64.to_be_bytes(), through.to_be_bytes());
        let outcome = self
            .database
            .delete_file_in_range_cf(self.family(ENTRIES), from, to)
            .map_err(self.failed("removing purged log files"));
        drop(self.poison.guard(outcome));
    }

    fn meta(&self, snapshot: &SnapshotWithThreadMode<'_, DB>, code: u8) -> Result<Option<Bytes>, StorageFault> {
        let found = snapshot.get_cf(self.family(META), [code]).map_err(self.failed("reading log metadata"))?;
        found
            .map(|sealed| {
                record::unseal(code.into(), &Bytes::from(sealed)).map_err(|damage| {
                    let subject = format!("log metadata {code}");
                    StorageFault::corruption(&self.database_path, subject, damage.to_string())
                })
            })
            .transpose()
    }

    fn stored_extent(&self, snapshot: &SnapshotWithThreadMode<'_, DB>) -> Result<Extent, StorageFault> {
        match self.meta(snapshot, EXTENT_CODE)? {
            None => Ok(Extent::default()),
            Some(bytes) => Extent::from_bytes(&bytes).ok_or_else(|| {
                StorageFault::corruption(&self.database_path, "the log's extent", format!("{bytes:02x?}"))
            }),
        }
    }

    fn read_present(
        &self,
        snapshot: &SnapshotWithThreadMode<'_, DB>,
        extent: Extent,
        wanted: Range<u64>,
        bytes_max: usize,
    ) -> Result<Vec<(u64, Bytes)>, StorageFault> {
        let (mut records, mut bytes) = (Vec::new(), 0_usize);
        if wanted.is_empty() {
            return Ok(records);
        }
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(wanted.end.to_be_bytes());
        let start = wanted.start.to_be_bytes();
        let mode = IteratorMode::From(&start, Direction::Forward);
        let mut stored = snapshot.iterator_cf_opt(self.family(ENTRIES), options, mode);
        for index in wanted {
            let (key, sealed) = stored.next().transpose().map_err(self.failed("reading the log"))?.unwrap_or_default();
            if *key != index.to_be_bytes() {
                return Err(self.hole(index, extent));
            }
            let record = record::unseal(index, &Bytes::from(sealed)).map_err(|damage| {
                StorageFault::corruption(&self.file_of(index), format!("log entry {index}"), damage.to_string())
            })?;
            bytes = bytes.saturating_add(record.len());
            records.push((index, record));
            if bytes >= bytes_max {
                break;
            }
        }
        Ok(records)
    }

    /// Every index of the extent has a record, and none stands behind it.
    fn check_contiguous(&self, extent: Extent) -> Result<(), StorageFault> {
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        let mut stored = self.database.raw_iterator_cf_opt(self.family(ENTRIES), options);
        stored.seek(extent.begin().to_be_bytes());
        for index in extent.begin()..extent.end() {
            stored.status().map_err(self.failed("checking the log"))?;
            if stored.key() != Some(&index.to_be_bytes()) {
                return Err(self.hole(index, extent));
            }
            stored.next();
        }
        stored.status().map_err(self.failed("checking the log"))?;
        if stored.valid() {
            return Err(self.hole(extent.end(), extent));
        }
        Ok(())
    }

    fn hole(&self, index: u64, extent: Extent) -> StorageFault {
        StorageFault::Hole { location: self.database_path.clone(), index, begin: extent.begin(), end: extent.end() }
    }

    /// The table file that holds an entry; the directory while it stands in the write-ahead log only.
    fn file_of(&self, index: u64) -> PathBuf {
        let key = index.to_be_bytes();
        let holds = |file: &rocksdb::LiveFile| {
            file.column_family_name == ENTRIES
                && file.start_key.as_deref().is_some_and(|start| start <= &key[..])
                && file.end_key.as_deref().is_some_and(|end| &key[..] <= end)
        };
        let files = self.database.live_files().unwrap_or_default();
        files.into_iter().find(holds).map_or_else(
            || self.database_path.clone(),
            |file| self.database_path.join(file.name.trim_start_matches('/')),
        )
    }
}

fn answer(done: oneshot::Sender<Result<(), StorageFault>>, outcome: Result<(), StorageFault>) {
    // nobody waits for the answer where the future was dropped
    drop(done.send(outcome));
}

fn open_database(path: &Path, fresh: bool, options: LogOptions) -> Result<DB, StorageFault> {
    let mut database = Options::default();
    database.create_if_missing(fresh);
    database.create_missing_column_families(fresh);
    database.set_paranoid_checks(true);
    // Every write is synced, so only an unfinished last write may be torn; any earlier damage is refused.
    database.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    database.set_track_and_verify_wals_in_manifest(true);
    // `meta` is tiny and would otherwise keep old write-ahead logs alive
    database.set_max_total_wal_size(u64::try_from(options.write_buffer_bytes).unwrap_or(u64::MAX).saturating_mul(2));
    database.set_use_direct_io_for_flush_and_compaction(directory::takes_direct_writes(path));
    database.set_keep_log_file_num(4);
    database.set_max_log_file_size(8 << 20);

    let mut table = BlockBasedOptions::default();
    table.set_block_size(64 << 10); // read in order, and entries are large
    let mut entries = Options::default();
    entries.set_write_buffer_size(options.write_buffer_bytes);
    // entries live for minutes
    entries.set_compression_type(DBCompressionType::None);
    entries.set_block_based_table_factory(&table);
    let families =
        [ColumnFamilyDescriptor::new(ENTRIES, entries), ColumnFamilyDescriptor::new(META, Options::default())];
    DB::open_cf_descriptors(&database, path, families)
        .map_err(|error| StorageFault::from_rocks(error, "opening the log", path))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use futures::executor::block_on;

    use super::*;

    /// The shared part without a thread: the test decides when the writer runs.
    fn shared(path: &Path) -> Shared {
        let log = RocksLog::open(path, b"test", LogOptions::default()).unwrap();
        let extra = Arc::clone(&log.shared);
        drop(log);
        Arc::into_inner(extra).unwrap()
    }

    #[test]
    fn batches_that_wait_together_share_one_sync() {
        let place = tempfile::tempdir().unwrap();
        let shared = shared(place.path());
        let (queue, inbox) = mpsc::sync_channel(64);
        let answers: Vec<_> = (0..50)
            .map(|index| {
                let (done, outcome) = oneshot::channel();
                queue.send(Request { batch: LogBatch::new().put(index, "entry"), done }).unwrap();
                outcome
            })
            .collect();
        drop(queue);
        write_groups(&shared, &inbox, 1 << 20);
        for answer in answers {
            block_on(answer).unwrap().unwrap();
        }
        let stats = shared.durable().stats;
        assert_eq!((stats.batches, stats.entries, stats.syncs), (50, 50, 1));
    }

    #[test]
    fn a_group_ends_at_its_byte_bound() {
        let (queue, inbox) = mpsc::sync_channel(64);
        for index in 0..5 {
            let (done, _) = oneshot::channel();
            queue.send(Request { batch: LogBatch::new().put(index, vec![0; 100]), done }).unwrap();
        }
        drop(queue);
        let sizes: Vec<_> = std::iter::from_fn(|| next_group(&inbox, 150)).map(|group| group.len()).collect();
        assert_eq!(sizes, [2, 2, 1]);
    }

    #[test]
    fn after_one_failed_write_every_append_fails_with_that_fault() {
        let place = tempfile::tempdir().unwrap();
        let log = RocksLog::open(place.path(), b"test", LogOptions::default()).unwrap();
        block_on(log.append(LogBatch::new().put(1, "kept"))).unwrap();
        let first = StorageFault::from_io(std::io::Error::other("device gone"), "appending to the log", place.path());
        drop(log.shared.poison.guard::<()>(Err(first.clone())));
        for index in [2, 3] {
            let fault = block_on(log.append(LogBatch::new().put(index, "lost"))).unwrap_err();
            assert_eq!(fault.to_string(), first.to_string());
        }
        assert_eq!(log.bounds().unwrap(), Some((1, 1)));
        assert_eq!(log.stats().syncs, 1);
    }

    #[test]
    fn purged_entries_that_come_back_stay_hidden() {
        let place = tempfile::tempdir().unwrap();
        let log = RocksLog::open(place.path(), b"test", LogOptions::default()).unwrap();
        block_on(log.append(LogBatch::new().put(1, "a").put(2, "b").put(3, "c").purge_through(2))).unwrap();
        let entries = log.shared.family(ENTRIES);
        log.shared.database.put_cf(entries, 2_u64.to_be_bytes(), record::seal(2, b"b")).unwrap();
        drop(log);
        let log = RocksLog::open(place.path(), b"test", LogOptions::default()).unwrap();
        assert_eq!(log.bounds().unwrap(), Some((3, 3)));
        assert_eq!(log.read(0..10, usize::MAX).unwrap(), [(3, Bytes::from_static(b"c"))]);
    }

    #[test]
    fn an_entry_that_disappears_while_the_log_is_open_is_noticed_by_the_next_read() {
        let place = tempfile::tempdir().unwrap();
        let log = RocksLog::open(place.path(), b"test", LogOptions::default()).unwrap();
        block_on(log.append(LogBatch::new().put(1, "a").put(2, "b").put(3, "c"))).unwrap();
        log.shared.database.delete_cf(log.shared.family(ENTRIES), 2_u64.to_be_bytes()).unwrap();
        assert_eq!(log.read(1..2, usize::MAX).unwrap().len(), 1);
        let fault = log.read(1..4, usize::MAX).unwrap_err();
        assert!(matches!(fault, StorageFault::Hole { index: 2, .. }), "{fault:?}");
    }

    #[test]
    fn purging_removes_the_files_of_purged_entries() {
        let place = tempfile::tempdir().unwrap();
        let open = || RocksLog::open(place.path(), b"test", LogOptions::default()).unwrap();
        let files_bytes = |log: &RocksLog| -> usize {
            let files = log.shared.database.live_files().unwrap();
            files.iter().filter(|file| file.column_family_name == ENTRIES).map(|file| file.size).sum()
        };
        let log = open();
        let mut noise = blake3::Hasher::new().finalize_xof();
        for index in 0..100 {
            let mut record = vec![0; 16 << 10];
            noise.fill(&mut record);
            block_on(log.append(LogBatch::new().put(index, record))).unwrap();
        }
        let entries = log.shared.family(ENTRIES);
        log.shared.database.flush_cf(entries).unwrap();
        // only files below level 0 are removed, and none that is being merged
        let mut options = rocksdb::CompactOptions::default();
        options.set_bottommost_level_compaction(rocksdb::BottommostLevelCompaction::Force);
        log.shared.database.compact_range_cf_opt(entries, None::<&[u8]>, None::<&[u8]>, &options);
        assert!(files_bytes(&log) > 100 * (16 << 10));
        block_on(log.append(LogBatch::new().purge_through(99))).unwrap();
        drop(log); // joins the writer, which removes files after it answers
        let left = files_bytes(&open());
        assert!(left < 16 << 10, "only the range deletion may be left, not {left} bytes");
    }
}
