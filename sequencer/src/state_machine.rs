//! openraft's state machine: hands committed entries to the [`Machine`], and its snapshots out and in.
//!
//! Invariants: entries reach the machine in order, in bounded portions, off the runtime; a snapshot that is
//! handed out reaches at least as far as what was purged from the log; a snapshot older than the machine's
//! state is never installed; what was installed says of itself which position it has, and that position is
//! the one that was announced.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use flaws::{Flaw, is_planted};
use futures::{Stream, StreamExt};
use meters::Durations;
use openraft::storage::{ApplyResponder, EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, type_config::alias};
use seams::Compute;
use storage::{SnapshotSink, SnapshotSource};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::config::{Entry, LogId, Payload, Response, SnapshotMeta, StoredMembership, TypeConfig};
use crate::encoding;
use crate::fault::{FatalSwitch, MachineFault};
use crate::log_store;
use crate::machine::{Applied, Committed, EntryId, Kind, Machine};
use crate::options::Options;

pub(crate) type Snapshot = alias::SnapshotOf<TypeConfig, SnapshotData>;

/// The content of a snapshot: one of ours, or one that was taken in.
pub(crate) enum SnapshotData {
    Stored(Arc<dyn SnapshotSource>),
    Received(Box<dyn SnapshotSink>),
}

/// The shell around the machine. Clones share it: openraft's worker, its snapshot builders, and those who
/// wait for entries to be applied.
#[derive(Clone)]
pub(crate) struct StateMachine(Arc<Shell>);

struct Shell {
    machine: Arc<dyn Machine>,
    compute: Arc<dyn Compute>,
    log: Arc<log_store::Shared>,
    fatal: FatalSwitch,
    apply_bytes_max: usize,
    apply_entries_max: usize,
    piece_bytes: usize,
    newest: Mutex<Option<Arc<dyn SnapshotSource>>>,
    /// Held while a snapshot is made or installed: never both at once.
    whole_state: tokio::sync::Mutex<()>,
    applied: watch::Sender<Option<u64>>,
    snapshots: Durations,
}

impl StateMachine {
    pub(crate) fn new(
        options: &Options,
        machine: Arc<dyn Machine>,
        compute: Arc<dyn Compute>,
        log: Arc<log_store::Shared>,
        fatal: FatalSwitch,
    ) -> Self {
        StateMachine(Arc::new(Shell {
            machine,
            compute,
            log,
            fatal,
            apply_bytes_max: options.apply_bytes_max,
            apply_entries_max: options.apply_entries_max,
            piece_bytes: options.snapshot_piece_bytes,
            newest: Mutex::new(None),
            whole_state: tokio::sync::Mutex::new(()),
            applied: watch::Sender::new(None),
            snapshots: Durations::default(),
        }))
    }

    /// Finds the newest snapshot from before a restart.
    pub(crate) async fn open(&self) -> Result<(), MachineFault> {
        let newest = self.machine(|machine| machine.newest_snapshot()).await?;
        let applied = self.machine(|machine| machine.applied()).await?;
        self.0.applied.send_replace(applied.map(|applied| applied.last.index));
        *self.0.newest.lock().unwrap_or_else(PoisonError::into_inner) = newest;
        Ok(())
    }

    /// Index of the last entry applied, as it grows.
    pub(crate) fn watch_applied(&self) -> watch::Receiver<Option<u64>> {
        self.0.applied.subscribe()
    }

    /// How long each snapshot took to be made.
    pub(crate) fn snapshot_times(&self) -> &Durations {
        &self.0.snapshots
    }

    /// Calls the machine off the runtime.
    pub(crate) async fn machine<T: Send + 'static>(
        &self,
        call: impl FnOnce(&dyn Machine) -> Result<T, MachineFault> + Send + 'static,
    ) -> Result<T, MachineFault> {
        let machine = Arc::clone(&self.0.machine);
        seams::offload(&*self.0.compute, move || call(&*machine)).await
    }

    pub(crate) fn compute(&self) -> &dyn Compute {
        &*self.0.compute
    }

    /// The same, where a fault stops the node.
    pub(crate) async fn must<T: Send + 'static>(
        &self,
        call: impl FnOnce(&dyn Machine) -> Result<T, MachineFault> + Send + 'static,
    ) -> io::Result<T> {
        self.machine(call).await.map_err(|fault| self.fatal(&fault.to_string()))
    }

    /// Calls something off the runtime while no snapshot is made or taken in. Once begun it goes to its end, whether or
    /// not the caller still waits.
    ///
    /// # Errors
    /// Where the node's tasks were ended meanwhile.
    pub(crate) async fn undisturbed<T: Send + 'static>(
        &self,
        call: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, String> {
        let shell = self.clone();
        let called = seams::tasks::spawn(async move {
            let _whole_state = shell.0.whole_state.lock().await;
            seams::offload(&*shell.0.compute, call).await
        });
        called.await.map_err(|ended| ended.to_string())
    }

    /// Stops the node.
    pub(crate) fn fatal(&self, why: &str) -> io::Error {
        self.0.fatal.raise(|| format!("machine: {why}"));
        io::Error::other(why.to_owned())
    }

    fn newest(&self) -> Option<Arc<dyn SnapshotSource>> {
        self.0.newest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn apply_portion(&self, portion: Portion) -> io::Result<()> {
        let Some(last) = portion.entries.last().map(|entry| entry.id.index) else { return Ok(()) };
        let entries = portion.entries;
        let count = entries.len();
        let answers = self.must(move |machine| machine.apply(entries)).await?;
        if answers.len() != count {
            return Err(self.fatal(&format!("{} answers to {count} entries", answers.len())));
        }
        self.0.applied.send_replace(Some(last));
        for (answer, responder) in answers.into_iter().zip(portion.responders) {
            if let Some(responder) = responder {
                responder.send(Response(answer));
            }
        }
        Ok(())
    }

    /// Makes a snapshot of the present state; it becomes the newest unless a newer one exists by then.
    async fn make_snapshot(&self) -> io::Result<Arc<dyn SnapshotSource>> {
        let _whole_state = self.0.whole_state.lock().await;
        let machine = Arc::clone(&self.0.machine);
        let began = Instant::now();
        let made = seams::offload(&*self.0.compute, move || machine.snapshot()).await;
        let made = made.map_err(|fault| self.fatal(&fault.to_string()))?;
        self.0.snapshots.record(began.elapsed());
        let position = self.position(&*made)?.last.index;
        let newest = self.newest();
        let newer = match &newest {
            Some(newest) => self.position(&**newest)?.last.index < position,
            None => true,
        };
        if newer {
            *self.0.newest.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&made));
        }
        Ok(made)
    }

    fn position(&self, source: &dyn SnapshotSource) -> io::Result<Applied> {
        Applied::decode(source.manifest().label()).ok_or_else(|| self.fatal("a snapshot without its position"))
    }

    fn describe(&self, source: Arc<dyn SnapshotSource>) -> io::Result<Snapshot> {
        let applied = self.position(&*source)?;
        let meta = meta(&applied).ok_or_else(|| self.fatal("a snapshot with an unreadable membership"))?;
        Ok(Snapshot { meta, snapshot: SnapshotData::Stored(source) })
    }

    /// Takes in one of our own snapshots: after a restart that lost what the store had not synced.
    async fn copy(&self, source: Arc<dyn SnapshotSource>) -> io::Result<Box<dyn SnapshotSink>> {
        let piece_bytes = self.0.piece_bytes;
        self.must(move |machine| {
            let mut sink = machine.begin_restore(source.manifest().clone())?;
            for file in source.manifest().files() {
                let mut offset = 0;
                loop {
                    let bytes = source.read(file.name(), offset, piece_bytes)?;
                    sink.write(file.name(), offset, &bytes)?;
                    offset += u64::try_from(bytes.len()).expect("a piece is shorter than 2^64 bytes");
                    if offset >= file.length() || bytes.is_empty() {
                        break;
                    }
                }
            }
            Ok(sink)
        })
        .await
    }
}

/// What openraft calls a snapshot's metadata, from what the machine says of the state. `None` where the
/// membership cannot be read.
pub(crate) fn meta(applied: &Applied) -> Option<SnapshotMeta> {
    Some(SnapshotMeta { last_log_id: Some(applied.last.into()), last_membership: membership(applied)? })
}

fn membership(applied: &Applied) -> Option<StoredMembership> {
    if applied.membership.is_empty() {
        return Some(StoredMembership::default());
    }
    encoding::decode(&applied.membership).ok()
}

/// Entries that the machine is given at once.
#[derive(Default)]
struct Portion {
    entries: Vec<Committed>,
    responders: Vec<Option<ApplyResponder<TypeConfig>>>,
    bytes: usize,
}

impl Portion {
    fn push(&mut self, entry: Entry, responder: Option<ApplyResponder<TypeConfig>>) {
        self.bytes = self.bytes.saturating_add(encoding::entry_bytes(&entry));
        self.entries.push(committed(entry));
        self.responders.push(responder);
    }
}

fn committed(entry: Entry) -> Committed {
    let id = EntryId::from(entry.log_id);
    let kind = match entry.payload {
        EntryPayload::Blank => Kind::Blank,
        EntryPayload::Normal(Payload(bytes)) => Kind::Entry(bytes),
        EntryPayload::Membership(membership) => {
            Kind::Membership(encoding::encode(&StoredMembership::new(Some(entry.log_id), membership)))
        }
    };
    Committed { id, kind }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let Some(applied) = self.must(|machine| machine.applied()).await? else {
            return Ok((None, StoredMembership::default()));
        };
        let membership = membership(&applied).ok_or_else(|| self.fatal("an unreadable membership"))?;
        Ok((Some(applied.last.into()), membership))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        let mut portion = Portion::default();
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            portion.push(entry, responder);
            if portion.bytes >= self.0.apply_bytes_max || portion.entries.len() >= self.0.apply_entries_max {
                self.apply_portion(std::mem::take(&mut portion)).await?;
            }
        }
        self.apply_portion(portion).await
    }

    /// There is no snapshot of nothing: where no entry was applied yet, none is made.
    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<Self> {
        let nothing = self.0.applied.borrow().is_none();
        (force || !nothing).then(|| self.clone())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotData) -> io::Result<()> {
        let _whole_state = self.0.whole_state.lock().await;
        let present = self.must(|machine| machine.applied()).await?.map(|applied| applied.last.index);
        if present >= meta.last_log_id.map(|id| id.index) && !is_planted(Flaw::OldSnapshotInstalled) {
            tracing::info!(?present, %meta, "the machine is as new as the snapshot: not installed");
            return Ok(());
        }
        let sink = match snapshot {
            SnapshotData::Received(sink) => sink,
            SnapshotData::Stored(source) => self.copy(source).await?,
        };
        let restored = self.must(move |machine| machine.finish_restore(sink)).await?;
        if self::meta(&restored).as_ref() != Some(meta) {
            return Err(self.fatal(&format!("restored the state at {}, but was promised {meta}", restored.last)));
        }
        self.0.applied.send_replace(Some(restored.last.index));
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        let purged = self.0.log.purged().map(|id| id.index);
        let usable = match self.newest() {
            Some(newest) => Some(self.position(&*newest)?.last.index) >= purged,
            None => purged.is_none(),
        };
        if !usable {
            // after a restore: what it replaced is too old for whoever needs a snapshot now
            self.make_snapshot().await?;
        }
        self.newest().map(|newest| self.describe(newest)).transpose()
    }
}

impl RaftSnapshotBuilder<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        if is_planted(Flaw::PurgeBeforeFlush)
            && let Some(older) = self.newest()
            && let Some(applied) = self.must(|machine| machine.applied()).await?
            && let Some(meta) = meta(&applied)
        {
            return Ok(Snapshot { meta, snapshot: SnapshotData::Stored(older) });
        }
        let made = self.make_snapshot().await?;
        self.describe(made)
    }
}

impl std::fmt::Debug for SnapshotData {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            SnapshotData::Stored(source) => write!(formatter, "Stored({} bytes)", source.manifest().total_bytes()),
            SnapshotData::Received(_) => formatter.write_str("Received"),
        }
    }
}
