//! No false alarm: what the real ledger does is accepted, whatever it is.

use checker::{Chunk, Finding, Replay};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::fixture;
use crate::history::{histories, histories_with_commands};

/// Random histories per test; `SERIATIM_CHECK_CASES` asks for more.
pub(crate) fn cases(default: u32) -> ProptestConfig {
    let asked = std::env::var("SERIATIM_CHECK_CASES").ok().and_then(|cases| cases.parse().ok());
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(asked.unwrap_or(default)) }
}

fn is_accepted(history: &[crate::history::Batch], transactions_max: usize) -> Result<(), TestCaseError> {
    let testimonies = fixture::testimonies(history);
    let (chunks, replay) = fixture::chunks(&testimonies, transactions_max);
    prop_assert!(testimonies.last().is_some_and(|last| replay.frontier().agrees_with(&last.head)));
    for chunk in &chunks {
        match Replay::claimed(chunk).accept(chunk) {
            Ok(accepted) => prop_assert!(accepted.conditional && accepted.after == chunk.after),
            Err(Finding::Inconclusive(reason)) => prop_assert!(reason.contains("a group with commands"), "{reason}"),
            Err(refuted) => return Err(TestCaseError::fail(refuted.to_string())),
        }
        let bytes = ledger::identifier::canonical_bytes(chunk);
        prop_assert_eq!(&borsh::from_slice::<Chunk>(&bytes)?, chunk);
    }
    Ok(())
}

/// Batches of random histories are judged until there were so many.
const BATCHES: usize = 10_000;

#[test]
fn ten_thousand_honest_batches_are_accepted() {
    let (mut runner, mut batches) = (TestRunner::deterministic(), 0);
    let told = (prop_oneof![histories(), histories_with_commands()], 1_usize..30);
    while batches < BATCHES {
        let (history, transactions_max) = told.new_tree(&mut runner).unwrap().current();
        is_accepted(&history, transactions_max).unwrap();
        batches += history.len();
    }
    assert!(batches >= BATCHES);
}

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn what_the_ledger_does_is_accepted(history in histories(), transactions_max in 1_usize..20) {
        is_accepted(&history, transactions_max)?;
    }

    #[test]
    fn what_the_ledger_does_with_commands_is_accepted(
        history in histories_with_commands(),
        transactions_max in 1_usize..20,
    ) {
        is_accepted(&history, transactions_max)?;
    }
}

#[test]
fn a_record_that_does_not_belong_to_its_bundle_is_no_testimony() {
    use checker::collect::{Testimony, TestimonyFault};
    use ledger::batch::BatchRecord;

    let scene = crate::scene::Scene::new();
    let told = &scene.testimonies[0];
    let records: Vec<ledger::OutcomeRecord> = told.lines.iter().map(|line| line.record.clone()).collect();
    let mut bundle = ledger::bundle::BundleBuilder::new();
    for line in &told.lines {
        bundle.push(line.record.stamp, &[line.received.transaction().encode()]);
    }
    let bundle = bundle.finish();
    let places: Vec<ledger::Sequence> = told.lines.iter().flat_map(|line| line.created_at.clone()).collect();
    let nothing_chosen: Vec<(ledger::Origin, ledger::view::Place, ledger::Contract)> = Vec::new();
    let change: Option<ledger::entry::ConfigurationChange> = None;
    let read = |bundle: &[u8], members: &[u32], places: &[ledger::Sequence]| {
        let parts = (told.head, bundle, &records, members, &nothing_chosen, places, &change);
        let record: BatchRecord = borsh::from_slice(&ledger::identifier::canonical_bytes(&parts)).unwrap();
        Testimony::of_record(&record).map(|told| told.lines.len())
    };
    let members: Vec<u32> = (0..).take(records.len()).collect();
    assert_eq!(read(&bundle, &members, &places).unwrap(), records.len());
    assert!(matches!(read(&bundle, &[1, 0], &places), Err(TestimonyFault::Member(_))));
    assert!(matches!(read(&bundle, &members[1..], &places), Err(TestimonyFault::Member(_))));
    assert!(matches!(read(&bundle[1..], &members, &places), Err(TestimonyFault::Bundle(_))));
    let more = [places.as_slice(), &[ledger::Sequence::new(0)]].concat();
    assert!(matches!(read(&bundle, &members, &more), Err(TestimonyFault::Consumed)));
    let fewer = places.split_last().map(|(_, fewer)| fewer);
    assert!(fewer.is_none_or(|fewer| matches!(read(&bundle, &members, fewer), Err(TestimonyFault::Consumed))));
}
