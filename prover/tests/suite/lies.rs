//! Random lies: the solver proves a batch exactly where the naive model does the same.

use proptest::prelude::*;

use crate::fixture;
use crate::history::{Batch, histories};
use crate::honest::{cases, with_prover};
use crate::liar::{self, Change, Lied};

fn agrees_with_the_model(
    history: &[Batch],
    changes: &[Change],
    victim: usize,
    transactions_max: usize,
    window_units: usize,
) -> Result<(), TestCaseError> {
    let Lied { replay, model, known, told } = Lied::new(history, changes, victim);
    // that a transaction has one place, and that who barred a group has one, is the replay's to know
    prop_assume!(!liar::repeats(&told, &known));
    let is_true = liar::is_true(&model, &told, &known);
    let chunks = liar::chunks(&told, &replay, transactions_max);
    let by_solver: Vec<_> = with_prover(window_units, |prover| {
        chunks.iter().map(|chunk| prover.judge_by_solver(chunk, false).verdict).collect()
    });
    let proved = by_solver.iter().all(checker::Verdict::is_proved);
    let names_the_barred = told.lines.iter().any(|line| {
        matches!(line.record.outcome, ledger::Outcome::Rejected(ledger::Rejection::GroupMemberSequenced { .. }))
    });
    if names_the_barred {
        prop_assert!(proved || !is_true, "{by_solver:?}");
    } else {
        prop_assert_eq!(proved, is_true, "{:?}", by_solver);
    }
    let refuted = by_solver.iter().find_map(|verdict| match verdict {
        checker::Verdict::Refuted(counterexample) => Some(counterexample),
        _ => None,
    });
    prop_assert!(proved || refuted.is_some_and(|found| !found.transactions.is_empty()), "{by_solver:?}");
    Ok(())
}

proptest! {
    #![proptest_config(cases(600))]

    #[test]
    fn evidence_with_other_bits_is_judged_without_a_panic_and_never_attested_as_another_history(
        history in histories(),
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
                let report = with_prover(8, |prover| prover.judge(&changed, &mut replay.clone()));
                let told = |chunk: &checker::Chunk| -> Vec<_> {
                    chunk.entries.iter().map(|entry| (entry.sequence, entry.id(), entry.outcome.clone())).collect()
                };
                prop_assert!(!report.verdict.is_proved() || told(&changed) == told(chunk));
            }
            replay.accept(chunk).map_err(|finding| TestCaseError::fail(finding.to_string()))?;
        }
    }

    #[test]
    fn the_solver_proves_just_what_the_model_does(
        history in histories(),
        changes in prop::collection::vec(any::<Change>(), 1..3),
        victim in any::<usize>(),
        transactions_max in 1_usize..30,
        window in 0_usize..3,
    ) {
        agrees_with_the_model(&history, &changes, victim, transactions_max, [1, 3, 8][window])?;
    }
}
