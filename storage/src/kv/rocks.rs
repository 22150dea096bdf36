//! Tables in RocksDB, one column family each.
//!
//! Layout: `CURRENT_LEDGER` names the database that counts (`ledger-<n>/`); a restore prepares
//! `ledger-<n+1>/` and then replaces that one small file. `snapshots/<n>/` are checkpoints. Any other
//! `ledger-*` and every `*.partial` is unfinished work, discarded at open.

mod restore;
mod snapshots;

use std::{
    fmt,
    ops::Deref,
    path::{Path, PathBuf},
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompactionStyle, DBCompressionType,
    Direction, FlushOptions, IteratorMode, Options, WriteBatch, WriteOptions,
};

use self::{restore::Restore, snapshots::Snapshots};
use super::{KvChanges, KvStore, Manner, Table};
use crate::{
    StorageFault,
    directory::{self, Directory},
    fault::{Poison, readable},
    snapshot::{Manifest, SnapshotSink, SnapshotSource},
};

const FORMAT: &str = "seriatim-kv 1\n";
const POINTER: &str = "CURRENT_LEDGER";
const GENERATION: &str = "ledger-";
/// Sorted files of a table that lie beside each other before some are merged: the more, the more often a row is looked for in
/// vain, and the less often it is written again.
const SORTED_RUNS_MIN: i32 = 8;
/// So many of them hold write-outs up: more than come while the largest are merged.
const SORTED_RUNS_SLOW: i32 = 60;
/// What is written to sorted files at most, in bytes per second. What the order waits for goes first; merging takes what is
/// left, evenly, instead of a whole processor now and then.
const WRITTEN_PER_SECOND_MAX: i64 = 128 << 20;
/// How that is dealt out, in microseconds.
const WRITTEN_REFILL_US: i64 = 10_000;
/// Merging goes first once in so many times, so that it is never starved.
const WRITTEN_FAIRNESS: i32 = 10;

/// A large write goes to RocksDB in parts of so many bytes: it needs memory for one of them only, and can pause between them.
const PART_BYTES: usize = 1 << 20;
/// What a row takes in a batch and in the memory tables besides its key and value, in bytes, about.
const ROW_BYTES: usize = 48;

/// How the store uses memory and cores.
#[derive(Debug, Clone, Copy)]
pub struct KvOptions {
    /// Cache of table blocks, their indices and filters, in bytes.
    pub block_cache_bytes: usize,
    /// Write buffer of each table, in bytes.
    pub write_buffer_bytes: usize,
    /// Write buffers of all tables together, in bytes, after which the largest is written out.
    pub write_buffers_total_bytes: usize,
    /// Threads that write tables out and merge them.
    pub background_jobs: i32,
}

impl Default for KvOptions {
    fn default() -> Self {
        Self {
            block_cache_bytes: 256 << 20,
            write_buffer_bytes: 256 << 20,
            write_buffers_total_bytes: 512 << 20,
            background_jobs: 2,
        }
    }
}

/// [`KvStore`] over RocksDB.
pub struct RocksKv {
    shared: Arc<Shared>,
}

/// The store, also held by restores that are under way.
struct Shared {
    directory: Directory,
    options: KvOptions,
    /// Replaced as a whole by a restore; every operation holds it shared.
    content: RwLock<Content>,
    poison: Poison,
    snapshots: Snapshots,
    /// The next unused generation number.
    generation: AtomicU64,
}

/// Changes on their way to RocksDB's memory tables.
struct Changes<'a> {
    content: &'a Content,
    /// In the order of [`Table::ALL`], which is that of their numbers.
    families: [&'a ColumnFamily; Table::ALL.len()],
    batch: WriteBatch,
    batch_bytes: usize,
    /// After so many bytes they are handed over.
    part_bytes: usize,
    part_began: Instant,
    unlogged: WriteOptions,
    rest: &'a dyn Fn(Duration),
    /// The first part that could not be handed over.
    outcome: Result<(), StorageFault>,
}

/// One generation of the ledger's tables.
struct Content {
    /// There until this is dropped.
    database: Option<DB>,
    path: PathBuf,
    /// A write has begun and has not come to its end. Then the database is never closed, because closing would bring a part
    /// of the write to the disk.
    torn: AtomicBool,
}

impl RocksKv {
    /// Opens the store of this node, creating it if the directory is empty or missing.
    ///
    /// `identity` names cluster and node; a directory keeps it for ever.
    ///
    /// # Errors
    /// The directory is in use, belongs to another node, has an unknown format, or its content is damaged
    /// or incomplete.
    pub fn open(path: &Path, identity: &[u8], options: KvOptions) -> Result<Self, StorageFault> {
        let mut directory = Directory::claim(path, FORMAT, identity)?;
        let generation = current_generation(&directory)?;
        discard_other_generations(path, generation)?;
        let content = Content::open(generation_path(path, generation), directory.is_fresh(), options)?;
        let snapshots = Snapshots::open(path.join("snapshots"))?;
        if directory.is_fresh() {
            point_to(path, generation)?;
        }
        directory.complete()?;
        let shared = Shared {
            directory,
            options,
            content: RwLock::new(content),
            poison: Poison::default(),
            snapshots,
            generation: AtomicU64::new(generation.saturating_add(1)),
        };
        Ok(Self { shared: Arc::new(shared) })
    }
}

impl KvStore for RocksKv {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StorageFault> {
        let content = self.shared.content();
        let found = content.get_cf(content.family(table), key).map_err(content.failed("reading a row"))?;
        Ok(found.map(Bytes::from))
    }

    fn get_many(&self, table: Table, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, StorageFault> {
        let content = self.shared.content();
        content
            .batched_multi_get_cf(content.family(table), keys.iter().copied(), false)
            .into_iter()
            .map(|row| Ok(row.map_err(content.failed("reading rows"))?.map(|row| Bytes::copy_from_slice(&row))))
            .collect()
    }

    fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        from: &[u8],
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StorageFault> {
        let content = self.shared.content();
        let start = IteratorMode::From(prefix.max(from), Direction::Forward);
        let mut rows = Vec::new();
        for row in content.iterator_cf(content.family(table), start).take(limit) {
            let (key, value) = row.map_err(content.failed("scanning a table"))?;
            if !key.starts_with(prefix) {
                break;
            }
            rows.push((key.into(), value.into()));
        }
        Ok(rows)
    }

    fn write(&self, manner: Manner<'_>, tell: &dyn Fn(&mut dyn KvChanges)) -> Result<(), StorageFault> {
        self.shared.poison.check()?;
        let content = self.shared.content();
        // Parts are one write because nothing but `sync` writes memory tables out, unless they are full: a write that could
        // fill them has no parts.
        let in_parts = manner.bytes_about.saturating_mul(2) <= self.shared.options.memory_tables_bytes();
        let part_bytes = if in_parts { PART_BYTES } else { usize::MAX };
        content.torn.store(true, Ordering::Relaxed);
        let mut changes = Changes::new(&content, part_bytes, &manner);
        tell(&mut changes);
        let outcome = changes.finish();
        content.torn.store(outcome.is_err(), Ordering::Relaxed);
        self.shared.poison.guard(outcome)
    }

    fn sync(&self) -> Result<(), StorageFault> {
        self.shared.poison.check()?;
        let content = self.shared.content();
        let families = Table::ALL.map(|table| content.family(table));
        let outcome =
            content.flush_cfs_opt(&families, &FlushOptions::default()).map_err(content.failed("syncing the ledger"));
        self.shared.poison.guard(outcome)
    }

    fn checkpoint(&self, label: Bytes, taken: Box<dyn FnOnce() + '_>) -> Result<Arc<dyn SnapshotSource>, StorageFault> {
        let snapshot = self.shared.snapshots.create(label, |path| {
            let content = self.shared.content();
            rocksdb::checkpoint::Checkpoint::new(&content)
                .and_then(|checkpoint| checkpoint.create_checkpoint(path))
                .map_err(content.failed("writing a snapshot"))?;
            drop(content);
            taken();
            Ok(())
        })?;
        Ok(snapshot)
    }

    fn newest_checkpoint(&self) -> Result<Option<Arc<dyn SnapshotSource>>, StorageFault> {
        Ok(self.shared.snapshots.newest().map(|newest| -> Arc<dyn SnapshotSource> { newest }))
    }

    fn begin_restore(&self, manifest: Manifest) -> Result<Box<dyn SnapshotSink>, StorageFault> {
        Ok(Box::new(Restore::begin(Arc::clone(&self.shared), manifest)?))
    }

    fn bytes_on_disk(&self) -> Result<u64, StorageFault> {
        directory::bytes_below(self.shared.directory.path())
    }

    fn table_bytes(&self) -> Result<Vec<(Table, u64)>, StorageFault> {
        let content = self.shared.content();
        let bytes = |table: Table| {
            let found = content.property_int_value_cf(content.family(table), rocksdb::properties::LIVE_SST_FILES_SIZE);
            Ok((table, found.map_err(content.failed("measuring a table"))?.unwrap_or(0)))
        };
        Table::ALL.into_iter().map(bytes).collect()
    }
}

impl KvOptions {
    /// What fits into the memory tables in any case, before one of them is written out.
    fn memory_tables_bytes(&self) -> usize {
        self.write_buffer_bytes.min(self.write_buffers_total_bytes / 2)
    }
}

impl<'a> Changes<'a> {
    fn new(content: &'a Content, part_bytes: usize, manner: &Manner<'a>) -> Self {
        let families = Table::ALL.map(|table| content.family(table));
        let capacity = manner.bytes_about.min(part_bytes);
        let mut unlogged = WriteOptions::default();
        unlogged.disable_wal(true);
        Self {
            content,
            families,
            batch: WriteBatch::with_capacity_bytes(capacity),
            batch_bytes: 0,
            part_bytes,
            part_began: Instant::now(),
            unlogged,
            rest: manner.rest,
            outcome: Ok(()),
        }
    }

    fn count(&mut self, bytes: usize) {
        self.batch_bytes += bytes + ROW_BYTES;
        if self.batch_bytes >= self.part_bytes {
            self.hand_over();
            (self.rest)(self.part_began.elapsed());
            self.part_began = Instant::now();
        }
    }

    fn hand_over(&mut self) {
        let batch = std::mem::replace(&mut self.batch, WriteBatch::with_capacity_bytes(self.batch_bytes));
        self.batch_bytes = 0;
        // after a failure nothing more is written: the store is of no use
        if self.outcome.is_ok() {
            self.outcome = self.content.write_opt(batch, &self.unlogged).map_err(self.content.failed("writing rows"));
        }
    }

    fn finish(mut self) -> Result<(), StorageFault> {
        self.hand_over();
        self.outcome
    }

    fn family(&self, table: Table) -> &'a ColumnFamily {
        let position = Table::ALL.iter().position(|listed| *listed == table);
        position.and_then(|position| self.families.get(position).copied()).expect("every table is listed")
    }
}

impl KvChanges for Changes<'_> {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) {
        let family = self.family(table);
        self.batch.put_cf(family, key, value);
        self.count(key.len() + value.len());
    }

    fn delete(&mut self, table: Table, key: &[u8]) {
        let family = self.family(table);
        self.batch.delete_cf(family, key);
        self.count(key.len());
    }
}

impl fmt::Debug for RocksKv {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.fmt(formatter)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("RocksKv").field("directory", &self.directory).finish_non_exhaustive()
    }
}

impl Shared {
    fn content(&self) -> RwLockReadGuard<'_, Content> {
        self.content.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn new_generation(&self) -> u64 {
        self.generation.fetch_add(1, Ordering::Relaxed)
    }

    /// Makes a prepared generation the content. The old one stands until the pointer is durable.
    fn replace_content(&self, generation: u64) -> Result<(), StorageFault> {
        let root = self.directory.path();
        let prepared = generation_path(root, generation);
        let next = Content::open(prepared.clone(), false, self.options).inspect_err(|_| {
            // what cannot be removed now is discarded at the next start
            drop(directory::remove(&prepared));
        })?;
        let mut content = self.content.write().unwrap_or_else(PoisonError::into_inner);
        // where the pointer is in doubt, neither side may be written any more
        self.poison.guard(point_to(root, generation))?;
        let replaced = std::mem::replace(&mut *content, next);
        drop(content);
        let path = replaced.path.clone();
        drop(replaced);
        directory::remove(&path)
    }
}

impl Content {
    fn open(path: PathBuf, fresh: bool, options: KvOptions) -> Result<Self, StorageFault> {
        let mut database = Options::default();
        database.create_if_missing(fresh);
        database.create_missing_column_families(true);
        database.set_paranoid_checks(true);
        // No write-ahead log: rows go straight to sorted files, of all tables at once, so that what is on disk is a
        // whole number of writes. The Raft log brings back the rest.
        database.set_atomic_flush(true);
        database.set_db_write_buffer_size(options.write_buffers_total_bytes);
        database.set_max_background_jobs(options.background_jobs);
        database.set_ratelimiter(WRITTEN_PER_SECOND_MAX, WRITTEN_REFILL_US, WRITTEN_FAIRNESS);
        if directory::takes_direct_writes(&path) {
            database.set_use_direct_io_for_flush_and_compaction(true);
        } else {
            database.set_bytes_per_sync(1 << 20); // spreads write-back instead of one long sync at the end
        }
        database.set_keep_log_file_num(4);
        database.set_max_log_file_size(8 << 20);
        let cache = Cache::new_lru_cache(options.block_cache_bytes);
        let families =
            Table::ALL.map(|table| ColumnFamilyDescriptor::new(table.name(), table_options(table, &cache, options)));
        let database = DB::open_cf_descriptors(&database, &path, families)
            .map_err(|error| StorageFault::from_rocks(error, "opening the ledger", &path))?;
        Ok(Self { database: Some(database), path, torn: AtomicBool::new(false) })
    }

    fn family(&self, table: Table) -> &ColumnFamily {
        self.cf_handle(table.name()).expect("the database was opened with every table")
    }

    fn failed(&self, action: &'static str) -> impl Fn(rocksdb::Error) -> StorageFault + '_ {
        move |error| StorageFault::from_rocks(error, action, &self.path)
    }
}

impl Drop for Content {
    fn drop(&mut self) {
        if self.torn.load(Ordering::Relaxed) {
            std::mem::forget(self.database.take());
        }
    }
}

impl Deref for Content {
    type Target = DB;

    fn deref(&self) -> &DB {
        self.database.as_ref().expect("it is there until this is dropped")
    }
}

fn table_options(table: Table, cache: &Cache, options: KvOptions) -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(cache);
    blocks.set_cache_index_and_filter_blocks(true);
    blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
    let mut family = Options::default();
    match table {
        // looked up by hash, mostly in vain: 10 bits a key answer 99 % of the misses without a block, and a filter of
        // a hundredth of the write buffer answers them without a walk through it
        Table::Live | Table::Transactions => {
            blocks.set_bloom_filter(10.0, false);
            family.set_memtable_whole_key_filtering(true);
            family.set_memtable_prefix_bloom_ratio(0.01);
            family.set_compression_per_level(&[DBCompressionType::None, DBCompressionType::Lz4]);
        }
        // scanned; new files are merged soon
        Table::Owners | Table::Spent => {
            family.set_compression_per_level(&[DBCompressionType::None, DBCompressionType::Lz4]);
        }
        // read by numbers that ascend: files move down the levels as they are, where nothing has to be compressed
        Table::Batches | Table::Tiles | Table::Heads | Table::Attestations | Table::Meta => {
            family.set_compression_type(DBCompressionType::None);
        }
    }
    // A flush adds a small file of keys from everywhere. Merged with its like a few times it costs a fraction of merging
    // it into one large level again and again, and the filters keep look-ups from searching every file.
    if matches!(table, Table::Live | Table::Transactions | Table::Owners | Table::Spent) {
        family.set_compaction_style(DBCompactionStyle::Universal);
        family.set_level_zero_file_num_compaction_trigger(SORTED_RUNS_MIN);
        family.set_level_zero_slowdown_writes_trigger(SORTED_RUNS_SLOW);
        family.set_level_zero_stop_writes_trigger(2 * SORTED_RUNS_SLOW);
    }
    family.set_write_buffer_size(options.write_buffer_bytes);
    family.set_level_compaction_dynamic_level_bytes(true);
    family.set_block_based_table_factory(&blocks);
    family
}

fn generation_path(root: &Path, generation: u64) -> PathBuf {
    root.join(format!("{GENERATION}{generation}"))
}

fn point_to(root: &Path, generation: u64) -> Result<(), StorageFault> {
    directory::replace_file(&root.join(POINTER), format!("{GENERATION}{generation}\n").as_bytes())
}

/// The generation that counts; 1 in a directory that was never completed.
fn current_generation(directory: &Directory) -> Result<u64, StorageFault> {
    let file = directory.path().join(POINTER);
    let Some(content) = directory::read_optional(&file)? else {
        let missing = || StorageFault::corruption(&file, "the pointer to the current ledger", "the file is missing");
        return if directory.is_fresh() { Ok(1) } else { Err(missing()) };
    };
    let number = std::str::from_utf8(&content).ok().and_then(|text| {
        let number: u64 = text.strip_prefix(GENERATION)?.strip_suffix('\n')?.parse().ok()?;
        (number.checked_add(1).is_some()).then_some(number)
    });
    number.ok_or_else(|| {
        StorageFault::corruption(&file, "the pointer to the current ledger", format!("found {}", readable(&content)))
    })
}

/// Removes what a restore left that did not come to its end, or whose predecessor was not yet removed.
fn discard_other_generations(root: &Path, current: u64) -> Result<(), StorageFault> {
    let kept = format!("{GENERATION}{current}");
    for name in directory::names(root)?.into_iter().filter(|name| name.starts_with(GENERATION) && *name != kept) {
        directory::remove(&root.join(name))?;
    }
    Ok(())
}
