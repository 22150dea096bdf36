//! The settlement document's figures, one after another, on a cluster that keeps to its cost model.

use std::time::Duration;

use client::strategy::{CostModel, SplitPlan, StrategyConfig};

use super::load::{Measured, Place, run};
use super::model::Costs;
use super::report::{Curve, CurvePoint, Row, StrategiesReport, Wanted};
use super::sizes::Sizes;
use super::{Load, Scenario, floor};
use crate::report::{count, number, whole};

/// Hot parties of the per-position rows: enough that the ledger and not the positions limits.
const POSITIONS: usize = 256;
/// Settlements of the plans' burst.
const BURST: usize = 1_000;
/// Shards of the knee.
const KNEE: [usize; 7] = [1, 10, 50, 100, 128, 188, 256];
/// Batches of the curve.
const BATCHES: [usize; 6] = [1, 2, 5, 10, 25, 50];
const SECOND: Duration = Duration::from_secs(1);
/// How long a burst is gathered before it is planned.
const GATHER: Duration = Duration::from_millis(2);

/// A part of the table that can be run by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Everything on one position with one transaction.
    Naive,
    /// One after another.
    Serial,
    /// Plans for bursts.
    Split,
    /// Batches one after another.
    Batching,
    /// Each position by itself.
    PerPosition,
    /// Signed positions.
    Bookkeeping,
    /// A pool of even positions.
    Shards,
    /// A pool by sizes of requests.
    P99,
    /// One that takes much of what there is.
    Large,
    /// Inputs chosen after ordering.
    Command,
}

impl Part {
    /// All, in the order of the table.
    pub const ALL: [Self; 10] = [
        Self::Naive,
        Self::Serial,
        Self::Split,
        Self::Command,
        Self::Batching,
        Self::PerPosition,
        Self::Bookkeeping,
        Self::Shards,
        Self::P99,
        Self::Large,
    ];

    /// Its name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Naive => "naive",
            Self::Serial => "serial",
            Self::Split => "split",
            Self::Command => "command",
            Self::Batching => "batching",
            Self::PerPosition => "per-position",
            Self::Bookkeeping => "bookkeeping",
            Self::Shards => "shards",
            Self::P99 => "p99",
            Self::Large => "large",
        }
    }
}

/// Runs one part and adds its rows.
///
/// # Errors
/// Where a scenario cannot begin.
pub async fn run_part(place: &Place, part: Part, report: &mut StrategiesReport) -> Result<(), floor::FloorFault> {
    let mut table = Table { place, costs: Costs::from(unslowed(place)), report };
    match part {
        Part::Naive => table.naive().await,
        Part::Serial => table.serial().await,
        Part::Split => table.split().await,
        Part::Command => table.command("command lane, 10 CPUs").await,
        Part::Batching => table.batching().await,
        Part::PerPosition => table.per_position().await,
        Part::Bookkeeping => table.bookkeeping().await,
        Part::Shards => table.shards().await,
        Part::P99 => table.p99().await,
        Part::Large => table.large().await,
    }
}

/// The command lane's row on a cluster whose model has so many processors.
///
/// # Errors
/// Where the scenario cannot begin.
pub async fn run_command(
    place: &Place,
    processors: usize,
    report: &mut StrategiesReport,
) -> Result<(), floor::FloorFault> {
    let mut table = Table { place, costs: Costs::from(unslowed(place)), report };
    table.command(&format!("command lane, {processors} CPU{}", if processors == 1 { "" } else { "s" })).await
}

/// The model that rows are compared with: times of the report are divided by the slowdown.
fn unslowed(place: &Place) -> CostModel {
    CostModel::DOCUMENT.with_processors(place.model.processors)
}

struct Table<'a> {
    place: &'a Place,
    costs: Costs,
    report: &'a mut StrategiesReport,
}

type Done = Result<(), floor::FloorFault>;

impl Table<'_> {
    async fn measure(&mut self, scenario: &Scenario) -> Result<Measured, floor::FloorFault> {
        let measured = run(self.place, scenario).await?;
        self.report.add(measured.clone());
        Ok(measured)
    }

    fn row(&mut self, row: Row) {
        self.report.rows.push(row);
    }

    /// A rate beside what the model says of the strategy.
    async fn rate(&mut self, label: &str, scenario: Scenario) -> Result<Measured, floor::FloorFault> {
        let model = self.costs.rate(&scenario.strategy, scenario.parties).unwrap_or_default();
        let measured = self.measure(&scenario).await?;
        let rate = measured.settlements_per_second;
        self.row(Row::new(label, format!("throughput, {}", scenario.name), "1/s", Wanted::About, model, rate));
        Ok(measured)
    }

    async fn naive(&mut self) -> Done {
        let scenario =
            Scenario::new("1,000 at once", StrategyConfig::Naive, Load::Burst { count: BURST }).with_proposals(50);
        let measured = self.measure(&scenario).await?;
        let losers: u64 = measured.failed.values().sum();
        let (settled, winners) = (number(measured.settled), u64::try_from(measured.winners.len()).unwrap_or(u64::MAX));
        self.row(Row::new("naive parallel", "commits of 1,000", "", Wanted::About, 1.0, settled));
        self.row(Row::new("naive parallel", "losers of 1,000", "", Wanted::About, 999.0, number(losers)));
        self.row(Row::new("naive parallel", "winners that the losers name", "", Wanted::About, 1.0, number(winners)));
        Ok(())
    }

    async fn serial(&mut self) -> Done {
        let one = Scenario::new("one at a time", StrategyConfig::Serial, closed(1, SECOND, 5 * SECOND));
        let measured = self.measure(&one).await?;
        let model = self.costs.latency(0) + self.costs.latency(1);
        let p50 = measured.latency_ms.p50;
        self.row(Row::new("serial", "settlement latency", "ms", Wanted::About, model * 1e3, p50));
        self.rate("serial", Scenario::new("serial", StrategyConfig::Serial, closed(4, SECOND, 8 * SECOND))).await?;
        Ok(())
    }

    async fn split(&mut self) -> Done {
        let model = unslowed(self.place);
        let tree = SplitPlan { fan_outs: vec![10, 10, 10], batch: 1 };
        // of the document's 1,000 in one transaction, as many as one of ours holds
        let whole = SplitPlan { fan_outs: Vec::new(), batch: 200 };
        let bounds = client::strategy::PlanBounds { fan_out_max: 1_000, batch_max: model.settlements_max };
        let fastest = SplitPlan::fastest(BURST, &model, &bounds);
        for (label, count, plan) in [
            ("1,000, tree of 10 × 10 × 10".to_owned(), BURST, tree),
            ("200 in one transaction".to_owned(), 200, whole),
            (
                format!("1,000, the planner's: {:?}, batches of {}", fastest.fan_outs, fastest.batch),
                BURST,
                fastest,
            ),
        ] {
            let predicted = plan.predict(count, &model).as_secs_f64();
            let config = StrategyConfig::Split { plan: Some(plan), gather: GATHER };
            let scenario = Scenario::new(label.clone(), config, Load::Burst { count }).with_proposals(50);
            let measured = self.measure(&scenario).await?;
            self.row(Row::new("split plan", label, "s", Wanted::About, predicted, measured.burst_seconds));
        }
        Ok(())
    }

    async fn command(&mut self, label: &str) -> Done {
        let scenario = Scenario::new(label, StrategyConfig::Command, closed(100, 2 * SECOND, 5 * SECOND));
        self.rate(label, scenario).await?;
        Ok(())
    }

    async fn batching(&mut self) -> Done {
        let mut points = Vec::new();
        for batch in BATCHES {
            let strategy = StrategyConfig::Batching { batch, linger: Duration::from_millis(5) };
            let scenario =
                Scenario::new(format!("batches of {batch}"), strategy, closed(4 * batch, 2 * SECOND, 8 * SECOND));
            let measured = self.rate("sequential batching", scenario).await?;
            points.push(CurvePoint {
                at: count(batch),
                model: Some(self.costs.one_after_another(batch)),
                measured: measured.settlements_per_second,
            });
        }
        self.report.curves.push(Curve {
            title: "Batches one after another on one position".to_owned(),
            along: "settlements per transaction".to_owned(),
            value: "settlements per second".to_owned(),
            points,
        });
        // all fifty are proposed together and settle together
        let strategy = StrategyConfig::Batching { batch: 50, linger: Duration::from_millis(50) };
        let scenario = Scenario::new("one batch of 50 at a time", strategy, closed(50, SECOND, 6 * SECOND));
        let measured = self.measure(&scenario).await?;
        let model = (self.costs.latency(0) + self.costs.latency(50)) * 1e3;
        let p50 = measured.latency_ms.p50;
        self.row(Row::new(
            "sequential batching",
            "settlement latency, batches of 50",
            "ms",
            Wanted::About,
            model,
            p50,
        ));
        Ok(())
    }

    async fn per_position(&mut self) -> Done {
        let label = "per position";
        // every position needs a batch under way and another that gathers
        for (batch, in_flight) in [(1, 400), (50, 3 * 50 * POSITIONS)] {
            let strategy = StrategyConfig::PerPosition { batch, linger: linger(batch) };
            let over_many = Scenario::new(
                format!("{POSITIONS} positions, batches of {batch}"),
                strategy.clone(),
                closed(in_flight, 4 * SECOND, MANY_CYCLES),
            );
            self.rate(label, over_many.with_parties(POSITIONS)).await?;
            let hot = Scenario::new(
                format!("a hot position, batches of {batch}"),
                strategy,
                closed(4 * batch, 2 * SECOND, 8 * SECOND),
            );
            self.rate(label, hot).await?;
        }
        Ok(())
    }

    async fn bookkeeping(&mut self) -> Done {
        let label = "bookkeeping shards";
        let strategy = |batch| StrategyConfig::Bookkeeping { batch, linger: linger(batch), net_at: 100 };
        let batched =
            Scenario::new("one total position, batches of 50", strategy(50), closed(16_000, 3 * SECOND, MANY_CYCLES));
        self.rate(label, batched).await?;
        // proposals travel in batches, so that 500 settlements per second fit
        let at_500 =
            Scenario::new("500 settlements/s", strategy(1), open(500, 2 * SECOND, 8 * SECOND)).with_proposals(50);
        let measured = self.measure(&at_500).await?;
        let netting = measured.upkeep_per_second;
        let share = netting * self.costs.work_fixed;
        let live = measured.live_positions.iter().map(|(_, live)| *live).max().unwrap_or_default();
        // two assets, each netted from 100 on, while one netting takes its latency
        let bound = 2.0 * (100.0 + 500.0 * (self.costs.latency(0) + self.costs.latency(1)));
        self.row(Row::new(label, "netting transactions at 500/s", "1/s", Wanted::AtMost, 20.0, netting));
        self.row(Row::new(label, "share of capacity for netting at 500/s", "", Wanted::AtMost, 0.06, share));
        self.row(Row::new(label, "live positions at 500/s, most", "", Wanted::AtMost, bound, number(live)));
        self.row(Row::new(label, "races lost to netting", "", Wanted::AtMost, 0.0, number(measured.lost_races)));
        self.row(Row::alone(label, "settlements at 500/s offered", "1/s", measured.settlements_per_second));
        Ok(())
    }

    async fn shards(&mut self) -> Done {
        for batch in [1, 50] {
            let mut points = Vec::new();
            for shards in KNEE {
                let strategy = StrategyConfig::Shards { target: shards, batch, linger: linger(batch) };
                // enough that every shard always has work: proposals take about as long as settlements
                let capacity = self.costs.capacity(batch);
                let rate = self.costs.rate(&strategy, 1).unwrap_or(capacity);
                let waiting = rate * (self.costs.latency(0) + self.costs.latency(batch));
                let in_flight = usize::try_from(whole(waiting * 1.25)).unwrap_or(usize::MAX) + 2 * batch;
                let scenario = Scenario::new(
                    format!("{shards} shards, batches of {batch}"),
                    strategy,
                    closed(in_flight, 3 * SECOND, if shards < 100 { 6 * SECOND } else { MANY_CYCLES }),
                );
                let measured = self.rate("shard pool", scenario).await?;
                points.push(CurvePoint {
                    at: count(shards),
                    model: Some(rate),
                    measured: measured.settlements_per_second,
                });
            }
            self.report.curves.push(Curve {
                title: format!("The knee of the shard pool, batches of {batch}"),
                along: "shards".to_owned(),
                value: "settlements per second".to_owned(),
                points,
            });
        }
        Ok(())
    }

    async fn p99(&mut self) -> Done {
        let strategy = StrategyConfig::P99 { target: 100, batch: 1, linger: Duration::ZERO };
        for (name, sizes) in [
            ("log-normal sizes", Sizes::LogNormal { median: 1_000.0, sigma: 1.0 }),
            ("Pareto sizes", Sizes::Pareto { smallest: 500.0, alpha: 1.5 }),
        ] {
            let scenario = Scenario::new(name, strategy.clone(), open(200, 5 * SECOND, 15 * SECOND)).with_sizes(sizes);
            let measured = self.measure(&scenario).await?;
            let all = number(measured.settled_by_strategy);
            let untouched = 1.0 - number(measured.on_remainder) / all.max(1.0);
            self.row(Row::new(
                "p99 pool",
                format!("settlements off the remainder, {name}"),
                "",
                Wanted::AtLeast,
                0.99,
                untouched,
            ));
            self.row(Row::new(
                "p99 pool",
                format!("throughput at 200/s, {name}"),
                "1/s",
                Wanted::About,
                200.0,
                measured.settlements_per_second,
            ));
        }
        Ok(())
    }

    /// Requests of more than half of what is left, one behind the other, and one of all of it, each on a pool of shards. One
    /// that leaves enough for the next does not hold it up, so that several take less than on one position.
    async fn large(&mut self) -> Done {
        let strategy = StrategyConfig::Shards { target: 100, batch: 1, linger: Duration::ZERO };
        let all = u64::try_from(floor::Floor::holding()).unwrap_or(u64::MAX);
        for (name, size_count, sizes) in [
            ("8 of 55 % of what is left, no slower than per position", 8, Sizes::Shares { of: all, percent: 55 }),
            ("1 of all that is held", 1, Sizes::Fixed(all)),
        ] {
            let scenario = Scenario::new(name, strategy.clone(), Load::Burst { count: size_count }).with_sizes(sizes);
            let measured = self.measure(&scenario).await?;
            let per_position = count(size_count) * self.costs.latency(1);
            let (wanted, model) =
                if size_count == 1 { (Wanted::About, per_position) } else { (Wanted::AtMost, per_position * 1.05) };
            self.row(Row::new("large settlements", name, "s", wanted, model, measured.burst_seconds));
        }
        Ok(())
    }
}

fn closed(in_flight: usize, warm_up: Duration, length: Duration) -> Load {
    Load::Closed { in_flight, warm_up, length }
}

fn open(rate: u32, warm_up: Duration, length: Duration) -> Load {
    Load::Open { rate, warm_up, length }
}

/// Those who trade in a closed loop propose and settle almost in step: what part of a cycle is cut off at the ends of the
/// measured time must weigh little.
const MANY_CYCLES: Duration = Duration::from_secs(12);

/// Short beside any latency of the model; nothing waits where nothing is put together.
const fn linger(batch: usize) -> Duration {
    if batch > 1 { Duration::from_millis(5) } else { Duration::ZERO }
}
