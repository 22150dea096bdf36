//! The end of a simulation: all replicas that run, against each other and against what clients know.

use std::sync::Arc;
use std::time::Duration;

use ledger::merkle::verify_consistency;
use ledger::{Limits, OutcomeRecord};
use node::replica::Replica;
use sequencer::NodeId;
use storage::state::BatchRecord;

use crate::check::{OrderedBatch, Property, order};
use crate::history::Operation;
use crate::sim::cluster::Cluster;
use crate::sim::observations::Observations;
use crate::sim::world::World;

/// Heads whose consistency with the newest is proved, and transactions whose receipts are verified, per replica.
const SAMPLES: usize = 8;
/// How long a receipt may take when everything works.
const RECEIPT_PATIENCE: Duration = Duration::from_secs(5);

/// Checks all replicas that run.
pub(super) async fn check(world: &World, cluster: &Cluster, observations: &Observations, operations: &[Operation]) {
    let replicas = cluster.replicas();
    let Some((first, replica)) = replicas.first() else {
        return world.violation(Property::Recovery, "no replica runs in the end");
    };
    let batches = match every_batch(replica) {
        Ok(batches) => batches,
        Err(fault) => {
            let what = format!("the history of node {first} cannot be read: {fault}");
            return world.violation(Property::Acknowledgements, what);
        }
    };
    for fault in observations.differences(&batches) {
        world.violation(Property::Acknowledgements, fault);
    }
    for (id, other) in replicas.iter().skip(1) {
        compare(world, (*id, other), (*first, &batches));
    }
    let ordered: Result<Vec<OrderedBatch>, String> = batches.iter().map(|batch| ordered(batch)).collect();
    match ordered {
        Ok(ordered) => world.found(order::check(&ordered, operations, &Limits::V1)),
        Err(fault) => world.violation(Property::Outcomes, fault),
    }
    for (id, replica) in &replicas {
        prove_consistency(world, *id, replica, &batches);
        verify_receipts(world, cluster, *id, &batches).await;
    }
}

fn ordered(batch: &BatchRecord) -> Result<OrderedBatch, String> {
    let transactions = batch.transactions(&Limits::V1).map_err(|fault| fault.to_string())?;
    Ok(OrderedBatch {
        head: batch.head,
        transactions: transactions.into_iter().map(|received| received.into_transaction()).collect(),
        records: batch.records.clone(),
    })
}

fn every_batch(replica: &Replica) -> Result<Vec<Arc<BatchRecord>>, String> {
    let state = replica.state();
    let read = |number| match state.batch(number) {
        Ok(Some(batch)) => Ok(batch),
        Ok(None) => Err(format!("batch {number} is missing")),
        Err(fault) => Err(fault.to_string()),
    };
    (1..=state.head().batch).map(read).collect()
}

/// Invariant 5: every replica has the same history.
fn compare(world: &World, (id, replica): (NodeId, &Replica), (first, batches): (NodeId, &[Arc<BatchRecord>])) {
    match every_batch(replica) {
        Err(fault) => {
            world.violation(Property::Acknowledgements, format!("the history of node {id} cannot be read: {fault}"))
        }
        Ok(others) => {
            world.looked_at(Property::EqualReplicas, batches.len().max(others.len()));
            let differs = batches.iter().zip(&others).position(|(ours, theirs)| ours != theirs);
            if differs.is_some() || others.len() != batches.len() {
                let batch = differs.unwrap_or_else(|| batches.len().min(others.len())) + 1;
                world.violation(Property::EqualReplicas, format!("nodes {first} and {id} differ at batch {batch}"));
            }
        }
    }
}

/// Some of the items, evenly spread, the last one included.
fn sample<T>(items: &[T]) -> impl Iterator<Item = &T> {
    let step = items.len().div_ceil(SAMPLES).max(1);
    items.iter().rev().step_by(step)
}

/// Invariant 10: heads are append-only.
fn prove_consistency(world: &World, id: NodeId, replica: &Replica, batches: &[Arc<BatchRecord>]) {
    let Some(newest) = batches.last().map(|batch| batch.head) else { return };
    for old in sample(batches).map(|batch| batch.head) {
        world.looked_at(Property::AppendOnly, 1);
        let proved = match replica.state().consistency(old.size, newest.size) {
            Err(fault) => Err(fault.to_string()),
            Ok(proof) => {
                verify_consistency(old.size.get(), &old.log_root, newest.size.get(), &newest.log_root, &proof.proof)
                    .map_err(|fault| fault.to_string())
            }
        };
        if let Err(fault) = proved {
            let (old, new) = (old.size, newest.size);
            world
                .violation(Property::AppendOnly, format!("node {id} cannot prove that {new} continues {old}: {fault}"));
        }
    }
}

/// Receipts prove what is in the history, with the signatures of a majority.
async fn verify_receipts(world: &World, cluster: &Cluster, id: NodeId, batches: &[Arc<BatchRecord>]) {
    let Some((group, replica)) = cluster.replica(id) else { return };
    let keys = cluster.keys();
    let records: Vec<&OutcomeRecord> = batches.iter().flat_map(|batch| &batch.records).collect();
    for record in sample(&records) {
        world.looked_at(Property::AppendOnly, 1);
        let (asked, transaction) = (replica.clone(), record.transaction);
        let receipt = group.spawn(async move { asked.receipt(transaction, RECEIPT_PATIENCE).await }).await;
        let proved = match receipt {
            Ok(Ok(Some(receipt))) if receipt.record == **record => {
                receipt.verify(&cluster.identity().cluster, &keys, 1).map_err(|fault| fault.to_string())
            }
            other => Err(format!("{other:?}")),
        };
        if let Err(fault) = proved {
            world.violation(Property::AppendOnly, format!("node {id} gives no receipt for {transaction}: {fault}"));
        }
    }
}
