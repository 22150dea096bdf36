//! Faults of real clusters: drawn from a seed, one after another, each undone before the next; between them the cluster
//! must go on.

use std::process::ExitStatus;
use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use client::{Consistency, Problem};
use proto::wire;
use proto::wire::admin_client::AdminClient;
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::Channel;

use super::clients::Desk;
use super::cluster::Cluster;
use super::links::{Links, Weather};
use super::network::Place;
use super::read_back;
use crate::check::{Findings, Property};
use crate::dice::{Dice, lock};
use crate::report::FaultSpan;

/// How long a node that was started may take until it takes part, once it has the ledger.
const PART_MAX: Duration = Duration::from_secs(60);
/// How long the cluster may take to commit again after a fault has been undone.
const PROGRESS_MAX: Duration = Duration::from_secs(30);
/// How long a node whose disk failed, or is damaged, may take to notice.
const NOTICE_MAX: Duration = Duration::from_secs(20);

/// How a node ends that found its disk unfit: when it starts, or later.
const REFUSALS: [Option<i32>; 2] = [Some(1), Some(70)];
/// How often the kernel cuts links, where it can, and not the proxies.
const BY_KERNEL_PER_MILLE: u32 = 500;

/// What can be done to a real cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL of whoever leads.
    KillLeader,
    /// SIGKILL of a node that does not lead.
    KillFollower,
    /// SIGKILL of every node at once.
    KillAll,
    /// SIGKILL of every validator.
    KillValidators,
    /// SIGKILL of the prover.
    KillProver,
    /// SIGSTOP of whoever leads, and SIGCONT later.
    FreezeLeader,
    /// SIGSTOP of a node that does not lead, and SIGCONT later.
    FreezeFollower,
    /// Every node is stopped in order and started again, one after another.
    RollingRestart,
    /// The network falls into two parts; whoever leads is with the majority.
    PartitionFollowers,
    /// The network falls into two parts; whoever leads is with the minority.
    PartitionLeader,
    /// Some link between nodes carries nothing in one direction.
    OneWay,
    /// Two nodes do not reach one another, and both reach the others.
    Bridge,
    /// Whoever leads hears nothing, and is heard.
    DeafLeader,
    /// Whoever leads reaches nobody, clients neither.
    IsolateLeader,
    /// The network cable of a node is pulled, of whoever leads every other time: below TCP nothing comes or goes.
    PullCable,
    /// A node's network address is taken away: it cannot send, and nobody finds it.
    LoseAddress,
    /// Everything takes long, and overtakes what takes longer.
    SlowLinks,
    /// Some of what is sent is lost and comes late.
    LossyLinks,
    /// Every connection breaks, several times.
    ResetLinks,
    /// A node's clock is wrong by some seconds.
    ClockSkew,
    /// A node loses its power: what its disk had not synced is gone.
    PowerCut,
    /// Every node loses its power at once.
    PowerCutAll,
    /// A node's disk is full; later there is space again.
    FullDisk,
    /// A node's disk takes nothing for a while: whoever writes waits.
    StallDisk,
    /// A node's disk fails every write and sync while the node runs.
    FailDisk,
    /// A bit of a stopped node's log or tables is another one when it starts again.
    FlipBit,
    /// A node loses its disk; a new member takes its place.
    WipeAndRejoin,
    /// A member is added, or removed.
    ChangeMembers,
    /// Nodes make snapshots under load, and one that was away needs one.
    Snapshot,
    /// The lead is handed over.
    TransferLeader,
}

impl Fault {
    /// Every kind.
    pub const ALL: [Self; 30] = [
        Self::KillLeader,
        Self::KillFollower,
        Self::KillAll,
        Self::KillValidators,
        Self::KillProver,
        Self::FreezeLeader,
        Self::FreezeFollower,
        Self::RollingRestart,
        Self::PartitionFollowers,
        Self::PartitionLeader,
        Self::OneWay,
        Self::Bridge,
        Self::DeafLeader,
        Self::IsolateLeader,
        Self::PullCable,
        Self::LoseAddress,
        Self::SlowLinks,
        Self::LossyLinks,
        Self::ResetLinks,
        Self::ClockSkew,
        Self::PowerCut,
        Self::PowerCutAll,
        Self::FullDisk,
        Self::StallDisk,
        Self::FailDisk,
        Self::FlipBit,
        Self::WipeAndRejoin,
        Self::ChangeMembers,
        Self::Snapshot,
        Self::TransferLeader,
    ];

    /// Its name on the command line and in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::KillLeader => "kill-leader",
            Self::KillFollower => "kill-follower",
            Self::KillAll => "kill-all",
            Self::KillValidators => "kill-validators",
            Self::KillProver => "kill-prover",
            Self::FreezeLeader => "freeze-leader",
            Self::FreezeFollower => "freeze-follower",
            Self::RollingRestart => "rolling-restart",
            Self::PartitionFollowers => "partition-followers",
            Self::PartitionLeader => "partition-leader",
            Self::OneWay => "one-way",
            Self::Bridge => "bridge",
            Self::DeafLeader => "deaf-leader",
            Self::IsolateLeader => "isolate-leader",
            Self::PullCable => "pull-cable",
            Self::LoseAddress => "lose-address",
            Self::SlowLinks => "slow-links",
            Self::LossyLinks => "lossy-links",
            Self::ResetLinks => "reset-links",
            Self::ClockSkew => "clock-skew",
            Self::PowerCut => "power-cut",
            Self::PowerCutAll => "power-cut-all",
            Self::FullDisk => "full-disk",
            Self::StallDisk => "stall-disk",
            Self::FailDisk => "fail-disk",
            Self::FlipBit => "flip-bit",
            Self::WipeAndRejoin => "wipe-and-rejoin",
            Self::ChangeMembers => "change-members",
            Self::Snapshot => "snapshot",
            Self::TransferLeader => "transfer-leader",
        }
    }

    /// Whether it needs a disk that can fail.
    #[must_use]
    pub const fn needs_disk(self) -> bool {
        matches!(self, Self::PowerCut | Self::PowerCutAll | Self::FullDisk | Self::StallDisk | Self::FailDisk)
    }

    /// Whether it needs a network of our own.
    #[must_use]
    pub const fn needs_namespaces(self) -> bool {
        matches!(self, Self::PullCable | Self::LoseAddress)
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names: Vec<&str> = Self::ALL.into_iter().map(Self::name).collect();
        let found = Self::ALL.into_iter().find(|fault| fault.name() == text);
        found.ok_or_else(|| format!("there is no fault {text}: choose of {}", names.join(", ")))
    }
}

/// Causes the faults of one run.
pub(super) struct Nemesis<'a> {
    pub(super) cluster: &'a mut Cluster,
    pub(super) links: Links,
    pub(super) desk: Arc<Desk>,
    pub(super) dice: Dice,
    pub(super) spans: Arc<Mutex<Vec<FaultSpan>>>,
    pub(super) findings: Findings,
    /// Called with what happens.
    pub(super) tell: &'a (dyn Fn(&str) + Sync),
}

impl Nemesis<'_> {
    /// Causes faults until the time has come: every kind once, in another order each time.
    pub(super) async fn run(&mut self, kinds: &[Fault], until: Instant) {
        let mut left: Vec<Fault> = Vec::new();
        while Instant::now() < until && !kinds.is_empty() {
            sleep(self.dice.pause(&(Duration::from_millis(400)..=Duration::from_millis(1_200)))).await;
            if left.is_empty() {
                left = kinds.to_vec();
            }
            let drawn = self.dice.number() % u64::try_from(left.len()).unwrap_or(1);
            let kind = left.swap_remove(usize::try_from(drawn).unwrap_or_default());
            let number = self.open(kind);
            let caused = Box::pin(self.cause(kind)).await;
            let healed = self.links.heal().context("the network");
            let detail = caused.and_then(|detail| healed.map(|()| detail)).unwrap_or_else(|error| {
                let what = format!("{} could not be undone: {error:#}", kind.name());
                self.findings.violation(Property::Recovery, what.clone());
                what
            });
            self.close(number, detail);
            self.check_sound();
            self.await_progress(kind).await;
        }
    }

    fn open(&self, kind: Fault) -> usize {
        let begin = self.desk.now().as_secs_f64();
        let mut spans = lock(&self.spans);
        spans.push(FaultSpan { name: kind.name().to_owned(), detail: String::new(), begin, end: begin });
        spans.len() - 1
    }

    fn close(&self, number: usize, detail: String) {
        let end = self.desk.now().as_secs_f64();
        if let Some(span) = lock(&self.spans).get_mut(number) {
            (self.tell)(&format!("{:>7.1} s  {:<20} {detail}", span.begin, span.name));
            (span.detail, span.end) = (detail, end);
        }
    }

    /// Nothing may have ended that no fault ended.
    fn check_sound(&mut self) {
        self.findings.looked_at(Property::Soundness, self.cluster.members().len());
        for (position, status) in self.cluster.ended() {
            let words = self.cluster.nodes[position].process.last_words();
            let what = format!("node {} ended by itself ({status}): {words}", position + 1);
            self.findings.violation(Property::Soundness, what);
            if let Err(error) = self.cluster.start_node(position) {
                self.findings.violation(Property::Soundness, error.to_string());
            }
        }
    }

    /// The cluster commits again.
    async fn await_progress(&mut self, kind: Fault) {
        let before = self.desk.committed();
        let deadline = Instant::now() + PROGRESS_MAX;
        self.findings.looked_at(Property::Recovery, 1);
        while self.desk.committed() <= before {
            if Instant::now() > deadline {
                let what = format!("nothing commits within {PROGRESS_MAX:?} after {}", kind.name());
                return self.findings.violation(Property::Recovery, what);
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    fn hold(&self) -> Duration {
        self.dice.pause(&(Duration::from_millis(800)..=Duration::from_millis(3_500)))
    }

    fn downtime(&self) -> Duration {
        self.dice.pause(&(Duration::from_millis(100)..=Duration::from_millis(2_500)))
    }

    async fn leader(&self) -> anyhow::Result<usize> {
        let deadline = Instant::now() + PROGRESS_MAX;
        loop {
            if let Some(leader) = self.cluster.leader().await {
                return Ok(leader);
            }
            anyhow::ensure!(Instant::now() < deadline, "nobody leads");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// A member that does not lead.
    async fn follower(&self) -> anyhow::Result<usize> {
        let leader = self.leader().await?;
        let others: Vec<usize> = self.cluster.members().into_iter().filter(|position| *position != leader).collect();
        self.dice.pick(&others).copied().context("there is only one member")
    }

    fn some_member(&self) -> anyhow::Result<usize> {
        self.dice.pick(&self.cluster.members()).copied().context("there is no member")
    }

    async fn cause(&mut self, kind: Fault) -> anyhow::Result<String> {
        match kind {
            Fault::KillLeader => {
                let leader = self.leader().await?;
                self.kill_and_restart(&[leader]).await
            }
            Fault::KillFollower => {
                let follower = self.follower().await?;
                self.kill_and_restart(&[follower]).await
            }
            Fault::KillAll => self.kill_and_restart(&self.cluster.members()).await,
            Fault::KillValidators => self.kill_validators().await,
            Fault::KillProver => self.kill_prover().await,
            Fault::FreezeLeader => {
                let leader = self.leader().await?;
                self.freeze(leader).await
            }
            Fault::FreezeFollower => {
                let follower = self.follower().await?;
                self.freeze(follower).await
            }
            Fault::RollingRestart => self.rolling_restart().await,
            Fault::PartitionFollowers => self.partition(false).await,
            Fault::PartitionLeader => self.partition(true).await,
            Fault::OneWay => self.one_way().await,
            Fault::Bridge => self.bridge().await,
            Fault::DeafLeader => self.isolate_leader(false).await,
            Fault::IsolateLeader => self.isolate_leader(true).await,
            Fault::PullCable => self.pull_cable().await,
            Fault::LoseAddress => self.lose_address().await,
            Fault::SlowLinks => self.weather(self.slow()).await,
            Fault::LossyLinks => self.weather(Weather { delay_ms: 0, jitter_ms: 2, loss_per_mille: 100 }).await,
            Fault::ResetLinks => self.reset_links().await,
            Fault::ClockSkew => self.clock_skew().await,
            Fault::PowerCut => {
                let struck = self.some_member()?;
                self.cut_power(&[struck]).await
            }
            Fault::PowerCutAll => self.cut_power(&self.cluster.members()).await,
            Fault::FullDisk => self.full_disk().await,
            Fault::StallDisk => self.stall_disk().await,
            Fault::FailDisk => self.fail_disk().await,
            Fault::FlipBit => self.flip_bit().await,
            Fault::WipeAndRejoin => {
                let struck = self.some_member()?;
                self.cluster.nodes[struck].process.kill().await;
                self.replace(struck).await
            }
            Fault::ChangeMembers => self.change_members().await,
            Fault::Snapshot => self.snapshot().await,
            Fault::TransferLeader => self.transfer_leader().await,
        }
    }

    async fn restart(&mut self, positions: &[usize]) -> anyhow::Result<()> {
        for position in positions {
            self.cluster.start_node(*position)?;
        }
        for position in positions {
            let patience = PART_MAX + self.cluster.copying_max().await;
            let takes_part = self.cluster.await_part(*position, patience).await;
            let words = || self.cluster.nodes[*position].process.last_words();
            anyhow::ensure!(takes_part, "node {} does not take part again: {}", position + 1, words());
        }
        Ok(())
    }

    async fn kill_and_restart(&mut self, positions: &[usize]) -> anyhow::Result<String> {
        for position in positions {
            self.cluster.nodes[*position].process.kill().await;
        }
        let down = self.downtime();
        sleep(down).await;
        self.restart(positions).await?;
        Ok(format!("{}, down for {down:?}", names(positions)))
    }

    async fn kill_validators(&mut self) -> anyhow::Result<String> {
        self.cluster.kill_validators().await;
        let down = self.downtime();
        sleep(down).await;
        for position in 0..self.cluster.validators() {
            self.cluster.start_validator(position)?;
        }
        Ok(format!("all {}, down for {down:?}", self.cluster.validators()))
    }

    async fn kill_prover(&mut self) -> anyhow::Result<String> {
        self.cluster.kill_prover().await;
        let down = self.downtime();
        sleep(down).await;
        self.cluster.start_prover()?;
        Ok(format!("down for {down:?}"))
    }

    async fn freeze(&mut self, position: usize) -> anyhow::Result<String> {
        self.cluster.nodes[position].process.freeze();
        let hold = self.hold();
        sleep(hold).await;
        self.cluster.nodes[position].process.thaw();
        Ok(format!("{} for {hold:?}", names(&[position])))
    }

    async fn rolling_restart(&mut self) -> anyhow::Result<String> {
        let mut forced = 0;
        for position in self.cluster.members() {
            forced += usize::from(!self.cluster.nodes[position].process.stop().await);
            self.restart(&[position]).await?;
        }
        anyhow::ensure!(forced == 0, "{forced} nodes did not stop in time");
        Ok("every node in turn".to_owned())
    }

    /// Every place on the network.
    fn places(&self) -> Vec<Place> {
        let nodes = self.cluster.members().into_iter().map(Place::Node);
        let validators = (0..self.cluster.validators()).map(Place::Validator);
        nodes.chain(validators).chain([Place::Prover, Place::Clients]).collect()
    }

    /// Cuts links, in these directions; tells by what means.
    fn cut(&self, directions: &[(Place, Place)]) -> anyhow::Result<&'static str> {
        // drawn wherever the run is, so that what else is drawn stays the same
        let by_kernel = self.dice.chance(BY_KERNEL_PER_MILLE) && self.links.network().can_cut();
        self.links.cut(directions, by_kernel).context("the network cannot be cut")?;
        Ok(if by_kernel { "the kernel" } else { "the proxies" })
    }

    async fn partition(&mut self, leader_in_minority: bool) -> anyhow::Result<String> {
        let leader = self.leader().await?;
        let mut others: Vec<usize> =
            self.cluster.members().into_iter().filter(|position| *position != leader).collect();
        let minority_size = self.cluster.members().len().saturating_sub(1) / 2;
        let mut minority = if leader_in_minority { vec![leader] } else { Vec::new() };
        while minority.len() < minority_size && !others.is_empty() {
            let drawn = self.dice.number() % u64::try_from(others.len())?;
            minority.push(others.swap_remove(usize::try_from(drawn)?));
        }
        let cut: Vec<Place> = minority.iter().copied().map(Place::Node).collect();
        // clients reach both sides: those behind the cut must not be told lies
        let mut directions = Vec::new();
        for left in &cut {
            for right in self.places().into_iter().filter(|place| !cut.contains(place) && *place != Place::Clients) {
                directions.extend([(*left, right), (right, *left)]);
            }
        }
        let (means, hold) = (self.cut(&directions)?, self.hold());
        sleep(hold).await;
        Ok(format!("{} cut off by {means} for {hold:?}", names(&minority)))
    }

    async fn one_way(&mut self) -> anyhow::Result<String> {
        let (from, to) = (self.some_member()?, self.follower().await?);
        let to = if from == to { self.leader().await? } else { to };
        let (means, hold) = (self.cut(&[(Place::Node(from), Place::Node(to))])?, self.hold());
        sleep(hold).await;
        Ok(format!("n{} does not reach n{}, by {means}, for {hold:?}", from + 1, to + 1))
    }

    async fn bridge(&mut self) -> anyhow::Result<String> {
        let left = self.leader().await?;
        let right = self.follower().await?;
        let ends = (Place::Node(left), Place::Node(right));
        let (means, hold) = (self.cut(&[ends, (ends.1, ends.0)])?, self.hold());
        sleep(hold).await;
        Ok(format!("n{} and n{} do not reach one another, by {means}, for {hold:?}", left + 1, right + 1))
    }

    async fn isolate_leader(&mut self, wholly: bool) -> anyhow::Result<String> {
        let leader = self.leader().await?;
        let mut directions = Vec::new();
        for place in self.places().into_iter().filter(|place| *place != Place::Node(leader)) {
            directions.push((place, Place::Node(leader)));
            if wholly {
                directions.push((Place::Node(leader), place));
            }
        }
        let (means, hold) = (self.cut(&directions)?, self.hold());
        sleep(hold).await;
        Ok(format!("{} by {means} for {hold:?}", names(&[leader])))
    }

    async fn pull_cable(&mut self) -> anyhow::Result<String> {
        let position = if self.dice.chance(500) { self.leader().await? } else { self.some_member()? };
        self.links.network().unplug(Place::Node(position)).context("the cable cannot be pulled")?;
        let hold = self.hold();
        sleep(hold).await;
        Ok(format!("{} for {hold:?}", names(&[position])))
    }

    async fn lose_address(&mut self) -> anyhow::Result<String> {
        let position = self.some_member()?;
        self.links.network().take_address(Place::Node(position)).context("the address cannot be taken away")?;
        let hold = self.hold();
        sleep(hold).await;
        Ok(format!("{} for {hold:?}", names(&[position])))
    }

    fn slow(&self) -> Weather {
        Weather { delay_ms: self.dice.between(5..=40), jitter_ms: self.dice.between(10..=80), loss_per_mille: 0 }
    }

    async fn weather(&mut self, weather: Weather) -> anyhow::Result<String> {
        self.links.set_weather(weather);
        let hold = self.hold();
        sleep(hold).await;
        let Weather { delay_ms, jitter_ms, loss_per_mille } = weather;
        Ok(format!("{delay_ms} to {} ms, {loss_per_mille} of 1000 lost, for {hold:?}", delay_ms + jitter_ms))
    }

    async fn reset_links(&mut self) -> anyhow::Result<String> {
        let times = self.dice.between(2..=6);
        for _ in 0..times {
            self.links.reset();
            sleep(self.dice.pause(&(Duration::from_millis(50)..=Duration::from_millis(500)))).await;
        }
        Ok(format!("every connection, {times} times"))
    }

    async fn clock_skew(&mut self) -> anyhow::Result<String> {
        let position = self.some_member()?;
        let offset = i64::try_from(self.dice.between(0..=6_000))? - 3_000;
        self.cluster.nodes[position].clock_offset_ms = offset;
        self.cluster.nodes[position].process.kill().await;
        self.restart(&[position]).await?;
        Ok(format!("{} is {offset} ms off from now on", names(&[position])))
    }

    async fn cut_power(&mut self, positions: &[usize]) -> anyhow::Result<String> {
        for position in positions {
            self.cluster.nodes[*position].disk.cut_power()?;
        }
        for position in positions {
            self.cluster.nodes[*position].process.kill().await;
        }
        let down = self.downtime();
        sleep(down).await;
        for position in positions {
            self.cluster.nodes[*position].disk.restore_power()?;
        }
        self.restart(positions).await?;
        Ok(format!("{}, down for {down:?}", names(positions)))
    }

    /// Waits until the node ends by itself; tells how.
    async fn await_end(&mut self, position: usize, patience: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if let Some(status) = self.cluster.nodes[position].process.ended() {
                return Some(status);
            }
            sleep(Duration::from_millis(50)).await;
        }
        None
    }

    /// The node ends and says why, when its reserve is used up, and again where it is started on a disk that is still
    /// full.
    async fn full_disk(&mut self) -> anyhow::Result<String> {
        let position = self.some_member()?;
        self.cluster.nodes[position].disk.fill()?;
        // its log has room reserved that lasts for long; its tables have not
        self.ask_snapshot(position).await;
        let under_load = self.await_want_of_space(position).await;
        self.cluster.nodes[position].disk.fill()?;
        self.cluster.start_node(position)?;
        let at_start = self.await_want_of_space(position).await;
        self.cluster.nodes[position].disk.free()?;
        self.restart(&[position]).await?;
        under_load.context("under load")?;
        at_start.context("started on a full disk")?;
        Ok(format!("{} ended, ended again while it was full, and came back", names(&[position])))
    }

    /// The node ends by itself and says that no space is left. It does not run afterwards.
    async fn await_want_of_space(&mut self, position: usize) -> anyhow::Result<()> {
        let ended = self.await_end(position, NOTICE_MAX).await;
        self.cluster.nodes[position].process.kill().await;
        let words = self.cluster.nodes[position].process.last_words();
        let status = ended.with_context(|| format!("n{} went on although its disk is full", position + 1))?;
        anyhow::ensure!(words.contains("no space left"), "n{} ended ({status}): {words}", position + 1);
        Ok(())
    }

    async fn stall_disk(&mut self) -> anyhow::Result<String> {
        let position = self.some_member()?;
        let times = self.dice.between(1..=4);
        for _ in 0..times {
            self.cluster.nodes[position].disk.freeze()?;
            let stalled = self.dice.pause(&(Duration::from_millis(100)..=Duration::from_millis(1_500)));
            sleep(stalled).await;
            self.cluster.nodes[position].disk.thaw()?;
            sleep(Duration::from_millis(200)).await;
        }
        Ok(format!("{}, {times} times", names(&[position])))
    }

    async fn fail_disk(&mut self) -> anyhow::Result<String> {
        let position = self.some_member()?;
        self.cluster.nodes[position].disk.cut_power()?;
        let ended = self.await_end(position, NOTICE_MAX).await;
        self.cluster.nodes[position].process.kill().await;
        self.cluster.nodes[position].disk.restore_power()?;
        self.restart(&[position]).await?;
        let ended = ended.context("the node went on although its disk fails every write")?;
        Ok(format!("{} ended ({ended}) and came back", names(&[position])))
    }

    /// The damaged node refuses, or tells the order that the leader tells; it never starts on a damaged log. In the end
    /// its copy is set aside, and a new member takes its place: damage may lie where nobody has looked yet.
    ///
    /// It is stopped in order: what a crash leaves of a last write that was never answered looks like damage.
    async fn flip_bit(&mut self) -> anyhow::Result<String> {
        let position = self.follower().await?;
        let stopped = self.cluster.nodes[position].process.stop().await;
        anyhow::ensure!(stopped, "n{} did not stop in time", position + 1);
        let Some(flipped) = self.cluster.nodes[position].disk.flip_bit(&self.dice)? else {
            self.restart(&[position]).await?;
            return Ok("nothing to flip a bit of".to_owned());
        };
        self.cluster.start_node(position)?;
        let found = self.look_into(position).await;
        self.cluster.nodes[position].process.kill().await;
        let replaced = self.replace(position).await?;
        let (refused, how) = found.with_context(|| flipped.what.clone())?;
        anyhow::ensure!(refused || !flipped.of_log, "{}: {how} although its log is damaged", flipped.what);
        Ok(format!("{}: {}: {how}; {replaced}", names(&[position]), flipped.what))
    }

    /// Reads all that a damaged node tells, as long as it tells anything: whether it refused, and what it did.
    async fn look_into(&mut self, position: usize) -> anyhow::Result<(bool, String)> {
        let deadline = Instant::now() + NOTICE_MAX;
        let (mut ended, mut takes_part) = (None, false);
        while ended.is_none() && !takes_part && Instant::now() < deadline {
            takes_part = self.cluster.await_part(position, Duration::from_millis(100)).await;
            ended = self.cluster.nodes[position].process.ended();
        }
        let told = if takes_part { Some(self.audit(position).await?) } else { None };
        if ended.is_none() {
            ended = self.await_end(position, Duration::from_secs(1)).await;
        }
        let words = self.cluster.nodes[position].process.last_words();
        let words: String = words.rsplit(" | ").next().unwrap_or_default().chars().take(240).collect();
        if let Some(status) = ended {
            anyhow::ensure!(REFUSALS.contains(&status.code()), "it ended ({status}): {words}");
            return Ok((true, format!("it refused ({status}: {words})")));
        }
        Ok(match told {
            Some(Ok(batches)) => (false, format!("it told {batches} batches as they were")),
            Some(Err(problem)) => (true, format!("it refused to tell them: {problem}")),
            None => (true, format!("it did not take part: {words}")),
        })
    }

    /// Compares all that a node tells with what the leader tells: how many batches, or why the node does not tell them.
    async fn audit(&mut self, position: usize) -> anyhow::Result<Result<usize, Problem>> {
        let leader = self.leader().await?;
        let (audited, sound) = (self.cluster.direct(position)?, self.cluster.direct(leader)?);
        let head = match audited.position(Consistency::Local).await {
            Ok(head) => head,
            Err(problem) => return Ok(Err(problem)),
        };
        let told = match read_back::everything(&audited, &head).await {
            Ok(told) => told,
            Err(error) => return error.downcast::<Problem>().map(Err),
        };
        let batches = told.len();
        let right = read_back::everything(&sound, &head).await.context("reading the leader's copy")?;
        let copies = [(names(&[leader]), right), (names(&[position]), told)];
        read_back::compare(&copies, &mut self.findings);
        Ok(Ok(batches))
    }

    /// A new member with an empty disk takes the place of one that is gone for ever.
    async fn replace(&mut self, position: usize) -> anyhow::Result<String> {
        let old = self.cluster.nodes[position].id;
        self.cluster.remove(position).await?;
        self.cluster.join_fresh(position).await?;
        let takes_part = self.cluster.await_part(position, PART_MAX).await;
        anyhow::ensure!(takes_part, "the new member at n{} does not take part", position + 1);
        let new = self.cluster.nodes[position].id;
        Ok(format!("member {new} took the place of member {old}"))
    }

    /// The spare place is given to a new member, or its member is removed.
    async fn change_members(&mut self) -> anyhow::Result<String> {
        let spare = self.cluster.nodes.len() - 1;
        if self.cluster.nodes[spare].member {
            self.cluster.remove(spare).await?;
            self.cluster.nodes[spare].process.kill().await;
            return Ok(format!("the member at n{} was removed", spare + 1));
        }
        self.cluster.join_fresh(spare).await?;
        Ok(format!("member {} joined at n{}", self.cluster.nodes[spare].id, spare + 1))
    }

    /// Has a node write out its state. One that cannot now does so by itself later.
    async fn ask_snapshot(&self, position: usize) {
        let address = self.cluster.nodes[position].grpc;
        let asked = async {
            let mut admin = AdminClient::connect(format!("http://{address}")).await.ok()?;
            admin.snapshot(wire::GetStatusRequest {}).await.ok()
        };
        drop(timeout(Duration::from_secs(5), asked).await);
    }

    async fn snapshot(&mut self) -> anyhow::Result<String> {
        let away = self.follower().await?;
        self.cluster.nodes[away].process.kill().await;
        sleep(self.hold()).await;
        for position in self.cluster.members().into_iter().filter(|position| *position != away) {
            self.ask_snapshot(position).await;
        }
        sleep(Duration::from_millis(500)).await;
        self.restart(&[away]).await?;
        Ok(format!("on all, while {} was away", names(&[away])))
    }

    async fn transfer_leader(&mut self) -> anyhow::Result<String> {
        let (from, to) = (self.leader().await?, self.follower().await?);
        let id = self.cluster.nodes[to].id;
        let transfer = |mut admin: AdminClient<Channel>| async move {
            admin.transfer_leader(wire::NodeRequest { node: id }).await
        };
        self.cluster.on_leader(transfer).await?;
        Ok(format!("from n{} to n{}", from + 1, to + 1))
    }
}

fn names(positions: &[usize]) -> String {
    let names: Vec<String> = positions.iter().map(|position| format!("n{}", position + 1)).collect();
    names.join(", ")
}
