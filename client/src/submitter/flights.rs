//! The submissions that a pipeline has taken on, and what is due when.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proto::{Problem, ProblemKind, wire};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;

use crate::outcome::{Outcome, Submission};

/// One submission on its way.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) submission: Submission,
    deadline: Instant,
    reply: oneshot::Sender<Vec<Outcome>>,
    /// How often it was sent.
    pub(super) attempts: u32,
    /// Whether it travels on the present stream.
    sent: bool,
    may_have_happened: bool,
    last_problem: Option<Problem>,
    // frees its place in the window
    _permit: OwnedSemaphorePermit,
}

impl Flight {
    pub(super) fn new(
        submission: Submission,
        deadline: Instant,
        reply: oneshot::Sender<Vec<Outcome>>,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            submission,
            deadline,
            reply,
            attempts: 0,
            sent: false,
            may_have_happened: false,
            last_problem: None,
            _permit: permit,
        }
    }
}

/// All open flights. Invariant: each tag is in `waiting`, in `deferred`, or sent.
#[derive(Debug, Default)]
pub(super) struct Flights {
    next_tag: u64,
    open: BTreeMap<u64, Flight>,
    /// To be sent, in order.
    waiting: VecDeque<u64>,
    /// To be sent later.
    deferred: BTreeSet<(Instant, u64)>,
    deadlines: BTreeSet<(Instant, u64)>,
    sent: usize,
}

impl Flights {
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// How many travel on the present stream.
    pub(super) fn sent(&self) -> usize {
        self.sent
    }

    pub(super) fn get(&self, tag: u64) -> Option<&Flight> {
        self.open.get(&tag)
    }

    /// The next time at which something is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let first = |times: &BTreeSet<(Instant, u64)>| times.first().map(|(time, _)| *time);
        [first(&self.deferred), first(&self.deadlines)].into_iter().flatten().min()
    }

    pub(super) fn admit(&mut self, flight: Flight) {
        let tag = self.next_tag;
        self.next_tag += 1;
        self.deadlines.insert((flight.deadline, tag));
        self.open.insert(tag, flight);
        self.waiting.push_back(tag);
    }

    /// Takes what travels in the next message.
    pub(super) fn take_message(&mut self, submissions_max: usize, bytes_max: usize) -> Vec<wire::Submission> {
        let mut message = Vec::new();
        let mut bytes = 0;
        while message.len() < submissions_max && bytes < bytes_max {
            let Some(tag) = self.waiting.pop_front() else { break };
            let Some(flight) = self.open.get_mut(&tag) else { continue };
            flight.sent = true;
            flight.attempts = flight.attempts.saturating_add(1);
            self.sent += 1;
            bytes += flight.submission.bytes_len();
            message.push(wire::Submission { tag, transactions: flight.submission.members.clone() });
        }
        message
    }

    /// Ends a flight. A result that comes after its end, or for a tag never given, changes nothing.
    pub(super) fn conclude(&mut self, tag: u64, outcomes: impl FnOnce(&Submission) -> Vec<Outcome>) {
        if let Some(flight) = self.remove(tag) {
            let outcomes = outcomes(&flight.submission);
            // whoever asked may have lost interest
            let _received = flight.reply.send(outcomes);
        }
    }

    /// Ends a flight without an answer.
    pub(super) fn give_up(&mut self, tag: u64, problem: &Problem, may_have_happened: bool) {
        if let Some(flight) = self.remove(tag) {
            let outcomes = flight.submission.unanswered(problem, may_have_happened || flight.may_have_happened);
            let _received = flight.reply.send(outcomes);
        }
    }

    /// Sends a flight again from `due` on.
    pub(super) fn defer(&mut self, tag: u64, due: Instant, problem: Problem, may_have_happened: bool) {
        if let Some(flight) = self.open.get_mut(&tag).filter(|flight| flight.sent) {
            flight.sent = false;
            self.sent -= 1;
            flight.may_have_happened |= may_have_happened;
            flight.last_problem = Some(problem);
            self.deferred.insert((due, tag));
        }
    }

    /// The stream is lost: everything that travelled on it may have happened, and travels again, first come first.
    pub(super) fn recall(&mut self, problem: &Problem) {
        let mut waiting: BTreeSet<u64> = self.waiting.drain(..).collect();
        for (tag, flight) in self.open.iter_mut().filter(|(_, flight)| flight.sent) {
            flight.sent = false;
            flight.may_have_happened = true;
            flight.last_problem = Some(problem.clone());
            waiting.insert(*tag);
        }
        self.sent = 0;
        self.waiting = waiting.into_iter().collect();
    }

    /// Notes why nothing can be sent: what those are told whose deadline comes first.
    pub(super) fn note(&mut self, problem: &Problem) {
        for flight in self.open.values_mut() {
            flight.last_problem = Some(problem.clone());
        }
    }

    /// Gives up what is past its deadline and readies what was deferred until now.
    pub(super) fn advance(&mut self, now: Instant) {
        while let Some((_, tag)) = self.deadlines.first().copied().filter(|(deadline, _)| *deadline <= now) {
            let flight = self.open.get(&tag);
            let sent = flight.is_some_and(|flight| flight.sent);
            let last = flight.and_then(|flight| flight.last_problem.clone());
            let problem = last.unwrap_or_else(|| Problem::new(ProblemKind::Timeout, "no outcome before the deadline"));
            self.give_up(tag, &problem, sent);
        }
        while let Some((due, tag)) = self.deferred.first().copied().filter(|(due, _)| *due <= now) {
            self.deferred.remove(&(due, tag));
            if self.open.contains_key(&tag) {
                self.waiting.push_back(tag);
            }
        }
    }

    fn remove(&mut self, tag: u64) -> Option<Flight> {
        let flight = self.open.remove(&tag)?;
        self.deadlines.remove(&(flight.deadline, tag));
        self.sent -= usize::from(flight.sent);
        Some(flight)
    }
}
