//! The parties of a scenario, endowed: hot ones whose stock is sold, and a counterparty that buys for cash.

use std::sync::Arc;
use std::time::Duration;

use client::strategy::{CoSigner, OpenFault, Request, Strategy, StrategyConfig, StrategyOptions, Unsettled, open};
use client::{Client, ConfigurationFault, Key, Outcome, Prepared, Proposal, SubmitterOptions};
use futures::FutureExt;
use futures::future::BoxFuture;
use ledger::{AssetType, Leg, Party, Quantity, Terms, TransactionId};
use proto::Problem;

use super::Scenario;
use super::load::Place;
use crate::party::key_of;
use crate::trade::TradeFault;

/// What each hot party begins with.
const HOLDING: i128 = 1_000_000_000_000;
/// What the counterparty begins with: one position, which it keeps.
const CASH: i128 = 1_000_000;
/// How long allocations last.
const ALLOCATION_MS: u64 = 3_600_000;
/// Parties of one issuing transaction.
const ISSUED_TO: usize = 200;
/// How long the first proposal of a batch waits for others.
const PROPOSALS_LINGER: Duration = Duration::from_millis(10);
/// Requests wait as long as a run takes: what is measured is how long.
const PATIENCE: Duration = Duration::from_secs(1_800);

/// Why a scenario cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum FloorFault {
    /// A client cannot be made.
    #[error(transparent)]
    Client(#[from] ConfigurationFault),
    /// The ledger does not take what comes before.
    #[error("before the load: {0}")]
    Trade(#[from] TradeFault),
    /// A strategy cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenFault),
    /// A proposal was not made.
    #[error("a proposal was not made: {0}")]
    Proposal(Unsettled),
}

impl From<Problem> for FloorFault {
    fn from(problem: Problem) -> Self {
        Self::Trade(TradeFault::Problem(problem))
    }
}

/// A hot party and its strategy.
#[derive(Debug, Clone)]
pub struct Seller {
    /// Who.
    pub party: Party,
    /// How it settles.
    pub strategy: Arc<dyn Strategy>,
}

/// Everybody, ready to trade.
#[derive(Debug)]
pub struct Floor {
    /// The client of the hot parties.
    pub client: Client,
    /// The hot parties.
    pub sellers: Vec<Seller>,
    /// The counterparty's strategy.
    pub buyer: Arc<dyn Strategy>,
    buyer_party: Party,
    /// What the hot parties sell.
    pub stock: AssetType,
    /// What they are paid in.
    pub cash: AssetType,
    /// What was issued.
    pub supply: Vec<(AssetType, Quantity)>,
    /// Transactions that were acknowledged so far.
    pub acknowledged: Vec<TransactionId>,
    commands: bool,
}

impl Floor {
    /// Endows the parties of a scenario, whose names `run` tells from those of others, and opens their strategies.
    ///
    /// # Errors
    /// Where the ledger does not take it.
    ///
    /// # Panics
    /// Never: the numbers of a workload fit.
    pub async fn open(place: &Place, scenario: &Scenario) -> Result<Self, FloorFault> {
        let Place { sellers, buyers, model, run, .. } = place;
        let name = &scenario.name;
        let issuer = key_of(*run, &format!("issuer of {name}"));
        let buyer = key_of(*run, &format!("buyer of {name}"));
        let keys: Vec<Key> =
            (0..scenario.parties.max(1)).map(|number| key_of(*run, &format!("seller {number} of {name}"))).collect();
        let asset = |symbol: &str| AssetType { issuer: issuer.party(), symbol: symbol.parse().expect("letters") };
        let (stock, cash) = (asset("STOCK"), asset("CASH"));
        let granted = matches!(scenario.strategy, StrategyConfig::Bookkeeping { .. });
        let mut acknowledged = Vec::new();
        let mut issue = sellers.begin().await?;
        issue.issue(cash, buyer.party(), Quantity::new(CASH)).grant(cash, buyer.party());
        acknowledged.push(commit(sellers, issue, &issuer).await?);
        for some in keys.chunks(ISSUED_TO) {
            let mut issue = sellers.begin().await?;
            for key in some {
                issue.issue(stock, key.party(), Quantity::new(HOLDING));
                if granted {
                    issue.grant(stock, key.party());
                }
            }
            acknowledged.push(commit(sellers, issue, &issuer).await?);
        }
        let co_signer: Arc<dyn CoSigner> = Arc::new(Signs(buyer));
        let options = StrategyOptions {
            patience: PATIENCE,
            refresh_every: PATIENCE,
            submitter: SubmitterOptions::default(),
            co_signer: Some(co_signer),
            cost_model: *model,
            ..StrategyOptions::default()
        };
        let mut opened = Vec::with_capacity(keys.len());
        for key in keys {
            let party = key.party();
            let strategy = open(sellers, key, &scenario.strategy, &options).await?;
            opened.push(Seller { party, strategy });
        }
        let linger = if scenario.proposals > 1 { PROPOSALS_LINGER } else { Duration::ZERO };
        let booked =
            StrategyConfig::Bookkeeping { batch: scenario.proposals, linger, net_at: place.counterparty_nets_at };
        let count = i128::try_from(opened.len()).expect("parties fit in memory");
        Ok(Self {
            client: sellers.clone(),
            sellers: opened,
            buyer_party: buyer.party(),
            buyer: open(buyers, buyer, &booked, &options).await?,
            stock,
            cash,
            supply: vec![(stock, Quantity::new(HOLDING * count)), (cash, Quantity::new(CASH))],
            acknowledged,
            commands: scenario.strategy == StrategyConfig::Command,
        })
    }

    /// The stock that a hot party began with.
    #[must_use]
    pub const fn holding() -> i128 {
        HOLDING
    }

    /// The terms by which this seller sells so much stock for one unit of cash.
    #[must_use]
    pub fn sale(&self, seller: &Seller, quantity: i128) -> Terms {
        let leg = |payer: Party, receiver: Party, asset: AssetType, units: i128| Leg {
            payer,
            receiver,
            asset,
            quantity: Quantity::new(units),
        };
        let legs = vec![
            leg(self.buyer_party, seller.party, self.cash, 1),
            leg(seller.party, self.buyer_party, self.stock, quantity),
        ];
        Terms { legs, nonce: self.client.nonce() }
    }

    /// The counterparty's proposal. For commands, which draw on positions, terms alone.
    ///
    /// # Errors
    /// Where the ledger does not take it.
    pub async fn propose(&self, seller: &Seller, quantity: i128) -> Result<Proposal, Unsettled> {
        let terms = self.sale(seller, quantity);
        if self.commands {
            return Ok(Proposal { terms, allocations: Vec::new() });
        }
        let expires_at = self.client.now().plus_millis(ALLOCATION_MS);
        let settled = self.buyer.settle(Request::Propose { terms, expires_at }).await?;
        settled.proposal.ok_or(Unsettled::NothingToFund)
    }

    /// Live positions of all hot parties, by their strategies.
    #[must_use]
    pub fn live_positions(&self) -> usize {
        let stocks = |seller: &Seller| seller.strategy.stocks().values().map(|stock| stock.positions()).sum::<usize>();
        self.sellers.iter().map(stocks).sum()
    }
}

async fn commit(client: &Client, builder: client::TransactionBuilder, key: &Key) -> Result<TransactionId, TradeFault> {
    let signed = builder.prepare()?.sign(key)?.finish()?;
    match client.submit(&signed).await {
        Outcome::Committed { record, .. } => Ok(record.transaction),
        other @ (Outcome::Rejected { .. } | Outcome::Refused { .. } | Outcome::Unknown { .. }) => {
            Err(TradeFault::NotCommitted("an issue", format!("{other:?}")))
        }
    }
}

/// Signs whatever it is shown.
#[derive(Debug)]
struct Signs(Key);

impl CoSigner for Signs {
    fn co_sign(&self, prepared: Prepared) -> BoxFuture<'static, Result<Prepared, Unsettled>> {
        let signed = prepared.sign(&self.0).map_err(Unsettled::from);
        async move { signed }.boxed()
    }
}
