//! The client's contention strategies, measured: on a cluster that keeps to the settlement document's cost model
//! (calibrated: the strategies do what the document says of them), and on one that is as fast as it is (native: what users
//! get).
//!
//! ```text
//! Scenario ─► Floor (parties, endowed) ─► load ─► Measured ─► Row (model beside measured) ─► StrategiesReport
//! ```
//! A settlement is a proposal, which locks the counterparty's cash, and a transaction of the hot party that accepts and
//! settles. The counterparty books under a grant, so that proposals never limit what is measured.

pub mod sizes;
pub mod floor;
pub mod load;
pub mod model;
pub mod report;
pub mod calibrated;
pub mod native;

use std::time::Duration;

use client::strategy::StrategyConfig;

use sizes::Sizes;

/// One measurement.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// What tells it from others.
    pub name: String,
    /// The strategy under test.
    pub strategy: StrategyConfig,
    /// Hot parties, each with one position and a strategy of its own, that share the load.
    pub parties: usize,
    /// Proposals of one transaction.
    pub proposals: usize,
    /// When requests come.
    pub load: Load,
    /// How much stock each settlement sells.
    pub sizes: Sizes,
}

/// When requests come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Load {
    /// This many at once, their proposals made before.
    Burst {
        /// How many.
        count: usize,
    },
    /// So many in flight: each is proposed and settled, then the next one.
    Closed {
        /// How many.
        in_flight: usize,
        /// Left out of every figure.
        warm_up: Duration,
        /// What is measured.
        length: Duration,
    },
    /// At a fixed rate, whatever becomes of them.
    Open {
        /// Settlements per second.
        rate: u32,
        /// Left out of every figure.
        warm_up: Duration,
        /// What is measured.
        length: Duration,
    },
}

impl Scenario {
    /// One hot party, sales of one unit, proposals in batches as large as the strategy's.
    #[must_use]
    pub fn new(name: impl Into<String>, strategy: StrategyConfig, load: Load) -> Self {
        let proposals = batch_of(&strategy);
        Self { name: name.into(), strategy, parties: 1, proposals, load, sizes: Sizes::One }
    }

    /// The same with so many hot parties.
    #[must_use]
    pub fn with_parties(self, parties: usize) -> Self {
        Self { parties, ..self }
    }

    /// The same with other sizes.
    #[must_use]
    pub fn with_sizes(self, sizes: Sizes) -> Self {
        Self { sizes, ..self }
    }

    /// The same where proposals travel in batches of this size.
    #[must_use]
    pub fn with_proposals(self, proposals: usize) -> Self {
        Self { proposals, ..self }
    }
}

/// Requests that a strategy puts into one transaction.
#[must_use]
pub const fn batch_of(strategy: &StrategyConfig) -> usize {
    match strategy {
        StrategyConfig::Batching { batch, .. }
        | StrategyConfig::PerPosition { batch, .. }
        | StrategyConfig::Bookkeeping { batch, .. }
        | StrategyConfig::Shards { batch, .. }
        | StrategyConfig::P99 { batch, .. } => *batch,
        StrategyConfig::Naive | StrategyConfig::Serial | StrategyConfig::Split { .. } | StrategyConfig::Command => 1,
    }
}
