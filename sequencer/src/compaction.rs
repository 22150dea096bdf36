//! The log, bounded in bytes: when it grows too large, the machine makes a snapshot and the log loses its
//! beginning.
//!
//! What stays: `log_bytes_keep` bytes for followers that lag (a follower that lags further gets a snapshot),
//! whatever the machine could not restart without, and what comes behind a snapshot that is on its way to another node.

use std::sync::Arc;
use std::time::Duration;

use flaws::{Flaw, is_planted};
use seams::Compute;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::config::Raft;
use crate::log_store;
use crate::machine::Machine;
use crate::options::Options;
use crate::status::Status;
use crate::transfers::Transfers;

/// Between two attempts: long against a snapshot's cost, short against the time in which a log grows.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a snapshot may take until it is asked for again; asking again while one is made does nothing.
const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(60);

/// What compaction works with.
pub(crate) struct Compaction {
    pub(crate) raft: Raft,
    pub(crate) log: Arc<log_store::Shared>,
    pub(crate) machine: Arc<dyn Machine>,
    pub(crate) compute: Arc<dyn Compute>,
    pub(crate) status: watch::Receiver<Status>,
    pub(crate) transfers: Transfers,
    pub(crate) options: Arc<Options>,
}

impl Compaction {
    /// Runs until the node stops.
    pub(crate) async fn run(mut self) {
        let mut live_bytes = self.log.watch_live_bytes();
        let bytes_max = self.options.log_bytes_max;
        while live_bytes.wait_for(|bytes| *bytes > bytes_max).await.is_ok() {
            let excess = live_bytes.borrow_and_update().saturating_sub(bytes_max);
            if self.compact(excess).await.is_none() {
                return;
            }
            sleep(PAUSE).await;
        }
    }

    /// One attempt, with a log that is so many bytes beyond its bound; `None` when the node has stopped.
    async fn compact(&mut self, excess: u64) -> Option<()> {
        let (log, keep) = (Arc::clone(&self.log), self.options.log_bytes_keep);
        let position = seams::offload(&*self.compute, move || log.purge_position(keep)).await;
        let Ok(Some(position)) = position else { return Some(()) };
        let position = {
            let status = self.status.borrow();
            let held = self.transfers.held(position, &status.replicated, excess);
            if Some(held) <= status.purged {
                return Some(());
            }
            held
        };
        let durable = || self.machine.durable_index().max(is_planted(Flaw::PurgeBeforeFlush).then_some(position));
        if self.status.borrow().snapshot < Some(position) || durable() < Some(position) {
            // however long it takes: an attempt that began anew would want a newer snapshot than the one that is being made
            loop {
                self.raft.trigger().snapshot().await.ok()?;
                let made = self.status.wait_for(|status| status.snapshot >= Some(position));
                match timeout(SNAPSHOT_PATIENCE, made).await {
                    Ok(Ok(_)) => break,
                    Ok(Err(_closed)) => return None,
                    Err(_elapsed) => tracing::warn!("a snapshot takes long, and the log grows meanwhile"),
                }
            }
        }
        let Some(through) = durable().map(|durable| durable.min(position)) else {
            return Some(());
        };
        tracing::info!(through, "the log loses its beginning");
        self.raft.trigger().purge_log(through).await.ok()
    }
}
