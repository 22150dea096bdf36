//! The total-order check, in linear time: the order that a node tells must explain everything that clients saw.
//!
//! The order is replayed by the naive [`Model`]. Then each transaction stands at its place and each read behind the
//! transactions that it reflects; walking along the places, an operation must not have been answered before an earlier
//! one was invoked.

use std::collections::BTreeMap;
use std::time::Duration;

use ledger::{Limits, OutcomeRecord, Sequence, TransactionId};

use super::model::Model;
use super::{Findings, OrderedBatch, Property};
use crate::history::{Call, Found, Level, Operation, Told};

/// Checks an order against the clients' history. `batches` are all that were ever ordered.
#[must_use]
pub fn check(batches: &[OrderedBatch], operations: &[Operation], limits: &Limits) -> Findings {
    let mut findings = Findings::default();
    let Some(model) = replay(batches, operations, limits, &mut findings) else { return findings };
    acknowledgements(&model, operations, &mut findings);
    authority(&model, operations, &mut findings);
    real_time(&model, operations, &mut findings);
    findings
}

/// The outcomes that clients know.
#[must_use]
pub fn acknowledged(operations: &[Operation]) -> BTreeMap<TransactionId, &OutcomeRecord> {
    let told = operations.iter().flat_map(|operation| match &operation.call {
        Call::Submission { answers, .. } => answers.as_slice(),
        Call::Read { .. } => &[],
    });
    told.flatten().filter_map(Told::record).map(|record| (record.transaction, record)).collect()
}

type ReadsByBatch<'a> = BTreeMap<u64, Vec<(&'a Operation, &'a Found)>>;

/// `None` where a batch cannot be explained: what comes after it would be judged by a state that is not the ledger's.
fn replay(
    batches: &[OrderedBatch],
    operations: &[Operation],
    limits: &Limits,
    findings: &mut Findings,
) -> Option<Model> {
    let mut reads: ReadsByBatch<'_> = BTreeMap::new();
    for operation in operations {
        if let Call::Read { found: Some(found), .. } = &operation.call {
            reads.entry(found.head.batch).or_default().push((operation, found));
        }
    }
    let mut model = Model::new();
    check_reads(&model, reads.remove(&0), findings);
    for batch in batches {
        if let Err(violation) = model.apply(batch, limits) {
            findings.violation(violation.property, format!("batch {}: {}", batch.head.batch, violation.what));
            return None;
        }
        check_reads(&model, reads.remove(&batch.head.batch), findings);
    }
    if let Err(violation) = model.check_whole() {
        findings.violation(violation.property, violation.what);
    }
    for (batch, reads) in reads {
        let what = format!("{} reads reflect batch {batch}, which was never ordered", reads.len());
        findings.violation(Property::Reads, what);
    }
    let records = model.size();
    for property in [
        Property::SingleSpend,
        Property::KnownInputs,
        Property::Conservation,
        Property::NonNegativity,
        Property::OneOutcome,
        Property::Outcomes,
    ] {
        findings.looked_at(property, records);
    }
    findings.looked_at(Property::Atomicity, model.groups());
    Some(model)
}

/// Reads that reflect the model's present head must have found what is there now.
fn check_reads(model: &Model, reads: Option<Vec<(&Operation, &Found)>>, findings: &mut Findings) {
    for (operation, found) in reads.into_iter().flatten() {
        let Call::Read { party, level, .. } = &operation.call else { continue };
        findings.looked_at(Property::Reads, 1);
        let held = model.held_by(party);
        let right = if found.complete { held == found.outputs } else { found.outputs.is_subset(&held) };
        let head = model.head().is_none_or(|head| *head == found.head);
        if !right || !head {
            let what = format!("a read of {party:?} found {:?} at {:?}, which was never so", found.outputs, found.head);
            findings.violation(Property::Reads, what);
        }
        if let Level::AtLeast(wanted) = level
            && found.head.size < *wanted
        {
            let what = format!("a read wanted {wanted} transactions and reflects {}", found.head.size);
            findings.violation(Property::Reads, what);
        }
    }
}

fn acknowledgements(model: &Model, operations: &[Operation], findings: &mut Findings) {
    let known = acknowledged(operations);
    findings.looked_at(Property::Acknowledgements, known.len());
    for (id, record) in known {
        match model.record(&id) {
            None => {
                findings
                    .violation(Property::Acknowledgements, format!("{id} was acknowledged and is lost: {record:?}"));
            }
            Some(found) if found != record => {
                let what = format!("{id} was acknowledged as {record:?} and is {found:?}");
                findings.violation(Property::Acknowledgements, what);
            }
            Some(_) => {}
        }
    }
}

/// What was refused never enters the order, and what is in the order was submitted by somebody.
fn authority(model: &Model, operations: &[Operation], findings: &mut Findings) {
    let mut submitted = 0;
    for operation in operations {
        let Call::Submission { ids, answers, .. } = &operation.call else { continue };
        for (id, answer) in ids.iter().zip(answers) {
            let is_there = model.record(id).is_some();
            submitted += usize::from(is_there);
            if let Some(Told::Refused(_) | Told::NotTaken) = answer
                && is_there
            {
                findings.violation(Property::Authority, format!("{id} was refused and is in the order"));
            }
        }
    }
    findings.looked_at(Property::Authority, model.size());
    if submitted < model.size() {
        let what = format!("{} transactions are in the order and were submitted by nobody", model.size() - submitted);
        findings.violation(Property::Authority, what);
    }
}

/// An operation at its place.
struct Placed<'a> {
    /// Transactions up to and including it.
    place: Sequence,
    is_read: bool,
    operation: &'a Operation,
}

/// Invariant 8. At one place the transaction comes before those that read it; reads of one place are in no order. What
/// was never answered may have happened at any time after it was invoked; local reads may be old, but not from the
/// future.
fn real_time(model: &Model, operations: &[Operation], findings: &mut Findings) {
    let mut placed: Vec<Placed<'_>> = Vec::new();
    for operation in operations {
        match &operation.call {
            Call::Submission { ids, .. } => {
                let places = ids.iter().filter_map(|id| model.record(id)).map(|record| record.sequence.plus(1));
                placed.extend(places.map(|place| Placed { place, is_read: false, operation }));
            }
            Call::Read { found, .. } => {
                let place = found.as_ref().map(|found| found.head.size);
                placed.extend(place.map(|place| Placed { place, is_read: true, operation }));
            }
        }
    }
    findings.looked_at(Property::RealTime, placed.len());
    placed.sort_by_key(|placed| (placed.place, placed.is_read));
    let mut latest = Duration::ZERO;
    for group in placed.chunk_by(|left, right| left.place == right.place && left.is_read == right.is_read) {
        for Placed { place, is_read, operation } in group {
            let Some(answered) = operation.answered.filter(|answered| *answered < latest) else { continue };
            let what = if *is_read { "a read" } else { "a transaction" };
            findings.violation(
                Property::RealTime,
                format!(
                    "{what} at place {place} was answered at {answered:?}, before something that was invoked at \
                     {latest:?} and stands before it"
                ),
            );
        }
        let binding = group.iter().filter(|placed| must_be_fresh(placed.operation));
        latest = binding.map(|placed| placed.operation.invoked).fold(latest, Duration::max);
    }
}

/// Whether later places must not be answered before this was invoked.
fn must_be_fresh(operation: &Operation) -> bool {
    match &operation.call {
        Call::Submission { .. } | Call::Read { level: Level::Linearizable, .. } => true,
        Call::Read { level: Level::Local | Level::AtLeast(_), .. } => false,
    }
}
