//! One seed from beginning to end.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ledger::signature::SigningKey;
use seams::Address;
use sequencer::NodeId;
use serde_json::json;
use storage::FlushSize;
use tokio::runtime::{Builder, RngSeed};
use tokio::time::{Instant, sleep};

use crate::check::{Findings, Property, Violation, order, registers};
use crate::dice::lock;
use crate::history::{Journal, Operation};
use crate::sim::bugs::PlantedBug;
use crate::sim::client::Client;
use crate::sim::clock::NodeClock;
use crate::sim::cluster::{Cluster, ClusterOptions, ProverKey, ProverManner};
use crate::sim::liars::Lie;
use crate::sim::nemesis::{Fault, Nemesis, Schedule, ScheduledFault};
use crate::sim::network::Network;
use crate::sim::observations::Observations;
use crate::sim::provers::Provers;
use crate::sim::recorder::History;
use crate::sim::replicas;
use crate::sim::world::World;
use crate::workload::Market;

/// How many steps a simulation has unless its caller says otherwise.
pub const STEPS: u32 = 32;
/// How long a step is.
const STEP: Duration = Duration::from_millis(500);
/// How long after the last fault everything may take to be well again.
const RECOVERY_PATIENCE: Duration = Duration::from_secs(30);

/// What to simulate.
#[derive(Debug, Clone)]
pub struct SimulationOptions {
    /// Everything follows from it.
    pub seed: u64,
    /// Half a second of virtual time each: so long clients call and faults happen.
    pub steps: u32,
    /// Whether there are faults.
    pub faults: bool,
    /// The kinds to draw from; where none is named, those that the seed has.
    pub kinds: Vec<Fault>,
    /// Faults that do not happen, by their numbers: all others happen as if these had.
    pub left_out: BTreeSet<usize>,
    /// A flaw of the simulated world, for the tests of the checks.
    pub bug: Option<PlantedBug>,
    /// Whether every event is printed to standard error.
    pub trace_printed: bool,
}

impl SimulationOptions {
    /// [`STEPS`] steps with faults.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            steps: STEPS,
            faults: true,
            kinds: Vec::new(),
            left_out: BTreeSet::new(),
            bug: None,
            trace_printed: false,
        }
    }

    /// The command that runs the same execution again; a flaw of the world is not part of it.
    #[must_use]
    pub fn command(&self) -> String {
        let mut command = format!("seriatim chaos sim --seed {} --steps {}", self.seed, self.steps);
        if !self.faults {
            command.push_str(" --calm");
        }
        if !self.kinds.is_empty() {
            let names: Vec<String> = self.kinds.iter().map(|kind| format!("{kind:?}")).collect();
            command.push_str(&format!(" --faults {}", names.join(",")));
        }
        if !self.left_out.is_empty() {
            let numbers: Vec<String> = self.left_out.iter().map(ToString::to_string).collect();
            command.push_str(&format!(" --leave-out {}", numbers.join(",")));
        }
        command
    }
}

/// What came of a seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// How long it was, in steps.
    pub steps: u32,
    /// The command that runs the same execution again.
    pub command: String,
    /// Hash over every event: the same for every run of the seed.
    pub trace_hash: String,
    /// Events in the trace.
    pub events: u64,
    /// Virtual time that passed.
    pub simulated: Duration,
    /// Faults of the schedule that did something.
    pub faults: u64,
    /// Calls of clients.
    pub operations: usize,
    /// Transactions whose outcome was acknowledged.
    pub acknowledged: usize,
    /// Batches in the end.
    pub batches: u64,
    /// Replicas whose log had lost its beginning to a snapshot in the end.
    pub compacted: usize,
    /// Nodes that stopped by themselves, with their reasons.
    pub stopped: BTreeMap<NodeId, String>,
    /// The faults in order.
    pub schedule: Vec<ScheduledFault>,
    /// What was checked and what is wrong: nothing in a sound system.
    pub findings: Findings,
}

impl Report {
    /// Of a run that did not come to its end.
    fn cut_short(options: &SimulationOptions) -> Self {
        let mut findings = Findings::default();
        findings.violation(Property::Soundness, "the simulation did not come to its end");
        Self {
            seed: options.seed,
            steps: options.steps,
            command: options.command(),
            trace_hash: String::new(),
            events: 0,
            simulated: Duration::ZERO,
            faults: 0,
            operations: 0,
            acknowledged: 0,
            batches: 0,
            compacted: 0,
            stopped: BTreeMap::new(),
            schedule: Vec::new(),
            findings,
        }
    }

    /// What is wrong.
    #[must_use]
    pub fn violations(&self) -> &[Violation] {
        self.findings.violations()
    }

    /// One line of JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        let violations: Vec<String> = self.violations().iter().map(ToString::to_string).collect();
        let checked: BTreeMap<&str, u64> =
            self.findings.verdicts().map(|(property, checked, _)| (property.label(), checked)).collect();
        json!({
            "seed": self.seed,
            "steps": self.steps,
            "trace_hash": self.trace_hash,
            "events": self.events,
            "simulated_seconds": self.simulated.as_secs_f64(),
            "faults": self.faults,
            "operations": self.operations,
            "acknowledged": self.acknowledged,
            "batches": self.batches,
            "checked": checked,
            "verdict": if violations.is_empty() { "sound" } else { "violated" },
            "violations": violations,
            "replay": format!("{} --trace", self.command),
        })
        .to_string()
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.violations().is_empty()
    }
}

/// Runs one seed.
///
/// # Panics
/// Where the runtime cannot be made.
#[must_use]
pub fn simulate(options: &SimulationOptions) -> Report {
    simulate_with_history(options).0
}

/// Runs one seed; also what its clients wrote down.
///
/// # Panics
/// Where the runtime cannot be made.
#[must_use]
pub fn simulate_with_history(options: &SimulationOptions) -> (Report, Vec<Operation>) {
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .rng_seed(RngSeed::from_bytes(&options.seed.to_le_bytes()))
        .build()
        .expect("a runtime without input and output needs nothing of the operating system");
    crate::sim::panics::collect();
    let journal = Arc::default();
    let ended = catch_unwind(AssertUnwindSafe(|| runtime.block_on(run(options.clone(), &journal))));
    // not in a task of the cluster: a check met a replica that had panicked before, or the simulation itself is wrong
    let mut report = ended.unwrap_or_else(|_told_below| Report::cut_short(options));
    drop(runtime);
    for panic in crate::sim::panics::take() {
        report.findings.violation(Property::Soundness, format!("panic: {panic}"));
    }
    let journal = std::mem::take(&mut *lock(&journal));
    (report, journal.into_operations())
}

async fn run(options: SimulationOptions, journal: &Arc<Mutex<Journal>>) -> Report {
    let world = World::new(options.seed, options.trace_printed);
    let network = Network::new(&world);
    let observations = Observations::new(&world);
    let cluster = Cluster::new(&world, &network, &observations, draw_cluster(&world, options.bug));
    cluster.found().await;
    let provers = Provers::new(&world, &network, &cluster);
    provers.start_all().await;
    let history = History::new(&world, journal);
    let market = Market::new(&world, Arc::new(NodeClock::right(&world)), cluster.identity());
    let client = |number: u64| Client::new(number, &world, &network, &cluster, &history, &market, options.bug);
    let clients: Vec<Client> = (1..=world.between(CLIENTS)).map(client).collect();
    let mut addresses: Vec<Address> = clients.iter().map(|client| client.address().clone()).collect();
    addresses.extend(provers.addresses());
    for client in clients.iter().take(1) {
        client.prepare(Instant::now() + RECOVERY_PATIENCE).await;
    }
    let until = world.now() + STEP * options.steps;
    let schedule: Schedule = Arc::default();
    let mut tasks: Vec<_> = clients.iter().map(|client| tokio::spawn(client.clone().run(until))).collect();
    if options.faults {
        let nemesis = Nemesis::new(&world, &network, &cluster, &provers, &addresses, &options, &schedule);
        tasks.push(tokio::spawn(nemesis.run(until)));
    }
    for task in tasks {
        if task.await.is_err() {
            world.violation(Property::Soundness, "a part of the simulation itself panicked");
        }
    }
    recover(&world, &cluster, &clients, &history).await;
    provers.check().await;
    provers.end();
    let operations = history.all();
    replicas::check(&world, &cluster, &observations, &operations).await;
    world.found(registers::check(&operations, &market.registers()));
    let (compacted, stopped) = (compacted(&cluster), cluster.stopped());
    cluster.end();
    sleep(Duration::from_millis(1)).await;
    let schedule = std::mem::take(&mut *lock(&schedule));
    report(&options, &world, &history, &observations, compacted, stopped, schedule)
}

/// So many call; the fewer, the more goes on between two calls.
const CLIENTS: RangeInclusive<u64> = 2..=4;
/// Clusters that have a prover, in a thousand: a solver takes longer than everything else.
const PROVED_PER_MILLE: u32 = 300;

fn draw_cluster(world: &World, bug: Option<PlantedBug>) -> ClusterOptions {
    let validators = world.between(0..=3);
    let lie = [Lie::ApproveAll, Lie::Shift].get(usize::from(world.chance(500))).copied();
    let lie = lie.filter(|_| world.chance(300) && validators > 1);
    let mut provers = Vec::new();
    if world.chance(PROVED_PER_MILLE) {
        let others = [ProverManner::Deceived, ProverManner::Lying].into_iter().filter(|_| world.chance(300));
        for manner in [ProverManner::Honest].into_iter().chain(others) {
            provers.push(ProverKey { key: SigningKey::from_seed(world.key_seed()), manner });
        }
    }
    ClusterOptions {
        nodes: if world.chance(700) { 3 } else { 5 },
        validators,
        clock_skew: Duration::from_millis(world.between(0..=2_000)),
        log_bytes_max: world.between(8..=128) * 1024,
        flush_size: FlushSize {
            rows: usize::try_from(world.between(100..=5_000)).unwrap_or(usize::MAX),
            bytes: usize::MAX,
        },
        heartbeat: Duration::from_millis(world.between(30..=80)),
        bundles_in_flight_max: if world.chance(500) { 1 } else { 4 },
        provers,
        lie,
        bug,
    }
}

/// After the last fault: every unknown outcome becomes known, every node takes work, all replicas come to agree.
async fn recover(world: &World, cluster: &Cluster, clients: &[Client], history: &History) {
    let deadline = Instant::now() + RECOVERY_PATIENCE;
    world.looked_at(Property::Recovery, history.unknown().len());
    for client in clients.iter().take(1) {
        client.settle_unknown(deadline).await;
        client.ask_every_node(deadline).await;
    }
    let unknown = history.unknown().len();
    if unknown > 0 {
        world.violation(
            Property::Recovery,
            format!("{unknown} submissions have no answer {RECOVERY_PATIENCE:?} after the last fault"),
        );
    }
    let running = cluster.nodes().len() - cluster.stopped().len();
    loop {
        let heads: Vec<_> = cluster.replicas().into_iter().map(|(_, replica)| replica.state().head()).collect();
        let agreed = heads.windows(2).all(|pair| matches!(pair, [left, right] if left == right));
        if agreed && heads.len() == running {
            return world.looked_at(Property::Recovery, running);
        }
        if Instant::now() > deadline {
            return world.violation(Property::Recovery, format!("replicas do not converge: {heads:?} of {running}"));
        }
        sleep(Duration::from_millis(20)).await;
    }
}

fn compacted(cluster: &Cluster) -> usize {
    let purged = cluster.replicas().into_iter().map(|(_, replica)| replica.sequencer().status().purged);
    purged.filter(Option::is_some).count()
}

fn report(
    options: &SimulationOptions,
    world: &World,
    history: &History,
    observations: &Observations,
    compacted: usize,
    stopped: BTreeMap<NodeId, String>,
    schedule: Vec<ScheduledFault>,
) -> Report {
    let operations = history.all();
    let (trace_hash, events) = world.trace();
    Report {
        seed: options.seed,
        steps: options.steps,
        command: options.command(),
        trace_hash,
        events,
        simulated: world.now(),
        faults: world.faults(),
        acknowledged: order::acknowledged(&operations).len(),
        operations: operations.len(),
        batches: observations.newest(),
        compacted,
        stopped,
        schedule,
        findings: world.findings(),
    }
}

/// One line, and what is wrong with the command that shows it again.
impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report {
            seed, trace_hash, events, simulated, faults, operations, acknowledged, batches, compacted, ..
        } = self;
        write!(
            out,
            "seed {seed}: trace {} of {events} events, {:.1} s simulated, {faults} faults, {operations} operations, \
             {acknowledged} transactions acknowledged, {batches} batches, {compacted} logs compacted",
            trace_hash.get(..16).unwrap_or(trace_hash),
            simulated.as_secs_f64()
        )?;
        for violation in self.violations() {
            write!(out, "\n  {violation}")?;
        }
        if !self.is_sound() {
            write!(out, "\n  replay: {} --trace", self.command)?;
        }
        Ok(())
    }
}
