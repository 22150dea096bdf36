//! A Bitcoin block as evidence: applied by a real replica's state, and told as it tells it; and once more with a double spend
//! that is said to have happened.

use std::sync::Arc;

use anyhow::Context as _;
use bench::block::{parse, plan};
use checker::collect::{self, Testimony};
use checker::{Chunk, Replay};
use client::SignedTransaction;
use ledger::transaction::ReceivedTransaction;
use ledger::{Intent, Outcome, TransactionId};
use prover::graph::Graph;
use storage::{KvOptions, RocksKv};

use super::{Evidence, accepted};
use crate::market::{context, identity};
use crate::stored::Replica;

/// Transactions of a batch.
const BATCH: usize = 1_000;

/// The block, and the lie.
pub(super) struct BlockEvidence {
    pub(super) evidence: Evidence,
    pub(super) depth: usize,
    /// Where the batch with the planted transaction begins.
    pub(super) before_planted: Replay,
    /// That batch, in which the second spender is said to have committed too.
    pub(super) planted: Testimony,
    pub(super) first: TransactionId,
    pub(super) second: TransactionId,
}

/// A replica and a replay that stand before a block, and the block's transactions.
struct Funded {
    // the store lives in it
    _directory: tempfile::TempDir,
    replica: Replica,
    replay: Replay,
    transactions: Vec<SignedTransaction>,
    depth: usize,
}

fn funded(bytes: &[u8]) -> anyhow::Result<Funded> {
    let block = parse(bytes)?;
    let mut nonce = 0;
    let plan = plan(&block, 1, || {
        nonce += 1;
        context(nonce)
    })?;
    let directory = tempfile::tempdir()?;
    let kv = RocksKv::open(directory.path(), b"bench prove", KvOptions::default())?;
    let mut replica = Replica::new(Arc::new(kv));
    let (cluster, group) = (identity().cluster, identity().group);
    let mut replay = Replay::genesis(cluster, group, 42);
    accepted(&replica.told(1)?, &mut replay);
    for batch in plan.funding.chunks(BATCH) {
        accepted(&Testimony::of_record(&replica.submit(batch))?, &mut replay);
    }
    let transactions = plan.transactions.iter().map(|it| it.transaction.clone()).collect();
    Ok(Funded { _directory: directory, replica, replay, transactions, depth: plan.figures.depth })
}

pub(super) fn evidence(bytes: &[u8]) -> anyhow::Result<BlockEvidence> {
    let Funded { _directory, mut replica, mut replay, transactions, depth } = funded(bytes)?;
    let (before, mut chunks): (Replay, Vec<Chunk>) = (replay.clone(), Vec::new());
    for batch in transactions.chunks(BATCH) {
        chunks.extend(accepted(&Testimony::of_record(&replica.submit(batch))?, &mut replay));
    }
    let count = chunks.iter().map(|chunk| chunk.entries.len()).sum();
    let (planted, first, second) = plant(&transactions, &mut replica)?;
    let evidence = Evidence { before, lead: Vec::new(), chunks, transactions: count };
    Ok(BlockEvidence { evidence, depth, before_planted: replay, planted, first, second })
}

/// The dependency graph of a Bitcoin block, in consensus serialization, applied as one batch.
///
/// # Errors
/// Where the bytes are none, or it cannot be applied.
pub fn block_graph(bytes: &[u8]) -> anyhow::Result<Graph> {
    let Funded { _directory, mut replica, replay, transactions, .. } = funded(bytes)?;
    let told = Testimony::of_record(&replica.submit(&transactions))?;
    let whole = collect::chunks_of(&told, &replay, usize::MAX);
    let [whole] = whole.as_slice() else { anyhow::bail!("the block is not one run of transactions") };
    Graph::of(whole).map_err(|finding| anyhow::anyhow!("the evidence makes no graph: {finding}"))
}

/// Has a transaction of the block sent once more under another number, which the replica rejects, and tells it as committed.
fn plant(
    transactions: &[SignedTransaction],
    replica: &mut Replica,
) -> anyhow::Result<(Testimony, TransactionId, TransactionId)> {
    let read = |transaction: &SignedTransaction| ReceivedTransaction::decode(transaction.bytes()).ok();
    let spends = |received: &ReceivedTransaction| match &received.transaction().body.intent {
        Intent::Movements(movements) => !movements.inputs.is_empty(),
        Intent::Command(_) => false,
    };
    let first =
        transactions.iter().filter_map(read).find(spends).context("no transaction of the block spends anything")?;
    let mut again = first.transaction().clone();
    again.body.nonce = again.body.nonce.wrapping_add(1_000_000_007);
    let record = replica.submit_unchecked(&[again.encode()]);
    let mut told = Testimony::of_record(&record)?;
    let line = told.lines.first_mut().context("the second spender has no place")?;
    let second = line.record.transaction;
    line.record.outcome = Outcome::Committed { chosen: Vec::new() };
    Ok((told, first.id(), second))
}
