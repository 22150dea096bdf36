//! What a cost model predicts of a strategy, and a cost model fitted to a ledger that was measured.

use client::strategy::{CostModel, StrategyConfig};
use serde::Serialize;

use crate::line::Line;
use crate::report::count;

/// Costs in seconds; the document's model, or a fitted one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Costs {
    /// Latency of a transaction that settles nothing.
    pub latency_fixed: f64,
    /// Latency that each settlement adds.
    pub latency_per_settlement: f64,
    /// Time that the whole ledger is busy with a transaction that settles nothing.
    pub work_fixed: f64,
    /// Time that each settlement adds.
    pub work_per_settlement: f64,
    /// Time that one command is applied, if known.
    pub command: Option<f64>,
}

impl From<CostModel> for Costs {
    fn from(model: CostModel) -> Self {
        let processors = count(model.processors);
        Self {
            latency_fixed: model.latency_fixed.as_secs_f64(),
            latency_per_settlement: model.latency_per_settlement.as_secs_f64(),
            work_fixed: model.work_fixed.as_secs_f64() / processors,
            work_per_settlement: model.work_per_settlement.as_secs_f64() / processors,
            command: Some(model.command.as_secs_f64()),
        }
    }
}

impl Costs {
    /// Latency of a transaction with this many settlements, in seconds.
    #[must_use]
    pub fn latency(&self, settlements: usize) -> f64 {
        self.latency_fixed + self.latency_per_settlement * count(settlements)
    }

    /// Settlements per second of transactions on one position, one after another.
    #[must_use]
    pub fn one_after_another(&self, batch: usize) -> f64 {
        count(batch) / self.latency(batch)
    }

    /// Settlements per second that the ledger carries, proposals and settlements both in batches of this size.
    #[must_use]
    pub fn capacity(&self, batch: usize) -> f64 {
        let settlements = count(batch);
        settlements / (2.0 * self.work_fixed + self.work_per_settlement * settlements)
    }

    /// Settlements per second of a strategy over this many hot parties, if the model says.
    #[must_use]
    pub fn rate(&self, strategy: &StrategyConfig, parties: usize) -> Option<f64> {
        let lanes =
            |lanes: usize, batch: usize| (count(lanes) * self.one_after_another(batch)).min(self.capacity(batch));
        match strategy {
            StrategyConfig::Naive | StrategyConfig::Split { .. } => None,
            StrategyConfig::Serial => Some(lanes(parties, 1)),
            StrategyConfig::Batching { batch, .. } | StrategyConfig::PerPosition { batch, .. } => {
                Some(lanes(parties, *batch))
            }
            StrategyConfig::Bookkeeping { batch, .. } => Some(self.capacity(*batch)),
            StrategyConfig::Shards { target, batch, .. } | StrategyConfig::P99 { target, batch, .. } => {
                Some(lanes(parties.saturating_mul(*target), *batch))
            }
            StrategyConfig::Command => self.command.map(|command| 1.0 / command),
        }
    }
}

/// Fits costs to rates: of batches of N one after another on one position, and of batches of N that keep the ledger busy.
#[must_use]
pub fn fit(one_after_another: &[(usize, f64)], saturated: &[(usize, f64)]) -> Option<Costs> {
    let per_transaction = |rates: &[(usize, f64)]| {
        let point = |(batch, rate): &(usize, f64)| (count(*batch), count(*batch) / rate);
        rates.iter().map(point).collect::<Vec<_>>()
    };
    let latency = Line::through(&per_transaction(one_after_another))?;
    let work = Line::through(&per_transaction(saturated))?;
    Some(Costs {
        latency_fixed: latency.at_zero,
        latency_per_settlement: latency.slope,
        // a proposal and a settlement, each a transaction
        work_fixed: work.at_zero / 2.0,
        work_per_settlement: work.slope,
        command: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: CostModel = CostModel::DOCUMENT;

    fn near(found: f64, wanted: f64) {
        assert!((found / wanted - 1.0).abs() < 0.005, "{found}, not {wanted}");
    }

    #[test]
    fn the_documents_figures_follow_from_its_model() {
        let costs = Costs::from(DOCUMENT);
        let rate = |strategy: &str, parties| {
            costs.rate(&strategy.parse().expect("a strategy"), parties).expect("the model says")
        };
        near(rate("serial", 1), 3.85);
        near(rate("batching:50", 1), 66.7);
        near(rate("per-position:1", 256), 490.2);
        near(rate("per-position:50", 256), 12_500.0);
        near(rate("bookkeeping:50", 1), 12_500.0);
        near(rate("shards:100:1", 1), 384.6);
        near(rate("shards:100:50", 1), 6_667.0);
        near(rate("shards:128:1", 1), 490.2);
        near(rate("shards:188:50", 1), 12_500.0);
        near(rate("command", 1), 100.0);
    }

    #[test]
    fn a_fit_finds_the_model_that_made_the_figures() {
        let costs = Costs::from(DOCUMENT);
        let sizes = [1, 2, 5, 10, 25, 50, 100];
        let alone: Vec<_> = sizes.iter().map(|batch| (*batch, costs.one_after_another(*batch))).collect();
        let busy: Vec<_> = sizes.iter().map(|batch| (*batch, costs.capacity(*batch))).collect();
        let fitted = fit(&alone, &busy).expect("seven points");
        near(fitted.latency_fixed, 0.25);
        near(fitted.latency_per_settlement, 0.01);
        near(fitted.capacity(50), 12_500.0);
        assert_eq!(fit(&alone[..1], &busy), None, "one point is no line");
    }
}
