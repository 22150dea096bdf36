//! The task behind a [`super::Submitter`]: owns the open flights and the stream.

use std::future::pending;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use proto::convert::SubmissionResult;
use proto::problem::{Effect, Retry};
use proto::{Problem, ProblemKind, wire};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::SubmitterOptions;
use super::flights::{Flight, Flights};
use crate::api::BatchStream;
use crate::client::{Client, definite, doubtful, millis, outcomes};

/// Flights taken from the queue at once.
const ADMIT_MAX: usize = 1_024;
/// Attempts with an unknown outcome before another node is tried.
const ATTEMPTS_PER_NODE: u32 = 3;
/// Flights that may travel at once however overloaded the node is: one small bundle.
const SENT_MIN: usize = 64;

/// Runs until the queue is closed and nothing is open.
pub(super) async fn run(client: Client, options: SubmitterOptions, mut queue: mpsc::UnboundedReceiver<Flight>) {
    let mut pipeline = Pipeline {
        client,
        options,
        flights: Flights::default(),
        link: Link::Idle,
        endpoint: 0,
        failures: 0,
        paused_until: Instant::now(),
        heard_at: Instant::now(),
        sent_max: options.open_max,
    };
    let mut arrivals = Vec::new();
    let mut accepting = true;
    while accepting || !pipeline.flights.is_empty() {
        pipeline.flights.advance(Instant::now());
        pipeline.connect_if_needed();
        let due = pipeline.next_due();
        let wants_room = pipeline.wants_room();
        tokio::select! {
            // cancelling loses nothing: `recv_many` takes flights only when it returns
            count = queue.recv_many(&mut arrivals, ADMIT_MAX), if accepting => {
                accepting = count > 0;
                arrivals.drain(..).for_each(|flight| pipeline.flights.admit(flight));
            }
            // the connection attempt lives in `link`, not in this branch
            step = pipeline.link.step(wants_room) => {
                pipeline.take_step(step);
            }
            // a timer
            () = sleep_or_wait(due) => {}
        }
    }
}

async fn sleep_or_wait(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => pending().await,
    }
}

/// The connection to a node.
enum Link {
    /// Not wanted.
    Idle,
    /// Being made, pauses before attempts included.
    Connecting(BoxFuture<'static, Result<BatchStream, Problem>>),
    /// Open.
    Open(BatchStream),
}

/// What happened on a link.
enum Step {
    Connected(Result<BatchStream, Problem>),
    /// There is room for a message.
    Room,
    Received(wire::SubmitResponse),
    Lost(Problem),
}

impl Link {
    /// Waits for the next thing to happen. Cancelling loses nothing: streams and channels keep what was not taken.
    async fn step(&mut self, has_waiting: bool) -> Step {
        match self {
            Self::Idle => pending().await,
            Self::Connecting(attempt) => Step::Connected(attempt.await),
            Self::Open(stream) => {
                tokio::select! {
                    received = stream.incoming.next() => match received {
                        Some(Ok(response)) => Step::Received(response),
                        Some(Err(problem)) => Step::Lost(problem),
                        None => Step::Lost(Problem::new(ProblemKind::OutcomeUnknown, "the node ended the stream")),
                    },
                    room = stream.outgoing.reserve(), if has_waiting => match room {
                        Ok(_) => Step::Room,
                        Err(closed) => Step::Lost(Problem::new(ProblemKind::OutcomeUnknown, closed.to_string())),
                    },
                }
            }
        }
    }
}

struct Pipeline {
    client: Client,
    options: SubmitterOptions,
    flights: Flights,
    link: Link,
    /// Which endpoint the link leads to.
    endpoint: usize,
    /// Failures since the last outcome.
    failures: u32,
    /// Nothing is sent before.
    paused_until: Instant,
    /// How many flights may travel at once: halved when the node is overloaded, one more with each outcome.
    sent_max: usize,
    /// When the node last showed a sign of life while something was expected of it.
    heard_at: Instant,
}

impl Pipeline {
    fn wants_room(&self) -> bool {
        let paused = self.paused_until > Instant::now();
        self.flights.has_waiting() && !paused && self.flights.sent() < self.sent_max
    }

    fn next_due(&self) -> Option<Instant> {
        let resume = self.flights.has_waiting().then_some(self.paused_until).filter(|time| *time > Instant::now());
        let silence = (self.flights.sent() > 0).then(|| self.heard_at + self.client.silence_max());
        [self.flights.next_due(), resume, silence].into_iter().flatten().min()
    }

    fn connect_if_needed(&mut self) {
        if self.flights.sent() > 0 && self.heard_at + self.client.silence_max() <= Instant::now() {
            self.lose(Problem::new(ProblemKind::Timeout, "the node fell silent"));
        }
        if matches!(self.link, Link::Idle) && self.flights.has_waiting() {
            self.connect(Duration::ZERO);
        }
    }

    fn connect(&mut self, pause: Duration) {
        let (endpoint, node) = self.client.endpoint();
        self.endpoint = endpoint;
        let silence_max = self.client.silence_max();
        self.link = Link::Connecting(Box::pin(async move {
            sleep(pause).await;
            timeout(silence_max, node.submit_batches()).await.unwrap_or_else(|elapsed| {
                // nothing has been sent
                Err(Problem::new(ProblemKind::Unreachable, format!("no stream: {elapsed}")))
            })
        }));
    }

    fn take_step(&mut self, step: Step) {
        match step {
            Step::Connected(Ok(stream)) => {
                self.link = Link::Open(stream);
                self.heard_at = Instant::now();
            }
            Step::Connected(Err(problem)) | Step::Lost(problem) => self.lose(problem),
            Step::Room => self.send(),
            Step::Received(response) => {
                self.heard_at = Instant::now();
                response.results.iter().for_each(|result| self.take_result(result));
            }
        }
    }

    fn send(&mut self) {
        let Link::Open(stream) = &self.link else { return };
        // nothing else sends on this stream, so the room that was found is still there
        let Ok(room) = stream.outgoing.try_reserve() else { return };
        if self.flights.sent() == 0 {
            self.heard_at = Instant::now();
        }
        let SubmitterOptions { message_submissions_max, message_bytes_max, .. } = self.options;
        let submissions_max = message_submissions_max.min(self.sent_max.saturating_sub(self.flights.sent()));
        let submissions = self.flights.take_message(submissions_max, message_bytes_max);
        if !submissions.is_empty() {
            room.send(wire::SubmitRequest { submissions, timeout_ms: millis(self.client.silence_max()) });
        }
    }

    fn take_result(&mut self, result: &wire::SubmissionResult) {
        let tag = result.tag;
        let result = SubmissionResult::try_from(result).map_err(|fault| doubtful(&fault));
        let Some(flight) = self.flights.get(tag) else { return };
        let decided =
            result.and_then(|result| result.answers).and_then(|answers| definite(answers, &flight.submission.ids));
        match decided {
            Ok(decisions) => {
                self.failures = 0;
                self.sent_max = self.sent_max.saturating_add(1).min(self.options.open_max);
                self.flights.conclude(tag, |submission| outcomes(submission, decisions));
            }
            Err(problem) => {
                let attempts = flight.attempts;
                self.take_problem(tag, attempts, problem);
            }
        }
    }

    fn take_problem(&mut self, tag: u64, attempts: u32, problem: Problem) {
        let may_have_happened = problem.effect() == Effect::Unknown;
        if problem.retry() == Retry::Never {
            self.flights.give_up(tag, &problem, may_have_happened);
            return;
        }
        let due = Instant::now() + self.client.backoff(attempts, &problem);
        if problem.retry() == Retry::Later {
            self.slow_down(due);
        }
        // one bundle that came to nothing says little about the node
        let leave = problem.retry() == Retry::Elsewhere && (!may_have_happened || attempts >= ATTEMPTS_PER_NODE);
        self.flights.defer(tag, due, problem.clone(), may_have_happened);
        if leave && matches!(self.link, Link::Open(_)) {
            self.lose(problem);
        }
    }

    /// The node has enough to do: what has not been sent waits too, and half as much travels at once.
    fn slow_down(&mut self, due: Instant) {
        if self.paused_until <= Instant::now() {
            self.sent_max = self.flights.sent().div_euclid(2).max(SENT_MIN);
        }
        self.paused_until = self.paused_until.max(due);
    }

    /// Gives the link up and connects to the next endpoint.
    fn lose(&mut self, problem: Problem) {
        tracing::debug!(%problem, open = self.flights.sent(), "the pipeline changes its node");
        self.flights.recall(&problem);
        self.flights.note(&problem);
        self.failures = self.failures.saturating_add(1);
        if problem.retry() != Retry::Later {
            self.client.leave_endpoint(self.endpoint);
        }
        let pause = self.client.pause(self.failures, &problem);
        self.connect(pause);
    }
}
