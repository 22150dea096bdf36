//! The outputs that a transaction created, from its body and its line of the ledger: no node needs to be asked.

use ledger::effects::created_outputs;
use ledger::transaction::Origin;
use ledger::view::{LiveOutput, Place};
use ledger::{Body, Contract, Intent, OutcomeRecord, TermsId};

/// The outputs that a committed transaction with named inputs created, in output order.
#[must_use]
pub fn outputs_of(record: &OutcomeRecord, body: &Body) -> Vec<LiveOutput> {
    let Intent::Movements(movements) = &body.intent else { return Vec::new() };
    let transaction = record.transaction;
    let created = created_outputs(&transaction, &movements.outputs);
    let output = |(index, (id, contract))| LiveOutput {
        id,
        origin: Origin { transaction, index },
        place: Place { sequence: record.sequence, index },
        contract,
    };
    (0_u16..).zip(created).map(output).collect()
}

/// Those of them that are allocations locked to these terms.
#[must_use]
pub fn allocations_of(terms: &TermsId, record: &OutcomeRecord, body: &Body) -> Vec<LiveOutput> {
    let locked = |output: &LiveOutput| matches!(&output.contract, Contract::Allocation(held) if held.terms == *terms);
    outputs_of(record, body).into_iter().filter(locked).collect()
}
