//! The ledger's state: recent changes in memory, net changes on disk.
//!
//! Entries of the log flow in through [`LedgerState::apply`]; outcomes, heads and history are read from it. What
//! was applied lives in an overlay that the log can rebuild. Once in a while the overlay's *net* changes go to the
//! [`KvStore`] in one atomic write, together with the commitments and the position in the log that they reflect: an
//! output that lived for milliseconds costs no live row. On disk the state is therefore always that of one position.
//!
//! Invariants: a row on disk, overlaid by the flushed and then by the current overlay, is the state after the last
//! applied entry; `durable` never runs ahead of what was synced; the digest equals the sum over live rows.
//!
//! Deliberately absent: Raft, and any opinion on what is right (that is crate `ledger`).

mod attestations;
mod codec;
mod history;
mod overlay;
mod prune;
mod tables;

use std::sync::{Arc, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use flaws::{Flaw, is_planted};
use ledger::apply::{self, AdmissionFault, AdmittedBundle, BatchContext, BatchEffects, MemberResult};
use ledger::batch::BatchFault;
use ledger::check::LedgerIdentity;
use ledger::commitments::Commitments;
use ledger::entry::{CertifiedBundle, Configuration, ConfigurationChange, LogEntry, LogPayload};
use ledger::history::KeptHistory;
use ledger::identifier::append_canonical_bytes;
use ledger::merkle::TileId;
use ledger::parallel::Parallel;
use ledger::protocol::Protocol;
use ledger::view::ViewFault;
use ledger::{BundleDigest, Head, Limits, LogTime};
use meters::{Distribution, Durations};

use attestations::Proofs;
pub use attestations::{
    ATTESTATION_BYTES_MAX, Alarm, AttestationRefusal, PAGE_MAX as ATTESTATIONS_MAX, ProofStatus, ProverStanding,
};
pub use history::{ConsistencyProof, Holdings, HoldingsCursor};
pub use ledger::batch::{BatchRecord, BatchUpdate};
use overlay::Overlay;

use crate::{KvChanges, KvStore, Manifest, Manner, SnapshotSink, SnapshotSource, StorageFault, Table};

/// How much a flush should write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlushSize {
    /// Changed rows.
    pub rows: usize,
    /// Bytes of batches, which are kept for readers of recent history.
    pub bytes: usize,
}

impl Default for FlushSize {
    /// Enough that short-lived outputs are gone before they are written, and about 100 MiB of memory.
    fn default() -> Self {
        Self { rows: 200_000, bytes: 64 * 1024 * 1024 }
    }
}

/// What may gather behind a write-out that rests now and then, in percent of what the next one should write.
const GATHERED_AT_EASE: usize = 50;

/// Why the state cannot be read or written. The replica stops.
#[derive(Debug, thiserror::Error)]
pub enum StateFault {
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] StorageFault),
    /// A row does not decode: another version wrote it, or it is corrupt.
    #[error(
        "the ledger's row {0} cannot be read. Restore this node from a snapshot, or start the version that wrote it"
    )]
    Row(&'static str),
    /// A log entry does not decode.
    #[error("log entry {index} cannot be read: {source}. All nodes must run a version that knows its format")]
    Entry {
        /// Its position in the log.
        index: u64,
        /// Why.
        source: std::io::Error,
    },
    /// A look-up failed while a batch was applied.
    #[error(transparent)]
    View(#[from] ViewFault),
    /// A proof was asked for between sizes that the log does not have.
    #[error("the log has no such size")]
    OutOfRange,
    /// What was asked for is older than the history that is kept.
    #[error("the history begins with batch {earliest_batch}")]
    Pruned {
        /// The first batch that is kept.
        earliest_batch: u64,
    },
    /// The live outputs on disk are not those that the head commits to.
    #[error(
        "the {rows} live outputs on disk do not add up to the head of batch {batch}, which commits to {expected}. This \
         copy cannot be trusted: keep the node stopped, set its data directory aside, and let it join the cluster again \
         as a new node under a new node id"
    )]
    Inconsistent {
        /// The batch of the head.
        batch: u64,
        /// Live outputs found.
        rows: u64,
        /// Live outputs that should be there.
        expected: u64,
    },
    /// The ledger has moved on to a version that this program does not know.
    #[error(
        "the ledger is in version {in_force} of its protocol, and this program knows versions up to {newest}: start a newer \
         program"
    )]
    NewerProtocol {
        /// The version in force.
        in_force: Protocol,
        /// The newest that is known here.
        newest: Protocol,
    },
    /// A snapshot is of another ledger.
    #[error("the snapshot is of another ledger")]
    OtherLedger,
}

impl From<BatchFault> for StateFault {
    fn from(BatchFault(part): BatchFault) -> Self {
        Self::Row(part)
    }
}

/// What became of one entry of the log.
#[derive(Debug, Clone)]
pub struct AppliedEntry {
    /// The bundle it carried, if any.
    pub bundle: Option<BundleDigest>,
    /// What became of it.
    pub result: EntryResult,
    /// The head afterwards.
    pub head: Head,
}

/// What became of the content of one entry.
#[derive(Debug, Clone)]
pub enum EntryResult {
    /// A bundle was applied. The batch is there unless the bundle held nothing new.
    Applied {
        /// One result per member of the bundle.
        results: Vec<MemberResult>,
        /// The batch that it became.
        batch: Option<Arc<BatchRecord>>,
    },
    /// A bundle was passed over: nothing of it happened.
    PassedOver(AdmissionFault),
    /// The configuration changed, or the change was void.
    Configured {
        /// True where it changed.
        changed: bool,
    },
    /// An attestation was kept, perhaps with an alarm, or not.
    Attested(Result<Option<Alarm>, AttestationRefusal>),
    /// The entry carried nothing.
    Nothing,
}

/// The replicated state of one ledger on one node.
#[derive(Debug)]
pub struct LedgerState {
    kv: Arc<dyn KvStore>,
    identity: LedgerIdentity,
    limits: Limits,
    memory: RwLock<Memory>,
    /// Held while a flush writes, so that there is one at a time: the first batch that is still on disk.
    flushing: Mutex<u64>,
    durable: Mutex<Durable>,
    flush_size: FlushSize,
    protocol_newest: Protocol,
    write_outs: Durations,
}

/// What has gathered in memory, and what writing it out took so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OverlayMeasures {
    /// Changed rows since the last write-out began, roughly.
    pub rows: usize,
    /// Bytes of batches since then.
    pub bytes: usize,
    /// How much that is of what a write-out should take, in percent.
    pub gathered_percent: usize,
    /// How long each write-out took, with making it durable.
    pub write_outs: Distribution,
}

/// What survives a power cut without the log.
#[derive(Debug)]
struct Durable {
    position: Option<Bytes>,
    head: Head,
}

impl Durable {
    fn of(core: &Core) -> Self {
        Self { position: core.position.clone().map(Bytes::from), head: *core.commitments.head() }
    }
}

/// Everything small or recent.
#[derive(Debug)]
struct Memory {
    core: Core,
    /// Changes since the last flush began.
    current: Overlay,
    /// Changes that the last flush wrote, or is writing right now. They stay until the next one begins: what is new is
    /// asked for soonest, and would have to be read from disk.
    flushed: Option<Flushed>,
}

#[derive(Debug)]
struct Flushed {
    changes: Arc<Overlay>,
    /// Whether all of it is in the store.
    stored: bool,
}

/// What is written with every flush besides rows.
#[derive(Debug, Clone, BorshSerialize, BorshDeserialize)]
struct Core {
    commitments: Commitments,
    configuration: Configuration,
    live_outputs: u64,
    history: KeptHistory,
    proofs: Proofs,
    /// The caller's marker of its position in the log, opaque here.
    position: Option<Vec<u8>>,
}

impl Core {
    /// Whether a program that knows the versions up to `newest` can go on from here.
    fn is_known(&self, newest: Protocol) -> Result<(), StateFault> {
        match self.configuration.protocol {
            in_force if in_force > newest => Err(StateFault::NewerProtocol { in_force, newest }),
            _ => Ok(()),
        }
    }

    /// Its bytes: in the first version those that the first programs wrote, later with the version behind them.
    fn append(&self, row: &mut Vec<u8>) {
        append_canonical_bytes(row, self);
        if self.configuration.protocol > Protocol::FIRST {
            row.push(self.configuration.protocol.number());
        }
    }

    fn read(row: &[u8]) -> Option<Self> {
        let mut rest = row;
        let mut core = Self::deserialize(&mut rest).ok()?;
        core.configuration.protocol = match rest {
            [] => Protocol::FIRST,
            [version] => Protocol::new(*version).filter(|version| *version > Protocol::FIRST)?,
            _ => return None,
        };
        Some(core)
    }

    /// What a batch decides beside its outcomes: where the history begins from then on.
    fn advance_history(&mut self, log_time: LogTime, expired_by: LogTime) {
        let head = self.commitments.head();
        let next = (head.batch + 1, head.size, log_time);
        self.history.advance(next, expired_by, self.configuration.keep_history_ms);
    }
}

impl LedgerState {
    /// Opens the state in `kv`, or begins an empty ledger where there is none. Sums all live outputs against the head,
    /// which takes about a second per million.
    ///
    /// # Errors
    /// Where the store fails, holds another ledger, or does not add up to its head.
    pub fn open(kv: Arc<dyn KvStore>, identity: LedgerIdentity, limits: Limits) -> Result<Self, StateFault> {
        let core = tables::read_core(&*kv, &identity)?;
        core.is_known(Protocol::NEWEST)?;
        tables::check_live(&*kv, &core)?;
        let durable = Durable::of(&core);
        let first_stored = prune::first_stored(&*kv)?;
        Ok(Self {
            kv,
            identity,
            limits,
            memory: RwLock::new(Memory { core, current: Overlay::default(), flushed: None }),
            flushing: Mutex::new(first_stored),
            durable: Mutex::new(durable),
            flush_size: FlushSize::default(),
            protocol_newest: Protocol::NEWEST,
            write_outs: Durations::default(),
        })
    }

    /// The same state, of which a flush should write so much.
    #[must_use]
    pub fn with_flush_size(self, flush_size: FlushSize) -> Self {
        Self { flush_size, ..self }
    }

    /// The same state, in a program that knows no newer version than this.
    ///
    /// # Errors
    /// Where a newer one is in force.
    pub fn with_protocol_newest(self, newest: Protocol) -> Result<Self, StateFault> {
        self.read().core.is_known(newest)?;
        Ok(Self { protocol_newest: newest, ..self })
    }

    /// The newest version of the protocol that this program knows; [`Self::configuration`] has the one in force.
    #[must_use]
    pub const fn protocol_newest(&self) -> Protocol {
        self.protocol_newest
    }

    /// The newest head.
    #[must_use]
    pub fn head(&self) -> Head {
        *self.read().core.commitments.head()
    }

    /// The replicated configuration in force.
    #[must_use]
    pub fn configuration(&self) -> Configuration {
        self.read().core.configuration.clone()
    }

    /// Which ledger this is.
    #[must_use]
    pub const fn identity(&self) -> LedgerIdentity {
        self.identity
    }

    /// The limits in force.
    #[must_use]
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Number of live outputs.
    #[must_use]
    pub fn live_outputs(&self) -> u64 {
        self.read().core.live_outputs
    }

    /// The caller's marker of the last applied entry.
    #[must_use]
    pub fn position(&self) -> Option<Bytes> {
        self.read().core.position.clone().map(Bytes::from)
    }

    /// The caller's marker of the last entry whose effects survive a power cut without the log.
    #[must_use]
    pub fn durable_position(&self) -> Option<Bytes> {
        lock(&self.durable).position.clone()
    }

    /// Bytes on disk, snapshots included.
    ///
    /// # Errors
    /// Where the directory cannot be read.
    pub fn bytes_on_disk(&self) -> Result<u64, StateFault> {
        Ok(self.kv.bytes_on_disk()?)
    }

    /// Applies the entry at `index`, `None` for an entry without content, and moves to `position`.
    ///
    /// # Errors
    /// Where the state cannot be read or the entry does not decode; the replica then stops.
    pub fn apply(
        &self,
        threads: &dyn Parallel,
        index: u64,
        entry: Option<&[u8]>,
        position: Bytes,
    ) -> Result<AppliedEntry, StateFault> {
        let Some(bytes) = entry else {
            let head = self.write_position(position);
            return Ok(AppliedEntry { bundle: None, result: EntryResult::Nothing, head });
        };
        let entry =
            LogEntry::decode(bytes, self.protocol_newest).map_err(|source| StateFault::Entry { index, source })?;
        match entry.payload {
            LogPayload::Bundle(certified) => self.apply_bundle(threads, certified, entry.log_time, position),
            LogPayload::Configure(change) => Ok(self.configure(&change, entry.log_time, position)),
            LogPayload::Attest(attestation) => self.attest(attestation, position),
        }
    }

    fn apply_bundle(
        &self,
        threads: &dyn Parallel,
        certified: CertifiedBundle,
        stamped: LogTime,
        position: Bytes,
    ) -> Result<AppliedEntry, StateFault> {
        let memory = self.read();
        let admitted = match AdmittedBundle::admit(&certified, &memory.core.configuration.validators, &self.limits) {
            Ok(admitted) => admitted,
            Err(fault) => {
                drop(memory);
                let bundle = Some(BundleDigest::of(&certified.bundle));
                let head = self.write_position(position);
                return Ok(AppliedEntry { bundle, result: EntryResult::PassedOver(fault), head });
            }
        };
        let head = memory.core.commitments.head();
        let log_time = if is_planted(Flaw::LogTimeRunsBack) { stamped } else { stamped.max(head.log_time) };
        let context = BatchContext {
            next: head.size,
            log_time,
            limits: &self.limits,
            validity_ms_max: memory.core.configuration.validity_ms_max(&self.limits),
            history: &memory.core.history,
        };
        let view = tables::View { kv: &*self.kv, memory: &memory };
        let effects = apply::apply(&view, threads, &context, &admitted)?;
        let digest = admitted.layout().digest();
        drop(memory);
        let (results, batch, head) = self.install(effects, certified.bundle, log_time, position);
        Ok(AppliedEntry { bundle: Some(digest), result: EntryResult::Applied { results, batch }, head })
    }

    fn attest(&self, bytes: Vec<u8>, position: Bytes) -> Result<AppliedEntry, StateFault> {
        let admitted = self.view(|view| attestations::admit(view, &self.identity, &bytes))?;
        let mut memory = self.write();
        memory.core.position = Some(position.to_vec());
        let result = admitted.map(|admitted| {
            memory.core.proofs.take(&admitted);
            memory.current.add_attestation(admitted.rows);
            admitted.raised
        });
        let head = *memory.core.commitments.head();
        Ok(AppliedEntry { bundle: None, result: EntryResult::Attested(result), head })
    }

    fn configure(&self, change: &ConfigurationChange, stamped: LogTime, position: Bytes) -> AppliedEntry {
        let mut memory = self.write();
        memory.core.position = Some(position.to_vec());
        let next = memory.core.configuration.after(change);
        let changed = next.is_some();
        if let Some(next) = next {
            let log_time = stamped.max(memory.core.commitments.head().log_time);
            let epoch = next.validators.epoch;
            memory.core.advance_history(log_time, LogTime::ZERO);
            memory.core.proofs.follow(&next);
            memory.core.configuration = next;
            let tiles = memory.core.commitments.advance(&BatchEffects::default(), log_time, epoch);
            assert!(tiles.is_empty(), "a change of the configuration adds no leaf");
            let head = *memory.core.commitments.head();
            memory.current.add_batch(BatchRecord::of_configuration(head, change.clone()), Vec::new());
        }
        AppliedEntry {
            bundle: None,
            result: EntryResult::Configured { changed },
            head: *memory.core.commitments.head(),
        }
    }

    fn install(
        &self,
        effects: BatchEffects,
        bundle: Vec<u8>,
        log_time: LogTime,
        position: Bytes,
    ) -> (Vec<MemberResult>, Option<Arc<BatchRecord>>, Head) {
        let mut memory = self.write();
        let memory = &mut *memory;
        memory.core.position = Some(position.to_vec());
        if effects.records.is_empty() {
            return (effects.results, None, *memory.core.commitments.head());
        }
        let epoch = memory.core.configuration.validators.epoch;
        memory.core.advance_history(log_time, effects.expired_by);
        let tiles: Vec<(TileId, Vec<u8>)> = memory.core.commitments.advance(&effects, log_time, epoch);
        let head = *memory.core.commitments.head();
        memory.core.live_outputs = live_after(memory.core.live_outputs, &effects);
        memory.current.add_effects(memory.flushed.as_ref().map(|flushed| &*flushed.changes), &effects);
        let (record, results) = BatchRecord::of_bundle(head, bundle, effects);
        let batch = memory.current.add_batch(record, tiles);
        (results, Some(batch), head)
    }

    fn write_position(&self, position: Bytes) -> Head {
        let mut memory = self.write();
        memory.core.position = Some(position.to_vec());
        *memory.core.commitments.head()
    }

    /// How much has gathered since the last flush began, in percent of what a flush should write.
    #[must_use]
    pub fn gathered_percent(&self) -> usize {
        let memory = self.read();
        let (rows, bytes) = (memory.current.rows() * 100, memory.current.bytes() * 100);
        (rows / self.flush_size.rows.max(1)).max(bytes / self.flush_size.bytes.max(1))
    }

    /// The overlay's size, and how long write-outs took.
    #[must_use]
    pub fn overlay(&self) -> OverlayMeasures {
        let gathered_percent = self.gathered_percent();
        let memory = self.read();
        let (rows, bytes) = (memory.current.rows(), memory.current.bytes());
        OverlayMeasures { rows, bytes, gathered_percent, write_outs: self.write_outs.distribution() }
    }

    /// Bytes that each table takes on disk.
    ///
    /// # Errors
    /// Where the store fails.
    pub fn table_bytes(&self) -> Result<Vec<(Table, u64)>, StateFault> {
        Ok(self.kv.table_bytes()?)
    }

    /// Writes the overlay's net changes and the position that they reflect, atomically, and makes them durable.
    /// Applying and reading go on meanwhile.
    ///
    /// # Errors
    /// Where the store fails.
    pub fn flush(&self) -> Result<(), StateFault> {
        self.write_out(false)
    }

    /// The same, where nobody waits for it: it works and rests in turns, as long as what gathers meanwhile allows it.
    ///
    /// # Errors
    /// As [`Self::flush`].
    pub fn flush_at_ease(&self) -> Result<(), StateFault> {
        self.write_out(true)
    }

    fn write_out(&self, in_turns: bool) -> Result<(), StateFault> {
        let mut first_stored = lock(&self.flushing);
        let began = Instant::now();
        // first what may fail and be tried again: what is taken from memory below has to be written
        let history = self.read().core.history.clone();
        let gone = prune::Deletions::find(&*self.kv, &history, *first_stored)?;
        let (overlay, core, before) = {
            let mut memory = self.write();
            let successor = memory.current.successor();
            let overlay = Arc::new(std::mem::replace(&mut memory.current, successor));
            let flushed = Flushed { changes: Arc::clone(&overlay), stored: false };
            let before = memory.flushed.replace(flushed);
            (overlay, memory.core.clone(), before)
        };
        // not under the lock: it is large
        drop(before);
        if is_planted(Flaw::FlushInTwoSteps) {
            self.kv.write(Manner::default(), &|changes| tables::tell(&Overlay::default(), &core, changes))?;
        }
        let tell = |changes: &mut dyn KvChanges| {
            gone.tell(changes);
            tables::tell(&overlay, &core, changes);
        };
        let rest = |worked: Duration| {
            if in_turns && self.gathered_percent() < GATHERED_AT_EASE {
                std::thread::sleep(worked);
            }
        };
        let bytes_about = gone.bytes() + overlay.written_bytes_about();
        self.kv.write(Manner { bytes_about, rest: &rest }, &tell)?;
        self.kv.sync()?;
        *first_stored = gone.first_stored;
        if let Some(flushed) = &mut self.write().flushed {
            flushed.stored = true;
        }
        *lock(&self.durable) = Durable::of(&core);
        self.write_outs.record(began.elapsed());
        Ok(())
    }

    /// Flushes, and makes a durable copy of the state labelled with its position.
    ///
    /// # Errors
    /// Where the store fails.
    pub fn snapshot(&self) -> Result<Arc<dyn SnapshotSource>, StateFault> {
        Ok(self.snapshot_with_head()?.0)
    }

    /// The same, with the head that the copy ends with.
    ///
    /// # Errors
    /// As [`Self::snapshot`].
    pub fn snapshot_with_head(&self) -> Result<(Arc<dyn SnapshotSource>, Head), StateFault> {
        self.flush()?;
        let no_flush = lock(&self.flushing);
        let (label, head) = {
            let durable = lock(&self.durable);
            (durable.position.clone().unwrap_or_default(), durable.head)
        };
        // whoever waits for the next flush holds up the order: the files are read and summed without it
        Ok((self.kv.checkpoint(label, Box::new(move || drop(no_flush)))?, head))
    }

    /// The newest copy there is.
    ///
    /// # Errors
    /// Where the store fails.
    pub fn newest_snapshot(&self) -> Result<Option<Arc<dyn SnapshotSource>>, StateFault> {
        Ok(self.kv.newest_checkpoint()?)
    }

    /// Starts to take in another node's copy, beside the present state.
    ///
    /// # Errors
    /// Where the store fails.
    pub fn begin_restore(&self, manifest: Manifest) -> Result<Box<dyn SnapshotSink>, StateFault> {
        Ok(self.kv.begin_restore(manifest)?)
    }

    /// Replaces the whole state by the copy taken in. Returns its position marker.
    ///
    /// # Errors
    /// Where the copy is not what its manifest says, does not add up to its own head, is of another ledger, or the
    /// store fails.
    pub fn finish_restore(&self, sink: Box<dyn SnapshotSink>) -> Result<Option<Bytes>, StateFault> {
        let mut first_stored = lock(&self.flushing);
        let mut memory = self.write();
        sink.finish()?;
        let core = tables::read_core(&*self.kv, &self.identity)?;
        core.is_known(self.protocol_newest)?;
        // files that are what their manifest says may still be a wrong replica's state
        tables::check_live(&*self.kv, &core)?;
        let position = core.position.clone().map(Bytes::from);
        *first_stored = prune::first_stored(&*self.kv)?;
        *lock(&self.durable) = Durable::of(&core);
        *memory = Memory { core, current: Overlay::default(), flushed: None };
        Ok(position)
    }

    fn read(&self) -> RwLockReadGuard<'_, Memory> {
        self.memory.read().expect("no holder panics")
    }

    fn write(&self) -> RwLockWriteGuard<'_, Memory> {
        self.memory.write().expect("no holder panics")
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no holder panics")
}

fn live_after(before: u64, effects: &BatchEffects) -> u64 {
    let created = effects.created.len();
    let consumed = effects.consumed.iter().filter(|consumed| !consumed.born_in_batch).count();
    let added = before.checked_add(u64::try_from(created).expect("batches are small"));
    added
        .and_then(|sum| sum.checked_sub(u64::try_from(consumed).expect("batches are small")))
        .expect("only live outputs are consumed")
}
