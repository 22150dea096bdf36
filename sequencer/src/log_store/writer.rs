//! Writing the log, and reporting what is durable.

use std::io;
use std::sync::Arc;

use flaws::{Flaw, is_planted};
use futures::future::BoxFuture;
use openraft::OptionalSend;
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use storage::{LogBatch, MetaKey, StorageFault};
use tokio::sync::{mpsc, oneshot};

use super::{LogReader, LogStore, Shared, after, stopped};
use crate::config::{Entry, LogId, TypeConfig, Vote};
use crate::encoding::{self, Record};
use crate::fault::FatalSwitch;

/// A write on its way to the disk.
pub(super) struct Pending {
    durable: BoxFuture<'static, Result<(), StorageFault>>,
    /// Every entry before this index is durable when it is.
    entries_end: Option<u64>,
    done: Done,
}

/// Whom to tell.
enum Done {
    Raft(IOFlushed<TypeConfig>),
    Caller(oneshot::Sender<()>),
    Nobody,
}

/// Waits for the writes in their order, and tells. The first fault is the last thing it reports: what is
/// dropped then tells those who wait that the log has stopped.
pub(super) async fn report(shared: Arc<Shared>, mut queue: mpsc::Receiver<Pending>, fatal: FatalSwitch) {
    while let Some(pending) = queue.recv().await {
        if let Err(fault) = pending.durable.await
            && !is_planted(Flaw::SyncErrorSwallowed)
        {
            fatal.raise(|| format!("log: {fault}"));
            if let Done::Raft(flushed) = pending.done {
                flushed.io_completed(Err(io::Error::other(fault)));
            }
            return;
        }
        if let Some(end) = pending.entries_end {
            let mut state = shared.state();
            state.durable_end = state.durable_end.max(end);
            let durable_end = state.durable_end;
            state.cache.shrink(shared.cache_bytes_max, durable_end);
        }
        match pending.done {
            Done::Raft(flushed) => flushed.io_completed(Ok(())),
            // openraft gave up waiting: it is shutting down
            Done::Caller(caller) => drop(caller.send(())),
            Done::Nobody => {}
        }
    }
}

impl LogStore {
    async fn queue(&self, batch: LogBatch, entries_end: Option<u64>, done: Done) -> io::Result<()> {
        let durable = self.shared.engine.append(batch);
        let pending = Pending { durable, entries_end, done };
        self.pending.send(pending).await.map_err(|_closed| stopped())
    }

    /// Queues a batch and waits until it, and everything before it, is durable and reported.
    async fn write_through(&self, batch: LogBatch) -> io::Result<()> {
        let (caller, durable) = oneshot::channel();
        self.queue(batch, None, Done::Caller(caller)).await?;
        durable.await.map_err(|_closed| stopped())
    }

    /// Adds the entries to the cache and gives what has to be written.
    fn accept(&self, entries: impl IntoIterator<Item = Entry>) -> (LogBatch, u64) {
        let mut state = self.shared.state();
        let mut batch = LogBatch::new();
        for entry in entries {
            assert_eq!(entry.log_id.index, state.end(), "openraft appends without a gap");
            let (record, written) = encoding::encode_record(&entry, state.written);
            batch = batch.put(entry.log_id.index, record);
            state.written = written;
            state.last = Some(entry.log_id);
            state.cache.push(Record { written, entry });
        }
        if std::mem::take(&mut state.committed_waits)
            && let Some(committed) = state.committed
        {
            batch = batch.put_meta(MetaKey::Committed, encoding::encode(&committed));
        }
        (batch, state.end())
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let state = self.shared.state();
        Ok(LogState { last_purged_log_id: state.purged, last_log_id: state.last })
    }

    async fn get_log_reader(&mut self) -> LogReader {
        LogReader { shared: Arc::clone(&self.shared) }
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let batch = LogBatch::new().put_meta(MetaKey::Vote, encoding::encode(vote));
        if is_planted(Flaw::VoteBeforeSync) {
            self.queue(batch, None, Done::Nobody).await?;
        } else {
            self.write_through(batch).await?;
        }
        self.shared.state().vote = Some(*vote);
        Ok(())
    }

    /// Only remembered: it reaches the disk with the next entries, behind those it speaks of. Losing it costs
    /// nothing but a later start of applying after a restart.
    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        let mut state = self.shared.state();
        state.committed = committed;
        state.committed_waits = true;
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        let state = self.shared.state();
        Ok(if is_planted(Flaw::StatePastLog) { state.last } else { state.committed })
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let (batch, end) = self.accept(entries);
        self.shared.publish_live_bytes();
        if is_planted(Flaw::AppendBeforeSync) {
            callback.io_completed(Ok(()));
            return self.queue(batch, Some(end), Done::Nobody).await;
        }
        self.queue(batch, Some(end), Done::Raft(callback)).await
    }

    /// Waits for the disk: a snapshot installed next must not become durable before the entries it
    /// contradicts are gone.
    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> io::Result<()> {
        let from = after(last_log_id);
        {
            let mut state = self.shared.state();
            assert!(from >= state.begin(), "what is purged is not truncated");
            state.cache.truncate_from(from);
            state.last = last_log_id.or(state.purged);
            state.cuts += 1;
        }
        let batch = LogBatch::new().truncate_from(from);
        if is_planted(Flaw::TruncationBeforeSync) {
            self.queue(batch, None, Done::Nobody).await?;
        } else {
            self.write_through(batch).await?;
        }
        let mut state = self.shared.state();
        state.durable_end = from;
        state.cuts += 1;
        Ok(())
    }

    async fn purge(&mut self, log_id: LogId) -> io::Result<()> {
        let durable = self.shared.machine.durable_index();
        if durable < Some(log_id.index) && !is_planted(Flaw::PurgeBeforeFlush) {
            let why = format!("the log is not purged through {}: the machine restarts from {durable:?}", log_id.index);
            return Err(io::Error::other(why));
        }
        let written = self.shared.written_through_offloaded(log_id.index).await?;
        {
            let mut state = self.shared.state();
            state.written_purged = written.unwrap_or(state.written);
            state.purged = Some(log_id);
            let begin = after(Some(log_id));
            if state.end() <= begin {
                // by position, not by term: what stood here was never committed
                state.last = Some(log_id);
            }
            state.durable_end = state.durable_end.max(begin);
            state.cache.drop_before(begin);
            state.cuts += 1;
        }
        self.shared.publish_live_bytes();
        let batch = LogBatch::new().purge_through(log_id.index).put_meta(MetaKey::Purged, encoding::encode(&log_id));
        self.queue(batch, None, Done::Nobody).await
    }
}
