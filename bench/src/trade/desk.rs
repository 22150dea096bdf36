//! One pair's settlements: two transactions each, positions carried from one to the next.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use client::{Client, Key, Outcome, SignedTransaction, Submitter};
use ledger::view::LiveOutput;
use ledger::{AssetType, Leg, Quantity, Terms, TransactionId};
use tokio::time::{Duration, Instant, sleep};

use super::{TradeFault, TradeOptions};
use crate::meter::Meter;
use crate::party::{allocations, created, key_of, positions_of};

/// How long allocations last.
const ALLOCATION_MS: u64 = 600_000;
/// How long a transaction that no node takes in is submitted again, where giving up would leave something half done.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// How long an unknown outcome is asked for: longer than a transaction is valid, so that there is one.
const RESOLVE_MAX: Duration = Duration::from_secs(150);

/// Two parties that settle with each other, one settlement after another.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) sides: [Side; 2],
    pub(super) acknowledged: Vec<TransactionId>,
    rounds: usize,
}

#[derive(Debug, Clone)]
pub(super) struct Side {
    pub(super) key: Key,
    /// Its positions of the first and of the second asset.
    pub(super) positions: [Vec<LiveOutput>; 2],
}

impl Pair {
    pub(super) fn new(options: &TradeOptions, number: usize) -> Self {
        let name = |side: usize| match side {
            0 if options.hot => "hot".to_owned(),
            0 => format!("alice {number}"),
            _ => format!("bob {number}"),
        };
        let side = |side: usize| Side { key: key_of(options.run, &name(side)), positions: [Vec::new(), Vec::new()] };
        Self { sides: [side(0), side(1)], acknowledged: Vec::new(), rounds: 0 }
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
    const fn number(rounds: usize) -> Self {
        Self { proposer: rounds % 2, back: rounds % 4 >= 2 }
    }

    /// The assets that proposer and acceptor pay, as indexes.
    const fn assets(self) -> (usize, usize) {
        let offered = if self.back { 1 - self.proposer } else { self.proposer };
        (offered, 1 - offered)
    }
}

/// What pairs' settlements go through; pairs share it.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) client: Client,
    pub(super) submitter: Submitter,
    pub(super) meter: Arc<Meter>,
    pub(super) assets: [AssetType; 2],
    pub(super) settlements: usize,
    /// Transactions whose outcome nobody knows.
    pub(super) unknown: Arc<AtomicU64>,
}

impl Desk {
    /// One settlement, or as many as one transaction carries, which began or was due at `since`. A proposal that no
    /// node takes in is submitted again for `patience`; then the fault is [`TradeFault::Refused`], and the pair is as
    /// before.
    pub(super) async fn settle_once(
        &self,
        pair: &mut Pair,
        since: Instant,
        patience: Duration,
    ) -> Result<(), TradeFault> {
        let round = Round::number(pair.rounds);
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
        let outputs = self.commit("a proposal", &proposal, patience).await?;
        pair.acknowledged.push(proposal.id());
        proposer.positions[offered] = self.positions(&outputs, proposer, offered).collect();

        let mut builder = self.client.begin().await?;
        builder.spend_all(&acceptor.positions[asked]);
        for (terms, allocation) in terms.iter().zip(allocations(&outputs)) {
            builder.settle(terms, &[allocation]);
        }
        let settlement = builder.prepare()?.sign(&acceptor.key)?.finish()?;
        let outputs = self.commit("a settlement", &settlement, PATIENCE).await.map_err(TradeFault::halfway)?;
        pair.acknowledged.push(settlement.id());
        acceptor.positions[asked] = self.positions(&outputs, acceptor, asked).collect();
        let received: Vec<LiveOutput> = self.positions(&outputs, acceptor, offered).collect();
        acceptor.positions[offered].extend(received);
        let received: Vec<LiveOutput> = self.positions(&outputs, proposer, asked).collect();
        proposer.positions[asked].extend(received);
        pair.rounds = pair.rounds.wrapping_add(1);
        self.meter.settled(u64::try_from(self.settlements).unwrap_or(u64::MAX), since);
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
    async fn commit(
        &self,
        what: &'static str,
        transaction: &SignedTransaction,
        patience: Duration,
    ) -> Result<Vec<LiveOutput>, TradeFault> {
        let begun = Instant::now();
        let mut outcome = self.submitter.submit(transaction.clone()).await;
        loop {
            match outcome {
                Outcome::Committed { record, .. } => {
                    self.meter.transaction(begun);
                    return Ok(created(transaction, &record));
                }
                Outcome::Rejected { rejection, .. } => {
                    self.meter.reject(&rejection);
                    return Err(TradeFault::NotCommitted(what, rejection.to_string()));
                }
                Outcome::Refused { problem } => {
                    self.meter.refuse();
                    if begun.elapsed() >= patience {
                        return Err(TradeFault::Refused(problem));
                    }
                    sleep(Duration::from_millis(20)).await;
                    outcome = self.submitter.submit(transaction.clone()).await;
                }
                Outcome::Unknown { token, problem } => {
                    if begun.elapsed() > RESOLVE_MAX {
                        self.unknown.fetch_add(1, Ordering::Relaxed);
                        return Err(TradeFault::Problem(problem));
                    }
                    outcome = self.client.resolve(&token).await;
                }
            }
        }
    }
}
