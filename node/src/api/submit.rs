//! Submissions: into the gateway and back as results.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{FuturesUnordered, Stream};
use ledger::TransactionId;
use ledger::transaction::ReceivedTransaction;
use proto::convert::{self, Decision, SubmissionResult};
use proto::{Problem, ProblemKind, wire};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

use super::{Api, faults};
use crate::gateway;

/// How long a submission may take unless its sender says otherwise, and at most.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
const TIMEOUT_MAX: Duration = Duration::from_secs(300);
/// Submissions of one pipeline that wait for their outcomes. Half of what a gateway admits, so that one client leaves
/// room for others; a client that sends more is slowed down, not refused.
const PIPELINE_SUBMISSIONS_MAX: usize = 8_192;
/// Results in one message of a pipeline.
const RESULTS_PER_MESSAGE_MAX: usize = 512;
/// A client that takes no results for this long has lost its pipeline.
const READER_PATIENCE: Duration = Duration::from_secs(30);

impl Api {
    /// Submits everything in the request and waits for the outcomes.
    ///
    /// # Errors
    /// Where nothing of it is taken in.
    pub async fn submit(&self, request: wire::SubmitRequest) -> Result<Vec<SubmissionResult>, Problem> {
        if request.submissions.is_empty() {
            return Err(Problem::bad_request("submissions", "missing"));
        }
        self.ready_to_submit()?;
        Ok(futures::future::join_all(self.submit_each(request)).await)
    }

    /// Takes submissions as they come and gives results as they are known, until the requests end and all are
    /// answered, or nobody takes the results. While too many wait for their outcomes, or results are not taken,
    /// no further requests are taken.
    pub async fn pipeline<E>(
        &self,
        requests: impl Stream<Item = Result<wire::SubmitRequest, E>>,
        results: mpsc::Sender<Vec<SubmissionResult>>,
    ) {
        let mut requests = std::pin::pin!(requests);
        let mut waiting = FuturesUnordered::new();
        let mut open = true;
        while open || !waiting.is_empty() {
            // neither branch loses anything when the other is taken
            let message = tokio::select! {
                request = requests.next(), if open && waiting.len() < PIPELINE_SUBMISSIONS_MAX => {
                    match request {
                        Some(Ok(request)) => waiting.extend(self.submit_each(request)),
                        Some(Err(_)) | None => open = false,
                    }
                    continue;
                }
                Some(first) = waiting.next(), if !waiting.is_empty() => take_ready(first, &mut waiting),
                () = results.closed() => return,
            };
            if !matches!(timeout(READER_PATIENCE, results.send(message)).await, Ok(Ok(()))) {
                return;
            }
        }
    }

    /// Gives every submission to the gateway, in order; the futures wait for their outcomes.
    fn submit_each(&self, request: wire::SubmitRequest) -> Vec<impl Future<Output = SubmissionResult> + use<>> {
        let asked = Duration::from_millis(u64::from(request.timeout_ms));
        let patience = if asked.is_zero() { TIMEOUT_DEFAULT } else { asked.min(TIMEOUT_MAX) };
        let deadline = Instant::now() + patience;
        let ready = self.ready_to_submit();
        let admit = |submission: wire::Submission| {
            let answers = ready.clone().and_then(|()| self.admit(&submission, deadline));
            finish(submission, answers)
        };
        request.submissions.into_iter().map(admit).collect()
    }

    fn admit(
        &self,
        submission: &wire::Submission,
        deadline: Instant,
    ) -> Result<oneshot::Receiver<Vec<gateway::Answer>>, Problem> {
        let replica = self.replica()?;
        let members = convert::members(submission, replica.state().limits().group_members_max)?;
        replica.gateway().submit(members.to_vec(), deadline).map_err(faults::refusal)
    }

    fn ready_to_submit(&self) -> Result<(), Problem> {
        if self.is_stopping() {
            return Err(Problem::new(ProblemKind::ShuttingDown, "this node is stopping"));
        }
        self.initialized()
    }

    /// # Errors
    /// Where the node is no member of a cluster yet.
    pub(super) fn initialized(&self) -> Result<(), Problem> {
        let replica = self.replica()?;
        if replica.sequencer().watch().borrow().members.voters.is_empty() {
            let message = "this node is not a member of a cluster yet";
            return Err(Problem::new(ProblemKind::NotInitialized, message).after(Duration::from_secs(1)));
        }
        Ok(())
    }
}

/// What is known already besides the first result.
fn take_ready<F: Future<Output = SubmissionResult>>(
    first: SubmissionResult,
    waiting: &mut FuturesUnordered<F>,
) -> Vec<SubmissionResult> {
    use futures::FutureExt;
    let mut ready = vec![first];
    while ready.len() < RESULTS_PER_MESSAGE_MAX
        && let Some(Some(next)) = waiting.next().now_or_never()
    {
        ready.push(next);
    }
    ready
}

async fn finish(
    submission: wire::Submission,
    answers: Result<oneshot::Receiver<Vec<gateway::Answer>>, Problem>,
) -> SubmissionResult {
    let answers = match answers {
        Ok(answers) => {
            answers.await.map_err(|_dropped| Problem::new(ProblemKind::OutcomeUnknown, "the node is stopping"))
        }
        Err(problem) => Err(problem),
    };
    let told = |answers: Vec<gateway::Answer>| {
        submission.transactions.iter().zip(answers).map(|(bytes, answer)| told(bytes, answer)).collect()
    };
    SubmissionResult { tag: submission.tag, answers: answers.map(told) }
}

fn told(bytes: &Bytes, answer: gateway::Answer) -> convert::Answer {
    match answer {
        gateway::Answer::Sequenced { record, batch } => {
            let transaction = record.transaction;
            convert::Answer { transaction, decision: Decision::Sequenced { record, batch } }
        }
        gateway::Answer::Refused(rejection) => {
            convert::Answer { transaction: name(bytes), decision: Decision::Refused(rejection) }
        }
        gateway::Answer::Unknown(why) => {
            let problem = Problem::new(ProblemKind::OutcomeUnknown, why);
            convert::Answer { transaction: name(bytes), decision: Decision::Unknown(problem) }
        }
    }
}

/// The transaction's name; zeros where the bytes are no transaction.
fn name(bytes: &Bytes) -> TransactionId {
    ReceivedTransaction::decode(bytes).map_or(TransactionId::from_bytes([0; 32]), |received| received.id())
}
