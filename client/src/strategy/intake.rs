//! Where requests come in: the handle of the strategies that are a task.

use std::collections::BTreeMap;
use std::sync::Arc;

use ledger::AssetType;
use tokio::sync::{Semaphore, mpsc};

use super::attempt::Desk;
use super::engine::SharedFunds;
use super::funds::Stock;
use super::metrics::Metrics;
use super::request::{Item, Request, Settlement};
use super::{Strategy, StrategyOptions};

/// Hands requests to a strategy's task, and shows what it shares.
#[derive(Debug)]
pub(super) struct Intake {
    desk: Arc<Desk>,
    funds: SharedFunds,
    // bounded by the window, of which every request holds a place until it is told
    requests: mpsc::UnboundedSender<Item>,
    window: Arc<Semaphore>,
}

impl Intake {
    /// The handle, and what the task receives.
    pub(super) fn open(
        desk: Arc<Desk>,
        funds: SharedFunds,
        options: &StrategyOptions,
    ) -> (Self, mpsc::UnboundedReceiver<Item>) {
        let (requests, arrivals) = mpsc::unbounded_channel();
        (Self { desk, funds, requests, window: options.window() }, arrivals)
    }
}

impl Strategy for Intake {
    fn settle(&self, request: Request) -> Settlement {
        let (item, settlement) = Item::new(request, &self.desk.party(), &self.window);
        self.desk.counters.request(item.is_some());
        if let Some(item) = item {
            // where the task is gone, dropping the item tells
            let _sent = self.requests.send(item);
        }
        settlement
    }

    fn stocks(&self) -> BTreeMap<AssetType, Stock> {
        self.funds.stocks()
    }

    fn metrics(&self) -> Metrics {
        self.desk.counters.read()
    }
}
