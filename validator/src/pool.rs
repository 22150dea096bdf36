//! How a gateway obtains certificates: it spreads bundles over the validators that it knows.
//!
//! Flows in: a bundle and the validator set in force. Flows out: as many certificates as the set requires, of
//! different validators, that agree. Four parts: [`roster`] remembers the validators and chooses among them,
//! [`call`] puts one question to one validator and judges the answer, [`round`] certifies one bundle, and the
//! tending task here probes validators that failed.
//!
//! Rules:
//! * No certificate leaves the pool unless its signature, digest, epoch, key and reasons were checked.
//! * Honest validators never disagree. Where two certificates do, this node checks the bundle itself, its own
//!   finding is the truth, and whoever signed something else is *faulty*: named in the log and in
//!   [`ValidatorPool::status`], and not asked again until [`ValidatorPool::pardon`].
//! * So fewer liars than required certificates are always found out, and as many as required that tell the same
//!   lie are believed: a ledger that does not trust each of its validators alone requires two certificates.
//! * The node checks in process, with its own key, only while no validator is usable (or too few are): slow or
//!   saturated ones are waited for, because a node that begins to validate under load loses its own work.
//! * Processes that hold the same key are instances of one validator: they share its work, and its guilt. A bundle is
//!   put to each instance once, and one certificate of a validator counts. An answer that comes late still counts for that validator's
//!   standing, and for nothing else.

mod call;
mod latency;
mod roster;
mod round;

use std::fmt::{self, Debug};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use ledger::bundle::BundleLayout;
use ledger::certificate::{Certificate, ValidatorSet};
use ledger::check::LedgerIdentity;
use ledger::signature::SigningKey;
use ledger::{Limits, Party, Rejection};
use seams::{Address, CallError, Compute, Entropy, Transport, next_u64, tasks};
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::announce::ANNOUNCE_INTERVAL;
use crate::message::{Announcement, AnnouncementFault, REFUSED_ANNOUNCEMENT, REFUSED_MALFORMED};
use call::{CallFault, Question, Vouched};
use roster::{Instance, Probe, Roster, answered_by_another};
use round::Round;

/// How a pool treats its validators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolOptions {
    /// Validators that need not announce themselves. Each address is one validator's; its key is learned.
    pub addresses: Vec<Address>,
    /// Bundles with one validator at once.
    pub in_flight_max: usize,
    /// A validator that has not answered by then counts as failed.
    pub call_timeout: Duration,
    /// A bundle without its certificates by then is given back to the gateway.
    pub certify_timeout: Duration,
    /// Another validator is asked at the earliest after this.
    pub hedge_delay_min: Duration,
    /// And at the latest after this, also while no latencies are known; after three times as long where all are slow.
    pub hedge_delay_max: Duration,
    /// How long a validator is left alone after its first failure; doubled with each further one.
    pub probation_min: Duration,
    /// The longest it is left alone.
    pub probation_max: Duration,
    /// How long an announcement holds.
    pub announcement_lease: Duration,
    /// The limits that bundles keep.
    pub limits: Limits,
}

impl Default for PoolOptions {
    fn default() -> Self {
        Self {
            addresses: Vec::new(),
            in_flight_max: 8,
            call_timeout: Duration::from_secs(3),
            certify_timeout: Duration::from_secs(10),
            hedge_delay_min: Duration::from_millis(20),
            hedge_delay_max: Duration::from_millis(500),
            probation_min: Duration::from_millis(250),
            probation_max: Duration::from_secs(30),
            announcement_lease: ANNOUNCE_INTERVAL.saturating_mul(5),
            limits: Limits::V1,
        }
    }
}

/// What a bundle needs to be ordered, and what its senders need to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certified {
    /// Agreeing certificates of different validators, as many as required.
    pub certificates: Vec<Certificate>,
    /// Index and reason of every transaction that did not pass, ascending.
    pub rejections: Vec<(usize, Rejection)>,
}

/// Why a bundle has no certificates. Nothing happened to it: certifying it again is safe.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PoolFault {
    /// There are not enough usable validators, this node included.
    #[error("{found} of the {required} validators that a bundle needs are usable")]
    TooFewValidators {
        /// Certificates obtained or obtainable.
        found: usize,
        /// Certificates required.
        required: usize,
    },
    /// The validators there are did not find the time.
    #[error("{found} of {required} certificates after {waited:?}: the validators are overloaded or too slow")]
    Late {
        /// Certificates obtained.
        found: usize,
        /// Certificates required.
        required: usize,
        /// How long the pool tried.
        waited: Duration,
    },
}

/// How many bundles the usable validators can check at the same time, one each, by as many of them as a bundle needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// In all.
    pub at_once: usize,
    /// By those that have nothing of this pool to do.
    pub idle: usize,
}

/// What a pool has done since it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PoolCounters {
    /// Bundles certified.
    pub bundles: u64,
    /// Bundles given back without certificates.
    pub uncertified_bundles: u64,
    /// Bundles for which this node's own check stood in for a missing validator.
    pub fallback_bundles: u64,
    /// Bundles put to one more validator because another was slow.
    pub hedges: u64,
    /// Calls that failed: unreachable, timed out, unreadable.
    pub failures: u64,
    /// Calls that an overloaded validator refused.
    pub refusals: u64,
    /// Bundles on which validators disagreed.
    pub disagreements: u64,
    /// Wrong certificates and replies; each made its validator faulty.
    pub convictions: u64,
}

/// How a validator stands with this pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValidatorState {
    /// It is given bundles.
    Healthy,
    /// It failed and is left alone until a probe succeeds.
    Probation {
        /// Failures since it last served.
        failures: u32,
        /// The latest.
        reason: String,
    },
    /// It gave a wrong certificate and is not asked again.
    Faulty {
        /// What was wrong.
        reason: String,
    },
    /// Its key is not known yet, or not in the validator set.
    UnknownKey,
}

/// One instance of a validator as the pool sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidatorStatus {
    /// Where it is.
    pub address: Address,
    /// Its key; `None` while a configured address has not answered.
    pub key: Option<Party>,
    /// How it stands.
    pub state: ValidatorState,
    /// Bundles with it now.
    pub in_flight: usize,
    /// The time within which it answered 95 % of its recent bundles; `None` before the first.
    pub latency_p95: Option<Duration>,
    /// Bundles it answered.
    pub served: u64,
    /// Calls that failed.
    pub failed: u64,
    /// Calls it refused as overloaded.
    pub refused: u64,
}

/// A gateway's view of the validators. Clones are the same pool.
#[derive(Clone)]
pub struct ValidatorPool {
    inner: Arc<Inner>,
}

struct Inner {
    options: PoolOptions,
    transport: Arc<dyn Transport>,
    compute: Arc<dyn Compute>,
    identity: LedgerIdentity,
    local_key: SigningKey,
    entropy: Arc<dyn Entropy>,
    roster: Mutex<Roster>,
    /// Something changed that a waiting round may want to know: a place became free, a validator usable.
    changed: Notify,
}

impl Debug for ValidatorPool {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ValidatorPool").field("options", &self.inner.options).finish_non_exhaustive()
    }
}

impl ValidatorPool {
    /// A pool, and a task that tends it until the pool is dropped. Call it on the runtime, in the task group
    /// of the node. `local_key` is the node's own validator key; where it is in the validator set, the node
    /// can stand in for validators.
    #[must_use]
    pub fn new(
        options: PoolOptions,
        transport: Arc<dyn Transport>,
        compute: Arc<dyn Compute>,
        identity: LedgerIdentity,
        local_key: SigningKey,
        entropy: Arc<dyn Entropy>,
    ) -> Self {
        let roster = Mutex::new(Roster::new(&options, local_key.party(), Instant::now()));
        let changed = Notify::new();
        let inner = Arc::new(Inner { options, transport, compute, identity, local_key, entropy, roster, changed });
        // ends by itself when the pool is dropped, so nothing waits for it
        drop(tasks::spawn(tend(Arc::downgrade(&inner))));
        Self { inner }
    }

    /// Obtains the certificates that `set` requires for the bundle whose layout is `layout`.
    ///
    /// Dropping the future loses nothing but the answer: calls on their way run to their end and release their
    /// places.
    ///
    /// # Errors
    /// Where there are too few usable validators, or they take too long. Certifying again is safe.
    pub async fn certify(
        &self,
        bundle: Bytes,
        layout: Arc<BundleLayout>,
        set: &ValidatorSet,
    ) -> Result<Certified, PoolFault> {
        self.observe(set);
        let result = Round::new(Arc::clone(&self.inner), bundle, layout, set.clone()).run().await;
        let mut roster = self.inner.roster();
        match &result {
            Ok(_) => roster.counters.bundles += 1,
            Err(_) => roster.counters.uncertified_bundles += 1,
        }
        result
    }

    /// How much the validators of this set could check now.
    #[must_use]
    pub fn room(&self, set: &ValidatorSet) -> Room {
        self.inner.roster().room(&self.inner.options, set)
    }

    /// Tells the pool the validator set in force, for its status and its probes. [`Self::certify`] does so too.
    pub fn observe(&self, set: &ValidatorSet) {
        self.inner.roster().observe(set);
    }

    /// Takes an announcement that arrived as [`seams::Method::AnnounceValidator`].
    ///
    /// # Errors
    /// Where it cannot be believed, or nobody wants to hear it.
    pub fn handle_announcement(&self, body: &[u8]) -> Result<(), AnnouncementFault> {
        let announcement = Announcement::decode(body, &self.inner.identity)?;
        self.inner.roster().announced(&self.inner.options, &announcement, Instant::now())?;
        self.inner.changed.notify_waiters();
        Ok(())
    }

    /// Gives a faulty validator another chance. False where it was not faulty.
    #[must_use]
    pub fn pardon(&self, validator: &Party) -> bool {
        let pardoned = self.inner.roster().pardon(validator);
        self.inner.changed.notify_waiters();
        pardoned
    }

    /// Every instance of a validator that the pool knows of, in the order of keys; then configured addresses without one.
    #[must_use]
    pub fn status(&self) -> Vec<ValidatorStatus> {
        self.inner.roster().status(&self.inner.options)
    }

    /// The counters so far.
    #[must_use]
    pub fn counters(&self) -> PoolCounters {
        self.inner.roster().counters
    }
}

impl Inner {
    fn roster(&self) -> MutexGuard<'_, Roster> {
        self.roster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn draw(&self) -> u64 {
        next_u64(&*self.entropy)
    }

    /// Writes what an answer says about the validator into the roster, whoever still waits for it.
    fn note(&self, instance: &Instance, latency: Duration, answer: &Result<Vouched, CallFault>) {
        let (now, draw) = (Instant::now(), self.draw());
        let mut roster = self.roster();
        match answer {
            Ok(_) => roster.served(instance, latency),
            Err(CallFault::Busy(retry_after)) => {
                roster.refused(&self.options, instance, now, *retry_after, draw);
            }
            Err(CallFault::Failed(reason)) => roster.failed(&self.options, instance, now, reason, draw),
            Err(CallFault::Stranger(stranger)) => {
                roster.failed(&self.options, instance, now, &answered_by_another(stranger), draw);
            }
            Err(CallFault::Wrong(reason)) => roster.convict(&instance.validator, reason),
        }
        drop(roster);
        self.changed.notify_waiters();
    }
}

impl From<AnnouncementFault> for CallError {
    fn from(fault: AnnouncementFault) -> Self {
        let code = match fault {
            AnnouncementFault::Message(_) | AnnouncementFault::Address => REFUSED_MALFORMED,
            AnnouncementFault::OtherLedger
            | AnnouncementFault::FalseSignature(_)
            | AnnouncementFault::TooManyUnknown(_)
            | AnnouncementFault::TooManyInstances(_)
            | AnnouncementFault::Overtaken(_) => REFUSED_ANNOUNCEMENT,
        };
        Self::Refused { code, message: fault.to_string(), retry_after: None }
    }
}

/// How often the pool looks whether a probe is due or an announcement has run out.
const TEND_INTERVAL: Duration = Duration::from_millis(50);

/// Probes whoever is due and forgets whoever fell silent, until the pool is dropped.
async fn tend(pool: Weak<Inner>) {
    let mut ticks = interval(TEND_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(inner) = pool.upgrade() else { return };
        let probes = inner.roster().due_probes(Instant::now());
        for probe in probes {
            // reports to the roster, so nothing waits for it
            drop(tasks::spawn(run_probe(Arc::clone(&inner), probe)));
        }
    }
}

/// Puts an empty bundle to a validator.
async fn run_probe(inner: Arc<Inner>, probe: Probe) {
    let epoch = inner.roster().epoch();
    let question = Arc::new(Question::probe(epoch, &inner.options.limits));
    let answer = call::put(&inner, &probe.address, &question, probe.validator).await;
    let (now, draw) = (Instant::now(), inner.draw());
    let mut roster = inner.roster();
    match probe.validator {
        Some(validator) => {
            let instance = Instance { validator, address: probe.address };
            roster.probed(&inner.options, &instance, now, answer.map(|_| ()), draw);
        }
        None => {
            let found = answer.ok().map(|vouched| vouched.certificate.validator);
            roster.located(&inner.options, &probe.address, now, found, draw);
        }
    }
    drop(roster);
    inner.changed.notify_waiters();
}
