//! Faults: which kinds a seed has (not all of them in every seed, so that each gets seeds of its own), and when.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ledger::entry::ConfigurationChange;
use seams::Address;
use sequencer::NodeId;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::check::Property;
use crate::dice::{Dice, lock};
use crate::sim::cluster::Cluster;
use crate::sim::disk::{DiskTemper, Moment, Part};
use crate::sim::network::{Network, Weather};
use crate::sim::provers::Provers;
use crate::sim::run::SimulationOptions;
use crate::sim::world::{Event, World};

/// What can be done to a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Some node loses power.
    CrashNode,
    /// Whoever leads loses power.
    CrashLeader,
    /// Every node loses power at once.
    CrashAll,
    /// A node loses power once it has written something of a kind and not synced it.
    CrashInWrite,
    /// Two halves that see each other only through one node elect, and that one loses power with the vote that it gave.
    SplitVote,
    /// A node's disk fails after some more writes, in the midst of whatever it does.
    FailDisk,
    /// The next sync of a node's log fails.
    FailSync,
    /// There is no room on a node's disk for a while.
    FillDisk,
    /// A validator becomes slow, or as quick as it was.
    SlowValidator,
    /// The network falls into two parts.
    Partition,
    /// Some link is cut in one direction.
    CutOneWay,
    /// Whoever leads is alone, or can only send, or can only receive.
    IsolateLeader,
    /// Every link is whole again.
    Heal,
    /// Messages begin to take longer, get lost or arrive twice, or cease to.
    ChangeWeather,
    /// A disk's syncs become slow or quick.
    ChangeDiskSpeed,
    /// A node is told to make a snapshot.
    Snapshot,
    /// A node's clock is set wrong.
    JumpClock,
    /// A validator ends, and comes back later.
    CrashValidator,
    /// A prover ends, and comes back later.
    CrashProver,
    /// The lead is handed over.
    TransferLeader,
    /// A new node takes the place of another: it learns, votes, and the other is removed.
    ReplaceNode,
    /// Rows on a node's disk are damaged: it must stop, and a new node takes its place.
    CorruptDisk,
    /// The same of entries of its log.
    CorruptLog,
    /// The next sync of a node's tables fails.
    FailTableSync,
    /// A node stands still for a while, as under SIGSTOP, and then goes on with everything late.
    StallNode,
    /// The network falls into two parts that see each other through one node alone.
    Bridge,
    /// A validator is dismissed, or admitted again: another epoch begins.
    ChangeValidators,
}

impl Fault {
    /// Every kind.
    pub const ALL: [Self; 27] = [
        Self::CrashNode,
        Self::CrashLeader,
        Self::CrashAll,
        Self::CrashInWrite,
        Self::SplitVote,
        Self::FailDisk,
        Self::FailSync,
        Self::FillDisk,
        Self::SlowValidator,
        Self::Partition,
        Self::CutOneWay,
        Self::IsolateLeader,
        Self::Heal,
        Self::ChangeWeather,
        Self::ChangeDiskSpeed,
        Self::Snapshot,
        Self::JumpClock,
        Self::CrashValidator,
        Self::CrashProver,
        Self::TransferLeader,
        Self::ReplaceNode,
        Self::CorruptDisk,
        Self::CorruptLog,
        Self::FailTableSync,
        Self::StallNode,
        Self::Bridge,
        Self::ChangeValidators,
    ];

    /// Whether there is anything that it could be done to.
    fn concerns(self, cluster: &Cluster, provers: &Provers) -> bool {
        match self {
            Self::SlowValidator | Self::CrashValidator | Self::ChangeValidators => cluster.validators() > 0,
            Self::CrashProver => provers.count() > 0,
            Self::CrashNode
            | Self::CrashLeader
            | Self::CrashAll
            | Self::CrashInWrite
            | Self::SplitVote
            | Self::FailDisk
            | Self::FailSync
            | Self::FillDisk
            | Self::Partition
            | Self::CutOneWay
            | Self::IsolateLeader
            | Self::Heal
            | Self::ChangeWeather
            | Self::ChangeDiskSpeed
            | Self::Snapshot
            | Self::JumpClock
            | Self::TransferLeader
            | Self::ReplaceNode
            | Self::CorruptDisk
            | Self::CorruptLog
            | Self::FailTableSync
            | Self::StallNode
            | Self::Bridge => true,
        }
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|kind| format!("{kind:?}") == text);
        let names = || Self::ALL.map(|kind| format!("{kind:?}")).join(", ");
        found.ok_or_else(|| format!("there is no such fault; there are {}", names()))
    }
}

/// Kinds that a seed has, in a thousand.
const KIND_PER_MILLE: u32 = 700;
/// Between two faults: so short that 2,000 seeds have 60,000 that do something, and so long that clients get somewhere.
const BETWEEN: RangeInclusive<Duration> = Duration::from_millis(50)..=Duration::from_millis(650);
/// How long replacing a node may take when everything works.
const REPLACED_MAX: Duration = Duration::from_secs(30);
/// How long a change of the configuration is tried.
const CHANGE_PATIENCE: Duration = Duration::from_secs(2);
/// How long a crash lies in wait for its moment at most.
const AIM_MILLIS: u64 = 1_500;

/// A fault that happened, or was left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduledFault {
    /// Its number, from 0.
    pub number: usize,
    /// When, in virtual time.
    pub at: Duration,
    /// Which kind.
    pub kind: Fault,
}

/// The faults of a run, as they happen.
pub type Schedule = Arc<Mutex<Vec<ScheduledFault>>>;

/// Causes the faults of one seed. Its choices disturb nobody else's, and those of one fault no other's: so one can be
/// left out, and the others happen as before.
#[derive(Debug, Clone)]
pub struct Nemesis {
    world: World,
    dice: Dice,
    network: Network,
    cluster: Cluster,
    provers: Provers,
    /// Everybody on the network.
    addresses: Vec<Address>,
    kinds: Vec<Fault>,
    left_out: BTreeSet<usize>,
    schedule: Schedule,
    /// When faults end.
    until: Duration,
}

impl Nemesis {
    /// Draws the kinds of faults.
    #[must_use]
    pub fn new(
        world: &World,
        network: &Network,
        cluster: &Cluster,
        provers: &Provers,
        others: &[Address],
        options: &SimulationOptions,
        schedule: &Schedule,
    ) -> Self {
        let dice = world.branch();
        let mut drawn: Vec<Fault> = Fault::ALL.into_iter().filter(|_| dice.chance(KIND_PER_MILLE)).collect();
        if !options.kinds.is_empty() {
            drawn.clone_from(&options.kinds);
        }
        let kinds = drawn.into_iter().filter(|kind| kind.concerns(cluster, provers)).collect();
        let mut addresses = cluster.addresses();
        addresses.extend_from_slice(others);
        Self {
            world: world.clone(),
            dice,
            network: network.clone(),
            cluster: cluster.clone(),
            provers: provers.clone(),
            addresses,
            kinds,
            left_out: options.left_out.clone(),
            schedule: Arc::clone(schedule),
            until: Duration::ZERO,
        }
    }

    /// Causes faults until the time has come, then repairs everything and starts everybody.
    pub async fn run(self, until: Duration) {
        for number in 0.. {
            sleep(self.dice.pause(&BETWEEN)).await;
            if self.world.now() >= until {
                break;
            }
            let Some(kind) = self.dice.pick(&self.kinds).copied() else { continue };
            let one = Self { dice: self.dice.branch(), until, ..self.clone() };
            if self.left_out.contains(&number) {
                continue;
            }
            lock(&self.schedule).push(ScheduledFault { number, at: self.world.now(), kind });
            self.world.record(&Event::Fault(&format!("{kind:?}")));
            if one.cause(kind) {
                self.world.struck(&format!("{kind:?}"));
            }
        }
        self.repair().await;
    }

    /// Never more than one at a time, so that a majority has what was acknowledged.
    fn damage_disk(&self, part: Part) {
        let nodes = self.cluster.nodes();
        let busy = self.cluster.is_replacing() || nodes.iter().any(|id| self.cluster.disk(*id).is_damaged());
        for id in self.some_node().into_iter().filter(|_| !busy && self.cluster.spares() > 0) {
            self.cluster.disk(id).damage(part);
        }
    }

    async fn repair(&self) {
        self.world.record(&Event::Note("everything is repaired"));
        self.cluster.nodes().into_iter().for_each(|id| self.cluster.go_on(id));
        self.network.repair();
        let quick = Duration::from_millis(1)..=Duration::from_millis(3);
        for id in self.cluster.nodes() {
            self.cluster.disk(id).temper().set_sync(quick.clone());
            self.cluster.disk(id).temper().set_full(false);
        }
        for number in 0..self.cluster.validators() {
            self.cluster.set_pace(number, Duration::ZERO..=Duration::ZERO);
        }
        self.cluster.start_all().await;
        self.provers.start_all().await;
        // a damaged copy that nobody has noticed is set aside, as an operator would who knows of it
        for id in self.cluster.nodes().into_iter().filter(|id| self.cluster.disk(*id).is_damaged()) {
            self.replaced().await;
            self.cluster.replace(id);
        }
        self.replaced().await;
        self.world.looked_at(Property::Recovery, self.cluster.nodes().len());
    }

    /// Waits until nobody is being replaced.
    async fn replaced(&self) {
        let deadline = self.world.now() + REPLACED_MAX;
        while self.cluster.is_replacing() {
            if self.world.now() > deadline {
                return self.world.violation(Property::Recovery, "a node is not replaced after the last fault");
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// True where it did something at once; what strikes later tells so itself.
    fn cause(&self, kind: Fault) -> bool {
        match kind {
            Fault::CrashNode => self.crash(&self.some_node()),
            Fault::CrashLeader => self.crash(&self.some_leader()),
            Fault::CrashAll => self.crash(&self.cluster.nodes()),
            Fault::CrashInWrite => self.later(Self::crash_in_write),
            Fault::SplitVote => self.split_vote(),
            Fault::FailDisk => {
                self.later(|nemesis| nemesis.each_temper(|temper| temper.fail_after(nemesis.dice.between(1..=20))))
            }
            Fault::FailSync => self.later(|nemesis| nemesis.each_temper(|temper| temper.fail_sync(Part::Log))),
            Fault::FailTableSync => self.later(|nemesis| nemesis.each_temper(|temper| temper.fail_sync(Part::Tables))),
            Fault::FillDisk => self.later(Self::fill_disk),
            Fault::CorruptDisk => self.later(|nemesis| nemesis.damage_disk(Part::Tables)),
            Fault::CorruptLog => self.later(|nemesis| nemesis.damage_disk(Part::Log)),
            Fault::Snapshot => self.later(Self::snapshot),
            Fault::ChangeValidators => self.later(Self::change_validators),
            Fault::SlowValidator => self.slow_validator(),
            Fault::Partition => self.for_a_while(self.partition(&[])),
            Fault::Bridge => {
                let bridge: Vec<Address> =
                    self.some_node().into_iter().map(|id| self.cluster.address(id).clone()).collect();
                self.for_a_while(self.partition(&bridge))
            }
            Fault::CutOneWay => {
                let ends = (self.dice.pick(&self.addresses), self.dice.pick(&self.addresses));
                let (Some(from), Some(to)) = ends else { return false };
                self.for_a_while(from != to && self.network.cut(from, to))
            }
            Fault::IsolateLeader => self.for_a_while(self.isolate(&self.some_leader())),
            Fault::Heal => self.network.heal(),
            Fault::ChangeWeather => self.change_weather(),
            Fault::ChangeDiskSpeed => self.change_disk_speed(),
            Fault::JumpClock => self.jump_clock(),
            Fault::CrashValidator => self.crash_validator(),
            Fault::CrashProver => self.crash_prover(),
            Fault::TransferLeader => self.transfer_leader(),
            // the last spare is for whoever is damaged
            Fault::ReplaceNode => {
                self.cluster.spares() > 1 && self.some_node().into_iter().any(|id| self.cluster.replace(id))
            }
            Fault::StallNode => self.stall(),
        }
    }

    fn later(&self, prepare: impl FnOnce(&Self)) -> bool {
        prepare(self);
        false
    }

    fn each_temper(&self, change: impl Fn(&DiskTemper)) {
        self.some_node().into_iter().for_each(|id| change(self.cluster.disk(id).temper()));
    }

    fn jump_clock(&self) -> bool {
        let Some(id) = self.some_node().pop() else { return false };
        let millis = i64::try_from(self.dice.between(0..=20_000)).unwrap_or_default().saturating_sub(10_000);
        self.cluster.clock(id).jump(millis);
        millis != 0
    }

    /// For so long that nobody notices, that an election is held, or that everybody has given it up.
    fn stall(&self) -> bool {
        let ranges = [20..=200, 200..=1_500, 1_500..=4_000];
        let range = self.dice.pick(&ranges).cloned().unwrap_or(20..=200);
        let pause = Duration::from_millis(self.dice.between(range));
        let leader = if self.dice.chance(500) { self.some_leader() } else { Vec::new() };
        let Some(id) = leader.into_iter().chain(self.some_node()).next() else { return false };
        if !self.cluster.stand_still(id) {
            return false;
        }
        let nemesis = self.clone();
        drop(tokio::spawn(async move {
            sleep(pause).await;
            nemesis.world.record(&Event::Note(&format!("node {id} goes on")));
            nemesis.cluster.go_on(id);
        }));
        true
    }

    /// What was cut is whole again after a while, also what was cut meanwhile.
    fn for_a_while(&self, is_cut: bool) -> bool {
        self.heal_later();
        is_cut
    }

    /// Every link becomes whole again after a while, also those that were cut meanwhile.
    fn heal_later(&self) {
        let network = self.network.clone();
        let pause = self.dice.pause(&(Duration::from_millis(50)..=Duration::from_secs(4)));
        drop(tokio::spawn(async move {
            sleep(pause).await;
            network.heal();
        }));
    }

    fn some_node(&self) -> Vec<NodeId> {
        self.dice.pick(&self.cluster.nodes()).copied().into_iter().collect()
    }

    fn some_leader(&self) -> Vec<NodeId> {
        self.dice.pick(&self.cluster.leaders()).copied().into_iter().collect()
    }

    /// Down for long enough to be missed, or back before anybody noticed.
    fn downtime(&self) -> Duration {
        let long = self.dice.chance(300);
        let range = if long { 800..=4_000 } else { 1..=200 };
        Duration::from_millis(self.dice.between(range))
    }

    fn crash(&self, nodes: &[NodeId]) -> bool {
        nodes.iter().fold(false, |any, id| any | self.crash_for(*id, || self.downtime()))
    }

    /// The time is drawn where there is somebody to crash.
    fn crash_for(&self, id: NodeId, downtime: impl FnOnce() -> Duration) -> bool {
        let crashed = self.cluster.crash(id);
        if crashed {
            let (cluster, downtime) = (self.cluster.clone(), downtime());
            drop(tokio::spawn(async move {
                sleep(downtime).await;
                cluster.start(id).await;
            }));
        }
        crashed
    }

    /// Lies in wait for one node, or for the first of all; sometimes all are struck with it.
    fn crash_in_write(&self) {
        let watched = if self.dice.chance(500) { self.some_node() } else { self.cluster.nodes() };
        let moments = [Moment::AnyWrite, Moment::Vote, Moment::Cut];
        let moment = self.dice.pick(&moments).copied().unwrap_or(Moment::AnyWrite);
        let all = self.dice.chance(300);
        let nemesis = self.clone();
        drop(tokio::spawn(async move {
            let Some(struck) = nemesis.first_to_write(&watched, moment).await else { return };
            nemesis.crash(&if all { nemesis.cluster.nodes() } else { vec![struck] });
        }));
    }

    /// Waits for the first of these nodes that has written such a thing and not synced it; not for longer than faults last.
    async fn first_to_write(&self, watched: &[NodeId], moment: Moment) -> Option<NodeId> {
        let in_write = |id: &NodeId| self.cluster.disk(*id).has_unsynced(moment);
        for _ in 0..AIM_MILLIS {
            if self.world.now() >= self.until {
                break;
            }
            if let Some(struck) = watched.iter().copied().find(in_write) {
                self.world.struck(&format!("a crash of node {struck} in {moment:?}"));
                return Some(struck);
            }
            sleep(Duration::from_millis(1)).await;
        }
        None
    }

    /// The lead is lost, and only the node that lost it is seen by both halves of the others: each asks it for the same
    /// vote. A crash comes between, so short that the second one asks in time, and the first is not heard of again: were
    /// the vote forgotten, it would be given twice.
    fn split_vote(&self) -> bool {
        let Some(voter) = self.some_leader().pop().or_else(|| self.some_node().pop()) else { return false };
        let others = self.cluster.nodes().into_iter().filter(|id| *id != voter);
        let others: Vec<Address> = others.map(|id| self.cluster.address(id).clone()).collect();
        let (left, right) = others.split_at(others.len() / 2);
        let is_cut = self.part(left, right);
        let crashed = self.crash_for(voter, || self.blink());
        let (nemesis, asks_first) = (self.clone(), if self.dice.chance(500) { left.to_vec() } else { right.to_vec() });
        drop(tokio::spawn(async move {
            let Some(voter) = nemesis.first_to_write(&[voter], Moment::Vote).await else { return };
            // the vote still arrives; what the new leader sends does not
            let voter_address = nemesis.cluster.address(voter);
            for candidate in &asks_first {
                nemesis.network.cut(candidate, voter_address);
            }
            nemesis.crash_for(voter, || nemesis.blink());
        }));
        self.for_a_while(is_cut || crashed)
    }

    /// Down for less than what lies between two elections.
    fn blink(&self) -> Duration {
        Duration::from_millis(self.dice.between(1..=10))
    }

    fn crash_validator(&self) -> bool {
        let numbers: Vec<usize> = (0..self.cluster.validators()).collect();
        let Some(number) = self.dice.pick(&numbers).copied() else { return false };
        if !self.cluster.crash_validator(number) {
            return false;
        }
        let (cluster, downtime) = (self.cluster.clone(), self.downtime());
        drop(tokio::spawn(async move {
            sleep(downtime).await;
            cluster.start_validator(number);
        }));
        true
    }

    fn crash_prover(&self) -> bool {
        let numbers: Vec<usize> = (0..self.provers.count()).collect();
        let Some(number) = self.dice.pick(&numbers).copied() else { return false };
        if !self.provers.crash(number) {
            return false;
        }
        let (provers, downtime) = (self.provers.clone(), self.downtime());
        drop(tokio::spawn(async move {
            sleep(downtime).await;
            provers.start(number).await;
        }));
        true
    }

    fn fill_disk(&self) {
        for id in self.some_node() {
            let (temper, pause) = (self.cluster.disk(id).temper().clone(), self.dice.between(50..=3_000));
            temper.set_full(true);
            drop(tokio::spawn(async move {
                sleep(Duration::from_millis(pause)).await;
                temper.set_full(false);
            }));
        }
    }

    fn slow_validator(&self) -> bool {
        let paces = [0..=0, 20..=200, 300..=900, 2_000..=4_000];
        let pace = self.dice.pick(&paces).cloned().unwrap_or(0..=0);
        let numbers: Vec<usize> = (0..self.cluster.validators()).collect();
        let Some(number) = self.dice.pick(&numbers) else { return false };
        let pace = Duration::from_millis(*pace.start())..=Duration::from_millis(*pace.end());
        self.cluster.set_pace(*number, pace)
    }

    /// Where it is in the configuration it is dismissed, otherwise admitted; by whichever node is asked.
    fn change_validators(&self) {
        let number = self.dice.pick(&self.cluster.dismissible()).copied();
        let asked = self.some_node().pop().and_then(|id| self.cluster.replica(id));
        let Some((group, replica)) = asked else { return };
        let Some(key) = number.and_then(|number| self.cluster.validator_key(number)) else { return };
        let is_admitted = replica.state().configuration().validators.keys.contains(&key);
        let change = match is_admitted {
            true => ConfigurationChange::RemoveValidators(vec![key]),
            false => ConfigurationChange::AddValidators(vec![key]),
        };
        let deadline = Instant::now() + CHANGE_PATIENCE;
        let changing = group.spawn(async move { replica.configure(change, deadline).await.is_ok() });
        self.strikes_where(changing, "a change of the validators");
    }

    /// Counts what is done by a node, once it says that it did.
    fn strikes_where(&self, done: JoinHandle<bool>, what: &'static str) {
        let world = self.world.clone();
        drop(tokio::spawn(async move {
            if done.await.unwrap_or_default() {
                world.struck(what);
            }
        }));
    }

    /// Cuts every link between two parts, except those of whoever is named.
    fn partition(&self, bridge: &[Address]) -> bool {
        let parted = self.addresses.iter().filter(|address| !bridge.contains(address)).cloned();
        let (left, right): (Vec<Address>, Vec<Address>) = parted.partition(|_| self.dice.chance(500));
        self.part(&left, &right)
    }

    fn part(&self, left: &[Address], right: &[Address]) -> bool {
        let mut any = false;
        for (left, right) in left.iter().flat_map(|left| right.iter().map(move |right| (left, right))) {
            any |= self.network.cut(left, right);
            any |= self.network.cut(right, left);
        }
        any
    }

    fn isolate(&self, nodes: &[NodeId]) -> bool {
        let (sends, receives) = match self.dice.between(0..=3) {
            0 => (true, false),
            1 => (false, true),
            _ => (false, false),
        };
        let mut any = false;
        for alone in nodes.iter().map(|id| self.cluster.address(*id)) {
            for other in self.addresses.iter().filter(|other| *other != alone) {
                any |= !sends && self.network.cut(alone, other);
                any |= !receives && self.network.cut(other, alone);
            }
        }
        any
    }

    fn change_weather(&self) -> bool {
        let latencies = [1..=3, 1..=15, 5..=80];
        let latency = self.dice.pick(&latencies).cloned().unwrap_or(1..=3);
        let latency = Duration::from_millis(*latency.start())..=Duration::from_millis(*latency.end());
        let rate = |rates: &[u32]| self.dice.pick(rates).copied().unwrap_or_default();
        self.network.set_weather(Weather {
            latency,
            loss_per_mille: rate(&[0, 20, 100, 300]),
            duplication_per_mille: rate(&[0, 50, 300]),
            breakage_per_mille: rate(&[0, 0, 5, 50]),
        })
    }

    fn change_disk_speed(&self) -> bool {
        let speeds = [1..=3, 1..=20, 20..=120];
        let speed = self.dice.pick(&speeds).cloned().unwrap_or(1..=3);
        let sync = Duration::from_millis(*speed.start())..=Duration::from_millis(*speed.end());
        let mut any = false;
        for id in if self.dice.chance(500) { self.some_node() } else { self.cluster.nodes() } {
            any |= self.cluster.disk(id).temper().set_sync(sync.clone());
        }
        any
    }

    fn snapshot(&self) {
        for (group, replica) in self.some_node().into_iter().filter_map(|id| self.cluster.replica(id)) {
            // a node that is going down makes none
            let made = group.spawn(async move { replica.sequencer().trigger_snapshot().await.is_ok() });
            self.strikes_where(made, "a snapshot");
        }
    }

    /// Only whoever leads can hand over, and only to somebody else.
    fn transfer_leader(&self) -> bool {
        let (Some(to), Some(from)) = (self.some_node().pop(), self.some_leader().pop()) else { return false };
        let Some((group, replica)) = self.cluster.replica(from).filter(|_| from != to) else { return false };
        // refusals and failures are as good: somebody leads in the end
        drop(group.spawn(async move { replica.sequencer().transfer_leader(to, Duration::from_secs(1)).await }));
        true
    }
}
