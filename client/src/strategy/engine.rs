//! The task behind most strategies: queues of requests, transactions under way, and the positions they draw on.
//!
//! ```text
//! requests ─► queue (one, or one per asset) ─► draw, claim ─► transaction ─► outcome ─► told
//!                   ▲                                            │
//!                   └── lost a race, fell with another: again ◄──┘
//! ```
//! One task owns the queues; what it claims is claimed in one step. Invariants: every request is told once; a claim ends
//! with its transaction; what failed in one transaction is never sent again, but built anew with other inputs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::FuturesUnordered;
use ledger::view::LiveOutput;
use ledger::{AssetType, Limits, OutputId, Rejection};
use proto::Problem;
use proto::convert::Consistency;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

use super::attempt::{Desk, Draft, EXPIRED_MAX, Ending, may_succeed_later};
use super::drawing::{Bounds, Drawing, Drawn, NotDrawn, Queue};
use super::funds::{Funds, Stock, quantity_of, sum};
use super::request::{Item, Unsettled};
use crate::client::Client;
use crate::wallet::Shortage;

/// Requests taken from the channel at once.
const TAKEN_MAX: usize = 1_024;
/// Outputs per page of a reading.
const PAGE_OUTPUTS: u32 = 1_000;
/// Requests of one transaction on the remainder of a pool, which is one position: it is shared at least so much.
const REMAINDER_BATCH: usize = 50;

/// When free positions of one asset are merged into one, off the way of requests.
#[derive(Debug, Clone, Copy)]
pub(super) struct Merging {
    /// At so many.
    pub(super) at: usize,
    /// So many are left as they are: the largest.
    pub(super) keep: usize,
}

/// How an engine works.
#[derive(Debug, Clone, Copy)]
pub(super) struct EngineOptions {
    /// Requests in one transaction.
    pub(super) batch_max: usize,
    /// How long the first request of a transaction waits for others at most: it never waits longer than half of what
    /// transactions took lately, for where they are quick, company gains less than waiting costs.
    pub(super) linger: Duration,
    /// Transactions of one queue under way at once.
    pub(super) open_max: usize,
    /// True where each asset has a queue of its own.
    pub(super) by_asset: bool,
    /// What is merged aside; nothing where there is none.
    pub(super) merging: Option<Merging>,
    /// How often a request travels again before it fails.
    pub(super) retries_max: u32,
    /// How long a request waits for positions that are claimed.
    pub(super) patience: Duration,
    /// How often the ledger is read for what others did.
    pub(super) refresh_every: Duration,
}

/// Which queue.
type QueueId = (Option<AssetType>, Queue);

/// Requests that wait, and transactions of theirs under way.
#[derive(Debug, Default)]
struct Line {
    waiting: VecDeque<Item>,
    open: usize,
    /// Its place among the timers.
    due: Option<Instant>,
}

/// What a transaction is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Requests(QueueId),
    /// Keeps the positions in order; one at a time per asset.
    Upkeep(AssetType),
    /// Returns allocations that have expired.
    Return,
}

/// A transaction at its end, with how long it took.
type Flight = (Purpose, Draft, Ending, Duration);
type Reading = JoinHandle<Result<Vec<LiveOutput>, Problem>>;

/// The funds, which the engine changes and others look at.
#[derive(Debug, Clone, Default)]
pub(super) struct SharedFunds(Arc<Mutex<Funds>>);

impl SharedFunds {
    pub(super) fn lock(&self) -> MutexGuard<'_, Funds> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What there is, by asset.
    pub(super) fn stocks(&self) -> BTreeMap<AssetType, Stock> {
        self.lock().stocks()
    }
}

pub(super) struct Engine {
    desk: Arc<Desk>,
    options: EngineOptions,
    drawing: Drawing,
    limits: Limits,
    funds: SharedFunds,
    lines: BTreeMap<QueueId, Line>,
    /// Lines that something happened to since they were last looked at. All others are as they were left: blocked, or empty.
    stirred: BTreeSet<QueueId>,
    /// When each line is looked at again though nothing happens to it.
    timers: BTreeSet<(Instant, QueueId)>,
    /// Blocked lines whose first request needs several assets, any of which may be what it waits for.
    entangled: BTreeSet<QueueId>,
    flights: FuturesUnordered<BoxFuture<'static, Flight>>,
    /// How long transactions of requests took lately, smoothed; nothing before the first one.
    took: Option<Duration>,
    /// Requests that travel again after a pause.
    resting: FuturesUnordered<BoxFuture<'static, Vec<Item>>>,
    upkeep: BTreeSet<AssetType>,
    /// Assets whose upkeep did not happen: left alone until the ledger has been read again.
    left_alone: BTreeSet<AssetType>,
    /// Assets of which a large request gathers all it can get: small ones let it go first.
    gathering: BTreeSet<AssetType>,
    returning: BTreeSet<OutputId>,
    reading: Option<(BTreeSet<OutputId>, Reading)>,
    reading_begun: Instant,
    /// When the last reading began that has ended.
    read_at: Instant,
    refresh_at: Instant,
}

impl Engine {
    /// An engine whose funds are what the ledger shows.
    pub(super) async fn open(
        desk: Arc<Desk>,
        drawing: Drawing,
        options: EngineOptions,
        funds: SharedFunds,
    ) -> Result<Self, Problem> {
        let limits = desk.client.cluster().await?.limits;
        let now = Instant::now();
        let live = read_ledger(&desk.client, desk.party()).await?;
        let mut engine = Self {
            desk,
            options,
            drawing,
            limits,
            funds,
            lines: BTreeMap::new(),
            stirred: BTreeSet::new(),
            timers: BTreeSet::new(),
            entangled: BTreeSet::new(),
            flights: FuturesUnordered::new(),
            took: None,
            resting: FuturesUnordered::new(),
            upkeep: BTreeSet::new(),
            left_alone: BTreeSet::new(),
            gathering: BTreeSet::new(),
            returning: BTreeSet::new(),
            reading: None,
            reading_begun: now,
            read_at: now,
            refresh_at: now + options.refresh_every,
        };
        engine.learn(&BTreeSet::new(), &live);
        Ok(engine)
    }

    /// Runs until nobody can send requests any more and all are told.
    pub(super) async fn run(mut self, mut requests: mpsc::UnboundedReceiver<Item>) {
        let mut arrivals = Vec::new();
        let mut accepting = true;
        while accepting || self.has_work() {
            let due = self.dispatch(accepting);
            tokio::select! {
                // cancelling loses nothing: `recv_many` takes requests only when it returns
                count = requests.recv_many(&mut arrivals, TAKEN_MAX), if accepting => {
                    accepting = count > 0;
                    if !accepting {
                        // nothing lingers any more
                        self.stir_all();
                    }
                    for item in arrivals.drain(..) {
                        self.enqueue(item);
                    }
                }
                // what is under way stays in its set
                Some((purpose, draft, ending, took)) = self.flights.next() => {
                    if matches!(purpose, Purpose::Requests(_)) {
                        self.took = Some(smoothed(self.took, took));
                    }
                    self.finish(purpose, draft, ending);
                }
                Some(items) = self.resting.next() => self.again(items),
                live = read_end(&mut self.reading) => self.take_reading(live),
                // a timer
                () = sleep_until(due) => {}
            }
        }
    }

    fn has_work(&self) -> bool {
        let waiting = self.lines.values().any(|line| !line.waiting.is_empty());
        waiting || !self.flights.is_empty() || !self.resting.is_empty()
    }

    fn enqueue(&mut self, mut item: Item) {
        // one input at least is this party's own, except where a grant stands for it
        let own = usize::from(!matches!(self.drawing, Drawing::Bookkeeping));
        if item.request.allocations().count() + own > self.limits.inputs_max {
            return self.fail(item, Unsettled::Unsupported("consume as many allocations in one transaction"));
        }
        let queue = self.drawing.queue_for(&item);
        item.queue = queue;
        self.line_for(&item).waiting.push_back(item);
    }

    /// The line of a request, which something happens to.
    fn line_for(&mut self, item: &Item) -> &mut Line {
        let id = self.line_of(item);
        self.stirred.insert(id);
        self.lines.entry(id).or_default()
    }

    fn line_of(&self, item: &Item) -> QueueId {
        (if self.options.by_asset { item.asset() } else { None }, item.queue)
    }

    /// Requests that go first the next time, in the order in which they came.
    fn again(&mut self, items: Vec<Item>) {
        for item in items.into_iter().rev() {
            self.line_for(&item).waiting.push_front(item);
        }
    }

    /// Positions of an asset came, went or are free again.
    fn stir(&mut self, asset: AssetType) {
        let asset = self.options.by_asset.then_some(asset);
        self.stirred.extend([(asset, Queue::Remainder), (asset, Queue::Main)]);
        self.stirred.append(&mut self.entangled);
    }

    fn stir_all(&mut self) {
        self.stirred.extend(self.lines.keys().copied());
    }

    /// Sends what can be sent. Returns when something is due.
    fn dispatch(&mut self, accepting: bool) -> Instant {
        let now = Instant::now();
        if now >= self.refresh_at {
            // also where one is under way, which may take longer than that
            self.refresh_at = now + self.options.refresh_every;
            self.begin_reading();
        }
        while let Some((_, id)) = self.timers.first().copied().filter(|(due, _)| *due <= now) {
            self.timers.pop_first();
            if let Some(line) = self.lines.get_mut(&id) {
                line.due = None;
            }
            self.stirred.insert(id);
        }
        while !self.stirred.is_empty() {
            let mut ids: Vec<QueueId> = std::mem::take(&mut self.stirred).into_iter().collect();
            // a large request has a say before the small ones of its asset
            ids.sort_by_key(|(asset, queue)| (*queue == Queue::Main, *asset));
            for id in ids {
                let due = self.dispatch_line(id, now, accepting);
                self.look_again(id, due);
            }
        }
        self.timers.first().map_or(self.refresh_at, |(due, _)| self.refresh_at.min(*due))
    }

    /// Looks at a line again when this is due, unless there is nothing in it.
    fn look_again(&mut self, id: QueueId, due: Instant) {
        let Some(line) = self.lines.get_mut(&id) else { return };
        if let Some(before) = line.due.take() {
            self.timers.remove(&(before, id));
        }
        if !line.waiting.is_empty() {
            line.due = Some(due);
            self.timers.insert((due, id));
        } else if line.open == 0 {
            self.lines.remove(&id);
        }
    }

    fn dispatch_line(&mut self, id: QueueId, now: Instant, accepting: bool) -> Instant {
        loop {
            let far = self.refresh_at;
            let Some(line) = self.lines.get(&id) else { return far };
            let Some(first) = line.waiting.front() else { return far };
            let open_max = if id.1 == Queue::Remainder { 1 } else { self.options.open_max };
            // rebalancing uses the remainder, too
            let rebalanced = id.1 == Queue::Remainder && id.0.is_some_and(|asset| self.upkeep.contains(&asset));
            let steps_back = id.1 == Queue::Main && first.asset().is_some_and(|asset| self.gathering.contains(&asset));
            if line.open >= open_max || rebalanced || steps_back {
                return far;
            }
            let lingers_until = first.arrived + self.linger();
            let full = line.waiting.len() >= self.batch_max(id).min(first.batch_max) || first.retries > 0;
            if !full && accepting && now < lingers_until {
                return lingers_until;
            }
            let several = first.needs.len() > 1;
            let drawn = self.draw(id);
            if let (Queue::Remainder, Some(asset)) = (id.1, id.0) {
                if drawn == Err(NotDrawn::Wait) {
                    self.gathering.insert(asset);
                } else if self.gathering.remove(&asset) {
                    self.stir(asset);
                }
            }
            match drawn {
                Ok(drawn) => self.launch_requests(id, drawn),
                Err(blocked @ (NotDrawn::Wait | NotDrawn::Merge(_))) => {
                    if several {
                        self.entangled.insert(id);
                    }
                    if let NotDrawn::Merge(positions) = blocked {
                        self.launch_upkeep(Drawn { claim: positions, ..Drawn::default() });
                    }
                    if let Some(due) = self.give_up_waiting(id, now) {
                        return due;
                    }
                }
                Err(NotDrawn::ToRemainder) => self.move_to_remainder(id),
                Err(NotDrawn::NoGrant) => {
                    if self.knows_since_first(id) {
                        self.fail_first(id, Unsettled::Unsupported("pay without a grant for the asset"));
                    } else {
                        self.begin_reading();
                        return far;
                    }
                }
                Err(NotDrawn::Short(shortage)) => {
                    // others may have paid this party meanwhile
                    if self.knows_since_first(id) {
                        self.fail_first(id, Unsettled::Shortage(shortage));
                    } else {
                        self.begin_reading();
                        return far;
                    }
                }
            }
        }
    }

    fn linger(&self) -> Duration {
        self.took.map_or(self.options.linger, |took| self.options.linger.min(took / 2))
    }

    fn batch_max(&self, id: QueueId) -> usize {
        match id.1 {
            Queue::Main => self.options.batch_max,
            Queue::Remainder => self.options.batch_max.max(REMAINDER_BATCH),
        }
    }

    /// True where the ledger was read after the first request of the queue had come.
    fn knows_since_first(&self, id: QueueId) -> bool {
        let first = self.lines.get(&id).and_then(|line| line.waiting.front());
        first.is_some_and(|item| self.read_at >= item.arrived)
    }

    fn draw(&self, id: QueueId) -> Result<Drawn, NotDrawn> {
        let waiting = self.lines.get(&id).map(|line| &line.waiting);
        let mut items = Vec::new();
        let mut inputs = 0;
        let mut items_max = self.batch_max(id);
        for item in waiting.into_iter().flatten() {
            items_max = items_max.min(item.batch_max);
            inputs += item.request.allocations().count();
            // half of the inputs stay for positions
            if items.len() >= items_max || (!items.is_empty() && inputs > self.limits.inputs_max / 2) {
                break;
            }
            items.push(item);
        }
        let allocations: usize = items.iter().map(|item| item.request.allocations().count()).sum();
        let bounds = Bounds { items_max, inputs_max: self.limits.inputs_max.saturating_sub(allocations) };
        self.drawing.draw(&self.funds.lock(), id.1, &items, bounds, self.desk.client.entropy())
    }

    fn launch_requests(&mut self, id: QueueId, drawn: Drawn) {
        let Some(line) = self.lines.get_mut(&id) else { return };
        let items: Vec<Item> = line.waiting.drain(..drawn.items.min(line.waiting.len())).collect();
        line.open += 1;
        if id.1 == Queue::Remainder {
            self.desk.counters.add().on_remainder += count(items.len());
        }
        self.launch(Purpose::Requests(id), items, drawn);
    }

    fn launch_upkeep(&mut self, drawn: Drawn) {
        let Some(asset) = drawn.claim.first().map(|output| output.contract.asset()) else { return };
        // one alone is in order, and what failed would fail again until something else is known
        if (drawn.claim.len() > 1 || !drawn.pieces.is_empty())
            && !self.left_alone.contains(&asset)
            && self.upkeep.insert(asset)
        {
            self.launch(Purpose::Upkeep(asset), Vec::new(), drawn);
        }
    }

    fn launch(&mut self, purpose: Purpose, items: Vec<Item>, drawn: Drawn) {
        let Drawn { claim, grants, pieces, .. } = drawn;
        if self.claims() {
            self.funds.lock().claim(&claim);
        }
        self.fly(purpose, Draft { claim, grants, items, pieces, expired: Vec::new() });
    }

    fn fly(&mut self, purpose: Purpose, draft: Draft) {
        let made = seams::tasks::spawn(Arc::clone(&self.desk).carry_out(draft));
        let begun = Instant::now();
        let flight = async move {
            let (draft, ending) = made.await.expect("a transaction's task neither panics nor is aborted alone");
            (purpose, draft, ending, begun.elapsed())
        };
        self.flights.push(flight.boxed());
    }

    const fn claims(&self) -> bool {
        !matches!(self.drawing, Drawing::Unclaimed)
    }

    /// The first request waits for claimed positions, but not for ever. Returns until when.
    fn give_up_waiting(&mut self, id: QueueId, now: Instant) -> Option<Instant> {
        let first = self.lines.get(&id)?.waiting.front()?;
        let until = first.arrived + self.options.patience;
        if now < until {
            return Some(until.min(self.refresh_at));
        }
        let shortage = {
            let funds = self.funds.lock();
            let inputs_max = self.limits.inputs_max.saturating_sub(first.request.allocations().count());
            // covered, and yet it waits: for the positions of its queue
            let locked = || {
                let Stock { free, claimed, .. } = first.asset().map(|asset| funds.stock(&asset)).unwrap_or_default();
                Shortage::Locked { wanted: first.size(), free, claimed }
            };
            funds.shortage_of(&first.needs, inputs_max).unwrap_or_else(locked)
        };
        self.fail_first(id, Unsettled::Shortage(shortage));
        None
    }

    fn fail_first(&mut self, id: QueueId, fault: Unsettled) {
        if let (Queue::Remainder, Some(asset)) = (id.1, id.0)
            && self.gathering.remove(&asset)
        {
            self.stir(asset);
        }
        if let Some(item) = self.lines.get_mut(&id).and_then(|line| line.waiting.pop_front()) {
            self.fail(item, fault);
        }
    }

    fn fail(&self, item: Item, fault: Unsettled) {
        self.desk.counters.add().failed += 1;
        item.tell(Err(fault));
    }

    fn move_to_remainder(&mut self, id: QueueId) {
        if let Some(mut item) = self.lines.get_mut(&id).and_then(|line| line.waiting.pop_front()) {
            item.queue = Queue::Remainder;
            self.line_for(&item).waiting.push_back(item);
        }
    }

    fn finish(&mut self, purpose: Purpose, mut draft: Draft, ending: Ending) {
        if let Purpose::Requests(id) = purpose
            && let Some(line) = self.lines.get_mut(&id)
        {
            line.open -= 1;
            self.stirred.insert(id);
        }
        let mut touched: BTreeSet<AssetType> = draft.claim.iter().map(|output| output.contract.asset()).collect();
        if let Purpose::Upkeep(asset) = purpose {
            self.upkeep.remove(&asset);
            if !matches!(ending, Ending::Committed { .. }) {
                self.left_alone.insert(asset);
            }
        }
        for allocation in &draft.expired {
            self.returning.remove(&allocation.id);
        }
        match ending {
            Ending::Committed { transaction, batch, mut proposals, own } => {
                self.count_committed(purpose);
                {
                    let mut funds = self.funds.lock();
                    funds.spend(&draft.claim);
                    own.iter().for_each(|output| funds.insert(output));
                }
                touched.extend(own.iter().map(|output| output.contract.asset()));
                let settled = draft.settle(transaction, batch, &mut proposals);
                self.desk.counters.add().settled += settled;
            }
            Ending::LostRace(lost, rejection) => self.lost_race(draft, lost, &rejection),
            Ending::ItemFailed(position, rejection) => {
                self.release(&draft);
                if position < draft.items.len() {
                    let failed = draft.items.remove(position);
                    self.fail(failed, Unsettled::Rejected(rejection));
                }
                self.again_at_once(draft.items);
            }
            Ending::Fell(fault) => {
                self.release(&draft);
                self.fell(draft.items, fault);
            }
            Ending::Unknown(token, problem) => {
                // what it may have consumed shows in the next reading, or does not
                self.funds.lock().spend(&draft.claim);
                self.begin_reading();
                for item in draft.items {
                    self.fail(item, Unsettled::Unknown { token: token.clone(), problem: problem.clone() });
                }
            }
        }
        self.keep_in_order(&touched);
    }

    fn count_committed(&self, purpose: Purpose) {
        let mut metrics = self.desk.counters.add();
        metrics.committed += 1;
        metrics.upkeep += u64::from(!matches!(purpose, Purpose::Requests(_)));
    }

    fn release(&self, draft: &Draft) {
        if self.claims() {
            self.funds.lock().release(&draft.claim);
        }
    }

    /// Somebody else consumed a position of this party: it is forgotten, and the requests choose anew.
    fn lost_race(&mut self, draft: Draft, lost: OutputId, rejection: &Rejection) {
        self.desk.counters.add().lost_races += 1;
        let (gone, kept): (Vec<LiveOutput>, Vec<LiveOutput>) =
            draft.claim.into_iter().partition(|output| output.id == lost);
        let fault = Unsettled::Rejected(rejection.clone());
        if !self.claims() {
            draft.items.into_iter().for_each(|item| self.fail(item, fault.clone()));
            return;
        }
        {
            let mut funds = self.funds.lock();
            funds.spend(&gone);
            funds.release(&kept);
        }
        self.begin_reading();
        self.retry(draft.items, &fault);
    }

    /// A whole transaction fell. With several requests in it, each half tries by itself, and the one at fault ends up alone;
    /// unless no node took it in, which is nobody's fault.
    fn fell(&mut self, mut items: Vec<Item>, fault: Unsettled) {
        if matches!(fault, Unsettled::Rejected(Rejection::ReferenceSpent { .. } | Rejection::ReferenceUnknown { .. })) {
            self.begin_reading();
        }
        if items.len() > 1 && !fault.is_of_the_nodes() {
            let half = items.len() / 2;
            items.iter_mut().for_each(|item| item.batch_max = half);
            self.again_at_once(items);
        } else if may_succeed_later(&fault) {
            self.retry(items, &fault);
        } else {
            items.into_iter().for_each(|item| self.fail(item, fault.clone()));
        }
    }

    /// The requests travel again: the one that stopped them is gone, or fewer go together.
    fn again_at_once(&mut self, items: Vec<Item>) {
        self.desk.counters.add().retries += count(items.len());
        self.again(items);
    }

    /// The requests travel again, after a pause with jitter; those that have too often fail with `fault`.
    fn retry(&mut self, items: Vec<Item>, fault: &Unsettled) {
        let mut left = Vec::with_capacity(items.len());
        let mut most = 0;
        for mut item in items {
            if item.retries >= self.options.retries_max {
                self.fail(item, fault.clone());
                continue;
            }
            item.retries += 1;
            most = most.max(item.retries);
            left.push(item);
        }
        if left.is_empty() {
            return;
        }
        self.desk.counters.add().retries += count(left.len());
        let pause = self.desk.client.jittered_pause(most);
        let rest = async move {
            sleep(pause).await;
            left
        };
        self.resting.push(rest.boxed());
    }

    /// Nets and rebalances these assets, off the way of requests: only free positions are touched.
    fn keep_in_order(&mut self, assets: &BTreeSet<AssetType>) {
        for asset in assets {
            self.stir(*asset);
            if self.upkeep.contains(asset) || self.left_alone.contains(asset) {
                continue;
            }
            let drawn = {
                let funds = self.funds.lock();
                self.upkeep_of(&funds, asset, &funds.stock(asset))
            };
            if let Some(drawn) = drawn {
                self.launch_upkeep(drawn);
            }
        }
    }

    fn upkeep_of(&self, funds: &Funds, asset: &AssetType, stock: &Stock) -> Option<Drawn> {
        if let Some(Merging { at, keep }) = self.options.merging
            && stock.free_positions >= at
        {
            let count = stock.free_positions.saturating_sub(keep).min(self.limits.inputs_max);
            let claim: Vec<LiveOutput> = funds.free(asset).take(count).copied().collect();
            let total = claim.iter().map(quantity_of).fold(ledger::Quantity::ZERO, sum);
            let grants = if total.is_negative() { vec![funds.grant(asset)?] } else { Vec::new() };
            return Some(Drawn { claim, grants, ..Drawn::default() });
        }
        match &self.drawing {
            Drawing::Sized(pool) => {
                let remainder = self.lines.get(&(Some(*asset), Queue::Remainder));
                let idle = remainder.is_none_or(|line| line.open == 0 && line.waiting.is_empty());
                if idle { pool.rebalance(funds, asset, self.limits.inputs_max) } else { None }
            }
            Drawing::Everything | Drawing::Unclaimed | Drawing::Shards { .. } | Drawing::Bookkeeping => None,
        }
    }

    fn begin_reading(&mut self) {
        if self.reading.is_some() {
            return;
        }
        self.refresh_at = Instant::now() + self.options.refresh_every;
        let free = self.funds.lock().begin_reading();
        let (client, party) = (self.desk.client.clone(), self.desk.party());
        self.reading_begun = Instant::now();
        let reading = seams::tasks::spawn(async move { read_ledger(&client, party).await });
        self.reading = Some((free, reading));
    }

    fn take_reading(&mut self, live: Result<Vec<LiveOutput>, Problem>) {
        let Some((free, _)) = self.reading.take() else { return };
        match live {
            Ok(live) => {
                self.read_at = self.reading_begun;
                self.learn(&free, &live);
            }
            Err(problem) => {
                tracing::debug!(%problem, "the party's outputs could not be read");
                self.funds.lock().abandon_reading();
                self.refresh_at = Instant::now() + self.desk.client.jittered_pause(3);
            }
        }
    }

    /// Takes over what the ledger shows, and returns what has expired.
    fn learn(&mut self, free: &BTreeSet<OutputId>, live: &[LiveOutput]) {
        self.funds.lock().end_reading(free, live);
        self.left_alone.clear();
        let mut expired = self.desk.expired_of(live);
        expired.retain(|output| !self.returning.contains(&output.id));
        for some in expired.chunks(EXPIRED_MAX) {
            self.returning.extend(some.iter().map(|output| output.id));
            self.fly(Purpose::Return, Draft { expired: some.to_vec(), ..Draft::default() });
        }
        self.stir_all();
        let assets = self.funds.stocks().into_keys().collect();
        self.keep_in_order(&assets);
    }
}

/// An eighth of the newest and seven eighths of what was before, as round trips are commonly smoothed (RFC 6298).
fn smoothed(before: Option<Duration>, newest: Duration) -> Duration {
    before.map_or(newest, |before| (before * 7 + newest) / 8)
}

/// The end of a reading, if one is under way.
async fn read_end(reading: &mut Option<(BTreeSet<OutputId>, Reading)>) -> Result<Vec<LiveOutput>, Problem> {
    match reading {
        Some((_, reading)) => reading
            .await
            .unwrap_or_else(|_aborted| Err(Problem::new(proto::ProblemKind::Cancelled, "the reading was stopped"))),
        None => std::future::pending().await,
    }
}

/// All live outputs of a party. Each is or was live between the first page and now.
pub(super) async fn read_ledger(client: &Client, party: ledger::Party) -> Result<Vec<LiveOutput>, Problem> {
    let mut outputs = Vec::new();
    let mut after = None;
    let mut consistency = Consistency::Linearizable;
    loop {
        let page = client.holdings(&party, after.as_ref(), PAGE_OUTPUTS, consistency).await?;
        consistency = Consistency::AtLeast(page.head.size);
        outputs.extend(page.outputs);
        after = page.next;
        if after.is_none() {
            return Ok(outputs);
        }
    }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
