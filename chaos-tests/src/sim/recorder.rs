//! The journal of a simulation's clients, which also tells the trace.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use node::gateway::Answer;

use crate::check::Property;
use crate::dice::lock;
use crate::history::{Call, Found, Journal, Operation, Ticket, Told};
use crate::sim::world::{Event, World};

/// All calls of all clients. Clones are the same history.
#[derive(Debug, Clone)]
pub struct History {
    world: World,
    journal: Arc<Mutex<Journal>>,
}

/// What a gateway's answer tells a client.
pub(super) fn told(answer: &Answer) -> Option<Told> {
    match answer {
        Answer::Sequenced { record, .. } => Some(Told::Sequenced(record.clone())),
        Answer::Refused(reason) => Some(Told::Refused(reason.clone())),
        Answer::Unknown(_) => None,
    }
}

impl History {
    /// Writes into this journal.
    #[must_use]
    pub fn new(world: &World, journal: &Arc<Mutex<Journal>>) -> Self {
        Self { world: world.clone(), journal: Arc::clone(journal) }
    }

    /// Everything so far.
    #[must_use]
    pub fn all(&self) -> Vec<Operation> {
        lock(&self.journal).operations().to_vec()
    }

    /// One call as it stands.
    #[must_use]
    pub fn call(&self, ticket: Ticket) -> Option<Call> {
        lock(&self.journal).operation(ticket).map(|operation| operation.call.clone())
    }

    /// A client begins a call.
    pub fn invoke(&self, client: u64, call: Call) -> Ticket {
        let operation = match &call {
            Call::Submission { ids, .. } => format!("submission of {ids:?}"),
            Call::Read { party, level, .. } => format!("{level:?} read of {party:?}"),
        };
        self.world.record(&Event::Invoked { client, operation: &operation });
        lock(&self.journal).invoke(client, self.world.now(), call)
    }

    /// A client learns what became of its submission, or of some members. True where all is known now.
    pub fn learn(&self, client: u64, ticket: Ticket, learned: &[Option<Told>]) -> bool {
        self.world.record(&Event::Answered { client, answer: &format!("{learned:?}") });
        let known = lock(&self.journal).learn(ticket, self.world.now(), learned);
        known.unwrap_or_else(|contradiction| {
            self.world.violation(Property::Acknowledgements, contradiction.to_string());
            false
        })
    }

    /// A client's read is answered.
    pub fn read(&self, client: u64, ticket: Ticket, found: Found) {
        let (head, count) = (&found.head, found.outputs.len());
        let answer = format!("{count} outputs at batch {} {:?}", head.batch, head.hash());
        self.world.record(&Event::Answered { client, answer: &answer });
        lock(&self.journal).read(ticket, self.world.now(), found);
    }

    /// Submissions of which something is still unknown.
    #[must_use]
    pub fn unknown(&self) -> Vec<(Ticket, Vec<Bytes>)> {
        lock(&self.journal).unknown()
    }
}
