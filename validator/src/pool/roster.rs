//! The validators that a pool knows, how each stands, and the choice among them. Synchronous: time and
//! randomness are arguments.
//!
//! ```text
//!            announced / located
//!                   │
//!                   ▼      failed, or refused again and again
//!               Healthy ────────────────────▶ Probation ◀─┐
//!                   ▲                          │   └──────┘ probe failed: twice as long
//!                   └──────────────────────────┘ probe or late answer succeeded
//!   any ── wrong certificate ──▶ Faulty ── pardon ──▶ as before
//! ```
//! A validator is given bundles while it is healthy, not faulty, and its key is in the bundle's validator set.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ledger::Party;
use ledger::certificate::ValidatorSet;
use seams::Address;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::call::CallFault;
use super::latency::{Latencies, late_after};
use super::{PoolCounters, PoolOptions, ValidatorState, ValidatorStatus};
use crate::message::{Announcement, AnnouncementFault};

/// Keys outside the validator set that are remembered: a set is extended by a few keys at a time, and whoever
/// reaches this node can make keys without end.
const UNKNOWN_KEYS_MAX: usize = 64;

/// Refusals in a row after which a validator counts as failed: an overloaded one serves some bundles between.
const REFUSALS_MAX: u32 = 8;

/// How long a refusal is believed at most, and how long where it names no time.
const BUSY_MAX: Duration = Duration::from_secs(1);
const BUSY_DEFAULT: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(super) struct Roster {
    pub(super) counters: PoolCounters,
    /// This node's own key: it is never called over the network.
    local: Party,
    members: BTreeMap<Party, Member>,
    sites: BTreeMap<Address, Site>,
    /// Why a validator is faulty.
    faulty: BTreeMap<Party, String>,
    epoch: u64,
    keys: BTreeSet<Party>,
}

#[derive(Debug)]
struct Member {
    address: Address,
    lease: Lease,
    health: Health,
    /// Failures since it last served a bundle.
    failures: u32,
    /// Refusals since it last served a bundle.
    refusals: u32,
    busy_until: Instant,
    places: Arc<Semaphore>,
    latencies: Latencies,
    served: u64,
    failed: u64,
    refused: u64,
}

/// How long a member is remembered.
#[derive(Debug, Clone, Copy)]
enum Lease {
    /// It is at a configured address.
    Configured,
    /// Until it falls silent.
    Announced { expires: Instant, unix_ms: u64 },
}

#[derive(Debug)]
enum Health {
    Healthy,
    Probation { until: Instant, probing: bool, reason: String },
}

/// A configured address. It is probed while no member is there.
#[derive(Debug)]
struct Site {
    due: Instant,
    probing: bool,
    failures: u32,
}

/// Whom to probe.
#[derive(Debug)]
pub(super) struct Probe {
    pub(super) address: Address,
    /// Whose answer is expected; `None` where that is the question.
    pub(super) validator: Option<Party>,
}

/// A place with a validator; dropping it gives the place back.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) validator: Party,
    pub(super) address: Address,
    pub(super) permit: OwnedSemaphorePermit,
}

/// What came of looking for a validator.
#[derive(Debug)]
pub(super) enum Choice {
    Take(Place),
    /// There are usable validators, but none has room; if all are busy, until this time.
    Wait(Option<Instant>),
    /// There is none.
    Nobody,
}

/// Why a validator is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The bundle needs it.
    Need,
    /// Another is slow. A hedge takes none of the second half of a validator's places, so that slowness of one
    /// cannot crowd out the work of the others.
    Hedge,
}

impl Member {
    fn new(options: &PoolOptions, address: Address, lease: Lease, now: Instant) -> Self {
        Self {
            address,
            lease,
            health: Health::Healthy,
            failures: 0,
            refusals: 0,
            busy_until: now,
            places: Arc::new(Semaphore::new(options.in_flight_max)),
            latencies: Latencies::default(),
            served: 0,
            failed: 0,
            refused: 0,
        }
    }

    fn is_current(&self, now: Instant) -> bool {
        match self.lease {
            Lease::Configured => true,
            Lease::Announced { expires, .. } => now < expires,
        }
    }

    fn is_healthy(&self) -> bool {
        matches!(self.health, Health::Healthy)
    }

    fn in_flight(&self, options: &PoolOptions) -> usize {
        options.in_flight_max.saturating_sub(self.places.available_permits())
    }

    fn put_on_probation(&mut self, options: &PoolOptions, now: Instant, reason: &str, draw: u64) {
        self.failures = self.failures.saturating_add(1);
        let until = now + probation(options, self.failures, draw);
        self.health = Health::Probation { until, probing: false, reason: reason.to_owned() };
    }
}

impl Roster {
    pub(super) fn new(options: &PoolOptions, local: Party, now: Instant) -> Self {
        let site = |address: &Address| (address.clone(), Site { due: now, probing: false, failures: 0 });
        Self {
            counters: PoolCounters::default(),
            local,
            members: BTreeMap::new(),
            sites: options.addresses.iter().map(site).collect(),
            faulty: BTreeMap::new(),
            epoch: 0,
            keys: BTreeSet::new(),
        }
    }

    pub(super) fn observe(&mut self, set: &ValidatorSet) {
        if self.keys.is_empty() || set.epoch > self.epoch {
            self.epoch = set.epoch;
            self.keys.clone_from(&set.keys);
        }
    }

    pub(super) const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Chooses the validator with the fewest bundles among those of the set that were not asked yet; by lot
    /// among equals.
    pub(super) fn choose(
        &self,
        options: &PoolOptions,
        set: &ValidatorSet,
        asked: &BTreeSet<Party>,
        purpose: Purpose,
        now: Instant,
        draw: u64,
    ) -> Choice {
        let usable: Vec<(&Party, &Member)> = self.usable(set, asked).collect();
        if usable.is_empty() {
            return Choice::Nobody;
        }
        let places = match purpose {
            Purpose::Need => options.in_flight_max,
            Purpose::Hedge => options.in_flight_max.div_ceil(2),
        };
        let with_room = || {
            let ready = usable.iter().filter(|(_, member)| member.busy_until <= now);
            ready
                .map(|(party, member)| (member.in_flight(options), *party, *member))
                .filter(|(load, ..)| *load < places)
        };
        let fewest = with_room().map(|(load, ..)| load).min();
        let tied: Vec<_> = with_room().filter(|(load, ..)| Some(*load) == fewest).collect();
        let chosen = lot(draw, tied.len()).and_then(|winner| tied.get(winner));
        let permit = chosen.and_then(|(_, _, member)| Arc::clone(&member.places).try_acquire_owned().ok());
        match (chosen, permit) {
            (Some((_, party, member)), Some(permit)) => {
                Choice::Take(Place { validator: **party, address: member.address.clone(), permit })
            }
            _ => Choice::Wait(usable.iter().map(|(_, member)| member.busy_until).filter(|until| *until > now).min()),
        }
    }

    fn usable<'a>(
        &'a self,
        set: &'a ValidatorSet,
        asked: &'a BTreeSet<Party>,
    ) -> impl Iterator<Item = (&'a Party, &'a Member)> {
        self.members.iter().filter(move |(party, member)| {
            member.is_healthy()
                && set.keys.contains(party)
                && !asked.contains(party)
                && !self.faulty.contains_key(party)
                && **party != self.local
        })
    }

    /// After how long an answer is late.
    pub(super) fn late_after(&self, options: &PoolOptions) -> Duration {
        let healthy = self.members.values().filter(|member| member.is_healthy());
        let p95_of_each = healthy.filter_map(|member| member.latencies.p95());
        late_after(p95_of_each, options.hedge_delay_min, options.hedge_delay_max)
    }

    pub(super) fn served(&mut self, validator: &Party, latency: Duration) {
        let Some(member) = self.members.get_mut(validator) else { return };
        member.latencies.record(latency);
        member.served += 1;
        member.failures = 0;
        member.refusals = 0;
        member.health = Health::Healthy;
    }

    pub(super) fn refused(
        &mut self,
        options: &PoolOptions,
        validator: &Party,
        now: Instant,
        retry_after: Option<Duration>,
        draw: u64,
    ) {
        self.counters.refusals += 1;
        let Some(member) = self.members.get_mut(validator) else { return };
        member.refused += 1;
        member.refusals = member.refusals.saturating_add(1);
        member.busy_until = now + retry_after.unwrap_or(BUSY_DEFAULT).min(BUSY_MAX);
        if member.refusals >= REFUSALS_MAX && member.is_healthy() {
            member.refusals = 0;
            member.put_on_probation(options, now, "it refuses every bundle as overloaded", draw);
        }
    }

    pub(super) fn failed(&mut self, options: &PoolOptions, validator: &Party, now: Instant, reason: &str, draw: u64) {
        self.counters.failures += 1;
        let Some(member) = self.members.get_mut(validator) else { return };
        member.failed += 1;
        // of several calls that fail together only the first counts: they are one failure
        if member.is_healthy() {
            tracing::warn!(%validator, address = %member.address, reason, "validator dropped");
            member.put_on_probation(options, now, reason, draw);
        }
    }

    pub(super) fn convict(&mut self, validator: &Party, reason: &str) {
        self.counters.convictions += 1;
        let address = self.members.get(validator).map(|member| member.address.as_str());
        tracing::error!(%validator, address, reason, "FAULTY VALIDATOR: remove its key from the validator set");
        self.faulty.entry(*validator).or_insert_with(|| reason.to_owned());
    }

    pub(super) fn pardon(&mut self, validator: &Party) -> bool {
        self.faulty.remove(validator).is_some()
    }

    pub(super) fn announced(
        &mut self,
        options: &PoolOptions,
        announcement: &Announcement,
        now: Instant,
    ) -> Result<(), AnnouncementFault> {
        self.forget_the_silent(now);
        let validator = announcement.validator();
        let unknown = self.members.keys().filter(|party| !self.keys.contains(party)).count();
        if !self.members.contains_key(&validator) && !self.keys.contains(&validator) && unknown >= UNKNOWN_KEYS_MAX {
            return Err(AnnouncementFault::TooManyUnknown(validator));
        }
        let unix_ms = announcement.announced_unix_ms();
        let lease = Lease::Announced { expires: now + options.announcement_lease, unix_ms };
        let member = self.members.entry(validator).or_insert_with(|| {
            tracing::info!(%validator, address = %announcement.address(), "validator joined");
            Member::new(options, announcement.address(), lease, now)
        });
        match member.lease {
            // overtaken on the way, or repeated by somebody else; a clock that was set back is believed again
            // once the lease has run out
            Lease::Announced { unix_ms: newest, .. } if unix_ms < newest => {}
            Lease::Announced { .. } | Lease::Configured => {
                member.lease = lease;
                member.address = announcement.address();
            }
        }
        Ok(())
    }

    /// Whoever is faulty stays, so that its name does.
    fn forget_the_silent(&mut self, now: Instant) {
        let faulty = &self.faulty;
        self.members.retain(|validator, member| {
            let stays = member.is_current(now) || faulty.contains_key(validator);
            if !stays {
                tracing::info!(%validator, address = %member.address, "validator left");
            }
            stays
        });
    }

    /// Everyone who is to be probed now.
    pub(super) fn due_probes(&mut self, now: Instant) -> Vec<Probe> {
        self.forget_the_silent(now);
        let mut probes = Vec::new();
        for (validator, member) in &mut self.members {
            if let Health::Probation { until, probing, .. } = &mut member.health
                && *until <= now
                && !*probing
            {
                *probing = true;
                probes.push(Probe { address: member.address.clone(), validator: Some(*validator) });
            }
        }
        let inhabited: BTreeSet<&Address> = self.members.values().map(|member| &member.address).collect();
        for (address, site) in &mut self.sites {
            if site.due <= now && !site.probing && !inhabited.contains(address) {
                site.probing = true;
                probes.push(Probe { address: address.clone(), validator: None });
            }
        }
        probes
    }

    /// A probe of a member came back.
    pub(super) fn probed(
        &mut self,
        options: &PoolOptions,
        validator: &Party,
        now: Instant,
        answer: Result<(), CallFault>,
        draw: u64,
    ) {
        if let Err(CallFault::Wrong(reason)) = &answer {
            self.convict(validator, reason);
        }
        let Some(member) = self.members.get_mut(validator) else { return };
        match answer {
            // refusing is a sign of life
            Ok(()) | Err(CallFault::Busy(_)) => {
                tracing::info!(%validator, address = %member.address, "validator taken back");
                member.health = Health::Healthy;
            }
            // the address is free again to be probed for whoever lives there
            Err(CallFault::Stranger(_)) if matches!(member.lease, Lease::Configured) => {
                self.members.remove(validator);
            }
            Err(CallFault::Stranger(stranger)) => {
                member.put_on_probation(options, now, &answered_by_another(&stranger), draw);
            }
            Err(CallFault::Failed(reason) | CallFault::Wrong(reason)) => {
                member.put_on_probation(options, now, &reason, draw);
            }
        }
    }

    /// A probe of a configured address came back, with the key of whoever is there.
    pub(super) fn located(
        &mut self,
        options: &PoolOptions,
        address: &Address,
        now: Instant,
        found: Option<Party>,
        draw: u64,
    ) {
        let Some(site) = self.sites.get_mut(address) else { return };
        site.probing = false;
        site.failures = if found.is_some() { 0 } else { site.failures.saturating_add(1) };
        // looked at again should whoever lives there be forgotten
        site.due = now + probation(options, site.failures.max(1), draw);
        let Some(validator) = found else { return };
        self.members.entry(validator).or_insert_with(|| {
            tracing::info!(%validator, %address, "validator found at a configured address");
            Member::new(options, address.clone(), Lease::Configured, now)
        });
    }

    pub(super) fn status(&self, options: &PoolOptions) -> Vec<ValidatorStatus> {
        let members = self.members.iter().map(|(validator, member)| ValidatorStatus {
            address: member.address.clone(),
            key: Some(*validator),
            state: self.state(validator, member),
            in_flight: member.in_flight(options),
            latency_p95: member.latencies.p95(),
            served: member.served,
            failed: member.failed,
            refused: member.refused,
        });
        let inhabited: BTreeSet<&Address> = self.members.values().map(|member| &member.address).collect();
        let sites = self.sites.iter().filter(|(address, _)| !inhabited.contains(address));
        let sites = sites.map(|(address, site)| ValidatorStatus {
            address: address.clone(),
            key: None,
            state: ValidatorState::UnknownKey,
            in_flight: 0,
            latency_p95: None,
            served: 0,
            failed: u64::from(site.failures),
            refused: 0,
        });
        members.chain(sites).collect()
    }

    fn state(&self, validator: &Party, member: &Member) -> ValidatorState {
        if let Some(reason) = self.faulty.get(validator) {
            return ValidatorState::Faulty { reason: reason.clone() };
        }
        if !self.keys.contains(validator) {
            return ValidatorState::UnknownKey;
        }
        match &member.health {
            Health::Healthy => ValidatorState::Healthy,
            Health::Probation { reason, .. } => {
                ValidatorState::Probation { failures: member.failures, reason: reason.clone() }
            }
        }
    }
}

pub(super) fn answered_by_another(stranger: &Party) -> String {
    format!("validator {stranger} answers at its address")
}

/// How long to leave a validator alone after so many failures: doubling, between the options' bounds, and
/// spread by a quarter so that the nodes of a cluster do not probe in step.
fn probation(options: &PoolOptions, failures: u32, draw: u64) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let whole = options.probation_min.saturating_mul(1 << doublings).min(options.probation_max);
    let quarter = whole / 4;
    let spread = u32::try_from(draw % 1_000).expect("below 1,000");
    whole - quarter + quarter * spread / 1_000
}

/// One of `count` by lot; `None` of none.
fn lot(draw: u64, count: usize) -> Option<usize> {
    let winner = draw.checked_rem(u64::try_from(count).ok()?)?;
    usize::try_from(winner).ok()
}
