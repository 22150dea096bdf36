//! Replays a planned block: funding first, then every transaction once what it spends exists.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use client::{Client, Outcome, SignedTransaction, Submitter, SubmitterOptions};
use futures::future::join_all;
use ledger::TransactionId;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::block::Plan;
use crate::meter::Meter;

/// How many replay, and in which order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// One client, in the block's order.
    Block,
    /// So many clients, each with its share of the shuffled transactions.
    Shuffled {
        /// Clients at once.
        clients: usize,
        /// Seed of the shuffle.
        seed: u64,
    },
}

/// What a replay leaves behind.
#[derive(Debug)]
pub struct Replayed {
    /// Transactions acknowledged as committed, funding included.
    pub acknowledged: Vec<TransactionId>,
    /// What did not commit, in words.
    pub problems: Vec<String>,
    /// Time of the block's transactions, funding excluded.
    pub elapsed: Duration,
}

/// Replays the plan over these connections.
pub async fn replay(connections: &[Client], plan: &Plan, order: Order, meter: &Arc<Meter>) -> Replayed {
    let submitters: Vec<(Client, Submitter)> = connections
        .iter()
        .map(|client| (client.clone(), Submitter::start(client, SubmitterOptions::default())))
        .collect();
    let mut replayed = Replayed { acknowledged: Vec::new(), problems: Vec::new(), elapsed: Duration::ZERO };
    let unmeasured = Arc::new(Meter::default());
    let funded = plan.funding.iter().enumerate().map(|(number, transaction)| {
        let (client, submitter) = &submitters[number % submitters.len()];
        commit(client, submitter, transaction.clone(), &unmeasured)
    });
    for outcome in join_all(funded).await {
        replayed.note(outcome);
    }
    let begun = Instant::now();
    for outcome in join_all(workers(&submitters, plan, order, meter)).await {
        match outcome {
            Ok(outcomes) => outcomes.into_iter().for_each(|outcome| replayed.note(outcome)),
            Err(panic) => replayed.problems.push(panic.to_string()),
        }
    }
    replayed.elapsed = begun.elapsed();
    replayed
}

type Committed = Result<TransactionId, String>;

impl Replayed {
    fn note(&mut self, outcome: Committed) {
        match outcome {
            Ok(id) => self.acknowledged.push(id),
            Err(problem) => self.problems.push(problem),
        }
    }
}

/// One task per client. Each transaction has a flag that is raised once it has committed, or cannot.
fn workers(
    submitters: &[(Client, Submitter)],
    plan: &Plan,
    order: Order,
    meter: &Arc<Meter>,
) -> Vec<tokio::task::JoinHandle<Vec<Committed>>> {
    let done: Arc<Vec<watch::Sender<bool>>> =
        Arc::new(plan.transactions.iter().map(|_| watch::Sender::new(false)).collect());
    let shares = match order {
        Order::Block => vec![(0..plan.transactions.len()).collect()],
        Order::Shuffled { clients, seed } => shuffled(plan.transactions.len(), clients, seed),
    };
    let start = |(number, share): (usize, Vec<usize>)| {
        let (client, submitter) = submitters[number % submitters.len()].clone();
        let steps: Vec<(usize, SignedTransaction, Vec<usize>)> = share
            .into_iter()
            .map(|index| {
                (index, plan.transactions[index].transaction.clone(), plan.transactions[index].parents.clone())
            })
            .collect();
        tokio::spawn(work(client, submitter, steps, Arc::clone(&done), Arc::clone(meter)))
    };
    shares.into_iter().enumerate().map(start).collect()
}

/// Takes the share in order; each transaction is submitted as soon as its parents are done, and does not hold up those
/// behind it.
async fn work(
    client: Client,
    submitter: Submitter,
    steps: Vec<(usize, SignedTransaction, Vec<usize>)>,
    done: Arc<Vec<watch::Sender<bool>>>,
    meter: Arc<Meter>,
) -> Vec<Committed> {
    let tasks = steps.into_iter().map(|(index, transaction, parents)| {
        let (client, submitter) = (client.clone(), submitter.clone());
        let (done, meter) = (Arc::clone(&done), Arc::clone(&meter));
        async move {
            for parent in parents {
                // a sender lives as long as `done` does
                drop(done[parent].subscribe().wait_for(|done| *done).await);
            }
            let outcome = commit(&client, &submitter, transaction, &meter).await;
            done[index].send_replace(true);
            outcome
        }
    });
    join_all(tasks).await
}

async fn commit(client: &Client, submitter: &Submitter, transaction: SignedTransaction, meter: &Meter) -> Committed {
    let begun = Instant::now();
    let id = transaction.id();
    let mut outcome = submitter.submit(transaction.clone()).await;
    loop {
        match outcome {
            Outcome::Committed { .. } => {
                meter.transaction(begun);
                return Ok(id);
            }
            Outcome::Rejected { rejection, .. } => {
                meter.reject(&rejection);
                return Err(format!("{id} was rejected: {rejection}"));
            }
            Outcome::Refused { problem } | Outcome::Unknown { problem, .. }
                if begun.elapsed() > Duration::from_secs(120) =>
            {
                return Err(format!("{id} has no outcome: {problem}"));
            }
            Outcome::Refused { .. } => {
                sleep(Duration::from_millis(20)).await;
                outcome = submitter.submit(transaction.clone()).await;
            }
            Outcome::Unknown { token, .. } => outcome = client.resolve(&token).await,
        }
    }
}

/// The indexes in an order that the seed decides, dealt out to the clients.
fn shuffled(count: usize, clients: usize, seed: u64) -> Vec<Vec<usize>> {
    let mut keyed: Vec<([u8; 32], usize)> = (0..count)
        .map(|index| {
            let name = [seed.to_le_bytes().as_slice(), &index.to_le_bytes()].concat();
            (*blake3::hash(&name).as_bytes(), index)
        })
        .collect();
    keyed.sort_unstable();
    let mut shares = vec![Vec::new(); clients.max(1)];
    for (turn, (_, index)) in keyed.into_iter().enumerate() {
        shares[turn % clients.max(1)].push(index);
    }
    shares
}

/// Reads a block's file.
///
/// # Errors
/// Where it cannot be read.
pub fn read_file(path: &std::path::Path) -> std::io::Result<Bytes> {
    std::fs::read(path).map(Bytes::from)
}
