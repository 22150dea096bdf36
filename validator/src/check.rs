//! Verdicts on a whole bundle, computed on all cores.
//!
//! A bundle is cut into slices of whole submissions. Each slice is decoded and checked on one core, and its
//! signatures are verified together. Where the cuts are changes nothing but the speed.

use std::sync::OnceLock;

use flaws::{Flaw, is_planted};
use ledger::bundle::{BundleLayout, Submission};
use ledger::certificate::{Attested, Certificate, VerdictBitmap};
use ledger::check::{LedgerIdentity, check_submissions};
use ledger::identifier::BundleDigest;
use ledger::parallel::Parallel;
use ledger::signature::SigningKey;
use ledger::transaction::ReceivedTransaction;
use ledger::{Limits, Rejection};
use seams::Compute;

/// Transactions that are worth a slice of their own: one core verifies 58–66 thousand signatures a second in
/// batches of 64 and 76–79 thousand in batches of 1,024 (NUMBERS), so smaller slices lose more than they share.
const SLICE_TRANSACTIONS_MIN: usize = 64;

/// Slices of one bundle: keeps 16 cores busy with one bundle, and makes the slices of a full bundle
/// (4,096 transactions) large enough for batch verification to be at its best.
const SLICES_MAX: usize = 16;

/// The seam's processors, as the ledger wants to see them. The caller is off the runtime already.
#[derive(Debug, Clone, Copy)]
pub struct Cores<'a>(pub &'a dyn Compute);

impl Parallel for Cores<'_> {
    fn for_each(&self, count: usize, job: &(dyn Fn(usize) + Sync)) {
        self.0.for_each(count, job);
    }
}

/// What was found about every transaction of one bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleVerdicts {
    verdicts: Vec<Result<(), Rejection>>,
}

impl BundleVerdicts {
    /// One verdict per transaction, in the bundle's order.
    pub fn verdicts(&self) -> &[Result<(), Rejection>] {
        &self.verdicts
    }

    /// One bit per transaction, set where it passed.
    #[must_use]
    pub fn bitmap(&self) -> VerdictBitmap {
        let passed: Vec<bool> = self.verdicts.iter().map(Result::is_ok).collect();
        VerdictBitmap::of(&passed)
    }

    /// The transactions that did not pass, by their index in the bundle, ascending.
    #[must_use]
    pub fn rejections(&self) -> Vec<(usize, Rejection)> {
        let indexed = self.verdicts.iter().enumerate();
        indexed.filter_map(|(index, verdict)| verdict.clone().err().map(|reason| (index, reason))).collect()
    }

    /// Signs the verdicts as the validator with this key, under the validator set of `epoch`.
    #[must_use]
    pub fn certify(&self, bundle: BundleDigest, epoch: u64, key: &SigningKey) -> Certificate {
        Attested { bundle, verdicts: self.bitmap(), epoch }.certify(key)
    }
}

/// Checks every transaction of a bundle on all cores. Blocks: call it off the runtime ([`seams::offload`]).
///
/// # Panics
/// Where `layout` was not read from `bytes`.
#[must_use]
pub fn validate_bundle(
    bytes: &[u8],
    layout: &BundleLayout,
    identity: &LedgerIdentity,
    limits: &Limits,
    compute: &dyn Compute,
) -> BundleVerdicts {
    let transactions = slice_transactions(layout.members().len());
    validate_in_slices(bytes, layout, identity, limits, &Cores(compute), transactions)
}

/// As [`validate_bundle`], with a slice ending at the submission that fills it up to `slice_transactions`.
///
/// # Panics
/// Where `layout` was not read from `bytes`.
#[must_use]
pub fn validate_in_slices(
    bytes: &[u8],
    layout: &BundleLayout,
    identity: &LedgerIdentity,
    limits: &Limits,
    parallel: &dyn Parallel,
    slice_transactions: usize,
) -> BundleVerdicts {
    let slices = cut(layout.submissions(), slice_transactions);
    let found: Vec<OnceLock<Vec<Result<(), Rejection>>>> = slices.iter().map(|_| OnceLock::new()).collect();
    parallel.for_each(slices.len(), &|position| {
        found[position].get_or_init(|| check_slice(bytes, layout, slices[position], identity, limits));
    });
    let mut verdicts: Vec<_> =
        found.into_iter().flat_map(|slice| slice.into_inner().expect("for_each runs every job")).collect();
    if is_planted(Flaw::VerdictsShifted) {
        verdicts.insert(0, Ok(()));
        verdicts.pop();
    }
    assert_eq!(verdicts.len(), layout.members().len(), "every transaction has one verdict");
    BundleVerdicts { verdicts }
}

/// Transactions per slice: a power of two of slices, so that they divide evenly among cores.
fn slice_transactions(transactions: usize) -> usize {
    let slices = (transactions / SLICE_TRANSACTIONS_MIN).next_power_of_two().min(SLICES_MAX);
    transactions.div_ceil(slices).max(1)
}

fn cut(submissions: &[Submission], slice_transactions: usize) -> Vec<&[Submission]> {
    let mut slices = Vec::new();
    let mut rest = submissions;
    while let Some(first) = rest.first() {
        let filled_at = first.members.start.saturating_add(slice_transactions);
        let filling = rest.partition_point(|submission| submission.members.end < filled_at);
        let (slice, after) = rest.split_at(rest.len().min(filling + 1));
        slices.push(slice);
        rest = after;
    }
    slices
}

/// The members of one submission, as far as they could be decoded.
enum Decoded {
    Whole(Vec<ReceivedTransaction>),
    /// For each member whether it decodes; at least one does not.
    Broken(Vec<bool>),
}

fn decode(bytes: &[u8], layout: &BundleLayout, submission: &Submission) -> Decoded {
    let ranges = &layout.members()[submission.members.clone()];
    let decode = |range: &std::ops::Range<usize>| ReceivedTransaction::decode(&bytes[range.clone()]).ok();
    let members: Vec<Option<ReceivedTransaction>> = ranges.iter().map(decode).collect();
    if members.iter().all(Option::is_some) {
        Decoded::Whole(members.into_iter().flatten().collect())
    } else {
        Decoded::Broken(members.iter().map(Option::is_some).collect())
    }
}

fn check_slice(
    bytes: &[u8],
    layout: &BundleLayout,
    submissions: &[Submission],
    identity: &LedgerIdentity,
    limits: &Limits,
) -> Vec<Result<(), Rejection>> {
    let decoded: Vec<Decoded> = submissions.iter().map(|submission| decode(bytes, layout, submission)).collect();
    let whole: Vec<&[ReceivedTransaction]> = decoded
        .iter()
        .filter_map(|submission| match submission {
            Decoded::Whole(members) => Some(members.as_slice()),
            Decoded::Broken(_) => None,
        })
        .collect();
    let mut checked = check_submissions(&whole, identity, limits).into_iter();
    let mut verdicts = Vec::new();
    for submission in &decoded {
        match submission {
            Decoded::Whole(_) => {
                let members = checked.next().expect("the check answers for every submission");
                verdicts.extend(members.into_iter().map(|verdict| verdict.map(|_| ())));
            }
            Decoded::Broken(decodes) => verdicts.extend(broken_verdicts(decodes)),
        }
    }
    verdicts
}

/// What does not decode is malformed; the others of its group fall with it.
fn broken_verdicts(decodes: &[bool]) -> impl Iterator<Item = Result<(), Rejection>> {
    let first = decodes.iter().position(|decodes| !decodes).and_then(|member| u16::try_from(member).ok());
    let member = first.expect("a broken submission has a broken member, and its members count in 16 bits");
    let malformed = Rejection::Malformed {};
    let fallen = Rejection::GroupMemberRejected { member, code: malformed.code() };
    decodes.iter().map(move |decodes| Err(if *decodes { fallen.clone() } else { malformed.clone() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_grow_with_the_bundle_up_to_the_best_batches() {
        let rows = [(0, 1), (1, 1), (64, 64), (127, 127), (128, 64), (200, 50), (1_024, 64), (4_096, 256)];
        for (transactions, slice) in rows {
            assert_eq!(slice_transactions(transactions), slice, "{transactions} transactions");
        }
    }
}
