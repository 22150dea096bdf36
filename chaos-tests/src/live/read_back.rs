//! The end of a run: what every node says was ordered.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, bail};
use client::{Client, Consistency, Watch};
use futures::StreamExt;
use ledger::{Head, OutcomeRecord, Party, Transaction, TransactionId, transaction::ReceivedTransaction};
use tokio::time::{Instant, sleep, timeout};

use crate::check::{Findings, OrderedBatch, Property};
use crate::history::{Call, Operation};

/// How long nodes may take to agree once everything works.
const CONVERGE_MAX: Duration = Duration::from_secs(60);
/// An update stream that says nothing for so long has failed.
const SILENCE_MAX: Duration = Duration::from_secs(20);
/// Receipts verified per node.
const RECEIPTS: usize = 12;

/// One node's word on the whole order: heads and outcomes.
pub(super) type Told = Vec<(Head, Vec<OutcomeRecord>)>;

/// Waits until all nodes show one head.
pub(super) async fn converged(nodes: &[Client]) -> anyhow::Result<Head> {
    let deadline = Instant::now() + CONVERGE_MAX;
    loop {
        let mut heads = Vec::new();
        for node in nodes {
            heads.push(node.position(Consistency::Linearizable).await);
        }
        let found: Vec<Head> = heads.iter().flatten().copied().collect();
        if let Some(head) = found.first()
            && found.len() == nodes.len()
            && found.iter().all(|other| other == head)
        {
            return Ok(*head);
        }
        if Instant::now() > deadline {
            let seen: Vec<String> = heads
                .iter()
                .map(|head| match head {
                    Ok(head) => format!("batch {} {}", head.batch, head.hash()),
                    Err(problem) => problem.to_string(),
                })
                .collect();
            bail!("the nodes do not come to one head within {CONVERGE_MAX:?}: {}", seen.join(", "));
        }
        sleep(Duration::from_millis(200)).await;
    }
}

/// Everything that a node says was ordered, up to this head.
pub(super) async fn everything(node: &Client, target: &Head) -> anyhow::Result<Told> {
    let mut told: Told = Vec::new();
    while told.len() < usize::try_from(target.batch)? {
        let from_batch = u64::try_from(told.len())? + 1;
        let watch = Watch { from_batch, parties: Vec::new(), with_records: true };
        let mut updates = node.updates(&watch).await?;
        while told.len() < usize::try_from(target.batch)? {
            let Some(update) = timeout(SILENCE_MAX, updates.next()).await.context("the updates fell silent")? else {
                break;
            };
            let update = update?;
            let expected = u64::try_from(told.len())? + 1;
            if update.head.batch != expected {
                bail!("batch {} came where {expected} was due", update.head.batch);
            }
            told.push((update.head, update.records));
        }
    }
    Ok(told)
}

/// The order with its transactions, which clients have written down when they submitted them.
pub(super) fn with_transactions(
    told: &Told,
    operations: &[Operation],
    findings: &mut Findings,
) -> Option<Vec<OrderedBatch>> {
    let mut submitted: BTreeMap<TransactionId, Transaction> = BTreeMap::new();
    for operation in operations {
        if let Call::Submission { members, .. } = &operation.call {
            let decoded = members.iter().filter_map(|bytes| ReceivedTransaction::decode(bytes).ok());
            submitted.extend(decoded.map(|received| (received.id(), received.into_transaction())));
        }
    }
    let mut batches = Vec::with_capacity(told.len());
    for (head, records) in told {
        let mut transactions = Vec::with_capacity(records.len());
        for record in records {
            let Some(transaction) = submitted.get(&record.transaction) else {
                let what = format!("{} is in the order and was submitted by nobody", record.transaction);
                findings.violation(Property::Authority, what);
                return None;
            };
            transactions.push(transaction.clone());
        }
        batches.push(OrderedBatch { head: *head, transactions, records: records.clone() });
    }
    Some(batches)
}

/// Compares the copies of all nodes with the first one's.
pub(super) fn compare(copies: &[(String, Told)], findings: &mut Findings) {
    let Some(((first, told), others)) = copies.split_first() else { return };
    findings.looked_at(Property::EqualReplicas, told.len() * copies.len());
    for (name, other) in others {
        let differs = told.iter().zip(other).position(|(left, right)| left != right);
        if differs.is_some() || told.len() != other.len() {
            let batch = differs.unwrap_or_else(|| told.len().min(other.len())) + 1;
            findings.violation(Property::EqualReplicas, format!("{first} and {name} differ at batch {batch}"));
        }
    }
}

/// Receipts of some transactions hold, for whoever knows the nodes' keys.
pub(super) async fn receipts(node: &Client, told: &Told, findings: &mut Findings) {
    let Ok(cluster) = node.fetch_cluster().await else { return };
    let keys: Vec<Party> = cluster.members.iter().filter_map(|member| member.key).collect();
    let records: Vec<&OutcomeRecord> = told.iter().flat_map(|(_, records)| records).collect();
    for record in records.iter().rev().step_by(records.len().div_ceil(RECEIPTS).max(1)) {
        findings.looked_at(Property::AppendOnly, 1);
        let proved = match node.receipt(&record.transaction).await {
            Ok(receipt) if receipt.record == **record => {
                receipt.verify(&cluster.identity.cluster, &keys, 1).map_err(|fault| fault.to_string())
            }
            Ok(receipt) => Err(format!("it tells {:?}", receipt.record)),
            Err(problem) => Err(problem.to_string()),
        };
        if let Err(fault) = proved {
            let what = format!("the receipt of {} proves nothing: {fault}", record.transaction);
            findings.violation(Property::AppendOnly, what);
        }
    }
}
