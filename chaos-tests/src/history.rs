//! What clients asked and were answered, with the virtual times of both.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use ledger::{Head, OutputId, Party, TransactionId};
use node::gateway::Answer;

use crate::world::{Event, World, lock};

/// One call of a client, with all its repetitions.
#[derive(Debug, Clone)]
pub struct Operation {
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
        answers: Vec<Option<Answer>>,
    },
    /// A linearizable read of a party's holdings.
    Read {
        /// Whose.
        party: Party,
        /// The head that the answer reflects, once there is one.
        head: Option<Head>,
        /// The outputs found.
        outputs: BTreeSet<OutputId>,
    },
}

/// All calls of all clients. Clones are the same history.
#[derive(Debug, Clone)]
pub struct History {
    world: World,
    operations: Arc<Mutex<Vec<Operation>>>,
}

/// A call in the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket(usize);

impl History {
    /// Nothing asked yet.
    #[must_use]
    pub fn new(world: &World) -> Self {
        Self { world: world.clone(), operations: Arc::default() }
    }

    fn operations(&self) -> MutexGuard<'_, Vec<Operation>> {
        lock(&self.operations)
    }

    /// Everything so far.
    #[must_use]
    pub fn all(&self) -> Vec<Operation> {
        self.operations().clone()
    }

    /// One call as it stands.
    #[must_use]
    pub fn call(&self, ticket: Ticket) -> Option<Call> {
        self.operations().get(ticket.0).map(|operation| operation.call.clone())
    }

    /// A client begins a call.
    pub fn invoke(&self, client: u64, call: Call) -> Ticket {
        let operation = match &call {
            Call::Submission { ids, .. } => format!("submission of {ids:?}"),
            Call::Read { party, .. } => format!("read of {party:?}"),
        };
        self.world.record(&Event::Invoked { client, operation: &operation });
        let mut operations = self.operations();
        operations.push(Operation { invoked: self.world.now(), answered: None, call });
        Ticket(operations.len() - 1)
    }

    /// A client learns what became of its submission, or of some members. True where all is known now.
    pub fn learn(&self, client: u64, ticket: Ticket, learned: &[Answer]) -> bool {
        self.world.record(&Event::Answered { client, answer: &format!("{learned:?}") });
        let now = self.world.now();
        let mut operations = self.operations();
        let Some(Operation { answered, call: Call::Submission { answers, ids, .. }, .. }) =
            operations.get_mut(ticket.0)
        else {
            return false;
        };
        for ((known, id), answer) in answers.iter_mut().zip(ids).zip(learned) {
            match (&known, answer) {
                (_, Answer::Unknown(_)) => {}
                (None, answer) => *known = Some(answer.clone()),
                (Some(known), answer) if known == answer => {}
                (Some(known), answer) => {
                    self.world.violation(format!("{id} was answered {known:?} and then {answer:?}"));
                }
            }
        }
        let all = answers.iter().all(Option::is_some);
        if all && answered.is_none() {
            *answered = Some(now);
        }
        all
    }

    /// A client's read is answered.
    pub fn read(&self, client: u64, ticket: Ticket, found: Head, held: BTreeSet<OutputId>) {
        let answer = format!("{} outputs at batch {} {:?}", held.len(), found.batch, found.hash());
        self.world.record(&Event::Answered { client, answer: &answer });
        let mut operations = self.operations();
        if let Some(Operation { answered, call: Call::Read { head, outputs, .. }, .. }) = operations.get_mut(ticket.0) {
            *answered = Some(self.world.now());
            *head = Some(found);
            *outputs = held;
        }
    }

    /// Submissions of which something is still unknown.
    #[must_use]
    pub fn unknown(&self) -> Vec<(Ticket, Vec<Bytes>)> {
        let operations = self.operations();
        let unknown = operations.iter().enumerate().filter(|(_, operation)| operation.answered.is_none());
        unknown
            .filter_map(|(number, operation)| match &operation.call {
                Call::Submission { members, .. } => Some((Ticket(number), members.clone())),
                Call::Read { .. } => None,
            })
            .collect()
    }
}
