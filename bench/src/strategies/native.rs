//! The same strategies on a ledger that is as fast as it is: costs are fitted to it, and what they predict stands beside
//! what was measured, and beside what the document's model says.

use std::time::Duration;

use client::strategy::{CostModel, StrategyConfig};

use super::load::{Measured, Place, run};
use super::model::{Costs, fit};
use super::report::{Curve, CurvePoint, Row, StrategiesReport, Wanted};
use super::{Load, Scenario, batch_of, floor};
use crate::report::{count, whole};

/// Batches of the sweep.
const SWEEP: [usize; 7] = [1, 2, 5, 10, 25, 50, 100];
/// Hot parties of the per-position rows, and of the one without batches: as many as keep the ledger busy.
const POSITIONS: usize = 128;
const POSITIONS_UNBATCHED: usize = 512;
/// Batches of bookkeeping that are kept full at once: as many as the fastest pool of shards has.
const BOOKED: usize = 16;
/// In flight per party and batch: one is settled while the next is proposed, and one waits.
const AHEAD: usize = 4;
/// Most in flight: a second of what the fastest ledger carries.
const IN_FLIGHT_MAX: usize = 40_000;
/// Share of the peak rate at which latency is measured.
const LATENCY_AT_PERCENT: u32 = 70;

/// What is measured.
#[derive(Debug, Clone)]
pub struct NativeOptions {
    /// The measured part of each run.
    pub length: Duration,
    /// Left out of every figure.
    pub warm_up: Duration,
    /// The strategies to measure besides the sweep, over one hot party unless they are `per-position`.
    pub strategies: Vec<StrategyConfig>,
    /// Whether costs are fitted first.
    pub sweep: bool,
}

/// What is measured unless it is told otherwise.
#[must_use]
pub fn strategies() -> Vec<StrategyConfig> {
    let texts = [
        "serial",
        "batching:200",
        "per-position:1",
        "per-position:50",
        "bookkeeping:1",
        "bookkeeping:50",
        "bookkeeping:200",
        "shards:1:50",
        "shards:4:1",
        "shards:4:50",
        "shards:4:200",
        "shards:16:1",
        "shards:16:50",
        "shards:16:200",
        "shards:64:1",
        "shards:64:50",
        "shards:256:1",
        "p99:64:1",
        "p99:64:50",
        "command",
    ];
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}

/// Who looks on.
pub trait Onlooker: Sync {
    /// A run begins: which, and of how many.
    fn begins(&self, name: &str, number: usize, of: usize);
}

/// The strategy of each constraint that carried most so far.
#[derive(Debug, Clone)]
pub struct Best {
    /// Which constraint.
    pub constraint: &'static str,
    /// How.
    pub strategy: StrategyConfig,
    /// What it carried.
    pub peak: Measured,
}

const CONSTRAINTS: [&str; 2] = ["one position with constraints", "one position under a grant"];

/// The runs of native mode. Each part is told the ledger that it runs on.
pub struct Native<'a> {
    options: &'a NativeOptions,
    onlooker: &'a dyn Onlooker,
    report: &'a mut StrategiesReport,
    costs: Option<Costs>,
    best: [Option<Best>; CONSTRAINTS.len()],
    begun: usize,
    of: usize,
}

impl std::fmt::Debug for Native<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Native").field("begun", &self.begun).field("of", &self.of).finish_non_exhaustive()
    }
}

impl<'a> Native<'a> {
    /// Nothing has run yet.
    #[must_use]
    pub fn new(options: &'a NativeOptions, onlooker: &'a dyn Onlooker, report: &'a mut StrategiesReport) -> Self {
        let swept = if options.sweep { 2 * SWEEP.len() } else { 0 };
        let of = swept + options.strategies.len() + CONSTRAINTS.len();
        Self { options, onlooker, report, costs: None, best: [const { None }; CONSTRAINTS.len()], begun: 0, of }
    }

    /// The report as it is.
    pub fn report(&mut self) -> &mut StrategiesReport {
        self.report
    }

    /// The fastest strategies so far, of each constraint one.
    #[must_use]
    pub fn best(&self) -> Vec<Best> {
        self.best.iter().flatten().cloned().collect()
    }

    async fn measure(&mut self, place: &Place, scenario: &Scenario) -> Result<Measured, floor::FloorFault> {
        self.begun += 1;
        self.onlooker.begins(&scenario.name, self.begun, self.of);
        let measured = run(place, scenario).await?;
        self.report.add(measured.clone());
        Ok(measured)
    }

    fn closed(&self, in_flight: usize) -> Load {
        Load::Closed { in_flight, warm_up: self.options.warm_up, length: self.options.length }
    }

    /// Batches of every size, one after another on one position and on as many positions as keep the ledger busy. What
    /// follows is predicted by what it costs.
    ///
    /// # Errors
    /// Where a scenario cannot begin.
    pub async fn sweep(&mut self, place: &Place) -> Result<(), floor::FloorFault> {
        let (mut alone, mut busy) = (Vec::new(), Vec::new());
        for batch in SWEEP {
            let strategy = StrategyConfig::PerPosition { batch, linger: Duration::from_millis(1) };
            let one = Scenario::new(
                format!("sweep: one position, batches of {batch}"),
                strategy.clone(),
                self.closed(in_flight(&strategy, 1)),
            );
            alone.push((batch, self.measure(place, &one).await?.settlements_per_second));
            let name = format!("sweep: {POSITIONS} positions, batches of {batch}");
            let load = self.closed(in_flight(&strategy, POSITIONS));
            let many = Scenario::new(name, strategy, load).with_parties(POSITIONS);
            busy.push((batch, self.measure(place, &many).await?.settlements_per_second));
        }
        let costs = fit(&alone, &busy);
        self.report.fitted = costs;
        let Some(costs) = costs else {
            self.report.remarks.push("no line fits the sweep: nothing is predicted".to_owned());
            return Ok(());
        };
        self.costs = Some(costs);
        let label = "fitted costs";
        for (figure, unit, value) in [
            ("fixed_tx: latency of a transaction", "ms", costs.latency_fixed * 1e3),
            ("var_tx: latency that a settlement adds", "ms", costs.latency_per_settlement * 1e3),
            ("max_throughput: transactions that settle nothing", "1/s", 1.0 / costs.work_fixed),
            ("work of a settlement, in transactions", "", costs.work_per_settlement / costs.work_fixed),
        ] {
            self.report.rows.push(Row::alone(label, figure, unit, value));
        }
        self.curve("Batches one after another on one position", &alone, |batch| costs.one_after_another(batch));
        self.curve("Batches on many positions", &busy, |batch| costs.capacity(batch));
        Ok(())
    }

    fn curve(&mut self, title: &str, measured: &[(usize, f64)], model: impl Fn(usize) -> f64) {
        let point = |(batch, measured): &(usize, f64)| CurvePoint {
            at: count(*batch),
            model: Some(model(*batch)),
            measured: *measured,
        };
        self.report.curves.push(Curve {
            title: title.to_owned(),
            along: "settlements per transaction".to_owned(),
            value: "settlements per second".to_owned(),
            points: measured.iter().map(point).collect(),
        });
    }

    /// One strategy as fast as it goes.
    ///
    /// # Errors
    /// Where the scenario cannot begin.
    pub async fn strategy(&mut self, place: &Place, strategy: &StrategyConfig) -> Result<(), floor::FloorFault> {
        let parties = match strategy {
            StrategyConfig::PerPosition { batch: 1, .. } => POSITIONS_UNBATCHED,
            StrategyConfig::PerPosition { .. } => POSITIONS,
            StrategyConfig::Naive
            | StrategyConfig::Serial
            | StrategyConfig::Split { .. }
            | StrategyConfig::Command
            | StrategyConfig::Batching { .. }
            | StrategyConfig::Bookkeeping { .. }
            | StrategyConfig::Shards { .. }
            | StrategyConfig::P99 { .. } => 1,
        };
        let in_flight = in_flight(strategy, parties);
        let scenario =
            Scenario::new(strategy.to_string(), strategy.clone(), self.closed(in_flight)).with_parties(parties);
        let measured = self.measure(place, &scenario).await?;
        let (label, rate) = (strategy.to_string(), measured.settlements_per_second);
        match self.costs.as_ref().and_then(|costs| costs.rate(strategy, parties)) {
            Some(predicted) => {
                self.report.rows.push(Row::new(
                    &label,
                    "throughput, predicted by the fit",
                    "1/s",
                    Wanted::Beside,
                    predicted,
                    rate,
                ));
            }
            None => self.report.rows.push(Row::alone(&label, "throughput", "1/s", rate)),
        }
        if let Some(model) = Costs::from(CostModel::DOCUMENT).rate(strategy, parties) {
            self.report.rows.push(Row::new(&label, "throughput, by the document", "1/s", Wanted::Beside, model, rate));
        }
        // in a closed loop the mean latency is what is in flight by the rate, whatever the strategy does
        self.report.rows.push(Row::alone(&label, "in flight, closed loop", "", count(in_flight)));
        self.report.rows.push(Row::alone(&label, "settlement latency p50, closed loop", "ms", measured.latency_ms.p50));
        self.report.rows.push(Row::alone(&label, "settlement latency p99, closed loop", "ms", measured.latency_ms.p99));
        self.report.rows.push(Row::new(
            &label,
            "wasted share of the order",
            "",
            Wanted::AtMost,
            0.01,
            measured.wasted_share,
        ));
        let kind = match strategy {
            StrategyConfig::Bookkeeping { .. } => Some(1),
            StrategyConfig::Batching { .. } | StrategyConfig::Shards { .. } | StrategyConfig::P99 { .. } => Some(0),
            StrategyConfig::Naive
            | StrategyConfig::Serial
            | StrategyConfig::PerPosition { .. }
            | StrategyConfig::Split { .. }
            | StrategyConfig::Command => None,
        };
        let best = kind.and_then(|kind| Some((CONSTRAINTS.get(kind)?, self.best.get_mut(kind)?)));
        if let Some((constraint, best)) = best
            && best.as_ref().is_none_or(|best| best.peak.settlements_per_second < rate)
        {
            *best = Some(Best { constraint, strategy: strategy.clone(), peak: measured });
        }
        Ok(())
    }

    /// How long settlements take where less is offered than a strategy carried.
    ///
    /// # Errors
    /// Where the scenario cannot begin.
    pub async fn latency(&mut self, place: &Place, best: &Best) -> Result<(), floor::FloorFault> {
        let Best { constraint, strategy, peak } = best;
        let rate = whole(peak.settlements_per_second * f64::from(LATENCY_AT_PERCENT) / 100.0);
        let rate = u32::try_from(rate).unwrap_or(u32::MAX).max(1);
        let (warm_up, length) = (self.options.warm_up, self.options.length);
        let name = format!("{strategy} at {LATENCY_AT_PERCENT} % of its peak");
        let scenario = Scenario::new(name, strategy.clone(), Load::Open { rate, warm_up, length });
        let measured = self.measure(place, &scenario).await?;
        let label = format!("best on {constraint}: {strategy}");
        self.report.rows.push(Row::alone(&label, "peak throughput", "1/s", peak.settlements_per_second));
        let rate = measured.settlements_per_second;
        self.report.rows.push(Row::alone(&label, format!("throughput at {LATENCY_AT_PERCENT} %"), "1/s", rate));
        let latency = measured.latency_ms;
        for (name, value) in [("p50", latency.p50), ("p95", latency.p95), ("p99", latency.p99)] {
            let figure = format!("settlement latency {name} at {LATENCY_AT_PERCENT} %");
            self.report.rows.push(Row::alone(&label, figure, "ms", value));
        }
        Ok(())
    }
}

/// Settlements in flight of a closed loop: as many as keep every transaction that the strategy can have under way full.
fn in_flight(strategy: &StrategyConfig, parties: usize) -> usize {
    let lanes = match strategy {
        StrategyConfig::Shards { target, .. } | StrategyConfig::P99 { target, .. } => *target,
        // nothing bounds what is under way: more would only wait in the nodes
        StrategyConfig::Bookkeeping { batch, .. } => (POSITIONS / (*batch).max(1)).max(BOOKED),
        StrategyConfig::Command => POSITIONS,
        StrategyConfig::Naive
        | StrategyConfig::Serial
        | StrategyConfig::Batching { .. }
        | StrategyConfig::PerPosition { .. }
        | StrategyConfig::Split { .. } => 1,
    };
    let each = AHEAD.saturating_mul(batch_of(strategy));
    each.saturating_mul(lanes).saturating_mul(parties).min(IN_FLIGHT_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_strategy_that_can_be_named_has_a_bounded_load_and_a_predicted_rate() {
        let costs = Costs::from(CostModel::DOCUMENT);
        let most = usize::MAX;
        for (text, load) in [
            ("serial".to_owned(), 4),
            ("shards:16:50".to_owned(), 3_200),
            ("bookkeeping:1".to_owned(), 512),
            ("bookkeeping:50".to_owned(), 3_200),
            (format!("batching:{most}"), IN_FLIGHT_MAX),
            (format!("shards:{most}:{most}"), IN_FLIGHT_MAX),
            (format!("p99:{most}:1"), IN_FLIGHT_MAX),
        ] {
            let strategy: StrategyConfig = text.parse().expect("a strategy");
            assert_eq!(in_flight(&strategy, 1), load, "{text}");
            let rate = costs.rate(&strategy, POSITIONS).expect("the model says");
            assert!(rate.is_finite() && rate > 0.0, "{text}: {rate}");
        }
    }
}
