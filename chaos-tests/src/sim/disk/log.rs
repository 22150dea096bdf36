//! A simulated log: batches wait for their sync, which takes virtual time, and share it with those that wait too.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use seams::BoxFuture;
use storage::{LogBatch, LogEngine, LogOp, LogStats, MetaKey, StorageFault};
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::{DiskTemper, Part, survivors};
use crate::dice::lock;
use crate::sim::bugs::PlantedBug;
use crate::sim::world::{Event, World};

/// How much later the flawed disk syncs that acknowledges before it does.
const LATE_SYNC: Duration = Duration::from_millis(300);

/// What a log is written on. Clones are the same medium.
#[derive(Debug, Clone)]
pub struct LogMedium {
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
    durable: Content,
    /// `durable` after everything that is queued.
    written: Content,
    queue: VecDeque<Queued>,
    syncing: bool,
    stats: LogStats,
}

#[derive(Debug)]
struct Queued {
    batch: LogBatch,
    done: oneshot::Sender<Result<(), StorageFault>>,
}

/// A log's entries and metadata.
#[derive(Debug, Default, Clone)]
struct Content {
    /// No entry before this index may be written any more.
    floor: u64,
    entries: BTreeMap<u64, Bytes>,
    meta: BTreeMap<MetaKey, Bytes>,
}

impl Content {
    fn bounds(&self) -> Option<(u64, u64)> {
        Some((*self.entries.first_key_value()?.0, *self.entries.last_key_value()?.0))
    }

    /// Whether a batch leaves no hole.
    fn check(&self, batch: &LogBatch) -> Result<(), StorageFault> {
        let (mut floor, mut bounds) = (self.floor, self.bounds());
        for op in batch.ops() {
            match op {
                LogOp::Put { index, .. } => {
                    if !bounds.map_or(*index >= floor, |(_, last)| *index == last + 1) {
                        let (begin, end) = bounds.map_or((floor, floor), |(first, last)| (first, last + 1));
                        return Err(StorageFault::OutOfOrder { index: *index, begin, end });
                    }
                    bounds = Some((bounds.map_or(*index, |(first, _)| first), *index));
                }
                LogOp::TruncateFrom(index) => {
                    let rest = bounds.filter(|(first, _)| first < index);
                    bounds = rest.map(|(first, last)| (first, last.min(index - 1)));
                }
                LogOp::PurgeThrough(index) => {
                    floor = floor.max(index + 1);
                    let rest = bounds.filter(|(_, last)| last > index);
                    bounds = rest.map(|(first, last)| (first.max(index + 1), last));
                }
                LogOp::PutMeta { .. } => {}
            }
        }
        Ok(())
    }

    /// Takes over one value of a batch, and nothing else of it.
    fn apply_meta(&mut self, batch: &LogBatch, wanted: MetaKey) {
        for op in batch.ops() {
            if let LogOp::PutMeta { key, value } = op
                && *key == wanted
            {
                self.meta.insert(*key, value.clone());
            }
        }
    }

    fn apply(&mut self, batch: &LogBatch) {
        for op in batch.ops() {
            match op {
                LogOp::Put { index, record } => drop(self.entries.insert(*index, record.clone())),
                LogOp::TruncateFrom(index) => drop(self.entries.split_off(index)),
                LogOp::PurgeThrough(index) => {
                    self.floor = self.floor.max(index + 1);
                    self.entries = self.entries.split_off(&(index + 1));
                }
                LogOp::PutMeta { key, value } => drop(self.meta.insert(*key, value.clone())),
            }
        }
    }
}

impl LogMedium {
    /// An empty medium.
    #[must_use]
    pub fn new(world: &World, name: &str, temper: &DiskTemper, bug: Option<PlantedBug>) -> Self {
        let state = Arc::default();
        Self { world: world.clone(), name: name.into(), temper: temper.clone(), bug, state }
    }

    pub(super) fn temper(&self) -> &DiskTemper {
        &self.temper
    }

    /// Everything on it is gone.
    pub(super) fn wipe(&self) {
        let mut state = self.state();
        let life = state.life;
        *state = State { life, ..State::default() };
    }

    /// An engine for a new life.
    #[must_use]
    pub fn open(&self) -> Arc<dyn LogEngine> {
        let mut state = self.state();
        state.life += 1;
        state.written = state.durable.clone();
        state.stats = LogStats::default();
        Arc::new(Engine { medium: self.clone(), life: state.life })
    }

    /// Ends the present life; gives how many queued batches survived and how many did not.
    pub fn cut_power(&self) -> (usize, usize) {
        let mut state = self.state();
        state.life += 1;
        state.syncing = false;
        let waiting = state.queue.len();
        let kept = survivors(&self.world, waiting);
        for (position, queued) in std::mem::take(&mut state.queue).into_iter().enumerate() {
            if position < kept {
                state.make_durable(&queued.batch);
            } else if self.has(PlantedBug::CommittedAheadOfLog) {
                state.durable.apply_meta(&queued.batch, MetaKey::Committed);
            }
        }
        if self.has(PlantedBug::VoteNotDurable) {
            state.durable.meta.remove(&MetaKey::Vote);
        }
        if self.has(PlantedBug::TornTail) {
            state.durable.entries.pop_last();
        }
        (kept, waiting - kept)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    pub(super) fn has_unsynced(&self, wanted: impl Fn(&LogOp) -> bool) -> bool {
        self.state().queue.iter().flat_map(|queued| queued.batch.ops()).any(wanted)
    }

    /// Syncs until nothing waits, or the life ends.
    async fn sync(self, life: u64) {
        loop {
            let group = {
                let mut state = self.state();
                if state.life != life || state.queue.is_empty() {
                    state.syncing &= state.life != life;
                    return;
                }
                state.queue.len()
            };
            let late = self.state().queue.iter().any(|queued| self.acknowledges_early(&queued.batch));
            let late = if late { LATE_SYNC } else { Duration::ZERO };
            sleep(self.world.pause(&self.temper.sync()) + late).await;
            let mut state = self.state();
            if state.life != life {
                return;
            }
            if let Err(fault) = self.temper.take_sync(&self.name, Part::Log) {
                return state.fail(survivors(&self.world, group), &fault);
            }
            state.stats.syncs += 1;
            for _ in 0..group {
                let Some(queued) = state.queue.pop_front() else { break };
                state.make_durable(&queued.batch);
                // whoever waited may have gone
                drop(queued.done.send(Ok(())));
            }
            drop(state);
            self.world.record(&Event::Synced { disk: &self.name, batches: group });
        }
    }

    fn has(&self, bug: PlantedBug) -> bool {
        self.bug == Some(bug)
    }

    /// Whether a batch is answered before it is durable.
    fn acknowledges_early(&self, batch: &LogBatch) -> bool {
        let any = |wanted: fn(&LogOp) -> bool| batch.ops().iter().any(wanted);
        self.has(PlantedBug::AcknowledgeBeforeSync)
            || (self.has(PlantedBug::VoteBeforeSync)
                && any(|op| matches!(op, LogOp::PutMeta { key: MetaKey::Vote, .. })))
            || (self.has(PlantedBug::TruncationBeforeSync) && any(|op| matches!(op, LogOp::TruncateFrom(_))))
    }

    /// Whether readers see what is not durable yet.
    fn shows_unsynced(&self) -> bool {
        [PlantedBug::AcknowledgeBeforeSync, PlantedBug::TruncationBeforeSync, PlantedBug::SyncErrorSwallowed]
            .into_iter()
            .any(|bug| self.has(bug))
    }
}

impl State {
    /// A sync failed: so many batches are durable all the same, and everybody who waits is told that it failed.
    fn fail(&mut self, kept: usize, fault: &StorageFault) {
        for (position, queued) in std::mem::take(&mut self.queue).into_iter().enumerate() {
            if position < kept {
                self.make_durable(&queued.batch);
            }
            drop(queued.done.send(Err(fault.clone())));
        }
    }

    fn make_durable(&mut self, batch: &LogBatch) {
        self.durable.apply(batch);
        self.stats.batches += 1;
        self.stats.payload_bytes += u64::try_from(batch.payload_bytes()).expect("lengths fit in 64 bits");
        let puts = batch.ops().iter().filter(|op| matches!(op, LogOp::Put { .. })).count();
        self.stats.entries += u64::try_from(puts).expect("counts fit in 64 bits");
    }
}

/// The record with its last byte changed.
fn with_a_byte_changed(record: &Bytes) -> Bytes {
    let mut bytes = record.to_vec();
    bytes.last_mut().into_iter().for_each(|byte| *byte ^= 1);
    bytes.into()
}

/// The log in one life of its node.
#[derive(Debug)]
struct Engine {
    medium: LogMedium,
    life: u64,
}

impl Engine {
    fn living(&self) -> Result<MutexGuard<'_, State>, StorageFault> {
        let state = self.medium.state();
        let failed = self.medium.temper.is_dead() && !self.medium.has(PlantedBug::SyncErrorSwallowed);
        let dead = state.life != self.life || failed;
        if dead { Err(StorageFault::Stopped) } else { Ok(state) }
    }

    fn queue(&self, batch: LogBatch) -> Result<oneshot::Receiver<Result<(), StorageFault>>, StorageFault> {
        let taken = self.medium.temper.take_write(&self.medium.name);
        let fault = taken.err();
        if let Some(fault) = fault.as_ref().filter(|_| !self.medium.has(PlantedBug::SyncErrorSwallowed)) {
            return Err(fault.clone());
        }
        let mut state = self.living()?;
        state.written.check(&batch)?;
        state.written.apply(&batch);
        let (done, durable) = oneshot::channel();
        if fault.is_some() {
            // the flaw: it says that it was done
            drop(done.send(Ok(())));
            return Ok(durable);
        }
        state.queue.push_back(Queued { batch, done });
        if !std::mem::replace(&mut state.syncing, true) {
            drop(seams::tasks::spawn(self.medium.clone().sync(self.life)));
        }
        Ok(durable)
    }
}

impl LogEngine for Engine {
    fn append(&self, batch: LogBatch) -> BoxFuture<'static, Result<(), StorageFault>> {
        let early = self.medium.acknowledges_early(&batch);
        let queued = self.queue(batch);
        Box::pin(async move {
            let durable = queued?;
            if early {
                return Ok(());
            }
            durable.await.unwrap_or(Err(StorageFault::Stopped))
        })
    }

    fn read(&self, range: Range<u64>, bytes_max: usize) -> Result<Vec<(u64, Bytes)>, StorageFault> {
        let state = self.living()?;
        let content = if self.medium.shows_unsynced() { &state.written } else { &state.durable };
        let mut found = Vec::new();
        let mut bytes = 0;
        if range.is_empty() {
            return Ok(found);
        }
        for (index, record) in content.entries.range(range) {
            self.medium.temper.read_entry(&self.medium.name, *index)?;
            bytes += record.len();
            let rotten = self.medium.has(PlantedBug::LogRot) && index % 16 == 15;
            found.push((*index, if rotten { with_a_byte_changed(record) } else { record.clone() }));
            if bytes >= bytes_max {
                break;
            }
        }
        Ok(found)
    }

    fn bounds(&self) -> Result<Option<(u64, u64)>, StorageFault> {
        Ok(self.living()?.durable.bounds())
    }

    fn meta(&self, key: MetaKey) -> Result<Option<Bytes>, StorageFault> {
        Ok(self.living()?.durable.meta.get(&key).cloned())
    }

    fn bytes_on_disk(&self) -> Result<u64, StorageFault> {
        let bytes: usize = self.living()?.durable.entries.values().map(Bytes::len).sum();
        Ok(u64::try_from(bytes).expect("lengths fit in 64 bits"))
    }

    fn stats(&self) -> LogStats {
        self.medium.state().stats
    }
}
