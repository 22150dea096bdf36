//! The ledger's test support with the checker at its side: whatever is validated or applied is judged here too.

#[allow(dead_code, reason = "shared with the ledger's own tests")]
#[path = "../../../ledger/tests/suite/support.rs"]
mod original;

use std::cell::Cell;

use checker::{Replay, collect, rules};
use ledger::apply::BatchEffects;
use ledger::check::LedgerIdentity;
use ledger::parallel::Parallel;
use ledger::transaction::ReceivedTransaction;
use ledger::{Limits, LogTime, Outcome, Rejection, Sequence};

pub(crate) use original::{Submitted, asset, identity, issuer_of, key, party};

/// What the tables showed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Seen {
    /// Transactions that both refuse before the order.
    pub(crate) refused: usize,
    /// Transactions in the order whose outcomes the checker confirmed.
    pub(crate) accepted: usize,
}

thread_local! {
    static SEEN: Cell<Seen> = const { Cell::new(Seen { refused: 0, accepted: 0 }) };
}

pub(crate) fn seen() -> Seen {
    SEEN.get()
}

/// The ledger's verdicts, compared with the checker's rules: what only the checker decides from a transaction alone.
pub(crate) fn verdicts(submissions: &[Submitted]) -> Vec<Vec<Result<(), Rejection>>> {
    let verdicts = original::verdicts(submissions);
    // how long it may be valid is judged in the order
    let log_time = LogTime::from_unix_millis(u64::MAX);
    let LedgerIdentity { cluster, group } = identity();
    let context = rules::Context { cluster, group, limits: &Limits::V1, log_time };
    let members = submissions.iter().flat_map(|submission| &submission.members);
    for (member, verdict) in members.zip(verdicts.iter().flatten()) {
        let received = ReceivedTransaction::from(member.clone());
        let judged = rules::judge(&received, &context);
        match verdict {
            Ok(()) => assert_eq!(judged, Ok(()), "{member:?}"),
            // these need the whole group, or the signatures
            Err(Rejection::SignatureInvalid { .. }) => assert!(judged.is_ok() && !rules::signatures_hold(&received)),
            Err(Rejection::GroupIncomplete {} | Rejection::GroupMemberRejected { .. }) => {}
            Err(Rejection::TooMany { counted: ledger::rejection::Counted::GroupMembers, .. }) => {}
            Err(reason) => {
                assert!(judged.is_err(), "{reason} is no rule of the checker: {member:?}");
                SEEN.set(Seen { refused: seen().refused + 1, ..seen() });
            }
        }
    }
    verdicts
}

/// A ledger whose every batch is replayed.
pub(crate) struct TestLedger {
    inner: original::TestLedger,
    replay: Replay,
    /// Kept so that scenarios can read it as the ledger's.
    pub(crate) commitments: ledger::commitments::Commitments,
}

impl TestLedger {
    pub(crate) fn new() -> Self {
        let inner = original::TestLedger::new();
        let replay = Replay::genesis(identity().cluster, identity().group, 5);
        Self { commitments: inner.commitments.clone(), inner, replay }
    }

    pub(crate) fn next(&self) -> Sequence {
        self.inner.next()
    }

    pub(crate) fn batch(&mut self, log_time: LogTime, submissions: &[Submitted]) -> BatchEffects {
        let verdicts: Vec<bool> = verdicts(submissions).iter().flatten().map(Result::is_ok).collect();
        self.batch_certified(&ledger::parallel::Serial, log_time, submissions, &verdicts)
    }

    pub(crate) fn batch_certified(
        &mut self,
        threads: &dyn Parallel,
        log_time: LogTime,
        submissions: &[Submitted],
        verdicts: &[bool],
    ) -> BatchEffects {
        // the stamps of the tables mean nothing
        let submissions: Vec<Submitted> = submissions
            .iter()
            .map(|submission| Submitted { stamp: self.next(), members: submission.members.clone() })
            .collect();
        let effects = self.inner.batch_certified(threads, log_time, &submissions, verdicts);
        self.commitments = self.inner.commitments.clone();
        let head = *self.commitments.head();
        let testimony = crate::fixture::testimony_of(head, &effects, &submissions);
        for chunk in collect::chunks(&testimony, &self.replay.clone()) {
            if let Err(finding) = self.replay.accept(&chunk) {
                panic!("{finding}");
            }
            SEEN.set(Seen { accepted: seen().accepted + chunk.entries.len(), ..seen() });
        }
        effects
    }

    pub(crate) fn answers(effects: &BatchEffects) -> Vec<Option<(Sequence, Outcome)>> {
        original::TestLedger::answers(effects)
    }
}
