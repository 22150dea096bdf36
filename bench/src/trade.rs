//! Settlements between many pairs of parties, each pair one after another and all pairs at once.
//!
//! A settlement is two signed transactions: the proposer locks what it pays (propose), and the counterparty accepts and
//! settles in one. The roles change with every settlement, and whoever acts merges its positions, so that the number of
//! live outputs stays the same however long it runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use client::{BuildFault, Client, Key, Outcome, SignatureFault, SignedTransaction, Submitter, SubmitterOptions};
use futures::future::join_all;
use ledger::view::LiveOutput;
use ledger::{AssetType, Leg, Quantity, Terms, TransactionId};
use proto::Problem;
use tokio::sync::Mutex;
use tokio::time::{Duration, Instant, sleep};

use crate::party::{allocations, created, key_of, positions_of};
use crate::report::Meter;

/// What each party begins with, of its own asset.
const ENDOWMENT: i128 = 1_000_000_000_000;
/// Outputs of one issuing transaction.
const ISSUE_OUTPUTS: usize = 200;
/// How long allocations last.
const ALLOCATION_MS: u64 = 600_000;

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

#[derive(Debug)]
struct Pair {
    sides: [Side; 2],
    acknowledged: Vec<TransactionId>,
}

#[derive(Debug, Clone)]
struct Side {
    key: Key,
    /// Its positions of the first and of the second asset.
    positions: [Vec<LiveOutput>; 2],
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

    /// Trades until the flag is set, each connection carrying its share of the pairs.
    pub async fn trade(self, connections: &[Client], meter: Arc<Meter>, stop: Arc<AtomicBool>) -> Traded {
        let submitters: Vec<(Client, Submitter)> = connections
            .iter()
            .map(|client| (client.clone(), Submitter::start(client, SubmitterOptions::default())))
            .collect();
        let begun = Instant::now();
        let assets = [self.assets[0].0, self.assets[1].0];
        let unknown = Arc::new(Mutex::new(0_u64));
        let workers = self.pairs.into_iter().enumerate().map(|(number, pair)| {
            let (client, submitter) = submitters[number % submitters.len()].clone();
            let desk = Desk {
                client,
                submitter,
                meter: Arc::clone(&meter),
                assets,
                settlements: self.options.settlements_per_transaction,
                unknown: Arc::clone(&unknown),
            };
            tokio::spawn(desk.trade_until(pair, Arc::clone(&stop)))
        });
        let finished = join_all(workers).await;
        let elapsed = begun.elapsed();
        let mut traded =
            Traded { acknowledged: Vec::new(), supply: self.assets, unknown: 0, problems: Vec::new(), elapsed };
        for worker in finished {
            match worker {
                Ok((mut acknowledged, problem)) => {
                    traded.acknowledged.append(&mut acknowledged);
                    traded.problems.extend(problem);
                }
                Err(panic) => traded.problems.push(panic.to_string()),
            }
        }
        traded.unknown = *unknown.lock().await;
        traded
    }
}

impl Pair {
    fn new(options: &TradeOptions, number: usize) -> Self {
        let name = |side: usize| match side {
            0 if options.hot => "hot".to_owned(),
            0 => format!("alice {number}"),
            _ => format!("bob {number}"),
        };
        let side = |side: usize| Side { key: key_of(options.run, &name(side)), positions: [Vec::new(), Vec::new()] };
        Self { sides: [side(0), side(1)], acknowledged: Vec::new() }
    }
}

/// Who proposes, and which way the assets go. Four rounds bring everything back and leave nothing unmerged.
#[derive(Debug, Clone, Copy)]
struct Round {
    proposer: usize,
    /// True where each side pays with what it received before.
    back: bool,
}

impl Round {
    fn all() -> [Self; 4] {
        [(0, false), (1, false), (0, true), (1, true)].map(|(proposer, back)| Self { proposer, back })
    }

    /// The assets that proposer and acceptor pay, as indexes.
    fn assets(self) -> (usize, usize) {
        let offered = if self.back { 1 - self.proposer } else { self.proposer };
        (offered, 1 - offered)
    }
}

/// What one pair's settlements go through.
struct Desk {
    client: Client,
    submitter: Submitter,
    meter: Arc<Meter>,
    assets: [AssetType; 2],
    settlements: usize,
    unknown: Arc<Mutex<u64>>,
}

impl Desk {
    async fn trade_until(self, mut pair: Pair, stop: Arc<AtomicBool>) -> (Vec<TransactionId>, Option<String>) {
        let mut rounds = Round::all().into_iter().cycle();
        while let Some(round) = rounds.next().filter(|_| !stop.load(Ordering::Relaxed)) {
            if let Err(fault) = self.settle_once(&mut pair, round).await {
                return (pair.acknowledged, Some(fault.to_string()));
            }
        }
        (pair.acknowledged, None)
    }

    /// One settlement, or as many as one transaction carries.
    async fn settle_once(&self, pair: &mut Pair, round: Round) -> Result<(), TradeFault> {
        let begun = Instant::now();
        let [first, second] = &mut pair.sides;
        let (proposer, acceptor) = if round.proposer == 0 { (first, second) } else { (second, first) };
        let (offered, asked) = round.assets();
        let terms: Vec<Terms> = (0..self.settlements).map(|_| self.terms(proposer, acceptor, offered, asked)).collect();

        let mut builder = self.client.begin().await?;
        let expires_at = self.client.now().plus_millis(ALLOCATION_MS);
        builder.spend_all(&proposer.positions[offered]);
        for terms in &terms {
            builder.propose(terms, 0, expires_at);
        }
        let proposal = builder.prepare()?.sign(&proposer.key)?.finish()?;
        let outputs = self.commit("a proposal", &proposal).await?;
        pair.acknowledged.push(proposal.id());
        proposer.positions[offered] = self.positions(&outputs, proposer, offered).collect();

        let mut builder = self.client.begin().await?;
        builder.spend_all(&acceptor.positions[asked]);
        for (terms, allocation) in terms.iter().zip(allocations(&outputs)) {
            builder.settle(terms, &[allocation]);
        }
        let settlement = builder.prepare()?.sign(&acceptor.key)?.finish()?;
        let outputs = self.commit("a settlement", &settlement).await?;
        pair.acknowledged.push(settlement.id());
        acceptor.positions[asked] = self.positions(&outputs, acceptor, asked).collect();
        let received: Vec<LiveOutput> = self.positions(&outputs, acceptor, offered).collect();
        acceptor.positions[offered].extend(received);
        let received: Vec<LiveOutput> = self.positions(&outputs, proposer, asked).collect();
        proposer.positions[asked].extend(received);
        self.meter.settled(u64::try_from(self.settlements).unwrap_or(u64::MAX), begun.elapsed());
        Ok(())
    }

    fn positions<'a>(
        &self,
        outputs: &'a [LiveOutput],
        side: &Side,
        asset: usize,
    ) -> impl Iterator<Item = LiveOutput> + use<'a> {
        positions_of(outputs, side.key.party(), self.assets[asset])
    }

    fn terms(&self, proposer: &Side, acceptor: &Side, offered: usize, asked: usize) -> Terms {
        let leg = |payer: &Side, receiver: &Side, asset: usize| Leg {
            payer: payer.key.party(),
            receiver: receiver.key.party(),
            asset: self.assets[asset],
            quantity: Quantity::new(1),
        };
        let legs = vec![leg(proposer, acceptor, offered), leg(acceptor, proposer, asked)];
        Terms { legs, nonce: self.client.nonce() }
    }

    /// Submits until the outcome is known. A node that has too much to do is asked again; nothing else is repeated.
    async fn commit(&self, what: &'static str, transaction: &SignedTransaction) -> Result<Vec<LiveOutput>, TradeFault> {
        let begun = Instant::now();
        let mut outcome = self.submitter.submit(transaction.clone()).await;
        loop {
            match outcome {
                Outcome::Committed { record, .. } => {
                    self.meter.transaction(begun.elapsed());
                    return Ok(created(transaction, &record));
                }
                Outcome::Rejected { rejection, .. } => {
                    self.meter.reject(&rejection);
                    return Err(TradeFault::NotCommitted(what, rejection.to_string()));
                }
                Outcome::Refused { problem } => {
                    self.meter.refused.fetch_add(1, Ordering::Relaxed);
                    if begun.elapsed() > Duration::from_secs(60) {
                        return Err(TradeFault::Problem(problem));
                    }
                    sleep(Duration::from_millis(20)).await;
                    outcome = self.submitter.submit(transaction.clone()).await;
                }
                Outcome::Unknown { token, problem } => {
                    if begun.elapsed() > Duration::from_secs(150) {
                        *self.unknown.lock().await += 1;
                        return Err(TradeFault::Problem(problem));
                    }
                    outcome = self.client.resolve(&token).await;
                }
            }
        }
    }
}
