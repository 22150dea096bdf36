//! Simulated tables: writes are seen at once and durable after a sync; a snapshot is one file.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use borsh::BorshDeserialize;
use bytes::Bytes;
use storage::kv::SNAPSHOTS_KEPT;
use storage::{FileEntry, KvChanges, KvStore, Manifest, Manner, SnapshotSink, SnapshotSource, StorageFault, Table};

use super::{DiskTemper, Part, survivors};
use crate::dice::lock;
use crate::sim::bugs::PlantedBug;
use crate::sim::world::World;

/// The only file of a snapshot: borsh of the rows, in the order of tables and keys.
const CONTENT: &str = "content";

type Rows = BTreeMap<(Table, Bytes), Bytes>;

/// What tables are written on. Clones are the same medium.
#[derive(Debug, Clone)]
pub struct KvMedium {
    world: World,
    name: Arc<str>,
    temper: DiskTemper,
    bug: Option<PlantedBug>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// Counts power cuts and openings: an engine of an earlier life is dead.
    life: u64,
    durable: Rows,
    /// `durable` after everything that was written since.
    written: Rows,
    unsynced: Vec<Batch>,
    snapshots: VecDeque<Arc<Snapshot>>,
}

/// Changes that are written together: a value, or nothing where the row is removed.
#[derive(Debug, Default)]
struct Batch(Vec<((Table, Bytes), Option<Bytes>)>);

impl KvChanges for Batch {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) {
        self.0.push(((table, Bytes::copy_from_slice(key)), Some(Bytes::copy_from_slice(value))));
    }

    fn delete(&mut self, table: Table, key: &[u8]) {
        self.0.push(((table, Bytes::copy_from_slice(key)), None));
    }
}

fn write(rows: &mut Rows, Batch(changes): &Batch) {
    for (place, value) in changes {
        match value {
            Some(value) => drop(rows.insert(place.clone(), value.clone())),
            None => drop(rows.remove(place)),
        }
    }
}

impl KvMedium {
    /// An empty medium.
    #[must_use]
    pub fn new(world: &World, name: &str, temper: &DiskTemper, bug: Option<PlantedBug>) -> Self {
        let state = Arc::default();
        Self { world: world.clone(), name: name.into(), temper: temper.clone(), bug, state }
    }

    /// Everything on it is gone.
    pub(super) fn wipe(&self) {
        let mut state = self.state();
        let life = state.life;
        *state = State { life, ..State::default() };
    }

    /// An engine for a new life.
    #[must_use]
    pub fn open(&self) -> Arc<dyn KvStore> {
        let mut state = self.state();
        state.life += 1;
        Arc::new(Engine { medium: self.clone(), life: state.life })
    }

    /// Ends the present life; gives how many unsynced writes survived and how many did not.
    pub fn cut_power(&self) -> (usize, usize) {
        let mut state = self.state();
        state.life += 1;
        let unsynced = std::mem::take(&mut state.unsynced);
        let kept = survivors(&self.world, unsynced.len());
        for batch in unsynced.iter().take(kept) {
            write(&mut state.durable, batch);
        }
        state.written = state.durable.clone();
        (kept, unsynced.len() - kept)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    pub(super) fn has_unsynced(&self) -> bool {
        !self.state().unsynced.is_empty()
    }

    fn has(&self, bug: PlantedBug) -> bool {
        self.bug == Some(bug)
    }

    fn mismatch(&self, detail: impl Into<String>) -> StorageFault {
        StorageFault::SnapshotMismatch { detail: format!("{}: {}", self.name, detail.into()) }
    }
}

/// The tables in one life of their node.
#[derive(Debug)]
struct Engine {
    medium: KvMedium,
    life: u64,
}

impl Engine {
    fn living(&self) -> Result<MutexGuard<'_, State>, StorageFault> {
        living(&self.medium, self.life)
    }

    fn writing(&self) -> Result<MutexGuard<'_, State>, StorageFault> {
        self.medium.temper.take_write(&self.medium.name)?;
        self.living()
    }
}

fn living(medium: &KvMedium, life: u64) -> Result<MutexGuard<'_, State>, StorageFault> {
    let state = medium.state();
    let dead = state.life != life || medium.temper.is_dead();
    if dead { Err(StorageFault::Stopped) } else { Ok(state) }
}

impl KvStore for Engine {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StorageFault> {
        self.medium.temper.read_row(&self.medium.name, table, key)?;
        Ok(self.living()?.written.get(&(table, Bytes::copy_from_slice(key))).cloned())
    }

    fn get_many(&self, table: Table, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, StorageFault> {
        keys.iter().map(|key| self.get(table, key)).collect()
    }

    fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        from: &[u8],
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StorageFault> {
        let state = self.living()?;
        let start = (table, Bytes::copy_from_slice(from.max(prefix)));
        let rows = state.written.range(start..);
        let rows = rows.take_while(|((found, key), _)| *found == table && key.starts_with(prefix));
        let read = |((_, key), value): (&(Table, Bytes), &Bytes)| {
            self.medium.temper.read_row(&self.medium.name, table, key)?;
            Ok((key.clone(), value.clone()))
        };
        rows.take(limit).map(read).collect()
    }

    fn write(&self, _manner: Manner<'_>, tell: &dyn Fn(&mut dyn KvChanges)) -> Result<(), StorageFault> {
        let mut batch = Batch::default();
        tell(&mut batch);
        if self.medium.has(PlantedBug::LoseLiveOutput) {
            batch = without_a_live_output(batch);
        }
        let mut state = self.writing()?;
        write(&mut state.written, &batch);
        state.unsynced.push(batch);
        Ok(())
    }

    fn sync(&self) -> Result<(), StorageFault> {
        let mut state = self.writing()?;
        let failed = self.medium.temper.take_sync(&self.medium.name, Part::Tables);
        let unsynced = std::mem::take(&mut state.unsynced);
        let kept = if failed.is_ok() { unsynced.len() } else { survivors(&self.medium.world, unsynced.len()) };
        for batch in unsynced.iter().take(kept) {
            write(&mut state.durable, batch);
        }
        failed
    }

    fn checkpoint(&self, label: Bytes, taken: Box<dyn FnOnce() + '_>) -> Result<Arc<dyn SnapshotSource>, StorageFault> {
        let mut state = self.writing()?;
        let forgets = self.medium.has(PlantedBug::SnapshotForgetsTransactions);
        let kept = state.written.iter().filter(|((table, _), _)| !(forgets && *table == Table::Transactions));
        let stale = state.snapshots.back().filter(|_| self.medium.has(PlantedBug::SnapshotAheadOfContent));
        let snapshot = match stale {
            Some(before) => Arc::new(before.labelled(label)),
            None => Arc::new(Snapshot::of(label, kept)),
        };
        state.snapshots.push_back(Arc::clone(&snapshot));
        if state.snapshots.len() > SNAPSHOTS_KEPT {
            state.snapshots.pop_front();
        }
        drop(state);
        taken();
        Ok(snapshot)
    }

    fn newest_checkpoint(&self) -> Result<Option<Arc<dyn SnapshotSource>>, StorageFault> {
        let newest = self.living()?.snapshots.back().cloned();
        Ok(newest.map(|newest| -> Arc<dyn SnapshotSource> { newest }))
    }

    fn begin_restore(&self, manifest: Manifest) -> Result<Box<dyn SnapshotSink>, StorageFault> {
        drop(self.writing()?);
        let length = |file: &FileEntry| usize::try_from(file.length()).unwrap_or(usize::MAX);
        let files = manifest.files().iter().map(|file| (file.name().to_owned(), vec![0; length(file)])).collect();
        Ok(Box::new(Sink { medium: self.medium.clone(), life: self.life, manifest, files }))
    }

    fn bytes_on_disk(&self) -> Result<u64, StorageFault> {
        let bytes: usize = self.living()?.written.iter().map(|((_, key), value)| key.len() + value.len()).sum();
        Ok(u64::try_from(bytes).expect("lengths fit in 64 bits"))
    }
}

/// The batch without one of the outputs that it puts, and without its row among its owner's, whose key ends with its
/// name.
fn without_a_live_output(Batch(mut changes): Batch) -> Batch {
    let put = changes.iter().filter(|((table, _), value)| *table == Table::Live && value.is_some());
    // the first by name: the order of the batch is that of a hash map
    if let Some(lost) = put.map(|((_, key), _)| key.clone()).min() {
        let of_it = |table: Table, key: &Bytes| matches!(table, Table::Live | Table::Owners) && key.ends_with(&lost);
        changes.retain(|((table, key), value)| value.is_none() || !of_it(*table, key));
    }
    Batch(changes)
}

/// A copy of all rows.
#[derive(Debug)]
struct Snapshot {
    manifest: Manifest,
    content: Bytes,
}

impl Snapshot {
    fn of<'a>(label: Bytes, rows: impl Iterator<Item = (&'a (Table, Bytes), &'a Bytes)>) -> Self {
        let rows: Vec<(String, Vec<u8>, Vec<u8>)> =
            rows.map(|((table, key), value)| (table.name().to_owned(), key.to_vec(), value.to_vec())).collect();
        Self::with_content(label, borsh::to_vec(&rows).expect("encoding into memory cannot fail").into())
    }

    /// The same content under another label.
    fn labelled(&self, label: Bytes) -> Self {
        Self::with_content(label, self.content.clone())
    }

    fn with_content(label: Bytes, content: Bytes) -> Self {
        let length = u64::try_from(content.len()).expect("lengths fit in 64 bits");
        let file = FileEntry::new(CONTENT, length, blake3::hash(&content)).expect("the name is plain");
        let manifest = Manifest::new(label, vec![file]).expect("there is one file");
        Self { manifest, content }
    }
}

fn rows(content: &[u8]) -> Option<Rows> {
    let rows: Vec<(String, Vec<u8>, Vec<u8>)> = BorshDeserialize::try_from_slice(content).ok()?;
    let table = |name: &str| Table::ALL.into_iter().find(|table| table.name() == name);
    rows.into_iter().map(|(name, key, value)| Some(((table(&name)?, key.into()), value.into()))).collect()
}

impl SnapshotSource for Snapshot {
    fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    fn read(&self, file: &str, offset: u64, length: usize) -> Result<Bytes, StorageFault> {
        if file != CONTENT {
            return Err(StorageFault::SnapshotMismatch { detail: format!("there is no file {file}") });
        }
        let begin = usize::try_from(offset).unwrap_or(usize::MAX).min(self.content.len());
        let end = begin.saturating_add(length).min(self.content.len());
        Ok(self.content.slice(begin..end))
    }
}

/// A snapshot being taken in.
#[derive(Debug)]
struct Sink {
    medium: KvMedium,
    life: u64,
    manifest: Manifest,
    files: BTreeMap<String, Vec<u8>>,
}

impl SnapshotSink for Sink {
    fn write(&mut self, file: &str, offset: u64, bytes: &[u8]) -> Result<(), StorageFault> {
        drop(living(&self.medium, self.life)?);
        let content = self.files.get_mut(file).ok_or_else(|| self.medium.mismatch("an unknown file"))?;
        let begin = usize::try_from(offset).unwrap_or(usize::MAX);
        let place = content.get_mut(begin..begin.saturating_add(bytes.len()));
        place.ok_or_else(|| self.medium.mismatch("a piece behind the end"))?.copy_from_slice(bytes);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<(), StorageFault> {
        for file in self.manifest.files() {
            let content = self.files.get(file.name()).map(Vec::as_slice).unwrap_or_default();
            if blake3::hash(content) != file.hash() {
                return Err(self.medium.mismatch("another hash"));
            }
        }
        let content = self.files.get(CONTENT).ok_or_else(|| self.medium.mismatch("no content"))?;
        let restored = rows(content).ok_or_else(|| self.medium.mismatch("unreadable content"))?;
        self.medium.temper.take_write(&self.medium.name)?;
        let mut state = living(&self.medium, self.life)?;
        state.unsynced.clear();
        if self.medium.has(PlantedBug::RestoreKeepsOldRows) {
            state.written.extend(restored);
            state.durable = state.written.clone();
            return Ok(());
        }
        state.durable = restored.clone();
        state.written = restored;
        Ok(())
    }
}
