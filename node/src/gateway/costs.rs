//! Keeping submissions back as long as a cost model says, by waiting: benchmarks so reproduce what a model predicts. Off
//! unless the configuration names a model.

use std::sync::{Mutex, PoisonError};

use client::strategy::{Cost, CostModel, WorkClock};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::Pending;

/// One gateway's work clock.
#[derive(Debug)]
pub(super) struct Costs {
    clock: Mutex<WorkClock>,
    begun: Instant,
}

impl Costs {
    pub(super) fn new(model: CostModel) -> Self {
        tracing::warn!(?model, "submissions are kept back as a cost model says: for benchmarks only");
        Self { clock: Mutex::new(WorkClock::new(model)), begun: Instant::now() }
    }

    /// Passes the submission on when its outcome would be due. Where the gateway is gone by then, whoever waits is told
    /// by the dropped reply.
    pub(super) fn keep_back(&self, pending: Pending, lane: mpsc::UnboundedSender<Pending>) {
        let now = self.begun.elapsed();
        let due = {
            let mut clock = self.clock.lock().unwrap_or_else(PoisonError::into_inner);
            pending.members.iter().map(|member| clock.take_in(now, Cost::of(member))).max()
        };
        let due = self.begun + due.unwrap_or(now);
        drop(seams::tasks::spawn(async move {
            sleep_until(due).await;
            let _passed_on = lane.send(pending);
        }));
    }
}
