//! Submitting and resolving: the same bytes until there is a definite outcome or the deadline has come.

use std::sync::Arc;
use std::time::Duration;

use ledger::{Outcome as LedgerOutcome, Rejection, TransactionId};
use proto::convert::{Answer, Consistency, Decision, SubmissionResult};
use proto::{Problem, ProblemKind, wire};
use tokio::time::Instant;
use traces::{Parent, Span, SpanKind};

use super::{Client, doubtful};
use crate::api::LedgerApi;
use crate::outcome::{Outcome, Submission, Unresolved};
use crate::prepared::SignedTransaction;

impl Client {
    /// Submits a transaction and waits for its outcome, at most for the client's deadline.
    pub async fn submit(&self, transaction: &SignedTransaction) -> Outcome {
        only(self.submit_group(std::slice::from_ref(transaction)).await)
    }

    /// Submits an atomic group (made by [`crate::group`]), all its members in order. One outcome per member.
    pub async fn submit_group(&self, members: &[SignedTransaction]) -> Vec<Outcome> {
        self.submit_until(&Submission::of(members), self.deadline()).await
    }

    pub(crate) async fn submit_until(&self, submission: &Submission, deadline: Instant) -> Vec<Outcome> {
        // by itself, or as a part of what the caller does
        let span = Span::entry("submit", SpanKind::Client, &Parent::current(), Instant::now());
        let trace = &span.parent();
        let attempt = |node: Arc<dyn LedgerApi>| async move {
            let request = wire::SubmitRequest {
                submissions: vec![wire::Submission { tag: 1, transactions: submission.members.clone() }],
                timeout_ms: millis(self.attempt_time(deadline)),
            };
            let submitted = {
                let _within = trace.enter();
                node.submit(request)
            };
            let response = submitted.await?;
            let [result] = response.results.as_slice() else {
                let message = format!("{} results for one submission", response.results.len());
                return Err(Problem::new(ProblemKind::DoubtfulAnswer, message));
            };
            let result = SubmissionResult::try_from(result).map_err(|fault| doubtful(&fault))?;
            definite(result.answers?, &submission.ids)
        };
        match self.call_until(deadline, attempt).await {
            Ok(decisions) => outcomes(submission, decisions),
            Err((problem, may_have_happened)) => submission.unanswered(&problem, may_have_happened),
        }
    }

    /// Finds out what became of a transaction, at most for the client's deadline. Asks for it, and submits the same
    /// bytes again where it has no place in the order yet. Once log time has passed its `valid_until` the answer is
    /// definite as soon as any node answers, unless history from then was pruned: then it stays unknown.
    pub async fn resolve(&self, token: &Unresolved) -> Outcome {
        let deadline = self.deadline();
        let unknown = |problem| Outcome::Unknown { token: token.clone(), problem };
        let status = match self.status_until(&token.transaction(), Consistency::Linearizable, false, deadline).await {
            Ok(status) => status,
            Err((problem, _)) => return unknown(problem),
        };
        if let Some((record, batch)) = status.sequenced {
            return Outcome::of_decision(Decision::Sequenced { record, batch }, || token.clone());
        }
        if token.valid_until() <= status.forgotten_until {
            let message = "it expired before the history that is kept: what became of it was forgotten";
            return unknown(Problem::new(ProblemKind::OutcomeUnknown, message));
        }
        let log_time = status.head.log_time;
        if log_time >= token.valid_until() {
            return Outcome::Rejected { rejection: Rejection::Expired { log_time }, record: None };
        }
        let outcomes = self.submit_until(&token.submission(), deadline).await;
        match outcomes.into_iter().nth(token.position()) {
            // this attempt was refused, an earlier one may still happen
            Some(Outcome::Refused { problem }) => unknown(problem),
            Some(outcome) => outcome,
            None => unknown(Problem::new(ProblemKind::DoubtfulAnswer, "fewer outcomes than members")),
        }
    }
}

/// The decisions of a submission's members, in order, if all are definite.
pub(crate) fn definite(answers: Vec<Answer>, ids: &[TransactionId]) -> Result<Vec<Decision>, Problem> {
    if !answers.iter().map(|answer| &answer.transaction).eq(ids) {
        return Err(Problem::new(ProblemKind::DoubtfulAnswer, "outcomes of other transactions than submitted"));
    }
    let unknown = answers.iter().find_map(|answer| match &answer.decision {
        Decision::Unknown(problem) => Some(problem.clone()),
        Decision::Sequenced { .. } | Decision::Refused(_) => None,
    });
    let not_yet = answers.iter().find_map(|answer| match &answer.decision {
        Decision::Refused(rejection @ Rejection::ValidityTooLong { .. }) => Some(rejection.to_string()),
        Decision::Refused(_) | Decision::Sequenced { .. } | Decision::Unknown(_) => None,
    });
    if let Some(message) = not_yet {
        // the same bytes may have their place later, when the end of their validity is near enough
        return Err(Problem::bad_request("valid_until", message));
    }
    match unknown {
        // whatever the node's problem was, the transaction may have happened
        Some(problem) => Err(Problem { kind: ProblemKind::OutcomeUnknown, message: problem.to_string(), ..problem }),
        None if is_torn(&answers) => {
            Err(Problem::new(ProblemKind::DoubtfulAnswer, "a part of an atomic group is said to have happened"))
        }
        None => Ok(answers.into_iter().map(|answer| answer.decision).collect()),
    }
}

/// True where some members of a group happened and others did not, and nobody says that the group had been broken up
/// before by sequencing a member elsewhere.
fn is_torn(answers: &[Answer]) -> bool {
    let broken_up = |answer: &Answer| match &answer.decision {
        Decision::Sequenced { record, .. } => {
            matches!(record.outcome, LedgerOutcome::Rejected(Rejection::GroupMemberSequenced { .. }))
        }
        Decision::Refused(_) | Decision::Unknown(_) => false,
    };
    if answers.iter().any(broken_up) {
        return false;
    }
    let committed = |answer: &&Answer| match &answer.decision {
        Decision::Sequenced { record, .. } => matches!(record.outcome, LedgerOutcome::Committed { .. }),
        Decision::Refused(_) | Decision::Unknown(_) => false,
    };
    let happened = answers.iter().filter(committed).count();
    happened != 0 && happened != answers.len()
}

pub(crate) fn outcomes(submission: &Submission, decisions: Vec<Decision>) -> Vec<Outcome> {
    let outcome = |(member, decision)| Outcome::of_decision(decision, || Unresolved::of(submission, member));
    decisions.into_iter().enumerate().map(outcome).collect()
}

pub(crate) fn only(outcomes: Vec<Outcome>) -> Outcome {
    outcomes.into_iter().next().expect("a submission has as many outcomes as members")
}

/// Whole milliseconds, at least one: zero would ask for the node's own default.
pub(crate) fn millis(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX).max(1)
}
