//! The order-bound half of validation, and the next state: an admitted bundle meets the unspent set.
//!
//! ```text
//! bytes ─► prepare (parallel: decode, name outputs, look up) ─► place (serial: duplicates, sequence numbers)
//!       ─► components (linked by outputs that change) ─► resolve (parallel over components, serial inside)
//!       ─► effects (in order: records, leaves, net changes)
//! ```
//! The first spender in the order wins. Nothing depends on the number of threads: sequence numbers are given
//! before outcomes are known, and no component changes what another looks at.

mod component;
mod prepare;
mod resolve;

use std::ops::Range;

use flaws::{Flaw, is_planted};

use crate::bundle::{BundleFault, BundleLayout};
use crate::certificate::{CertificateFault, ValidatorSet, VerdictBitmap};
use crate::contract::Contract;
use crate::entry::CertifiedBundle;
use crate::history::KeptHistory;
use crate::id_map::SeededIds;
use crate::identifier::{Hash, OutputId, TransactionId};
use crate::limits::Limits;
use crate::outcome::{Outcome, OutcomeRecord};
use crate::parallel::{self, Parallel};
use crate::quantity::{LogTime, Sequence};
use crate::rejection::Rejection;
use crate::transaction::{Command, Origin};
use crate::view::{LedgerView, LiveOutput, Place, ViewFault};

use prepare::Prepared;
use resolve::Resolved;

/// A bundle whose certificates were checked against the validator set in force.
#[derive(Debug, Clone)]
pub struct AdmittedBundle<'a> {
    bytes: &'a [u8],
    layout: BundleLayout,
    verdicts: &'a VerdictBitmap,
}

/// Why a bundle in the log is passed over as a whole. Nothing of it happens, and its gateway may certify its
/// transactions again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdmissionFault {
    /// The bytes are no bundle.
    #[error(transparent)]
    Bundle(#[from] BundleFault),
    /// The certificates do not admit it.
    #[error(transparent)]
    Certificate(#[from] CertificateFault),
}

impl<'a> AdmittedBundle<'a> {
    /// Checks a bundle's form and certificates.
    ///
    /// # Errors
    /// Where either is wrong.
    pub fn admit(
        certified: &'a CertifiedBundle,
        validators: &ValidatorSet,
        limits: &Limits,
    ) -> Result<Self, AdmissionFault> {
        let layout = BundleLayout::read(&certified.bundle, limits)?;
        let verdicts = validators.admit(&layout.digest(), layout.members().len(), &certified.certificates)?;
        Ok(Self { bytes: &certified.bundle, layout, verdicts })
    }

    /// Where everything is in the bundle.
    #[must_use]
    pub const fn layout(&self) -> &BundleLayout {
        &self.layout
    }
}

/// What a batch is applied under.
#[derive(Debug, Clone, Copy)]
pub struct BatchContext<'a> {
    /// The place of its first transaction.
    pub next: Sequence,
    /// Its log time.
    pub log_time: LogTime,
    /// The limits in force.
    pub limits: &'a Limits,
    /// How long its transactions may be valid, in milliseconds.
    pub validity_ms_max: u64,
    /// The history that look-ups answer from.
    pub history: &'a KeptHistory,
}

/// How one member of a bundle fared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberResult {
    /// It failed validation before the order and has no place in it.
    Refused,
    /// It is valid for longer than it may be, or a member of its group is: it has no place in the
    /// order, and may have one later.
    ValidityTooLong {
        /// The latest `valid_until` that would have been taken.
        latest: LogTime,
    },
    /// It has expired, and so long ago that its outcome may have been forgotten, or a member of its group has: it gets
    /// no place in the order, where it may have had one.
    Forgotten,
    /// It was sequenced before; this is its one outcome.
    Duplicate {
        /// Its place.
        sequence: Sequence,
        /// Its outcome.
        outcome: Outcome,
    },
    /// It was sequenced here: an index into [`BatchEffects::records`].
    Sequenced(usize),
}

/// An output that a batch consumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConsumedOutput {
    /// What was consumed.
    pub output: LiveOutput,
    /// The place of the transaction that consumed it.
    pub spender: Sequence,
    /// True where the same batch had created it, so that the state never held it.
    pub born_in_batch: bool,
}

/// Everything that a batch does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BatchEffects {
    /// One result per member of the bundle.
    pub results: Vec<MemberResult>,
    /// The outcomes of the transactions sequenced here, in order.
    pub records: Vec<OutcomeRecord>,
    /// Their leaves in the Merkle log, in order.
    pub leaves: Vec<Hash>,
    /// Outputs created and still live at the end, in order of creation.
    pub created: Vec<LiveOutput>,
    /// Outputs consumed, in order of consumption.
    pub consumed: Vec<ConsumedOutput>,
    /// The transactions sequenced here have all expired by then.
    pub expired_by: LogTime,
}

/// Applies an admitted bundle to the state that `view` shows.
///
/// # Errors
/// Where the state cannot be read; then nothing may be concluded and the replica stops.
pub fn apply(
    view: &dyn LedgerView,
    threads: &dyn Parallel,
    context: &BatchContext<'_>,
    bundle: &AdmittedBundle<'_>,
) -> Result<BatchEffects, ViewFault> {
    let members = prepare::prepare_members(view, threads, bundle)?;
    let hashing = SeededIds::new(bundle.layout.digest().as_bytes());
    let placed = prepare::place(&members, bundle.layout.submissions(), context, hashing);
    let components = component::components(&members, &placed);
    let resolved = parallel_resolve(view, threads, context, &members, &placed, &components)?;
    let mut effects = assemble(threads, context, &members, placed, resolved);
    if is_planted(Flaw::OutcomesByChance) && flaws::toss() {
        effects.leaves.reverse();
    }
    Ok(effects)
}

/// What a command creates from the outputs that were chosen for it: for readers of the history, where commands are
/// kept with what they consumed.
///
/// # Errors
/// Where the chosen outputs do not cover the command.
pub fn command_outputs(
    id: &TransactionId,
    command: &Command,
    chosen: &[LiveOutput],
) -> Result<Vec<(OutputId, Contract)>, Rejection> {
    resolve::command_outputs(id, command, chosen)
}

/// A member with its place in the order.
#[derive(Debug, Clone, Copy)]
struct Placed {
    member: usize,
    sequence: Sequence,
    stamp: Sequence,
}

/// A single transaction or an atomic group.
#[derive(Debug, Clone)]
struct Unit {
    /// Those of its members that are sequenced here: a range of [`Placement::transactions`].
    places: Range<usize>,
    /// The first member of the group that had been sequenced before: the others cannot happen.
    barred_by: Option<usize>,
}

/// The placed part of a bundle, and the results so far.
struct Placement {
    transactions: Vec<Placed>,
    units: Vec<Unit>,
    results: Vec<MemberResult>,
    has_commands: bool,
    hashing: SeededIds,
}

fn parallel_resolve(
    view: &dyn LedgerView,
    threads: &dyn Parallel,
    context: &BatchContext<'_>,
    members: &[Option<Prepared>],
    placed: &Placement,
    components: &[Vec<usize>],
) -> Result<Vec<Option<Resolved>>, ViewFault> {
    let resolved =
        parallel::map(threads, components, |units| resolve::resolve_component(view, context, members, placed, units));
    let mut by_place: Vec<Option<Resolved>> = placed.transactions.iter().map(|_| None).collect();
    for component in resolved {
        for (place, outcome) in component? {
            if let Some(slot) = by_place.get_mut(place) {
                *slot = Some(outcome);
            }
        }
    }
    Ok(by_place)
}

fn assemble(
    threads: &dyn Parallel,
    context: &BatchContext<'_>,
    members: &[Option<Prepared>],
    placed: Placement,
    resolved: Vec<Option<Resolved>>,
) -> BatchEffects {
    let mut effects = BatchEffects { results: placed.results, ..BatchEffects::default() };
    let created = resolved.iter().flatten().map(|resolved| resolved.created.len()).sum();
    let consumed = resolved.iter().flatten().map(|resolved| resolved.consumed.len()).sum();
    let mut born = placed.hashing.map::<OutputId, usize>(created);
    let mut dead = vec![false; created];
    effects.created.reserve(created);
    effects.consumed.reserve(consumed);
    for (place, resolved) in placed.transactions.iter().zip(resolved) {
        let resolved = resolved.expect("every placed transaction is in exactly one component");
        let prepared = members.get(place.member).and_then(Option::as_ref);
        let prepared = prepared.expect("only prepared members are placed");
        let transaction = prepared.id();
        effects.expired_by = effects.expired_by.max(prepared.body().valid_until);
        for output in resolved.consumed {
            let birth = born.remove(&output.id);
            if let Some(slot) = birth.and_then(|index| dead.get_mut(index)) {
                *slot = true;
            }
            effects.consumed.push(ConsumedOutput { output, spender: place.sequence, born_in_batch: birth.is_some() });
        }
        for output in resolved.created {
            born.insert(output.id, effects.created.len());
            effects.created.push(output);
        }
        effects.records.push(OutcomeRecord {
            sequence: place.sequence,
            transaction,
            stamp: place.stamp,
            log_time: context.log_time,
            outcome: resolved.outcome,
        });
    }
    let mut dead = dead.into_iter();
    effects.created.retain(|_| dead.next() == Some(false));
    effects.leaves = parallel::map(threads, &effects.records, OutcomeRecord::leaf);
    effects
}

fn live_output(
    place: &Placed,
    transaction: &TransactionId,
    position: usize,
    id: OutputId,
    contract: Contract,
) -> LiveOutput {
    let index = crate::effects::small_index(position);
    LiveOutput {
        id,
        origin: Origin { transaction: *transaction, index },
        place: Place { sequence: place.sequence, index },
        contract,
    }
}
