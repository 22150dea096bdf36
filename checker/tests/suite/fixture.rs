//! Evidence of the real ledger: histories are checked, certified and applied by its own code, and what it says of them
//! becomes testimonies.

use checker::collect::{self, Line, Testimony};
use checker::{Chunk, Replay};
use ledger::apply::BatchEffects;
use ledger::transaction::ReceivedTransaction;
use ledger::view::LiveOutput;
use ledger::{Head, Sequence, TransactionId};

use crate::history::Batch;
use crate::support::{Submitted, TestLedger, identity};

/// What a ledger says of a whole history, batch by batch.
pub(crate) fn testimonies(history: &[Batch]) -> Vec<Testimony> {
    let mut ledger = TestLedger::new();
    history.iter().map(|batch| testimony(&mut ledger, batch)).collect()
}

/// Applies a batch and tells it.
pub(crate) fn testimony(ledger: &mut TestLedger, batch: &Batch) -> Testimony {
    let next = ledger.next().get();
    // gateways are up to three transactions behind
    let stamped = |(position, submission): (usize, &Submitted)| Submitted {
        stamp: Sequence::new(next.saturating_sub(u64::try_from(position % 4).unwrap())),
        members: submission.members.clone(),
    };
    let submissions: Vec<Submitted> = batch.submissions.iter().enumerate().map(stamped).collect();
    let effects = ledger.batch(batch.log_time, &submissions);
    testimony_of(*ledger.commitments.head(), &effects, &submissions)
}

/// What a ledger says of a batch with these effects.
pub(crate) fn testimony_of(head: Head, effects: &BatchEffects, submissions: &[Submitted]) -> Testimony {
    let received = |id: &TransactionId, index: usize| {
        // a member of a group may also have been submitted alone: the one that was placed has the outcome's form
        let results = effects.results.iter();
        let member = results
            .zip(submissions.iter().flat_map(|submission| &submission.members))
            .find(|(result, _)| matches!(result, ledger::apply::MemberResult::Sequenced(record) if *record == index));
        let (_, transaction) = member.unwrap();
        assert_eq!(transaction.id(), *id);
        ReceivedTransaction::from(transaction.clone())
    };
    let lines = effects.records.iter().enumerate().map(|(index, record)| Line {
        received: received(&record.transaction, index),
        responded: Some(Sequence::new(record.sequence.get() + 1 + record.sequence.get() % 3)),
        record: record.clone(),
    });
    Testimony {
        // the test ledger's configuration has an epoch from the start
        head: Head { epoch: 0, ..head },
        lines: lines.collect(),
        groups: submissions
            .iter()
            .filter(|submission| submission.members[0].body.atomic.is_some())
            .map(|submission| submission.members.iter().map(ledger::Transaction::id).collect())
            .collect(),
        consumed: effects.consumed.iter().map(|consumed| consumed.output).collect::<Vec<LiveOutput>>(),
    }
}

/// A replay of the test ledger from its beginning.
pub(crate) fn genesis() -> Replay {
    Replay::genesis(identity().cluster, identity().group, 1)
}

/// The chunks of a whole history; the replay that accepted them all.
pub(crate) fn chunks(testimonies: &[Testimony], transactions_max: usize) -> (Vec<Chunk>, Replay) {
    let mut replay = genesis();
    let mut all = Vec::new();
    for testimony in testimonies {
        for chunk in collect::chunks_of(testimony, &replay.clone(), transactions_max) {
            if let Err(finding) = replay.accept(&chunk) {
                panic!("honest evidence is refuted: {finding}");
            }
            all.push(chunk);
        }
    }
    (all, replay)
}
