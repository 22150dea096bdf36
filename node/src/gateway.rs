//! The gateway: submissions in, outcomes out.
//!
//! ```text
//! submit ─► lane (bounded) ─► bundle (no waiting when idle, full under load) ─► certify (validators)
//!        ─► forward (to the leader, again and again until it is applied) ─► answer (from this replica's own apply)
//! ```
//! A bundle may reach the order twice; transactions may not: their identifiers have one outcome. So forwarding is
//! repeated without asking whether the last attempt arrived.
//!
//! Invariants: every admitted submission is answered once; an outcome is only answered after this replica has applied
//! it; what is not known by the deadline is answered as unknown.

mod bundler;
mod costs;
mod forward;
mod traced;
mod waiting;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use client::strategy::CostModel;
use ledger::{Head, OutcomeRecord, Rejection, Sequence};
use seams::{Clock, Transport};
use sequencer::Sequencer;
use storage::LedgerState;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::Instant;
use traces::Span;
use validator::ValidatorPool;

use crate::measures::Measures;
use bundler::InFlight;
use costs::Costs;

pub use forward::{ConfigureFault, ForwardAnswer, ForwardRequest};
pub(crate) use forward::{attest, configure, serve as serve_forward};
pub use waiting::Waiting;

/// A way through the gateway. Lanes do not wait for each other: a few submissions in the light one are not behind the
/// many in the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// For those who send little and wait for the answer.
    Light,
    /// For everything else.
    Bulk,
}

/// What one client may submit to one node, in transactions; one above 4 KiB counts as several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientRate {
    /// Every second, over a longer time.
    pub per_second_max: NonZeroU32,
    /// At once, after a quiet time.
    pub burst_max: NonZeroU32,
}

/// So many traces at once are kept open for their batch's attestation; the others end without it.
const AWAITED_ATTESTATIONS_MAX: usize = 1_024;

/// Bounds of a gateway.
#[derive(Debug, Clone)]
pub struct GatewayOptions {
    /// Transactions admitted and not yet answered; more are refused.
    pub queued_transactions_max: usize,
    /// The same in bytes.
    pub queued_bytes_max: usize,
    /// Bundles of each lane on their way at once where there are few validators: one is validated while another is ordered.
    /// Where there are more, each may have one, and one more is on its way.
    pub bundles_in_flight: usize,
    /// Never more than so many.
    pub bundles_in_flight_max: usize,
    /// A bundle is closed at this many transactions.
    pub bundle_transactions_max: usize,
    /// A bundle is closed at this many bytes.
    pub bundle_bytes_max: usize,
    /// How long one attempt to forward may take before the next is made.
    pub forward_timeout: Duration,
    /// Pause between attempts.
    pub retry_pause: Duration,
    /// Refused clients are told to come back after this.
    pub retry_after: Duration,
    /// What one client may submit. Unbounded unless told.
    pub client_rate: Option<ClientRate>,
    /// For benchmarks: submissions are kept back as long as this says. Off unless told.
    pub cost_model: Option<CostModel>,
}

impl Default for GatewayOptions {
    fn default() -> Self {
        Self {
            queued_transactions_max: 16_384,
            queued_bytes_max: 64 * 1024 * 1024,
            bundles_in_flight: 2,
            bundles_in_flight_max: 64,
            bundle_transactions_max: 256,
            bundle_bytes_max: 1024 * 1024,
            forward_timeout: Duration::from_secs(2),
            retry_pause: Duration::from_millis(20),
            retry_after: Duration::from_millis(50),
            client_rate: None,
            cost_model: None,
        }
    }
}

/// How one transaction of a submission ended, as far as this node knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It has a place in the order and an outcome.
    Sequenced {
        /// Place and outcome.
        record: OutcomeRecord,
        /// The batch that it is part of.
        batch: u64,
    },
    /// It failed validation before the order: it has no place, and nothing happened.
    Refused(Rejection),
    /// Not known by the deadline. Submitting the same bytes again is safe.
    Unknown(&'static str),
}

/// Why a submission is not taken in at all. Nothing happened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Too much is waiting already.
    #[error("{queued} transactions are waiting; the limit is {queued_max}")]
    Overloaded {
        /// Transactions waiting.
        queued: usize,
        /// The limit.
        queued_max: usize,
        /// When to come back.
        retry_after: Duration,
    },
    /// The submission itself cannot be taken.
    #[error("{0}")]
    Malformed(String),
    /// The node is stopping.
    #[error("the node is stopping")]
    Stopping,
}

/// Counters since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GatewayCounters {
    /// Transactions admitted.
    pub admitted: u64,
    /// Transactions refused for lack of room.
    pub overloaded: u64,
    /// Bundles closed.
    pub bundles: u64,
    /// Attempts to forward beyond each bundle's first.
    pub repeated_forwards: u64,
    /// Bundles certified again because the validator set had changed.
    pub certified_again: u64,
    /// Transactions answered with an outcome.
    pub answered: u64,
    /// Transactions refused by validation.
    pub refused: u64,
    /// Transactions answered as unknown.
    pub unknown: u64,
}

#[derive(Debug, Default)]
struct Counters {
    admitted: AtomicU64,
    overloaded: AtomicU64,
    bundles: AtomicU64,
    repeated_forwards: AtomicU64,
    certified_again: AtomicU64,
    answered: AtomicU64,
    refused: AtomicU64,
    unknown: AtomicU64,
}

/// What a gateway works with.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// The order.
    pub sequencer: Sequencer,
    /// This replica's state.
    pub state: Arc<LedgerState>,
    /// The validators.
    pub pool: ValidatorPool,
    /// The other nodes.
    pub transport: Arc<dyn Transport>,
    /// For log time, on the leader.
    pub clock: Arc<dyn Clock>,
    /// The newest head, as it changes.
    pub heads: watch::Receiver<Head>,
    /// How many attestations there are, as they come.
    pub attestations: watch::Receiver<u64>,
    /// What the node counts.
    pub measures: Arc<Measures>,
}

/// One node's gateway. Clones are the same gateway.
#[derive(Debug, Clone)]
pub struct Gateway(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    options: GatewayOptions,
    around: Surroundings,
    waiting: Arc<Waiting>,
    light: mpsc::UnboundedSender<Pending>,
    bulk: mpsc::UnboundedSender<Pending>,
    queued_transactions: AtomicUsize,
    queued_bytes: AtomicUsize,
    counters: Counters,
    in_flight: [Arc<InFlight>; 2],
    /// Places of those who wait for a batch's attestation only to tell of it in a trace.
    awaited_attestations: Arc<Semaphore>,
    costs: Option<Costs>,
}

/// A submission that waits for its outcomes.
#[derive(Debug)]
struct Pending {
    stamp: Sequence,
    members: Vec<Bytes>,
    /// When it was taken in.
    arrived: Instant,
    deadline: Instant,
    reply: oneshot::Sender<Vec<Answer>>,
    /// Lasts until the answer.
    span: Span,
}

impl Pending {
    fn bytes(&self) -> usize {
        self.members.iter().map(Bytes::len).sum()
    }
}

impl Gateway {
    /// Starts the gateway's tasks in the caller's task group. `waiting` is what the machine tells of applied bundles.
    #[must_use]
    pub fn start(options: GatewayOptions, around: Surroundings, waiting: Arc<Waiting>) -> Self {
        // the bound of both is kept by the counters below, which count bytes too
        let (light, light_arrivals) = mpsc::unbounded_channel();
        let (bulk, bulk_arrivals) = mpsc::unbounded_channel();
        let in_flight = [Arc::<InFlight>::default(), Arc::<InFlight>::default()];
        let of_lanes = in_flight.clone();
        let gateway = Self(Arc::new(Inner {
            costs: options.cost_model.map(Costs::new),
            options,
            around,
            waiting,
            light,
            bulk,
            queued_transactions: AtomicUsize::new(0),
            queued_bytes: AtomicUsize::new(0),
            counters: Counters::default(),
            in_flight,
            awaited_attestations: Arc::new(Semaphore::new(AWAITED_ATTESTATIONS_MAX)),
        }));
        for (arrivals, in_flight) in [light_arrivals, bulk_arrivals].into_iter().zip(of_lanes) {
            drop(seams::tasks::spawn(bundler::run(gateway.clone(), arrivals, in_flight)));
        }
        gateway
    }

    /// Takes in one transaction, or an atomic group in order, as canonical bytes. The answers come in the members'
    /// order, by the deadline at the latest. The span is the submission's, and ends with the answer.
    ///
    /// # Errors
    /// Where it is not taken in; then nothing happened.
    pub fn submit(
        &self,
        lane: Lane,
        members: Vec<Bytes>,
        deadline: Instant,
        span: Span,
    ) -> Result<oneshot::Receiver<Vec<Answer>>, Refusal> {
        let limits = self.0.around.state.limits();
        if members.is_empty() {
            return Err(Refusal::Malformed("a submission has at least one transaction".to_owned()));
        }
        if members.len() > limits.group_members_max {
            let (found, max) = (members.len(), limits.group_members_max);
            return Err(Refusal::Malformed(format!("a group of {found} transactions; the limit is {max}")));
        }
        if let Some(long) = members.iter().find(|member| member.len() > limits.transaction_bytes_max) {
            return Ok(self.answer_too_large(&members, long.len()));
        }
        let (reply, answers) = oneshot::channel();
        let stamp = self.0.around.heads.borrow().size;
        let pending = Pending { stamp, members, arrived: Instant::now(), deadline, reply, span };
        self.reserve(&pending)?;
        let lane = match lane {
            Lane::Light => &self.0.light,
            Lane::Bulk => &self.0.bulk,
        };
        match &self.0.costs {
            None => lane.send(pending).map_err(|_closed| Refusal::Stopping)?,
            Some(costs) => costs.keep_back(pending, lane.clone()),
        }
        Ok(answers)
    }

    /// Each transaction of a group falls with the one that is too large.
    fn answer_too_large(&self, members: &[Bytes], bytes: usize) -> oneshot::Receiver<Vec<Answer>> {
        let bytes_max = self.0.around.state.limits().transaction_bytes_max;
        let count = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
        let reason = Rejection::TooLarge { bytes: count(bytes), bytes_max: count(bytes_max) };
        let (reply, answers) = oneshot::channel();
        members.iter().for_each(|member| self.0.around.measures.rejected(&reason, member));
        self.0.counters.refused.fetch_add(count(members.len()), Ordering::Relaxed);
        drop(reply.send(members.iter().map(|_| Answer::Refused(reason.clone())).collect()));
        answers
    }

    fn reserve(&self, pending: &Pending) -> Result<(), Refusal> {
        let Inner { options, queued_transactions, queued_bytes, counters, .. } = &*self.0;
        let count = pending.members.len();
        let queued = queued_transactions.fetch_add(count, Ordering::AcqRel) + count;
        let bytes = queued_bytes.fetch_add(pending.bytes(), Ordering::AcqRel) + pending.bytes();
        if queued > options.queued_transactions_max || bytes > options.queued_bytes_max {
            self.release(count, pending.bytes());
            counters.overloaded.fetch_add(u64::try_from(count).unwrap_or(u64::MAX), Ordering::Relaxed);
            let retry_after = options.retry_after;
            return Err(Refusal::Overloaded { queued, queued_max: options.queued_transactions_max, retry_after });
        }
        counters.admitted.fetch_add(u64::try_from(count).unwrap_or(u64::MAX), Ordering::Relaxed);
        Ok(())
    }

    fn release(&self, transactions: usize, bytes: usize) {
        self.0.queued_transactions.fetch_sub(transactions, Ordering::AcqRel);
        self.0.queued_bytes.fetch_sub(bytes, Ordering::AcqRel);
    }

    /// Transactions admitted and not yet answered.
    #[must_use]
    pub fn queued_transactions(&self) -> usize {
        self.0.queued_transactions.load(Ordering::Acquire)
    }

    /// Bytes of transactions admitted and not yet answered.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.0.queued_bytes.load(Ordering::Acquire)
    }

    /// Bundles on their way, by lane: light, bulk.
    #[must_use]
    pub fn bundles_in_flight(&self) -> [(&'static str, usize); 2] {
        let [light, bulk] = &self.0.in_flight;
        [("light", light.count()), ("bulk", bulk.count())]
    }

    /// What the node counts.
    #[must_use]
    pub fn measures(&self) -> &Measures {
        &self.0.around.measures
    }

    /// The counters so far.
    #[must_use]
    pub fn counters(&self) -> GatewayCounters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.0.counters;
        GatewayCounters {
            admitted: read(&counters.admitted),
            overloaded: read(&counters.overloaded),
            bundles: read(&counters.bundles),
            repeated_forwards: read(&counters.repeated_forwards),
            certified_again: read(&counters.certified_again),
            answered: read(&counters.answered),
            refused: read(&counters.refused),
            unknown: read(&counters.unknown),
        }
    }
}
