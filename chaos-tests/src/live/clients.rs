//! Clients of a real cluster: they use the SDK, give up in the middle, come back with the same bytes, and write down
//! what they were told.

use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use client::{Client, Consistency, HeadFault, HeadTracker, Outcome, SignedTransaction, TrustedNodes};
use ledger::Transaction;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};

use crate::check::{Findings, Property};
use crate::dice::{Dice, lock};
use crate::history::{Call, Found, Journal, Level, Ticket, Told};
use crate::workload::{Kind, Market, decoded, signed};

/// How long a call of a client may take.
const DEADLINE: Duration = Duration::from_secs(8);
/// Outputs in a read.
const PAGE: u32 = 500;
/// Time between two submissions that are made whatever became of the last ones: the grain in which recovery is measured.
const PULSE: Duration = Duration::from_millis(20);
/// Those that wait for their answers at once.
const PULSES_MAX: usize = 400;
/// How long it may take at the end until everything is known.
const SETTLE_MAX: Duration = Duration::from_secs(60);

/// What clients do, as the command line names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    /// Transfers, two of them for one position at times.
    Bank,
    /// Proposals, settlements, withdrawals.
    Settlements,
    /// Payments out of one position that everybody pays from.
    Hot,
    /// Single positions that are replaced again and again.
    Registers,
    /// Issues, each of its own.
    Set,
    /// Atomic groups.
    Groups,
    /// Commands, whose inputs are chosen at their place.
    Commands,
    /// Transactions with false signatures.
    Forgeries,
}

impl Workload {
    /// Every one.
    pub const ALL: [Self; 8] = [
        Self::Bank,
        Self::Settlements,
        Self::Hot,
        Self::Registers,
        Self::Set,
        Self::Groups,
        Self::Commands,
        Self::Forgeries,
    ];

    /// The name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bank => "bank",
            Self::Settlements => "settlements",
            Self::Hot => "hot",
            Self::Registers => "registers",
            Self::Set => "set",
            Self::Groups => "groups",
            Self::Commands => "commands",
            Self::Forgeries => "forgeries",
        }
    }

    const fn kinds(self) -> &'static [Kind] {
        match self {
            Self::Bank => &[Kind::Transfer, Kind::Transfer, Kind::Transfer, Kind::DoubleSpend],
            Self::Settlements => &[Kind::Propose, Kind::Settle, Kind::TakeBack],
            Self::Hot => &[Kind::Hot],
            Self::Registers => &[Kind::Register],
            Self::Set => &[Kind::Issue],
            Self::Groups => &[Kind::Group],
            Self::Commands => &[Kind::Command],
            Self::Forgeries => &[Kind::Forgery],
        }
    }
}

impl FromStr for Workload {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names: Vec<&str> = Self::ALL.into_iter().map(Self::name).collect();
        let found = Self::ALL.into_iter().find(|workload| workload.name() == text);
        found.ok_or_else(|| format!("there is no workload {text}: choose of {}", names.join(", ")))
    }
}

/// What all clients share.
#[derive(Debug)]
pub(super) struct Desk {
    began: Instant,
    pub(super) market: Market,
    dice: Dice,
    kinds: Vec<Kind>,
    journal: Mutex<Journal>,
    /// Submissions that somebody gave up on in the middle.
    abandoned: Mutex<Vec<(Ticket, Vec<SignedTransaction>)>>,
    findings: Mutex<Findings>,
    committed: AtomicU64,
    stop: AtomicBool,
}

impl Desk {
    pub(super) fn new(began: Instant, market: &Market, dice: &Dice, workloads: &[Workload]) -> Arc<Self> {
        Arc::new(Self {
            began,
            market: market.clone(),
            dice: dice.branch(),
            kinds: workloads.iter().flat_map(|workload| workload.kinds()).copied().collect(),
            journal: Mutex::default(),
            abandoned: Mutex::default(),
            findings: Mutex::default(),
            committed: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        })
    }

    pub(super) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Commits that clients were told of.
    pub(super) fn committed(&self) -> u64 {
        self.committed.load(Ordering::Relaxed)
    }

    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    fn stops(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    pub(super) fn journal(&self) -> Journal {
        lock(&self.journal).clone()
    }

    pub(super) fn findings(&self) -> Findings {
        lock(&self.findings).clone()
    }

    fn found(&self, property: Property, what: impl Into<String>) {
        lock(&self.findings).violation(property, what);
    }

    fn begin(&self, client: u64, members: &[SignedTransaction]) -> Ticket {
        let ids = members.iter().map(SignedTransaction::id).collect();
        let bytes: Vec<Bytes> = members.iter().map(|member| member.bytes().clone()).collect();
        let call = Call::Submission { answers: vec![None; bytes.len()], members: bytes, ids };
        lock(&self.journal).invoke(client, self.now(), call)
    }

    /// True where all is known.
    fn learn(&self, ticket: Ticket, outcomes: &[Outcome], given_up_before: bool) -> bool {
        let told: Vec<Option<Told>> =
            outcomes.iter().map(|outcome| Told::of_outcome(outcome, given_up_before)).collect();
        let committed = outcomes.iter().filter(|outcome| outcome.is_committed()).count();
        self.committed.fetch_add(u64::try_from(committed).unwrap_or_default(), Ordering::Relaxed);
        let learned = lock(&self.journal).learn(ticket, self.now(), &told);
        learned.unwrap_or_else(|contradiction| {
            self.found(Property::Acknowledgements, contradiction.to_string());
            false
        })
    }

    fn give_up(&self, ticket: Ticket, members: Vec<SignedTransaction>) {
        lock(&self.abandoned).push((ticket, members));
    }

    /// The market's registers and its hot position, before anybody else acts.
    pub(super) async fn prepare(&self, client: &Client) -> anyhow::Result<()> {
        for transaction in self.market.preparations() {
            let signed = signed(std::slice::from_ref(&transaction));
            let ticket = self.begin(0, &signed);
            let outcomes = client.submit_group(&signed).await;
            anyhow::ensure!(self.learn(ticket, &outcomes, false), "the ledger takes no work: {outcomes:?}");
            let answers: Vec<Option<Told>> = outcomes.iter().map(|outcome| Told::of_outcome(outcome, false)).collect();
            self.market.learn(&[transaction], &answers);
        }
        Ok(())
    }

    /// Submits again what is unknown, with the same bytes, until it is known or the time is over.
    pub(super) async fn settle(self: &Arc<Self>, client: &Client) {
        let deadline = Instant::now() + SETTLE_MAX;
        loop {
            let unknown = lock(&self.journal).unknown();
            if unknown.is_empty() {
                return;
            }
            if Instant::now() > deadline {
                let what = format!("{} submissions have no answer {SETTLE_MAX:?} after the last fault", unknown.len());
                return self.found(Property::Recovery, what);
            }
            for batch in unknown.chunks(64) {
                let asked = batch.iter().map(|(ticket, members)| async move {
                    let members = decoded(members);
                    self.learn(*ticket, &client.submit_group(&members).await, true)
                });
                futures::future::join_all(asked).await;
            }
        }
    }
}

/// A client of all endpoints that begins with another one for each number.
pub(super) fn connect(endpoints: &[String], number: usize) -> anyhow::Result<Client> {
    let mut endpoints = endpoints.to_vec();
    let count = endpoints.len().max(1);
    endpoints.rotate_left(number % count);
    Ok(Client::builder().endpoints(endpoints).deadline(DEADLINE).connect()?)
}

/// One client, which waits for its answers. Ends when the desk says so.
pub(super) async fn trade(desk: Arc<Desk>, number: u64, client: Client) {
    let think = Duration::from_millis(0)..=Duration::from_millis(12);
    while !desk.stops() {
        sleep(desk.dice.pause(&think)).await;
        match desk.dice.between(0..=99) {
            0..=11 => read(&desk, number, &client).await,
            12..=14 => resubmit(&desk, &client).await,
            _ => {
                for members in desk.market.draw_of(&desk.kinds) {
                    submit(&desk, number, &client, members).await;
                }
            }
        }
    }
}

async fn submit(desk: &Desk, number: u64, client: &Client, members: Vec<Transaction>) {
    let signed = signed(&members);
    let ticket = desk.begin(number, &signed);
    // now and then the client is gone before the answer comes
    let patience = if desk.dice.chance(30) { Duration::from_millis(desk.dice.between(0..=40)) } else { DEADLINE * 4 };
    let Ok(outcomes) = timeout(patience, client.submit_group(&signed)).await else {
        return desk.give_up(ticket, signed);
    };
    let answers: Vec<Option<Told>> = outcomes.iter().map(|outcome| Told::of_outcome(outcome, false)).collect();
    if !desk.learn(ticket, &outcomes, false) {
        desk.give_up(ticket, signed);
    }
    desk.market.learn(&members, &answers);
}

/// Somebody else comes back with the same bytes.
async fn resubmit(desk: &Desk, client: &Client) {
    let given_up = {
        let mut abandoned = lock(&desk.abandoned);
        if abandoned.is_empty() { None } else { Some(abandoned.swap_remove(0)) }
    };
    let Some((ticket, members)) = given_up else { return };
    if !desk.learn(ticket, &client.submit_group(&members).await, true) {
        desk.give_up(ticket, members);
    }
}

async fn read(desk: &Desk, number: u64, client: &Client) {
    let party = desk.market.some_holder();
    let (level, consistency) = match desk.dice.between(0..=9) {
        0 => (Level::Local, Consistency::Local),
        1 => {
            let size = desk.market.seen_size();
            (Level::AtLeast(size), Consistency::AtLeast(size))
        }
        _ => (Level::Linearizable, Consistency::Linearizable),
    };
    let ticket = lock(&desk.journal).invoke(number, desk.now(), Call::Read { party, level, found: None });
    let Ok(held) = client.holdings(&party, None, PAGE, consistency).await else { return };
    desk.market.see(&held.head);
    let outputs = held.outputs.iter().map(|output| output.id).collect();
    let found = Found { head: held.head, outputs, complete: held.next.is_none() };
    lock(&desk.journal).read(ticket, desk.now(), found);
}

/// Submits again and again without waiting for answers: what comes back first after a fault tells when it was over.
pub(super) async fn pulse(desk: Arc<Desk>, number: u64, clients: Vec<Client>) {
    let room = Arc::new(Semaphore::new(PULSES_MAX));
    for client in clients.iter().cycle() {
        if desk.stops() {
            break;
        }
        sleep(PULSE).await;
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else { continue };
        let (desk, client) = (Arc::clone(&desk), client.clone());
        drop(tokio::spawn(async move {
            let members = signed(&[desk.market.issue()]);
            let ticket = desk.begin(number, &members);
            desk.learn(ticket, &client.submit_group(&members).await, false);
            drop(permit);
        }));
    }
    // all have come back: what is unknown afterwards is for the settling
    drop(room.acquire_many(u32::try_from(PULSES_MAX).unwrap_or(u32::MAX)).await);
}

/// A client that keeps the heads it saw: each must continue the last.
pub(super) async fn keep_heads(desk: Arc<Desk>, client: Client) {
    let mut tracker: Option<HeadTracker> = None;
    while !desk.stops() {
        sleep(Duration::from_millis(300)).await;
        let Ok(cluster) = client.fetch_cluster().await else { continue };
        // members come and go; what was seen stays
        let trusted = TrustedNodes::named_by(&cluster, 1);
        let tracked = tracker.get_or_insert_with(|| HeadTracker::new(trusted.clone()));
        tracked.trust(trusted);
        match tracked.advance(&client).await {
            Ok(_) => lock(&desk.findings).looked_at(Property::AppendOnly, 1),
            Err(fault @ (HeadFault::Forked(_) | HeadFault::Unconnected { .. })) => {
                desk.found(Property::AppendOnly, fault.to_string());
            }
            // whoever signed it came or went in between
            Err(HeadFault::Untrusted(_) | HeadFault::Problem(_)) => {}
        }
    }
}
