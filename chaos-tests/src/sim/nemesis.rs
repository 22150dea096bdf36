//! Faults: which kinds a seed has (not all of them in every seed, so that each gets seeds of its own), and when.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use seams::Address;
use sequencer::NodeId;
use tokio::time::sleep;

use crate::check::Property;
use crate::dice::{Dice, lock};
use crate::sim::cluster::Cluster;
use crate::sim::disk::Moment;
use crate::sim::network::{Network, Weather};
use crate::sim::provers::Provers;
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
}

impl Fault {
    /// Every kind.
    pub const ALL: [Self; 21] = [
        Self::CrashNode,
        Self::CrashLeader,
        Self::CrashAll,
        Self::CrashInWrite,
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
    ];
}

/// Kinds that a seed has, in a thousand.
const KIND_PER_MILLE: u32 = 700;
/// How long replacing a node may take when everything works.
const REPLACED_MAX: Duration = Duration::from_secs(30);
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
        left_out: &BTreeSet<usize>,
        schedule: &Schedule,
    ) -> Self {
        let dice = world.branch();
        let kinds = Fault::ALL.into_iter().filter(|_| dice.chance(KIND_PER_MILLE)).collect();
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
            left_out: left_out.clone(),
            schedule: Arc::clone(schedule),
        }
    }

    /// Causes faults until the time has come, then repairs everything and starts everybody.
    pub async fn run(self, until: Duration) {
        let between = Duration::from_millis(50)..=Duration::from_millis(900);
        for number in 0.. {
            sleep(self.dice.pause(&between)).await;
            if self.world.now() >= until {
                break;
            }
            let Some(kind) = self.dice.pick(&self.kinds).copied() else { continue };
            let one = Self { dice: self.dice.branch(), ..self.clone() };
            if self.left_out.contains(&number) {
                continue;
            }
            lock(&self.schedule).push(ScheduledFault { number, at: self.world.now(), kind });
            self.world.record(&Event::Fault(&format!("{kind:?}")));
            one.cause(kind).await;
        }
        self.repair().await;
    }

    /// Never more than one at a time, so that a majority has what was acknowledged.
    fn corrupt_disk(&self) {
        let nodes = self.cluster.nodes();
        let busy = self.cluster.is_replacing() || nodes.iter().any(|id| self.cluster.disk(*id).is_corrupt());
        for id in self.some_node().into_iter().filter(|_| !busy && self.cluster.spares() > 0) {
            self.cluster.disk(id).corrupt();
        }
    }

    async fn repair(&self) {
        self.world.record(&Event::Fault("everything is repaired"));
        self.network.heal();
        self.network.set_weather(Weather::calm());
        let quick = Duration::from_millis(1)..=Duration::from_millis(3);
        for id in self.cluster.nodes() {
            self.cluster.disk(id).temper().set_sync(quick.clone());
            self.cluster.disk(id).temper().set_full(false);
        }
        (0..self.cluster.validators())
            .for_each(|number| self.cluster.set_pace(number, Duration::ZERO..=Duration::ZERO));
        self.cluster.start_all().await;
        self.provers.start_all().await;
        // a damaged copy that nobody has noticed is set aside, as an operator would who knows of it
        for id in self.cluster.nodes().into_iter().filter(|id| self.cluster.disk(*id).is_corrupt()) {
            self.replaced().await;
            self.cluster.replace(id);
        }
        self.replaced().await;
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

    async fn cause(&self, kind: Fault) {
        match kind {
            Fault::CrashNode => self.crash(&self.some_node()),
            Fault::CrashLeader => self.crash(&self.some_leader()),
            Fault::CrashAll => self.crash(&self.cluster.nodes()),
            Fault::CrashInWrite => self.crash_in_write(),
            Fault::FailDisk => {
                for id in self.some_node() {
                    self.cluster.disk(id).temper().fail_after(self.dice.between(1..=20));
                }
            }
            Fault::FailSync => self.some_node().into_iter().for_each(|id| self.cluster.disk(id).temper().fail_sync()),
            Fault::FillDisk => self.fill_disk(),
            Fault::SlowValidator => self.slow_validator(),
            Fault::Partition => {
                self.partition();
                self.heal_later();
            }
            Fault::CutOneWay => {
                if let (Some(from), Some(to)) = (self.dice.pick(&self.addresses), self.dice.pick(&self.addresses)) {
                    self.network.cut(from, to);
                }
                self.heal_later();
            }
            Fault::IsolateLeader => {
                self.isolate(&self.some_leader());
                self.heal_later();
            }
            Fault::Heal => self.network.heal(),
            Fault::ChangeWeather => self.change_weather(),
            Fault::ChangeDiskSpeed => self.change_disk_speed(),
            Fault::Snapshot => self.snapshot().await,
            Fault::JumpClock => {
                for id in self.some_node() {
                    let millis = i64::try_from(self.dice.between(0..=20_000)).unwrap_or_default();
                    self.cluster.clock(id).jump(millis.saturating_sub(10_000));
                }
            }
            Fault::CrashValidator => self.crash_validator(),
            Fault::CrashProver => self.crash_prover(),
            Fault::TransferLeader => self.transfer_leader(),
            // the last spare is for whoever is damaged
            Fault::ReplaceNode if self.cluster.spares() > 1 => {
                self.some_node().into_iter().for_each(|id| self.cluster.replace(id));
            }
            Fault::ReplaceNode => {}
            Fault::CorruptDisk => self.corrupt_disk(),
        }
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

    fn crash(&self, nodes: &[NodeId]) {
        for id in nodes.iter().copied() {
            if self.cluster.crash(id) {
                let (cluster, downtime) = (self.cluster.clone(), self.downtime());
                drop(tokio::spawn(async move {
                    sleep(downtime).await;
                    cluster.start(id).await;
                }));
            }
        }
    }

    /// Lies in wait for one node, or for the first of all; sometimes all are struck with it.
    fn crash_in_write(&self) {
        let watched = if self.dice.chance(500) { self.some_node() } else { self.cluster.nodes() };
        let moments = [Moment::AnyWrite, Moment::Vote, Moment::Cut];
        let moment = self.dice.pick(&moments).copied().unwrap_or(Moment::AnyWrite);
        let all = self.dice.chance(300);
        let nemesis = self.clone();
        drop(tokio::spawn(async move {
            let in_write = |id: &NodeId| nemesis.cluster.disk(*id).has_unsynced(moment);
            for _ in 0..AIM_MILLIS {
                if let Some(struck) = watched.iter().copied().find(in_write) {
                    nemesis.world.record(&Event::Fault(&format!("node {struck} is struck in {moment:?}")));
                    return nemesis.crash(&if all { nemesis.cluster.nodes() } else { vec![struck] });
                }
                sleep(Duration::from_millis(1)).await;
            }
        }));
    }

    fn crash_validator(&self) {
        let numbers: Vec<usize> = (0..self.cluster.validators()).collect();
        let Some(number) = self.dice.pick(&numbers).copied() else { return };
        self.cluster.crash_validator(number);
        let (cluster, downtime) = (self.cluster.clone(), self.downtime());
        drop(tokio::spawn(async move {
            sleep(downtime).await;
            cluster.start_validator(number);
        }));
    }

    fn crash_prover(&self) {
        let numbers: Vec<usize> = (0..self.provers.count()).collect();
        let Some(number) = self.dice.pick(&numbers).copied() else { return };
        self.provers.crash(number);
        let (provers, downtime) = (self.provers.clone(), self.downtime());
        drop(tokio::spawn(async move {
            sleep(downtime).await;
            provers.start(number).await;
        }));
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

    fn slow_validator(&self) {
        let paces = [0..=0, 20..=200, 300..=900, 2_000..=4_000];
        let pace = self.dice.pick(&paces).cloned().unwrap_or(0..=0);
        let numbers: Vec<usize> = (0..self.cluster.validators()).collect();
        if let Some(number) = self.dice.pick(&numbers) {
            let pace = Duration::from_millis(*pace.start())..=Duration::from_millis(*pace.end());
            self.cluster.set_pace(*number, pace);
        }
    }

    fn partition(&self) {
        let (left, right): (Vec<&Address>, Vec<&Address>) = self.addresses.iter().partition(|_| self.dice.chance(500));
        for (left, right) in left.iter().flat_map(|left| right.iter().map(move |right| (left, right))) {
            self.network.cut(left, right);
            self.network.cut(right, left);
        }
    }

    fn isolate(&self, nodes: &[NodeId]) {
        let (sends, receives) = match self.dice.between(0..=3) {
            0 => (true, false),
            1 => (false, true),
            _ => (false, false),
        };
        for alone in nodes.iter().map(|id| self.cluster.address(*id)) {
            for other in self.addresses.iter().filter(|other| *other != alone) {
                if !sends {
                    self.network.cut(alone, other);
                }
                if !receives {
                    self.network.cut(other, alone);
                }
            }
        }
    }

    fn change_weather(&self) {
        let latencies = [1..=3, 1..=15, 5..=80];
        let latency = self.dice.pick(&latencies).cloned().unwrap_or(1..=3);
        let latency = Duration::from_millis(*latency.start())..=Duration::from_millis(*latency.end());
        let rate = |rates: &[u32]| self.dice.pick(rates).copied().unwrap_or_default();
        self.network.set_weather(Weather {
            latency,
            loss_per_mille: rate(&[0, 20, 100, 300]),
            duplication_per_mille: rate(&[0, 50, 300]),
            breakage_per_mille: rate(&[0, 0, 5, 50]),
        });
    }

    fn change_disk_speed(&self) {
        let speeds = [1..=3, 1..=20, 20..=120];
        let speed = self.dice.pick(&speeds).cloned().unwrap_or(1..=3);
        let sync = Duration::from_millis(*speed.start())..=Duration::from_millis(*speed.end());
        for id in if self.dice.chance(500) { self.some_node() } else { self.cluster.nodes() } {
            self.cluster.disk(id).temper().set_sync(sync.clone());
        }
    }

    async fn snapshot(&self) {
        for (group, replica) in self.some_node().into_iter().filter_map(|id| self.cluster.replica(id)) {
            // a node that is going down makes none
            drop(group.spawn(async move { replica.sequencer().trigger_snapshot().await }).await);
        }
    }

    fn transfer_leader(&self) {
        let (Some(to), Some(from)) = (self.some_node().pop(), self.some_leader().pop()) else { return };
        let Some((group, replica)) = self.cluster.replica(from) else { return };
        // refusals and failures are as good: somebody leads in the end
        drop(group.spawn(async move { replica.sequencer().transfer_leader(to, Duration::from_secs(1)).await }));
    }
}
