//! A cluster of real replicas and validators on simulated machines, which can be crashed and started again.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use ledger::check::LedgerIdentity;
use ledger::entry::ConfigurationChange;
use ledger::protocol::Protocol;
use ledger::signature::SigningKey;
use ledger::{ClusterId, Limits, Party};
use node::api::{Api, Facts};
use node::gateway::GatewayOptions;
use node::network::Channels;
use node::replica::{Outside, Replica, ReplicaOptions};
use seams::{Address, Inline, TaskGroup};
use sequencer::{MemberFault, NodeId, Role};
use storage::FlushSize;
use tokio::time::{Instant, sleep};
use validator::{Announcer, PoolOptions, ServiceOptions, ValidatorService};

use crate::check::Property;
use crate::dice::lock;
use crate::sim::bugs::PlantedBug;
use crate::sim::clock::NodeClock;
use crate::sim::disk::Disk;
use crate::sim::liars::{Lie, LyingValidator};
use crate::sim::network::Network;
use crate::sim::observations::Observations;
use crate::sim::pace::{Pace, PacedService};
use crate::sim::world::{Event, World};

/// Nodes that may take the place of others.
const SPARES: u64 = 3;

/// A change of the members.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Change {
    Add(NodeId, Address),
    Promote(NodeId),
    Remove(NodeId),
}

impl Change {
    /// True where it is made, now or before.
    async fn make(&self, replica: &Replica) -> bool {
        let sequencer = replica.sequencer();
        let made = match self {
            Self::Add(id, address) => sequencer.add_learner(*id, address.clone()).await,
            Self::Promote(id) => sequencer.promote(*id).await,
            Self::Remove(id) => sequencer.remove(*id).await,
        };
        let members = sequencer.status().members;
        match (self, made) {
            (_, Ok(())) => true,
            (Self::Add(id, _), Err(MemberFault::Refused(_))) => {
                members.learners.contains_key(id) || members.voters.contains_key(id)
            }
            (Self::Promote(id), Err(MemberFault::Refused(_))) => members.voters.contains_key(id),
            (Self::Remove(id), Err(MemberFault::Refused(_))) => {
                !members.voters.contains_key(id) && !members.learners.contains_key(id)
            }
            (_, Err(MemberFault::NotLeader { .. } | MemberFault::InProgress | MemberFault::Unknown(_))) => false,
        }
    }
}

const CLUSTER_NAME: &str = "simulated";
/// How long founding may take, without any fault.
const FOUNDING_PATIENCE: Duration = Duration::from_secs(30);
/// How long a node whose disk failed stays down.
const REPAIR: Duration = Duration::from_millis(500);

/// Which validator lies, where one does.
const LIAR: usize = 0;
/// And one that does not.
const HONEST: usize = 1;

/// A prover of the configuration.
#[derive(Debug, Clone, Copy)]
pub struct ProverKey {
    /// What it signs with.
    pub key: SigningKey,
    /// What it does.
    pub manner: ProverManner,
}

/// What a prover does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProverManner {
    /// It judges what nodes tell it.
    Honest,
    /// The same, and somebody is between it and all nodes, and tells it lies.
    Deceived,
    /// It signs what is not so.
    Lying,
}

/// What a cluster consists of.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// Voting nodes.
    pub nodes: u64,
    /// Validators besides the nodes.
    pub validators: u64,
    /// How wrong clocks may be.
    pub clock_skew: Duration,
    /// The log is compacted at so many bytes.
    pub log_bytes_max: u64,
    /// How much a replica gathers before it writes it out.
    pub flush_size: FlushSize,
    /// Between two heartbeats.
    pub heartbeat: Duration,
    /// Bundles of one gateway on their way at once: the fewer, the more transactions share one.
    pub bundles_in_flight_max: usize,
    /// Provers that the configuration has.
    pub provers: Vec<ProverKey>,
    /// What the first validator lies about; then two certificates are required.
    pub lie: Option<Lie>,
    /// A flaw of the simulated world, for the tests of the checks.
    pub bug: Option<PlantedBug>,
}

/// The cluster. Clones are the same cluster.
#[derive(Debug, Clone)]
pub struct Cluster(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    world: World,
    network: Network,
    identity: LedgerIdentity,
    options: ClusterOptions,
    observations: Observations,
    nodes: BTreeMap<NodeId, Machine>,
    validators: Vec<ValidatorMachine>,
    stopped: Mutex<BTreeMap<NodeId, String>>,
    /// Nodes in service, and those that never were.
    serving: Mutex<BTreeSet<NodeId>>,
    spare: Mutex<Vec<NodeId>>,
    /// Whether a node is being replaced: one at a time.
    replacing: AtomicBool,
}

/// A node's machine: what stays when the process is gone, and the process.
#[derive(Debug)]
struct Machine {
    address: Address,
    key: SigningKey,
    disk: Disk,
    clock: Arc<NodeClock>,
    process: Mutex<Process>,
}

#[derive(Debug, Default)]
struct Process {
    /// Counts starts.
    life: u64,
    group: Option<TaskGroup>,
    replica: Option<Replica>,
    api: Option<Api>,
}

#[derive(Debug)]
struct ValidatorMachine {
    address: Address,
    key: SigningKey,
    clock: Arc<NodeClock>,
    pace: Pace,
    group: Mutex<Option<TaskGroup>>,
}

impl Machine {
    fn process(&self) -> MutexGuard<'_, Process> {
        lock(&self.process)
    }
}

impl Cluster {
    /// Machines with empty disks; nothing runs yet.
    #[must_use]
    pub fn new(world: &World, network: &Network, observations: &Observations, options: ClusterOptions) -> Self {
        let clock = || Arc::new(NodeClock::new(world, options.clock_skew));
        let machine = |id: NodeId| Machine {
            address: Address::new(format!("node-{id}:7000")),
            key: SigningKey::from_seed(world.key_seed()),
            disk: Disk::new(world, &format!("node-{id}"), options.bug.filter(|bug| bug.strikes(id))),
            clock: clock(),
            process: Mutex::default(),
        };
        let validator = |number: u64| ValidatorMachine {
            address: Address::new(format!("validator-{number}:7000")),
            key: SigningKey::from_seed(world.key_seed()),
            clock: clock(),
            pace: Pace::new(world),
            group: Mutex::default(),
        };
        Self(Arc::new(Shared {
            world: world.clone(),
            network: network.clone(),
            identity: LedgerIdentity { cluster: ClusterId::of_name(CLUSTER_NAME), group: 0 },
            nodes: (1..=options.nodes + SPARES).map(|id| (id, machine(id))).collect(),
            serving: Mutex::new((1..=options.nodes).collect()),
            spare: Mutex::new((options.nodes + 1..=options.nodes + SPARES).rev().collect()),
            replacing: AtomicBool::new(false),
            validators: (1..=options.validators).map(validator).collect(),
            observations: observations.clone(),
            stopped: Mutex::default(),
            options,
        }))
    }

    /// Which ledger it keeps.
    #[must_use]
    pub fn identity(&self) -> LedgerIdentity {
        self.0.identity
    }

    /// The numbers of the nodes in service.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeId> {
        lock(&self.0.serving).iter().copied().collect()
    }

    /// The numbers of all nodes, in service or not.
    #[must_use]
    pub fn machines(&self) -> Vec<NodeId> {
        self.0.nodes.keys().copied().collect()
    }

    /// The keys that sign heads.
    #[must_use]
    pub fn keys(&self) -> Vec<Party> {
        self.0.nodes.values().map(|machine| machine.key.party()).collect()
    }

    fn machine(&self, id: NodeId) -> &Machine {
        self.0.nodes.get(&id).expect("the cluster has this node")
    }

    /// Where a node listens.
    #[must_use]
    pub fn address(&self, id: NodeId) -> &Address {
        &self.machine(id).address
    }

    /// Every address, validators' included.
    #[must_use]
    pub fn addresses(&self) -> Vec<Address> {
        let validators = self.0.validators.iter().map(|validator| validator.address.clone());
        self.0.nodes.values().map(|machine| machine.address.clone()).chain(validators).collect()
    }

    /// A node's disk.
    #[must_use]
    pub fn disk(&self, id: NodeId) -> &Disk {
        &self.machine(id).disk
    }

    /// A node's wall clock.
    #[must_use]
    pub fn clock(&self, id: NodeId) -> &Arc<NodeClock> {
        &self.machine(id).clock
    }

    /// The replica that runs on a node, with the group of its tasks.
    #[must_use]
    pub fn replica(&self, id: NodeId) -> Option<(TaskGroup, Replica)> {
        let process = self.machine(id).process();
        process.group.clone().zip(process.replica.clone())
    }

    /// What a node that runs serves to clients, with the group of its tasks.
    #[must_use]
    pub fn api(&self, id: NodeId) -> Option<(TaskGroup, Api)> {
        let process = self.machine(id).process();
        process.group.clone().zip(process.api.clone())
    }

    /// The provers of the configuration.
    #[must_use]
    pub fn provers(&self) -> &[ProverKey] {
        &self.0.options.provers
    }

    /// The replicas that run.
    #[must_use]
    pub fn replicas(&self) -> Vec<(NodeId, Replica)> {
        let running = |id: NodeId| self.replica(id).map(|(_, replica)| (id, replica));
        self.nodes().into_iter().filter_map(running).collect()
    }

    /// Who believes to lead.
    #[must_use]
    pub fn leaders(&self) -> Vec<NodeId> {
        let leads = |replica: &Replica| replica.sequencer().status().role == Role::Leader;
        self.replicas().into_iter().filter(|(_, replica)| leads(replica)).map(|(id, _)| id).collect()
    }

    /// Nodes that stopped by themselves and stay down, with their reasons.
    #[must_use]
    pub fn stopped(&self) -> BTreeMap<NodeId, String> {
        lock(&self.0.stopped).clone()
    }

    /// Starts everything for the first time, and waits until all nodes and validators are registered.
    pub async fn found(&self) {
        for id in self.nodes() {
            self.start(id).await;
        }
        (0..self.0.validators.len()).for_each(|number| self.start_validator(number));
        let members = self.nodes().into_iter().map(|id| (id, self.address(id).clone())).collect();
        let Some((group, replica)) = self.replica(1) else { return };
        let founder = replica.clone();
        let founded = group.spawn(async move { founder.initialize(members).await }).await;
        if !matches!(founded, Ok(Ok(()))) {
            self.0.world.violation(Property::Recovery, format!("the cluster cannot be founded: {founded:?}"));
            return;
        }
        let deadline = Instant::now() + FOUNDING_PATIENCE;
        let changes = self.first_changes();
        if !changes.is_empty() {
            let configure = async move {
                for change in changes {
                    replica.configure(change, deadline).await?;
                }
                Ok::<(), node::gateway::ConfigureFault>(())
            };
            let added = group.spawn(configure).await;
            if !matches!(added, Ok(Ok(()))) {
                self.0
                    .world
                    .violation(Property::Recovery, format!("validators and provers cannot be added: {added:?}"));
            }
        }
        let founders = self.nodes().len();
        let complete = |replica: &Replica| replica.state().configuration().nodes.len() == founders;
        while !self.replicas().iter().all(|(_, replica)| complete(replica)) {
            if Instant::now() > deadline {
                return self.0.world.violation(Property::Recovery, "the nodes do not register");
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    fn first_changes(&self) -> Vec<ConfigurationChange> {
        let mut changes = Vec::new();
        let validators: Vec<Party> = self.0.validators.iter().map(|validator| validator.key.party()).collect();
        if !validators.is_empty() {
            changes.push(ConfigurationChange::AddValidators(validators));
        }
        if self.0.options.lie.is_some() {
            changes.push(ConfigurationChange::RequireCertificates(2));
        }
        let provers: Vec<Party> = self.provers().iter().map(|prover| prover.key.party()).collect();
        if !provers.is_empty() {
            changes.push(ConfigurationChange::AddProvers(provers));
        }
        changes
    }

    fn replica_options(&self, id: NodeId) -> ReplicaOptions {
        let options = &self.0.options;
        let sequencer = sequencer::Options {
            heartbeat: options.heartbeat,
            election_timeout_min: options.heartbeat * 7,
            election_timeout_max: options.heartbeat * 9,
            append_timeout: Duration::from_secs(1),
            snapshot_piece_timeout: Duration::from_secs(1),
            snapshot_install_timeout: Duration::from_secs(3),
            snapshot_piece_bytes: 16 * 1024,
            append_bytes_max: 16 * 1024,
            apply_entries_max: 16,
            cache_bytes_max: 8 * 1024,
            log_bytes_max: options.log_bytes_max,
            log_bytes_keep: options.log_bytes_max / 4,
            ..sequencer::Options::new(id)
        };
        let gateway = GatewayOptions {
            bundle_transactions_max: 8,
            bundles_in_flight: options.bundles_in_flight_max.min(2),
            bundles_in_flight_max: options.bundles_in_flight_max,
            forward_timeout: Duration::from_millis(500),
            ..GatewayOptions::default()
        };
        let pool = PoolOptions {
            call_timeout: Duration::from_millis(500),
            certify_timeout: Duration::from_secs(2),
            probation_max: Duration::from_secs(2),
            ..PoolOptions::default()
        };
        let key = self.machine(id).key;
        let (identity, validation) = (self.0.identity, ServiceOptions::default());
        let (flush_size, protocol_newest) = (options.flush_size, Protocol::NEWEST);
        ReplicaOptions { identity, key, sequencer, gateway, pool, validation, flush_size, protocol_newest }
    }

    /// Starts a node on its disk, where it does not run; ends when it listens, or when it was crashed meanwhile.
    pub async fn start(&self, id: NodeId) {
        let machine = self.machine(id);
        let group = TaskGroup::new();
        let life = {
            let mut process = machine.process();
            if process.group.is_some() || !lock(&self.0.serving).contains(&id) {
                return;
            }
            process.life += 1;
            process.group = Some(group.clone());
            process.life
        };
        self.0.world.looked_at(Property::Soundness, 1);
        self.0.world.record(&Event::Started(&machine.address));
        if self.0.options.bug == Some(PlantedBug::WipedNodeRejoins) && id == 2 && life > 1 {
            machine.disk.wipe();
        }
        let (log, kv) = machine.disk.open();
        let outside = Outside {
            transport: self.0.network.endpoint(machine.address.clone()),
            compute: Arc::new(Inline),
            clock: machine.clock.clone(),
            entropy: Arc::new(self.0.world.branch()),
            log,
            kv,
        };
        let (options, facts) = (self.replica_options(id), self.facts(id));
        let starting = async move {
            let api = Api::new(facts, Channels::default(), &options.gateway);
            let replica = Replica::start(options, outside).await?;
            api.started(replica.clone());
            Ok::<_, node::replica::ReplicaFault>((replica, api))
        };
        match group.spawn(starting).await {
            Ok(Ok((replica, api))) => self.listen(id, life, &group, replica, api),
            Ok(Err(fault)) => self.ended(id, life, &format!("it does not start: {fault}")),
            Err(ended) if ended.is_panic() => self.ended(id, life, "it panicked"),
            Err(_crashed) => {}
        }
    }

    fn facts(&self, id: NodeId) -> Facts {
        Facts {
            node: id,
            cluster_name: CLUSTER_NAME.to_owned(),
            identity: self.0.identity,
            address: self.machine(id).address.clone(),
            http_address: None,
            fresh: false,
        }
    }

    fn listen(&self, id: NodeId, life: u64, group: &TaskGroup, replica: Replica, api: Api) {
        let machine = self.machine(id);
        {
            let mut process = machine.process();
            if process.life != life || process.group.is_none() {
                return;
            }
            process.replica = Some(replica.clone());
            process.api = Some(api);
        }
        self.0.network.join(machine.address.clone(), group.clone(), Arc::new(replica.clone()));
        drop(group.spawn(self.0.observations.clone().follow(id, replica.clone())));
        let failed = group.spawn(async move { replica.failed().await });
        let cluster = self.clone();
        drop(tokio::spawn(async move {
            if let Ok(reason) = failed.await {
                cluster.ended(id, life, &reason);
            }
        }));
    }

    /// A node ended by itself. After a failure of its disk it comes back; otherwise something is wrong with it.
    fn ended(&self, id: NodeId, life: u64, reason: &str) {
        let machine = self.machine(id);
        if machine.process().life != life {
            return;
        }
        let disk_failed = machine.disk.temper().has_failed();
        let is_damaged = machine.disk.is_damaged();
        self.crash(id);
        if is_damaged {
            // it refuses, as it must: somebody else takes its place
            self.0.world.record(&Event::Note(&format!("node {id} is set aside: {reason}")));
            self.replace(id);
        } else if disk_failed {
            let cluster = self.clone();
            drop(tokio::spawn(async move {
                sleep(REPAIR).await;
                cluster.start(id).await;
            }));
        } else {
            self.0.world.violation(Property::Soundness, format!("node {id} stopped: {reason}"));
            lock(&self.0.stopped).insert(id, reason.to_owned());
        }
    }

    /// Ends a node at once, as a power cut does. False where it does not run.
    pub fn crash(&self, id: NodeId) -> bool {
        let machine = self.machine(id);
        let group = {
            let mut process = machine.process();
            process.replica = None;
            process.api = None;
            process.group.take()
        };
        let Some(group) = group else { return false };
        self.0.world.record(&Event::Crashed(&machine.address));
        group.abort_all();
        self.0.network.leave(&machine.address);
        machine.disk.cut_power();
        true
    }

    /// Nothing of a node goes on until it is told to, as under SIGSTOP. False where it does not run, or stands still.
    pub fn stand_still(&self, id: NodeId) -> bool {
        let group = self.machine(id).process().group.clone();
        group.is_some_and(|group| group.stand_still())
    }

    /// A node that stood still goes on.
    pub fn go_on(&self, id: NodeId) {
        let group = self.machine(id).process().group.clone();
        group.into_iter().for_each(|group| group.go_on());
    }

    /// Puts a new node in the place of one, which is taken out of service for ever. False, and nothing is done, while
    /// another is being replaced.
    pub fn replace(&self, old: NodeId) -> bool {
        if self.0.replacing.swap(true, Ordering::Relaxed) {
            return false;
        }
        let cluster = self.clone();
        drop(tokio::spawn(async move {
            let spare = lock(&cluster.0.spare).pop();
            if let Some(new) = spare {
                lock(&cluster.0.serving).insert(new);
                cluster.start(new).await;
                let address = cluster.address(new).clone();
                cluster.change_members(Change::Add(new, address)).await;
                cluster.change_members(Change::Promote(new)).await;
                cluster.change_members(Change::Remove(old)).await;
                lock(&cluster.0.serving).remove(&old);
                cluster.crash(old);
            }
            cluster.0.replacing.store(false, Ordering::Relaxed);
        }));
        true
    }

    /// Nodes that could still take the place of others.
    #[must_use]
    pub fn spares(&self) -> usize {
        lock(&self.0.spare).len()
    }

    /// Whether a node is being replaced.
    #[must_use]
    pub fn is_replacing(&self) -> bool {
        self.0.replacing.load(Ordering::Relaxed)
    }

    /// Has whoever leads make a change, again and again until it is made.
    async fn change_members(&self, change: Change) {
        loop {
            for leader in self.leaders() {
                let Some((group, replica)) = self.replica(leader) else { continue };
                if change == Change::Remove(leader) {
                    let heir = self.nodes().into_iter().find(|id| *id != leader && self.replica(*id).is_some());
                    if let Some(heir) = heir {
                        let hand_over =
                            async move { replica.sequencer().transfer_leader(heir, Duration::from_secs(1)).await };
                        drop(group.spawn(hand_over).await);
                    }
                    continue;
                }
                let asked = change.clone();
                let made = group.spawn(async move { asked.make(&replica).await }).await;
                if matches!(made, Ok(true)) {
                    self.0.world.record(&Event::Note(&format!("{change:?} is done")));
                    return;
                }
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// How many validators there are besides the nodes.
    #[must_use]
    pub fn validators(&self) -> usize {
        self.0.validators.len()
    }

    /// The key that a validator signs with.
    #[must_use]
    pub fn validator_key(&self, number: usize) -> Option<Party> {
        self.0.validators.get(number).map(|machine| machine.key.party())
    }

    /// Validators that may be dismissed. Beside a liar, who is found out, two certificates are required: a node's own and
    /// that of an honest one, who stays.
    #[must_use]
    pub fn dismissible(&self) -> Vec<usize> {
        let stays = self.0.options.lie.map(|_| HONEST);
        (0..self.validators()).filter(|number| Some(*number) != stays).collect()
    }

    /// A validator takes so long for each answer from now on; false where it did before.
    pub fn set_pace(&self, number: usize, pace: RangeInclusive<Duration>) -> bool {
        self.0.validators.get(number).is_some_and(|machine| machine.pace.set(pace))
    }

    /// Starts a validator, where it does not run.
    pub fn start_validator(&self, number: usize) {
        let Some(machine) = self.0.validators.get(number) else { return };
        let mut running = lock(&machine.group);
        if running.is_some() {
            return;
        }
        let group = TaskGroup::new();
        self.0.world.record(&Event::Started(&machine.address));
        let (identity, key) = (self.0.identity, machine.key);
        let service = ValidatorService::new(ServiceOptions::default(), identity, Limits::V1, key, Arc::new(Inline));
        let announcer = Announcer {
            identity,
            key,
            address: machine.address.clone(),
            nodes: self.0.nodes.values().map(|node| node.address.clone()).collect(),
            transport: self.0.network.endpoint(machine.address.clone()),
            clock: machine.clock.clone(),
        };
        let liar = self.0.options.lie.filter(|_| number == LIAR).or(self.0.options.bug.and_then(Lie::of));
        let service: Arc<dyn seams::Service> = match liar {
            Some(lie) => Arc::new(LyingValidator { service, key, lie }),
            None => Arc::new(service),
        };
        let service = Arc::new(PacedService { service, pace: machine.pace.clone() });
        self.0.network.join(machine.address.clone(), group.clone(), service);
        drop(group.spawn(announcer.run()));
        *running = Some(group);
    }

    /// Ends a validator at once; false where it did not run.
    pub fn crash_validator(&self, number: usize) -> bool {
        let Some(machine) = self.0.validators.get(number) else { return false };
        let Some(group) = lock(&machine.group).take() else { return false };
        self.0.world.record(&Event::Crashed(&machine.address));
        group.abort_all();
        self.0.network.leave(&machine.address);
        true
    }

    /// Starts whatever does not run, except nodes that stopped by themselves.
    pub async fn start_all(&self) {
        let stopped = self.stopped();
        for id in self.nodes().into_iter().filter(|id| !stopped.contains_key(id)) {
            self.start(id).await;
        }
        (0..self.validators()).for_each(|number| self.start_validator(number));
    }

    /// Ends everything.
    pub fn end(&self) {
        for id in self.nodes() {
            self.crash(id);
        }
        for number in 0..self.validators() {
            self.crash_validator(number);
        }
    }
}
