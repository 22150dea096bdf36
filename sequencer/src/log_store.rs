//! openraft's log on a [`LogEngine`].
//!
//! In flow entries, votes and orders to cut; out flow entries to those who replicate and apply them. Every
//! write goes to the engine in the order in which openraft makes it, and is reported when the engine says
//! that it is durable; one task does the reporting, in the same order. Entries can be read from the moment
//! they are written: those that are not synced yet always stand in the cache.
//!
//! Invariants: the cache holds the end of the log without a gap; what openraft is told to be durable is
//! durable; the committed position is never on disk before the entries it speaks of, because it rides with
//! later entries through the same queue.

mod cache;
mod reader;
mod writer;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use seams::Compute;
use storage::{LogEngine, MetaKey};
use tokio::sync::{mpsc, watch};

use self::cache::Cache;
pub(crate) use self::reader::LogReader;
use self::writer::Pending;
use crate::config::{LogId, Vote};
use crate::encoding::{self, Form, Malformed};
use crate::fault::FatalSwitch;
use crate::machine::Machine;
use crate::{Options, StartFault};

/// Writes that wait for their sync before openraft is held back. The engine batches what waits, so a few
/// would do; this is only a bound.
const PENDING_MAX: usize = 1024;

/// The writing side; openraft holds the only one.
pub(crate) struct LogStore {
    shared: Arc<Shared>,
    pending: mpsc::Sender<Pending>,
}

/// What the writing side, the readers and the reporting task share.
pub(crate) struct Shared {
    engine: Arc<dyn LogEngine>,
    compute: Arc<dyn Compute>,
    machine: Arc<dyn Machine>,
    append_bytes_max: usize,
    cache_bytes_max: usize,
    state: Mutex<State>,
    /// Bytes of entries in the log, for whoever bounds them.
    live_bytes: watch::Sender<u64>,
}

#[derive(Debug, Clone)]
struct State {
    vote: Option<Vote>,
    committed: Option<LogId>,
    /// `committed` is newer than what is queued for the disk.
    committed_waits: bool,
    purged: Option<LogId>,
    /// Last entry present, or the last purged one.
    last: Option<LogId>,
    /// Bytes that the log was given up to and including `last`.
    written: u64,
    /// The same, up to and including `purged`.
    written_purged: u64,
    /// Everything before this index is durable.
    durable_end: u64,
    /// Grows with every cut, so that a reader notices one.
    cuts: u64,
    cache: Cache,
}

impl State {
    fn end(&self) -> u64 {
        after(self.last)
    }

    fn begin(&self) -> u64 {
        after(self.purged)
    }
}

fn after(id: Option<LogId>) -> u64 {
    id.map_or(0, |id| id.index.saturating_add(1))
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn purged(&self) -> Option<LogId> {
        self.state().purged
    }

    /// Bytes of entries in the log.
    pub(crate) fn watch_live_bytes(&self) -> watch::Receiver<u64> {
        self.live_bytes.subscribe()
    }

    fn publish_live_bytes(&self) {
        let live = {
            let state = self.state();
            state.written.saturating_sub(state.written_purged)
        };
        self.live_bytes.send_if_modified(|bytes| std::mem::replace(bytes, live) != live);
    }
}

/// Opens the log: the writing side, and what it shares. Starts the reporting task.
pub(crate) fn open(
    options: &Options,
    engine: Arc<dyn LogEngine>,
    compute: Arc<dyn Compute>,
    machine: Arc<dyn Machine>,
    fatal: FatalSwitch,
) -> Result<(LogStore, Arc<Shared>), StartFault> {
    let state = load(&*engine)?;
    let shared = Arc::new(Shared {
        engine,
        compute,
        machine,
        append_bytes_max: options.append_bytes_max,
        cache_bytes_max: options.cache_bytes_max,
        state: Mutex::new(state),
        live_bytes: watch::Sender::new(0),
    });
    shared.publish_live_bytes();
    let (pending, queue) = mpsc::channel(PENDING_MAX);
    drop(seams::tasks::spawn(writer::report(Arc::clone(&shared), queue, fatal)));
    Ok((LogStore { shared: Arc::clone(&shared), pending }, shared))
}

fn load(engine: &dyn LogEngine) -> Result<State, StartFault> {
    let purged: Option<LogId> = meta(engine, MetaKey::Purged)?;
    let begin = after(purged);
    let mut state = State {
        vote: meta(engine, MetaKey::Vote)?,
        committed: meta(engine, MetaKey::Committed)?,
        committed_waits: false,
        purged,
        last: purged,
        written: 0,
        written_purged: 0,
        durable_end: begin,
        cuts: 0,
        cache: Cache::default(),
    };
    if let Some((first, last)) = engine.bounds()? {
        if first != begin {
            return Err(StartFault::Hole { first, purged: purged.map(|id| id.index) });
        }
        let (first, first_bytes) = record(engine, first)?;
        let (last, _) = record(engine, last)?;
        state.last = Some(last.entry.log_id);
        state.written = last.written;
        state.written_purged = first.written.saturating_sub(first_bytes);
        state.durable_end = after(state.last);
    }
    if let Some(committed) = state.committed.filter(|committed| after(Some(*committed)) > state.end()) {
        return Err(StartFault::CommittedMissing { committed: committed.index, end: state.end() });
    }
    state.cache.restart(state.end());
    Ok(state)
}

fn meta<T: Form>(engine: &dyn LogEngine, key: MetaKey) -> Result<Option<T>, StartFault> {
    let Some(bytes) = engine.meta(key)? else { return Ok(None) };
    encoding::decode(&bytes).map(Some).map_err(|Malformed(what)| StartFault::Encoding(what))
}

/// A record and its length.
fn record(engine: &dyn LogEngine, index: u64) -> Result<(encoding::Record, u64), StartFault> {
    let found = engine.read(index..index.saturating_add(1), 1)?.pop();
    let (_, bytes) = found.ok_or(StartFault::Hole { first: index, purged: None })?;
    let length = u64::try_from(bytes.len()).expect("a record is shorter than 2^64 bytes");
    let record = encoding::decode_record(bytes).map_err(|Malformed(what)| StartFault::Encoding(what))?;
    Ok((record, length))
}

fn stopped() -> io::Error {
    io::Error::other("the log has stopped after a fault")
}
