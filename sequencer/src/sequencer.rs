//! A node of the order: what the rest of the system holds.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use meters::Distribution;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, Fatal, ForwardToLeader, InitializeError, RaftError};
use openraft_rt::deterministic_rng::DeterministicRng;
use seams::{Address, BoxFuture, CallError, Compute, Duplex, Entropy, Method, Service, Transport, next_u64};
use storage::LogEngine;
use tokio::sync::{Mutex, Semaphore, watch};
use tokio::time::{Instant, timeout_at};

use crate::NodeId;
use crate::compaction::Compaction;
use crate::config::{Member, Payload, Raft, RaftMetrics, Response, SeamsRuntime, TypeConfig, raft_config};
use crate::encoding::{self, ReadAnswer};
use crate::fault::{FatalSwitch, InitializeFault, ProposeFault, StartFault};
use crate::log_store;
use crate::machine::{EntryId, Machine};
use crate::network::{LeaderHeard, NOT_SERVED, Network, UNREADABLE, refused, serve};
use crate::options::Options;
use crate::snapshot_transfer::{self, Receiver};
use crate::state_machine::StateMachine;
use crate::status::{Leader, Status};
use crate::transfers::Transfers;

/// Election timeouts after which a leader that says nothing is taken to lead no more, by whoever asks: long enough for an
/// election, and for a machine that has no time now and then.
const SILENCE_ELECTIONS: u32 = 4;

/// What a node reaches the world through.
#[derive(Debug, Clone)]
pub struct World {
    /// The other nodes.
    pub transport: Arc<dyn Transport>,
    /// Where the machine and the log run.
    pub compute: Arc<dyn Compute>,
    /// Seeds this node's choices, such as its election timeouts.
    pub entropy: Arc<dyn Entropy>,
}

/// What became of a proposal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The entry it became: committed, and applied on this node.
    pub id: EntryId,
    /// What this node's machine said to it.
    pub response: Bytes,
}

/// What the order takes on one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measures {
    /// Bytes of entries in the log that were not purged.
    pub log_bytes: u64,
    /// Bytes of proposals that wait to be committed; only the leader has any.
    pub proposed_bytes: u64,
    /// How long each snapshot took to be made.
    pub snapshots: Distribution,
}

/// A node of the order. Clones are the same node. It runs until [`Sequencer::shutdown`], until the task
/// group it was started in ends, or until a fault stops it ([`Sequencer::fatal`]).
#[derive(Clone)]
pub struct Sequencer(Arc<Node>);

struct Node {
    options: Arc<Options>,
    transport: Arc<dyn Transport>,
    raft: Raft,
    state_machine: StateMachine,
    log: Arc<log_store::Shared>,
    receiver: Receiver,
    status: watch::Receiver<Status>,
    heard: Arc<LeaderHeard>,
    fatal: FatalSwitch,
    /// Bytes of proposals that may still be taken in.
    room: Semaphore,
    member_changes: Mutex<()>,
    seed: AtomicU64,
}

impl fmt::Debug for Sequencer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Sequencer({})", self.0.options.id)
    }
}

impl Sequencer {
    /// Starts a node from its log and its machine: applies what is known to be committed and not in the
    /// machine's durable state, then takes part. Tasks join the caller's task group. A node that was never
    /// initialized waits to be initialized or to be added to a cluster.
    ///
    /// # Errors
    /// [`StartFault`]: log, machine and options do not allow it.
    pub async fn start(
        options: Options,
        world: World,
        log: Arc<dyn LogEngine>,
        machine: Arc<dyn Machine>,
    ) -> Result<Self, StartFault> {
        options.check()?;
        let config = raft_config(&options)?;
        let options = Arc::new(options);
        let fatal = FatalSwitch::new();
        let World { transport, compute, entropy } = world;
        let (store, log) = log_store::open(&options, log, Arc::clone(&compute), Arc::clone(&machine), fatal.clone())?;
        let state_machine =
            StateMachine::new(&options, Arc::clone(&machine), Arc::clone(&compute), Arc::clone(&log), fatal.clone());
        state_machine.open().await.map_err(|fault| StartFault::Recovery(fault.to_string()))?;
        let transfers = Transfers::default();
        let network = Network {
            transport: Arc::clone(&transport),
            options: Arc::clone(&options),
            state_machine: state_machine.clone(),
            transfers: transfers.clone(),
        };
        let raft = Raft::new(options.id, config, network, store, state_machine.clone());
        let raft = seeded(next_u64(&*entropy), raft).await.map_err(|fatal| StartFault::Recovery(fatal.to_string()))?;

        let status = watch_status(&raft, fatal.clone());
        let compaction = Compaction {
            raft: raft.clone(),
            log: Arc::clone(&log),
            machine,
            compute,
            status: status.clone(),
            transfers,
            options: Arc::clone(&options),
        };
        drop(seams::tasks::spawn(compaction.run()));
        Ok(Sequencer(Arc::new(Node {
            transport,
            receiver: Receiver::new(raft.clone(), state_machine.clone()),
            raft,
            state_machine,
            log,
            status,
            heard: Arc::default(),
            fatal,
            room: Semaphore::new(options.proposal_bytes_max),
            member_changes: Mutex::new(()),
            seed: AtomicU64::new(next_u64(&*entropy)),
            options,
        })))
    }

    /// Writes the first members, once in a cluster's life, on one of them (or the same on several).
    ///
    /// # Errors
    /// [`InitializeFault::AlreadyInitialized`] where the node has a log: nothing was changed.
    pub async fn initialize(&self, members: BTreeMap<NodeId, Address>) -> Result<(), InitializeFault> {
        let members: BTreeMap<_, _> = members.into_iter().map(|(id, address)| (id, Member { address })).collect();
        match self.0.raft.initialize(members).await {
            Ok(()) => Ok(()),
            Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Err(InitializeFault::AlreadyInitialized),
            Err(RaftError::APIError(InitializeError::NotInMembers(_))) => Err(InitializeFault::NotAMember),
            Err(RaftError::Fatal(_)) => Err(InitializeFault::Stopped(self.stop_reason())),
        }
    }

    /// Proposes an entry on the leader and waits until it is committed and applied here. Many proposals may
    /// wait at once.
    ///
    /// # Errors
    /// [`ProposeFault`], which says whether the entry may be applied all the same.
    pub async fn propose(&self, entry: Bytes, deadline: Instant) -> Result<Answer, ProposeFault> {
        let _room = self.take_room(entry.len())?;
        let written = timeout_at(deadline, self.0.raft.client_write(Payload(entry))).await;
        let Ok(written) = written else {
            return Err(ProposeFault::Unknown("no answer before the deadline".to_owned()));
        };
        match written {
            Ok(written) => {
                let Response(response) = written.data;
                Ok(Answer { id: written.log_id.into(), response })
            }
            Err(RaftError::Fatal(_)) => Err(ProposeFault::Unknown(self.stop_reason())),
            Err(RaftError::APIError(error)) => Err(propose_fault(error)),
        }
    }

    fn take_room(&self, bytes: usize) -> Result<tokio::sync::SemaphorePermit<'_>, ProposeFault> {
        let bytes_max = self.0.options.entry_bytes_max;
        if bytes > bytes_max {
            return Err(ProposeFault::TooLarge { bytes, bytes_max });
        }
        let permits = u32::try_from(bytes).expect("options are checked: an entry is below 4 GiB");
        let overloaded = |_full| ProposeFault::Overloaded { retry_after: self.0.options.heartbeat };
        self.0.room.try_acquire_many(permits).map_err(overloaded)
    }

    /// This node.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.0.options.id
    }

    /// What the order takes on this node now.
    #[must_use]
    pub fn measures(&self) -> Measures {
        let count = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
        let taken = self.0.options.proposal_bytes_max.saturating_sub(self.0.room.available_permits());
        Measures {
            log_bytes: *self.0.log.watch_live_bytes().borrow(),
            proposed_bytes: count(taken),
            snapshots: self.0.state_machine.snapshot_times().distribution(),
        }
    }

    /// What the node knows now.
    #[must_use]
    pub fn status(&self) -> Status {
        self.0.status.borrow().clone()
    }

    /// What the node knows, as it changes.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Status> {
        self.0.status.clone()
    }

    /// Index of the last entry applied here, as it grows.
    #[must_use]
    pub fn watch_applied(&self) -> watch::Receiver<Option<u64>> {
        self.0.state_machine.watch_applied()
    }

    /// Why the node cannot go on, once there is a reason: the first fault of its disk or machine. The owner
    /// of the node then ends it.
    #[must_use]
    pub fn fatal(&self) -> watch::Receiver<Option<String>> {
        self.0.fatal.watch()
    }

    /// Asks for a snapshot of the machine; [`Status::snapshot`] shows when it is there.
    ///
    /// # Errors
    /// The reason why the node has stopped.
    pub async fn trigger_snapshot(&self) -> Result<(), String> {
        self.0.raft.trigger().snapshot().await.map_err(|_stopped| self.stop_reason())
    }

    /// Runs `call` where the machine runs, while no snapshot is made or taken in: for who copies the machine's state.
    /// Once begun it goes to its end, whether or not the caller still waits.
    ///
    /// # Errors
    /// The reason why the node has stopped.
    pub async fn undisturbed<T: Send + 'static>(&self, call: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
        self.0.state_machine.undisturbed(call).await.map_err(|_ended| self.stop_reason())
    }

    /// Largest message that this node sends to another, in bytes: what a transport must let pass.
    #[must_use]
    pub fn message_bytes_max(options: &Options) -> usize {
        snapshot_transfer::message_bytes_max(options)
    }

    /// Stops taking part and waits until the node has ended. What is waiting gets no answer.
    pub async fn shutdown(&self) {
        if let Err(error) = self.0.raft.shutdown().await {
            tracing::warn!(%error, "openraft did not end in order");
        }
    }

    /// Whether the node that [`Status::leader`] names has shown lately that it leads: on a follower, by a message; on
    /// the leader itself, by the answers of a majority. A node that was cut off, or was removed while it was away, goes
    /// on naming the last leader that it had.
    #[must_use]
    pub fn is_led(&self) -> bool {
        let silence_max = self.0.options.election_timeout_max * SILENCE_ELECTIONS;
        let status = self.0.status.borrow();
        match &status.leader {
            None => false,
            Some(leader) if leader.id != status.id => self.0.heard.within(silence_max),
            Some(_) => {
                let voters = &status.members.voters;
                let answering = voters.keys().filter(|voter| self.answers(**voter, silence_max)).count();
                answering * 2 > voters.len()
            }
        }
    }

    pub(crate) fn raft(&self) -> &Raft {
        &self.0.raft
    }

    pub(crate) fn options(&self) -> &Options {
        &self.0.options
    }

    pub(crate) fn transport(&self) -> &dyn Transport {
        &*self.0.transport
    }

    pub(crate) fn member_changes(&self) -> &Mutex<()> {
        &self.0.member_changes
    }

    pub(crate) fn stop_reason(&self) -> String {
        self.0.fatal.reason()
    }

    async fn serve(&self, method: Method, body: Bytes) -> Result<Bytes, CallError> {
        let raft = &self.0.raft;
        match method {
            Method::RaftAppend => serve::append(raft, &self.0.heard, body).await,
            Method::RaftVote => serve::vote(raft, body).await,
            Method::RaftTransferLeader => serve::transfer_leader(raft, body).await,
            Method::RaftSnapshotChunk => self.0.receiver.step(body).await,
            Method::ReadIndex => {
                let timeout = encoding::decode::<Duration>(&body).map_err(|error| refused(UNREADABLE, error))?;
                let answer: ReadAnswer = self.own_read_index(timeout).await;
                Ok(encoding::encode(&answer))
            }
            Method::Forward | Method::ExchangeHead | Method::Status | Method::Validate | Method::AnnounceValidator => {
                Err(refused(NOT_SERVED, format!("{method:?} is not the sequencer's")))
            }
        }
    }
}

/// The messages of other sequencers: every `Raft…` method, and [`Method::ReadIndex`].
impl Service for Sequencer {
    fn handle(&self, method: Method, body: Bytes) -> BoxFuture<'static, Result<Bytes, CallError>> {
        let sequencer = self.clone();
        async move { sequencer.serve(method, body).await }.boxed()
    }

    fn accept(&self, method: Method, duplex: Duplex) {
        if method != Method::RaftAppend {
            tracing::warn!(?method, "a stream that the sequencer does not serve");
            return;
        }
        let seed = self.0.seed.fetch_add(1, Ordering::Relaxed);
        let (raft, heard) = (self.0.raft.clone(), Arc::clone(&self.0.heard));
        drop(seams::tasks::spawn(seeded(seed, serve::stream(raft, heard, duplex))));
    }
}

/// Runs what spawns tasks of openraft's: it takes its randomness from a seed that tasks inherit.
fn seeded<F: Future>(seed: u64, future: F) -> impl Future<Output = F::Output> {
    DeterministicRng::<SeamsRuntime>::scope(seed, future)
}

/// Follows openraft's metrics, and raises the alarm when it ends without having been asked to.
fn watch_status(raft: &Raft, fatal: FatalSwitch) -> watch::Receiver<Status> {
    let mut metrics = raft.metrics();
    let (sender, receiver) = watch::channel(Status::from_metrics(&metrics.borrow_watched()));
    drop(seams::tasks::spawn(async move {
        loop {
            let open = metrics.changed().await.is_ok();
            let (status, end) = {
                let metrics = metrics.borrow_watched();
                (Status::from_metrics(&metrics), end(&metrics))
            };
            sender.send_if_modified(|known| {
                let changed = *known != status;
                *known = status;
                changed
            });
            match end {
                Some(End::Asked) => return,
                Some(End::Fault(why)) => return fatal.raise(|| why),
                None if open => {}
                None => return fatal.raise(|| "openraft ended unexpectedly".to_owned()),
            }
        }
    }));
    receiver
}

enum End {
    Asked,
    Fault(String),
}

fn end(metrics: &RaftMetrics) -> Option<End> {
    match &metrics.running_state {
        Ok(()) => None,
        Err(Fatal::Stopped) => Some(End::Asked),
        Err(Fatal::StorageError(error)) => Some(End::Fault(error.to_string())),
        Err(Fatal::Panicked) => Some(End::Fault("openraft panicked".to_owned())),
    }
}

pub(crate) fn leader(forward: &ForwardToLeader<TypeConfig>) -> Option<Leader> {
    let address = forward.leader_node.as_ref()?.address.clone();
    Some(Leader { id: forward.leader_id?, address })
}

fn propose_fault(error: ClientWriteError<TypeConfig>) -> ProposeFault {
    match error {
        ClientWriteError::ForwardToLeader(forward) => ProposeFault::NotLeader { leader: leader(&forward) },
        ClientWriteError::LogEntryDiscarded(_) => {
            ProposeFault::Unknown("this node lost the lead; another leader may have kept the entry".to_owned())
        }
        other @ (ClientWriteError::ChangeMembershipError(_) | ClientWriteError::PreconditionFailed(_)) => {
            ProposeFault::Unknown(other.to_string())
        }
    }
}
