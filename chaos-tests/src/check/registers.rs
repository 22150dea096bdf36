//! Registers: parties that hold one position, which every write replaces. Each is an object by itself, so that a search
//! for any order that explains it stays small.
//!
//! A write names the position that it replaces: it is a compare-and-set, and its answer tells whether the position was
//! still there. What the register holds is named by the output's identifier.

use std::collections::{BTreeMap, BTreeSet};

use ledger::{
    Contract, Intent, Origin, Outcome, OutputId, Party, Rejection, Transaction, transaction::ReceivedTransaction,
};

use super::linearizability::{Interval, Object, Search, search};
use super::{Findings, Property};
use crate::history::{Call, Level, Operation, Told};

/// Steps after which a register's search is given up: a few seconds.
const STEPS_MAX: u64 = 2_000_000;

/// A call on a register.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegisterCall {
    /// The first position is made.
    Create {
        /// What the register holds then.
        to: OutputId,
    },
    /// Replaces one position by another.
    Replace {
        /// What it must hold.
        from: OutputId,
        /// What it holds then.
        to: OutputId,
        /// Whether it did; `None` where that is unknown.
        happened: Option<bool>,
    },
    /// What it holds.
    Read(Option<OutputId>),
}

/// One register.
#[derive(Debug)]
pub struct Register;

impl Object for Register {
    type State = Option<OutputId>;
    type Call = RegisterCall;

    fn initial(&self) -> Self::State {
        None
    }

    fn step(&self, state: &Self::State, call: &RegisterCall) -> Option<Self::State> {
        match call {
            RegisterCall::Create { to } => state.is_none().then_some(Some(*to)),
            RegisterCall::Read(found) => (found == state).then_some(*state),
            RegisterCall::Replace { from, to, happened } => {
                let there = *state == Some(*from);
                match happened {
                    Some(true) => there.then_some(Some(*to)),
                    Some(false) => (!there).then_some(*state),
                    None => Some(if there { Some(*to) } else { *state }),
                }
            }
        }
    }
}

/// The history of each of these parties' registers.
#[must_use]
pub fn histories(operations: &[Operation], parties: &BTreeSet<Party>) -> BTreeMap<Party, Vec<Interval<RegisterCall>>> {
    let mut histories: BTreeMap<Party, Vec<Interval<RegisterCall>>> = BTreeMap::new();
    for operation in operations {
        if let Some((party, call)) = register_call(operation, parties) {
            let Operation { invoked, answered, .. } = *operation;
            histories.entry(party).or_default().push(Interval { invoked, answered, call });
        }
    }
    histories
}

/// What an operation is to one of these parties' registers, if anything.
pub(super) fn register_call(operation: &Operation, parties: &BTreeSet<Party>) -> Option<(Party, RegisterCall)> {
    match &operation.call {
        Call::Submission { members, answers, .. } => match (members.as_slice(), answers.as_slice()) {
            ([bytes], [answer]) => write(bytes, answer.as_ref(), parties),
            _ => None,
        },
        Call::Read { party, level: Level::Linearizable, found: Some(found) } if parties.contains(party) => {
            Some((*party, RegisterCall::Read(found.outputs.first().copied())))
        }
        Call::Read { .. } => None,
    }
}

/// A write, where the transaction is one. What is known to have had no effect, whatever the register held, is none.
fn write(bytes: &[u8], answer: Option<&Told>, parties: &BTreeSet<Party>) -> Option<(Party, RegisterCall)> {
    let transaction = ReceivedTransaction::decode(bytes).ok()?.into_transaction();
    let happened = match answer {
        None => None,
        Some(Told::NotTaken | Told::Refused(_)) => return None,
        Some(Told::Sequenced(record)) => match &record.outcome {
            Outcome::Committed { .. } => Some(true),
            Outcome::Rejected(Rejection::InputSpent { .. } | Rejection::InputUnknown { .. }) => Some(false),
            Outcome::Rejected(_) => return None,
        },
    };
    let (party, from, to) = replaced(&transaction)?;
    if !parties.contains(&party) {
        return None;
    }
    let call = match from {
        Some(from) => RegisterCall::Replace { from, to, happened },
        // where nothing is known of it, it may have happened: it has no answer then
        None if happened != Some(false) => RegisterCall::Create { to },
        None => return None,
    };
    Some((party, call))
}

/// Whose position is replaced by which.
fn replaced(transaction: &Transaction) -> Option<(Party, Option<OutputId>, OutputId)> {
    let Intent::Movements(movements) = &transaction.body.intent else { return None };
    let [contract @ Contract::Position(made)] = movements.outputs.as_slice() else { return None };
    let to = Origin { transaction: transaction.id(), index: 0 }.output_id(contract);
    match movements.inputs.as_slice() {
        [] => Some((made.owner, None, to)),
        [input] if input.contract.holder() == made.owner => Some((made.owner, Some(input.output_id()), to)),
        _ => None,
    }
}

/// Checks that each party's register is linearizable.
#[must_use]
pub fn check(operations: &[Operation], parties: &BTreeSet<Party>) -> Findings {
    let mut findings = Findings::default();
    for (party, history) in histories(operations, parties) {
        findings.looked_at(Property::Registers, history.len());
        match search(&Register, &history, STEPS_MAX) {
            Search::Explained(_) => {}
            Search::Impossible { longest, stuck } => {
                let at: Vec<_> = stuck.iter().filter_map(|call| history.get(*call)).take(4).collect();
                let what = format!(
                    "no order explains the {} calls on {party:?}; after {} of them none of these can follow: {at:?}",
                    history.len(),
                    longest.len()
                );
                findings.violation(Property::Registers, what);
            }
            Search::Undecided => {
                let what = format!("the {} calls on {party:?} are too many at once to decide", history.len());
                findings.violation(Property::Registers, what);
            }
        }
    }
    findings
}
