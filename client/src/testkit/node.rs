//! A node of a [`super::LocalLedger`], which can be made to misbehave.

use std::collections::VecDeque;
use std::future::pending;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, FuturesUnordered};
use futures::{FutureExt, StreamExt};
use ledger::identifier::canonical_bytes;
use ledger::{LogTime, Receipt, SignedHead};
use proto::convert::{self, Consistency, Holdings, SubmissionResult, TransactionStatus};
use proto::{ConversionFault, Problem, ProblemKind, wire};
use seams::Clock;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_stream::wrappers::ReceiverStream;

use super::Core;
use crate::api::{BatchStream, LedgerApi, UpdateStream};

/// Messages queued in a pipeline.
const PIPELINE_MESSAGES: usize = 4;
/// Outputs in a page at most.
const PAGE_OUTPUTS_MAX: usize = 1_000;

/// What goes wrong with a submission. Each happens once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mishap {
    /// It is executed, and the connection is lost before the answer.
    LoseAnswer,
    /// The connection is lost before it is executed.
    LoseRequest,
    /// There is never an answer; it is not executed.
    Hang,
    /// The node refuses it.
    Refuse(Problem),
}

/// One way to reach a local ledger.
#[derive(Debug)]
pub struct LocalNode {
    core: Arc<Core>,
    mishaps: Arc<Mutex<VecDeque<Mishap>>>,
    /// Whether the node is up; streams end when it stops.
    up: watch::Sender<bool>,
}

impl LocalNode {
    pub(super) fn new(core: Arc<Core>) -> Self {
        Self { core, mishaps: Arc::default(), up: watch::Sender::new(true) }
    }

    /// The next submissions meet these mishaps, one each.
    pub fn plan(&self, mishaps: impl IntoIterator<Item = Mishap>) {
        self.mishaps.lock().unwrap_or_else(PoisonError::into_inner).extend(mishaps);
    }

    /// What was planned and has not happened will not.
    pub fn forget_plans(&self) {
        self.mishaps.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Stops the node: calls find nobody, streams break.
    pub fn stop(&self) {
        self.up.send_replace(false);
    }

    /// Starts the node again.
    pub fn start(&self) {
        self.up.send_replace(true);
    }

    /// Answers from the state, if the node is up.
    fn answer<T: Send + 'static>(
        &self,
        answer: impl FnOnce(&Core) -> Result<T, Problem>,
    ) -> BoxFuture<'static, Result<T, Problem>> {
        let result = self.expect_up().and_then(|()| answer(&self.core));
        async move { result }.boxed()
    }

    fn expect_up(&self) -> Result<(), Problem> {
        if *self.up.borrow() { Ok(()) } else { Err(Problem::new(ProblemKind::Unreachable, "the node is down")) }
    }

    fn submissions(&self) -> Submissions {
        Submissions { core: Arc::clone(&self.core), mishaps: Arc::clone(&self.mishaps) }
    }
}

/// Executes submissions, mishaps included.
struct Submissions {
    core: Arc<Core>,
    mishaps: Arc<Mutex<VecDeque<Mishap>>>,
}

impl Submissions {
    /// Waits until the outcomes are due, all submissions side by side.
    async fn execute(&self, request: wire::SubmitRequest) -> Result<wire::SubmitResponse, Problem> {
        let due = request.submissions.iter().map(|submission| self.core.due(&submission.transactions)).max();
        if self.core.work.is_some() {
            sleep_until(due.unwrap_or_else(Instant::now)).await;
        }
        self.execute_now(request).await
    }

    /// Serves a pipeline until it ends or breaks. What costs nothing is executed one request after another; what costs
    /// something side by side, each submission when it is due.
    async fn serve(
        &self,
        requests: &mut mpsc::Receiver<wire::SubmitRequest>,
        results: &mpsc::Sender<Result<wire::SubmitResponse, Problem>>,
    ) {
        let mut executing = FuturesUnordered::new();
        let mut open = true;
        while open || !executing.is_empty() {
            let response = tokio::select! {
                request = requests.recv(), if open => match request {
                    None => {
                        open = false;
                        continue;
                    }
                    Some(request) if self.core.work.is_none() => self.execute_now(request).await,
                    Some(request) => {
                        for submission in request.submissions {
                            let one = wire::SubmitRequest { submissions: vec![submission], timeout_ms: request.timeout_ms };
                            executing.push(self.execute(one));
                        }
                        continue;
                    }
                },
                Some(response) = executing.next() => response,
            };
            let broken = response.is_err();
            if results.send(response).await.is_err() || broken {
                return;
            }
        }
    }

    async fn execute_now(&self, request: wire::SubmitRequest) -> Result<wire::SubmitResponse, Problem> {
        let mut results = Vec::new();
        for submission in request.submissions {
            let mishap = self.mishaps.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let lost = || Problem::new(ProblemKind::OutcomeUnknown, "connection reset");
            let answers = match mishap {
                None => self.sequence(&submission),
                Some(Mishap::Refuse(problem)) => Err(problem),
                Some(Mishap::LoseAnswer) => {
                    let _lost = self.sequence(&submission);
                    return Err(lost());
                }
                Some(Mishap::LoseRequest) => return Err(lost()),
                Some(Mishap::Hang) => pending().await,
            };
            results.push((&SubmissionResult { tag: submission.tag, answers }).into());
        }
        Ok(wire::SubmitResponse { results })
    }

    fn sequence(&self, submission: &wire::Submission) -> Result<Vec<convert::Answer>, Problem> {
        let members = convert::members(submission, ledger::Limits::V1.group_members_max)?;
        let now = LogTime::from_unix_millis(self.core.clock.unix_millis());
        let mut state = self.core.state();
        let answers = state.submit(members, now);
        let batch = state.head().batch;
        drop(state);
        self.core.applied.send_replace(batch);
        Ok(answers)
    }
}

impl Core {
    /// There is one copy of the state, so every answer is linearizable; only a size that is not reached yet is stale.
    fn expect_fresh(&self, wire: Option<&wire::Consistency>) -> Result<(), Problem> {
        match Consistency::of(wire)? {
            Consistency::AtLeast(size) if size > self.state().head().size => {
                Err(Problem::new(ProblemKind::StaleRead, format!("fewer than {size} transactions")))
            }
            Consistency::AtLeast(_) | Consistency::Local | Consistency::Linearizable => Ok(()),
        }
    }

    fn signed_head(&self) -> SignedHead {
        let head = self.state().head();
        SignedHead { head, signatures: vec![head.sign(&self.node_key)] }
    }
}

impl LedgerApi for LocalNode {
    fn submit(&self, request: wire::SubmitRequest) -> BoxFuture<'static, Result<wire::SubmitResponse, Problem>> {
        let up = self.expect_up();
        let submissions = self.submissions();
        async move {
            up?;
            submissions.execute(request).await
        }
        .boxed()
    }

    fn submit_batches(&self) -> BoxFuture<'static, Result<BatchStream, Problem>> {
        let up = self.expect_up();
        let submissions = self.submissions();
        let mut downs = self.up.subscribe();
        async move {
            up?;
            let (outgoing, mut requests) = mpsc::channel(PIPELINE_MESSAGES);
            let (results, incoming) = mpsc::channel(PIPELINE_MESSAGES);
            seams::tasks::spawn(async move {
                let down = async {
                    // the sender lives as long as the node
                    let _down = downs.wait_for(|up| !*up).await;
                };
                // cancelling loses the rest, as a node that stops does
                tokio::select! {
                    () = submissions.serve(&mut requests, &results) => {}
                    () = down => {
                        let reset = Problem::new(ProblemKind::OutcomeUnknown, "connection reset");
                        let _heard = results.send(Err(reset)).await;
                    }
                }
            });
            Ok(BatchStream { outgoing, incoming: ReceiverStream::new(incoming).boxed() })
        }
        .boxed()
    }

    fn get_transaction(
        &self,
        request: wire::GetTransactionRequest,
    ) -> BoxFuture<'static, Result<wire::TransactionStatus, Problem>> {
        self.answer(|core| {
            core.expect_fresh(request.consistency.as_ref())?;
            let transaction = convert::identifier("transaction", &request.transaction)?;
            let state = core.state();
            let sequenced = state.record(&transaction);
            let body = state.body(&transaction).filter(|_| request.with_body && sequenced.is_some());
            Ok(
                (&TransactionStatus { sequenced, body, head: state.head(), forgotten_until: state.forgotten_until() })
                    .into(),
            )
        })
    }

    fn get_receipt(
        &self,
        request: wire::GetReceiptRequest,
    ) -> BoxFuture<'static, Result<wire::GetReceiptResponse, Problem>> {
        self.answer(|core| {
            let transaction: ledger::TransactionId = convert::identifier("transaction", &request.transaction)?;
            let head = core.signed_head();
            let state = core.state();
            let found = state.record(&transaction).and_then(|(record, _)| {
                let inclusion = state.inclusion(record.sequence)?;
                Some(Receipt { record, inclusion, head })
            });
            let receipt = found.ok_or_else(|| Problem::not_found("transaction", transaction.to_string()))?;
            Ok(wire::GetReceiptResponse { receipt: canonical_bytes(&receipt).into() })
        })
    }

    fn get_head(&self, request: wire::GetHeadRequest) -> BoxFuture<'static, Result<wire::GetHeadResponse, Problem>> {
        self.answer(|core| {
            core.expect_fresh(request.consistency.as_ref())?;
            Ok(wire::GetHeadResponse { signed_head: canonical_bytes(&core.signed_head()).into() })
        })
    }

    fn get_consistency(
        &self,
        request: wire::GetConsistencyRequest,
    ) -> BoxFuture<'static, Result<wire::GetConsistencyResponse, Problem>> {
        self.answer(|core| {
            let state = core.state();
            let (old_size, new_size) = (request.old_size, request.new_size);
            let unknown = || Problem::bad_request("new_size", "beyond the log, or before old_size");
            let proof = state.consistency(old_size, new_size).ok_or_else(unknown)?;
            let root = |size| state.root_at(size).map(|root| Bytes::copy_from_slice(root.as_bytes()));
            Ok(wire::GetConsistencyResponse {
                proof: proof.iter().map(|hash| Bytes::copy_from_slice(hash.as_bytes())).collect(),
                old_root: root(old_size).ok_or_else(unknown)?,
                new_root: root(new_size).ok_or_else(unknown)?,
            })
        })
    }

    fn list_holdings(
        &self,
        request: wire::ListHoldingsRequest,
    ) -> BoxFuture<'static, Result<wire::ListHoldingsResponse, Problem>> {
        self.answer(|core| {
            core.expect_fresh(request.consistency.as_ref())?;
            let owner = convert::identifier("owner", &request.owner)?;
            let after = match request.after.as_ref() {
                [] => None,
                bytes => Some(convert::identifier("after", bytes)?),
            };
            let limit = usize::try_from(request.limit).unwrap_or(PAGE_OUTPUTS_MAX).clamp(1, PAGE_OUTPUTS_MAX);
            let state = core.state();
            let (outputs, more) = state.holdings(&owner, after, limit);
            let last = outputs.last().filter(|_| more);
            let next = last.map(|output| Bytes::copy_from_slice(output.id.as_bytes()));
            Ok((&Holdings { outputs, head: state.head(), next }).into())
        })
    }

    fn watch_updates(&self, request: wire::WatchUpdatesRequest) -> BoxFuture<'static, Result<UpdateStream, Problem>> {
        let downs = self.up.subscribe();
        let stream = self.expect_up().and_then(|()| watch(&self.core, &request, downs));
        async move { stream }.boxed()
    }

    fn get_cluster(&self, _request: wire::GetClusterRequest) -> BoxFuture<'static, Result<wire::ClusterInfo, Problem>> {
        self.answer(|core| {
            let key = core.node_key.party();
            let member = convert::Member {
                node: 1,
                address: "in-process:0".to_owned(),
                voter: true,
                key: Some(key),
                http_address: None,
            };
            Ok(wire::ClusterInfo {
                cluster: Bytes::copy_from_slice(core.identity.cluster.as_bytes()),
                cluster_name: core.name.clone(),
                group: u32::from(core.identity.group),
                protocol_version: 1,
                node: 1,
                leader: 1,
                members: vec![(&member).into()],
                limits: Some(convert::limits_to_wire(&ledger::Limits::V1)),
                ..wire::ClusterInfo::default()
            })
        })
    }
}

/// The updates from the batch wanted on, until the node stops.
fn watch(
    core: &Arc<Core>,
    request: &wire::WatchUpdatesRequest,
    mut downs: watch::Receiver<bool>,
) -> Result<UpdateStream, Problem> {
    let parties =
        convert::parties("parties", &request.parties).map_err(|fault: ConversionFault| Problem::from(fault))?;
    let state = core.state();
    let next = if request.from_batch == 0 { state.head().batch.saturating_add(1) } else { request.from_batch };
    if next < state.earliest_batch() {
        return Err(Problem::position_unavailable(state.earliest_batch()));
    }
    drop(state);
    let (with_records, with_progress) = (request.with_records, request.with_progress);
    let applied = core.applied.subscribe();
    let core = Arc::clone(core);
    let updates: BoxStream<'static, Result<wire::Update, Problem>> =
        stream::unfold((next, applied, core), move |(mut next, mut applied, core)| {
            let parties = parties.clone();
            async move {
                loop {
                    let newest = *applied.wait_for(|batch| *batch >= next).await.ok()?;
                    let update = core.state().update(next, &parties, with_records)?;
                    let is_newest = next == newest;
                    next = next.saturating_add(1);
                    let is_empty =
                        update.created.is_empty() && update.consumed.is_empty() && update.proposals.is_empty();
                    if parties.is_empty() || !is_empty || (with_progress && is_newest) {
                        return Some((Ok((&update).into()), (next, applied, core)));
                    }
                }
            }
        })
        .boxed();
    let until_down = async move {
        // an error means that the node is gone for good, which ends the stream as well
        let _stopped = downs.wait_for(|up| !*up).await;
    };
    Ok(updates.take_until(until_down).boxed())
}
