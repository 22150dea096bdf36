//! Submissions: into the gateway and back as results.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, OptionFuture};
use futures::stream::{FuturesOrdered, FuturesUnordered, Stream};
use futures::{FutureExt, StreamExt};
use ledger::TransactionId;
use ledger::bundle::BundleBuilder;
use ledger::transaction::ReceivedTransaction;
use proto::convert::{self, Decision, SubmissionResult};
use proto::{Problem, ProblemKind, wire};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use traces::{Parent, Span, SpanKind};

use super::turns::{Asker, Room, Turn, turns_of};
use super::{Api, Subject, faults};
use crate::gateway::{self, Lane};

/// Submissions of one pipeline that wait for their outcomes. Half of what a gateway admits, so that one client leaves
/// room for others; a client that sends more is slowed down, not refused.
const PIPELINE_SUBMISSIONS_MAX: usize = 8_192;
/// Results in one message of a pipeline.
const RESULTS_PER_MESSAGE_MAX: usize = 512;
/// Results of one pipeline that wait to be taken before it takes no further requests.
const RESULTS_READY_MAX: usize = 2 * RESULTS_PER_MESSAGE_MAX;
/// A client that takes no results for this long has lost its pipeline.
const READER_PATIENCE: Duration = Duration::from_secs(30);

impl Api {
    /// Submits everything in the client's request and waits for the outcomes. What is beyond the client's rate is refused.
    /// `trace` is what the request is a part of.
    ///
    /// # Errors
    /// Where nothing of it is taken in.
    pub async fn submit(
        &self,
        client: Option<&Subject>,
        request: wire::SubmitRequest,
        trace: &Parent,
    ) -> Result<Vec<SubmissionResult>, Problem> {
        if request.submissions.is_empty() {
            return Err(Problem::bad_request("submissions", "missing"));
        }
        self.ready_to_submit()?;
        let mut waiting = FuturesOrdered::new();
        let mut results = Vec::new();
        for turn in turns_of(request, trace) {
            let room = {
                let mut room = std::pin::pin!(self.turn_among_many(client, &turn));
                loop {
                    tokio::select! {
                        room = &mut room => break room,
                        // what is answered gives its room back, also while more is waited for
                        Some(result) = waiting.next(), if !waiting.is_empty() => results.push(result),
                    }
                }
            };
            waiting.extend(self.submit_each(client, turn, room));
        }
        results.extend(waiting.collect::<Vec<_>>().await);
        Ok(results)
    }

    /// Room for a part of a request by itself.
    async fn turn_among_many(&self, client: Option<&Subject>, turn: &Turn) -> Result<Room, Problem> {
        self.rates().take(client, turn.pieces())?;
        self.turns().wait_among_many(turn).await
    }

    /// Room for a part of a stream.
    fn turn_in_stream(
        &self,
        client: Option<&Subject>,
        turn: &Turn,
        asker: Asker,
    ) -> BoxFuture<'static, Result<Room, Problem>> {
        let allowed = self.rates().wait(client, turn.pieces(), turn.deadline);
        let room = self.turns().wait(turn, asker);
        async move {
            allowed.await?;
            room.await
        }
        .boxed()
    }

    /// Takes a client's submissions as they come and gives results as they are known, until the requests end and all are
    /// answered, or nobody takes the results. They are taken no faster than its rate allows. While too many wait for their outcomes, or results are not taken,
    /// no further requests are taken. What is answered gives its transactions back at once, whether or not anyone
    /// takes the result.
    pub async fn pipeline<E>(
        &self,
        client: Option<&Subject>,
        requests: impl Stream<Item = Result<wire::SubmitRequest, E>>,
        results: mpsc::Sender<Vec<SubmissionResult>>,
        trace: Parent,
    ) {
        let mut requests = std::pin::pin!(requests);
        let mut turns = VecDeque::new();
        let mut next_turn = None;
        let mut waiting = FuturesUnordered::new();
        let mut ready = VecDeque::new();
        let mut last_taken = Instant::now();
        let mut open = true;
        while open || !turns.is_empty() || next_turn.is_some() || !waiting.is_empty() || !ready.is_empty() {
            let takes_more = waiting.len() < PIPELINE_SUBMISSIONS_MAX && ready.len() < RESULTS_READY_MAX;
            if takes_more && next_turn.is_none() {
                let asker = if waiting.is_empty() { Asker::Idle } else { Asker::Busy };
                next_turn = turns.pop_front().map(|turn| (self.turn_in_stream(client, &turn, asker), turn));
            }
            let all_given = next_turn.is_none();
            // no branch loses anything when another is taken; a turn is waited for until it comes, for what it is given
            // is taken from others
            tokio::select! {
                Some(room) = OptionFuture::from(next_turn.as_mut().map(|(room, _)| room)), if !all_given => {
                    if let Some((_, turn)) = next_turn.take() {
                        waiting.extend(self.submit_each(client, turn, room));
                    }
                }
                room = timeout_at(last_taken + READER_PATIENCE, results.reserve()), if !ready.is_empty() => {
                    let Ok(Ok(room)) = room else { return };
                    let count = ready.len().min(RESULTS_PER_MESSAGE_MAX);
                    room.send(ready.drain(..count).collect());
                    last_taken = Instant::now();
                }
                Some(first) = waiting.next(), if !waiting.is_empty() => {
                    if ready.is_empty() {
                        last_taken = Instant::now();
                    }
                    ready.push_back(first);
                    ready.extend(std::iter::from_fn(|| waiting.next().now_or_never().flatten()));
                }
                request = requests.next(), if open && takes_more && all_given => match request {
                    Some(Ok(request)) => turns = turns_of(request, &trace),
                    Some(Err(_)) | None => open = false,
                },
                () = results.closed() => return,
            }
        }
    }

    /// Gives every submission to the gateway, in order; the futures wait for their outcomes. Where there was no room
    /// for the turn, every submission is refused for that.
    fn submit_each(
        &self,
        client: Option<&Subject>,
        mut turn: Turn,
        room: Result<Room, Problem>,
    ) -> Vec<impl Future<Output = SubmissionResult> + use<>> {
        let (mut room, ready) = match room {
            Ok(room) => (Some(room), self.ready_to_submit()),
            Err(problem) => {
                let count = u64::try_from(turn.submissions.len()).unwrap_or(u64::MAX);
                if problem.kind == ProblemKind::RateLimited {
                    self.rates().count_refused(client, count);
                } else {
                    self.turns().refused().add(count);
                }
                (None, Err(problem))
            }
        };
        if room.is_some()
            && let Ok(replica) = self.replica()
        {
            replica.gateway().measures().stages.admission.record(turn.arrived.elapsed());
        }
        let lane = room.as_ref().map_or(Lane::Bulk, Room::lane);
        let submissions = std::mem::take(&mut turn.submissions);
        let admit = |submission: wire::Submission| {
            let part = room.as_mut().and_then(|room| room.part_for(&submission));
            let answers = ready.clone().and_then(|()| self.admit(lane, &submission, &turn));
            // what is refused is not held until somebody takes the refusal
            let held = if answers.is_ok() { (submission.transactions, part) } else { (Vec::new(), None) };
            finish(submission.tag, held, answers)
        };
        submissions.into_iter().map(admit).collect()
    }

    fn admit(
        &self,
        lane: Lane,
        submission: &wire::Submission,
        turn: &Turn,
    ) -> Result<oneshot::Receiver<Vec<gateway::Answer>>, Problem> {
        let replica = self.replica()?;
        let limits = replica.state().limits();
        let members = convert::members(submission, limits.group_members_max)?;
        if members.len() > 1 && !BundleBuilder::new().fits(members, limits) {
            let message = format!("the group is larger than a bundle of {} bytes", limits.bundle_bytes_max);
            return Err(Problem::new(ProblemKind::MessageTooLarge, message));
        }
        let span = Span::entry("submission", SpanKind::Server, &turn.trace, turn.arrived);
        span.set("seriatim.node", || i64::try_from(replica.id()).unwrap_or(i64::MAX));
        span.past_until_now("admission", turn.arrived);
        replica.gateway().submit(lane, members.to_vec(), turn.deadline, span).map_err(faults::refusal)
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

/// Waits for the outcomes of what was taken in. The transactions and their room are held until then: an answer may have
/// to name them.
async fn finish(
    tag: u64,
    (transactions, _room): (Vec<Bytes>, Option<Room>),
    answers: Result<oneshot::Receiver<Vec<gateway::Answer>>, Problem>,
) -> SubmissionResult {
    let answers = match answers {
        Ok(answers) => {
            answers.await.map_err(|_dropped| Problem::new(ProblemKind::OutcomeUnknown, "the node is stopping"))
        }
        Err(problem) => Err(problem),
    };
    let told = |answers: Vec<gateway::Answer>| {
        transactions.iter().zip(answers).map(|(bytes, answer)| told(bytes, answer)).collect()
    };
    SubmissionResult { tag, answers: answers.map(told) }
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
