//! The order-free half of validation: everything about a transaction that needs nothing but itself.
//!
//! Rules run in the order of their numbers, so that the reported reason is the one with the lowest number. A
//! [`Checked`] transaction can only come from here.

mod command;
mod movements;

use std::collections::BTreeSet;

pub(crate) use command::{command_legs, command_owes};

use flaws::{Flaw, is_planted};

use crate::identifier::{AtomicGroupId, ClusterId, TransactionId};
use crate::limits::Limits;
use crate::rejection::{Counted, Rejection};
use crate::signature::{Claim, all_hold, transaction_message};
use crate::transaction::{Intent, ReceivedTransaction};

/// The ledger that transactions must be meant for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LedgerIdentity {
    /// Its name.
    pub cluster: ClusterId,
    /// Its Raft group.
    pub group: u16,
}

/// A transaction that passed every order-free rule, signatures included.
#[derive(Debug, Clone, Copy)]
pub struct Checked<'a> {
    received: &'a ReceivedTransaction,
}

impl<'a> Checked<'a> {
    /// What was checked.
    #[must_use]
    pub const fn received(&self) -> &'a ReceivedTransaction {
        self.received
    }
}

/// Checks submissions (single transactions or atomic groups) and verifies their signatures together.
/// The result has one verdict per member, submission by submission.
#[must_use]
pub fn check_submissions<'a>(
    submissions: &[&'a [ReceivedTransaction]],
    identity: &LedgerIdentity,
    limits: &Limits,
) -> Vec<Vec<Result<Checked<'a>, Rejection>>> {
    let mut verdicts: Vec<Vec<Result<(), Rejection>>> = submissions
        .iter()
        .map(|members| {
            let group = check_group(members, limits);
            let structure = |member| check_structure(member, identity, limits);
            members.iter().map(|member| lower(structure(member), group.clone())).collect()
        })
        .collect();
    reject_false_signatures(submissions, &mut verdicts);
    submissions
        .iter()
        .zip(verdicts)
        .map(|(members, verdicts)| {
            let verdicts = spread_over_group(verdicts);
            members.iter().zip(verdicts).map(|(received, verdict)| verdict.map(|()| Checked { received })).collect()
        })
        .collect()
}

/// Every rule but the signatures.
///
/// # Errors
/// The reason with the lowest number that holds.
pub fn check_structure(
    received: &ReceivedTransaction,
    identity: &LedgerIdentity,
    limits: &Limits,
) -> Result<(), Rejection> {
    let body = &received.transaction().body;
    if received.encoded_bytes() > limits.transaction_bytes_max {
        return Err(Rejection::TooLarge {
            bytes: count(received.encoded_bytes()),
            bytes_max: count(limits.transaction_bytes_max),
        });
    }
    if body.cluster != identity.cluster {
        return Err(Rejection::WrongCluster {});
    }
    if body.group != identity.group {
        return Err(Rejection::WrongGroup { group: body.group });
    }
    at_most(Counted::Signers, body.signers.len(), limits.signers_max)?;
    match &body.intent {
        Intent::Movements(movements) => {
            movements::check_counts(movements, limits)?;
            movements::check_not_empty(movements)?;
            check_signers(received)?;
            movements::check(movements, &body.signers)
        }
        Intent::Command(command) => {
            command::check_counts(command, limits)?;
            check_signers(received)?;
            command::check(command, &body.signers)
        }
    }
}

fn check_signers(received: &ReceivedTransaction) -> Result<(), Rejection> {
    let transaction = received.transaction();
    let signers = &transaction.body.signers;
    let unsorted = signers.iter().zip(signers.iter().skip(1)).position(|(earlier, later)| earlier >= later);
    if let Some(position) = unsorted {
        return Err(Rejection::SignersUnsorted { signer: index(position.saturating_add(1)) });
    }
    if transaction.signatures.len() != signers.len() {
        return Err(Rejection::SignatureCount {
            signatures: count(transaction.signatures.len()),
            signers: count(signers.len()),
        });
    }
    Ok(())
}

/// Of two verdicts the one that is reported.
fn lower(a: Result<(), Rejection>, b: Result<(), Rejection>) -> Result<(), Rejection> {
    match (a, b) {
        (Err(a), Err(b)) => Err(if b.code() < a.code() { b } else { a }),
        (a, b) => a.and(b),
    }
}

/// A member of an atomic group stands only together with exactly the others, in their order.
fn check_group(members: &[ReceivedTransaction], limits: &Limits) -> Result<(), Rejection> {
    at_most(Counted::GroupMembers, members.len(), limits.group_members_max)?;
    if group_is_complete(members) { Ok(()) } else { Err(Rejection::GroupIncomplete {}) }
}

/// True for a transaction outside any group, and for a whole group of different transactions in its order.
#[must_use]
pub fn group_is_complete(members: &[ReceivedTransaction]) -> bool {
    let mut named = members.iter().map(|member| member.transaction().body.atomic);
    if members.len() == 1 && named.clone().all(|group| group.is_none()) {
        return true;
    }
    let ids: Vec<TransactionId> = members.iter().map(ReceivedTransaction::id).collect();
    let distinct: BTreeSet<&TransactionId> = ids.iter().collect();
    let group = AtomicGroupId::of(&ids);
    distinct.len() == ids.len() && named.all(|name| name == Some(group))
}

/// Where one member falls, the others fall with it.
fn spread_over_group(verdicts: Vec<Result<(), Rejection>>) -> Vec<Result<(), Rejection>> {
    let first = verdicts
        .iter()
        .enumerate()
        .find_map(|(member, verdict)| verdict.as_ref().err().map(|reason| (index(member), reason.code())));
    let Some((member, code)) = first else { return verdicts };
    verdicts.into_iter().map(|verdict| verdict.and(Err(Rejection::GroupMemberRejected { member, code }))).collect()
}

/// Verifies the signatures of all that passed so far in one batch; only where that fails, one by one.
fn reject_false_signatures(submissions: &[&[ReceivedTransaction]], verdicts: &mut [Vec<Result<(), Rejection>>]) {
    let passed = || {
        submissions.iter().zip(verdicts.iter()).flat_map(|(members, verdicts)| {
            members.iter().zip(verdicts).filter(|(_, verdict)| verdict.is_ok()).map(|(member, _)| member)
        })
    };
    let claims: Vec<Claim> = passed().flat_map(claims_of).collect();
    if claims.is_empty() || is_planted(Flaw::SignatureUnchecked) || all_hold(&claims) {
        return;
    }
    for (members, verdicts) in submissions.iter().zip(verdicts.iter_mut()) {
        for (member, verdict) in members.iter().zip(verdicts.iter_mut()).filter(|(_, verdict)| verdict.is_ok()) {
            *verdict = check_signatures(member);
        }
    }
}

fn check_signatures(received: &ReceivedTransaction) -> Result<(), Rejection> {
    let claims: Vec<Claim> = claims_of(received).collect();
    if all_hold(&claims) {
        return Ok(());
    }
    match claims.iter().position(|claim| !claim.holds()) {
        Some(signer) => Err(Rejection::SignatureInvalid { signer: index(signer) }),
        None => Ok(()),
    }
}

fn claims_of(received: &ReceivedTransaction) -> impl Iterator<Item = Claim> + '_ {
    let transaction = received.transaction();
    let message = transaction_message(&received.id(), transaction.body.atomic.as_ref());
    transaction.body.signers.iter().zip(&transaction.signatures).map(move |(signer, signature)| Claim {
        signer: *signer,
        message,
        signature: *signature,
    })
}

fn at_most(counted: Counted, length: usize, length_max: usize) -> Result<(), Rejection> {
    if length <= length_max {
        return Ok(());
    }
    Err(Rejection::TooMany { counted, count: count(length), count_max: count(length_max) })
}

fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// An index that the limits keep below 2^16.
fn index(position: usize) -> u16 {
    u16::try_from(position).unwrap_or(u16::MAX)
}
