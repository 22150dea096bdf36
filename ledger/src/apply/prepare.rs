//! Before the order is looked at: decode the members, name their outputs, look everything up; then give places.

use std::ops::Range;

use flaws::{Flaw, is_planted};

use crate::bundle::Submission;
use crate::check::group_is_complete;
use crate::effects::Effects;
use crate::id_map::SeededIds;
use crate::identifier::TransactionId;
use crate::outcome::Outcome;
use crate::parallel::{self, Parallel};
use crate::quantity::Sequence;
use crate::transaction::{Body, Intent, ReceivedTransaction};
use crate::view::{LedgerView, Place, ViewFault};

use super::{AdmittedBundle, BatchContext, MemberResult, Placed, Placement, Unit};

/// A member that passed validation, with the state of everything that it touches before the batch. Where the
/// transaction was sequenced before, only that is known of it.
pub(super) struct Prepared {
    received: ReceivedTransaction,
    prior: Option<(Sequence, Outcome)>,
    pub(super) effects: Effects,
    /// Places of the consumed outputs that are live, in input order.
    pub(super) consumed_live: Vec<Option<Place>>,
    /// Places of the referenced outputs that are live, in reference order.
    pub(super) referenced_live: Vec<Option<Place>>,
    /// False where the transaction signed a head that this ledger does not contain.
    pub(super) head_is_known: bool,
}

impl Prepared {
    pub(super) const fn id(&self) -> TransactionId {
        self.received.id()
    }

    pub(super) const fn body(&self) -> &Body {
        &self.received.transaction().body
    }

    const fn is_command(&self) -> bool {
        matches!(self.body().intent, Intent::Command(_))
    }
}

/// Decodes and looks up, per submission and in parallel. `None` where a member has no place in the order: it, or
/// another member of its group, failed validation.
pub(super) fn prepare_members(
    view: &dyn LedgerView,
    threads: &dyn Parallel,
    bundle: &AdmittedBundle<'_>,
) -> Result<Vec<Option<Prepared>>, ViewFault> {
    let submissions = parallel::map(threads, bundle.layout.submissions(), |submission| {
        let Some(received) = decode_passed(bundle, &submission.members) else {
            return Ok(submission.members.clone().map(|_| None).collect::<Vec<_>>());
        };
        received.into_iter().map(|member| look_up(view, member).map(Some)).collect()
    });
    let mut members = Vec::with_capacity(bundle.layout.members().len());
    for submission in submissions {
        members.extend(submission?);
    }
    Ok(members)
}

/// The decoded members where all of them passed. Validators vouch for decoding and grouping too; both are checked
/// again because a wrong certificate must not stop a replica or split a group.
fn decode_passed(bundle: &AdmittedBundle<'_>, members: &Range<usize>) -> Option<Vec<ReceivedTransaction>> {
    let decode = |member: usize| {
        if bundle.verdicts.passed(member) != Some(true) {
            return None;
        }
        let range = bundle.layout.members().get(member)?.clone();
        ReceivedTransaction::decode(bundle.bytes.get(range)?).ok()
    };
    let received: Vec<_> = members.clone().map(decode).collect::<Option<_>>()?;
    group_is_complete(&received).then_some(received)
}

fn look_up(view: &dyn LedgerView, received: ReceivedTransaction) -> Result<Prepared, ViewFault> {
    let prior = view.outcome(&received.id())?.filter(|_| !is_planted(Flaw::NoDeduplication));
    if prior.is_some() {
        return Ok(Prepared {
            received,
            prior,
            effects: Effects::default(),
            consumed_live: Vec::new(),
            referenced_live: Vec::new(),
            head_is_known: true,
        });
    }
    let body = &received.transaction().body;
    let effects = Effects::of(&received.id(), body);
    let head_is_known = match body.seen_head {
        Some(seen) => view.log_root_at(seen.size)? == Some(seen.log_root),
        None => true,
    };
    Ok(Prepared {
        prior: None,
        consumed_live: effects.consumed.iter().map(|(id, _)| view.live(id)).collect::<Result<_, _>>()?,
        referenced_live: effects.referenced.iter().map(|(id, _)| view.live(id)).collect::<Result<_, _>>()?,
        head_is_known,
        received,
        effects,
    })
}

/// Why a new transaction gets no place: the history must be sure to know it for as long as it is valid, or it could be
/// sequenced twice.
fn without_place(prepared: &Prepared, context: &BatchContext<'_>) -> Option<MemberResult> {
    let BatchContext { log_time, validity_ms_max, history, .. } = context;
    let valid_until = prepared.body().valid_until;
    let latest = log_time.plus_millis(*validity_ms_max);
    if prepared.prior.is_some() {
        None
    } else if valid_until > latest {
        Some(MemberResult::ValidityTooLong { latest })
    } else if history.may_have_forgotten(valid_until) {
        Some(MemberResult::Forgotten)
    } else {
        None
    }
}

/// Gives every new transaction its place. A transaction has one outcome for ever: what was sequenced before, or
/// stands earlier in this bundle, is a duplicate.
///
/// A group of which some members were sequenced before, alone or in another group, is barred: the others have their
/// places, and are rejected there.
pub(super) fn place(
    members: &[Option<Prepared>],
    submissions: &[Submission],
    context: &BatchContext<'_>,
    hashing: SeededIds,
) -> Placement {
    let mut placement = Placement {
        transactions: Vec::new(),
        units: Vec::new(),
        results: vec![MemberResult::Refused; members.len()],
        has_commands: false,
        hashing,
    };
    let mut here = hashing.map::<TransactionId, usize>(members.len());
    for submission in submissions {
        let first = placement.transactions.len();
        let sequenced = |member: usize| {
            let prepared = members.get(member).and_then(Option::as_ref);
            prepared.is_some_and(|prepared| prepared.prior.is_some() || here.contains_key(&prepared.id()))
        };
        let barred_by = submission.members.clone().position(sequenced);
        let mut prepared = submission.members.clone().filter_map(|member| members.get(member)?.as_ref());
        let without_place = prepared.find_map(|prepared| without_place(prepared, context));
        for member in submission.members.clone() {
            let Some(prepared) = members.get(member).and_then(Option::as_ref) else { continue };
            let result = match (&prepared.prior, here.get(&prepared.id())) {
                (Some((sequence, outcome)), _) => {
                    MemberResult::Duplicate { sequence: *sequence, outcome: outcome.clone() }
                }
                (None, Some(record)) => MemberResult::Sequenced(*record),
                (None, None) if let Some(result) = &without_place => result.clone(),
                (None, None) => {
                    let record = placement.transactions.len();
                    let sequence = context.next.plus(u64::try_from(record).expect("bundles are small"));
                    here.insert(prepared.id(), record);
                    placement.transactions.push(Placed { member, sequence, stamp: submission.stamp });
                    placement.has_commands |= prepared.is_command();
                    MemberResult::Sequenced(record)
                }
            };
            if let Some(slot) = placement.results.get_mut(member) {
                *slot = result;
            }
        }
        if placement.transactions.len() > first {
            placement.units.push(Unit { places: first..placement.transactions.len(), barred_by });
        }
    }
    placement
}
