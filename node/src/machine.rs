//! The ledger as the sequencer's state machine: entries in, outcomes to whoever waits for them.
//!
//! Invariant: the position of the last entry is stored with its effects, so that a restart resumes exactly behind
//! what it has. Background flushes write net changes; their first fault stops the node.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use ledger::Head;
use seams::{Compute, Entropy};
use sequencer::{Applied, Committed, Kind, Machine, MachineFault};
use storage::{AppliedEntry, EntryResult, LedgerState, Manifest, SnapshotSink, SnapshotSource, StateFault};
use tokio::sync::watch;
use tokio::time::Instant;
use validator::check::Cores;

use crate::measures::Measures;

/// What is told of every applied entry. Called in order, on the applying thread: it must not block.
pub trait Observer: Send + Sync + 'static {
    /// An entry was applied at this index of the log, which began then.
    fn applied(&self, index: u64, entry: &AppliedEntry, began: Instant);
}

/// The ledger's state behind the sequencer's interface.
pub struct LedgerMachine {
    state: Arc<LedgerState>,
    compute: Arc<dyn Compute>,
    observer: Arc<dyn Observer>,
    membership: Mutex<Bytes>,
    heads: watch::Sender<Head>,
    attestations: watch::Sender<u64>,
    entropy: Arc<dyn Entropy>,
    flush: Arc<BackgroundFlush>,
    measures: Arc<Measures>,
}

#[derive(Debug)]
struct BackgroundFlush {
    /// What has to gather before the next one, in percent of the usual.
    due: AtomicUsize,
    running: AtomicBool,
    fault: Mutex<Option<String>>,
}

/// What has to gather before a flush begins, in percent: drawn anew each time, because all replicas gather the same
/// rows at the same time and would otherwise all write at once, with none left to go on meanwhile.
const FLUSH_DUE: std::ops::Range<usize> = 70..130;
/// What may gather behind a running flush before the order waits for it, in percent.
const GATHERED_MAX: usize = 220;

impl BackgroundFlush {
    fn new(entropy: &dyn Entropy) -> Self {
        Self { due: AtomicUsize::new(draw_due(entropy)), running: AtomicBool::new(false), fault: Mutex::default() }
    }
}

fn draw_due(entropy: &dyn Entropy) -> usize {
    let drawn = usize::try_from(seams::next_u64(entropy) >> 32).expect("32 bits fit");
    FLUSH_DUE.start + drawn % FLUSH_DUE.len()
}

impl fmt::Debug for LedgerMachine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("LedgerMachine").field("state", &self.state).finish_non_exhaustive()
    }
}

impl LedgerMachine {
    /// The machine over a state.
    ///
    /// # Errors
    /// Where the stored position cannot be read.
    pub fn new(
        state: Arc<LedgerState>,
        compute: Arc<dyn Compute>,
        observer: Arc<dyn Observer>,
        entropy: Arc<dyn Entropy>,
        measures: Arc<Measures>,
    ) -> Result<Self, MachineFault> {
        let membership = read_position(state.position())?.map(|applied| applied.membership).unwrap_or_default();
        let heads = watch::Sender::new(state.head());
        let attestations = watch::Sender::new(state.proof_status().attestations);
        let flush = Arc::new(BackgroundFlush::new(&*entropy));
        let membership = Mutex::new(membership);
        Ok(Self { state, compute, observer, membership, heads, attestations, entropy, flush, measures })
    }

    /// The newest head, as it changes.
    #[must_use]
    pub fn heads(&self) -> watch::Receiver<Head> {
        self.heads.subscribe()
    }

    /// How many attestations there are, as they come.
    #[must_use]
    pub fn attestations(&self) -> watch::Receiver<u64> {
        self.attestations.subscribe()
    }

    fn apply_one(&self, committed: Committed) -> Result<Bytes, MachineFault> {
        let Committed { id, kind } = committed;
        let entry = match kind {
            Kind::Blank => None,
            Kind::Membership(membership) => {
                *self.membership.lock().expect("no holder panics") = membership;
                None
            }
            Kind::Entry(bytes) => Some(bytes),
        };
        let membership = self.membership.lock().expect("no holder panics").clone();
        let position = Applied { last: id, membership }.encode();
        let cores = Cores(&*self.compute);
        let began = Instant::now();
        let applied = self.state.apply(&cores, id.index, entry.as_deref(), position).map_err(machine_fault)?;
        self.measure(&applied, began);
        self.observer.applied(id.index, &applied, began);
        if let EntryResult::Attested(Ok(Some(alarm))) = &applied.result {
            tracing::error!(batch = alarm.batch, words = alarm.words, "ALARM: raised by a prover's attestation");
        }
        self.attestations.send_if_modified(|count| {
            let changed = matches!(&applied.result, EntryResult::Attested(Ok(_)));
            *count += u64::from(changed);
            changed
        });
        self.heads.send_if_modified(|head| {
            let changed = *head != applied.head;
            *head = applied.head;
            changed
        });
        Ok(answer(&applied))
    }

    fn measure(&self, applied: &AppliedEntry, began: Instant) {
        match &applied.result {
            EntryResult::Applied { batch, .. } => {
                self.measures.stages.apply.record(began.elapsed());
                self.measures.applied(batch.as_ref().map_or(&[], |batch| batch.records.as_slice()));
            }
            EntryResult::PassedOver(_) => self.measures.applied(&[]),
            EntryResult::Configured { .. } | EntryResult::Attested(_) | EntryResult::Nothing => {}
        }
    }

    fn tend_overlay(&self) -> Result<(), MachineFault> {
        if let Some(fault) = self.flush.fault.lock().expect("no holder panics").clone() {
            return Err(MachineFault::new(fault));
        }
        let gathered = self.state.gathered_percent();
        if gathered >= GATHERED_MAX {
            return self.state.flush().map_err(machine_fault);
        }
        if gathered >= self.flush.due.load(Ordering::Relaxed) && !self.flush.running.swap(true, Ordering::AcqRel) {
            self.flush.due.store(draw_due(&*self.entropy), Ordering::Relaxed);
            let (state, flush) = (Arc::clone(&self.state), Arc::clone(&self.flush));
            self.compute.execute(Box::new(move || {
                // the order, or a snapshot, may have written meanwhile
                let gathered = state.gathered_percent() >= FLUSH_DUE.start;
                if gathered && let Err(fault) = state.flush_at_ease() {
                    *flush.fault.lock().expect("no holder panics") = Some(fault.to_string());
                }
                flush.running.store(false, Ordering::Release);
            }));
        }
        Ok(())
    }
}

/// What a proposer is told: one byte, 1 where something changed.
fn answer(applied: &AppliedEntry) -> Bytes {
    let changed = match &applied.result {
        EntryResult::Applied { batch, .. } => batch.is_some(),
        EntryResult::Configured { changed } => *changed,
        EntryResult::Attested(kept) => kept.is_ok(),
        EntryResult::PassedOver(_) | EntryResult::Nothing => false,
    };
    Bytes::from(vec![u8::from(changed)])
}

fn machine_fault(fault: StateFault) -> MachineFault {
    MachineFault::caused_by(fault.to_string(), fault)
}

fn read_position(position: Option<Bytes>) -> Result<Option<Applied>, MachineFault> {
    let Some(position) = position else { return Ok(None) };
    let applied = Applied::decode(&position);
    applied.map(Some).ok_or_else(|| MachineFault::new("the ledger's position in the log cannot be read"))
}

impl Machine for LedgerMachine {
    fn applied(&self) -> Result<Option<Applied>, MachineFault> {
        read_position(self.state.position())
    }

    fn apply(&self, entries: Vec<Committed>) -> Result<Vec<Bytes>, MachineFault> {
        let answers = entries.into_iter().map(|entry| self.apply_one(entry)).collect::<Result<_, _>>()?;
        self.tend_overlay()?;
        Ok(answers)
    }

    fn durable_index(&self) -> Option<u64> {
        let applied = read_position(self.state.durable_position()).ok().flatten();
        applied.map(|applied| applied.last.index)
    }

    fn snapshot(&self) -> Result<Arc<dyn SnapshotSource>, MachineFault> {
        self.state.snapshot().map_err(machine_fault)
    }

    fn newest_snapshot(&self) -> Result<Option<Arc<dyn SnapshotSource>>, MachineFault> {
        self.state.newest_snapshot().map_err(machine_fault)
    }

    fn begin_restore(&self, manifest: Manifest) -> Result<Box<dyn SnapshotSink>, MachineFault> {
        self.state.begin_restore(manifest).map_err(machine_fault)
    }

    fn finish_restore(&self, sink: Box<dyn SnapshotSink>) -> Result<Applied, MachineFault> {
        let position = self.state.finish_restore(sink).map_err(machine_fault)?;
        let applied = read_position(position)?;
        let applied = applied.ok_or_else(|| MachineFault::new("the snapshot carries no position"))?;
        *self.membership.lock().expect("no holder panics") = applied.membership.clone();
        self.heads.send_replace(self.state.head());
        self.attestations.send_replace(self.state.proof_status().attestations);
        Ok(applied)
    }
}
