//! The end state, from what every node itself says: its whole history is streamed and everything recomputed from it.
//!
//! Per node: the Merkle root of all outcomes and the digest of all live outputs are those of its head; every
//! acknowledged transaction is there, committed, once; every asset's live outputs add up to its supply. Between nodes:
//! the heads are equal. With receipts: a sample is fetched and verified offline against the nodes' keys.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use client::{Client, Update, Watch};
use futures::StreamExt;
use ledger::digest::UnspentDigest;
use ledger::merkle::Frontier;
use ledger::{AssetType, Contract, Head, OutputId, Party, Quantity, Sequence, TransactionId};
use proto::Problem;
use tokio::time::{Instant, sleep, timeout};

use crate::report::Report;

/// How long the nodes may take to reach the same head once the load has stopped.
const CONVERGENCE: Duration = Duration::from_secs(60);
/// Longest silence of an update stream.
const SILENCE_MAX: Duration = Duration::from_secs(20);
/// Receipts that are verified.
const RECEIPTS: usize = 50;

/// What is known from outside and must be found inside.
#[derive(Debug, Clone)]
pub struct Expected<'a> {
    /// Acknowledged transactions.
    pub acknowledged: &'a [TransactionId],
    /// Supply by asset.
    pub supply: &'a [(AssetType, Quantity)],
}

/// Audits every node by itself and fills the findings into the report. `progress` is called with how many outcomes
/// have been read, and how many there are on all nodes together.
pub async fn audit(
    nodes: &[Client],
    expected: &Expected<'_>,
    progress: &(dyn Fn(u64, u64) + Sync),
    report: &mut Report,
) {
    report.nodes = u64::try_from(nodes.len()).unwrap_or(u64::MAX);
    report.conserved = true;
    let target = match converged(nodes).await {
        Ok(head) => {
            report.heads_agree = true;
            head
        }
        Err(why) => {
            report.heads_agree = false;
            report.problems.push(why);
            return;
        }
    };
    for (number, node) in nodes.iter().enumerate() {
        let before = target.size.get() * u64::try_from(number).unwrap_or(u64::MAX);
        let read = |outcomes: u64| progress(before + outcomes, target.size.get() * report.nodes);
        match read_history(node, &target, &read).await {
            Ok(history) => judge(number, &history, &target, expected, report),
            Err(problem) => report.problems.push(format!("endpoint {number}: its history cannot be read: {problem}")),
        }
    }
    report.receipts_verified = verify_receipts(nodes, expected.acknowledged, report).await;
}

/// Waits until all nodes show one head. Only a linearizable head covers everything that was acknowledged: what a node
/// shows without asking the others is the head that was signed last.
async fn converged(nodes: &[Client]) -> Result<Head, String> {
    let begun = Instant::now();
    loop {
        let mut heads = Vec::new();
        for node in nodes {
            match node.position(client::Consistency::Linearizable).await {
                Ok(head) => heads.push(head),
                Err(problem) => tracing::debug!(%problem, "a node does not answer yet"),
            }
        }
        if heads.len() == nodes.len() && heads.windows(2).all(|pair| pair[0] == pair[1]) {
            return heads.first().copied().ok_or_else(|| "there are no nodes".to_owned());
        }
        if begun.elapsed() > CONVERGENCE {
            let seen: Vec<String> = heads.iter().map(|head| format!("batch {} {}", head.batch, head.hash())).collect();
            return Err(format!("the nodes do not reach one head: {}", seen.join(", ")));
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// A node's history, recomputed.
struct History {
    frontier: Frontier,
    live: HashMap<OutputId, Contract>,
    committed: HashMap<TransactionId, bool>,
    repeated: u64,
}

async fn read_history(node: &Client, target: &Head, progress: &(dyn Fn(u64) + Sync)) -> Result<History, Problem> {
    let mut history =
        History { frontier: Frontier::new(), live: HashMap::new(), committed: HashMap::new(), repeated: 0 };
    let mut next = 1;
    while next <= target.batch {
        let watch = Watch { from_batch: next, parties: Vec::new(), with_records: true };
        let mut updates = node.updates(&watch).await?;
        while next <= target.batch {
            match timeout(SILENCE_MAX, updates.next()).await {
                Ok(Some(Ok(update))) => {
                    next = update.head.batch + 1;
                    history.add(update);
                    progress(history.frontier.size());
                }
                Ok(Some(Err(problem))) => return Err(problem),
                Ok(None) => break,
                Err(_) => {
                    return Err(Problem::new(proto::ProblemKind::Timeout, "the update stream fell silent"));
                }
            }
        }
    }
    Ok(history)
}

impl History {
    fn add(&mut self, update: Update) {
        for record in &update.records {
            self.frontier.append(record.leaf());
            if self.committed.insert(record.transaction, record.outcome.is_committed()).is_some() {
                self.repeated += 1;
            }
        }
        self.live.extend(update.created.iter().map(|output| (output.id, output.contract)));
        for consumed in &update.consumed {
            self.live.remove(&consumed.output.id);
        }
    }

    fn unspent(&self) -> UnspentDigest {
        let mut digest = UnspentDigest::default();
        #[expect(clippy::iter_over_hash_type, reason = "the digest is a sum: its order does not matter")]
        for id in self.live.keys() {
            digest.insert(id);
        }
        digest
    }

    fn totals(&self) -> BTreeMap<AssetType, Quantity> {
        let mut totals: BTreeMap<AssetType, Quantity> = BTreeMap::new();
        for (asset, quantity) in self.live.values().filter_map(Contract::value) {
            let total = totals.entry(asset).or_default();
            *total = total.checked_add(quantity).unwrap_or(*total);
        }
        totals
    }
}

fn judge(number: usize, history: &History, target: &Head, expected: &Expected<'_>, report: &mut Report) {
    let mut problem = |text: String| report.problems.push(format!("endpoint {number}: {text}"));
    if Sequence::new(history.frontier.size()) != target.size || history.frontier.root() != target.log_root {
        problem("its outcomes do not lead to its log root".to_owned());
        report.heads_agree = false;
    }
    if history.unspent() != target.unspent {
        problem("its live outputs do not lead to its digest".to_owned());
        report.heads_agree = false;
    }
    if history.repeated > 0 {
        problem(format!("{} transactions stand in the order twice", history.repeated));
    }
    let missing = expected.acknowledged.iter().filter(|id| history.committed.get(id) != Some(&true)).count();
    if missing > 0 {
        problem(format!("{missing} acknowledged transactions are not committed there"));
        report.lost += u64::try_from(missing).unwrap_or(u64::MAX);
    }
    let totals = history.totals();
    for (asset, supply) in expected.supply {
        let total = totals.get(asset).copied().unwrap_or_default();
        if total != *supply {
            problem(format!("live outputs of {} add up to {total}, its supply is {supply}", asset.symbol));
            report.conserved = false;
        }
    }
}

async fn verify_receipts(nodes: &[Client], acknowledged: &[TransactionId], report: &mut Report) -> u64 {
    let Some(client) = nodes.first() else { return 0 };
    let cluster = match client.fetch_cluster().await {
        Ok(cluster) => cluster,
        Err(problem) => {
            report.problems.push(format!("the cluster's description cannot be read: {problem}"));
            return 0;
        }
    };
    let keys: Vec<Party> =
        cluster.members.iter().filter(|member| member.voter).filter_map(|member| member.key).collect();
    let required = keys.len() / 2 + 1;
    let step = (acknowledged.len() / RECEIPTS).max(1);
    let mut verified = 0;
    for (turn, id) in acknowledged.iter().step_by(step).take(RECEIPTS).enumerate() {
        let Some(node) = nodes.get(turn % nodes.len()) else { continue };
        let receipt = match node.receipt(id).await {
            Ok(receipt) => receipt,
            Err(problem) => {
                report.problems.push(format!("no receipt of {id}: {problem}"));
                continue;
            }
        };
        match receipt.verify(&cluster.identity.cluster, &keys, required) {
            Ok(()) if receipt.record.transaction == *id => verified += 1,
            Ok(()) => report.problems.push(format!("the receipt of {id} is another transaction's")),
            Err(fault) => report.problems.push(format!("the receipt of {id} proves nothing: {fault}")),
        }
    }
    verified
}
