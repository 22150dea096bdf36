//! One member of the cluster, assembled over the seams: storage, order, machine, validators, gateway, heads.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flaws::{Flaw, is_planted};
use ledger::check::LedgerIdentity;
use ledger::entry::ConfigurationChange;
use ledger::protocol::Protocol;
use ledger::signature::SigningKey;
use ledger::{Head, Limits, Receipt, Sequence, SignedHead, TransactionId};
use seams::{
    Address, BoxFuture, CallError, Clock, Compute, Duplex, Entropy, Method, Service, TaskGroup, Transport, offload,
};
use sequencer::{Machine, NodeId, ReadFault, Sequencer, StartFault, World};
use storage::{FlushSize, KvStore, LedgerState, LogEngine, LogStats, SnapshotSource, StateFault, Table};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use validator::{PoolOptions, ServiceOptions, ValidatorPool, ValidatorService};

use crate::gateway::{self, Gateway, GatewayOptions, Surroundings, Waiting};
use crate::heads::Heads;
use crate::machine::LedgerMachine;
use crate::measures::Measures;

/// What makes a replica itself.
#[derive(Debug, Clone)]
pub struct ReplicaOptions {
    /// Which ledger.
    pub identity: LedgerIdentity,
    /// The key that signs heads, and validates in process where no validator is there.
    pub key: SigningKey,
    /// The order's options, with the node's number.
    pub sequencer: sequencer::Options,
    /// The gateway's bounds.
    pub gateway: GatewayOptions,
    /// How validators are used.
    pub pool: PoolOptions,
    /// What this node validates for others.
    pub validation: ServiceOptions,
    /// How much gathers before it is written out.
    pub flush_size: FlushSize,
    /// The newest version of the protocol that it is to know.
    pub protocol_newest: Protocol,
}

/// Everything outside.
#[derive(Debug, Clone)]
pub struct Outside {
    /// The network.
    pub transport: Arc<dyn Transport>,
    /// The processors.
    pub compute: Arc<dyn Compute>,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// The log's disk.
    pub log: Arc<dyn LogEngine>,
    /// The ledger's disk.
    pub kv: Arc<dyn KvStore>,
}

/// Why a replica does not start.
#[derive(Debug, thiserror::Error)]
pub enum ReplicaFault {
    /// Its state cannot be opened.
    #[error(transparent)]
    State(#[from] StateFault),
    /// The machine cannot resume.
    #[error(transparent)]
    Machine(#[from] sequencer::MachineFault),
    /// The order cannot start.
    #[error(transparent)]
    Start(#[from] StartFault),
}

/// How fresh a read must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consistency {
    /// Whatever this replica has applied.
    Local,
    /// At least so many transactions applied.
    AtLeast(Sequence),
    /// Everything that was acknowledged anywhere before the read began.
    Linearizable,
}

/// Why a read cannot be as fresh as asked. Asking again, here or elsewhere, is safe.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FreshnessFault {
    /// The size was not reached in time.
    #[error("this node has applied {applied} transactions, not {wanted}")]
    Behind {
        /// Applied here.
        applied: Sequence,
        /// Wanted.
        wanted: Sequence,
    },
    /// The leader could not confirm.
    #[error(transparent)]
    Read(#[from] ReadFault),
}

/// Bytes on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskUsage {
    /// Of the log.
    pub log: u64,
    /// Of the ledger, with its snapshots.
    pub ledger: u64,
    /// Of each of the ledger's tables, as far as the store knows.
    pub tables: Vec<(Table, u64)>,
}

/// A running replica. Clones are the same replica; it ends with the task group it was started in.
#[derive(Clone)]
pub struct Replica(Arc<Inner>);

struct Inner {
    around: Surroundings,
    log: Arc<dyn LogEngine>,
    gateway: Gateway,
    heads: Arc<Heads>,
    attestations: watch::Receiver<u64>,
    service: ValidatorService,
    compute: Arc<dyn Compute>,
    key: SigningKey,
    tasks: TaskGroup,
}

impl fmt::Debug for Replica {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Replica({})", self.0.around.sequencer.id())
    }
}

impl Replica {
    /// Starts a replica from its disks. Its tasks join the caller's task group.
    ///
    /// # Errors
    /// Where its disks do not allow it; the message says what to do.
    pub async fn start(options: ReplicaOptions, outside: Outside) -> Result<Self, ReplicaFault> {
        let Outside { transport, compute, clock, entropy, log, kv } = outside;
        let ReplicaOptions { identity, key, sequencer, gateway, pool, validation, flush_size, protocol_newest } =
            options;
        let state = offload(&*compute, move || LedgerState::open(kv, identity, Limits::V1)).await;
        let state = Arc::new(state?.with_flush_size(flush_size).with_protocol_newest(protocol_newest)?);
        let waiting = Arc::new(Waiting::default());
        let observer = Arc::clone(&waiting);
        let measures = Arc::new(Measures::default());
        let machine = LedgerMachine::new(
            Arc::clone(&state),
            Arc::clone(&compute),
            observer,
            Arc::clone(&entropy),
            Arc::clone(&measures),
        );
        let machine = Arc::new(machine?);
        let (heads, attestations) = (machine.heads(), machine.attestations());
        let world =
            World { transport: Arc::clone(&transport), compute: Arc::clone(&compute), entropy: Arc::clone(&entropy) };
        let machine: Arc<dyn Machine> = machine;
        let sequencer = Sequencer::start(sequencer, world, Arc::clone(&log), machine).await?;
        let pool =
            ValidatorPool::new(pool, Arc::clone(&transport), Arc::clone(&compute), identity, key, Arc::clone(&entropy));
        let around = Surroundings {
            sequencer: sequencer.clone(),
            state: Arc::clone(&state),
            pool,
            transport: Arc::clone(&transport),
            clock,
            heads: heads.clone(),
            attestations: attestations.clone(),
            measures,
        };
        let gateway = Gateway::start(gateway, around.clone(), waiting);
        let heads = Heads::start(key, sequencer, state, transport, heads);
        let service = ValidatorService::new(validation, identity, Limits::V1, key, Arc::clone(&compute));
        let tasks = TaskGroup::current().unwrap_or_default();
        let replica = Self(Arc::new(Inner { around, log, gateway, heads, attestations, service, compute, key, tasks }));
        drop(seams::tasks::spawn(replica.clone().register()));
        drop(seams::tasks::spawn(replica.clone().tell_validator_set()));
        Ok(replica)
    }

    /// Makes this node's key known to the cluster, once it is a member.
    async fn register(self) {
        let (node, key) = (self.id(), self.0.key.party());
        loop {
            let registered = self.0.around.state.configuration().nodes.get(&node).copied();
            if registered == Some(key) {
                return;
            }
            if let Some(other) = registered {
                tracing::error!(
                    "the cluster knows node {node} by key {other}, and this node's key file holds {key}: give it back \
                     the file that it had; until then its signatures count for nothing"
                );
                return;
            }
            let status = self.0.around.sequencer.status();
            let members = &status.members;
            let member = members.voters.contains_key(&node) || members.learners.contains_key(&node);
            if member {
                let change = ConfigurationChange::RegisterNode { node, key };
                let deadline = Instant::now() + Duration::from_secs(2);
                if let Err(fault) = gateway::configure(&self.0.around, change, deadline).await {
                    tracing::debug!(%fault, "this node's key is not registered yet");
                }
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Tells the pool every change of the validator set, also while no bundle does.
    async fn tell_validator_set(self) {
        let mut heads = self.watch_heads();
        loop {
            self.0.around.pool.observe(&self.0.around.state.configuration().validators);
            let epoch = heads.borrow_and_update().epoch;
            if heads.wait_for(|head| head.epoch != epoch).await.is_err() {
                return;
            }
        }
    }

    /// This node's number.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.0.around.sequencer.id()
    }

    /// The key that signs this node's heads.
    #[must_use]
    pub fn party(&self) -> ledger::Party {
        self.0.key.party()
    }

    /// Where submissions go.
    #[must_use]
    pub fn gateway(&self) -> &Gateway {
        &self.0.gateway
    }

    /// The order.
    #[must_use]
    pub fn sequencer(&self) -> &Sequencer {
        &self.0.around.sequencer
    }

    /// The state, for reads. Reads of history block: callers go through [`Self::compute`].
    #[must_use]
    pub fn state(&self) -> &Arc<LedgerState> {
        &self.0.around.state
    }

    /// The validators in use.
    #[must_use]
    pub fn pool(&self) -> &ValidatorPool {
        &self.0.around.pool
    }

    /// Where blocking reads go.
    #[must_use]
    pub fn compute(&self) -> &dyn Compute {
        &*self.0.compute
    }

    /// What the replica has on disk.
    ///
    /// # Errors
    /// Where a directory cannot be read.
    pub async fn disk_usage(&self) -> Result<DiskUsage, StateFault> {
        let (log, state) = (Arc::clone(&self.0.log), Arc::clone(self.state()));
        let measure = move || {
            let (log, ledger) = (log.bytes_on_disk()?, state.bytes_on_disk()?);
            Ok(DiskUsage { log, ledger, tables: state.table_bytes()? })
        };
        offload(self.compute(), measure).await
    }

    /// What the log's engine counted since it was opened.
    #[must_use]
    pub fn log_stats(&self) -> LogStats {
        self.0.log.stats()
    }

    /// A durable copy of the ledger as it is now, and its head. Costs the order what any snapshot does.
    ///
    /// # Errors
    /// Outside: the reason why the node has stopped. Inside: why the copy cannot be made.
    pub async fn snapshot(&self) -> Result<Result<(Arc<dyn SnapshotSource>, Head), StateFault>, String> {
        let state = Arc::clone(self.state());
        self.sequencer().undisturbed(move || state.snapshot_with_head()).await
    }

    /// The newest head, as it changes.
    #[must_use]
    pub fn watch_heads(&self) -> watch::Receiver<Head> {
        self.0.around.heads.clone()
    }

    /// The number of attestations, as it grows.
    #[must_use]
    pub fn watch_attestations(&self) -> watch::Receiver<u64> {
        self.0.attestations.clone()
    }

    /// The newest head with the signatures that the last round brought.
    #[must_use]
    pub fn newest_signed_head(&self) -> SignedHead {
        self.0.heads.newest_signed()
    }

    /// The newest head of all, perhaps with this node's signature only.
    #[must_use]
    pub fn signed_current_head(&self) -> SignedHead {
        self.0.heads.current_signed()
    }

    /// Waits until reads here are as fresh as asked.
    ///
    /// # Errors
    /// Where that cannot be confirmed in time.
    pub async fn await_freshness(&self, consistency: Consistency, patience: Duration) -> Result<(), FreshnessFault> {
        match consistency {
            Consistency::Local => Ok(()),
            Consistency::AtLeast(_) if is_planted(Flaw::ReadWithoutWaiting) => Ok(()),
            Consistency::AtLeast(wanted) => {
                let mut heads = self.watch_heads();
                let reached = async { heads.wait_for(|head| head.size >= wanted).await.is_ok() };
                if timeout(patience, reached).await == Ok(true) {
                    return Ok(());
                }
                Err(FreshnessFault::Behind { applied: self.0.around.state.head().size, wanted })
            }
            Consistency::Linearizable => {
                let sequencer = &self.0.around.sequencer;
                let index = sequencer.read_index(patience).await?;
                Ok(sequencer.wait_applied(index, patience).await?)
            }
        }
    }

    /// The receipt of a transaction, against a head that at least this node signed. `None` where the transaction has no
    /// place in the order, or no head covers it in time.
    ///
    /// # Errors
    /// Where the state cannot be read.
    pub async fn receipt(&self, id: TransactionId, patience: Duration) -> Result<Option<Receipt>, StateFault> {
        let state = Arc::clone(self.state());
        let found = offload(self.compute(), move || state.transaction(&id)).await?;
        let Some(record) = found.and_then(|(batch, position)| batch.records.get(position).cloned()) else {
            return Ok(None);
        };
        let Some(head) = self.0.heads.covering(record.sequence.plus(1), patience).await else { return Ok(None) };
        let state = Arc::clone(self.state());
        offload(self.compute(), move || state.receipt(&id, &head)).await
    }

    /// Writes the first members of a new cluster.
    ///
    /// # Errors
    /// Where the cluster exists already, or this node is not among the members.
    pub async fn initialize(&self, members: BTreeMap<NodeId, Address>) -> Result<(), sequencer::InitializeFault> {
        self.0.around.sequencer.initialize(members).await
    }

    /// Orders a change of the replicated configuration.
    ///
    /// # Errors
    /// Where it is void or unconfirmed by the deadline.
    pub async fn configure(
        &self,
        change: ConfigurationChange,
        deadline: Instant,
    ) -> Result<(), gateway::ConfigureFault> {
        gateway::configure(&self.0.around, change, deadline).await
    }

    /// Orders an attestation.
    ///
    /// # Errors
    /// Where it is not kept, or unconfirmed by the deadline.
    pub async fn attest(&self, attestation: Vec<u8>, deadline: Instant) -> Result<(), gateway::ConfigureFault> {
        gateway::attest(&self.0.around, attestation, deadline).await
    }

    /// Waits until the replica cannot go on, and says why: its disk or machine failed, or it diverged.
    pub async fn failed(&self) -> String {
        let mut fatal = self.0.around.sequencer.fatal();
        let mut diverged = self.0.heads.diverged();
        let reason = tokio::select! {
            reason = fatal.wait_for(Option::is_some) => reason.ok().and_then(|reason| reason.clone()),
            reason = diverged.wait_for(Option::is_some) => reason.ok().and_then(|reason| reason.clone()),
        };
        reason.unwrap_or_else(|| "the replica ended".to_owned())
    }

    /// Hands over the lead where this node holds it, and stops taking part in the order.
    pub async fn shutdown(&self) {
        let status = self.0.around.sequencer.status();
        if status.leader.as_ref().is_some_and(|leader| leader.id == status.id) {
            let furthest = status.replicated.iter().filter(|(id, _)| status.members.voters.contains_key(id));
            if let Some((successor, _)) = furthest.max_by_key(|(_, index)| **index) {
                let handed = self.0.around.sequencer.transfer_leader(*successor, Duration::from_secs(2)).await;
                if let Err(fault) = handed {
                    tracing::warn!(%fault, "stopping without having handed over the lead");
                }
            }
        }
        self.0.around.sequencer.shutdown().await;
    }

    async fn serve(self, method: Method, body: Bytes) -> Result<Bytes, CallError> {
        let around = &self.0.around;
        match method {
            Method::RaftAppend
            | Method::RaftVote
            | Method::RaftSnapshotChunk
            | Method::RaftTransferLeader
            | Method::ReadIndex => around.sequencer.handle(method, body).await,
            Method::Forward => gateway::serve_forward(&around.sequencer, &*around.clock, &body).await,
            Method::ExchangeHead => self.0.heads.serve(&body).await,
            Method::Validate => self.0.service.validate(body).await,
            Method::AnnounceValidator => match around.pool.handle_announcement(&body) {
                Ok(()) => Ok(Bytes::new()),
                Err(fault) => Err(CallError::Refused { code: 400, message: fault.to_string(), retry_after: None }),
            },
            Method::Status => Err(CallError::Refused {
                code: 404,
                message: "status is served by the public interface".to_owned(),
                retry_after: None,
            }),
        }
    }
}

/// What other nodes and validators send.
impl Service for Replica {
    fn handle(&self, method: Method, body: Bytes) -> BoxFuture<'static, Result<Bytes, CallError>> {
        let replica = self.clone();
        Box::pin(self.0.tasks.scope(replica.serve(method, body)))
    }

    fn accept(&self, method: Method, duplex: Duplex) {
        let replica = self.clone();
        drop(self.0.tasks.spawn(async move { replica.0.around.sequencer.accept(method, duplex) }));
    }
}
