//! Updates: every batch's changes, to as many watchers as there are.
//!
//! A watcher reads at its own pace from the state, so that a slow one costs no memory; the newest batches are decoded
//! once for all watchers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use ledger::{OutputId, Party};
use proto::convert::{Consumed, Proposal, Update};
use proto::{Problem, ProblemKind};
use seams::offload;
use storage::state::{BatchRecord, BatchUpdate};
use tokio::sync::{OnceCell, mpsc};

use super::readers::{send, until_left};
use super::{Api, faults};

/// Batches that are kept decoded: a second or two under load.
const RECENT_BATCHES: usize = 128;
/// Updates that wait for one watcher: each may be as large as a bundle, and thousands may watch.
const UPDATES_WAITING_MAX: usize = 1;

/// What a watcher wants to see.
#[derive(Debug, Clone, Default)]
pub struct Watch {
    /// First batch, from 1; 0 for the next one.
    pub from_batch: u64,
    /// Whose outputs and proposals; empty for everything.
    pub parties: BTreeSet<Party>,
    /// Also the outcome records.
    pub with_records: bool,
    /// Also how far the ledger is, where batches are left out.
    pub with_progress: bool,
}

/// A batch as it is shown.
#[derive(Debug)]
struct Shown {
    update: BatchUpdate,
    record: Arc<BatchRecord>,
}

type Cell = Arc<OnceCell<Arc<Shown>>>;

/// The newest batches that anyone watched.
#[derive(Debug, Default)]
pub(super) struct RecentUpdates {
    batches: Mutex<BTreeMap<u64, Cell>>,
}

impl RecentUpdates {
    fn cell(&self, number: u64) -> Cell {
        let mut batches = self.batches.lock().unwrap_or_else(PoisonError::into_inner);
        let cell = Arc::clone(batches.entry(number).or_default());
        while batches.len() > RECENT_BATCHES {
            batches.pop_first();
        }
        cell
    }
}

impl Api {
    /// The updates that `watch` wants, in order, until something fails or the receiver is dropped.
    #[must_use]
    pub fn watch(&self, watch: Watch) -> mpsc::Receiver<Result<Update, Problem>> {
        let (sender, updates) = mpsc::channel(UPDATES_WAITING_MAX);
        let api = self.clone();
        self.spawn(until_left(sender, move |sender| async move { api.send_updates(&watch, &sender).await }));
        updates
    }

    async fn send_updates(
        &self,
        watch: &Watch,
        updates: &mpsc::Sender<Result<Update, Problem>>,
    ) -> Result<(), Problem> {
        let mut heads = self.replica()?.watch_heads();
        let mut newest = *heads.borrow_and_update();
        let mut next = if watch.from_batch == 0 { newest.batch + 1 } else { watch.from_batch };
        loop {
            let mut left_out = false;
            while next <= newest.batch {
                let shown = self.shown(next).await?;
                let update = show(watch, &shown);
                left_out = update.is_none();
                if let Some(update) = update {
                    send(updates, update).await?;
                }
                next += 1;
            }
            if left_out && watch.with_progress {
                send(updates, progress(&*self.shown(newest.batch).await?)).await?;
            }
            let stopped = |_| Problem::new(ProblemKind::ShuttingDown, "this node is stopping");
            heads.changed().await.map_err(stopped)?;
            newest = *heads.borrow_and_update();
        }
    }

    async fn shown(&self, number: u64) -> Result<Arc<Shown>, Problem> {
        let cell = self.0.recent.cell(number);
        cell.get_or_try_init(|| self.decode(number)).await.cloned()
    }

    async fn decode(&self, number: u64) -> Result<Arc<Shown>, Problem> {
        let replica = self.replica()?;
        let state = Arc::clone(replica.state());
        let found = offload(replica.compute(), move || {
            let Some(update) = state.update(number)? else { return Ok(None) };
            Ok(state.batch(number)?.map(|record| (update, record)))
        });
        let (mut update, record) =
            found.await.map_err(faults::state)?.ok_or_else(|| Problem::position_unavailable(number + 1))?;
        let consumed: BTreeSet<OutputId> = update.consumed.iter().map(|(output, _)| output.id).collect();
        update.created.retain(|output| !consumed.contains(&output.id));
        Ok(Arc::new(Shown { update, record }))
    }
}

fn progress(shown: &Shown) -> Update {
    Update {
        head: shown.update.head,
        created: Vec::new(),
        consumed: Vec::new(),
        records: Vec::new(),
        proposals: Vec::new(),
    }
}

/// What the watcher sees of a batch; `None` where nothing in it concerns it.
fn show(watch: &Watch, shown: &Shown) -> Option<Update> {
    let Shown { update, record } = shown;
    let everything = watch.parties.is_empty();
    let watched = |party: &Party| everything || watch.parties.contains(party);
    let revealed = |id: &OutputId| update.revealed.get(id).is_some_and(|parties| parties.iter().any(watched));
    let created = update.created.iter().filter(|output| watched(&output.contract.holder())).copied().collect();
    let consumed = update.consumed.iter();
    let consumed = consumed.filter(|(output, _)| watched(&output.contract.holder()) || revealed(&output.id));
    let proposals = update
        .proposals
        .iter()
        .filter(|(entry, _)| entry.terms.legs.iter().any(|leg| watched(&leg.payer) || watched(&leg.receiver)));
    let proposal = |(entry, allocations): &(ledger::TermsEntry, Vec<ledger::view::LiveOutput>)| Proposal {
        terms: entry.terms.clone(),
        allocations: allocations.clone(),
    };
    let shown = Update {
        created,
        consumed: consumed.map(|(output, spender)| Consumed { output: *output, spender: *spender }).collect(),
        proposals: proposals.map(proposal).collect(),
        records: if watch.with_records { record.records.clone() } else { Vec::new() },
        head: update.head,
    };
    let concerns = everything || !(shown.created.is_empty() && shown.consumed.is_empty() && shown.proposals.is_empty());
    concerns.then_some(shown)
}
