//! Random lies: a chunk is accepted exactly where the naive model does the same.

use checker::{Finding, Replay, collect};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::fixture;
use crate::history::{histories, histories_with_commands};
use crate::honest::cases;
use crate::liar::{self, Change, Lied};

/// Whether the batch was told as it was; the checker has to say the same.
fn agrees_with_the_model(lied: &Lied, transactions_max: usize) -> Result<bool, TestCaseError> {
    let Lied { replay, model, known, told } = lied;
    let is_true = !liar::repeats(told, known) && liar::is_true(model, told, known);
    prop_assert_eq!(here(told, replay), apart(told, replay));
    let verdict = accept_all(told, &mut replay.clone(), transactions_max);
    prop_assert_eq!(verdict.is_ok(), is_true, "{:?}", verdict);
    if let Err(Finding::Refuted(counterexample)) = verdict {
        prop_assert!(!counterexample.transactions.is_empty(), "nobody is named: {}", counterexample);
    }
    Ok(is_true)
}

/// Random lies are told until there were so many.
const LIES: usize = 10_000;

#[test]
fn ten_thousand_lies_are_refuted_and_what_only_looks_like_one_is_not() {
    let (mut lies, mut truths) = (0, 0);
    let mut runner = TestRunner::deterministic();
    let changes = prop::collection::vec(prop::collection::vec(any::<Change>(), 1..3), 40);
    let histories = prop_oneof![histories(), histories_with_commands()];
    let told = (histories, changes, any::<usize>(), 1_usize..30);
    while lies < LIES {
        let (history, changes, victim, transactions_max) = told.new_tree(&mut runner).unwrap().current();
        let honest = Lied::not_yet(&history, victim);
        for changes in changes {
            match agrees_with_the_model(&honest.with(&changes), transactions_max).unwrap() {
                true => truths += 1,
                false => lies += 1,
            }
        }
    }
    assert!(lies >= LIES && truths > LIES / 100, "{lies} lies, {truths} truths");
    println!("{lies} lies refuted, {truths} truths accepted");
}

fn accept_all(told: &collect::Testimony, replay: &mut Replay, transactions_max: usize) -> Result<(), Finding> {
    liar::chunks(told, replay, transactions_max).iter().try_for_each(|chunk| replay.accept(chunk).map(|_| ()))
}

/// What is found of chunks that were made here, without hashing twice.
fn here(told: &collect::Testimony, replay: &Replay) -> Result<(), Finding> {
    let (chunks, mut replay) = (collect::collected(told.clone(), replay), replay.clone());
    chunks.iter().try_for_each(|chunk| replay.accept_collected(chunk).map(|_| ()))
}

/// The same of chunks from anywhere.
fn apart(told: &collect::Testimony, replay: &Replay) -> Result<(), Finding> {
    let (chunks, mut replay) = (collect::chunks(told, replay), replay.clone());
    chunks.iter().try_for_each(|chunk| replay.accept(chunk).map(|_| ()))
}

proptest! {
    #![proptest_config(cases(600))]

    #[test]
    fn evidence_with_other_bits_is_no_other_history(
        history in histories_with_commands(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..8), 1..4),
    ) {
        let testimonies = fixture::testimonies(&history);
        let (chunks, _) = fixture::chunks(&testimonies, 8);
        let mut replay = fixture::genesis();
        for chunk in &chunks {
            let mut bytes = ledger::identifier::canonical_bytes(chunk);
            for (at, bit) in &flips {
                let at = at.index(bytes.len());
                bytes[at] ^= 1 << bit;
            }
            if let Ok(changed) = borsh::from_slice::<checker::Chunk>(&bytes) {
                let alone = Replay::claimed(&changed).accept(&changed);
                let told = |chunk: &checker::Chunk| -> Vec<_> {
                    chunk.entries.iter().map(|entry| (entry.sequence, entry.id(), entry.outcome.clone())).collect()
                };
                if replay.clone().accept(&changed).is_ok() {
                    prop_assert_eq!(told(&changed), told(chunk));
                    prop_assert!(alone.is_ok() || matches!(alone, Err(Finding::Inconclusive(_))), "{alone:?}");
                }
            }
            replay.accept(chunk).map_err(|finding| TestCaseError::fail(finding.to_string()))?;
        }
    }

    #[test]
    fn the_checker_accepts_just_what_the_model_does(
        history in histories(),
        changes in prop::collection::vec(any::<Change>(), 1..3),
        victim in any::<usize>(),
        transactions_max in 1_usize..30,
    ) {
        agrees_with_the_model(&Lied::new(&history, &changes, victim), transactions_max)?;
    }

    #[test]
    fn the_checker_accepts_just_what_the_model_does_with_commands(
        history in histories_with_commands(),
        changes in prop::collection::vec(any::<Change>(), 1..3),
        victim in any::<usize>(),
        transactions_max in 1_usize..30,
    ) {
        agrees_with_the_model(&Lied::new(&history, &changes, victim), transactions_max)?;
    }
}
