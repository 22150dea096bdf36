//! Settlements between many pairs of parties, each pair one after another and all pairs at once.
//!
//! A settlement is two signed transactions: the proposer locks what it pays (propose), and the counterparty accepts and
//! settles in one. The roles change with every settlement, and whoever acts merges its positions, so that the number of
//! live outputs stays the same however long it runs.
//!
//! In a closed loop every pair settles again as soon as it has settled. In an open loop settlements are due at a fixed
//! rate, and each takes a pair that is idle.

mod desk;
mod open_loop;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use client::{BuildFault, Client, Outcome, SignatureFault, Submitter, SubmitterOptions};
use futures::future::join_all;
use ledger::{AssetType, Quantity, TransactionId};
use proto::Problem;
use tokio::time::{Duration, Instant};

use crate::meter::Meter;
use crate::party::{created, key_of};
use crate::schedule::Schedule;

use desk::{Desk, PATIENCE, Pair};

/// What each party begins with, of its own asset.
const ENDOWMENT: i128 = 1_000_000_000_000;
/// Outputs of one issuing transaction.
const ISSUE_OUTPUTS: usize = 200;
/// Problems of single pairs that are told; one cause often stops many.
const PROBLEMS_MAX: usize = 20;

/// The shape of the workload.
#[derive(Debug, Clone)]
pub struct TradeOptions {
    /// Pairs that trade at once: settlements in flight.
    pub pairs: usize,
    /// Settlements per transaction.
    pub settlements_per_transaction: usize,
    /// True where one party stands on one side of every settlement.
    pub hot: bool,
    /// Names this run's parties.
    pub run: u64,
}

/// Why a workload cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum TradeFault {
    /// No node took a transaction in: nothing happened.
    #[error("no node takes it in: {0}")]
    Refused(Problem),
    /// No node answers.
    #[error("{0}")]
    Problem(#[from] Problem),
    /// A transaction cannot be built: a bug here.
    #[error(transparent)]
    Build(#[from] BuildFault),
    /// A transaction cannot be signed: a bug here.
    #[error(transparent)]
    Sign(#[from] SignatureFault),
    /// The ledger said no where it must not.
    #[error("{0} was not committed: {1}")]
    NotCommitted(&'static str, String),
}

/// The parties of a run, endowed and ready to trade.
#[derive(Debug)]
pub struct Market {
    options: TradeOptions,
    pairs: Vec<Pair>,
    assets: Vec<(AssetType, Quantity)>,
}

/// What a run leaves behind.
#[derive(Debug)]
pub struct Traded {
    /// Every transaction that was acknowledged as committed, issues included.
    pub acknowledged: Vec<TransactionId>,
    /// What was issued of each asset.
    pub supply: Vec<(AssetType, Quantity)>,
    /// Transactions whose outcome nobody knows.
    pub unknown: u64,
    /// What stopped single pairs.
    pub problems: Vec<String>,
    /// The measured time.
    pub elapsed: Duration,
}

impl TradeFault {
    /// Refused after a first part had happened: what is left half done is no refusal.
    fn halfway(self) -> Self {
        match self {
            Self::Refused(problem) => Self::Problem(problem),
            other @ (Self::Problem(_) | Self::Build(_) | Self::Sign(_) | Self::NotCommitted(..)) => other,
        }
    }
}

impl Market {
    /// Issues two assets to all parties.
    ///
    /// # Errors
    /// Where the ledger does not take it.
    ///
    /// # Panics
    /// Never: the numbers of a workload fit.
    pub async fn open(client: &Client, options: TradeOptions) -> Result<Self, TradeFault> {
        let issuers = [key_of(options.run, "issuer of cash"), key_of(options.run, "issuer of bonds")];
        let symbols = ["CASH", "BOND"];
        let assets = [0, 1].map(|side: usize| AssetType {
            issuer: issuers[side].party(),
            symbol: symbols[side].parse().expect("letters"),
        });
        let mut pairs: Vec<Pair> = (0..options.pairs).map(|pair| Pair::new(&options, pair)).collect();
        let mut acknowledged = Vec::new();
        for (side, issuer) in issuers.iter().enumerate() {
            for chunk in pairs.chunks_mut(ISSUE_OUTPUTS) {
                let mut builder = client.begin().await?;
                for pair in chunk.iter() {
                    builder.issue(assets[side], pair.sides[side].key.party(), Quantity::new(ENDOWMENT));
                }
                let transaction = builder.prepare()?.sign(issuer)?.finish()?;
                let outcome = client.submit(&transaction).await;
                let Outcome::Committed { record, .. } = outcome else {
                    return Err(TradeFault::NotCommitted("an issue", format!("{outcome:?}")));
                };
                acknowledged.push(transaction.id());
                for (pair, output) in chunk.iter_mut().zip(created(&transaction, &record)) {
                    pair.sides[side].positions[side].push(output);
                }
            }
        }
        if let Some(first) = pairs.first_mut() {
            first.acknowledged.append(&mut acknowledged);
        }
        let count = i128::try_from(options.pairs).expect("pairs fit in memory");
        let supply = Quantity::new(ENDOWMENT * count);
        Ok(Self { options, pairs, assets: assets.map(|asset| (asset, supply)).to_vec() })
    }

    /// Closed loop: every pair settles one settlement after another until the flag is set.
    pub async fn trade(self, connections: &[Client], meter: Arc<Meter>, stop: Arc<AtomicBool>) -> Traded {
        let begun = Instant::now();
        let (desks, mut traded) = self.desks(connections, &meter);
        let workers = self.pairs.into_iter().enumerate().map(|(number, mut pair)| {
            let (desk, stop) = (Arc::clone(&desks[number % desks.len()]), Arc::clone(&stop));
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    if let Err(fault) = desk.settle_once(&mut pair, Instant::now(), PATIENCE).await {
                        return (pair, Some(fault));
                    }
                }
                (pair, None)
            })
        });
        for worker in join_all(workers).await {
            match worker {
                Ok((mut pair, fault)) => {
                    traded.acknowledged.append(&mut pair.acknowledged);
                    fault.into_iter().for_each(|fault| traded.note(&fault));
                }
                Err(panic) => traded.note(&panic),
            }
        }
        traded.finish(begun, &desks)
    }

    /// Open loop: settlements are due by `schedule` from `begin` for `length`, whatever the ledger does. Each takes an
    /// idle pair; what finds none in time, or is refused, is counted as pushed back.
    pub async fn trade_at(
        self,
        connections: &[Client],
        meter: Arc<Meter>,
        schedule: Schedule,
        begin: Instant,
        length: Duration,
    ) -> Traded {
        let (desks, mut traded) = self.desks(connections, &meter);
        open_loop::run(self.pairs, &desks, schedule, begin, length, &mut traded).await;
        traded.finish(begin, &desks)
    }

    /// One desk per connection, and what there is to tell before trading.
    fn desks(&self, connections: &[Client], meter: &Arc<Meter>) -> (Vec<Arc<Desk>>, Traded) {
        let unknown = Arc::new(AtomicU64::new(0));
        let desk = |client: &Client| {
            Arc::new(Desk {
                client: client.clone(),
                submitter: Submitter::start(client, SubmitterOptions::default()),
                meter: Arc::clone(meter),
                assets: [self.assets[0].0, self.assets[1].0],
                settlements: self.options.settlements_per_transaction,
                unknown: Arc::clone(&unknown),
            })
        };
        let supply = self.assets.clone();
        let traded =
            Traded { acknowledged: Vec::new(), supply, unknown: 0, problems: Vec::new(), elapsed: Duration::ZERO };
        (connections.iter().map(desk).collect(), traded)
    }
}

impl Traded {
    fn note(&mut self, problem: &dyn std::fmt::Display) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(problem.to_string());
        }
    }

    fn finish(mut self, begun: Instant, desks: &[Arc<Desk>]) -> Self {
        self.elapsed = begun.elapsed();
        self.unknown = desks.first().map_or(0, |desk| desk.unknown.load(Ordering::Relaxed));
        self
    }
}
