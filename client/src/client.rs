//! The client: several endpoints behind one set of calls, each with a deadline, repeated where that is safe.

mod proofs;
mod reads;
mod submit;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ledger::ClusterId;
use proto::convert::{Cluster, ConversionFault};
use proto::problem::Retry;
use proto::{Problem, ProblemKind, wire};
use seams::{Clock, Entropy, OsEntropy, SystemClock, next_u64};
use tls::Identity;
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep, timeout};

use crate::api::LedgerApi;
use crate::builder::{Context, TransactionBuilder};
use crate::grpc::GrpcNode;
use crate::retry::{Budget, RetryPolicy};

pub use proofs::Numbered;
pub use reads::{ConsistencyProof, Watch};
pub(crate) use submit::{definite, millis, only, outcomes};

/// How long a call may take unless its client says otherwise.
const DEADLINE: Duration = Duration::from_secs(30);
/// How long a transaction stays valid unless its client says otherwise: longer than a call takes, short enough that
/// an unknown outcome becomes known while someone waits.
const VALIDITY: Duration = Duration::from_secs(120);
/// An attempt is not cut shorter than this, the deadline excepted.
const ATTEMPT_MIN: Duration = Duration::from_secs(1);
/// While it is certain that nothing happened, no further attempt begins with less time than this: one that the deadline
/// cuts off would make the outcome unknown.
const REATTEMPT_MIN: Duration = Duration::from_millis(100);

/// A connection to a ledger through one or more of its nodes. Clones share everything.
#[derive(Debug, Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    endpoints: Vec<Arc<dyn LedgerApi>>,
    /// Which endpoint is in use, modulo their number.
    current: AtomicUsize,
    policy: RetryPolicy,
    budget: Budget,
    deadline: Duration,
    validity: Duration,
    expected: Option<ClusterId>,
    cluster: OnceCell<Arc<Cluster>>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
}

/// Collects what a client needs.
#[derive(Debug)]
pub struct ClientBuilder {
    addresses: Vec<String>,
    nodes: Vec<Arc<dyn LedgerApi>>,
    tls: Option<Identity>,
    policy: RetryPolicy,
    deadline: Duration,
    validity: Duration,
    expected: Option<ClusterId>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
}

/// Why a client cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationFault {
    /// There is no endpoint.
    #[error("a client needs at least one endpoint")]
    NoEndpoints,
    /// An endpoint is to be secured, and nobody said whom to believe.
    #[error("endpoint {address}: https:// needs the cluster's authority (--tls-ca, or `ClientBuilder::tls`)")]
    NoAuthority {
        /// Which.
        address: String,
    },
    /// An endpoint is not an address.
    #[error("endpoint {address}: {source}")]
    Endpoint {
        /// Which.
        address: String,
        /// Why.
        source: tonic::transport::Error,
    },
}

/// The node at `host:port` or a URI, over a secured connection where there is an identity or the URI says so. Connects
/// when first used; must be called on a tokio runtime.
///
/// # Errors
/// Where that is no address, or `https://` without an identity.
pub fn node_at(address: &str, tls: Option<&Identity>) -> Result<Arc<dyn LedgerApi>, ConfigurationFault> {
    Ok(Arc::new(GrpcNode::new(address, tls)?))
}

impl ClientBuilder {
    /// Adds a node at `host:port` or a URI.
    #[must_use]
    pub fn endpoint(mut self, address: impl Into<String>) -> Self {
        self.addresses.push(address.into());
        self
    }

    /// Adds several nodes.
    #[must_use]
    pub fn endpoints<A: Into<String>>(mut self, addresses: impl IntoIterator<Item = A>) -> Self {
        self.addresses.extend(addresses.into_iter().map(Into::into));
        self
    }

    /// Secures connections: whom to believe, and who to be. Endpoints without a scheme are then `https://`.
    #[must_use]
    pub fn tls(mut self, identity: Identity) -> Self {
        self.tls = Some(identity);
        self
    }

    /// Adds a node that is reached by other means (in the same process, or in a simulation).
    #[must_use]
    pub fn node(mut self, node: Arc<dyn LedgerApi>) -> Self {
        self.nodes.push(node);
        self
    }

    /// How long a call may take, all its attempts together.
    #[must_use]
    pub const fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// How long transactions built by this client stay valid.
    #[must_use]
    pub const fn validity(mut self, validity: Duration) -> Self {
        self.validity = validity;
        self
    }

    /// How calls are repeated.
    #[must_use]
    pub const fn retries(mut self, policy: RetryPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// The ledger that the endpoints must serve; without it, what the first answer says is believed.
    #[must_use]
    pub const fn ledger(mut self, expected: ClusterId) -> Self {
        self.expected = Some(expected);
        self
    }

    /// Where time of day comes from.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Where nonces and jitter come from.
    #[must_use]
    pub fn entropy(mut self, entropy: Arc<dyn Entropy>) -> Self {
        self.entropy = entropy;
        self
    }

    /// Makes the client. Nothing is connected before it is needed. Must be called on a tokio runtime where
    /// endpoints have addresses.
    ///
    /// # Errors
    /// Where there is no endpoint, an address is none, or `https://` without [`Self::tls`].
    pub fn connect(self) -> Result<Client, ConfigurationFault> {
        let mut endpoints = self.nodes;
        for address in self.addresses {
            endpoints.push(node_at(&address, self.tls.as_ref())?);
        }
        if endpoints.is_empty() {
            return Err(ConfigurationFault::NoEndpoints);
        }
        // many clients with the same list begin at different nodes
        let start = usize::try_from(next_u64(&*self.entropy) >> 32).unwrap_or_default();
        let shared = Shared {
            endpoints,
            current: AtomicUsize::new(start),
            budget: Budget::new(&self.policy),
            policy: self.policy,
            deadline: self.deadline,
            validity: self.validity,
            expected: self.expected,
            cluster: OnceCell::new(),
            clock: self.clock,
            entropy: self.entropy,
        };
        Ok(Client { shared: Arc::new(shared) })
    }
}

impl Client {
    /// Begins a client.
    #[must_use]
    pub fn builder() -> ClientBuilder {
        ClientBuilder {
            addresses: Vec::new(),
            nodes: Vec::new(),
            tls: None,
            policy: RetryPolicy::default(),
            deadline: DEADLINE,
            validity: VALIDITY,
            expected: None,
            clock: Arc::new(SystemClock),
            entropy: Arc::new(OsEntropy),
        }
    }

    /// The ledger's identity, limits and nodes, as the first answer described them.
    ///
    /// # Errors
    /// Where no node answers in time, or they serve another ledger than expected.
    pub async fn cluster(&self) -> Result<Arc<Cluster>, Problem> {
        self.shared.cluster.get_or_try_init(|| async { self.fetch_cluster().await.map(Arc::new) }).await.cloned()
    }

    /// The same, asked now: membership and keys change.
    ///
    /// # Errors
    /// Where no node answers in time, or they serve another ledger than expected.
    pub async fn fetch_cluster(&self) -> Result<Cluster, Problem> {
        let answer = self.call(|node| async move { node.get_cluster(wire::GetClusterRequest {}).await }).await?;
        let cluster = Cluster::try_from(&answer).map_err(|fault| doubtful(&fault))?;
        match self.shared.expected {
            Some(expected) if expected != cluster.identity.cluster => {
                let message = format!("the node serves ledger {}, not {expected}", cluster.identity.cluster);
                Err(Problem::new(ProblemKind::DoubtfulAnswer, message))
            }
            _ => Ok(cluster),
        }
    }

    /// What a new transaction says besides its intent: this ledger, a fresh nonce, valid for a while from now on.
    ///
    /// # Errors
    /// Where the ledger is not known yet and no node answers in time.
    pub async fn context(&self) -> Result<Context, Problem> {
        let cluster = self.cluster().await?;
        let now = ledger::LogTime::from_unix_millis(self.shared.clock.unix_millis());
        let validity = u64::try_from(self.shared.validity.as_millis()).unwrap_or(u64::MAX);
        // half of what the ledger takes leaves the other half for clocks that differ
        let validity = validity.min(cluster.limits.validity_ms_max / 2);
        Ok(Context {
            identity: cluster.identity,
            limits: cluster.limits,
            valid_until: now.plus_millis(validity),
            nonce: next_u64(&*self.shared.entropy),
        })
    }

    /// Begins a transaction.
    ///
    /// # Errors
    /// Where the ledger is not known yet and no node answers in time.
    pub async fn begin(&self) -> Result<TransactionBuilder, Problem> {
        self.context().await.map(TransactionBuilder::new)
    }

    pub(crate) fn policy(&self) -> &RetryPolicy {
        &self.shared.policy
    }

    /// A number that no other draw gave, for nonces.
    #[must_use]
    pub fn nonce(&self) -> u64 {
        next_u64(&*self.shared.entropy)
    }

    /// The client's time of day: what expiries are reckoned from. The ledger judges by its own log time.
    #[must_use]
    pub fn now(&self) -> ledger::LogTime {
        ledger::LogTime::from_unix_millis(self.shared.clock.unix_millis())
    }

    /// When a call that begins now has to be over.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.shared.deadline
    }

    /// The endpoint in use, and its position to complain about it.
    pub(crate) fn endpoint(&self) -> (usize, Arc<dyn LedgerApi>) {
        let position = self.shared.current.load(Ordering::Relaxed);
        let node = self.shared.endpoints.get(position % self.shared.endpoints.len());
        (position, Arc::clone(node.expect("the constructor refuses an empty list")))
    }

    /// How many endpoints there are.
    pub(crate) fn endpoints(&self) -> u32 {
        u32::try_from(self.shared.endpoints.len()).unwrap_or(u32::MAX)
    }

    /// Turns to the next endpoint, unless another call has done so already.
    pub(crate) fn leave_endpoint(&self, position: usize) {
        let next = position.wrapping_add(1);
        // a failure means that another call moved on, which is just as well
        let _moved = self.shared.current.compare_exchange(position, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// How long to wait after failed attempt `attempt` (from 1), which met `problem`. Takes from the retry budget.
    pub(crate) fn pause(&self, attempt: u32, problem: &Problem) -> Duration {
        self.backoff(attempt, problem).max(self.shared.budget.take())
    }

    /// The same for those who bound their retries themselves.
    pub(crate) fn backoff(&self, attempt: u32, problem: &Problem) -> Duration {
        let rounds = attempt.saturating_sub(1).checked_div(self.endpoints()).unwrap_or_default();
        let pause = self.shared.policy.pause(rounds, &*self.shared.entropy);
        pause.max(problem.retry_after.unwrap_or_default())
    }

    /// A pause with jitter that grows with the number of rounds before.
    pub(crate) fn jittered_pause(&self, rounds: u32) -> Duration {
        self.shared.policy.pause(rounds, &*self.shared.entropy)
    }

    /// Where randomness comes from.
    pub(crate) fn entropy(&self) -> &dyn Entropy {
        &*self.shared.entropy
    }

    /// How long an attempt that begins now may take: it leaves as much time for another one at another node.
    pub(crate) fn attempt_time(&self, deadline: Instant) -> Duration {
        let remaining = deadline.saturating_duration_since(Instant::now());
        (remaining / 2).max(ATTEMPT_MIN).min(remaining).min(self.shared.policy.attempt_max)
    }

    /// How long a node may be silent while something is expected of it: others can be tried before the deadline.
    pub(crate) fn silence_max(&self) -> Duration {
        (self.shared.deadline / 4).max(ATTEMPT_MIN).min(self.shared.policy.attempt_max)
    }

    /// One call with the client's deadline.
    pub(crate) async fn call<T, F>(&self, attempt: impl Fn(Arc<dyn LedgerApi>) -> F) -> Result<T, Problem>
    where
        F: Future<Output = Result<T, Problem>>,
    {
        self.call_until(self.deadline(), attempt).await.map_err(|(problem, _)| problem)
    }

    /// Attempts a call until it succeeds, fails for good or the deadline has come. A failure comes with whether any
    /// attempt may have been executed.
    pub(crate) async fn call_until<T, F>(
        &self,
        deadline: Instant,
        attempt: impl Fn(Arc<dyn LedgerApi>) -> F,
    ) -> Result<T, (Problem, bool)>
    where
        F: Future<Output = Result<T, Problem>>,
    {
        let mut may_have_happened = false;
        for count in 1.. {
            let (position, node) = self.endpoint();
            let problem = match timeout(self.attempt_time(deadline), attempt(node)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(problem)) => problem,
                Err(_elapsed) => Problem::new(ProblemKind::Timeout, "the node did not answer in time"),
            };
            tracing::debug!(%problem, attempt = count, "an attempt failed");
            may_have_happened |= problem.effect() == proto::problem::Effect::Unknown;
            match problem.retry() {
                Retry::Never => return Err((problem, may_have_happened)),
                Retry::Later => {}
                Retry::Elsewhere => self.leave_endpoint(position),
            }
            let pause = self.pause(count, &problem);
            let needed = if may_have_happened { Duration::ZERO } else { REATTEMPT_MIN };
            if Instant::now() + pause + needed >= deadline {
                return Err((problem, may_have_happened));
            }
            sleep(pause).await;
        }
        unreachable!("attempts end with an answer or at the deadline")
    }
}

/// An answer that does not convert.
pub(crate) fn doubtful(fault: &ConversionFault) -> Problem {
    Problem::new(ProblemKind::DoubtfulAnswer, fault.to_string())
}
