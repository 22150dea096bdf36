//! Evidence of the real ledger: histories are checked, certified and applied by its own code, and what it says of them
//! becomes testimonies.

use checker::collect::{self, Testimony};
use checker::{Chunk, Replay};
use ledger::apply::BatchEffects;
use ledger::batch::BatchRecord;
use ledger::bundle::BundleBuilder;
use ledger::{Head, Sequence};

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
    let mut bundle = BundleBuilder::new();
    for submission in submissions {
        let encoded: Vec<Vec<u8>> = submission.members.iter().map(ledger::Transaction::encode).collect();
        bundle.push(submission.stamp, &encoded);
    }
    // the test ledger's configuration has an epoch from the start
    let head = Head { epoch: 0, ..head };
    let (record, _) = BatchRecord::of_bundle(head, bundle.finish(), effects.clone());
    let mut told = Testimony::of_record(&record).unwrap();
    let places = effects.consumed.iter().map(|consumed| consumed.output.place.sequence);
    assert!(told.lines.iter().flat_map(|line| &line.created_at).copied().eq(places));
    for line in &mut told.lines {
        let sequence = line.record.sequence.get();
        line.responded = Some(Sequence::new(sequence + 1 + sequence % 3));
    }
    told
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
