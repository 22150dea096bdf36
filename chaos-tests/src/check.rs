//! What must hold, checked from outside: while replicas apply ([`Observations`]), and of everything in the end.
//!
//! The numbers in the messages are those of DESIGN.md's invariants. The order that the replicas tell is replayed by a
//! naive model ([`model`]), which shares no code with the ledger's own apply.

pub mod model;
mod observations;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ledger::merkle::verify_consistency;
use ledger::{Limits, OutcomeRecord, Sequence, TransactionId};
use node::gateway::Answer;
use node::replica::Replica;
use sequencer::NodeId;
use storage::state::BatchRecord;

pub use observations::Observations;

use crate::cluster::Cluster;
use crate::history::{Call, History, Operation};
use crate::world::World;
use model::Model;

/// Heads whose consistency with the newest is proved, and transactions whose receipts are verified, per replica.
const SAMPLES: usize = 8;
/// How long a receipt may take when everything works.
const RECEIPT_PATIENCE: Duration = Duration::from_secs(5);

/// The outcomes that clients know.
#[must_use]
pub fn acknowledged(operations: &[Operation]) -> BTreeMap<TransactionId, &OutcomeRecord> {
    let answers = operations.iter().flat_map(|operation| match &operation.call {
        Call::Submission { answers, .. } => answers.as_slice(),
        Call::Read { .. } => &[],
    });
    let records = answers.flatten().filter_map(|answer| match answer {
        Answer::Sequenced { record, .. } => Some((record.transaction, record)),
        Answer::Refused(_) | Answer::Unknown(_) => None,
    });
    records.collect()
}

/// Checks all replicas that run, in the end, against each other and against what clients know.
pub async fn replicas(world: &World, cluster: &Cluster, observations: &Observations, history: &History) {
    let operations = history.all();
    let replicas = cluster.replicas();
    let Some((first, replica)) = replicas.first() else {
        return world.violation("no replica runs in the end");
    };
    let batches = match every_batch(replica) {
        Ok(batches) => batches,
        Err(fault) => return world.violation(format!("the history of node {first} cannot be read: {fault}")),
    };
    for fault in observations.differences(&batches) {
        world.violation(format!("invariant 6: {fault}"));
    }
    for (id, other) in replicas.iter().skip(1) {
        compare(world, (*id, other), (*first, &batches));
    }
    for fault in replay(&batches, &operations) {
        world.violation(fault);
    }
    for fault in real_time(&operations) {
        world.violation(fault);
    }
    for (id, replica) in &replicas {
        prove_consistency(world, *id, replica, &batches);
        verify_receipts(world, cluster, *id, &batches).await;
    }
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
        Err(fault) => world.violation(format!("the history of node {id} cannot be read: {fault}")),
        Ok(others) => {
            let differs = batches.iter().zip(&others).position(|(ours, theirs)| ours != theirs);
            if differs.is_some() || others.len() != batches.len() {
                let batch = differs.unwrap_or_else(|| batches.len().min(others.len())) + 1;
                world.violation(format!("invariant 5: nodes {first} and {id} differ at batch {batch}"));
            }
        }
    }
}

/// Replays the order naively; then what clients know must be in it.
fn replay(batches: &[Arc<BatchRecord>], operations: &[Operation]) -> Vec<String> {
    let mut model = Model::new();
    let mut faults = model.check_reads(None, operations);
    for batch in batches {
        if let Err(fault) = model.apply(batch, &Limits::V1) {
            faults.push(format!("batch {}: {fault}", batch.head.batch));
            return faults;
        }
        faults.extend(model.check_reads(Some(&batch.head), operations));
    }
    for (id, record) in acknowledged(operations) {
        match model.record(&id) {
            None => faults.push(format!("invariant 6: {id} was acknowledged and is lost: {record:?}")),
            Some(found) if found != record => {
                faults.push(format!("invariant 6: {id} was acknowledged as {record:?} and is {found:?}"));
            }
            Some(_) => {}
        }
    }
    faults.extend(refused_but_applied(&model, operations));
    faults
}

/// What was refused before the order must never enter it.
fn refused_but_applied(model: &Model, operations: &[Operation]) -> Vec<String> {
    let mut faults = Vec::new();
    for operation in operations {
        let Call::Submission { ids, answers, .. } = &operation.call else { continue };
        for (id, answer) in ids.iter().zip(answers) {
            if matches!(answer, Some(Answer::Refused(_))) && model.record(id).is_some() {
                faults.push(format!("{id} was refused and is in the order"));
            }
        }
    }
    faults
}

/// Invariant 8: in the order of places carry the latest invocation; whoever was answered before it, and stands behind
/// it, is in the wrong place. A read stands behind the transactions that it reflects.
fn real_time(operations: &[Operation]) -> Vec<String> {
    let mut places: Vec<(Sequence, &Operation, Duration)> = Vec::new();
    for operation in operations {
        let Some(answered) = operation.answered else { continue };
        match &operation.call {
            Call::Submission { answers, .. } => {
                let records = answers.iter().flatten().filter_map(|answer| match answer {
                    Answer::Sequenced { record, .. } => Some(record.sequence.plus(1)),
                    Answer::Refused(_) | Answer::Unknown(_) => None,
                });
                places.extend(records.map(|place| (place, operation, answered)));
            }
            Call::Read { head, .. } => places.extend(head.map(|head| (head.size, operation, answered))),
        }
    }
    // at one place, the transaction comes before those that read it; reads of one place are in no order
    let is_read = |operation: &Operation| matches!(operation.call, Call::Read { .. });
    places.sort_by_key(|(place, operation, _)| (*place, is_read(operation)));
    let mut faults = Vec::new();
    let mut latest = Duration::ZERO;
    for group in places.chunk_by(|left, right| left.0 == right.0 && is_read(left.1) == is_read(right.1)) {
        for (place, operation, answered) in group {
            if *answered < latest {
                let what = if is_read(operation) { "a read" } else { "a transaction" };
                faults.push(format!(
                    "invariant 8: {what} at place {place} was answered at {answered:?}, before something that was \
                     invoked at {latest:?} and stands before it"
                ));
            }
        }
        latest = group.iter().map(|(_, operation, _)| operation.invoked).fold(latest, Duration::max);
    }
    faults
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
        let proved = match replica.state().consistency(old.size, newest.size) {
            Err(fault) => Err(fault.to_string()),
            Ok(proof) => {
                verify_consistency(old.size.get(), &old.log_root, newest.size.get(), &newest.log_root, &proof.proof)
                    .map_err(|fault| fault.to_string())
            }
        };
        if let Err(fault) = proved {
            let (old, new) = (old.size, newest.size);
            world.violation(format!("invariant 10: node {id} cannot prove that {new} continues {old}: {fault}"));
        }
    }
}

/// Receipts prove what is in the history, with the signatures of a majority.
async fn verify_receipts(world: &World, cluster: &Cluster, id: NodeId, batches: &[Arc<BatchRecord>]) {
    let Some((group, replica)) = cluster.replica(id) else { return };
    let keys = cluster.keys();
    let records: Vec<&OutcomeRecord> = batches.iter().flat_map(|batch| &batch.records).collect();
    for record in sample(&records) {
        let (asked, transaction) = (replica.clone(), record.transaction);
        let receipt = group.spawn(async move { asked.receipt(transaction, RECEIPT_PATIENCE).await }).await;
        let proved = match receipt {
            Ok(Ok(Some(receipt))) if receipt.record == **record => {
                receipt.verify(&cluster.identity().cluster, &keys, 1).map_err(|fault| fault.to_string())
            }
            other => Err(format!("{other:?}")),
        };
        if let Err(fault) = proved {
            world.violation(format!("node {id} gives no receipt for {transaction}: {fault}"));
        }
    }
}
