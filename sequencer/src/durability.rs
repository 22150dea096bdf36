//! What must wait for the disk does, and what is old does not replace what is new. Simulations find the harm that the
//! contrary does only when a crash falls into a window of milliseconds; here the disk stands still for as long as it
//! takes to look.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use openraft::storage::{RaftLogStorage, RaftStateMachine};
use seams::Inline;
use storage::{LogBatch, LogEngine, LogStats, Manifest, MetaKey, SnapshotSink, SnapshotSource, StorageFault};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::config::{LogId, Vote};
use crate::encoding;
use crate::fault::{FatalSwitch, MachineFault, StartFault};
use crate::log_store::{self, LogStore};
use crate::machine::{Applied, Committed, EntryId, Machine};
use crate::options::Options;
use crate::state_machine::{SnapshotData, StateMachine, meta};

/// A disk whose syncs end when told to.
#[derive(Debug)]
struct HeldLog {
    released: watch::Sender<bool>,
    batches: Mutex<Vec<LogBatch>>,
    /// What it says is committed.
    committed: Option<LogId>,
}

impl LogEngine for HeldLog {
    fn append(&self, batch: LogBatch) -> BoxFuture<'static, Result<(), StorageFault>> {
        self.batches.lock().unwrap().push(batch);
        let mut released = self.released.subscribe();
        async move { released.wait_for(|released| *released).await.map(|_| ()).map_err(|_closed| StorageFault::Stopped) }
            .boxed()
    }

    fn read(&self, _range: Range<u64>, _bytes_max: usize) -> Result<Vec<(u64, Bytes)>, StorageFault> {
        Ok(Vec::new())
    }

    fn bounds(&self) -> Result<Option<(u64, u64)>, StorageFault> {
        Ok(None)
    }

    fn meta(&self, key: MetaKey) -> Result<Option<Bytes>, StorageFault> {
        Ok(self.committed.as_ref().filter(|_| key == MetaKey::Committed).map(encoding::encode))
    }

    fn bytes_on_disk(&self) -> Result<u64, StorageFault> {
        Ok(0)
    }

    fn stats(&self) -> LogStats {
        LogStats::default()
    }
}

/// A machine that has applied ten entries, and counts what replaces them.
#[derive(Debug, Default)]
struct TenApplied {
    restored: AtomicUsize,
}

fn applied(index: u64) -> Applied {
    Applied { last: EntryId { term: 1, node: 1, index }, membership: Bytes::new() }
}

impl Machine for TenApplied {
    fn applied(&self) -> Result<Option<Applied>, MachineFault> {
        Ok(Some(applied(10)))
    }

    fn apply(&self, entries: Vec<Committed>) -> Result<Vec<Bytes>, MachineFault> {
        Ok(entries.iter().map(|_| Bytes::new()).collect())
    }

    fn durable_index(&self) -> Option<u64> {
        Some(10)
    }

    fn snapshot(&self) -> Result<Arc<dyn SnapshotSource>, MachineFault> {
        Err(MachineFault::new("no snapshot is asked for here"))
    }

    fn newest_snapshot(&self) -> Result<Option<Arc<dyn SnapshotSource>>, MachineFault> {
        Ok(None)
    }

    fn begin_restore(&self, _manifest: Manifest) -> Result<Box<dyn SnapshotSink>, MachineFault> {
        Ok(Box::new(Nowhere))
    }

    fn finish_restore(&self, _sink: Box<dyn SnapshotSink>) -> Result<Applied, MachineFault> {
        self.restored.fetch_add(1, Ordering::Relaxed);
        Ok(applied(20))
    }
}

#[derive(Debug)]
struct Nowhere;

impl SnapshotSink for Nowhere {
    fn write(&mut self, _file: &str, _offset: u64, _bytes: &[u8]) -> Result<(), StorageFault> {
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<(), StorageFault> {
        Ok(())
    }
}

fn held(committed: Option<LogId>) -> Arc<HeldLog> {
    Arc::new(HeldLog { released: watch::Sender::new(false), batches: Mutex::default(), committed })
}

fn open(machine: &Arc<TenApplied>) -> (Arc<HeldLog>, LogStore, StateMachine) {
    let engine = held(None);
    let (options, fatal) = (Options::new(1), FatalSwitch::new());
    let machine: Arc<dyn Machine> = machine.clone();
    let log: Arc<dyn LogEngine> = engine.clone();
    let (store, shared) =
        log_store::open(&options, log, Arc::new(Inline), Arc::clone(&machine), fatal.clone()).unwrap();
    (engine, store, StateMachine::new(&options, machine, Arc::new(Inline), shared, fatal))
}

fn id(index: u64) -> LogId {
    applied(index).last.into()
}

/// Whether the call is answered only once the disk goes on, which stood still before.
async fn waits_for_the_disk<T>(engine: &HeldLog, call: impl Future<Output = std::io::Result<T>>) -> bool {
    let mut call = std::pin::pin!(call);
    tokio::select! {
        _ = &mut call => return false,
        () = sleep(Duration::from_secs(60)) => {}
    }
    assert_eq!(engine.batches.lock().unwrap().len(), 1, "it was given to the disk");
    engine.released.send_replace(true);
    assert!(call.await.is_ok());
    true
}

async fn a_vote_waits() -> bool {
    let (engine, mut store, _machine) = open(&Arc::default());
    waits_for_the_disk(&engine, store.save_vote(&Vote::new(3, 1))).await
}

async fn a_truncation_waits() -> bool {
    let (engine, mut store, _machine) = open(&Arc::default());
    waits_for_the_disk(&engine, store.truncate_after(None)).await
}

/// Whether a snapshot at this index replaces the state at ten.
async fn replaces_the_state_at_ten(index: u64) -> bool {
    let machine: Arc<TenApplied> = Arc::default();
    let (_engine, _store, mut state) = open(&machine);
    let snapshot = SnapshotData::Received(Box::new(Nowhere));
    // what is restored here says that it is at 20, whatever was announced: that is refused, after the harm
    let installed = state.install_snapshot(&meta(&applied(index)).unwrap(), snapshot).await;
    assert!(installed.is_ok() || index < 20, "{installed:?}");
    machine.restored.load(Ordering::Relaxed) > 0
}

#[tokio::test(start_paused = true)]
async fn a_vote_is_not_given_before_it_is_durable() {
    assert!(a_vote_waits().await);
}

#[tokio::test(start_paused = true)]
async fn what_a_new_leader_contradicts_is_durably_gone_before_anything_else_happens() {
    assert!(a_truncation_waits().await);
}

#[tokio::test(start_paused = true)]
async fn the_log_is_not_purged_beyond_what_the_machine_could_restart_from() {
    let (engine, mut store, _machine) = open(&Arc::default());
    assert!(store.purge(id(11)).await.is_err());
    assert!(engine.batches.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_old_snapshot_does_not_replace_a_newer_state() {
    for old in [5, 10] {
        assert!(!replaces_the_state_at_ten(old).await, "a snapshot at {old} replaced the state at 10");
    }
    assert!(replaces_the_state_at_ten(20).await, "a newer one does replace it");
}

#[tokio::test]
async fn a_log_that_lacks_what_is_known_to_be_committed_is_not_used() {
    let machine: Arc<dyn Machine> = Arc::<TenApplied>::default();
    let (options, fatal) = (Options::new(1), FatalSwitch::new());
    let opened = log_store::open(&options, held(Some(id(3))), Arc::new(Inline), machine, fatal);
    let refused = opened.err().unwrap();
    assert!(matches!(refused, StartFault::CommittedMissing { committed: 3, end: 0 }), "{refused}");
}

/// These tests find the bugs that they are meant to find.
#[cfg(feature = "planted")]
#[tokio::test(start_paused = true)]
async fn planted_bugs_are_found_here() {
    let found = |flaw: flaws::Flaw, invariant| {
        println!("| `{flaw}` | {} | `sequencer/src/durability.rs` | {invariant} | case 1 |", flaw.sentence());
    };
    flaws::plant(Some(flaws::Flaw::VoteBeforeSync));
    assert!(!a_vote_waits().await);
    found(flaws::Flaw::VoteBeforeSync, "a vote is durable before it is given");
    flaws::plant(Some(flaws::Flaw::TruncationBeforeSync));
    assert!(!a_truncation_waits().await);
    found(flaws::Flaw::TruncationBeforeSync, "what is contradicted is durably gone first");
    flaws::plant(Some(flaws::Flaw::OldSnapshotInstalled));
    assert!(replaces_the_state_at_ten(5).await);
    found(flaws::Flaw::OldSnapshotInstalled, "invariant 6");
    flaws::plant(None);
    assert!(a_vote_waits().await && a_truncation_waits().await && !replaces_the_state_at_ten(5).await);
}
