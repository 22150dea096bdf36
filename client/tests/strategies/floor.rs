//! A trading floor: one party whose position is hot, and counterparties that propose to it.

use std::sync::Arc;
use std::time::Duration;

use client::strategy::{
    CoSigner, CostModel, Request, Settled, Settlement, Strategy, StrategyConfig, StrategyOptions, Unsettled, open,
};
use client::testkit::{LocalLedger, LocalNode};
use client::{Account, Client, Key, Prepared, Proposal};
use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use ledger::{AssetType, Leg, Party, Quantity, Terms};
use tokio::time::Instant;

/// What the hot party begins with, of its asset.
pub(crate) const HOLDING: i128 = 1_000_000_000;
/// Proposals in one transaction.
const PROPOSALS: usize = 50;

pub(crate) struct Floor {
    pub(crate) ledger: LocalLedger,
    pub(crate) node: Arc<LocalNode>,
    pub(crate) client: Client,
    pub(crate) hot: Key,
    pub(crate) other: Key,
    pub(crate) stock: AssetType,
    pub(crate) cash: AssetType,
}

fn key(name: u8) -> Key {
    Key::from_seed([name; 32])
}

impl Floor {
    /// The hot party holds one position of stock, a counterparty much cash.
    pub(crate) async fn open(model: Option<CostModel>) -> Self {
        let ledger = model.map_or_else(|| LocalLedger::new("floor"), |model| LocalLedger::with_costs("floor", model));
        let node = ledger.node();
        let client = ledger.client_builder().node(node.clone()).deadline(Duration::from_secs(600)).connect().unwrap();
        let bank = Account::open(&client, key(1)).await.unwrap();
        let (hot, other) = (key(2), key(3));
        let (stock, cash) = (bank.asset("STOCK".parse().unwrap()), bank.asset("CASH".parse().unwrap()));
        for (asset, owner) in [(stock, &hot), (cash, &other)] {
            let issued = bank.issue(asset.symbol, owner.party(), Quantity::new(HOLDING)).await.unwrap();
            assert!(issued.is_committed(), "{issued:?}");
        }
        Self { ledger, node, client, hot, other, stock, cash }
    }

    pub(crate) async fn strategy(&self, config: &str) -> Arc<dyn Strategy> {
        self.strategy_with(&config.parse().unwrap(), StrategyOptions::default()).await
    }

    pub(crate) async fn strategy_with(&self, config: &StrategyConfig, options: StrategyOptions) -> Arc<dyn Strategy> {
        let co_signer: Arc<dyn CoSigner> = Arc::new(Signs(self.other));
        let options = StrategyOptions { co_signer: Some(co_signer), ..options };
        open(&self.client, self.hot, config, &options).await.unwrap()
    }

    /// The hot party sells `quantity` of stock for one of cash.
    pub(crate) fn sale(&self, quantity: i128) -> Terms {
        let (hot, other) = (self.hot.party(), self.other.party());
        let leg = |payer: Party, receiver: Party, asset: AssetType, units: i128| Leg {
            payer,
            receiver,
            asset,
            quantity: Quantity::new(units),
        };
        let legs = vec![leg(other, hot, self.cash, 1), leg(hot, other, self.stock, quantity)];
        Terms { legs, nonce: self.client.nonce() }
    }

    /// The hot party buys one of stock for so much cash.
    pub(crate) fn purchase(&self, cash: i128) -> Terms {
        let Terms { mut legs, nonce } = self.sale(1);
        for leg in &mut legs {
            std::mem::swap(&mut leg.payer, &mut leg.receiver);
            if leg.asset == self.cash {
                leg.quantity = Quantity::new(cash);
            }
        }
        Terms { legs, nonce }
    }

    /// Proposals of sales of these quantities, committed.
    pub(crate) async fn proposals(&self, quantities: &[i128]) -> Vec<Proposal> {
        let config = StrategyConfig::PerPosition { batch: PROPOSALS, linger: Duration::from_millis(1) };
        let proposer = open(&self.client, self.other, &config, &StrategyOptions::default()).await.unwrap();
        let expires_at = self.client.now().plus_millis(3_600_000);
        let pending = quantities
            .iter()
            .map(|quantity| proposer.settle(Request::Propose { terms: self.sale(*quantity), expires_at }));
        let pending: Vec<Settlement> = pending.collect();
        let done = join_all(pending).await;
        done.into_iter().map(|settled| settled.unwrap().proposal.unwrap()).collect()
    }

    /// Terms without any allocation, for commands.
    pub(crate) fn open_terms(&self, quantities: &[i128]) -> Vec<Proposal> {
        let open = |quantity: &i128| Proposal { terms: self.sale(*quantity), allocations: Vec::new() };
        quantities.iter().map(open).collect()
    }

    /// What live positions of the hot party add up to, by what the ledger says.
    pub(crate) async fn held(&self, party: Party, asset: AssetType) -> (i128, usize) {
        let mut after = None;
        let mut held = Vec::new();
        loop {
            let page =
                self.client.holdings(&party, after.as_ref(), 1_000, client::Consistency::Linearizable).await.unwrap();
            held.extend(page.outputs.iter().filter_map(|output| match &output.contract {
                ledger::Contract::Position(position) if position.asset == asset => {
                    Some(position.quantity.minor_units())
                }
                ledger::Contract::Position(_) | ledger::Contract::Grant(_) | ledger::Contract::Allocation(_) => None,
            }));
            after = page.next;
            if after.is_none() {
                return (held.iter().sum(), held.len());
            }
        }
    }
}

#[derive(Debug)]
struct Signs(Key);

impl CoSigner for Signs {
    fn co_sign(&self, prepared: Prepared) -> BoxFuture<'static, Result<Prepared, Unsettled>> {
        let signed = prepared.sign(&self.0).map_err(Unsettled::from);
        async move { signed }.boxed()
    }
}

/// All of them at once; what became of each, and how long it took until the last was told.
pub(crate) async fn all_at_once(
    strategy: &dyn Strategy,
    proposals: Vec<Proposal>,
) -> (Vec<Result<Settled, Unsettled>>, Duration) {
    let begun = Instant::now();
    let pending: Vec<Settlement> =
        proposals.into_iter().map(|proposal| strategy.settle(Request::Settle(proposal))).collect();
    let done = join_all(pending).await;
    (done, begun.elapsed())
}
