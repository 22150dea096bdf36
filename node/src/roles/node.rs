//! `seriatim node`: a member of the cluster.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use anyhow::Context;
use ledger::ClusterId;
use ledger::check::LedgerIdentity;
use ledger::signature::SigningKey;
use seams::{
    Address, Clock, Compute, Entropy, OsEntropy, ShiftedClock, SystemClock, TaskGroup, ThreadPool, Transport, offload,
};
use sequencer::Status;
use storage::{FlushSize, KvOptions, KvStore, LogEngine, LogOptions, RocksKv, SegmentLog};
use tls::Role;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use validator::{PoolOptions, ServiceOptions};

use super::joining::Belonging;
use super::secured::identity;
use super::servers::{Listeners, Servers};
use super::{Ready, advertised, own_key};
use crate::api::{Api, Facts};
use crate::backup::refuse_unfinished;
use crate::config::NodeConfig;
use crate::gateway::GatewayOptions;
use crate::network::{Channels, GrpcTransport, MESSAGE_BYTES_MAX};
use crate::replica::{Outside, Replica, ReplicaOptions};
use crate::{grpc, http};

/// How long admitted submissions may take when the node ends.
const ANSWER_PATIENCE: Duration = Duration::from_secs(2);
/// How long a stopped node's disks may take to be closed.
const CLOSE_PATIENCE: Duration = Duration::from_secs(30);
/// Heartbeats per election timeout: several may be lost.
const HEARTBEATS: u32 = 10;

/// A node that runs. Stop it with [`RunningNode::stop`]; dropping it leaves its tasks running.
#[derive(Debug)]
pub struct RunningNode {
    api: Api,
    replica: Replica,
    ready: Ready,
    servers: Servers,
    tasks: TaskGroup,
    log: Weak<dyn LogEngine>,
    kv: Weak<dyn KvStore>,
}

/// Where a node's disks are, opened.
struct Disks {
    log: Arc<dyn LogEngine>,
    kv: Arc<dyn KvStore>,
}

impl RunningNode {
    /// Starts a node. Its servers listen from the beginning; this returns once its replica runs, which for a node
    /// with an empty disk may take until the other members are there.
    ///
    /// # Errors
    /// Where configuration, disk or cluster do not allow it; the message says what to do.
    pub async fn start(config: NodeConfig) -> anyhow::Result<Self> {
        let tasks = TaskGroup::new();
        // boxed: starting takes much room, which whoever waits for it need not carry
        let started = Box::pin(tasks.scope(Self::start_in(config, tasks.clone()))).await;
        if started.is_err() {
            tasks.abort_all();
        }
        started
    }

    async fn start_in(config: NodeConfig, tasks: TaskGroup) -> anyhow::Result<Self> {
        refuse_unfinished(&config.data_dir)?;
        let fresh = !config.data_dir.join("log").exists();
        let key = own_key(&config.key_file)?;
        let identity = identity(config.tls.as_ref(), Role::Node(config.id), config.listen)?;
        let listeners = Listeners::bind(config.listen, config.http_listen).await?;
        let (grpc_address, http_address) = listeners.addresses()?;
        let cluster = ClusterId::of_name(&config.cluster);
        let address = advertised(config.advertise.as_deref(), grpc_address)?;
        let facts = Facts {
            node: config.id,
            cluster_name: config.cluster.clone(),
            identity: LedgerIdentity { cluster, group: 0 },
            address: address.clone(),
            http_address: Some(advertised(config.http_advertise.as_deref(), http_address)?.as_str().to_owned()),
            fresh,
        };
        let channels = Channels::secured(identity.clone());
        let transport = GrpcTransport::new(channels.clone());
        let api = Api::new(facts.clone(), channels.clone(), &gateway_options(&config));
        let servers = Servers::start(listeners, grpc::node_routes(&api)?, http::node_router(&api), identity.as_ref());

        let belonging = Belonging { node: config.id, cluster, members: config.members.clone() };
        if fresh {
            if config.members.is_empty() && !config.initialize {
                tracing::warn!("without --members nobody can be asked whether this node had a disk before and lost it");
            }
            belonging.admit_fresh(&transport).await?;
        }
        let compute: Arc<dyn Compute> = Arc::new(ThreadPool::new(config.compute_threads)?);
        let disks = open_disks(&*compute, &config).await?;
        let (log, kv) = (Arc::downgrade(&disks.log), Arc::downgrade(&disks.kv));
        let replica = start_replica(&config, facts.identity, key, &transport, compute, disks).await?;
        api.started(replica.clone());
        if identity.is_some() {
            drop(seams::tasks::spawn(expect_members(channels, replica.sequencer().watch())));
        }
        drop(seams::tasks::spawn(api.clone().meet_neighbours(transport.clone())));
        drop(seams::tasks::spawn(api.clone().forget_quiet_clients()));
        if config.initialize {
            form_in_background(belonging, transport, replica.clone(), &address);
        }
        let ready = ready(&config, grpc_address, http_address, &address, &key);
        Ok(Self { api, replica, ready, servers, tasks, log, kv })
    }

    /// Where it serves, and under which key.
    #[must_use]
    pub const fn ready(&self) -> &Ready {
        &self.ready
    }

    /// The replica.
    #[must_use]
    pub const fn replica(&self) -> &Replica {
        &self.replica
    }

    /// What its servers answer from.
    #[must_use]
    pub const fn api(&self) -> &Api {
        &self.api
    }

    /// Waits until the node cannot go on, and says why.
    pub async fn failed(&self) -> String {
        self.replica.failed().await
    }

    /// Stops: refuses new submissions, answers those admitted, hands over the lead, ends calls under way, closes
    /// the disks.
    pub async fn stop(self) {
        let Self { api, replica, servers, tasks, log, kv, .. } = self;
        api.stopping();
        let answered = async {
            while replica.gateway().queued_transactions() > 0 {
                sleep(Duration::from_millis(5)).await;
            }
        };
        if timeout(ANSWER_PATIENCE, answered).await.is_err() {
            tracing::warn!("stopping before every submission is answered; their outcomes can be asked for elsewhere");
        }
        replica.shutdown().await;
        servers.stop();
        tasks.abort_all();
        drop((api, replica));
        servers.ended().await;
        let closed = async {
            while log.strong_count() + kv.strong_count() > 0 {
                sleep(Duration::from_millis(5)).await;
            }
        };
        if timeout(CLOSE_PATIENCE, closed).await.is_err() {
            tracing::warn!("the disks are still in use; nothing that was acknowledged is lost");
        }
    }
}

fn ready(config: &NodeConfig, grpc: SocketAddr, http: SocketAddr, address: &Address, key: &SigningKey) -> Ready {
    Ready {
        role: "node".to_owned(),
        node: Some(config.id),
        cluster: config.cluster.clone(),
        grpc,
        http,
        advertise: address.as_str().to_owned(),
        key: key.party().to_string(),
        pid: std::process::id(),
    }
}

async fn open_disks(compute: &dyn Compute, config: &NodeConfig) -> anyhow::Result<Disks> {
    let identity = data_identity(&config.cluster, config.id);
    let data_dir = config.data_dir.clone();
    offload(compute, move || open(&data_dir, &identity)).await.context("the node's data cannot be opened")
}

/// Whose data is in a directory: it opens under no other number and no other ledger's name.
pub(crate) fn data_identity(cluster: &str, node: u64) -> Vec<u8> {
    format!("{cluster} node {node}").into_bytes()
}

fn open(data_dir: &Path, identity: &[u8]) -> Result<Disks, storage::StorageFault> {
    let log = SegmentLog::open(&data_dir.join("log"), identity, LogOptions::default())?;
    let kv = RocksKv::open(&data_dir.join("ledger"), identity, KvOptions::default())?;
    Ok(Disks { log: Arc::new(log), kv: Arc::new(kv) })
}

async fn start_replica(
    config: &NodeConfig,
    identity: LedgerIdentity,
    key: SigningKey,
    transport: &GrpcTransport,
    compute: Arc<dyn Compute>,
    disks: Disks,
) -> anyhow::Result<Replica> {
    let options = ReplicaOptions {
        identity,
        key,
        sequencer: sequencer_options(config),
        gateway: gateway_options(config),
        pool: PoolOptions { addresses: config.validators.as_slice().to_vec(), ..PoolOptions::default() },
        validation: ServiceOptions::default(),
        flush_size: FlushSize::default(),
        protocol_newest: config.protocol_newest,
    };
    let message_bytes_max = sequencer::Sequencer::message_bytes_max(&options.sequencer);
    assert!(message_bytes_max < MESSAGE_BYTES_MAX, "what the order sends passes the network");
    let transport: Arc<dyn Transport> = Arc::new(transport.clone());
    let entropy: Arc<dyn Entropy> = Arc::new(OsEntropy);
    let outside = Outside { transport, compute, clock: clock(config), entropy, log: disks.log, kv: disks.kv };
    Replica::start(options, outside).await.context("the replica does not start")
}

/// Follows who is a member, and where: at its address only its own certificate is believed.
async fn expect_members(channels: Channels, mut status: watch::Receiver<Status>) {
    loop {
        let members = status.borrow_and_update().members.clone();
        channels.expect(members.voters.iter().chain(&members.learners));
        if status.wait_for(|status| status.members != members).await.is_err() {
            return;
        }
    }
}

fn clock(config: &NodeConfig) -> Arc<dyn Clock> {
    match config.clock_offset_ms {
        0 => Arc::new(SystemClock),
        offset_ms => {
            tracing::warn!(offset_ms, "the clock is wrong, as the configuration demands: this is for tests");
            Arc::new(ShiftedClock { offset_ms })
        }
    }
}

fn sequencer_options(config: &NodeConfig) -> sequencer::Options {
    let mut options = sequencer::Options::new(config.id);
    if let Some(shortest) = config.election_timeout {
        options.election_timeout_min = shortest;
        options.election_timeout_max = shortest * 16 / 13;
        options.heartbeat = shortest / HEARTBEATS;
    }
    if let Some(bytes) = config.log_bytes_max {
        options.log_bytes_max = bytes;
        options.log_bytes_keep = bytes / 4;
    }
    options
}

fn gateway_options(config: &NodeConfig) -> GatewayOptions {
    let mut options = GatewayOptions::default();
    if let Some(count) = config.queued_transactions_max {
        options.queued_transactions_max = count;
    }
    options.client_rate = config.client_rate;
    options.cost_model = config.cost_model;
    options
}

/// A node without a list of members forms a cluster of itself.
fn form_in_background(belonging: Belonging, transport: GrpcTransport, replica: Replica, address: &Address) {
    let alone = std::iter::once((belonging.node, address.clone())).collect();
    let members = if belonging.members.is_empty() { alone } else { belonging.members.clone() };
    let belonging = Belonging { members, ..belonging };
    drop(seams::tasks::spawn(async move {
        if let Err(fault) = belonging.form(&transport, &replica).await {
            tracing::error!("the cluster is not formed: {fault:#}");
        }
    }));
}
