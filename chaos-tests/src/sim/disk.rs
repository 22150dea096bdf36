//! Disks in memory that know what was synced: a power cut keeps that, and of the rest some beginning.
//!
//! A [`Disk`] is what stays when its node is gone. Opening it gives engines for one life of the node; a power cut ends
//! that life, and what still holds an engine of it is told [`StorageFault::Stopped`].

mod log;
mod kv;

use std::io;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use storage::{KvStore, LogEngine, LogOp, MetaKey, StorageFault};

pub use kv::KvMedium;
pub use log::LogMedium;

use crate::dice::lock;
use crate::sim::bugs::PlantedBug;
use crate::sim::world::{Event, World};

/// What a node writes to. Clones are the same disk.
#[derive(Debug, Clone)]
pub struct Disk {
    world: World,
    name: String,
    log: LogMedium,
    kv: KvMedium,
}

/// What is being written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Whatever.
    AnyWrite,
    /// A vote.
    Vote,
    /// The log loses its end or its beginning.
    Cut,
}

/// How a disk behaves; shared with the disk, so that the nemesis can change it.
#[derive(Debug, Clone)]
pub struct DiskTemper(Arc<Mutex<Temper>>);

#[derive(Debug, Clone)]
struct Temper {
    sync: RangeInclusive<Duration>,
    /// Writes and syncs until the disk fails, if it is to fail.
    fails_after: Option<u64>,
    /// Whether the next sync of the log fails.
    sync_fails: bool,
    /// No write fits; stays so over restarts.
    full: bool,
    /// Whether something failed since its node started: then nothing more is written.
    poisoned: bool,
    /// Stays so over restarts: what is damaged stays damaged.
    corrupt: bool,
}

impl DiskTemper {
    fn new() -> Self {
        let sync = Duration::from_millis(1)..=Duration::from_millis(3);
        let (sync_fails, full, poisoned, corrupt) = (false, false, false, false);
        Self(Arc::new(Mutex::new(Temper { sync, fails_after: None, sync_fails, full, poisoned, corrupt })))
    }

    /// How long syncs of the log take from now on.
    pub fn set_sync(&self, sync: RangeInclusive<Duration>) {
        lock(&self.0).sync = sync;
    }

    /// The disk fails for good after so many more writes; a restart of its node finds it working.
    pub fn fail_after(&self, operations: u64) {
        lock(&self.0).fails_after = Some(operations);
    }

    /// The next sync of the log fails: of what it was to make durable some is, and nobody knows what.
    pub fn fail_sync(&self) {
        lock(&self.0).sync_fails = true;
    }

    /// Whether there is room for writes from now on.
    pub fn set_full(&self, full: bool) {
        lock(&self.0).full = full;
    }

    /// True where a write or a sync has failed since its node started.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.is_dead() || lock(&self.0).poisoned
    }

    /// True where not even reads are answered.
    fn is_dead(&self) -> bool {
        lock(&self.0).fails_after == Some(0)
    }

    fn repair(&self) {
        let mut temper = lock(&self.0);
        (temper.fails_after, temper.sync_fails, temper.poisoned) = (None, false, false);
    }

    fn sync(&self) -> RangeInclusive<Duration> {
        lock(&self.0).sync.clone()
    }

    /// Whether this row is found to be damaged.
    fn spoils(&self, key: &[u8]) -> bool {
        lock(&self.0).corrupt && key.last().is_some_and(|byte| byte % 8 == 3)
    }

    /// Counts one write to the disk of this name.
    fn take_write(&self, disk: &str) -> Result<(), StorageFault> {
        let mut temper = lock(&self.0);
        let fails = match &mut temper.fails_after {
            None => false,
            Some(left) => {
                *left = left.saturating_sub(1);
                *left == 0
            }
        };
        if fails || temper.poisoned {
            return Err(StorageFault::Stopped);
        }
        if temper.full {
            temper.poisoned = true;
            return Err(refused(disk, io::ErrorKind::StorageFull));
        }
        Ok(())
    }

    /// Whether the sync that begins now fails, on the disk of this name.
    fn take_sync(&self, disk: &str) -> Result<(), StorageFault> {
        let mut temper = lock(&self.0);
        if !std::mem::take(&mut temper.sync_fails) {
            return Ok(());
        }
        temper.poisoned = true;
        Err(refused(disk, io::ErrorKind::Other))
    }
}

fn refused(disk: &str, kind: io::ErrorKind) -> StorageFault {
    StorageFault::from_io(io::Error::from(kind), "writing", &PathBuf::from(disk))
}

impl Disk {
    /// An empty disk.
    #[must_use]
    pub fn new(world: &World, name: &str, bug: Option<PlantedBug>) -> Self {
        let temper = DiskTemper::new();
        let log = LogMedium::new(world, &format!("{name}/log"), &temper, bug);
        let kv = KvMedium::new(world, &format!("{name}/kv"), &temper, bug);
        Self { world: world.clone(), name: name.to_owned(), log, kv }
    }

    /// How it behaves.
    #[must_use]
    pub fn temper(&self) -> &DiskTemper {
        self.log.temper()
    }

    /// The engines for a new life of the node.
    #[must_use]
    pub fn open(&self) -> (Arc<dyn LogEngine>, Arc<dyn KvStore>) {
        self.temper().repair();
        (self.log.open(), self.kv.open())
    }

    /// From now on some of what is read from the tables is found to be damaged.
    pub fn corrupt(&self) {
        lock(&self.temper().0).corrupt = true;
    }

    /// Whether what is read is found to be damaged.
    #[must_use]
    pub fn is_corrupt(&self) -> bool {
        lock(&self.temper().0).corrupt
    }

    /// Everything on it is gone. Its node must not run.
    pub fn wipe(&self) {
        self.log.wipe();
        self.kv.wipe();
    }

    /// True while such a thing was written and is not synced: the best moments to cut the power.
    #[must_use]
    pub fn has_unsynced(&self, moment: Moment) -> bool {
        match moment {
            Moment::AnyWrite => self.log.has_unsynced(|_| true) || self.kv.has_unsynced(),
            Moment::Vote => self.log.has_unsynced(|op| matches!(op, LogOp::PutMeta { key: MetaKey::Vote, .. })),
            Moment::Cut => self.log.has_unsynced(|op| matches!(op, LogOp::TruncateFrom(_) | LogOp::PurgeThrough(_))),
        }
    }

    /// Cuts the power: what was synced stays, and of what was written after it a beginning of random length.
    pub fn cut_power(&self) {
        let log = self.log.cut_power();
        let kv = self.kv.cut_power();
        let (kept, lost) = (log.0 + kv.0, log.1 + kv.1);
        self.world.record(&Event::PowerLost { disk: &self.name, kept, lost });
    }
}

/// How many of `written` things survive without having been synced.
fn survivors(world: &World, written: usize) -> usize {
    let written = u64::try_from(written).expect("counts fit in 64 bits");
    usize::try_from(world.between(0..=written)).expect("not more than there were")
}
