//! A cluster in one thread: real sequencers over a toy log, a toy machine and a toy network, in paused time.

#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(dead_code, reason = "each test file uses a part")]
#![allow(unreachable_pub, missing_docs, reason = "shared between test files")]

pub mod log;
pub mod machine;
pub mod network;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use seams::{Address, Entropy, Inline, TaskGroup};
use sequencer::{Answer, NodeId, Options, ProposeFault, Role, Sequencer, Status, World};
use tokio::time::{Instant, sleep, timeout};

use self::log::{LogDisk, MemoryLog};
use self::machine::{MachineDisk, Toy};
use self::network::{Hub, ToyTransport};

/// Runs a test in a runtime of its own, whose time is virtual and whose choices come from the seed.
pub fn simulate<T>(seed: u64, test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .unhandled_panic(tokio::runtime::UnhandledPanic::ShutdownRuntime)
        .rng_seed(tokio::runtime::RngSeed::from_bytes(&seed.to_le_bytes()))
        .build()
        .unwrap();
    runtime.block_on(test)
}

/// Randomness from a seed.
#[derive(Debug)]
pub struct Seeded(AtomicU64);

impl Entropy for Seeded {
    fn fill(&self, buffer: &mut [u8]) {
        for byte in buffer {
            let drawn = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
            *byte = blake3::hash(&drawn.to_le_bytes()).as_bytes()[0];
        }
    }
}

pub struct Node {
    pub group: TaskGroup,
    pub sequencer: Sequencer,
    pub machine: Arc<Toy>,
}

/// Some nodes, their disks, and what connects them.
pub struct Cluster {
    pub hub: Arc<Hub>,
    pub nodes: BTreeMap<NodeId, Node>,
    pub disks: BTreeMap<NodeId, (LogDisk, MachineDisk)>,
    pub options: fn(NodeId) -> Options,
    seed: u64,
}

pub fn address(id: NodeId) -> Address {
    Address::new(format!("node-{id}:1"))
}

pub fn quick(id: NodeId) -> Options {
    Options {
        heartbeat: Duration::from_millis(20),
        election_timeout_min: Duration::from_millis(160),
        election_timeout_max: Duration::from_millis(200),
        append_timeout: Duration::from_millis(500),
        snapshot_piece_timeout: Duration::from_millis(200),
        snapshot_install_timeout: Duration::from_secs(2),
        snapshot_piece_bytes: 100,
        promote_lag_entries_max: 5,
        ..Options::new(id)
    }
}

impl Cluster {
    /// Nodes 1 to `count`, initialized, with a leader.
    pub async fn of(seed: u64, count: u64) -> Self {
        Self::with(seed, count, quick).await
    }

    pub async fn with(seed: u64, count: u64, options: fn(NodeId) -> Options) -> Self {
        let hub = Arc::new(Hub::default());
        let mut cluster = Cluster { hub, nodes: BTreeMap::new(), disks: BTreeMap::new(), options, seed };
        for id in 1..=count {
            cluster.start(id).await;
        }
        let members = (1..=count).map(|id| (id, address(id))).collect();
        cluster.nodes[&1].sequencer.initialize(members).await.unwrap();
        cluster.leader().await;
        cluster
    }

    /// Starts a node on its disks, which are new the first time.
    pub async fn start(&mut self, id: NodeId) {
        let (log_disk, machine_disk) = self.disks.entry(id).or_default().clone();
        self.seed += 1;
        let world = World {
            transport: Arc::new(ToyTransport { hub: Arc::clone(&self.hub), me: address(id) }),
            compute: Arc::new(Inline),
            entropy: Arc::new(Seeded(AtomicU64::new(self.seed))),
        };
        let group = TaskGroup::new();
        let machine = Toy::open(&machine_disk);
        let options = (self.options)(id);
        let start = async {
            let log = MemoryLog::open(&log_disk, Duration::from_millis(1));
            let machine: Arc<dyn sequencer::Machine> = Arc::<Toy>::clone(&machine);
            Sequencer::start(options, world, log, machine).await
        };
        let sequencer = group.scope(start).await.unwrap();
        self.hub.join(address(id), group.clone(), sequencer.clone());
        self.nodes.insert(id, Node { group, sequencer, machine });
    }

    /// Cuts the power of a node: what it had not synced is gone.
    pub fn crash(&mut self, id: NodeId) {
        self.hub.leave(&address(id));
        self.nodes.remove(&id).unwrap().group.abort_all();
    }

    /// Cuts a node off from all others.
    pub fn isolate(&self, id: NodeId) {
        for other in self.disks.keys().filter(|other| **other != id) {
            self.hub.cut(&address(id), &address(*other));
        }
    }

    pub fn node(&self, id: NodeId) -> &Sequencer {
        &self.nodes[&id].sequencer
    }

    pub fn status(&self, id: NodeId) -> Status {
        self.node(id).status()
    }

    /// Waits until exactly one node leads in the highest term and a majority agrees, and names it.
    pub async fn leader(&self) -> NodeId {
        self.leader_among(&self.nodes.keys().copied().collect::<Vec<_>>()).await
    }

    pub async fn leader_among(&self, ids: &[NodeId]) -> NodeId {
        let mut found = None;
        eventually("a leader", || {
            let leads = |id: &&NodeId| self.status(**id).role == Role::Leader;
            let leaders: Vec<NodeId> = ids.iter().filter(leads).copied().collect();
            let agree =
                ids.iter().all(|id| self.status(*id).leader.map(|leader| leader.id) == leaders.first().copied());
            found = leaders.first().copied().filter(|_| leaders.len() == 1 && agree);
            found.is_some()
        })
        .await;
        found.unwrap()
    }

    /// Proposes on whoever leads, until it is applied.
    pub async fn write(&self, entry: &str) -> Answer {
        for _ in 0..200 {
            for node in self.nodes.values() {
                if let Ok(answer) = propose(&node.sequencer, entry).await {
                    return answer;
                }
            }
            sleep(Duration::from_millis(20)).await;
        }
        panic!("nobody takes {entry}");
    }

    /// Waits until all nodes have applied the same, and gives it.
    pub async fn agreement(&self) -> Vec<String> {
        let contents = || self.nodes.values().map(|node| node.machine.content()).collect::<Vec<_>>();
        eventually("agreement", || {
            let last = self.nodes.values().map(|node| node.sequencer.status().last_log).max().unwrap();
            let contents = contents();
            contents.windows(2).all(|pair| pair[0] == pair[1])
                && contents[0].applied.as_ref().map(|applied| applied.last.index) == last
        })
        .await;
        let entries = contents().remove(0).entries;
        entries.into_iter().map(|(_, entry)| String::from_utf8(entry.to_vec()).unwrap()).collect()
    }
}

pub async fn propose(node: &Sequencer, entry: &str) -> Result<Answer, ProposeFault> {
    let deadline = Instant::now() + Duration::from_millis(500);
    node.propose(Bytes::copy_from_slice(entry.as_bytes()), deadline).await
}

/// Waits for a condition in virtual time.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(60), waiting).await.unwrap_or_else(|_| panic!("waited in vain for {what}"));
}
