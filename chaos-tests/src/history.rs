//! What clients asked and were told, with the times of both: all that the checks know of a run from outside.
//!
//! A history is the same thing whether its clients called a simulated cluster or a real one. Times count from the
//! run's beginning, by one clock that all its clients share.
//!
//! Deliberately absent: what nodes think.

pub(crate) mod export;

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use client::Outcome;
use ledger::{Head, OutcomeRecord, OutputId, Party, Rejection, Sequence, TransactionId};

pub use export::{to_edn, to_json_lines, write};

/// One call of a client, with all its repetitions.
#[derive(Debug, Clone)]
pub struct Operation {
    /// Who called.
    pub client: u64,
    /// When it was first sent.
    pub invoked: Duration,
    /// When everything about it was known; `None` while it is not.
    pub answered: Option<Duration>,
    /// What it was.
    pub call: Call,
}

/// What a client asked.
#[derive(Debug, Clone)]
pub enum Call {
    /// One transaction, or an atomic group.
    Submission {
        /// The bytes, the same at every attempt.
        members: Vec<Bytes>,
        /// Their names.
        ids: Vec<TransactionId>,
        /// What is known of each.
        answers: Vec<Option<Told>>,
    },
    /// A read of a party's holdings.
    Read {
        /// Whose.
        party: Party,
        /// How fresh the answer was to be.
        level: Level,
        /// What was found, once there is an answer.
        found: Option<Found>,
    },
}

/// The answer to a read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The head that it reflects.
    pub head: Head,
    /// The live outputs.
    pub outputs: BTreeSet<OutputId>,
    /// Whether these are all; otherwise they are the first page.
    pub complete: bool,
}

/// How fresh a read must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Some state that the ledger had before the answer.
    Local,
    /// With at least so many transactions.
    AtLeast(Sequence),
    /// With everything that was answered before the read began.
    Linearizable,
}

/// What a client was told about a transaction. Whoever is told nothing does not know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// It has a place in the order and an outcome.
    Sequenced(OutcomeRecord),
    /// It failed before the order, for good.
    Refused(Rejection),
    /// No node took it in: it did not happen.
    NotTaken,
}

impl Told {
    /// What an outcome of the client library tells. Where an attempt was given up on in the middle, a refusal of a later
    /// one says nothing about it.
    #[must_use]
    pub fn of_outcome(outcome: &Outcome, given_up_before: bool) -> Option<Self> {
        match outcome {
            Outcome::Committed { record, .. } | Outcome::Rejected { record: Some(record), .. } => {
                Some(Self::Sequenced(record.clone()))
            }
            Outcome::Rejected { rejection, record: None } => Some(Self::Refused(rejection.clone())),
            Outcome::Refused { .. } => (!given_up_before).then_some(Self::NotTaken),
            Outcome::Unknown { .. } => None,
        }
    }

    /// Its place and outcome, where it has them.
    #[must_use]
    pub const fn record(&self) -> Option<&OutcomeRecord> {
        match self {
            Self::Sequenced(record) => Some(record),
            Self::Refused(_) | Self::NotTaken => None,
        }
    }
}

/// A call in a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket(usize);

/// A client was told two different things about one transaction.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{id} was answered {first:?} and then {second:?}")]
pub struct Contradiction {
    /// The transaction.
    pub id: TransactionId,
    /// What was known.
    pub first: Box<Told>,
    /// What was told afterwards.
    pub second: Box<Told>,
}

/// The calls of all clients, in the order in which they began.
#[derive(Debug, Clone, Default)]
pub struct Journal {
    operations: Vec<Operation>,
}

impl Journal {
    /// Everything, once nobody writes any more.
    #[must_use]
    pub fn into_operations(self) -> Vec<Operation> {
        self.operations
    }

    /// Everything so far.
    #[must_use]
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// One call as it stands.
    #[must_use]
    pub fn operation(&self, ticket: Ticket) -> Option<&Operation> {
        self.operations.get(ticket.0)
    }

    /// A client begins a call.
    pub fn invoke(&mut self, client: u64, now: Duration, call: Call) -> Ticket {
        self.operations.push(Operation { client, invoked: now, answered: None, call });
        Ticket(self.operations.len() - 1)
    }

    /// A client is told what became of its submission's members, in order; `None` where it is told nothing. True where
    /// all is known now.
    ///
    /// # Errors
    /// Where it had been told something else before.
    pub fn learn(&mut self, ticket: Ticket, now: Duration, told: &[Option<Told>]) -> Result<bool, Contradiction> {
        let Some(Operation { answered, call: Call::Submission { answers, ids, .. }, .. }) =
            self.operations.get_mut(ticket.0)
        else {
            return Ok(false);
        };
        let mut contradiction = None;
        for ((known, id), told) in answers.iter_mut().zip(ids.iter()).zip(told) {
            match (&known, told) {
                (_, None) => {}
                (Some(first), Some(second)) if first != second => {
                    let (first, second) = (Box::new(first.clone()), Box::new(second.clone()));
                    contradiction = Some(Contradiction { id: *id, first, second });
                }
                (None | Some(_), Some(told)) => *known = Some(told.clone()),
            }
        }
        let all = answers.iter().all(Option::is_some);
        if all && answered.is_none() {
            *answered = Some(now);
        }
        contradiction.map_or(Ok(all), Err)
    }

    /// A client's read is answered.
    pub fn read(&mut self, ticket: Ticket, now: Duration, answer: Found) {
        if let Some(Operation { answered, call: Call::Read { found, .. }, .. }) = self.operations.get_mut(ticket.0) {
            *answered = Some(now);
            *found = Some(answer);
        }
    }

    /// Submissions of which something is still unknown.
    #[must_use]
    pub fn unknown(&self) -> Vec<(Ticket, Vec<Bytes>)> {
        let unknown = self.operations.iter().enumerate().filter(|(_, operation)| operation.answered.is_none());
        unknown
            .filter_map(|(number, operation)| match &operation.call {
                Call::Submission { members, .. } => Some((Ticket(number), members.clone())),
                Call::Read { .. } => None,
            })
            .collect()
    }
}
