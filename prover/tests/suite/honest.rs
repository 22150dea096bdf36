//! No false alarm: what the real ledger does is proved, whatever it is, by the solver alone and by both together.

use checker::Replay;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use prover::{Prover, ProverSettings};

use crate::fixture;
use crate::history::{Batch, histories, histories_with_commands};

/// Random histories per test; `SERIATIM_CHECK_CASES` asks for more.
pub(crate) fn cases(default: u32) -> ProptestConfig {
    let asked = std::env::var("SERIATIM_CHECK_CASES").ok().and_then(|cases| cases.parse().ok());
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(asked.unwrap_or(default)) }
}

/// One prover for all cases of a thread, so that patterns meet again.
pub(crate) fn with_prover<R>(window_units: usize, use_prover: impl FnOnce(&mut Prover) -> R) -> R {
    thread_local! {
        static PROVER: std::cell::RefCell<std::collections::BTreeMap<usize, Prover>> = const {
            std::cell::RefCell::new(std::collections::BTreeMap::new())
        };
    }
    PROVER.with_borrow_mut(|provers| {
        let prover = provers.entry(window_units).or_insert_with(|| {
            Prover::new(ProverSettings {
                window_units,
                chain_window_units: window_units,
                audit_every: 50,
                ..ProverSettings::default()
            })
        });
        use_prover(prover)
    })
}

fn is_proved(history: &[Batch], transactions_max: usize, window_units: usize) -> Result<(), TestCaseError> {
    let testimonies = fixture::testimonies(history);
    let (chunks, _) = fixture::chunks(&testimonies, transactions_max);
    let mut replay: Replay = fixture::genesis();
    for chunk in &chunks {
        let report = with_prover(window_units, |prover| prover.judge(chunk, &mut replay));
        prop_assert!(report.by_solver.is_proved(), "{}", report.by_solver);
        prop_assert!(report.verdict.is_proved(), "{}", report.verdict);
        prop_assert_eq!(report.statistics.undecided, 0);
    }
    Ok(())
}

/// Batches of random histories are judged until there were so many.
const BATCHES: usize = 10_000;

#[test]
fn ten_thousand_honest_batches_are_proved() {
    let (mut runner, mut batches) = (TestRunner::deterministic(), 0);
    let told = (prop_oneof![histories(), histories_with_commands()], 1_usize..30);
    while batches < BATCHES {
        let (history, transactions_max) = told.new_tree(&mut runner).unwrap().current();
        is_proved(&history, transactions_max, [1, 3, 8][batches % 3]).unwrap();
        batches += history.len();
    }
    assert!(batches >= BATCHES);
}

proptest! {
    #![proptest_config(cases(150))]

    #[test]
    fn what_the_ledger_does_is_proved(history in histories(), transactions_max in 1_usize..30, window in 0_usize..3) {
        is_proved(&history, transactions_max, [1, 3, 8][window])?;
    }

    #[test]
    fn what_the_ledger_does_with_commands_is_proved(
        history in histories_with_commands(),
        transactions_max in 1_usize..30,
        window in 0_usize..3,
    ) {
        is_proved(&history, transactions_max, [1, 3, 8][window])?;
    }
}
