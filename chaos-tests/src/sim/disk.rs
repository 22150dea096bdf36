//! Disks in memory that know what was synced: a power cut keeps that, and of the rest some beginning.
//!
//! A [`Disk`] is what stays when its node is gone. Opening it gives engines for one life of the node; a power cut ends
//! that life, and what still holds an engine of it is told [`StorageFault::Stopped`].

mod log;
mod kv;

use std::io;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use storage::{KvStore, LogEngine, LogOp, MetaKey, StorageFault, Table};

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

/// What of a disk is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The log.
    Log,
    /// The tables.
    Tables,
}

/// How a disk behaves; shared with the disk, so that the nemesis can change it.
#[derive(Debug, Clone)]
pub struct DiskTemper {
    world: World,
    temper: Arc<Mutex<Temper>>,
}

#[derive(Debug, Clone)]
struct Temper {
    sync: RangeInclusive<Duration>,
    /// Writes and syncs until the disk fails, if it is to fail.
    fails_after: Option<u64>,
    /// Of what the next sync fails.
    sync_fails: Option<Part>,
    /// No write fits; stays so over restarts.
    full: Option<Full>,
    /// Whether something failed since its node started: then nothing more is written.
    poisoned: bool,
    /// Stays so over restarts: what is damaged stays damaged.
    damage: Option<Damage>,
}

/// There is no room.
#[derive(Debug, Clone, Copy)]
struct Full {
    /// Whether a write was refused already.
    was_met: bool,
}

/// What is read does not have its checksum.
#[derive(Debug, Clone, Copy)]
struct Damage {
    part: Part,
    /// Whether somebody read it already.
    was_met: bool,
}

impl DiskTemper {
    fn new(world: &World) -> Self {
        let sync = Duration::from_millis(1)..=Duration::from_millis(3);
        let temper = Temper { sync, fails_after: None, sync_fails: None, full: None, poisoned: false, damage: None };
        Self { world: world.clone(), temper: Arc::new(Mutex::new(temper)) }
    }

    fn state(&self) -> MutexGuard<'_, Temper> {
        lock(&self.temper)
    }

    /// How long syncs of the log take from now on; false where they took as long before.
    pub fn set_sync(&self, sync: RangeInclusive<Duration>) -> bool {
        std::mem::replace(&mut self.state().sync, sync.clone()) != sync
    }

    /// The disk fails for good after so many more writes; a restart of its node finds it working. One that has failed
    /// stays so until then.
    pub fn fail_after(&self, operations: u64) {
        let mut temper = self.state();
        if temper.fails_after != Some(0) {
            temper.fails_after = Some(operations);
        }
    }

    /// The next sync of this part fails: of what it was to make durable some is, and nobody knows what.
    pub fn fail_sync(&self, part: Part) {
        self.state().sync_fails = Some(part);
    }

    /// Whether there is room for writes from now on.
    pub fn set_full(&self, full: bool) {
        self.state().full = full.then_some(Full { was_met: false });
    }

    /// True where a write or a sync has failed since its node started.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.is_dead() || self.state().poisoned
    }

    /// True where not even reads are answered.
    fn is_dead(&self) -> bool {
        self.state().fails_after == Some(0)
    }

    fn repair(&self) {
        let mut temper = self.state();
        (temper.fails_after, temper.sync_fails, temper.poisoned) = (None, None, false);
    }

    fn sync(&self) -> RangeInclusive<Duration> {
        self.state().sync.clone()
    }

    /// Reads a row of the tables of this name.
    fn read_row(&self, disk: &str, table: Table, key: &[u8]) -> Result<(), StorageFault> {
        self.read(disk, Part::Tables, u64::from(key.last().copied().unwrap_or_default()), || {
            format!("a row of {}", table.name())
        })
    }

    /// Reads an entry of the log of this name.
    fn read_entry(&self, disk: &str, index: u64) -> Result<(), StorageFault> {
        self.read(disk, Part::Log, index, || format!("log entry {index}"))
    }

    /// Of a damaged part every eighth thing is.
    fn read(&self, disk: &str, part: Part, number: u64, what: impl Fn() -> String) -> Result<(), StorageFault> {
        let mut temper = self.state();
        let Some(damage) = temper.damage.as_mut().filter(|damage| damage.part == part && number % 8 == 3) else {
            return Ok(());
        };
        let was_met = std::mem::replace(&mut damage.was_met, true);
        drop(temper);
        if !was_met {
            self.world.struck(&format!("damage to {disk}"));
        }
        Err(StorageFault::corruption(&PathBuf::from(disk), what(), "a wrong checksum"))
    }

    /// Counts one write to the disk of this name.
    fn take_write(&self, disk: &str) -> Result<(), StorageFault> {
        let mut temper = self.state();
        let before = temper.fails_after;
        temper.fails_after = before.map(|left| left.saturating_sub(1));
        if temper.fails_after == Some(0) || temper.poisoned {
            drop(temper);
            if before == Some(1) {
                self.world.struck(&format!("failure of {disk}"));
            }
            return Err(StorageFault::Stopped);
        }
        let Some(full) = &mut temper.full else { return Ok(()) };
        let was_met = std::mem::replace(&mut full.was_met, true);
        temper.poisoned = true;
        drop(temper);
        if !was_met {
            self.world.struck(&format!("no room on {disk}"));
        }
        Err(refused(disk, io::ErrorKind::StorageFull))
    }

    /// Whether the sync of this part that begins now fails, on the disk of this name.
    fn take_sync(&self, disk: &str, part: Part) -> Result<(), StorageFault> {
        let mut temper = self.state();
        if temper.sync_fails != Some(part) {
            return Ok(());
        }
        (temper.sync_fails, temper.poisoned) = (None, true);
        drop(temper);
        self.world.struck(&format!("a failed sync of {disk}"));
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
        let temper = DiskTemper::new(world);
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

    /// From now on some of what is read from this part is found to be damaged.
    pub fn damage(&self, part: Part) {
        self.temper().state().damage = Some(Damage { part, was_met: false });
    }

    /// Whether what is read is found to be damaged.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        self.temper().state().damage.is_some()
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
