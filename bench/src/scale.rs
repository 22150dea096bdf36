//! A sweep: how rate and latency change with the offered load, with nodes and with validators.

use std::time::Duration;

use serde::Serialize;

use crate::report::Report;

/// Offered loads, in percent of what a closed loop reaches.
const OFFERED_PERCENT: [u32; 6] = [25, 50, 75, 100, 150, 200];
/// Voting nodes. An even number tolerates no more failures than the odd one below it.
const NODES: [u8; 5] = [1, 2, 3, 4, 5];
/// Validator processes; with none the nodes check transactions themselves.
const VALIDATORS: [u8; 5] = [0, 1, 2, 3, 4];

/// What a point of the sweep varies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Sweep {
    /// A closed loop: what the cluster can do.
    Capacity,
    /// An open loop at this part of the capacity.
    OfferedLoad {
        /// In percent.
        percent: u32,
    },
    /// Voting nodes, in a closed loop.
    Nodes,
    /// Validators, in a closed loop.
    Validators,
}

/// One run to be made, or made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// What it varies.
    pub sweep: Sweep,
    /// Voting nodes.
    pub nodes: u8,
    /// Validator processes.
    pub validators: u8,
}

/// One run with its figures.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Point {
    /// What it varies.
    pub sweep: Sweep,
    /// What it found.
    #[serde(flatten)]
    pub report: Report,
}

/// All runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Scale {
    /// What ran.
    pub workload: String,
    /// What the closed loop reached, in settlements per second.
    pub capacity_settlements_per_second: f64,
    /// One by one, in the order in which they ran.
    pub points: Vec<Point>,
}

/// The runs of a sweep around this cluster, its capacity first. The cluster itself runs once in a closed loop.
#[must_use]
pub fn steps(nodes: u8, validators: u8) -> Vec<Step> {
    let capacity = Step { sweep: Sweep::Capacity, nodes, validators };
    let offered = OFFERED_PERCENT.into_iter().map(|percent| Step { sweep: Sweep::OfferedLoad { percent }, ..capacity });
    let by_nodes = NODES.into_iter().map(|nodes| Step { sweep: Sweep::Nodes, nodes, validators });
    let by_validators = VALIDATORS.into_iter().map(|validators| Step { sweep: Sweep::Validators, nodes, validators });
    std::iter::once(capacity).chain(offered).chain(by_nodes).chain(by_validators).collect()
}

/// The settlements per second that are this part of what a run reached; at least one.
#[must_use]
pub fn rate(percent: u32, committed: u64, duration: Duration) -> u32 {
    let rate = u128::from(committed) * u128::from(percent) * 10 / duration.as_millis().max(1);
    u32::try_from(rate).unwrap_or(u32::MAX).max(1)
}

impl Scale {
    /// Nothing has run.
    #[must_use]
    pub fn new() -> Self {
        Self { workload: "bench scale".to_owned(), capacity_settlements_per_second: 0.0, points: Vec::new() }
    }

    /// Adds a run.
    pub fn push(&mut self, step: Step, report: Report) {
        if step.sweep == Sweep::Capacity {
            self.capacity_settlements_per_second = report.settlements_per_second;
        }
        self.points.push(Point { sweep: step.sweep, report });
    }

    /// What the cluster reached in a closed loop, where it has run.
    #[must_use]
    pub fn capacity(&self) -> Option<&Report> {
        self.points.iter().find(|point| point.sweep == Sweep::Capacity).map(|point| &point.report)
    }

    /// True where every run is good.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.points.iter().all(|point| point.report.is_good())
    }
}

impl Default for Scale {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_covers_twice_the_capacity_and_every_size() {
        let steps = steps(3, 1);
        assert_eq!(steps[0].sweep, Sweep::Capacity, "the rates depend on it");
        assert!(steps.iter().any(|step| step.sweep == Sweep::OfferedLoad { percent: 200 }));
        let sizes = |sweep, size: &dyn Fn(&Step) -> u8| -> Vec<u8> {
            steps.iter().filter(|step| step.sweep == sweep).map(size).collect()
        };
        assert_eq!(sizes(Sweep::Nodes, &|step| step.nodes), [1, 2, 3, 4, 5]);
        assert_eq!(sizes(Sweep::Validators, &|step| step.validators), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn a_rate_is_a_part_of_what_was_reached() {
        let seconds = Duration::from_secs(5);
        assert_eq!((rate(100, 10_000, seconds), rate(150, 10_000, seconds)), (2_000, 3_000));
        assert_eq!((rate(25, 0, seconds), rate(25, 1, seconds)), (1, 1), "a rate of nothing is no rate");
    }
}
