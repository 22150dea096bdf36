//! Running one scenario: requests as they come, what became of them, and what the strategies did meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use client::Client;
use client::strategy::{CostModel, Metrics, Request, Unsettled};
use futures::StreamExt;
use futures::future::join_all;
use futures::stream::{self, FuturesUnordered};
use hdrhistogram::Histogram;
use ledger::{AssetType, Quantity, TransactionId};
use serde::Serialize;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::floor::{Floor, FloorFault};
use super::sizes::SizeSource;
use super::{Load, Scenario};
use crate::report::{Latency, count, number};
use crate::schedule::Schedule;

/// Longest latency that is told apart, in microseconds.
const LATENCY_MAX: u64 = 3_600_000_000;
/// Live positions are counted this often.
const SAMPLES: u32 = 40;
/// Positions of one asset from which on a counterparty nets them, where no model says what everything costs.
pub const COUNTERPARTY_NETS_AT: usize = 100;
/// Proposals of a burst that are made at once.
const PROPOSED_AT_ONCE: usize = 2_000;

/// What one scenario found. Times are divided by the slowdown of the model, if there is one. What the hot parties'
/// strategies did (transactions, retries, rejections, upkeep, races) is counted from the beginning of the measured part to
/// the end of everything; failures and unknown outcomes are those of the whole run, for none may be overlooked.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Measured {
    /// The scenario.
    pub scenario: String,
    /// Its strategy.
    pub strategy: String,
    /// Settlements that were due per second, in an open loop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offered_per_second: Option<f64>,
    /// Settlements carried out in the measured part.
    pub settled: u64,
    /// The same per second.
    pub settlements_per_second: f64,
    /// Settlements that the strategies carried out.
    pub settled_by_strategy: u64,
    /// Settlements that failed, by reason.
    pub failed: BTreeMap<String, u64>,
    /// Transactions whose outcome nobody knows.
    pub unknown: u64,
    /// From the proposal (in an open loop: from when it was due) to the settlement's outcome.
    pub latency_ms: Latency,
    /// From handing the accepted proposal over to the settlement's outcome.
    pub settle_latency_ms: Latency,
    /// In a burst: from the first request to the last outcome, in seconds.
    pub burst_seconds: f64,
    /// In a burst: when that was.
    #[serde(skip)]
    pub burst_ended: Option<Instant>,
    /// The hot parties' transactions that committed.
    pub transactions: u64,
    /// Those that took a place in the order for nothing, per transaction in the order.
    pub wasted_share: f64,
    /// Requests that travelled again.
    pub retries: u64,
    /// Rejections by reason.
    pub rejected: BTreeMap<String, u64>,
    /// Netting and rebalancing transactions.
    pub upkeep: u64,
    /// Those per second.
    pub upkeep_per_second: f64,
    /// Settlements that drew on the remainder of a p99 pool.
    pub on_remainder: u64,
    /// Races that were lost.
    pub lost_races: u64,
    /// Live positions of the hot parties over time, in seconds from the beginning.
    pub live_positions: Vec<(f64, u64)>,
    /// Winners that losers named, each once.
    #[serde(skip)]
    pub winners: BTreeSet<TransactionId>,
    /// Transactions that were acknowledged.
    #[serde(skip)]
    pub acknowledged: Vec<TransactionId>,
    /// What was issued.
    #[serde(skip)]
    pub supply: Vec<(AssetType, Quantity)>,
}

/// Where scenarios run.
#[derive(Debug, Clone)]
pub struct Place {
    /// The hot parties' client.
    pub sellers: Client,
    /// The counterparty's client.
    pub buyers: Client,
    /// What strategies plan by.
    pub model: CostModel,
    /// How many times slower than the model says everything runs; 1 for as fast as it is.
    pub slowdown: u32,
    /// Positions of one asset from which on the counterparty nets them. The model's figures are those without netting.
    pub counterparty_nets_at: usize,
    /// Names this run's parties.
    pub run: u64,
}

#[derive(Debug)]
struct Tally {
    begun: Instant,
    window: Option<(Instant, Instant)>,
    /// By transaction: when it was told, and how many settlements it carried.
    transactions: BTreeMap<TransactionId, (Instant, u64)>,
    latency: Histogram<u64>,
    settle_latency: Histogram<u64>,
    failed: BTreeMap<String, u64>,
    unknown: u64,
    winners: BTreeSet<TransactionId>,
    acknowledged: BTreeSet<TransactionId>,
}

impl Tally {
    fn new(window: Option<(Instant, Instant)>) -> Self {
        let histogram = || Histogram::new_with_max(LATENCY_MAX, 3).expect("the bounds are constants that are allowed");
        Self {
            begun: Instant::now(),
            window,
            transactions: BTreeMap::new(),
            latency: histogram(),
            settle_latency: histogram(),
            failed: BTreeMap::new(),
            unknown: 0,
            winners: BTreeSet::new(),
            acknowledged: BTreeSet::new(),
        }
    }

    fn settled(&mut self, transaction: TransactionId, since: Instant, handed_over: Instant) {
        let now = Instant::now();
        self.acknowledged.insert(transaction);
        let inside = |at: Instant| self.window.is_none_or(|(begin, end)| at >= begin && at < end);
        if inside(now) {
            self.transactions.entry(transaction).or_insert((now, 0)).1 += 1;
        }
        if inside(since) {
            self.latency.saturating_record(micros(now - since));
            self.settle_latency.saturating_record(micros(now - handed_over));
        }
    }

    fn failed(&mut self, fault: &Unsettled) {
        let reason = match fault {
            Unsettled::Rejected(rejection) => {
                if let ledger::Rejection::InputSpent { winner, .. } = rejection {
                    self.winners.insert(*winner);
                }
                format!("{} {}", rejection.code(), rejection.name())
            }
            Unsettled::Unknown { .. } | Unsettled::Stopped => {
                self.unknown += 1;
                "unknown".to_owned()
            }
            Unsettled::Shortage(_)
            | Unsettled::Build(_)
            | Unsettled::Signature(_)
            | Unsettled::Unfunded { .. }
            | Unsettled::NothingToFund
            | Unsettled::Unsupported(_)
            | Unsettled::TooManyOpen
            | Unsettled::Refused(_) => fault.to_string(),
        };
        *self.failed.entry(reason).or_default() += 1;
    }

    /// Settlements per second.
    fn rate(&self) -> f64 {
        let mut told: Vec<(Instant, u64)> = self.transactions.values().copied().collect();
        told.sort_unstable();
        let Some((first, _)) = told.first().copied() else { return 0.0 };
        slope(told.into_iter().map(|(at, count)| ((at - first).as_secs_f64(), number(count))))
    }
}

/// How fast a count grows, by least squares over the moments at which it grew, each with half of its own growth. Growth
/// in steps, where all shards are told at once, so counts for what it is, wherever the first and the last step lie.
fn slope(growth: impl Iterator<Item = (f64, f64)>) -> f64 {
    let mut before = 0.0;
    let points: Vec<(f64, f64)> = growth
        .map(|(at, count)| {
            before += count;
            (at, before - count / 2.0)
        })
        .collect();
    let mean = |part: fn(&(f64, f64)) -> f64| points.iter().map(part).sum::<f64>() / count(points.len()).max(1.0);
    let (middle, height) = (mean(|point| point.0), mean(|point| point.1));
    let together: f64 = points.iter().map(|(at, sum)| (at - middle) * (sum - height)).sum();
    let spread: f64 = points.iter().map(|(at, _)| (at - middle).powi(2)).sum();
    if spread > 0.0 { together / spread } else { 0.0 }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(LATENCY_MAX)
}

type Shared = Arc<Mutex<Tally>>;

/// Runs a scenario. All its transactions have outcomes when this returns.
///
/// # Errors
/// Where it cannot begin.
pub async fn run(place: &Place, scenario: &Scenario) -> Result<Measured, FloorFault> {
    let floor = Floor::open(place, scenario).await?;
    let floor = Arc::new(floor);
    let sizes = Arc::new(Mutex::new(SizeSource::new(scenario.sizes, place.run)));
    let mut burst_ended = None;
    let (ended, burst) = match scenario.load {
        Load::Burst { count } => {
            let (ended, begun, last) = burst(&floor, &sizes, count).await?;
            burst_ended = Some(last);
            (ended, last - begun)
        }
        Load::Closed { in_flight, warm_up, length } => {
            let (warm_up, length) = (warm_up * place.slowdown, length * place.slowdown);
            (closed(&floor, &sizes, in_flight, warm_up, length).await, Duration::ZERO)
        }
        Load::Open { rate, warm_up, length } => {
            let rate = (rate / place.slowdown).max(1);
            let (warm_up, length) = (warm_up * place.slowdown, length * place.slowdown);
            (open_loop(&floor, &sizes, rate, warm_up, length).await, Duration::ZERO)
        }
    };
    let Ended { tally, live_positions, before } = ended;
    let mut measured = summarize(&tally, &floor, &before, place.slowdown);
    measured.scenario.clone_from(&scenario.name);
    measured.strategy = scenario.strategy.to_string();
    measured.burst_seconds = burst.as_secs_f64() / f64::from(place.slowdown);
    measured.burst_ended = burst_ended;
    let scale = f64::from(place.slowdown);
    measured.live_positions = live_positions.into_iter().map(|(at, live)| (at / scale, live)).collect();
    if let Load::Open { rate, .. } = scenario.load {
        measured.offered_per_second = Some(f64::from(rate));
    }
    Ok(measured)
}

struct Ended {
    tally: Tally,
    live_positions: Vec<(f64, u64)>,
    /// What the strategies had done when the measured part began.
    before: Metrics,
}

/// A burst, with the moments of the first request and of the last outcome.
async fn burst(
    floor: &Arc<Floor>,
    sizes: &Mutex<SizeSource>,
    count: usize,
) -> Result<(Ended, Instant, Instant), FloorFault> {
    let drawn: Vec<i128> = {
        let mut sizes = sizes.lock().unwrap_or_else(PoisonError::into_inner);
        (0..count).map(|_| sizes.draw()).collect()
    };
    let seller = |number: usize| &floor.sellers[number % floor.sellers.len()];
    let proposing = drawn.iter().enumerate().map(|(number, size)| floor.propose(seller(number), *size));
    let proposals: Vec<_> = stream::iter(proposing).buffered(PROPOSED_AT_ONCE).collect().await;
    let proposals = proposals.into_iter().collect::<Result<Vec<_>, _>>().map_err(FloorFault::Proposal)?;
    let mut tally = Tally::new(None);
    let begun = tally.begun;
    let pending: Vec<_> = proposals
        .into_iter()
        .enumerate()
        .map(|(number, proposal)| seller(number).strategy.settle(Request::Settle(proposal)))
        .collect();
    let mut pending: FuturesUnordered<_> = pending.into_iter().collect();
    let mut last = begun;
    while let Some(outcome) = pending.next().await {
        match outcome {
            Ok(settled) => {
                last = Instant::now();
                tally.settled(settled.transaction, begun, begun);
            }
            Err(fault) => tally.failed(&fault),
        }
    }
    Ok((Ended { tally, live_positions: Vec::new(), before: Metrics::default() }, begun, last))
}

async fn closed(
    floor: &Arc<Floor>,
    sizes: &Arc<Mutex<SizeSource>>,
    in_flight: usize,
    warm_up: Duration,
    length: Duration,
) -> Ended {
    let begin = Instant::now() + warm_up;
    let end = begin + length;
    let tally: Shared = Arc::new(Mutex::new(Tally::new(Some((begin, end)))));
    let workers = (0..in_flight).map(|number| {
        let (floor, sizes, tally) = (Arc::clone(floor), Arc::clone(sizes), Arc::clone(&tally));
        tokio::spawn(async move {
            while Instant::now() < end {
                one(&floor, number, draw(&sizes), Instant::now(), &tally).await;
            }
        })
    });
    let workers: Vec<_> = workers.collect();
    finish(floor, tally, (begin, end), join_all(workers)).await
}

async fn open_loop(
    floor: &Arc<Floor>,
    sizes: &Arc<Mutex<SizeSource>>,
    rate: u32,
    warm_up: Duration,
    length: Duration,
) -> Ended {
    let start = Instant::now();
    let begin = start + warm_up;
    let tally: Shared = Arc::new(Mutex::new(Tally::new(Some((begin, begin + length)))));
    let schedule = Schedule::new(rate, 1).expect("the rate is above zero");
    let arrivals = schedule.arrivals_before(warm_up + length);
    let loading = async {
        let mut tasks = Vec::new();
        for arrival in 0..arrivals {
            let due = start + schedule.due(arrival);
            sleep_until(due).await;
            let (floor, tally) = (Arc::clone(floor), Arc::clone(&tally));
            let size = draw(sizes);
            let number = usize::try_from(arrival).unwrap_or_default();
            tasks.push(tokio::spawn(async move { one(&floor, number, size, due, &tally).await }));
        }
        join_all(tasks).await;
    };
    finish(floor, Arc::clone(&tally), (begin, begin + length), loading).await
}

fn draw(sizes: &Mutex<SizeSource>) -> i128 {
    sizes.lock().unwrap_or_else(PoisonError::into_inner).draw()
}

/// One settlement, which began or was due at `since`.
async fn one(floor: &Floor, number: usize, size: i128, since: Instant, tally: &Mutex<Tally>) {
    let seller = &floor.sellers[number % floor.sellers.len()];
    let handed_over;
    let outcome = match floor.propose(seller, size).await {
        Ok(proposal) => {
            handed_over = Instant::now();
            seller.strategy.settle(Request::Settle(proposal)).await
        }
        Err(fault) => {
            handed_over = since;
            Err(fault)
        }
    };
    let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
    match outcome {
        Ok(settled) => tally.settled(settled.transaction, since, handed_over),
        Err(fault) => tally.failed(&fault),
    }
}

/// Waits for the load, counting live positions meanwhile.
async fn finish<T>(floor: &Floor, tally: Shared, window: (Instant, Instant), load: impl Future<Output = T>) -> Ended {
    let begun = Instant::now();
    let mut ticks = interval(((window.1 - begun) / SAMPLES).max(Duration::from_millis(10)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut live_positions = Vec::new();
    let mut before = None;
    let mut load = std::pin::pin!(load);
    loop {
        tokio::select! {
            // what it did is in the tally
            _ = &mut load => break,
            () = sleep_until(window.0), if before.is_none() => before = Some(metrics_of(floor)),
            now = ticks.tick() => {
                let live = u64::try_from(floor.live_positions()).unwrap_or(u64::MAX);
                live_positions.push(((now - begun).as_secs_f64(), live));
            }
        }
    }
    let empty = Tally::new(None);
    let tally = std::mem::replace(&mut *tally.lock().unwrap_or_else(PoisonError::into_inner), empty);
    Ended { tally, live_positions, before: before.unwrap_or_default() }
}

/// What the hot parties' strategies have done, together.
fn metrics_of(floor: &Floor) -> Metrics {
    let mut total = Metrics::default();
    for seller in &floor.sellers {
        let metrics = seller.strategy.metrics();
        total.settled += metrics.settled;
        total.committed += metrics.committed;
        total.wasted += metrics.wasted;
        total.retries += metrics.retries;
        total.upkeep += metrics.upkeep;
        total.on_remainder += metrics.on_remainder;
        total.lost_races += metrics.lost_races;
        for (reason, count) in metrics.rejected {
            *total.rejected.entry(reason).or_default() += count;
        }
    }
    total
}

/// What was done since `before`.
fn since(before: &Metrics, now: Metrics) -> Metrics {
    let mut rejected = now.rejected;
    for (reason, count) in &mut rejected {
        *count -= before.rejected.get(reason).copied().unwrap_or_default();
    }
    rejected.retain(|_, count| *count > 0);
    Metrics {
        settled: now.settled - before.settled,
        committed: now.committed - before.committed,
        wasted: now.wasted - before.wasted,
        rejected,
        retries: now.retries - before.retries,
        upkeep: now.upkeep - before.upkeep,
        on_remainder: now.on_remainder - before.on_remainder,
        lost_races: now.lost_races - before.lost_races,
        ..Metrics::default()
    }
}

fn summarize(tally: &Tally, floor: &Floor, before: &Metrics, slowdown: u32) -> Measured {
    let scale = f64::from(slowdown);
    let done = since(before, metrics_of(floor));
    let sequenced = done.committed + done.wasted;
    let begun = tally.window.map_or(tally.begun, |(begin, _)| begin);
    let seconds = begun.elapsed().as_secs_f64();
    let mut acknowledged = floor.acknowledged.clone();
    acknowledged.extend(&tally.acknowledged);
    Measured {
        settled: tally.transactions.values().map(|(_, count)| count).sum(),
        settled_by_strategy: done.settled,
        settlements_per_second: tally.rate() * scale,
        failed: tally.failed.clone(),
        unknown: tally.unknown,
        latency_ms: latency(&tally.latency, scale),
        settle_latency_ms: latency(&tally.settle_latency, scale),
        transactions: done.committed,
        wasted_share: if sequenced > 0 { number(done.wasted) / number(sequenced) } else { 0.0 },
        retries: done.retries,
        rejected: done.rejected,
        upkeep: done.upkeep,
        upkeep_per_second: number(done.upkeep) / seconds * scale,
        on_remainder: done.on_remainder,
        lost_races: done.lost_races,
        winners: tally.winners.clone(),
        acknowledged,
        supply: floor.supply.clone(),
        ..Measured::default()
    }
}

fn latency(histogram: &Histogram<u64>, scale: f64) -> Latency {
    let at = |quantile: f64| number(histogram.value_at_quantile(quantile)) / 1_000.0 / scale;
    let max = if histogram.is_empty() { 0.0 } else { number(histogram.max()) / 1_000.0 / scale };
    Latency { p50: at(0.50), p95: at(0.95), p99: at(0.99), max }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_in_the_warm_up_is_left_out() {
        let metrics = |done: u64, lost: &[(&str, u64)]| Metrics {
            settled: 10 * done,
            committed: 2 * done,
            wasted: done,
            retries: done,
            upkeep: done,
            on_remainder: done,
            lost_races: done,
            rejected: lost.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect(),
            ..Metrics::default()
        };
        let found = since(&metrics(3, &[("spent", 2), ("expired", 1)]), metrics(8, &[("spent", 7), ("expired", 1)]));
        assert_eq!(found, metrics(5, &[("spent", 5)]));
    }

    fn close(found: f64, wanted: f64) {
        assert!((found - wanted).abs() < 1e-6, "{found}, not {wanted}");
    }

    #[test]
    fn growth_in_steps_counts_for_what_it_is() {
        let every_second = |together: u32| (0..60).map(move |told| (f64::from(told / together), 50.0));
        for together in [1, 2, 10, 30] {
            close(slope(every_second(together)), 50.0 * f64::from(together));
        }
        close(slope([(0.0, 1.0)].into_iter()), 0.0);
        close(slope([].into_iter()), 0.0);
    }
}
