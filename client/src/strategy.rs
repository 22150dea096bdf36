//! Contention strategies: how a party settles many times at once from one position, behind one interface.
//!
//! ```text
//! Request ─► Strategy ─► positions drawn and claimed ─► transactions ─► Settled
//! ```
//! A trader's code makes [`Request`]s and awaits what becomes of them; which positions pay, how many requests share a
//! transaction and how many transactions are under way is the strategy's matter, chosen by a [`StrategyConfig`]. docs/
//! strategies.md says which to choose.
//!
//! Invariants:
//! 1. Every request is told once what became of it, and nothing happened unless it is told so, [`Unsettled::Unknown`]
//!    excepted.
//! 2. What one transaction claims no other one of the same strategy uses ([`StrategyConfig::Naive`] excepted); a claim
//!    ends with its transaction's outcome, whatever it is.
//! 3. A transaction that lost a race is never sent again: its requests travel in a new one with other positions, a bounded
//!    number of times, after pauses with jitter.
//!
//! A strategy acts for one key and expects to be the only one that spends that party's positions; where it is not, it
//! loses races, and goes on. Deliberately absent: finding proposals (a [`crate::Wallet`] shows them), and prices.

mod model;
mod plan;
mod request;
mod metrics;
mod outbox;
mod funds;
mod sizes;
mod drawing;
mod attempt;
mod engine;
mod intake;
mod split;
mod command;
mod config;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use ledger::AssetType;
use proto::Problem;
use tokio::sync::Semaphore;

use crate::client::Client;
use crate::key::Key;
use crate::submitter::{Submitter, SubmitterOptions};

use attempt::Desk;
use drawing::{Drawing, SizedPool};
use engine::{Engine, EngineOptions, Merging, SharedFunds};
use intake::Intake;
use metrics::Counters;
use sizes::SizeEstimate;

pub use command::CoSigner;
pub use config::{StrategyConfig, StrategyConfigFault};
pub use funds::Stock;
pub use metrics::Metrics;
pub use model::{Cost, CostModel, CostModelFault, WorkClock};
pub use outbox::{Outbox, OutboxFault};
pub use plan::{PlanBounds, SplitPlan};
pub use request::{Request, Settled, Settlement, Unsettled};

/// Transactions of one queue under way at once, where nothing else bounds them: more would only wait in the node.
const OPEN_MAX: usize = 4_096;

/// Positions beyond those that a strategy keeps, at which they are merged aside. Of an asset that only comes in there is no
/// request that would merge them in passing.
const PILE: usize = 100;

/// Requests that may be open where nothing else is said: what the fastest ledger settles in ten seconds, about a kilobyte each.
const REQUESTS_MAX: usize = 262_144;

/// A way to settle. Dropping the last handle lets it finish what it has taken in.
pub trait Strategy: Send + Sync + Debug + 'static {
    /// Takes a request in. What becomes of it is told by the returned future; dropping that changes nothing.
    fn settle(&self, request: Request) -> Settlement;

    /// The party's positions as the strategy sees them, free and claimed, by asset.
    fn stocks(&self) -> BTreeMap<AssetType, Stock>;

    /// What it has done so far.
    fn metrics(&self) -> Metrics;
}

/// What all strategies have in common.
#[derive(Debug, Clone)]
pub struct StrategyOptions {
    /// Requests that may be open: taken in, and not told yet. One more fails at once, as [`Unsettled::TooManyOpen`].
    pub requests_max: usize,
    /// How often a request travels again after a lost race before it fails.
    pub retries_max: u32,
    /// How long a request waits for positions that other transactions have claimed, before it fails as locked.
    pub patience: Duration,
    /// How often the ledger is read for what others did to this party's positions. It is read besides whenever a request
    /// finds too little, or a race is lost.
    pub refresh_every: Duration,
    /// Keeps transactions on their way, so that a later process finds out about them; without it they are not kept.
    pub outbox: Option<Outbox>,
    /// Bounds of the pipeline to the nodes.
    pub submitter: SubmitterOptions,
    /// Who gives the other payers' signatures, for [`StrategyConfig::Command`].
    pub co_signer: Option<Arc<dyn CoSigner>>,
    /// What plans are made by, for [`StrategyConfig::Split`].
    pub cost_model: CostModel,
}

impl Default for StrategyOptions {
    /// Eight rebuilds outlast any burst of lost races; half a minute is the client's own deadline.
    fn default() -> Self {
        Self {
            requests_max: REQUESTS_MAX,
            retries_max: 8,
            patience: Duration::from_secs(30),
            refresh_every: Duration::from_secs(15),
            outbox: None,
            submitter: SubmitterOptions::default(),
            co_signer: None,
            cost_model: CostModel::DOCUMENT,
        }
    }
}

impl StrategyOptions {
    /// A place for each request that may be open.
    fn window(&self) -> Arc<Semaphore> {
        Arc::new(Semaphore::new(self.requests_max.min(Semaphore::MAX_PERMITS)))
    }
}

/// Why a strategy cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenFault {
    /// No node answers.
    #[error(transparent)]
    Problem(#[from] Problem),
    /// The outbox cannot be read.
    #[error(transparent)]
    Outbox(#[from] OutboxFault),
    /// It needs somebody who gives the other payers' signatures.
    #[error("the command lane needs a co-signer: every payer signs a command")]
    NoCoSigner,
}

/// Opens a strategy for a key. Transactions that an earlier process left in the outbox are resolved first.
///
/// # Errors
/// Where no node answers in time, or the outbox cannot be read.
pub async fn open(
    client: &Client,
    key: Key,
    config: &StrategyConfig,
    options: &StrategyOptions,
) -> Result<Arc<dyn Strategy>, OpenFault> {
    if let Some(outbox) = &options.outbox {
        for (transaction, outcome) in outbox.recover(client).await? {
            tracing::info!(%transaction, committed = outcome.is_committed(), "a transaction of an earlier process");
        }
    }
    let desk = Arc::new(Desk {
        client: client.clone(),
        submitter: Submitter::start(client, options.submitter),
        key,
        outbox: options.outbox.clone(),
        counters: Counters::default(),
    });
    let keeping = |keep: usize| Some(Merging { at: keep.saturating_add(PILE), keep });
    let one_by_one = EngineOptions {
        batch_max: 1,
        linger: Duration::ZERO,
        open_max: 1,
        by_asset: false,
        merging: keeping(1),
        retries_max: options.retries_max,
        patience: options.patience,
        refresh_every: options.refresh_every,
    };
    let batched = |batch: usize, linger: Duration| EngineOptions { batch_max: batch.max(1), linger, ..one_by_one };
    let many = |batch, linger| EngineOptions { open_max: OPEN_MAX, by_asset: true, ..batched(batch, linger) };
    let (drawing, engine) = match config {
        StrategyConfig::Command => {
            let co_signer = options.co_signer.clone().ok_or(OpenFault::NoCoSigner)?;
            return Ok(Arc::new(command::CommandLane::new(desk, co_signer, options)));
        }
        StrategyConfig::Split { plan, gather } => {
            let planner = split::Planner { plan: plan.clone(), model: options.cost_model, gather: *gather };
            return Ok(Arc::new(split::open(desk, planner, options).await?));
        }
        StrategyConfig::Naive => {
            (Drawing::Unclaimed, EngineOptions { retries_max: 0, merging: None, ..many(1, Duration::ZERO) })
        }
        StrategyConfig::Serial => (Drawing::Everything, one_by_one),
        StrategyConfig::Batching { batch, linger } => (Drawing::Everything, batched(*batch, *linger)),
        StrategyConfig::PerPosition { batch, linger } => {
            (Drawing::Everything, EngineOptions { by_asset: true, ..batched(*batch, *linger) })
        }
        StrategyConfig::Bookkeeping { batch, linger, net_at } => {
            let merging = Some(Merging { at: *net_at, keep: 0 });
            (Drawing::Bookkeeping, EngineOptions { merging, ..many(*batch, *linger) })
        }
        StrategyConfig::Shards { target, batch, linger } => {
            let engine = EngineOptions { merging: keeping(*target), ..many(*batch, *linger) };
            (Drawing::Shards { target: *target }, engine)
        }
        StrategyConfig::P99 { target, batch, linger } => {
            let pool = SizedPool { target: *target, sizes: SizeEstimate::new() };
            (Drawing::Sized(pool), EngineOptions { merging: keeping(*target), ..many(*batch, *linger) })
        }
    };
    let funds = SharedFunds::default();
    let engine = Engine::open(Arc::clone(&desk), drawing, engine, funds.clone()).await?;
    let (intake, arrivals) = Intake::open(desk, funds, options);
    drop(seams::tasks::spawn(engine.run(arrivals)));
    Ok(Arc::new(intake))
}
