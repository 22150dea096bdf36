//! Provers: the role as production runs it, on simulated machines, reaching the nodes over the simulated network.
//!
//! Judging takes no virtual time: the cluster stands still while a prover's thread works. What it keeps is in a directory
//! of its own, for as long as the simulation lasts.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use attester::{Attester, Options, Outside};
use borsh::from_slice;
use bytes::Bytes;
use client::LedgerApi;
use ledger::batch::BatchRecord;
use ledger::{Outcome, Party, Rejection};
use prover::ProverSettings;
use prover::solver::SolverSettings;
use prover::step::StepBounds;
use seams::{Address, TaskGroup};
use sequencer::NodeId;
use storage::state::{Alarm, ProofStatus};
use tokio::time::{Instant, sleep};

use crate::check::{Property, attestations};
use crate::dice::lock;
use crate::sim::access::Access;
use crate::sim::clock::NodeClock;
use crate::sim::cluster::{Cluster, ProverKey, ProverManner};
use crate::sim::liars::LyingProver;
use crate::sim::network::Network;
use crate::sim::world::{Event, World};

/// Between two attestations.
const INTERVAL: Duration = Duration::from_millis(250);
/// How long a prover that lies asks for one thing.
const LYING_DEADLINE: Duration = Duration::from_secs(2);
/// How long the provers' words may take to be with every replica, when everything works.
const TOLD_MAX: Duration = Duration::from_secs(30);

/// The provers of a cluster. Clones are the same.
#[derive(Debug, Clone)]
pub struct Provers(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    world: World,
    network: Network,
    cluster: Cluster,
    machines: Vec<Machine>,
    /// Keeps the directories until all of them are done.
    _directories: tempfile::TempDir,
}

#[derive(Debug)]
struct Machine {
    address: Address,
    prover: ProverKey,
    clock: Arc<NodeClock>,
    directory: PathBuf,
    running: Mutex<Option<Process>>,
}

#[derive(Debug)]
struct Process {
    group: TaskGroup,
    /// The role; none where the prover lies.
    attester: Option<Attester>,
}

impl Provers {
    /// Machines for the provers that the cluster's configuration has; nothing runs yet.
    ///
    /// # Panics
    /// Where no directory can be made.
    #[must_use]
    pub fn new(world: &World, network: &Network, cluster: &Cluster) -> Self {
        let directories = tempfile::tempdir().expect("a simulation with provers needs a directory");
        let machine = |(number, prover): (usize, &ProverKey)| Machine {
            address: Address::new(format!("prover-{}:7600", number + 1)),
            prover: *prover,
            clock: Arc::new(NodeClock::new(world, Duration::from_secs(1))),
            directory: directories.path().join(number.to_string()),
            running: Mutex::default(),
        };
        let machines = cluster.provers().iter().enumerate().map(machine).collect();
        let (world, network, cluster) = (world.clone(), network.clone(), cluster.clone());
        Self(Arc::new(Shared { world, network, cluster, machines, _directories: directories }))
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.machines.len()
    }

    /// Where they are.
    #[must_use]
    pub fn addresses(&self) -> Vec<Address> {
        self.0.machines.iter().map(|machine| machine.address.clone()).collect()
    }

    /// Starts a prover, where it does not run.
    pub async fn start(&self, number: usize) {
        let Shared { world, network, cluster, machines, .. } = &*self.0;
        let Some(machine) = machines.get(number).filter(|machine| lock(&machine.running).is_none()) else { return };
        world.record(&Event::Started(&machine.address));
        if machine.prover.manner == ProverManner::Lying {
            let group = TaskGroup::new();
            drop(group.spawn(self.liar(machine).run()));
            *lock(&machine.running) = Some(Process { group, attester: None });
            return;
        }
        let node = |id: NodeId| -> (String, Arc<dyn LedgerApi>) {
            let access = Access::new(network, cluster, &machine.address, id);
            let access =
                if machine.prover.manner == ProverManner::Deceived { access.tampered(deceive) } else { access };
            (cluster.address(id).as_str().to_owned(), Arc::new(access))
        };
        let outside = Outside {
            // also those that may take the place of others
            nodes: cluster.machines().into_iter().map(node).collect(),
            clock: machine.clock.clone(),
            entropy: Arc::new(world.branch()),
            judged_at_once: true,
        };
        let mut options = Options::new(cluster.identity().cluster, machine.prover.key, machine.directory.clone());
        options.interval = INTERVAL;
        let steps = StepBounds { inputs_max: 0, references_max: 0, outputs_max: 0 };
        // what the solver may do is bounded by its own units: the machine's time is none of the simulation's
        let solver = SolverSettings { timeout: Duration::from_secs(3_600), ..SolverSettings::default() };
        options.proving = ProverSettings { steps, solver, ..ProverSettings::default() };
        let group = TaskGroup::new();
        let started = group.spawn(async move { Attester::start(options, outside) }).await;
        match started {
            Ok(Ok(attester)) => *lock(&machine.running) = Some(Process { group, attester: Some(attester) }),
            other => world.violation(Property::Recovery, format!("a prover does not start: {other:?}")),
        }
    }

    /// Ends a prover at once; false where it did not run.
    pub fn crash(&self, number: usize) -> bool {
        let Some(machine) = self.0.machines.get(number) else { return false };
        let Some(Process { group, .. }) = lock(&machine.running).take() else { return false };
        self.0.world.record(&Event::Crashed(&machine.address));
        group.abort_all();
        true
    }

    /// Starts those that do not run.
    pub async fn start_all(&self) {
        for number in 0..self.count() {
            self.start(number).await;
        }
    }

    /// Ends all of them.
    pub fn end(&self) {
        for number in 0..self.count() {
            self.crash(number);
        }
    }

    fn liar(&self, machine: &Machine) -> LyingProver {
        let Shared { world, network, cluster, machines, .. } = &*self.0;
        let honest = machines.iter().find(|other| other.prover.manner == ProverManner::Honest).map(Machine::party);
        let node = |id: NodeId| -> Arc<dyn LedgerApi> { Arc::new(Access::new(network, cluster, &machine.address, id)) };
        let client = client::Client::builder().deadline(LYING_DEADLINE).clock(machine.clock.clone());
        let client = cluster.machines().into_iter().fold(client, |client, id| client.node(node(id)));
        let client = client.entropy(Arc::new(world.branch())).connect().expect("a cluster has nodes");
        LyingProver { client, dice: world.branch(), honest, key: machine.prover.key }
    }

    /// In the end everything is attested by each prover that sees what nodes tell, and by just what that leads to; and every
    /// replica knows the same of all of them. Who believes a prover alone that lies is told so by an audit.
    pub async fn check(&self) {
        let Shared { world, network, cluster, machines, .. } = &*self.0;
        let Some(&node) = cluster.nodes().first() else { return };
        let auditor = |machine: &Machine| {
            let access = Arc::new(Access::new(network, cluster, &Address::new("auditor:1".to_owned()), node));
            let client = client::Client::builder().node(access).clock(machine.clock.clone());
            client.entropy(Arc::new(world.branch())).connect().expect("a node is given")
        };
        for machine in machines.iter().filter(|machine| machine.prover.manner == ProverManner::Honest) {
            let client = auditor(machine);
            world.found(attestations::check(&client, &format!("node {node}"), machine.party()).await);
            if let Some(alarm) = self.alarm_of(machine) {
                let what = format!("{} raises an alarm over batch {}: {}", machine.address, alarm.batch, alarm.words);
                world.violation(Property::Attestations, what);
            }
            let figures =
                lock(&machine.running).as_ref().and_then(|process| Some(process.attester.as_ref()?.figures()));
            let Some(figures) = figures else { continue };
            if let Some(stuck) = figures.stuck {
                world.violation(Property::Attestations, format!("{} does not go on: {stuck}", machine.address));
            }
            if !figures.faulty_nodes.is_empty() {
                let what = format!("{} blames nodes that told the truth: {:?}", machine.address, figures.faulty_nodes);
                world.violation(Property::Attestations, what);
            }
        }
        for machine in machines.iter().filter(|machine| machine.prover.manner != ProverManner::Honest) {
            self.await_alarm(machine).await;
        }
        for machine in machines.iter().filter(|machine| machine.prover.manner == ProverManner::Lying) {
            world.found(attestations::check_liar(&auditor(machine), &format!("node {node}"), machine.party()).await);
        }
        self.compare().await;
    }

    /// The alarm of a prover, as some replica knows it.
    fn alarm_of(&self, machine: &Machine) -> Option<Alarm> {
        let replicas = self.0.cluster.replicas();
        let mut told = replicas.iter().map(|(_, replica)| replica.state().proof_status());
        told.find_map(|status| status.provers.get(&machine.party())?.as_ref()?.alarm.clone())
    }

    /// Whoever is told lies does not call them proved, whoever tells them contradicts another, and every replica hears of
    /// it.
    async fn await_alarm(&self, machine: &Machine) {
        let deadline = Instant::now() + TOLD_MAX;
        let alarmed = |status: &ProofStatus| {
            let standing = status.provers.get(&machine.party()).and_then(Option::as_ref);
            standing.is_some_and(|standing| standing.alarm.is_some())
        };
        self.0.world.looked_at(Property::Attestations, 1);
        while !self.0.cluster.replicas().iter().all(|(_, replica)| alarmed(&replica.state().proof_status())) {
            if Instant::now() > deadline {
                let what = format!("{}: {:?}, and there is no alarm", machine.address, machine.prover.manner);
                return self.0.world.violation(Property::Attestations, what);
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Every replica has the same attestations, in the same order, and the same alarms.
    async fn compare(&self) {
        let deadline = Instant::now() + TOLD_MAX;
        loop {
            let told: Vec<ProofStatus> =
                self.0.cluster.replicas().iter().map(|(_, replica)| replica.state().proof_status()).collect();
            if told.windows(2).all(|pair| matches!(pair, [left, right] if left == right)) {
                return self.0.world.looked_at(Property::EqualReplicas, told.len());
            }
            if Instant::now() > deadline {
                let what = format!("replicas know different things of the provers: {told:?}");
                return self.0.world.violation(Property::EqualReplicas, what);
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Machine {
    fn party(&self) -> Party {
        self.prover.key.party()
    }
}

/// What a prover is told by somebody between it and every node: the first transaction of each batch had another outcome.
fn deceive(record: Bytes) -> Bytes {
    let Ok(mut told) = from_slice::<BatchRecord>(&record) else { return record };
    let log_time = told.head.log_time;
    if let Some(line) = told.records.first_mut() {
        line.outcome = Outcome::Rejected(Rejection::Expired { log_time });
    }
    told.encode().into()
}
