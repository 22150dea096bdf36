//! Bursts of requests on one position: planned, split, settled in parallel.
//!
//! A burst is what comes within a moment. Its requests are laid on the leaves of the plan's tree, each node holds exactly
//! what its leaves need, and every split is sent as soon as the one above has committed. What remains at the end is
//! merged by the next burst's first transaction.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use ledger::view::LiveOutput;
use ledger::{AssetType, Limits, Quantity};
use proto::Problem;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};

use super::StrategyOptions;
use super::attempt::{Desk, Draft, EXPIRED_MAX, Ending, may_succeed_later};
use super::engine::{SharedFunds, read_ledger};
use super::funds::{Funds, less, quantity_of, sum};
use super::intake::Intake;
use super::model::CostModel;
use super::plan::{PlanBounds, SplitPlan, share};
use super::request::{Item, Unsettled};
use crate::wallet::Shortage;

/// Requests of one burst at most.
const BURST_MAX: usize = 10_000;
/// Positions that one split makes at most: a transaction of some 100 KiB.
const FAN_OUT_MAX: usize = 1_000;
/// Requests that one transaction carries at most.
const BATCH_MAX: usize = 200;

/// How bursts are planned.
#[derive(Debug, Clone)]
pub(super) struct Planner {
    /// The plan; without one the fastest by the model.
    pub(super) plan: Option<SplitPlan>,
    pub(super) model: CostModel,
    pub(super) gather: Duration,
}

/// Gathers requests into bursts.
pub(super) async fn open(desk: Arc<Desk>, planner: Planner, options: &StrategyOptions) -> Result<Intake, Problem> {
    let limits = desk.client.cluster().await?.limits;
    let funds = SharedFunds::default();
    let (intake, arrivals) = Intake::open(Arc::clone(&desk), funds.clone(), options);
    let bursts = Bursts { desk, planner, limits, funds, retries_max: options.retries_max };
    drop(seams::tasks::spawn(bursts.run(arrivals)));
    Ok(intake)
}

struct Bursts {
    desk: Arc<Desk>,
    planner: Planner,
    limits: Limits,
    funds: SharedFunds,
    retries_max: u32,
}

/// What a part of the tree leaves behind.
#[derive(Default)]
struct Left {
    positions: Vec<LiveOutput>,
    /// Requests that have to be tried again.
    items: Vec<Item>,
}

impl Left {
    fn and(mut self, other: Self) -> Self {
        self.positions.extend(other.positions);
        self.items.extend(other.items);
        self
    }
}

impl Bursts {
    async fn run(self, mut arrivals: mpsc::UnboundedReceiver<Item>) {
        let mut burst: Vec<Item> = Vec::new();
        loop {
            if burst.is_empty() && arrivals.recv_many(&mut burst, BURST_MAX).await == 0 {
                return;
            }
            let until = Instant::now() + self.planner.gather;
            while burst.len() < BURST_MAX {
                // what was received is in the burst, however the wait ends
                match timeout_at(until, arrivals.recv_many(&mut burst, BURST_MAX)).await {
                    Ok(0) | Err(_) => break,
                    Ok(_) => {}
                }
            }
            let mut by_asset: BTreeMap<AssetType, Vec<Item>> = BTreeMap::new();
            for item in burst.drain(..) {
                match item.needs.as_slice() {
                    [(asset, _)] => by_asset.entry(*asset).or_default().push(item),
                    _ => self.fail(item, Unsettled::Unsupported("split for requests of several assets or of none")),
                }
            }
            for (asset, items) in by_asset {
                burst.extend(self.settle_burst(asset, items).await);
            }
            if let Some(most) = burst.iter().map(|item| item.retries).max().filter(|most| *most > 0) {
                sleep(self.desk.client.jittered_pause(most)).await;
            }
        }
    }

    fn fail(&self, item: Item, fault: Unsettled) {
        self.desk.counters.add().failed += 1;
        item.tell(Err(fault));
    }

    /// Settles what the party's positions pay for, and returns what the next burst takes up: what has to be tried again, and
    /// what waits for the positions that this burst uses.
    async fn settle_burst(&self, asset: AssetType, items: Vec<Item>) -> Vec<Item> {
        let live = match read_ledger(&self.desk.client, self.desk.party()).await {
            Ok(live) => live,
            Err(problem) => {
                items.into_iter().for_each(|item| self.fail(item, Unsettled::Refused(problem.clone())));
                return Vec::new();
            }
        };
        {
            let mut funds = self.funds.lock();
            let free = funds.begin_reading();
            funds.end_reading(&free, &live);
        }
        for some in self.desk.expired_of(&live).chunks(EXPIRED_MAX) {
            self.keep_in_order(Draft { expired: some.to_vec(), ..Draft::default() }).await;
        }
        let needed = items.iter().map(Item::size).fold(Quantity::ZERO, sum);
        let claim = self.gather(&asset, needed).await;
        let available = claim.iter().map(quantity_of).fold(Quantity::ZERO, sum);
        let mut left = available;
        let (mut paid, mut later) = (Vec::new(), Vec::new());
        for item in items {
            let wanted = item.size();
            if wanted <= left {
                left = less(left, wanted);
                paid.push(item);
            } else if wanted <= available {
                // those before it may fail and leave it what it needs
                later.push(item);
            } else {
                let all = self.funds.lock().stock(&asset).total();
                let shortage = if wanted <= all {
                    Shortage::Fragmented { wanted, inputs_max: self.limits.inputs_max }
                } else {
                    Shortage::Insufficient { wanted, free: all, claimed: Quantity::ZERO }
                };
                self.fail(item, Unsettled::Shortage(shortage));
            }
        }
        if paid.is_empty() {
            self.funds.lock().release(&claim);
            return Vec::new();
        }
        let count = paid.len();
        let bounds =
            PlanBounds { fan_out_max: FAN_OUT_MAX, batch_max: self.planner.model.settlements_max.min(BATCH_MAX) };
        let plan = self.planner.plan.clone();
        let plan = plan.unwrap_or_else(|| SplitPlan::fastest(count, &self.planner.model, &bounds));
        tracing::debug!(?plan, count, "a burst begins");
        let widths: Arc<[usize]> = plan.widths(count).into();
        let tree =
            Tree { desk: Arc::clone(&self.desk), widths, batch: plan.batch.max(1), retries_max: self.retries_max };
        let left = Arc::new(tree).node(0, 0, claim.clone(), paid).await;
        let mut funds = self.funds.lock();
        funds.spend(&claim);
        left.positions.iter().for_each(|position| funds.insert(position));
        later.extend(left.items);
        later
    }

    /// Claims the largest positions, as many as leave room for requests. Where those cover too little, and there are more, they
    /// are merged first.
    async fn gather(&self, asset: &AssetType, needed: Quantity) -> Vec<LiveOutput> {
        let mut may_merge = true;
        loop {
            let merged = {
                let mut funds = self.funds.lock();
                let largest = |funds: &Funds, count| funds.free(asset).rev().take(count).copied().collect::<Vec<_>>();
                let claim = largest(&funds, self.limits.inputs_max / 2);
                let covers = claim.iter().map(quantity_of).fold(Quantity::ZERO, sum) >= needed;
                let all = claim.len() == funds.stock(asset).free_positions;
                if covers || all || !may_merge {
                    funds.claim(&claim);
                    return claim;
                }
                let merged = largest(&funds, self.limits.inputs_max);
                funds.claim(&merged);
                merged
            };
            may_merge = self.keep_in_order(Draft { claim: merged, ..Draft::default() }).await;
        }
    }

    /// A transaction without requests. False where it did not happen, or nobody knows.
    async fn keep_in_order(&self, draft: Draft) -> bool {
        let (draft, ending) = Arc::clone(&self.desk).carry_out(draft).await;
        let mut funds = self.funds.lock();
        match ending {
            Ending::Committed { own, .. } => {
                funds.spend(&draft.claim);
                own.iter().for_each(|output| funds.insert(output));
                let mut metrics = self.desk.counters.add();
                metrics.committed += 1;
                metrics.upkeep += 1;
                true
            }
            // what is still there shows in the next reading
            Ending::LostRace(..) | Ending::Unknown(..) => {
                funds.spend(&draft.claim);
                false
            }
            Ending::ItemFailed(..) | Ending::Fell(_) => {
                funds.release(&draft.claim);
                false
            }
        }
    }
}

struct Tree {
    desk: Arc<Desk>,
    /// Nodes by level.
    widths: Arc<[usize]>,
    batch: usize,
    retries_max: u32,
}

impl Tree {
    /// Settles `items` on what `claim` holds: node `index` of `level`, and everything below.
    fn node(
        self: Arc<Self>,
        level: usize,
        index: usize,
        claim: Vec<LiveOutput>,
        items: Vec<Item>,
    ) -> BoxFuture<'static, Left> {
        async move {
            let parents = self.widths.get(level).copied().unwrap_or(1);
            match self.widths.get(level + 1) {
                Some(below) => {
                    let first: usize = (0..index).map(|before| share(*below, parents, before)).sum();
                    let children = share(*below, parents, index);
                    self.split(level, first, children, claim, items).await
                }
                None => self.leaf(claim, items).await,
            }
        }
        .boxed()
    }

    async fn split(
        self: Arc<Self>,
        level: usize,
        first_child: usize,
        children: usize,
        claim: Vec<LiveOutput>,
        items: Vec<Item>,
    ) -> Left {
        let count = items.len();
        let mut items = items.into_iter();
        let parts: Vec<Vec<Item>> =
            (0..children).map(|child| items.by_ref().take(share(count, children, child)).collect()).collect();
        let parts: Vec<Vec<Item>> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        let asset = claim.first().map(|output| output.contract.asset());
        let needs = |part: &Vec<Item>| part.iter().map(Item::size).fold(Quantity::ZERO, sum);
        let pieces: Vec<(AssetType, Quantity)> =
            asset.into_iter().flat_map(|asset| parts.iter().map(move |part| (asset, needs(part)))).collect();
        let made = pieces.len();
        let draft = Draft { claim, pieces, ..Draft::default() };
        match Arc::clone(&self.desk).carry_out(draft).await {
            (_, Ending::Committed { own, .. }) => {
                {
                    let mut metrics = self.desk.counters.add();
                    metrics.committed += 1;
                    metrics.upkeep += 1;
                }
                let mut own = own.into_iter();
                let below: Vec<_> = own
                    .by_ref()
                    .take(made)
                    .zip(parts)
                    .zip(first_child..)
                    .map(|((position, part), child)| {
                        seams::tasks::spawn(Arc::clone(&self).node(level + 1, child, vec![position], part))
                    })
                    .collect();
                let change = Left { positions: own.collect(), items: Vec::new() };
                join_all(below).await.into_iter().flatten().fold(change, Left::and)
            }
            // nothing was settled: the next burst begins from what is there then
            (draft, ending) => {
                let fault = fault_of(ending);
                let positions = if is_claim_lost(&fault) { Vec::new() } else { draft.claim };
                let items = self.again_behind(parts.into_iter().flatten().collect(), fault);
                Left { positions, items }
            }
        }
    }

    /// Batches one after another on one position.
    async fn leaf(&self, mut claim: Vec<LiveOutput>, items: Vec<Item>) -> Left {
        let mut left = Left::default();
        let mut waiting: std::collections::VecDeque<Item> = items.into();
        let mut batch_max = self.batch;
        while !waiting.is_empty() {
            let batch: Vec<Item> = waiting.drain(..batch_max.min(waiting.len())).collect();
            let size = batch.len();
            let draft = Draft { claim: claim.clone(), items: batch, ..Draft::default() };
            let (mut draft, ending) = Arc::clone(&self.desk).carry_out(draft).await;
            match ending {
                Ending::Committed { transaction, batch, mut proposals, own } => {
                    let asset = draft.claim.first().map(|output| output.contract.asset());
                    let (paying, received): (Vec<LiveOutput>, Vec<LiveOutput>) =
                        own.into_iter().partition(|output| Some(output.contract.asset()) == asset);
                    claim = paying;
                    left.positions.extend(received);
                    let settled = draft.settle(transaction, batch, &mut proposals);
                    let mut metrics = self.desk.counters.add();
                    metrics.committed += 1;
                    metrics.settled += settled;
                }
                Ending::ItemFailed(position, rejection) => {
                    if position < draft.items.len() {
                        self.desk.counters.add().failed += 1;
                        draft.items.remove(position).tell(Err(Unsettled::Rejected(rejection)));
                    }
                    draft.items.into_iter().rev().for_each(|item| waiting.push_front(item));
                }
                // the one at fault is found by halves
                Ending::Fell(ref fault) if size > 1 && !fault.is_of_the_nodes() => {
                    batch_max = size / 2;
                    draft.items.into_iter().rev().for_each(|item| waiting.push_front(item));
                }
                ending @ (Ending::Fell(_) | Ending::LostRace(..) | Ending::Unknown(..)) => {
                    let fault = fault_of(ending);
                    let lost = is_claim_lost(&fault);
                    left.items.extend(self.again(draft.items, fault.clone()));
                    if lost {
                        left.items.extend(self.again_behind(waiting.into(), fault));
                        return left;
                    }
                }
            }
        }
        left.positions.extend(claim);
        left
    }

    /// Requests of a transaction that did not happen, or whose outcome nobody knows: those that may be tried again; the others
    /// are told.
    fn again(&self, items: Vec<Item>, fault: Unsettled) -> Vec<Item> {
        let unknown = matches!(fault, Unsettled::Unknown { .. });
        let may = !unknown && is_claim_lost(&fault) || may_succeed_later(&fault);
        self.again_if(may, items, &fault)
    }

    /// The same of requests that were to follow that transaction, and were no part of it: nothing of them happened.
    fn again_behind(&self, items: Vec<Item>, fault: Unsettled) -> Vec<Item> {
        let may = is_claim_lost(&fault) || may_succeed_later(&fault);
        let fault = if let Unsettled::Unknown { problem, .. } = fault { Unsettled::Refused(problem) } else { fault };
        self.again_if(may, items, &fault)
    }

    fn again_if(&self, may: bool, items: Vec<Item>, fault: &Unsettled) -> Vec<Item> {
        let mut again = Vec::new();
        for mut item in items {
            if may && item.retries < self.retries_max {
                item.retries += 1;
                again.push(item);
            } else {
                self.desk.counters.add().failed += 1;
                item.tell(Err(fault.clone()));
            }
        }
        self.desk.counters.add().retries += u64::try_from(again.len()).unwrap_or(u64::MAX);
        again
    }
}

fn fault_of(ending: Ending) -> Unsettled {
    match ending {
        Ending::LostRace(_, rejection) | Ending::ItemFailed(_, rejection) => Unsettled::Rejected(rejection),
        Ending::Fell(fault) => fault,
        Ending::Unknown(token, problem) => Unsettled::Unknown { token, problem },
        Ending::Committed { .. } => Unsettled::Unsupported("fail what is done"),
    }
}

/// True where the claimed positions are, or may be, gone.
fn is_claim_lost(fault: &Unsettled) -> bool {
    matches!(
        fault,
        Unsettled::Rejected(ledger::Rejection::InputSpent { .. } | ledger::Rejection::InputUnknown { .. })
            | Unsettled::Unknown { .. }
    )
}
