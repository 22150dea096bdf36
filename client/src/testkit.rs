//! A whole ledger in the process, for tests of applications and of this client: the real rules, the real apply, the
//! real proofs; no disk, no network, no consensus.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! use client::{Account, Key};
//! use ledger::Quantity;
//!
//! let ledger = client::testkit::LocalLedger::new("my tests");
//! let client = ledger.client();
//! let bank = Account::open(&client, Key::from_seed([1; 32])).await.unwrap();
//! let outcome = bank.issue("USD".parse().unwrap(), bank.party(), Quantity::new(100)).await.unwrap();
//! assert!(outcome.is_committed());
//! # });
//! ```
//! Each [`LocalNode`] is one way to reach the ledger and can be made to misbehave: answers are lost, requests vanish,
//! the node is overloaded or gone. Log time follows a [`ManualClock`].

mod state;
mod node;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use ledger::check::LedgerIdentity;
use ledger::signature::SigningKey;
use ledger::{ClusterId, LogTime, Party, TransactionId};
use seams::Clock;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::client::{Client, ClientBuilder};
use crate::heads::TrustedNodes;

use crate::strategy::{Cost, CostModel, WorkClock};

use state::State;

pub use node::{LocalNode, Mishap};

/// Where the clock of a new ledger stands: 2026-01-01.
const START_UNIX_MILLIS: u64 = 1_767_225_600_000;

/// A clock that moves when told to.
#[derive(Debug)]
pub struct ManualClock(AtomicU64);

impl ManualClock {
    /// Moves the clock.
    pub fn advance(&self, time: std::time::Duration) {
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.0.fetch_add(millis, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn unix_millis(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// A ledger in memory. Clones are the same ledger.
#[derive(Debug, Clone)]
pub struct LocalLedger {
    core: Arc<Core>,
}

#[derive(Debug)]
struct Core {
    name: String,
    identity: LedgerIdentity,
    node_key: SigningKey,
    clock: Arc<ManualClock>,
    state: Mutex<State>,
    /// The newest batch, for those who watch.
    applied: watch::Sender<u64>,
    /// What outcomes cost, where they cost anything, and since when.
    work: Option<(Mutex<WorkClock>, Instant)>,
}

impl Core {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the outcomes of transactions that come now are due; now, where they cost nothing.
    fn due(&self, members: &[Bytes]) -> Instant {
        let now = Instant::now();
        let Some((clock, begun)) = &self.work else { return now };
        let mut clock = clock.lock().unwrap_or_else(PoisonError::into_inner);
        let due = members.iter().map(|member| clock.take_in(now.duration_since(*begun), Cost::of(member))).max();
        due.map_or(now, |due| *begun + due)
    }
}

impl LocalLedger {
    /// An empty ledger of this name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self::with_work(name, None)
    }

    /// An empty ledger whose outcomes take the time that a cost model says, by `tokio`'s clock. Must be called on a
    /// runtime.
    #[must_use]
    pub fn with_costs(name: &str, model: CostModel) -> Self {
        Self::with_work(name, Some((Mutex::new(WorkClock::new(model)), Instant::now())))
    }

    fn with_work(name: &str, work: Option<(Mutex<WorkClock>, Instant)>) -> Self {
        let identity = LedgerIdentity { cluster: ClusterId::of_name(name), group: 0 };
        let core = Core {
            name: name.to_owned(),
            identity,
            node_key: SigningKey::from_seed([0xAB; 32]),
            clock: Arc::new(ManualClock(AtomicU64::new(START_UNIX_MILLIS))),
            state: Mutex::new(State::new(identity)),
            applied: watch::Sender::new(0),
            work,
        };
        Self { core: Arc::new(core) }
    }

    /// Another way to reach the ledger.
    #[must_use]
    pub fn node(&self) -> Arc<LocalNode> {
        Arc::new(LocalNode::new(Arc::clone(&self.core)))
    }

    /// The clock that log time follows.
    #[must_use]
    pub fn clock(&self) -> Arc<ManualClock> {
        Arc::clone(&self.core.clock)
    }

    /// A client's builder with this ledger's clock and without any node.
    #[must_use]
    pub fn client_builder(&self) -> ClientBuilder {
        Client::builder().clock(self.clock())
    }

    /// A client with one node that never misbehaves.
    ///
    /// # Panics
    /// Never: a client of a node in the process can always be made.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client_builder().node(self.node()).connect().expect("there is a node")
    }

    /// The key that signs the ledger's heads.
    #[must_use]
    pub fn node_key(&self) -> Party {
        self.core.node_key.party()
    }

    /// What to verify receipts and heads with.
    #[must_use]
    pub fn trusted(&self) -> TrustedNodes {
        TrustedNodes { cluster: self.core.identity.cluster, keys: vec![self.node_key()], required: 1 }
    }

    /// The newest log time.
    #[must_use]
    pub fn log_time(&self) -> LogTime {
        self.core.state().head().log_time
    }

    /// How many transactions were sequenced.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.core.state().head().size.get()
    }

    /// Forgets a transaction, which has expired by `expired_by`, as pruning does.
    pub fn forget(&self, transaction: &TransactionId, expired_by: LogTime) {
        self.core.state().forget(transaction, expired_by);
    }

    /// Forgets the updates of batches before `batch`, as pruning does.
    pub fn prune_before(&self, batch: u64) {
        self.core.state().prune_before(batch);
    }
}
