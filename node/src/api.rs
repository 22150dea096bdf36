//! What a node answers, whatever the protocol: gRPC and HTTP only translate.
//!
//! An [`Api`] is there before its replica is, and says so; so servers listen from the start, and other nodes learn
//! that this one is on its way ([`greeting`]).
//!
//! Every question has a deadline. What goes wrong is a numbered [`Problem`]; what became of a transaction is an
//! outcome, never a problem.

pub mod admin;
pub mod backup;
pub mod greeting;
pub mod proofs;
pub mod reads;
pub mod status;
pub mod submit;
pub mod updates;
pub mod upgrade;

mod faults;
mod rates;
mod readers;
mod turns;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ledger::check::LedgerIdentity;
use proto::{Problem, ProblemKind};
use seams::{Address, TaskGroup};
use sequencer::NodeId;
use tokio::sync::Semaphore;

use crate::gateway::GatewayOptions;
use crate::intake::Intake;
use crate::network::Channels;
use crate::replica::Replica;
use greeting::Neighbours;
use rates::Rates;
use turns::Turns;
use updates::RecentUpdates;

pub(crate) use rates::RatesMeasured;
pub use rates::Subject;

/// How long a read may wait for the freshness that it asks for. Longer than an election.
pub const READ_PATIENCE: Duration = Duration::from_secs(5);

/// What a node knows about itself before anything runs.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Its number.
    pub node: NodeId,
    /// The ledger's name.
    pub cluster_name: String,
    /// The ledger.
    pub identity: LedgerIdentity,
    /// Where others reach its gRPC services.
    pub address: Address,
    /// Where others reach it by HTTP.
    pub http_address: Option<String>,
    /// Whether its disk was empty when it started.
    pub fresh: bool,
}

/// A node as its servers see it. Clones are the same node.
#[derive(Clone)]
pub struct Api(Arc<Inner>);

struct Inner {
    facts: Facts,
    channels: Channels,
    tasks: TaskGroup,
    replica: OnceLock<Replica>,
    stopping: AtomicBool,
    recent: RecentUpdates,
    neighbours: Neighbours,
    intake: Intake,
    rates: Rates,
    turns: Turns,
    /// Whoever is sent a backup holds it: each keeps a snapshot on disk, so there is one at a time.
    backups: Arc<Semaphore>,
}

impl fmt::Debug for Api {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Api({})", self.0.facts.node)
    }
}

impl Api {
    /// A node whose replica is still to start. `channels` are the connections over which it reaches others, `gateway` is
    /// what its gateway will be told. What it spawns joins the caller's task group.
    #[must_use]
    pub fn new(facts: Facts, channels: Channels, gateway: &GatewayOptions) -> Self {
        Self(Arc::new(Inner {
            facts,
            channels,
            tasks: TaskGroup::current().unwrap_or_default(),
            replica: OnceLock::new(),
            stopping: AtomicBool::new(false),
            recent: RecentUpdates::default(),
            neighbours: Neighbours::default(),
            intake: Intake::default(),
            rates: Rates::new(gateway.client_rate),
            turns: Turns::new(gateway),
            backups: Arc::new(Semaphore::new(1)),
        }))
    }

    /// The replica has started: from now on it answers.
    ///
    /// # Panics
    /// The second time: a node starts one replica.
    pub fn started(&self, replica: Replica) {
        assert!(self.0.replica.set(replica).is_ok(), "a node starts one replica");
    }

    /// Nothing new is taken in from now on.
    pub fn stopping(&self) {
        self.0.stopping.store(true, Ordering::Release);
    }

    /// Whether the node is on its way out.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.0.stopping.load(Ordering::Acquire)
    }

    /// What the node knows about itself.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.0.facts
    }

    /// The replica.
    ///
    /// # Errors
    /// While it starts.
    pub fn replica(&self) -> Result<&Replica, Problem> {
        let starting =
            || Problem::new(ProblemKind::Starting, "this node is starting").after(Duration::from_millis(500));
        self.0.replica.get().ok_or_else(starting)
    }

    /// Spawns a task that ends with the node, from wherever a server calls.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        drop(self.0.tasks.spawn(task));
    }

    /// What clients' messages on their way in may hold.
    pub(crate) fn intake(&self) -> &Intake {
        &self.0.intake
    }

    /// Pieces of requests that wait for their turn, and submissions that found no room.
    pub(crate) fn turns_measured(&self) -> (u64, u64) {
        (self.turns().waiting_pieces(), self.turns().refused().get())
    }

    /// What the bounds on clients' rates did.
    pub(crate) fn rates_measured(&self) -> RatesMeasured {
        self.rates().measured()
    }

    /// Forgets, for ever, clients that have not submitted anything for a while.
    pub async fn forget_quiet_clients(self) {
        self.rates().clone().forget_the_quiet().await;
    }

    /// What clients may submit.
    fn rates(&self) -> &Rates {
        &self.0.rates
    }

    /// The room at the gateway.
    fn turns(&self) -> &Turns {
        &self.0.turns
    }

    pub(crate) fn channels(&self) -> &Channels {
        &self.0.channels
    }
}
