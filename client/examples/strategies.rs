//! One holding, many settlements: the same trader's code with whatever strategy is named, on a ledger in the process that
//! takes as long as the settlement document's cost model says.
//!
//! ```text
//! cargo run --release -p client --example strategies -- serial batching:50 shards:20:1 shards:20:50
//! ```

use anyhow::{Context, ensure};
use client::strategy::{CostModel, Request, Settlement, Strategy, StrategyConfig, StrategyOptions, open};
use client::testkit::LocalLedger;
use client::{Account, Client, Key, Proposal};
use futures::future::join_all;
use ledger::{AssetType, Leg, Party, Quantity, Terms};
use tokio::time::Instant;

const SETTLEMENTS: usize = 100;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let named: Vec<String> = std::env::args().skip(1).collect();
    let strategies = if named.is_empty() { vec!["batching:50".to_owned(), "shards:20:1".to_owned()] } else { named };
    for text in strategies {
        let config: StrategyConfig = text.parse()?;
        let ledger = LocalLedger::with_costs("example", CostModel::DOCUMENT);
        let floor = Floor::open(&ledger.client()).await?;
        let trader = open(&floor.client, floor.trader, &config, &StrategyOptions::default()).await?;
        let proposals = floor.proposals().await?;
        let begun = Instant::now();
        let settled = settle_all(&*trader, proposals).await;
        let per_second = f64::from(u32::try_from(settled)?) / begun.elapsed().as_secs_f64();
        let sent = trader.metrics().transactions;
        println!("{text:<16} {settled} settlements in {sent} transactions, {per_second:.1}/s");
    }
    Ok(())
}

/// What a trader's code does; it does not know the strategy.
async fn settle_all(strategy: &dyn Strategy, proposals: Vec<Proposal>) -> usize {
    let pending: Vec<Settlement> =
        proposals.into_iter().map(|proposal| strategy.settle(Request::Settle(proposal))).collect();
    let outcomes = join_all(pending).await;
    for fault in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
        println!("not settled: {fault}");
    }
    outcomes.iter().flatten().count()
}

/// A trader with stock, and somebody who wants to buy it.
struct Floor {
    client: Client,
    trader: Key,
    buyer: Key,
    stock: AssetType,
    cash: AssetType,
}

impl Floor {
    async fn open(client: &Client) -> anyhow::Result<Self> {
        let bank = Account::open(client, Key::generate(&seams::OsEntropy)).await?;
        let (trader, buyer) = (Key::generate(&seams::OsEntropy), Key::generate(&seams::OsEntropy));
        let (stock, cash) = (bank.asset("STOCK".parse()?), bank.asset("CASH".parse()?));
        for (asset, owner) in [(stock, trader.party()), (cash, buyer.party())] {
            let issued = bank.issue(asset.symbol, owner, Quantity::new(1_000_000)).await?;
            ensure!(issued.is_committed(), "{issued:?}");
        }
        Ok(Self { client: client.clone(), trader, buyer, stock, cash })
    }

    /// The buyer's proposals, through a strategy of its own.
    async fn proposals(&self) -> anyhow::Result<Vec<Proposal>> {
        let config = "per-position:50".parse()?;
        let buyer = open(&self.client, self.buyer, &config, &StrategyOptions::default()).await?;
        let expires_at = self.client.now().plus_millis(600_000);
        let propose = |_| buyer.settle(Request::Propose { terms: self.terms(), expires_at });
        let pending: Vec<Settlement> = (0..SETTLEMENTS).map(propose).collect();
        let proposed = join_all(pending).await;
        proposed.into_iter().map(|settled| settled?.proposal.context("a proposal was made")).collect()
    }

    fn terms(&self) -> Terms {
        let leg = |payer: Party, receiver: Party, asset: AssetType, units: i128| Leg {
            payer,
            receiver,
            asset,
            quantity: Quantity::new(units),
        };
        let (trader, buyer) = (self.trader.party(), self.buyer.party());
        let legs = vec![leg(buyer, trader, self.cash, 30), leg(trader, buyer, self.stock, 2)];
        Terms { legs, nonce: self.client.nonce() }
    }
}
