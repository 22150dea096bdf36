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
//! A validator is one key, at work in any number of instances: processes that hold the key, each at its own address.
//! Instances are healthy or not, validators are faulty or not. An instance is given bundles while it is healthy, and its
//! key not faulty and in the bundle's validator set.

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
use super::{PoolCounters, PoolOptions, Room, ValidatorState, ValidatorStatus};
use crate::message::{Announcement, AnnouncementFault};

/// Keys outside the validator set that are remembered: a set is extended by a few keys at a time, and whoever
/// reaches this node can make keys without end.
const UNKNOWN_KEYS_MAX: usize = 64;

/// Instances of one validator that are remembered: more than anybody runs, and a bound on what one key can do.
const INSTANCES_MAX: usize = 256;

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
    members: BTreeMap<Instance, Member>,
    sites: BTreeMap<Address, Site>,
    /// Why a validator is faulty.
    faulty: BTreeMap<Party, String>,
    epoch: u64,
    keys: BTreeSet<Party>,
}

/// A process that validates: under which key, and where.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Instance {
    pub(super) validator: Party,
    pub(super) address: Address,
}

/// What is known of an instance.
#[derive(Debug)]
struct Member {
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
    pub(super) instance: Instance,
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

/// Who need not be asked about a bundle.
#[derive(Debug)]
pub(super) struct Done<'a> {
    /// Instances that were asked.
    pub(super) asked: &'a BTreeSet<Instance>,
    /// Validators of which no further answer helps.
    pub(super) validators: BTreeSet<Party>,
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
    fn new(options: &PoolOptions, lease: Lease, now: Instant) -> Self {
        Self {
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

    /// Chooses the instance with the fewest bundles among those that may be asked; by lot among equals.
    pub(super) fn choose(
        &self,
        options: &PoolOptions,
        set: &ValidatorSet,
        done: &Done<'_>,
        purpose: Purpose,
        now: Instant,
        draw: u64,
    ) -> Choice {
        let usable: Vec<(&Instance, &Member)> = self.usable(set, done).collect();
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
                .map(|(instance, member)| (member.in_flight(options), *instance, *member))
                .filter(|(load, ..)| *load < places)
        };
        let fewest = with_room().map(|(load, ..)| load).min();
        let tied: Vec<_> = with_room().filter(|(load, ..)| Some(*load) == fewest).collect();
        let chosen = lot(draw, tied.len()).and_then(|winner| tied.get(winner));
        let permit = chosen.and_then(|(_, _, member)| Arc::clone(&member.places).try_acquire_owned().ok());
        match (chosen, permit) {
            (Some((_, instance, _)), Some(permit)) => Choice::Take(Place { instance: (*instance).clone(), permit }),
            _ => Choice::Wait(usable.iter().map(|(_, member)| member.busy_until).filter(|until| *until > now).min()),
        }
    }

    pub(super) fn room(&self, options: &PoolOptions, set: &ValidatorSet) -> Room {
        let nobody = Done { asked: &BTreeSet::new(), validators: BTreeSet::new() };
        let loads = || self.usable(set, &nobody).map(|(_, member)| member.in_flight(options));
        let required = usize::from(set.required.max(1));
        Room { at_once: loads().count() / required, idle: loads().filter(|load| *load == 0).count() / required }
    }

    fn usable<'a>(
        &'a self,
        set: &'a ValidatorSet,
        done: &'a Done<'_>,
    ) -> impl Iterator<Item = (&'a Instance, &'a Member)> {
        self.members.iter().filter(move |(instance, member)| {
            member.is_healthy()
                && set.keys.contains(&instance.validator)
                && !done.asked.contains(instance)
                && !done.validators.contains(&instance.validator)
                && !self.faulty.contains_key(&instance.validator)
                && instance.validator != self.local
        })
    }

    /// After how long an answer is late.
    pub(super) fn late_after(&self, options: &PoolOptions) -> Duration {
        let healthy = self.members.values().filter(|member| member.is_healthy());
        let p95_of_each = healthy.filter_map(|member| member.latencies.p95());
        late_after(p95_of_each, options.hedge_delay_min, options.hedge_delay_max)
    }

    pub(super) fn served(&mut self, instance: &Instance, latency: Duration) {
        let Some(member) = self.members.get_mut(instance) else { return };
        member.latencies.record(latency);
        member.served += 1;
        member.failures = 0;
        member.refusals = 0;
        member.health = Health::Healthy;
    }

    pub(super) fn refused(
        &mut self,
        options: &PoolOptions,
        instance: &Instance,
        now: Instant,
        retry_after: Option<Duration>,
        draw: u64,
    ) {
        self.counters.refusals += 1;
        let Some(member) = self.members.get_mut(instance) else { return };
        member.refused += 1;
        member.refusals = member.refusals.saturating_add(1);
        member.busy_until = now + retry_after.unwrap_or(BUSY_DEFAULT).min(BUSY_MAX);
        if member.refusals >= REFUSALS_MAX && member.is_healthy() {
            member.refusals = 0;
            member.put_on_probation(options, now, "it refuses every bundle as overloaded", draw);
        }
    }

    pub(super) fn failed(&mut self, options: &PoolOptions, instance: &Instance, now: Instant, reason: &str, draw: u64) {
        self.counters.failures += 1;
        let Some(member) = self.members.get_mut(instance) else { return };
        member.failed += 1;
        // of several calls that fail together only the first counts: they are one failure
        if member.is_healthy() {
            tracing::warn!(validator = %instance.validator, address = %instance.address, reason, "validator dropped");
            member.put_on_probation(options, now, reason, draw);
        }
    }

    pub(super) fn convict(&mut self, validator: &Party, reason: &str) {
        self.counters.convictions += 1;
        let instances = self.members.keys().filter(|instance| instance.validator == *validator);
        let addresses: Vec<&str> = instances.map(|instance| instance.address.as_str()).collect();
        tracing::error!(%validator, ?addresses, reason, "FAULTY VALIDATOR: remove its key from the validator set");
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
        let unix_ms = announcement.announced_unix_ms();
        let instance = Instance { validator: announcement.validator(), address: announcement.address() };
        if !self.members.contains_key(&instance) {
            self.require_welcome(options, instance.validator, unix_ms)?;
        }
        let lease = Lease::Announced { expires: now + options.announcement_lease, unix_ms };
        let member = self.members.entry(instance).or_insert_with_key(|Instance { validator, address }| {
            tracing::info!(%validator, %address, "validator joined");
            Member::new(options, lease, now)
        });
        match member.lease {
            // overtaken on the way, or repeated by somebody else; a clock that was set back is believed again
            // once the lease has run out
            Lease::Announced { unix_ms: newest, .. } if unix_ms < newest => {}
            Lease::Announced { .. } | Lease::Configured => member.lease = lease,
        }
        Ok(())
    }

    /// Whether one more instance of this validator is wanted.
    fn require_welcome(&self, options: &PoolOptions, validator: Party, unix_ms: u64) -> Result<(), AnnouncementFault> {
        let unknown = self.members.keys().filter(|instance| !self.keys.contains(&instance.validator)).count();
        if !self.keys.contains(&validator) && unknown >= UNKNOWN_KEYS_MAX {
            return Err(AnnouncementFault::TooManyUnknown(validator));
        }
        let instances = self.members.iter().filter(|(instance, _)| instance.validator == validator);
        let announced = instances.clone().filter_map(|(_, member)| match member.lease {
            Lease::Configured => None,
            Lease::Announced { unix_ms, .. } => Some(unix_ms),
        });
        let lease_ms = u64::try_from(options.announcement_lease.as_millis()).unwrap_or(u64::MAX);
        if announced.max().is_some_and(|newest| unix_ms.saturating_add(lease_ms) < newest) {
            return Err(AnnouncementFault::Overtaken(validator));
        }
        if instances.count() >= INSTANCES_MAX {
            return Err(AnnouncementFault::TooManyInstances(validator));
        }
        Ok(())
    }

    /// Whoever is faulty stays, so that its name does.
    fn forget_the_silent(&mut self, now: Instant) {
        let faulty = &self.faulty;
        self.members.retain(|Instance { validator, address }, member| {
            let stays = member.is_current(now) || faulty.contains_key(validator);
            if !stays {
                tracing::info!(%validator, %address, "validator left");
            }
            stays
        });
    }

    /// Everyone who is to be probed now.
    pub(super) fn due_probes(&mut self, now: Instant) -> Vec<Probe> {
        self.forget_the_silent(now);
        let mut probes = Vec::new();
        for (Instance { validator, address }, member) in &mut self.members {
            if let Health::Probation { until, probing, .. } = &mut member.health
                && *until <= now
                && !*probing
            {
                *probing = true;
                probes.push(Probe { address: address.clone(), validator: Some(*validator) });
            }
        }
        let inhabited: BTreeSet<&Address> = self.members.keys().map(|instance| &instance.address).collect();
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
        instance: &Instance,
        now: Instant,
        answer: Result<(), CallFault>,
        draw: u64,
    ) {
        let Instance { validator, address } = instance;
        if let Err(CallFault::Wrong(reason)) = &answer {
            self.convict(validator, reason);
        }
        let Some(member) = self.members.get_mut(instance) else { return };
        match answer {
            // refusing is a sign of life
            Ok(()) | Err(CallFault::Busy(_)) => {
                tracing::info!(%validator, %address, "validator taken back");
                member.health = Health::Healthy;
            }
            // the address is free again to be probed for whoever lives there
            Err(CallFault::Stranger(_)) if matches!(member.lease, Lease::Configured) => {
                self.members.remove(instance);
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
        let instance = Instance { validator, address: address.clone() };
        self.members.entry(instance).or_insert_with(|| {
            tracing::info!(%validator, %address, "validator found at a configured address");
            Member::new(options, Lease::Configured, now)
        });
    }

    pub(super) fn status(&self, options: &PoolOptions) -> Vec<ValidatorStatus> {
        let members = self.members.iter().map(|(Instance { validator, address }, member)| ValidatorStatus {
            address: address.clone(),
            key: Some(*validator),
            state: self.state(validator, member),
            in_flight: member.in_flight(options),
            latency_p95: member.latencies.p95(),
            served: member.served,
            failed: member.failed,
            refused: member.refused,
        });
        let inhabited: BTreeSet<&Address> = self.members.keys().map(|instance| &instance.address).collect();
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
