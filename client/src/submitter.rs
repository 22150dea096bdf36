//! Many transactions over one stream: the fast path.
//!
//! ```text
//! enqueue ─► window (bounds what is open) ─► pipeline task ─► stream to one node
//!                  outcomes ◄─ open flights by tag ◄─ results, in any order
//! ```
//! What is queued travels together. Where the stream breaks, everything unanswered travels again to the next node,
//! as the same bytes. A node that has enough to do makes the pipeline wait, and the full window makes callers wait.

mod flights;
mod pipeline;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use proto::{Problem, ProblemKind};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use crate::client::{Client, only};
use crate::outcome::{Outcome, Submission};
use crate::prepared::SignedTransaction;

use flights::Flight;

/// Bounds of a [`Submitter`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubmitterOptions {
    /// Submissions that may be open (queued or unanswered) at once; further ones wait.
    pub open_max: usize,
    /// Submissions that travel in one message.
    pub message_submissions_max: usize,
    /// Bytes of transactions that travel in one message, one submission more than fits excepted.
    pub message_bytes_max: usize,
}

impl Default for SubmitterOptions {
    /// Four bundles of open submissions keep a leader busy over any round trip; messages of a quarter bundle's
    /// bytes keep results flowing.
    fn default() -> Self {
        Self { open_max: 16_384, message_submissions_max: 1_024, message_bytes_max: 1024 * 1024 }
    }
}

/// A pipeline of submissions. Clones share it; it ends when all are gone and everything open has an outcome.
#[derive(Debug, Clone)]
pub struct Submitter {
    client: Client,
    queue: mpsc::UnboundedSender<Flight>,
    // bounds the queue and everything behind it
    window: Arc<Semaphore>,
}

/// The outcomes of an enqueued submission, one per member, as soon as they are known.
#[derive(Debug)]
pub struct PendingOutcomes {
    submission: Submission,
    outcomes: oneshot::Receiver<Vec<Outcome>>,
}

impl Future for PendingOutcomes {
    type Output = Vec<Outcome>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Vec<Outcome>> {
        Pin::new(&mut self.outcomes).poll(context).map(|received| match received {
            Ok(outcomes) => outcomes,
            // the pipeline's task was aborted: what it had sent may happen
            Err(_aborted) => {
                let problem = Problem::new(ProblemKind::Cancelled, "the pipeline was stopped");
                self.submission.unanswered(&problem, true)
            }
        })
    }
}

impl Submitter {
    /// Starts a pipeline of this client. Must be called on a runtime.
    #[must_use]
    pub fn start(client: &Client, options: SubmitterOptions) -> Self {
        let (queue, flights) = mpsc::unbounded_channel();
        seams::tasks::spawn(pipeline::run(client.clone(), options, flights));
        Self { client: client.clone(), queue, window: Arc::new(Semaphore::new(options.open_max)) }
    }

    /// Submits a transaction and waits for its outcome.
    pub async fn submit(&self, transaction: SignedTransaction) -> Outcome {
        only(self.enqueue(&[transaction]).await.await)
    }

    /// Submits transactions, each on its own, and waits for all outcomes, in order.
    pub async fn submit_many(&self, transactions: impl IntoIterator<Item = SignedTransaction>) -> Vec<Outcome> {
        let mut pending = Vec::new();
        for transaction in transactions {
            pending.push(self.enqueue(&[transaction]).await);
        }
        let mut outcomes = Vec::with_capacity(pending.len());
        for outcome in pending {
            outcomes.push(only(outcome.await));
        }
        outcomes
    }

    /// Hands over one transaction or one atomic group, as soon as the window has room. Its deadline (the client's)
    /// runs from then on.
    ///
    /// # Panics
    /// Never: the window is not closed.
    pub async fn enqueue(&self, members: &[SignedTransaction]) -> PendingOutcomes {
        let submission = Submission::of(members);
        let permit = Arc::clone(&self.window).acquire_owned().await.expect("the window is never closed");
        let (reply, outcomes) = oneshot::channel();
        let deadline: Instant = self.client.deadline();
        let flight = Flight::new(submission.clone(), deadline, reply, permit);
        // where the pipeline is gone, dropping the flight tells the receiver
        let _queued = self.queue.send(flight);
        PendingOutcomes { submission, outcomes }
    }

    /// How many more submissions could be enqueued without waiting.
    #[must_use]
    pub fn room(&self) -> usize {
        self.window.available_permits()
    }
}
